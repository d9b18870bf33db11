//! Renders every Kubernetes object and every configuration file of a node, and says which images they need.
//!
//! Pure: spec, bundle index and layout in, text and JSON values out.

#![forbid(unsafe_code)]

mod added;
mod dns;
mod images;
mod ingress;
mod ingress_rights;
mod kubeadm;
mod network;
mod node_files;
mod sample;

pub use added::{added_problems, read_manifest};
pub use dns::dns_objects;
pub use images::{images_of, required_images};
pub use ingress::{ingress_objects, standalone_ingress};
pub use ingress_rights::{Allowed, ingress_allow_objects};
pub use kubeadm::{
    audit_policy, control_plane_join, credential_config, encryption_config, etcd_patch, kube_proxy_objects,
    kubeadm_init, kubelet_join,
};
pub use landfall_core::dns_policy::DnsPolicy;
pub use network::{cni_template, flannel_objects};
pub use node_files::{containerd_config, hosts_lines, kernel_settings, resolv_conf, units};
pub use sample::{SAMPLE_NODE_PORT, probe_objects, sample_objects};

use landfall_core::bundle_index::BundleIndex;
use landfall_core::name::{Digest, NodeName};
use std::net::IpAddr;

/// One member as the files see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberLayout {
    /// Node name.
    pub name: NodeName,
    /// Whether it is a control plane.
    pub control_plane: bool,
    /// Whether it founds, or founded, the cluster, alone or together with others.
    pub founds: bool,
    /// Whether workloads may run on it.
    pub schedulable: bool,
    /// Address that peers use.
    pub address: IpAddr,
    /// Interface that carries it.
    pub interface: String,
}

/// Every member and what they share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterLayout {
    /// Members: control planes first.
    pub members: Vec<MemberLayout>,
    /// Names outside the cluster.
    pub dns: DnsPolicy,
    /// MTU of pods, in bytes.
    pub pod_mtu: u16,
}

impl ClusterLayout {
    /// Returns the members that found the cluster together; empty when one founds it alone.
    fn founders(&self) -> Vec<&MemberLayout> {
        let founders: Vec<_> = self.members.iter().filter(|m| m.founds).collect();
        if founders.len() > 1 { founders } else { vec![] }
    }
}

/// Why something cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The bundle lacks an image.
    #[error("the bundle has no image {0}")]
    MissingImage(String),
    /// A value does not serialise.
    #[error("a value cannot be written as YAML: {0}")]
    Yaml(String),
}

/// Returns the full reference of the image of a cluster's own part.
fn image(index: &BundleIndex, name: &str) -> Result<String, RenderError> {
    let found = index
        .image_named(name)
        .ok_or_else(|| RenderError::MissingImage(name.to_owned()))?;
    Ok(found.reference.to_string())
}

/// Returns the tag of that image.
fn tag(index: &BundleIndex, name: &str) -> Result<String, RenderError> {
    let reference = image(index, name)?;
    Ok(reference
        .rsplit_once(':')
        .map(|(_, tag)| tag.to_owned())
        .unwrap_or_default())
}

/// The annotation of a pod template by which a changed configuration replaces the pods: programs read theirs once, when they start.
fn config_digest(data: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({ "landfall.io/config": Digest::of(data.to_string().as_bytes()).hex() })
}

/// Writes several documents as one YAML text.
fn documents(values: &[serde_json::Value]) -> Result<String, RenderError> {
    let texts: Result<Vec<_>, _> = values.iter().map(serde_yaml::to_string).collect();
    Ok(texts.map_err(|e| RenderError::Yaml(e.to_string()))?.join("---\n"))
}

#[cfg(test)]
mod tests;
