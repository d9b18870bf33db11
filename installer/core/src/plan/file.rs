//! A plan in a file: it can be reviewed and run later, and is refused when the cluster has changed since it was made.

use super::{Plan, Step};
use crate::cluster_record::ClusterUid;
use crate::name::{Digest, StepId};
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
        let (planned, wanted) = (self.pending(), now.pending());
        for (id, step) in &planned {
            match wanted.get(id) {
                None => lines.push(format!("{id}: planned, and not to be done any more")),
                Some(other) if other.action != step.action => lines.push(format!("{id}: would do something else now")),
                Some(_) => {}
            }
        }
        let new = wanted.keys().filter(|id| !planned.contains_key(*id));
        lines.extend(new.map(|id| format!("{id}: to be done now, and not planned")));
        lines
    }

    fn pending(&self) -> BTreeMap<&StepId, &Step> {
        let steps = self.plan.steps.iter().filter(|s| !self.satisfied.contains(&s.id));
        steps.map(|s| (&s.id, s)).collect()
    }
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
}
