//! Renders the files and objects that the planner needs, from the spec, the cluster's record and the facts of the nodes.

use landfall_core::bundle_index::BundleIndex;
use landfall_core::cluster_record::ClusterRecord;
use landfall_core::dns_policy;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::facts::NodeFacts;
use landfall_core::inventory::Role;
use landfall_core::journal::Ownership;
use landfall_core::layout;
use landfall_core::name::NodeName;
use landfall_core::packet_filter::openings::Openings;
use landfall_core::plan::Stage;
use landfall_core::plan::install::{InstallInput, Joins, Member};
use landfall_core::plan::objects::{ADDED, ApplyWhen, ObjectGroup};
use landfall_core::spec::{ClusterSpec, Desired, Firewall};
use landfall_core::traffic::{self, Peer};
use landfall_manifests::{self as manifests, ClusterLayout, DnsPolicy, MemberLayout, RenderError};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Renders the planner's input for the connected members. Absent members still appear in the files of the others.
pub fn render<'a>(
    desired: &Desired,
    index: &'a BundleIndex,
    record: &'a ClusterRecord,
    owned: &'a BTreeMap<NodeName, Ownership>,
    facts: &BTreeMap<NodeName, NodeFacts>,
) -> Result<InstallInput<'a>, Vec<Diagnosis>> {
    let layout = layout(desired, record, facts);
    render_all(desired, index, record, owned, &layout).map_err(|error| {
        vec![
            Diagnosis::new(Code::BundleMissing, "the cluster's files cannot be rendered")
                .because(&error)
                .next("build the bundle again with this version of landfall"),
        ]
    })
}

/// Returns the members in a fixed order: control planes first, each group by name, so that the order of the inventory changes no file.
fn layout(desired: &Desired, record: &ClusterRecord, facts: &BTreeMap<NodeName, NodeFacts>) -> ClusterLayout {
    let mut members: Vec<MemberLayout> = record
        .members
        .iter()
        .map(|(name, member)| {
            let seen = facts.get(name);
            MemberLayout {
                name: name.clone(),
                control_plane: member.role == Role::ControlPlane,
                founds: member.founds(),
                schedulable: member
                    .schedulable
                    .unwrap_or_else(|| desired.inventory.node(name).is_some_and(|node| node.schedulable)),
                address: member.address,
                interface: seen
                    .and_then(|f| f.interface_of(member.address))
                    .unwrap_or_default()
                    .to_owned(),
            }
        })
        .collect();
    members.sort_by_key(|m| !m.control_plane);
    let upstream_dns = record.kept.upstream_dns.clone().unwrap_or_default();
    ClusterLayout {
        members,
        dns: DnsPolicy::of(upstream_dns),
        pod_mtu: record.fixed.pod_network.mtu,
    }
}

/// Chooses the DNS servers for names outside the cluster; empty means that they are not resolved. Servers that the spec named in an earlier run
/// and no longer names are not kept.
pub fn upstream_dns(
    desired: &Desired,
    recorded: Option<&ClusterRecord>,
    facts: &BTreeMap<NodeName, NodeFacts>,
) -> Vec<IpAddr> {
    let kept = dns_policy::kept(recorded);
    match dns_policy::dns_policy(&desired.spec.upstream_dns, kept.as_ref(), facts.values()) {
        DnsPolicy::Closed => vec![],
        DnsPolicy::Forward(servers) => servers,
    }
}

fn render_all<'a>(
    desired: &Desired,
    index: &'a BundleIndex,
    record: &'a ClusterRecord,
    owned: &'a BTreeMap<NodeName, Ownership>,
    layout: &ClusterLayout,
) -> Result<InstallInput<'a>, RenderError> {
    let spec = &desired.spec;
    let here = layout.members.iter().filter(|node| owned.contains_key(&node.name));
    let members = here.map(|node| member(spec, index, layout, node, record));
    Ok(InstallInput {
        members: members.collect::<Result<_, _>>()?,
        record,
        owned,
        run: record.sequence.run,
        index,
        sysctls: manifests::kernel_settings(),
        hosts_lines: manifests::hosts_lines(spec),
        audit_policy: manifests::audit_policy()?,
        encryption_config: manifests::encryption_config()?,
        named_server: format!("https://{}:{}", spec.control_plane_endpoint, layout::API_BALANCER_PORT),
        groups: groups(spec, index, layout)?,
        left_out: vec![],
    })
}

fn member(
    spec: &ClusterSpec,
    index: &BundleIndex,
    layout: &ClusterLayout,
    node: &MemberLayout,
    record: &ClusterRecord,
) -> Result<Member, RenderError> {
    let joins = if record.founder() == Some(&node.name) {
        Joins::Init(manifests::kubeadm_init(spec, index, layout, node)?)
    } else if node.founds {
        Joins::Cofounder(manifests::kubeadm_init(spec, index, layout, node)?)
    } else if node.control_plane {
        Joins::ControlPlane {
            kubelet: manifests::kubelet_join(spec, node)?,
            control_plane: manifests::control_plane_join(spec, node)?,
        }
    } else {
        Joins::Worker(manifests::kubelet_join(spec, node)?)
    };
    let credential_config = node
        .control_plane
        .then(|| manifests::credential_config(spec, index, node));
    let etcd_patch = manifests::etcd_patch(spec, layout, record.sequence.run);
    Ok(Member {
        name: node.name.clone(),
        address: node.address,
        joins,
        containerd_config: manifests::containerd_config(spec, index)?,
        cni_template: manifests::cni_template(layout),
        resolv_conf: manifests::resolv_conf(layout),
        credential_config: credential_config.transpose()?,
        openings: openings(spec, record, layout, node),
        etcd_patch: etcd_patch.filter(|_| node.founds),
        units: manifests::units(spec, layout, node),
    })
}

/// Returns what a node's packet filters must let through, when landfall is to see to that. Members that are absent count too.
fn openings(
    spec: &ClusterSpec,
    record: &ClusterRecord,
    layout: &ClusterLayout,
    node: &MemberLayout,
) -> Option<Openings> {
    let peer = |member: &MemberLayout| match member.address {
        IpAddr::V4(address) => Some(Peer {
            role: if member.control_plane {
                Role::ControlPlane
            } else {
                Role::Worker
            },
            address,
        }),
        IpAddr::V6(_) => None,
    };
    let own = peer(node).filter(|_| spec.firewall == Firewall::Open)?;
    let others = layout.members.iter().filter(|member| member.name != node.name);
    let others: Vec<Peer> = others.filter_map(peer).collect();
    let mark = Openings::mark_of(record.uid.as_str());
    Some(traffic::openings(spec, &mark, own, &node.interface, &others))
}

/// Returns the objects in groups, in the order in which they are applied.
fn groups(spec: &ClusterSpec, index: &BundleIndex, layout: &ClusterLayout) -> Result<Vec<ObjectGroup>, RenderError> {
    use ApplyWhen::{AllReady, FirstApiServer};
    let group = |name: &str, stage, when, objects| ObjectGroup {
        name: name.to_owned(),
        stage,
        objects,
        when,
    };
    let flannel = manifests::flannel_objects(spec, index, layout)?;
    let dns = manifests::dns_objects(spec, index, layout)?;
    let kube_proxy = manifests::kube_proxy_objects(spec)?;
    let probe = manifests::probe_objects(index)?;
    let mut groups = vec![
        group("flannel", Stage::Network, FirstApiServer, flannel),
        group("dns", Stage::Network, AllReady, dns),
        group("kube-proxy", Stage::Network, FirstApiServer, kube_proxy),
        group("probe", Stage::Sample, FirstApiServer, probe),
    ];
    if spec.ingress.enabled {
        let objects = manifests::ingress_objects(spec, index, layout)?;
        groups.push(group("ingress", Stage::Ingress, FirstApiServer, objects));
    }
    if spec.sample {
        let objects = manifests::sample_objects(spec, index, layout)?;
        groups.push(group("sample", Stage::Sample, AllReady, objects));
    }
    for manifest in &index.manifests {
        let name = format!("{ADDED}{}", manifest.name);
        groups.push(group(&name, Stage::Sample, AllReady, manifest.objects.clone()));
    }
    Ok(groups)
}
