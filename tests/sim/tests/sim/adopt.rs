//! Clusters whose journals have no record, as landfall wrote them before records were: the first install makes one from what the cluster says, and repeats
//! nothing; where it is unclear what belongs together, it refuses.

use crate::scene::{Listener, Scene};
use landfall_core::event::{Event, EventKind};
use landfall_core::explain::{Code, ExitCode};
use landfall_core::name::NodeName;
use landfall_core::plan::key::{StepKind, is_membership};
use landfall_engine::run::{Outcome, UndoCommand};
use std::sync::{Arc, Mutex};

const AUTHORITY: &str = "etc/kubernetes/pki/ca.crt";

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// A cluster that cp-1 founded and others joined, whose journals have no record.
fn without_record() -> Scene {
    let mut scene = Scene::new(3, 1);
    let all = scene.desired.clone();
    scene
        .desired
        .inventory
        .nodes
        .retain(|node| ["cp-1", "w-1"].contains(&node.name.as_str()));
    scene.must_work(&scene.install("100-a"), "one control plane");
    scene.desired = all;
    scene.must_work(&scene.install("200-b"), "three control planes");
    forget_record(&scene);
    scene
}

fn forget_record(scene: &Scene) {
    for node in scene.fleet.names() {
        let journal = scene.fleet.machine(&node).unwrap().journal();
        let text = std::fs::read_to_string(&journal).unwrap();
        let others = text.lines().filter(|line| !line.contains(r#"{"record":"cluster""#));
        let others: String = others.map(|line| format!("{line}\n")).collect();
        assert!(others.len() < text.len(), "{node} had a record");
        std::fs::write(&journal, others).unwrap();
        assert!(scene.journal(&node).1.record().is_none());
    }
}

/// Installs and returns the outcome with the steps that acted.
fn install_heard(scene: &Scene, run: &str) -> (Outcome, Vec<String>) {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&steps);
    let listener = Listener(move |event: &Event| {
        if let EventKind::StepStarted { step, .. } = &event.kind {
            heard.lock().unwrap().push(step.to_string());
        }
    });
    let outcome = scene.install_heard(run, Arc::new(listener));
    let steps = steps.lock().unwrap().clone();
    (outcome, steps)
}

#[test]
fn the_first_install_writes_the_record_and_repeats_nothing() {
    let scene = without_record();
    let seen = scene.seen();
    let (first, steps) = install_heard(&scene, "300-c");
    scene.must_work(&first, "the first install");
    let one_shot = |step: &&String| {
        let step = step.parse().unwrap();
        is_membership(&step) || StepKind::JoinControlPlane.is_kind_of(&step) || StepKind::Certificates.is_kind_of(&step)
    };
    let repeated: Vec<&String> = steps.iter().filter(one_shot).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
    assert_eq!(scene.seen(), seen, "the cluster is as it was");
    for node in scene.fleet.names() {
        let (_, own) = scene.journal(&node);
        let record = own.record().unwrap();
        assert_eq!(record.founder(), Some(&name("cp-1")), "{node}");
        assert!(record.formed && record.ca.is_some(), "{node}");
        assert_eq!(record.members.len(), 4, "{node}");
    }
    let again = scene.install("400-d");
    assert_eq!(
        (again.changes, again.exit_code()),
        (0, ExitCode::Done),
        "{:#?}",
        again.errors
    );
    scene.must_be_lawful("taken on");
}

#[test]
fn the_install_that_wrote_the_record_can_be_rolled_back_alone() {
    let mut scene = without_record();
    let before = (scene.seen(), scene.corefile("cp-1"));
    scene.set("upstreamDns: [10.20.9.9]\n");
    scene.must_work(&scene.install("300-c"), "a changed setting");
    assert!(scene.corefile("cp-1").contains("10.20.9.9"));
    let undone = scene.undo("400-d", UndoCommand::Rollback);
    scene.must_work(&undone, "rollback");
    assert_eq!(undone.runs.iter().map(|run| run.number).collect::<Vec<_>>(), [3]);
    let after = (scene.seen(), scene.corefile("cp-1"));
    assert_eq!(after, before, "the cluster stands, with its earlier setting");
    scene.set("");
    scene.must_work(&scene.install("500-e"), "install after the rollback");
    scene.must_work(&scene.undo("600-f", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

/// Fails unless an install changes nothing and says why.
fn must_be_refused(scene: &Scene, run: &str, why: &str) {
    let before = scene.fleet.trees().unwrap();
    let refused = scene.install(run);
    assert_eq!(
        (refused.changes, refused.exit_code(), refused.errors[0].code),
        (0, ExitCode::PreflightRefused, Code::Preflight),
        "{refused:#?}"
    );
    let text = format!("{:?}", refused.errors);
    assert!(text.contains(why), "{why}: {text}");
    let differences = scene.fleet.differences(&before, &[]).unwrap();
    assert!(differences.is_empty(), "{why}: {differences:#?}");
}

#[test]
fn what_is_unclear_is_refused() {
    let scene = without_record();
    let machine = |node: &str| scene.fleet.machine(&name(node)).unwrap();
    let authority = std::fs::read(machine("cp-2").at(AUTHORITY)).unwrap();
    machine("cp-2").write(AUTHORITY, "another authority", 0o644).unwrap();
    must_be_refused(&scene, "300-c", "certificates of different authorities");
    std::fs::write(machine("cp-2").at(AUTHORITY), &authority).unwrap();
    for node in ["cp-1", "cp-2"] {
        scene.fleet.world().stop_etcd(&name(node), true).unwrap();
    }
    must_be_refused(&scene, "400-d", "its API has to answer");
    for node in ["cp-1", "cp-2"] {
        scene.fleet.world().stop_etcd(&name(node), false).unwrap();
    }
    scene.must_work(&scene.install("500-e"), "when all is clear");
}

/// Somebody removed a control plane's Node, and its etcd member still counts.
#[test]
fn an_etcd_member_without_a_node_is_unclear() {
    let scene = without_record();
    let world = scene.fleet.world();
    world.delete_object(&name("cp-1"), "nodes", "", "cp-3").unwrap();
    must_be_refused(
        &scene,
        "300-c",
        "etcd has other members than the cluster has control planes",
    );
}

/// Only a landfall that writes records founds on several nodes at once.
#[test]
fn several_founders_without_a_record_are_refused() {
    let scene = Scene::new(3, 0);
    scene.must_work(&scene.install("100-a"), "install");
    forget_record(&scene);
    must_be_refused(&scene, "200-b", "several nodes founded a cluster");
}

/// Without a record only the cluster itself knows which control planes it has.
#[test]
fn an_uninstall_without_a_record_leaves_no_control_plane_behind() {
    let mut scene = without_record();
    let all = scene.desired.clone();
    scene
        .desired
        .inventory
        .nodes
        .retain(|node| node.name.as_str() != "cp-3");
    let refused = scene.undo("300-c", UndoCommand::Uninstall);
    let said = format!("{:?}", refused.errors);
    assert!(said.contains("cp-3 at ") && refused.changes == 0, "{said}");
    scene.must_be_lawful("refused");
    // A cluster that is dead cannot be asked, and goes.
    for node in ["cp-1", "cp-2"] {
        scene.fleet.world().stop_etcd(&name(node), true).unwrap();
    }
    scene.fleet.set_unreachable(&name("cp-3"), true);
    scene.desired = all;
    let undone = scene.undo("400-d", UndoCommand::Uninstall);
    assert!(undone.changes > 0 && undone.errors.is_empty(), "{:#?}", undone.errors);
}
