//! Mounts of this mount namespace: which there are below a directory, and taking them away, deepest first.

use crate::child::Children;
use crate::files;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is.
    pub point: PathBuf,
    /// Filesystem type.
    pub kind: String,
    /// Options of the filesystem, for instance the controllers of a cgroup hierarchy.
    pub options: String,
}

impl Mount {
    /// Says whether its files are on another machine: detaching such a mount would hide it from whoever must end it.
    pub fn is_remote(&self) -> bool {
        let kind = self.kind.as_str();
        matches!(
            kind,
            "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "glusterfs" | "lustre" | "9p" | "afs" | "beegfs"
        ) || kind.starts_with("fuse")
    }
}

/// Lists all mounts in the order in which they were made.
pub fn all() -> Vec<Mount> {
    // This thread's view, which is the process's unless a test has given the thread a namespace of its own.
    parse(&files::text("/proc/thread-self/mountinfo"))
}

fn parse(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let (front, back) = line.split_once(" - ")?;
            let mut back = back.split(' ');
            Some(Mount {
                point: PathBuf::from(unescape(front.split(' ').nth(4)?)),
                kind: back.next()?.to_owned(),
                options: back.nth(1).unwrap_or_default().to_owned(),
            })
        })
        .collect()
}

/// Undoes the kernel's octal escapes of blank, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail
            .get(..3)
            .and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns the mounts below `directory` (not the one at it), in the order in which they were made.
pub fn below(directory: &Path) -> Vec<Mount> {
    all()
        .into_iter()
        .filter(|m| m.point != directory && m.point.starts_with(directory))
        .collect()
}

/// Says whether something is mounted at `path` itself.
pub fn is_mount_point(path: &Path) -> bool {
    all().iter().any(|m| m.point == path)
}

/// Takes away the mounts that `wanted` says, newest first. Returns a line for each that stays.
pub fn take_away(wanted: impl Fn(&Mount) -> bool, children: &Children) -> Vec<String> {
    let mut residue = Vec::new();
    // The newest first: a mount on top of another must go before it.
    for mount in all().into_iter().rev().filter(|m| wanted(m)) {
        if let Err(errno) = unmount_patiently(&mount, children) {
            residue.push(format!(
                "the mount {} ({}) stays: {errno}",
                mount.point.display(),
                mount.kind
            ));
        }
    }
    residue
}

fn unmount_patiently(mount: &Mount, children: &Children) -> Result<(), Errno> {
    // A process that was just killed may hold its files some milliseconds longer.
    for _ in 0..20 {
        match unmount(&mount.point, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) => {
                if children.sleep(Duration::from_millis(50)).is_err() {
                    return Err(Errno::BUSY);
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    if mount.is_remote() {
        return Err(Errno::BUSY);
    }
    unmount(&mount.point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        let text = "36 35 98:0 /mnt1 /mnt/with\\040blank rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
                    31 23 0:27 / /sys/fs/cgroup/pids rw shared:5 - cgroup cgroup rw,pids\nnonsense";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].point, Path::new("/mnt/with blank"));
        assert_eq!(
            (mounts[1].kind.as_str(), mounts[1].options.as_str()),
            ("cgroup", "rw,pids")
        );
    }
}
