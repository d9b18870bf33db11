//! Tests of the model's laws: each is broken by hand, without landfall, and the model reports it.

use crate::scene::Scene;
use landfall_core::name::NodeName;
use landfall_engine::run::UndoCommand;
use landfall_test_support::cluster::Law;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn installed() -> Scene {
    let scene = Scene::new(3, 0);
    scene.must_work(&scene.install("100-a"), "install");
    scene
}

/// Asks the model as a machine's program does.
fn ask(scene: &Scene, node: &str, words: &[&str]) -> String {
    let program = scene.fleet.machine(&name(node)).unwrap().at("sim/ask");
    let output = Command::new(program).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Removes a member of etcd by its own tool.
fn remove_member(scene: &Scene, index: usize) {
    let etcdctl = ["exec", "etcd-of-cp-1", "etcdctl", "member"];
    let list = ask(scene, "cp-1", &[&etcdctl[..], &["list"]].concat());
    let members: serde_json::Value = serde_json::from_str(&list).unwrap();
    let id = format!("{:x}", members["members"][index]["ID"].as_u64().unwrap());
    ask(scene, "cp-1", &[&etcdctl[..], &["remove", &id]].concat());
}

fn must_be_seen(scene: &Scene, law: Law, what: &str) {
    let seen = scene.fleet.world().violations();
    assert!(
        seen.iter().any(|v| v.law == law && v.what == what),
        "{law:?}, {what}: {seen:#?}"
    );
}

#[test]
fn a_second_founding_is_seen() {
    let scene = installed();
    ask(&scene, "cp-2", &["found"]);
    must_be_seen(&scene, Law::Founding, "cp-2 founds one while cp-1, cp-2, cp-3 have one");
}

#[test]
fn a_founding_by_a_founder_that_lost_its_data_is_seen() {
    let scene = Scene::new(1, 0);
    scene.must_work(&scene.install("100-a"), "install");
    std::fs::remove_dir_all(scene.fleet.machine(&name("cp-1")).unwrap().at("var/lib/etcd")).unwrap();
    ask(&scene, "cp-1", &["found"]);
    must_be_seen(&scene, Law::Founding, "cp-1 founds one while cp-1 have one");
}

#[test]
fn two_joins_of_etcd_at_once_are_seen() {
    let scene = installed();
    remove_member(&scene, 2);
    ask(&scene, "cp-3", &["etcd-add"]);
    ask(&scene, "cp-2", &["etcd-add"]);
    must_be_seen(&scene, Law::Joins, "cp-2 joins while cp-3 has not joined yet");
}

#[test]
fn the_removal_of_a_healthy_member_is_seen() {
    let scene = installed();
    remove_member(&scene, 2);
    must_be_seen(&scene, Law::Ours, "the healthy etcd member cp-3 was removed");
}

#[test]
fn a_change_of_what_is_not_ours_is_seen() {
    let scene = installed();
    let machine = scene.fleet.machine(&name("cp-2")).unwrap();
    std::fs::remove_file(machine.at("var/lib/other/data")).unwrap();
    must_be_seen(&scene, Law::Ours, "var/lib/other/data on cp-2 is not as it was");
}

#[test]
fn a_lost_quorum_is_seen() {
    let scene = installed();
    for node in ["cp-2", "cp-3"] {
        let machine = scene.fleet.machine(&name(node)).unwrap();
        std::fs::remove_file(machine.at("etc/kubernetes/manifests/etcd.yaml")).unwrap();
    }
    must_be_seen(&scene, Law::Quorum, "1 of 3 members are healthy");
}

#[test]
fn an_act_without_its_intent_is_seen() {
    let scene = installed();
    remove_member(&scene, 2);
    for (word, what) in [
        ("authority", "cp-3 does a certificate authority without one"),
        ("credential", "cp-3 does a join credential without one"),
        ("found", "cp-3 does a founding without one"),
        ("etcd-add", "cp-3 does a join of etcd without one"),
        ("join-kubelet", "cp-3 does a join without one"),
        ("mark-control-plane", "cp-3 does a marking without one"),
    ] {
        ask(&scene, "cp-3", &[word]);
        must_be_seen(&scene, Law::Intent, what);
    }
    ask(&scene, "cp-3", &["point", "import"]);
    must_be_seen(&scene, Law::Intent, "cp-3 does an import without one");
    must_be_seen(&scene, Law::Intent, "an etcd member was removed without one");
}

/// Seen in the sweep on a busy machine: one of three kubelets still ran when somebody looked.
#[test]
fn a_cluster_that_is_uninstalled_has_no_quorum_to_keep() {
    let scene = installed();
    let is_over = AtomicBool::new(false);
    let outcome = std::thread::scope(|threads| {
        threads.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                scene.fleet.world().violations();
            }
        });
        let outcome = scene.undo("200-b", UndoCommand::Uninstall);
        is_over.store(true, Ordering::SeqCst);
        outcome
    });
    scene.must_work(&outcome, "uninstall");
}
