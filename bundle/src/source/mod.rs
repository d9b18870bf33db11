//! The recipe `source`: builds everything from Go modules, Debian packages and this checkout's own crates.
//!
//! Starts compilers and apt; runs on a build machine only. What did not change comes from a cache, by the digest of its inputs.

mod components;
pub(crate) mod contents;
mod debian;
pub(crate) mod image_archive;
mod layer;
mod licences;
mod lock;
pub(crate) mod oci;
mod tools;

use crate::minisign::SecretKey;
use crate::sbom::{CrateGraph, Reference, Sbom};
use crate::{BundleError, BundleWriter};
use components::Programs;
pub use components::{crates, release_arguments};
use contents::{NODE_PROGRAMS, both, control_plane, image_name, own_images};
pub use debian::{fetch_locked as fetch_locked_debian, lock_anew as lock_debian_anew};
use image_archive::Additions;
use landfall_core::bundle_index::{
    Binary, BundleIndex, BundleRole, Component, DebianPackage, Image, NODE_ARCHITECTURE, Variant, previous_minor,
};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::Digest;
use layer::{Layer, LayerBuilder};
use lock::Lock;
use oci::{ImageSettings, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Prefix of every image name: a name that no public registry answers to.
pub(crate) const IMAGE_REPOSITORY: &str = "registry.landfall.internal";

/// The package of the operator's program.
pub const OPERATOR_PACKAGE: &str = "landfall";
/// The package of the agent, which is its program's name too.
pub const AGENT_PACKAGE: &str = "landfall-agent";
/// The package of the ingress proxy, which is its program's name too.
pub const INGRESS_PACKAGE: &str = "landfall-ingress";

/// The package of the `nft` that starts one of two in the network images, which is its program's name too.
const NFT_PACKAGE: &str = "landfall-nft";

/// What to build and where.
pub struct BuildOptions<'a> {
    /// The checkout that holds `bundle/source`.
    pub checkout: &'a Path,
    /// Folder for what can be used again.
    pub cache: &'a Path,
    /// The bundle file to write.
    pub output: &'a Path,
    /// What the builder adds.
    pub additions: Additions<'a>,
    /// Signs it.
    pub key: &'a SecretKey,
    /// Called with the finished index before the file is written: names what manifests need and the bundle lacks.
    pub check: &'a dyn Fn(&BundleIndex) -> Result<(), Diagnosis>,
    /// Takes one line per part, as it begins.
    pub progress: &'a dyn Fn(&str),
}

/// Builds and writes the bundle. Blocks for about ten minutes with cold caches (2 cores, measured 2026-11-23), seconds with warm ones.
pub fn build(options: &BuildOptions<'_>) -> Result<BundleIndex, Diagnosis> {
    tools::require()?;
    let lock = Lock::read(&options.checkout.join("bundle/source/lock.yaml"))?;
    let store = Store::open(options.cache)?;
    let programs = Programs::build(options, &lock)?;
    let sbom = Sbom::with_licences(licences::of_modules(programs.all(), &lock, options.cache)?);
    let mut parts = Parts {
        options,
        lock: &lock,
        programs: &programs,
        store: &store,
        writer: BundleWriter::default(),
        binaries: vec![],
        images: vec![],
        packages: vec![],
        sbom,
        inside: BTreeMap::new(),
        crates: crates(options.checkout)?,
    };
    parts.add_binaries()?;
    parts.add_images()?;
    let added = image_archive::add_archives(
        options.additions.archives,
        NODE_ARCHITECTURE,
        &store,
        &mut parts.writer,
        &mut parts.sbom,
    )?;
    parts.images.extend(added);
    let mut components: Vec<Component> = lock
        .components
        .iter()
        .map(|(name, c)| component(name, &c.version))
        .collect();
    components.push(component("pause", &lock.pause_version));
    components.push(component("landfall", env!("CARGO_PKG_VERSION")));
    let variant = Variant {
        architecture: NODE_ARCHITECTURE.to_owned(),
        binaries: parts.binaries,
        images: parts.images,
    };
    image_archive::check_added(std::slice::from_ref(&variant))?;
    let kubernetes = format!("v{}", lock.version("kubernetes")?);
    let mut index = BundleIndex::new("source", &kubernetes, IMAGE_REPOSITORY, variant);
    index.upgrades_from = upgrades_from(&|name| lock.version(name).ok());
    index.components = components;
    index.manifests = options.additions.manifests.to_vec();
    index.packages = parts.packages;
    let (sbom, path) = store.keep(&parts.sbom.to_json(&index))?;
    parts.writer.add_blob(sbom, path);
    index.sbom = Some(sbom);
    (options.check)(&index)?;
    (options.progress)("writing the bundle");
    parts
        .writer
        .write(index, Some(options.key), options.output)
        .map_err(broken)
}

/// The oldest versions that can be upgraded from, for components where that is limited.
pub(crate) fn upgrades_from<'a>(version: &dyn Fn(&str) -> Option<&'a str>) -> Vec<Component> {
    let from = |name| Some(component(name, &previous_minor(version(name)?)?));
    ["kubernetes", "etcd"].into_iter().filter_map(from).collect()
}

pub(crate) fn component(name: &str, version: &str) -> Component {
    Component {
        name: name.to_owned(),
        version: version.to_owned(),
    }
}

pub(crate) fn broken(error: BundleError) -> Diagnosis {
    error.into()
}

/// Says that a part of the build failed.
pub(crate) fn failed(what: impl Into<String>) -> Diagnosis {
    Diagnosis::new(Code::BundleBuild, what)
}

/// The error of a file operation, with the path.
pub(crate) fn io(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Diagnosis {
    move |error| failed(format!("{} cannot be {verb}", path.display())).because(&error)
}

/// What has been collected so far.
struct Parts<'a> {
    options: &'a BuildOptions<'a>,
    lock: &'a Lock,
    programs: &'a Programs,
    store: &'a Store,
    writer: BundleWriter,
    binaries: Vec<Binary>,
    images: Vec<Image>,
    packages: Vec<DebianPackage>,
    sbom: Sbom,
    /// What is in a layer, by the digest of its tar.
    inside: BTreeMap<Digest, Vec<Reference>>,
    /// What the programs of this checkout consist of.
    crates: CrateGraph,
}

impl Parts<'_> {
    fn add_binaries(&mut self) -> Result<(), Diagnosis> {
        for program in &NODE_PROGRAMS {
            let name = program.name;
            (self.options.progress)(&format!("packing {name}"));
            let own = program.component == "landfall";
            let (built, version) = if own {
                (AGENT_PACKAGE, env!("CARGO_PKG_VERSION"))
            } else {
                (name, self.lock.version(program.component)?)
            };
            let path = self.programs.path(built);
            let listed = self.list(built, version, &path)?;
            self.sbom.on_nodes(&listed);
            let packed = self.store.pack(&path)?;
            self.binaries.push(program.binary(version, &packed));
            self.writer.add_blob(packed.blob, packed.path);
        }
        Ok(())
    }

    fn add_images(&mut self) -> Result<(), Diagnosis> {
        let kubernetes = format!("v{}", self.lock.version("kubernetes")?);
        for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            let layer = self.programs_layer(&[(name, "/usr/local/bin")])?;
            let settings = ImageSettings::program(&format!("/usr/local/bin/{name}"));
            self.image(name, &kubernetes, &[layer], &settings, control_plane())?;
        }
        let layer = self.programs_layer(&[("etcd", "/usr/local/bin"), ("etcdctl", "/usr/local/bin")])?;
        let tag = format!("v{}", self.lock.version("etcd")?);
        self.image(
            "etcd",
            &tag,
            &[layer],
            &ImageSettings::program("/usr/local/bin/etcd"),
            control_plane(),
        )?;
        let layer = self.programs_layer(&[("coredns", "")])?;
        let tag = format!("v{}", self.lock.version("coredns")?);
        self.image("coredns", &tag, &[layer], &ImageSettings::program("/coredns"), both())?;
        let layer = self.programs_layer(&[("pause", "")])?;
        let mut settings = ImageSettings::program("/pause");
        settings.user = "65535:65535".to_owned();
        self.image("pause", &self.lock.pause_version.clone(), &[layer], &settings, both())?;

        (self.options.progress)("Debian packages of the network images");
        let mut network = LayerBuilder::default();
        debian::iptables_links(&mut network);
        let nft = self.programs.path(NFT_PACKAGE);
        network.file_from(&nft, "/usr/local/sbin/nft", 0o755)?;
        let chooser = self.list(NFT_PACKAGE, env!("CARGO_PKG_VERSION"), &nft)?;
        let (debian, newer_nft) = (&self.lock.debian, &self.lock.newer_nft);
        let parts = [(&debian::NETWORK, debian), (&debian::NEWER_NFT, newer_nft)];
        let (network, _) = self.debian_layer(network, &parts, vec![chooser])?;
        let layer = self.programs_layer(&[("kube-proxy", "/usr/local/bin")])?;
        let settings = ImageSettings::program("/usr/local/bin/kube-proxy");
        self.image("kube-proxy", &kubernetes, &[network.clone(), layer], &settings, both())?;
        let layer = self.programs_layer(&[("flanneld", "/opt/bin")])?;
        let tag = format!("v{}", self.lock.version("flannel")?);
        self.image(
            "flannel",
            &tag,
            &[network, layer],
            &ImageSettings::program("/opt/bin/flanneld"),
            both(),
        )?;

        (self.options.progress)("Debian packages of the sample");
        let mut web = LayerBuilder::default();
        debian::web_files(&mut web);
        let (web, packages) = self.debian_layer(web, &[(&debian::WEB, &self.lock.debian)], vec![])?;
        let version = packages.iter().find(|p| p.name == "nginx").map_or("0", |p| &p.version);
        let settings = ImageSettings::program("/usr/sbin/nginx").with_args(&["-g", "daemon off;"]);
        self.image("nginx", &tag_of(version), &[web], &settings, both())?;

        (self.options.progress)("landfall's own images");
        let (agent, ingress) = (self.programs.path(AGENT_PACKAGE), self.programs.path(INGRESS_PACKAGE));
        let mut add = |digest, path: PathBuf| self.writer.add_blob(digest, path);
        let own = own_images(self.store, NODE_ARCHITECTURE, &agent, &ingress, &mut add)?;
        let programs = [(INGRESS_PACKAGE, ingress), (AGENT_PACKAGE, agent)];
        for (image, (name, program)) in own.iter().zip(programs) {
            let listed = self.list(name, env!("CARGO_PKG_VERSION"), &program)?;
            self.sbom.image(image, &[listed]);
        }
        self.images.extend(own);
        Ok(())
    }

    fn programs_layer(&mut self, programs: &[(&str, &str)]) -> Result<Layer, Diagnosis> {
        let mut layer = LayerBuilder::default();
        let mut inside = Vec::new();
        for (name, directory) in programs {
            let path = self.programs.path(name);
            layer.file_from(&path, &format!("{directory}/{name}"), 0o755)?;
            inside.push(self.list(name, self.programs.version(name), &path)?);
        }
        let layer = self.store.layer(&layer)?;
        self.inside.insert(layer.diff_id, inside);
        Ok(layer)
    }

    /// Lists a program in the bill of materials. Those of this checkout consist of crates; what others consist of, they say themselves.
    fn list(&mut self, name: &str, version: &str, path: &Path) -> Result<Reference, Diagnosis> {
        let bytes = std::fs::read(path).map_err(io("read", path))?;
        let listed = self.sbom.program(name, version, &bytes);
        if name.starts_with("landfall") {
            self.sbom.crates(&listed, &self.crates, name);
        }
        Ok(listed)
    }

    /// Adds Debian packages below what a layer has, and lists in the bill of materials what is inside then.
    fn debian_layer(
        &mut self,
        own: LayerBuilder,
        parts: &[(&debian::Part, &lock::Debian)],
        mut inside: Vec<Reference>,
    ) -> Result<(Layer, Vec<DebianPackage>), Diagnosis> {
        let mut layer = LayerBuilder::default();
        let mut found = Vec::new();
        for (part, debian) in parts {
            for debian::Unpacked { package, licence } in debian::unpack(part, debian, self.options.cache, &mut layer)? {
                inside.push(self.sbom.package(&package, &debian.suite, licence.as_deref()));
                if !self.packages.contains(&package) {
                    self.packages.push(package.clone());
                }
                found.push(package);
            }
        }
        layer.put_over(own);
        let parts: Vec<&debian::Part> = parts.iter().map(|(part, _)| *part).collect();
        let programs: Vec<String> = parts.iter().flat_map(|part| part.paths_of_programs()).collect();
        let checked = Digest::of(programs.join("\n").as_bytes());
        let checked = format!("libraries-{}-{}", layer.key().hex(), checked.hex());
        self.store
            .once_passed(&checked, || debian::check_libraries(&layer, &parts))?;
        let layer = self.store.layer(&layer)?;
        self.packages
            .sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        self.inside.insert(layer.diff_id, inside);
        Ok((layer, found))
    }

    fn image(
        &mut self,
        name: &str,
        tag: &str,
        layers: &[Layer],
        settings: &ImageSettings,
        roles: BTreeSet<BundleRole>,
    ) -> Result<(), Diagnosis> {
        (self.options.progress)(&format!("image {name}:{tag}"));
        let reference = image_name(name, tag)?;
        let mut add = |digest, path: PathBuf| self.writer.add_blob(digest, path);
        let image = self.store.image(reference, layers, settings, roles, &mut add)?;
        let inside = layers.iter().filter_map(|layer| self.inside.get(&layer.diff_id));
        let inside: Vec<Reference> = inside.flatten().cloned().collect();
        self.sbom.image(&image, &inside);
        self.images.push(image);
        Ok(())
    }
}

/// A version as a tag: only characters that tags may have (OCI distribution-spec 1.1, section on tags).
fn tag_of(version: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '-'
        }
    };
    version.chars().map(plain).take(100).collect()
}

#[cfg(test)]
mod tests;
