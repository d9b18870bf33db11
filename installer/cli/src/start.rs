//! Starts a command that contacts machines, once its input is read.

use crate::args::Common;
use crate::remote::run_context;
use crate::reporter::Reporter;
use landfall_ansible::Understood;
use landfall_core::explain::Diagnosis;
use landfall_core::spec::Desired;
use landfall_engine::run::RunContext;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// The input and context of a command that contacts machines.
pub struct Started {
    /// What is wanted.
    pub desired: Desired,
    /// Takes events.
    pub reporter: Arc<Reporter>,
    /// What the engine needs.
    pub ctx: RunContext,
}

/// Starts a command: opens its report, emits the warnings of the inventory, and makes the run's context.
pub fn start(common: &Common, understood: Understood, report: Option<&Path>) -> Result<Started, Vec<Diagnosis>> {
    let Understood {
        desired,
        mut notices,
        unread,
        limit,
    } = understood;
    if !unread.is_empty() {
        let count: usize = unread.values().map(BTreeSet::len).sum();
        notices.push(format!(
            "{count} variables of members are not read; `landfall inventory` with the same flags names them"
        ));
    }
    let reporter = Reporter::new(common.output, report)?;
    reporter.warn(&notices);
    let ctx = run_context(common, reporter.clone(), report.map(Path::to_owned), limit).map_err(|d| vec![d])?;
    Ok(Started { desired, reporter, ctx })
}
