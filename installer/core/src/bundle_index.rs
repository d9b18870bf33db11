//! The index of a bundle: the list of its contents. The `bundle` crate implements the file format around it.

use crate::name::{Digest, ImageRef};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Version of the index format that this build writes; readers refuse a larger one.
pub const INDEX_VERSION: u32 = 2;

/// The architecture of nodes that landfall installs on, as Go names it. Bundles may hold others.
pub const NODE_ARCHITECTURE: &str = "amd64";

/// Size of the pieces of a blob whose digests the index records, in bytes.
pub const CHUNK_BYTES: u64 = 4 * 1024 * 1024;

/// Media type of an OCI image manifest (OCI image-spec 1.1, media-types.md).
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image manifest in Docker's form (Docker's registry documentation, "Image manifest V 2, schema 2").
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Which kind of node needs a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BundleRole {
    /// Needed on control plane nodes.
    ControlPlane,
    /// Needed on workers.
    Worker,
}

impl BundleRole {
    /// Returns the role's name, as the index has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
        }
    }

    /// Reads a role's name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::ControlPlane, Self::Worker]
            .into_iter()
            .find(|role| role.as_str() == name)
    }
}

impl std::fmt::Display for BundleRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The list of everything in a bundle. Version 1 had one architecture and can still be read; version 2 is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "format::AnyVersion")]
pub struct BundleIndex {
    /// Format version, [`INDEX_VERSION`].
    pub version: u32,
    /// Version of the bundle itself: that of the landfall that built it.
    pub bundle_version: String,
    /// Which recipe made it: `source` or `upstream`.
    pub recipe: String,
    /// Kubernetes version with `v`, for instance `v1.37.2`.
    pub kubernetes_version: String,
    /// Oldest Kubernetes version, with `v`, that may be upgraded with this bundle. `None` in a bundle of version 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_upgrade_from: Option<String>,
    /// Oldest version of each component that can be upgraded from, for components where that is limited.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upgrades_from: Vec<Component>,
    /// Prefix of every image name in this bundle, without trailing slash.
    pub image_repository: String,
    /// Component name and version, for people and for tags, for instance `etcd` → `3.7.3`.
    pub components: Vec<Component>,
    /// Debian packages that went into image layers.
    pub packages: Vec<DebianPackage>,
    /// What each architecture needs.
    pub variants: Vec<Variant>,
    /// Objects that the builder added, which `install` applies in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Manifest>,
    /// Blob of the software bill of materials, CycloneDX in JSON. Bundles of earlier builds have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<Digest>,
    /// Every blob in the file, sorted by digest.
    pub blobs: Vec<BlobEntry>,
}

/// What nodes of one architecture need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// Go-style machine architecture, `amd64`.
    pub architecture: String,
    /// Programs that are put on nodes.
    pub binaries: Vec<Binary>,
    /// Container images.
    pub images: Vec<Image>,
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
    /// Digest of its manifest blob.
    pub manifest: Digest,
    /// Media type of the manifest: [`OCI_MANIFEST`], or Docker's where an image was published in that form.
    #[serde(default = "oci_manifest", skip_serializing_if = "is_oci_manifest")]
    pub media_type: String,
    /// Size of the manifest blob, in bytes.
    pub manifest_size_bytes: u64,
    /// Every blob of the image: manifest, config, layers.
    pub blobs: Vec<Digest>,
    /// Nodes that need it.
    pub roles: BTreeSet<BundleRole>,
}

fn oci_manifest() -> String {
    OCI_MANIFEST.to_owned()
}

fn is_oci_manifest(media_type: &str) -> bool {
    media_type == OCI_MANIFEST
}

/// A file of Kubernetes objects that the builder added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Made of the file's name: lower-case letters, digits and `-`. It is there once.
    pub name: String,
    /// The objects in the order in which they are applied. Those with a namespace name it.
    pub objects: Vec<serde_json::Value>,
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

/// Why a text is no valid [`BundleIndex`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// It is no index.
    #[error("the index cannot be read: {0}")]
    Syntax(String),
    /// A newer landfall wrote it.
    #[error("the index has version {0}, this landfall reads up to {INDEX_VERSION}")]
    Version(u32),
    /// An entry contradicts another one.
    #[error("{0}")]
    Contradiction(String),
}

/// Returns the numbers of a version such as `v1.37.2` or `0.1.0`, without a suffix after `-` or `+`. `None` when the text is no version.
pub fn version_numbers(version: &str) -> Option<Vec<u64>> {
    let plain = version.trim_start_matches('v').split(['-', '+']).next()?;
    plain.split('.').map(|part| part.parse().ok()).collect()
}

/// Returns the first release of the previous minor version, with a `v` when `version` has one. Neither kubeadm (Kubernetes' version skew policy)
/// nor etcd (etcd.io/docs, "Upgrading etcd") upgrades from an older one. `None` for a first minor version.
pub fn previous_minor(version: &str) -> Option<String> {
    let [major, minor, ..] = version_numbers(version)?[..] else {
        return None;
    };
    let v = if version.starts_with('v') { "v" } else { "" };
    Some(format!("{v}{major}.{}.0", minor.checked_sub(1)?))
}

impl BundleIndex {
    /// Makes an index of one variant that lists no components, packages and blobs yet.
    pub fn new(recipe: &str, kubernetes_version: &str, image_repository: &str, variant: Variant) -> Self {
        Self {
            version: INDEX_VERSION,
            bundle_version: env!("CARGO_PKG_VERSION").to_owned(),
            recipe: recipe.to_owned(),
            kubernetes_version: kubernetes_version.to_owned(),
            min_upgrade_from: previous_minor(kubernetes_version),
            upgrades_from: vec![],
            image_repository: image_repository.to_owned(),
            components: vec![],
            packages: vec![],
            variants: vec![variant],
            manifests: vec![],
            sbom: None,
            blobs: vec![],
        }
    }

    /// Parses an index of any version up to [`INDEX_VERSION`]. The version is checked first, because a newer one may have any other fields.
    pub fn parse(text: &[u8]) -> Result<Self, IndexError> {
        let syntax = |error: serde_json::Error| IndexError::Syntax(error.to_string());
        let format::VersionOnly { version } = serde_json::from_slice(text).map_err(syntax)?;
        if version > INDEX_VERSION {
            return Err(IndexError::Version(version));
        }
        let index: Self = serde_json::from_slice(text).map_err(syntax)?;
        index.check()?;
        Ok(index)
    }

    /// Checks that blobs are sorted, so that equal contents give equal files, and that they have a digest for each of their chunks.
    fn check(&self) -> Result<(), IndexError> {
        let contradiction = |text: String| Err(IndexError::Contradiction(text));
        for pair in self.blobs.windows(2) {
            if pair[0].digest >= pair[1].digest {
                return contradiction(format!("the blob {} is listed at the wrong place", pair[1].digest));
            }
        }
        for blob in &self.blobs {
            let chunks = blob.chunks.len() as u64;
            if chunks != blob.size_bytes.div_ceil(CHUNK_BYTES) {
                return contradiction(format!(
                    "the blob {} has {} bytes and {chunks} chunks",
                    blob.digest, blob.size_bytes
                ));
            }
            if matches!(blob.chunks[..], [only] if only != blob.digest) {
                return contradiction(format!("the only chunk of the blob {} has another digest", blob.digest));
            }
        }
        for (position, manifest) in self.manifests.iter().enumerate() {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if manifest.name.is_empty() || !manifest.name.chars().all(plain) {
                return contradiction(format!("{:?} is no name of a manifest", manifest.name));
            }
            if self.manifests[..position].iter().any(|m| m.name == manifest.name) {
                return contradiction(format!("the manifest {} is there twice", manifest.name));
            }
        }
        for (position, variant) in self.variants.iter().enumerate() {
            if self.variants[..position]
                .iter()
                .any(|v| v.architecture == variant.architecture)
            {
                return contradiction(format!("the architecture {} is there twice", variant.architecture));
            }
        }
        Ok(())
    }

    /// Returns what an architecture needs, if the bundle has it.
    pub fn variant(&self, architecture: &str) -> Option<&Variant> {
        self.variants.iter().find(|v| v.architecture == architecture)
    }

    /// Returns the programs for nodes of [`NODE_ARCHITECTURE`].
    pub fn binaries(&self) -> &[Binary] {
        self.variant(NODE_ARCHITECTURE).map_or(&[], |v| &v.binaries)
    }

    /// Returns the images for nodes of [`NODE_ARCHITECTURE`].
    pub fn images(&self) -> &[Image] {
        self.variant(NODE_ARCHITECTURE).map_or(&[], |v| &v.images)
    }

    /// Returns the image of a cluster's own part, by its name behind the bundle's prefix. Images that the builder added have other names.
    pub fn image_named(&self, name: &str) -> Option<&Image> {
        let mut images = self.images().iter();
        images.find(|image| self.own_name(image) == Some(name))
    }

    /// Returns the name of an image of a cluster's own part behind the bundle's prefix; none of other images.
    pub fn own_name<'a>(&self, image: &'a Image) -> Option<&'a str> {
        let behind = image.reference.repository().strip_prefix(&self.image_repository);
        behind.and_then(|rest| rest.strip_prefix('/'))
    }

    /// Says whether nodes of a role need a blob, or it is for people: only what programs and images of other roles alone consist of is
    /// not.
    pub fn is_for(&self, role: BundleRole, digest: &Digest) -> bool {
        let programs = self.variants.iter().flat_map(|v| &v.binaries);
        let images = self.variants.iter().flat_map(|v| &v.images);
        let of_programs = programs.filter(|b| b.blob == *digest).map(|b| &b.roles);
        let of_images = images.filter(|i| i.blobs.contains(digest)).map(|i| &i.roles);
        let mut users = of_programs.chain(of_images).peekable();
        users.peek().is_none() || users.any(|roles| roles.contains(&role))
    }

    /// Returns the entry of a blob.
    pub fn blob(&self, digest: &Digest) -> Option<&BlobEntry> {
        let found = self.blobs.binary_search_by_key(digest, |b| b.digest);
        found.ok().map(|at| &self.blobs[at])
    }
}

/// The formats of an index in all versions.
mod format {
    use super::{BlobEntry, BundleIndex, Component, DebianPackage, Manifest, Variant};
    use crate::name::Digest;
    use serde::Deserialize;

    #[derive(Deserialize)]
    pub(super) struct VersionOnly {
        pub(super) version: u32,
    }

    /// An index of version 1 has its one architecture at the top, later ones have variants.
    #[derive(Deserialize)]
    pub(super) struct AnyVersion {
        version: u32,
        #[serde(default)]
        bundle_version: Option<String>,
        recipe: String,
        kubernetes_version: String,
        #[serde(default)]
        min_upgrade_from: Option<String>,
        #[serde(default)]
        upgrades_from: Vec<Component>,
        image_repository: String,
        components: Vec<Component>,
        packages: Vec<DebianPackage>,
        #[serde(default)]
        variants: Vec<Variant>,
        #[serde(flatten)]
        one: Option<Variant>,
        #[serde(default)]
        manifests: Vec<Manifest>,
        #[serde(default)]
        sbom: Option<Digest>,
        blobs: Vec<BlobEntry>,
    }

    impl TryFrom<AnyVersion> for BundleIndex {
        type Error = String;

        fn try_from(read: AnyVersion) -> Result<Self, String> {
            let (variants, bundle_version) = match (read.version, read.one) {
                (1, Some(one)) => {
                    let built_by = read.components.iter().find(|c| c.name == "landfall");
                    let version = built_by.map_or_else(|| "0.1.0".to_owned(), |c| c.version.clone());
                    (vec![one], version)
                }
                (1, None) => return Err("it names no architecture".to_owned()),
                (_, Some(_)) => return Err("it has fields of version 1".to_owned()),
                (_, None) => {
                    let version = read.bundle_version.ok_or("it has no bundle_version")?;
                    (read.variants, version)
                }
            };
            Ok(Self {
                version: read.version,
                bundle_version,
                recipe: read.recipe,
                kubernetes_version: read.kubernetes_version,
                min_upgrade_from: read.min_upgrade_from,
                upgrades_from: read.upgrades_from,
                image_repository: read.image_repository,
                components: read.components,
                packages: read.packages,
                variants,
                manifests: read.manifests,
                sbom: read.sbom,
                blobs: read.blobs,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(change: impl FnOnce(&mut BundleIndex)) -> Result<BundleIndex, IndexError> {
        let variant = Variant {
            architecture: NODE_ARCHITECTURE.to_owned(),
            binaries: vec![],
            images: vec![],
        };
        let mut index = BundleIndex::new("source", "v1.37.2", "r", variant);
        change(&mut index);
        BundleIndex::parse(&serde_json::to_vec(&index).unwrap())
    }

    fn blob(bytes: &[u8]) -> BlobEntry {
        BlobEntry {
            digest: Digest::of(bytes),
            size_bytes: bytes.len() as u64,
            chunks: vec![Digest::of(bytes)],
        }
    }

    #[test]
    fn a_contradictory_index_is_refused() {
        assert_eq!(index(|_| ()).unwrap().min_upgrade_from.as_deref(), Some("v1.36.0"));
        let refused = |change: fn(&mut BundleIndex)| matches!(index(change), Err(IndexError::Contradiction(_)));
        assert!(refused(|i| i.blobs = vec![blob(b"a"), blob(b"a")]));
        assert!(refused(|i| i.variants.push(i.variants[0].clone())));
        let manifest = |name: &str| Manifest {
            name: name.to_owned(),
            objects: vec![],
        };
        assert!(index(|i| i.manifests = vec![manifest("a"), manifest("b")]).is_ok());
        for names in [["a", "a"], ["a", "A b"]] {
            let wrong = index(|i| i.manifests = names.map(manifest).to_vec());
            assert!(matches!(wrong, Err(IndexError::Contradiction(_))), "{names:?}");
        }
        assert!(refused(|i| {
            i.blobs = vec![blob(b"a")];
            i.blobs[0].chunks.clear();
        }));
        assert!(refused(|i| {
            i.blobs = vec![blob(b"a")];
            i.blobs[0].chunks[0] = Digest::of(b"b");
        }));
        let newer = index(|i| i.version = INDEX_VERSION + 1);
        assert_eq!(newer, Err(IndexError::Version(INDEX_VERSION + 1)));
    }

    #[test]
    fn a_role_needs_what_its_programs_and_images_consist_of() {
        let [shared, ours, manual] = [b"shared", b"ours!!", b"manual"].map(|bytes| Digest::of(bytes));
        let image = |blobs: Vec<Digest>, role| Image {
            reference: "r/a:1".parse().unwrap(),
            manifest: blobs[0],
            manifest_size_bytes: 6,
            media_type: OCI_MANIFEST.to_owned(),
            blobs,
            roles: [role].into(),
        };
        let index = index(|i| {
            i.variants[0].images = vec![
                image(vec![ours, shared], BundleRole::ControlPlane),
                image(vec![shared], BundleRole::Worker),
            ];
        })
        .unwrap();
        let held = |role| [shared, ours, manual].map(|digest| index.is_for(role, &digest));
        assert_eq!(held(BundleRole::Worker), [true, false, true]);
        assert_eq!(held(BundleRole::ControlPlane), [true, true, true]);
        assert_eq!(BundleRole::parse("worker"), Some(BundleRole::Worker));
        assert_eq!(BundleRole::parse("Worker"), None);
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(version_numbers("v1.9.10") < version_numbers("v1.37.2"));
        assert_eq!(version_numbers("v1.37.0-rc.1"), version_numbers("1.37.0"));
        assert_eq!(version_numbers("1:2.3"), None);
        assert_eq!(previous_minor("v1.37.2").as_deref(), Some("v1.36.0"));
        assert_eq!(previous_minor("3.0.1"), None);
    }
}
