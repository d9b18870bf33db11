//! The bundle's software bill of materials: CycloneDX 1.6 in JSON (ECMA-424). There is no time and nothing random in it, so the same
//! inputs give the same bytes; that is why it has no serial number, which the schema allows.

pub(crate) mod copyright;
mod crates;
pub(crate) mod go;
mod layers;
pub(crate) mod licence_text;
mod package;
#[cfg(test)]
mod tests;

use landfall_core::bundle_index::{BundleIndex, DebianPackage, Image};
use landfall_core::name::Digest;
use package::Package;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

pub use crates::CrateGraph;

/// What stands where the licence of a component is not known, as SPDX has it (specification 2.3, 7.13).
const NO_ASSERTION: &str = "NOASSERTION";
/// Name of the bundle's own entry.
const BUNDLE: &str = "bundle";

/// Name of a component within the bill.
pub type Reference = String;

/// Collects what is inside a bundle.
#[derive(Debug, Default)]
pub struct Sbom {
    components: BTreeMap<Reference, Component>,
    contains: BTreeMap<Reference, BTreeSet<Reference>>,
    /// Licences of Go modules, where their sources are at hand.
    module_licences: ModuleLicences,
}

/// SPDX names of the licences of Go modules, by path and version.
pub(crate) type ModuleLicences = BTreeMap<(String, String), &'static str>;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Component {
    kind: &'static str,
    name: String,
    version: String,
    purl: Option<String>,
    /// SHA-256 of the file, in hex.
    sha256: Option<String>,
    /// The licence, in SPDX's form where its author keeps to that.
    licence: Option<String>,
    /// Where it comes from, in CycloneDX's words and as an address.
    source: Option<(&'static str, String)>,
    /// What has no field of its own.
    properties: BTreeMap<&'static str, String>,
}

impl Sbom {
    /// Starts a bill for programs whose modules have these licences; of others nothing is said.
    pub(crate) fn with_licences(module_licences: ModuleLicences) -> Self {
        Self {
            module_licences,
            ..Self::default()
        }
    }

    /// Adds a program that is put on nodes or into images. The Go modules of one that Go has built are read from it.
    pub fn program(&mut self, name: &str, version: &str, bytes: &[u8]) -> Reference {
        self.program_of(name, version, Digest::of(bytes), &go::modules(bytes))
    }

    fn program_of(&mut self, name: &str, version: &str, digest: Digest, modules: &[go::Module]) -> Reference {
        let reference = format!("program:{name}@{}", &digest.hex()[..16]);
        let program = Component {
            kind: "application",
            name: name.to_owned(),
            version: version.to_owned(),
            sha256: Some(digest.hex()),
            ..Component::default()
        };
        self.components.insert(reference.clone(), program);
        for module in modules {
            let mut component = module.component();
            let licence = self
                .module_licences
                .get(&(component.name.clone(), component.version.clone()));
            component.licence = licence.map(|id| (*id).to_owned());
            let inside = self.add(component);
            self.put(&reference, &inside);
        }
        reference
    }

    /// Adds the crates that a program of this workspace consists of, `package` among them.
    pub fn crates(&mut self, program: &Reference, graph: &CrateGraph, package: &str) {
        for component in graph.of(package) {
            let inside = self.add(component);
            self.put(program, &inside);
        }
    }

    /// Adds a Debian package of the suite, whose files are in an image's layers, with its licences as an SPDX expression.
    pub fn package(&mut self, package: &DebianPackage, suite: &str, licence: Option<&str>) -> Reference {
        let DebianPackage { name, version, digest } = package;
        let mut package = Package::of_debian(name, version, suite, digest.hex());
        package.licence = licence.map(str::to_owned);
        self.add(package.component())
    }

    /// Says where a program was downloaded from.
    pub fn downloaded(&mut self, program: &Reference, address: &str) {
        if let Some(component) = self.components.get_mut(program) {
            component.source = Some(("distribution", address.to_owned()));
        }
    }

    /// Adds an image that others made: the programs of Go and the packages in its layers, the lowest first. Reads the files, which takes
    /// some seconds for each 100 MB.
    pub fn published_image(&mut self, image: &Image, layers: &[PathBuf], address: Option<&str>) -> io::Result<()> {
        let contents = layers::read(layers)?;
        let tag = image.reference.as_str().rsplit_once(':').map_or("", |(_, tag)| tag);
        let mut inside = Vec::new();
        for (path, program) in &contents.programs {
            let name = path.rsplit('/').next().unwrap_or(path);
            inside.push(self.program_of(name, tag, program.digest, &program.modules));
        }
        for package in &contents.packages {
            inside.push(self.add(package.component()));
        }
        let reference = self.image(image, &inside);
        if let Some(component) = self.components.get_mut(&reference) {
            component.source = address.map(|address| ("distribution", address.to_owned()));
            if !contents.unread.is_empty() {
                let folders: Vec<&str> = contents.unread.iter().copied().collect();
                component
                    .properties
                    .insert("landfall:unread-packages", folders.join(" "));
            }
        }
        Ok(())
    }

    /// Adds an image, and what is inside.
    pub fn image(&mut self, image: &Image, inside: &[Reference]) -> Reference {
        let text = image.reference.as_str();
        let (repository, tag) = text.rsplit_once(':').unwrap_or((text, ""));
        let name = repository.rsplit('/').next().unwrap_or(repository);
        let digest = image.manifest.to_string();
        let reference = self.add(Component {
            kind: "container",
            name: repository.to_owned(),
            version: tag.to_owned(),
            purl: Some(format!(
                "pkg:oci/{}@{}?repository_url={}&tag={}",
                encoded(name, false),
                encoded(&digest, false),
                encoded(repository, true),
                encoded(tag, false)
            )),
            ..Component::default()
        });
        for part in inside {
            self.put(&reference, part);
        }
        self.put(&BUNDLE.to_owned(), &reference);
        reference
    }

    /// Says that a program is put on nodes as it is.
    pub fn on_nodes(&mut self, program: &Reference) {
        self.put(&BUNDLE.to_owned(), program);
    }

    fn add(&mut self, component: Component) -> Reference {
        let reference = component.purl.clone().unwrap_or_else(|| component.name.clone());
        self.components.entry(reference.clone()).or_insert(component);
        reference
    }

    fn put(&mut self, outer: &Reference, inner: &Reference) {
        self.contains.entry(outer.clone()).or_default().insert(inner.clone());
    }

    /// Returns the bill as it lies in a bundle.
    pub fn to_json(&self, index: &BundleIndex) -> Vec<u8> {
        let components: Vec<Value> = self
            .components
            .iter()
            .map(|(reference, c)| c.to_json(reference))
            .collect();
        let names = self.components.keys().map(String::as_str).chain([BUNDLE]);
        let dependencies: Vec<Value> = names
            .map(|name| {
                let inside = self.contains.get(name).into_iter().flatten();
                json!({ "ref": name, "dependsOn": inside.collect::<Vec<_>>() })
            })
            .collect();
        let bill = json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": { "component": {
                "type": "application",
                "bom-ref": BUNDLE,
                "name": "landfall bundle",
                "version": index.bundle_version,
                "description": format!("Kubernetes {}, recipe {}", index.kubernetes_version, index.recipe),
            } },
            "components": components,
            "dependencies": dependencies,
        });
        let mut text = format!("{bill:#}").into_bytes();
        text.push(b'\n');
        text
    }
}

impl Component {
    fn to_json(&self, reference: &str) -> Value {
        let licence = match &self.licence {
            Some(text) if is_expression(text) => json!({ "expression": text }),
            Some(text) => json!({ "license": { "name": text } }),
            None => json!({ "license": { "name": NO_ASSERTION } }),
        };
        let mut value = json!({
            "type": self.kind,
            "bom-ref": reference,
            "name": self.name,
            "version": self.version,
            "licenses": [licence],
        });
        if let Some(purl) = &self.purl {
            value["purl"] = json!(purl);
        }
        if let Some(digest) = &self.sha256 {
            value["hashes"] = json!([{ "alg": "SHA-256", "content": digest }]);
        }
        if let Some((kind, address)) = &self.source {
            value["externalReferences"] = json!([{ "type": kind, "url": address }]);
        }
        if !self.properties.is_empty() {
            let one = |(name, value): (&&str, &String)| json!({ "name": name, "value": value });
            value["properties"] = self.properties.iter().map(one).collect();
        }
        value
    }
}

/// Whether a text has the form of an SPDX licence expression (specification 2.3, annex D): names with operators between them.
fn is_expression(text: &str) -> bool {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let mut depth = 0;
    let mut name_is_next = true;
    for word in spaced.split_whitespace() {
        let fits = match word {
            "(" => {
                depth += 1;
                name_is_next
            }
            ")" => {
                depth -= 1;
                !name_is_next && depth >= 0
            }
            "AND" | "OR" | "WITH" => !std::mem::replace(&mut name_is_next, true),
            name => {
                let plain = |c: char| c.is_ascii_alphanumeric() || "-.+:".contains(c);
                std::mem::replace(&mut name_is_next, false) && name.chars().all(plain)
            }
        };
        if !fits {
            return false;
        }
    }
    depth == 0 && !name_is_next
}

/// Percent-encodes a part of a package URL (purl-spec, "Character encoding"), slashes too unless they are part of it.
fn encoded(text: &str, keep_slashes: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b".-_~".contains(&byte) || (byte == b'/' && keep_slashes);
        if is_plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
