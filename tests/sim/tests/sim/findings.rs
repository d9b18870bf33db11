//! Regression tests, one for each finding of a review by its number (A1, A2, …).

use crate::scene::{Scene, null_sink};
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, ExitCode};
use landfall_core::inventory::Role;
use landfall_core::journal::{EntryState, Record, parse_journal, render_line};
use landfall_core::layout;
use landfall_core::name::{Digest, NodeName};
use landfall_core::plan::key::StepKind;
use landfall_engine::run::{OnFailure, Outcome, UndoCommand};
use landfall_test_support::cluster::When;
use std::collections::BTreeSet;
use std::time::Duration;

/// Longest time of an install that would wait for ever; then the test cancels it like ^C.
const PATIENCE: Duration = Duration::from_secs(20);

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn codes(outcome: &Outcome) -> Vec<Code> {
    outcome.errors.iter().map(|e| e.code).collect()
}

/// Fails unless an install was refused before its first change, for a reason that its text names.
fn must_be_refused(outcome: &Outcome, reason: &str) {
    assert_eq!(outcome.exit_code(), ExitCode::PreflightRefused, "{:#?}", outcome.errors);
    assert_eq!(outcome.changes, 0);
    let text = format!("{:?}", outcome.errors);
    assert!(text.contains(reason), "{reason}: {text}");
}

#[test]
fn a1_a_run_that_fails_before_its_first_record_undoes_nothing() {
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let (installed, seen) = (scene.fleet.trees().unwrap(), scene.seen());
    scene.set("upstreamDns: [10.20.9.9]\n");
    // ^C while the plan is made.
    let context = scene.context_cancelled("200-b", |event| matches!(event.kind, EventKind::PhaseStarted { .. }));
    let second = scene.install_in(&context, OnFailure::Rollback);
    assert!(second.interrupted || !second.errors.is_empty(), "it was interrupted");
    assert_eq!(scene.seen(), seen, "the cluster stands");
    let differences = scene.fleet.differences(&installed, &["var/lib/landfall"]).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
    for node in scene.fleet.names() {
        let own = scene.journal_as_found(&node);
        assert!(own.entries.iter().all(|e| e.state == EntryState::Owned), "{node}");
    }
    scene.must_be_lawful("a1");
}

#[test]
fn a2_the_order_of_an_inventory_means_nothing() {
    let mut scene = Scene::new(3, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let seen = scene.seen();
    scene.desired.inventory.nodes.rotate_left(1);
    let again = scene.install_within("200-b", PATIENCE);
    scene.must_work(&again, "install with another order");
    assert_eq!(again.changes, 0, "{:#?}", again.plan);
    assert_eq!(scene.seen(), seen);
}

#[test]
fn a2_a_founder_that_the_inventory_lacks_stays_founder_and_member() {
    let mut scene = Scene::new(3, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let seen = scene.seen();
    scene.desired.inventory.nodes.retain(|n| n.name.as_str() != "cp-1");
    let again = scene.install_within("200-b", PATIENCE);
    assert_eq!(again.changes, 0, "{:#?} {:#?}", again.plan, again.errors);
    scene.must_be_lawful("cp-1 left out");
    assert_eq!(scene.seen(), seen);
    assert_eq!(again.exit_code(), ExitCode::Unreachable, "{:#?}", again.errors);
    let text = format!("{:?} {:?}", again.absent, again.errors);
    assert!(text.contains("cp-1"), "it is named: {text}");
}

/// Rewrites the journals as a landfall whose recipe of the one-shot steps was another one left them: with other claims, addresses or names in their
/// actions. Returns the steps that were rewritten.
fn record_one_shot_steps_otherwise(scene: &Scene) -> BTreeSet<String> {
    let once = [
        StepKind::Certificates,
        StepKind::Init,
        StepKind::JoinKubelet,
        StepKind::JoinWorker,
        StepKind::JoinControlPlane,
        StepKind::FinishControlPlane,
    ];
    let mut rewritten = BTreeSet::new();
    for node in scene.fleet.names() {
        let path = scene.fleet.machine(&node).unwrap().journal();
        let mut records = parse_journal(&std::fs::read(&path).unwrap()).unwrap();
        for record in &mut records {
            if let Record::Intent { step, action, .. } = record
                && once.iter().any(|kind| kind.is_kind_of(step))
            {
                *action = Digest::of(format!("{action} with another claim").as_bytes());
                rewritten.insert(step.to_string());
            }
        }
        let text: String = records.iter().map(render_line).collect();
        std::fs::write(path, text).unwrap();
    }
    rewritten
}

#[test]
fn a3_one_shot_steps_are_judged_by_their_goal_and_repeated_by_no_other_recipe() {
    let scene = founded_by_one(1);
    scene.must_work(&scene.install("100-a"), "install");
    let seen = scene.seen();
    let rewritten: Vec<String> = record_one_shot_steps_otherwise(&scene).into_iter().collect();
    let all = [
        "certificates/cp-1",
        "finish-control-plane/cp-2",
        "finish-control-plane/cp-3",
        "init/cp-1",
        "join-control-plane/cp-2",
        "join-control-plane/cp-3",
        "join-kubelet/cp-2",
        "join-kubelet/cp-3",
        "join-worker/w-1",
    ];
    assert_eq!(rewritten, all);
    let again = scene.install_within("200-b", PATIENCE);
    scene.must_work(&again, "install by another recipe");
    assert_eq!(again.changes, 0, "{:#?}", again.plan);
    assert_eq!(scene.seen(), seen);
    let undone = scene.undo("300-c", UndoCommand::Uninstall);
    scene.must_work(&undone, "uninstall");
    scene.must_be_as_before("uninstall");
}

#[test]
fn a4_a_bundle_of_another_kubernetes_version_is_refused() {
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let installed = scene.fleet.trees().unwrap();
    for version in ["v1.38.0", "v1.36.3"] {
        scene.bundle = scene.other_bundle(version);
        must_be_refused(&scene.install_within("200-b", PATIENCE), version);
    }
    let differences = scene.fleet.differences(&installed, &[]).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn a5_what_kubeadm_took_once_may_not_be_changed() {
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let installed = scene.fleet.trees().unwrap();
    for (setting, value) in [
        ("podNetworkCidr", "10.150.0.0/16"),
        ("serviceCidr", "10.160.0.0/16"),
        ("clusterDomain", "other.local"),
        ("controlPlaneEndpoint", "other.landfall.internal"),
    ] {
        scene.set(&format!("{setting}: {value}\n"));
        must_be_refused(&scene.install_within("200-b", PATIENCE), value);
    }
    let differences = scene.fleet.differences(&installed, &[]).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
}

/// Names the machines that hold the credential by which nodes join.
fn holders_of_credential(scene: &Scene) -> Vec<String> {
    let nodes = scene.fleet.names().into_iter();
    let holds = |node: &NodeName| {
        let machine = scene.fleet.machine(node).unwrap();
        machine.at(layout::JOIN_KUBECONFIG).exists()
    };
    nodes.filter(holds).map(|node| node.to_string()).collect()
}

#[test]
fn a6_a_worker_whose_join_failed_joins_two_hours_later() {
    let scene = Scene::new(1, 1);
    let fleet = scene.fleet.clone();
    let worker = name("w-1");
    let killed = worker.clone();
    scene
        .fleet
        .world()
        .at_point(&worker, "join-kubelet", When::Before, move || fleet.kill(&killed));
    let first = scene.install_within("100-a", PATIENCE);
    assert!(!first.errors.is_empty(), "the join was cut off");
    assert_eq!(
        holders_of_credential(&scene),
        ["w-1"],
        "only the machine that was killed could not remove it"
    );
    scene.fleet.world().pass(2 * 3600);
    scene.must_work(&scene.install_within("200-b", PATIENCE), "two hours later");
    assert!(scene.seen().nodes["w-1"].1);
    assert_eq!(holders_of_credential(&scene), [""; 0]);
}

/// The cluster's clock passes the end of the credential, and kubeadm fails; everything else is kept.
#[test]
fn a6_a_credential_is_gone_from_every_node_when_a_failed_install_ends() {
    for on_failure in [OnFailure::Keep, OnFailure::Rollback] {
        let scene = Scene::new(3, 2);
        let world = scene.fleet.world().clone();
        scene
            .fleet
            .world()
            .at_point(&name("w-2"), "join-kubelet", When::Before, move || world.pass(2 * 3600));
        let context = scene.fleet.run_context("100-a", "ann@desk", null_sink()).unwrap();
        let failed = scene.within(&context, PATIENCE, || scene.install_in(&context, on_failure));
        let text = format!("{:#?}", failed.errors);
        assert!(text.contains("Unauthorized") && text.contains("w-2"), "{text}");
        assert_eq!(holders_of_credential(&scene), [""; 0], "{on_failure:?}");
        assert_eq!(failed.rolled_back, on_failure == OnFailure::Rollback, "{text}");
        let kept = scene.journal_as_found(&name("w-2")).entries.len();
        assert_eq!(kept > 0, on_failure == OnFailure::Keep);
        scene.must_work(&scene.install_within("200-b", PATIENCE), "once more");
        assert_eq!(holders_of_credential(&scene), [""; 0]);
    }
}

#[test]
fn a8_the_newest_run_is_not_the_one_with_the_fastest_clock() {
    let mut scene = Scene::new(1, 1);
    // The first operator's clock is a day ahead: run ids begin with it.
    scene.must_work(&scene.install("1795300000-aaaaaaaa"), "install");
    let seen = scene.seen();
    scene.set("upstreamDns: [10.20.9.9]\n");
    let second = scene.install("1795213600-bbbbbbbb");
    scene.must_work(&second, "a changed setting");
    let undone = scene.undo("1795213700-cccccccc", UndoCommand::Rollback);
    scene.must_work(&undone, "rollback");
    assert_eq!(undone.changes, second.changes, "the newest run alone");
    assert_eq!(scene.seen(), seen, "the cluster stands");
}

/// A cluster of one control plane, which two others and so many workers are about to join.
fn founded_by_one(workers: u8) -> Scene {
    let mut scene = Scene::new(3, workers);
    let all = scene.desired.clone();
    scene.desired.inventory.nodes.retain(|node| node.name == name("cp-1"));
    // Alone it takes the pods of the cluster's own workloads.
    scene.desired.inventory.nodes[0].schedulable = true;
    scene.must_work(&scene.install("050-one"), "one control plane");
    scene.desired = all;
    scene
}

#[test]
fn a9_a_half_joined_member_is_no_nothing_when_etcd_cannot_be_asked() {
    let scene = founded_by_one(0);
    let (fleet, joining) = (scene.fleet.clone(), name("cp-2"));
    let killed = joining.clone();
    scene
        .fleet
        .world()
        .at_point(&joining, "etcd-promote", When::After, move || fleet.kill(&killed));
    let first = scene.install_within("100-a", PATIENCE);
    assert!(!first.errors.is_empty(), "the join was cut off");
    let members = scene.seen().members.len();
    scene.fleet.world().stop_etcd(&name("cp-1"), true).unwrap();
    let again = scene.install_within("200-b", PATIENCE);
    assert!(!again.errors.is_empty(), "nobody could be asked");
    let data = scene.fleet.machine(&joining).unwrap().at("var/lib/etcd/member/id");
    assert!(
        data.exists(),
        "the member's data stays while nobody knows whether it counts: {:#?}",
        again.errors
    );
    assert_eq!(scene.seen().members.len(), members);
    scene.fleet.world().stop_etcd(&name("cp-1"), false).unwrap();
    scene.must_work(&scene.install("300-c"), "when etcd answers again");
}

#[test]
fn a13_a_node_of_an_older_cluster_of_the_same_name_is_refused() {
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let all = scene.desired.clone();
    scene.fleet.power_off(&name("w-1")).unwrap();
    let uninstalled = scene.undo("200-b", UndoCommand::Uninstall);
    assert_eq!(uninstalled.exit_code(), ExitCode::Unreachable);
    scene.desired.inventory.nodes.retain(|n| n.name.as_str() != "w-1");
    for node in &mut scene.desired.inventory.nodes {
        node.schedulable |= node.role == Role::ControlPlane;
    }
    scene.must_work(&scene.install("300-c"), "a new cluster without it");
    let seen = scene.seen();
    scene.fleet.power_on(&name("w-1")).unwrap();
    scene.desired = all;
    let again = scene.install_within("400-d", PATIENCE);
    assert_eq!(again.changes, 0);
    assert_eq!(again.exit_code(), ExitCode::PreflightRefused, "{:#?}", again.errors);
    // Each of the two clusters with its machine and the command for it.
    assert_eq!(codes(&again), [Code::Preflight, Code::Preflight]);
    for error in &again.errors {
        let node = error.node.as_ref().unwrap();
        assert!(
            error.next[0].starts_with(&format!("landfall uninstall --limit {node}: removes")),
            "{error:#?}"
        );
    }
    assert_eq!(scene.seen(), seen);
}

#[test]
fn a22_uninstall_of_a_part_is_refused_and_everything_stands() {
    let mut scene = Scene::new(3, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let (installed, seen) = (scene.fleet.trees().unwrap(), scene.seen());
    let all = scene.desired.clone();
    scene.desired.inventory.nodes.retain(|n| n.name.as_str() == "cp-3");
    let refused = scene.undo("200-b", UndoCommand::Uninstall);
    assert_eq!(refused.exit_code(), ExitCode::PreflightRefused, "{:#?}", refused.errors);
    assert_eq!((codes(&refused), refused.changes), (vec![Code::Preflight], 0));
    let text = format!("{:?}", refused.errors);
    assert!(["cp-1", "cp-2", "w-1"].iter().all(|node| text.contains(node)), "{text}");
    assert_eq!(scene.seen(), seen);
    let differences = scene.fleet.differences(&installed, &[]).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
    scene.must_be_lawful("a22");
    scene.desired = all;
    scene.must_work(&scene.undo("300-c", UndoCommand::Uninstall), "uninstall of all");
    scene.must_be_as_before("uninstall of all");
}

#[test]
fn a47_a_sample_that_its_user_deleted_does_not_end_verify() {
    let scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let founder = name("cp-1");
    let world = scene.fleet.world();
    let namespace = ["default", "landfall-sample"]
        .into_iter()
        .find(|n| world.object(&founder, "services", n, "nginx").is_some())
        .unwrap();
    for resource in ["services", "apps/deployments", "networking.k8s.io/ingresses"] {
        world.delete_object(&founder, resource, namespace, "nginx").unwrap();
    }
    let outcome = scene.verify("200-b");
    assert!(outcome.errors.is_empty(), "{:#?}", outcome.errors);
    let cells = outcome.verify.unwrap().cells;
    assert!(
        cells.iter().any(|c| c.target.starts_with("dns/")),
        "the rest is looked at"
    );
}

/// Seen once when A9 ran on a busy machine: kubeadm had written its manifests, and etcd's quorum was gone when it came to the join.
#[test]
fn a_join_that_etcd_refused_is_repeated_whole() {
    let scene = founded_by_one(0);
    let world = scene.fleet.world().clone();
    scene
        .fleet
        .world()
        .at_point(&name("cp-2"), "etcd-add", When::Before, move || {
            world.stop_etcd(&name("cp-1"), true).unwrap();
        });
    let first = scene.install_within("100-a", PATIENCE);
    assert!(!first.errors.is_empty(), "etcd refused");
    let second = scene.install_within("200-b", PATIENCE);
    assert!(!second.errors.is_empty(), "etcd is still down");
    scene.fleet.world().stop_etcd(&name("cp-1"), false).unwrap();
    scene.must_work(&scene.install("300-c"), "when etcd answers again");
}
