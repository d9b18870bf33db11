//! From rounds to figures: medians, one JSON object, one table.

use anyhow::{Context, Result};
use landfall_lab::hand::Lap;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// What one installation by landfall showed.
pub struct LandfallRun {
    /// Install to verified.
    pub took: Duration,
    /// The same again, with nothing to do but verify.
    pub rerun: Duration,
    /// Uninstall.
    pub uninstall: Duration,
    /// Peak memory of the first install.
    pub rss_kib: u64,
    /// What the journal of a control plane takes, written once more.
    pub journal: Duration,
    /// Its `install.json`.
    pub report: Value,
    /// That of the second install.
    pub rerun_report: Value,
    /// Names of control planes.
    pub control_planes: Vec<String>,
    /// Names of workers.
    pub workers: Vec<String>,
}

/// What one installation by hand showed.
pub struct HandRun {
    /// All of it.
    pub took: Duration,
    /// Its parts.
    pub laps: Vec<Lap>,
}

/// One run of each.
pub struct Round {
    /// landfall's.
    pub landfall: LandfallRun,
    /// The script's.
    pub hand: HandRun,
}

/// Named figures in the order in which they first came up.
type Named = Vec<(String, f64)>;

/// Medians of all rounds; `date` is when they ended.
pub fn summarise(rounds: &[Round], date: &str) -> Result<Value> {
    let seconds = |of: fn(&Round) -> Duration| median(rounds.iter().map(|r| of(r).as_secs_f64()).collect());
    let (landfall, hand) = (seconds(|r| r.landfall.took), seconds(|r| r.hand.took));
    let laps = |round: &Round| {
        let laps = round.hand.laps.iter();
        laps.map(|lap| (lap.name.clone(), lap.took.as_secs_f64())).collect()
    };
    let rerun_phases: Result<Vec<Named>> = rounds.iter().map(|r| phases(&r.landfall.rerun_report)).collect();
    let journal = seconds(|r| r.landfall.journal);
    let phases: Result<Vec<Named>> = rounds.iter().map(|r| phases(&r.landfall.report)).collect();
    let stages: Result<Vec<(Named, Named)>> = rounds.iter().map(|r| stages(&r.landfall.report)).collect();
    let (starts, ends): (Vec<_>, Vec<_>) = stages?.into_iter().unzip();
    let (starts, ends) = (medians(&starts), medians(&ends));
    let spans: Map<String, Value> = starts
        .iter()
        .map(|(name, from)| {
            let to = ends.get(name).cloned().unwrap_or_default();
            (name.clone(), json!({ "from_s": from, "to_s": to }))
        })
        .collect();
    Ok(json!({
        "landfall_s": rounded(landfall, 2),
        "hand_s": rounded(hand, 2),
        "ratio": rounded(landfall / hand, 3),
        "rerun_s": rounded(seconds(|r| r.landfall.rerun), 2),
        "journal_s": rounded(journal, 3),
        "journal_share": rounded(journal / landfall, 4),
        "uninstall_s": rounded(seconds(|r| r.landfall.uninstall), 2),
        "operator_rss_mib": rounded(median(rounds.iter().map(|r| r.landfall.rss_kib as f64 / 1024.0).collect()), 1),
        "bytes_sent": {
            "control_plane": bytes_sent(rounds, |run| &run.control_planes)?,
            "worker": bytes_sent(rounds, |run| &run.workers)?,
        },
        "phases": {
            "landfall": medians(&phases?),
            "landfall_rerun": medians(&rerun_phases?),
            "hand": medians(&rounds.iter().map(laps).collect::<Vec<_>>()),
        },
        "landfall_stages": spans,
        "rounds": rounds.len(),
        "date": date,
    }))
}

/// Seconds of each phase; one that comes twice counts with both.
fn phases(report: &Value) -> Result<Named> {
    let mut named = Named::new();
    for phase in report["phases"].as_array().context("install.json has no phases")? {
        let name = phase["phase"].as_str().context("a phase has no name")?;
        let took = millis(&phase["durationMs"])? / 1000.0;
        match named.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += took,
            None => named.push((name.to_owned(), took)),
        }
    }
    Ok(named)
}

/// Seconds of one phase.
pub fn phase_seconds(report: &Value, phase: &str) -> Result<f64> {
    let found = phases(report)?.into_iter().find(|(name, _)| name == phase);
    found
        .map(|(_, seconds)| seconds)
        .with_context(|| format!("the report has no phase {phase}"))
}

/// When the first node began with a stage and when the last one was done, in seconds since the first phase; stages overlap.
fn stages(report: &Value) -> Result<(Named, Named)> {
    let begin = millis(&report["phases"][0]["startMs"])?;
    let mut spans: Vec<(String, f64, f64)> = Vec::new();
    let nodes = report["nodes"].as_object().context("install.json has no nodes")?;
    for (name, stage) in nodes.values().filter_map(Value::as_object).flatten() {
        let from = (millis(&stage["startMs"])? - begin) / 1000.0;
        let to = from + millis(&stage["durationMs"])? / 1000.0;
        match spans.iter_mut().find(|(known, ..)| known == name) {
            Some((_, first, last)) => (*first, *last) = (first.min(from), last.max(to)),
            None => spans.push((name.clone(), from, to)),
        }
    }
    spans.sort_by(|a, b| a.1.total_cmp(&b.1));
    Ok(spans
        .into_iter()
        .map(|(name, from, to)| ((name.clone(), from), (name, to)))
        .unzip())
}

fn millis(value: &Value) -> Result<f64> {
    value.as_f64().context("install.json lacks a time")
}

fn bytes_sent(rounds: &[Round], names: impl Fn(&LandfallRun) -> &[String]) -> Result<u64> {
    let mut all = Vec::new();
    for round in rounds {
        for name in names(&round.landfall) {
            let bytes = round.landfall.report["bytesSent"][name].as_f64();
            all.push(bytes.with_context(|| format!("install.json does not say what {name} was sent"))?);
        }
    }
    Ok(median(all) as u64)
}

/// The median of each name over all rounds that have it.
fn medians(rounds: &[Named]) -> Map<String, Value> {
    let mut by_name: Vec<(&str, Vec<f64>)> = Vec::new();
    for (name, value) in rounds.iter().flatten() {
        match by_name.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(*value),
            None => by_name.push((name, vec![*value])),
        }
    }
    let entries = by_name.into_iter();
    entries
        .map(|(name, values)| (name.to_owned(), rounded(median(values), 2)))
        .collect()
}

/// The median; of an even number the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    let at = |i: usize| values.get(i).copied().unwrap_or_default();
    f64::midpoint(at(low), at(high))
}

pub fn rounded(value: f64, digits: i32) -> Value {
    let scale = 10_f64.powi(digits);
    json!((value * scale).round() / scale)
}

/// The figures for people.
pub fn table(figures: &Value) -> String {
    let mut text = format!(
        "\nmedians, rounds: {}, {}\n  landfall, install to verified  {} s\n  by hand                        {} s\n  \
         ratio                          {}\n  install again, with verify     {} s\n  a control plane's journal      {} s, {} of the install\n  uninstall                      {} s\n  \
         operator's peak memory         {} MiB\n  sent to a control plane        {} bytes\n  sent to a worker               {} bytes\n",
        figures["rounds"],
        figures["date"].as_str().unwrap_or_default(),
        figures["landfall_s"],
        figures["hand_s"],
        figures["ratio"],
        figures["rerun_s"],
        figures["journal_s"],
        figures["journal_share"],
        figures["uninstall_s"],
        figures["operator_rss_mib"],
        figures["bytes_sent"]["control_plane"],
        figures["bytes_sent"]["worker"],
    );
    let mut list = |title: &str, values: &Value, cell: fn(&Value) -> String| {
        text.push_str(title);
        text.push('\n');
        for (name, value) in values.as_object().into_iter().flatten() {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "  {name:<24} {}", cell(value));
        }
    };
    let seconds: fn(&Value) -> String = |value| format!("{value} s");
    list("landfall, phase by phase", &figures["phases"]["landfall"], seconds);
    list(
        "landfall again, phase by phase",
        &figures["phases"]["landfall_rerun"],
        seconds,
    );
    list(
        "landfall, stages of its phase execute (they overlap)",
        &figures["landfall_stages"],
        |span| format!("{} s to {} s", span["from_s"], span["to_s"]),
    );
    list("by hand, phase by phase", &figures["phases"]["hand"], seconds);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(landfall_s: u64, hand_s: u64) -> Round {
        let stage = |start: u64, took: u64| json!({ "startMs": start, "durationMs": took, "changes": 1, "bytes": 0 });
        Round {
            landfall: LandfallRun {
                took: Duration::from_secs(landfall_s),
                rerun: Duration::from_secs(2),
                uninstall: Duration::from_secs(9),
                rss_kib: 40 * 1024,
                journal: Duration::from_millis(300),
                rerun_report: json!({ "phases": [{ "phase": "verify", "startMs": 0, "durationMs": 1500 }] }),
                report: json!({
                    "phases": [
                        { "phase": "connect", "startMs": 1000, "durationMs": 500 },
                        { "phase": "verify", "startMs": 9000, "durationMs": landfall_s * 10 },
                        { "phase": "verify", "startMs": 9500, "durationMs": landfall_s * 10 },
                    ],
                    "nodes": {
                        "cp-1": { "prepare": stage(2000, 1000), "images": stage(2500, 1000) },
                        "w-1": { "prepare": stage(1500, 3000) },
                    },
                    "bytesSent": { "cp-1": 30, "w-1": 10 },
                }),
                control_planes: vec!["cp-1".to_owned()],
                workers: vec!["w-1".to_owned()],
            },
            hand: HandRun {
                took: Duration::from_secs(hand_s),
                laps: vec![Lap {
                    name: "staged".to_owned(),
                    took: Duration::from_secs(1),
                }],
            },
        }
    }

    #[test]
    fn figures_are_medians_of_all_rounds() {
        let figures = summarise(&[round(50, 100), round(90, 130), round(60, 120)], "today").unwrap();
        assert_eq!(figures["landfall_s"], 60.0);
        assert_eq!(figures["hand_s"], 120.0);
        assert_eq!(figures["ratio"], 0.5);
        assert_eq!(figures["operator_rss_mib"], 40.0);
        assert_eq!(figures["bytes_sent"], json!({ "control_plane": 30, "worker": 10 }));
        assert_eq!(figures["phases"]["landfall"], json!({ "connect": 0.5, "verify": 1.2 }));
        assert_eq!(figures["phases"]["landfall_rerun"], json!({ "verify": 1.5 }));
        assert_eq!(
            (&figures["journal_s"], &figures["journal_share"]),
            (&json!(0.3), &json!(0.005))
        );
        assert_eq!(figures["phases"]["hand"], json!({ "staged": 1.0 }));
        let prepare = json!({ "from_s": 0.5, "to_s": 3.5 });
        assert_eq!(figures["landfall_stages"]["prepare"], prepare);
        assert_eq!(figures["rounds"], 3);
        assert!(table(&figures).contains("ratio                          0.5\n"));
    }

    #[test]
    fn an_even_number_of_rounds_has_a_median_too() {
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
