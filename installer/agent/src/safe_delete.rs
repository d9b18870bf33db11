//! Removing a tree without ever leaving it: every step is relative to an open directory, symbolic links are removed and never followed,
//! and nothing behind a mount is touched.

use crate::mounts;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat, unlinkat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How directories are opened.
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC).union(OFlags::RDONLY);

/// Removes `path` and everything below it, except what mounts keep. Returns a line for each thing that stays; nothing there is fine.
pub fn remove_tree(path: &Path) -> Vec<String> {
    let mut walk = Walk {
        mount_points: mount_points(path),
        residue: Vec::new(),
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return vec![format!("{} is no path that can be removed", path.display())];
    };
    let opened = openat(CWD, parent, DIRECTORY, Mode::empty());
    match opened.and_then(|directory| walk.remove(directory, name, path)) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
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

/// A directory that is being emptied. Only the innermost is open: the way back up is `..`, compared with `id`.
struct Level {
    id: (u64, u64),
    todo: Vec<OsString>,
}

/// What one removal met.
enum Met {
    /// It is gone, or its line of residue is written.
    Settled,
    /// A directory, which must be emptied first.
    Directory,
}

impl Walk {
    fn stays(&mut self, path: &Path, errno: Errno) {
        // A directory that is not empty has had its own line.
        if errno != Errno::NOTEMPTY || self.residue.is_empty() {
            self.residue.push(format!("{} stays: {errno}", path.display()));
        }
    }

    /// Removes `name` in the directory `at`. INVARIANT: two descriptors and no recursion, however deep the tree is.
    fn remove(&mut self, mut at: OwnedFd, name: &OsStr, path: &Path) -> Result<(), Errno> {
        let mut here = path.parent().unwrap_or(Path::new("/")).to_owned();
        let mut levels = vec![Level {
            id: id_of(&at)?,
            todo: vec![name.to_owned()],
        }];
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.todo.pop() {
                here.push(&name);
                if let Met::Directory = self.unlink(&at, &name, &here) {
                    match enter(&at, &name) {
                        Ok((inner, level)) => {
                            at = inner;
                            levels.push(level);
                            continue;
                        }
                        Err(Errno::NOENT) => {}
                        Err(errno) => self.stays(&here, errno),
                    }
                }
                here.pop();
                continue;
            }
            levels.pop();
            let (Some(above), Some(name)) = (levels.last(), here.file_name()) else {
                break;
            };
            let up = openat(&at, "..", DIRECTORY, Mode::empty())?;
            if id_of(&up)? != above.id {
                // Somebody moved the directory while it was emptied: what is above it now is not ours.
                return Err(Errno::STALE);
            }
            at = up;
            match unlinkat(&at, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => self.stays(&here, errno),
            }
            here.pop();
        }
        Ok(())
    }

    fn unlink(&mut self, at: &OwnedFd, name: &OsStr, path: &Path) -> Met {
        if self.mount_points.contains(path) {
            self.residue
                .push(format!("{} stays: something is mounted there", path.display()));
            return Met::Settled;
        }
        match unlinkat(at, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Met::Settled,
            Err(Errno::ISDIR | Errno::PERM) => Met::Directory,
            Err(errno) => {
                self.stays(path, errno);
                Met::Settled
            }
        }
    }
}

fn id_of(directory: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Opens a directory below `parent` and lists it whole: removing while reading may skip entries.
fn enter(parent: &OwnedFd, name: &OsStr) -> Result<(OwnedFd, Level), Errno> {
    let directory = match openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(directory) => directory,
        // A plain file that may not be unlinked (immutable, for instance).
        Err(Errno::NOTDIR) => return Err(Errno::PERM),
        Err(errno) => return Err(errno),
    };
    let id = id_of(&directory)?;
    if id.0 != id_of(parent)?.0 {
        return Err(Errno::XDEV);
    }
    let mut todo = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            todo.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok((directory, Level { id, todo }))
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

    #[test]
    fn a_tree_deeper_than_there_are_descriptors_goes() {
        use rustix::fs::mkdirat;
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let mut at = openat(CWD, &tree, flags, Mode::empty()).unwrap();
        // More levels than descriptors: 1024 is the usual soft limit.
        for _ in 0..3000 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", flags, Mode::empty()).unwrap();
        }
        let residue = remove_tree(&tree);
        assert_eq!(residue.first(), None);
        assert!(!tree.exists());
    }
}
