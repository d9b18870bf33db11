//! The present state: the journals of the reachable nodes, the order of their runs, and the cluster they record.

use crate::fleet::{self, Sessions};
use crate::outcome::Outcome;
use landfall_core::cluster_record::{ClusterRecord, newest};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Inventory;
use landfall_core::journal::{Ownership, member_records};
use landfall_core::membership::joined_without_founder;
use landfall_core::name::NodeName;
use landfall_core::preflight::{records_disagree, unlisted_members};
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
        // This comes before the order of the runs: runs of two clusters have no order, and the two clusters are the error to report.
        let record = newest(member_records(&owned))
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

/// Names the members that the inventory lacks, like machines that do not answer: they stay members.
pub fn unlisted(record: &ClusterRecord, inventory: &Inventory) -> Vec<Diagnosis> {
    let unlisted = unlisted_members(record, inventory);
    let absent = unlisted.into_iter().map(|(name, address)| {
        Diagnosis::new(Code::MemberAbsent, "a member of the cluster is not in the inventory")
            .on(&name)
            .saw(format!("{name} at {address}; it stays a member"))
            .next("put it into the inventory again")
    });
    absent.collect()
}

/// Returns the error of journals without a record whose nodes joined a cluster that none of them founded: a second cluster could be founded over it.
pub fn founder_unknown(present: &Present) -> Option<Diagnosis> {
    let joined = joined_without_founder(&present.owned);
    if present.record.is_some() || joined.is_empty() {
        return None;
    }
    let names: Vec<&str> = joined.into_iter().map(NodeName::as_str).collect();
    let what = "the nodes belong to a cluster that an older landfall founded on a node which is not here";
    let diagnosis = Diagnosis::new(Code::Preflight, what).saw(format!("joined: {}", names.join(", ")));
    Some(
        diagnosis
            .next("put the node that founded it into the inventory again")
            .next("landfall uninstall, when it is gone for good: it removes the cluster from the others"),
    )
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
