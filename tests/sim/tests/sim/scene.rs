//! A fleet, a bundle and a plan, and the few things that tests do with them.

use landfall_core::event::{Event, EventSink};
use landfall_core::journal::{Ownership, parse_journal, replay};
use landfall_core::name::NodeName;
use landfall_core::plan::Plan;
use landfall_core::spec::Desired;
use landfall_engine::run::{self, Outcome, UndoCommand, Until};
use landfall_test_support::fleet::Fleet;
use landfall_test_support::tree::Tree;
use landfall_test_support::{bundle, machine, story};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Paths on a node that an install leaves different each time: the state with its journal and logs, and a random key.
pub const VARIES: [&str; 2] = ["var/lib/landfall", "etc/kubernetes/landfall/encryption.yaml"];

/// Takes events by a closure.
pub struct Listener<F>(pub F);

impl<F: Fn(&Event) + Send + Sync> EventSink for Listener<F> {
    fn emit(&self, event: Event) {
        (self.0)(&event);
    }
}

/// A sink for runs nobody listens to.
pub fn null_sink() -> Arc<dyn EventSink> {
    Arc::new(Listener(|_: &Event| {}))
}

/// A cluster that is to be, and its bare machines.
pub struct Scene {
    pub desired: Desired,
    pub plan: Plan,
    pub bundle: landfall_bundle::BundleFile,
    pub fleet: Fleet,
    /// Every machine as it was before.
    pub before: BTreeMap<NodeName, Tree>,
    _directory: tempfile::TempDir,
}

impl Scene {
    pub fn new(control_planes: u8, workers: u8) -> Self {
        let desired = story::desired(control_planes, workers).unwrap();
        let directory = machine::memory_dir().unwrap();
        let path = directory.path().join("tiny.bundle");
        let index = bundle::write_tiny(&path).unwrap();
        let names = desired.inventory.members().map(|n| &n.name);
        let fleet = Fleet::new(names, Path::new(env!("CARGO_BIN_EXE_landfall-sim-node"))).unwrap();
        Self {
            plan: story::plan(&desired, &index).unwrap(),
            bundle: landfall_bundle::BundleFile::open(&path).unwrap(),
            before: fleet.trees().unwrap(),
            desired,
            fleet,
            _directory: directory,
        }
    }

    /// Installs under a run id and waits until every agent has ended.
    pub fn install(&self, run: &str) -> Outcome {
        self.install_heard(run, null_sink())
    }

    /// The same, with a listener.
    pub fn install_heard(&self, run: &str, sink: Arc<dyn EventSink>) -> Outcome {
        let around = self.fleet.surroundings(run, "ann@desk", sink).unwrap();
        let outcome = story::install(&self.desired, &self.plan, &self.bundle, &around);
        self.fleet.settle().unwrap();
        outcome
    }

    /// Rolls back or uninstalls under a run id, by the engine's own command.
    pub fn undo(&self, run: &str, command: UndoCommand) -> Outcome {
        let around = self.fleet.surroundings(run, "ann@desk", null_sink()).unwrap();
        let outcome = run::undo(&self.desired, command, Until::Done, &|_| Ok(()), &around);
        self.fleet.settle().unwrap();
        outcome
    }

    /// Fails unless the outcome is a success; `case` says which one it was.
    pub fn must_work(&self, outcome: &Outcome, case: &str) {
        assert!(
            outcome.errors.is_empty() && outcome.residue.is_empty(),
            "{case}: {:#?} {:#?}",
            outcome.errors,
            outcome.residue
        );
    }

    /// Fails unless every machine is byte for byte as before.
    pub fn must_be_as_before(&self, case: &str) {
        let differences = self.fleet.differences(&self.before, &[]).unwrap();
        assert!(differences.is_empty(), "{case}: {differences:#?}");
    }

    /// Fails unless every machine is as `wanted`, but for what varies from install to install.
    pub fn must_be_installed_as(&self, wanted: &BTreeMap<NodeName, Tree>, case: &str) {
        let differences = self.fleet.differences(wanted, &VARIES).unwrap();
        assert!(differences.is_empty(), "{case}: {differences:#?}");
        let keys: std::collections::BTreeSet<Vec<u8>> = self
            .fleet
            .trees()
            .unwrap()
            .values()
            .filter_map(|tree| tree.file(VARIES[1]).map(<[u8]>::to_vec))
            .collect();
        assert_eq!(keys.len(), 1, "{case}: control planes share one encryption key");
    }

    /// Reads what a machine's journal says.
    pub fn journal(&self, name: &NodeName) -> (Vec<u8>, Ownership) {
        let text = std::fs::read(self.fleet.machine(name).unwrap().journal()).unwrap_or_default();
        let own = replay(&parse_journal(&text).unwrap()).unwrap();
        (text, own)
    }

    /// Reads what is ours on a machine, from a journal that may be torn or not there.
    pub fn journal_as_found(&self, name: &NodeName) -> Ownership {
        self.journal(name).1
    }
}
