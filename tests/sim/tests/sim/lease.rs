//! Two operators at once.

use crate::scene::{Listener, Scene, null_sink};
use landfall_core::event::{Event, EventKind};
use landfall_core::explain::{Code, ExitCode};
use landfall_engine::emitter::EventEmitter;
use landfall_engine::fleet;
use landfall_engine::run::{self, InstallOptions, OnFailure, UndoCommand, Until};
use landfall_engine::session::AgentPlace;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

/// kubeadm waits while this file exists. It is removed also when the test fails, so that no process waits for ever.
struct Hold(PathBuf);

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_second_run_is_refused_with_the_holder_and_the_first_continues() {
    let scene = Scene::new(1, 1);
    let first_control_plane = scene.desired.inventory.control_planes().next().unwrap().name.clone();
    let machine = scene.fleet.machine(&first_control_plane).unwrap();
    // The first install is certainly under way when the second starts.
    machine.write("hold", "", 0o644).unwrap();
    let (tell, started) = mpsc::channel();
    let tell = Mutex::new(tell);
    let listener = Listener(move |event: &Event| {
        if matches!(&event.kind, EventKind::StepStarted { step, .. } if step.as_str().starts_with("certificates/")) {
            let _ = tell.lock().unwrap().send(());
        }
    });
    let ctx = scene
        .fleet
        .run_context("100-a", "ann@desk", Arc::new(listener))
        .unwrap();
    thread::scope(|scope| {
        let hold = Hold(machine.at("hold"));
        let first = scope.spawn(|| scene.install_in(&ctx, OnFailure::Keep));
        started.recv_timeout(Duration::from_secs(60)).unwrap();
        let ctx = scene.fleet.run_context("200-b", "bob@laptop", null_sink()).unwrap();
        let second = run::install(
            &scene.desired,
            &scene.bundle,
            &InstallOptions::new(Until::Done, OnFailure::Rollback),
            &ctx,
        );
        let undo = run::undo(&scene.desired, UndoCommand::Uninstall, Until::Done, &|_| Ok(()), &ctx);
        for refused in [&second, &undo] {
            assert_eq!(refused.exit_code(), ExitCode::Locked);
            assert_eq!((refused.changes, refused.rolled_back), (0, false));
            assert_eq!(refused.errors.len(), 2, "every node says it");
            for error in &refused.errors {
                assert_eq!(error.code, Code::Locked);
                let text = format!("{error:?}");
                assert!(
                    text.contains("ann@desk runs `install` (run 100-a) on cluster ship"),
                    "{text}"
                );
                assert!(!text.contains("bob@laptop"), "{text}");
            }
        }
        drop(hold);
        let first = first.join().unwrap();
        scene.must_work(&first, "the first install");
        assert_eq!(first.run.unwrap().as_str(), "100-a");
    });
    scene.fleet.settle().unwrap();
    assert_eq!(scene.install("300-c").changes, 0, "the first install is whole");
    scene.must_work(&scene.undo("400-d", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

#[test]
fn a_run_that_one_node_refuses_leaves_no_trace_on_the_others() {
    let scene = Scene::new(1, 2);
    let ctx = scene.fleet.run_context("100-a", "ann@desk", null_sink()).unwrap();
    let held: Vec<_> = scene.desired.inventory.workers().take(1).collect();
    let (sessions, errors) = fleet::connect(&held, AgentPlace::Member, &ctx, &EventEmitter::new(&ctx));
    assert!(errors.is_empty(), "{errors:?}");
    fleet::lease(&sessions, "install", "ship", &ctx, &EventEmitter::new(&ctx)).unwrap();
    let others = scene.fleet.run_context("200-b", "bob@laptop", null_sink()).unwrap();
    let install = run::install(
        &scene.desired,
        &scene.bundle,
        &InstallOptions::new(Until::Done, OnFailure::Keep),
        &others,
    );
    let rollback = run::undo(&scene.desired, UndoCommand::Rollback, Until::Done, &|_| Ok(()), &others);
    for refused in [install, rollback] {
        assert_eq!((refused.exit_code(), refused.errors.len()), (ExitCode::Locked, 1));
        assert_eq!(refused.errors[0].node.as_ref(), Some(&held[0].name));
    }
    fleet::lease(&sessions, "install", "ship", &ctx, &EventEmitter::new(&ctx)).unwrap();
    fleet::remove_unused_state(&sessions);
    fleet::close(&sessions);
    scene.fleet.settle().unwrap();
    scene.must_be_as_before("refused runs");
}

#[test]
fn the_end_of_an_operators_own_earlier_run_is_waited_for() {
    let scene = Scene::new(1, 1);
    let ctx = scene.fleet.run_context("100-a", "ann@desk", null_sink()).unwrap();
    let held: Vec<_> = scene.desired.inventory.workers().collect();
    let (sessions, errors) = fleet::connect(&held, AgentPlace::Member, &ctx, &EventEmitter::new(&ctx));
    assert!(errors.is_empty(), "{errors:?}");
    fleet::lease(&sessions, "install", "ship", &ctx, &EventEmitter::new(&ctx)).unwrap();
    // The killed run's agent ends when the next one has met its lease.
    let (tell, met) = mpsc::channel();
    let tell = Mutex::new(tell);
    let listener = Listener(move |event: &Event| {
        if matches!(&event.kind, EventKind::Note { text } if text.contains("ann@desk runs `install` (run 100-a)")) {
            let _ = tell.lock().unwrap().send(());
        }
    });
    let next = scene
        .fleet
        .run_context("200-b", "ann@desk", Arc::new(listener))
        .unwrap();
    thread::scope(|scope| {
        let second = scope.spawn(|| scene.install_in(&next, OnFailure::Keep));
        let waited = met.recv_timeout(Duration::from_secs(60));
        fleet::close(&sessions);
        scene.must_work(&second.join().unwrap(), "the second run");
        waited.unwrap();
    });
}
