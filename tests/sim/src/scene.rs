//! A fleet, a bundle and a cluster that shall be, and the few things that tests do with them. Each `must_…` ends the test when it is not so.

use landfall_bundle::BundleFile;
use landfall_core::event::{Event, EventSink};
use landfall_core::inventory::Role;
use landfall_core::journal::{Ownership, parse_journal, replay};
use landfall_core::name::NodeName;
use landfall_core::spec::Desired;
use landfall_core::verify::{Cell, CellOutcome};
use landfall_engine::run::{self, InstallOptions, OnFailure, Outcome, RunContext, UndoCommand, Until};
use landfall_test_support::cluster::Seen;
use landfall_test_support::fleet::Fleet;
use landfall_test_support::tree::Tree;
use landfall_test_support::{bundle, desired, machine};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Paths on a node that an install leaves different each time: the state with its journal and logs, a random key, what names a
/// cluster of which there is only one, and what only the simulation has.
pub const VARIES: [&str; 11] = [
    "var/lib/landfall",
    "etc/kubernetes/landfall/encryption.yaml",
    "etc/kubernetes/landfall-join.conf",
    "etc/kubernetes/admin.conf",
    "etc/kubernetes/super-admin.conf",
    "etc/kubernetes/kubelet.conf",
    "etc/kubernetes/pki/ca.crt",
    "etc/kubernetes/pki/front-proxy-ca.crt",
    "etc/kubernetes/pki/etcd/ca.crt",
    "var/lib/etcd/member/id",
    "sim",
];

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
    /// What shall be.
    pub desired: Desired,
    /// What is installed.
    pub bundle: BundleFile,
    /// The machines.
    pub fleet: Fleet,
    /// Every machine as it was before.
    pub before: BTreeMap<NodeName, Tree>,
    directory: tempfile::TempDir,
}

impl Scene {
    /// Makes machines for so many control planes (1, 3 or 5) and workers.
    pub fn new(control_planes: u8, workers: u8) -> Self {
        Self::with(control_planes, workers, |_| {})
    }

    /// The same on machines that are changed first.
    pub fn with(control_planes: u8, workers: u8, change: impl FnOnce(&Fleet)) -> Self {
        let desired = desired::cluster(control_planes, workers, "").unwrap();
        let directory = machine::memory_dir().unwrap();
        let bundle = bundle_of(&directory, bundle::VERSION, 1);
        let fleet = Fleet::new(desired.inventory.members(), &node_program()).unwrap();
        change(&fleet);
        Self {
            bundle,
            before: fleet.trees().unwrap(),
            desired,
            fleet,
            directory,
        }
    }

    /// Makes a bundle of another Kubernetes version.
    pub fn other_bundle(&self, version: &str) -> BundleFile {
        bundle_of(&self.directory, version, 1)
    }

    /// Makes another bundle of the same Kubernetes version: its programs differ.
    pub fn rebuilt_bundle(&self) -> BundleFile {
        bundle_of(&self.directory, bundle::VERSION, 2)
    }

    /// Makes another bundle of the same programs.
    pub fn repackaged_bundle(&self) -> BundleFile {
        let path = self.directory.path().join("repackaged.bundle");
        bundle::write_repackaged(&path, bundle::VERSION).unwrap();
        BundleFile::open(&path).unwrap()
    }

    /// Installs under a run id and waits until every agent has ended.
    pub fn install(&self, run: &str) -> Outcome {
        self.install_heard(run, null_sink())
    }

    /// The same, with a listener.
    pub fn install_heard(&self, run: &str, sink: Arc<dyn EventSink>) -> Outcome {
        let context = self.fleet.run_context(run, "ann@desk", sink).unwrap();
        self.install_in(&context, OnFailure::Keep)
    }

    /// The same, in a context of its own.
    pub fn install_in(&self, context: &RunContext, on_failure: OnFailure) -> Outcome {
        let options = InstallOptions::new(Until::Done, on_failure);
        let outcome = run::install(&self.desired, &self.bundle, &options, context);
        self.fleet.settle().unwrap();
        outcome
    }

    /// Installs, and interrupts as ^C does after `limit`: for installs that wait for what cannot come.
    pub fn install_within(&self, run: &str, limit: Duration) -> Outcome {
        let context = self.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
        self.within(&context, limit, || self.install_in(&context, OnFailure::Keep))
    }

    /// Does something, and interrupts it as ^C does after `limit`.
    pub fn within<T>(&self, context: &RunContext, limit: Duration, what: impl FnOnce() -> T) -> T {
        let (tell, over) = mpsc::channel::<()>();
        let cancel = context.cancel.clone();
        let watch = std::thread::spawn(move || {
            if over.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                cancel.cancel();
            }
        });
        let done = what();
        drop(tell);
        watch.join().unwrap();
        done
    }

    /// Verifies, by the engine's own command.
    pub fn verify(&self, run: &str) -> Outcome {
        let context = self.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
        let outcome = run::verify(&self.desired, &context);
        self.fleet.settle().unwrap();
        outcome
    }

    /// Asks for the status, by the engine's own command.
    pub fn status(&self, run: &str) -> Outcome {
        let context = self.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
        let outcome = run::status(&self.desired, &context);
        self.fleet.settle().unwrap();
        outcome
    }

    /// Changes settings: further lines of cluster.yaml. The machines stay.
    pub fn set(&mut self, settings: &str) {
        let count = |role| self.desired.inventory.members().filter(|n| n.role == role).count();
        let (control_planes, workers) = (count(Role::ControlPlane), count(Role::Worker));
        let number = |n: usize| u8::try_from(n).unwrap();
        self.desired = desired::cluster(number(control_planes), number(workers), settings).unwrap();
    }

    /// Rolls back or uninstalls under a run id, by the engine's own command.
    pub fn undo(&self, run: &str, command: UndoCommand) -> Outcome {
        let context = self.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
        self.undo_in(&context, command)
    }

    /// The same, in a context of its own.
    pub fn undo_in(&self, context: &RunContext, command: UndoCommand) -> Outcome {
        let outcome = run::undo(&self.desired, command, Until::Done, &|_| Ok(()), context);
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
        let failed = |cell: &&Cell| cell.outcome == CellOutcome::Fail;
        let red: Vec<_> = outcome
            .verify
            .iter()
            .flat_map(|v| v.cells.iter().filter(failed))
            .collect();
        assert!(red.is_empty(), "{case}: {red:#?}");
        self.must_be_lawful(case);
    }

    /// Fails when something happened to a cluster that never may.
    pub fn must_be_lawful(&self, case: &str) {
        let violations: Vec<String> = self
            .fleet
            .world()
            .violations()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(violations.is_empty(), "{case}: {violations:#?}");
    }

    /// Returns what there is of the cluster, as the first control plane has it.
    pub fn seen(&self) -> Seen {
        self.fleet.world().seen_from(&"cp-1".parse().unwrap()).unwrap()
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

/// Returns the program that a simulated node runs. Cargo puts it beside programs, and above tests.
fn node_program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let places = own.ancestors().skip(1).take(2);
    let found = places.map(|place| place.join("landfall-sim-node")).find(|p| p.exists());
    found.expect("cargo builds the programs of a package before its tests; `cargo xtask crash` builds both")
}

fn bundle_of(directory: &tempfile::TempDir, version: &str, build: u32) -> BundleFile {
    let path = directory.path().join(format!("{version}-{build}.bundle"));
    bundle::write_build(&path, version, build).unwrap();
    BundleFile::open(&path).unwrap()
}
