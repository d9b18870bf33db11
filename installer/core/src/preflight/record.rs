//! Checks against the cluster that is recorded: its version, its fixed settings, its members.

use super::{Finding, member_address};
use crate::cluster_record::{ClusterRecord, FixedSettings, RecordError};
use crate::facts::NodeFacts;
use crate::inventory::{Inventory, Role};
use crate::journal::Ownership;
use crate::name::NodeName;
use crate::plan::key::StepKind;
use crate::spec::Desired;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Compares what is wanted with the cluster that is there. A cluster that is not formed yet may still become anything.
pub fn check_record(
    desired: &Desired,
    kubernetes_version: &str,
    record: &ClusterRecord,
    facts: &BTreeMap<NodeName, NodeFacts>,
    owned: &BTreeMap<NodeName, Ownership>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !record.formed {
        return findings;
    }
    if record.kubernetes_version != kubernetes_version {
        findings.push(Finding {
            id: "kubernetes-version",
            nodes: vec![],
            what: format!("the bundle has another Kubernetes version than the cluster {}", record.name),
            saw: format!("cluster {}, bundle {kubernetes_version}", record.kubernetes_version),
            next: "use a bundle of the cluster's version: `install` replaces no program under running daemons, and there is no upgrade yet".to_owned(),
        });
    }
    let differences = record.fixed.differences(&FixedSettings::of(&desired.spec));
    findings.extend(differences.into_iter().map(|d| Finding {
        id: "fixed-setting",
        nodes: vec![],
        what: format!("{} cannot be changed in a cluster that stands: {}", d.setting, d.why),
        saw: format!("cluster {:?}, spec {:?}", d.now, d.wanted),
        next: format!(
            "set {} back to {:?}; only a new cluster can have another value",
            d.setting, d.now
        ),
    }));
    for (name, seen) in facts {
        let empty = Ownership::default();
        findings.extend(member(desired, record, name, seen, owned.get(name).unwrap_or(&empty)));
    }
    findings
}

fn member(
    desired: &Desired,
    record: &ClusterRecord,
    name: &NodeName,
    seen: &NodeFacts,
    own: &Ownership,
) -> Vec<Finding> {
    let finding = |id, what: String, saw: String, next: String| Finding {
        id,
        nodes: vec![name.clone()],
        what,
        saw,
        next,
    };
    let mut findings = Vec::new();
    let Some(known) = record.members.get(name) else {
        return findings;
    };
    let role = desired.inventory.node(name).map(|node| node.role);
    if let Some(role) = role.filter(|role| *role != known.role) {
        findings.push(finding(
            "member-role",
            "a member cannot change between control plane and worker".to_owned(),
            format!("recorded {}, inventory {}", role_text(known.role), role_text(role)),
            "give the node its recorded role back in the inventory".to_owned(),
        ));
    }
    let joined = own.entries.iter().any(|e| is_membership(&e.step));
    if !joined {
        return findings;
    }
    let node = desired.inventory.node(name);
    findings.extend(node.and_then(|node| member_address(&desired.spec, node, Some(known.address), seen).err()));
    if let (Some(recorded), Some(found)) = (record.ca, seen.cluster_ca)
        && recorded != found
    {
        findings.push(finding(
            "other-cluster",
            format!(
                "the node holds the certificate authority of another cluster than {}",
                record.name
            ),
            format!("{found}, the cluster has {recorded}"),
            format!("run `landfall uninstall` with an inventory that holds {name} alone, then install again"),
        ));
    }
    findings
}

fn is_membership(step: &crate::name::StepId) -> bool {
    let kinds = [StepKind::Init, StepKind::JoinWorker, StepKind::JoinKubelet];
    kinds.iter().any(|kind| kind.is_kind_of(step))
}

fn role_text(role: Role) -> &'static str {
    match role {
        Role::ControlPlane => "control plane",
        Role::Worker => "worker",
        Role::Outside => "outside",
    }
}

/// Says why records of several journals make no cluster.
pub fn records_disagree(error: &RecordError) -> Vec<Finding> {
    match error {
        RecordError::SeveralClusters { most, others } => others
            .iter()
            .map(|(name, uid)| Finding {
                id: "other-cluster",
                nodes: vec![name.clone()],
                what: "the node belongs to another cluster, or to an earlier one of the same name".to_owned(),
                saw: format!("cluster {uid} in its journal, {most} in those of most nodes"),
                next: format!("run `landfall uninstall` with an inventory that holds {name} alone, then install again"),
            })
            .collect(),
        RecordError::SameSequence { sequence, nodes } => vec![Finding {
            id: "same-run-number",
            nodes: nodes.clone(),
            what: "two runs gave themselves the same number, on nodes that did not see each other".to_owned(),
            saw: format!("number {}, two different cluster records", sequence.run),
            next: "compare /var/lib/landfall/journal.jsonl on the nodes, and uninstall the nodes of the wrong run"
                .to_owned(),
        }],
    }
}

/// A cluster that stands can do without some members. Says when too few control planes are here for a run that changes something.
pub fn too_few_control_planes(record: &ClusterRecord, here: &[&NodeName]) -> Option<Finding> {
    let all: Vec<&NodeName> = record.control_planes().collect();
    let (present, absent): (Vec<&NodeName>, Vec<&NodeName>) = all.iter().partition(|name| here.contains(name));
    let needed = record.majority();
    (present.len() < needed).then(|| Finding {
        id: "control-plane-majority",
        nodes: absent.into_iter().cloned().collect(),
        what: format!(
            "{needed} of {} control planes are needed, and fewer are here",
            all.len()
        ),
        saw: format!("{} here", present.len()),
        next: "bring the absent control planes back, or put them into the inventory again".to_owned(),
    })
}

/// Lists recorded members that the inventory lacks, with their addresses.
pub fn unlisted_members(record: &ClusterRecord, inventory: &Inventory) -> Vec<(NodeName, IpAddr)> {
    let unlisted = record.members.iter().filter(|(name, _)| inventory.node(name).is_none());
    unlisted.map(|(name, m)| (name.clone(), m.address)).collect()
}
