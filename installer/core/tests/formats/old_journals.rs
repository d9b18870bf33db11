//! Journals of version 1, as the program of commit 726b1b0 wrote them on three control planes and a worker: after an install, killed in
//! the joins, killed in an uninstall.

use landfall_core::action::{Action, Undo};
use landfall_core::journal::{Entry, EntryState, Ownership, parse_journal, replay};
use landfall_core::membership::is_formed;
use landfall_core::name::NodeName;
use landfall_core::plan::undo::UndoScope;
use landfall_core::plan::{Goal, Plan, plan};
use landfall_core::run_history::{RollbackTarget, RunHistory};
use std::collections::{BTreeMap, BTreeSet};

macro_rules! fleet {
    ($case:literal) => {
        fleet([
            (
                "cp-1",
                include_bytes!(concat!(
                    "../../../../tests/fixtures/formats/journal-1/",
                    $case,
                    "/cp-1.jsonl"
                )),
            ),
            (
                "cp-2",
                include_bytes!(concat!(
                    "../../../../tests/fixtures/formats/journal-1/",
                    $case,
                    "/cp-2.jsonl"
                )),
            ),
            (
                "cp-3",
                include_bytes!(concat!(
                    "../../../../tests/fixtures/formats/journal-1/",
                    $case,
                    "/cp-3.jsonl"
                )),
            ),
            (
                "w-1",
                include_bytes!(concat!(
                    "../../../../tests/fixtures/formats/journal-1/",
                    $case,
                    "/w-1.jsonl"
                )),
            ),
        ])
    };
}

fn plan_undo(owned: &BTreeMap<NodeName, Ownership>, scope: &UndoScope) -> Plan {
    plan(&Goal::Undone { owned, scope }).unwrap()
}

fn fleet(journals: [(&str, &[u8]); 4]) -> BTreeMap<NodeName, Ownership> {
    let read = |(name, text): (&str, &[u8])| {
        let own = replay(&parse_journal(text).unwrap()).unwrap();
        (name.parse().unwrap(), own)
    };
    journals.into_iter().map(read).collect()
}

fn entry<'a>(fleet: &'a BTreeMap<NodeName, Ownership>, step: &str) -> &'a Entry {
    let step = step.parse().unwrap();
    fleet.values().find_map(|own| own.newest(&step)).unwrap()
}

/// Steps that an undo undoes on a node, in order.
fn taken(plan: &Plan, node: &NodeName) -> Vec<String> {
    let steps = plan.steps.iter().filter(|step| &step.node == node);
    let taken = steps.filter_map(|step| match &step.action {
        Action::TakeBack { step, .. } => Some(step.to_string()),
        _ => None,
    });
    taken.collect()
}

/// Fails unless an uninstall takes each entry of each node back once, newest first, but for directories and what waits for others.
fn must_take_everything_back(fleet: &BTreeMap<NodeName, Ownership>) {
    let plan = plan_undo(fleet, &UndoScope::Everything);
    assert!(
        !plan.steps.iter().any(|s| s.action.runs_in_cluster()),
        "the cluster goes as a whole"
    );
    for (node, own) in fleet {
        let taken = taken(&plan, node);
        let all: BTreeSet<String> = own.entries.iter().map(|e| e.step.to_string()).collect();
        assert_eq!(taken.len(), own.entries.len(), "{node}");
        assert_eq!(taken.iter().cloned().collect::<BTreeSet<_>>(), all, "{node}");
        let in_order = |e: &&Entry| !matches!(e.undo, Undo::RemoveDirectory { .. });
        let newest_first: Vec<String> = own
            .entries
            .iter()
            .rev()
            .filter(in_order)
            .map(|e| e.step.to_string())
            .collect();
        let others: Vec<&String> = taken.iter().filter(|step| newest_first.contains(*step)).collect();
        assert!(others.into_iter().eq(&newest_first), "{node}: {taken:#?}");
    }
}

#[test]
fn a_rollback_undoes_the_run_of_a_whole_install() {
    let fleet = fleet!("whole");
    let counts: Vec<usize> = fleet.values().map(|own| own.entries.len()).collect();
    assert_eq!(counts, [47, 55, 55, 38]);
    assert!(
        fleet
            .values()
            .flat_map(|own| &own.entries)
            .all(|e| e.state == EntryState::Owned)
    );
    assert!(
        fleet.values().all(|own| own.record().is_none()),
        "version 1 has no record"
    );
    assert!(is_formed(&fleet));
    let history = RunHistory::of(&fleet).unwrap();
    let run = history.newest().unwrap();
    assert_eq!(
        (run.number, run.outcome.as_deref(), run.step_count()),
        (1, Some("done"), 195)
    );
    assert_eq!(run.start.cluster, "ship");
    assert!(
        run.start.bundle.as_ref().unwrap().starts_with("Kubernetes v1.37"),
        "{run:?}"
    );
    assert_eq!(history.next_number(), 2);
    must_take_everything_back(&fleet);
    let RollbackTarget::Runs(runs) = history.rollback_target().unwrap() else {
        panic!("the only run is the one to undo");
    };
    let scope = UndoScope::Runs(runs.iter().map(|r| r.start.run.clone()).collect());
    assert!(!scope.cluster_stays(&fleet), "it founded the cluster");
    assert_eq!(plan_undo(&fleet, &scope), plan_undo(&fleet, &UndoScope::Everything));
    assert!(matches!(&entry(&fleet, "apply-dns").undo, Undo::RestoreObjects { prior, .. } if prior.len() == 1));
    assert!(
        entry(&fleet, "apply-dns").wanted.is_none(),
        "version 1 does not say what holds"
    );
    let Undo::RestoreSysctls { settings, set } = &entry(&fleet, "sysctls/cp-1").undo else {
        panic!("kernel settings are restored");
    };
    assert!(
        !settings.is_empty() && set.is_empty(),
        "version 1 does not hold what was set"
    );
}

#[test]
fn an_interrupted_install_is_unfinished_and_can_be_undone() {
    let fleet = fleet!("interrupted");
    let interrupted: BTreeSet<&str> = fleet
        .values()
        .flat_map(|own| &own.entries)
        .filter(|e| e.state == EntryState::Intended)
        .map(|e| e.step.as_str())
        .collect();
    assert_eq!(
        interrupted,
        ["join-control-plane/cp-2", "join-kubelet/cp-3", "join-worker/w-1"].into()
    );
    let history = RunHistory::of(&fleet).unwrap();
    assert_eq!(history.unfinished().unwrap().start.run.as_str(), "1795000300-a3");
    assert!(is_formed(&fleet));
    must_take_everything_back(&fleet);
    let Undo::RemoveClaims { effects, .. } = &entry(&fleet, "join-control-plane/cp-2").undo else {
        panic!("a join is undone by its claims");
    };
    assert!(effects[0].text().contains("etcd member cp-2"), "{effects:?}");
}

#[test]
fn an_interrupted_uninstall_goes_on_with_what_is_left() {
    let fleet = fleet!("half-undone");
    let counts: Vec<usize> = fleet.values().map(|own| own.entries.len()).collect();
    assert_eq!(counts, [35, 34, 1, 0]);
    let states = fleet.values().flat_map(|own| &own.entries).map(|e| e.state);
    assert!(states.clone().count() > 0 && states.into_iter().all(|s| s == EntryState::Undoing));
    must_take_everything_back(&fleet);
}
