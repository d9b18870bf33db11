//! Tests of journals: damaged lines, the cluster's record, runs with another bundle, and clusters of version 1.

use landfall_core::event::{Event, EventKind};
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_core::journal::EntryState;
use landfall_core::name::NodeName;
use landfall_engine::run::{self, Outcome, UndoCommand, Until};
use landfall_test_sim::scene::{Listener, Scene, null_sink};
use landfall_test_support::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// Damages the first line of a machine's journal that has this text; returns its one-based number.
fn damage(scene: &Scene, node: &NodeName, text: &str) -> usize {
    let path = scene.fleet.machine(node).unwrap().journal();
    let journal = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = journal.lines().map(|line| format!("{line}\n")).collect();
    let number = lines.iter().position(|line| line.contains(text)).unwrap();
    let first = if lines[number].starts_with('0') { "1" } else { "0" };
    lines[number].replace_range(..1, first);
    std::fs::write(path, lines.concat()).unwrap();
    number + 1
}

fn show(scene: &Scene) -> Outcome {
    let context = scene.fleet.run_context("10-show", "ann@desk", null_sink()).unwrap();
    let outcome = run::journal(&scene.desired, &context);
    scene.fleet.settle().unwrap();
    outcome
}

fn repair(scene: &Scene, until: Until) -> Outcome {
    let context = scene.fleet.run_context("20-repair", "ann@desk", null_sink()).unwrap();
    let outcome = run::repair_journals(&scene.desired, until, &|_| Ok(()), &context);
    scene.fleet.settle().unwrap();
    outcome
}

/// Fails unless the outcome says which line of which node is damaged, and what to do.
fn must_name(outcome: &Outcome, node: &NodeName, line: usize) {
    let is_it = |error: &&Diagnosis| error.code == Code::Journal && error.node.as_ref() == Some(node);
    let error = outcome.errors.iter().find(is_it);
    let error = error.unwrap_or_else(|| panic!("{:#?}", outcome.errors));
    assert_eq!(error.causes, [format!("line {line} of the journal is damaged")]);
    assert!(error.next.iter().any(|n| n.starts_with("landfall journal repair")));
}

#[test]
fn a15_a_line_that_nothing_depends_on_is_repaired_without_a_trace() {
    let scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let (cp, worker) = (name("cp-1"), name("w-1"));
    let line = damage(&scene, &cp, "\"record\":\"done\",\"step\":\"init/cp-1\"");
    let start = damage(&scene, &worker, "\"record\":\"run-started\"");
    let (before, seen) = (scene.fleet.trees().unwrap(), scene.seen());
    for outcome in [
        scene.install("200-b"),
        scene.undo("300-c", UndoCommand::Rollback),
        scene.undo("400-d", UndoCommand::Uninstall),
        scene.status("500-e"),
        show(&scene),
    ] {
        assert_eq!(outcome.exit_code(), ExitCode::FailedKept, "{:#?}", outcome.errors);
        must_name(&outcome, &cp, line);
        must_name(&outcome, &worker, start);
    }
    let shown = show(&scene);
    assert!(shown.journals[&cp].own.entries.len() > 40, "whole lines are shown");
    assert_eq!(shown.record.unwrap().members.len(), 2);
    let dry = repair(&scene, Until::Plan);
    assert_eq!((dry.changes, dry.journals.len()), (0, 2), "{:#?}", dry.errors);
    let differences = scene.fleet.differences(&before, &[]).unwrap();
    assert!(differences.is_empty(), "looking changes nothing: {differences:#?}");

    let repaired = repair(&scene, Until::Done);
    scene.must_work(&repaired, "repair");
    assert_eq!(repaired.changes, 2);
    assert_eq!(repaired.journals[&cp].lost[0].line, line);
    let (_, own) = scene.journal(&cp);
    assert!(
        own.entries
            .iter()
            .all(|e| e.state == EntryState::Owned && !e.undo.is_lost())
    );
    assert!(
        repair(&scene, Until::Done).journals.is_empty(),
        "a second repair finds nothing"
    );
    let again = scene.install("600-f");
    scene.must_work(&again, "install after the repair");
    assert_eq!(again.changes, 0);
    assert_eq!(scene.seen(), seen);
    scene.must_work(&scene.undo("700-g", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

#[test]
fn a15_a_lost_start_of_a_run_is_taken_from_another_node() {
    let scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let (_, before) = scene.journal(&name("w-1"));
    damage(&scene, &name("w-1"), "\"record\":\"run-started\"");
    scene.must_work(&repair(&scene, Until::Done), "repair");
    assert_eq!(scene.journal(&name("w-1")).1, before);
    scene.must_work(&scene.undo("300-c", UndoCommand::Rollback), "rollback of that run");
    scene.must_be_as_before("rollback");
}

#[test]
fn a15_a_lost_undo_is_named_by_the_next_uninstall_and_no_more_by_the_one_after() {
    let scene = Scene::new(1, 0);
    scene.must_work(&scene.install("100-a"), "install");
    let node = name("cp-1");
    let step = "unit-file/kubelet/cp-1";
    let line = damage(
        &scene,
        &node,
        &format!("\"record\":\"intent\",\"run\":\"100-a\",\"step\":\"{step}\""),
    );
    let repaired = repair(&scene, Until::Done);
    scene.must_work(&repaired, "repair");
    let lost = &repaired.journals[&node].lost;
    assert_eq!((lost.len(), lost[0].line), (1, line));
    assert!(lost[0].unknown.contains(step), "{lost:?}");
    let again = scene.install("200-b");
    scene.must_work(&again, "install");
    assert_eq!(again.changes, 0, "what is there is as wanted");

    let uninstalled = scene.undo("300-c", UndoCommand::Uninstall);
    assert_eq!(uninstalled.exit_code(), ExitCode::Residue, "{:#?}", uninstalled.errors);
    assert_eq!(uninstalled.residue.len(), 1, "{:#?}", uninstalled.residue);
    let named = [step, "kubelet.service", &format!("line {line} of the journal")];
    assert!(
        named.iter().all(|text| uninstalled.residue[0].contains(text)),
        "{:#?}",
        uninstalled.residue
    );
    let machine = scene.fleet.machine(&node).unwrap();
    std::fs::remove_file(machine.at("etc/systemd/system/kubelet.service")).unwrap();
    scene.must_work(&scene.undo("400-d", UndoCommand::Uninstall), "the next uninstall");
    scene.must_be_as_before("with the damaged journal");
}

#[test]
fn a_journal_of_another_run_is_not_repaired() {
    let scene = Scene::new(1, 0);
    scene.must_work(&scene.install("100-a"), "install");
    damage(&scene, &name("cp-1"), "\"record\":\"done\"");
    let lock = scene.fleet.machine(&name("cp-1")).unwrap().at("run/landfall/lease");
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let file = std::fs::File::create(&lock).unwrap();
    file.try_lock().unwrap();
    let before = std::fs::read(scene.fleet.machine(&name("cp-1")).unwrap().journal()).unwrap();
    let outcome = repair(&scene, Until::Done);
    assert_eq!(outcome.exit_code(), ExitCode::Locked, "{:#?}", outcome.errors);
    let after = std::fs::read(scene.fleet.machine(&name("cp-1")).unwrap().journal()).unwrap();
    assert_eq!(before, after);
}

#[test]
fn status_and_journal_show_tell_the_cluster_with_its_etcd_members() {
    let mut scene = Scene::new(3, 1);
    scene.must_work(&scene.install("100-a"), "install");
    for outcome in [scene.status("200-b"), show(&scene)] {
        let record = outcome.record.unwrap();
        assert_eq!((record.formed, record.sequence.run), (true, 1));
        assert_eq!(record.founder(), Some(&name("cp-1")));
        let id = |node: &str| record.members[&name(node)].etcd_id;
        let ids: BTreeSet<_> = ["cp-1", "cp-2", "cp-3"].into_iter().filter_map(id).collect();
        assert_eq!((ids.len(), id("w-1")), (3, None));
        let runs: Vec<_> = outcome
            .runs
            .iter()
            .map(|run| (run.number, run.outcome.as_deref()))
            .collect();
        assert_eq!(runs, [(1, Some("done"))]);
    }
    scene.set("upstreamDns: [10.20.9.9]\n");
    scene.must_work(&scene.install("300-c"), "a changed setting");
    let shown = show(&scene);
    assert_eq!(shown.runs.last().unwrap().number, 2);
    assert_eq!(shown.journals.len(), 4);
    assert_eq!(shown.exit_code(), ExitCode::Done, "{:#?}", shown.errors);
}

#[test]
fn a24_a_run_that_goes_on_with_another_bundle_names_it() {
    let mut scene = Scene::new(1, 1);
    let (fleet, names) = (scene.fleet.clone(), scene.fleet.names());
    let listener = Listener(move |event: &Event| {
        if matches!(&event.kind, EventKind::StepStarted { step, .. } if step.as_str() == "join-worker/w-1") {
            names.iter().for_each(|node| fleet.kill(node));
        }
    });
    let first = scene.install_heard("100-a", Arc::new(listener));
    assert!(!first.errors.is_empty(), "it was killed");
    let first_bundle = scene.bundle.index_digest();
    scene.bundle = scene.repackaged_bundle();
    let other_bundle = scene.bundle.index_digest();
    assert_ne!(first_bundle, other_bundle);
    scene.must_work(&scene.install("200-b"), "the same with another build");
    for node in scene.fleet.names() {
        let (_, own) = scene.journal(&node);
        let starts: Vec<_> = own.runs.iter().map(|run| &run.start).collect();
        let bundles: Vec<_> = starts.iter().map(|start| start.bundle.as_deref().unwrap()).collect();
        assert!(bundles[0].contains(&first_bundle.to_string()), "{bundles:?}");
        assert!(bundles[1].contains(&other_bundle.to_string()), "{bundles:?}");
        assert_eq!(starts[1].continues, Some(1));
        assert_eq!(own.record().unwrap().bundle, Some(other_bundle));
    }
    for status in scene.status("300-c").nodes.values() {
        assert!(status.bundle.as_ref().unwrap().contains(&other_bundle.to_string()));
    }
}

/// Gives the machines the journals that the program of commit 726b1b0 left on such ones.
pub fn plant_old_journals(scene: &Scene, case: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures/formats/journal-1")
        .join(case);
    for node in scene.fleet.names() {
        let to = scene.fleet.machine(&node).unwrap().journal();
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(folder.join(format!("{node}.jsonl")), to).unwrap();
    }
}

fn journals(scene: &Scene) -> BTreeMap<NodeName, Tree> {
    let trees = scene.fleet.trees().unwrap();
    // The agent stays on nodes where landfall owns something.
    trees
        .into_iter()
        .map(|(name, tree)| (name, tree.without(&["var/lib/landfall/bin"])))
        .collect()
}

#[test]
fn journals_of_version_1_are_read_without_a_change_and_undone() {
    for (case, steps) in [("whole", 195), ("interrupted", 187), ("half-undone", 70)] {
        let scene = Scene::new(3, 1);
        plant_old_journals(&scene, case);
        let before = journals(&scene);
        let shown = show(&scene);
        assert_eq!(shown.exit_code(), ExitCode::Done, "{case}: {:#?}", shown.errors);
        let owned: usize = shown.journals.values().map(|reading| reading.own.entries.len()).sum();
        assert_eq!((owned, shown.record), (steps, None), "{case}");
        let status = scene.status("200-b");
        assert_eq!(
            status.nodes.values().map(|node| node.owned).sum::<usize>(),
            steps,
            "{case}"
        );
        for (node, tree) in journals(&scene) {
            // A journal on which nothing is ours goes with the state directory.
            if shown.journals[&node].own.entries.is_empty() {
                continue;
            }
            let differences = tree.differences(&before[&node]);
            assert!(differences.is_empty(), "{case}, {node}: {differences:#?}");
        }
        scene.must_work(&scene.undo("300-c", UndoCommand::Uninstall), case);
        scene.must_be_as_before(case);
    }
}
