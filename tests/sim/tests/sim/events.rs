//! The event stream of a command, and the report that is its fold, agree with the outcome that the engine returns.

use crate::scene::{Listener, Scene};
use landfall_core::event::{Command, Event, EventKind};
use landfall_core::report::Report;
use landfall_engine::run::{self, InstallOptions, OnFailure, Outcome, RunContext, UndoCommand, Until};
use std::sync::{Arc, Mutex};

/// Runs a command and returns its outcome and its events.
fn heard(scene: &Scene, run: &str, command: impl FnOnce(&RunContext) -> Outcome) -> (Outcome, Vec<Event>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let take = Arc::clone(&events);
    let sink = Arc::new(Listener(move |event: &Event| take.lock().unwrap().push(event.clone())));
    let context = scene.fleet.run_context(run, "ann@desk", sink).unwrap();
    let outcome = command(&context);
    scene.fleet.settle().unwrap();
    let events = events.lock().unwrap().clone();
    (outcome, events)
}

/// Fails unless the stream is complete and its report agrees with the outcome.
fn must_agree(outcome: &Outcome, events: &[Event], command: Command) -> Report {
    let (first, last) = (&events[0].kind, &events[events.len() - 1].kind);
    assert!(
        matches!(first, EventKind::RunStarted { command: c, .. } if *c == command),
        "{first:?}"
    );
    let report = Report::fold(events);
    assert!(
        matches!(last, EventKind::RunFinished { counts, .. } if *counts == report.counts),
        "{last:?} {:?}",
        report.counts
    );
    let ends = |event: &&Event| matches!(event.kind, EventKind::RunStarted { .. } | EventKind::RunFinished { .. });
    assert_eq!(events.iter().filter(ends).count(), 2, "a command begins and ends once");
    assert_eq!(report.command, Some(command));
    assert_eq!(report.outcome, Some(outcome.exit_code()));
    assert_eq!(report.changes, outcome.changes);
    assert_eq!(report.residue.len(), outcome.residue.len());
    assert_eq!(report.rolled_back, outcome.rolled_back);
    let known = |wanted| report.errors.contains(wanted);
    assert!(
        outcome.errors.iter().all(known),
        "{:#?} {:#?}",
        report.errors,
        outcome.errors
    );
    report
}

#[test]
fn events_and_outcome_of_a_refused_install_agree() {
    let scene = Scene::with(1, 1, |fleet| {
        let machine = fleet.machine(&"w-1".parse().unwrap()).unwrap();
        machine
            .write("proc/swaps", "Filename\n/dev/sda2 partition 1 0 -2\n", 0o444)
            .unwrap();
    });
    let (outcome, events) = heard(&scene, "100-a", |context| {
        run::install(
            &scene.desired,
            &scene.bundle,
            &InstallOptions::new(Until::Done, OnFailure::Keep),
            context,
        )
    });
    let report = must_agree(&outcome, &events, Command::Install);
    assert_eq!(report.errors, outcome.errors);
    assert_eq!(report.run, None, "nothing was planned");
    let digest = report.bundle.map(|bundle| bundle.index_digest);
    assert_eq!(digest, Some(scene.bundle.index_digest()));
    assert_eq!(report.warnings, Vec::<String>::new(), "its bundle is signed");
    assert!(!report.phases.is_empty());
}

#[test]
fn events_and_outcome_of_a_rollback_and_an_uninstall_agree() {
    let scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let lost = "w-1".parse().unwrap();
    scene.fleet.set_unreachable(&lost, true);
    for (run, back, command) in [
        ("200-b", UndoCommand::Rollback, Command::Rollback),
        ("300-c", UndoCommand::Uninstall, Command::Uninstall),
    ] {
        let (outcome, events) = heard(&scene, run, |context| {
            run::undo(&scene.desired, back, Until::Done, &|_| Ok(()), context)
        });
        let report = must_agree(&outcome, &events, command);
        assert_eq!(
            report.errors.iter().filter(|e| e.node.as_ref() == Some(&lost)).count(),
            1
        );
    }
    scene.fleet.set_unreachable(&lost, false);
    let (outcome, events) = heard(&scene, "400-d", |context| {
        run::undo(
            &scene.desired,
            UndoCommand::Uninstall,
            Until::Done,
            &|_| Ok(()),
            context,
        )
    });
    let report = must_agree(&outcome, &events, Command::Uninstall);
    assert!(report.changes > 0 && report.errors.is_empty(), "{:#?}", report.errors);
    scene.must_be_as_before("uninstall");
}
