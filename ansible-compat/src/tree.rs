//! Where variable files are read: the disk, or a map in tests.

use std::io::{self, ErrorKind};
use std::path::Path;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file with its text.
    File(String),
    /// A directory with the names of its entries, in no order.
    Directory(Vec<String>),
}

/// A read-only view of files.
pub trait FileTree {
    /// Returns what stands at `path`, or nothing where nothing does.
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>>;

    /// Returns the names in a directory, `most` of them, or nothing where no directory is. It reads no file.
    fn names(&self, dir: &Path, most: usize) -> Option<Vec<String>>;

    /// Returns the text of a regular file, or nothing where there is none, or one of more than `most` bytes.
    fn small_file(&self, path: &Path, most: u64) -> Option<String>;
}

/// The real files.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl FileTree for Disk {
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        let entry = if path.is_dir() {
            std::fs::read_dir(path)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<_>>()
                .map(Entry::Directory)
        } else {
            std::fs::read(path).and_then(text).map(Entry::File)
        };
        match entry {
            Ok(entry) => Ok(Some(entry)),
            // A file in place of a parent directory is no variable file either.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn names(&self, dir: &Path, most: usize) -> Option<Vec<String>> {
        let entries = std::fs::read_dir(dir).ok()?.take(most).flatten();
        Some(entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect())
    }

    fn small_file(&self, path: &Path, most: u64) -> Option<String> {
        let found = std::fs::metadata(path).ok()?;
        (found.is_file() && found.len() <= most).then_some(())?;
        std::fs::read(path).and_then(text).ok()
    }
}

/// Takes bytes for text. Only comment lines may be of another encoding, as with Ansible; they are left empty.
fn text(bytes: Vec<u8>) -> io::Result<String> {
    let error = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let lines = error.as_bytes().split(|b| *b == b'\n');
    let lines = lines.map(|line| match std::str::from_utf8(line) {
        Err(_) if line.trim_ascii_start().starts_with(b"#") || line.starts_with(b";") => Some(""),
        line => line.ok(),
    });
    let text: Option<Vec<&str>> = lines.collect();
    text.map(|lines| lines.join("\n"))
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "a line that is no comment is not UTF-8"))
}

/// Files that a test made up, by path.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Files(pub std::collections::BTreeMap<std::path::PathBuf, String>);

#[cfg(test)]
impl Files {
    /// Takes pairs of path and text.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(p, t)| (p.into(), (*t).to_owned())).collect())
    }
}

#[cfg(test)]
impl FileTree for Files {
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        if let Some(text) = self.0.get(path) {
            return Ok(Some(Entry::File(text.clone())));
        }
        let names: std::collections::BTreeSet<String> = self
            .0
            .keys()
            .filter_map(|p| p.strip_prefix(path).ok()?.iter().next())
            .map(|n| n.to_string_lossy().into_owned())
            .collect();
        Ok((!names.is_empty()).then(|| Entry::Directory(names.into_iter().rev().collect())))
    }

    fn names(&self, dir: &Path, most: usize) -> Option<Vec<String>> {
        match self.entry(dir) {
            Ok(Some(Entry::Directory(names))) => Some(names.into_iter().take(most).collect()),
            _ => None,
        }
    }

    fn small_file(&self, path: &Path, most: u64) -> Option<String> {
        let text = self.0.get(path)?;
        (text.len() as u64 <= most).then(|| text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_tells_files_directories_and_nothing_apart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "x").unwrap();
        assert_eq!(
            Disk.entry(&dir.path().join("a")).unwrap(),
            Some(Entry::File("x".into()))
        );
        assert_eq!(
            Disk.entry(dir.path()).unwrap(),
            Some(Entry::Directory(vec!["a".into()]))
        );
        assert_eq!(Disk.entry(&dir.path().join("b")).unwrap(), None);
        assert_eq!(Disk.entry(&dir.path().join("a/b")).unwrap(), None);
        assert_eq!(Disk.names(dir.path(), 9), Some(vec!["a".into()]));
        assert_eq!(Disk.names(dir.path(), 0), Some(vec![]));
        assert_eq!(Disk.names(&dir.path().join("a"), 9), None);
        assert_eq!(Disk.small_file(&dir.path().join("a"), 1), Some("x".into()));
        assert_eq!(Disk.small_file(&dir.path().join("a"), 0), None);
        assert_eq!(Disk.small_file(dir.path(), u64::MAX), None);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), [0xff, 0xfe]).unwrap();
        assert!(Disk.entry(&dir.path().join("a")).is_err());
        std::fs::write(dir.path().join("a"), b"# \xe4\n[a]\n").unwrap();
        assert_eq!(
            Disk.entry(&dir.path().join("a")).unwrap(),
            Some(Entry::File("\n[a]\n".into()))
        );
    }
}
