use super::*;
use crate::host::Host;
use std::fs;

#[test]
fn what_was_there_before_is_not_claimed() {
    let root = tempfile::tempdir().unwrap();
    let agent = Agent::new(Host::under(root.path()));
    let at = |p: &str| agent.host.at(p);
    for dir in ["/etc/foreign", "/var/lib/kubelet/lost+found", "/proc/sys/vm"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    fs::write(at("/etc/foreign/conf"), "theirs").unwrap();
    fs::write(at("/proc/sys/vm/x"), "1\n").unwrap();
    let claims = Claims {
        paths: ["/etc/foreign", "/var/lib/kubelet", "/var/lib/etcd"]
            .map(PathBuf::from)
            .to_vec(),
        sysctls: vec!["vm.x".into(), "vm.absent".into()],
        ..Claims::default()
    };
    let undo = undo_for(&agent, &claims, &[]).unwrap();
    let Undo::RemoveClaims {
        claims: ours,
        sysctls,
        absent_bases,
        ..
    } = undo
    else {
        panic!()
    };
    assert_eq!(ours.paths, ["/var/lib/kubelet/*", "/var/lib/etcd"].map(PathBuf::from));
    assert_eq!(sysctls, [("vm.x".to_owned(), "1".to_owned())]);

    fs::create_dir_all(at("/var/lib/kubelet/pods/x")).unwrap();
    fs::create_dir_all(at("/var/lib/etcd/member")).unwrap();
    fs::write(at("/proc/sys/vm/x"), "2\n").unwrap();
    for _ in 0..2 {
        assert_eq!(remove(&agent, &ours, &sysctls, &absent_bases), Vec::<String>::new());
        assert!(at("/etc/foreign/conf").exists() && at("/var/lib/kubelet/lost+found").exists());
        assert!(!at("/var/lib/kubelet/pods").exists() && !at("/var/lib/etcd").exists());
        assert_eq!(system::read_sysctl(&agent.host, "vm.x").as_deref(), Some("1"));
    }
}

#[test]
fn rules_are_split_as_iptables_writes_them() {
    let words = shell_words(r#"INPUT -m comment --comment "kubernetes \"x\" y" -j KUBE-FIREWALL"#);
    assert_eq!(
        words,
        [
            "INPUT",
            "-m",
            "comment",
            "--comment",
            "kubernetes \"x\" y",
            "-j",
            "KUBE-FIREWALL"
        ]
    );
}

/// A whole machine's worth of claims on this kernel: a network namespace of this thread's own, mounts and cgroups under names of the test's.
#[test]
fn processes_mounts_links_rules_and_cgroups_go_and_foreign_ones_stay() {
    use crate::netlink::nft::tests::{chain, jump, make, own_namespace, table};
    own_namespace();
    let ip = |args: &[&str]| {
        assert!(
            std::process::Command::new("ip").args(args).status().unwrap().success(),
            "ip {args:?}"
        )
    };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let group = format!("landfall-test-{}", std::process::id());
    let agent = Agent::new(Host::real());
    let claims = Claims {
        cgroups: vec![group.clone()],
        programs: vec![at("daemon")],
        paths: vec![at("state"), at("gone/deep"), at("foreign")],
        mounts_under: vec![at("state"), at("foreign")],
        links: vec!["cni0".into(), "flannel.1".into(), "foreign0".into()],
        nft_tables: vec!["ip kube-proxy".into(), "inet foreign".into()],
        iptables_chains: vec!["KUBE-".into()],
        ..Claims::default()
    };
    // What is there before.
    fs::create_dir_all(at("foreign/mounted")).unwrap();
    let tmpfs =
        |path: &Path| rustix::mount::mount("none", path, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    tmpfs(&at("foreign/mounted"));
    ip(&["link", "add", "foreign0", "type", "bridge"]);
    make(&[table("inet", "foreign")]).unwrap();
    let undo = undo_for(&agent, &claims, &[]).unwrap();
    let Undo::RemoveClaims {
        claims: ours,
        absent_bases,
        absent_parents,
        ..
    } = undo
    else {
        panic!()
    };
    assert_eq!(ours.mounts_under, [at("state")]);
    assert_eq!(ours.links, ["cni0", "flannel.1"]);
    assert_eq!(ours.nft_tables, ["ip kube-proxy"]);
    assert_eq!(absent_parents, [at("gone")]);
    assert_eq!(absent_bases.len(), 10);

    // What the daemons make, and what others make beside it.
    fs::create_dir_all(at("state/pods/a")).unwrap();
    tmpfs(&at("state/pods/a"));
    fs::create_dir_all(at("state/pods/a/b")).unwrap();
    tmpfs(&at("state/pods/a/b"));
    fs::create_dir_all(at("gone/deep")).unwrap();
    fs::copy("/bin/sleep", at("daemon")).unwrap();
    let mut daemon = std::process::Command::new(at("daemon")).arg("100").spawn().unwrap();
    let mut pod = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
    for hierarchy in mounts::all()
        .into_iter()
        .filter(|m| m.kind == "cgroup" && m.options.contains("pids"))
    {
        let inner = hierarchy.point.join(&group).join("pod1/container1");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("cgroup.procs"), pod.id().to_string()).unwrap();
    }
    let in_group = !cgroups::processes(&[&group]).is_empty();
    for (name, args) in [
        ("cni0", vec!["type", "bridge"]),
        ("veth1", vec!["type", "veth", "peer", "name", "peer1"]),
    ] {
        ip(&[&["link", "add", name], args.as_slice()].concat());
    }
    ip(&["link", "set", "veth1", "master", "cni0"]);
    ip(&["link", "add", "veth2", "type", "veth", "peer", "name", "peer2"]);
    let rules = [
        table("ip", "kube-proxy"),
        table("ip", "filter"),
        chain("filter", "INPUT", true),
        chain("filter", "KUBE-FIREWALL", false),
        jump("filter", "INPUT", "KUBE-FIREWALL"),
    ];
    make(&rules).unwrap();

    let residue = remove(&agent, &ours, &[], &absent_bases);
    let ended = [daemon.wait(), pod.wait()].map(|status| !status.unwrap().success());
    rustix::mount::unmount(at("foreign/mounted"), rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(residue, Vec::<String>::new());
    assert_eq!(ended, [true, true]);
    assert!(!at("state").exists() && at("foreign/mounted").exists());
    assert!(!cgroups::exists(&group) && in_group);
    let links: Vec<_> = route::links().unwrap().into_iter().map(|l| l.name).collect();
    assert!(
        ["foreign0", "veth2"].iter().all(|n| links.contains(&(*n).to_owned())),
        "{links:?}"
    );
    assert!(
        !["cni0", "veth1"].iter().any(|n| links.contains(&(*n).to_owned())),
        "{links:?}"
    );
    let tables: Vec<_> = nft::read().unwrap().tables.iter().map(ToString::to_string).collect();
    assert_eq!(tables, ["inet foreign"]);
    assert_eq!(
        remove(&agent, &ours, &[], &absent_bases),
        Vec::<String>::new(),
        "again is fine"
    );
}
