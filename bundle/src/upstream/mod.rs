//! The recipe `upstream`: released programs and images over HTTPS, by the digests of a lock file. It compiles nothing and needs no checkout.

mod ask;
mod catalogue;
mod download;
mod http;
mod lockfile;
mod login;
mod mirror;
mod registry;

use crate::minisign::SecretKey;
use crate::own_parts::OwnParts;
use crate::source::contents::{NODE_PROGRAMS, both, control_plane, image_name, own_images};
use crate::source::oci::{Packed, Store};
use crate::source::{IMAGE_REPOSITORY, component, failed, upgrades_from};
use crate::{BundleError, BundleWriter};
pub use catalogue::ARCHITECTURES;
use catalogue::IMAGES;
use download::{Downloads, Source};
use http::Client;
pub use http::LookUp;
use landfall_core::bundle_index::{Binary, BundleIndex, Component, Image, Variant};
use landfall_core::explain::Diagnosis;
use landfall_core::name::Digest;
use lockfile::{LockFile, LockedProgram};
use login::Logins;
pub use mirror::Mirror;
use registry::{ImageAddress, Registries};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How the servers are reached. The proxy is the environment's: ALL_PROXY, HTTPS_PROXY, HTTP_PROXY, without what NO_PROXY names.
pub struct NetworkOptions<'a> {
    /// Servers that are asked first, in this order.
    pub mirrors: &'a [Mirror],
    /// More certificate authorities, in PEM form.
    pub ca: Option<&'a Path>,
    /// File with logins of registries; it may be absent.
    pub docker_config: &'a Path,
    /// Looks names up.
    pub look_up: LookUp,
    /// Takes a line when a part begins, every three seconds of a download, and for each failure that is tried again.
    pub progress: &'a dyn Fn(&str),
}

/// What to lock.
pub struct LockOptions<'a> {
    /// How the servers are reached.
    pub network: &'a NetworkOptions<'a>,
    /// Versions other than the default, by component.
    pub versions: &'a BTreeMap<String, String>,
    /// Architectures, as Go names them.
    pub architectures: &'a [String],
    /// The lock file to write.
    pub output: &'a Path,
}

/// What to build and where.
pub struct BuildOptions<'a> {
    /// How the servers are reached.
    pub network: &'a NetworkOptions<'a>,
    /// The lock file; when there is none at this path, it is made first, with the default versions.
    pub lock: &'a Path,
    /// landfall's own programs, for each architecture that the bundle is for.
    pub own: &'a [OwnParts],
    /// Folder for what can be used again.
    pub cache: &'a Path,
    /// The bundle file to write.
    pub output: &'a Path,
    /// Signs it.
    pub key: &'a SecretKey,
    /// Called with the finished index before the file is written: names what manifests need and the bundle lacks.
    pub check: &'a dyn Fn(&BundleIndex) -> Result<(), Diagnosis>,
}

/// Asks the servers for digests and writes a lock file. Returns how many programs and images are in it. Blocks on the network.
pub fn lock(options: &LockOptions<'_>) -> Result<(usize, usize), Diagnosis> {
    let lock = ask::ask(options)?;
    lock.write(options.output)?;
    Ok((lock.programs.len(), lock.images.len()))
}

/// Fetches everything that is not in the cache, and writes the bundle. Blocks on the network.
pub fn build(options: &BuildOptions<'_>) -> Result<BundleIndex, Diagnosis> {
    let say = options.network.progress;
    let architectures: Vec<String> = options.own.iter().map(|own| own.architecture.clone()).collect();
    if !options.lock.exists() {
        say(&format!("there is no lock file {}: making it", options.lock.display()));
        lock(&LockOptions {
            network: options.network,
            versions: &BTreeMap::new(),
            architectures: &architectures,
            output: options.lock,
        })?;
    }
    let lock = LockFile::read(options.lock, &architectures)?;
    let client = Client::new(options.network)?;
    let registries = Registries::new(
        &client,
        options.network.mirrors,
        Logins::read(options.network.docker_config)?,
    );
    let mut parts = Parts {
        options,
        lock: &lock,
        store: Store::open(options.cache)?,
        downloads: Downloads {
            folder: download::folder(options.cache)?,
            client: &client,
        },
        registries,
        writer: BundleWriter::default(),
    };
    let mut variants = Vec::new();
    for own in options.own {
        variants.push(parts.variant(own)?);
    }
    let mut index = parts.index(variants)?;
    (options.check)(&index)?;
    say("writing the bundle");
    let written = parts.writer.write(index, Some(options.key), options.output);
    index = written.map_err(|error| failed_to_write(error, options.cache))?;
    Ok(index)
}

/// A blob that changed in the cache is named with what to do.
fn failed_to_write(error: BundleError, cache: &Path) -> Diagnosis {
    let damaged = matches!(error, BundleError::Digest { .. });
    let diagnosis = Diagnosis::from(error);
    if damaged {
        return diagnosis.next(format!("remove {} and build again", cache.display()));
    }
    diagnosis
}

struct Parts<'a> {
    options: &'a BuildOptions<'a>,
    lock: &'a LockFile,
    store: Store,
    downloads: Downloads<'a>,
    registries: Registries<'a>,
    writer: BundleWriter,
}

impl Parts<'_> {
    fn variant(&mut self, own: &OwnParts) -> Result<Variant, Diagnosis> {
        let binaries = self.binaries(own)?;
        let images = self.images(own)?;
        Ok(Variant {
            architecture: own.architecture.clone(),
            binaries,
            images,
        })
    }

    fn binaries(&mut self, own: &OwnParts) -> Result<Vec<Binary>, Diagnosis> {
        let mut binaries = Vec::new();
        for program in &NODE_PROGRAMS {
            let (packed, version) = if program.component == "landfall" {
                (self.store.pack(&own.agent)?, env!("CARGO_PKG_VERSION"))
            } else {
                let version = self.lock.version_of(program.component).unwrap_or_default();
                (self.released(program.name, &own.architecture)?, version)
            };
            binaries.push(program.binary(version, &packed));
            self.writer.add_blob(packed.blob, packed.path);
        }
        Ok(binaries)
    }

    /// Fetches a released program, out of its archive.
    fn released(&self, name: &str, architecture: &str) -> Result<Packed, Diagnosis> {
        let has = |p: &&LockedProgram| p.name == name && p.architecture == architecture;
        let locked = self.lock.programs.iter().find(has);
        // The lock file was checked for all of them.
        let lacks = || failed(format!("the lock file has no {name} for {architecture}"));
        let locked = locked.ok_or_else(lacks)?;
        let digest = locked.digest().ok_or_else(lacks)?;
        let client = self.downloads.client;
        let source = |url: String| Source {
            name: url.clone(),
            open: Box::new(move |offset| {
                let range = format!("bytes={offset}-");
                let headers = [("range", range.as_str())];
                client.get(&url, if offset > 0 { &headers } else { &[] })
            }),
        };
        let sources: Vec<_> = mirror::addresses(self.options.network.mirrors, &locked.url)
            .into_iter()
            .map(source)
            .collect();
        let file = locked.url.rsplit('/').next().unwrap_or(name);
        let path = self
            .downloads
            .fetch(&digest, None, &format!("{file} ({architecture})"), &sources)?;
        match &locked.member {
            None => self.store.pack(&path),
            Some(member) => self.store.pack_bytes(&download::member(&path, member)?),
        }
    }

    fn images(&mut self, own: &OwnParts) -> Result<Vec<Image>, Diagnosis> {
        let architecture = &own.architecture;
        let mut images = Vec::new();
        for wanted in &IMAGES {
            // The lock file was checked for all of them.
            let lacks = || failed(format!("the lock file has no image {} for {architecture}", wanted.name));
            let locked = self.lock.images.iter().find(|image| image.name == wanted.name);
            let locked = locked.ok_or_else(lacks)?;
            let manifest = locked.manifest(architecture).ok_or_else(lacks)?;
            let address: ImageAddress = locked.image.parse().map_err(failed)?;
            let name = format!("{} ({architecture})", locked.image);
            let fetched = self.registries.fetch(&self.downloads, &address, &manifest, &name)?;
            let blobs: Vec<Digest> = fetched.blobs.iter().map(|(digest, _)| *digest).collect();
            for (digest, path) in fetched.blobs {
                self.writer.add_blob(digest, path);
            }
            images.push(Image {
                reference: image_name(wanted.name, &address.tag)?,
                manifest,
                media_type: fetched.media_type,
                manifest_size_bytes: fetched.manifest_size_bytes,
                blobs,
                roles: if wanted.control_planes_alone() {
                    control_plane()
                } else {
                    both()
                },
            });
        }
        let mut add = |digest, path: PathBuf| self.writer.add_blob(digest, path);
        images.extend(own_images(
            &self.store,
            architecture,
            &own.agent,
            &own.ingress,
            &mut add,
        )?);
        Ok(images)
    }

    fn index(&self, variants: Vec<Variant>) -> Result<BundleIndex, Diagnosis> {
        let kubernetes = self.lock.version_of("kubernetes").unwrap_or_default();
        let mut variants = variants.into_iter();
        let first = variants
            .next()
            .ok_or_else(|| failed("the bundle is for no architecture"))?;
        let mut index = BundleIndex::new("upstream", &format!("v{kubernetes}"), IMAGE_REPOSITORY, first);
        index.variants.extend(variants);
        index.upgrades_from = upgrades_from(&|name| self.lock.version_of(name));
        let named = |(name, version): (&String, &String)| component(name, version);
        let mut components: Vec<Component> = self.lock.components.iter().map(named).collect();
        components.push(component("landfall", env!("CARGO_PKG_VERSION")));
        index.components = components;
        Ok(index)
    }
}
