//! Writing files so that a reader, or a power cut, sees the old content or the new, never half of it.

use crate::error::{AgentError, Result, errno_at, if_there, io_at};
use landfall_core::action::Prior;
use landfall_core::journal::FileStamp;
use landfall_core::name::Digest;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Permission bits and, when it must be another than root, the owner.
#[derive(Debug, Clone, Copy)]
pub struct Meta {
    /// Permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: Option<(u32, u32)>,
}

impl Meta {
    /// Root's file with these bits.
    pub fn mode(mode: u32) -> Self {
        Self { mode, owner: None }
    }
}

/// Returns the name under which a file is prepared; fixed, so that undo finds what a crash left.
pub fn part_of(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    path.with_file_name(format!(".{name}.landfall-part"))
}

/// Writes a file by temporary file, fsync and rename. Where the path is a mount point of its own (`/etc/hosts` in a container) a rename
/// cannot work, and the content is written in place.
pub fn write(path: &Path, meta: Meta, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let part = part_of(path);
    remove_file(&part)?;
    let made = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .map_err(io_at("creating", &part))?;
        fill(&mut file)?;
        if let Some((uid, gid)) = meta.owner {
            chown(&part, Some(uid), Some(gid)).map_err(io_at("setting the owner of", &part))?;
        }
        file.set_permissions(Permissions::from_mode(meta.mode))
            .map_err(io_at("setting the mode of", &part))?;
        file.sync_all().map_err(io_at("writing to disk", &part))?;
        match rustix::fs::rename(&part, path) {
            Ok(()) => sync_parent(path),
            Err(Errno::BUSY | Errno::XDEV) => write_in_place(&part, path),
            Err(errno) => Err(errno_at("putting in place", path)(errno)),
        }
    })();
    if made.is_err() {
        // Best effort: the first error is the one that is reported.
        let _ = std::fs::remove_file(&part);
    }
    made
}

fn write_in_place(part: &Path, path: &Path) -> Result<()> {
    let mut from = File::open(part).map_err(io_at("reading", part))?;
    let mut to = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(io_at("opening", path))?;
    let length = io::copy(&mut from, &mut to).map_err(io_at("writing", path))?;
    to.set_len(length).map_err(io_at("writing", path))?;
    to.sync_all().map_err(io_at("writing to disk", path))?;
    remove_file(part)
}

/// Puts on disk that a name was made, replaced or removed: a file's own fsync does not hold its name (fsync(2)).
pub fn sync_parent(path: &Path) -> Result<()> {
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(io_at("writing to disk", parent))
}

/// Copies everything and returns the digest of what was copied.
fn copy_hashed(mut from: impl Read, mut to: impl Write) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(Digest::from_bytes(hash.finalize().into()));
        }
        hash.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
    }
}

/// Writes bytes; see [`write`].
pub fn write_bytes(path: &Path, meta: Meta, bytes: &[u8]) -> Result<()> {
    write(path, meta, |file| file.write_all(bytes).map_err(io_at("writing", path)))
}

/// Removes a file or link; one that is not there is fine.
pub fn remove_file(path: &Path) -> Result<()> {
    if_there(std::fs::remove_file(path))
        .map(|_| ())
        .map_err(io_at("removing", path))
}

/// Reads a whole file; `None` when it is not there.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    if_there(std::fs::read(path)).map_err(io_at("reading", path))
}

/// Reads a text file; empty when it is not there or cannot be read. For /proc and /sys, where absence is an answer.
pub fn text(path: impl AsRef<Path>) -> String {
    std::fs::read(path)
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .unwrap_or_default()
}

/// Returns the digest of a file's content.
pub fn digest(path: &Path) -> Result<Digest> {
    let file = File::open(path).map_err(io_at("opening", path))?;
    copy_hashed(file, io::sink()).map_err(io_at("reading", path))
}

/// Returns the identity of a file's state; `None` when it is not there or no plain file.
pub fn stamp(path: &Path) -> Option<FileStamp> {
    let meta = std::fs::symlink_metadata(path)
        .ok()
        .filter(std::fs::Metadata::is_file)?;
    Some(FileStamp {
        inode: meta.ino(),
        size_bytes: meta.size(),
        ctime_ns: meta
            .ctime()
            .saturating_mul(1_000_000_000)
            .saturating_add(meta.ctime_nsec()),
    })
}

/// Returns the permission bits of a plain file; `None` when there is none.
pub fn mode_of(path: &Path) -> Option<u32> {
    let meta = std::fs::symlink_metadata(path)
        .ok()
        .filter(std::fs::Metadata::is_file)?;
    Some(meta.mode() & 0o7777)
}

/// Says whether a plain file has these permission bits.
pub fn has_mode(path: &Path, mode: u32) -> bool {
    mode_of(path) == Some(mode)
}

/// Looks at what is at a path and keeps a file's content in the directory `store`, under its digest, so that it can be put back. What is
/// kept is on disk when this returns, name and all: an intent may speak of it.
pub fn keep_prior(path: &Path, store: &Path) -> Result<Prior> {
    let Some(meta) = if_there(std::fs::symlink_metadata(path)).map_err(io_at("looking at", path))? else {
        return Ok(Prior::Absent);
    };
    if meta.is_symlink() {
        let target = std::fs::read_link(path).map_err(io_at("reading", path))?;
        return Ok(Prior::Link { target });
    }
    if !meta.is_file() {
        let found = if meta.is_dir() { "a directory" } else { "a special file" };
        return Err(AgentError::Foreign {
            path: path.to_owned(),
            found,
        });
    }
    let content = keep_content(path, store)?;
    Ok(Prior::File {
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        content,
    })
}

/// Copies a file's content into `store` and returns its digest, read in one pass: a file that changes meanwhile is kept under the digest of
/// what was kept.
fn keep_content(path: &Path, store: &Path) -> Result<Digest> {
    make_private_dir(store)?;
    // Two steps may keep files of one name at the same time.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let part = store.join(format!(".{}.landfall-part", NUMBER.fetch_add(1, Ordering::Relaxed)));
    remove_file(&part)?;
    let kept = (|| {
        let from = File::open(path).map_err(io_at("opening", path))?;
        let to = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .map_err(io_at("creating", &part))?;
        let content = copy_hashed(from, &to).map_err(io_at("keeping the prior content of", path))?;
        to.sync_all().map_err(io_at("writing to disk", &part))?;
        let kept = store.join(content.hex());
        std::fs::rename(&part, &kept).map_err(io_at("putting in place", &kept))?;
        sync_parent(&kept)?;
        Ok(content)
    })();
    if kept.is_err() {
        // Best effort: the first error is the one that is reported.
        let _ = std::fs::remove_file(&part);
    }
    kept
}

/// Puts a path back to what it was. Right after nothing, half or all of the change happened. Content that is not what was kept is not put
/// back.
pub fn restore(path: &Path, prior: &Prior, store: &Path) -> Result<()> {
    remove_file(&part_of(path))?;
    match prior {
        Prior::Absent => match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => Err(AgentError::Foreign {
                path: path.to_owned(),
                found: "a directory",
            }),
            _ => remove_file(path),
        },
        Prior::Link { target } => {
            if std::fs::read_link(path).is_ok_and(|now| &now == target) {
                return Ok(());
            }
            remove_file(path)?;
            std::os::unix::fs::symlink(target, path).map_err(io_at("restoring", path))?;
            sync_parent(path)
        }
        Prior::File {
            mode,
            uid,
            gid,
            content,
        } => {
            let unchanged = std::fs::symlink_metadata(path)
                .is_ok_and(|m| m.is_file() && m.mode() & 0o7777 == *mode && m.uid() == *uid && m.gid() == *gid)
                && digest(path)? == *content;
            if unchanged {
                return Ok(());
            }
            let kept = store.join(content.hex());
            let from = File::open(&kept).map_err(io_at("reading", &kept))?;
            write(
                path,
                Meta {
                    mode: *mode,
                    owner: Some((*uid, *gid)),
                },
                |to| {
                    let found = copy_hashed(from, to).map_err(io_at("restoring", path))?;
                    if found == *content {
                        return Ok(());
                    }
                    Err(AgentError::WrongDigest {
                        what: format!("the kept content of {}", path.display()),
                        digest: *content,
                    })
                },
            )
        }
    }
}

/// Makes a directory that only root may enter, with its parents. When it returns, its name is on disk.
pub fn make_private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let absent: Vec<&Path> = path.ancestors().take_while(|p| !p.exists()).collect();
    for directory in absent.into_iter().rev() {
        let made = std::fs::DirBuilder::new().mode(0o700).create(directory);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_at("creating", directory)(error));
            }
            _ => sync_parent(directory)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_while_it_is_kept_has_its_content_under_the_right_name() {
        let dir = tempfile::tempdir().unwrap();
        let (path, store) = (dir.path().join("file"), dir.path().join("prior"));
        std::fs::write(&path, "first").unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..3000u32 {
                    std::fs::write(&path, n.to_string().repeat(1000)).unwrap();
                }
            });
            for _ in 0..30 {
                keep_prior(&path, &store).unwrap();
            }
        });
        for kept in std::fs::read_dir(&store).unwrap() {
            let kept = kept.unwrap();
            assert_eq!(
                Digest::of(&std::fs::read(kept.path()).unwrap()).hex(),
                *kept.file_name().to_str().unwrap()
            );
        }
    }

    #[test]
    fn damaged_prior_content_is_not_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let (path, store) = (dir.path().join("file"), dir.path().join("prior"));
        std::fs::write(&path, "theirs").unwrap();
        let prior = keep_prior(&path, &store).unwrap();
        std::fs::write(&path, "ours").unwrap();
        let kept = std::fs::read_dir(&store).unwrap().next().unwrap().unwrap().path();
        std::fs::write(&kept, "theirz").unwrap();
        let error = restore(&path, &prior, &store).unwrap_err();
        assert!(matches!(error, AgentError::WrongDigest { .. }), "{error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"ours");
        std::fs::write(&kept, "theirs").unwrap();
        restore(&path, &prior, &store).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
    }
}
