use super::*;
use crate::action::Prior;
use crate::cluster_record::tests::record as cluster_record;
use crate::journal::{parse_journal, replay};
use proptest::prelude::*;

fn start(run: &str, number: Option<u64>) -> RunStart {
    RunStart {
        run: run.parse().unwrap(),
        number,
        command: INSTALL.to_owned(),
        owner: "ann@desk".to_owned(),
        at_ms: 1_795_842_000_000,
        cluster: "ship".to_owned(),
        continues: None,
        takes_back: vec![],
        bundle: Some("Kubernetes v1.37.2, index 00".to_owned()),
        findings: vec![],
    }
}

fn begin(run: &str, number: u64) -> Record {
    Record::RunStarted(start(run, Some(number)))
}

fn undo_of(step: &str) -> Undo {
    Undo::RestorePath {
        path: format!("/etc/{step}").into(),
        prior: Prior::Absent,
    }
}

fn step_of(run: &str, step: &str) -> Record {
    Record::Intent {
        run: run.parse().unwrap(),
        step: step.parse().unwrap(),
        action: Digest::of(step.as_bytes()),
        undo: undo_of(step),
        wanted: None,
    }
}

fn done(step: &str) -> Record {
    Record::Done {
        step: step.parse().unwrap(),
        stamp: None,
    }
}

fn undo_started(step: &str) -> Record {
    Record::UndoStarted {
        step: step.parse().unwrap(),
    }
}

fn undone(step: &str) -> Record {
    Record::Undone {
        step: step.parse().unwrap(),
    }
}

fn finished(run: &str, outcome: &str) -> Record {
    Record::RunFinished {
        run: run.parse().unwrap(),
        outcome: outcome.to_owned(),
    }
}

/// Renders a journal and damages some lines, one-based: they do not have their checksum any more.
fn damaged(records: &[Record], lines: &[usize]) -> Vec<u8> {
    let render = |(n, record): (usize, &Record)| {
        let mut line = render_line(record).into_bytes();
        if lines.contains(&(n + 1)) {
            line[3] ^= 1;
        }
        line
    };
    records.iter().enumerate().flat_map(render).collect()
}

/// Repairs a journal in which these lines are damaged, and returns its entries: step, state, and whether the undo is lost.
fn repaired(records: &[Record], lines: &[usize]) -> (Repair, Vec<(String, EntryState, bool)>) {
    let text = damaged(records, lines);
    assert!(parse_journal(&text).is_err());
    let repair = repair(&text, &[]).unwrap();
    let again = replay(&parse_journal(&repair.text).unwrap()).unwrap();
    assert_eq!(again, repair.reading.own, "what was written is what is said");
    let entry = |e: &crate::journal::Entry| (e.step.to_string(), e.state, matches!(e.undo, Undo::Lost { .. }));
    let entries = again.entries.iter().map(entry).collect();
    (repair, entries)
}

fn lines_of(repair: &Repair) -> Vec<(usize, &str)> {
    let lost = repair.reading.lost.iter();
    lost.map(|lost| (lost.line, lost.unknown.as_str())).collect()
}

use EntryState::{Intended, Owned, Undoing};

#[test]
fn a_good_journal_is_unchanged_apart_from_a_torn_last_line() {
    let records = [begin("r1", 1), step_of("r1", "a"), done("a"), finished("r1", DONE)];
    let whole: Vec<u8> = records.iter().flat_map(|r| render_line(r).into_bytes()).collect();
    let found = repair(&whole, &[]).unwrap();
    assert_eq!((&found.text, found.reading.lost.len()), (&whole, 0));
    let torn = &whole[..whole.len() - 5];
    let found = repair(torn, &[]).unwrap();
    assert!(whole.starts_with(&found.text) && found.reading.lost.is_empty());
    assert_eq!(found.reading.own.open_run().unwrap().number, Some(1));
}

#[test]
fn a_lost_intent_is_inferred_from_the_end_of_its_step_without_its_undo() {
    let records = [
        begin("r1", 1),
        step_of("r1", "a"),
        step_of("r1", "b"),
        done("a"),
        done("b"),
        finished("r1", DONE),
    ];
    let (repair, entries) = repaired(&records, &[2]);
    assert_eq!(entries, [("b".into(), Owned, false), ("a".into(), Owned, true)]);
    assert_eq!(lines_of(&repair), [(2, "how the step a is undone")]);
    let lost = repair.reading.own.newest(&"a".parse().unwrap()).unwrap();
    assert_eq!(lost.run.as_str(), "r1");
    let Undo::Lost { line: 2, seen } = &lost.undo else {
        panic!("{lost:?}")
    };
    assert!(seen.contains("/etc/a"), "people can see where to look: {seen}");
}

#[test]
fn a_lost_intent_without_other_records_becomes_an_entry_of_its_line() {
    let records = [begin("r1", 1), step_of("r1", "a"), step_of("r1", "b"), done("b")];
    let (repair, entries) = repaired(&records, &[2]);
    assert_eq!(
        entries,
        [("b".into(), Owned, false), ("lost-line/2".into(), Owned, true)]
    );
    assert_eq!(
        lines_of(&repair),
        [(2, "whether it recorded a step, and how that is undone")]
    );
}

#[test]
fn a_lost_end_of_a_step_is_inferred_from_the_run_or_the_next_attempt() {
    let run = [
        begin("r1", 1),
        step_of("r1", "a"),
        done("a"),
        step_of("r1", "b"),
        done("b"),
        finished("r1", DONE),
    ];
    let (_, entries) = repaired(&run, &[3, 5]);
    assert_eq!(entries, [("a".into(), Owned, false), ("b".into(), Owned, false)]);
    let (repair, entries) = repaired(&run[..5], &[3]);
    assert_eq!(
        entries,
        [("a".into(), Intended, false), ("b".into(), Owned, false)],
        "of a run that did not end it may be interrupted"
    );
    assert!(lines_of(&repair)[0].1.starts_with("which step was done"));
    let again = [
        begin("r1", 1),
        step_of("r1", "a"),
        done("a"),
        begin("r2", 2),
        step_of("r2", "a"),
    ];
    let (_, entries) = repaired(&again, &[3]);
    assert_eq!(entries, [("a".into(), Owned, false), ("a".into(), Intended, false)]);
}

#[test]
fn lost_lines_of_an_undo_are_inferred_or_it_is_run_again() {
    let records = [
        begin("r1", 1),
        step_of("r1", "a"),
        done("a"),
        undo_started("a"),
        undone("a"),
        step_of("r1", "a"),
    ];
    let (_, entries) = repaired(&records, &[4]);
    assert_eq!(entries, [("a".into(), Intended, false)]);
    let (_, entries) = repaired(&records, &[5]);
    assert_eq!(entries, [("a".into(), Intended, false)]);
    let (_, entries) = repaired(&records[..5], &[4]);
    assert_eq!(entries, []);
    let text = damaged(&[&records[..5], &[begin("r2", 2)]].concat(), &[5]);
    let own = repair(&text, &[]).unwrap().reading.own;
    assert_eq!(own.entries[0].state, Undoing);
    let (repair, entries) = repaired(&records[..5], &[2]);
    assert_eq!(entries, [], "its intent is lost, and it has been undone since");
    assert_eq!(
        lines_of(&repair),
        [(2, "how the step a was to be undone; it was undone later")]
    );
}

#[test]
fn a_lost_start_of_a_run_is_taken_from_other_journals_or_from_the_record() {
    let records = [
        begin("r1", 1),
        finished("r1", DONE),
        begin("r2", 5),
        Record::Cluster(Box::new(cluster_record(1, 5, 0))),
        step_of("r2", "a"),
        done("a"),
    ];
    let text = damaged(&records, &[3]);
    let other = start("r2", Some(5));
    let found = repair(&text, std::slice::from_ref(&other)).unwrap();
    assert_eq!(found.reading.own.open_run(), Some(&other));
    let alone = repair(&text, &[]).unwrap();
    let run = alone.reading.own.open_run().unwrap();
    assert_eq!(
        (run.run.as_str(), run.number, run.cluster.as_str()),
        ("r2", Some(5), "ship")
    );
    assert_eq!(lines_of(&alone), [(3, "the start of a run")]);
}

#[test]
fn a_journal_with_intact_lines_and_illegal_transitions_is_repaired_too() {
    let records = [begin("r1", 1), done("a")];
    let text: Vec<u8> = records.iter().flat_map(|r| render_line(r).into_bytes()).collect();
    let repair = repair(&text, &[]).unwrap();
    assert!(matches!(repair.reading.own.entries[0].undo, Undo::Lost { line: 2, .. }));
}

#[test]
fn text_that_is_no_record_is_not_shown_and_a_newer_journal_is_refused() {
    let mut text = render_line(&begin("r1", 1)).into_bytes();
    text.extend(b"root:$6$secret\x1b[2J\n");
    text.extend(render_line(&step_of("r1", "a")).into_bytes());
    let found = repair(&text, &[]).unwrap();
    let lost = found.reading.own.newest(&"lost-line/2".parse().unwrap()).unwrap();
    assert_eq!(
        lost.undo,
        Undo::Lost {
            line: 2,
            seen: String::new()
        }
    );
    let line = render_line(&begin("r2", 2));
    let version = format!(" {} ", crate::journal::JOURNAL_VERSION);
    text.extend(line.replacen(&version, " 99 ", 1).into_bytes());
    assert_eq!(repair(&text, &[]), Err(JournalError::Version { found: 99 }));
}

/// Makes a legal history of a few steps and runs out of random choices.
fn history(choices: &[(u8, u8)]) -> Vec<Record> {
    let mut records = vec![begin("r1", 1)];
    let mut run = 1;
    for (n, op) in choices {
        let step = format!("step-{n}");
        let name = format!("r{run}");
        let record = match op {
            0..=2 => step_of(&name, &step),
            3..=5 => done(&step),
            6 => undo_started(&step),
            7 => undone(&step),
            8 => Record::UndoFailed {
                step: step.parse().unwrap(),
                why: "busy".to_owned(),
            },
            _ => {
                run += 1;
                begin(&format!("r{run}"), run)
            }
        };
        records.push(record);
        if replay(&records).is_err() {
            records.pop();
        }
    }
    records
}

proptest! {
    #[test]
    fn every_lost_undo_is_reported(
        choices in proptest::collection::vec((0u8..4, 0u8..10), 1..40),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..=255), 0..4),
    ) {
        let records = history(&choices);
        let before = replay(&records).unwrap();
        let mut text: Vec<u8> = records.iter().flat_map(|r| render_line(r).into_bytes()).collect();
        for (at, bits) in damage {
            // Without its last newline a line is torn, not damaged.
            let at = at.index(text.len() - 1);
            text[at] ^= bits;
        }
        let damaged = text.clone();
        let Ok(Repair { text, reading }) = repair(&text, &[]) else {
            // The version is not behind the checksum.
            return Ok(());
        };
        prop_assert_eq!(&replay(&parse_journal(&text).unwrap()).unwrap(), &reading.own);
        let lost: Vec<_> = reading.own.entries.iter().filter(|e| matches!(e.undo, Undo::Lost { .. })).collect();
        let missing = before.entries.iter().filter(|e| {
            !reading.own.entries.iter().any(|found| found.step == e.step && found.undo == e.undo)
        });
        prop_assert!(missing.count() == 0 || !lost.is_empty(), "{}", String::from_utf8_lossy(&damaged));
        prop_assert!(lost.is_empty() || !reading.lost.is_empty());
    }

    #[test]
    fn repairing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = repair(&bytes, &[]);
    }
}
