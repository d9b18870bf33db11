//! The plan while it is made.

use super::{Plan, Step};
use crate::name::StepId;

/// The steps so far, to which moves add.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) plan: Plan,
}

impl Steps {
    /// Adds a step; returns its name, for the needs of others.
    pub(super) fn add(&mut self, step: Step) -> StepId {
        let id = step.id.clone();
        self.plan.steps.push(step);
        id
    }
}
