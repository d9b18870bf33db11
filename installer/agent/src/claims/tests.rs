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
    fs::write(at("/proc/sys/vm/overcommit_memory"), "0\n").unwrap();
    let claims = Claims {
        paths: ["/etc/foreign", "/var/lib/kubelet", "/var/lib/etcd"]
            .map(PathBuf::from)
            .to_vec(),
        sysctls: vec!["vm.overcommit_memory".into(), "vm.absent".into()],
        ..Claims::default()
    };
    let undo = undo_for(&agent, &claims, &[]).unwrap();
    let Undo::RemoveClaims {
        claims: ours,
        sysctls,
        set,
        ..
    } = undo
    else {
        panic!()
    };
    assert_eq!(ours.paths, ["/var/lib/kubelet/*", "/var/lib/etcd"].map(PathBuf::from));
    assert_eq!(sysctls, [("vm.overcommit_memory".to_owned(), "0".to_owned())]);
    assert_eq!(set, [("vm.overcommit_memory".to_owned(), "1".to_owned())]);

    fs::create_dir_all(at("/var/lib/kubelet/pods/x")).unwrap();
    fs::create_dir_all(at("/var/lib/etcd/member")).unwrap();
    fs::write(at("/proc/sys/vm/overcommit_memory"), "1\n").unwrap();
    for _ in 0..2 {
        let removal = Removal {
            claims: &ours,
            sysctls: &sysctls,
            set: &set,
            absent_bases: &[],
        };
        assert_eq!(remove(&agent, removal).unwrap(), Left::default());
        assert!(at("/etc/foreign/conf").exists() && at("/var/lib/kubelet/lost+found").exists());
        assert!(!at("/var/lib/kubelet/pods").exists() && !at("/var/lib/etcd").exists());
        assert_eq!(
            system::read_sysctl(&agent.host, "vm.overcommit_memory").as_deref(),
            Some("0")
        );
    }
}

/// A whole machine's worth of claims on this kernel: a network namespace of this thread's own, mounts and cgroups under names of the test's.
#[test]
#[expect(clippy::too_many_lines, reason = "one machine with one thing of each kind")]
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
    // Of the name of a link that was claimed, and not what the daemon would make.
    ip(&["link", "add", "flannel.1", "type", "bridge"]);
    ip(&["link", "add", "veth2", "type", "veth", "peer", "name", "peer2"]);
    let rules = [
        table("ip", "kube-proxy"),
        table("ip", "filter"),
        chain("filter", "INPUT", true),
        chain("filter", "KUBE-FIREWALL", false),
        jump("filter", "INPUT", "KUBE-FIREWALL"),
    ];
    make(&rules).unwrap();

    let removal = Removal {
        claims: &ours,
        sysctls: &[],
        set: &[],
        absent_bases: &absent_bases,
    };
    let left = remove(&agent, removal).unwrap();
    let ended = [daemon.wait(), pod.wait()].map(|status| !status.unwrap().success());
    rustix::mount::unmount(at("foreign/mounted"), rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(left.residue, Vec::<String>::new());
    assert_eq!(left.notes.len(), 1, "{:?}", left.notes);
    assert!(
        left.notes[0].starts_with("the link flannel.1 stays"),
        "{:?}",
        left.notes
    );
    assert_eq!(ended, [true, true]);
    assert!(!at("state").exists() && at("foreign/mounted").exists());
    assert!(!cgroups::exists(&group) && in_group);
    let links: Vec<_> = route::links().unwrap().into_iter().map(|l| l.name).collect();
    assert!(
        ["foreign0", "veth2", "flannel.1"]
            .iter()
            .all(|n| links.contains(&(*n).to_owned())),
        "{links:?}"
    );
    assert!(
        !["cni0", "veth1"].iter().any(|n| links.contains(&(*n).to_owned())),
        "{links:?}"
    );
    let tables: Vec<_> = nft::read().unwrap().tables.iter().map(ToString::to_string).collect();
    assert_eq!(tables, ["inet foreign"]);
    assert_eq!(remove(&agent, removal).unwrap(), left, "again is fine");
}

fn recorded(agent: &Agent, paths: &[&str]) -> (Claims, Vec<PathBuf>) {
    let claims = Claims {
        paths: paths.iter().map(PathBuf::from).collect(),
        ..Claims::default()
    };
    match undo_for(agent, &claims, &[]).unwrap() {
        Undo::RemoveClaims {
            claims, absent_parents, ..
        } => (claims, absent_parents),
        other => panic!("{other:?}"),
    }
}

fn take_away(agent: &Agent, claims: &Claims) -> Left {
    let removal = Removal {
        claims,
        sysctls: &[],
        set: &[],
        absent_bases: &[],
    };
    remove(agent, removal).unwrap()
}

#[test]
fn network_namespaces_of_others_stay_though_the_directory_was_absent() {
    let root = tempfile::tempdir().unwrap();
    let agent = Agent::new(Host::under(root.path()));
    let at = |p: &str| agent.host.at(p);
    let (claims, parents) = recorded(&agent, &["/run/netns"]);
    assert_eq!(claims.paths, [PathBuf::from("/run/netns/cni-*")]);
    assert_eq!(parents[0], Path::new("/run/netns"), "it goes when it ends empty");
    for old in [false, true] {
        fs::create_dir_all(at("/run/netns")).unwrap();
        fs::write(at("/run/netns/cni-1"), "").unwrap();
        fs::write(at("/run/netns/vpn"), "").unwrap();
        // Journals of older versions claim the whole directory.
        let claims = if old {
            Claims {
                paths: vec!["/run/netns".into()],
                ..Claims::default()
            }
        } else {
            claims.clone()
        };
        assert_eq!(take_away(&agent, &claims), Left::default());
        assert!(
            at("/run/netns/vpn").exists() && !at("/run/netns/cni-1").exists(),
            "old: {old}"
        );
    }
    fs::remove_file(at("/run/netns/vpn")).unwrap();
    fs::write(at("/run/netns/cni-9"), "").unwrap();
    let (claims, _) = recorded(&agent, &["/run/netns"]);
    assert_eq!(claims.paths, Vec::<PathBuf>::new(), "another containerd was here first");
}

#[test]
fn shared_directories_keep_what_others_put_there_later() {
    let root = tempfile::tempdir().unwrap();
    let agent = Agent::new(Host::under(root.path()));
    let at = |p: &str| agent.host.at(p);
    let (claims, _) = recorded(
        &agent,
        &["/opt/containerd", "/var/lib/cni", "/run/nri", "/var/lib/kubelet"],
    );
    for dir in [
        "/opt/containerd/bin",
        "/opt/containerd/lib",
        "/var/lib/cni/results",
        "/var/lib/cni/networks/podman",
        "/run/nri",
        "/var/lib/kubelet/pods",
    ] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    for file in [
        "/opt/containerd/bin/theirs",
        "/var/lib/cni/results/landfall-12ab-eth0",
        "/var/lib/cni/results/cni-loopback-12ab-lo",
        "/var/lib/cni/networks/podman/10.88.0.2",
        "/run/nri/nri.sock",
    ] {
        fs::write(at(file), "").unwrap();
    }
    let left = take_away(&agent, &claims);
    assert_eq!(left.residue, Vec::<String>::new());
    let stays = |dir: &str| format!("the directory {dir} stays: it holds what landfall did not make");
    assert_eq!(left.notes, [stays("/opt/containerd"), stays("/var/lib/cni")]);
    for (path, is_there) in [
        ("/opt/containerd/bin/theirs", true),
        ("/opt/containerd/lib", false),
        ("/var/lib/cni/networks/podman/10.88.0.2", true),
        ("/var/lib/cni/results", false),
        ("/run/nri", false),
        ("/var/lib/kubelet", false),
    ] {
        assert_eq!(at(path).exists(), is_there, "{path}");
    }
    for file in ["/opt/containerd/bin/theirs", "/var/lib/cni/networks/podman/10.88.0.2"] {
        fs::remove_file(at(file)).unwrap();
    }
    assert_eq!(take_away(&agent, &claims), Left::default());
    assert!(!at("/opt/containerd").exists() && !at("/var/lib/cni").exists());
}

#[test]
fn a_lock_that_is_held_and_files_of_another_runtime_stay() {
    let root = tempfile::tempdir().unwrap();
    let agent = Agent::new(Host::under(root.path()));
    let (lock, files) = (Path::new("/run/xtables.lock"), Path::new("/tmp/runc-process*"));
    for path in ["/run/xtables.lock", "/tmp/runc-process123", "/tmp/other"] {
        fs::create_dir_all(agent.host.at(path).parent().unwrap()).unwrap();
        fs::write(agent.host.at(path), "").unwrap();
    }
    let holder = fs::File::open(agent.host.at(lock)).unwrap();
    rustix::fs::flock(&holder, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(paths::remove(&agent, lock, None).notes.len(), 1);
    assert_eq!(paths::remove(&agent, files, Some("dockerd")).notes.len(), 1);
    assert!(agent.host.at(lock).exists() && agent.host.at("/tmp/runc-process123").exists());
    drop(holder);
    for path in [lock, files] {
        assert_eq!(paths::remove(&agent, path, None), Left::default());
    }
    assert!(!agent.host.at(lock).exists() && !agent.host.at("/tmp/runc-process123").exists());
    assert!(agent.host.at("/tmp/other").exists());
    let (claims, _) = recorded(&agent, &["/tmp/runc-process*"]);
    assert_eq!(claims.paths, [files]);
    fs::write(agent.host.at("/tmp/runc-process9"), "").unwrap();
    assert_eq!(recorded(&agent, &["/tmp/runc-process*"]).0.paths, Vec::<PathBuf>::new());
}

#[test]
fn a_profile_that_was_loaded_before_is_not_claimed_and_another_goes() {
    let root = tempfile::tempdir().unwrap();
    let agent = Agent::new(Host::under(root.path()));
    let at = |name: &str| agent.host.at("/sys/kernel/security/apparmor").join(name);
    fs::create_dir_all(at("")).unwrap();
    fs::write(at("profiles"), "theirs (enforce)\n").unwrap();
    let claims = Claims {
        apparmor_profiles: vec!["theirs".into(), "cri-containerd.apparmor.d".into()],
        ..Claims::default()
    };
    let Undo::RemoveClaims { claims: ours, .. } = undo_for(&agent, &claims, &[]).unwrap() else {
        panic!()
    };
    assert_eq!(ours.apparmor_profiles, ["cri-containerd.apparmor.d"]);
    assert_eq!(take_away(&agent, &ours), Left::default(), "not loaded: nothing to do");
    assert!(!at(".remove").exists());
    fs::write(
        at("profiles"),
        "theirs (enforce)\ncri-containerd.apparmor.d (enforce)\n",
    )
    .unwrap();
    assert_eq!(take_away(&agent, &ours), Left::default());
    assert_eq!(fs::read_to_string(at(".remove")).unwrap(), "cri-containerd.apparmor.d");
}

#[test]
fn routes_over_members_go_and_those_of_others_stay() {
    use crate::netlink::nft::tests::own_namespace;
    use landfall_core::cluster_record::ClusterRecord;
    own_namespace();
    let ip = |args: &str| {
        let done = std::process::Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(done.success(), "ip {args}");
    };
    ip("link add eth0 type bridge");
    ip("link set eth0 up");
    ip("addr add 10.0.0.9/24 dev eth0");
    ip("route add 10.244.9.0/24 via 10.0.0.1");
    let claims = Claims {
        routed_networks: vec!["10.244.0.0/16".parse().unwrap()],
        ..Claims::default()
    };
    let Undo::RemoveClaims { claims: ours, .. } = undo_for(&Agent::new(Host::real()), &claims, &[]).unwrap() else {
        panic!()
    };
    assert_eq!(ours.prior_routes, ["10.244.9.0/24".parse().unwrap()]);
    // As flannel makes them, and what others make: over no member, to another network, to the whole of this one.
    ip("route add 10.244.1.0/24 via 10.0.0.1 dev eth0");
    ip("route add 10.244.2.0/24 via 10.0.0.2 dev eth0");
    ip("route add 10.244.3.0/24 via 10.0.0.77 dev eth0");
    ip("route add 10.99.0.0/24 via 10.0.0.1 dev eth0");
    ip("route add 10.244.0.0/16 via 10.0.0.1 dev eth0");
    ip("route add 10.244.4.0/24 dev eth0");
    let member = |last: u8| serde_json::json!({ "uid": "x", "role": "worker", "address": format!("10.0.0.{last}") });
    let record: ClusterRecord = serde_json::from_value(serde_json::json!({
        "uid": "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "name": "ship", "sequence": { "run": 1, "revision": 0 }, "formed": true,
        "kubernetes_version": "v1.37.2",
        "fixed": { "pod_network_cidr": "10.244.0.0/16", "service_cidr": "10.96.0.0/12", "cluster_domain": "cluster.local",
            "control_plane_endpoint": "api", "api_server_cert_sans": [] },
        "kept": { "proxy_mode": "nftables" }, "members": { "cp-1": member(1), "w-1": member(2) },
    }))
    .unwrap();
    let left = || {
        let routes = route::routes().unwrap();
        let over = routes
            .iter()
            .filter(|r| r.destination.prefix >= 16 && r.destination.to_string() != "10.0.0.0/24");
        let mut left: Vec<String> = over.map(|r| r.destination.to_string()).collect();
        left.sort();
        left
    };
    let all = [
        "10.244.0.0/16",
        "10.244.1.0/24",
        "10.244.2.0/24",
        "10.244.3.0/24",
        "10.244.4.0/24",
        "10.244.9.0/24",
        "10.99.0.0/24",
    ];
    assert_eq!(left(), all);
    let records = [record];
    let notes = routes::remove(&ours, &records).unwrap();
    assert_eq!(
        notes,
        ["the route to 10.244.3.0/24 stays: 10.0.0.77 is no member of the cluster"]
    );
    let others = [
        "10.244.0.0/16",
        "10.244.3.0/24",
        "10.244.4.0/24",
        "10.244.9.0/24",
        "10.99.0.0/24",
    ];
    assert_eq!(left(), others);
    assert_eq!(routes::remove(&ours, &records).unwrap(), notes, "again is fine");
    // A cluster by VXLAN claims none.
    assert_eq!(routes::remove(&Claims::default(), &records).unwrap(), [""; 0]);
    assert_eq!(left(), others);
}
