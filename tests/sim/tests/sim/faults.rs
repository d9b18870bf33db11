//! Faults of machines other than killed agents.

use crate::scene::{Listener, Scene};
use landfall_core::event::{Event, EventKind};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::NodeName;
use landfall_engine::run::{OnFailure, UndoCommand};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// A fault of landfall's own in one step is an error of that step; the run does not wait for it for ever.
#[test]
fn a_step_that_panics_ends_the_run_with_its_name() {
    let scene = Scene::new(1, 0);
    let listener = Listener(|event: &Event| {
        if matches!(&event.kind, EventKind::StepStarted { step, .. } if step.as_str() == "hosts/cp-1") {
            panic!("on purpose");
        }
    });
    let outcome = scene.install_heard("100-a", Arc::new(listener));
    let error = &outcome.errors[0];
    assert_eq!(
        (outcome.errors.len(), error.code),
        (1, Code::Internal),
        "{:#?}",
        outcome.errors
    );
    assert_eq!(error.step.as_ref().map(|step| step.as_str()), Some("hosts/cp-1"));
    scene.must_work(&scene.install("200-b"), "the next run");
}

#[test]
fn a_run_continues_after_a_power_cut() {
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
fn repeatedly_lost_connections_are_retried_within_the_run() {
    let scene = Scene::new(3, 2);
    let (fleet, names, count) = (scene.fleet.clone(), scene.fleet.names(), AtomicU64::new(0));
    // An agent is killed, a connection ends, or a machine loses its power for three seconds, each some fifty steps after the last one.
    let listener = Listener(move |event: &Event| {
        let is_step = matches!(event.kind, EventKind::StepFinished { .. });
        let number = if is_step {
            count.fetch_add(1, Ordering::SeqCst)
        } else {
            0
        };
        let name = names[number as usize % names.len()].clone();
        match number {
            20 | 170 => fleet.cut(&name),
            70 => fleet.kill(&name),
            121 => {
                fleet.power_off(&name).unwrap();
                let fleet = fleet.clone();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_secs(3));
                    fleet.power_on(&name).unwrap();
                });
            }
            _ => {}
        }
    });
    let context = scene
        .fleet
        .run_context("100-a", "ann@desk", Arc::new(listener))
        .unwrap();
    let installed = scene.install_reconnecting(&context, Duration::from_secs(60));
    scene.must_work(&installed, "install");
    let runs = scene.journal_as_found(&name("cp-1")).runs;
    let (ids, goes_on): (Vec<&str>, Vec<_>) = runs.iter().map(|r| (r.start.run.as_str(), r.start.continues)).unzip();
    // While a machine is off, an attempt comes to no run.
    assert!(
        ids.len() >= 5 && ids[0] == "100-a" && ids[1] == "100-a-again1",
        "{ids:?}"
    );
    let before: Vec<_> = std::iter::once(None).chain((1..).map(Some)).take(ids.len()).collect();
    assert_eq!(goes_on, before, "each goes on with the one before");
    assert_eq!(scene.install("200-b").changes, 0);
    scene.must_work(
        &scene.undo("300-c", UndoCommand::Rollback),
        "rollback takes all attempts back",
    );
    scene.must_be_as_before("rollback");
}

#[test]
fn a_wait_for_what_a_failed_step_would_bring_ends_at_once() {
    let scene = Scene::new(3, 2);
    let (fleet, waits) = (scene.fleet.clone(), AtomicBool::new(false));
    // The pod network is not recorded on cp-3, whose connection ends, so it is not applied, and no node becomes Ready.
    let listener = Listener(move |event: &Event| match &event.kind {
        EventKind::StepStarted { step, .. } if step.as_str() == "nodes-ready" => waits.store(true, Ordering::SeqCst),
        EventKind::StepStarted { step, .. } if step.as_str() == "apply-flannel" => {
            while !waits.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
            fleet.cut(&name("cp-3"));
        }
        _ => {}
    });
    let context = scene
        .fleet
        .run_context("100-a", "ann@desk", Arc::new(listener))
        .unwrap();
    let ended = scene.within(&context, Duration::from_secs(60), || {
        scene.install_in(&context, OnFailure::Keep)
    });
    assert!(!ended.interrupted, "{:#?}", ended.errors);
    let lost = |error: &Diagnosis| error.code == Code::ConnectionLost && error.node.as_ref() == Some(&name("cp-3"));
    assert!(
        !ended.errors.is_empty() && ended.errors.iter().all(lost),
        "{:#?}",
        ended.errors
    );
    scene.must_work(&scene.install("200-b"), "after that");
}

#[test]
fn a_node_that_does_not_come_back_ends_the_run_with_its_name() {
    let scene = Scene::new(1, 1);
    let (fleet, worker) = (scene.fleet.clone(), name("w-1"));
    let listener = Listener(move |event: &Event| {
        if matches!(event.kind, EventKind::StepFinished { .. }) {
            fleet.power_off(&worker).unwrap();
        }
    });
    let context = scene
        .fleet
        .run_context("100-a", "ann@desk", Arc::new(listener))
        .unwrap();
    let ended = scene.install_reconnecting(&context, Duration::from_secs(4));
    let lost: Vec<_> = ended.errors.iter().filter_map(|e| e.node.clone()).collect();
    assert!(
        !lost.is_empty() && lost.iter().all(|node| node == &name("w-1")),
        "{:#?}",
        ended.errors
    );
    scene.fleet.power_on(&name("w-1")).unwrap();
    scene.must_work(&scene.install("200-b"), "after that");
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
fn another_bundle_completes_an_install_that_ended_before_the_pod_network() {
    let mut scene = Scene::new(3, 2);
    let (fleet, nodes) = (scene.fleet.clone(), scene.fleet.names());
    let listener = Listener(move |event: &Event| {
        if matches!(&event.kind, EventKind::StepStarted { step, .. } if step.as_str() == "apply-flannel") {
            nodes.iter().for_each(|node| fleet.kill(node));
        }
    });
    let first = scene.install_heard("100-a", Arc::new(listener));
    assert!(!first.errors.is_empty(), "the install was cut off");
    scene.bundle = scene.rebuilt_bundle();
    // No node is Ready before the pod network is there: containerd and the kubelet are restarted without waiting for that.
    scene.must_work(
        &scene.install_within("200-b", Duration::from_secs(120)),
        "another bundle",
    );
    assert_eq!(scene.install("300-c").changes, 0);
}

#[test]
fn another_bundle_of_the_same_version_is_installed_node_by_node_and_can_be_rolled_back() {
    let mut scene = Scene::new(3, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let (installed, seen) = (scene.fleet.trees().unwrap(), scene.seen());
    scene.bundle = scene.rebuilt_bundle();
    let said = Arc::new(Mutex::new(Vec::new()));
    let order = Arc::clone(&said);
    let listener = Listener(move |event: &Event| match &event.kind {
        EventKind::StepStarted { step, .. }
            if ["unit/kubelet/", "unit/landfall-api-balancer/"]
                .iter()
                .any(|unit| step.as_str().starts_with(unit)) =>
        {
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
