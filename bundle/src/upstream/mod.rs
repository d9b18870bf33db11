//! The recipe `upstream`: released programs and images over HTTPS, by the digests of a lock file. It compiles nothing and needs no checkout.

mod ask;
mod catalogue;
mod download;
mod http;
mod lockfile;
mod login;
mod mirror;
mod registry;
mod signature;

use crate::minisign::SecretKey;
use crate::own_parts::OwnParts;
use crate::sbom::{Reference, Sbom};
use crate::source::contents::{NODE_PROGRAMS, both, control_plane, image_name, own_images};
use crate::source::image_archive::{self, Additions, added_name};
use crate::source::oci::Store;
use crate::source::{AGENT_PACKAGE, IMAGE_REPOSITORY, INGRESS_PACKAGE, component, failed, io, upgrades_from};
use crate::{BundleError, BundleWriter};
pub use catalogue::ARCHITECTURES;
use catalogue::IMAGES;
use download::Downloads;
use http::Client;
pub use http::LookUp;
use landfall_core::bundle_index::{Binary, BundleIndex, BundleRole, Component, Image, Variant};
use landfall_core::explain::Diagnosis;
use landfall_core::name::ImageRef;
use lockfile::{LockFile, LockedImage, LockedProgram};
use login::Logins;
pub use mirror::Mirror;
pub use registry::AddedImage;
use registry::{ImageAddress, Registries};
use signature::Signatures;
pub use signature::{Keyring, SignatureOptions, SignaturePolicy};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Images that the builder adds.
    pub images: &'a [AddedImage],
    /// How publishers' signatures are verified.
    pub signatures: &'a SignatureOptions<'a>,
    /// Folder for files that are verified, from which a build takes them.
    pub cache: &'a Path,
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
    /// Images that the builder adds: those of the lock file are there anyway.
    pub images: &'a [AddedImage],
    /// How publishers' signatures are verified that the lock file says nothing of.
    pub signatures: &'a SignatureOptions<'a>,
    /// What else the builder adds.
    pub additions: Additions<'a>,
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
            images: options.images,
            signatures: options.signatures,
            cache: options.cache,
            output: options.lock,
        })?;
    }
    let lock = LockFile::read(options.lock, &architectures)?;
    lock.check_added(options.lock, options.images)?;
    let client = Client::new(options.network)?;
    let registries = Registries::new(
        &client,
        options.network.mirrors,
        Logins::read(options.network.docker_config)?,
    );
    let downloads = Downloads {
        folder: download::folder(options.cache)?,
        client: &client,
    };
    let signatures = Signatures {
        options: options.signatures,
        network: options.network,
        downloads: &downloads,
    };
    signatures.check(&lock, &architectures)?;
    let mut parts = Parts {
        options,
        lock: &lock,
        store: Store::open(options.cache)?,
        downloads,
        registries,
        writer: BundleWriter::default(),
        sbom: Sbom::default(),
    };
    let mut variants = Vec::new();
    for own in options.own {
        variants.push(parts.variant(own)?);
    }
    image_archive::check_added(&variants)?;
    let mut index = parts.index(variants)?;
    let (sbom, path) = parts.store.keep(&parts.sbom.to_json(&index))?;
    parts.writer.add_blob(sbom, path);
    index.sbom = Some(sbom);
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
    sbom: Sbom,
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
            let version;
            let packed = if program.component == "landfall" {
                version = env!("CARGO_PKG_VERSION");
                let listed = self.list_own(own, AGENT_PACKAGE, &own.agent)?;
                self.sbom.on_nodes(&listed);
                self.store.pack(&own.agent)?
            } else {
                version = self.lock.version_of(program.component).unwrap_or_default();
                let (bytes, url) = self.released(program.name, &own.architecture)?;
                let listed = self.sbom.program(program.name, version, &bytes);
                self.sbom.downloaded(&listed, &url);
                self.sbom.on_nodes(&listed);
                self.store.pack_bytes(&bytes)?
            };
            binaries.push(program.binary(version, &packed));
            self.writer.add_blob(packed.blob, packed.path);
        }
        Ok(binaries)
    }

    /// Lists one of landfall's own programs in the bill of materials, with its crates where they are known.
    fn list_own(&mut self, own: &OwnParts, name: &str, path: &Path) -> Result<Reference, Diagnosis> {
        let bytes = std::fs::read(path).map_err(io("read", path))?;
        let listed = self.sbom.program(name, env!("CARGO_PKG_VERSION"), &bytes);
        if let Some(crates) = &own.crates {
            self.sbom.crates(&listed, crates, name);
        }
        Ok(listed)
    }

    /// Fetches a released program, out of its archive; returns it with the address in the lock file.
    fn released(&self, name: &str, architecture: &str) -> Result<(Vec<u8>, String), Diagnosis> {
        let has = |p: &&LockedProgram| p.name == name && p.architecture == architecture;
        let locked = self.lock.programs.iter().find(has);
        // The lock file was checked for all of them.
        let lacks = || failed(format!("the lock file has no {name} for {architecture}"));
        let locked = locked.ok_or_else(lacks)?;
        let digest = locked.digest().ok_or_else(lacks)?;
        let file = locked.url.rsplit('/').next().unwrap_or(name);
        let label = format!("{file} ({architecture})");
        let mirrors = self.options.network.mirrors;
        let path = self.downloads.fetch_url(&digest, &label, mirrors, &locked.url)?;
        let bytes = match &locked.member {
            None => std::fs::read(&path).map_err(io("read", &path))?,
            Some(member) => download::member(&path, member)?,
        };
        Ok((bytes, locked.url.clone()))
    }

    fn images(&mut self, own: &OwnParts) -> Result<Vec<Image>, Diagnosis> {
        let architecture = &own.architecture;
        let lock = self.lock;
        let mut images = Vec::new();
        for wanted in &IMAGES {
            let roles = if wanted.control_planes_alone() {
                control_plane()
            } else {
                both()
            };
            let locked = lock.images.iter().find(|image| image.name == wanted.name);
            // The lock file was checked for all of them.
            let lacks = || failed(format!("the lock file has no image {}", wanted.name));
            let locked = locked.ok_or_else(lacks)?;
            let address: ImageAddress = locked.image.parse().map_err(failed)?;
            let reference = image_name(wanted.name, &address.tag)?;
            images.push(self.published(locked, architecture, reference, roles)?);
        }
        for locked in &lock.added {
            let reference = added_name(&locked.image).map_err(failed)?;
            images.push(self.published(locked, architecture, reference, both())?);
        }
        let archives = self.options.additions.archives;
        images.extend(image_archive::add_archives(
            archives,
            architecture,
            &self.store,
            &mut self.writer,
            &mut self.sbom,
        )?);
        let mut add = |digest, path: PathBuf| self.writer.add_blob(digest, path);
        let made = own_images(&self.store, architecture, &own.agent, &own.ingress, &mut add)?;
        let programs = [(INGRESS_PACKAGE, &own.ingress), (AGENT_PACKAGE, &own.agent)];
        for (image, (name, program)) in made.iter().zip(programs) {
            let listed = self.list_own(own, name, program)?;
            self.sbom.image(image, &[listed]);
        }
        images.extend(made);
        Ok(images)
    }

    /// Fetches an image.
    fn published(
        &mut self,
        locked: &LockedImage,
        architecture: &str,
        reference: ImageRef,
        roles: BTreeSet<BundleRole>,
    ) -> Result<Image, Diagnosis> {
        let name = format!("{} ({architecture})", locked.image);
        let manifest = locked.manifest(architecture);
        let manifest = manifest.ok_or_else(|| failed(format!("the lock file has no {name}")))?;
        let address: ImageAddress = locked.image.parse().map_err(failed)?;
        let fetched = self.registries.fetch(&self.downloads, &address, &manifest, &name)?;
        let layers = fetched.layers();
        let image = Image {
            reference,
            manifest,
            media_type: fetched.media_type,
            manifest_size_bytes: fetched.manifest_size_bytes,
            blobs: fetched.blobs.iter().map(|(digest, _)| *digest).collect(),
            roles,
        };
        for (digest, path) in fetched.blobs {
            self.writer.add_blob(digest, path);
        }
        let listed = self
            .sbom
            .published_image(&image, &layers, Some(&address.manifest_url(&manifest)));
        listed.map_err(|error| failed(format!("the layers of {name} cannot be read")).because(&error))?;
        Ok(image)
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
        index.manifests = self.options.additions.manifests.to_vec();
        Ok(index)
    }
}
