//! What a user reads when no plan can be made.

use landfall_core::explain::{Code, Diagnosis};
use landfall_core::plan::PlanError;

/// Returns the error of a plan that cannot be made.
pub fn plan_error(error: PlanError) -> Vec<Diagnosis> {
    let (code, next) = match &error {
        PlanError::BootstrapAgain { .. } => (
            Code::Preflight,
            "nothing was changed; give the node its files back, from a backup or as kubeadm writes them (`kubeadm kubeconfig user`, `kubeadm init phase \
             kubeconfig`); landfall cannot replace a member that has lost its data yet",
        ),
        PlanError::FounderAbsent(_) => (
            Code::Preflight,
            "bring the node back, then run the same command again; to found without it, uninstall first",
        ),
        PlanError::NoControlPlane => (Code::Preflight, "bring the node back, then run the same command again"),
        PlanError::MissingFromBundle(_) => (
            Code::BundleMissing,
            "build the bundle again with this version of landfall",
        ),
        PlanError::Duplicate(_) | PlanError::MissingNeed { .. } | PlanError::Cycle(_) => (
            Code::Internal,
            "landfall journal show: report this fault of landfall with what it prints",
        ),
    };
    vec![Diagnosis::new(code, "no plan can be made").because(&error).next(next)]
}
