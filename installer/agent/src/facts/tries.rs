//! What is found out by trying, in namespaces that go with the thread: an overlay on the real file system, a table in each family of
//! nf_tables. Modules that the kernel loads for a try are unloaded again.

use super::nearest_existing;
use crate::actions::system::{ModuleIndex, loaded_modules};
use crate::claims::modules;
use crate::host::Host;
use crate::netlink::nft::{self, Table};
use landfall_core::facts::Tried;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::UnshareFlags;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::path::Path;

/// Families of nf_tables that are tried.
const FAMILIES: [&str; 3] = ["ip", "ip6", "inet"];
/// Modules that a try may make the kernel load, with what they need.
const MODULES: [&str; 2] = ["overlay", "nf_tables"];

/// Does `work`, and unloads what the kernel has loaded for it.
pub(super) fn without_new_modules<T>(host: &Host, work: impl FnOnce() -> T) -> T {
    let before = loaded_modules(host);
    let result = work();
    let index = ModuleIndex::read(host);
    let after = loaded_modules(host);
    let ours = MODULES.iter().flat_map(|module| index.closure(module));
    let new: Vec<String> = ours.filter(|m| after.contains(m) && !before.contains(m)).collect();
    // Best effort: what is in use by now is somebody else's.
    let _: Vec<String> = modules::unload(host, &new);
    result
}

/// Does `work` on a thread of its own with namespaces of its own; `None` when it may not have them.
fn apart<T: Send>(namespaces: UnshareFlags, work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            #[expect(
                deprecated,
                reason = "only this thread's own namespaces are left, and no descriptor is shared"
            )]
            rustix::thread::unshare(namespaces).ok()?;
            Some(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes a table in each family, in a network namespace of its own.
pub(super) fn nftables_families() -> BTreeMap<String, Tried> {
    let tried = apart(UnshareFlags::NEWNET, || {
        FAMILIES.map(|family| (family.to_owned(), try_family(family)))
    });
    tried.into_iter().flatten().collect()
}

fn try_family(family: &'static str) -> Tried {
    let name = "landfall-try".to_owned();
    match nft::make_table(&Table { family, name }) {
        Ok(()) => Tried::Works,
        Err(error) => {
            let absent = [
                Errno::OPNOTSUPP,
                Errno::AFNOSUPPORT,
                Errno::PROTONOSUPPORT,
                Errno::INVAL,
            ];
            let is_absent = absent
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
            if is_absent {
                Tried::Fails(error.to_string())
            } else {
                Tried::Unknown
            }
        }
    }
}

/// Mounts an overlay in the file system of `directory`, or of the nearest one above it, in a mount namespace of its own.
pub(super) fn overlay(host: &Host, directory: &str) -> Tried {
    let parent = nearest_existing(host, Path::new(directory));
    let place = parent.join(format!(".landfall-overlay-{}", std::process::id()));
    let made = make_layers(&place);
    let tried = match made {
        Ok(()) => apart(UnshareFlags::NEWNS, || try_overlay(&place)).unwrap_or_default(),
        // Whether files can be made there is another check's.
        Err(_) => Tried::Unknown,
    };
    // The overlay was in the other namespace, and is gone: this removes plain directories.
    match std::fs::remove_dir_all(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Tried::Fails(format!(
            "{} was made for a try and cannot be removed: {error}",
            place.display()
        )),
        _ => tried,
    }
}

const LAYERS: [&str; 4] = ["lower", "upper", "work", "merged"];

fn make_layers(place: &Path) -> io::Result<()> {
    std::fs::create_dir(place)?;
    for layer in LAYERS {
        std::fs::create_dir(place.join(layer))?;
    }
    std::fs::write(place.join("lower/file"), "")?;
    std::fs::create_dir(place.join("lower/directory"))
}

fn try_overlay(place: &Path) -> Tried {
    let [lower, upper, work, merged] = LAYERS.map(|layer| place.join(layer));
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    if mount_change("/", private).is_err() {
        return Tried::Unknown;
    }
    if !tells_kinds(&lower) {
        // containerd asks for this as well (continuity/fs, SupportsDType).
        return Tried::Fails(
            "its directories do not tell what is a directory (d_type; XFS made with ftype=0)".to_owned(),
        );
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let Ok(options) = CString::new(options) else {
        return Tried::Unknown;
    };
    match mount(
        "overlay",
        &merged,
        "overlay",
        MountFlags::empty(),
        Some(options.as_c_str()),
    ) {
        Ok(()) => {}
        // Not allowed here, or the kernel has none at all, which is another check's.
        Err(Errno::PERM | Errno::ACCESS | Errno::NODEV) => return Tried::Unknown,
        Err(errno) => return Tried::Fails(format!("mounting: {errno}")),
    }
    // Removing a file of the lower layer makes a whiteout in the upper one.
    let used = std::fs::remove_file(merged.join("file")).and_then(|()| std::fs::write(merged.join("new"), ""));
    let tried = match used {
        Ok(()) => Tried::Works,
        Err(error) => Tried::Fails(format!("changing a file in it: {error}")),
    };
    // The namespace goes with this thread, and the mount with it; this only makes it sooner.
    let _ = unmount(&merged, UnmountFlags::DETACH);
    tried
}

fn tells_kinds(directory: &Path) -> bool {
    use rustix::fs::{Dir, FileType, Mode, OFlags, open};
    let Ok(directory) = open(
        directory,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return true;
    };
    let Ok(entries) = Dir::read_from(directory) else {
        return true;
    };
    !entries.flatten().any(|entry| entry.file_type() == FileType::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs root. Whether it works depends on the file system below; that nothing is left does not.
    #[test]
    fn an_overlay_is_tried_and_leaves_nothing() {
        let before = crate::mounts::all();
        // tmpfs takes overlays, whatever this machine's disks do.
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let host = Host::under(root.path());
        std::fs::create_dir_all(host.at("/var/lib")).unwrap();
        assert_eq!(overlay(&host, "/var/lib/containerd"), Tried::Works);
        assert_eq!(std::fs::read_dir(host.at("/var/lib")).unwrap().count(), 0);
        assert_eq!(crate::mounts::all(), before);
        std::fs::create_dir_all(host.at("/var/lib/containerd")).unwrap();
        assert_eq!(overlay(&host, "/var/lib/containerd"), Tried::Works);
        assert_eq!(std::fs::read_dir(host.at("/var/lib/containerd")).unwrap().count(), 0);
    }

    /// Needs root. An overlay's own upper layer may be no overlay (fs/overlayfs, `ovl_dentry_remote` and `d_type`); proc is none either.
    #[test]
    fn a_file_system_that_takes_no_overlay_is_told() {
        assert_eq!(
            overlay(&Host::real(), "/proc/landfall"),
            Tried::Unknown,
            "no directory can be made there"
        );
        assert!(tells_kinds(Path::new("/dev/shm")));
    }

    /// Needs root.
    #[test]
    fn families_are_tried_where_nobody_sees_it() {
        let before = nft::read().unwrap();
        let tried = nftables_families();
        assert_eq!(tried.keys().collect::<Vec<_>>(), ["inet", "ip", "ip6"]);
        assert!(tried.values().all(|t| *t == Tried::Works), "{tried:?}");
        assert_eq!(nft::read().unwrap().tables, before.tables);
    }
}
