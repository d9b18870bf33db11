//! The families of actions: what each looks at, how it is taken back, and the act itself. `interpret` puts them in order with the journal.

pub mod file;
pub mod images;
pub mod kubeconfig;
pub mod on_disk;
pub mod run;
pub mod system;
pub mod unit;
pub mod unit_health;

use crate::agent::{Agent, Emit};
use landfall_core::journal::Entry;
use landfall_core::observe::Observation;
use landfall_core::plan::Step;
use std::time::Instant;

/// A step that is being looked at or run.
pub struct Work<'a> {
    /// The agent.
    pub agent: &'a Agent,
    /// The step.
    pub step: &'a Step,
    /// The newest entry of the step, when it is done.
    pub owned: Option<&'a Entry>,
    /// What was seen before the act.
    pub seen: &'a Observation,
    /// When it must be over.
    pub deadline: Instant,
    /// Takes events.
    pub emit: Emit<'a>,
}
