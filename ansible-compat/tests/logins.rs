//! Generated logins, made out by landfall and by Ansible itself: both must log in alike.
//!
//! `LANDFALL_ORACLE_PYTHON` names a Python that has ansible-core 2.19; its `ansible` is run with a stand-in for ssh (`ssh.py`) that
//! notes its arguments. Without it the test cannot say anything, and so it is only run when asked for (`--ignored`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod numbers;

use landfall_ansible::tree::Disk;
use landfall_ansible::{Environment, Keys, Request, config, read};
use landfall_core::inventory::Connect;
use landfall_core::secret::Secret;
use numbers::Numbers;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Hosts of one inventory; one run of `ansible` logs in to all.
const HOSTS: usize = 20;

/// Variables of logins, and values for them that are the same in YAML and, within quotes, in INI. `VAULT` becomes a vaulted value.
const VARIABLES: [(&str, &[&str]); 12] = [
    (
        "ansible_user",
        &["pi", "{{ who }}", "{{ nobody | default('ann') }}", ""],
    ),
    ("ansible_ssh_user", &["old", "{{ who | upper | lower }}"]),
    ("ansible_port", &["2222", "{{ 2000 + 22 }}", "22"]),
    ("ansible_ssh_port", &["2200"]),
    (
        "ansible_private_key_file",
        &["keys/one", "~/.ssh/two", "{{ inventory_dir }}/three", ""],
    ),
    (
        "ansible_ssh_private_key_file",
        &[
            "/k/{{ inventory_hostname }}",
            "/k/{{ 'a' if 'kube_node' in group_names else 'b' }}",
        ],
    ),
    ("ansible_password", &["geheim", "{{ secret }}", "VAULT"]),
    ("ansible_ssh_pass", &["older", "VAULT"]),
    ("ansible_become", &["true", "yes", "no", "false", "{{ root }}"]),
    ("ansible_become_password", &["sudopw", "{{ secret }}", "VAULT"]),
    ("ansible_become_pass", &["sudopass"]),
    (
        "ansible_host",
        &["{{ inventory_hostname }}.lan", "{{ net }}.{{ inventory_hostname[1:] }}"],
    ),
];

fn variables(numbers: &mut Numbers, most: usize) -> Vec<(&'static str, &'static str)> {
    let mut found: BTreeMap<&str, &str> = BTreeMap::new();
    for _ in 0..numbers.next(most + 1) {
        let (name, values) = VARIABLES[numbers.next(VARIABLES.len())];
        found.insert(name, numbers.pick(values));
    }
    found.into_iter().collect()
}

fn yaml(variables: &[(&str, &str)], vaulted: &str) -> String {
    let line = |(name, value): &(&str, &str)| match *value {
        "VAULT" => format!("{name}: !vault |\n{vaulted}\n"),
        "true" | "yes" | "no" | "false" => format!("{name}: {value}\n"),
        value => format!("{name}: {}\n", Value::from(value)),
    };
    variables.iter().map(line).collect()
}

/// One inventory with the files around it.
struct Case {
    dir: PathBuf,
    user: Option<&'static str>,
    private_key: Option<&'static str>,
    extra_vars: Vec<String>,
}

fn write(dir: &Path, seed: u64, vaulted: &str) -> Case {
    let numbers = &mut Numbers(seed);
    for name in ["group_vars", "host_vars", "logins"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    let put = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    let mut cfg = String::from("[defaults]\nhost_key_checking = False\n");
    for line in [
        "remote_user = cfg\n",
        "private_key_file = keys/cfg\n",
        "remote_port = 2020\n",
    ] {
        cfg.push_str(if numbers.chance(3) { line } else { "" });
    }
    cfg.push_str("[privilege_escalation]\n");
    cfg.push_str(if numbers.chance(4) { "become = true\n" } else { "" });
    put("ansible.cfg", &cfg);
    let always = "who: carol\nsecret: hidden\nroot: true\nnet: 10.0.1\n";
    // Ansible leaves it to a play whether sudo is used, landfall needs root: so every inventory says it.
    let becomes = format!("ansible_become: {}\n", numbers.pick(&["true", "false"]));
    let all: Vec<_> = variables(numbers, 3)
        .into_iter()
        .filter(|v| v.0 != "ansible_become")
        .collect();
    put(
        "group_vars/all.yml",
        &(always.to_owned() + &becomes + &yaml(&all, vaulted)),
    );
    put("group_vars/kube_node.yml", &yaml(&variables(numbers, 2), vaulted));
    put("host_vars/h3.yml", &yaml(&variables(numbers, 4), vaulted));
    let mut hosts = String::from("[kube_control_plane]\n");
    for host in 0..HOSTS {
        hosts.push_str(if host == 1 { "[kube_node]\n" } else { "" });
        let _ = write!(hosts, "h{host}");
        for (name, value) in variables(numbers, 4).into_iter().filter(|(_, value)| *value != "VAULT") {
            let _ = write!(hosts, " {name}=\"{value}\"");
        }
        hosts.push('\n');
    }
    put("hosts", &hosts);
    Case {
        dir: dir.to_owned(),
        user: numbers.chance(3).then_some("flag"),
        private_key: numbers.chance(4).then_some("keys/flag"),
        extra_vars: if numbers.chance(5) {
            vec!["ansible_user=extra".to_owned()]
        } else {
            vec![]
        },
    }
}

/// How to log in to a machine, as both can tell it.
#[derive(Debug, PartialEq, Eq)]
struct Login {
    host: String,
    port: u16,
    user: String,
    key: Option<PathBuf>,
    password: Option<String>,
    becomes: bool,
    become_password: Option<String>,
}

/// Asks Ansible, host by host in the order of its stand-in's notes.
fn ask(python: &str, case: &Case) -> Vec<Login> {
    let program = Path::new(python).with_file_name("ansible");
    let ssh = case.dir.join("ssh");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ssh.py");
    fs::write(&ssh, format!("#!/bin/sh\nexec '{python}' '{script}' \"$@\"\n")).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(case.dir.join("vault"), "test").unwrap();
    let mut ansible = Command::new(program);
    ansible.args(["all", "--inventory"]).arg(case.dir.join("hosts"));
    ansible.args(["--module-name", "raw", "--args", "true", "--forks", "5"]);
    ansible.arg("--vault-password-file").arg(case.dir.join("vault"));
    for (flag, value) in [("--user", case.user), ("--private-key", case.private_key)] {
        ansible.args(value.into_iter().flat_map(|value| [flag, value]));
    }
    ansible.args(case.extra_vars.iter().flat_map(|value| ["--extra-vars", value]));
    ansible
        .current_dir(&case.dir)
        .env_remove("ANSIBLE_CONFIG")
        .env("ANSIBLE_SSH_EXECUTABLE", &ssh)
        .env("HOME", &case.dir)
        .env("LOGINS", case.dir.join("logins"))
        .env("LC_ALL", "C.UTF-8");
    let output = ansible.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}: {text}", case.dir.display());
    let notes = fs::read_dir(case.dir.join("logins")).unwrap();
    notes
        .map(|note| {
            login(
                &serde_json::from_str(&fs::read_to_string(note.unwrap().path()).unwrap()).unwrap(),
                case,
            )
        })
        .collect()
}

fn login(note: &Value, case: &Case) -> Login {
    let words: Vec<&str> = note["arguments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| w.as_str().unwrap())
        .collect();
    let option = |name: &str| {
        let found = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.map(|value| value.trim_matches('"').to_owned())
    };
    let text = |name: &str| note[name].as_str().map(str::to_owned);
    Login {
        host: (*words.last().unwrap()).to_owned(),
        port: option("Port").map_or(22, |port| port.parse().unwrap()),
        user: option("User").unwrap_or_else(|| "me".to_owned()),
        key: option("IdentityFile").map(|key| absolute(Path::new(&key), &case.dir)),
        password: text("password"),
        becomes: note["become"].as_bool().unwrap(),
        become_password: text("become_password"),
    }
}

fn absolute(key: &Path, dir: &Path) -> PathBuf {
    match key.strip_prefix("~") {
        Ok(rest) => dir.join(rest),
        Err(_) => dir.join(key),
    }
}

fn landfall(case: &Case) -> Vec<Login> {
    let env = BTreeMap::from([
        ("HOME".to_owned(), case.dir.display().to_string()),
        ("USER".to_owned(), "me".to_owned()),
    ]);
    let config = config::find(&Disk, &env, &case.dir).unwrap();
    let mut keys = Keys::default();
    keys.add(None, Secret::new("test"));
    let request = Request {
        sources: vec![case.dir.join("hosts").display().to_string()],
        user: case.user.map(str::to_owned),
        private_key: case.private_key.map(str::to_owned),
        extra_vars: case.extra_vars.clone(),
        keys,
        ..Request::default()
    };
    let environment = Environment {
        env,
        cwd: case.dir.clone(),
    };
    let understood = read(&request, &config, &environment, &Disk)
        .unwrap_or_else(|problems| panic!("{}: {problems:?}", case.dir.display()));
    let nodes = understood.desired.inventory.nodes.into_iter();
    nodes.map(|node| of(&node.connect, &case.dir)).collect()
}

fn of(connect: &Connect, dir: &Path) -> Login {
    let text = |secret: &Option<Secret>| secret.as_ref().map(|s| String::from_utf8(s.expose().to_vec()).unwrap());
    // landfall expands `~` by the process's home directory, which is not the case's.
    let home = std::env::var("HOME").unwrap_or_default();
    let key = connect.private_key.as_ref().map(|key| match key.strip_prefix(&home) {
        Ok(rest) if !home.is_empty() => dir.join(rest),
        _ => absolute(key, dir),
    });
    Login {
        host: connect.host.clone(),
        port: connect.port,
        user: connect.user.clone(),
        key,
        password: text(&connect.password),
        becomes: connect.become_root,
        become_password: text(&connect.become_password).filter(|_| connect.become_root),
    }
}

/// Encrypts a value as `ansible-vault` does, indented for YAML.
fn vault(python: &str) -> String {
    let script = "from ansible.parsing.vault import VaultLib, VaultSecret\n\
                  print(VaultLib([('default', VaultSecret(b'test'))]).encrypt('vaulted').decode())";
    let output = Command::new(python).args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim()
        .lines()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
#[ignore = "needs LANDFALL_ORACLE_PYTHON, a Python with ansible-core 2.19; cargo xtask test installs one"]
fn generated_logins_are_made_as_ansible_makes_them() {
    let python = std::env::var("LANDFALL_ORACLE_PYTHON").expect("names a Python that has ansible-core");
    let count: usize = std::env::var("LANDFALL_ORACLE_LOGINS").map_or(100, |n| n.parse().unwrap());
    let first: u64 = std::env::var("LANDFALL_ORACLE_SEED").map_or(1, |n| n.parse().unwrap());
    let home = tempfile::tempdir().unwrap();
    let vaulted = vault(&python);
    let inventories = u64::try_from(count.div_ceil(HOSTS)).unwrap();
    for seed in first..first + inventories {
        let case = write(&home.path().join(seed.to_string()), seed, &vaulted);
        let sorted = |logins: Vec<Login>| {
            let mut lines: Vec<String> = logins.iter().map(|login| format!("{login:?}")).collect();
            lines.sort();
            lines
        };
        let (wanted, found) = (sorted(ask(&python, &case)), sorted(landfall(&case)));
        assert_eq!(wanted.len(), HOSTS, "seed {seed}: Ansible logged in to every host");
        let only = |these: &[String], others: &[String]| {
            let lines = these.iter().filter(|line| !others.contains(line));
            lines.map(|line| format!("\n  {line}")).collect::<String>()
        };
        let (ansible, ours) = (only(&wanted, &found), only(&found, &wanted));
        let inventory = fs::read_to_string(case.dir.join("hosts")).unwrap();
        assert!(
            ansible.is_empty() && ours.is_empty(),
            "seed {seed}\nAnsible:{ansible}\nlandfall:{ours}\n{inventory}"
        );
    }
}
