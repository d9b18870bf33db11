//! Puts on disk what other programs wrote for a step. kubeadm, the kubelet, systemctl and containerd's unpacking of images leave that to
//! the kernel, which takes half a minute (`vm.dirty_expire_centisecs`): after a power cut within that time, certificates and files of
//! images that the journal calls done would be empty, and nobody here could fetch them again.

use crate::error::{Result, errno_at, if_there, io_at};
use crate::host::Host;
use landfall_core::action::Action;
use landfall_core::layout;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Where the kubelet keeps its configuration and its certificates.
const KUBELET_DIR: &str = "/var/lib/kubelet";
/// What else is there: volumes of pods and sockets, which are made anew at each boot.
const OF_PODS: [&str; 6] = [
    "pods",
    "plugins",
    "plugins_registry",
    "pod-resources",
    "device-plugins",
    "checkpoints",
];
/// Where containerd unpacks images.
const CONTAINERD_DIR: &str = "/var/lib/containerd";

/// Puts on disk what the programs of this action wrote. Blocks until it is there; after an import of images that may be some hundred megabytes.
pub fn put(host: &Host, action: &Action) -> Result<()> {
    match action {
        Action::Run { creates, .. } => creates.iter().try_for_each(|path| tree(&host.at(path))),
        Action::Bootstrap { creates, .. } => {
            let own = [layout::KUBERNETES_DIR, KUBELET_DIR].map(Path::new);
            let paths = own.into_iter().chain(creates.iter().map(AsRef::as_ref));
            paths.map(|path| host.at(path)).try_for_each(|path| tree(&path))
        }
        // `systemctl enable` makes links in folders below.
        Action::Unit { .. } => tree(&host.at(layout::UNIT_DIR)),
        Action::Images { .. } => file_system(&host.at(CONTAINERD_DIR)),
        _ => Ok(()),
    }
}

/// Puts on disk what undos removed or restored, on every file system that they are about. Blocks until it is there.
pub fn put_undone(host: &Host) -> Result<()> {
    let places = ["/etc", "/opt", "/usr/local", "/var/lib"];
    places.iter().try_for_each(|place| file_system(&host.at(place)))
}

/// Puts a file, or a directory and everything below it on its file system, on disk, with its name. What is not there, or goes meanwhile, is left out.
fn tree(path: &Path) -> Result<()> {
    let Some(meta) = if_there(path.symlink_metadata()).map_err(io_at("looking at", path))? else {
        return Ok(());
    };
    below(path, &meta)?;
    sync(path.parent().unwrap_or(path))
}

fn below(path: &Path, meta: &Metadata) -> Result<()> {
    if meta.is_dir() {
        let entries = if_there(std::fs::read_dir(path)).map_err(io_at("reading", path))?;
        for entry in entries.into_iter().flatten() {
            let entry = entry.map_err(io_at("reading", path))?;
            if OF_PODS.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            let inner = if_there(entry.metadata()).map_err(io_at("looking at", path))?;
            if let Some(inner) = inner.filter(|inner| inner.dev() == meta.dev()) {
                below(&entry.path(), &inner)?;
            }
        }
    }
    if meta.is_dir() || meta.is_file() {
        sync(path)?;
    }
    Ok(())
}

fn sync(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    if_there(synced).map(drop).map_err(io_at("writing to disk", path))
}

/// Puts the whole file system on disk that holds a directory.
fn file_system(directory: &Path) -> Result<()> {
    let Some(opened) = if_there(File::open(directory)).map_err(io_at("opening", directory))? else {
        return Ok(());
    };
    rustix::fs::syncfs(opened).map_err(errno_at("writing to disk", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_nowhere_sockets_and_what_is_missing_do_not_stop_it() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir_all(at("kubelet/pods/volume")).unwrap();
        std::fs::write(at("kubelet/config.yaml"), "a: 1\n").unwrap();
        std::os::unix::fs::symlink("nowhere", at("kubelet/link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("kubelet/socket")).unwrap();
        tree(&at("kubelet")).unwrap();
        tree(&at("missing")).unwrap();
        file_system(&at("missing")).unwrap();
        file_system(&at("kubelet")).unwrap();
    }
}
