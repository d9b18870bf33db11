//! Whole inventories: from text and files to what the installer wants.

use crate::listing::{self, Export};
use crate::tree::{Disk, Files};
use crate::{Environment, Request, Understood, config::Config, read};
use landfall_core::explain::Code;
use landfall_core::explain::Diagnosis;
use landfall_core::inventory::{Connection, Node, Proxy, Role};
use landfall_core::spec::{Desired, Profile, parse::expand_home};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/inventories")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

/// Says that the local user is `me`.
fn environment() -> Environment {
    Environment {
        env: BTreeMap::from([("USER".to_owned(), "me".to_owned())]),
        cwd: "/w".into(),
    }
}

fn request(path: &str) -> Request {
    Request {
        sources: vec![path.to_owned()],
        ..Request::default()
    }
}

fn desired(name: &str) -> Desired {
    let (path, _) = fixture(name);
    let request = request(path.to_str().unwrap());
    read(&request, &Config::default(), &environment(), &Disk)
        .unwrap()
        .desired
}

/// Reads an inventory of these files; the local user is `me`.
fn files(path: &str, files: &[(&str, &str)]) -> Result<Understood, Vec<Diagnosis>> {
    read(&request(path), &Config::default(), &environment(), &Files::of(files))
}

/// Reads an inventory with no files beside it; the local user is `me`.
fn text(path: &str, text: &str) -> Result<Desired, String> {
    files(path, &[(path, text)])
        .map(|u| u.desired)
        .map_err(|list| list.iter().map(|d| format!("{} {}\n", d.code, d.what)).collect())
}

/// Reads a cluster of one node whose host line has `vars`.
fn one(vars: &str) -> Result<Node, String> {
    text("h.ini", &format!("[masters]\ncp {vars}\n")).map(|mut d| d.inventory.nodes.remove(0))
}

fn password(node: &Node) -> Option<&[u8]> {
    node.connect.password.as_ref().map(|p| p.expose())
}

#[test]
fn the_scenario_is_read_from_ini_and_yaml_alike() {
    let ini = desired("seed.ini");
    assert_eq!(ini, desired("seed.yml"));
    assert_eq!(ini.spec.name, "seed");
    assert_eq!(ini.inventory.control_planes().count(), 3);
    for (node, address) in ini
        .inventory
        .nodes
        .iter()
        .zip(["192.168.0.169", "192.168.0.170", "192.168.0.171"])
    {
        assert!(node.schedulable && !node.connect.become_root, "{}", node.name);
        assert_eq!(node.connect.host, address);
        assert_eq!(node.ip.unwrap().to_string(), address);
        assert_eq!(node.connect.private_key, Some(expand_home("~/.ssh/id_ed25519")));
    }
}

#[test]
fn three_control_planes_two_workers_and_one_outside_are_read_with_their_files() {
    let desired = desired("three-plus-two/hosts.ini");
    let nodes = &desired.inventory.nodes;
    let names: Vec<_> = nodes.iter().map(|n| (n.name.as_str(), n.role, n.schedulable)).collect();
    use Role::{ControlPlane, Outside, Worker};
    let wanted = [
        ("cp-1", ControlPlane, false),
        ("cp-2", ControlPlane, false),
        ("cp-3", ControlPlane, false),
        ("w-01", Worker, true),
        ("w-02", Worker, true),
        ("pc", Outside, false),
    ];
    assert_eq!(names, wanted);
    assert_eq!(
        (desired.spec.profile, desired.spec.ingress.http_port),
        (Profile::Lab, 8081)
    );
    let (cp, worker, pc) = (&nodes[0], &nodes[3], &nodes[5]);
    assert_eq!((cp.connect.user.as_str(), cp.connect.port), ("admin", 22));
    assert_eq!(
        cp.connect.become_password.as_ref().unwrap().expose(),
        b"not-a-real-password"
    );
    assert_eq!(
        (cp.ip.unwrap().to_string(), cp.access_ip.unwrap().to_string()),
        ("10.20.1.11".into(), "10.20.0.11".into())
    );
    assert_eq!(
        (worker.connect.host.as_str(), worker.connect.port),
        ("10.20.0.21", 2222)
    );
    assert_eq!(worker.connect.private_key, Some("keys/workers".into()));
    assert_eq!((pc.connect.user.as_str(), pc.connect.become_root), ("ops", false));
    assert!(pc.connect.become_password.is_none());
}

#[test]
fn variables_are_those_that_ansible_prints() {
    for name in ["seed.ini", "seed.yml", "three-plus-two/hosts.ini", "tricky/hosts.ini"] {
        let (path, _) = fixture(name);
        let (_, recorded) = fixture(&format!("{name}.ansible.json"));
        let recorded: serde_json::Value = serde_json::from_str(&recorded).unwrap();
        let request = request(path.to_str().unwrap());
        let mut found = listing::with(&request, &Disk, Export::Flattened, |l| Ok(l.list())).unwrap();
        // Older versions name no profile.
        found["_meta"].as_object_mut().unwrap().remove("profile");
        let mut wanted = recorded.clone();
        wanted["_meta"].as_object_mut().unwrap().remove("profile");
        assert!(wanted["_meta"]["hostvars"].as_object().unwrap().len() >= 3);
        assert_eq!(found, wanted, "{name}");
    }
}

#[test]
fn three_errors_are_all_named_and_no_secret_is() {
    let (path, _) = fixture("three-errors.ini");
    let request = request(path.to_str().unwrap());
    let problems = read(&request, &Config::default(), &environment(), &Disk).unwrap_err();
    let all = problems.iter().map(|p| p.what.clone()).collect::<Vec<_>>().join("\n");
    assert_eq!(problems.len(), 3, "{all}");
    for wanted in [
        "three-errors.ini: line 2, ansible_port: \"ssh\" is no port",
        "three-errors.ini: line 3, ip: \"10.20.0.300\" is no IP address",
        "three-errors.ini: line 4, ansible_connection: \"winrm\" is not supported",
    ] {
        assert!(all.contains(wanted), "{wanted} is not named in:\n{all}");
    }
    assert!(!all.contains("hush"));
    assert!(problems.iter().all(|p| p.code == Code::SpecValue));
}

#[test]
fn a_problem_of_a_group_is_named_once_and_those_of_other_files_with_them() {
    let problems = files(
        "i/h.ini",
        &[
            ("i/h.ini", "[masters]\na\nb\n[oops:vars]\n"),
            (
                "i/group_vars/all.yml",
                "ansible_port: 0\nlandfall: {name: [x], colour: red, nodes: []}\n",
            ),
            ("i/group_vars/masters.yml", "a: [\n"),
        ],
    )
    .unwrap_err();
    let all = problems.iter().map(|p| p.what.clone()).collect::<Vec<_>>().join("\n");
    for wanted in [
        "i/h.ini: line 4: the group oops",
        "i/group_vars/all.yml: ansible_port: \"0\"",
        "i/group_vars/masters.yml is no valid YAML",
        "i/group_vars/all.yml: landfall.name: ",
        "i/group_vars/all.yml: landfall.colour: ",
        "i/group_vars/all.yml: landfall.nodes: ",
        "2 control planes",
    ] {
        assert_eq!(all.matches(wanted).count(), 1, "{wanted} is not named once in:\n{all}");
    }
    assert_eq!(problems.len(), 7, "{all}");
}

#[test]
fn the_example_of_the_readme_is_read() {
    let readme = include_str!("../README.md");
    let example = readme
        .split("```")
        .nth(1)
        .and_then(|block| block.strip_prefix("ini\n"))
        .unwrap();
    let desired = text("h.ini", example).unwrap();
    assert_eq!((desired.spec.name.as_str(), desired.inventory.nodes.len()), ("ship", 4));
}

#[test]
fn workers_decide_who_takes_workloads() {
    for (inventory, wanted) in [
        ("[masters]\na\n", "a+"),
        ("[masters]\na\n[workers]\nb\n", "a- b+"),
        ("[masters]\na\n[kube_node]\na\nb\n", "a+ b+"),
        ("[kube_control_plane]\na\nb\nc\n[kube_node]\nb\n", "a- b+ c-"),
        ("[kube_control_plane]\na\n[masters]\nc\na\nb\n[lb]\nz\n", "a+ c+ b+"),
    ] {
        let nodes = text("h.ini", inventory).unwrap().inventory.nodes;
        let found: Vec<_> = nodes
            .iter()
            .map(|n| format!("{}{}", n.name, if n.schedulable { '+' } else { '-' }))
            .collect();
        assert_eq!(found.join(" "), wanted, "{inventory}");
    }
}

#[test]
fn logins_follow_ansibles_names_and_defaults() {
    let node = one("").unwrap();
    assert_eq!(
        (
            node.connect.host.as_str(),
            node.connect.user.as_str(),
            node.connect.port
        ),
        ("cp", "me", 22)
    );
    assert!(node.connect.become_root, "root is needed, and me is not root");
    let node =
        one("ansible_user=root ansible_become=yes ansible_password=a ansible_ssh_pass=b ansible_become_pass=123")
            .unwrap();
    assert!(node.connect.become_root);
    assert_eq!(password(&node), Some(&b"b"[..]));
    assert_eq!(node.connect.become_password.unwrap().expose(), b"123");
    let node = one("ansible_password=a ansible_ssh_pass=None ansible_become=0 ansible_become_method=su").unwrap();
    assert_eq!((password(&node), node.connect.become_root), (Some(&b"a"[..]), false));
    assert!(one("ansible_ssh_common_args='-C -o StrictHostKeyChecking=no -oConnectTimeout=5'").is_ok());
    let yaml = "masters: {hosts: {cp: {ansible_password: !unsafe 'x{{y', ansible_become: off}}}\n";
    let node = text("h.yml", yaml).unwrap().inventory.nodes.remove(0);
    assert_eq!((password(&node), node.connect.become_root), (Some(&b"x{{y"[..]), false));
}

#[test]
fn a_local_machine_is_reached_without_ssh_and_without_a_jump_host() {
    let inventory = "[masters]\nhere ansible_connection=local\n[workers]\nthere\n[bastion]\nb\n[all:vars]\n\
                     ansible_ssh_common_args='-J jump'\n";
    let nodes = text("h.ini", inventory).unwrap().inventory.nodes;
    let found: Vec<(bool, bool)> = nodes
        .iter()
        .map(|node| {
            (
                node.connect.connection == Connection::Local,
                node.connect.ssh.proxy.is_some(),
            )
        })
        .collect();
    assert_eq!(found, [(true, false), (false, true)]);
    let all = text(
        "h.ini",
        "[masters]\na\n[workers]\nb\n[all:vars]\nansible_connection=local\n",
    )
    .unwrap_err();
    assert!(
        format!("{all:?}").contains("a, b are all said to be this machine"),
        "{all:?}"
    );
}

#[test]
fn what_ansible_could_do_and_landfall_cannot_is_refused() {
    for (vars, wanted) in [
        ("ansible_connection=winrm", "line 2, ansible_connection"),
        ("ansible_become_method=su", "line 2, ansible_become_method"),
        ("ansible_become_user=admin", "line 2, ansible_become_user"),
        ("ansible_become_exe=/x", "line 2, ansible_become_exe"),
        ("ansible_become_flags=-i", "line 2, ansible_become_flags"),
        ("ansible_become=hush", "line 2, ansible_become: must be true or false"),
        ("ansible_ssh_private_key=hush", "line 2, ansible_ssh_private_key"),
        (
            "ansible_ssh_extra_args='-J hush,'",
            "the value of ProxyJump is not understood",
        ),
        ("ansible_ssh_extra_args='-w hush'", "the argument -w of ssh"),
        (
            "ansible_ssh_extra_args='-o PermitLocalCommand=hush'",
            "the ssh option PermitLocalCommand",
        ),
        (
            "ansible_password='{{ nosuch }}'",
            "line 2, ansible_password: holds a Jinja expression with a name that is not defined: nosuch",
        ),
        (
            "ansible_password=1.5",
            "line 2, ansible_password: is a number with a fraction",
        ),
        ("ansible_password=\"['hush']\"", "line 2, ansible_password: is a list"),
        ("landfall=hush", "line 2, landfall: must be a mapping"),
        (
            "landfall=\"{'name': '{{ nosuch }}'}\"",
            "line 2, landfall.name: holds a Jinja expression",
        ),
    ] {
        let problems = one(vars).unwrap_err();
        assert!(problems.contains(wanted), "{vars}: {wanted} is not in {problems}");
        assert_eq!(problems.lines().count(), 1, "{problems}");
        assert!(!problems.contains("hush"), "{problems}");
    }
    let yaml = "masters: {hosts: {cp: {ip: 10.0.0.1, ansible_password: !vault hush}}}\n";
    let problems = text("h.yml", yaml).unwrap_err();
    assert!(
        problems.contains("masters.hosts.cp.ansible_password: is encrypted"),
        "{problems}"
    );
    assert!(!problems.contains("hush"));
}

/// Every way to write a jump host for ssh, and what it means.
const JUMPS: [(&str, &str); 13] = [
    ("-J b", "me@b:22"),
    ("-Jops@b:3", "ops@b:3"),
    ("-CJ b,c", "me@b:22,me@c:22"),
    ("-q -4Jb -v", "me@b:22"),
    ("-o ProxyJump=b -J other", "me@b:22"),
    ("-oProxyJump=b", "me@b:22"),
    ("-Co ProxyJump=b", "me@b:22"),
    ("-C -o \"proxyjump b\"", "me@b:22"),
    ("-o ProxyCommand=\"ssh -W %h:%p -q b\"", "me@b:22"),
    (
        "-o \"ProxyCommand ssh -p 5 -W %h:%p ops@b -o StrictHostKeyChecking=no\"",
        "ops@b:5",
    ),
    ("-o proxycommand=\"nc -X 5 -x b %h %p\"", "nc -X 5 -x b %h %p"),
    (
        "-o ControlMaster=auto -o \"ProxyCommand=ssh b nc %h %p\"",
        "ssh b nc %h %p",
    ),
    ("-o ProxyCommand=none", "none"),
];

/// The way to the first machine, as text.
fn way(read: Result<Understood, Vec<Diagnosis>>) -> String {
    let connect = read.unwrap().desired.inventory.nodes.remove(0).connect;
    match &connect.ssh.proxy {
        Some(Proxy::Command(command)) => command.clone(),
        _ => connect.render_jump().unwrap_or_default(),
    }
}

#[test]
fn jump_hosts_are_taken_wherever_they_stand() {
    let host = "[masters]\ncp\n";
    for (args, wanted) in JUMPS {
        let mut places = vec![];
        for variable in ["ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"] {
            let yaml = serde_json::json!({ variable: args }).to_string();
            let vars = [("i/h", host), ("i/group_vars/all.json", yaml.as_str())];
            places.push((format!("group_vars, {variable}"), files("i/h", &vars)));
            let with = Request {
                extra_vars: vec![yaml],
                ..request("h")
            };
            let tree = Files::of(&[("h", host)]);
            places.push((
                format!("-e {variable}"),
                read(&with, &Config::default(), &environment(), &tree),
            ));
        }
        for key in ["ssh_args", "ssh_common_args", "ssh_extra_args"] {
            let cfg = format!("[ssh_connection]\n{key} = {args}\n");
            let tree = Files::of(&[("h", host), ("/w/ansible.cfg", &cfg)]);
            let config = crate::config::find(&tree, &BTreeMap::new(), Path::new("/w")).unwrap();
            places.push((
                format!("ansible.cfg, {key}"),
                read(&request("h"), &config, &environment(), &tree),
            ));
            let name = format!("ANSIBLE_{}", key.to_ascii_uppercase());
            let env = BTreeMap::from([(name.clone(), args.to_owned())]);
            let config = crate::config::find(&tree_without(host), &env, Path::new("/w")).unwrap();
            places.push((name, read(&request("h"), &config, &environment(), &tree_without(host))));
        }
        for (place, read) in places {
            assert_eq!(way(read), wanted, "{place}: {args}");
        }
    }
}

fn tree_without(host: &str) -> Files {
    Files::of(&[("h", host)])
}

#[test]
fn jump_hosts_of_paramiko_of_kubespray_and_in_expressions_are_taken() {
    for (wanted, inventory) in [
        (
            "nc b %p",
            "[masters]\ncp ansible_connection=paramiko ansible_paramiko_proxy_command='nc b %p'\n",
        ),
        (
            "ops@192.0.2.9:5",
            "[bastion]\nb ansible_host=192.0.2.9 ansible_user=ops ansible_port=5\n[masters]\ncp\n",
        ),
        (
            "me@own:22",
            "[bastion]\nb\n[masters]\ncp\n[masters:vars]\njump=own\nansible_ssh_common_args='-o ProxyJump={{ jump }}'\n",
        ),
        ("", "[bastion]\ncp\n[masters]\ncp\n"),
        (
            "",
            "[bastion]\nb\n[masters]\ncp\n[all:vars]\nlandfall={'ignore': ['bastion']}\n",
        ),
    ] {
        assert_eq!(way(files("h", &[("h", inventory)])), wanted, "{inventory}");
    }
    let tree = Files::of(&[
        ("h", "[masters]\ncp\n"),
        ("/w/ansible.cfg", "[paramiko_connection]\nproxy_command = nc b\n"),
    ]);
    let config = crate::config::find(&tree, &BTreeMap::new(), Path::new("/w")).unwrap();
    assert_eq!(way(read(&request("h"), &config, &environment(), &tree)), "nc b");
}

#[test]
fn a_limit_chooses_nodes_and_leaves_the_cluster_whole() {
    let inventory =
        "[masters]\ncp\n[kube_node]\nw1 landfall_node_name=first\nw2\n[other]\nx\n[landfall:children]\nkube_node\n";
    let limited = |pattern: &str| {
        let with = Request {
            limit: Some(pattern.to_owned()),
            ..request("h")
        };
        let inventory = inventory.replace("[other]\nx\n", "[lb]\nx\n");
        read(
            &with,
            &Config::default(),
            &environment(),
            &Files::of(&[("h", &inventory)]),
        )
    };
    let understood = limited("kube_node:!w2").unwrap();
    assert_eq!(understood.desired.inventory.nodes.len(), 3);
    assert_eq!(understood.limit, Some(["first".parse().unwrap()].into()));
    for (pattern, wanted) in [
        ("w9", "no host and no group is called w9"),
        ("lb", "chooses no machine of the cluster"),
    ] {
        let problems = limited(pattern).unwrap_err();
        assert_eq!(problems[0].code, Code::Usage);
        assert!(problems[0].what.contains(wanted), "{problems:?}");
    }
    let desired = text("h", "[masters]\ncp\n[kube_node]\nw1\n[outside]\npc\n").unwrap();
    for (pattern, wanted) in [("k8s_cluster", 2), ("kube_node:outside", 2), ("!pc", 2)] {
        let chosen = crate::limit_of(&desired, pattern, &Files::default()).unwrap();
        assert_eq!(chosen.len(), wanted, "{pattern}");
    }
    assert!(crate::limit_of(&desired, "w9", &Files::default()).is_err());
}

#[test]
fn what_other_roles_use_is_ignored() {
    let inventory =
        "[masters]\na\n[nfs]\nB_ad ansible_connection=winrm\n[all:vars]\nother={{ x }}\nvaulted=$ANSIBLE_VAULT\n";
    assert_eq!(text("h.ini", inventory).unwrap().inventory.nodes.len(), 1);
}

#[test]
fn roles_that_clash_and_clusters_that_differ_are_refused() {
    let inventory = "[masters]\nA_b\nb landfall=\"{'name': 'x'}\"\n[outside]\nb\nc landfall=\"{'name': 'y'}\"\n";
    let problems = text("h.ini", inventory).unwrap_err();
    for wanted in [
        "line 2: node name",
        "line 3: b is outside",
        "line 6, landfall: differs from h.ini: line 3, landfall",
    ] {
        assert!(problems.contains(wanted), "{wanted} is not in {problems}");
    }
    let problems = text("h.ini", "[web]\na\n").unwrap_err();
    assert!(problems.contains("the inventory has: web (1)"), "{problems}");
}

#[test]
fn bytes_that_make_no_sense_never_panic() {
    let (_, ini) = fixture("tricky/hosts.ini");
    let (_, yaml) = fixture("seed.yml");
    for (path, whole) in [("h.ini", &ini), ("h.yml", &yaml)] {
        for end in (0..whole.len()).filter(|i| whole.is_char_boundary(*i)) {
            let _ = text(path, &whole[..end]);
            let _ = text(path, &whole[end..]);
        }
    }
}

#[test]
fn what_the_user_says_of_groups_counts_wherever_it_stands() {
    let inventory = "[masters]\na\n[workers]\nb\n[spare]\nc\n";
    let names = |extra: &str, more: &str| {
        let request = Request {
            extra_vars: vec![extra.to_owned()],
            ..request("h.ini")
        };
        let tree = Files::of(&[("h.ini", &format!("{inventory}{more}"))]);
        let found = read(&request, &Config::default(), &environment(), &tree);
        let nodes = found.map_err(|list| list[0].what.clone())?.desired.inventory.nodes;
        Ok::<_, String>(nodes.iter().map(|n| n.name.to_string()).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(names("{\"landfall\": {\"ignore\": [\"spare\"]}}", "").unwrap(), "a b");
    let group = "[k8s:children]\nmasters\nworkers\nspare\n[k8s:vars]\nlandfall={'ignore': ['c']}\n";
    assert_eq!(names("x=1", group).unwrap(), "a b");
    assert!(names("x=1", "").unwrap_err().contains("c gets no role"));
}

#[test]
fn variables_beside_a_playbook_are_not_overlooked_however_far_up() {
    let read_with = |vars: &str| {
        let inventory = "[masters]\na\n";
        files(
            "envs/prod/hosts",
            &[("envs/prod/hosts", inventory), ("/w/group_vars/all.yml", vars)],
        )
    };
    let problems = read_with("ansible_port: 2222\n").unwrap_err();
    assert!(
        problems[0].what.contains("/w/group_vars/all.yml is beside a playbook"),
        "{problems:?}"
    );
    assert_eq!(
        problems[0].next[0].matches("--playbook-dir /w").count(),
        2,
        "{problems:?}"
    );
    let notices = read_with("kube_version: 1.27.3\n").unwrap().notices.join("");
    assert!(notices.contains("settings that landfall would report"), "{notices}");
    assert!(read_with("motd: hello\n").unwrap().notices.is_empty());
}

#[test]
fn no_variable_of_a_member_is_passed_over_in_silence() {
    let inventory = "[masters]\na hostname=a motd=x\n[nfs]\nb secret=1\n[all:vars]\nansible_user=x\nansible_broker_x=1\nempty=\nkube_vip_address=10.0.0.9\n";
    let found = files("h.ini", &[("h.ini", inventory)]).unwrap();
    let told = found.notices.join("\n");
    assert!(
        told.contains("kube_vip_address (h.ini: line 9, kube_vip_address): every node balances"),
        "{told}"
    );
    let unread: Vec<_> = found
        .unread
        .iter()
        .map(|(file, names)| (file.as_str(), names.len()))
        .collect();
    assert_eq!(
        unread,
        [("h.ini", 2)],
        "only motd and ansible_broker_x are neither known nor read: {:?}",
        found.unread
    );
    // Options of Ansible are read, and are no variables of a member.
    let mut config = Config::default();
    for name in ["ANSIBLE_SSH_ARGS", "ssh_connection.ssh_args"] {
        let var = crate::config::plain("-C", crate::faults::Place::new(&"environment".into(), name));
        config.login.insert(name.to_owned(), var);
    }
    let tree = Files::of(&[("h.ini", "[masters]\na\n")]);
    let found = read(&request("h.ini"), &config, &environment(), &tree).unwrap();
    assert!(found.unread.is_empty(), "{:?}", found.unread);
    let inventory = "[masters]\na\n[all:vars]\ncluster_domain=local\n";
    let found = files("h.ini", &[("h.ini", inventory)]).unwrap();
    assert!(
        found.notices.join("").contains("one label is no domain"),
        "{:?}",
        found.notices
    );
    assert_eq!(found.desired.spec.cluster_domain, "cluster.local");
    let found = files(
        "h.ini",
        &[("h.ini", "[masters]\na\n[all:vars]\ncluster_domain=x.org\n")],
    )
    .unwrap();
    assert!(
        found.notices.join("").contains("taken over as clusterDomain"),
        "{:?}",
        found.notices
    );
    assert_eq!(found.desired.spec.cluster_domain, "x.org");
}

#[test]
fn control_planes_with_invalid_names_are_counted() {
    let said = |text: &str| super::tests::text("h.ini", text).unwrap_err();
    for masters in ["A_1\nA_2\nA_3", "a1\na2\nA_3", "A_1"] {
        let said = said(&format!("[masters]\n{masters}\n[workers]\nb\n"));
        assert!(said.contains("is not valid"), "{said}");
        assert!(!said.contains("control planes are named"), "{said}");
    }
    let said = said("[masters]\na1\nA_2\n[workers]\nb\n");
    assert!(said.contains("2 control planes are named"), "{said}");
    assert!(!said.contains("1 control planes are named"), "{said}");
}

/// A play of the machines of a cluster.
const PLAY: &str = "---\n- name: cluster\n  hosts: all\n  roles: [kubeadm]\n";

#[test]
fn variables_beside_a_playbook_in_a_folder_of_another_name_are_named() {
    let read_with = |more: &[(&str, &str)]| {
        let mut all = vec![("/w/r/.git/HEAD", "x"), ("/w/r/hosts", "[masters]\na\n")];
        all.extend(more);
        files("/w/r/hosts", &all).map(|found| found.notices.join("\n"))
    };
    let vars = (
        "/w/r/kubeadm/group_vars/all",
        "k8s_pod_network: 192.168.0.0/16\nmotd: x\n",
    );
    let play = ("/w/r/kubeadm/k8s.yml", PLAY);
    let told = read_with(&[vars, play]).unwrap();
    for wanted in [
        "/w/r/kubeadm/group_vars/all",
        "(k8s_pod_network)",
        "beside the playbook /w/r/kubeadm/k8s.yml",
        "say that it counts: --playbook-dir /w/r/kubeadm; or that it does not: --playbook-dir /w/r",
    ] {
        assert!(told.contains(wanted), "{wanted} is not in {told}");
    }
    assert!(!told.contains("motd"), "{told}");
    // What would change a login or a network is named too, and all folders are.
    let told = read_with(&[
        ("/w/r/a/b/host_vars/a.yml", "ansible_host: 10.0.0.9\n"),
        ("/w/r/a/b/site.yaml", PLAY),
        vars,
        play,
    ])
    .unwrap();
    assert!(
        told.contains("host_vars/a.yml") && told.contains("(ansible_host)"),
        "{told}"
    );
    assert!(told.contains("kubeadm/group_vars/all"), "{told}");
    for (why, more) in [
        (
            "no playbook",
            vec![vars, ("/w/r/kubeadm/tasks.yml", "- name: x\n  debug: {}\n")],
        ),
        (
            "nothing that counts",
            vec![("/w/r/kubeadm/group_vars/all", "motd: x\n"), play],
        ),
        (
            "groups that are not ours",
            vec![("/w/r/kubeadm/group_vars/web.yml", "kube_version: 1\n"), play],
        ),
        (
            "an inventory of its own",
            vec![vars, play, ("/w/r/kubeadm/hosts.ini", "[masters]\nb\n")],
        ),
        (
            "an inventory of its own in a folder",
            vec![vars, play, ("/w/r/kubeadm/inventory/prod", "[masters]\nb\n")],
        ),
        (
            "hidden",
            vec![("/w/r/.x/group_vars/all", "kube_version: 1\n"), ("/w/r/.x/k.yml", PLAY)],
        ),
        (
            "too deep",
            vec![
                ("/w/r/a/b/c/group_vars/all", "kube_version: 1\n"),
                ("/w/r/a/b/c/k.yml", PLAY),
            ],
        ),
    ] {
        assert_eq!(read_with(&more).unwrap(), "", "{why}");
    }
    let with = Request {
        playbook_dir: Some("/w/r/kubeadm".into()),
        ..request("/w/r/hosts")
    };
    let tree = Files::of(&[("/w/r/.git/HEAD", "x"), ("/w/r/hosts", "[masters]\na\n"), vars, play]);
    let found = read(&with, &Config::default(), &environment(), &tree).unwrap();
    assert!(
        !found.notices.join("").contains("beside the playbook"),
        "{:?}",
        found.notices
    );
}

#[test]
fn a_login_of_ansible_cfg_beside_a_playbook_is_named() {
    let read_with = |cfg: &str| {
        let all = [
            ("/w/r/.git/HEAD", "x"),
            ("/w/r/hosts", "[masters]\na\n"),
            ("/w/r/kubeadm/k8s.yml", PLAY),
            ("/w/r/kubeadm/ansible.cfg", cfg),
        ];
        files("/w/r/hosts", &all).unwrap().notices.join("\n")
    };
    let told = read_with("[defaults]\ninventory = ../hosts\nremote_user = odennav\n");
    for wanted in [
        "/w/r/kubeadm/ansible.cfg sets the login (defaults.remote_user) but is not in force here",
        "run landfall in /w/r/kubeadm",
        "ANSIBLE_CONFIG=/w/r/kubeadm/ansible.cfg",
    ] {
        assert!(told.contains(wanted), "{wanted} is not in {told}");
    }
    assert_eq!(read_with("[defaults]\ninventory = other\nremote_user = odennav\n"), "");
    assert_eq!(read_with("[defaults]\nforks = 5\n"), "");
}

#[test]
fn a_network_that_cannot_be_names_where_it_comes_from_and_how_to_set_another() {
    let next = |vars: &str| {
        let inventory = format!("[masters]\na\n[workers]\nb\n[all:vars]\n{vars}\n");
        let problems = files("h.ini", &[("h.ini", &inventory)]).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].next.join("\n")
    };
    let told = next("kube_pods_subnet=10.1.0.0/24");
    for wanted in [
        "podNetworkCidr is taken from h.ini: line 6, kube_pods_subnet",
        "-e '{\"landfall\": {\"podNetworkCidr\": \"NETWORK\"}}'",
        "group_vars/all.yml:\nlandfall:\n  podNetworkCidr: NETWORK",
    ] {
        assert!(told.contains(wanted), "{wanted} is not in {told}");
    }
    let told = next("service_cidr=10.244.0.0/16");
    assert!(
        told.contains("serviceCidr is taken from h.ini") && told.contains("podNetworkCidr: NETWORK"),
        "{told}"
    );
    assert!(!told.contains("podNetworkCidr is taken"), "{told}");
}
