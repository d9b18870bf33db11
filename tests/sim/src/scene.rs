//! A fleet, a bundle and the spec of a cluster, with the commands that tests run on them. Each `must_…` function fails the test when its condition
//! does not hold.

use landfall_bundle::minisign::SecretKey;
use landfall_bundle::{Bundle, Verified};
use landfall_core::bundle_index::Manifest;
use landfall_core::event::{Event, EventSink};
use landfall_core::inventory::Role;
use landfall_core::journal::{Ownership, parse_journal, replay};
use landfall_core::name::NodeName;
use landfall_core::spec::Desired;
use landfall_core::trust::TrustOffer;
use landfall_core::verify::{Cell, CellOutcome};
use landfall_engine::run::{
    self, AllowOptions, CancelToken, InstallOptions, OnFailure, Outcome, RunContext, UndoCommand, Until,
};
use landfall_test_support::cluster::Seen;
use landfall_test_support::fleet::Fleet;
use landfall_test_support::tree::Tree;
use landfall_test_support::{bundle, desired, machine};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Paths on a node that differ after each install: the state with its journal and logs, a random key, names of the cluster's certificates,
/// the run's number in etcd's manifest, and files of the simulation.
pub const VARIES: [&str; 11] = [
    "var/lib/landfall",
    "etc/kubernetes/landfall/encryption.yaml",
    "etc/kubernetes/admin.conf",
    "etc/kubernetes/super-admin.conf",
    "etc/kubernetes/kubelet.conf",
    "etc/kubernetes/pki/ca.crt",
    "etc/kubernetes/pki/front-proxy-ca.crt",
    "etc/kubernetes/pki/etcd/ca.crt",
    "etc/kubernetes/manifests/etcd.yaml",
    "var/lib/etcd/member/id",
    "sim",
];

/// An event sink that calls a closure.
pub struct Listener<F>(pub F);

impl<F: Fn(&Event) + Send + Sync> EventSink for Listener<F> {
    fn emit(&self, event: Event) {
        (self.0)(&event);
    }
}

/// Returns a sink that drops all events.
pub fn null_sink() -> Arc<dyn EventSink> {
    Arc::new(Listener(|_: &Event| {}))
}

/// The spec of a cluster, and its machines.
pub struct Scene {
    /// The spec and inventory.
    pub desired: Desired,
    /// The bundle.
    pub bundle: Bundle<Verified>,
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

    /// Like [`Self::new`], on machines that `change` modifies first.
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

    /// Makes a cluster of `cp-1` alone, to which a second run has joined two others.
    pub fn grown() -> Self {
        let mut scene = Self::new(3, 0);
        let all = scene.desired.clone();
        scene.desired.inventory.nodes.truncate(1);
        scene.must_work(&scene.install("100-a"), "one control plane");
        scene.desired = all;
        scene.must_work(&scene.install("200-b"), "three control planes");
        scene
    }

    /// Returns the context of a run that is cancelled like ^C by the first event that `when` accepts.
    pub fn context_cancelled(&self, run: &str, when: impl Fn(&Event) -> bool + Send + Sync + 'static) -> RunContext {
        let cancel = CancelToken::default();
        let stop = cancel.clone();
        let listener = Listener(move |event: &Event| {
            if when(event) {
                stop.cancel();
            }
        });
        let mut context = self.fleet.run_context(run, "ann@desk", Arc::new(listener)).unwrap();
        context.cancel = cancel;
        context
    }

    /// Makes a bundle of another Kubernetes version.
    pub fn other_bundle(&self, version: &str) -> Bundle<Verified> {
        bundle_of(&self.directory, version, 1)
    }

    /// Makes another bundle of the same Kubernetes version: its programs differ.
    pub fn rebuilt_bundle(&self) -> Bundle<Verified> {
        bundle_of(&self.directory, bundle::VERSION, 2)
    }

    /// Makes another bundle of the same programs.
    pub fn repackaged_bundle(&self) -> Bundle<Verified> {
        let path = self.directory.path().join("repackaged.bundle");
        bundle::write_repackaged(&path, bundle::VERSION).unwrap();
        bundle::open(&path).unwrap()
    }

    /// Makes another bundle of the same programs, with manifests that its builder added.
    pub fn bundle_with(&self, manifests: Vec<Manifest>) -> Bundle<Verified> {
        let path = self.directory.path().join("with manifests.bundle");
        bundle::write_with(&path, bundle::VERSION, manifests).unwrap();
        bundle::open(&path).unwrap()
    }

    /// Opens the bundle as an operator does who trusts other keys, signed by `key` instead.
    pub fn bundle_signed(&self, key: &SecretKey, offer: &TrustOffer) -> Bundle<Verified> {
        let path = self.directory.path().join(format!("{}.bundle", key.public().id()));
        landfall_bundle::sign(&self.bundle, key, &path).unwrap();
        Bundle::open(&path).unwrap().verify(offer).unwrap()
    }

    /// Makes a bundle with a layer of several chunks.
    pub fn bulky_bundle(&self) -> Bundle<Verified> {
        let path = self.directory.path().join("bulky.bundle");
        bundle::write_bulky(&path, bundle::VERSION).unwrap();
        bundle::open(&path).unwrap()
    }

    /// Writes a bundle whose last image alone has a large blob.
    pub fn late_bundle(&self) -> Bundle<Verified> {
        let path = self.directory.path().join("late.bundle");
        bundle::write_late(&path, bundle::VERSION).unwrap();
        bundle::open(&path).unwrap()
    }

    /// Installs under a run id and waits until every agent has ended.
    pub fn install(&self, run: &str) -> Outcome {
        self.install_heard(run, null_sink())
    }

    /// Like [`Self::install`], with an event sink.
    pub fn install_heard(&self, run: &str, sink: Arc<dyn EventSink>) -> Outcome {
        let context = self.fleet.run_context(run, "ann@desk", sink).unwrap();
        self.install_in(&context, OnFailure::Keep)
    }

    /// Like [`Self::install`], in a context of its own.
    pub fn install_in(&self, context: &RunContext, on_failure: OnFailure) -> Outcome {
        self.install_as(context, &InstallOptions::new(Until::Done, on_failure))
    }

    /// Like [`Self::install`]; lost connections are retried for so long.
    pub fn install_reconnecting(&self, context: &RunContext, reconnect: Duration) -> Outcome {
        let mut options = InstallOptions::new(Until::Done, OnFailure::Keep);
        options.reconnect = reconnect;
        self.install_as(context, &options)
    }

    /// Sends ahead what an install would send.
    pub fn push(&self, run: &str) -> Outcome {
        let context = self.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
        self.push_in(&context)
    }

    /// Sends another bundle ahead, in a context of its own; lost connections are retried for so long.
    pub fn push_reconnecting(&self, bundle: &Bundle<Verified>, context: &RunContext, reconnect: Duration) -> Outcome {
        let mut options = InstallOptions::new(Until::Pushed, OnFailure::Keep);
        options.reconnect = reconnect;
        self.install_of(bundle, context, &options)
    }

    /// The same, in a context of its own.
    pub fn push_in(&self, context: &RunContext) -> Outcome {
        self.install_as(context, &InstallOptions::new(Until::Pushed, OnFailure::Keep))
    }

    /// Takes away what was sent ahead.
    pub fn push_remove(&self, run: &str) -> Outcome {
        let context = self.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
        let outcome = run::push_remove(&self.desired, &context);
        self.fleet.settle().unwrap();
        outcome
    }

    fn install_as(&self, context: &RunContext, options: &InstallOptions) -> Outcome {
        self.install_of(&self.bundle, context, options)
    }

    /// Installs from another bundle, or what the options say, in a context of its own.
    pub fn install_of(&self, bundle: &Bundle<Verified>, context: &RunContext, options: &InstallOptions) -> Outcome {
        let outcome = run::install(&self.desired, bundle, options, context);
        self.fleet.settle().unwrap();
        outcome
    }

    /// Installs, and cancels the run like ^C after `limit`, for installs that would wait for ever.
    pub fn install_within(&self, run: &str, limit: Duration) -> Outcome {
        let context = self.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
        self.within(&context, limit, || self.install_in(&context, OnFailure::Keep))
    }

    /// Does `work`, and cancels it like ^C after `limit`.
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
        self.verify_waiting(run, Duration::ZERO)
    }

    /// Like [`Self::verify`], repeated until all is as expected, for `wait` at most.
    pub fn verify_waiting(&self, run: &str, wait: Duration) -> Outcome {
        let context = self.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
        let outcome = run::verify(&self.desired, wait, &context);
        self.fleet.settle().unwrap();
        outcome
    }

    /// Lets the ingress proxy read Secrets, by the engine's own command.
    pub fn allow(&self, run: &str, options: &AllowOptions) -> Outcome {
        let context = self.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
        let outcome = run::allow_secrets(&self.desired, options, &context);
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

    /// Like [`Self::undo`], in a context of its own.
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

    /// Fails when the model has recorded a violation of a law.
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

    /// Returns the state of the cluster that the first control plane belongs to.
    pub fn seen(&self) -> Seen {
        self.fleet.world().seen_from(&"cp-1".parse().unwrap()).unwrap()
    }

    /// Returns CoreDNS's configuration, as the API has it by that control plane.
    pub fn corefile(&self, by: &str) -> String {
        let map = self
            .fleet
            .world()
            .object(&by.parse().unwrap(), "configmaps", "kube-system", "coredns");
        map.unwrap()["data"]["Corefile"].as_str().unwrap().to_owned()
    }

    /// Fails unless every machine is byte for byte as before.
    pub fn must_be_as_before(&self, case: &str) {
        let differences = self.fleet.differences(&self.before, &[]).unwrap();
        assert!(differences.is_empty(), "{case}: {differences:#?}");
    }

    /// Fails unless every machine is as `wanted`, apart from the paths that differ after each install.
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

    /// Reads what a machine's journal records.
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

fn bundle_of(directory: &tempfile::TempDir, version: &str, build: u32) -> Bundle<Verified> {
    let path = directory.path().join(format!("{version}-{build}.bundle"));
    bundle::write_build(&path, version, build).unwrap();
    bundle::open(&path).unwrap()
}
