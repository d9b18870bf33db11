//! Keeps the cluster's record in the nodes' journals up to date during a run.

use crate::cluster::member_ids;
use crate::fleet::{self, Sessions};
use landfall_core::action::{Action, BootstrapGoal};
use landfall_core::cluster_record::ClusterRecord;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::facts::{FactsQuery, NodeFacts};
use landfall_core::name::Digest;
use landfall_core::plan::Step;
use landfall_core::wire::Request;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Writes the cluster's record into the journals of the connected nodes.
pub(super) struct RecordWriter {
    sessions: Sessions,
    record: Mutex<ClusterRecord>,
    /// Founders that have not founded yet.
    founding: AtomicUsize,
}

impl RecordWriter {
    /// Returns a writer for a run that still has these steps to do.
    pub(super) fn new<'a>(
        sessions: &Sessions,
        record: &ClusterRecord,
        pending: impl IntoIterator<Item = &'a Step>,
    ) -> Self {
        Self {
            sessions: sessions.clone(),
            record: Mutex::new(record.clone()),
            founding: AtomicUsize::new(pending.into_iter().filter(|step| founds(step)).count()),
        }
    }

    /// Records what a finished step changed about the cluster. The founding is written when the last founder has founded, before any step that
    /// needs it starts, so that no other node founds a second cluster.
    pub(super) fn note(&self, step: &Step) -> Result<(), Diagnosis> {
        if !founds(step) || self.founding.fetch_sub(1, Ordering::SeqCst) > 1 {
            return Ok(());
        }
        self.write(|record, ca| {
            record.formed = true;
            record.ca = ca;
        })
        .map_err(|mut errors| {
            errors
                .pop()
                .unwrap_or_else(|| Diagnosis::new(Code::Internal, "no error"))
        })
    }

    /// Completes the record at the end of a run. The ids of etcd's members are written as far as they are known.
    pub(super) fn complete(&self) -> Result<(), Vec<Diagnosis>> {
        self.write(|record, ca| {
            record.formed = true;
            record.ca = record.ca.or(ca);
            let here = record.control_planes().filter_map(|name| self.sessions.get(name));
            let ids = member_ids(&here.cloned().collect::<Vec<_>>());
            for (name, member) in &mut record.members {
                member.etcd_id = ids.get(name.as_str()).copied().or(member.etcd_id);
            }
        })
    }

    fn write(&self, change: impl FnOnce(&mut ClusterRecord, Option<Digest>)) -> Result<(), Vec<Diagnosis>> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let founder = record.founder().and_then(|name| self.sessions.get(name));
        let facts = founder.map(|session| {
            let query = FactsQuery::default();
            session.ask::<NodeFacts>(&Request::Facts(query))
        });
        let ca = facts.transpose().map_err(|d| vec![d])?.and_then(|f| f.cluster_ca);
        change(&mut record, ca);
        // The revisions of `begin` (0), the founding and the end of the run are different; each is written once.
        record.sequence.revision += 1;
        let request = Request::WriteRecord {
            record: Box::new(record.clone()),
        };
        fleet::ask_all::<()>(&self.sessions, |_| request.clone()).map(drop)
    }
}

fn founds(step: &Step) -> bool {
    matches!(
        &step.action,
        Action::Bootstrap {
            goal: BootstrapGoal::Founder,
            ..
        }
    )
}
