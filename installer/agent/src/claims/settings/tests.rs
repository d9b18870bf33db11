use super::*;
use crate::netlink::nft::tests::own_namespace;
use landfall_core::sysctl_conf::path_form;
use std::fs;

type Pairs = Vec<(String, String)>;
/// Prior values, and values that were set.
type Recipe = (Pairs, Pairs);

struct Machine {
    _root: tempfile::TempDir,
    agent: Agent,
}

fn machine(settings: &[(&str, &str)]) -> Machine {
    let root = tempfile::tempdir().unwrap();
    let machine = Machine {
        agent: Agent::new(Host::under(root.path())),
        _root: root,
    };
    for (name, value) in settings {
        machine.file(&format!("/proc/sys/{}", name.replace('.', "/")), value);
    }
    machine
}

impl Machine {
    fn file(&self, path: &str, text: &str) {
        let path = self.agent.host.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn set(&self, name: &str, value: &str) {
        write_sysctl(&self.agent.host, name, value).unwrap();
    }

    fn get(&self, name: &str) -> String {
        read_sysctl(&self.agent.host, name).unwrap()
    }

    /// Records, writes what landfall wants, and returns the recipe.
    fn install(&self, wanted: &[(&str, &str)]) -> Recipe {
        let wanted = pairs(wanted);
        let Undo::RestoreSysctls { settings, set } = undo_for(&self.agent.host, &wanted) else {
            panic!()
        };
        write_all(&self.agent.host, &wanted).unwrap();
        (settings, set)
    }

    fn undo(&self, recipe: &Recipe) -> Vec<String> {
        let left = restore(&self.agent, &recipe.0, &recipe.1, &Claims::default());
        assert_eq!(left.residue, Vec::<String>::new());
        left.notes
    }
}

fn pairs(list: &[(&str, &str)]) -> Pairs {
    list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn a_setting_that_nobody_touched_goes_back() {
    let machine = machine(&[("kernel.panic", "0")]);
    let recipe = machine.install(&[("kernel.panic", "10")]);
    assert_eq!(machine.get("kernel.panic"), "10");
    for _ in 0..2 {
        assert_eq!(machine.undo(&recipe), Vec::<String>::new());
        assert_eq!(machine.get("kernel.panic"), "0");
    }
}

#[test]
fn a_setting_that_somebody_set_since_stays_and_is_named() {
    let machine = machine(&[("kernel.panic", "0")]);
    let recipe = machine.install(&[("kernel.panic", "10")]);
    machine.set("kernel.panic", "30");
    assert_eq!(
        machine.undo(&recipe),
        ["kernel.panic stays 30: something else has set it since"]
    );
    assert_eq!(machine.get("kernel.panic"), "30");
}

#[test]
fn a_file_that_asks_for_the_value_since_is_obeyed() {
    let machine = machine(&[("net.ipv4.ip_forward", "0"), ("kernel.panic", "0")]);
    let recipe = machine.install(&[("net.ipv4.ip_forward", "1"), ("kernel.panic", "10")]);
    machine.file(layout::SYSCTL_FILE, "net.ipv4.ip_forward = 1\nkernel.panic = 10\n");
    machine.file("/etc/sysctl.d/50-router.conf", "# routes\nnet.ipv4.ip_forward=1\n");
    assert_eq!(machine.undo(&recipe), Vec::<String>::new());
    assert_eq!(machine.get("net.ipv4.ip_forward"), "1");
    assert_eq!(machine.get("kernel.panic"), "0", "landfall's own file does not count");
}

#[test]
fn files_count_in_the_order_in_which_the_machine_reads_them() {
    let machine = machine(&[]);
    machine.file("/usr/lib/sysctl.d/10-a.conf", "kernel.panic = 1\nvm.x = 1\n");
    machine.file("/run/sysctl.d/20-b.conf", "-kernel/panic = 2\n; vm.x = 9\n");
    machine.file("/usr/lib/sysctl.d/30-c.conf", "kernel.panic = 3\n");
    machine.file("/etc/sysctl.d/30-c.conf", "vm.y =  4   5 \n");
    machine.file("/etc/sysctl.d/99-ignored", "kernel.panic = 99\n");
    machine.file(
        "/etc/sysctl.d/40-glob.conf",
        "net.ipv4.conf.*.accept_redirects = 0\nnet.ipv4.conf.all.forwarding = 1\n",
    );
    let value = |name: &str| {
        let files = files_of(&machine.agent.host);
        Configured::by(&files).get(name).map(|said| said.value)
    };
    assert_eq!(
        value("kernel.panic").as_deref(),
        Some("2"),
        "the file in /etc hides its namesake"
    );
    assert_eq!(value("vm.x").as_deref(), Some("1"));
    assert_eq!(value("vm.y").as_deref(), Some("4 5"));
    assert_eq!(value("net.ipv4.conf.all.accept_redirects").as_deref(), Some("0"));
    assert_eq!(value("net.ipv4.ip_forward").as_deref(), Some("1"));
    assert_eq!(value("net.ipv6.conf.all.accept_redirects"), None);
    machine.file(LAST_FILE, "kernel.panic = 7\n");
    assert_eq!(value("kernel.panic").as_deref(), Some("7"));
    let asked = |name: &str, wanted: &str| asked_otherwise(&machine.agent.host, name, wanted);
    assert_eq!(
        asked("kernel.panic", "10").as_deref(),
        Some("/etc/sysctl.conf, line 1,")
    );
    assert_eq!(
        asked("vm.x", "2").as_deref(),
        Some("/usr/lib/sysctl.d/10-a.conf, line 2,")
    );
    assert_eq!(asked("vm.x", "1"), None, "it asks for the very value");
    assert_eq!(asked("vm.z", "1"), None);
    assert_eq!(
        path_form("net.ipv4.conf.eth0/1.forwarding"),
        "net/ipv4/conf/eth0.1/forwarding"
    );
}

#[test]
fn the_file_that_asks_for_another_value_is_named_whichever_name_it_uses() {
    let machine = machine(&[(IP_FORWARD, "0")]);
    machine.file("/etc/sysctl.d/10-router.conf", "net.ipv4.ip_forward = 1\n");
    machine.file("/etc/sysctl.d/99-cis.conf", "# CIS\nnet.ipv4.conf.all.forwarding = 0\n");
    let asked = asked_otherwise(&machine.agent.host, IP_FORWARD, "1");
    assert_eq!(asked.as_deref(), Some("/etc/sysctl.d/99-cis.conf, line 2,"));
}

#[test]
fn a_journal_without_the_value_that_was_set_is_judged_by_what_is_known() {
    let machine = machine(&[("vm.overcommit_memory", "0"), ("vm.unknown", "0")]);
    let line = r#"{"undo":"restore-sysctls","settings":[["vm.overcommit_memory","0"],["vm.unknown","0"]]}"#;
    let Undo::RestoreSysctls { settings, set } = serde_json::from_str(line).unwrap() else {
        panic!()
    };
    let old = (settings, set);
    machine.set("vm.overcommit_memory", "1");
    machine.set("vm.unknown", "1");
    assert_eq!(
        machine.undo(&old),
        ["vm.unknown stays 1: something else has set it since"]
    );
    assert_eq!(machine.get("vm.overcommit_memory"), "0");
    machine.set("vm.overcommit_memory", "2");
    assert_eq!(machine.undo(&old).len(), 2);
    assert_eq!(machine.get("vm.overcommit_memory"), "2");
}

#[test]
fn a_machine_that_goes_on_forwarding_does_not_accept_redirects_again() {
    let machine = machine(&[(IP_FORWARD, "1"), (REDIRECTS, "0")]);
    let recipe = (
        pairs(&[(IP_FORWARD, "1"), (REDIRECTS, "1")]),
        pairs(&[(IP_FORWARD, "1"), (REDIRECTS, "0")]),
    );
    assert_eq!(machine.undo(&recipe), Vec::<String>::new());
    assert_eq!(machine.get(REDIRECTS), "0");
}

/// The kernel's own side effects, in a network namespace of this thread's own.
#[test]
fn what_the_kernel_sets_along_with_forwarding_goes_back_too() {
    own_namespace();
    let ip = |args: &[&str]| assert!(std::process::Command::new("ip").args(args).status().unwrap().success());
    ip(&["link", "add", "eth1.5", "type", "veth", "peer", "name", "eth2"]);
    let machine = Machine {
        _root: tempfile::tempdir().unwrap(),
        agent: Agent::new(Host::real()),
    };
    let (single, other) = ("net/ipv4/conf/eth1.5/forwarding", "net/ipv4/conf/eth2/forwarding");
    let state = || [IP_FORWARD, REDIRECTS, single, other].map(|name| machine.get(name));
    for redirects in ["0", "1"] {
        machine.set(IP_FORWARD, "0");
        machine.set(REDIRECTS, redirects);
        machine.set(single, "1");
        let before = state();
        let recipe = machine.install(&[(IP_FORWARD, "1")]);
        assert_eq!(machine.get(REDIRECTS), redirects, "nobody asked for another value");
        // The boot sets forwarding from the file, and the kernel the rest.
        machine.set(IP_FORWARD, "0");
        machine.set(IP_FORWARD, "1");
        assert_eq!(state(), ["1", "0", "1", "1"].map(str::to_owned));
        let left = restore_alone(&machine, &recipe);
        assert_eq!(left, Left::default());
        assert_eq!(state(), before);
    }
}

/// Other tests, and other programs of this machine, may look like container runtimes: their share is tested with `forwarding`.
fn restore_alone(machine: &Machine, recipe: &Recipe) -> Left {
    restore_with(&machine.agent, &recipe.0, &recipe.1, |_| None)
}

#[test]
fn forwarding_stays_on_for_a_bridge_of_others() {
    own_namespace();
    let ip = |args: &[&str]| assert!(std::process::Command::new("ip").args(args).status().unwrap().success());
    let agent = Agent::new(Host::real());
    write_sysctl(&agent.host, IP_FORWARD, "0").unwrap();
    let wanted = pairs(&[(IP_FORWARD, "1")]);
    let Undo::RestoreSysctls { settings, set } = undo_for(&agent.host, &wanted) else {
        panic!()
    };
    write_all(&agent.host, &wanted).unwrap();
    ip(&["link", "add", "br0", "type", "bridge"]);
    ip(&["link", "add", "cni0", "type", "bridge"]);
    let ours = Claims {
        links: vec!["cni0".into()],
        ..Claims::default()
    };
    let left = restore(&agent, &settings, &set, &ours);
    assert_eq!(left.residue, Vec::<String>::new());
    assert_eq!(left.notes.len(), 1);
    assert!(
        left.notes[0].starts_with("net.ipv4.ip_forward stays as it is: the bridge br0"),
        "{:?}",
        left.notes
    );
    assert!(!left.notes[0].contains("cni0"));
    assert_eq!(read_sysctl(&agent.host, IP_FORWARD).as_deref(), Some("1"));
}
