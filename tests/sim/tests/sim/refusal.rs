//! Tests of installs that are refused, of `preflight`, and of commands on bare machines.

use crate::scene::{Listener, Scene, null_sink};
use landfall_core::event::{Event, EventKind};
use landfall_core::explain::{Code, ExitCode};
use landfall_core::finding::{Check, Finding, Severity, Strictness};
use landfall_engine::run::{self, InstallOptions, OnFailure, UndoCommand, Until};
use std::sync::Arc;

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
        machine("w-1")
            .write("etc/fstab", "/dev/sda2 none swap sw 0 0\n", 0o444)
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
    assert_eq!(outcome.errors.len(), 3, "all findings at once: {:#?}", outcome.errors);
    let text = format!("{:?}", outcome.errors);
    assert!(text.contains("/etc/fstab line 1"), "{text}");
    scene.must_be_as_before("refused install");
}

/// Runs preflight alone and returns what it found, with how it ended.
fn preflight(scene: &Scene, strictness: Strictness) -> (Vec<Finding>, ExitCode) {
    let (tell, told) = std::sync::mpsc::channel();
    let listener = Listener(move |event: &Event| {
        if let EventKind::Found { finding } = &event.kind {
            tell.send(finding.clone()).unwrap();
        }
    });
    let ctx = scene
        .fleet
        .run_context("100-a", "ann@desk", Arc::new(listener))
        .unwrap();
    let outcome = run::preflight(&scene.desired, Some(&scene.bundle), strictness, &ctx);
    scene.fleet.settle().unwrap();
    (told.try_iter().collect(), outcome.exit_code())
}

fn with_faults() -> Scene {
    Scene::with(1, 1, |fleet| {
        let machine = fleet.machine(&"w-1".parse().unwrap()).unwrap();
        let write = |path: &str, text: &str| machine.write(path, text, 0o644).unwrap();
        write("etc/sysctl.d/99-site.conf", "vm.overcommit_memory = 0\n");
        // A new disk is mounted where etcd will be.
        write("var/lib/etcd/lost+found/x", "");
    })
}

#[test]
fn preflight_reports_all_findings_and_leaves_no_trace() {
    let mut scene = with_faults();
    let (found, exit) = preflight(&scene, Strictness::Refusals);
    let checks: Vec<(Check, Severity)> = found.iter().map(|f| (f.check, f.severity)).collect();
    assert_eq!(checks, [(Check::SysctlLater, Severity::Warn)], "{found:#?}");
    assert_eq!(exit, ExitCode::Done);
    let place = found[0].place.as_ref().map(ToString::to_string);
    assert_eq!(place.as_deref(), Some("/etc/sysctl.d/99-site.conf line 1"));
    assert_eq!(preflight(&scene, Strictness::Warnings).1, ExitCode::PreflightRefused);
    scene.set("accept: [sysctl-later]\n");
    let (accepted, exit) = preflight(&scene, Strictness::Warnings);
    assert_eq!((accepted[0].severity, exit), (Severity::Note, ExitCode::Done));
    scene.must_be_as_before("preflight alone");
}

#[test]
fn what_landfall_made_is_no_finding_of_a_second_run() {
    let scene = with_faults();
    let (first, _) = preflight(&scene, Strictness::Refusals);
    scene.must_work(&scene.install("100-a"), "a warning lets an install go on");
    let (second, exit) = preflight(&scene, Strictness::Refusals);
    assert_eq!((&second, exit), (&first, ExitCode::Done));
    let again = scene.install("200-b");
    assert_eq!(
        (again.changes, again.exit_code()),
        (0, ExitCode::Done),
        "{:#?}",
        again.errors
    );
}

#[test]
fn a_run_keeps_what_preflight_found_and_it_went_on_with() {
    let mut scene = with_faults();
    let machine = scene.fleet.machine(&"w-1".parse().unwrap()).unwrap();
    machine.write("proc/meminfo", "MemTotal: 1000 kB\n", 0o444).unwrap();
    scene.set("accept: [memory]\n");
    scene.must_work(&scene.install("100-a"), "a warning and an accepted refusal");
    scene.must_work(&scene.install("200-b"), "nothing to do");
    let ctx = scene.fleet.run_context("300-c", "ann@desk", null_sink()).unwrap();
    let runs = run::journal(&scene.desired, &ctx).runs;
    scene.fleet.settle().unwrap();
    let [only] = runs.as_slice() else { panic!("{runs:#?}") };
    let kept = only.start.findings.iter();
    let kept: Vec<_> = kept.map(|f| (f.id.as_str(), f.nodes.len(), f.accepted)).collect();
    assert_eq!(kept, [("memory", 1, true), ("sysctl-later", 1, false)]);
}

#[test]
fn strict_refuses_an_install_for_a_warning() {
    let scene = with_faults();
    let ctx = scene.fleet.run_context("100-a", "ann@desk", null_sink()).unwrap();
    let options = InstallOptions {
        strictness: Strictness::Warnings,
        ..InstallOptions::new(Until::Done, OnFailure::Keep)
    };
    let outcome = run::install(&scene.desired, &scene.bundle, &options, &ctx);
    scene.fleet.settle().unwrap();
    assert_eq!(outcome.exit_code(), ExitCode::PreflightRefused);
    assert!(outcome.errors[0].what.contains("sysctl-later"), "{:#?}", outcome.errors);
    scene.must_be_as_before("strict install");
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
fn nodes_that_do_not_reach_each_other_are_refused_before_anything_is_written() {
    let scene = Scene::new(3, 1);
    let name = |text: &str| -> landfall_core::name::NodeName { text.parse().unwrap() };
    let (cp_1, cp_2, worker) = (name("cp-1"), name("cp-2"), name("w-1"));
    let cut = |cut: bool| {
        for from in [&cp_1, &name("cp-3"), &worker] {
            scene.fleet.world().set_cut(from, &cp_2, cut);
        }
    };
    cut(true);
    let outcome = scene.install("100-a");
    assert_eq!(outcome.exit_code(), ExitCode::PreflightRefused, "{:#?}", outcome.errors);
    let whats: Vec<&str> = outcome.errors.iter().map(|e| e.what.as_str()).collect();
    assert_eq!(whats.len(), 3, "{whats:#?}");
    assert!(
        whats[0].starts_with("preflight peer-port: cp-2 (10.20.0.2) cannot be reached by tcp 2379"),
        "{whats:#?}"
    );
    assert!(
        outcome
            .errors
            .iter()
            .all(|e| e.node.as_ref() == Some(&cp_2) && e.code == Code::Preflight)
    );
    scene.must_be_as_before("an install that is refused for the wire");
    let (found, exit) = preflight(&scene, Strictness::Refusals);
    assert_eq!((found.len(), exit), (3, ExitCode::PreflightRefused), "{found:#?}");
    scene.must_be_as_before("preflight of the wire");

    cut(false);
    scene.must_work(&scene.install("200-b"), "the wire is whole");
    let asked = scene.fleet.world().meshes();
    assert_eq!(asked, 3 * 4, "each of four nodes, in three runs");
    // Another run has no changes: it asks nobody, and does not see that nodes are cut off.
    cut(true);
    let again = scene.install("300-c");
    assert_eq!(
        (again.changes, again.exit_code()),
        (0, ExitCode::Done),
        "{:#?}",
        again.errors
    );
    assert_eq!(scene.fleet.world().meshes(), asked);
}

#[test]
fn uninstall_undoes_the_reachable_nodes_and_names_the_lost_one() {
    let scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let lost = "w-1".parse().unwrap();
    scene.fleet.set_unreachable(&lost, true);
    let rollback = scene.undo("200-b", UndoCommand::Rollback);
    assert_eq!(rollback.exit_code(), ExitCode::Unreachable);
    assert!(rollback.changes > 0, "what is here is undone");
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
fn read_only_commands_leave_no_trace_on_bare_machines() {
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

/// Without the founder's journal the undone runs look like the whole cluster: its later members would go without leaving etcd, and take the
/// quorum of the cluster that stays.
#[test]
fn a_rollback_of_later_members_needs_the_founder() {
    let scene = Scene::grown();
    let founder = "cp-1".parse().unwrap();
    scene.fleet.set_unreachable(&founder, true);
    let refused = scene.undo("300-c", UndoCommand::Rollback);
    assert_eq!(
        (refused.exit_code(), refused.changes),
        (ExitCode::Unreachable, 0),
        "{refused:#?}"
    );
    scene.must_be_lawful("refused");
    scene.fleet.set_unreachable(&founder, false);
    ["cp-2", "cp-3"]
        .iter()
        .for_each(|name| scene.fleet.world().may_leave(name));
    scene.must_work(&scene.undo("400-d", UndoCommand::Rollback), "with the founder");
    assert!(scene.install("500-e").changes > 0, "the others join again");
}
