//! Puts questions one after the other, and keeps the answers.

use crate::{Answers, Cluster, Ended, Rights};
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// How long the cluster may take: the deletion of a namespace takes some seconds, and a Node counts as Ready for some time without its kubelet.
const WAIT_LIMIT: Duration = Duration::from_secs(120);
const POLL_EVERY: Duration = Duration::from_millis(500);

/// Whose a server-side apply is, and whether it takes fields of others.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Manner {
    /// The engine's.
    Forced,
    /// The one by which the engine compares.
    DryRun,
    /// By the engine's manager, without force.
    Careful,
    /// Another manager's, without force.
    Other,
    /// Another manager's, with force.
    OtherForced,
}

impl Manner {
    fn query(self) -> &'static str {
        match self {
            Self::Forced => "fieldManager=landfall&force=true",
            Self::DryRun => "fieldManager=landfall&force=true&dryRun=All",
            Self::Careful => "fieldManager=landfall",
            Self::Other => "fieldManager=other",
            Self::OtherForced => "fieldManager=other&force=true",
        }
    }
}

pub(crate) struct Script<'a> {
    cluster: &'a dyn Cluster,
    /// The control plane that is asked.
    pub(crate) by: &'static str,
    answers: Answers,
    /// The newest known version of each object, by path.
    versions: BTreeMap<String, Value>,
}

/// Shows nothing of an answer but its status.
pub(crate) fn nothing(_: &Value) -> Value {
    json!({})
}

impl<'a> Script<'a> {
    pub(crate) fn new(cluster: &'a dyn Cluster, by: &'static str) -> Self {
        Self {
            cluster,
            by,
            answers: Answers::new(),
            versions: BTreeMap::new(),
        }
    }

    pub(crate) fn answers(self) -> Answers {
        self.answers
    }

    pub(crate) fn keep(&mut self, question: &str, answer: Value) -> Result<()> {
        let known = self.answers.insert(question.to_owned(), answer);
        ensure!(known.is_none(), "{question} is asked twice");
        Ok(())
    }

    /// Asks as the administrator, and keeps nothing.
    pub(crate) fn get(&self, path: &str) -> Result<(u16, Value)> {
        self.cluster.api(self.by, Rights::Administrator, "GET", path, None)
    }

    /// Asks as the administrator. Kept are the status, the reason of a refusal, whether an object is of the version that was last seen, and what
    /// `show` takes from the body.
    fn ask(
        &mut self,
        question: &str,
        method: &str,
        target: &str,
        body: Option<&Value>,
        show: impl Fn(&Value) -> Value,
    ) -> Result<()> {
        let rights = Rights::Administrator;
        let (status, said) = self.cluster.api(self.by, rights, method, target, body)?;
        let mut answer = json!({ "status": status });
        if said["kind"] == "Status" && status >= 400 {
            answer["reason"] = said["reason"].clone();
        } else {
            let path = target.split('?').next().unwrap_or_default();
            let version = &said["metadata"]["resourceVersion"];
            // A dry run makes no version.
            let has_version = method != "DELETE" && !target.contains("dryRun") && said["metadata"]["name"].is_string();
            if has_version {
                let known = self.versions.insert(path.to_owned(), version.clone());
                answer["version"] = json!(if known.as_ref() == Some(version) { "same" } else { "new" });
            }
            if let (Some(answer), Value::Object(shown)) = (answer.as_object_mut(), show(&said)) {
                answer.extend(shown);
            }
        }
        self.keep(question, answer)
    }

    pub(crate) fn read(&mut self, question: &str, target: &str, show: impl Fn(&Value) -> Value) -> Result<()> {
        self.ask(question, "GET", target, None, show)
    }

    pub(crate) fn create(&mut self, question: &str, target: &str, body: &Value) -> Result<()> {
        self.ask(question, "POST", target, Some(body), nothing)
    }

    pub(crate) fn delete(&mut self, question: &str, target: &str) -> Result<()> {
        self.ask(question, "DELETE", target, None, nothing)
    }

    /// A server-side apply; `manner` says whose and how.
    pub(crate) fn apply(
        &mut self,
        question: &str,
        manner: Manner,
        (path, body): (&str, &Value),
        show: impl Fn(&Value) -> Value,
    ) -> Result<()> {
        let target = format!("{path}?{}", manner.query());
        self.ask(question, "PATCH", &target, Some(body), show)
    }

    /// Asks with other rights, and keeps the status.
    pub(crate) fn status_with(&mut self, question: &str, rights: Rights, target: &str) -> Result<()> {
        let (status, _) = self.cluster.api(self.by, rights, "GET", target, None)?;
        self.keep(question, json!({ "status": status }))
    }

    /// Deletes what is at a path, if it is there, and keeps nothing.
    pub(crate) fn remove(&self, path: &str) -> Result<()> {
        self.cluster.api(self.by, Rights::Administrator, "DELETE", path, None)?;
        self.wait_until_gone(path)
    }

    /// Waits until something is at a path and is good.
    pub(crate) fn wait_until(&self, path: &str, is_good: impl Fn(&Value) -> bool) -> Result<()> {
        let start = Instant::now();
        while !matches!(self.get(path)?, (200, there) if is_good(&there)) {
            if start.elapsed() >= WAIT_LIMIT {
                bail!("{path} is not as expected after {} s", WAIT_LIMIT.as_secs());
            }
            thread::sleep(POLL_EVERY);
        }
        Ok(())
    }

    /// Waits until nothing is at a path.
    pub(crate) fn wait_until_gone(&self, path: &str) -> Result<()> {
        let start = Instant::now();
        while self.get(path)?.0 != 404 {
            if start.elapsed() >= WAIT_LIMIT {
                bail!("{path} is not gone after {} s", WAIT_LIMIT.as_secs());
            }
            thread::sleep(POLL_EVERY);
        }
        Ok(())
    }

    pub(crate) fn etcdctl(&self, args: &[&str]) -> Result<Ended> {
        self.cluster.etcdctl(self.by, args)
    }
}
