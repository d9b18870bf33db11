//! Agents that are killed, and operators that go away: at every place that the seed chooses, and after each of them both ways on.
//! `LANDFALL_SEED` replays; `LANDFALL_SIM_CASES` sets how many places are tried.

use landfall_test_sim::scene::{Listener, Scene};
use landfall_core::event::{Event, EventKind, EventSink};
use landfall_core::explain::ExitCode;
use landfall_core::name::NodeName;
use landfall_engine::run::{Outcome, UndoCommand};
use landfall_test_support::fleet::Fleet;
use landfall_test_support::seed::{self, Choices};
use landfall_test_support::tree::Tree;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What goes wrong.
#[derive(Debug, Clone)]
enum Crash {
    /// The kernel kills an agent in the write that takes its journal beyond so many bytes.
    Torn(NodeName, u64),
    /// An agent is killed when so many steps have begun or ended.
    Killed(NodeName, u64),
    /// All agents are killed then: the power is gone.
    AllKilled(u64),
    /// All connections end then: the operator is gone, the agents notice.
    AllCut(u64),
}

/// What is done afterwards.
#[derive(Debug, Clone, Copy)]
enum Then {
    Again,
    Rollback,
    Uninstall,
    /// A second crash in the repetition, then rollback: a run that was resumed counts as one.
    AgainTornThenRollback(u64),
}

fn cases(default: u64) -> u64 {
    let given = std::env::var("LANDFALL_SIM_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    given.unwrap_or(default)
}

/// An install that nothing disturbed: what it leaves, and how long its journals and its list of events are.
struct Reference {
    installed: BTreeMap<NodeName, Tree>,
    /// Where each record of a node's journal begins.
    records: BTreeMap<NodeName, Vec<u64>>,
    lengths: BTreeMap<NodeName, u64>,
    events: u64,
}

fn reference(scene: &Scene) -> Reference {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let listener = Listener(move |event: &Event| {
        counted.fetch_add(u64::from(is_step(event)), Ordering::SeqCst);
    });
    scene.must_work(&scene.install_heard("1-reference", Arc::new(listener)), "reference");
    let installed = scene.fleet.trees().unwrap();
    let (mut records, mut lengths) = (BTreeMap::new(), BTreeMap::new());
    for name in scene.fleet.names() {
        let (text, _) = scene.journal(&name);
        let starts = text.split_inclusive(|b| *b == b'\n').scan(0, |at, line| {
            let start = *at;
            *at += line.len() as u64;
            Some(start)
        });
        records.insert(name.clone(), starts.collect());
        lengths.insert(name, text.len() as u64);
    }
    scene.must_work(
        &scene.undo("2-reference", UndoCommand::Uninstall),
        "reference's uninstall",
    );
    scene.must_be_as_before("reference's uninstall");
    Reference {
        installed,
        records,
        lengths,
        events: count.load(Ordering::SeqCst),
    }
}

fn is_step(event: &Event) -> bool {
    matches!(
        event.kind,
        EventKind::StepStarted { .. } | EventKind::StepFinished { .. } | EventKind::StepFailed { .. }
    )
}

/// Does something when so many steps have begun or ended.
fn at_event(number: u64, what: impl Fn() + Send + Sync + 'static) -> Arc<dyn EventSink> {
    let count = AtomicU64::new(0);
    Arc::new(Listener(move |event: &Event| {
        if is_step(event) && count.fetch_add(1, Ordering::SeqCst) == number {
            what();
        }
    }))
}

fn sink_for(crash: &Crash, fleet: &Fleet) -> Arc<dyn EventSink> {
    let (fleet, names) = (fleet.clone(), fleet.names());
    match crash.clone() {
        Crash::Torn(..) => landfall_test_sim::scene::null_sink(),
        Crash::Killed(name, at) => at_event(at, move || fleet.kill(&name)),
        Crash::AllKilled(at) => at_event(at, move || names.iter().for_each(|n| fleet.kill(n))),
        Crash::AllCut(at) => at_event(at, move || names.iter().for_each(|n| fleet.cut(n))),
    }
}

/// Installs with a crash. Returns what came of it.
fn crashed_install(scene: &Scene, run: &str, crash: &Crash) -> Outcome {
    if let Crash::Torn(name, bytes) = crash {
        scene.fleet.limit_files(name, Some(*bytes));
    }
    let outcome = scene.install_heard(run, sink_for(crash, &scene.fleet));
    for name in scene.fleet.names() {
        scene.fleet.limit_files(&name, None);
    }
    if !outcome.errors.is_empty() {
        assert_eq!(
            outcome.exit_code(),
            ExitCode::FailedKept,
            "{crash:?}: {:#?}",
            outcome.errors
        );
    }
    outcome
}

/// Runs one case from bare machines to bare machines. Returns whether it crashed at all: the last places may lie behind the end.
fn run_case(scene: &Scene, reference: &Reference, number: u64, crash: &Crash, then: Then) -> bool {
    let case = format!("{crash:?}, then {then:?}");
    let id = |n: u64| format!("{}-case", 1000 + number * 10 + n);
    let outcome = crashed_install(scene, &id(0), crash);
    let open = scene
        .fleet
        .names()
        .iter()
        .any(|name| scene.journal_as_found(name).open_run().is_some());
    match then {
        Then::Again => {
            let again = scene.install(&id(1));
            scene.must_work(&again, &case);
            if open {
                let continues = |name: &NodeName| {
                    let own = scene.journal_as_found(name);
                    own.runs.last().and_then(|run| run.start.continues)
                };
                let names = scene.fleet.names();
                let all = names.iter().all(|name| continues(name) == Some(1));
                assert!(all, "{case}: the interrupted run is gone on with, and named");
            }
            scene.must_be_installed_as(&reference.installed, &case);
            assert_eq!(scene.install(&id(2)).changes, 0, "{case}: nothing is left to do");
            scene.must_work(&scene.undo(&id(3), UndoCommand::Uninstall), &case);
        }
        Then::Rollback => scene.must_work(&scene.undo(&id(1), UndoCommand::Rollback), &case),
        Then::Uninstall => scene.must_work(&scene.undo(&id(1), UndoCommand::Uninstall), &case),
        Then::AgainTornThenRollback(bytes) => {
            let victim = scene.fleet.names()[0].clone();
            crashed_install(scene, &id(1), &Crash::Torn(victim, bytes));
            scene.must_work(&scene.undo(&id(2), UndoCommand::Rollback), &case);
        }
    }
    scene.must_be_as_before(&case);
    !outcome.errors.is_empty()
}

#[test]
fn any_record_may_be_the_last_one() {
    let seed = seed::seed();
    println!("{}={seed}", seed::VARIABLE);
    let mut choices = Choices::new(seed, "records");
    let scene = Scene::new(1, 0);
    let reference = reference(&scene);
    let name = scene.fleet.names()[0].clone();
    let (records, length) = (&reference.records[&name], reference.lengths[&name]);
    let cases = cases(24).min(records.len() as u64);
    let mut crashes = 0;
    for number in 0..cases {
        // Evenly over the journal, from a place that the seed chooses, so that many seeds see every record.
        let stride = records.len() as u64 / cases;
        let at = usize::try_from(number * stride + choices.below(stride.max(1))).unwrap();
        let end = records.get(at + 1).copied().unwrap_or(length);
        let inside = [0, 1, choices.below(end - records[at])];
        let bytes = records[at] + choices.one_of(&inside).unwrap();
        let then = [Then::Again, Then::Rollback][usize::try_from(number % 2).unwrap()];
        crashes += u64::from(run_case(
            &scene,
            &reference,
            number,
            &Crash::Torn(name.clone(), bytes),
            then,
        ));
    }
    println!("{crashes} of {cases} cases crashed, of {} records", records.len());
    assert!(crashes * 4 >= cases * 3, "{crashes} of {cases}");
}

#[test]
fn a_fleet_may_lose_nodes_power_or_its_operator() {
    let seed = seed::seed();
    println!("{}={seed}", seed::VARIABLE);
    let mut choices = Choices::new(seed, "fleet");
    let scene = Scene::new(3, 1);
    let reference = reference(&scene);
    let names = scene.fleet.names();
    let cases = cases(8);
    let mut crashes = 0;
    for number in 0..cases {
        let victim = choices.one_of(&names).unwrap().clone();
        let at = choices.below(reference.events);
        let crash = match number % 4 {
            0 => Crash::AllKilled(at),
            1 => Crash::Killed(victim, at),
            2 => Crash::AllCut(at),
            _ => Crash::Torn(victim.clone(), choices.below(reference.lengths[&victim])),
        };
        let longest = reference.lengths[&names[0]];
        let all = [
            Then::Again,
            Then::Rollback,
            Then::Uninstall,
            Then::AgainTornThenRollback(choices.below(longest)),
        ];
        let then = *choices.one_of(&all).unwrap();
        crashes += u64::from(run_case(&scene, &reference, number, &crash, then));
    }
    println!("{crashes} of {cases} cases crashed");
    assert!(crashes > 0);
}

#[test]
fn an_undo_may_be_killed_and_is_repeated() {
    let seed = seed::seed();
    println!("{}={seed}", seed::VARIABLE);
    let mut choices = Choices::new(seed, "undo");
    let scene = Scene::new(1, 1);
    let mut crashes = 0;
    for number in 0..cases(6) {
        let id = |n: u64| format!("{}-case", 1000 + number * 10 + n);
        scene.must_work(&scene.install(&id(0)), "install");
        let victim = choices.one_of(&scene.fleet.names()).unwrap().clone();
        let (text, own) = scene.journal(&victim);
        // Each entry is followed by at most some 300 bytes about its undo; the first case leaves room for none.
        let about_undo = match number {
            0 => 0,
            _ => choices.below(own.entries.len() as u64 * 300),
        };
        let bytes = text.len() as u64 + about_undo;
        let backs = [UndoCommand::Rollback, UndoCommand::Uninstall];
        let (first, second) = (*choices.one_of(&backs).unwrap(), *choices.one_of(&backs).unwrap());
        // Only an uninstall ends an uninstall.
        let second = if first == UndoCommand::Uninstall { first } else { second };
        let case = format!("undo of {victim} torn at {bytes}, {first:?}, then {second:?}");
        scene.fleet.limit_files(&victim, Some(bytes));
        let outcome = scene.undo(&id(1), first);
        scene.fleet.limit_files(&victim, None);
        crashes += u64::from(!outcome.errors.is_empty());
        scene.must_work(&scene.undo(&id(2), second), &case);
        scene.must_be_as_before(&case);
    }
    println!("{crashes} undos crashed");
    assert!(crashes > 0);
}
