//! Result of a command.

use crate::dashboard::Login;
use landfall_core::cluster_record::ClusterRecord;
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_core::facts::NodeFacts;
use landfall_core::health::NodeHealth;
use landfall_core::journal::RunStart;
use landfall_core::journal::repair::JournalReading;
use landfall_core::name::{NodeName, RunId, StepId};
use landfall_core::plan::Plan;
use landfall_core::plan::file::PlanFile;
use landfall_core::run_history::FleetRun;
use landfall_core::secret::Secret;
use landfall_core::verify::{CellOutcome, VerifyReport};
use landfall_core::wire::CertificateAge;
use std::collections::BTreeMap;

/// Result of a command.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Errors, each ready for display. Empty means success.
    pub errors: Vec<Diagnosis>,
    /// Remarks that do not fail the run.
    pub warnings: Vec<String>,
    /// The plan, reduced to the steps that change something.
    pub plan: Option<Plan>,
    /// Why steps of the plan are pending, as far as observations tell.
    pub reasons: BTreeMap<StepId, String>,
    /// Steps that are not done because all is as wanted, each with what was seen.
    pub satisfied: BTreeMap<StepId, String>,
    /// The plan in the form of a plan file.
    pub plan_file: Option<PlanFile>,
    /// How many steps changed something.
    pub changes: usize,
    /// The report of verify.
    pub verify: Option<VerifyReport>,
    /// What could not be undone.
    pub residue: Vec<String>,
    /// Whether everything that this run did was undone.
    pub rolled_back: bool,
    /// The id of this run, once it held the nodes' leases.
    pub run: Option<RunId>,
    /// Members that could not be reached, each with the reason; their steps are still to be done.
    pub absent: Vec<Diagnosis>,
    /// The cluster, as its members' journals record it.
    pub record: Option<ClusterRecord>,
    /// Runs of the cluster, oldest first.
    pub runs: Vec<FleetRun>,
    /// The nodes' journals, for `journal show`; those that are damaged, for `journal repair`.
    pub journals: BTreeMap<NodeName, JournalReading>,
    /// State of each node, for `status`.
    pub nodes: BTreeMap<NodeName, NodeStatus>,
    /// Text result of `kubeconfig` (holds keys; only ever written to a 0600 file or standard output on request).
    pub kubeconfig: Option<Secret>,
    /// Result of `dashboard` (holds a password; only ever written to standard output).
    pub dashboard: Option<DashboardAccess>,
    /// Whether ^C ended it.
    pub interrupted: bool,
    /// Bytes sent to each node.
    pub bytes_sent: BTreeMap<NodeName, u64>,
    /// Bytes that each node lacks, when only a plan was asked for.
    pub bytes_to_send: BTreeMap<NodeName, u64>,
}

/// The address and the login of the ingress proxy's dashboard.
#[derive(Debug, Clone)]
pub struct DashboardAccess {
    /// Its URLs by address: one for each node.
    pub addresses: Vec<String>,
    /// Its host, which the proxy of every node serves.
    pub host: String,
    /// The login; `None` when the dashboard asks for none.
    pub login: Option<Login>,
}

/// What `status` shows of a node.
#[derive(Debug, Default, Clone)]
pub struct NodeStatus {
    /// Facts, when the node was reached.
    pub facts: Option<NodeFacts>,
    /// How many journal entries landfall owns on the node.
    pub owned: usize,
    /// Version and digest of the bundle that was installed.
    pub bundle: Option<String>,
    /// A run that was interrupted.
    pub open_run: Option<RunStart>,
    /// Whether the Node is Ready, with kubelet's version, if the API answered.
    pub ready: Option<(bool, String)>,
    /// Health of the etcd member, on control planes.
    pub etcd: Option<String>,
    /// Certificates of a control plane, with the days they last.
    pub certificates: Vec<CertificateAge>,
    /// The state of its services and kernel settings.
    pub health: Option<NodeHealth>,
    /// Why the node could not be inspected.
    pub error: Option<Diagnosis>,
}

impl Outcome {
    /// Returns the exit code: the worst of all results.
    pub fn exit_code(&self) -> ExitCode {
        let mut worst = self
            .errors
            .iter()
            .chain(&self.absent)
            .map(|e| e.code.exit_code())
            .max()
            .unwrap_or(ExitCode::Done);
        if self.rolled_back && worst == ExitCode::FailedKept {
            worst = ExitCode::FailedRolledBack;
        }
        if self.interrupted {
            worst = worst.max(ExitCode::Interrupted);
        }
        if self.verify.as_ref().is_some_and(|v| v.count(CellOutcome::Fail) > 0) {
            worst = worst.max(ExitCode::VerifyFaults);
        }
        if !self.residue.is_empty() {
            worst = worst.max(ExitCode::Residue);
        }
        worst
    }

    /// Returns the errors that follow from the outcome as a whole: the user interrupted the run, or verify found faults.
    pub fn implied_errors(&self) -> Vec<Diagnosis> {
        let mut errors = Vec::new();
        if self.interrupted && self.errors.iter().all(|e| e.code != Code::Interrupted) {
            errors.push(Diagnosis::new(Code::Interrupted, "the run was interrupted"));
        }
        let verify = self.verify.as_ref();
        let failed = verify.map_or(0, |v| v.count(CellOutcome::Fail));
        if let (Some(verify), 1..) = (verify, failed) {
            let what = format!(
                "{failed} of {} paths into the cluster are not as expected",
                verify.cells.len()
            );
            errors.push(Diagnosis::new(Code::VerifyFault, what));
        }
        errors
    }
}
