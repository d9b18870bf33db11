//! The nodes' journals.

use super::{cluster, cluster_json, date, plural};
use landfall_core::journal::repair::{JournalReading, LostLine};
use landfall_core::journal::{Entry, EntryState};
use landfall_core::name::NodeName;
use landfall_core::run_history::FleetRun;
use landfall_engine::run::Outcome;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Describes the journals for people: the cluster, its runs, and each node's steps, the oldest first.
pub fn journals(outcome: &Outcome) -> String {
    let mut text = String::new();
    let last = outcome.runs.last().map(|run| run.number);
    text.extend(outcome.record.as_ref().map(|record| cluster(record, last)));
    if !outcome.runs.is_empty() {
        text.push_str("runs\n");
        text.extend(outcome.runs.iter().map(run));
    }
    let numbers: BTreeMap<_, _> = outcome.runs.iter().map(|run| (&run.start.run, run.number)).collect();
    for (name, reading) in &outcome.journals {
        let entries = &reading.own.entries;
        text.push_str(&format!("{name}: {}\n", plural(entries.len(), "step")));
        for entry in entries {
            let run = numbers
                .get(&entry.run)
                .map_or_else(|| entry.run.to_string(), u64::to_string);
            text.push_str(&step(entry, &run));
        }
        text.push_str(&lost_lines(name, &reading.lost));
    }
    text
}

fn run(run: &FleetRun) -> String {
    let owner = Some(run.start.owner.as_str()).filter(|owner| !owner.is_empty());
    let steps: Vec<String> = run.steps.iter().map(|(node, n)| format!("{n} on {node}")).collect();
    let steps = if steps.is_empty() {
        String::new()
    } else {
        format!("; steps: {}", steps.join(", "))
    };
    let findings: String = run
        .start
        .findings
        .iter()
        .map(|f| format!("       went on with {f}\n"))
        .collect();
    format!(
        "  {}  {} by {}, {}: {}{steps}\n{findings}",
        run.number,
        run.start.command,
        owner.unwrap_or("an unknown user"),
        date(run.start.at_ms).unwrap_or_else(|| "at an unknown time".to_owned()),
        run.outcome.as_deref().unwrap_or("not finished")
    )
}

fn step(entry: &Entry, run: &str) -> String {
    let state = match entry.state {
        EntryState::Owned => "",
        EntryState::Intended => ", interrupted",
        EntryState::Undoing => ", taking it back was interrupted",
        EntryState::Residue => ", could not be undone",
    };
    format!(
        "  {} (run {run}{state})\n      undo: {}\n",
        entry.step,
        entry.undo.text()
    )
}

/// Lists what the damaged lines of a node's journal leave unknown.
pub fn lost_lines(node: &NodeName, lost: &[LostLine]) -> String {
    let line = |lost: &LostLine| format!("  {node}: line {} is damaged; not known: {}\n", lost.line, lost.unknown);
    lost.iter().map(line).collect()
}

/// The same as [`journals`] for machines.
pub fn journals_json(outcome: &Outcome) -> Value {
    let last = outcome.runs.last().map(|run| run.number);
    let node = |(name, reading): (&NodeName, &JournalReading)| {
        let value = json!({ "steps": reading.own.entries, "lost": reading.lost });
        (name.to_string(), value)
    };
    let run = |run: &FleetRun| {
        json!({
            "number": run.number,
            "run": run.start.run,
            "command": run.start.command,
            "owner": run.start.owner,
            "atMs": run.start.at_ms,
            "bundle": run.start.bundle,
            "findings": run.start.findings,
            "outcome": run.outcome,
            "steps": run.steps,
        })
    };
    json!({
        "event": "journal",
        "cluster": outcome.record.as_ref().map(|record| cluster_json(record, last)),
        "runs": outcome.runs.iter().map(run).collect::<Vec<_>>(),
        "nodes": outcome.journals.iter().map(node).collect::<Map<_, _>>(),
    })
}

/// What was lost on each node whose journal was damaged, and where the damaged one is kept; for machines.
pub fn repair_json(outcome: &Outcome) -> Value {
    let node = |(name, reading): (&NodeName, &JournalReading)| {
        let value = json!({ "lost": reading.lost, "kept": reading.kept });
        (name.to_string(), value)
    };
    let nodes = outcome.journals.iter().map(node).collect::<Map<_, _>>();
    json!({ "event": "journal-repair", "nodes": nodes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_core::journal::repair::repair;
    use landfall_core::run_history::RunHistory;

    /// What `journal show` gets of a node with the journal of the fixtures, in which one line is damaged.
    fn outcome() -> Outcome {
        let text = include_str!("../../../../tests/fixtures/formats/journal-2.jsonl");
        let damaged = text.replacen(
            "\"step\":\"hosts/cp-1\",\"action\"",
            "\"step\":\"hosts/cp-2\",\"action\"",
            1,
        );
        let reading = repair(damaged.as_bytes(), &[]).unwrap().reading;
        let node: NodeName = "cp-1".parse().unwrap();
        let owned = [(node.clone(), reading.own.clone())].into();
        Outcome {
            record: reading.own.record().cloned(),
            runs: RunHistory::of(&owned).unwrap().runs().to_vec(),
            journals: [(node, reading)].into(),
            ..Outcome::default()
        }
    }

    #[test]
    fn a_journal_is_shown_with_its_cluster_its_runs_and_every_undo() {
        insta::assert_snapshot!("journal", journals(&outcome()));
    }

    #[test]
    fn machines_get_the_cluster_the_runs_and_the_entries_as_journals_hold_them() {
        let outcome = outcome();
        let value = journals_json(&outcome);
        assert_eq!(
            (&value["event"], &value["cluster"]["lastRun"]),
            (&"journal".into(), &4.into())
        );
        let steps = &value["nodes"]["cp-1"]["steps"];
        assert_eq!(steps.as_array().unwrap().len(), 14);
        assert_eq!(steps[0]["undo"]["undo"], "remove-claims");
        assert_eq!(value["nodes"]["cp-1"]["lost"][0]["line"], 13);
        let cluster = serde_json::to_string_pretty(&value["cluster"]).unwrap();
        let runs = serde_json::to_string_pretty(&value["runs"]).unwrap();
        insta::assert_snapshot!("journal-json", format!("{cluster}\n{runs}"));
        assert_eq!(repair_json(&outcome)["nodes"]["cp-1"]["lost"][0]["line"], 13);
    }
}
