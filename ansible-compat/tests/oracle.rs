//! Generated inventories read by landfall and by ansible-core itself: both must say the same.
//!
//! `LANDFALL_ORACLE_PYTHON` names a Python that has ansible-core 2.19; `cargo xtask test` installs one and sets it.
//! Without it the test cannot say anything, and so it is only run when asked for (`--ignored`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod numbers;

use landfall_ansible::Request;
use landfall_ansible::listing::{self, Export};
use landfall_ansible::tree::Disk;
use numbers::Numbers;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const HOSTS: [&str; 9] = [
    "a",
    "b1",
    "n[1:3]",
    "w[01:02].lan",
    "10.0.0.1",
    "x-[a:c]",
    "h:2222",
    "m[1:2]:22",
    "z",
];
const GROUPS: [&str; 7] = ["kube_node", "masters", "web", "top", "mid", "low", "k8s-cluster"];
const INI_VALUES: [&str; 16] = [
    "1",
    "yes",
    "True",
    "'x y'",
    "\"1\"",
    "[1,2]",
    "{'a': 'b'}",
    "010",
    "1.5",
    "''",
    "None",
    "{{ x }}",
    "10.0.0.0/8",
    "a#b",
    "(1,)",
    "é",
];
const YAML_VALUES: [&str; 18] = [
    "1",
    "yes",
    "'no'",
    "0644",
    "1:30",
    "~",
    "[a, 1, off]",
    "{a: {b: c}}",
    "1.5",
    "1e3",
    "!unsafe '{{ y }}'",
    "'{{ y }}'",
    "\"é\"",
    "2.0.1",
    "0x1f",
    ".5",
    "1_000",
    "!!str 7",
];

fn variables(numbers: &mut Numbers, values: &[&str], most: usize) -> Vec<(&'static str, String)> {
    let names = ["x", "y", "ansible_user", "ip", "kube_version", "ansible_host"];
    (0..numbers.next(most + 1))
        .map(|_| (names[numbers.next(names.len())], numbers.pick(values).to_owned()))
        .collect()
}

/// Groups below others come later in this list, so that no loop arises.
fn children(numbers: &mut Numbers, at: usize) -> Vec<&'static str> {
    GROUPS[at + 1..].iter().copied().filter(|_| numbers.chance(3)).collect()
}

fn ini(numbers: &mut Numbers) -> String {
    let mut sections = vec![];
    let mut used = vec![];
    let mut needed: Vec<&str> = vec![];
    for (at, group) in GROUPS.iter().enumerate() {
        if numbers.chance(2) {
            continue;
        }
        used.push(*group);
        let mut text = format!("[{group}]\n");
        for _ in 0..numbers.next(4) {
            text.push_str(numbers.pick(&HOSTS));
            for (name, value) in variables(numbers, &INI_VALUES, 2) {
                // Quotes around a whole value are taken away with the line's own; so some are quoted twice.
                let _ = if value.contains([' ', '\'', '"']) {
                    write!(text, " {name}=\"{}\"", value.replace('"', "\\\""))
                } else {
                    write!(text, " {name}={}", value.replace('#', "_"))
                };
            }
            text.push_str(if numbers.chance(4) { " # c\n" } else { "\n" });
        }
        sections.push(text);
        let below = children(numbers, at);
        if !below.is_empty() && numbers.chance(2) {
            // Deeper than one level Ansible's own order of hosts is not stable, but groups are.
            sections.push(format!("[{group}:children]\n{}\n", below.join("\n")));
            needed.extend(below);
        }
        let vars = variables(numbers, &INI_VALUES, 2);
        if !vars.is_empty() {
            let lines: String = vars.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
            sections.push(format!("[{group}:vars]\n{lines}"));
        }
    }
    for group in needed {
        if !used.contains(&group) {
            used.push(group);
            sections.push(format!("[{group}]\n"));
        }
    }
    if numbers.chance(3) {
        sections.push("[all:vars]\nx=all\nansible_group_priority=3\n".to_owned());
    }
    for i in (1..sections.len()).rev() {
        sections.swap(i, numbers.next(i + 1));
    }
    let lone = if numbers.chance(3) { "lone x=1\n" } else { "" };
    format!("{lone}{}", sections.join("\n"))
}

fn yaml(numbers: &mut Numbers) -> String {
    let mut text = String::new();
    if numbers.chance(2) {
        text.push_str("all:\n  vars:\n    x: all\n  hosts:\n    lone:\n");
    }
    for (at, group) in GROUPS.iter().enumerate() {
        if numbers.chance(2) && !text.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{group}:");
        let mut hosts: Vec<&str> = (0..numbers.next(3)).map(|_| numbers.pick(&HOSTS)).collect();
        hosts.sort_unstable();
        hosts.dedup();
        if !hosts.is_empty() {
            text.push_str("  hosts:\n");
        }
        for host in hosts {
            let _ = writeln!(text, "    \"{host}\":");
            let mut vars = variables(numbers, &YAML_VALUES, 2);
            vars.sort();
            vars.dedup_by(|a, b| a.0 == b.0);
            for (name, value) in vars {
                let _ = writeln!(text, "      {name}: {value}");
            }
        }
        let below = children(numbers, at);
        if !below.is_empty() {
            let lines: String = below.iter().map(|child| format!("    {child}:\n")).collect();
            let _ = write!(text, "  children:\n{lines}");
        }
        if numbers.chance(2) {
            let _ = writeln!(text, "  vars:\n    y: {}", numbers.pick(&YAML_VALUES));
        }
    }
    text
}

/// Writes one inventory, with files of variables beside it, and returns its path.
fn write(dir: &Path, seed: u64) -> PathBuf {
    let numbers = &mut Numbers(seed);
    let kind = numbers.next(4);
    let (name, text) = match kind {
        0 => ("hosts.yml", yaml(numbers)),
        1 => ("hosts.yml", ini(numbers)),
        2 => ("hosts", yaml(numbers)),
        _ => ("hosts.ini", ini(numbers)),
    };
    std::fs::create_dir_all(dir.join("group_vars")).unwrap();
    std::fs::create_dir_all(dir.join("host_vars/b1")).unwrap();
    std::fs::write(dir.join(name), text).unwrap();
    for file in [
        "group_vars/all.yml",
        "group_vars/top.yaml",
        "group_vars/web",
        "host_vars/a.json",
        "host_vars/b1/x.yml",
    ] {
        if numbers.chance(3) {
            let value = if file.ends_with("json") {
                "3"
            } else {
                numbers.pick(&YAML_VALUES)
            };
            let text = if file.ends_with("json") {
                format!("{{\"y\": {value}}}")
            } else {
                format!("y: {value}\n")
            };
            std::fs::write(dir.join(file), text).unwrap();
        }
    }
    dir.join(name)
}

/// Patterns of `--limit` for an inventory: names of groups and hosts, globs, places.
fn patterns(seed: u64) -> Vec<String> {
    let numbers = &mut Numbers(seed ^ 0x11);
    let parts = [
        "a",
        "b1",
        "n1",
        "n*",
        "w0?.lan",
        "z",
        "lone",
        "kube_node",
        "masters",
        "web",
        "top",
        "k8s-cluster",
        "all",
        "~[abz]",
        "n[!13]",
        "masters[0]",
        "web[0]",
    ];
    let marks = ["", "", "!", "&"];
    let pattern = |numbers: &mut Numbers| {
        let parts: Vec<String> = (0..=numbers.next(3))
            .map(|_| numbers.pick(&marks).to_owned() + numbers.pick(&parts))
            .collect();
        parts.join(numbers.pick(&[":", ","]))
    };
    (0..4).map(|_| pattern(numbers)).collect()
}

/// Asks ansible-core about all inventories, in one process.
fn ask(python: &str, home: &Path, paths: &[PathBuf], asked: &[Vec<String>]) -> Vec<Value> {
    let config = home.join("ansible.cfg");
    std::fs::write(&config, "").unwrap();
    let mut child = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle.py"))
        .env("ANSIBLE_CONFIG", &config)
        .env("ANSIBLE_NOCOLOR", "1")
        .env("ANSIBLE_HOST_PATTERN_MISMATCH", "error")
        .env("USER", "me")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: String = paths
        .iter()
        .zip(asked)
        .map(|(path, asked)| format!("{}\t{}\n", path.display(), asked.join("\t")))
        .collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()).unwrap());
    let answers = BufReader::new(child.stdout.take().unwrap()).lines();
    let answers = answers
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    answers
}

fn landfall(path: &Path, export: Export) -> (Value, String) {
    let request = Request {
        sources: vec![path.display().to_string()],
        ..Request::default()
    };
    listing::with(&request, &Disk, export, |l| Ok((l.list(), l.graph("all", false)?))).unwrap_or_else(|problems| {
        panic!(
            "{}: {problems:?}\n{}",
            path.display(),
            std::fs::read_to_string(path).unwrap()
        )
    })
}

fn limited(path: &Path, pattern: &str) -> Option<Vec<String>> {
    let request = Request {
        sources: vec![path.display().to_string()],
        ..Request::default()
    };
    let chosen = listing::with(&request, &Disk, Export::Flattened, |l| Ok(l.limited(pattern, &Disk)));
    chosen.unwrap().ok().map(|hosts| hosts.into_iter().collect())
}

#[test]
#[ignore = "needs LANDFALL_ORACLE_PYTHON, a Python with ansible-core 2.16 to 2.19; cargo xtask test installs one"]
fn generated_inventories_are_printed_as_ansible_prints_them() {
    let python = std::env::var("LANDFALL_ORACLE_PYTHON").expect("names a Python that has ansible-core");
    let count = std::env::var("LANDFALL_ORACLE_COUNT").map_or(300, |n| n.parse().unwrap());
    let first: u64 = std::env::var("LANDFALL_ORACLE_SEED").map_or(1, |n| n.parse().unwrap());
    let home = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (first..first + count)
        .map(|seed| write(&home.path().join(seed.to_string()), seed))
        .collect();
    let asked: Vec<Vec<String>> = (first..first + count).map(patterns).collect();
    let answers = ask(&python, home.path(), &paths, &asked);
    assert_eq!(answers.len(), paths.len(), "every inventory has an answer");
    for ((path, answer), asked) in paths.iter().zip(&answers).zip(&asked) {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(answer.get("error").is_none(), "{}: {answer}\n{text}", path.display());
        let (list, graph) = landfall(path, Export::Flattened);
        let (export, _) = landfall(path, Export::AsSet);
        for (what, mut found) in [("list", list), ("export", export), ("graph", Value::from(graph))] {
            // ansible-core before 2.19 names no profile.
            if answer[what]["_meta"]["profile"].is_null()
                && let Some(meta) = found.get_mut("_meta").and_then(Value::as_object_mut)
            {
                meta.remove("profile");
            }
            assert_eq!(found, answer[what], "{what} of {}\n{text}", path.display());
        }
        for (pattern, wanted) in asked.iter().zip(answer["limits"].as_array().unwrap()) {
            let wanted: Option<Vec<String>> = serde_json::from_value(wanted.clone()).unwrap();
            assert_eq!(
                limited(path, pattern),
                wanted,
                "--limit {pattern} of {}\n{text}",
                path.display()
            );
        }
    }
}
