//! `install` up to where it refuses, and commands that find nothing.

use crate::scene::{Scene, null_sink};
use landfall_core::explain::{Code, ExitCode};
use landfall_engine::run::{self, InstallOptions, OnFailure, UndoCommand, Until};

#[test]
fn preflight_refuses_and_leaves_no_trace() {
    let scene = Scene::with(1, 1, |fleet| {
        let machine = |name: &str| fleet.machine(&name.parse().unwrap()).unwrap();
        machine("cp-1")
            .write("proc/meminfo", "MemTotal: 1000 kB\n", 0o444)
            .unwrap();
        machine("w-1")
            .write("proc/swaps", "Filename\n/dev/sda2 partition 1 0 -2\n", 0o444)
            .unwrap();
    });
    let ctx = scene.fleet.run_context("100-a", "ann@desk", null_sink()).unwrap();
    let outcome = run::install(
        &scene.desired,
        &scene.bundle,
        &InstallOptions::new(Until::Done, OnFailure::Keep),
        &ctx,
    );
    scene.fleet.settle().unwrap();
    assert_eq!(outcome.exit_code(), ExitCode::PreflightRefused, "{:#?}", outcome.errors);
    assert!(outcome.errors.len() > 1, "all findings at once: {:#?}", outcome.errors);
    scene.must_be_as_before("refused install");
}

#[test]
fn an_unreachable_node_ends_the_run_before_the_others_are_touched() {
    let scene = Scene::new(1, 2);
    let lost = "w-2".parse().unwrap();
    scene.fleet.set_unreachable(&lost, true);
    let ctx = scene.fleet.run_context("100-a", "ann@desk", null_sink()).unwrap();
    let outcome = run::install(
        &scene.desired,
        &scene.bundle,
        &InstallOptions::new(Until::Done, OnFailure::Keep),
        &ctx,
    );
    scene.fleet.settle().unwrap();
    assert_eq!(outcome.exit_code(), ExitCode::Unreachable);
    assert_eq!(outcome.errors.len(), 1);
    assert_eq!(
        (outcome.errors[0].code, outcome.errors[0].node.as_ref()),
        (Code::Unreachable, Some(&lost))
    );
    scene.must_be_as_before("install without a node");
}

#[test]
fn uninstall_takes_back_the_reachable_nodes_and_names_the_lost_one() {
    let scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let lost = "w-1".parse().unwrap();
    scene.fleet.set_unreachable(&lost, true);
    let rollback = scene.undo("200-b", UndoCommand::Rollback);
    assert_eq!(rollback.exit_code(), ExitCode::Unreachable);
    assert!(rollback.changes > 0, "what is here is taken back");
    assert_eq!(rollback.absent[0].node.as_ref(), Some(&lost));
    let uninstall = scene.undo("300-c", UndoCommand::Uninstall);
    assert_eq!((uninstall.exit_code(), uninstall.changes), (ExitCode::Unreachable, 0));
    scene.fleet.set_unreachable(&lost, false);
    scene.must_work(&scene.undo("400-d", UndoCommand::Uninstall), "uninstall of the rest");
    scene.must_be_as_before("uninstall of the rest");
}

#[test]
fn undoing_where_nothing_was_done_leaves_no_trace() {
    let scene = Scene::new(1, 1);
    for (run, back) in [("100-a", UndoCommand::Rollback), ("200-b", UndoCommand::Uninstall)] {
        let outcome = scene.undo(run, back);
        scene.must_work(&outcome, run);
        assert_eq!(outcome.changes, 0);
        scene.must_be_as_before(run);
    }
}

#[test]
fn looking_at_bare_machines_leaves_no_trace() {
    let scene = Scene::new(1, 1);
    let ctx = scene.fleet.run_context("100-a", "ann@desk", null_sink()).unwrap();
    for (what, look) in [
        ("status", run::status as fn(&_, &_) -> _),
        ("kubeconfig", run::kubeconfig),
    ] {
        let _: run::Outcome = look(&scene.desired, &ctx);
        scene.fleet.settle().unwrap();
        scene.must_be_as_before(what);
    }
}
