//! What opaque daemons make: which of it was absent before ([`undo_for`]), and taking it away again ([`remove`]). The order of removal is
//! that of who holds whom: units, processes, mounts, links, rules, cgroups, settings, files, modules.
//!
//! # How "still landfall's, and alone?" is decided
//!
//! A claim names what the daemons are known to make. Two questions are asked of each thing, of each kind in its own way. At the intent:
//! was it there? What was there is not claimed. At the undo: is it still what landfall's daemons made, and does nobody else use it? The
//! undo leads to the present state without landfall's share, not to the day of the install. What stays for that reason is a note, not
//! residue.
//!
//! | kind | claimed when absent before | at the undo, still landfall's | at the undo, alone |
//! |---|---|---|---|
//! | unit | active | by name; stopped, files are steps of their own | units are nobody else's |
//! | program | running | a process of this agent's PID namespace whose executable is at the claimed path | its processes are landfall's |
//! | cgroup | a group of this name in a hierarchy with controllers | by name (`kubepods` is the kubelet's) | what is in it is pods' |
//! | mount | anything mounted below the directory | below a claimed directory | pods' mounts serve pods |
//! | network namespace | any `/run/netns/cni-*` | only `cni-*`, the name that containerd gives; whatever else is there was made by others | the directory goes only when it was absent and is empty |
//! | link | the name | the name and the kind (`cni0` a bridge, `flannel*` a vxlan) | a bridge has no port but pods' (`veth`) |
//! | route | destinations of routes into the network that were there | into the pod network, over a router that is a member in the journal's records | a route to one node's pods serves nobody else |
//! | nftables table | family and name | by name: no other program uses these | rules in it are its owner's |
//! | iptables chain | a chain of this prefix | by prefix (`KUBE-`, `CNI-`, `FLANNEL-`); jumps to them go with them | tables and base chains go when they were absent, hold no rule and accept |
//! | kernel setting | always recorded, with its value | it has the value that was set ([`settings`]); else it stays | `ip_forward` stays on while a bridge, tunnel, address translation or container runtime of others is here ([`forwarding`]) |
//! | module | loaded, or built in | by name, with what it needs | no user that the kernel counts, and none of its kind in any network namespace: link, table, mount ([`modules`]) |
//! | path | anything at it but an empty directory | by path, and for directories that other programs use by custom, by what landfall is known to put in ([`paths`]) | a lock file is not held; files of runc stay while another runtime runs; a shared directory goes when it ends empty |
//! | AppArmor profile | loaded | by name (containerd's) | no process is confined by it |
//!
//! A setting goes back to what the machine's other sysctl files say by now, without landfall's own, else to the value before. The kernel
//! changes `accept_redirects` and each link's `forwarding` along with `ip_forward`: they are recorded and put back with it.
//!
//! Paths without a rule of their own are landfall's whole: `/etc/kubernetes`, `/var/lib/kubelet` and `/var/lib/etcd` are the cluster's, and
//! containerd locks its database, so that no other can work in `/var/lib/containerd`. `/var/log/kubernetes` holds the audit log; it goes
//! with the cluster, and the plan says so.

mod apparmor;
mod forwarding;
mod links;
pub(crate) mod modules;
mod paths;
mod routes;
mod rules;
mod settings;

use crate::actions::file::absent_directories;
use crate::actions::system;
use crate::actions::unit::{self, StopHow};
use crate::agent::Agent;
use crate::error::{AgentError, Result};
use crate::netlink::{nft, route};
use crate::{cgroups, mounts, processes};
use landfall_core::action::{Claims, ClusterEffect, Undo};
pub use modules::unload as unload_modules;
pub use settings::{
    asked_otherwise, restore as restore_settings, undo_for as undo_for_settings, write as write_setting,
    write_all as write_settings,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What an undo leaves.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Left {
    /// What should have gone and did not, a line each.
    pub residue: Vec<String>,
    /// What stays because others use it, or changed it since, a line each.
    pub notes: Vec<String>,
}

impl Left {
    fn residue(residue: Vec<String>) -> Self {
        Self { residue, notes: vec![] }
    }

    fn note(note: String) -> Self {
        Self {
            residue: vec![],
            notes: vec![note],
        }
    }

    fn add(&mut self, other: Self) {
        self.residue.extend(other.residue);
        self.notes.extend(other.notes);
    }
}

/// Returns everything that the journal claims: what is landfall's on this machine, whatever part of it is being taken back.
pub fn of_journal(agent: &Agent) -> Result<Claims> {
    let mut all = Claims::default();
    for entry in agent.ownership()?.entries {
        if let Undo::RemoveClaims { claims, .. } = entry.undo {
            all.programs.extend(claims.programs);
            all.links.extend(claims.links);
            all.nft_tables.extend(claims.nft_tables);
            all.iptables_chains.extend(claims.iptables_chains);
            all.modules.extend(claims.modules);
        }
    }
    Ok(all)
}

/// Drops from the claims whatever is there already: that is not ours to remove. Reads only.
pub fn undo_for(agent: &Agent, claims: &Claims, effects: &[ClusterEffect]) -> Result<Undo> {
    let host = &agent.host;
    let mut ours = claims.clone();
    // First, because reading nftables may itself load modules.
    ours.modules = system::absent_with_needs(host, &claims.modules);
    let sysctls = settings::prior(host, &claims.sysctls);
    let set = settings::set_values(&sysctls, &[]);
    let units: Vec<&str> = claims.units.iter().map(String::as_str).collect();
    if !units.is_empty() {
        let states = unit::states(&agent.children, host, &units)?;
        ours.units
            .retain(|u| !states.get(u).is_some_and(unit::UnitState::is_active));
    }
    let mut absent_parents: Vec<PathBuf> = Vec::new();
    for path in &claims.paths {
        // The directory of network namespaces goes only when it ends empty.
        let parent = if paths::is_pod_netns(path) {
            Some(Path::new(paths::NETNS_DIR))
        } else {
            path.parent()
        };
        if let Some(parent) = parent {
            absent_parents.extend(absent_directories(host, parent)?);
        }
    }
    absent_parents.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    absent_parents.dedup();
    ours.paths = claims
        .paths
        .iter()
        .filter_map(|path| paths::absent_part(agent, path))
        .collect();
    ours.apparmor_profiles
        .retain(|profile| !apparmor::is_loaded(host, profile));
    let absent_bases = if host.has_kernel() {
        drop_present(claims, &mut ours)?
    } else {
        vec![]
    };
    Ok(Undo::RemoveClaims {
        claims: ours,
        sysctls,
        set,
        absent_bases,
        absent_parents,
        effects: effects.to_vec(),
    })
}

/// Drops what the kernel has already, and returns which of iptables-nft's own tables and base chains are absent.
fn drop_present(claims: &Claims, ours: &mut Claims) -> Result<Vec<String>> {
    ours.mounts_under
        .retain(|dir| dir == Path::new(paths::NETNS_DIR) || mounts::below(dir).is_empty());
    ours.cgroups.retain(|name| !cgroups::exists(name));
    ours.programs
        .retain(|program| processes::running(std::slice::from_ref(program)).is_empty());
    if !claims.links.is_empty() {
        let links = route::links().map_err(kernel("listing links"))?;
        ours.links.retain(|name| !links.iter().any(|l| &l.name == name));
    }
    ours.prior_routes = routes::prior(claims).map_err(kernel("listing routes"))?;
    if claims.nft_tables.is_empty() && claims.iptables_chains.is_empty() {
        return Ok(vec![]);
    }
    let rules = nft::read().map_err(kernel("reading nftables"))?;
    ours.nft_tables.retain(|name| !rules.has_table(name));
    ours.iptables_chains.retain(|prefix| !rules.has_chain_with(prefix));
    Ok(if claims.iptables_chains.is_empty() {
        vec![]
    } else {
        rules.absent_iptables_bases()
    })
}

fn kernel(what: &str) -> impl FnOnce(std::io::Error) -> AgentError + '_ {
    move |source| AgentError::Kernel {
        what: what.to_owned(),
        source,
    }
}

/// Stops the daemons of all these claims and ends their processes: the first part of [`remove`], done for several claims at once.
pub fn quiesce(agent: &Agent, all: &[&Claims]) -> Vec<String> {
    let mut residue = Vec::new();
    let collect = |pick: fn(&Claims) -> &Vec<String>| {
        let mut names: Vec<&str> = Vec::new();
        for name in all.iter().flat_map(|c| pick(c)) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    };
    let cgroup_names = collect(|c| &c.cgroups);
    let mut units = collect(|c| &c.units);
    // Under the systemd driver the pods' cgroup is a slice, which would otherwise live on as a unit.
    units.extend(cgroup_names.iter().filter(|n| n.ends_with(".slice")));
    if !units.is_empty()
        && let Err(error) = unit::stop(agent, &units, StopHow::AtOnce)
    {
        residue.push(format!("{} could not be stopped: {}", units.join(" "), error.line()));
    }
    if agent.host.has_kernel() {
        let programs: Vec<PathBuf> = all.iter().flat_map(|c| c.programs.iter().cloned()).collect();
        residue.extend(processes::end(|| {
            cgroups::kill(&cgroup_names);
            let mut pids = processes::running(&programs);
            pids.extend(cgroups::processes(&cgroup_names));
            pids
        }));
    }
    residue
}

/// What [`remove`] takes away: the parts of an `Undo::RemoveClaims`.
#[derive(Debug, Clone, Copy)]
pub struct Removal<'a> {
    /// What was absent.
    pub claims: &'a Claims,
    /// Settings and their prior values.
    pub sysctls: &'a [(String, String)],
    /// Settings and the values that were set.
    pub set: &'a [(String, String)],
    /// Tables and base chains of iptables-nft that were absent.
    pub absent_bases: &'a [String],
}

/// Takes everything away that is still landfall's, and alone. Right when some or all of it is gone or never was.
pub fn remove(agent: &Agent, removal: Removal) -> Result<Left> {
    let (host, claims) = (&agent.host, removal.claims);
    let mut ours = of_journal(agent)?;
    ours.programs.extend(claims.programs.iter().cloned());
    let mut left = Left::residue(quiesce(agent, &[claims]));
    if host.has_kernel() {
        left.residue.extend(links::unmount(agent, claims));
        match attempt("links", || links::remove(claims)) {
            Ok(notes) => left.notes.extend(notes),
            Err(line) => left.residue.push(line),
        }
        let records = agent.ownership()?.records;
        match attempt("routes", || routes::remove(claims, &records)) {
            Ok(notes) => left.notes.extend(notes),
            Err(line) => left.residue.push(line),
        }
        let removed = attempt("nftables", || rules::remove(claims, removal.absent_bases));
        left.residue.extend(removed.err());
        left.residue.extend(rules::remove_legacy(agent, claims));
        left.residue.extend(cgroups::remove(&claims.cgroups, &agent.children));
    }
    left.add(apparmor::remove(host, &claims.apparmor_profiles));
    left.add(settings::restore(agent, removal.sysctls, removal.set, &ours));
    let foreign_runtime = if host.has_kernel() {
        forwarding::runtime(&ours)
    } else {
        None
    };
    for path in &claims.paths {
        left.add(paths::remove(agent, path, foreign_runtime.as_deref()));
    }
    // Once more: a device that goes takes its settings along, and one that stays may have been set while others went.
    left.add(settings::restore(agent, removal.sysctls, removal.set, &ours));
    // What stays of them is said at the end of the whole undo: others that are still to be taken back may hold them.
    modules::unload(host, &claims.modules);
    for list in [&mut left.residue, &mut left.notes] {
        list.sort();
        list.dedup();
    }
    Ok(left)
}

fn attempt<T>(what: &str, work: impl Fn() -> std::io::Result<T>) -> std::result::Result<T, String> {
    // Another program may change the same thing between our look and our act: then the kernel refuses, and we look again.
    for _ in 0..3 {
        if let Ok(done) = work() {
            return Ok(done);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    work().map_err(|error| format!("{what} could not be taken away: {error}"))
}

#[cfg(test)]
mod tests;
