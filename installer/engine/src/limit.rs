//! `--limit`: the machines that a command acts on. Membership of the cluster does not depend on it: inventory and record decide that.

use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::{Node, Role};
use landfall_core::name::{NodeName, StepId};
use landfall_core::plan::{Plan, Step};
use std::collections::{BTreeMap, BTreeSet};

/// The machines that a command acts on: the chosen ones, or all.
#[derive(Debug, Clone, Default)]
pub struct Limit(Option<BTreeSet<NodeName>>);

/// The error of a step on a chosen node that needs a pending step on a node that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The step that cannot be done.
    pub step: StepId,
    /// The step that it needs.
    pub need: StepId,
    /// The node of the needed step.
    pub node: NodeName,
}

impl Blocked {
    /// Returns the error with the next action.
    pub fn diagnosis(&self) -> Diagnosis {
        let Self { step, need, node } = self;
        Diagnosis::new(
            Code::Usage,
            format!("{step} needs {need} on {node}, which --limit leaves out"),
        )
        .next(format!("take {node} into --limit, or install without it"))
    }
}

impl Limit {
    /// Returns a limit to these machines.
    pub fn to(nodes: BTreeSet<NodeName>) -> Self {
        Self(Some(nodes))
    }

    /// Says whether some machines were chosen.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Says whether a command acts on a machine.
    pub fn includes(&self, node: &NodeName) -> bool {
        self.0.as_ref().is_none_or(|nodes| nodes.contains(node))
    }

    /// Says whether a machine is contacted: a chosen one, or a control plane, because control planes hold the cluster's record and API.
    pub fn contacts(&self, node: &Node) -> bool {
        node.role == Role::ControlPlane || self.includes(&node.name)
    }

    /// Adds every step on a machine that is left out to `satisfied`, so that it is not done. Steps that serve the run alone stay pending: a join on
    /// a chosen node needs a credential from a control plane.
    pub fn leave_out(&self, plan: &Plan, satisfied: &mut BTreeSet<StepId>) -> Result<(), Blocked> {
        if !self.is_set() {
            return Ok(());
        }
        let is_other = |step: &Step| !step.ephemeral && step.action.changes_something() && !self.includes(&step.node);
        let left_out: BTreeMap<&StepId, &Step> = plan
            .steps
            .iter()
            .filter(|step| is_other(step) && !satisfied.contains(&step.id))
            .map(|step| (&step.id, step))
            .collect();
        let by_id: BTreeMap<&StepId, &Step> = plan.steps.iter().map(|step| (&step.id, step)).collect();
        let wanted = |step: &&Step| {
            step.action.changes_something() && self.includes(&step.node) && !satisfied.contains(&step.id)
        };
        for step in plan.steps.iter().filter(wanted) {
            let mut open: Vec<&StepId> = step.needs.iter().collect();
            let mut seen = BTreeSet::new();
            while let Some(need) = open.pop() {
                if let Some(other) = left_out.get(need) {
                    return Err(Blocked {
                        step: step.id.clone(),
                        need: other.id.clone(),
                        node: other.node.clone(),
                    });
                }
                // The needs of a step that is done already do not matter.
                if !satisfied.contains(need) && seen.insert(need) {
                    open.extend(by_id.get(need).iter().flat_map(|step| &step.needs));
                }
            }
        }
        satisfied.extend(left_out.into_keys().cloned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_core::action::Action;
    use landfall_core::plan::Stage;

    fn step(id: &str, node: &str, needs: &[&str]) -> Step {
        Step::new(
            id.parse().unwrap(),
            Stage::Prepare,
            node.parse().unwrap(),
            10,
            Action::Directory {
                path: "/opt/x".into(),
                mode: 0o755,
            },
        )
        .after(needs.iter().map(|n| n.parse().unwrap()).collect())
    }

    fn limited(to: &str, steps: Vec<Step>, satisfied: &[&str]) -> Result<Vec<String>, Blocked> {
        let plan = Plan {
            steps,
            ..Plan::default()
        };
        let mut satisfied = satisfied.iter().map(|id| id.parse().unwrap()).collect();
        Limit::to([to.parse().unwrap()].into()).leave_out(&plan, &mut satisfied)?;
        let pending = plan.steps.iter().filter(|s| !satisfied.contains(&s.id));
        Ok(pending.map(|s| s.id.to_string()).collect())
    }

    #[test]
    fn steps_on_other_machines_are_not_done() {
        let steps = vec![
            step("a/cp-1", "cp-1", &[]),
            step("a/w-1", "w-1", &[]),
            Step {
                ephemeral: true,
                ..step("join-credential/cp-1", "cp-1", &["a/cp-1"])
            },
        ];
        assert_eq!(limited("w-1", steps, &[]).unwrap(), ["a/w-1", "join-credential/cp-1"]);
    }

    #[test]
    fn a_step_that_needs_one_elsewhere_is_refused_and_names_it() {
        let steps = || {
            vec![
                step("init/cp-1", "cp-1", &[]),
                step("b/w-1", "w-1", &["init/cp-1"]),
                step("c/w-1", "w-1", &["b/w-1"]),
            ]
        };
        let blocked = limited("w-1", steps(), &[]).unwrap_err();
        assert_eq!(
            (blocked.need.to_string(), blocked.node.to_string()),
            ("init/cp-1".into(), "cp-1".into())
        );
        assert_eq!(limited("w-1", steps(), &["init/cp-1"]).unwrap(), ["b/w-1", "c/w-1"]);
    }

    #[test]
    fn without_a_limit_nothing_is_left_out() {
        let plan = Plan {
            steps: vec![step("a/cp-1", "cp-1", &[])],
            ..Plan::default()
        };
        let mut satisfied = BTreeSet::new();
        Limit::default().leave_out(&plan, &mut satisfied).unwrap();
        assert!(satisfied.is_empty());
    }
}
