//! The plan: steps that only `needs` orders. One pure planner ([`plan()`]) makes it for every [`Goal`], from the wanted and the observed state.

pub(crate) mod claims;
pub mod file;
pub mod install;
pub mod key;
pub(crate) mod modules;
pub mod objects;
pub mod pending;
mod planner;
pub mod undo;

pub use claims::written_settings;
pub use planner::{Goal, plan};

use crate::action::Action;
use crate::name::{NodeName, SecretId, StepId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Everything a run will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Plan {
    /// Steps; any order in which every step comes after its needs is right.
    pub steps: Vec<Step>,
    /// Whether a failed step stops only the steps that need it. An install stops as a whole, because later steps would build on a failed one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_going: bool,
    /// Where secrets that steps name come from: read from that node's file once its step is done.
    pub secrets: BTreeMap<SecretId, SecretSource>,
}

/// Where a secret is read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSource {
    /// The node that has it.
    pub node: NodeName,
    /// The file that holds it.
    pub path: PathBuf,
}

/// One unit of work with its own undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Stable name.
    pub id: StepId,
    /// Label for people; orders nothing.
    pub stage: Stage,
    /// The node it runs on; cluster actions are journalled there.
    pub node: NodeName,
    /// Steps that must be done first.
    pub needs: Vec<StepId>,
    /// Seconds after which the step counts as hung.
    pub deadline_s: u64,
    /// What to do.
    pub action: Action,
    /// Steps of the same node that are undone and done again before this one is, when this one was interrupted: what they claim
    /// holds what this one leaves half-done. In the order in which they are done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redo: Vec<StepId>,
    /// Serves other steps of this run alone: it is made anew when one of them is to be done, and is undone at the end of the run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ephemeral: bool,
}

impl Step {
    /// Returns a step that needs no other, takes no other along when it is repeated, and outlasts its run.
    pub fn new(id: StepId, stage: Stage, node: NodeName, deadline_s: u64, action: Action) -> Self {
        Self {
            id,
            stage,
            node,
            needs: vec![],
            deadline_s,
            action,
            redo: vec![],
            ephemeral: false,
        }
    }

    /// Returns it with steps that must be done first.
    pub fn after(self, needs: Vec<StepId>) -> Self {
        Self { needs, ..self }
    }
}

/// Label of a group of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Files, kernel settings, programs, units.
    Prepare,
    /// Image import.
    Images,
    /// The founding, by the first control planes.
    FirstControlPlane,
    /// Further control planes.
    JoinControlPlanes,
    /// Workers.
    JoinWorkers,
    /// Pod network and cluster DNS.
    Network,
    /// Ingress proxy.
    Ingress,
    /// Sample and probe.
    Sample,
    /// What served this run alone goes.
    Finish,
    /// Undoing.
    Undo,
}

impl Stage {
    /// Returns the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Images => "images",
            Self::FirstControlPlane => "first-control-plane",
            Self::JoinControlPlanes => "join-control-planes",
            Self::JoinWorkers => "join-workers",
            Self::Network => "network",
            Self::Ingress => "ingress",
            Self::Sample => "sample",
            Self::Finish => "finish",
            Self::Undo => "undo",
        }
    }
}

/// Why a list of steps is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Two steps have one name.
    #[error("step {0} is there twice")]
    Duplicate(StepId),
    /// A step needs one that is not there.
    #[error("step {step} needs {need}, which is not in the plan")]
    MissingNeed {
        /// The step.
        step: StepId,
        /// What it needs.
        need: StepId,
    },
    /// Steps wait for each other.
    #[error("steps wait for each other: {}", .0.iter().map(StepId::as_str).collect::<Vec<_>>().join(", "))]
    Cycle(Vec<StepId>),
    /// No control plane is here.
    #[error("no control plane can be reached")]
    NoControlPlane,
    /// The cluster is not formed, and a node that founds it is not here.
    #[error("the cluster is not formed yet, and its founder{} is absent", .0.as_ref().map(|n| format!(" {n}")).unwrap_or_default())]
    FounderAbsent(Option<NodeName>),
    /// A one-shot step would run again on a member of a cluster that is formed.
    #[error("{node} is a member of the cluster, and what the step {step} made there is not there any more")]
    BootstrapAgain {
        /// The member.
        node: NodeName,
        /// The step that would run again.
        step: StepId,
    },
    /// The bundle lacks something that the plan needs.
    #[error("the bundle has no {0}")]
    MissingFromBundle(String),
}

impl Plan {
    /// Adds a step; returns its name, for the needs of others.
    fn add(&mut self, step: Step) -> StepId {
        let id = step.id.clone();
        self.steps.push(step);
        id
    }

    /// Checks that names are unique, needs exist and no steps wait for each other.
    pub fn check(&self) -> Result<(), PlanError> {
        let mut ids = BTreeSet::new();
        for step in &self.steps {
            if !ids.insert(&step.id) {
                return Err(PlanError::Duplicate(step.id.clone()));
            }
        }
        for step in &self.steps {
            if let Some(need) = step.needs.iter().find(|n| !ids.contains(n)) {
                return Err(PlanError::MissingNeed {
                    step: step.id.clone(),
                    need: need.clone(),
                });
            }
        }
        let mut done: BTreeSet<&StepId> = BTreeSet::new();
        loop {
            let ready: Vec<_> = self
                .steps
                .iter()
                .filter(|s| !done.contains(&s.id) && s.needs.iter().all(|n| done.contains(n)))
                .map(|s| &s.id)
                .collect();
            if ready.is_empty() {
                break;
            }
            done.extend(ready);
        }
        if done.len() == self.steps.len() {
            return Ok(());
        }
        Err(PlanError::Cycle(
            self.steps
                .iter()
                .filter(|s| !done.contains(&s.id))
                .map(|s| s.id.clone())
                .collect(),
        ))
    }

    /// Says whether the plan undoes what an earlier run left before this step runs: what there is of the step now goes first.
    pub fn undoes_before(&self, step: &Step) -> bool {
        let undoes = |other: &&Step| matches!(other.action, Action::TakeBack { .. }) && step.needs.contains(&other.id);
        self.steps.iter().any(|other| undoes(&other))
    }

    /// Returns the steps of one node, in plan order.
    pub fn steps_on<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = &'a Step> {
        self.steps.iter().filter(move |s| &s.node == node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(id: &str, needs: &[&str]) -> Step {
        Step::new(
            id.parse().unwrap(),
            Stage::Prepare,
            "cp-1".parse().unwrap(),
            10,
            Action::Directory {
                path: "/opt/x".into(),
                mode: 0o755,
            },
        )
        .after(needs.iter().map(|n| n.parse().unwrap()).collect())
    }

    #[test]
    fn cycles_duplicates_and_missing_needs_are_refused() {
        let plan = |steps| Plan {
            steps,
            ..Plan::default()
        };
        assert!(plan(vec![step("a", &[]), step("b", &["a"])]).check().is_ok());
        assert!(matches!(
            plan(vec![step("a", &["b"]), step("b", &["a"])]).check(),
            Err(PlanError::Cycle(_))
        ));
        assert!(matches!(
            plan(vec![step("a", &[]), step("a", &[])]).check(),
            Err(PlanError::Duplicate(_))
        ));
        assert!(matches!(
            plan(vec![step("a", &["x"])]).check(),
            Err(PlanError::MissingNeed { .. })
        ));
    }
}
