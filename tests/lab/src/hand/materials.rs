//! The materials of the manual install, which are prepared before its time is measured: programs and images of landfall's own bundle,
//! uncompressed, as `podman save` and a build folder would have them.

use super::node_files;
use anyhow::{Context, Result, anyhow, ensure};
use landfall_bundle::{Bundle, Verified, decompress_binary};
use landfall_core::bundle_index::{BinaryPlace, Image};
use landfall_core::name::Digest;
use landfall_core::trust::{OfferedKey, TrustOffer};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufWriter, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The images of such a cluster: landfall's ingress proxy and its probe are not among them.
const IMAGES: [&str; 9] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "etcd",
    "coredns",
    "pause",
    "kube-proxy",
    "flannel",
    "nginx",
];

/// Files on the host, and the names that the configuration needs. The files, more than a gigabyte, go when it is dropped.
pub struct Materials {
    folder: PathBuf,
    /// Folder that is unpacked on every node's `/`.
    pub(super) root: PathBuf,
    /// Where its archive goes.
    pub(super) archive: PathBuf,
    /// Archive of all images.
    pub(super) images: PathBuf,
    /// Kubernetes' version with `v`.
    pub(super) kubernetes: String,
    /// Prefix of the names of Kubernetes' own images.
    pub(super) repository: String,
    references: Vec<(&'static str, String)>,
}

impl Materials {
    /// Takes programs and images out of the bundle. Blocks for some ten seconds.
    pub fn prepare(bundle: &Path, cache: &Path) -> Result<Self> {
        let key = fs::read_to_string(bundle.with_extension("pub")).context("the bundle's public key cannot be read")?;
        let offered = OfferedKey { key, endorsement: None };
        let trust = TrustOffer {
            keys: vec![offered],
            ..TrustOffer::default()
        };
        let bundle = Bundle::open(bundle)?.verify(&trust)?;
        let folder = cache.join("lab/hand");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
        }
        let index = bundle.index();
        let images: Result<Vec<(&str, &Image)>> = IMAGES
            .into_iter()
            .map(|name| {
                let image = index.image_named(name);
                Ok((name, image.with_context(|| format!("the bundle has no image {name}"))?))
            })
            .collect();
        let images = images?;
        let materials = Self {
            root: folder.join("root"),
            archive: folder.join("stage.tar"),
            images: folder.join("images.tar"),
            kubernetes: index.kubernetes_version.clone(),
            repository: index.image_repository.clone(),
            references: images
                .iter()
                .map(|(name, image)| (*name, image.reference.to_string()))
                .collect(),
            folder,
        };
        materials.write_programs(&bundle)?;
        materials.write_files()?;
        materials.write_images(&bundle, &images, &materials.folder.join("images"))?;
        Ok(materials)
    }

    /// The full reference of one of the images.
    pub(super) fn image(&self, name: &str) -> &str {
        let found = self.references.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, reference)| reference)
    }

    /// The tag of one of the images.
    pub(super) fn tag(&self, name: &str) -> &str {
        self.image(name).rsplit_once(':').map_or("", |(_, tag)| tag)
    }

    fn write_programs(&self, bundle: &Bundle<Verified>) -> Result<()> {
        for binary in bundle.index().binaries().iter().filter(|b| b.name != "landfall") {
            let folder = match binary.place {
                BinaryPlace::Bin => self.root.join("usr/local/bin"),
                BinaryPlace::Cni => self.root.join("opt/cni/bin"),
            };
            let path = folder.join(&binary.name);
            let found = unpack(bundle, &binary.blob, &path)?;
            ensure!(found == binary.digest, "the bundle's {} is damaged", binary.name);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    fn write_files(&self) -> Result<()> {
        let units = self.root.join("etc/systemd/system");
        for (path, text) in [
            (
                self.root.join("etc/containerd/config.toml"),
                node_files::containerd(self.image("pause")),
            ),
            (
                units.join("containerd.service"),
                node_files::CONTAINERD_SERVICE.to_owned(),
            ),
            (units.join("kubelet.service"), node_files::KUBELET_SERVICE.to_owned()),
        ] {
            write(&path, text.as_bytes())?;
        }
        Ok(())
    }

    /// Writes an OCI archive with uncompressed layers; a layer that two images share is in it once.
    fn write_images(&self, bundle: &Bundle<Verified>, images: &[(&str, &Image)], folder: &Path) -> Result<()> {
        let blobs = folder.join("blobs/sha256");
        let mut manifests = Vec::new();
        for (_, image) in images {
            let mut manifest: Value = serde_json::from_slice(&read(bundle, &image.manifest)?)?;
            let config = digest(&manifest["config"]["digest"])?;
            let config_text = read(bundle, &config)?;
            write(&blobs.join(config.hex()), &config_text)?;
            let config: Value = serde_json::from_slice(&config_text)?;
            let plain = config["rootfs"]["diff_ids"].as_array().context("no diff_ids")?;
            let layers = manifest["layers"].as_array_mut().context("no layers")?;
            ensure!(
                plain.len() == layers.len(),
                "{} has other layers than it says",
                image.reference
            );
            for (layer, plain) in layers.iter_mut().zip(plain) {
                let wanted = digest(plain)?;
                let path = blobs.join(wanted.hex());
                if !path.exists() {
                    let found = unpack(bundle, &digest(&layer["digest"])?, &path)?;
                    ensure!(found == wanted, "a layer of {} is damaged", image.reference);
                }
                *layer = json!({
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": wanted.to_string(),
                    "size": fs::metadata(&path)?.len(),
                });
            }
            let text = manifest.to_string();
            let name = Digest::of(text.as_bytes());
            write(&blobs.join(name.hex()), text.as_bytes())?;
            manifests.push(json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": name.to_string(),
                "size": text.len(),
                "platform": { "architecture": "amd64", "os": "linux" },
                "annotations": { "io.containerd.image.name": image.reference.to_string() },
            }));
        }
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
        });
        write(&folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        write(&folder.join("index.json"), index.to_string().as_bytes())?;
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(folder).arg("-cf").arg(&self.images);
        crate::host::run(tar.args(["oci-layout", "index.json", "blobs"]))?;
        fs::remove_dir_all(folder).with_context(|| format!("{} cannot be removed", folder.display()))
    }
}

impl Drop for Materials {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            println!("{} stays behind: {error}", self.folder.display());
        }
    }
}

fn digest(value: &Value) -> Result<Digest> {
    let text = value.as_str().context("no digest where one should be")?;
    text.parse().map_err(|_| anyhow!("{text} is no digest"))
}

fn read(bundle: &Bundle<Verified>, digest: &Digest) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bundle.blob(digest)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Decompresses a blob into a file; returns the digest of what was written.
fn unpack(bundle: &Bundle<Verified>, blob: &Digest, path: &Path) -> Result<Digest> {
    let mut file = BufWriter::with_capacity(1024 * 1024, create(path)?);
    let found = decompress_binary(bundle.blob(blob)?, &mut file)?;
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    Ok(found)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    create(path)?
        .write_all(bytes)
        .with_context(|| format!("{} cannot be written", path.display()))
}

fn create(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    File::create(path).with_context(|| format!("{} cannot be made", path.display()))
}
