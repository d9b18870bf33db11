//! Tests of a journal whose last line was torn by a power cut, with every possible length.

use landfall_agent::agent::Agent;
use landfall_agent::host::Host;
use landfall_agent::journal_store::JournalStore;
use landfall_agent::lease::Holder;
use landfall_agent::{blobs, interpret};
use landfall_core::action::{Action, Content};
use landfall_core::journal::{EntryState, RunStart};
use landfall_core::plan::undo::UndoScope;
use landfall_core::plan::{Goal, Stage, Step, plan};
use landfall_test_support::machine::Machine;
use landfall_test_support::tree::Tree;
use std::fs;

/// Some steps after each other: something made, something changed, something replaced.
fn steps() -> Vec<Step> {
    let file = |path: &str| Action::File {
        path: path.into(),
        mode: 0o640,
        content: Content::Text("new\n".to_owned()),
    };
    let directory = Action::Directory {
        path: "/etc/landfall/cni/net.d".into(),
        mode: 0o755,
    };
    let hosts = Action::HostsLines {
        lines: vec!["127.0.0.1 api.ship".to_owned()],
    };
    let settings = Action::Sysctls {
        settings: vec![("net.ipv4.ip_forward".to_owned(), "1".to_owned())],
    };
    let actions = [
        ("directory", directory),
        ("new-file", file("/etc/landfall/cni/net.d/10-x.conf")),
        ("hosts", hosts),
        ("settings", settings),
        ("replaced-file", file("/usr/local/bin/runc")),
    ];
    let step = |(id, action): (&str, Action)| {
        Step::new(id.parse().unwrap(), Stage::Prepare, "cp-1".parse().unwrap(), 30, action)
    };
    actions.map(step).to_vec()
}

/// A machine in some state, as the agent that just died left it.
struct Left {
    machine: Machine,
    before: Tree,
    journal: Vec<u8>,
}

fn agent_on(machine: &Machine) -> Agent {
    let agent = Agent::new(Host::under(machine.root()));
    let holder = Holder {
        run: "100-a".parse().unwrap(),
        command: "install".to_owned(),
        cluster: "ship".to_owned(),
    };
    agent.take_lease("ann@desk", holder).unwrap();
    agent
}

/// Undoes everything by a plan, like the engine; returns how many entries were undone.
fn undo_all(agent: &Agent) -> usize {
    let own = agent.ownership().unwrap();
    let owned = &[("cp-1".parse().unwrap(), own)].into();
    let scope = &UndoScope::Everything;
    let plan = plan(&Goal::Undone { owned, scope }).unwrap();
    let run = |step| interpret::run_step(agent, step, &|_| {}).unwrap();
    let outcomes: Vec<_> = plan.steps.iter().map(run).collect();
    assert!(outcomes.iter().all(|o| o.residue.is_empty()), "{outcomes:?}");
    outcomes.iter().filter(|o| o.changed).count()
}

fn left(undone: bool) -> Left {
    let machine = Machine::new("cp-1").unwrap();
    let before = machine.tree().unwrap();
    let agent = agent_on(&machine);
    let start = RunStart::new("100-a".parse().unwrap(), 1, "install", "ship");
    agent.start_run(&start, None).unwrap();
    for step in steps() {
        assert!(interpret::run_step(&agent, &step, &|_| {}).unwrap().changed);
    }
    if undone {
        undo_all(&agent);
    }
    drop(agent);
    let journal = fs::read(machine.journal()).unwrap();
    Left {
        machine,
        before,
        journal,
    }
}

/// Cuts the journal to `length`, and undoes everything.
fn undo_from(left: &Left, length: usize, case: &str) {
    fs::write(left.machine.journal(), &left.journal[..length]).unwrap();
    let agent = agent_on(&left.machine);
    let own = agent.ownership().unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(undo_all(&agent), own.entries.len(), "{case}");
    assert!(agent.ownership().unwrap().is_empty(), "{case}");
    blobs::tidy(&agent).unwrap();
    drop(agent);
    let differences = left.machine.tree().unwrap().differences(&left.before);
    assert!(differences.is_empty(), "{case}: {differences:#?}");
}

fn start_of_last_line(journal: &[u8]) -> usize {
    journal[..journal.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1
}

#[test]
fn a_torn_done_is_an_intent_and_the_undo_is_correct_at_every_length() {
    let first = left(false);
    let tail = first.journal.len() - start_of_last_line(&first.journal);
    assert!(tail > 50);
    for kept in 0..=tail {
        let fresh = left(false);
        // The record holds an inode number, so its length differs a little from machine to machine.
        let cut = (start_of_last_line(&fresh.journal) + kept).min(fresh.journal.len());
        let case = format!("cut at {cut} of {}", fresh.journal.len());
        fs::write(fresh.machine.journal(), &fresh.journal[..cut]).unwrap();
        let store = JournalStore::load(fresh.machine.journal()).unwrap();
        let last = store.own().entries.last().unwrap().state;
        // The newline alone may be missing: then the record is whole.
        let whole = cut + 1 >= fresh.journal.len();
        let expected = if whole { EntryState::Owned } else { EntryState::Intended };
        assert_eq!((store.own().entries.len(), last), (5, expected), "{case}");
        drop(store);
        undo_from(&fresh, cut, &case);
    }
}

#[test]
fn an_undo_with_a_torn_journal_is_repeated_at_every_length() {
    let left = left(true);
    let first = String::from_utf8(left.journal.clone())
        .unwrap()
        .find("undo-started")
        .unwrap();
    let start = left.journal[..first].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    // What was on disk before anything was undone stays in any case: the undo's start is written before its first act.
    assert!(left.journal.len() - start > 500);
    for cut in start..=left.journal.len() {
        let directory = left.machine.journal();
        fs::create_dir_all(directory.parent().unwrap()).unwrap();
        undo_from(&left, cut, &format!("cut at {cut} of {}", left.journal.len()));
    }
}
