//! A journal with a damaged line: who reads it is told what to do, a repair keeps its whole lines, and a lost undo is named once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use landfall_agent::agent::Agent;
use landfall_agent::host::Host;
use landfall_agent::lease::Holder;
use landfall_agent::{blobs, interpret};
use landfall_core::action::{Action, Content};
use landfall_core::explain::Code;
use landfall_core::journal::repair::JOURNAL_REPAIR;
use landfall_core::journal::{EntryState, RunStart, parse_journal, replay};
use landfall_core::plan::undo::UndoScope;
use landfall_core::plan::{Goal, Stage, Step, plan};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A machine on which a run wrote a new file, replaced another and added a line to /etc/hosts.
struct Machine(tempfile::TempDir);

const STEPS: [&str; 3] = ["new", "replaced", "hosts"];

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for path in ["etc/hosts", "etc/replaced"] {
            std::fs::create_dir_all(machine.at(path).parent().unwrap()).unwrap();
            std::fs::write(machine.at(path), "theirs\n").unwrap();
        }
        let agent = machine.agent("install");
        agent.start_run(&start(), None).unwrap();
        let file = |path: &str| Action::File {
            path: path.into(),
            mode: 0o644,
            content: Content::Text("ours\n".to_owned()),
        };
        let hosts = Action::HostsLines {
            lines: vec!["127.0.0.1 api.ship".to_owned()],
        };
        for (id, action) in STEPS.into_iter().zip([file("/etc/new"), file("/etc/replaced"), hosts]) {
            assert!(run(&agent, id, action).is_empty());
        }
        machine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn journal(&self) -> PathBuf {
        self.at("var/lib/landfall/journal.jsonl")
    }

    /// Returns an agent that holds the lease for a command.
    fn agent(&self, command: &str) -> Agent {
        let agent = Agent::new(Host::under(self.0.path()));
        let holder = Holder {
            run: "run-1".parse().unwrap(),
            command: command.to_owned(),
            cluster: "ship".to_owned(),
        };
        agent.take_lease("ann@desk", holder).unwrap();
        agent
    }

    /// Damages the line that has this text; returns its number, one-based.
    fn damage(&self, text: &str) -> usize {
        let journal = std::fs::read_to_string(self.journal()).unwrap();
        let number = journal.lines().position(|line| line.contains(text)).unwrap();
        let mut lines: Vec<String> = journal.lines().map(|line| format!("{line}\n")).collect();
        let first = if lines[number].starts_with('0') { "1" } else { "0" };
        lines[number].replace_range(..1, first);
        std::fs::write(self.journal(), lines.concat()).unwrap();
        number + 1
    }

    fn state_files(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.at("var/lib/landfall")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn start() -> RunStart {
    RunStart {
        run: "run-1".parse().unwrap(),
        number: Some(1),
        command: "install".to_owned(),
        owner: "ann@desk".to_owned(),
        at_ms: 0,
        cluster: "ship".to_owned(),
        continues: None,
        takes_back: vec![],
        bundle: None,
        findings: vec![],
    }
}

/// Runs a step; returns what of it stays.
fn run(agent: &Agent, id: &str, action: Action) -> Vec<String> {
    let step = Step::new(id.parse().unwrap(), Stage::Prepare, "cp-1".parse().unwrap(), 30, action);
    interpret::run_step(agent, &step, &|_| {}).unwrap().residue
}

/// Takes everything back by a plan, as the engine does; returns what stays.
fn undo_all(agent: &Agent) -> Vec<String> {
    let own = agent.ownership().unwrap();
    let owned = &[("cp-1".parse().unwrap(), own)].into();
    let scope = &UndoScope::Everything;
    let plan = plan(&Goal::Undone { owned, scope }).unwrap();
    let run = |step| interpret::run_step(agent, step, &|_| {}).unwrap().residue;
    plan.steps.iter().flat_map(run).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn who_reads_a_damaged_journal_is_told_the_line_and_what_to_do() {
    let machine = Machine::new();
    let line = machine.damage("\"step\":\"replaced\"");
    let agent = machine.agent("install");
    let error = agent.ownership().unwrap_err().diagnosis();
    assert_eq!(error.code, Code::Journal);
    assert_eq!(error.causes, [format!("line {line} of the journal is damaged")]);
    assert!(
        error.next.iter().any(|n| n.starts_with("landfall journal repair")),
        "{error:?}"
    );
}

#[test]
fn looking_changes_nothing_and_a_repair_needs_the_lease_and_keeps_the_damaged_journal() {
    let machine = Machine::new();
    let line = machine.damage("\"record\":\"intent\",\"run\":\"run-1\",\"step\":\"new\"");
    let (damaged, files) = (read(&machine.journal()), machine.state_files());
    let visitor = Agent::new(Host::under(machine.0.path()));
    let seen = visitor.read_journal(&[]).unwrap();
    assert_eq!(
        (seen.lost.len(), seen.lost[0].line, seen.own.entries.len()),
        (1, line, 3)
    );
    assert!(
        visitor.repair_journal(&[]).is_err(),
        "without the lease nothing is written"
    );
    assert_eq!(
        (read(&machine.journal()), machine.state_files()),
        (damaged.clone(), files)
    );

    let agent = machine.agent(JOURNAL_REPAIR);
    let repaired = agent.repair_journal(&[]).unwrap();
    let kept = repaired.kept.clone().unwrap();
    assert_eq!(kept, machine.journal().with_extension("damaged-1"));
    assert_eq!(read(&kept), damaged);
    let own = replay(&parse_journal(read(&machine.journal()).as_bytes()).unwrap()).unwrap();
    assert_eq!(own, seen.own);
    assert_eq!(own, agent.ownership().unwrap());
    let files = ["journal.damaged-1", "journal.jsonl", "journal.reserve", "prior"];
    assert!(
        machine.state_files().iter().eq(files),
        "no part of a file is left: {:?}",
        machine.state_files()
    );
    let again = agent.repair_journal(&[]).unwrap();
    assert_eq!(
        (again.kept, again.lost.len()),
        (None, 0),
        "a good journal stays as it is"
    );
}

#[test]
fn a_lost_undo_is_named_by_one_undo_and_counts_as_gone_for_the_next() {
    let machine = Machine::new();
    let line = machine.damage("\"record\":\"intent\",\"run\":\"run-1\",\"step\":\"new\"");
    machine.agent(JOURNAL_REPAIR).repair_journal(&[]).unwrap();
    let agent = machine.agent("uninstall");
    let residue = undo_all(&agent);
    assert_eq!(residue.len(), 1, "{residue:?}");
    let named = ["new: ", &format!("line {line} of the journal"), "/etc/new"];
    assert!(named.iter().all(|text| residue[0].contains(text)), "{residue:?}");
    assert_eq!(
        read(&machine.at("etc/replaced")),
        "theirs\n",
        "the others are taken back"
    );
    assert_eq!(read(&machine.at("etc/hosts")), "theirs\n");
    assert!(machine.at("etc/new").exists(), "what nobody knows is not touched");
    let own = agent.ownership().unwrap();
    assert_eq!((own.entries.len(), own.entries[0].state), (1, EntryState::Residue));
    assert!(blobs::tidy(&agent).is_ok() && machine.journal().exists());

    assert_eq!(undo_all(&agent), [""; 0], "the user was told to look at it");
    blobs::tidy(&agent).unwrap();
    assert!(
        !machine.at("var/lib/landfall").exists(),
        "with everything else the damaged journal goes: {:?}",
        machine.state_files()
    );
}

#[test]
fn an_undo_that_is_killed_before_it_could_name_what_is_lost_names_it_the_next_time() {
    let machine = Machine::new();
    machine.damage("\"record\":\"intent\",\"run\":\"run-1\",\"step\":\"new\"");
    machine.agent(JOURNAL_REPAIR).repair_journal(&[]).unwrap();
    let agent = machine.agent("uninstall");
    let steps = STEPS.map(|id| id.parse().unwrap()).to_vec();
    assert!(run(&agent, "begin", Action::BeginUndo { steps }).is_empty());
    drop(agent);
    let agent = machine.agent("uninstall");
    assert_eq!(undo_all(&agent).len(), 1);
}

#[test]
fn kept_contents_stay_while_a_lost_line_may_have_named_them() {
    let machine = Machine::new();
    machine.damage("\"record\":\"intent\",\"run\":\"run-1\",\"step\":\"replaced\"");
    let agent = machine.agent(JOURNAL_REPAIR);
    let own = agent.repair_journal(&[]).unwrap().own;
    assert!(own.newest(&"replaced".parse().unwrap()).unwrap().undo.is_lost());
    blobs::tidy(&agent).unwrap();
    let kept: Vec<_> = std::fs::read_dir(machine.at("var/lib/landfall/prior"))
        .unwrap()
        .map(|e| read(&e.unwrap().path()))
        .collect();
    assert_eq!(kept, ["theirs\n"]);
}

#[test]
fn a_step_whose_undo_is_lost_is_done_again_where_it_is_not_as_wanted() {
    let machine = Machine::new();
    machine.damage("\"record\":\"intent\",\"run\":\"run-1\",\"step\":\"new\"");
    machine.agent(JOURNAL_REPAIR).repair_journal(&[]).unwrap();
    let agent = machine.agent("install");
    let action = |text: &str| Action::File {
        path: "/etc/new".into(),
        mode: 0o644,
        content: Content::Text(text.to_owned()),
    };
    let before = read(&machine.journal());
    run(&agent, "new", action("ours\n"));
    assert_eq!(read(&machine.journal()), before, "it is as wanted");
    run(&agent, "new", action("newer\n"));
    assert_eq!(read(&machine.at("etc/new")), "newer\n");
    assert_eq!(undo_all(&agent).len(), 1, "the older one is named all the same");
    assert_eq!(read(&machine.at("etc/new")), "ours\n");
}
