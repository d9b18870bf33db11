//! What differs between two bundles, by entry.

use crate::Bundle;
use landfall_core::bundle_index::{BundleIndex, NODE_ARCHITECTURE};
use landfall_core::name::Digest;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// A program for nodes.
    Program,
    /// A container image.
    Image,
    /// A component, which programs and images are built from.
    Component,
    /// A Debian package in image layers.
    Package,
    /// A file of objects that the builder added.
    Manifest,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The same bytes, or the same version where it has no bytes of its own.
    Same,
    /// Other bytes, or another version.
    Changed,
    /// Only the new bundle has it.
    Added,
    /// Only the old bundle has it.
    Removed,
}

/// One entry of either bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// What it is.
    pub kind: EntryKind,
    /// Its name, without a tag; that of another architecture than nodes have begins with it.
    pub name: String,
    /// What became of it.
    pub change: Change,
    /// Version or tag in the old bundle.
    pub old: Option<String>,
    /// Version or tag in the new bundle.
    pub new: Option<String>,
    /// Size of its blobs in the new bundle, or in the old one when it is removed.
    pub bytes: u64,
    /// Size of those of its blobs that the old bundle lacks.
    pub new_bytes: u64,
}

struct Entry {
    version: String,
    /// What is equal in equal entries.
    content: String,
    blobs: BTreeSet<Digest>,
}

type Entries = BTreeMap<(EntryKind, String), Entry>;

/// Compares two bundles by their indexes. Reads no blob.
pub fn diff<A, B>(old: &Bundle<A>, new: &Bundle<B>) -> Vec<Difference> {
    compare(old.index(), new.index())
}

fn compare(old: &BundleIndex, new: &BundleIndex) -> Vec<Difference> {
    let (before, after) = (entries(old), entries(new));
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let one = |key: &(EntryKind, String)| {
        let (was, is) = (before.get(key), after.get(key));
        let change = match (was, is) {
            (Some(was), Some(is)) if was.content == is.content => Change::Same,
            (Some(_), Some(_)) => Change::Changed,
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
        };
        let (index, shown) = if is.is_some() { (new, is) } else { (old, was) };
        let sizes = shown.into_iter().flat_map(|entry| &entry.blobs);
        let sizes = sizes.map(|digest| (digest, index.blob(digest).map_or(0, |blob| blob.size_bytes)));
        let is_new = |digest: &Digest| is.is_some() && old.blob(digest).is_none();
        Difference {
            kind: key.0,
            name: key.1.clone(),
            change,
            old: was.map(|entry| entry.version.clone()),
            new: is.map(|entry| entry.version.clone()),
            bytes: sizes.clone().map(|(_, size)| size).sum(),
            new_bytes: sizes.filter(|(digest, _)| is_new(digest)).map(|(_, size)| size).sum(),
        }
    };
    keys.into_iter().map(one).collect()
}

fn entries(index: &BundleIndex) -> Entries {
    let mut entries = Entries::new();
    for variant in &index.variants {
        let named = |name: &str| match variant.architecture.as_str() {
            NODE_ARCHITECTURE => name.to_owned(),
            other => format!("{other}/{name}"),
        };
        for binary in &variant.binaries {
            let entry = Entry {
                version: binary.version.clone(),
                content: binary.digest.to_string(),
                blobs: [binary.blob].into(),
            };
            entries.insert((EntryKind::Program, named(&binary.name)), entry);
        }
        for image in &variant.images {
            let reference = image.reference.as_str();
            let (name, tag) = reference.rsplit_once(':').unwrap_or((reference, ""));
            let entry = Entry {
                version: tag.to_owned(),
                content: format!("{tag} {}", image.manifest),
                blobs: image.blobs.iter().copied().collect(),
            };
            entries.insert((EntryKind::Image, named(name)), entry);
        }
    }
    let plain = |version: &str, content: String| Entry {
        version: version.to_owned(),
        content,
        blobs: BTreeSet::new(),
    };
    for component in &index.components {
        let entry = plain(&component.version, component.version.clone());
        entries.insert((EntryKind::Component, component.name.clone()), entry);
    }
    for package in &index.packages {
        let mut entry = plain(&package.version, package.digest.to_string());
        let key = (EntryKind::Package, package.name.clone());
        // A package may be there in versions of two suites.
        if let Some(other) = entries.remove(&key) {
            entry.version = format!("{}, {}", other.version, entry.version);
            entry.content = format!("{} {}", other.content, entry.content);
        }
        entries.insert(key, entry);
    }
    for manifest in &index.manifests {
        let count = format!("{} objects", manifest.objects.len());
        let content = Digest::of(serde_json::Value::from(manifest.objects.clone()).to_string().as_bytes());
        entries.insert(
            (EntryKind::Manifest, manifest.name.clone()),
            plain(&count, content.to_string()),
        );
    }
    entries
}
