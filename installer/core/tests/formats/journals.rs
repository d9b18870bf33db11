//! The journal of version 2.

use crate::must_be_all;
use landfall_core::action::{Undo, Wanted};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::journal::{EntryState, JOURNAL_VERSION, JournalError, Record, parse_journal, replay};
use landfall_core::journal::{render_line, repair};
use landfall_core::quorum::MemberId;

const JOURNAL: &str = include_str!("../../../../tests/fixtures/formats/journal-2.jsonl");

fn record_kind(record: &Record) -> &'static str {
    match record {
        Record::RunStarted(_) => "run-started",
        Record::Cluster(_) => "cluster",
        Record::Intent { .. } => "intent",
        Record::Done { .. } => "done",
        Record::Failed { .. } => "failed",
        Record::UndoStarted { .. } => "undo-started",
        Record::Undone { .. } => "undone",
        Record::UndoFailed { .. } => "undo-failed",
        Record::RunFinished { .. } => "run-finished",
    }
}

fn undo_kind(undo: &Undo) -> &'static str {
    match undo {
        Undo::Nothing => "nothing",
        Undo::RestorePath { .. } => "restore-path",
        Undo::RemoveDirectory { .. } => "remove-directory",
        Undo::RemoveHostsLines { .. } => "remove-hosts-lines",
        Undo::KubeconfigServer { .. } => "kubeconfig-server",
        Undo::RestoreSysctls { .. } => "restore-sysctls",
        Undo::UnloadModules { .. } => "unload-modules",
        Undo::Firewall { .. } => "firewall",
        Undo::RestoreUnit { .. } => "restore-unit",
        Undo::RemoveImages { .. } => "remove-images",
        Undo::RemoveClaims { .. } => "remove-claims",
        Undo::RestoreObjects { .. } => "restore-objects",
        Undo::Lost { .. } => "lost",
    }
}

fn wanted_kind(wanted: &Wanted) -> &'static str {
    match wanted {
        Wanted::Directory { .. } => "directory",
        Wanted::File { .. } => "file",
        Wanted::HostsLines(_) => "hosts-lines",
        Wanted::Sysctls(_) => "sysctls",
        Wanted::Modules(_) => "modules",
        Wanted::Firewall(_) => "firewall",
        Wanted::Unit { .. } => "unit",
        Wanted::Images(_) => "images",
    }
}

#[test]
fn every_kind_of_line_is_written_as_it_was_read() {
    let records = parse_journal(JOURNAL.as_bytes()).unwrap();
    for (record, line) in records.iter().zip(JOURNAL.split_inclusive('\n')) {
        assert_eq!(render_line(record), line);
    }
    must_be_all(records.iter().map(record_kind), 9);
    let trust = |record: &Record| match record {
        Record::Cluster(cluster) => Some(cluster.trust.is_some()),
        _ => None,
    };
    // Records of clusters that never saw a signed bundle have no keys.
    let trust: Vec<bool> = records.iter().filter_map(trust).collect();
    assert!(trust.contains(&true) && trust.contains(&false));
    let together = |record: &Record| matches!(record, Record::Cluster(cluster) if cluster.founders().count() == 2);
    assert!(
        records.iter().any(together),
        "control planes that founded a cluster together"
    );
    let intents = records.iter().filter_map(|record| match record {
        Record::Intent { undo, wanted, .. } => Some((undo, wanted)),
        _ => None,
    });
    must_be_all(intents.clone().map(|(undo, _)| undo_kind(undo)), 13);
    must_be_all(intents.filter_map(|(_, wanted)| wanted.as_ref().map(wanted_kind)), 8);
}

#[test]
fn it_says_what_is_ours_which_runs_there_were_and_what_the_cluster_is() {
    let own = replay(&parse_journal(JOURNAL.as_bytes()).unwrap()).unwrap();
    let image = own.newest(&"images/cp-1".parse().unwrap()).unwrap();
    assert_eq!((own.entries.len(), image.state), (14, EntryState::Residue));
    let runs: Vec<_> = own
        .runs
        .iter()
        .map(|run| (run.start.number, run.outcome.as_deref()))
        .collect();
    let started = |number| (Some(number), None);
    assert_eq!(runs, [(Some(1), Some("done")), started(2), started(3), started(4)]);
    assert_eq!(own.runs[2].start.takes_back, [2, 1]);
    let kept = &own.open_run().unwrap().findings;
    let kept: Vec<_> = kept.iter().map(|f| (f.id.as_str(), f.accepted)).collect();
    assert_eq!(kept, [("sysctl-later", false), ("disk", true)]);
    let record = own.record().unwrap();
    assert_eq!((record.sequence.run, record.sequence.revision), (1, 2));
    assert_eq!(record.founder().unwrap().as_str(), "cp-1");
    let member = &record.members[record.founder().unwrap()];
    assert_eq!(member.etcd_id, Some(MemberId(0x8211_f1d0_f64f_3269)));
}

#[test]
fn a_line_of_a_newer_version_is_refused_with_what_to_do() {
    let last = JOURNAL.lines().last().unwrap();
    let newer = last.replacen(
        &format!(" {JOURNAL_VERSION} "),
        &format!(" {} ", JOURNAL_VERSION + 1),
        1,
    );
    let journal = format!("{JOURNAL}{newer}\n");
    let refusal = JournalError::Version {
        found: JOURNAL_VERSION + 1,
    };
    let error = parse_journal(journal.as_bytes()).unwrap_err();
    assert_eq!(error, refusal);
    assert_eq!(
        repair::repair(journal.as_bytes(), &[]),
        Err(refusal),
        "it is not repaired either"
    );
    let diagnosis = Diagnosis::from(&error);
    assert_eq!(diagnosis.code, Code::Journal);
    assert!(diagnosis.causes[0].contains("version 3"), "{diagnosis:?}");
    assert_eq!(diagnosis.next, ["use the landfall that wrote it, or a newer one"]);
}
