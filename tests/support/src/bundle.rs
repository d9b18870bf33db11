//! A bundle of a few kilobytes with everything that an install asks for: programs are shell scripts, images a few words each.

use crate::machine::memory_dir;
use anyhow::Result;
use landfall_bundle::minisign::SecretKey;
use landfall_bundle::{Bundle, BundleWriter, Verified};
use landfall_core::bundle_index::{
    Binary, BinaryPlace, BundleIndex, BundleRole, Component, DebianPackage, Image, Manifest, NODE_ARCHITECTURE,
    OCI_MANIFEST, Variant,
};
use landfall_core::name::Digest;
use landfall_core::trust::{OfferedKey, TrustOffer};
use std::collections::BTreeSet;
use std::path::Path;
use zeroize::Zeroizing;

/// Where the images' names begin.
const REPOSITORY: &str = "bundle.landfall.internal";
const PROGRAMS: [&str; 8] = [
    "kubeadm",
    "kubelet",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "landfall",
    "etcdctl",
];
const PLUGINS: [&str; 3] = ["bridge", "flannel", "portmap"];
const CONTROL_PLANE_IMAGES: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"];
const OTHER_IMAGES: [&str; 7] = [
    "kube-proxy",
    "pause",
    "coredns",
    "flannel",
    "landfall-ingress",
    "landfall-probe",
    LAST_IMAGE,
];
/// The image whose blobs come last.
pub const LAST_IMAGE: &str = "nginx";

/// The layer that images share.
const LAYER: &[u8] = b"a layer";

fn program(name: &str, version: &str, build: u32) -> String {
    let text = match name {
        "kubeadm" => include_str!("programs/kubeadm.sh").to_owned(),
        "ctr" => include_str!("programs/ctr.sh").to_owned(),
        other => format!("#!/bin/sh\necho this is {other} {version}\n"),
    };
    format!("{text}# build {build}\n")
}

/// The Kubernetes version of a bundle when no other is asked for.
pub const VERSION: &str = "v1.37.0";

/// Writes a signed bundle of a Kubernetes version and returns its index.
pub fn write_tiny(output: &Path, version: &str) -> Result<BundleIndex> {
    write(output, version, 1, "12.4", vec![], |_| LAYER.to_vec())
}

/// The same with manifests that its builder added.
pub fn write_with(output: &Path, version: &str, manifests: Vec<Manifest>) -> Result<BundleIndex> {
    write(output, version, 1, "12.4", manifests, |_| LAYER.to_vec())
}

/// The same with another version of a Debian package: another bundle of the same programs.
pub fn write_repackaged(output: &Path, version: &str) -> Result<BundleIndex> {
    write(output, version, 1, "12.5", vec![], |_| LAYER.to_vec())
}

/// The same; each build of a version has programs of its own.
pub fn write_build(output: &Path, version: &str, build: u32) -> Result<BundleIndex> {
    write(output, version, build, "12.4", vec![], |_| LAYER.to_vec())
}

/// The same with a layer of two chunks and a part of a third (`landfall_core::bundle_index`, 4 MiB each).
pub fn write_bulky(output: &Path, version: &str) -> Result<BundleIndex> {
    let layer = bulky_layer();
    write(output, version, 1, "12.4", vec![], |_| layer.clone())
}

/// The same; only the image that comes last has that layer.
pub fn write_late(output: &Path, version: &str) -> Result<BundleIndex> {
    let layer = bulky_layer();
    write(output, version, 1, "12.4", vec![], |name| match name {
        LAST_IMAGE => layer.clone(),
        _ => LAYER.to_vec(),
    })
}

fn bulky_layer() -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        // A linear congruential generator (Knuth's MMIX): bytes that no compression makes shorter.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(9 * 1024 * 1024 + 7).collect()
}

fn write(
    output: &Path,
    version: &str,
    build: u32,
    base_files: &str,
    manifests: Vec<Manifest>,
    layer_of: impl Fn(&str) -> Vec<u8>,
) -> Result<BundleIndex> {
    let directory = memory_dir()?;
    let mut writer = BundleWriter::default();
    let mut add = |bytes: &[u8]| -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = directory.path().join(digest.hex());
        std::fs::write(&path, bytes)?;
        writer.add_blob(digest, path);
        Ok(digest)
    };
    let everywhere = BTreeSet::from([BundleRole::ControlPlane, BundleRole::Worker]);
    let mut binaries = Vec::new();
    let places = PROGRAMS.iter().map(|p| (p, BinaryPlace::Bin));
    for (name, place) in places.chain(PLUGINS.iter().map(|p| (p, BinaryPlace::Cni))) {
        let text = program(name, version, build);
        binaries.push(Binary {
            name: (*name).to_owned(),
            component: (*name).to_owned(),
            version: "1.0.0".to_owned(),
            blob: add(&zstd::encode_all(text.as_bytes(), 3)?)?,
            digest: Digest::of(text.as_bytes()),
            size_bytes: text.len() as u64,
            roles: everywhere.clone(),
            place,
        });
    }
    let mut images = Vec::new();
    let control_plane = BTreeSet::from([BundleRole::ControlPlane]);
    let roles = CONTROL_PLANE_IMAGES.iter().map(|name| (name, &control_plane));
    for (name, roles) in roles.chain(OTHER_IMAGES.iter().map(|name| (name, &everywhere))) {
        let manifest = format!("manifest of {name} {version}");
        let config = add(format!("configuration of {name}").as_bytes())?;
        // All images share a layer, as real ones do.
        let layer = add(&layer_of(name))?;
        let digest = add(manifest.as_bytes())?;
        images.push(Image {
            reference: format!("{REPOSITORY}/{name}:{version}").parse()?,
            manifest: digest,
            media_type: OCI_MANIFEST.to_owned(),
            manifest_size_bytes: manifest.len() as u64,
            blobs: vec![digest, config, layer],
            roles: roles.clone(),
        });
    }
    let variant = Variant {
        architecture: NODE_ARCHITECTURE.to_owned(),
        binaries,
        images,
    };
    let mut index = BundleIndex::new("source", version, REPOSITORY, variant);
    index.components = vec![Component {
        name: "kubernetes".to_owned(),
        version: version.trim_start_matches('v').to_owned(),
    }];
    index.manifests = manifests;
    index.packages = vec![DebianPackage {
        name: "base-files".to_owned(),
        version: base_files.to_owned(),
        digest: Digest::of(b"base-files"),
    }];
    Ok(writer.write(index, Some(&key()), output)?)
}

/// The key that signs these bundles. It protects nothing.
pub fn key() -> SecretKey {
    SecretKey::from_random(&Zeroizing::new([7; 40]))
}

/// A key that signs none of these bundles. It protects nothing.
pub fn other_key() -> SecretKey {
    SecretKey::from_random(&Zeroizing::new([8; 40]))
}

/// One more of these.
pub fn third_key() -> SecretKey {
    SecretKey::from_random(&Zeroizing::new([9; 40]))
}

/// An operator who trusts [`key`].
pub fn trusted() -> TrustOffer {
    let offered = OfferedKey {
        key: key().public().to_text(),
        endorsement: None,
    };
    TrustOffer {
        keys: vec![offered],
        ..TrustOffer::default()
    }
}

/// Opens a bundle that [`key`] has signed.
pub fn open(path: &Path) -> Result<Bundle<Verified>> {
    Ok(Bundle::open(path)?.verify(&trusted())?)
}
