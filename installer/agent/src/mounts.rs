//! Mounts of this mount namespace, in the order in which they were made.

use crate::files;
use std::path::{Path, PathBuf};

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is.
    pub point: PathBuf,
    /// Filesystem type.
    pub kind: String,
    /// What is mounted: a device, or a name without a meaning.
    pub source: String,
    /// Options of the filesystem, for instance the controllers of a cgroup hierarchy.
    pub options: String,
}

impl Mount {
    /// Says whether its files are on another machine: a mount that was detached lazily can no longer be found and unmounted.
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
                source: unescape(back.next().unwrap_or_default()),
                options: back.next().unwrap_or_default().to_owned(),
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
            (mounts[0].kind.as_str(), mounts[0].source.as_str()),
            ("ext3", "/dev/root")
        );
        assert_eq!(
            (mounts[1].kind.as_str(), mounts[1].options.as_str()),
            ("cgroup", "rw,pids")
        );
    }
}
