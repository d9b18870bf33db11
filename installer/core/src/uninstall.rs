//! Decides whether an uninstall may go ahead. It takes away a whole cluster; or, on chosen machines, what an earlier cluster left there that no other machine
//! serves any more.

use crate::cluster_record::{ClusterRecord, ClusterUid, Share, shares};
use crate::inventory::Inventory;
use crate::journal::{Ownership, member_records};
use crate::name::NodeName;
use crate::preflight::unlisted_members;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Why an uninstall is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The machines belong to several clusters, and the user may mean one of them.
    SeveralClusters(BTreeMap<ClusterUid, Share>),
    /// Members that the inventory lacks would be left without quorum, or with dead members.
    Unlisted(Vec<(NodeName, IpAddr)>),
    /// Machines that were not chosen are members of the cluster of those that were.
    MembersLeftOut(Vec<NodeName>),
    /// Machines that do not answer, or are not in the inventory, may still be members of the cluster of the chosen ones.
    MembersUnknown(Vec<NodeName>),
}

/// Returns why an uninstall would take away a part of a cluster. `owned` has all machines that answered; `chosen` says which of them the uninstall acts on,
/// and `None` means all.
pub fn refuse(
    owned: &BTreeMap<NodeName, Ownership>,
    inventory: &Inventory,
    chosen: Option<&dyn Fn(&NodeName) -> bool>,
) -> Option<Refusal> {
    let is_chosen = |name: &NodeName| chosen.is_none_or(|chosen| chosen(name));
    let (of_chosen, others): (BTreeMap<&NodeName, &ClusterRecord>, BTreeMap<_, _>) =
        member_records(owned).partition(|(name, _)| is_chosen(name));
    let clusters = shares(of_chosen.iter().map(|(name, record)| (*name, *record)));
    if clusters.len() > 1 {
        return Some(Refusal::SeveralClusters(clusters));
    }
    let record = of_chosen.values().copied().max_by_key(|record| record.sequence);
    if chosen.is_none() {
        let unlisted = record
            .filter(|record| record.formed)
            .map(|record| unlisted_members(record, inventory));
        return unlisted.filter(|unlisted| !unlisted.is_empty()).map(Refusal::Unlisted);
    }
    let owns = |name: &NodeName| owned.get(name).is_some_and(|own| !own.is_empty());
    if !owned.keys().any(|name| is_chosen(name) && owns(name)) {
        return None;
    }
    let same = others
        .iter()
        .filter(|(_, other)| record.is_some_and(|record| other.uid == record.uid));
    let left_out: Vec<NodeName> = same.map(|(name, _)| (*name).clone()).collect();
    if !left_out.is_empty() {
        return Some(Refusal::MembersLeftOut(left_out));
    }
    // A journal without a record does not say which cluster it belongs to.
    let mut owning = owned.keys().filter(|name| is_chosen(name) && owns(name));
    let all_recorded = owning.all(|name| of_chosen.contains_key(name));
    let listed = inventory.members().map(|node| &node.name);
    let recorded = record.into_iter().flat_map(|record| record.members.keys());
    let is_unknown = |name: &&NodeName| {
        let says_nothing = owns(name) && !(all_recorded && others.contains_key(name));
        !is_chosen(name) && (!owned.contains_key(*name) || says_nothing)
    };
    let unknown: BTreeSet<NodeName> = listed.chain(recorded).filter(is_unknown).cloned().collect();
    (!unknown.is_empty()).then(|| Refusal::MembersUnknown(unknown.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Undo;
    use crate::cluster_record::tests::record;
    use crate::journal::{Entry, EntryState};
    use crate::name::Digest;
    use crate::preflight::tests::node;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    /// A machine on which landfall owns something, of the cluster with that number, if of any.
    fn machine(cluster: Option<u8>) -> Ownership {
        let entry = Entry {
            run: "r1".parse().unwrap(),
            step: "file/x".parse().unwrap(),
            action: Digest::of(b"x"),
            undo: Undo::Nothing,
            state: EntryState::Owned,
            stamp: None,
            wanted: None,
        };
        Ownership {
            entries: vec![entry],
            records: cluster.map(|uid| record(uid, 1, 0)).into_iter().collect(),
            ..Ownership::default()
        }
    }

    /// Judges an uninstall on the chosen machines, with an inventory of `cp-1`, `cp-2` and `w-1`: the members of each record are the first two.
    fn judged(machines: &[(&str, Ownership)], chosen: Option<&str>) -> Option<Refusal> {
        let owned = machines.iter().map(|(n, own)| (name(n), own.clone())).collect();
        let nodes = ["cp-1", "cp-2", "w-1"]
            .iter()
            .zip(11..)
            .map(|(n, at)| node(n, at))
            .collect();
        let is_chosen = |n: &NodeName| chosen == Some(n.as_str());
        let chosen: Option<&dyn Fn(&NodeName) -> bool> = chosen.is_some().then_some(&is_chosen as _);
        refuse(&owned, &Inventory { nodes }, chosen)
    }

    #[test]
    fn a_whole_cluster_goes_and_two_do_not() {
        let (one, two, none) = (machine(Some(1)), machine(Some(2)), Ownership::default());
        let whole = [("cp-1", one.clone()), ("cp-2", one.clone()), ("w-1", none)];
        assert_eq!(judged(&whole, None), None);
        let mixed = [("cp-1", one.clone()), ("cp-2", one), ("w-1", two)];
        let Some(Refusal::SeveralClusters(clusters)) = judged(&mixed, None) else {
            panic!("two clusters");
        };
        let share = |nodes: &[&str], whole| Share {
            nodes: nodes.iter().map(|n| name(n)).collect(),
            whole,
        };
        let shares: Vec<Share> = clusters.into_values().collect();
        assert_eq!(shares, [share(&["cp-1", "cp-2"], true), share(&["w-1"], false)]);
    }

    #[test]
    fn chosen_machines_go_when_nobody_else_serves_their_cluster() {
        let (one, two, none) = (machine(Some(1)), machine(Some(2)), Ownership::default());
        let left = [("cp-1", two.clone()), ("cp-2", none), ("w-1", one.clone())];
        assert_eq!(judged(&left, Some("w-1")), None);
        assert_eq!(
            judged(
                &[("cp-1", one.clone()), ("cp-2", two.clone()), ("w-1", one.clone())],
                Some("w-1")
            ),
            Some(Refusal::MembersLeftOut(vec![name("cp-1")]))
        );
        assert_eq!(
            judged(&[("cp-2", two.clone()), ("w-1", one.clone())], Some("w-1")),
            Some(Refusal::MembersUnknown(vec![name("cp-1")])),
            "cp-1 does not answer"
        );
        assert_eq!(
            judged(
                &[("cp-1", machine(None)), ("cp-2", two.clone()), ("w-1", one.clone())],
                Some("w-1")
            ),
            Some(Refusal::MembersUnknown(vec![name("cp-1")])),
            "cp-1 has a journal without a record"
        );
        // It joined while w-1 was off, so that w-1's record does not name it.
        let mut early = one;
        early.records[0].members.clear();
        assert_eq!(
            judged(&[("cp-1", two), ("w-1", early)], Some("w-1")),
            Some(Refusal::MembersUnknown(vec![name("cp-2")]))
        );
    }

    #[test]
    fn journals_without_a_record_belong_together() {
        let (old, none) = (machine(None), Ownership::default());
        let all = [("cp-1", old.clone()), ("cp-2", old.clone()), ("w-1", old.clone())];
        assert_eq!(judged(&all, None), None);
        let unknown = Refusal::MembersUnknown(vec![name("cp-1"), name("cp-2")]);
        assert_eq!(judged(&all, Some("w-1")), Some(unknown));
        let alone = [("cp-1", none.clone()), ("cp-2", none), ("w-1", old)];
        assert_eq!(judged(&alone, Some("w-1")), None);
        assert_eq!(judged(&all[..2], Some("w-1")), None, "there is nothing on it");
        assert_eq!(
            judged(&[("w-1", machine(None))], Some("w-1")),
            Some(Refusal::MembersUnknown(vec![name("cp-1"), name("cp-2")])),
            "the others do not answer"
        );
    }
}
