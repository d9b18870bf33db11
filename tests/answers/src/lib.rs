//! Questions to a cluster of three control planes and two workers, as the engine asks them. The lab puts them to a real cluster and the
//! simulation's tests to the model: both must give the answers in `recorded/`, which were written down from a real one.
//!
//! An answer is kept as far as the engine depends on it: status codes, reasons, what a dry run would change, who is a member.

mod api;
mod etcd;
mod script;

use anyhow::Result;
use script::Script;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// What `etcdctl` said.
#[derive(Debug)]
pub struct Ended {
    /// Whether it ended with status 0.
    pub ok: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// With which rights the API is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// The administrator's.
    Administrator,
    /// A token that nobody was given.
    UnknownToken,
}

/// A cluster that can be asked.
pub trait Cluster {
    /// Asks the API server by way of one control plane: method, path with query, body (JSON; of a PATCH, a server-side apply). Returns status
    /// and body, status 0 when there is no answer within 20 s.
    fn api(&self, by: &str, rights: Rights, method: &str, target: &str, body: Option<&Value>) -> Result<(u16, Value)>;

    /// Runs `etcdctl` in the etcd container of a control plane.
    fn etcdctl(&self, on: &str, args: &[&str]) -> Result<Ended>;
}

/// Answers by question.
pub type Answers = BTreeMap<String, Value>;

/// What the cluster is like when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// All machines are on.
    Healthy,
    /// cp-1 is off; its Node may still count as Ready.
    OneOff,
    /// cp-2 and cp-3 are off.
    NoQuorum,
}

impl Condition {
    /// The file in `recorded/` that holds the answers.
    fn file(self) -> &'static str {
        match self {
            Self::Healthy => "healthy.json",
            Self::OneOff => "one-off.json",
            Self::NoQuorum => "no-quorum.json",
        }
    }

    fn recorded(self) -> &'static str {
        match self {
            Self::Healthy => include_str!("../recorded/healthy.json"),
            Self::OneOff => include_str!("../recorded/one-off.json"),
            Self::NoQuorum => include_str!("../recorded/no-quorum.json"),
        }
    }
}

/// Asks all questions of a condition. Objects that questions make are gone afterwards, also when a question failed. Blocks until all are answered.
pub fn ask(cluster: &dyn Cluster, condition: Condition) -> Result<Answers> {
    let mut script = Script::new(cluster, if condition == Condition::OneOff { "cp-2" } else { "cp-1" });
    let asked = questions(&mut script, condition);
    let cleaned = match condition {
        Condition::Healthy => api::clean(&script),
        Condition::OneOff | Condition::NoQuorum => Ok(()),
    };
    asked?;
    cleaned?;
    Ok(script.answers())
}

fn questions(script: &mut Script<'_>, condition: Condition) -> Result<()> {
    match condition {
        Condition::Healthy => {
            api::objects(script)?;
            api::deletion(script)?;
            api::fixed_fields(script)?;
            api::nodes_and_pods(script)?;
            api::rights(script)?;
            etcd::members(script)?;
            etcd::unknown_member(script)?;
        }
        Condition::OneOff => {
            api::node_is_off(script, "cp-1")?;
            api::nodes(script)?;
            etcd::members(script)?;
            etcd::removal_of_a_healthy_member(script)?;
        }
        Condition::NoQuorum => {
            api::silent(script)?;
            etcd::silent(script)?;
        }
    }
    Ok(())
}

/// Writes the answers of a real cluster into `recorded/`.
pub fn record(condition: Condition, answers: &Answers) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("recorded")
        .join(condition.file());
    Ok(std::fs::write(path, serde_json::to_string_pretty(answers)? + "\n")?)
}

/// Returns a text for each answer that is not as recorded; an answer that is not there is one too.
pub fn differences(condition: Condition, answers: &Answers) -> Result<Vec<String>> {
    let recorded: Answers = serde_json::from_str(condition.recorded())?;
    let questions: std::collections::BTreeSet<&String> = recorded.keys().chain(answers.keys()).collect();
    let text = |question: &String| {
        let (wanted, got) = (recorded.get(question), answers.get(question));
        if wanted == got {
            return None;
        }
        let mut text = question.clone();
        for (word, answer) in [("recorded", wanted), ("here", got)] {
            let answer = answer.map_or_else(|| "not asked".to_owned(), Value::to_string);
            let _ = write!(text, "\n  {word}: {answer}");
        }
        Some(text)
    };
    Ok(questions.into_iter().filter_map(text).collect())
}
