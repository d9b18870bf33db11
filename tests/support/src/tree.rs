//! Whole directory trees as values: paths, kinds, permission bits, contents.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// One thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// A directory with its permission bits.
    Directory(u32),
    /// A file with its permission bits and content.
    File(u32, Vec<u8>),
    /// A symbolic link with its target.
    Link(PathBuf),
    /// A socket, pipe or device with its permission bits.
    Special(u32),
}

/// Everything below a directory, by path relative to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree(BTreeMap<PathBuf, Thing>);

impl Tree {
    /// Reads everything below `root`, following no link. Line ends after a kernel setting do not count: the kernel shows one after each.
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.add(root, Path::new(""))?;
        Ok(tree)
    }

    fn add(&mut self, root: &Path, below: &Path) -> Result<()> {
        let directory = root.join(below);
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            let meta = entry.metadata()?;
            let mode = meta.permissions().mode() & 0o7777;
            let thing = if meta.is_dir() {
                self.add(root, &path)?;
                Thing::Directory(mode)
            } else if meta.is_symlink() {
                Thing::Link(fs::read_link(entry.path())?)
            } else if meta.file_type().is_socket() || meta.file_type().is_fifo() {
                Thing::Special(mode)
            } else {
                let mut content = fs::read(entry.path())?;
                if path.starts_with("proc/sys") {
                    content.truncate(content.trim_ascii_end().len());
                }
                Thing::File(mode, content)
            };
            self.0.insert(path, thing);
        }
        Ok(())
    }

    /// Returns the tree without these paths and what is below them.
    #[must_use]
    pub fn without(&self, paths: &[&str]) -> Self {
        let kept = self
            .0
            .iter()
            .filter(|(path, _)| !paths.iter().any(|p| path.starts_with(p)));
        Self(kept.map(|(path, thing)| (path.clone(), thing.clone())).collect())
    }

    /// Returns the content of a file.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        match self.0.get(Path::new(path)) {
            Some(Thing::File(_, content)) => Some(content),
            _ => None,
        }
    }

    /// Returns the paths of files that hold these bytes; `bytes` are not empty.
    pub fn holding(&self, bytes: &[u8]) -> Vec<&Path> {
        let holds = |thing: &Thing| match thing {
            Thing::File(_, content) => content.windows(bytes.len()).any(|part| part == bytes),
            _ => false,
        };
        let found = self.0.iter().filter(|(_, thing)| holds(thing));
        found.map(|(path, _)| path.as_path()).collect()
    }

    /// Says whether something is at a path.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(Path::new(path))
    }

    /// Returns a line for each path that differs from what is wanted; empty when the trees are the same.
    pub fn differences(&self, wanted: &Self) -> Vec<String> {
        let paths: std::collections::BTreeSet<&PathBuf> = self.0.keys().chain(wanted.0.keys()).collect();
        let line = |path: &PathBuf| match (self.0.get(path), wanted.0.get(path)) {
            (Some(_), None) => Some(format!("{}: should not be there", path.display())),
            (None, Some(_)) => Some(format!("{}: is missing", path.display())),
            (Some(here), Some(there)) if here != there => {
                Some(format!("{}: is {}, not {}", path.display(), text(here), text(there)))
            }
            _ => None,
        };
        paths.into_iter().filter_map(line).collect()
    }
}

fn text(thing: &Thing) -> String {
    match thing {
        Thing::Directory(mode) => format!("a directory ({mode:04o})"),
        Thing::File(mode, content) => {
            let start: String = String::from_utf8_lossy(content).chars().take(80).collect();
            format!("a file ({mode:04o}) of {} bytes, {start:?}", content.len())
        }
        Thing::Link(target) => format!("a link to {}", target.display()),
        Thing::Special(mode) => format!("a socket or pipe ({mode:04o})"),
    }
}

#[cfg(test)]
mod tests {
    use super::Tree;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn paths_modes_and_contents_count() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("a")).unwrap();
        fs::write(at("a/f"), "1").unwrap();
        let before = Tree::read(root.path()).unwrap();
        assert!(before.differences(&before).is_empty());
        fs::set_permissions(at("a/f"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Tree::read(root.path()).unwrap().differences(&before).len(), 1);
        fs::remove_file(at("a/f")).unwrap();
        fs::write(at("g"), "").unwrap();
        let after = Tree::read(root.path()).unwrap();
        assert_eq!(
            after.differences(&before),
            ["a/f: is missing", "g: should not be there"]
        );
        assert!(after.without(&["g"]).differences(&before.without(&["a/f"])).is_empty());
    }
}
