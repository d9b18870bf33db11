//! Makes the record of a cluster that an older landfall installed without one: the settings are read from the cluster, the founder from the
//! journals. Anything ambiguous is an error. This module only reads; the run that follows writes the record.

use crate::cluster::{Cluster, api_error, member_ids};
use crate::plan_error::plan_error;
use crate::present::Present;
use crate::session::NodeSession;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::Client;
use kube::api::{Api, ListParams};
use landfall_core::cluster_record::{
    ClusterRecord, ClusterUid, FixedPodNetwork, FixedSettings, KeptSettings, MemberRecord, Sequence,
};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::facts::NodeFacts;
use landfall_core::inventory::Role;
use landfall_core::name::{Digest, NodeName};
use landfall_core::plan::PlanError;
use landfall_core::plan::key::StepKind;
use landfall_core::quorum::MemberId;
use landfall_core::spec::{BinDir, Cidr, Desired};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Label and taint of control planes.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Where each node's own balancer listens.
const BALANCER: &str = "127.0.0.1";

/// The part of kubeadm's ClusterConfiguration that cannot be changed later (kubeadm.k8s.io/v1beta4).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KubeadmConfig {
    kubernetes_version: String,
    control_plane_endpoint: String,
    networking: Networking,
    #[serde(default)]
    api_server: ApiServer,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Networking {
    pod_subnet: Cidr,
    service_subnet: Cidr,
    dns_domain: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiServer {
    #[serde(default, rename = "certSANs")]
    cert_sans: Vec<String>,
}

/// What was read from the cluster's API.
struct Seen {
    kubeadm: KubeadmConfig,
    corefile: String,
    nodes: Vec<Node>,
}

/// Makes the record of a cluster whose journals hold none. Blocks for the requests to the API and to etcd, which go through `control_planes`, the first
/// of them for the API. Returns an error when one of the two does not answer, when nodes disagree on the founder or on the certificate authority, or
/// when etcd has other members than the cluster has control planes.
pub fn adopt(
    desired: &Desired,
    present: &Present,
    facts: &BTreeMap<NodeName, NodeFacts>,
    new_uid: &ClusterUid,
    cluster: &Cluster,
    control_planes: &[Arc<NodeSession>],
) -> Result<ClusterRecord, Vec<Diagnosis>> {
    let session = control_planes.first();
    let session = session.ok_or_else(|| plan_error(PlanError::NoControlPlane))?;
    let seen = ask(cluster, session).map_err(|d| vec![d])?;
    let ca = one_ca(facts)?;
    let founders: Vec<&NodeName> = present
        .owned
        .iter()
        .filter(|(_, own)| own.entries.iter().any(|e| StepKind::Init.is_kind_of(&e.step)))
        .map(|(name, _)| name)
        .collect();
    let founder = match founders.as_slice() {
        [one] => Some(*one),
        [] => None,
        several => {
            let names: Vec<_> = several.iter().map(|n| n.as_str()).collect();
            return Err(vec![
                not_adoptable("several nodes founded a cluster").saw(names.join(", ")),
            ]);
        }
    };
    let mut members = members(desired, &seen.nodes, founder);
    let etcd_ids = member_ids(control_planes);
    one_list(&members, &etcd_ids).map_err(|d| vec![d])?;
    for (name, member) in &mut members {
        member.etcd_id = etcd_ids.get(name.as_str()).copied();
    }
    let fixed = fixed_settings(&seen.kubeadm, &members, &desired.spec.control_plane_endpoint);
    Ok(ClusterRecord {
        uid: new_uid.clone(),
        name: desired.spec.name.clone(),
        sequence: Sequence { run: 0, revision: 0 },
        formed: true,
        ca: Some(ca),
        kubernetes_version: seen.kubeadm.kubernetes_version,
        bundle: None,
        bundle_version: None,
        trust: None,
        fixed,
        kept: KeptSettings {
            proxy_mode: desired.spec.proxy_mode,
            upstream_dns: Some(forward_servers(&seen.corefile)),
            upstream_dns_named: !desired.spec.upstream_dns.is_empty(),
        },
        members,
    })
}

/// Names the control planes that the cluster's API lists and the inventory lacks, with their addresses. It is for clusters whose journals hold no record.
/// Blocks for the request, which goes through `session`, a control plane.
pub fn unlisted_control_planes(
    desired: &Desired,
    cluster: &Cluster,
    session: &Arc<NodeSession>,
) -> Result<Vec<(NodeName, IpAddr)>, Diagnosis> {
    let nodes = cluster.with_client(session, |client| async move { list_nodes(client).await })?;
    let members = members(desired, &nodes, None).into_iter();
    Ok(members
        .filter(|(name, _)| desired.inventory.node(name).is_none())
        .map(|(name, member)| (name, member.address))
        .collect())
}

async fn list_nodes(client: Client) -> Result<Vec<Node>, Diagnosis> {
    let nodes = Api::<Node>::all(client).list(&ListParams::default()).await;
    let nodes = nodes.map_err(|error| api_error("the Nodes cannot be listed", &error))?;
    Ok(nodes.items)
}

fn not_adoptable(what: &str) -> Diagnosis {
    Diagnosis::new(
        Code::Preflight,
        format!("the cluster of an older landfall cannot be recorded: {what}"),
    )
    .next("landfall status")
}

fn ask(cluster: &Cluster, session: &Arc<NodeSession>) -> Result<Seen, Diagnosis> {
    let read = cluster.with_client(session, |client| async move {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
        let failed = |what: &'static str| move |e: kube::Error| api_error(what, &e);
        let kubeadm = maps
            .get("kubeadm-config")
            .await
            .map_err(failed("kubeadm's configuration cannot be read"))?;
        let dns = maps
            .get_opt("coredns")
            .await
            .map_err(failed("CoreDNS's configuration cannot be read"))?;
        Ok((kubeadm, dns, list_nodes(client).await?))
    });
    let (kubeadm, dns, nodes) = read.map_err(|error| {
        not_adoptable("its API has to answer for that")
            .saw(error.to_string())
            .next("bring the API back, then run the same command again")
    })?;
    let text = |map: &ConfigMap, key: &str| map.data.as_ref().and_then(|data| data.get(key)).cloned();
    let text_of_kubeadm = text(&kubeadm, "ClusterConfiguration").unwrap_or_default();
    Ok(Seen {
        kubeadm: serde_yaml::from_str(&text_of_kubeadm)
            .map_err(|error| not_adoptable("kubeadm's configuration is not understood").because(&error))?,
        corefile: dns.and_then(|map| text(&map, "Corefile")).unwrap_or_default(),
        nodes,
    })
}

/// Returns the digest of the certificate authority that all nodes hold; nodes with different ones are an error.
fn one_ca(facts: &BTreeMap<NodeName, NodeFacts>) -> Result<Digest, Vec<Diagnosis>> {
    let held: BTreeSet<Digest> = facts.values().filter_map(|f| f.cluster_ca).collect();
    match held.into_iter().collect::<Vec<_>>().as_slice() {
        [one] => Ok(*one),
        [] => Err(vec![not_adoptable("no node holds its certificate authority")]),
        _ => {
            let what = not_adoptable("its nodes hold certificates of different authorities");
            let held = facts.iter().filter_map(|(name, f)| Some((name, f.cluster_ca?)));
            Err(vec![held.fold(what, |d, (name, ca)| d.saw(format!("{name}: {ca}")))])
        }
    }
}

/// Returns an error unless etcd's members are the control planes that the cluster lists. One more is dead or not started, and one less has lost its data:
/// a join beside it could cost the quorum.
fn one_list(
    members: &BTreeMap<NodeName, MemberRecord>,
    etcd_ids: &BTreeMap<String, MemberId>,
) -> Result<(), Diagnosis> {
    let control_planes = members.iter().filter(|(_, member)| member.role == Role::ControlPlane);
    let listed: BTreeSet<&str> = control_planes.map(|(name, _)| name.as_str()).collect();
    let counted: BTreeSet<&str> = etcd_ids.keys().map(String::as_str).collect();
    if listed == counted {
        return Ok(());
    }
    let text = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(", ");
    Err(
        not_adoptable("etcd has other members than the cluster has control planes")
            .saw(format!("Nodes: {}", text(listed)))
            .saw(format!("members of etcd: {}", text(counted)))
            .next("remove the one that is gone (kubectl delete node, etcdctl member remove), then run the same command again"),
    )
}

/// Says whether a node has the taint that keeps Pods of users off control planes.
fn is_tainted(node: &Node) -> bool {
    let taints = node.spec.iter().filter_map(|spec| spec.taints.as_ref());
    taints.flatten().any(|taint| taint.key == CONTROL_PLANE)
}

/// Returns the members: the Nodes that the inventory names, and all control planes, because those count in etcd's quorum. Workers that
/// somebody else joined are left out.
fn members(desired: &Desired, nodes: &[Node], founder: Option<&NodeName>) -> BTreeMap<NodeName, MemberRecord> {
    let member = |node: &Node| {
        let name: NodeName = node.metadata.name.as_ref()?.parse().ok()?;
        let labels = node.metadata.labels.as_ref();
        let control_plane = labels.is_some_and(|l| l.contains_key(CONTROL_PLANE));
        if !control_plane && desired.inventory.node(&name).is_none() {
            return None;
        }
        let status = node.status.as_ref()?;
        let addresses = status.addresses.as_ref()?;
        let address = addresses
            .iter()
            .find(|a| a.type_ == "InternalIP")?
            .address
            .parse()
            .ok()?;
        let record = MemberRecord {
            uid: status
                .node_info
                .as_ref()
                .map(|i| i.machine_id.clone())
                .unwrap_or_default(),
            role: if control_plane {
                Role::ControlPlane
            } else {
                Role::Worker
            },
            address,
            founder: founder == Some(&name),
            cofounder: false,
            schedulable: Some(!is_tainted(node)),
            etcd_id: None,
        };
        Some((name, record))
    };
    nodes.iter().filter_map(member).collect()
}

/// Returns the settings that cannot be changed. The names that kubeadm puts into every certificate are left out of the extra names. `wanted` is the
/// endpoint that the spec names.
fn fixed_settings(kubeadm: &KubeadmConfig, members: &BTreeMap<NodeName, MemberRecord>, wanted: &str) -> FixedSettings {
    let endpoint = kubeadm.control_plane_endpoint.rsplit_once(':');
    let endpoint = endpoint.map_or(kubeadm.control_plane_endpoint.as_str(), |(name, _)| name);
    let certified = &kubeadm.api_server.cert_sans;
    // Since kubeconfigs name the node's own balancer, kubeadm's endpoint does too, and only certificates hold the endpoint's name.
    let control_plane_endpoint = if endpoint == BALANCER && certified.iter().any(|name| name == wanted) {
        wanted.to_owned()
    } else {
        endpoint.to_owned()
    };
    let addresses: BTreeSet<String> = members.values().map(|m| m.address.to_string()).collect();
    let asked_for =
        |name: &&String| **name != control_plane_endpoint && *name != BALANCER && !addresses.contains(*name);
    let mut api_server_cert_sans: Vec<String> =
        kubeadm.api_server.cert_sans.iter().filter(asked_for).cloned().collect();
    api_server_cert_sans.sort();
    FixedSettings {
        pod_network_cidr: kubeadm.networking.pod_subnet,
        service_cidr: kubeadm.networking.service_subnet,
        cluster_domain: kubeadm.networking.dns_domain.clone(),
        control_plane_endpoint,
        api_server_cert_sans,
        // A cluster without a record is of a landfall that knew no others.
        pod_network: FixedPodNetwork::default(),
        bin_dir: BinDir::default(),
    }
}

/// Returns the servers that CoreDNS forwards to; empty when it does not forward.
fn forward_servers(corefile: &str) -> Vec<IpAddr> {
    let forwards = corefile
        .lines()
        .filter_map(|line| line.trim().strip_prefix("forward . "));
    let words = forwards.flat_map(str::split_whitespace);
    words.filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_from_kubeadm_and_coredns() {
        let kubeadm: KubeadmConfig = serde_yaml::from_str(
            "apiServer: {certSANs: [api.landfall.internal, 127.0.0.1, 10.0.0.1, vip.ship, a.ship]}\n\
             controlPlaneEndpoint: api.landfall.internal:7443\nkubernetesVersion: v1.37.2\n\
             networking: {dnsDomain: cluster.local, podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/12}\n",
        )
        .unwrap();
        let member = MemberRecord {
            uid: "x".to_owned(),
            role: Role::ControlPlane,
            address: "10.0.0.1".parse().unwrap(),
            founder: true,
            cofounder: false,
            schedulable: Some(false),
            etcd_id: None,
        };
        let members = BTreeMap::from([("cp-1".parse().unwrap(), member)]);
        let fixed = fixed_settings(&kubeadm, &members, "other.ship");
        assert_eq!(fixed.control_plane_endpoint, "api.landfall.internal");
        assert_eq!(fixed.api_server_cert_sans, ["a.ship", "vip.ship"]);
        assert_eq!(fixed.service_cidr.to_string(), "10.96.0.0/12");
        let balanced = KubeadmConfig {
            control_plane_endpoint: "127.0.0.1:7443".to_owned(),
            ..kubeadm
        };
        for (wanted, found, others) in [
            (
                "api.landfall.internal",
                "api.landfall.internal",
                vec!["a.ship", "vip.ship"],
            ),
            (
                "other.ship",
                "127.0.0.1",
                vec!["a.ship", "api.landfall.internal", "vip.ship"],
            ),
        ] {
            let fixed = fixed_settings(&balanced, &members, wanted);
            assert_eq!(fixed.control_plane_endpoint, found, "{wanted}");
            assert_eq!(fixed.api_server_cert_sans, others, "{wanted}");
        }
        let corefile = ".:53 {\n    forward . 192.0.2.1 192.0.2.2 {\n        max_concurrent 1000\n    }\n}\n";
        assert_eq!(forward_servers(corefile).len(), 2);
        assert_eq!(
            forward_servers(".:53 {\n template ANY ANY . {\n }\n}"),
            [] as [IpAddr; 0]
        );
    }
}
