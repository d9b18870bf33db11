//! Image layers: files by path, written in that order with fixed times, so that the same content gives the same bytes.

use super::{failed, io};
use landfall_core::explain::Diagnosis;
use landfall_core::name::Digest;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A finished layer.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// Digest of the compressed blob.
    pub blob: Digest,
    /// Digest of the tar inside (OCI image-spec 1.1, config.md, `diff_ids`).
    pub diff_id: Digest,
    /// Size of the compressed blob, in bytes.
    pub size_bytes: u64,
    /// Where the blob lies.
    pub path: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Directory(u32),
    File(u32, Vec<u8>),
    Link(PathBuf),
}

/// Collects what a layer holds.
#[derive(Debug, Default)]
pub(crate) struct LayerBuilder {
    entries: BTreeMap<PathBuf, Entry>,
}

impl LayerBuilder {
    /// Adds a file of the build machine under an absolute path.
    pub fn file_from(&mut self, source: &Path, path: &str, mode: u32) -> Result<(), Diagnosis> {
        let bytes = std::fs::read(source).map_err(io("read", source))?;
        self.file(path, mode, bytes);
        Ok(())
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) {
        let path = relative(path);
        self.parents(&path);
        self.entries.insert(path, Entry::File(mode, bytes.into()));
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: &str, mode: u32) {
        let path = relative(path);
        self.parents(&path);
        self.entries.insert(path, Entry::Directory(mode));
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: impl Into<PathBuf>) {
        let path = relative(path);
        self.parents(&path);
        self.entries.insert(path, Entry::Link(target.into()));
    }

    fn parents(&mut self, path: &Path) {
        let above = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty());
        for parent in above {
            self.entries.entry(parent.to_owned()).or_insert(Entry::Directory(0o755));
        }
    }

    /// Takes what a package's tar holds, below a folder (empty: the root), without its documentation, and hard links as copies. What is in one of the
    /// [`MERGED`] folders goes below /usr.
    pub fn unpack(&mut self, tar: impl Read, below: &str) -> Result<(), Diagnosis> {
        let mut archive = tar::Archive::new(tar);
        let wrong = |error: std::io::Error| failed("a package's content cannot be read").because(&error);
        for entry in archive.entries().map_err(wrong)? {
            let mut entry = entry.map_err(wrong)?;
            let path = entry.path().map_err(wrong)?.to_string_lossy().into_owned();
            let path = merged(path.trim_start_matches("./").trim_end_matches('/'));
            if path.is_empty() || UNWANTED.iter().any(|prefix| path.starts_with(prefix)) {
                continue;
            }
            let path = format!("{below}/{path}");
            let mode = entry.header().mode().map_err(wrong)? & 0o7777;
            match entry.header().entry_type() {
                tar::EntryType::Directory => self.directory(&path, mode),
                tar::EntryType::Regular => {
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes).map_err(wrong)?;
                    self.file(&path, mode, bytes);
                }
                tar::EntryType::Symlink => {
                    let target = entry.link_name().map_err(wrong)?.unwrap_or_default().into_owned();
                    self.link(&path, target);
                }
                tar::EntryType::Link => {
                    let target = entry.link_name().map_err(wrong)?.unwrap_or_default().into_owned();
                    let target = merged(&relative(&target.to_string_lossy()).to_string_lossy());
                    let other = self.entries.get(&relative(&format!("{below}/{target}"))).cloned();
                    if let Some(Entry::File(mode, bytes)) = other {
                        self.file(&path, mode, bytes);
                    }
                }
                other => {
                    return Err(failed(format!(
                        "a package holds {path} of the unexpected type {other:?}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Adds all that another one holds, in place of what has the same path here.
    pub fn put_over(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// A digest of everything that decides the layer's bytes.
    pub fn key(&self) -> Digest {
        let mut text = String::new();
        for (path, entry) in &self.entries {
            let what = match entry {
                Entry::Directory(mode) => format!("d {mode:o}"),
                Entry::File(mode, bytes) => format!("f {mode:o} {}", Digest::of(bytes)),
                Entry::Link(target) => format!("l {}", target.display()),
            };
            text.push_str(&format!("{}\0{what}\n", path.display()));
        }
        Digest::of(text.as_bytes())
    }

    /// Writes the layer as a tar.
    pub fn write(&self, out: impl Write) -> std::io::Result<()> {
        let mut tar = tar::Builder::new(out);
        for (path, entry) in &self.entries {
            match entry {
                Entry::Directory(mode) => {
                    let mut header = header(*mode, tar::EntryType::Directory, 0);
                    tar.append_data(&mut header, path, std::io::empty())?;
                }
                Entry::File(mode, bytes) => {
                    let mut header = header(*mode, tar::EntryType::Regular, bytes.len() as u64);
                    tar.append_data(&mut header, path, bytes.as_slice())?;
                }
                Entry::Link(target) => {
                    let mut header = header(0o777, tar::EntryType::Symlink, 0);
                    tar.append_link(&mut header, path, target)?;
                }
            }
        }
        tar.into_inner()?.flush()
    }
}

/// Parts of packages that no program of an image reads.
const UNWANTED: [&str; 7] = [
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/bug",
];

/// Folders that Debian has had in /usr since release 12, with links at their old places.
pub(super) const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Returns the place below /usr of a path, without `/` at its begin, that is in a merged folder; other paths as they are.
fn merged(path: &str) -> String {
    match path.split('/').next() {
        Some(first) if MERGED.contains(&first) => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}

fn relative(path: &str) -> PathBuf {
    PathBuf::from(path.trim_start_matches("./").trim_start_matches('/'))
}

fn header(mode: u32, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = crate::archive::header(size);
    header.set_mode(mode);
    header.set_entry_type(kind);
    header
}
