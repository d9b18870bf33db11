//! What a bundle holds, whatever its recipe: the programs of nodes, and the images that landfall makes of its own programs.

use super::layer::LayerBuilder;
use super::oci::{ImageSettings, Packed, Store};
use super::{IMAGE_REPOSITORY, failed};
use landfall_core::bundle_index::{Binary, BinaryPlace, BundleRole, Image};
use landfall_core::explain::Diagnosis;
use landfall_core::name::{Digest, ImageRef};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A program that nodes need.
pub(crate) struct NodeProgram {
    /// Component that it belongs to.
    pub component: &'static str,
    pub name: &'static str,
    pub place: BinaryPlace,
    /// Whether workers need it too.
    workers: bool,
}

impl NodeProgram {
    const fn new(component: &'static str, name: &'static str) -> Self {
        Self {
            component,
            name,
            place: BinaryPlace::Bin,
            workers: true,
        }
    }

    const fn plugin(name: &'static str) -> Self {
        let mut plugin = Self::new("cni", name);
        plugin.place = BinaryPlace::Cni;
        plugin
    }

    const fn for_control_planes(mut self) -> Self {
        self.workers = false;
        self
    }

    fn roles(&self) -> BTreeSet<BundleRole> {
        if self.workers { both() } else { control_plane() }
    }

    /// Returns what the index says of it.
    pub fn binary(&self, version: &str, packed: &Packed) -> Binary {
        Binary {
            name: self.name.to_owned(),
            component: self.component.to_owned(),
            version: version.to_owned(),
            blob: packed.blob,
            digest: packed.content,
            size_bytes: packed.size_bytes,
            roles: self.roles(),
            place: self.place,
        }
    }
}

/// Every program of a node, landfall's own first.
pub(crate) const NODE_PROGRAMS: [NodeProgram; 12] = [
    NodeProgram::new("landfall", "landfall"),
    NodeProgram::new("kubernetes", "kubeadm"),
    NodeProgram::new("kubernetes", "kubelet"),
    NodeProgram::new("kubernetes", "kubectl").for_control_planes(),
    NodeProgram::new("containerd", "containerd"),
    NodeProgram::new("containerd", "containerd-shim-runc-v2"),
    NodeProgram::new("containerd", "ctr"),
    NodeProgram::new("runc", "runc"),
    NodeProgram::plugin("bridge"),
    NodeProgram::plugin("host-local"),
    NodeProgram::plugin("loopback"),
    NodeProgram::plugin("portmap"),
];

pub(crate) fn both() -> BTreeSet<BundleRole> {
    [BundleRole::ControlPlane, BundleRole::Worker].into()
}

pub(crate) fn control_plane() -> BTreeSet<BundleRole> {
    [BundleRole::ControlPlane].into()
}

/// The name of an image in a bundle.
pub(crate) fn image_name(name: &str, tag: &str) -> Result<ImageRef, Diagnosis> {
    format!("{IMAGE_REPOSITORY}/{name}:{tag}")
        .parse()
        .map_err(|error| failed(format!("the image {name} has no valid name")).because(&error))
}

/// Makes the images of the ingress proxy and of the probe, which is the agent's program. Their tags end in the digest of their layer.
pub(crate) fn own_images(
    store: &Store,
    architecture: &str,
    agent: &Path,
    ingress: &Path,
    add: &mut dyn FnMut(Digest, PathBuf),
) -> Result<Vec<Image>, Diagnosis> {
    let probe = ImageSettings::program("/landfall").with_args(&["agent", "probe-idle"]);
    let images = [
        (
            "landfall-ingress",
            ingress,
            "/landfall-ingress",
            ImageSettings::program("/landfall-ingress"),
        ),
        ("landfall-probe", agent, "/landfall", probe),
    ];
    let mut made = Vec::new();
    for (name, program, path, settings) in images {
        let mut layer = LayerBuilder::default();
        layer.file_from(program, path, 0o755)?;
        let layer = store.layer(&layer)?;
        let tag = format!("{}-{}", env!("CARGO_PKG_VERSION"), &layer.diff_id.hex()[..12]);
        let settings = settings.on(architecture);
        made.push(store.image(image_name(name, &tag)?, &[layer], &settings, both(), add)?);
    }
    Ok(made)
}
