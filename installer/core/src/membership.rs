//! Decides which cluster a run works on: the one that the nodes' journals record, one that is being founded, or a new one; and what its
//! record says once the run has begun.

use crate::cluster_record::{ClusterRecord, ClusterUid, FixedSettings, KeptSettings, MemberRecord, Sequence};
use crate::facts::NodeFacts;
use crate::finding::Finding;
use crate::inventory::{Node, Role};
use crate::journal::{Entry, EntryState, Ownership, member_records};
use crate::name::{Digest, NodeName};
use crate::plan::key::{StepKind, is_membership};
use crate::preflight::member_address;
use crate::spec::{ClusterSpec, Desired};
use crate::trust::ClusterTrust;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What [`wanted_record`] starts from.
#[derive(Debug, Clone, Copy)]
pub struct MembershipInput<'a> {
    /// The spec and the machines.
    pub desired: &'a Desired,
    /// The newest record of the nodes' journals.
    pub recorded: Option<&'a ClusterRecord>,
    /// What is ours on each node that is here.
    pub owned: &'a BTreeMap<NodeName, Ownership>,
    /// What was seen on each node that is here.
    pub facts: &'a BTreeMap<NodeName, NodeFacts>,
    /// Kubernetes version of the bundle.
    pub kubernetes_version: &'a str,
    /// Digest of the bundle's index.
    pub bundle: Digest,
    /// Version of the bundle.
    pub bundle_version: &'a str,
    /// Which keys may sign bundles from now on.
    pub trust: Option<&'a ClusterTrust>,
    /// DNS servers that CoreDNS is to forward to.
    pub upstream_dns: &'a [IpAddr],
    /// Identity for a cluster that has none yet.
    pub new_uid: &'a ClusterUid,
    /// Number of the run.
    pub run: u64,
}

/// Returns the record of the cluster as this run wants it. Members that are recorded stay recorded, here or not.
pub fn wanted_record(input: &MembershipInput) -> Result<ClusterRecord, Vec<Finding>> {
    let mut members = input.recorded.map(|r| r.members.clone()).unwrap_or_default();
    let mut findings = Vec::new();
    for node in input.desired.inventory.members() {
        let Some(facts) = input.facts.get(&node.name) else {
            continue;
        };
        let known = members.get(&node.name);
        let own = input.owned.get(&node.name);
        let has_joined = own.is_some_and(|own| own.entries.iter().any(|e| is_membership(&e.step)));
        match member(&input.desired.spec, node, facts, known, has_joined) {
            Ok(member) => {
                members.insert(node.name.clone(), member);
            }
            Err(finding) => findings.push(finding),
        }
    }
    if !findings.is_empty() {
        return Err(findings);
    }
    if !members.values().any(|m| m.founder)
        && let Some(founder) = founder(input)
        && let Some(member) = members.get_mut(founder)
    {
        member.founder = true;
    }
    let formed = input.recorded.is_some_and(|r| r.formed) || is_formed(input.owned);
    if input.recorded.is_none() && !formed {
        found_together(&mut members);
    }
    let spec = &input.desired.spec;
    let seen_ca = input.facts.values().find_map(|f| f.cluster_ca);
    Ok(ClusterRecord {
        uid: input.recorded.map_or_else(|| input.new_uid.clone(), |r| r.uid.clone()),
        name: spec.name.clone(),
        sequence: Sequence {
            run: input.run,
            revision: 0,
        },
        formed,
        ca: input
            .recorded
            .and_then(|r| r.ca)
            .or(if formed { seen_ca } else { None }),
        kubernetes_version: input.kubernetes_version.to_owned(),
        bundle: Some(input.bundle),
        bundle_version: Some(input.bundle_version.to_owned()),
        trust: input.trust.cloned(),
        fixed: input.recorded.filter(|r| r.formed).map_or_else(
            || FixedSettings::of(spec, pod_mtu(input, &members)),
            |r| r.fixed.clone(),
        ),
        kept: KeptSettings {
            proxy_mode: spec.proxy_mode,
            upstream_dns: Some(input.upstream_dns.to_vec()),
            upstream_dns_named: !spec.upstream_dns.is_empty(),
        },
        members,
    })
}

/// Returns the MTU of pods, in bytes: the setting, else what the smallest of the members' interfaces leaves.
fn pod_mtu(input: &MembershipInput, members: &BTreeMap<NodeName, MemberRecord>) -> u16 {
    let interface = |(name, seen): (&NodeName, &NodeFacts)| seen.mtu_of(members.get(name)?.address);
    let interfaces = input.facts.iter().filter_map(interface);
    input.desired.spec.pod_network.pod_mtu(interfaces)
}

/// Lets all control planes of a cluster that nobody has begun to found be founded at once: a new cluster has no data that etcd's
/// members would have to get one after the other. Those that come later join.
fn found_together(members: &mut BTreeMap<NodeName, MemberRecord>) {
    for member in members.values_mut().filter(|m| m.role == Role::ControlPlane) {
        member.cofounder = !member.founder;
    }
}

/// Says whether a cluster stands: its record says so, or the founding is journalled as done on every founder. Journals without a
/// record know one founder alone.
pub fn is_formed(owned: &BTreeMap<NodeName, Ownership>) -> bool {
    let record = member_records(owned)
        .map(|(_, record)| record)
        .max_by_key(|record| record.sequence);
    let founded = |name: &NodeName| {
        let mut entries = founding_entries(owned).filter(|(node, _)| *node == name);
        entries.any(|(_, e)| StepKind::Init.is_kind_of(&e.step) && e.state == EntryState::Owned)
    };
    match record {
        Some(record) if record.formed => true,
        Some(record) if record.founders().next().is_some() => record.founders().all(founded),
        _ => owned.keys().any(founded),
    }
}

/// Picks the founder: the node that began the founding, else the first control plane of the inventory. The choice is recorded before the first change.
fn founder<'a>(input: &MembershipInput<'a>) -> Option<&'a NodeName> {
    let began = |kind: StepKind| founding_entries(input.owned).find(|(_, e)| kind.is_kind_of(&e.step));
    let began = began(StepKind::Init).or_else(|| began(StepKind::Certificates));
    let first = || input.desired.inventory.control_planes().next().map(|node| &node.name);
    began.map(|(name, _)| name).or_else(first)
}

/// Names nodes that joined a cluster which none of the nodes here founded. It matters where no journal has a record: who founded the cluster stands in the
/// founder's journal alone then.
pub fn joined_without_founder(owned: &BTreeMap<NodeName, Ownership>) -> Vec<&NodeName> {
    if founding_entries(owned).next().is_some() {
        return vec![];
    }
    let joined = owned
        .iter()
        .filter(|(_, own)| own.entries.iter().any(|e| is_membership(&e.step)));
    joined.map(|(name, _)| name).collect()
}

fn founding_entries(owned: &BTreeMap<NodeName, Ownership>) -> impl Iterator<Item = (&NodeName, &Entry)> {
    let entries = owned
        .iter()
        .flat_map(|(name, own)| own.entries.iter().map(move |e| (name, e)));
    entries.filter(|(_, e)| StepKind::Init.is_kind_of(&e.step) || StepKind::Certificates.is_kind_of(&e.step))
}

fn member(
    spec: &ClusterSpec,
    node: &Node,
    facts: &NodeFacts,
    known: Option<&MemberRecord>,
    has_joined: bool,
) -> Result<MemberRecord, Finding> {
    // Certificates and etcd hold the address with which the node joined.
    let (address, _) = member_address(spec, node, known.map(|k| k.address), facts)?;
    // A machine that takes the place of one that had not joined, or of a worker, is recorded as what it is.
    let recorded = known.filter(|_| has_joined);
    Ok(MemberRecord {
        uid: recorded.map_or_else(|| facts.machine_id.clone(), |k| k.uid.clone()),
        role: known.map_or(node.role, |k| k.role),
        address,
        founder: known.is_some_and(|k| k.founder),
        cofounder: known.is_some_and(|k| k.cofounder),
        schedulable: known.and_then(|k| k.schedulable).or(Some(node.schedulable)),
        etcd_id: known.and_then(|k| k.etcd_id),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Undo;
    use crate::cluster_record::tests::record;
    use crate::inventory::Inventory;
    use crate::preflight::{self, tests::good};

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn node(text: &str, role: Role, last: u8) -> Node {
        Node {
            role,
            ip: Some([10, 90, 0, 10 + last].into()),
            ..preflight::tests::node(text, 10 + last)
        }
    }

    fn owns(step: &str, state: EntryState) -> Ownership {
        let entry = Entry {
            run: "r1".parse().unwrap(),
            step: step.parse().unwrap(),
            action: Digest::of(b"x"),
            undo: Undo::Nothing,
            state,
            stamp: None,
            wanted: None,
        };
        Ownership {
            entries: vec![entry],
            ..Ownership::default()
        }
    }

    /// Returns the names of founder and cofounders in the record of an install of three control planes and a worker.
    fn founders(recorded: Option<&ClusterRecord>, owned: &BTreeMap<NodeName, Ownership>) -> (String, Vec<String>) {
        let control_planes = ["cp-1", "cp-2", "cp-3"].map(|n| node(n, Role::ControlPlane, n.as_bytes()[3] - b'0'));
        let nodes: Vec<Node> = control_planes
            .into_iter()
            .chain([node("w-1", Role::Worker, 4)])
            .collect();
        let facts = nodes
            .iter()
            .zip(1..)
            .map(|(n, at)| (n.name.clone(), good(at)))
            .collect();
        let desired = Desired {
            spec: ClusterSpec::default(),
            inventory: Inventory { nodes },
        };
        let wanted = wanted_record(&MembershipInput {
            desired: &desired,
            recorded,
            owned,
            facts: &facts,
            kubernetes_version: "v1.37.2",
            bundle: Digest::of(b"b"),
            bundle_version: "1",
            trust: None,
            upstream_dns: &[],
            new_uid: &ClusterUid::from_random([1; 16]),
            run: 1,
        })
        .unwrap();
        let together = wanted.members.iter().filter(|(_, m)| m.cofounder);
        (
            wanted.founder().unwrap().to_string(),
            together.map(|(name, _)| name.to_string()).collect(),
        )
    }

    #[test]
    fn the_control_planes_of_a_new_cluster_found_it_together_and_later_ones_join() {
        let none = BTreeMap::new();
        let (founder, cofounders) = founders(None, &none);
        assert_eq!(
            (founder.as_str(), cofounders),
            ("cp-1", vec!["cp-2".to_owned(), "cp-3".to_owned()])
        );
        // An older landfall began with the second one, and wrote no record.
        let began = [(name("cp-2"), owns("init/cp-2", EntryState::Intended))].into();
        let (founder, cofounders) = founders(None, &began);
        assert_eq!(
            (founder.as_str(), cofounders),
            ("cp-2", vec!["cp-1".to_owned(), "cp-3".to_owned()])
        );
        // A record of an older landfall knows one founder; what is recorded stays.
        for formed in [false, true] {
            let mut recorded = record(1, 1, 0);
            recorded.formed = formed;
            for (member, last) in recorded.members.values_mut().zip(11..) {
                member.address = [10, 90, 0, last].into();
            }
            assert_eq!(founders(Some(&recorded), &none), ("cp-2".to_owned(), vec![]));
            recorded.members.get_mut(&name("cp-1")).unwrap().cofounder = true;
            assert_eq!(
                founders(Some(&recorded), &none),
                ("cp-2".to_owned(), vec!["cp-1".to_owned()])
            );
        }
    }

    #[test]
    fn nodes_that_joined_have_a_founder_here_or_are_named() {
        let mut fleet: BTreeMap<_, _> = [
            (name("cp-2"), owns("join-kubelet/cp-2", EntryState::Owned)),
            (name("w-1"), owns("join-worker/w-1", EntryState::Intended)),
            (name("w-2"), owns("file/w-2", EntryState::Owned)),
        ]
        .into();
        assert_eq!(joined_without_founder(&fleet), [&name("cp-2"), &name("w-1")]);
        for began in ["init/cp-1", "certificates/cp-1"] {
            fleet.insert(name("cp-1"), owns(began, EntryState::Intended));
            assert!(joined_without_founder(&fleet).is_empty(), "{began}");
        }
    }

    #[test]
    fn a_cluster_is_formed_when_every_founder_has_founded() {
        let mut forming = record(1, 1, 0);
        forming.formed = false;
        forming.members.get_mut(&name("cp-1")).unwrap().cofounder = true;
        let fleet = |record: &ClusterRecord, first, second| -> BTreeMap<NodeName, Ownership> {
            let mut own = [owns("init/cp-1", first), owns("init/cp-2", second)];
            own.iter_mut().for_each(|own| own.records.push(record.clone()));
            ["cp-1", "cp-2"].map(name).into_iter().zip(own).collect()
        };
        use EntryState::{Intended, Owned, Undoing};
        assert!(is_formed(&fleet(&forming, Owned, Owned)));
        assert!(!is_formed(&fleet(&forming, Owned, Intended)));
        assert!(!is_formed(&fleet(&forming, Undoing, Owned)));
        let mut one = fleet(&forming, Owned, Owned);
        one.remove(&name("cp-1"));
        assert!(!is_formed(&one), "an absent founder may not have founded");
        let mut formed = forming.clone();
        formed.formed = true;
        assert!(is_formed(&fleet(&formed, Intended, Intended)), "the record decides");
        let without: BTreeMap<_, _> = [(name("cp-2"), owns("init/cp-2", Owned))].into();
        assert!(is_formed(&without), "journals without a record know one founder");
    }
}
