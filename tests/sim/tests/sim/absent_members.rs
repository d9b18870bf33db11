//! Members that the inventory lacks, machines of an earlier cluster among those of a new one, and founders that are gone: no command may found a second
//! cluster over a healthy one, or take a healthy one away by halves.

use crate::journal::plant_old_journals;
use crate::scene::{Scene, null_sink};
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, ExitCode};
use landfall_core::inventory::Role;
use landfall_core::name::NodeName;
use landfall_core::plan::key::StepKind;
use landfall_engine::limit::Limit;
use landfall_engine::run::{self, OnFailure, Outcome, UndoCommand};
use landfall_test_support::cluster::When;

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// Takes machines out of the inventory.
fn unlist(scene: &mut Scene, names: &[&str]) {
    scene
        .desired
        .inventory
        .nodes
        .retain(|node| !names.contains(&node.name.as_str()));
}

fn text(outcome: &Outcome) -> String {
    format!("{:?} {:?}", outcome.errors, outcome.absent)
}

/// Journals of version 1 name the founder nowhere but in the founder's own journal.
#[test]
fn without_the_founder_of_an_old_cluster_nothing_is_founded() {
    let mut scene = Scene::new(3, 1);
    plant_old_journals(&scene, "whole");
    let before = scene.fleet.trees().unwrap();
    unlist(&mut scene, &["cp-1", "cp-3"]);
    let refused = scene.install("100-a");
    assert_eq!(
        (refused.exit_code(), refused.changes),
        (ExitCode::PreflightRefused, 0),
        "{:#?}",
        refused.errors
    );
    assert!(text(&refused).contains("founded"), "{}", text(&refused));
    let context = scene.fleet.run_context("200-b", "ann@desk", null_sink()).unwrap();
    let seen = run::preflight(&scene.desired, Some(&scene.bundle), Default::default(), &context);
    scene.fleet.settle().unwrap();
    assert!(text(&seen).contains("founded"), "{}", text(&seen));
    for (node, tree) in scene.fleet.trees().unwrap() {
        let differences = tree
            .without(&["var/lib/landfall/bin"])
            .differences(&before[&node].without(&["var/lib/landfall/bin"]));
        assert!(differences.is_empty(), "{node}: {differences:#?}");
    }
}

#[test]
fn a_rollback_of_later_members_needs_the_founder_in_the_inventory() {
    let mut scene = Scene::grown();
    let all = scene.desired.clone();
    unlist(&mut scene, &["cp-1"]);
    let members = scene.seen().members;
    let refused = scene.undo("300-c", UndoCommand::Rollback);
    assert_eq!(
        (refused.exit_code(), refused.changes),
        (ExitCode::Unreachable, 0),
        "{refused:#?}"
    );
    assert!(text(&refused).contains("cp-1"), "{}", text(&refused));
    assert_eq!(scene.seen().members, members);
    scene.desired = all;
    ["cp-2", "cp-3"]
        .iter()
        .for_each(|name| scene.fleet.world().may_leave(name));
    scene.must_work(&scene.undo("400-d", UndoCommand::Rollback), "with the founder");
    assert_eq!(scene.seen().members.len(), 1);
}

#[test]
fn looking_names_members_that_the_inventory_lacks() {
    let mut scene = Scene::new(3, 1);
    scene.must_work(&scene.install("100-a"), "install");
    for looked in [scene.status("200-b"), scene.verify("300-c")] {
        assert_eq!(looked.warnings, [] as [String; 0]);
    }
    unlist(&mut scene, &["cp-3", "w-1"]);
    for looked in [scene.status("400-d"), scene.verify("500-e")] {
        assert_eq!(looked.warnings.len(), 2, "{:?}", looked.warnings);
        for (warning, named) in looked.warnings.iter().zip(["cp-3 at 10.20.0.3", "w-1 at 10.20.1.1"]) {
            assert!(warning.starts_with(named), "{warning}");
        }
    }
}

/// A control plane that is not listed may hold entries of the run: the rollback stays open until it was there. A worker keeps nobody waiting.
#[test]
fn a_rollback_stays_open_for_a_control_plane_that_is_not_listed_and_ends_without_a_worker() {
    for (unlisted, open) in [("cp-3", true), ("w-2", false)] {
        let mut scene = Scene::new(3, 2);
        scene.must_work(&scene.install("100-a"), "install");
        let all = scene.desired.clone();
        scene.set("ingress: {accessLog: json}\n");
        scene.must_work(&scene.install("200-b"), "a changed setting");
        scene.desired = all.clone();
        unlist(&mut scene, &[unlisted]);
        let first = scene.undo("300-c", UndoCommand::Rollback);
        assert_eq!(first.exit_code(), ExitCode::Unreachable, "{first:#?}");
        assert!(first.changes > 0 && text(&first).contains(unlisted), "{}", text(&first));
        scene.desired = all;
        let next = scene.install("400-d");
        if open {
            assert_eq!(
                next.exit_code(),
                ExitCode::PreflightRefused,
                "the rollback has not finished"
            );
            scene.must_work(&scene.undo("500-e", UndoCommand::Rollback), "with all");
        }
        let last = scene.install("600-f");
        scene.must_work(&last, "install as at first");
        assert_eq!(last.changes, 0, "{unlisted}");
    }
}

/// Two control planes die while they join, and the user goes back to the one that stands.
#[test]
fn a_growth_that_failed_is_rolled_back_without_the_machines_that_died() {
    let mut scene = Scene::new(3, 0);
    let all = scene.desired.clone();
    scene.desired.inventory.nodes.truncate(1);
    scene.must_work(&scene.install("100-a"), "one control plane");
    scene.desired = all;
    let fleet = scene.fleet.clone();
    scene
        .fleet
        .world()
        .at_point(&name("cp-2"), "join-kubelet", When::Before, move || {
            ["cp-2", "cp-3"].iter().for_each(|node| fleet.kill(&name(node)));
        });
    let failed = scene.install("200-b");
    assert!(!failed.errors.is_empty(), "the joins were cut off");
    for lost in ["cp-2", "cp-3"] {
        scene.fleet.set_unreachable(&name(lost), true);
    }
    let undone = scene.undo("300-c", UndoCommand::Rollback);
    assert_eq!(undone.exit_code(), ExitCode::Unreachable, "{undone:#?}");
    assert!(undone.errors.is_empty(), "{:#?}", undone.errors);
    for back in ["cp-2", "cp-3"] {
        scene.fleet.set_unreachable(&name(back), false);
        scene.fleet.world().may_leave(back);
    }
    scene.must_work(&scene.undo("400-d", UndoCommand::Rollback), "with all");
    assert_eq!(scene.seen().members.len(), 1);
    scene.desired.inventory.nodes.truncate(1);
    let last = scene.install("500-e");
    scene.must_work(&last, "install as at first");
    assert_eq!(last.changes, 0, "{:#?}", last.plan);
}

#[test]
fn a_rollback_needs_a_majority_of_the_control_planes() {
    let mut scene = Scene::new(3, 0);
    scene.must_work(&scene.install("100-a"), "install");
    scene.set("ingress: {accessLog: json}\n");
    scene.must_work(&scene.install("200-b"), "a changed setting");
    for lost in ["cp-2", "cp-3"] {
        scene.fleet.set_unreachable(&name(lost), true);
    }
    let refused = scene.undo("300-c", UndoCommand::Rollback);
    assert_eq!(refused.changes, 0, "{refused:#?}");
    assert!(
        text(&refused).contains("2 of 3 control planes are needed"),
        "{}",
        text(&refused)
    );
    for back in ["cp-2", "cp-3"] {
        scene.fleet.set_unreachable(&name(back), false);
    }
    let undone = scene.undo("400-d", UndoCommand::Rollback);
    scene.must_work(&undone, "with all");
    assert_eq!(undone.runs.iter().map(|run| run.number).collect::<Vec<_>>(), [2]);
}

/// The founder was off during the second run. Alone it takes the founding for the newest run.
#[test]
fn a_founder_that_missed_a_run_does_not_roll_back_the_founding() {
    let mut scene = Scene::new(3, 1);
    scene.must_work(&scene.install("100-a"), "install");
    for missed in ["cp-1", "w-1"] {
        scene.fleet.set_unreachable(&name(missed), true);
    }
    scene.set("ingress: {accessLog: json}\n");
    let second = scene.install("200-b");
    assert!(second.changes > 0, "{second:#?}");
    for (alone, others) in [("cp-1", ["cp-2", "cp-3", "w-1"]), ("w-1", ["cp-1", "cp-2", "cp-3"])] {
        let set_others = |unreachable| {
            for other in others {
                scene.fleet.set_unreachable(&name(other), unreachable);
            }
        };
        set_others(true);
        scene.fleet.set_unreachable(&name(alone), false);
        let refused = scene.undo(&format!("300-{alone}"), UndoCommand::Rollback);
        assert_eq!(refused.changes, 0, "{refused:#?}");
        assert!(
            text(&refused).contains("2 of 3 control planes are needed"),
            "{}",
            text(&refused)
        );
        set_others(false);
    }
    let undone = scene.undo("400-d", UndoCommand::Rollback);
    scene.must_work(&undone, "with all");
    assert_eq!(undone.runs.iter().map(|run| run.number).collect::<Vec<_>>(), [2]);
}

/// The founder alone has the journal of the founding. Without it a failed run must not be taken for the one that founded the cluster.
#[test]
fn a_failed_run_is_rolled_back_in_the_cluster_also_without_the_founder() {
    let mut scene = Scene::grown();
    let before = (scene.seen(), scene.corefile("cp-2"));
    scene.fleet.set_unreachable(&name("cp-1"), true);
    scene.set("upstreamDns: [10.20.9.9]\ningress: {accessLog: json}\n");
    // ^C when the first of two groups of objects was changed.
    let dns = StepKind::Apply.part_of_cluster("dns");
    let context = scene.context_cancelled(
        "300-c",
        move |event| matches!(&event.kind, EventKind::StepFinished { step, .. } if *step == dns),
    );
    let failed = scene.install_in(&context, OnFailure::Rollback);
    assert!(failed.rolled_back && failed.changes > 0, "{failed:#?}");
    let after = (scene.seen(), scene.corefile("cp-2"));
    assert_eq!(after, before, "the objects are as before");
    scene.must_be_lawful("rolled back");
}

/// w-1 was off while its cluster was uninstalled, and comes back among the machines of a new cluster.
fn with_a_machine_of_an_earlier_cluster() -> Scene {
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let all = scene.desired.clone();
    scene.fleet.power_off(&name("w-1")).unwrap();
    let uninstalled = scene.undo("200-b", UndoCommand::Uninstall);
    assert_eq!(uninstalled.exit_code(), ExitCode::Unreachable);
    unlist(&mut scene, &["w-1"]);
    for node in &mut scene.desired.inventory.nodes {
        node.schedulable |= node.role == Role::ControlPlane;
    }
    scene.must_work(&scene.install("300-c"), "a new cluster without it");
    scene.fleet.power_on(&name("w-1")).unwrap();
    scene.desired = all;
    scene
}

fn uninstall_on(scene: &Scene, run: &str, node: &str) -> Outcome {
    let mut context = scene.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
    context.limit = Limit::to([name(node)].into());
    scene.undo_in(&context, UndoCommand::Uninstall)
}

#[test]
fn an_uninstall_refuses_machines_of_several_clusters_and_takes_the_left_one_by_limit() {
    let scene = with_a_machine_of_an_earlier_cluster();
    let seen = scene.seen();
    let refused = scene.undo("400-d", UndoCommand::Uninstall);
    assert_eq!(
        (refused.exit_code(), refused.changes),
        (ExitCode::PreflightRefused, 0),
        "{refused:#?}"
    );
    assert!(text(&refused).contains("--limit w-1"), "{}", text(&refused));
    // The way that install names.
    let advice = scene.install("600-f");
    assert!(
        text(&advice).contains("landfall uninstall --limit w-1"),
        "{}",
        text(&advice)
    );
    scene.must_work(
        &uninstall_on(&scene, "700-g", "w-1"),
        "what was left of the earlier cluster",
    );
    let differences = scene.fleet.differences(&scene.before, &[]).unwrap();
    assert!(differences.iter().all(|line| !line.contains("w-1")), "{differences:#?}");
    assert_eq!(scene.seen(), seen, "the new cluster stands");
    scene.must_work(&scene.install("800-h"), "w-1 joins the new cluster");
    assert!(scene.seen().nodes["w-1"].1);
}

#[test]
fn an_uninstall_takes_no_single_member_of_a_cluster_that_lives() {
    let scene = Scene::new(3, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let installed = scene.fleet.trees().unwrap();
    for (run, node) in [("200-b", "w-1"), ("300-c", "cp-1")] {
        let refused = uninstall_on(&scene, run, node);
        assert_eq!(
            (refused.exit_code(), refused.changes, refused.errors[0].code),
            (ExitCode::PreflightRefused, 0, Code::Preflight),
            "{refused:#?}"
        );
    }
    // What is not seen may still be a member.
    for lost in ["cp-1", "cp-2", "cp-3"] {
        scene.fleet.set_unreachable(&name(lost), true);
    }
    let refused = uninstall_on(&scene, "400-d", "w-1");
    assert_eq!((refused.changes, refused.errors.len()), (0, 1), "{refused:#?}");
    assert!(
        format!("{:?}", refused.errors).contains("not known: cp-1"),
        "{:#?}",
        refused.errors
    );
    let differences = scene.fleet.differences(&installed, &[]).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
}

/// An interrupted founding knows its founders; one that the inventory lacks may have begun.
#[test]
fn an_unfinished_founding_is_not_continued_without_a_founder() {
    let mut scene = Scene::new(3, 0);
    let fleet = scene.fleet.clone();
    scene
        .fleet
        .world()
        .at_point(&name("cp-2"), "found", When::After, move || fleet.kill(&name("cp-2")));
    let first = scene.install("100-a");
    assert!(!first.errors.is_empty(), "the founding was cut off");
    unlist(&mut scene, &["cp-1", "cp-3"]);
    let refused = scene.install("200-b");
    assert_eq!(
        (refused.exit_code(), refused.changes),
        (ExitCode::Unreachable, 0),
        "{:#?}",
        refused.errors
    );
    scene.must_be_lawful("nobody founds");
}
