//! Which crates a program of this workspace consists of, by `cargo metadata`.

use super::{Component, encoded};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The crates of a workspace and what each needs, as `cargo metadata --format-version 1` says it.
#[derive(Debug, Deserialize)]
pub struct CrateGraph {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    repository: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    /// Nothing for what is linked; `build` or `dev`.
    kind: Option<String>,
}

impl CrateGraph {
    /// Reads what cargo printed.
    pub fn parse(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }

    /// Returns the crates that a package of the workspace consists of, itself too. Crates that build others count: they may bring source
    /// along, as those of OpenSSL and zstd do.
    pub(super) fn of(&self, package: &str) -> Vec<Component> {
        let packages: BTreeMap<&str, &Package> = self.packages.iter().map(|p| (p.id.as_str(), p)).collect();
        let nodes: BTreeMap<&str, &Node> = self.resolve.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
        let own = self.packages.iter().find(|p| p.name == package && p.source.is_none());
        let mut next: Vec<&str> = own.iter().map(|p| p.id.as_str()).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = next.pop() {
            if !seen.insert(id) {
                continue;
            }
            let needed = nodes.get(id).into_iter().flat_map(|node| &node.deps);
            let ends_in_it = |dep: &&Dependency| dep.dep_kinds.iter().any(|k| k.kind.as_deref() != Some("dev"));
            next.extend(needed.filter(ends_in_it).map(|dep| dep.pkg.as_str()));
        }
        seen.into_iter()
            .filter_map(|id| packages.get(id))
            .map(|p| p.component())
            .collect()
    }
}

impl Package {
    fn component(&self) -> Component {
        let Self { name, version, .. } = self;
        let source = match (&self.source, &self.repository) {
            (Some(from), _) if from.starts_with("registry+") => Some((
                "source-distribution",
                format!("https://static.crates.io/crates/{name}/{name}-{version}.crate"),
            )),
            (_, Some(repository)) => Some(("vcs", repository.clone())),
            (_, None) => None,
        };
        Component {
            kind: "library",
            name: name.clone(),
            version: version.clone(),
            purl: Some(format!(
                "pkg:cargo/{}@{}",
                encoded(name, false),
                encoded(version, false)
            )),
            // Older crates write a slash, which means OR (The Cargo Book, "The license and license-file fields").
            licence: self
                .license
                .as_ref()
                .map(|text| text.replace(" / ", "/").replace('/', " OR ")),
            source,
            ..Component::default()
        }
    }
}
