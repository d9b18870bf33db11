//! Files and directories.

use super::Left;
use crate::agent::Agent;
use crate::safe_delete;
use rustix::fs::{FlockOperation, flock};
use std::path::{Path, PathBuf};

/// Where network namespaces are mounted, by everybody.
pub const NETNS_DIR: &str = "/run/netns";
/// Names that containerd gives to the network namespaces of pods (go-cni and internal/cri/server/sandbox_run.go: `cni-` and a UUID).
pub const POD_NETNS: &str = "/run/netns/cni-*";
/// The lock that every iptables takes.
const XTABLES_LOCK: &str = "/run/xtables.lock";
/// Where go-runc writes for each `exec`.
const RUNC_FILES: &str = "/tmp/runc-process*";

/// Directories that other programs use by their own custom, and what in them is landfall's. Of the rest, only directories that are empty go.
const SHARED: [(&str, &[&str]); 5] = [
    // containerd makes `bin` and `lib` there; `ctr install`, or an administrator, puts programs in.
    ("/opt/containerd", &[]),
    // Sockets and state of NRI plugins, which any container runtime may serve.
    ("/run/nri", &["nri.sock"]),
    ("/var/lib/nri", &[]),
    // Each CNI library keeps its results there by the network's name; landfall's network has landfall's name.
    ("/var/lib/cni", &["results/landfall-*", "networks/landfall"]),
    // Volume plugins that an administrator puts there for the kubelet.
    ("/usr/libexec/kubernetes", &[]),
];

/// Says whether a claimed path means pods' network namespaces; older journals have the whole directory.
pub fn is_pod_netns(path: &Path) -> bool {
    path == Path::new(POD_NETNS) || path == Path::new(NETNS_DIR)
}

/// Returns what of a claimed path was absent: all of it; its content, when it is an empty directory (a disk mounted for it, for
/// instance); or nothing. A pattern counts as absent when nothing has such a name.
pub fn absent_part(agent: &Agent, path: &Path) -> Option<PathBuf> {
    let host = &agent.host;
    if path == Path::new(NETNS_DIR) {
        return absent_part(agent, Path::new(POD_NETNS));
    }
    if pattern_of(path).is_some() {
        return matches(agent, path).is_empty().then(|| path.to_owned());
    }
    let real = host.at(path);
    if safe_delete::kind_at(&real).is_none() {
        return Some(path.to_owned());
    }
    let mut entries = std::fs::read_dir(real).ok()?.flatten();
    let empty = entries.all(|e| e.file_name() == "lost+found");
    empty.then(|| path.join("*"))
}

/// Splits a path whose last part ends in `*`, which stands for every name that begins so.
fn pattern_of(path: &Path) -> Option<(&Path, String)> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    Some((path.parent()?, name.strip_suffix('*')?.to_owned()))
}

fn matches(agent: &Agent, path: &Path) -> Vec<PathBuf> {
    let Some((parent, prefix)) = pattern_of(path) else {
        return vec![];
    };
    let entries = std::fs::read_dir(agent.host.at(parent)).into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_name().to_string_lossy().starts_with(&prefix))
        .map(|e| e.path())
        .collect()
}

/// Removes what a claimed path stands for, as far as it is landfall's alone. `foreign_runtime` names a container runtime of others that runs.
pub fn remove(agent: &Agent, path: &Path, foreign_runtime: Option<&str>) -> Left {
    let real = agent.host.at(path);
    if is_pod_netns(path) {
        let residue = matches(agent, Path::new(POD_NETNS))
            .iter()
            .flat_map(|p| safe_delete::remove_tree(p))
            .collect();
        if path == Path::new(NETNS_DIR) {
            // Not empty, or mounted: others are in it.
            let _ = std::fs::remove_dir(&real);
        }
        return Left::residue(residue);
    }
    if let Some((_, landfalls)) = SHARED.iter().find(|(shared, _)| path.starts_with(shared)) {
        return remove_shared(agent, path, landfalls);
    }
    if path == Path::new(XTABLES_LOCK) && is_locked(&real) {
        return Left::note(format!("{} stays: a program holds this lock", path.display()));
    }
    if path == Path::new(RUNC_FILES)
        && let Some(runtime) = foreign_runtime
        && !matches(agent, path).is_empty()
    {
        return Left::note(format!(
            "{} stay: {runtime} runs, which makes such files too",
            path.display()
        ));
    }
    match pattern_of(path) {
        Some((parent, prefix)) if prefix.is_empty() => {
            Left::residue(safe_delete::remove_content(&agent.host.at(parent)))
        }
        Some(_) => Left::residue(
            matches(agent, path)
                .iter()
                .flat_map(|p| safe_delete::remove_tree(p))
                .collect(),
        ),
        None => Left::residue(safe_delete::remove_tree(&real)),
    }
}

fn is_locked(path: &Path) -> bool {
    std::fs::File::open(path).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}

fn remove_shared(agent: &Agent, path: &Path, landfalls: &[&str]) -> Left {
    let directory = pattern_of(path).map_or(path, |(parent, _)| parent);
    let mut residue = Vec::new();
    for name in landfalls {
        let inner = directory.join(name);
        match pattern_of(&inner) {
            Some(_) => residue.extend(matches(agent, &inner).iter().flat_map(|p| safe_delete::remove_tree(p))),
            None => residue.extend(safe_delete::remove_tree(&agent.host.at(&inner))),
        }
    }
    let real = agent.host.at(directory);
    remove_empty(&real, directory == path);
    let is_left = std::fs::read_dir(&real)
        .is_ok_and(|mut entries| entries.any(|e| e.is_ok_and(|e| e.file_name() != "lost+found")));
    let notes = if is_left && residue.is_empty() {
        vec![format!(
            "the directory {} stays: it holds what landfall did not make",
            directory.display()
        )]
    } else {
        vec![]
    };
    Left { residue, notes }
}

/// Removes empty directories below a directory and, when asked for, itself. Links are not followed.
fn remove_empty(directory: &Path, itself: bool) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) && entry.file_name() != "lost+found" {
            remove_empty(&entry.path(), true);
        }
    }
    if itself {
        // One that is not empty stays; the caller looks.
        let _ = std::fs::remove_dir(directory);
    }
}
