//! Rollback and uninstall that were cut off, or that only show their plan.

use crate::scene::{Listener, Scene, null_sink};
use landfall_core::action::Action;
use landfall_core::event::{Event, EventKind};
use landfall_core::explain::{Code, ExitCode};
use landfall_core::name::NodeName;
use landfall_engine::run::{self, Outcome, UndoCommand, Until};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// Begins an undo, and kills all agents behind so many of its steps.
fn cut_off(scene: &Scene, run: &str, command: UndoCommand, steps: u64) {
    let (fleet, count) = (scene.fleet.clone(), AtomicU64::new(0));
    let listener = Listener(move |event: &Event| {
        if matches!(event.kind, EventKind::StepFinished { .. }) && count.fetch_add(1, Ordering::SeqCst) + 1 == steps {
            fleet.names().iter().for_each(|node| fleet.kill(node));
        }
    });
    let context = scene.fleet.run_context(run, "ann@desk", Arc::new(listener)).unwrap();
    let outcome = scene.undo_in(&context, command);
    assert!(!outcome.errors.is_empty(), "it was cut off");
}

/// Fails unless an install is refused because of the undo that comes first, and changes nothing.
fn must_refuse_install(scene: &Scene, run: &str, number: u64, command: &str) {
    let before = scene.fleet.trees().unwrap();
    let refused = scene.install(run);
    assert_eq!(refused.exit_code(), ExitCode::PreflightRefused, "{:#?}", refused.errors);
    assert_eq!(refused.changes, 0);
    let [error] = refused.errors.as_slice() else {
        panic!("{:#?}", refused.errors);
    };
    assert_eq!(error.code, Code::Preflight);
    assert_eq!(error.what, format!("a run of {command} has not finished"));
    assert_eq!(error.saw, [format!("run {number} by ann@desk")]);
    assert!(
        error.next[0].starts_with(&format!("landfall {command}: ")),
        "{:?}",
        error.next
    );
    // The agents that were killed left their leases; those of the refused run give theirs back.
    let differences = scene.fleet.differences(&before, &["run/landfall"]).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn a21_an_install_after_an_uninstall_that_was_cut_off_is_refused() {
    let scene = Scene::new(3, 1);
    for steps in [1, 40] {
        scene.must_work(&scene.install("100-a"), "install");
        cut_off(&scene, "200-b", UndoCommand::Uninstall, steps);
        must_refuse_install(&scene, "300-c", 2, "uninstall");
        let finished = scene.undo("400-d", UndoCommand::Uninstall);
        scene.must_work(&finished, "uninstall again");
        scene.must_be_as_before("uninstall again");
    }
    scene.must_work(&scene.install("500-e"), "install once it is finished");
}

#[test]
fn a21_an_install_after_a_rollback_that_was_cut_off_is_refused() {
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let installed = scene.fleet.trees().unwrap();
    scene.set("upstreamDns: [10.20.9.9]\n");
    scene.must_work(&scene.install("200-b"), "a changed setting");
    cut_off(&scene, "300-c", UndoCommand::Rollback, 2);
    must_refuse_install(&scene, "400-d", 3, "rollback");
    scene.must_work(&scene.undo("500-e", UndoCommand::Rollback), "rollback again");
    scene.must_be_installed_as(&installed, "rollback again");
    scene.must_work(&scene.install("600-f"), "install once it is finished");
}

/// `--dry-run`: the plan alone, without a question.
fn dry_run(scene: &Scene, run: &str, command: UndoCommand) -> Outcome {
    let context = scene.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
    let ask = |_: &run::UndoSummary| panic!("a dry run asks nothing");
    let outcome = run::undo(&scene.desired, command, Until::Plan, &ask, &context);
    scene.fleet.settle().unwrap();
    scene.must_work(&outcome, "dry run");
    outcome
}

/// Returns the steps whose entries a plan undoes.
fn taken_back(outcome: &Outcome) -> Vec<String> {
    let steps = &outcome.plan.as_ref().unwrap().steps;
    let taken = steps.iter().filter_map(|step| match &step.action {
        Action::TakeBack { step, .. } => Some(step.to_string()),
        _ => None,
    });
    taken.collect()
}

#[test]
fn a_dry_run_of_an_undo_shows_the_plan_and_changes_nothing() {
    let mut scene = Scene::new(1, 1);
    for command in [UndoCommand::Rollback, UndoCommand::Uninstall] {
        let nothing = dry_run(&scene, "050-z", command);
        assert!(nothing.plan.is_none_or(|plan| plan.steps.is_empty()));
        scene.must_be_as_before("a dry run on bare machines");
    }
    scene.must_work(&scene.install("100-a"), "install");
    scene.set("upstreamDns: [10.20.9.9]\n");
    scene.must_work(&scene.install("200-b"), "a changed setting");
    let (installed, seen) = (scene.fleet.trees().unwrap(), scene.seen());
    let unchanged = |case: &str| {
        let differences = scene.fleet.differences(&installed, &[]).unwrap();
        assert!(
            differences.is_empty(),
            "{case}: not even a run's number: {differences:#?}"
        );
        assert_eq!(scene.seen(), seen, "{case}");
    };
    let rollback = dry_run(&scene, "300-c", UndoCommand::Rollback);
    unchanged("rollback");
    assert_eq!((rollback.changes, rollback.exit_code()), (0, ExitCode::Done));
    let mut taken = taken_back(&rollback);
    taken.sort();
    assert_eq!(taken, ["apply-dns", "resolv-conf/cp-1", "resolv-conf/w-1"]);
    let steps = &rollback.plan.as_ref().unwrap().steps;
    assert!(steps.iter().any(|s| matches!(s.action, Action::RestoreObjects { .. })));
    let uninstall = dry_run(&scene, "400-d", UndoCommand::Uninstall);
    unchanged("uninstall");
    assert_eq!((uninstall.changes, uninstall.exit_code()), (0, ExitCode::Done));
    let owned: usize = [name("cp-1"), name("w-1")]
        .iter()
        .map(|node| scene.journal(node).1.entries.len())
        .sum();
    assert_eq!(taken_back(&uninstall).len(), owned, "every entry of every journal");
    // What was shown is what is done.
    let done = scene.undo("500-e", UndoCommand::Rollback);
    scene.must_work(&done, "rollback");
    assert_eq!(done.plan, rollback.plan);
    let shown = dry_run(&scene, "550-e", UndoCommand::Uninstall);
    let done = scene.undo("600-f", UndoCommand::Uninstall);
    scene.must_work(&done, "uninstall");
    assert_eq!(done.plan, shown.plan);
    scene.must_be_as_before("uninstall");
}
