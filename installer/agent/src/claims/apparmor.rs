//! AppArmor profiles in the kernel.

use super::Left;
use crate::host::Host;
use crate::{files, processes};

/// Where the kernel lists loaded profiles, one a line: `name (mode)`.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
/// Where the name of a profile is written that shall go.
const REMOVE: &str = "/sys/kernel/security/apparmor/.remove";

/// Says whether a profile is loaded.
pub fn is_loaded(host: &Host, profile: &str) -> bool {
    let loaded = files::text(host.at(PROFILES));
    loaded.lines().any(|line| line.split(" (").next() == Some(profile))
}

/// Takes profiles out of the kernel that confine no process.
pub fn remove(host: &Host, profiles: &[String]) -> Left {
    let mut left = Left::default();
    for profile in profiles.iter().filter(|p| is_loaded(host, p)) {
        if host.has_kernel() && processes::all_pids().into_iter().any(|pid| confines(profile, pid)) {
            left.notes.push(format!(
                "the AppArmor profile {profile} stays: a process is confined by it"
            ));
        } else if let Err(error) = std::fs::write(host.at(REMOVE), profile) {
            left.residue
                .push(format!("the AppArmor profile {profile} stays: {error}"));
        }
    }
    left
}

fn confines(profile: &str, pid: i32) -> bool {
    // `name (mode)`; the first is what newer kernels have beside other security modules.
    ["attr/apparmor/current", "attr/current"]
        .iter()
        .any(|file| files::text(format!("/proc/{pid}/{file}")).split(" (").next() == Some(profile))
}
