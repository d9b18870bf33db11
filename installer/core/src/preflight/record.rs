//! Checks against the cluster that is recorded: its version, its fixed settings, its members.

use super::{choose_address, member_address, pod_network};
use crate::bundle_index::{BundleIndex, version_numbers};
use crate::cluster_record::{ClusterRecord, FixedSettings, MemberRecord, RecordError};
use crate::facts::NodeFacts;
use crate::finding::{Check, Finding, Severity};
use crate::inventory::{Inventory, Role};
use crate::journal::Ownership;
use crate::name::NodeName;
use crate::plan::key::is_membership;
use crate::spec::Desired;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Compares what is wanted, and the bundle when there is one, with the cluster that is there. A cluster that is not formed yet may still become anything.
pub fn check_record(
    desired: &Desired,
    index: Option<&BundleIndex>,
    record: &ClusterRecord,
    facts: &BTreeMap<NodeName, NodeFacts>,
    owned: &BTreeMap<NodeName, Ownership>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !record.formed {
        return findings;
    }
    findings.extend(index.and_then(|index| bundle_versions(index, record)));
    let recorded_mtu = record.fixed.pod_network.mtu;
    // A spec that names no MTU wants the one that was measured.
    let pod_mtu = desired.spec.pod_network.mtu.unwrap_or(recorded_mtu);
    let differences = record.fixed.differences(&FixedSettings::of(&desired.spec, pod_mtu));
    findings.extend(differences.into_iter().map(|d| {
        Finding::new(
            Check::FixedSetting,
            format!("{} cannot be changed in a cluster that stands: {}", d.setting, d.why),
            format!("cluster {:?}, spec {:?}", d.now, d.wanted),
            format!(
                "set {} back to {:?}; only a new cluster can have another value",
                d.setting, d.now
            ),
        )
    }));
    for (name, seen) in facts {
        // What the spec names is compared with the spec.
        let known = record.members.get(name).map(|member| member.address);
        let node = desired.inventory.node(name);
        let address = known.or_else(|| Some(choose_address(&desired.spec, node?, seen).ok()?.0));
        if desired.spec.pod_network.mtu.is_none()
            && let Some(finding) = address.and_then(|address| pod_network::check_recorded(record, name, seen, address))
        {
            let joined = owned
                .get(name)
                .is_some_and(|own| own.entries.iter().any(|e| is_membership(&e.step)));
            findings.push(if joined {
                finding.at_most(Severity::Warn)
            } else {
                finding
            });
        }
        let empty = Ownership::default();
        findings.extend(member(desired, record, name, seen, owned.get(name).unwrap_or(&empty)));
    }
    findings
}

/// Compares the versions of the bundle with those of the cluster. What would be a downgrade is named so.
fn bundle_versions(index: &BundleIndex, record: &ClusterRecord) -> Option<Finding> {
    let (now, offered) = (&record.kubernetes_version, &index.kubernetes_version);
    let name = &record.name;
    if now != offered {
        let what = if version_numbers(offered) < version_numbers(now) {
            format!("a downgrade: the bundle has an older Kubernetes version than the cluster {name}")
        } else {
            format!("the bundle has another Kubernetes version than the cluster {name}")
        };
        return Some(Finding::new(
            Check::KubernetesVersion,
            what,
            format!("cluster {now}, bundle {offered}"),
            "use a bundle of the cluster's version: `install` replaces no program under running daemons, and there is no upgrade yet",
        ));
    }
    let installed = record.bundle_version.as_ref()?;
    (version_numbers(&index.bundle_version) < version_numbers(installed)).then(|| {
        Finding::new(
            Check::BundleVersion,
            format!("a downgrade: a newer bundle was installed in the cluster {name}"),
            format!("installed {installed}, this bundle {}", index.bundle_version),
            "use the bundle that was installed, or a newer one",
        )
    })
}

fn member(
    desired: &Desired,
    record: &ClusterRecord,
    name: &NodeName,
    seen: &NodeFacts,
    own: &Ownership,
) -> Vec<Finding> {
    let finding = |check, what: String, saw: String, next: String| Finding::new(check, what, saw, next).on([name]);
    let mut findings = Vec::new();
    let Some(known) = record.members.get(name) else {
        return findings;
    };
    let node = desired.inventory.node(name);
    if let Some(role) = node.map(|node| node.role).filter(|role| *role != known.role) {
        findings.push(finding(
            Check::MemberRole,
            "a member cannot change between control plane and worker".to_owned(),
            format!("recorded {}, inventory {}", role_text(known.role), role_text(role)),
            "give the node its recorded role back in the inventory".to_owned(),
        ));
    }
    findings.extend(node.and_then(|node| schedulable(name, node.schedulable, known)));
    let joined = own.entries.iter().any(|e| is_membership(&e.step));
    if !joined {
        findings.extend(lost_member(name, seen, known));
        return findings;
    }
    findings.extend(node.and_then(|node| member_address(&desired.spec, node, Some(known.address), seen).err()));
    if let (Some(recorded), Some(found)) = (record.ca, seen.cluster_ca)
        && recorded != found
    {
        findings.push(finding(
            Check::OtherCluster,
            format!(
                "the node holds the certificate authority of another cluster than {}",
                record.name
            ),
            format!("{found}, the cluster has {recorded}"),
            "give the node /etc/kubernetes/pki and /etc/kubernetes/kubelet.conf of this cluster back, for instance from a backup".to_owned(),
        ));
    }
    findings
}

/// Says when a machine that holds no membership has the name of an etcd member. A record has the id of a member once that has joined as a whole.
fn lost_member(name: &NodeName, seen: &NodeFacts, known: &MemberRecord) -> Option<Finding> {
    let id = known.etcd_id?;
    let machine = if seen.machine_id == known.uid {
        format!("machine-id {}, as recorded", seen.machine_id)
    } else {
        format!("machine-id {}, recorded {}", seen.machine_id, known.uid)
    };
    let finding = Finding::new(
        Check::MemberLost,
        "the cluster has an etcd member of this name, and the machine's journal knows nothing of it: it was emptied, or is another machine",
        format!("etcd member {id}; {machine}"),
        "bring back the machine with its disk: no command replaces a control plane yet; with this node taken out of the inventory, `landfall install` \
         goes on with the others",
    );
    Some(finding.on([name]))
}

/// Says when the inventory wants another taint on a control plane than the one with which it joined.
fn schedulable(name: &NodeName, wanted: bool, known: &MemberRecord) -> Option<Finding> {
    let joined = known.schedulable?;
    if known.role != Role::ControlPlane || joined == wanted {
        return None;
    }
    let (keeps, sign) = if joined {
        ("takes Pods", "")
    } else {
        ("takes no Pods", "-")
    };
    let finding = Finding::new(
        Check::MemberSchedulable,
        format!("the control plane {keeps}, as it joined, and keeps to that"),
        format!("joined with schedulable: {joined}, the inventory means {wanted}"),
        format!(
            "`kubectl taint node {name} node-role.kubernetes.io/control-plane:NoSchedule{sign}` changes it; \
             `schedulable: {joined}` in the inventory ends this warning"
        ),
    );
    Some(finding.on([name]))
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
        RecordError::SeveralClusters(clusters) => clusters
            .iter()
            .map(|(uid, share)| {
                Finding::new(
                    Check::OtherCluster,
                    "the machines belong to several clusters, or to an earlier and a later one of the same name",
                    format!("cluster {uid} in the journals of these"),
                    share.way_out(),
                )
                .on(&share.nodes)
            })
            .collect(),
        RecordError::SameSequence { sequence, nodes } => vec![
            Finding::new(
                Check::SameRunNumber,
                "two runs gave themselves the same number, on nodes that did not see each other",
                format!("number {}, two different cluster records", sequence.run),
                "compare /var/lib/landfall/journal.jsonl on the nodes; `landfall uninstall` of the whole cluster works in any case",
            )
            .on(nodes),
        ],
    }
}

/// A cluster that stands can do without some members. Says when too few control planes are here for a run that changes something.
pub fn too_few_control_planes(record: &ClusterRecord, here: &[&NodeName]) -> Option<Finding> {
    let all: Vec<&NodeName> = record.control_planes().collect();
    let (present, absent): (Vec<&NodeName>, Vec<&NodeName>) = all.iter().partition(|name| here.contains(name));
    let needed = record.majority();
    (present.len() < needed).then(|| {
        Finding::new(
            Check::ControlPlaneMajority,
            format!(
                "{needed} of {} control planes are needed, and fewer are here",
                all.len()
            ),
            format!("{} here", present.len()),
            "bring the absent control planes back, or put them into the inventory again",
        )
        .on(absent)
    })
}

/// Lists recorded members that the inventory lacks, with their addresses.
pub fn unlisted_members(record: &ClusterRecord, inventory: &Inventory) -> Vec<(NodeName, IpAddr)> {
    let unlisted = record.members.iter().filter(|(name, _)| inventory.node(name).is_none());
    unlisted.map(|(name, m)| (name.clone(), m.address)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle_index::Variant;
    use crate::cluster_record::tests::record;

    fn found(kubernetes: &str, bundle: &str, installed: Option<&str>) -> Option<Finding> {
        let variant = Variant {
            architecture: "amd64".to_owned(),
            binaries: vec![],
            images: vec![],
        };
        let mut index = BundleIndex::new("source", kubernetes, "r", variant);
        index.bundle_version = bundle.to_owned();
        let mut record = record(1, 1, 0);
        record.bundle_version = installed.map(str::to_owned);
        bundle_versions(&index, &record)
    }

    #[test]
    fn a_changed_taint_of_a_control_plane_is_a_warning() {
        let known = |schedulable| MemberRecord {
            schedulable,
            ..record(1, 1, 0).members.values().next().unwrap().clone()
        };
        let found = |joined, wanted| {
            let name = "cp-1".parse().unwrap();
            schedulable(&name, wanted, &known(joined)).map(|finding| finding.next)
        };
        assert_eq!(
            [found(Some(true), true), found(Some(false), false), found(None, true)],
            [None, None, None]
        );
        assert!(
            found(Some(true), false)
                .unwrap()
                .contains("node-role.kubernetes.io/control-plane:NoSchedule`")
        );
        assert!(
            found(Some(false), true)
                .unwrap()
                .contains("node-role.kubernetes.io/control-plane:NoSchedule-`")
        );
    }

    #[test]
    fn a_downgrade_is_named() {
        assert_eq!(found("v1.37.2", "0.1.0", None), None);
        assert_eq!(found("v1.37.2", "0.2.0", Some("0.1.9")), None);
        let older = found("v1.36.11", "0.1.0", None).unwrap();
        assert_eq!(older.check, Check::KubernetesVersion);
        assert!(older.what.contains("downgrade"), "{older:?}");
        let newer = found("v1.38.0", "0.1.0", None).unwrap();
        assert!(!newer.what.contains("downgrade"), "{newer:?}");
        let older = found("v1.37.2", "0.9.0", Some("0.10.0")).unwrap();
        assert_eq!(
            (older.check, older.saw.as_str()),
            (Check::BundleVersion, "installed 0.10.0, this bundle 0.9.0")
        );
    }
}
