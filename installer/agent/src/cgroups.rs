//! Control groups of containers, in every hierarchy of version 1 and 2.

use crate::child::Children;
use crate::processes::{self, PATIENCE};
use crate::{files, mounts};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Directories of one group in all hierarchies, those that are there.
fn directories(name: &str) -> Vec<PathBuf> {
    mounts::all()
        .into_iter()
        .filter(|m| matches!(m.kind.as_str(), "cgroup" | "cgroup2"))
        .map(|m| m.point.join(name))
        .filter(|path| path.is_dir())
        .collect()
}

/// Says whether a group is there in any hierarchy that has a controller.
pub fn exists(name: &str) -> bool {
    directories(name).iter().any(|directory| !is_named(directory))
}

/// Says whether a group lies in systemd's named hierarchy (version 1), which has no controller and mirrors the others. A container that
/// stands for a machine sees its host's there (podman mounts it so), with the groups of every machine beside it.
fn is_named(directory: &Path) -> bool {
    directory.starts_with("/sys/fs/cgroup/systemd")
}

/// Returns all processes in these groups and the groups below them.
pub fn processes(names: &[&str]) -> Vec<i32> {
    processes_in(&all_directories(names))
}

fn processes_in(directories: &[PathBuf]) -> Vec<i32> {
    let groups = directories.iter().flat_map(|directory| tree(directory));
    let listed = groups.map(|group| files::text(group.join("cgroup.procs")));
    listed
        .flat_map(|text| text.lines().filter_map(|l| l.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

/// Kills all processes in these groups and the groups below them, where the kernel can do so in one go (version 2). Elsewhere the caller
/// kills what [`processes`] lists.
pub fn kill(names: &[&str]) {
    kill_in(&all_directories(names));
}

fn kill_in(directories: &[PathBuf]) {
    for directory in directories {
        // Version 1 has no such file, and cgroupfs lets nobody make one.
        let _ = std::fs::write(directory.join("cgroup.kill"), "1");
    }
}

fn all_directories(names: &[&str]) -> Vec<PathBuf> {
    names.iter().flat_map(|name| directories(name)).collect()
}

/// Removes groups and those below them, and kills what is in them. Returns a line for each that stays.
pub fn remove(names: &[String], children: &Children) -> Vec<String> {
    let (named, real): (Vec<_>, Vec<_>) = names
        .iter()
        .flat_map(|n| directories(n))
        .partition(|directory| is_named(directory));
    let residue = real.iter().flat_map(|directory| remove_tree(directory, children));
    let residue = residue.collect();
    // Ours are empty by now and go; those of other machines are in use and stay.
    for group in named.iter().flat_map(|directory| tree(directory)) {
        let _ = rustix::fs::rmdir(&group);
    }
    residue
}

/// Removes a group and all below it. The runtime, which may still run, can finish a start that it began: so groups and processes that come
/// meanwhile go too. Dead processes leave their group a little later than they die.
fn remove_tree(directory: &Path, children: &Children) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        kill_in(&[directory.to_owned()]);
        processes::kill(|| processes_in(&[directory.to_owned()]));
        let mut residue = Vec::new();
        for group in tree(directory) {
            match rustix::fs::rmdir(&group) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => residue.push(format!("the cgroup {} stays: {errno}", group.display())),
            }
        }
        if residue.is_empty() || Instant::now() >= deadline || children.sleep(Duration::from_millis(25)).is_err() {
            return residue;
        }
    }
}

/// A group and all below it, deepest first.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut list = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            list.extend(tree(&entry.path()));
        }
    }
    list.push(directory.to_owned());
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_enters_a_group_while_it_is_removed_is_killed() {
        let name = format!("landfall-test-{}", std::process::id());
        let hierarchies: Vec<_> = mounts::all()
            .into_iter()
            .filter(|m| m.kind == "cgroup2" || m.kind == "cgroup" && m.options.contains("pids"))
            .collect();
        assert!(!hierarchies.is_empty(), "no hierarchy of cgroups is mounted");
        let mut late = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
        for hierarchy in &hierarchies {
            let inner = hierarchy.point.join(&name).join("pod/container");
            std::fs::create_dir_all(&inner).unwrap();
            std::fs::write(inner.join("cgroup.procs"), late.id().to_string()).unwrap();
        }
        // As when the runtime finishes a start after the look for processes.
        let residue = remove(std::slice::from_ref(&name), &Children::default());
        let ended = late.wait().unwrap();
        assert_eq!(residue, Vec::<String>::new());
        assert!(!ended.success() && !exists(&name));
    }

    #[test]
    fn listing_processes_kills_none() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("pod");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(dir.path().join("cgroup.kill"), "").unwrap();
        std::fs::write(dir.path().join("cgroup.procs"), "7\n").unwrap();
        std::fs::write(below.join("cgroup.procs"), "8\n9\n").unwrap();
        assert_eq!(processes_in(&[dir.path().to_owned()]), [8, 9, 7]);
        assert_eq!(std::fs::read_to_string(dir.path().join("cgroup.kill")).unwrap(), "");
        kill_in(&[dir.path().to_owned()]);
        assert_eq!(std::fs::read_to_string(dir.path().join("cgroup.kill")).unwrap(), "1");
    }
}
