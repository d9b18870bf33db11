//! A plan in a file: it can be reviewed and run later, and is refused when the cluster has changed since it was made.

use super::{Plan, Step};
use crate::cluster_record::ClusterUid;
use crate::name::{Digest, SecretId, StepId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Version of the file's format; a reader refuses another one.
pub const PLAN_FILE_VERSION: u32 = 1;

/// A plan, and the cluster and bundle that it was made for. It names secrets and does not contain them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanFile {
    /// Format version, [`PLAN_FILE_VERSION`].
    pub version: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// Identity of the cluster, when it is recorded already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<ClusterUid>,
    /// Digest of the bundle's index.
    pub bundle: Digest,
    /// The whole plan.
    pub plan: Plan,
    /// Its satisfied steps.
    pub satisfied: BTreeSet<StepId>,
}

/// Why a plan file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    /// The text is no plan file.
    #[error("it is no plan of landfall")]
    Syntax(#[from] serde_json::Error),
    /// Another version of landfall wrote it.
    #[error("it has version {0}, this landfall reads version {PLAN_FILE_VERSION}")]
    Version(u64),
    /// Its steps do not form a valid plan.
    #[error("its steps make no plan")]
    Plan(#[from] super::PlanError),
}

impl PlanFile {
    /// Reads a plan file.
    pub fn parse(text: &str) -> Result<Self, PlanFileError> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        match value["version"].as_u64() {
            Some(version) if version != u64::from(PLAN_FILE_VERSION) => return Err(PlanFileError::Version(version)),
            _ => {}
        }
        let file: Self = serde_json::from_value(value)?;
        file.plan.check()?;
        Ok(file)
    }

    /// Renders the file's text.
    pub fn render(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("plans have string keys only, so they always serialise");
        text + "\n"
    }

    /// Returns the differences of a plan made now from this one, a readable line each. Empty when this one may be run.
    pub fn drift(&self, now: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.cluster != now.cluster {
            lines.push(format!(
                "the plan is for the cluster {}, this one is {}",
                self.cluster, now.cluster
            ));
        }
        if self.uid != now.uid {
            let text = |uid: &Option<ClusterUid>| uid.as_ref().map_or("none yet".to_owned(), ToString::to_string);
            lines.push(format!(
                "the plan is for the cluster {}, here is {}",
                text(&self.uid),
                text(&now.uid)
            ));
        }
        if self.bundle != now.bundle {
            lines.push(format!(
                "the plan was made with the bundle {}, this one is {}",
                self.bundle, now.bundle
            ));
        }
        lines.extend(self.step_drift(now));
        let secrets: BTreeSet<&SecretId> = self.plan.secrets.keys().chain(now.plan.secrets.keys()).collect();
        let moved = |id: &&SecretId| self.plan.secrets.get(*id) != now.plan.secrets.get(*id);
        let moved = secrets.into_iter().filter(moved);
        lines.extend(moved.map(|id| format!("the secret {id} would be read elsewhere now")));
        if lines.is_empty() && !self.order().eq(now.order()) {
            lines.push("the steps are in another order now".to_owned());
        }
        lines
    }

    /// Compares whole steps: those that are to be done, and those that they take along when they were interrupted. Other steps may differ: they
    /// are done, and a plan that was made later names another run's number in them.
    fn step_drift(&self, now: &Self) -> Vec<String> {
        let (planned, wanted) = (self.pending(), now.pending());
        let mut lines = Vec::new();
        for (id, step) in &planned {
            match wanted.get(id) {
                None => lines.push(format!("{id}: planned, and not to be done any more")),
                Some(other) if other.action != step.action => lines.push(format!("{id}: would do something else now")),
                Some(other) if other != step => lines.push(difference(step, other)),
                Some(_) => {}
            }
        }
        let new = wanted.keys().filter(|id| !planned.contains_key(*id));
        lines.extend(new.map(|id| format!("{id}: to be done now, and not planned")));
        let (before, after) = (by_id(&self.plan), by_id(&now.plan));
        let repeated: BTreeSet<&StepId> = planned.values().flat_map(|step| &step.redo).collect();
        for id in repeated.into_iter().filter(|id| !planned.contains_key(id)) {
            if let (Some(step), Some(other)) = (before.get(id), after.get(id))
                && step != other
            {
                lines.push(difference(step, other));
            }
        }
        lines
    }

    fn order(&self) -> impl Iterator<Item = &StepId> {
        let steps = self.plan.steps.iter().map(|s| &s.id);
        steps.filter(|id| !self.satisfied.contains(*id))
    }

    fn pending(&self) -> BTreeMap<&StepId, &Step> {
        let mut steps = by_id(&self.plan);
        steps.retain(|id, _| !self.satisfied.contains(*id));
        steps
    }
}

fn by_id(plan: &Plan) -> BTreeMap<&StepId, &Step> {
    plan.steps.iter().map(|s| (&s.id, s)).collect()
}

fn difference(step: &Step, other: &Step) -> String {
    format!("{}: differs in {}", step.id, differing(step, other).join(", "))
}

/// Names what of a step differs from another one.
fn differing(step: &Step, other: &Step) -> Vec<&'static str> {
    // Naming every field lets a new one not be forgotten.
    let Step {
        id: _,
        stage,
        node,
        needs,
        deadline_s,
        action,
        redo,
        ephemeral,
    } = step;
    let compared = [
        ("action", *action != other.action),
        ("stage", *stage != other.stage),
        ("node", *node != other.node),
        ("needed steps", *needs != other.needs),
        ("deadline", *deadline_s != other.deadline_s),
        ("repeated steps", *redo != other.redo),
        ("lifetime", *ephemeral != other.ephemeral),
    ];
    let differ = compared.into_iter().filter(|(_, differs)| *differs);
    differ.map(|(what, _)| what).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Action;
    use crate::plan::Stage;

    fn file(modes: &[(&str, u32)]) -> PlanFile {
        let step = |(id, mode): &(&str, u32)| {
            Step::new(
                id.parse().unwrap(),
                Stage::Prepare,
                "cp-1".parse().unwrap(),
                60,
                Action::Directory {
                    path: "/etc/landfall".into(),
                    mode: *mode,
                },
            )
        };
        PlanFile {
            version: PLAN_FILE_VERSION,
            cluster: "ship".to_owned(),
            uid: None,
            bundle: Digest::of(b"bundle"),
            plan: Plan {
                steps: modes.iter().map(step).collect(),
                ..Plan::default()
            },
            satisfied: BTreeSet::new(),
        }
    }

    #[test]
    fn a_file_is_read_back_and_other_versions_are_refused() {
        let plan = file(&[("a", 1), ("b", 2)]);
        assert_eq!(PlanFile::parse(&plan.render()).unwrap(), plan);
        let newer = plan.render().replacen("\"version\": 1", "\"version\": 9", 1);
        assert!(matches!(PlanFile::parse(&newer), Err(PlanFileError::Version(9))));
        assert!(matches!(PlanFile::parse("{}"), Err(PlanFileError::Syntax(_))));
    }

    #[test]
    fn drift_is_named_by_step() {
        let planned = file(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(planned.drift(&planned), [""; 0]);
        let mut now = file(&[("a", 1), ("b", 9), ("c", 3), ("d", 4)]);
        now.satisfied.insert("c".parse().unwrap());
        now.uid = Some(ClusterUid::from_random([7; 16]));
        assert_eq!(
            planned.drift(&now),
            [
                "the plan is for the cluster none yet, here is 07070707070707070707070707070707",
                "b: would do something else now",
                "c: planned, and not to be done any more",
                "d: to be done now, and not planned",
            ]
        );
    }

    #[test]
    fn steps_are_compared_whole() {
        let planned = file(&[("a", 1), ("b", 2)]);
        let drift = |change: &dyn Fn(&mut PlanFile)| {
            let mut now = planned.clone();
            change(&mut now);
            planned.drift(&now)
        };
        let id = |text: &str| vec![text.parse().unwrap()];
        assert_eq!(
            drift(&|now| now.plan.steps[1].needs = id("a")),
            ["b: differs in needed steps"]
        );
        assert_eq!(
            drift(&|now| {
                now.plan.steps[1].redo = id("a");
                now.plan.steps[1].deadline_s = 9;
            }),
            ["b: differs in deadline, repeated steps"]
        );
        assert_eq!(
            drift(&|now| now.plan.steps[0].ephemeral = true),
            ["a: differs in lifetime"]
        );
        assert_eq!(
            drift(&|now| now.plan.steps.reverse()),
            ["the steps are in another order now"]
        );
        let source = crate::plan::SecretSource {
            node: "cp-1".parse().unwrap(),
            path: "/etc/kubernetes/pki/ca.key".into(),
        };
        assert_eq!(
            drift(&|now| {
                now.plan.secrets.insert("ca.key".parse().unwrap(), source.clone());
            }),
            ["the secret ca.key would be read elsewhere now"]
        );
    }

    #[test]
    fn of_what_is_done_only_steps_that_may_be_repeated_are_compared() {
        let mut planned = file(&[("a", 1), ("b", 2), ("c", 3)]);
        planned.satisfied.extend(["a", "c"].map(|id| id.parse().unwrap()));
        planned.plan.steps[1].redo = vec!["a".parse().unwrap()];
        let mut now = planned.clone();
        now.plan.steps[2].deadline_s = 9;
        assert_eq!(planned.drift(&now), [""; 0]);
        now.plan.steps[0].deadline_s = 9;
        assert_eq!(planned.drift(&now), ["a: differs in deadline"]);
    }
}
