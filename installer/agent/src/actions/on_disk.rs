//! Puts on disk what other programs wrote for a step. kubeadm, the kubelet, systemctl and containerd's unpacking of images leave that to
//! the kernel, which takes half a minute (`vm.dirty_expire_centisecs`): after a power cut within that time, certificates and files of
//! images that the journal calls done would be empty, and nobody here could fetch them again.

use crate::error::{Result, errno_at, if_there, io_at};
use crate::files;
use crate::host::Host;
use landfall_core::action::Action;
use landfall_core::layout::{CONTAINERD_DIR, ETCD_DIR, KUBELET_DIR, KUBERNETES_DIR, UNIT_DIR};
use std::collections::BTreeSet;
use std::fs::{DirEntry, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What in the kubelet's directory belongs to pods and plugins, not to the node.
const OF_PODS: [&str; 6] = [
    "pods",
    "plugins",
    "plugins_registry",
    "pod-resources",
    "device-plugins",
    "checkpoints",
];
/// Places of whatever an undo removes or restores; some may be file systems of their own.
const UNDONE_IN: [&str; 11] = [
    "/etc",
    "/opt",
    "/usr",
    "/usr/local",
    "/var",
    "/var/lib",
    CONTAINERD_DIR,
    KUBELET_DIR,
    ETCD_DIR,
    "/var/log",
    "/var/log/pods",
];

/// Puts on disk what the programs of this action wrote. Blocks until it is there; after an import of images that may be some hundred megabytes.
pub fn put(host: &Host, action: &Action) -> Result<()> {
    match action {
        Action::Run { creates, .. } => creates.iter().try_for_each(|path| tree(&host.at(path), &[])),
        Action::Bootstrap { creates, .. } => {
            creates.iter().try_for_each(|path| tree(&host.at(path), &[]))?;
            tree(&host.at(KUBERNETES_DIR), &[])?;
            tree(&host.at(KUBELET_DIR), &OF_PODS)
        }
        // `systemctl enable` and `disable` make and remove links in these directories.
        Action::Unit { .. } | Action::StopUnit { .. } => directories(&host.at(UNIT_DIR)),
        Action::Images { .. } => file_systems(host, &[CONTAINERD_DIR]),
        // ufw writes its rules there.
        Action::Firewall { .. } => tree(&host.at("/etc/ufw"), &[]),
        // These write nothing by other programs, or nothing on the node.
        Action::Claim { .. }
        | Action::Directory { .. }
        | Action::File { .. }
        | Action::Binary { .. }
        | Action::HostsLines { .. }
        | Action::Sysctls { .. }
        | Action::KernelFeatures { .. }
        | Action::KubeconfigServer { .. }
        | Action::Apply { .. }
        | Action::Delete { .. }
        | Action::Await { .. }
        | Action::MarkUndo { .. }
        | Action::BeginUndo { .. }
        | Action::TakeBack { .. }
        | Action::FinishUndo { .. }
        | Action::LeaveCluster { .. }
        | Action::RestoreObjects { .. } => Ok(()),
    }
}

/// Puts on disk what undos have removed and restored. Blocks until it is there.
pub fn put_undone(host: &Host) -> Result<()> {
    file_systems(host, &UNDONE_IN)
}

/// Puts a file, or a directory and everything below it on its file system, on disk, with its name. What is not there, or goes meanwhile, is left out,
/// and so are the entries of the directory that `except` names.
fn tree(path: &Path, except: &[&str]) -> Result<()> {
    let Some(meta) = if_there(path.symlink_metadata()).map_err(io_at("looking at", path))? else {
        return Ok(());
    };
    below(path, &meta, except)?;
    files::sync_parent(path)
}

fn below(path: &Path, meta: &Metadata, except: &[&str]) -> Result<()> {
    if meta.is_dir() {
        for entry in entries(path)? {
            if except.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            let inner = if_there(entry.metadata()).map_err(io_at("looking at", path))?;
            if let Some(inner) = inner.filter(|inner| inner.dev() == meta.dev()) {
                below(&entry.path(), &inner, &[])?;
            }
        }
    }
    if meta.is_dir() || meta.is_file() {
        sync(path)?;
    }
    Ok(())
}

/// Puts the names in a directory and in the directories in it on disk.
fn directories(path: &Path) -> Result<()> {
    for entry in entries(path)? {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sync(&entry.path())?;
        }
    }
    sync(path)
}

/// The entries of a directory; none when it is not there.
fn entries(path: &Path) -> Result<Vec<DirEntry>> {
    let read = if_there(std::fs::read_dir(path)).map_err(io_at("reading", path))?;
    let entries: io::Result<Vec<DirEntry>> = read.into_iter().flatten().collect();
    entries.map_err(io_at("reading", path))
}

fn sync(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    if_there(synced).map(drop).map_err(io_at("writing to disk", path))
}

/// Puts the file systems on disk that hold these directories; each once.
fn file_systems(host: &Host, directories: &[&str]) -> Result<()> {
    let mut done = BTreeSet::new();
    for directory in directories.iter().map(|directory| host.at(directory)) {
        let at = |what| io_at(what, &directory);
        let Some(opened) = if_there(File::open(&directory)).map_err(at("opening"))? else {
            continue;
        };
        if done.insert(opened.metadata().map_err(at("looking at"))?.dev()) {
            rustix::fs::syncfs(&opened).map_err(errno_at("writing to disk", &directory))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_nowhere_sockets_and_what_is_missing_do_not_stop_it() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir_all(at("var/lib/kubelet/pki")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("var/lib/kubelet/pki/current.pem")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("var/lib/kubelet/socket")).unwrap();
        tree(&at("var/lib/kubelet"), &OF_PODS).unwrap();
        tree(&at("missing"), &[]).unwrap();
        directories(&at("missing")).unwrap();
        put_undone(&Host::under(root.path())).unwrap();
    }
}
