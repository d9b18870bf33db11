//! Images that the builder brings as files: what `docker save`, `podman save` and `ctr images export` write, plain or compressed. Two forms
//! are read: OCI image layouts (image-spec 1.1, image-layout.md) and Docker's older one with `manifest.json`.

use super::contents::both;
use super::oci::Store;
use super::{IMAGE_REPOSITORY, failed};
use crate::BundleWriter;
use crate::archive::decompressed;
use crate::sbom::Sbom;
use landfall_core::bundle_index::{DOCKER_MANIFEST, Image, Manifest, OCI_MANIFEST, Variant};
use landfall_core::explain::Diagnosis;
use landfall_core::name::{Digest, ImageRef};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Media types of Docker's form (Docker's registry documentation, "Image manifest V 2, schema 2").
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// The most that a file which is read as JSON may have.
const JSON_BYTES: u64 = 16 * 1024 * 1024;
/// Lists within lists: Docker writes two levels.
const DEEPEST: usize = 4;

/// What the builder of a bundle adds to it.
#[derive(Debug, Clone, Copy)]
pub struct Additions<'a> {
    /// Files with images, for all nodes.
    pub archives: &'a [ImageArchive],
    /// Objects that `install` applies.
    pub manifests: &'a [Manifest],
}

/// A file with images, and the name of its image when it is to have another one or has none: `[NAME=]FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageArchive {
    name: Option<ImageRef>,
    path: PathBuf,
}

impl std::str::FromStr for ImageArchive {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (Some(added_name(name)?), path),
            None => (None, text),
        };
        if path.is_empty() {
            return Err(format!("{text:?} does not have the form [NAME=]FILE"));
        }
        Ok(Self {
            name,
            path: PathBuf::from(path),
        })
    }
}

/// The whole name of an image that the builder adds.
pub(crate) fn added_name(text: &str) -> Result<ImageRef, String> {
    let name = ImageRef::normalized(text).map_err(|error| error.to_string())?;
    if name.as_str().starts_with(&format!("{IMAGE_REPOSITORY}/")) {
        return Err(format!(
            "{text}: names of {IMAGE_REPOSITORY} are those of the bundle's own images"
        ));
    }
    Ok(name)
}

/// Adds the images that archives have for an architecture. Blocks while the files are read.
pub(crate) fn add_archives(
    archives: &[ImageArchive],
    architecture: &str,
    store: &Store,
    writer: &mut BundleWriter,
    sbom: &mut Sbom,
) -> Result<Vec<Image>, Diagnosis> {
    let mut images = Vec::new();
    for archive in archives {
        let path = archive.path.display();
        let opened = Opened::read(archive, store)?;
        for found in opened.images(architecture)? {
            let reference = match (&archive.name, found.name) {
                (Some(name), _) => name.clone(),
                (None, Some(name)) => added_name(&name).map_err(|why| failed(format!("{path}: {why}")))?,
                (None, None) => {
                    return Err(failed(format!("an image in {path} has no name"))
                        .next(format!("name it: --image-archive NAME:TAG={path}")));
                }
            };
            let image = Image {
                reference,
                manifest: found.manifest,
                media_type: found.media_type,
                manifest_size_bytes: found.manifest_size_bytes,
                blobs: found.blobs.iter().map(|(digest, _)| *digest).collect(),
                roles: both(),
            };
            let layers: Vec<PathBuf> = found.blobs.iter().skip(2).map(|(_, path)| path.clone()).collect();
            let listed = sbom.published_image(&image, &layers, None);
            listed
                .map_err(|error| failed(format!("the layers of {} cannot be read", image.reference)).because(&error))?;
            for (digest, path) in found.blobs {
                writer.add_blob(digest, path);
            }
            images.push(image);
        }
    }
    Ok(images)
}

/// Names added images that are there twice, or not for every architecture: a pod would run on some nodes alone.
pub(crate) fn check_added(variants: &[Variant]) -> Result<(), Diagnosis> {
    let added = |variant: &Variant| -> Vec<String> {
        let names = variant.images.iter().map(|image| image.reference.to_string());
        names.filter(|name| !name.starts_with(IMAGE_REPOSITORY)).collect()
    };
    let all: Vec<(&str, Vec<String>)> = variants.iter().map(|v| (v.architecture.as_str(), added(v))).collect();
    let mut wrong = Vec::new();
    for (architecture, here) in &all {
        for (position, name) in here.iter().enumerate() {
            if here[..position].contains(name) {
                wrong.push(format!("{name} is there twice for {architecture}"));
            }
            let lacks = all.iter().filter(|(_, there)| !there.contains(name));
            wrong.extend(lacks.map(|(other, _)| format!("{name} is there for {architecture} and not for {other}")));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let images = failed("the added images do not fit together");
    Err(wrong.into_iter().fold(images, Diagnosis::saw))
}

/// The members of an archive, kept in the store.
struct Opened<'a> {
    archive: &'a ImageArchive,
    store: &'a Store,
    /// Digest of each member, by name.
    members: BTreeMap<String, Digest>,
    paths: BTreeMap<Digest, PathBuf>,
}

/// An image for one architecture. Its blobs are manifest, configuration and layers.
struct Found {
    name: Option<String>,
    manifest: Digest,
    media_type: String,
    manifest_size_bytes: u64,
    blobs: Vec<(Digest, PathBuf)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl<'a> Opened<'a> {
    fn read(archive: &'a ImageArchive, store: &'a Store) -> Result<Self, Diagnosis> {
        let mut opened = Self {
            archive,
            store,
            members: BTreeMap::new(),
            paths: BTreeMap::new(),
        };
        let mut links = Vec::new();
        let read = |opened: &mut Self, links: &mut Vec<(String, String)>| -> std::io::Result<()> {
            let mut tar = tar::Archive::new(decompressed(&archive.path)?);
            for entry in tar.entries()? {
                let mut entry = entry?;
                let name = plain_name(&entry.path()?);
                let kind = entry.header().entry_type();
                if kind.is_file() {
                    let (digest, path) = store.keep_stream(&mut entry)?;
                    opened.members.insert(name, digest);
                    opened.paths.insert(digest, path);
                } else if let Some(target) = entry.link_name()? {
                    // Docker's older archives have a link where a layer repeats.
                    let folder = Path::new(&name).parent().unwrap_or(Path::new(""));
                    let target = if kind.is_symlink() {
                        folder.join(target)
                    } else {
                        target.into_owned()
                    };
                    links.push((name, plain_name(&target)));
                }
            }
            Ok(())
        };
        read(&mut opened, &mut links).map_err(|error| {
            failed(format!("{} cannot be read as an archive", archive.path.display())).because(&error)
        })?;
        for (name, target) in links {
            if let Some(digest) = opened.members.get(&target).copied() {
                opened.members.insert(name, digest);
            }
        }
        Ok(opened)
    }

    fn wrong(&self, why: &str) -> Diagnosis {
        failed(format!("{}: {why}", self.archive.path.display()))
            .next("write it again by `docker save`, `podman save --format oci-archive` or `ctr images export`")
    }

    /// The images for an architecture, or an error that says what is there.
    fn images(&self, architecture: &str) -> Result<Vec<Found>, Diagnosis> {
        let mut others = Vec::new();
        let found = if let Some(index) = self.members.get("index.json") {
            let mut found = Vec::new();
            self.of_index(index, None, architecture, DEEPEST, &mut found, &mut others)?;
            found
        } else if let Some(list) = self.members.get("manifest.json") {
            self.of_docker(list, architecture, &mut others)?
        } else {
            return Err(self.wrong("there is neither index.json nor manifest.json in it"));
        };
        if found.is_empty() && others.is_empty() {
            return Err(self.wrong("there is no image in it"));
        }
        if self.archive.name.is_some() && found.len() > 1 {
            return Err(self.wrong("there are several images in it, so one name does not fit"));
        }
        Ok(found)
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, Diagnosis> {
        let path = self.paths.get(digest).cloned();
        path.ok_or_else(|| self.wrong(&format!("the blob {digest} is missing in it")))
    }

    fn json(&self, digest: &Digest) -> Result<Vec<u8>, Diagnosis> {
        let path = self.path(digest)?;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            File::open(&path)?.take(JSON_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| self.wrong(&format!("the blob {digest} cannot be read")).because(&error))
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, digest: &Digest) -> Result<T, Diagnosis> {
        serde_json::from_slice(&self.json(digest)?).map_err(|error| {
            self.wrong(&format!("the blob {digest} is not what it should be"))
                .because(&error)
        })
    }

    /// Walks through an index and those that it names.
    fn of_index(
        &self,
        index: &Digest,
        name: Option<&str>,
        architecture: &str,
        depth: usize,
        found: &mut Vec<Found>,
        others: &mut Vec<String>,
    ) -> Result<(), Diagnosis> {
        let document: Value = self.parse(index)?;
        for descriptor in document["manifests"].as_array().into_iter().flatten() {
            let notes = &descriptor["annotations"];
            // containerd's annotation has the whole name; the standard one may have the tag alone, which is no name.
            let named = [
                &notes["io.containerd.image.name"],
                &notes["org.opencontainers.image.ref.name"],
            ];
            let named = named
                .into_iter()
                .filter_map(Value::as_str)
                .find(|text| text.contains([':', '/']));
            let named = named.or(name);
            let digest: Digest = descriptor["digest"]
                .as_str()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| self.wrong("an entry of its index has no SHA-256"))?;
            let media_type = descriptor["mediaType"].as_str().unwrap_or(OCI_MANIFEST);
            if media_type.contains("index") || media_type.contains("manifest.list") {
                // An archive of one architecture may name the lists of all.
                if self.paths.contains_key(&digest) && depth > 0 {
                    self.of_index(&digest, named, architecture, depth - 1, found, others)?;
                }
                continue;
            }
            let platform = &descriptor["platform"];
            let platform = platform["architecture"].as_str().map(str::to_owned);
            if platform.as_deref().is_some_and(|is| is != architecture) || !self.paths.contains_key(&digest) {
                others.extend(platform);
                continue;
            }
            if let Some(image) = self.of_manifest(&digest, media_type, named, architecture, others)? {
                found.push(image);
            }
        }
        Ok(())
    }

    fn of_manifest(
        &self,
        manifest: &Digest,
        media_type: &str,
        name: Option<&str>,
        architecture: &str,
        others: &mut Vec<String>,
    ) -> Result<Option<Found>, Diagnosis> {
        let document: Value = self.parse(manifest)?;
        let digest = |value: &Value| -> Result<Digest, Diagnosis> {
            let text = value["digest"].as_str().and_then(|text| text.parse().ok());
            text.ok_or_else(|| self.wrong(&format!("the manifest {manifest} has an entry without a SHA-256")))
        };
        let config = digest(&document["config"])?;
        let is_for = self.architecture_of(&config)?;
        if is_for != architecture {
            others.push(is_for);
            return Ok(None);
        }
        let mut blobs = vec![(*manifest, self.path(manifest)?), (config, self.path(&config)?)];
        for layer in document["layers"].as_array().into_iter().flatten() {
            let layer = digest(layer)?;
            if !blobs.iter().any(|(known, _)| *known == layer) {
                blobs.push((layer, self.path(&layer)?));
            }
        }
        Ok(Some(Found {
            name: name.map(str::to_owned),
            manifest: *manifest,
            media_type: media_type.to_owned(),
            manifest_size_bytes: self.json(manifest)?.len() as u64,
            blobs,
        }))
    }

    fn architecture_of(&self, config: &Digest) -> Result<String, Diagnosis> {
        let config: Value = self.parse(config)?;
        let architecture = config["architecture"].as_str();
        architecture
            .map(str::to_owned)
            .ok_or_else(|| self.wrong("an image in it does not say for which architecture it is"))
    }

    /// Makes manifests of Docker's older form, which has none.
    fn of_docker(&self, list: &Digest, architecture: &str, others: &mut Vec<String>) -> Result<Vec<Found>, Diagnosis> {
        let images: Vec<DockerImage> = self.parse(list)?;
        let mut found = Vec::new();
        for image in images {
            let member = |name: &String| {
                let digest = self.members.get(&plain_name(Path::new(name))).copied();
                digest.ok_or_else(|| self.wrong(&format!("{name} is missing in it")))
            };
            let config = member(&image.config)?;
            let is_for = self.architecture_of(&config)?;
            if is_for != architecture {
                others.push(is_for);
                continue;
            }
            let mut blobs = vec![(config, self.path(&config)?)];
            let mut layers = Vec::new();
            for layer in &image.layers {
                let digest = member(layer)?;
                let path = self.path(&digest)?;
                layers.push(self.descriptor(layer_type(&path), &digest)?);
                if !blobs.iter().any(|(known, _)| *known == digest) {
                    blobs.push((digest, path));
                }
            }
            let manifest = json!({
                "schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": self.descriptor(DOCKER_CONFIG.to_owned(), &config)?, "layers": layers,
            });
            let text = manifest.to_string().into_bytes();
            let (digest, path) = self.store.keep(&text)?;
            blobs.insert(0, (digest, path));
            let names = image.repo_tags.unwrap_or_default();
            let names: Vec<Option<String>> = match (&self.archive.name, names.is_empty()) {
                (None, false) => names.into_iter().map(Some).collect(),
                _ => vec![None],
            };
            found.extend(names.into_iter().map(|name| Found {
                name,
                manifest: digest,
                media_type: DOCKER_MANIFEST.to_owned(),
                manifest_size_bytes: text.len() as u64,
                blobs: blobs.clone(),
            }));
        }
        Ok(found)
    }

    fn descriptor(&self, media_type: String, digest: &Digest) -> Result<Value, Diagnosis> {
        let size = std::fs::metadata(self.path(digest)?).map(|file| file.len());
        let size = size.map_err(|error| self.wrong("a member cannot be read").because(&error))?;
        Ok(json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size }))
    }
}

/// A member's name without `.`, `..` and a slash at the beginning.
fn plain_name(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            std::path::Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.join("/")
}

/// Docker's own layers are plain tars; other tools write compressed ones in the same form.
fn layer_type(path: &Path) -> String {
    let mut magic = [0; 2];
    let known = File::open(path).and_then(|mut file| file.read(&mut magic)).unwrap_or(0);
    let gzip = magic[..known] == [0x1f, 0x8b];
    format!("{DOCKER_LAYER}{}", if gzip { ".gzip" } else { "" })
}

#[cfg(test)]
mod tests;
