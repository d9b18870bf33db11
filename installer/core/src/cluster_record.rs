//! The record of a cluster: its identity, its fixed settings and its members. Every member's journal holds a copy; the newest one counts.
//!
//! INVARIANT: the founder, the identity and the fixed settings are read from the record, never derived from the order of an inventory, from a
//! clock or from a name.

use crate::inventory::Role;
use crate::name::{Digest, NodeName};
use crate::quorum::{self, MemberId};
use crate::spec::{Backend, BinDir, Cidr, ClusterSpec, ProxyMode, pod_network};
use crate::trust::ClusterTrust;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Identity of a cluster: 16 random bytes in hexadecimal, made when the cluster is founded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterUid(String);

impl ClusterUid {
    /// Makes an identity of random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes.iter().map(|b| format!("{b:02x}")).collect())
    }
    /// Returns the identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Orders the records of a cluster: by the run's number, then by the revision within the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sequence {
    /// Number of the run that wrote the record.
    pub run: u64,
    /// Counts the records of that run from 0.
    pub revision: u32,
}

/// One cluster, as its members know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Identity.
    pub uid: ClusterUid,
    /// Name, for people.
    pub name: String,
    /// Which of two records is newer.
    pub sequence: Sequence,
    /// Whether the cluster exists: the API servers of all founders have answered. From then on it is never founded again.
    pub formed: bool,
    /// SHA-256 of the cluster CA's certificate in DER form, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<Digest>,
    /// Kubernetes version with `v`, for instance `v1.37.2`.
    pub kubernetes_version: String,
    /// Digest of the index of the bundle that was installed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Digest>,
    /// Version of that bundle. `None` in the record of an older landfall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_version: Option<String>,
    /// Which keys may sign bundles. `None` when no signed bundle was installed yet: then the operator's keys decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<ClusterTrust>,
    /// Settings that kubeadm takes once.
    pub fixed: FixedSettings,
    /// Settings that are changed by a run as a whole, and kept otherwise.
    pub kept: KeptSettings,
    /// Members by name.
    pub members: BTreeMap<NodeName, MemberRecord>,
}

/// Settings that cannot be changed after the founding: certificates, Node objects and stored Services hold them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedSettings {
    /// Network of pods.
    pub pod_network_cidr: Cidr,
    /// Network of Services.
    pub service_cidr: Cidr,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Cluster name of the API endpoint.
    pub control_plane_endpoint: String,
    /// More names or addresses in the API server's certificate, sorted.
    pub api_server_cert_sans: Vec<String>,
    /// How packets of pods get from node to node.
    #[serde(default, skip_serializing_if = "FixedPodNetwork::is_default")]
    pub pod_network: FixedPodNetwork,
    /// Where the cluster's programs are on each machine.
    #[serde(default, skip_serializing_if = "BinDir::is_default")]
    pub bin_dir: BinDir,
}

/// What all nodes must have alike for pods to reach each other, and keep from their join on. The default is what clusters of a landfall without
/// these settings have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedPodNetwork {
    /// What carries packets between nodes.
    pub backend: Backend,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// MTU of pods, in bytes.
    pub mtu: u16,
}

impl Default for FixedPodNetwork {
    fn default() -> Self {
        Self {
            backend: Backend::Vxlan,
            vxlan_port: pod_network::VXLAN_PORT,
            mtu: pod_network::ETHERNET_MTU - pod_network::VXLAN_OVERHEAD,
        }
    }
}

impl FixedPodNetwork {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Settings that stay until a spec changes them: the facts that they were chosen from may change later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSettings {
    /// Mode of kube-proxy.
    pub proxy_mode: ProxyMode,
    /// DNS servers outside the cluster that CoreDNS forwards to; empty: no name outside the cluster is resolved. `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_dns: Option<Vec<IpAddr>>,
    /// Whether the spec named these servers. When a later spec names none, they are chosen again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upstream_dns_named: bool,
}

/// One member of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The machine's id (/etc/machine-id).
    pub uid: String,
    /// What it is for.
    pub role: Role,
    /// Address that peers use.
    pub address: IpAddr,
    /// Whether this is the founder: it makes the cluster's authorities and uploads kubeadm's configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub founder: bool,
    /// Whether this control plane was founded together with the founder: `kubeadm init` runs on it too, and its etcd is in the list
    /// with which etcd is bootstrapped. Not set in the record of an older landfall, whose further control planes joined.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cofounder: bool,
    /// Whether it takes Pods of users, as it joined: kubeadm sets a control plane's taint once. `None` in the record of an older landfall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedulable: Option<bool>,
    /// Id of its etcd member, once a run has ended in which it was one; in hexadecimal, as etcdctl prints it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hexadecimal")]
    pub etcd_id: Option<MemberId>,
}

impl MemberRecord {
    /// Says whether this member founds, or founded, the cluster, alone or together with others.
    pub fn founds(&self) -> bool {
        self.founder || self.cofounder
    }
}

/// An etcd member's id as text in hexadecimal.
mod hexadecimal {
    use crate::quorum::MemberId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(id: &Option<MemberId>, to: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => to.collect_str(id),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<MemberId>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let id = text.map(|text| u64::from_str_radix(&text, 16)).transpose();
        id.map(|id| id.map(MemberId)).map_err(D::Error::custom)
    }
}

impl ClusterRecord {
    /// Says whether all members are among some nodes.
    pub fn is_whole(&self, among: impl Fn(&NodeName) -> bool) -> bool {
        self.members.keys().all(among)
    }

    /// Returns how many control planes must hold the number of a run before it may change anything.
    pub fn majority(&self) -> usize {
        let control_planes = self.members.values().filter(|m| m.role == Role::ControlPlane);
        quorum::majority(control_planes.count())
    }

    /// Returns the member that founds, or founded, the cluster.
    pub fn founder(&self) -> Option<&NodeName> {
        self.members.iter().find(|(_, m)| m.founder).map(|(name, _)| name)
    }

    /// Returns all members that found, or founded, the cluster together: the founder and its cofounders.
    pub fn founders(&self) -> impl Iterator<Item = &NodeName> {
        self.members.iter().filter(|(_, m)| m.founds()).map(|(name, _)| name)
    }

    /// Returns the names of the control planes.
    pub fn control_planes(&self) -> impl Iterator<Item = &NodeName> {
        let control_plane = |(_, m): &(&NodeName, &MemberRecord)| m.role == Role::ControlPlane;
        self.members.iter().filter(control_plane).map(|(name, _)| name)
    }
}

impl FixedSettings {
    /// Returns the settings of a spec, with the MTU of pods in bytes, which the spec need not name.
    pub fn of(spec: &ClusterSpec, pod_mtu: u16) -> Self {
        let mut api_server_cert_sans = spec.api_server_cert_sans.clone();
        api_server_cert_sans.sort();
        api_server_cert_sans.dedup();
        Self {
            pod_network_cidr: spec.pod_network_cidr,
            service_cidr: spec.service_cidr,
            cluster_domain: spec.cluster_domain.clone(),
            control_plane_endpoint: spec.control_plane_endpoint.clone(),
            api_server_cert_sans,
            pod_network: FixedPodNetwork {
                backend: spec.pod_network.backend,
                vxlan_port: spec.pod_network.vxlan_port,
                mtu: pod_mtu,
            },
            bin_dir: spec.bin_dir,
        }
    }

    /// Lists the settings in which `wanted` differs: name in `cluster.yaml`, value now, value wanted, and why it cannot be changed.
    pub fn differences(&self, wanted: &Self) -> Vec<FixedDifference> {
        let pairs = [
            (
                "podNetworkCidr",
                self.pod_network_cidr.to_string(),
                wanted.pod_network_cidr.to_string(),
                "every Node keeps the pod range that it was given when it joined",
            ),
            (
                "serviceCidr",
                self.service_cidr.to_string(),
                wanted.service_cidr.to_string(),
                "the addresses of existing Services cannot be changed, and the API server's certificate names the first",
            ),
            (
                "clusterDomain",
                self.cluster_domain.clone(),
                wanted.cluster_domain.clone(),
                "kubelets and the API server's certificate hold it since they joined",
            ),
            (
                "controlPlaneEndpoint",
                self.control_plane_endpoint.clone(),
                wanted.control_plane_endpoint.clone(),
                "the API servers' certificates and kubeadm's own configuration hold it",
            ),
            (
                "apiServerCertSans",
                self.api_server_cert_sans.join(", "),
                wanted.api_server_cert_sans.join(", "),
                "the API servers' certificates were made without the change",
            ),
            (
                "podNetwork.backend",
                self.pod_network.backend.as_str().to_owned(),
                wanted.pod_network.backend.as_str().to_owned(),
                // flannel, Documentation/backends.md.
                "flannel does not change its backend at run time: nodes that have changed and nodes that have not would not reach each other's pods",
            ),
            (
                "podNetwork.vxlanPort",
                self.pod_network.vxlan_port.to_string(),
                wanted.pod_network.vxlan_port.to_string(),
                "nodes with the new port do not hear those with the old one, and pods would be cut off from each other while it changes",
            ),
            (
                "podNetwork.mtu",
                self.pod_network.mtu.to_string(),
                wanted.pod_network.mtu.to_string(),
                "pods that run, flannel's link and the CNI configuration that each node got when it joined keep theirs",
            ),
            (
                "binDir",
                self.bin_dir.path().to_owned(),
                wanted.bin_dir.path().to_owned(),
                "daemons run from it, and would be replaced under their pods",
            ),
        ];
        let differs = |(_, now, wanted, _): &(_, String, String, _)| now != wanted;
        let difference = |(setting, now, wanted, why)| FixedDifference {
            setting,
            now,
            wanted,
            why,
        };
        pairs.into_iter().filter(differs).map(difference).collect()
    }
}

/// A fixed setting that a spec would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedDifference {
    /// Name of the field in `cluster.yaml`.
    pub setting: &'static str,
    /// Value of the cluster.
    pub now: String,
    /// Value of the spec.
    pub wanted: String,
    /// Why it cannot be changed.
    pub why: &'static str,
}

/// Why the records of several journals contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The journals hold records of different clusters.
    #[error("the nodes belong to different clusters")]
    SeveralClusters(BTreeMap<ClusterUid, Share>),
    /// Two runs chose the same number, and both wrote a record.
    #[error("two different records have the number {}.{}", sequence.run, sequence.revision)]
    SameSequence {
        /// The number.
        sequence: Sequence,
        /// Nodes that hold one of them.
        nodes: Vec<NodeName>,
    },
}

/// The machines of one cluster among several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Machines whose journals name the cluster.
    pub nodes: Vec<NodeName>,
    /// Whether these are all its members.
    pub whole: bool,
}

impl Share {
    /// Returns the command that takes away this cluster, or what is left of it.
    pub fn way_out(&self) -> String {
        let names: Vec<&str> = self.nodes.iter().map(NodeName::as_str).collect();
        let what = if self.whole {
            "removes this whole cluster"
        } else {
            "removes what is left of this cluster, when no other machine belongs to it"
        };
        format!("landfall uninstall --limit {}: {what}", names.join(","))
    }
}

/// Sorts machines by the clusters that their records name.
pub fn shares<'a>(records: impl IntoIterator<Item = (&'a NodeName, &'a ClusterRecord)>) -> BTreeMap<ClusterUid, Share> {
    let mut clusters: BTreeMap<ClusterUid, Vec<(&NodeName, &ClusterRecord)>> = BTreeMap::new();
    for (name, record) in records {
        clusters.entry(record.uid.clone()).or_default().push((name, record));
    }
    let share = |held: Vec<(&NodeName, &ClusterRecord)>| {
        let is_held = |name: &NodeName| held.iter().any(|(holder, _)| *holder == name);
        Share {
            whole: held.iter().all(|(_, record)| record.is_whole(is_held)),
            nodes: held.iter().map(|(name, _)| (*name).clone()).collect(),
        }
    };
    clusters.into_iter().map(|(uid, held)| (uid, share(held))).collect()
}

/// Returns the newest record among those of all nodes. Records of different clusters are an error.
pub fn newest<'a>(
    records: impl IntoIterator<Item = (&'a NodeName, &'a ClusterRecord)>,
) -> Result<Option<&'a ClusterRecord>, RecordError> {
    let records: Vec<_> = records.into_iter().collect();
    let clusters = shares(records.iter().copied());
    if clusters.len() > 1 {
        return Err(RecordError::SeveralClusters(clusters));
    }
    let Some(newest) = records.iter().map(|(_, r)| *r).max_by_key(|r| r.sequence) else {
        return Ok(None);
    };
    let twins: Vec<_> = records.iter().filter(|(_, r)| r.sequence == newest.sequence).collect();
    if twins.iter().any(|(_, r)| *r != newest) {
        let nodes = twins.iter().map(|(name, _)| (*name).clone()).collect();
        let sequence = newest.sequence;
        return Err(RecordError::SameSequence { sequence, nodes });
    }
    Ok(Some(newest))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::spec::PodNetwork;

    pub(crate) fn record(uid: u8, run: u64, revision: u32) -> ClusterRecord {
        let member = |address: [u8; 4], founder| MemberRecord {
            uid: format!("{address:?}"),
            role: Role::ControlPlane,
            address: IpAddr::from(address),
            founder,
            cofounder: false,
            schedulable: Some(false),
            etcd_id: None,
        };
        ClusterRecord {
            uid: ClusterUid::from_random([uid; 16]),
            name: "ship".to_owned(),
            sequence: Sequence { run, revision },
            formed: true,
            ca: None,
            kubernetes_version: "v1.37.2".to_owned(),
            bundle: None,
            bundle_version: None,
            trust: None,
            fixed: FixedSettings::of(&ClusterSpec::default(), 1450),
            kept: KeptSettings {
                proxy_mode: ProxyMode::Nftables,
                upstream_dns: Some(vec![]),
                upstream_dns_named: false,
            },
            members: [
                ("cp-1", member([10, 0, 0, 1], false)),
                ("cp-2", member([10, 0, 0, 2], true)),
            ]
            .into_iter()
            .map(|(name, m)| (name.parse().unwrap(), m))
            .collect(),
        }
    }

    fn names() -> [NodeName; 3] {
        ["cp-1", "cp-2", "cp-3"].map(|n| n.parse().unwrap())
    }

    #[test]
    fn the_newest_record_counts_and_names_the_founder() {
        let [a, b, c] = names();
        let (old, new, newer) = (record(1, 1, 9), record(1, 2, 0), record(1, 2, 1));
        let all = [(&a, &new), (&b, &newer), (&c, &old)];
        let found = newest(all).unwrap().unwrap();
        assert_eq!(found.sequence, newer.sequence);
        assert_eq!(found.founder(), Some(&b));
        assert_eq!(newest([]), Ok(None));
    }

    #[test]
    fn an_etcd_id_is_written_as_etcdctl_prints_it() {
        let mut record = record(1, 1, 0);
        assert!(!serde_json::to_string(&record).unwrap().contains("etcd_id"));
        let [a, ..] = names();
        record.members.get_mut(&a).unwrap().etcd_id = Some(MemberId(0x8211_f1d0_f64f_3269));
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains(r#""etcd_id":"8211f1d0f64f3269""#), "{text}");
        assert_eq!(serde_json::from_str::<ClusterRecord>(&text).unwrap(), record);
    }

    #[test]
    fn clusters_are_named_with_their_nodes_and_whether_all_are_here() {
        let [a, b, c] = names();
        let d: NodeName = "w-1".parse().unwrap();
        let (lives, left) = (record(2, 1, 0), record(1, 9, 0));
        let error = newest([(&a, &lives), (&b, &lives), (&c, &left), (&d, &left)]).unwrap_err();
        let RecordError::SeveralClusters(clusters) = error else {
            panic!("{error:?}")
        };
        let way_out = |uid: &ClusterUid| clusters[uid].way_out();
        assert_eq!(
            way_out(&lives.uid),
            "landfall uninstall --limit cp-1,cp-2: removes this whole cluster"
        );
        assert_eq!(
            way_out(&left.uid),
            "landfall uninstall --limit cp-3,w-1: removes what is left of this cluster, when no other machine belongs to it"
        );
    }

    #[test]
    fn one_number_of_two_runs_is_an_error() {
        let [a, b, _] = names();
        let ours = record(1, 3, 0);
        let mut other = ours.clone();
        other.kubernetes_version = "v1.38.0".to_owned();
        let error = newest([(&a, &ours), (&b, &other)]).unwrap_err();
        assert!(matches!(error, RecordError::SameSequence { .. }), "{error:?}");
    }

    #[test]
    fn a_record_without_newer_settings_is_of_a_cluster_that_has_the_first_ones() {
        let mut record = record(1, 1, 0);
        let text = serde_json::to_string(&record).unwrap();
        assert!(!text.contains("pod_network\"") && !text.contains("bin_dir"), "{text}");
        assert_eq!(serde_json::from_str::<ClusterRecord>(&text).unwrap(), record);
        record.fixed.pod_network.mtu = 1410;
        record.fixed.bin_dir = BinDir::Opt;
        let text = serde_json::to_string(&record).unwrap();
        let network = r#""pod_network":{"backend":"vxlan","vxlan_port":8472,"mtu":1410}"#;
        assert!(
            text.contains(network) && text.contains(r#""bin_dir":"/opt/landfall/bin""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<ClusterRecord>(&text).unwrap(), record);
    }

    #[test]
    fn differences_of_fixed_settings_are_named_with_both_values() {
        let spec = ClusterSpec::default();
        let fixed = FixedSettings::of(&spec, 1450);
        assert_eq!(fixed.differences(&fixed), []);
        let wanted = ClusterSpec {
            cluster_domain: "ship.local".to_owned(),
            api_server_cert_sans: vec!["b".to_owned(), "a".to_owned()],
            pod_network: PodNetwork {
                backend: Backend::HostGw,
                vxlan_port: 4789,
                ..PodNetwork::default()
            },
            bin_dir: BinDir::Opt,
            ..spec
        };
        let wanted = FixedSettings::of(&wanted, 1500);
        let named: Vec<_> = fixed
            .differences(&wanted)
            .into_iter()
            .map(|d| (d.setting, d.now, d.wanted))
            .collect();
        assert_eq!(
            named,
            [
                ("clusterDomain", "cluster.local".to_owned(), "ship.local".to_owned()),
                ("apiServerCertSans", String::new(), "a, b".to_owned()),
                ("podNetwork.backend", "vxlan".to_owned(), "host-gw".to_owned()),
                ("podNetwork.vxlanPort", "8472".to_owned(), "4789".to_owned()),
                ("podNetwork.mtu", "1450".to_owned(), "1500".to_owned()),
                ("binDir", "/usr/local/bin".to_owned(), "/opt/landfall/bin".to_owned()),
            ]
        );
    }
}
