//! The laws: rules that no run may break, whatever fault it meets. The model checks them at every question.

use super::workloads::is_ready;
use super::{ETCD_DATA, ETCD_STOPPED, State};
use crate::machine::foreign;
use landfall_core::journal::{Entry, EntryState, Ownership, RunStart, UNINSTALL};
use landfall_core::membership::is_formed;
use landfall_core::name::NodeName;
use landfall_core::plan::key::StepKind;
use serde_json::Value;
use std::fmt;

/// A rule that no run may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// A cluster is founded once.
    Founding,
    /// One join of etcd at a time.
    Joins,
    /// Only what landfall owns is removed.
    Ours,
    /// etcd's quorum.
    Quorum,
    /// The intent is recorded before the act.
    Intent,
}

impl Law {
    /// Returns the rule as a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Founding => {
                "a cluster that was formed is never founded again, and several machines found one only together"
            }
            Self::Joins => "two members never join etcd at once",
            Self::Ours => "what is not landfall's, or still belongs to a cluster that stays, is never removed",
            Self::Quorum => "etcd never falls below its quorum by what landfall does",
            Self::Intent => "nothing is done before its intent is on disk",
        }
    }
}

/// A violation of a law.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub law: Law,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, but {}", self.law.sentence(), self.what)
    }
}

impl State {
    pub(super) fn violate(&mut self, law: Law, what: String) {
        let violation = Violation { law, what };
        if !self.violations.contains(&violation) {
            self.violations.push(violation);
        }
    }

    fn has_entry(&self, node: &NodeName, fits: impl Fn(&Entry) -> bool) -> bool {
        let journal = self.machine(node).and_then(super::Place::journal);
        journal.is_some_and(|own| own.entries.iter().any(fits))
    }

    fn has_open_run(&self, node: &NodeName, fits: impl Fn(&RunStart) -> bool) -> bool {
        let journal = self.machine(node).and_then(super::Place::journal);
        journal.as_ref().and_then(Ownership::open_run).is_some_and(fits)
    }

    /// Says whether some entry of a machine's journal is on its way: intended and not done, or being undone.
    pub(super) fn is_under_way(&self, node: &NodeName) -> bool {
        self.has_entry(node, |e| e.state != EntryState::Owned)
    }

    /// A machine's program does something: a step of one of these kinds must be on its way there.
    pub(super) fn must_be_intended(&mut self, node: &NodeName, what: &str, kinds: &[StepKind]) {
        let fits = |e: &Entry| e.state != EntryState::Owned && kinds.iter().any(|k| k.is_kind_of(&e.step));
        if !self.has_entry(node, fits) {
            self.violate(Law::Intent, format!("{node} does {what} without one"));
        }
    }

    /// Says whether a run that takes others back is open by a machine's journal: its start names what goes, and is written first.
    fn takes_back(&self, node: &NodeName) -> bool {
        self.has_open_run(node, |start| start.command == UNINSTALL || !start.takes_back.is_empty())
    }

    /// Somebody changes the cluster's objects or members: some step must be on its way on a machine of the fleet, or a run that takes
    /// others back.
    pub(super) fn must_be_intended_somewhere(&mut self, what: &str) {
        let intended = |node: &NodeName| self.is_under_way(node) || self.takes_back(node);
        if !self.machines.keys().any(intended) {
            self.violate(Law::Intent, format!("{what} without one"));
        }
    }

    /// A machine founds: no other may have a cluster's data, none at all a journal that says that it founded. Except that others found
    /// the same cluster beside it, `same`, and it is not formed.
    pub(super) fn may_found(&mut self, node: &NodeName, same: Option<usize>) {
        let founded = |e: &Entry| StepKind::Init.is_kind_of(&e.step) && e.state == EntryState::Owned;
        let same = same.filter(|_| !self.is_formed());
        let is_beside = |name: &NodeName, machine: &super::Place| {
            let id = machine.text(ETCD_DATA).trim().to_owned();
            let members = same.into_iter().flat_map(|at| &self.clusters[at].members);
            name != node
                && members
                    .into_iter()
                    .any(|m| m.name == name.as_str() && m.id.to_string() == id)
        };
        let formed = self.machines.iter().filter(|(name, machine)| {
            let has_data = *name != node && machine.has(ETCD_DATA) && !self.off.contains(*name);
            (has_data || self.has_entry(name, founded)) && !is_beside(name, machine)
        });
        let formed: Vec<String> = formed.map(|(name, _)| name.to_string()).collect();
        if !formed.is_empty() {
            let what = format!("{node} founds one while {} have one", formed.join(", "));
            self.violate(Law::Founding, what);
        }
    }

    /// A Node that is Ready may only go when its machine's join was interrupted, is undone, or the test wants it to. A control plane
    /// that is no member of etcd has not joined whole, and its kubelet joins anew with it.
    pub(super) fn may_remove_node(&mut self, at: usize, node: &Value, name: &str) {
        let machine = self.named(name);
        let under_way = machine.is_some_and(|(n, _)| self.is_under_way(n));
        let configured = machine
            .map(|(_, m)| m.text(landfall_core::layout::KUBEADM_CONFIG))
            .unwrap_or_default();
        let joins_etcd = configured.contains("localAPIEndpoint");
        let is_member = self.clusters[at].members.iter().any(|m| m.name == name);
        let half = joins_etcd && !is_member;
        if is_ready(node) && !under_way && !half && !self.leaving.contains(name) {
            self.violate(Law::Ours, format!("the Ready Node {name} was removed"));
        }
    }

    /// An object goes: landfall or kubeadm must have made it.
    pub(super) fn may_delete(&mut self, object: &Value, what: &str) {
        let managers = object["metadata"]["managedFields"].as_array();
        let ours = |m: &Value| m["manager"] == "landfall" || m["manager"] == "kubeadm";
        if !managers.is_some_and(|list| list.iter().any(ours)) {
            self.violate(Law::Ours, format!("{what} was deleted, which its user made"));
        }
    }

    /// Says whether the journals record a cluster as formed. What is being founded has no quorum yet, or has lost it with the founding
    /// that was taken back.
    fn is_formed(&self) -> bool {
        let journals = self
            .machines
            .iter()
            .filter_map(|(name, m)| Some((name.clone(), m.journal()?)));
        is_formed(&journals.collect())
    }

    /// Says whether by some machine's journal a run is open that uninstalls the cluster or takes its founding back: the whole cluster goes,
    /// so it has no quorum to keep.
    fn goes_whole(&self) -> bool {
        let takes_founding = |own: &Ownership, start: &RunStart| {
            let taken = own
                .runs
                .iter()
                .filter(|run| run.start.number.is_some_and(|n| start.takes_back.contains(&n)));
            let taken: Vec<_> = taken.map(|run| &run.start.run).collect();
            own.entries
                .iter()
                .any(|e| StepKind::Init.is_kind_of(&e.step) && taken.contains(&&e.run))
        };
        let goes = |own: &Ownership| {
            let open = own.open_run();
            open.is_some_and(|start| start.command == UNINSTALL || takes_founding(own, start))
        };
        self.machines
            .values()
            .filter_map(super::Place::journal)
            .any(|own| goes(&own))
    }

    /// Looks for what can be seen at any time: a cluster with members that live and without a quorum, which it would have with those that
    /// the test took away; files of others that are gone or changed.
    pub(super) fn check(&mut self) {
        for at in 0..self.clusters.len() {
            let voters: Vec<_> = self.clusters[at].members.iter().filter(|m| !m.learner).collect();
            let is_taken = |name: &str| {
                let named = self.named(name);
                let is_down = named.is_some_and(|(n, m)| self.off.contains(n) || m.has(ETCD_STOPPED));
                is_down || self.leaving.contains(name)
            };
            let (mut living, mut taken) = (0, 0);
            for member in &voters {
                let lives = self.is_healthy(member);
                living += usize::from(lives);
                taken += usize::from(!lives && is_taken(&member.name));
            }
            if living > 0 && (living + taken) * 2 <= voters.len() && self.is_formed() && !self.goes_whole() {
                let what = format!("{living} of {} members are healthy", voters.len());
                self.violate(Law::Quorum, what);
            }
        }
        let touched = self.machines.iter().flat_map(|(name, machine)| {
            let files = foreign(name.as_str()).into_iter();
            let touched = files.filter(|(path, text)| machine.text(path) != *text);
            touched.map(move |(path, _)| format!("{path} on {name} is not as it was"))
        });
        for what in touched.collect::<Vec<_>>() {
            self.violate(Law::Ours, what);
        }
    }
}
