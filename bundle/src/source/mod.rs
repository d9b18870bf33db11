//! The recipe `source`: builds everything from Go modules, Debian packages and this checkout's own crates.
//!
//! Starts compilers and apt; runs on a build machine only. What did not change comes from a cache, by the digest of its inputs.

mod components;
mod debian;
mod layer;
mod lock;
mod oci;
mod tools;

use crate::{BundleError, BundleWriter};
use components::Programs;
use landfall_core::bundle_index::{
    Binary, BinaryPlace, BundleIndex, BundleRole, Component, DebianPackage, INDEX_VERSION, Image,
};
use landfall_core::explain::{Code, Diagnosis};
use layer::{Layer, LayerBuilder};
use lock::Lock;
use oci::{ImageSettings, Store};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Prefix of every image name: a name that no public registry answers to.
const IMAGE_REPOSITORY: &str = "registry.landfall.internal";

/// What to build and where.
pub struct BuildOptions<'a> {
    /// The checkout that holds `bundle/source`.
    pub checkout: &'a Path,
    /// Folder for what can be used again.
    pub cache: &'a Path,
    /// The static program that becomes the agent.
    pub agent: &'a Path,
    /// The bundle file to write.
    pub output: &'a Path,
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
    let mut parts = Parts {
        options,
        lock: &lock,
        programs: &programs,
        store: &store,
        writer: BundleWriter::default(),
        binaries: vec![],
        images: vec![],
        packages: vec![],
    };
    parts.add_binaries()?;
    parts.add_images()?;
    let mut components: Vec<Component> = lock
        .components
        .iter()
        .map(|(name, c)| component(name, &c.version))
        .collect();
    components.push(component("pause", &lock.pause_version));
    components.push(component("landfall", env!("CARGO_PKG_VERSION")));
    let index = BundleIndex {
        version: INDEX_VERSION,
        recipe: "source".to_owned(),
        architecture: "amd64".to_owned(),
        kubernetes_version: format!("v{}", lock.version("kubernetes")?),
        image_repository: IMAGE_REPOSITORY.to_owned(),
        binaries: parts.binaries,
        images: parts.images,
        components,
        packages: parts.packages,
        blobs: vec![],
    };
    (options.check)(&index)?;
    (options.progress)("writing the bundle");
    parts.writer.write(index, options.output).map_err(broken)
}

fn component(name: &str, version: &str) -> Component {
    Component {
        name: name.to_owned(),
        version: version.to_owned(),
    }
}

fn broken(error: BundleError) -> Diagnosis {
    error.into()
}

/// Says that a part of the build failed.
fn failed(what: impl Into<String>) -> Diagnosis {
    Diagnosis::new(Code::BundleBuild, what)
}

/// The error of a file operation, with the path.
fn io(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Diagnosis {
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
}

fn both() -> BTreeSet<BundleRole> {
    [BundleRole::ControlPlane, BundleRole::Worker].into()
}

fn control_plane() -> BTreeSet<BundleRole> {
    [BundleRole::ControlPlane].into()
}

impl Parts<'_> {
    fn add_binaries(&mut self) -> Result<(), Diagnosis> {
        let own = [("landfall", "landfall", both(), BinaryPlace::Bin)];
        let kubernetes = [("kubeadm", both()), ("kubelet", both()), ("kubectl", control_plane())];
        let containerd = ["containerd", "containerd-shim-runc-v2", "ctr"];
        let cni = ["bridge", "host-local", "loopback", "portmap"];
        let all = own
            .into_iter()
            .chain(kubernetes.map(|(name, roles)| ("kubernetes", name, roles, BinaryPlace::Bin)))
            .chain(containerd.map(|name| ("containerd", name, both(), BinaryPlace::Bin)))
            .chain([("runc", "runc", both(), BinaryPlace::Bin)])
            .chain(cni.map(|name| ("cni", name, both(), BinaryPlace::Cni)));
        for (component, name, roles, place) in all {
            (self.options.progress)(&format!("packing {name}"));
            let path = match component {
                "landfall" => self.options.agent.to_owned(),
                _ => self.programs.path(name),
            };
            let version = match component {
                "landfall" => env!("CARGO_PKG_VERSION"),
                _ => self.lock.version(component)?,
            };
            let packed = self.store.pack(&path)?;
            self.writer.add_blob(packed.blob, packed.path);
            self.binaries.push(Binary {
                name: name.to_owned(),
                component: component.to_owned(),
                version: version.to_owned(),
                blob: packed.blob,
                digest: packed.content,
                size_bytes: packed.size_bytes,
                roles,
                place,
            });
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
        let (network, _) = self.debian_layer(&debian::NETWORK, debian::iptables_links)?;
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
        let (web, packages) = self.debian_layer(&debian::WEB, debian::web_files)?;
        let version = packages.iter().find(|p| p.name == "nginx").map_or("0", |p| &p.version);
        let settings = ImageSettings::program("/usr/sbin/nginx").with_args(&["-g", "daemon off;"]);
        self.image("nginx", &tag_of(version), &[web], &settings, both())?;

        let layer = self.programs_layer(&[("landfall-ingress", "")])?;
        let tag = format!("{}-{}", env!("CARGO_PKG_VERSION"), &layer.diff_id.hex()[..12]);
        let settings = ImageSettings::program("/landfall-ingress");
        self.image("landfall-ingress", &tag, &[layer], &settings, both())?;
        let mut layer = LayerBuilder::default();
        layer.file_from(self.options.agent, "/landfall", 0o755)?;
        let layer = self.store.layer(&layer)?;
        let tag = format!("{}-{}", env!("CARGO_PKG_VERSION"), &layer.diff_id.hex()[..12]);
        let settings = ImageSettings::program("/landfall").with_args(&["agent", "probe-idle"]);
        self.image("landfall-probe", &tag, &[layer], &settings, both())
    }

    fn programs_layer(&self, programs: &[(&str, &str)]) -> Result<Layer, Diagnosis> {
        let mut layer = LayerBuilder::default();
        for (name, directory) in programs {
            layer.file_from(&self.programs.path(name), &format!("{directory}/{name}"), 0o755)?;
        }
        self.store.layer(&layer)
    }

    fn debian_layer(
        &mut self,
        packages: &[&str],
        finish: fn(&mut LayerBuilder),
    ) -> Result<(Layer, Vec<DebianPackage>), Diagnosis> {
        let mut layer = LayerBuilder::default();
        let found = debian::unpack(packages, &self.lock.debian_suite, self.options.cache, &mut layer)?;
        finish(&mut layer);
        for package in &found {
            if !self.packages.contains(package) {
                self.packages.push(package.clone());
            }
        }
        self.packages.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((self.store.layer(&layer)?, found))
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
        let reference = format!("{IMAGE_REPOSITORY}/{name}:{tag}")
            .parse()
            .map_err(|error| failed(format!("the image {name} has no valid name")).because(&error))?;
        let mut add = |digest, path: PathBuf| self.writer.add_blob(digest, path);
        let image = self.store.image(reference, layers, settings, roles, &mut add)?;
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
