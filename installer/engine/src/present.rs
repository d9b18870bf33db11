//! The present state: the journals of the reachable nodes, the order of their runs, and the cluster they record.

use crate::fleet::{self, Sessions};
use crate::outcome::Outcome;
use landfall_core::cluster_record::{ClusterRecord, newest};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::journal::Ownership;
use landfall_core::name::NodeName;
use landfall_core::preflight::records_disagree;
use landfall_core::run_history::{HistoryError, RunHistory};
use landfall_core::wire::Request;
use std::collections::BTreeMap;

/// The cluster as its nodes' journals record it.
#[derive(Debug, Default)]
pub struct Present {
    /// What landfall owns on each connected node.
    pub owned: BTreeMap<NodeName, Ownership>,
    /// The runs, oldest first.
    pub history: RunHistory,
    /// The newest record.
    pub record: Option<ClusterRecord>,
}

impl Present {
    /// Reads all journals. Journals that contradict each other are an error that names the nodes.
    pub fn read(sessions: &Sessions) -> Result<Self, Vec<Diagnosis>> {
        Self::of(fleet::ask_all(sessions, |_| Request::Ownership)?)
    }

    /// Combines journals that were read already.
    pub fn of(owned: BTreeMap<NodeName, Ownership>) -> Result<Self, Vec<Diagnosis>> {
        // This comes before the order of the runs: runs of two clusters have no order, and the two clusters are the error to report. A node on
        // which landfall owns nothing is no member, even when a run that failed early wrote into its journal.
        let members = owned.iter().filter(|(_, own)| !own.is_empty());
        let records = members.filter_map(|(name, own)| Some((name, own.record()?)));
        let record = newest(records)
            .map_err(|error| {
                records_disagree(&error)
                    .into_iter()
                    .map(Diagnosis::from)
                    .collect::<Vec<_>>()
            })?
            .cloned();
        let history = RunHistory::of(&owned).map_err(|error| vec![history_unclear(&error)])?;
        Ok(Self { owned, history, record })
    }
}

/// Fills the cluster's record and runs into the outcome, or the errors of journals that contradict each other.
pub fn fill(owned: BTreeMap<NodeName, Ownership>, outcome: &mut Outcome) {
    match Present::of(owned) {
        Ok(present) => {
            outcome.record = present.record;
            outcome.runs = present.history.runs().to_vec();
        }
        Err(errors) => outcome.errors.extend(errors),
    }
}

/// Returns the error of journals whose runs have no order.
pub fn history_unclear(error: &HistoryError) -> Diagnosis {
    Diagnosis::new(Code::Journal, "the nodes' journals do not agree on the cluster's runs")
        .because(error)
        .next("compare /var/lib/landfall/journal.jsonl on the nodes")
        .next("`landfall uninstall` works in any case: it needs no order of runs")
}
