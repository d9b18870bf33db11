//! The store of finished blobs in the cache, and OCI image configurations and manifests (image-spec 1.1).

use super::layer::{Layer, LayerBuilder};
use super::{failed, io};
use crate::ZSTD_LEVEL;
use crate::hashed::Hashed;
use landfall_core::bundle_index::{BundleRole, Image, NODE_ARCHITECTURE, OCI_MANIFEST};
use landfall_core::explain::Diagnosis;
use landfall_core::name::{Digest, ImageRef};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Blobs by digest, and which inputs led to which blob.
pub(crate) struct Store {
    folder: PathBuf,
}

/// A program as a blob.
pub(crate) struct Packed {
    pub blob: Digest,
    pub content: Digest,
    pub size_bytes: u64,
    pub path: PathBuf,
}

/// What an image's configuration says.
pub(crate) struct ImageSettings {
    pub user: String,
    entrypoint: Vec<String>,
    architecture: String,
}

impl ImageSettings {
    pub fn program(path: &str) -> Self {
        Self {
            user: String::new(),
            entrypoint: vec![path.to_owned()],
            architecture: NODE_ARCHITECTURE.to_owned(),
        }
    }

    /// Says which machines the programs inside are for.
    pub fn on(mut self, architecture: &str) -> Self {
        self.architecture = architecture.to_owned();
        self
    }

    pub fn with_args(mut self, args: &[&str]) -> Self {
        self.entrypoint.extend(args.iter().map(|a| (*a).to_owned()));
        self
    }
}

impl Store {
    pub fn open(cache: &Path) -> Result<Self, Diagnosis> {
        let folder = cache.join("blobs");
        std::fs::create_dir_all(&folder).map_err(io("made", &folder))?;
        Ok(Self { folder })
    }

    /// Compresses a program, once.
    pub fn pack(&self, program: &Path) -> Result<Packed, Diagnosis> {
        self.pack_bytes(&std::fs::read(program).map_err(io("read", program))?)
    }

    /// The same for a program that is in memory.
    pub fn pack_bytes(&self, bytes: &[u8]) -> Result<Packed, Diagnosis> {
        let content = Digest::of(bytes);
        let (blob, _, path) = self.once(&format!("program-{}", content.hex()), |out| out.write_all(bytes))?;
        Ok(Packed {
            blob,
            content,
            size_bytes: bytes.len() as u64,
            path,
        })
    }

    /// Writes and compresses a layer, once.
    pub fn layer(&self, builder: &LayerBuilder) -> Result<Layer, Diagnosis> {
        let (blob, diff_id, path) = self.once(&format!("layer-{}", builder.key().hex()), |out| builder.write(out))?;
        let size_bytes = path.metadata().map_err(io("read", &path))?.len();
        Ok(Layer {
            blob,
            diff_id,
            size_bytes,
            path,
        })
    }

    /// Makes a check that always has the same result for what `name` says, until it has passed once.
    pub fn once_passed(&self, name: &str, check: impl FnOnce() -> Result<(), Diagnosis>) -> Result<(), Diagnosis> {
        let note = self.folder.join(name);
        if note.exists() {
            return Ok(());
        }
        check()?;
        std::fs::write(&note, "").map_err(io("written", &note))
    }

    /// Makes the zstd blob of `key`, or finds it; returns its digest, that of its content, and its path.
    fn once(
        &self,
        key: &str,
        content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<(Digest, Digest, PathBuf), Diagnosis> {
        let note = self.folder.join(key);
        if let Some((blob, inner)) = std::fs::read_to_string(&note).ok().and_then(|text| parse_note(&text)) {
            let path = self.folder.join(blob.hex());
            if path.exists() {
                return Ok((blob, inner, path));
            }
        }
        let part = self.folder.join(format!("part-{}", std::process::id()));
        let pack = || -> std::io::Result<(Digest, Digest)> {
            let outer = Hashed::new(BufWriter::new(File::create(&part)?));
            let mut inner = Hashed::new(zstd::Encoder::new(outer, ZSTD_LEVEL)?);
            content(&mut inner)?;
            let (encoder, inner) = inner.finish();
            let (mut file, outer) = encoder.finish()?.finish();
            file.flush()?;
            Ok((outer, inner))
        };
        let (blob, inner) = pack().map_err(io("written", &part))?;
        let path = self.folder.join(blob.hex());
        std::fs::rename(&part, &path).map_err(io("written", &path))?;
        std::fs::write(&note, format!("{blob} {inner}\n")).map_err(io("written", &note))?;
        Ok((blob, inner, path))
    }

    /// Writes small bytes under their digest; returns it and the path.
    pub fn keep(&self, bytes: &[u8]) -> Result<(Digest, PathBuf), Diagnosis> {
        let digest = Digest::of(bytes);
        let path = self.folder.join(digest.hex());
        std::fs::write(&path, bytes).map_err(io("written", &path))?;
        Ok((digest, path))
    }

    /// Writes what a reader has under its digest, in the cache; returns it and the path.
    pub fn keep_stream(&self, from: &mut dyn Read) -> std::io::Result<(Digest, PathBuf)> {
        let part = self.folder.join(format!("part-{}", std::process::id()));
        let mut to = Hashed::new(BufWriter::new(File::create(&part)?));
        std::io::copy(from, &mut to)?;
        let (mut file, digest) = to.finish();
        file.flush()?;
        let path = self.folder.join(digest.hex());
        std::fs::rename(&part, &path)?;
        Ok((digest, path))
    }

    /// Writes an image's configuration and manifest; hands every blob to `add`.
    pub fn image(
        &self,
        reference: ImageRef,
        layers: &[Layer],
        settings: &ImageSettings,
        roles: BTreeSet<BundleRole>,
        add: &mut dyn FnMut(Digest, PathBuf),
    ) -> Result<Image, Diagnosis> {
        let diff_ids: Vec<_> = layers.iter().map(|l| l.diff_id.to_string()).collect();
        let config = json!({
            "architecture": settings.architecture, "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": settings.entrypoint, "User": settings.user,
            },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = json_bytes(&config)?;
        let (config_digest, config_path) = self.keep(&config)?;
        let descriptors: Vec<_> = layers
            .iter()
            .map(|l| json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": l.blob.to_string(), "size": l.size_bytes }))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest.to_string(), "size": config.len() },
            "layers": descriptors,
        });
        let manifest = json_bytes(&manifest)?;
        let (manifest_digest, manifest_path) = self.keep(&manifest)?;
        add(config_digest, config_path);
        add(manifest_digest, manifest_path);
        let mut blobs = vec![manifest_digest, config_digest];
        for layer in layers {
            add(layer.blob, layer.path.clone());
            blobs.push(layer.blob);
        }
        Ok(Image {
            reference,
            manifest: manifest_digest,
            media_type: OCI_MANIFEST.to_owned(),
            manifest_size_bytes: manifest.len() as u64,
            blobs,
            roles,
        })
    }
}

fn json_bytes(value: &serde_json::Value) -> Result<Vec<u8>, Diagnosis> {
    serde_json::to_vec(value).map_err(|error| failed("an image's manifest cannot be written").because(&error))
}

fn parse_note(text: &str) -> Option<(Digest, Digest)> {
    let (blob, inner) = text.trim().split_once(' ')?;
    Some((blob.parse().ok()?, inner.parse().ok()?))
}
