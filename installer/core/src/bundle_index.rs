//! What a bundle contains: data only, no reading. The file format around it is the `bundle` crate's.

use crate::name::{Digest, ImageRef};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Version of the index format that this build writes; readers refuse a larger one.
pub const INDEX_VERSION: u32 = 1;

/// Which kind of node needs a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BundleRole {
    /// Needed on control plane nodes.
    ControlPlane,
    /// Needed on workers.
    Worker,
}

/// The list of everything in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleIndex {
    /// Format version, [`INDEX_VERSION`].
    pub version: u32,
    /// Which recipe made it: `source` or `upstream`.
    pub recipe: String,
    /// Go-style machine architecture, `amd64`.
    pub architecture: String,
    /// Kubernetes version with `v`, for instance `v1.37.2`.
    pub kubernetes_version: String,
    /// Prefix of every image name in this bundle, without trailing slash.
    pub image_repository: String,
    /// Programs that are put on nodes.
    pub binaries: Vec<Binary>,
    /// Container images.
    pub images: Vec<Image>,
    /// Component name and version, for people and for tags, for instance `etcd` → `3.7.3`.
    pub components: Vec<Component>,
    /// Debian packages that went into image layers.
    pub packages: Vec<DebianPackage>,
    /// Every blob in the file.
    pub blobs: Vec<BlobEntry>,
}

/// One program for nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binary {
    /// File name, for instance `kubelet` or `landfall`.
    pub name: String,
    /// Component it belongs to.
    pub component: String,
    /// Version of the component.
    pub version: String,
    /// Digest of the blob, a zstd frame of the program.
    pub blob: Digest,
    /// Digest of the program itself, as it lies on the node.
    pub digest: Digest,
    /// Size of the program itself, in bytes.
    pub size_bytes: u64,
    /// Nodes that need it.
    pub roles: BTreeSet<BundleRole>,
    /// Directory class: where it goes on the node.
    pub place: BinaryPlace,
}

/// Where a program goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BinaryPlace {
    /// On the administrators' path.
    Bin,
    /// In landfall's own CNI plugin directory.
    Cni,
}

/// One container image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Full reference with tag.
    pub reference: ImageRef,
    /// Digest of its OCI manifest blob.
    pub manifest: Digest,
    /// Size of the manifest blob, in bytes.
    pub manifest_size_bytes: u64,
    /// Every blob of the image: manifest, config, layers.
    pub blobs: Vec<Digest>,
    /// Nodes that need it.
    pub roles: BTreeSet<BundleRole>,
}

/// A component and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// For instance `containerd`.
    pub name: String,
    /// For instance `2.4.2`.
    pub version: String,
}

/// A Debian package that went into a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebianPackage {
    /// Package name.
    pub name: String,
    /// Resolved version.
    pub version: String,
    /// Digest of the package file.
    pub digest: Digest,
}

/// One blob of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobEntry {
    /// Digest of the stored bytes.
    pub digest: Digest,
    /// Size of the stored bytes.
    pub size_bytes: u64,
    /// SHA-256 of each 4 MiB chunk, in order; the last may be shorter.
    pub chunks: Vec<Digest>,
}

impl BundleIndex {
    /// Returns the version of a component, if the bundle has it.
    pub fn component_version(&self, name: &str) -> Option<&str> {
        self.components
            .iter()
            .find(|c| c.name == name)
            .map(|c| c.version.as_str())
    }

    /// Returns the image whose repository ends in `/name`, if there is one.
    pub fn image_named(&self, name: &str) -> Option<&Image> {
        self.images.iter().find(|image| {
            let repo = image.reference.as_str().rsplit_once(':').map_or("", |(repo, _)| repo);
            repo.rsplit('/').next() == Some(name)
        })
    }

    /// Returns the entry of a blob.
    pub fn blob(&self, digest: &Digest) -> Option<&BlobEntry> {
        self.blobs.iter().find(|b| &b.digest == digest)
    }
}
