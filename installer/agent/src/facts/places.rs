//! Directories in which files will be kept: their file systems, and whether a file can be made there.

use super::nearest_existing;
use crate::host::Host;
use crate::mounts::{self, Mount};
use landfall_core::facts::{Mounted, PlaceFacts, Tried};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags, open};
use rustix::io::Errno;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Looks at a place, or at the nearest directory above it.
pub(super) fn look(host: &Host, place: &str) -> io::Result<PlaceFacts> {
    let at = nearest_existing(host, Path::new(place));
    let space = rustix::fs::statvfs(&at)?;
    let directory = at.strip_prefix(host.at("/")).unwrap_or(&at);
    let mut seen = PlaceFacts {
        directory: Path::new("/").join(directory).to_string_lossy().into_owned(),
        device: std::fs::metadata(&at)?.dev(),
        noexec: space.f_flag.contains(StatVfsMountFlags::NOEXEC),
        write: try_to_write(&at),
        ..PlaceFacts::default()
    };
    // A directory that stands in for a machine has no disk of its own.
    if host.has_kernel() {
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        seen.mounted = mounted_at(&mounts::all(), Path::new(place));
        seen.total_bytes = bytes(space.f_blocks);
        seen.available_bytes = bytes(space.f_bavail);
        seen.free_bytes = bytes(space.f_bfree);
        (seen.inodes, seen.free_inodes) = (space.f_files, space.f_ffree);
    }
    Ok(seen)
}

/// Returns what is mounted at a path: of several mounts the last, which hides the others.
fn mounted_at(all: &[Mount], path: &Path) -> Option<Mounted> {
    let mount = all.iter().rev().find(|mount| mount.point == path)?;
    Some(Mounted {
        source: mount.source.clone(),
        kind: mount.kind.clone(),
    })
}

/// Makes a file without a name, or where the file system has none (EOPNOTSUPP; before Linux 3.11, EISDIR), one that goes at once.
fn try_to_write(directory: &Path) -> Tried {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match open(directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(_) => Tried::Works,
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => try_named(directory),
        Err(errno) => judge(errno),
    }
}

fn try_named(directory: &Path) -> Tried {
    let path = directory.join(format!(".landfall-write-{}", std::process::id()));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    match open(&path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(_) => match std::fs::remove_file(&path) {
            Ok(()) => Tried::Works,
            Err(error) => Tried::Fails(format!("{} was made and cannot be removed: {error}", path.display())),
        },
        Err(errno) => judge(errno),
    }
}

/// Only what the file system itself refuses counts.
fn judge(errno: Errno) -> Tried {
    match errno {
        Errno::ROFS | Errno::PERM | Errno::ACCESS | Errno::NOSPC | Errno::DQUOT => Tried::Fails(errno.to_string()),
        _ => Tried::Unknown,
    }
}

/// Says whether a file is immutable, or may only grow (chattr(1)). File systems without attributes have no such files.
pub(super) fn is_immutable(path: &Path) -> bool {
    use rustix::fs::{IFlags, ioctl_getflags};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(file) = open(path, flags, Mode::empty()) else {
        return false;
    };
    ioctl_getflags(&file).is_ok_and(|flags| flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

    #[test]
    fn the_nearest_directory_above_a_place_is_looked_at_and_stays_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::under(root.path());
        std::fs::create_dir_all(host.at("/var/lib")).unwrap();
        let seen = look(&host, "/var/lib/landfall/blobs").unwrap();
        assert_eq!((seen.directory.as_str(), seen.write), ("/var/lib", Tried::Works));
        assert_eq!(
            std::fs::read_dir(host.at("/var/lib")).unwrap().count(),
            0,
            "nothing is left"
        );
        assert_eq!(seen.total_bytes, 0, "the disk below is not the machine's");
        assert_eq!(try_named(&host.at("/var/lib")), Tried::Works);
        assert_eq!(
            std::fs::read_dir(host.at("/var/lib")).unwrap().count(),
            0,
            "nothing is left"
        );
        let real = look(&Host::real(), "/no/such/place").unwrap();
        assert!(real.directory == "/" && real.total_bytes > 0 && real.free_bytes >= real.available_bytes);
    }

    #[test]
    fn of_mounts_at_a_place_the_last_one_counts_and_those_around_it_do_not() {
        let mount = |point: &str, source: &str| Mount {
            point: point.into(),
            kind: "ext4".to_owned(),
            source: source.to_owned(),
            options: String::new(),
        };
        let all = [
            mount("/var/lib", "/dev/sda2"),
            mount("/var/lib/etcd", "/dev/sdb1"),
            mount("/var/lib/etcd", "/dev/sdc1"),
            mount("/var/lib/etcd/member", "/dev/sdd1"),
        ];
        let source = |path: &str| mounted_at(&all, Path::new(path)).map(|mounted| mounted.source);
        assert_eq!(source("/var/lib/etcd").as_deref(), Some("/dev/sdc1"));
        assert_eq!(source("/var/lib/kubelet"), None);
    }

    /// Needs root.
    #[test]
    fn mounts_that_are_read_only_or_noexec_are_seen() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::under(root.path());
        let point = host.at("/opt");
        std::fs::create_dir_all(&point).unwrap();
        mount("none", &point, "tmpfs", MountFlags::NOEXEC, None).unwrap();
        let noexec = look(&host, "/opt/landfall");
        let remounted = mount_remount(&point, MountFlags::RDONLY, "");
        let read_only = look(&host, "/opt/landfall");
        unmount(&point, UnmountFlags::empty()).unwrap();
        remounted.unwrap();
        let (noexec, read_only) = (noexec.unwrap(), read_only.unwrap());
        assert!(noexec.noexec && noexec.write == Tried::Works && noexec.directory == "/opt");
        let Tried::Fails(why) = read_only.write else {
            panic!("{read_only:?}")
        };
        assert!(why.contains("Read-only"), "{why}");
    }

    /// Needs root, and a file system with attributes; on others nothing is immutable.
    #[test]
    fn immutable_files_are_seen() {
        use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("hosts");
        let file = std::fs::File::create(&path).unwrap();
        assert!(!is_immutable(&path));
        assert!(!is_immutable(&root.path().join("absent")));
        let Ok(flags) = ioctl_getflags(&file) else { return };
        for flag in [IFlags::IMMUTABLE, IFlags::APPEND] {
            if ioctl_setflags(&file, flags | flag).is_ok() {
                let seen = is_immutable(&path);
                ioctl_setflags(&file, flags).unwrap();
                assert!(seen, "{flag:?}");
            }
        }
    }
}
