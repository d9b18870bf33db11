//! A whole session over a socket pair: frames, lease, steps, blobs, secrets, the end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod operator;
mod relay;

use landfall_core::action::{Action, Claims, Content};
use landfall_core::cluster_record::{ClusterRecord, ClusterUid, FixedSettings, KeptSettings, Sequence};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::journal::repair::{JOURNAL_REPAIR, JournalReading};
use landfall_core::journal::{EntryState, Ownership, RunStart};
use landfall_core::mesh::MeshListen;
use landfall_core::name::Digest;
use landfall_core::observe::{Observations, judge};
use landfall_core::plan::{Stage, Step};
use landfall_core::spec::ClusterSpec;
use landfall_core::trust::{ClusterTrust, OfferedKey};
use landfall_core::wire::mux::read_json_line;
use landfall_core::wire::{Reply, Request, UndoOutcome, Welcome};
use operator::{LONG, Operator, index, key, machine, offer, wait_for};
use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

fn step(id: &str, action: Action) -> Step {
    Step::new(id.parse().unwrap(), Stage::Prepare, "cp-1".parse().unwrap(), 30, action)
}

fn shell(id: &str, root: &Path, script: &str, creates: &str) -> Step {
    step(
        id,
        Action::Run {
            argv: vec!["sh".into(), "-c".into(), script.replace("ROOT", root.to_str().unwrap())],
            env: vec![],
            creates: vec![creates.into()],
            claims: Claims {
                paths: vec![creates.into()],
                ..Claims::default()
            },
            effects: vec![],
            stdout: None,
        },
    )
}

#[test]
fn a_second_operator_is_told_who_holds_the_lease() {
    let root = machine();
    let first = Operator::connect(root.path(), LONG);
    first.lease("run-1").unwrap();
    first.lease("run-0").expect("a session may change its run");
    let second = Operator::connect(root.path(), LONG);
    let refused = second.lease("run-2").unwrap_err();
    assert_eq!(refused.code, Code::Locked);
    assert!(refused.saw[0].contains("ann@desk"), "{refused:?}");
    let refused = second
        .run(&step(
            "dir",
            Action::Directory {
                path: "/etc/x".into(),
                mode: 0o755,
            },
        ))
        .unwrap_err();
    assert_eq!(refused.code, Code::Protocol, "no step without the lease");
    assert_eq!(first.hang_up(), 0);
    wait_for("the lease's return", || second.lease("run-2").is_ok());
    assert_eq!(second.hang_up(), 0);
    assert!(!root.path().join("run/landfall").exists());
    assert!(
        !root.path().join("var/lib/landfall").exists(),
        "nothing was changed, so nothing is left"
    );
}

#[test]
fn the_end_of_the_channel_ends_a_running_step_and_the_next_session_starts_it_anew() {
    let root = machine();
    let operator = Operator::connect(root.path(), LONG);
    operator.begin("run-1");
    let script = "echo $$ > ROOT/pid; mkdir ROOT/half; exec sleep 100";
    let slow = shell(
        "slow",
        root.path(),
        &script.replace("mkdir", "/bin/mkdir").replace("sleep", "/bin/sleep"),
        "/half",
    );
    let header = serde_json::to_vec(&Request::RunStep { step: slow.clone() }).unwrap();
    let stream = operator.mux.open(&header).unwrap();
    let pid_file = root.path().join("pid");
    wait_for("the child's start", || root.path().join("half").exists());
    let pid = std::fs::read_to_string(pid_file).unwrap().trim().to_owned();
    let began = Instant::now();
    assert_eq!(operator.hang_up(), 0);
    drop(stream);
    assert!(began.elapsed() < Duration::from_secs(50), "the child sleeps for 100 s");
    wait_for("the child's end", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z")
    });

    let operator = Operator::connect(root.path(), LONG);
    let own: Ownership = operator.ask(&Request::Ownership).unwrap();
    assert_eq!(
        own.entries[0].state,
        EntryState::Intended,
        "an interrupted step has an intent and nothing else"
    );
    assert_eq!(own.open_run().unwrap().run.as_str(), "run-1");
    operator.lease("run-2").unwrap();
    let refused = operator.run(&slow).unwrap_err();
    assert_eq!(
        refused.code,
        Code::Protocol,
        "no act before the run has begun: {refused:?}"
    );
    operator.begin("run-2");
    let steps = vec![slow.clone()];
    let seen: Observations = operator.ask(&Request::Observe { steps }).unwrap();
    let verdict = judge(&slow.action, own.newest(&slow.id), &seen[&slow.id]);
    assert!(
        !verdict.is_satisfied(),
        "an interrupted step is to be done: {verdict:?}"
    );
    // It fails unless the half-made directory was taken back first.
    let quick = shell("slow", root.path(), "/bin/mkdir ROOT/half", "/half");
    assert!(operator.run(&quick).unwrap().changed);
    assert!(!operator.run(&quick).unwrap().changed);
    let own: Ownership = operator.ask(&Request::Ownership).unwrap();
    assert_eq!((own.entries.len(), own.entries[0].state), (1, EntryState::Owned));
    operator
        .ask::<()>(&Request::FinishRun { outcome: "done".into() })
        .unwrap();
    let request = Request::UndoStep {
        step: "slow".parse().unwrap(),
    };
    let undone: UndoOutcome = operator.ask(&request).unwrap();
    assert_eq!((undone.undone, undone.residue.len()), (1, 0));
    assert!(!root.path().join("half").exists());
    operator.ask::<()>(&Request::Tidy).unwrap();
    assert_eq!(operator.hang_up(), 0);
    assert!(
        !root.path().join("var/lib/landfall").exists(),
        "the whole state is gone"
    );
}

#[test]
fn silence_ends_the_session() {
    let root = machine();
    let operator = Operator::connect(root.path(), Duration::from_millis(300));
    operator.begin("run-1");
    let began = Instant::now();
    assert_eq!(operator.agent.join().unwrap(), 0);
    assert!(began.elapsed() < LONG, "not by the silence that is allowed usually");
    assert!(!root.path().join("run/landfall").exists());
}

#[test]
fn blobs_are_checked_on_the_way_in() {
    let root = machine();
    let operator = Operator::connect(root.path(), LONG);
    operator.begin("run-1");
    let bytes: Vec<u8> = (0..6_000_000u32).map(|n| n as u8).collect();
    let digest = Digest::of(&bytes);
    operator.trust(&index(&[&bytes]), &key(1), &offer(&[&key(1)])).unwrap();
    let put = |from_bytes| Request::PutBlob {
        digest,
        size_bytes: bytes.len() as u64,
        from_bytes,
    };
    let send = |from_bytes, body: &[u8]| operator.ask_with::<()>(&put(from_bytes), body, &mut |_| {});
    let parts = || {
        let ask = Request::PartialBlobs {
            digests: [digest].into(),
        };
        operator.ask::<BTreeMap<Digest, u64>>(&ask).unwrap()
    };
    let mut wrong = bytes.clone();
    wrong[5_000_000] ^= 1;
    let first = 4_194_304;
    // Of a damaged chunk nothing stays; of one whose end did not come, all that came.
    for (body, stays) in [(&wrong[..], first), (&bytes[..5_500_000], 5_500_000)] {
        let refused = send(0, body).unwrap_err();
        assert_eq!(refused.code, Code::BundleDigest);
        assert!(refused.what.contains("bytes 4194304 to 6000000"), "{refused:?}");
        assert_eq!(parts(), [(digest, stays)].into());
    }
    // What is there is hashed again before the rest is taken, and goes from the damaged chunk on.
    let part = root
        .path()
        .join(format!("var/lib/landfall/blobs/{}.part", digest.hex()));
    let damage = |at: usize| {
        let mut damaged = std::fs::read(&part).unwrap();
        damaged[at] ^= 1;
        std::fs::write(&part, damaged).unwrap();
    };
    damage(5_000_000);
    let refused = send(5_500_000, &bytes[5_500_000..]).unwrap_err();
    assert!(refused.what.contains("bytes 4194304 to 6000000"), "{refused:?}");
    assert_eq!(parts(), [(digest, first)].into(), "the chunk before it stays");
    damage(7);
    let refused = send(first, &bytes[4_194_304..]).unwrap_err();
    assert!(refused.what.contains("bytes 0 to 4194304"), "{refused:?}");
    assert_eq!(parts(), BTreeMap::new());
    send(0, &bytes[..4_500_000]).unwrap_err();
    send(4_500_000, &bytes[4_500_000..5_000_000]).unwrap_err();
    assert_eq!(parts(), [(digest, 5_000_000)].into());
    let ask = Request::HaveBlobs {
        digests: [digest].into(),
    };
    assert!(operator.ask::<Vec<Digest>>(&ask).unwrap().is_empty());
    send(5_000_000, &bytes[5_000_000..]).unwrap();
    assert_eq!(operator.ask::<Vec<Digest>>(&ask).unwrap(), [digest]);
    assert_eq!(std::fs::read(part.with_extension("")).unwrap(), bytes);
    // The session ended when all had come, and before it had its name.
    std::fs::rename(part.with_extension(""), &part).unwrap();
    assert_eq!(parts(), [(digest, 6_000_000)].into());
    send(6_000_000, &[]).unwrap();
    assert_eq!(operator.ask::<Vec<Digest>>(&ask).unwrap(), [digest]);
    operator.ask::<()>(&Request::Tidy).unwrap();
    assert!(!root.path().join("var/lib/landfall").exists());
    operator.hang_up();
}

#[test]
fn nothing_of_a_bundle_is_taken_before_its_signature_was_checked() {
    let root = machine();
    let operator = Operator::connect(root.path(), LONG);
    operator.lease("run-1").unwrap();
    let put = |bytes: &[u8]| {
        let put = Request::PutBlob {
            digest: Digest::of(bytes),
            size_bytes: bytes.len() as u64,
            from_bytes: 0,
        };
        operator.ask_with::<()>(&put, bytes, &mut |_| {})
    };
    let start = |number| {
        let record = Some(Box::new(record(number)));
        let start = RunStart::new("run-1".parse().unwrap(), number, "install", "ship");
        operator.ask::<()>(&Request::StartRun { start, record })
    };
    let code = |refused: Result<_, Diagnosis>| refused.map(|_| ()).unwrap_err().code;
    assert_eq!(code(put(b"blob").map(|_| ())), Code::BundleSignature);
    assert_eq!(code(start(1)), Code::BundleSignature);
    let text = index(&[b"blob"]);
    let stranger = operator.trust(&text, &key(2), &offer(&[&key(1)]));
    assert_eq!(code(stranger.map(|_| ())), Code::BundleSignature);
    assert_eq!(code(put(b"blob").map(|_| ())), Code::BundleSignature);
    let signer = operator.trust(&text, &key(1), &offer(&[&key(1)])).unwrap();
    assert_eq!(signer, Some(key(1).public().id()));
    put(b"blob").unwrap();
    assert_eq!(
        code(put(b"stowaway").map(|_| ())),
        Code::BundleSignature,
        "it is not in the index"
    );
    start(1).unwrap();
    operator.hang_up();
    // The journal now holds a record, whose one key decides, whatever the operator trusts.
    let operator = Operator::connect(root.path(), LONG);
    operator.lease("run-2").unwrap();
    let other = operator.trust(&text, &key(2), &offer(&[&key(2)]));
    assert_eq!(code(other.map(|_| ())), Code::BundleSignature);
    operator.trust(&text, &key(1), &offer(&[])).unwrap();
    // Unless one that it trusts leads to it, by a key that this node has never seen.
    let signed = |new: u8, old: u8| {
        let key_file = key(new).public().to_text();
        let endorsement = Some(key(old).sign(key_file.as_bytes(), "x").to_text());
        let key = key_file;
        OfferedKey { key, endorsement }
    };
    let mut later = offer(&[&key(3)]);
    later.chain = vec![signed(3, 2), signed(2, 1)];
    operator.trust(&text, &key(3), &later).unwrap();
    later.revoked.insert(key(2).public().id());
    let broken = operator.trust(&text, &key(3), &later);
    assert_eq!(code(broken.map(|_| ())), Code::BundleSignature);
    operator.hang_up();
}

/// A cluster that trusts the key 1.
fn record(run: u64) -> ClusterRecord {
    let spec = ClusterSpec::default();
    ClusterRecord {
        uid: ClusterUid::from_random([1; 16]),
        name: "ship".into(),
        sequence: Sequence { run, revision: 0 },
        formed: false,
        ca: None,
        kubernetes_version: "v1.37.2".into(),
        bundle: None,
        bundle_version: None,
        trust: Some(ClusterTrust {
            keys: [(key(1).public().id(), key(1).public().to_text())].into(),
            ..ClusterTrust::default()
        }),
        fixed: FixedSettings::of(&spec, 1450),
        kept: KeptSettings {
            proxy_mode: spec.proxy_mode,
            upstream_dns: None,
            upstream_dns_named: false,
        },
        members: Default::default(),
    }
}

#[test]
fn secrets_travel_and_are_read_from_one_place_only() {
    let root = machine();
    let operator = Operator::connect(root.path(), LONG);
    operator.begin("run-1");
    let secret = b"-----BEGIN KEY-----";
    let id: landfall_core::name::SecretId = "pki/ca.key".parse().unwrap();
    let file = |path: &str| Action::File {
        path: path.into(),
        mode: 0o600,
        content: Content::Secret(id.clone()),
    };
    let dir = step(
        "dir",
        Action::Directory {
            path: "/etc/kubernetes/pki".into(),
            mode: 0o755,
        },
    );
    operator.run(&dir).unwrap();
    let write = step("key", file("/etc/kubernetes/pki/ca.key"));
    assert!(operator.run(&write).is_err(), "the secret was not brought");
    let put = Request::PutSecret {
        id: id.clone(),
        size_bytes: secret.len() as u64,
    };
    operator.ask_with::<()>(&put, secret, &mut |_| {}).unwrap();
    assert!(operator.run(&write).unwrap().changed);
    assert!(!operator.run(&write).unwrap().changed);
    let read = |path: &str| {
        operator.ask_with::<serde_json::Value>(&Request::ReadSecret { path: path.into() }, &[], &mut |_| {})
    };
    assert_eq!(read("/etc/kubernetes/pki/ca.key").unwrap().1, secret);
    std::fs::write(root.path().join("etc/shadow"), "x").unwrap();
    std::os::unix::fs::symlink("../shadow", root.path().join("etc/kubernetes/link")).unwrap();
    for path in [
        "/etc/shadow",
        "/etc/kubernetes/../shadow",
        "/etc/kubernetes/link",
        "/etc/kubernetes",
        "/etc/kubernetes/none",
    ] {
        assert!(read(path).is_err(), "{path}");
    }
    let journal = std::fs::read_to_string(root.path().join("var/lib/landfall/journal.jsonl")).unwrap();
    assert!(!journal.contains("BEGIN KEY"), "no secret in the journal");
    operator.hang_up();
}

#[test]
fn a_tunnel_carries_bytes_both_ways_and_ends_with_either_side() {
    let root = machine();
    let operator = Operator::connect(root.path(), LONG);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let sent: Vec<u8> = (0..5_000_000u32).map(|n| (n / 7) as u8).collect();
    let mut stream = operator
        .mux
        .open(&serde_json::to_vec(&Request::Tunnel { address }).unwrap())
        .unwrap();
    let mut reader = BufReader::new(stream.reader());
    assert!(matches!(
        read_json_line::<Reply>(&mut reader).unwrap(),
        Some(Reply::Ok { .. })
    ));
    let mut back = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            stream.write_all(&sent).unwrap();
            stream.finish().unwrap();
        });
        reader.read_to_end(&mut back).unwrap();
    });
    echo.join().unwrap();
    assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    let refused: Result<(), _> = operator.ask(&Request::Tunnel {
        address: "127.0.0.1:1".into(),
    });
    assert_eq!(refused.unwrap_err().code, Code::Unreachable);
    operator.hang_up();
}

#[test]
fn a_node_of_another_cluster_refuses() {
    let root = machine();
    let operator = Operator::connect(root.path(), LONG);
    operator.begin("run-1");
    operator
        .run(&step(
            "dir",
            Action::Directory {
                path: "/etc/x".into(),
                mode: 0o755,
            },
        ))
        .unwrap();
    operator.hang_up();
    let operator = Operator::connect(root.path(), LONG);
    let lease = Request::Lease {
        run: "run-2".parse().unwrap(),
        owner: "bob@desk".into(),
        command: "install".into(),
        cluster: "other".into(),
    };
    let refused = operator.ask::<Welcome>(&lease).unwrap_err();
    assert_eq!(refused.code, Code::Preflight);
    assert!(refused.what.contains("ship"), "{refused:?}");
    operator.hang_up();
}

#[test]
fn a_damaged_journal_is_repaired_by_the_command_for_it_and_used_by_no_other() {
    let root = machine();
    let operator = Operator::connect(root.path(), LONG);
    operator.begin("run-1");
    for name in ["a", "b"] {
        let path = format!("/etc/{name}").into();
        operator
            .run(&step(name, Action::Directory { path, mode: 0o755 }))
            .unwrap();
    }
    operator.hang_up();
    let journal = root.path().join("var/lib/landfall/journal.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    let damaged = text.replacen("\"step\":\"a\",\"action\"", "\"step\":\"x\",\"action\"", 1);
    std::fs::write(&journal, damaged).unwrap();
    let operator = Operator::connect(root.path(), LONG);
    let error = operator.ask::<Ownership>(&Request::Ownership).unwrap_err();
    assert_eq!(error.code, Code::Journal);
    assert_eq!(operator.lease("run-2").unwrap_err().code, Code::Journal);
    operator.hang_up();
    let operator = Operator::connect(root.path(), LONG);
    let lease = |cluster: &str| Request::Lease {
        run: "run-2".parse().unwrap(),
        owner: "ann@desk".into(),
        command: JOURNAL_REPAIR.into(),
        cluster: cluster.into(),
    };
    let refused = operator.ask::<Welcome>(&lease("other")).unwrap_err();
    assert_eq!(
        refused.code,
        Code::Preflight,
        "also a damaged journal is of one cluster"
    );
    operator.ask::<Welcome>(&lease("ship")).unwrap();
    let repaired: JournalReading = operator.ask(&Request::RepairJournal { runs: vec![] }).unwrap();
    let own: Ownership = operator.ask(&Request::Ownership).unwrap();
    assert_eq!((&repaired.own, repaired.lost.len()), (&own, 1));
    assert_eq!(own.entries.len(), 2);
    operator.hang_up();
}

#[test]
fn listeners_for_peers_close_with_their_stream_and_with_the_connection() {
    let root = machine();
    // A port that was free a moment ago; a test beside this one would have to take just that.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let request = Request::MeshListen(MeshListen {
        token: "000102030405060708090a0b0c0d0e0f".to_owned(),
        node: "cp-1".parse().unwrap(),
        address: std::net::Ipv4Addr::LOCALHOST,
        tcp: vec![free.port()],
        udp: None,
        limit_ms: 60_000,
    });
    let is_open = || TcpStream::connect_timeout(&free, Duration::from_secs(5)).is_ok();
    let operator = Operator::connect(root.path(), LONG);
    let listen = || {
        let stream = operator.mux.open(&serde_json::to_vec(&request).unwrap()).unwrap();
        let mut reader = BufReader::new(stream.reader());
        let reply = read_json_line::<Reply>(&mut reader).unwrap().expect("an answer");
        assert!(
            matches!(&reply, Reply::Ok { value } if value["tcp_failed"] == serde_json::json!({})),
            "{reply:?}"
        );
        stream
    };
    let stream = listen();
    assert!(is_open());
    drop(stream);
    wait_for("closing the listener", || !is_open());
    let stream = listen();
    assert!(is_open());
    assert_eq!(operator.hang_up(), 0);
    assert!(!is_open(), "nothing outlives the session");
    drop(stream);
}
