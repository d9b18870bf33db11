//! The Ansible collection `landfall.cluster`, which is embedded in the program: its files, and the archive for
//! `ansible-galaxy collection install`.

use landfall_core::name::Digest;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io;

/// Version of the collection: that of the program, whose output it reads.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

macro_rules! files {
    ($($path:literal,)*) => {
        /// Path and content of every file, in the order of the archive.
        const FILES: &[(&str, &[u8])] = &[
            ("LICENSE", include_bytes!("../../LICENSE")),
            $(($path, include_bytes!(concat!("../collection/", $path))),)*
        ];
    };
}

files! {
    "README.md",
    "execution-environment.yml",
    "meta/runtime.yml",
    "plugins/action/bundle_info.py",
    "plugins/action/cluster.py",
    "plugins/action/cluster_info.py",
    "plugins/action/kubeconfig.py",
    "plugins/action/node.py",
    "plugins/doc_fragments/common.py",
    "plugins/inventory/cluster.py",
    "plugins/modules/bundle_info.py",
    "plugins/modules/cluster.py",
    "plugins/modules/cluster_info.py",
    "plugins/modules/kubeconfig.py",
    "plugins/modules/node.py",
    "plugins/plugin_utils/cluster_yaml.py",
    "plugins/plugin_utils/landfall.py",
    "roles/install/defaults/main.yml",
    "roles/install/meta/argument_specs.yml",
    "roles/install/tasks/main.yml",
    "roles/prepare_hosts/defaults/main.yml",
    "roles/prepare_hosts/meta/argument_specs.yml",
    "roles/prepare_hosts/tasks/firewall.yml",
    "roles/prepare_hosts/tasks/main.yml",
    "roles/prepare_hosts/tasks/swap.yml",
    "roles/prepare_hosts/tasks/time.yml",
    "roles/uninstall/defaults/main.yml",
    "roles/uninstall/meta/argument_specs.yml",
    "roles/uninstall/tasks/main.yml",
    "roles/verify/defaults/main.yml",
    "roles/verify/meta/argument_specs.yml",
    "roles/verify/tasks/main.yml",
}

/// Makes the archive. The same program always makes the same bytes.
///
/// # Errors
/// tar or gzip fails, which does not happen in memory.
pub fn archive() -> io::Result<Vec<u8>> {
    let listed = list()?;
    let manifest = manifest(&listed)?;
    let gzip = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::best());
    let mut tar = tar::Builder::new(gzip);
    add(&mut tar, "MANIFEST.json", &manifest)?;
    add(&mut tar, "FILES.json", &listed)?;
    for directory in directories() {
        let mut header = header(0, 0o755);
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, directory, io::empty())?;
    }
    for (path, content) in FILES {
        add(&mut tar, path, content)?;
    }
    tar.into_inner()?.finish()
}

/// The directories, each before what is below it.
fn directories() -> BTreeSet<&'static str> {
    let parents = |path: &'static str| path.match_indices('/').map(|(at, _)| &path[..at]);
    FILES.iter().flat_map(|(path, _)| parents(path)).collect()
}

/// `FILES.json`: the digest of every file.
fn list() -> io::Result<Vec<u8>> {
    let directory = |name: &str| entry(name, "dir", None);
    let mut entries = vec![directory(".")];
    entries.extend(directories().into_iter().map(directory));
    entries.extend(FILES.iter().map(|(name, content)| entry(name, "file", Some(content))));
    pretty(&json!({ "files": entries, "format": 1 }))
}

fn entry(name: &str, kind: &str, content: Option<&[u8]>) -> Value {
    let digest = content.map(hex);
    let method = content.map(|_| "sha256");
    json!({ "name": name, "ftype": kind, "chksum_type": method, "chksum_sha256": digest, "format": 1 })
}

/// `MANIFEST.json`: name and version of the collection, and the digest of `FILES.json`.
fn manifest(listed: &[u8]) -> io::Result<Vec<u8>> {
    pretty(&json!({
        "collection_info": {
            "namespace": "landfall",
            "name": "cluster",
            "version": VERSION,
            "authors": ["landfall"],
            "readme": "README.md",
            "tags": ["kubernetes", "infrastructure"],
            "description": "Kubernetes on machines without internet, by landfall",
            "license": ["Apache-2.0"],
            "license_file": null,
            "dependencies": {},
            "repository": null,
            "documentation": null,
            "homepage": null,
            "issues": null,
        },
        "file_manifest_file": entry("FILES.json", "file", Some(listed)),
        "format": 1,
    }))
}

fn pretty(value: &Value) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// Digest in hexadecimal, as Ansible writes it.
fn hex(content: &[u8]) -> String {
    let digest = Digest::of(content).to_string();
    digest.strip_prefix("sha256:").unwrap_or(&digest).to_owned()
}

/// Returns a header without the time and the user of the build, so that the archive is reproducible.
fn header(size_bytes: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size_bytes);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn add<W: io::Write>(tar: &mut tar::Builder<W>, path: &str, content: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(content.len() as u64, 0o644), path, content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::path::Path;

    fn walk(dir: &Path, below: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "__pycache__") {
                    walk(&path, below, found);
                }
            } else {
                found.insert(path.strip_prefix(below).unwrap().display().to_string());
            }
        }
    }

    #[test]
    fn the_archive_contains_every_file_of_the_collection() {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("collection");
        let mut there = BTreeSet::from(["LICENSE".to_owned()]);
        walk(&home, &home, &mut there);
        let packed: BTreeSet<String> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(packed, there);
    }

    #[test]
    fn the_archive_is_the_same_each_time_and_lists_what_it_holds() {
        let bytes = archive().unwrap();
        assert_eq!(bytes, archive().unwrap());
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
        let mut found = BTreeMap::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = vec![];
            entry.read_to_end(&mut content).unwrap();
            found.insert(path, content);
        }
        let read = |path: &str| -> Value { serde_json::from_slice(&found[path]).unwrap() };
        let (manifest, listed) = (read("MANIFEST.json"), read("FILES.json"));
        assert_eq!(manifest["collection_info"]["version"], VERSION);
        assert_eq!(
            manifest["file_manifest_file"]["chksum_sha256"],
            hex(&found["FILES.json"])
        );
        let files = listed["files"].as_array().unwrap();
        let file = |e: &&Value| e["ftype"] == "file";
        assert_eq!(files.iter().filter(file).count(), FILES.len());
        for entry in files.iter().filter(file) {
            let name = entry["name"].as_str().unwrap();
            assert_eq!(entry["chksum_sha256"], hex(&found[name]), "{name}");
        }
    }
}
