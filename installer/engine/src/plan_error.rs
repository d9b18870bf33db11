//! What a user reads when no plan can be made.

use landfall_core::explain::{Code, Diagnosis};
use landfall_core::plan::PlanError;

/// Returns the error of a plan that cannot be made.
pub fn plan_error(error: PlanError) -> Vec<Diagnosis> {
    let code = match &error {
        PlanError::FoundedAgain { .. } | PlanError::FounderAbsent(_) | PlanError::NoControlPlane => Code::Preflight,
        PlanError::MissingFromBundle(_) => Code::BundleMissing,
        _ => Code::Internal,
    };
    let next = match &error {
        PlanError::FoundedAgain { .. } => {
            "nothing was changed; look what happened to the node: landfall cannot replace a control plane that has lost its data yet"
        }
        PlanError::FounderAbsent(_) => {
            "bring the node back, then run the same command again; to found without it, uninstall first"
        }
        PlanError::NoControlPlane => "bring the node back, then run the same command again",
        PlanError::MissingFromBundle(_) | PlanError::Render { .. } => {
            "build the bundle again with this version of landfall"
        }
        PlanError::Duplicate(_) | PlanError::MissingNeed { .. } | PlanError::Cycle(_) => {
            "nothing was changed; this is a fault of landfall: report it with the output of landfall journal show"
        }
    };
    vec![Diagnosis::new(code, "no plan can be made").because(&error).next(next)]
}
