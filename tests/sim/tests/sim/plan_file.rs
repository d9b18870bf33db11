//! `landfall plan -o FILE` and `install --plan FILE`: a plan file is run as it was made, or refused with the name of what has drifted since.

use crate::scene::{Listener, Scene, null_sink};
use landfall_core::cluster_record::ClusterUid;
use landfall_core::event::{Event, EventKind, EventSink};
use landfall_core::explain::{Code, ExitCode};
use landfall_core::name::{NodeName, StepId};
use landfall_core::plan::file::PlanFile;
use landfall_engine::run::{InstallOptions, OnFailure, Outcome, UndoCommand, Until};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// Plans, and returns the text of the plan file.
fn plan(scene: &Scene, run: &str) -> String {
    let context = scene.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
    let options = InstallOptions::new(Until::Plan, OnFailure::Keep);
    let planned = scene.install_of(&scene.bundle, &context, &options);
    scene.must_work(&planned, "plan");
    assert_eq!(planned.changes, 0);
    planned.plan_file.unwrap().render()
}

/// Installs by a plan file. As with the real program, the random identity for a new cluster is another one than while it was planned.
fn install_by(scene: &Scene, run: &str, text: &str, sink: Arc<dyn EventSink>) -> Outcome {
    let mut context = scene.fleet.run_context(run, "ben@desk", sink).unwrap();
    context.new_uid = ClusterUid::from_random([2; 16]);
    context.at_ms += 3_600_000;
    let options = InstallOptions {
        plan_file: Some(PlanFile::parse(text).unwrap()),
        ..InstallOptions::new(Until::Done, OnFailure::Keep)
    };
    scene.install_of(&scene.bundle, &context, &options)
}

/// Fails unless an install was refused before its first change because of these steps, and of no other.
fn must_drift(outcome: &Outcome, steps: &[&str]) {
    let codes: Vec<Code> = outcome.errors.iter().map(|e| e.code).collect();
    assert_eq!(codes, [Code::PlanDrift], "{:#?}", outcome.errors);
    assert_eq!(outcome.exit_code(), ExitCode::PreflightRefused);
    assert_eq!(outcome.exit_code().status(), 4);
    assert_eq!(outcome.changes, 0);
    let seen = &outcome.errors[0].saw;
    let named: BTreeSet<&str> = seen.iter().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(named, steps.iter().copied().collect(), "{seen:#?}");
}

#[test]
fn a_plan_file_of_a_cluster_that_did_not_change_is_run_step_by_step() {
    let mut scene = Scene::new(3, 1);
    // Of a cluster that is to be founded, then of a changed setting.
    for (run, settings) in [("100", ""), ("200", "upstreamDns: [10.20.9.9]\n")] {
        scene.set(settings);
        let text = plan(&scene, &format!("{run}-plan"));
        let file = PlanFile::parse(&text).unwrap();
        let own: BTreeSet<StepId> = file.plan.steps.iter().map(|s| s.id.clone()).collect();
        let own: BTreeSet<StepId> = own.difference(&file.satisfied).cloned().collect();
        assert!(!own.is_empty());
        let begun = Arc::new(Mutex::new(BTreeSet::new()));
        let take = Arc::clone(&begun);
        let listener = Listener(move |event: &Event| {
            if let EventKind::StepStarted { step, .. } = &event.kind {
                take.lock().unwrap().insert(step.clone());
            }
        });
        let installed = install_by(&scene, &format!("{run}-run"), &text, Arc::new(listener));
        scene.must_work(&installed, "install by plan file");
        assert!(installed.changes > 0);
        assert_eq!(*begun.lock().unwrap(), own, "its own steps, and no other");
        assert_eq!(scene.install(&format!("{run}-z")).changes, 0, "nothing is left to do");
        // A plan that was run is no plan any more.
        let refused = install_by(&scene, &format!("{run}-zz"), &text, null_sink());
        assert_eq!(refused.exit_code(), ExitCode::PreflightRefused, "{:#?}", refused.errors);
        assert_eq!(refused.changes, 0);
    }
    scene.must_work(&scene.undo("300-u", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

#[test]
fn a_step_that_came_since_the_plan_is_refused_and_named() {
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    scene.set("upstreamDns: [10.20.9.9]\n");
    let text = plan(&scene, "200-plan");
    // Somebody edits a file of landfall's on the worker.
    let template = scene
        .fleet
        .machine(&name("w-1"))
        .unwrap()
        .at("etc/landfall/containerd.toml");
    let ours = std::fs::read(&template).unwrap();
    std::fs::write(&template, "theirs").unwrap();
    let changed = scene.fleet.trees().unwrap();
    let refused = install_by(&scene, "300-run", &text, null_sink());
    must_drift(&refused, &["containerd-config/w-1"]);
    let differences = scene.fleet.differences(&changed, &[]).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
    std::fs::write(&template, ours).unwrap();
    scene.must_work(&install_by(&scene, "400-run", &text, null_sink()), "as it was planned");
}

#[test]
fn a_step_that_would_do_something_else_is_refused_and_named() {
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    scene.set("upstreamDns: [10.20.9.9]\n");
    let text = plan(&scene, "200-plan");
    let installed = scene.fleet.trees().unwrap();
    scene.set("upstreamDns: [10.20.9.8]\n");
    let refused = install_by(&scene, "300-run", &text, null_sink());
    must_drift(&refused, &["apply-dns", "resolv-conf/cp-1", "resolv-conf/w-1"]);
    let differences = scene.fleet.differences(&installed, &[]).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
}

/// A file that was edited, or made by another build of landfall, has steps that do the same at another time.
#[test]
fn a_step_that_would_wait_for_others_is_refused_and_named() {
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    scene.set("upstreamDns: [10.20.9.9]\n");
    let mut file = PlanFile::parse(&plan(&scene, "200-plan")).unwrap();
    let resolver = "resolv-conf/w-1";
    let step = file.plan.steps.iter_mut().find(|s| s.id.as_str() == resolver).unwrap();
    step.needs.clear();
    let refused = install_by(&scene, "300-run", &file.render(), null_sink());
    must_drift(&refused, &[resolver]);
}
