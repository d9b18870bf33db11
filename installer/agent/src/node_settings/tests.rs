use super::*;
use crate::firewall::tests::sh;
use crate::lease::{Holder, Lease};
use crate::netlink::nft;
use crate::netlink::nft::tests::{make, own_namespace, table};
use landfall_core::action::{Undo, Wanted};
use landfall_core::inventory::Role;
use landfall_core::journal::{INSTALL, Record, RunStart, UNINSTALL, render_line};
use landfall_core::name::Digest;
use landfall_core::packet_filter::openings::Openings;
use landfall_core::spec::ClusterSpec;
use landfall_core::traffic::{self, Peer};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

const PANIC: &str = "kernel.panic_on_oops";

/// A machine with the service on it, and a clock that the test sets.
struct Node {
    keeper: Keeper,
    now: Instant,
    said: Vec<String>,
    _root: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        // In memory, as /run is: see `lease::is_held`.
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let node = Self {
            keeper: Keeper::new(Agent::new(Host::under(root.path()))),
            now: Instant::now(),
            said: Vec::new(),
            _root: root,
        };
        node.write("/proc/sys/kernel/panic_on_oops", "0\n");
        node
    }

    /// The same with the journal of an install that wants the setting to be 1, whatever it was.
    fn installed() -> Self {
        let node = Self::new();
        let wanted = Wanted::Sysctls(vec![(PANIC.to_owned(), "1".to_owned())]);
        node.journal(&[start(1, INSTALL), intent("sysctls/a", wanted), done("sysctls/a")]);
        node
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.keeper.agent.host.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn program(&self, name: &str, script: &str) {
        let path = format!("/usr/local/bin/{name}");
        self.write(&path, script);
        let path = self.keeper.agent.host.at(path);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn journal(&self, records: &[Record]) {
        let path = self.keeper.agent.host.state("journal.jsonl");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        for record in records {
            file.write_all(render_line(record).as_bytes()).unwrap();
        }
    }

    fn set(&self, value: &str) {
        self.write("/proc/sys/kernel/panic_on_oops", value);
    }

    fn get(&self) -> String {
        system::read_sysctl(&self.keeper.agent.host, PANIC).unwrap()
    }

    /// Lets a minute pass; returns what was said.
    fn minute(&mut self) -> Vec<String> {
        self.now += SETTINGS_EVERY;
        self.look()
    }

    fn look(&mut self) -> Vec<String> {
        self.said.clear();
        let said = &mut self.said;
        self.keeper.pass(self.now, &mut |line| said.push(line.to_owned()));
        self.said.clone()
    }
}

fn start(number: u64, command: &str) -> Record {
    Record::RunStarted(RunStart::new(
        format!("r{number}").parse().unwrap(),
        number,
        command,
        "ship",
    ))
}

fn intent(step: &str, wanted: Wanted) -> Record {
    Record::Intent {
        run: "r1".parse().unwrap(),
        step: step.parse().unwrap(),
        action: Digest::of(b"x"),
        undo: Undo::Nothing,
        wanted: Some(wanted),
    }
}

fn done(step: &str) -> Record {
    Record::Done {
        step: step.parse().unwrap(),
        stamp: None,
    }
}

#[test]
fn a_setting_is_right_after_the_first_look_and_the_file_that_asked_otherwise_is_named() {
    let mut node = Node::installed();
    node.write("/etc/sysctl.d/99-site.conf", "# ours\nkernel.panic_on_oops = 0\n");
    let said = node.look();
    assert_eq!(node.get(), "1");
    let line = "kernel.panic_on_oops was 0, as /etc/sysctl.d/99-site.conf, line 2, asks; set it to 1";
    assert_eq!(said, [line]);
    assert_eq!(node.minute(), [""; 0], "what is right is not spoken of");
}

#[test]
fn who_changes_a_value_back_three_times_keeps_it_until_it_is_right_again() {
    let mut node = Node::installed();
    node.look();
    for _ in 0..2 {
        node.set("0");
        assert_eq!(node.minute().len(), 1);
        assert_eq!(node.get(), "1");
    }
    node.set("0");
    let said = node.minute();
    assert_eq!((said.len(), node.get().as_str()), (1, "0"));
    assert!(said[0].contains("changed a setting back 3 times") && said[0].contains("kubelet does not start"));
    assert_eq!(node.minute(), [""; 0], "said once");
    assert_eq!(node.get(), "0");
    node.set("1");
    assert_eq!(node.minute(), ["kernel.panic_on_oops is 1 again, and is kept"]);
    node.set("0");
    node.minute();
    assert_eq!(node.get(), "1");
}

#[test]
fn upgrades_that_load_settings_anew_now_and_then_are_no_rivals() {
    let mut node = Node::installed();
    node.look();
    for _ in 0..5 {
        // As the script of a package does with `sysctl --system`.
        node.set("0");
        assert_eq!(node.minute().len(), 1);
        assert_eq!(node.get(), "1");
        node.now += Duration::from_secs(300);
    }
}

#[test]
fn a_value_that_cannot_be_written_is_spoken_of_once() {
    let mut node = Node::installed();
    let (path, target) = (
        node.keeper.agent.host.at("/proc/sys/kernel/panic_on_oops"),
        "/proc/version",
    );
    fs::remove_file(&path).unwrap();
    // The kernel lets nobody write this one, and reads as something else than wanted.
    std::os::unix::fs::symlink(target, path).unwrap();
    let said = node.look();
    assert!(
        said.len() == 1 && said[0].contains("cannot be written, and is not tried again"),
        "{said:?}"
    );
    assert_eq!(node.minute(), [""; 0]);

    let mut node = Node::installed();
    fs::remove_file(node.keeper.agent.host.at("/proc/sys/kernel/panic_on_oops")).unwrap();
    assert!(node.look()[0].contains("kernel.panic_on_oops is not there"));
    assert_eq!(node.minute(), [""; 0]);
    node.set("0");
    node.minute();
    assert_eq!(node.get(), "1", "what comes later is kept as well");
}

#[test]
fn nothing_is_touched_without_a_journal_under_a_lease_or_while_an_undo_is_open() {
    let mut bare = Node::new();
    bare.look();
    assert_eq!(bare.get(), "0", "nothing is landfall's here");

    let mut node = Node::installed();
    let holder = Holder {
        run: "r2".parse().unwrap(),
        command: INSTALL.to_owned(),
        cluster: "ship".to_owned(),
    };
    let lease = Lease::take(&node.keeper.agent.host, "ann@desk", &holder).unwrap();
    node.look();
    assert_eq!(node.get(), "0", "a run is at work");
    drop(lease);
    node.minute();
    assert_eq!(node.get(), "1");
    node.set("0");
    node.journal(&[start(2, UNINSTALL)]);
    node.minute();
    assert_eq!(node.get(), "0", "an uninstall was begun");
}

#[test]
fn only_what_is_done_is_kept_and_a_later_run_changes_it() {
    let mut node = Node::new();
    let wants = |value: &str| Wanted::Sysctls(vec![(PANIC.to_owned(), value.to_owned())]);
    node.journal(&[start(1, INSTALL), intent("sysctls/a", wants("1"))]);
    node.look();
    assert_eq!(node.get(), "0", "an intent is no wish yet");
    node.journal(&[done("sysctls/a")]);
    node.minute();
    assert_eq!(node.get(), "1");
    node.journal(&[intent("sysctls/a", wants("2")), done("sysctls/a")]);
    node.minute();
    assert_eq!(node.get(), "2");
}

#[test]
fn a_damaged_journal_is_named_once_and_its_whole_lines_count() {
    let mut node = Node::installed();
    let path = node.keeper.agent.host.state("journal.jsonl");
    let mut text = fs::read(&path).unwrap();
    text.extend(b"this is no record\n");
    text.extend(render_line(&start(2, INSTALL)).bytes());
    fs::write(&path, &text).unwrap();
    let said = node.look();
    assert!(said[0].contains("line 4 of the journal is damaged"), "{said:?}");
    assert_eq!(node.get(), "1");
    assert_eq!(node.minute(), [""; 0]);
    for (n, garbage) in [&b"\xff\xfe\n"[..], b"", b"0 9 {}\nx\n", b"\n\n\n"]
        .into_iter()
        .enumerate()
    {
        fs::write(&path, garbage).unwrap();
        node.minute();
        assert_eq!(node.get(), "1", "{n}: the service lives on, and unsets nothing");
    }
}

#[test]
fn a_module_that_was_unloaded_is_loaded_again_and_one_that_cannot_be_is_not_tried_twice() {
    let mut node = Node::new();
    let modules = ["overlay", "br_netfilter", "part_of_the_kernel"];
    let wanted = Wanted::Modules(modules.map(str::to_owned).to_vec());
    node.journal(&[
        start(1, INSTALL),
        intent("kernel-features/a", wanted),
        done("kernel-features/a"),
    ]);
    node.write("/proc/sys/kernel/osrelease", "6.1.0\n");
    node.write("/proc/modules", "overlay 1 0 - Live 0x0\n");
    let index = "kernel/overlay.ko:\nkernel/br_netfilter.ko: kernel/bridge.ko\n";
    node.write("/lib/modules/6.1.0/modules.dep", index);
    node.program("modprobe", "#!/bin/sh\necho \"modprobe: no $2\" >&2\nexit 1\n");
    let said = node.look();
    assert!(
        said.len() == 1 && said[0].contains("br_netfilter cannot be loaded"),
        "{said:?}"
    );
    assert_eq!(node.minute(), [""; 0]);

    node.keeper.refused_modules.clear();
    node.program("modprobe", "#!/bin/sh\nexit 0\n");
    assert_eq!(node.minute(), ["the module br_netfilter was not loaded; loaded it"]);
}

/// containerd's client with a container of each writer; notes whom it kills.
const CTR: &str = r#"#!/bin/sh
root=${0%/usr/local/bin/ctr}
case "$3 $4" in
"tasks list") echo "TASK PID STATUS"; echo "proxy-1 7 RUNNING"; echo "flannel-1 8 RUNNING"; echo "other 9 RUNNING" ;;
"tasks kill") echo "$7" >>"$root/killed" ;;
*)
    case "$6" in
    *namespace*==kube-system,*container.name*==kube-proxy) echo proxy-1 ;;
    *namespace*==kube-flannel,*container.name*==flannel) echo flannel-1 ;;
    esac
    ;;
esac
"#;

/// On the kernel's own nftables, in a network namespace of this thread.
#[test]
fn writers_of_tables_that_were_flushed_away_are_ended_once() {
    own_namespace();
    let mut node = Node::installed();
    node.program("ctr", CTR);
    let killed = |node: &Node| fs::read_to_string(node.keeper.agent.host.at("/killed")).unwrap_or_default();
    node.look();
    assert_eq!(killed(&node), "", "its writer may not run yet");

    let write = || make(&[table("ip", "kube-proxy"), table("ip", "flannel-ipv4")]).unwrap();
    write();
    node.look();
    let flush = |name: &str| {
        let all = nft::tables().unwrap();
        nft::delete_tables(all.iter().filter(|t| t.name == name)).unwrap();
    };
    flush("flannel-ipv4");
    node.look();
    assert_eq!(killed(&node), "", "it may be writing at this moment");
    let said = node.look();
    assert_eq!(killed(&node), "flannel-1\n");
    assert!(
        said[0].contains("ip flannel-ipv4 is gone; ended 1 container"),
        "{said:?}"
    );
    node.look();
    node.look();
    assert_eq!(killed(&node), "flannel-1\n", "once");

    write();
    node.look();
    flush("flannel-ipv4");
    flush("kube-proxy");
    node.program("ctr", "#!/bin/sh\nexit 1\n");
    assert_eq!((node.look().len(), node.look().len(), node.look().len()), (0, 2, 0));
    node.program("ctr", CTR);
    node.look();
    assert_eq!(
        killed(&node),
        "flannel-1\nproxy-1\nflannel-1\n",
        "tried again until it works"
    );
}

/// Tables may go while the service is not there: the writers of those that do not come are ended once.
#[test]
fn writers_of_tables_that_are_missing_from_the_first_look_are_ended_after_a_minute() {
    own_namespace();
    let mut node = Node::installed();
    node.program("ctr", "#!/bin/sh\nexit 0\n");
    let killed = |node: &Node| fs::read_to_string(node.keeper.agent.host.at("/killed")).unwrap_or_default();
    node.look();
    let said: Vec<String> = (0..40).flat_map(|_| node.look()).collect();
    assert_eq!((killed(&node).as_str(), said), ("", vec![]), "no writer runs yet");
    node.program("ctr", CTR);
    make(&[table("ip", "kube-proxy")]).unwrap();
    (0..70).for_each(|_| drop(node.look()));
    assert_eq!(killed(&node), "flannel-1\n", "once");
}

/// On the kernel's own nftables, in a network namespace of this thread.
#[test]
fn host_ports_that_were_flushed_away_are_said_once() {
    own_namespace();
    let mut node = Node::installed();
    node.program("ctr", CTR);
    node.look();
    make(&[table("inet", "cni_hostport")]).unwrap();
    assert_eq!(node.look(), [""; 0]);
    nft::delete_tables(nft::tables().unwrap().iter()).unwrap();
    let said = node.look();
    assert!(
        said.len() == 1 && said[0].contains("inet cni_hostport is gone") && said[0].contains("kubectl delete pod"),
        "{said:?}"
    );
    assert_eq!(node.look(), [""; 0]);
}

/// The record that a run writes before it changes anything.
fn record(number: u64, mode: &str) -> Record {
    let record = serde_json::from_value(serde_json::json!({
        "uid": "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "name": "ship", "sequence": { "run": number, "revision": 0 }, "formed": true,
        "kubernetes_version": "v1.37.2",
        "fixed": { "pod_network_cidr": "10.244.0.0/16", "service_cidr": "10.96.0.0/12", "cluster_domain": "cluster.local",
            "control_plane_endpoint": "api", "api_server_cert_sans": [] },
        "kept": { "proxy_mode": mode }, "members": {},
    }));
    Record::Cluster(Box::new(record.unwrap()))
}

/// On the kernel's own nftables, in a network namespace of this thread.
#[test]
fn daemons_that_go_over_to_iptables_are_not_ended_for_the_tables_that_they_remove() {
    own_namespace();
    let mut node = Node::installed();
    node.program("ctr", CTR);
    node.journal(&[record(1, "nftables")]);
    let killed = |node: &Node| fs::read_to_string(node.keeper.agent.host.at("/killed")).unwrap_or_default();
    make(&[table("ip", "kube-proxy"), table("ip", "flannel-ipv4")]).unwrap();
    let flush = || nft::delete_tables(nft::tables().unwrap().iter()).unwrap();
    node.look();

    let holder = Holder {
        run: "r2".parse().unwrap(),
        command: INSTALL.to_owned(),
        cluster: "ship".to_owned(),
    };
    let lease = Lease::take(&node.keeper.agent.host, "ann@desk", &holder).unwrap();
    node.journal(&[start(2, INSTALL), record(2, "iptables")]);
    flush();
    (0..3).for_each(|_| drop(node.look()));
    drop(lease);
    (0..3).for_each(|_| drop(node.look()));
    assert_eq!(killed(&node), "", "both daemons are healthy, and need no tables");

    // A run that lasts longer than two looks, in a cluster that keeps its tables.
    node.journal(&[start(3, INSTALL), record(3, "nftables")]);
    make(&[table("ip", "kube-proxy"), table("ip", "flannel-ipv4")]).unwrap();
    node.look();
    let lease = Lease::take(&node.keeper.agent.host, "ann@desk", &holder).unwrap();
    flush();
    (0..3).for_each(|_| drop(node.look()));
    drop(lease);
    node.look();
    assert_eq!(killed(&node), "", "the run may have started their writers a moment ago");
    node.look();
    assert_eq!(
        killed(&node),
        "proxy-1\nflannel-1\n",
        "what was flushed away comes back"
    );
}

impl Node {
    /// A machine with rules of nftables and of iptables, and the journal of an install that lets the cluster's traffic through.
    fn behind_filters() -> (Self, Openings) {
        own_namespace();
        let mut node = Self::new();
        node.keeper.agent = Agent::new(node.keeper.agent.host.clone().with_packet_filters());
        let programs = node.keeper.agent.host.at("/usr/sbin");
        fs::create_dir_all(&programs).unwrap();
        for program in ["nft", "iptables-nft-save", "iptables-nft-restore"] {
            std::os::unix::fs::symlink(format!("/usr/sbin/{program}"), programs.join(program)).unwrap();
        }
        let own = Peer {
            role: Role::Worker,
            address: [10, 0, 0, 1].into(),
        };
        let openings = traffic::openings(&ClusterSpec::default(), &Openings::mark_of("0f1e"), own, "eth0", &[]);
        let wanted = Wanted::Firewall(openings.clone());
        node.journal(&[start(1, INSTALL), intent("firewall/a", wanted), done("firewall/a")]);
        (node, openings)
    }
}

const RELOAD: &str = "nft flush ruleset; nft add table inet mine
    nft add chain inet mine in '{ type filter hook input priority 0; policy drop; }'; nft add rule inet mine in tcp dport 22 accept
    iptables-nft -P FORWARD DROP";

#[test]
fn accept_rules_are_written_when_rules_were_loaded_anew_and_said_once() {
    let (mut node, _) = Node::behind_filters();
    assert_eq!(node.look(), [""; 0], "no rules drop anything");
    sh(RELOAD);
    let count = || {
        sh("nft list table inet mine; iptables-nft-save")
            .matches("0f1e")
            .count()
    };
    let said = node.minute();
    assert!(
        said.len() == 1 && said[0].contains("inet mine, chain in") && said[0].ends_with("wrote the accept rules"),
        "{said:?}"
    );
    let made = count();
    assert!(made > 5);
    assert_eq!((node.minute(), count()), (vec![], made));

    // A flush is seen at the next look; so the rules are there when new ones drop.
    sh(RELOAD);
    node.now += LOOK_EVERY;
    let said = node.look();
    assert_eq!((said.len(), count()), (1, made), "{said:?}");
}

#[test]
fn no_accept_rule_is_written_while_a_run_or_an_undo_is_under_way_or_after_the_setting_was_left_out() {
    let (mut node, openings) = Node::behind_filters();
    sh(RELOAD);
    let count = || sh("nft list table inet mine").matches("0f1e").count();
    let holder = Holder {
        run: "r2".parse().unwrap(),
        command: "install".into(),
        cluster: "ship".into(),
    };
    let lease = Lease::take(&node.keeper.agent.host, "ann@desk", &holder).unwrap();
    assert_eq!((node.minute(), count()), (vec![], 0));
    drop(lease);
    node.journal(&[start(2, UNINSTALL)]);
    assert_eq!((node.minute(), count()), (vec![], 0));

    let (mut node, openings) = (Node::behind_filters().0, openings);
    sh(RELOAD);
    let none = Openings {
        accept: vec![],
        ..openings
    };
    node.journal(&[intent("firewall/a", Wanted::Firewall(none)), done("firewall/a")]);
    assert_eq!((node.minute(), count()), (vec![], 0));
}

#[test]
fn who_takes_the_accept_rules_away_again_and_again_keeps_them_away() {
    let (mut node, _) = Node::behind_filters();
    for _ in 0..3 {
        sh(RELOAD);
        assert_eq!(node.minute().len(), 1);
    }
    sh(RELOAD);
    let said = node.minute();
    assert!(said[0].contains("taken the accept rules away 3 times"), "{said:?}");
    assert_eq!(node.minute(), [""; 0]);
    sh("nft flush ruleset");
    let said = node.minute();
    assert!(said[0].contains("are there again"), "nothing drops any more: {said:?}");
    for _ in 0..10 {
        // Somebody who loads rules now and then does not fight.
        sh(RELOAD);
        node.now += Duration::from_secs(300);
        assert_eq!(node.look().len(), 1);
    }
}

#[test]
fn the_route_comes_back_when_it_vanishes_and_goes_with_the_service() {
    own_namespace();
    let route = ServiceRoute {
        network: "10.96.0.0/12".parse().unwrap(),
        interface: "lf0".to_owned(),
    };
    let stands = || route::has_link_route(&route.network, "lf0").unwrap();
    let wait_for = |what: &str, there: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !there() {
            assert!(Instant::now() < deadline, "{what} did not happen");
            thread::sleep(Duration::from_millis(20));
        }
    };
    let ip = |args: &str| {
        let done = std::process::Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(done.success(), "ip {args}");
    };
    let options = Options {
        address: Some("192.0.2.7".parse().unwrap()),
        route: Some(route.clone()),
        no_checksum_offload: None,
    };
    // A thread begins in the network namespace of the one that starts it.
    let service = thread::spawn(move || run(&options, &mut |_| {}));
    ip("link add lf0 type bridge");
    ip("link set lf0 up");
    wait_for("the route", &stands);
    ip("addr add 192.0.2.7/32 dev lf0");
    ip("route del 10.96.0.0/12");
    wait_for("the route's return", &stands);
    ip("route add default via 192.0.2.1 dev lf0 onlink");
    wait_for("its end beside a default route", &|| !stands());
    ip("route del default");
    wait_for("its return without one", &stands);
    // One to a part of the network leaves the rest to it.
    ip("route add 10.96.0.0/24 dev lf0");
    ip("route del 10.96.0.0/12");
    wait_for("its return beside a narrower one", &stands);
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
    service.join().unwrap().unwrap();
    assert!(!stands());
    route.remove().unwrap();
}

#[test]
fn checksums_are_made_by_the_kernel_on_every_new_link_of_flannels() {
    use crate::netlink::ethtool::{TX_CHECKSUM, has_feature, set_feature};
    own_namespace();
    let ip = |args: &str| {
        let done = std::process::Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(done.success(), "ip {args}");
    };
    let index = || {
        route::links()
            .unwrap()
            .into_iter()
            .find(|l| l.name == "flannel.1")
            .unwrap()
            .index
    };
    let is_on = || has_feature(index(), TX_CHECKSUM).unwrap();
    let make = "link add flannel.1 type vxlan id 1 dstport 8472";
    let mut offload = Offload::default();
    assert_eq!(
        offload.keep_off("flannel.1", Instant::now()),
        None,
        "the link is waited for"
    );
    ip(make);
    assert!(is_on(), "VXLAN links have it on");
    let said = offload.keep_off("flannel.1", Instant::now()).unwrap();
    assert!(said.contains("turned it off") && !is_on(), "{said}");
    assert_eq!(
        offload.keep_off("flannel.1", Instant::now()),
        None,
        "what is right is not spoken of"
    );
    ip("link del flannel.1");
    ip(make);
    assert!(is_on());
    assert!(
        offload.keep_off("flannel.1", Instant::now()).is_some() && !is_on(),
        "a new link, a new turn"
    );
    for turn in 1..=4 {
        set_feature(index(), TX_CHECKSUM, true).unwrap();
        let said = offload.keep_off("flannel.1", Instant::now());
        assert_eq!((said.is_some(), is_on()), (turn < 4, turn > 2), "turn {turn}: {said:?}");
    }
    set_feature(index(), TX_CHECKSUM, false).unwrap();
    let options = Options {
        address: None,
        route: None,
        no_checksum_offload: Some("flannel.1".to_owned()),
    };
    remove(&options).unwrap();
    assert!(is_on());
    ip("link del flannel.1");
    remove(&options).unwrap();
    // Another's link of that name is left alone.
    ip("link add flannel.1 type bridge");
    let before = is_on();
    assert_eq!(offload.keep_off("flannel.1", Instant::now()), None);
    remove(&options).unwrap();
    assert_eq!(is_on(), before);
}
