//! Chooses addresses and the DNS policy from what was seen, and renders everything the planner needs.

use landfall_core::bundle_index::BundleIndex;
use landfall_core::dns_policy::dns_policy;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::facts::NodeFacts;
use landfall_core::inventory::Role;
use landfall_core::layout;
use landfall_core::name::NodeName;
use landfall_core::plan::Stage;
use landfall_core::plan::install::{ApplyWhen, InstallInput, Joins, Member, ObjectGroup};
use landfall_core::preflight::choose_address;
use landfall_core::spec::Desired;
use landfall_manifests::{self as manifests, ClusterLayout, MemberLayout, RenderError};
use std::collections::BTreeMap;

/// Renders for the nodes as they were seen.
pub fn render<'a>(
    desired: &Desired,
    index: &'a BundleIndex,
    facts: &BTreeMap<NodeName, NodeFacts>,
) -> Result<InstallInput<'a>, Vec<Diagnosis>> {
    let layout = layout(desired, facts)?;
    render_all(desired, index, &layout).map_err(|error| {
        vec![
            Diagnosis::new(Code::BundleMissing, "the cluster's files cannot be rendered")
                .because(&error)
                .next("build the bundle again with this version of landfall"),
        ]
    })
}

fn layout(desired: &Desired, facts: &BTreeMap<NodeName, NodeFacts>) -> Result<ClusterLayout, Vec<Diagnosis>> {
    let mut members = Vec::new();
    let mut errors = Vec::new();
    for node in desired.inventory.members() {
        let Some(seen) = facts.get(&node.name) else { continue };
        match choose_address(&desired.spec, node, seen) {
            Ok((address, interface)) => members.push(MemberLayout {
                name: node.name.clone(),
                control_plane: node.role == Role::ControlPlane,
                schedulable: node.schedulable,
                address,
                interface,
                // Our own route from an earlier run does not count: its unit must stay.
                reaches_services: seen.has_default_route(),
            }),
            Err(finding) => errors.push(finding.into()),
        }
    }
    if errors.is_empty() {
        Ok(ClusterLayout {
            members,
            dns: dns_policy(&desired.spec.upstream_dns, None, facts.values()),
        })
    } else {
        Err(errors)
    }
}

fn render_all<'a>(
    desired: &Desired,
    index: &'a BundleIndex,
    layout: &ClusterLayout,
) -> Result<InstallInput<'a>, RenderError> {
    let spec = &desired.spec;
    let mut members = Vec::new();
    for (n, node) in layout.members.iter().enumerate() {
        let joins = if n == 0 {
            Joins::First(manifests::kubeadm_init(spec, index, layout, node)?)
        } else if node.control_plane {
            Joins::ControlPlane {
                kubelet: manifests::kubelet_join(spec, node)?,
                control_plane: manifests::control_plane_join(spec, node)?,
            }
        } else {
            Joins::Worker(manifests::kubelet_join(spec, node)?)
        };
        members.push(Member {
            name: node.name.clone(),
            address: node.address,
            joins,
            containerd_config: manifests::containerd_config(spec, index)?,
            cni_template: manifests::cni_template(),
            resolv_conf: manifests::resolv_conf(layout),
            units: manifests::units(spec, layout, node),
        });
    }
    let group = |name: &str, stage, when, objects| ObjectGroup {
        name: name.to_owned(),
        stage,
        objects,
        when,
    };
    use ApplyWhen::{AllReady, FirstApiServer};
    let mut groups = vec![
        group(
            "flannel",
            Stage::Network,
            FirstApiServer,
            manifests::flannel_objects(spec, index)?,
        ),
        group(
            "dns",
            Stage::Network,
            AllReady,
            manifests::dns_objects(spec, index, layout)?,
        ),
        group(
            "kube-proxy",
            Stage::Network,
            FirstApiServer,
            manifests::kube_proxy_objects(spec)?,
        ),
        group("probe", Stage::Sample, FirstApiServer, manifests::probe_objects(index)?),
    ];
    if spec.ingress.enabled {
        groups.push(group(
            "ingress",
            Stage::Ingress,
            FirstApiServer,
            manifests::ingress_objects(spec, index)?,
        ));
    }
    if spec.sample {
        groups.push(group(
            "sample",
            Stage::Sample,
            AllReady,
            manifests::sample_objects(spec, index, layout)?,
        ));
    }
    Ok(InstallInput {
        members,
        index,
        sysctls: manifests::kernel_settings(),
        hosts_lines: manifests::hosts_lines(spec),
        audit_policy: manifests::audit_policy()?,
        encryption_config: manifests::encryption_config()?,
        named_server: format!("https://{}:{}", spec.control_plane_endpoint, layout::API_BALANCER_PORT),
        groups,
        left_out: vec![],
    })
}
