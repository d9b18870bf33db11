use super::*;
use crate::netlink::{nft, route::Link};
use std::cell::RefCell;
use std::fs;
use std::path::Path;

/// A machine that is a directory, with the kernel's lists of modules as files.
struct Machine {
    root: tempfile::TempDir,
    removed: RefCell<Vec<String>>,
}

impl Machine {
    fn new(modules: &[(&str, u32, &[&str])]) -> Self {
        let machine = Self {
            root: tempfile::tempdir().unwrap(),
            removed: RefCell::default(),
        };
        machine.write(modules);
        machine
    }

    fn host(&self) -> Host {
        Host::under(self.root.path())
    }

    fn write(&self, modules: &[(&str, u32, &[&str])]) {
        let at = |path: &str| self.host().at(path);
        let _ = fs::remove_dir_all(at("/sys/module"));
        let mut list = String::new();
        for (name, count, holders) in modules {
            let dir = at("/sys/module").join(name);
            fs::create_dir_all(dir.join("holders")).unwrap();
            fs::write(dir.join("refcnt"), format!("{count}\n")).unwrap();
            for holder in *holders {
                fs::create_dir(dir.join("holders").join(holder)).unwrap();
            }
            let users = holders.iter().map(|h| format!("{h},")).collect::<String>();
            let users = if users.is_empty() { "-".to_owned() } else { users };
            list.push_str(&format!("{name} 16384 {count} {users} Live 0x0\n"));
        }
        fs::create_dir_all(at("/proc")).unwrap();
        fs::write(at("/proc/modules"), list).unwrap();
    }

    /// What the kernel does when a module goes: it leaves the list, and those that it held have one user less.
    fn remove(&self, module: &str) -> bool {
        let text = fs::read_to_string(self.host().at("/proc/modules")).unwrap();
        let mut left = Vec::new();
        for line in text.lines().filter(|l| l.split(' ').next() != Some(module)) {
            let words: Vec<&str> = line.split(' ').collect();
            let holders: Vec<&str> = words[3].split(',').filter(|h| !matches!(*h, "" | "-")).collect();
            let kept: Vec<&str> = holders.iter().copied().filter(|h| *h != module).collect();
            let count = words[2].parse::<u32>().unwrap() - (holders.len() - kept.len()) as u32;
            left.push((words[0], count, kept));
        }
        let left: Vec<_> = left.iter().map(|(n, c, h)| (*n, *c, h.as_slice())).collect();
        self.write(&left);
        self.removed.borrow_mut().push(module.to_owned());
        true
    }

    fn unload(&self, modules: &[&str], seen: &Seen) -> (Vec<String>, Vec<String>) {
        let modules: Vec<String> = modules.iter().map(|m| (*m).to_owned()).collect();
        let notes = unload_with(&self.host(), &modules, seen, |module| self.remove(module));
        (self.removed.borrow().clone(), notes)
    }
}

fn link(name: &str, kind: &str) -> Seen {
    let link = Link {
        mtu: 1500,
        index: 7,
        name: name.to_owned(),
        master: None,
        kind: kind.to_owned(),
        is_up: true,
    };
    Seen {
        networks: vec![
            Content::default(),
            Content {
                links: vec![link],
                ..Content::default()
            },
        ],
        mounts: vec![],
    }
}

const BRIDGE: [(&str, u32, &[&str]); 4] = [
    ("br_netfilter", 0, &[]),
    ("bridge", 1, &["br_netfilter"]),
    ("stp", 1, &["bridge"]),
    ("llc", 2, &["bridge", "stp"]),
];

#[test]
fn modules_that_serve_nobody_go_users_first() {
    let machine = Machine::new(&BRIDGE);
    let (removed, notes) = machine.unload(&["llc", "stp", "bridge", "br_netfilter"], &Seen::default());
    assert_eq!(removed, ["br_netfilter", "bridge", "stp", "llc"]);
    assert_eq!(notes, Vec::<String>::new());
}

#[test]
fn a_bridge_of_others_keeps_the_module_though_the_kernel_counts_no_user() {
    let machine = Machine::new(&BRIDGE);
    let (removed, notes) = machine.unload(&["br_netfilter", "bridge", "stp", "llc"], &link("br0", "bridge"));
    assert_eq!(
        removed,
        Vec::<String>::new(),
        "br0 would have gone with it, and its address"
    );
    assert_eq!(notes[1], "the module bridge stays: it serves the link br0 (bridge)");
}

#[test]
fn each_kind_of_thing_keeps_its_modules_in_every_network_namespace() {
    let table = nft::Table {
        family: "inet",
        name: "filter".to_owned(),
    };
    let mut tables = Seen::default();
    tables.networks.push(Content::default());
    tables.networks.push(Content {
        rules: nft::Ruleset {
            tables: [table].into(),
            ..nft::Ruleset::default()
        },
        ..Content::default()
    });
    let legacy = Seen {
        networks: vec![Content {
            legacy_tables: vec!["nat".to_owned()],
            ..Content::default()
        }],
        mounts: vec![],
    };
    let services = Seen {
        networks: vec![Content {
            has_virtual_services: true,
            ..Content::default()
        }],
        mounts: vec![],
    };
    let overlay = Seen {
        networks: vec![],
        mounts: vec![mounts::Mount {
            point: Path::new("/srv/merged").to_owned(),
            source: String::new(),
            kind: "overlay".to_owned(),
            options: String::new(),
        }],
    };
    for (module, seen) in [
        ("veth", &link("vpn0", "veth")),
        ("vxlan", &link("vx9", "vxlan")),
        ("udp_tunnel", &link("wg0", "wireguard")),
        ("nf_tables", &tables),
        ("nft_masq", &tables),
        ("nf_conntrack", &tables),
        ("xt_mark", &legacy),
        ("nf_nat", &legacy),
        ("ip_vs", &services),
        ("overlay", &overlay),
    ] {
        let machine = Machine::new(&[(module, 0, &[])]);
        let (removed, notes) = machine.unload(&[module], seen);
        assert_eq!((removed.len(), notes.len()), (0, 1), "{module}");
        let (removed, notes) = machine.unload(&[module], &link("dummy0", "dummy"));
        assert_eq!((removed.len(), notes.len()), (1, 0), "{module} alone");
    }
}

#[test]
fn what_the_kernel_counts_keeps_a_module() {
    let machine = Machine::new(&[("vxlan", 0, &["openvswitch"]), ("libcrc32c", 3, &[])]);
    let (removed, notes) = machine.unload(&["vxlan", "libcrc32c", "never_loaded"], &Seen::default());
    assert_eq!(removed, Vec::<String>::new());
    assert_eq!(notes[0], "the module vxlan stays: it serves the module openvswitch");
    assert_eq!(notes.len(), 2);
}
