//! The planner: one for every goal. Each goal has its moves, functions that add steps to the plan.

use super::install::{InstallInput, InstallMoves};
use super::undo::{UndoMoves, UndoScope};
use super::{Plan, PlanError};
use crate::journal::Ownership;
use crate::name::NodeName;
use std::collections::BTreeMap;

/// What a plan brings about.
#[derive(Debug)]
pub enum Goal<'a> {
    /// The machines and the cluster are as wanted: a first install, a further one, changed settings, nodes that join.
    Installed(&'a InstallInput<'a>),
    /// What these journal entries made is gone: a rollback, an uninstall.
    Undone {
        /// What landfall owns on each connected node.
        owned: &'a BTreeMap<NodeName, Ownership>,
        /// The entries.
        scope: &'a UndoScope,
    },
}

/// Plans how to reach a goal. Pure. The plan has been checked.
pub fn plan(goal: &Goal) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    match goal {
        Goal::Installed(input) => InstallMoves::of(input, &mut plan)?.add_all()?,
        Goal::Undone { owned, scope } => UndoMoves::of(owned, scope, &mut plan).add_all(),
    }
    plan.check()?;
    Ok(plan)
}
