//! Compares two outcomes and returns the differences as lines.

use super::exchange::{Answer, End, Outcome};
use super::recorder::{Seen, shown};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Values that always differ and are not compared: times, names of programs and of requests, fields of kept connections, landfall's own
/// hop counter (tested in `ingress/proxy/src/headers/tests.rs`).
const LEFT_OUT: [&str; 7] = [
    "date",
    "server",
    "x-request-id",
    "connection",
    "keep-alive",
    "x-endpoint",
    "x-landfall-hops",
];
/// Part of the body's own lines.
const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];
/// Longest value that is shown whole.
const SHOWN: usize = 120;

/// One difference: what, here, there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    pub peer: String,
    pub case: String,
    pub aspect: String,
    pub ours: String,
    pub theirs: String,
}

/// All differences of one case. What requests and answers are like is compared where both proxies have as many of them.
pub fn differences(case: &str, peer: &str, ours: &Outcome, theirs: &Outcome) -> Vec<Difference> {
    let requests = ours.seen.len() == theirs.seen.len();
    let answers = endpoints(ours).count() == endpoints(theirs).count();
    let (ours, theirs) = (aspects(ours), aspects(theirs));
    let mut found = Vec::new();
    for (aspect, mine) in &ours {
        let other = &theirs[aspect];
        let comparable = match *aspect {
            "fields" | "body" => requests,
            "answer" | "answer-fields" => answers,
            _ => true,
        };
        if comparable && mine != other {
            found.push(Difference {
                peer: peer.to_owned(),
                case: case.to_owned(),
                aspect: (*aspect).to_owned(),
                ours: without(mine, other),
                theirs: without(other, mine),
            });
        }
    }
    found
}

/// Answers that an endpoint gave.
fn endpoints(outcome: &Outcome) -> impl Iterator<Item = &Answer> {
    outcome
        .answers
        .iter()
        .filter(|answer| answer.field("x-endpoint").is_some())
}

/// Lines that the other has not, in one.
fn without(lines: &[String], other: &[String]) -> String {
    let mut other: Vec<_> = other.iter().collect();
    let mut left = Vec::new();
    for line in lines {
        match other.iter().position(|o| *o == line) {
            Some(at) => drop(other.remove(at)),
            None => left.push(line.as_str()),
        }
    }
    match left.is_empty() {
        true => "-".to_owned(),
        false => left.join("; "),
    }
}

fn aspects(outcome: &Outcome) -> BTreeMap<&'static str, Vec<String>> {
    let statuses: Vec<_> = outcome.answers.iter().map(|answer| answer.status.to_string()).collect();
    let end = match outcome.end {
        End::Kept => "kept",
        End::Closed => "closed",
        End::Waits => "waits",
    };
    let seen = &outcome.seen;
    BTreeMap::from([
        // One line, for its parts mean nothing by themselves.
        (
            "status",
            vec![if statuses.is_empty() {
                "none".to_owned()
            } else {
                statuses.join(" ")
            }],
        ),
        ("connection", vec![end.to_owned()]),
        (
            "request",
            seen.iter()
                .map(|seen| format!("{}: {}", seen.endpoint, brief(&seen.line)))
                .collect(),
        ),
        ("fields", seen.iter().flat_map(fields).collect()),
        ("body", seen.iter().map(body).collect()),
        ("answer", endpoints(outcome).map(framed).collect()),
        ("answer-fields", endpoints(outcome).flat_map(answer_fields).collect()),
        ("tunnel", vec![shown(&outcome.tunnel)]),
    ])
}

fn fields(seen: &Seen) -> Vec<String> {
    let pairs = seen.fields.iter().map(|field| match field.split_once(':') {
        Some((name, value)) => (name.to_ascii_lowercase(), value.trim()),
        None => (field.clone(), ""),
    });
    by_name(pairs.filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()) && !FRAMING.contains(&name.as_str())))
}

/// The order of fields means nothing, but among those of one name.
fn by_name<'a>(pairs: impl Iterator<Item = (String, &'a str)>) -> Vec<String> {
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs
        .iter()
        .map(|(name, value)| brief(format!("{name}: {value}").trim_end()))
        .collect()
}

fn body(seen: &Seen) -> String {
    let mut text = format!("{} {}", seen.framing, brief(&shown(&seen.body)));
    for trailer in &seen.trailers {
        let _ = write!(text, " + {}", trailer.to_ascii_lowercase());
    }
    text.trim_end().to_owned()
}

fn framed(answer: &Answer) -> String {
    format!("{} {} {}", answer.version, answer.framing, brief(&shown(&answer.body)))
        .trim_end()
        .to_owned()
}

fn answer_fields(answer: &Answer) -> Vec<String> {
    let kept = answer.fields.iter().filter(|(name, _)| {
        // Of an answer without a body its length is all there is.
        let framing = FRAMING.contains(&name.as_str()) && answer.framing != "none";
        !framing && !LEFT_OUT.contains(&name.as_str())
    });
    by_name(kept.map(|(name, value)| (name.clone(), value.as_str())))
}

/// Long values by their beginning and length.
fn brief(text: &str) -> String {
    match text.get(..SHOWN) {
        Some(start) if text.len() > SHOWN => format!("{start}... ({} characters)", text.len()),
        _ => text.to_owned(),
    }
}
