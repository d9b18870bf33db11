//! Removing a tree without ever leaving it: every step is relative to an open directory, symbolic links are removed and never followed,
//! and nothing behind a mount is touched.

use crate::mounts;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat, unlinkat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Removes `path` and everything below it, except what mounts keep. Returns a line for each thing that stays; nothing there is fine.
pub fn remove_tree(path: &Path) -> Vec<String> {
    let mut walk = Walk {
        mount_points: mount_points(path),
        residue: Vec::new(),
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return vec![format!("{} is no path that can be removed", path.display())];
    };
    match openat(
        CWD,
        parent,
        OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY,
        Mode::empty(),
    ) {
        Ok(directory) => walk.remove(&directory, name, path),
        Err(Errno::NOENT | Errno::NOTDIR) => {}
        Err(errno) => walk.stays(path, errno),
    }
    walk.residue
}

/// Removes what is in a directory and keeps the directory and its `lost+found`.
pub fn remove_content(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return vec![];
    };
    entries
        .flatten()
        .filter(|e| e.file_name() != "lost+found")
        .flat_map(|e| remove_tree(&e.path()))
        .collect()
}

fn mount_points(path: &Path) -> BTreeSet<PathBuf> {
    // mountinfo has resolved paths; the tree may have been named through a link further up.
    let real = path
        .parent()
        .and_then(|p| p.canonicalize().ok())
        .zip(path.file_name())
        .map(|(p, n)| p.join(n));
    let Some(real) = real else { return BTreeSet::new() };
    let below = mounts::all()
        .into_iter()
        .filter_map(|m| m.point.strip_prefix(&real).map(|rest| path.join(rest)).ok());
    // Joining an empty rest leaves a trailing slash, which does not matter to comparisons of components.
    below.collect()
}

struct Walk {
    mount_points: BTreeSet<PathBuf>,
    residue: Vec<String>,
}

impl Walk {
    fn stays(&mut self, path: &Path, errno: Errno) {
        // A directory that is not empty has had its own line.
        if errno != Errno::NOTEMPTY || self.residue.is_empty() {
            self.residue.push(format!("{} stays: {errno}", path.display()));
        }
    }

    fn remove(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path) {
        if self.mount_points.contains(path) {
            self.residue
                .push(format!("{} stays: something is mounted there", path.display()));
            return;
        }
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return self.stays(path, errno),
        }
        match self.empty(parent, name, path) {
            Ok(()) => {}
            Err(errno) => return self.stays(path, errno),
        }
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => self.stays(path, errno),
        }
    }

    fn empty(&mut self, parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), Errno> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let directory = match openat(parent, name, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(()),
            // A plain file that may not be unlinked (immutable, for instance).
            Err(Errno::NOTDIR) => return Err(Errno::PERM),
            Err(errno) => return Err(errno),
        };
        if fstat(&directory)?.st_dev != fstat(parent)?.st_dev {
            return Err(Errno::XDEV);
        }
        // All names first: removing while reading may skip entries.
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        for name in names {
            let path = path.join(&name);
            self.remove(&directory, &name, &path);
        }
        Ok(())
    }
}

/// Says what kind of thing is at a path without following it; `None` when nothing is.
pub fn kind_at(path: &Path) -> Option<FileType> {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
        .ok()
        .map(|s| FileType::from_raw_mode(s.st_mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn links_are_removed_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).unwrap();
        assert_eq!(remove_tree(&tree), Vec::<String>::new());
        assert!(!tree.exists() && outside.join("kept").exists());
        assert_eq!(remove_tree(&tree), Vec::<String>::new(), "again is fine");
        std::os::unix::fs::symlink(&outside, &tree).unwrap();
        assert_eq!(remove_tree(&tree), Vec::<String>::new());
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn nothing_behind_a_mount_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        let point = tree.join("sub/mounted");
        fs::create_dir_all(&point).unwrap();
        fs::write(tree.join("file"), "x").unwrap();
        let Ok(()) = rustix::mount::mount("none", &point, "tmpfs", rustix::mount::MountFlags::empty(), None) else {
            panic!("this test needs root: it mounts a tmpfs");
        };
        fs::write(point.join("kept"), "x").unwrap();
        let residue = remove_tree(&tree);
        let kept = point.join("kept").exists();
        rustix::mount::unmount(&point, rustix::mount::UnmountFlags::empty()).unwrap();
        assert!(kept, "{residue:?}");
        assert_eq!(residue.len(), 1, "{residue:?}");
        assert!(!tree.join("file").exists());
        assert_eq!(remove_tree(&tree), Vec::<String>::new());
        assert!(!tree.exists());
    }
}
