//! A run that fails in a cluster that stands, with changes written already: what is taken back is its own, and nothing of an earlier run.

use crate::scene::{Listener, Scene, null_sink};
use landfall_core::bundle_index::Manifest;
use landfall_core::event::{Event, EventKind};
use landfall_core::explain::{Code, ExitCode};
use landfall_core::journal::EntryState;
use landfall_core::name::{NodeName, RunId};
use landfall_engine::run::{InstallOptions, OnFailure, Outcome, RunContext, UndoCommand, Until};
use landfall_test_support::cluster::Seen;
use landfall_test_support::tree::Tree;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const DNS: &str = "apply-dns";
const SHOP: &str = "apply-added-shop";
/// The setting that the second run changes: a file on each node, and objects of CoreDNS.
const SETTING: &str = "upstreamDns: [10.20.9.9]\n";

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn corefile(scene: &Scene) -> Value {
    let world = scene.fleet.world();
    let map = world.object(&name("cp-1"), "configmaps", "kube-system", "coredns");
    map.unwrap()["data"].clone()
}

/// A cluster as its first run left it.
struct Installed {
    trees: BTreeMap<NodeName, Tree>,
    seen: Seen,
    corefile: Value,
}

fn install(scene: &Scene) -> Installed {
    scene.must_work(&scene.install("100-a"), "install");
    Installed {
        trees: scene.fleet.trees().unwrap(),
        seen: scene.seen(),
        corefile: corefile(scene),
    }
}

impl Installed {
    /// Fails unless the machines, the cluster and its objects are as the first run left them, and every entry of a journal is the first run's.
    fn must_be_back(&self, scene: &Scene, case: &str) {
        scene.must_be_installed_as(&self.trees, case);
        assert_eq!(scene.seen(), self.seen, "{case}");
        assert_eq!(corefile(scene), self.corefile, "{case}");
        assert_eq!(entries(scene).into_iter().collect::<Vec<_>>(), ["100-a"], "{case}");
        scene.must_be_lawful(case);
    }
}

fn must_succeed(outcome: &Outcome, case: &str) {
    let (errors, residue) = (&outcome.errors, &outcome.residue);
    assert!(
        errors.is_empty() && residue.is_empty(),
        "{case}: {errors:#?} {residue:#?}"
    );
}

/// Returns the runs whose entries the journals have, and fails when one is not whole.
fn entries(scene: &Scene) -> BTreeSet<String> {
    let mut runs = BTreeSet::new();
    for node in scene.fleet.names() {
        for entry in scene.journal_as_found(&node).entries {
            assert_eq!(entry.state, EntryState::Owned, "{node} {}", entry.step);
            runs.insert(entry.run.to_string());
        }
    }
    runs
}

/// Lets the cluster hold an object of a person that a manifest in the bundle has too: to apply it fails.
fn add_a_manifest_that_fails(scene: &mut Scene) {
    let motto = |text: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "motto", "namespace": "default" }, "data": { "text": text } });
    let world = scene.fleet.world();
    world
        .create_object(&name("cp-1"), "configmaps", motto("theirs"))
        .unwrap();
    scene.bundle = scene.bundle_with(vec![Manifest {
        name: "shop".to_owned(),
        objects: vec![motto("ours")],
    }]);
}

/// Which steps of a run have ended, well or not.
#[derive(Clone, Default)]
struct Ended(Arc<Mutex<BTreeSet<String>>>);

impl Ended {
    fn take(&self, event: &Event) {
        let step = match &event.kind {
            EventKind::StepFinished { step, .. } | EventKind::StepFailed { step, .. } => step,
            // Another step failed first.
            EventKind::StepWaiting { step, text } if text.starts_with("waits no longer") => step,
            _ => return,
        };
        self.0.lock().unwrap().insert(step.to_string());
    }

    /// Waits until all of these steps have ended.
    fn wait_for(&self, steps: &[&str]) {
        let limit = Instant::now() + Duration::from_secs(60);
        while !steps.iter().all(|step| self.0.lock().unwrap().contains(*step)) {
            assert!(Instant::now() < limit, "{steps:?} do not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn context(scene: &Scene, listen: impl Fn(&Event) + Send + Sync + 'static) -> RunContext {
    let sink = Arc::new(Listener(listen));
    scene.fleet.run_context("200-b", "ann@desk", sink).unwrap()
}

fn codes(outcome: &Outcome) -> Vec<Code> {
    outcome.errors.iter().map(|e| e.code).collect()
}

#[test]
fn a1_a_run_that_fails_at_an_apply_takes_back_its_own_entries_alone() {
    let mut scene = Scene::new(1, 1);
    let first = install(&scene);
    scene.set(SETTING);
    add_a_manifest_that_fails(&mut scene);
    let ended = Ended::default();
    let context = context(&scene, move |event| {
        ended.take(event);
        if matches!(&event.kind, EventKind::StepStarted { step, .. } if step.as_str() == SHOP) {
            ended.wait_for(&[DNS, "resolv-conf/cp-1", "resolv-conf/w-1"]);
        }
    });
    let second = scene.install_in(&context, OnFailure::Rollback);
    assert_eq!(codes(&second), [Code::ForeignObject], "{:#?}", second.errors);
    assert_eq!(second.changes, 3, "the files of both nodes and CoreDNS were changed");
    assert!(second.rolled_back, "{second:#?}");
    assert_eq!(second.exit_code(), ExitCode::FailedRolledBack);
    first.must_be_back(&scene, "rolled back");
    must_succeed(&scene.undo("300-c", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

#[test]
fn a1_a_run_that_is_killed_at_an_apply_takes_back_nothing_of_an_earlier_one() {
    let mut scene = Scene::new(1, 1);
    let first = install(&scene);
    scene.set(SETTING);
    for (case, at_end) in [("before the apply", false), ("behind the apply", true)] {
        let (fleet, ended) = (scene.fleet.clone(), Ended::default());
        let context = context(&scene, move |event| {
            ended.take(event);
            let begins = matches!(&event.kind, EventKind::StepStarted { step, .. } if step.as_str() == DNS);
            let ends = matches!(&event.kind, EventKind::StepFinished { step, .. } if step.as_str() == DNS);
            if begins {
                ended.wait_for(&["resolv-conf/cp-1", "resolv-conf/w-1"]);
            }
            if if at_end { ends } else { begins } {
                fleet.names().iter().for_each(|node| fleet.kill(node));
            }
        });
        let second = scene.install_in(&context, OnFailure::Rollback);
        assert!(!second.errors.is_empty() && !second.rolled_back, "{case}: {second:#?}");
        assert_eq!(scene.seen(), first.seen, "{case}: the cluster stands");
        assert_eq!(entries(&scene), ["100-a", "200-b"].map(str::to_owned).into(), "{case}");
        scene.must_work(&scene.undo("300-c", UndoCommand::Rollback), case);
        first.must_be_back(&scene, case);
    }
}

#[test]
fn a1_a_run_that_goes_on_after_a_lost_connection_takes_back_all_its_attempts() {
    let mut scene = Scene::new(1, 1);
    let first = install(&scene);
    scene.set(SETTING);
    add_a_manifest_that_fails(&mut scene);
    let (fleet, ended, cut) = (scene.fleet.clone(), Ended::default(), AtomicBool::new(false));
    // The first attempt writes the files and loses its connection to the control plane; the second one changes the objects, and fails.
    let context = context(&scene, move |event| {
        ended.take(event);
        let EventKind::StepStarted { step, .. } = &event.kind else {
            return;
        };
        if step.as_str() == DNS && !cut.swap(true, Ordering::SeqCst) {
            ended.wait_for(&["resolv-conf/cp-1", "resolv-conf/w-1"]);
            fleet.cut(&name("cp-1"));
        } else if step.as_str() == SHOP {
            ended.wait_for(&[DNS]);
        }
    });
    let options = InstallOptions {
        reconnect: Duration::from_secs(60),
        ..InstallOptions::new(Until::Done, OnFailure::Rollback)
    };
    let second = scene.install_of(&scene.bundle, &context, &options);
    assert_eq!(codes(&second), [Code::ForeignObject], "{:#?}", second.errors);
    assert!(second.rolled_back, "{second:#?}");
    let runs = scene.journal_as_found(&name("cp-1")).runs;
    let runs: Vec<&RunId> = runs.iter().map(|run| &run.start.run).collect();
    let names: Vec<&str> = runs.iter().map(|run| run.as_str()).collect();
    assert_eq!(names, ["100-a", "200-b", "200-b-again1"]);
    first.must_be_back(&scene, "rolled back");
    // None of its attempts is unfinished: there is nothing to go on with, nor to roll back.
    let journals = || {
        scene
            .fleet
            .names()
            .iter()
            .map(|node| scene.journal(node).0)
            .collect::<Vec<_>>()
    };
    let before = journals();
    let undone = scene.undo("300-c", UndoCommand::Rollback);
    must_succeed(&undone, "rollback");
    assert_eq!(
        undone.changes, 0,
        "a run that rolled itself back is not rolled back again"
    );
    let plain = scene.other_bundle(landfall_test_support::bundle::VERSION);
    let spec = landfall_test_support::desired::cluster(1, 1, "").unwrap();
    let context = scene.fleet.run_context("400-d", "ann@desk", null_sink()).unwrap();
    let options = InstallOptions::new(Until::Done, OnFailure::Keep);
    let again = landfall_engine::run::install(&spec, &plain, &options, &context);
    scene.fleet.settle().unwrap();
    must_succeed(&again, "install as at first");
    assert_eq!(again.changes, 0);
    assert!(journals() == before, "no run was begun");
    first.must_be_back(&scene, "rollback");
    must_succeed(&scene.undo("500-e", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

/// A second run adds a worker, fails at an apply behind its join, and rolls itself back.
fn scene_with_a_worker_added_and_rolled_back(kill: bool) -> (Scene, landfall_core::spec::Desired) {
    let mut scene = Scene::new(1, 2);
    let all = scene.desired.clone();
    scene.desired.inventory.nodes.retain(|node| node.name != name("w-2"));
    let without = scene.desired.clone();
    scene.must_work(&scene.install("100-a"), "install");
    scene.desired = all;
    add_a_manifest_that_fails(&mut scene);
    let (ended, fleet) = (Ended::default(), scene.fleet.clone());
    let context = context(&scene, move |event| {
        ended.take(event);
        match &event.kind {
            EventKind::StepStarted { step, .. } if step.as_str() == SHOP => ended.wait_for(&["join-worker/w-2"]),
            EventKind::StepFinished { step, .. } if kill && step.as_str().starts_with("leave-cluster") => {
                fleet.names().iter().for_each(|node| fleet.kill(node));
            }
            _ => {}
        }
    });
    let second = scene.install_in(&context, OnFailure::Rollback);
    assert_eq!(second.rolled_back, !kill, "{second:#?}");
    (scene, without)
}

#[test]
fn a_worker_that_a_failed_run_added_is_no_member_after_its_rollback() {
    let (mut scene, without) = scene_with_a_worker_added_and_rolled_back(false);
    scene.desired = without;
    scene.bundle = scene.other_bundle(landfall_test_support::bundle::VERSION);
    let again = scene.install("300-c");
    must_succeed(&again, "install as at first");
    assert_eq!(
        (again.changes, again.exit_code()),
        (0, ExitCode::Done),
        "{:#?}",
        again.absent
    );
}

#[test]
fn a_rollback_of_a_failed_run_that_is_cut_off_is_finished_before_an_install() {
    let (mut scene, _) = scene_with_a_worker_added_and_rolled_back(true);
    scene.bundle = scene.other_bundle(landfall_test_support::bundle::VERSION);
    let context = scene.fleet.run_context("300-c", "ann@desk", null_sink()).unwrap();
    let again = scene.within(&context, Duration::from_secs(60), || {
        scene.install_in(&context, OnFailure::Keep)
    });
    must_succeed(&again, "install of all");
    assert!(
        scene.seen().nodes.get("w-2").is_some_and(|(_, ready)| *ready),
        "{:?} {again:#?}",
        scene.seen()
    );
}
