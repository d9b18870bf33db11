//! A full disk: what was done can still be taken back, and nothing is lost by what no longer fits.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use landfall_agent::agent::Agent;
use landfall_agent::host::Host;
use landfall_agent::lease::Holder;
use landfall_agent::{blobs, interpret, undo};
use landfall_core::action::{Action, Content, Undo};
use landfall_core::bundle_index::{BlobEntry, BundleIndex, NODE_ARCHITECTURE, Variant};
use landfall_core::journal::RunStart;
use landfall_core::name::Digest;
use landfall_core::plan::undo::UndoScope;
use landfall_core::plan::{Goal, Stage, Step, plan};
use landfall_core::trust::{TrustOffer, Unsigned};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::io::Write;
use std::path::PathBuf;

/// A machine on a file system of 8 MiB of its own, which goes with it.
struct Machine {
    directory: tempfile::TempDir,
    agent: Option<Agent>,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new("size=8m").unwrap();
        mount(
            "none",
            directory.path(),
            "tmpfs",
            MountFlags::empty(),
            Some(size.as_c_str()),
        )
        .expect("this test needs root: it mounts a tmpfs");
        let agent = Agent::new(Host::under(directory.path()));
        let holder = Holder {
            run: "run-1".parse().unwrap(),
            command: "install".into(),
            cluster: "ship".into(),
        };
        agent.take_lease("ann@desk", holder).unwrap();
        agent.start_run(&start("run-1", 1), None).unwrap();
        Self {
            directory,
            agent: Some(agent),
        }
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn run(&self, id: &str, action: Action) {
        let step = Step::new(id.parse().unwrap(), Stage::Prepare, "cp-1".parse().unwrap(), 30, action);
        assert!(interpret::run_step(self.agent(), &step, &|_| {}).unwrap().changed);
    }

    /// Takes everything back by a run of its own, as the engine does. Returns how many entries went.
    fn undo_all(&self) -> usize {
        let holder = Holder {
            run: "run-2".parse().unwrap(),
            command: "uninstall".into(),
            cluster: "ship".into(),
        };
        self.agent().take_lease("ann@desk", holder).unwrap();
        undo::make_room(self.agent()).unwrap();
        self.agent().start_run(&start("run-2", 2), None).unwrap();
        let own = self.agent().ownership().unwrap();
        let owned = &[("cp-1".parse().unwrap(), own)].into();
        let scope = &UndoScope::Everything;
        let plan = plan(&Goal::Undone { owned, scope }).unwrap();
        let run = |step| interpret::run_step(self.agent(), step, &|_| {}).unwrap();
        let outcomes: Vec<_> = plan.steps.iter().map(run).collect();
        assert!(outcomes.iter().all(|o| o.residue.is_empty()), "{outcomes:?}");
        outcomes.iter().filter(|o| o.changed).count()
    }

    /// Writes until not one byte more fits, also not into the last page of the journal.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.at("filler")).unwrap();
        while file.write_all(&[1; 512]).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.agent = None;
        let _ = unmount(self.directory.path(), UnmountFlags::DETACH);
    }
}

fn start(run: &str, number: u64) -> RunStart {
    RunStart::new(run.parse().unwrap(), number, "install", "ship")
}

fn directory(n: usize) -> Action {
    Action::Directory {
        path: format!("/srv/d{n}").into(),
        mode: 0o755,
    }
}

fn file(path: &str, text: String) -> Action {
    Action::File {
        path: path.into(),
        mode: 0o644,
        content: Content::Text(text),
    }
}

#[test]
fn everything_is_taken_back_on_a_full_disk() {
    let machine = Machine::new();
    std::fs::create_dir(machine.at("etc")).unwrap();
    std::fs::write(machine.at("etc/theirs"), "old\n").unwrap();
    machine.run("file", file("/etc/theirs", "new\n".into()));
    for n in 0..60 {
        machine.run(&format!("dir-{n}"), directory(n));
    }
    machine.fill();
    assert_eq!(machine.undo_all(), 61);
    assert_eq!(std::fs::read(machine.at("etc/theirs")).unwrap(), b"old\n");
    blobs::tidy(machine.agent()).unwrap();
    assert!(
        !machine.at("var/lib/landfall").exists(),
        "the reserve goes with the journal"
    );
}

#[test]
fn blobs_of_a_failed_run_make_room_for_its_undo() {
    let machine = Machine::new();
    std::fs::create_dir(machine.at("etc")).unwrap();
    let big = "x".repeat(2 * 1024 * 1024);
    std::fs::write(machine.at("etc/theirs"), &big).unwrap();
    machine.run("file", file("/etc/theirs", "new\n".into()));
    let bytes = vec![7u8; 3 * 1024 * 1024];
    let digest = Digest::of(&bytes);
    let variant = Variant {
        architecture: NODE_ARCHITECTURE.into(),
        binaries: vec![],
        images: vec![],
    };
    let mut index = BundleIndex::new("source", "v1.37.2", "r", variant);
    index.blobs = vec![BlobEntry {
        digest,
        size_bytes: bytes.len() as u64,
        chunks: vec![digest],
    }];
    let index = serde_json::to_vec(&index).unwrap();
    let unsigned = TrustOffer {
        unsigned: Unsigned::Allow,
        ..TrustOffer::default()
    };
    machine.agent().trust_bundle(&index, None, &unsigned).unwrap();
    blobs::put(machine.agent(), &digest, 0..bytes.len() as u64, &mut &bytes[..]).unwrap();
    machine.fill();
    assert_eq!(machine.undo_all(), 1);
    assert_eq!(std::fs::read(machine.at("etc/theirs")).unwrap(), big.as_bytes());
}

#[test]
fn without_room_for_a_reserve_nothing_is_begun() {
    let machine = Machine::new();
    machine.fill();
    let step = Step::new(
        "dir".parse().unwrap(),
        Stage::Prepare,
        "cp-1".parse().unwrap(),
        30,
        directory(1),
    );
    interpret::run_step(machine.agent(), &step, &|_| {}).unwrap_err();
    assert!(!machine.at("srv").exists());
    assert!(machine.agent().ownership().unwrap().is_empty());
}

#[test]
fn what_an_interrupted_apply_would_restore_is_not_lost_when_its_repetition_cannot_be_recorded() {
    let machine = Machine::new();
    let object = |name: &str, text: String| serde_json::json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "namespace": "x", "name": name }, "data": { "a": text } });
    let restore = |name: &str, text: String| Undo::RestoreObjects {
        prior: vec![object(name, text)],
        absent: vec![],
    };
    let step = "apply".parse().unwrap();
    undo::record_cluster_intent(
        machine.agent(),
        &step,
        Digest::of(b"1"),
        restore("theirs", "before".into()),
    )
    .unwrap();
    machine.fill();
    // The repetition's record is larger than what is left of the journal's last page.
    let after = restore("other", "after the first attempt".repeat(1000));
    undo::record_cluster_intent(machine.agent(), &step, Digest::of(b"2"), after).unwrap_err();
    machine.agent().forget_journal();
    let own = machine.agent().ownership().unwrap();
    assert_eq!(own.newest(&step).unwrap().undo, restore("theirs", "before".into()));
}
