//! What the servers have: every program and image of the default versions, a few kilobytes each or those of a bundle.

use super::State;
use anyhow::{Context, Result};
use landfall_bundle::{Bundle, Verified};
use landfall_core::bundle_index::NODE_ARCHITECTURE;
use landfall_core::explain::Diagnosis;
use landfall_core::name::Digest;
use serde_json::json;
use std::io::{Read, Write};

/// Architectures that are there.
pub const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

const KUBERNETES: &str = "1.37.2";

/// A file that looks like a program of an architecture: `e_machine` of the ELF header, and words.
pub fn elf(architecture: &str, words: &str) -> Vec<u8> {
    let machine: u16 = if architecture == "arm64" { 183 } else { 62 };
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(18, 0);
    bytes.extend(machine.to_le_bytes());
    // Long enough to be cut in the middle.
    bytes.extend(format!("{words} for {architecture}\n").repeat(500).into_bytes());
    bytes
}

/// A `.tar.gz` without compression.
fn archive(members: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut tar = Vec::new();
    for (name, bytes) in members {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000755");
        header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        header[154] = 0;
        tar.extend(header);
        tar.extend(bytes);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(&tar)?;
    Ok(gzip.finish()?)
}

/// Where the servers' content comes from.
pub(super) trait Source {
    fn architectures(&self) -> &'static [&'static str];
    /// The bytes of a program.
    fn program(&self, architecture: &str, name: &str) -> Result<Vec<u8>>;
    /// Adds the blobs of a repository's image; returns the digest of its manifest and the manifest.
    fn image(&self, state: &mut State, repository: &str, architecture: &str, docker: bool)
    -> Result<(String, Vec<u8>)>;
}

/// Words in place of programs and layers.
pub(super) struct Words;

impl Source for Words {
    fn architectures(&self) -> &'static [&'static str] {
        &ARCHITECTURES
    }

    fn program(&self, architecture: &str, name: &str) -> Result<Vec<u8>> {
        Ok(elf(architecture, name))
    }

    fn image(
        &self,
        state: &mut State,
        repository: &str,
        architecture: &str,
        docker: bool,
    ) -> Result<(String, Vec<u8>)> {
        image(state, repository, architecture, docker)
    }
}

impl Source for Bundle<Verified> {
    fn architectures(&self) -> &'static [&'static str] {
        &[NODE_ARCHITECTURE]
    }

    fn program(&self, _: &str, name: &str) -> Result<Vec<u8>> {
        let Some(binary) = self.index().binaries().iter().find(|binary| binary.name == name) else {
            // In publishers' archives, and on no node.
            return Ok(elf(NODE_ARCHITECTURE, name));
        };
        Ok(zstd::decode_all(self.blob(&binary.blob).map_err(readable)?)?)
    }

    fn image(&self, state: &mut State, repository: &str, _: &str, _: bool) -> Result<(String, Vec<u8>)> {
        let name = repository.rsplit('/').next().unwrap_or(repository);
        let image = self
            .index()
            .image_named(name)
            .with_context(|| format!("the bundle has no image {name}"))?;
        let read = |digest: &Digest| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            self.blob(digest).map_err(readable)?.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        for digest in &image.blobs {
            state.blobs.insert(digest.to_string(), read(digest)?);
        }
        Ok((image.manifest.to_string(), read(&image.manifest)?))
    }
}

fn readable(diagnosis: Diagnosis) -> anyhow::Error {
    anyhow::anyhow!("{diagnosis}")
}

pub(super) fn fill(state: &mut State, source: &dyn Source) -> Result<()> {
    let mut runc_sums = String::new();
    for architecture in source.architectures() {
        for name in ["kubeadm", "kubelet", "kubectl"] {
            let path = format!("dl.k8s.io/release/v{KUBERNETES}/bin/linux/{architecture}/{name}");
            let bytes = source.program(architecture, name)?;
            state
                .files
                .insert(format!("{path}.sha256"), Digest::of(&bytes).hex().into_bytes());
            state.files.insert(path, bytes);
        }
        let members = |names: &[&str], folder: &str| -> Result<Vec<(String, Vec<u8>)>> {
            let member = |name: &&str| Ok((format!("{folder}{name}"), source.program(architecture, name)?));
            names.iter().map(member).collect()
        };
        let containerd = members(
            &["containerd", "containerd-shim-runc-v2", "containerd-stress", "ctr"],
            "bin/",
        )?;
        release(
            state,
            &format!(
                "containerd/containerd/releases/download/v2.4.2/containerd-static-2.4.2-linux-{architecture}.tar.gz"
            ),
            "sha256sum",
            archive(&containerd)?,
        );
        let plugins = members(&["bridge", "host-local", "loopback", "portmap", "vlan"], "./")?;
        release(
            state,
            &format!(
                "containernetworking/plugins/releases/download/v1.9.1/cni-plugins-linux-{architecture}-v1.9.1.tgz"
            ),
            "sha256",
            archive(&plugins)?,
        );
        let runc = source.program(architecture, "runc")?;
        runc_sums.push_str(&format!("{} *runc.{architecture}\n", Digest::of(&runc).hex()));
        let path = format!("github.com/opencontainers/runc/releases/download/v1.5.2/runc.{architecture}");
        state.files.insert(path, runc);
    }
    let path = "github.com/opencontainers/runc/releases/download/v1.5.2/runc.sha256sum";
    state.files.insert(path.to_owned(), runc_sums.into_bytes());
    fill_registries(state, source)
}

/// A file of a release on GitHub, with its checksum beside it.
fn release(state: &mut State, path: &str, ending: &str, bytes: Vec<u8>) {
    let name = path.rsplit('/').next().unwrap_or_default();
    let sum = format!("{}  {name}\n", Digest::of(&bytes).hex());
    state
        .files
        .insert(format!("github.com/{path}.{ending}"), sum.into_bytes());
    state.files.insert(format!("github.com/{path}"), bytes);
}

fn fill_registries(state: &mut State, source: &dyn Source) -> Result<()> {
    let images = [
        ("registry.k8s.io", "kube-apiserver", "v1.37.2"),
        ("registry.k8s.io", "kube-controller-manager", "v1.37.2"),
        ("registry.k8s.io", "kube-scheduler", "v1.37.2"),
        ("registry.k8s.io", "kube-proxy", "v1.37.2"),
        ("registry.k8s.io", "etcd", "3.7.0-0"),
        ("registry.k8s.io", "coredns/coredns", "v1.14.6"),
        ("registry.k8s.io", "pause", "3.10.2"),
        ("ghcr.io", "flannel-io/flannel", "v0.28.4"),
        ("registry-1.docker.io", "library/nginx", "1.28.3"),
    ];
    for (host, repository, tag) in images {
        // registry.k8s.io has Docker's media types, the others OCI's.
        let docker = host == "registry.k8s.io";
        let mut descriptors = Vec::new();
        for architecture in source.architectures() {
            let (digest, manifest) = source.image(state, repository, architecture, docker)?;
            descriptors.push(json!({
                "mediaType": media_type(docker, "manifest"), "digest": digest, "size": manifest.len(),
                "platform": { "architecture": architecture, "os": "linux" },
            }));
            let key = (host.to_owned(), repository.to_owned(), digest);
            state.manifests.insert(key, manifest);
        }
        // What builders add for provenance.
        descriptors.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(b"attestation").to_string(), "size": 11,
            "platform": { "architecture": "unknown", "os": "unknown" },
        }));
        let index = json!({ "schemaVersion": 2, "mediaType": media_type(docker, "index"), "manifests": descriptors });
        let key = (host.to_owned(), repository.to_owned(), tag.to_owned());
        state.manifests.insert(key, serde_json::to_vec(&index)?);
    }
    Ok(())
}

fn media_type(docker: bool, what: &str) -> &'static str {
    match (docker, what) {
        (true, "index") => "application/vnd.docker.distribution.manifest.list.v2+json",
        (true, "manifest") => "application/vnd.docker.distribution.manifest.v2+json",
        (true, "config") => "application/vnd.docker.container.image.v1+json",
        (true, _) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        (false, "index") => "application/vnd.oci.image.index.v1+json",
        (false, "manifest") => "application/vnd.oci.image.manifest.v1+json",
        (false, "config") => "application/vnd.oci.image.config.v1+json",
        (false, _) => "application/vnd.oci.image.layer.v1.tar+gzip",
    }
}

/// Adds the blobs of an image; returns its manifest. All images of an architecture share their first layer.
fn image(state: &mut State, repository: &str, architecture: &str, docker: bool) -> Result<(String, Vec<u8>)> {
    let packages =
        format!("Package: libc6\nStatus: install ok installed\nArchitecture: {architecture}\nVersion: 2.41-12\n");
    let base = archive(&[
        (
            "etc/os-release".to_owned(),
            b"ID=debian\nVERSION_CODENAME=trixie\n".to_vec(),
        ),
        ("var/lib/dpkg/status".to_owned(), packages.into_bytes()),
    ])?;
    let own = archive(&[(repository.replace('/', "-"), elf(architecture, repository))])?;
    let config =
        serde_json::to_vec(&json!({ "architecture": architecture, "os": "linux", "config": {}, "of": repository }))?;
    let mut add = |what: &str, bytes: Vec<u8>| {
        let digest = Digest::of(&bytes).to_string();
        let descriptor = json!({ "mediaType": media_type(docker, what), "digest": digest, "size": bytes.len() });
        state.blobs.insert(digest, bytes);
        descriptor
    };
    let config = add("config", config);
    let layers = [add("layer", base), add("layer", own)];
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": media_type(docker, "manifest"), "config": config, "layers": layers,
    }))?;
    Ok((Digest::of(&manifest).to_string(), manifest))
}
