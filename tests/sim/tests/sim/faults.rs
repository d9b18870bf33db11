//! Faults of machines other than killed agents.

use crate::scene::{Listener, Scene};
use landfall_core::event::{Event, EventKind};
use landfall_core::name::NodeName;
use landfall_engine::run::UndoCommand;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

#[test]
fn a_power_cut_loses_what_was_not_on_disk_and_nothing_else() {
    let scene = Scene::new(1, 1);
    let (fleet, worker) = (scene.fleet.clone(), name("w-1"));
    let (victim, count) = (worker.clone(), AtomicU64::new(0));
    let listener = Listener(move |event: &Event| {
        let done = matches!(event.kind, EventKind::StepFinished { .. }) && event.node.as_ref() == Some(&victim);
        if done && count.fetch_add(1, Ordering::SeqCst) == 12 {
            fleet.power_off(&victim).unwrap();
        }
    });
    let first = scene.install_heard("100-a", Arc::new(listener));
    assert!(!first.errors.is_empty());
    scene.fleet.power_on(&worker).unwrap();
    scene.must_work(&scene.install("200-b"), "after the power cut");
    assert_eq!(scene.install("300-c").changes, 0);
    scene.must_work(&scene.undo("400-d", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

#[test]
fn status_sees_nodes_etcd_and_certificates() {
    let scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let status = scene.status("200-b");
    let founder = &status.nodes[&name("cp-1")];
    assert_eq!(founder.etcd.as_deref(), Some("healthy"), "{:#?}", status.errors);
    assert!(
        status
            .nodes
            .values()
            .all(|n| n.ready == Some((true, "v1.37.0".to_owned())))
    );
    assert!(
        founder
            .certificates
            .iter()
            .any(|c| c.name == "apiserver" && c.days_left == 364)
    );
}

#[test]
fn a_full_disk_fails_a_step_and_the_next_run_goes_on() {
    let scene = Scene::new(1, 1);
    let worker = name("w-1");
    // The journal is the longest file of an agent: it is full after some steps.
    scene.fleet.fill_disk(&worker, Some(12_000));
    let first = scene.install("100-a");
    assert!(!first.errors.is_empty() && first.errors.iter().any(|e| e.node.as_ref() == Some(&worker)));
    scene.fleet.fill_disk(&worker, None);
    scene.must_work(&scene.install("200-b"), "with room again");
    scene.must_work(&scene.undo("300-c", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

#[test]
fn another_bundle_of_the_same_version_is_taken_node_after_node_and_can_be_taken_back() {
    let mut scene = Scene::new(3, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let (installed, seen) = (scene.fleet.trees().unwrap(), scene.seen());
    scene.bundle = scene.rebuilt_bundle();
    let said = Arc::new(Mutex::new(Vec::new()));
    let order = Arc::clone(&said);
    let listener = Listener(move |event: &Event| match &event.kind {
        EventKind::StepStarted { step, .. } if step.as_str().starts_with("unit/kubelet/") => {
            order.lock().unwrap().push((event.node.clone(), "restarts"));
        }
        EventKind::StepFinished { step, .. } if step.as_str().starts_with("node-ready-again/") => {
            let node = step.as_str().rsplit('/').next().and_then(|n| n.parse().ok());
            order.lock().unwrap().push((node, "is ready again"));
        }
        _ => {}
    });
    let second = scene.install_heard("200-b", Arc::new(listener));
    scene.must_work(&second, "another bundle");
    assert!(second.changes > 0);
    assert_eq!(scene.seen(), seen, "nobody left");
    let said = said.lock().unwrap().clone();
    let nodes: Vec<_> = said.chunk_by(|one, next| one.0 == next.0).collect();
    assert_eq!(nodes.len(), 4, "one node after another: {said:?}");
    for steps in nodes {
        let last: Vec<_> = steps.iter().rev().take(2).map(|step| step.1).collect();
        assert_eq!(last, ["is ready again", "restarts"], "{said:?}");
    }
    assert_eq!(scene.install("300-c").changes, 0);
    scene.must_work(&scene.undo("400-d", UndoCommand::Rollback), "rollback");
    scene.must_be_installed_as(&installed, "rollback");
    scene.must_work(&scene.undo("500-e", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}
