//! Which crates a program of this workspace consists of, by `cargo metadata`.

use super::{Component, encoded};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The crates of a workspace and what each needs, as `cargo metadata --format-version 1` says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrateGraph {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    repository: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kind {
    /// Nothing for what is linked; `build` or `dev`.
    kind: Option<String>,
}

impl CrateGraph {
    /// Reads what cargo printed.
    pub fn parse(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }

    /// Returns what of the graph the packages of the workspace with these names consist of. The ids of crates name no folder any more.
    pub fn only(mut self, packages: &[&str]) -> Self {
        let needed: BTreeSet<String> = packages.iter().flat_map(|name| self.reached(name)).collect();
        self.packages.retain(|package| needed.contains(&package.id));
        self.resolve.nodes.retain(|node| needed.contains(&node.id));
        let short = |p: &Package| (p.id.clone(), format!("{}@{}", p.name, p.version));
        let ids: BTreeMap<String, String> = self.packages.iter().map(short).collect();
        let rename = |id: &mut String| {
            if let Some(short) = ids.get(id) {
                id.clone_from(short);
            }
        };
        self.packages.iter_mut().for_each(|package| rename(&mut package.id));
        for node in &mut self.resolve.nodes {
            rename(&mut node.id);
            node.deps.retain(|dependency| needed.contains(&dependency.pkg));
            node.deps.iter_mut().for_each(|dependency| rename(&mut dependency.pkg));
        }
        self.packages.sort_by(|a, b| a.id.cmp(&b.id));
        self.resolve.nodes.sort_by(|a, b| a.id.cmp(&b.id));
        self
    }

    /// Returns the crates that a package of the workspace consists of, itself too. Crates that build others count: they may bring source
    /// along, as those of OpenSSL and zstd do.
    pub(super) fn of(&self, package: &str) -> Vec<Component> {
        let inside = self.reached(package);
        let inside = self.packages.iter().filter(|p| inside.contains(&p.id));
        inside.map(Package::component).collect()
    }

    /// The ids of these crates.
    fn reached(&self, package: &str) -> BTreeSet<String> {
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
        seen.into_iter().map(str::to_owned).collect()
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
