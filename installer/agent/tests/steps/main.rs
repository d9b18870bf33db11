//! Every action that is about files: look, act, look again, take back; and taking back after nothing, half or all of it happened.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod durability;

use landfall_agent::agent::Agent;
use landfall_agent::host::Host;
use landfall_agent::lease::Holder;
use landfall_agent::{interpret, undo};
use landfall_core::action::{Action, BootstrapGoal, Claims, Content, FeatureEvidence, KernelFeature};
use landfall_core::bundle_index::{Image, OCI_MANIFEST};
use landfall_core::inventory::Role;
use landfall_core::journal::{EntryState, JournalError, Record, RunStart, parse_journal};
use landfall_core::name::Digest;
use landfall_core::packet_filter::openings::Openings;
use landfall_core::plan::undo::UndoScope;
use landfall_core::plan::{Goal, Stage, Step, plan};
use landfall_core::spec::ClusterSpec;
use landfall_core::traffic::{self, Peer};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Programs of the host by which packet filters are read and written.
const FILTER_PROGRAMS: [&str; 5] = [
    "nft",
    "iptables-nft-save",
    "iptables-nft-restore",
    "iptables-legacy-save",
    "iptables-legacy-restore",
];
/// Rules that drop what the cluster sends, in nftables and in both forms of iptables.
const FILTERS: &str = "nft add table inet mine
nft add chain inet mine in '{ type filter hook input priority 5; policy drop; }'
nft add rule inet mine in tcp dport 22 accept
iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT
iptables-nft -A INPUT -j REJECT
iptables-legacy --wait 10 -P FORWARD DROP";

/// Runs a script in this thread's network namespace.
fn sh(script: &str) -> String {
    let output = std::process::Command::new("bash")
        .args(["-ec", script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Makes packet filters in a network namespace of this thread, and the programs for them under `root`.
#[expect(
    deprecated,
    reason = "only this thread's own network namespace is left, and no descriptor is shared"
)]
fn make_packet_filters(root: &Path) {
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("these tests need root");
    sh(FILTERS);
    fs::create_dir_all(root.join("usr/sbin")).unwrap();
    for program in FILTER_PROGRAMS {
        std::os::unix::fs::symlink(
            Path::new("/usr/sbin").join(program),
            root.join("usr/sbin").join(program),
        )
        .unwrap();
    }
}

/// A machine with some files and packet filters of its own.
struct Machine {
    root: tempfile::TempDir,
    agent: Agent,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path.trim_start_matches('/'));
        for dir in [
            "/etc/landfall-not-ours",
            "/usr/local/bin",
            "/bin",
            "/proc/sys/net/ipv4",
            "/proc/sys/vm",
        ] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        std::os::unix::fs::symlink("/bin/sh", at("/bin/sh")).unwrap();
        for (path, text, mode) in [
            ("/etc/hosts", "127.0.0.1 localhost\n", 0o644),
            ("/etc/foreign.conf", "theirs\n", 0o640),
            (
                "/etc/kubelet.conf",
                "clusters:\n- cluster:\n    server: https://api.ship:7443\n",
                0o600,
            ),
            ("/etc/landfall-not-ours/first", "theirs\n", 0o644),
            ("/usr/local/bin/kubectl", "an older kubectl\n", 0o700),
            ("/proc/sys/net/ipv4/ip_forward", "0\n", 0o644),
            ("/proc/sys/vm/overcommit_memory", "0\n", 0o644),
            ("/proc/filesystems", "nodev\tsysfs\nnodev\toverlay\n", 0o444),
        ] {
            fs::write(at(path), text).unwrap();
            fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        make_packet_filters(root.path());
        let machine = Self {
            agent: Agent::new(Host::under(root.path()).with_packet_filters()),
            root,
        };
        machine.begin("run-1");
        machine
    }

    /// Takes the lease for a run that changes nothing yet.
    fn lease(&self, run: &str) {
        let holder = Holder {
            run: run.parse().unwrap(),
            command: "install".into(),
            cluster: "ship".into(),
        };
        self.agent.take_lease("ann@desk", holder).unwrap();
    }

    /// Takes the lease for a run, and begins it.
    fn begin(&self, run: &str) {
        self.lease(run);
        let own = self.agent.ownership().unwrap();
        let number = own.runs.iter().filter_map(|r| r.start.number).max().unwrap_or(0) + 1;
        let start = RunStart::new(run.parse().unwrap(), number, "install", "ship");
        self.agent.start_run(&start, None).unwrap();
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        fs::create_dir_all(self.at("/var/lib/landfall/blobs")).unwrap();
        fs::write(self.agent.host.blob(&digest), bytes).unwrap();
        digest
    }

    /// Everything on the machine outside landfall's own state: path, mode, content, and the rules of packet filters. Kernel settings without the final newline.
    fn fingerprint(&self) -> BTreeMap<PathBuf, (u32, String)> {
        fn walk(root: &Path, dir: &Path, all: &mut BTreeMap<PathBuf, (u32, String)>) {
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                let (path, meta) = (entry.path(), entry.path().symlink_metadata().unwrap());
                let name = path.strip_prefix(root).unwrap().to_owned();
                if name == Path::new("var") || name.starts_with("run") {
                    continue;
                }
                let content = if meta.is_file() {
                    fs::read_to_string(&path).unwrap().trim_end().to_owned()
                } else {
                    String::new()
                };
                all.insert(name, (meta.permissions().mode(), content));
                if meta.is_dir() {
                    walk(root, &path, all);
                }
            }
        }
        let mut all = BTreeMap::new();
        walk(self.root.path(), self.root.path(), &mut all);
        let rules = sh("nft list ruleset; iptables-nft-save; iptables-legacy-save");
        // Times and counters.
        let rules = rules.lines().filter(|line| !line.starts_with('#'));
        let rules: Vec<&str> = rules.map(|line| line.split('[').next().unwrap_or_default()).collect();
        all.insert(PathBuf::from("packet filters"), (0, rules.join("\n")));
        all
    }

    fn records(&self) -> Vec<Record> {
        let text = fs::read(self.at("/var/lib/landfall/journal.jsonl")).unwrap_or_default();
        parse_journal(&text).unwrap()
    }

    fn run(&self, step: &Step) -> bool {
        interpret::run_step(&self.agent, step, &|_| {}).unwrap().changed
    }

    /// Takes back by a plan, as the engine does. Returns how many entries went, and what stays.
    fn undo(&self, scope: &UndoScope) -> (usize, Vec<String>) {
        let own = self.agent.ownership().unwrap();
        let owned = &BTreeMap::from([("cp-1".parse().unwrap(), own)]);
        let plan = plan(&Goal::Undone { owned, scope }).unwrap();
        let run = |step| interpret::run_step(&self.agent, step, &|_| {}).unwrap();
        let outcomes: Vec<_> = plan.steps.iter().map(run).collect();
        let undone = outcomes.iter().filter(|o| o.changed).count();
        (undone, outcomes.into_iter().flat_map(|o| o.residue).collect())
    }

    fn undo_all(&self) {
        let (_, residue) = self.undo(&UndoScope::Everything);
        assert_eq!(residue, Vec::<String>::new());
    }
}

fn step(id: &str, action: Action) -> Step {
    Step::new(id.parse().unwrap(), Stage::Prepare, "cp-1".parse().unwrap(), 30, action)
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    // One raw zstd block: enough of the format for a test without a compressor.
    assert!(bytes.len() < 256);
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, bytes.len() as u8];
    let header = ((bytes.len() as u32) << 3) | 1;
    out.extend(&header.to_le_bytes()[..3]);
    out.extend(bytes);
    out
}

/// What a node needs whose peers are control planes at these addresses.
fn openings(peers: &[u8]) -> Openings {
    let peer = |last: u8| Peer {
        role: Role::ControlPlane,
        address: [10, 0, 0, last].into(),
    };
    let peers: Vec<Peer> = peers.iter().copied().map(peer).collect();
    let mark = Openings::mark_of("0f1e2d3c4b5a69788796a5b4c3d2e1f0");
    traffic::openings(&ClusterSpec::default(), &mark, peer(1), "eth0", &peers)
}

#[expect(clippy::too_many_lines, reason = "a table with one step of each kind")]
fn steps(machine: &Machine) -> Vec<Step> {
    let program = b"#!/bin/sh\nnew kubectl\n";
    let blob = machine.blob(&compressed(program));
    let text = |t: &str| Content::Text(t.to_owned());
    vec![
        step(
            "claim",
            Action::Claim {
                claims: Claims {
                    paths: vec!["/opt/made-by-daemons".into(), "/etc/landfall-not-ours".into()],
                    sysctls: vec!["vm.overcommit_memory".into()],
                    ..Claims::default()
                },
            },
        ),
        step(
            "dir",
            Action::Directory {
                path: "/opt/landfall/cni/bin".into(),
                mode: 0o750,
            },
        ),
        step(
            "new-file",
            Action::File {
                path: "/opt/landfall/cni/new".into(),
                mode: 0o640,
                content: text("ours\n"),
            },
        ),
        step(
            "old-file",
            Action::File {
                path: "/etc/foreign.conf".into(),
                mode: 0o600,
                content: text("ours\n"),
            },
        ),
        step(
            "generated",
            Action::File {
                path: "/opt/landfall/key".into(),
                mode: 0o600,
                content: Content::Generated("k: ${random:32}\n".into()),
            },
        ),
        step(
            "binary",
            Action::Binary {
                path: "/usr/local/bin/kubectl".into(),
                blob,
                digest: Digest::of(program),
                size_bytes: program.len() as u64,
            },
        ),
        step(
            "hosts",
            Action::HostsLines {
                lines: vec!["10.0.0.1 api.ship".into(), "10.0.0.2 cp-2".into()],
            },
        ),
        step(
            "kubeconfig",
            Action::KubeconfigServer {
                path: "/etc/kubelet.conf".into(),
                from: "https://api.ship:7443".into(),
                to: "https://127.0.0.1:7443".into(),
                restart: None,
            },
        ),
        step(
            "firewall",
            Action::Firewall {
                openings: openings(&[2, 3]),
            },
        ),
        step(
            "sysctls",
            Action::Sysctls {
                settings: vec![("net.ipv4.ip_forward".into(), "1".into())],
            },
        ),
        step(
            "features",
            Action::KernelFeatures {
                features: vec![KernelFeature {
                    module: "overlay".into(),
                    evidence: FeatureEvidence::Filesystem("overlay".into()),
                }],
            },
        ),
        step(
            "run",
            Action::Run {
                argv: vec![
                    "sh".into(),
                    "-c".into(),
                    format!("echo credential; echo made > {}", machine.at("/etc/made").display()),
                ],
                env: vec![],
                creates: vec!["/etc/made".into(), "/etc/credential".into()],
                claims: Claims {
                    paths: vec!["/etc/made".into(), "/etc/credential".into()],
                    ..Claims::default()
                },
                effects: vec![],
                stdout: Some("/etc/credential".into()),
            },
        ),
    ]
}

/// A join whose program writes a line at each run, and ends well at the `good` one.
fn join(machine: &Machine, good: usize, complaint: &str) -> Step {
    let ran = machine.at("/etc/ran").display().to_string();
    let script = format!(
        "echo >> {ran}; n=0; while read -r _; do n=$((n+1)); done < {ran}; [ $n -ge {good} ] || {{ echo '{complaint}'; exit 1; }}"
    );
    step(
        "join",
        Action::Bootstrap {
            goal: BootstrapGoal::ControlPlane,
            argv: vec!["sh".into(), "-c".into(), script],
            creates: vec![],
            claims: Claims::default(),
            effects: vec![],
        },
    )
}

#[test]
fn a_join_for_which_etcd_was_late_is_tried_again_and_no_other() {
    let late = "error: error execution phase etcd-join: context deadline exceeded";
    let other = "error: error execution phase control-plane-prepare/certs: no such file";
    let cases = [(3, late, true, 3), (4, late, false, 3), (2, other, false, 1)];
    for (good, complaint, joins, runs) in cases {
        let machine = Machine::new();
        let join = join(&machine, good, complaint);
        let ended = interpret::run_step(&machine.agent, &join, &|_| {});
        let ran = fs::read_to_string(machine.at("/etc/ran")).unwrap().lines().count();
        assert_eq!((ended.is_ok(), ran), (joins, runs), "{complaint}: {ended:?}");
    }
}

#[test]
fn every_step_is_done_once_and_taken_back_without_a_trace() {
    let machine = Machine::new();
    let before = machine.fingerprint();
    let steps = steps(&machine);
    for step in &steps {
        // The features are there already: that they are wanted is recorded, and nothing else.
        assert!(machine.run(step), "{}", step.id);
        let verdict = interpret::check(&machine.agent, step).unwrap();
        assert!(verdict.is_satisfied(), "{}: {verdict:?}", step.id);
    }
    assert_eq!(fs::read_to_string(machine.at("/etc/foreign.conf")).unwrap(), "ours\n");
    assert_eq!(
        fs::read_to_string(machine.at("/usr/local/bin/kubectl")).unwrap(),
        "#!/bin/sh\nnew kubectl\n"
    );
    assert_eq!(
        fs::read_to_string(machine.at("/etc/credential")).unwrap(),
        "credential\n"
    );
    assert_eq!(
        fs::metadata(machine.at("/etc/credential"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    assert_eq!(
        fs::read_to_string(machine.at("/etc/kubelet.conf")).unwrap(),
        "clusters:\n- cluster:\n    server: https://127.0.0.1:7443\n"
    );
    let key = fs::read_to_string(machine.at("/opt/landfall/key")).unwrap();

    let (records, made) = (machine.records(), machine.fingerprint());
    machine.lease("run-2");
    for step in &steps {
        assert!(!machine.run(step), "{} again", step.id);
    }
    assert_eq!(machine.records(), records, "a run without changes adds no record");
    assert_eq!(machine.fingerprint(), made);
    assert_eq!(
        fs::read_to_string(machine.at("/opt/landfall/key")).unwrap(),
        key,
        "generated once"
    );

    // What daemons make after their claim was recorded.
    fs::create_dir_all(machine.at("/opt/made-by-daemons/deep")).unwrap();
    fs::write(machine.at("/proc/sys/vm/overcommit_memory"), "1\n").unwrap();
    fs::write(machine.at("/etc/landfall-not-ours/kept"), "x").unwrap();
    machine.undo_all();
    fs::remove_file(machine.at("/etc/landfall-not-ours/kept")).expect("a directory that was there keeps what is in it");
    assert_eq!(machine.fingerprint(), before);
    assert!(machine.agent.ownership().unwrap().is_empty());
}

/// Cuts the journal after each record in turn, as a crash does: once with nothing of the next act done, once with all of it.
#[test]
fn a_crash_after_any_record_leaves_a_machine_that_can_go_on_or_back() {
    let count = {
        let machine = Machine::new();
        for step in &steps(&machine) {
            machine.run(step);
        }
        machine.records().len()
    };
    for cut in 1..=count {
        for go_on in [false, true] {
            let machine = Machine::new();
            let before = machine.fingerprint();
            let steps = steps(&machine);
            let journal = machine.at("/var/lib/landfall/journal.jsonl");
            // Everything up to the record happened, and the act behind it too, but nothing more was written.
            for step in &steps {
                machine.run(step);
                if machine.records().len() >= cut {
                    break;
                }
            }
            let text = fs::read(&journal).unwrap();
            let kept: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').take(cut).collect();
            fs::write(&journal, kept.concat()).unwrap();
            machine.agent.forget_journal();
            if go_on {
                for step in &steps {
                    machine.run(step);
                }
                for step in &steps {
                    assert!(!machine.run(step), "cut at {cut}: {} is not settled", step.id);
                }
                let own = machine.agent.ownership().unwrap();
                assert!(own.entries.iter().all(|e| e.state == EntryState::Owned), "cut at {cut}");
            }
            machine.undo_all();
            assert_eq!(machine.fingerprint(), before, "cut at {cut}, go on: {go_on}");
        }
    }
}

#[test]
fn an_undo_that_was_interrupted_is_finished_by_the_next() {
    let machine = Machine::new();
    let before = machine.fingerprint();
    let steps = steps(&machine);
    for step in &steps {
        machine.run(step);
    }
    let journal = machine.at("/var/lib/landfall/journal.jsonl");
    let done = fs::read(&journal).unwrap();
    machine.undo_all();
    let undone = fs::read(&journal).unwrap();
    let lines: Vec<&[u8]> = undone.split_inclusive(|b| *b == b'\n').collect();
    let first = done.iter().filter(|b| **b == b'\n').count();
    for cut in first..lines.len() {
        // The machine is as after the whole undo; the journal says that less of it happened.
        fs::write(&journal, lines[..cut].concat()).unwrap();
        machine.agent.forget_journal();
        machine.undo_all();
        assert_eq!(machine.fingerprint(), before, "cut at {cut}");
    }
}

#[test]
fn rollback_takes_back_the_last_run_alone() {
    let machine = Machine::new();
    let file = |text: &str| Action::File {
        path: "/etc/x".into(),
        mode: 0o644,
        content: Content::Text(text.into()),
    };
    machine.run(&step("x", file("one")));
    machine.begin("run-2");
    machine.run(&step("x", file("two")));
    machine.run(&step(
        "y",
        Action::Directory {
            path: "/etc/y".into(),
            mode: 0o755,
        },
    ));
    let second = UndoScope::Runs(["run-2".parse().unwrap()].into());
    assert_eq!(machine.undo(&second), (2, vec![]));
    assert_eq!(fs::read_to_string(machine.at("/etc/x")).unwrap(), "one");
    assert!(!machine.at("/etc/y").exists());
    machine.undo_all();
    assert!(!machine.at("/etc/x").exists());
}

#[test]
fn what_cannot_be_taken_back_is_named_and_the_rest_goes_on() {
    let machine = Machine::new();
    machine.run(&step(
        "a",
        Action::Directory {
            path: "/etc/a".into(),
            mode: 0o755,
        },
    ));
    machine.run(&step(
        "f",
        Action::File {
            path: "/etc/f".into(),
            mode: 0o644,
            content: Content::Text("x".into()),
        },
    ));
    fs::remove_file(machine.at("/etc/f")).unwrap();
    fs::create_dir(machine.at("/etc/f")).unwrap();
    let (undone, residue) = machine.undo(&UndoScope::Everything);
    assert_eq!((undone, residue.len()), (1, 1), "{residue:?}");
    assert!(!machine.at("/etc/a").exists());
    let own = machine.agent.ownership().unwrap();
    assert_eq!(own.entries[0].state, EntryState::Residue);
    fs::remove_dir(machine.at("/etc/f")).unwrap();
    machine.undo_all();
    assert!(machine.agent.ownership().unwrap().is_empty());
}

#[test]
fn a_damaged_blob_installs_nothing_and_is_brought_again() {
    let machine = Machine::new();
    let before = machine.fingerprint();
    let blob = machine.blob(&compressed(b"the program"));
    fs::write(machine.agent.host.blob(&blob), compressed(b"something else")).unwrap();
    let wanted = Digest::of(b"the program");
    let step = step(
        "binary",
        Action::Binary {
            path: "/usr/local/bin/x".into(),
            blob,
            digest: wanted,
            size_bytes: 11,
        },
    );
    let error = interpret::run_step(&machine.agent, &step, &|_| {}).unwrap_err();
    assert_eq!(error.code, landfall_core::explain::Code::BundleDigest);
    assert_eq!(machine.fingerprint(), before);
    assert!(!machine.agent.host.blob(&blob).exists());
    machine.undo_all();
}

/// containerd's client: keeps the names of images in a file. Like the real one it makes an image only when the archive came to its end.
const CTR: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
root=${0%/usr/local/bin/ctr}
case "$3 $4" in
"images list") cat "$root/var/lib/images" 2>/dev/null || exit 0 ;;
"images import")
    index=$(tar -xOf - index.json) || exit 1
    printf '%s\n' "$index" | grep -o '"io.containerd.image.name":"[^"]*"' | cut -d'"' -f4 >>"$root/var/lib/images"
    echo "$*" >"$root/var/lib/arguments"
    ;;
esac
"#;

#[test]
fn of_a_damaged_image_nothing_is_imported_and_its_blob_is_brought_again() {
    let machine = Machine::new();
    let ctr = machine.at("/usr/local/bin/ctr");
    fs::write(&ctr, CTR).unwrap();
    fs::set_permissions(&ctr, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(machine.at("/run/containerd")).unwrap();
    fs::write(machine.at("/run/containerd/containerd.sock"), "").unwrap();
    let contents = [&b"a manifest"[..], b"a configuration", &[7; 200_000]];
    let blobs = contents.map(|content| machine.blob(content));
    let image = Image {
        reference: "r/a:1".parse().unwrap(),
        manifest: blobs[0],
        media_type: OCI_MANIFEST.to_owned(),
        manifest_size_bytes: 10,
        blobs: blobs.to_vec(),
        roles: Default::default(),
    };
    let step = step("images", Action::Images { images: vec![image] });
    let run = || interpret::run_step(&machine.agent, &step, &|_| {});
    let images = machine.at("/var/lib/images");
    for (blob, content) in blobs.iter().zip(contents) {
        let stored = machine.agent.host.blob(blob);
        for at in [0, content.len() / 2, content.len() - 1] {
            let mut damaged = content.to_vec();
            damaged[at] ^= 1;
            fs::write(&stored, damaged).unwrap();
            let error = run().unwrap_err();
            assert_eq!(error.code, landfall_core::explain::Code::BundleDigest, "{error:?}");
            assert!(format!("{error:?}").contains(&blob.to_string()), "{error:?}");
            assert!(!images.exists(), "no image is made, so none is pinned");
            assert!(!stored.exists(), "the next run brings it again");
        }
        fs::write(&stored, content).unwrap();
    }
    run().unwrap();
    assert_eq!(fs::read_to_string(&images).unwrap(), "r/a:1\n");
    let arguments = fs::read_to_string(machine.at("/var/lib/arguments")).unwrap();
    assert!(
        arguments.contains("--label io.cri-containerd.pinned=pinned"),
        "{arguments}"
    );
}

#[test]
fn a_damaged_journal_stops_everything() {
    let machine = Machine::new();
    machine.run(&step(
        "y",
        Action::Directory {
            path: "/etc/y".into(),
            mode: 0o755,
        },
    ));
    let journal = machine.at("/var/lib/landfall/journal.jsonl");
    let mut text = fs::read(&journal).unwrap();
    text[30] ^= 1;
    let mut file = fs::File::create(&journal).unwrap();
    file.write_all(&text).unwrap();
    machine.agent.forget_journal();
    let error = machine.agent.ownership().unwrap_err();
    assert!(
        matches!(
            error,
            landfall_agent::error::AgentError::Journal(JournalError::Damaged { line: 1 })
        ),
        "{error:?}"
    );
    assert!(machine.at("/etc/y").exists());
}

#[test]
fn a_cluster_step_that_was_interrupted_keeps_what_was_there_first() {
    use landfall_core::action::Undo;
    let machine = Machine::new();
    let object =
        |name: &str| serde_json::json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
    let id = "apply-x".parse().unwrap();
    let first = Undo::RestoreObjects {
        prior: vec![],
        absent: vec![object("a")],
    };
    undo::record_cluster_intent(&machine.agent, &id, Digest::of(b"1"), first.clone()).unwrap();
    // The first attempt made the object: the second one sees it, and must not take it for what was there before.
    let second = Undo::RestoreObjects {
        prior: vec![object("a")],
        absent: vec![object("b")],
    };
    undo::record_cluster_intent(&machine.agent, &id, Digest::of(b"1"), second.clone()).unwrap();
    assert_eq!(machine.agent.ownership().unwrap().newest(&id).unwrap().undo, first);
    undo::record_cluster_intent(&machine.agent, &id, Digest::of(b"2"), second).unwrap();
    let merged = Undo::RestoreObjects {
        prior: vec![],
        absent: vec![object("a"), object("b")],
    };
    assert_eq!(machine.agent.ownership().unwrap().newest(&id).unwrap().undo, merged);
    assert_eq!(machine.agent.ownership().unwrap().entries.len(), 1);
}

/// A machine whose hosts file lies behind a link.
fn with_linked_hosts(target: &str) -> Machine {
    let machine = Machine::new();
    fs::create_dir_all(machine.at("/var/lib/state")).unwrap();
    fs::rename(machine.at("/etc/hosts"), machine.at("/var/lib/state/hosts")).unwrap();
    std::os::unix::fs::symlink(target, machine.at("/etc/hosts")).unwrap();
    machine
}

#[test]
fn a_hosts_file_behind_a_link_stays_behind_it() {
    for target in ["/var/lib/state/hosts", "../var/lib/state/hosts"] {
        let machine = with_linked_hosts(target);
        let hosts = || fs::read_to_string(machine.at("/var/lib/state/hosts")).unwrap();
        let lines = vec!["127.0.0.1 api.ship".to_owned()];
        assert!(machine.run(&step("hosts", Action::HostsLines { lines })));
        assert_eq!(hosts(), "127.0.0.1 localhost\n127.0.0.1 api.ship\n");
        assert_eq!(fs::read_link(machine.at("/etc/hosts")).unwrap(), Path::new(target));
        machine.undo_all();
        assert_eq!(hosts(), "127.0.0.1 localhost\n");
        assert_eq!(fs::read_link(machine.at("/etc/hosts")).unwrap(), Path::new(target));
    }
}

#[test]
fn a_kubeconfig_that_names_another_server_is_not_touched() {
    let machine = Machine::new();
    let action = |from: &str| Action::KubeconfigServer {
        path: "/etc/kubelet.conf".into(),
        from: from.into(),
        to: "https://127.0.0.1:7443".into(),
        restart: None,
    };
    let before = machine.records();
    assert!(!machine.run(&step("other", action("https://10.0.0.1:6443"))));
    assert_eq!(machine.records(), before, "nothing to do leaves no record");
    assert!(machine.run(&step("kubeconfig", action("https://api.ship:7443"))));
    // Somebody has pointed it elsewhere since: that stays.
    fs::write(machine.at("/etc/kubelet.conf"), "    server: https://theirs\n").unwrap();
    machine.undo_all();
    assert_eq!(
        fs::read_to_string(machine.at("/etc/kubelet.conf")).unwrap(),
        "    server: https://theirs\n"
    );
}

/// The setting comes, a member comes, the setting is left out; each is a run that can be rolled back by itself.
#[test]
fn accept_rules_follow_the_setting_and_each_run_goes_back_alone() {
    let machine = Machine::new();
    let before = machine.fingerprint();
    let wanted = |openings: Openings| step("firewall/cp-1", Action::Firewall { openings });
    let none = Openings {
        accept: vec![],
        ..openings(&[])
    };
    assert!(machine.run(&wanted(openings(&[2]))));
    let opened = machine.fingerprint();
    assert!(!machine.run(&wanted(openings(&[2]))) && opened != before);
    machine.begin("run-2");
    assert!(machine.run(&wanted(openings(&[2, 3]))));
    let with_member = machine.fingerprint();
    assert_ne!(with_member, opened);
    machine.begin("run-3");
    assert!(machine.run(&wanted(none.clone())));
    assert_eq!(machine.fingerprint(), before, "the setting is left out");
    assert!(!machine.run(&wanted(none)), "once");
    for (run, there) in [("run-3", &with_member), ("run-2", &opened), ("run-1", &before)] {
        let scope = UndoScope::Runs([run.parse().unwrap()].into());
        assert_eq!(machine.undo(&scope), (1, vec![]));
        assert_eq!(&machine.fingerprint(), there, "{run}");
    }
}

#[test]
fn rules_that_cannot_be_removed_are_residue_and_the_next_undo_removes_them() {
    let machine = Machine::new();
    let before = machine.fingerprint();
    assert!(machine.run(&step(
        "firewall/cp-1",
        Action::Firewall {
            openings: openings(&[2])
        }
    )));
    let program = machine.at("/usr/sbin/iptables-legacy-restore");
    fs::remove_file(&program).unwrap();
    let (_, residue) = machine.undo(&UndoScope::Everything);
    assert!(
        residue.len() == 1 && residue[0].contains("iptables-restore"),
        "{residue:?}"
    );
    std::os::unix::fs::symlink("/usr/sbin/iptables-legacy-restore", &program).unwrap();
    machine.undo_all();
    assert_eq!(machine.fingerprint(), before);
}
