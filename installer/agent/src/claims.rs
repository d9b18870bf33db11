//! What opaque daemons make: which of it was absent before ([`undo_for`]), and taking it away again ([`remove`]).
//!
//! The order of removal is that of who holds whom: units, processes, mounts, links, rules, cgroups, settings, files, modules.

use crate::agent::Agent;
use crate::child::Job;
use crate::error::{AgentError, Result};
use crate::interpret::file::absent_directories;
use crate::interpret::system;
use crate::interpret::unit::{self, StopHow};
use crate::netlink::{nft, route};
use crate::{cgroups, files, mounts, processes, safe_delete};
use landfall_core::action::{Claims, ClusterEffect, Undo};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where network namespaces are mounted; other programs put theirs there too.
const NETNS_DIR: &str = "/run/netns";
/// Names that containerd gives to the network namespaces of pods.
const POD_NETNS: &str = "/run/netns/cni-*";
/// The bridge whose ports are pods' links.
const POD_BRIDGE: &str = "cni0";

/// Drops from the claims whatever is there already: that is not ours to remove. Reads only.
pub fn undo_for(agent: &Agent, claims: &Claims, effects: &[ClusterEffect]) -> Result<Undo> {
    let host = &agent.host;
    let mut ours = claims.clone();
    // First, because reading nftables may itself load modules.
    let loaded = system::loaded_modules(host);
    ours.modules
        .retain(|m| !loaded.contains(m) && !host.at("/sys/module").join(m).exists());
    let sysctls = claims
        .sysctls
        .iter()
        .filter_map(|n| Some((n.clone(), system::read_sysctl(host, n)?)))
        .collect();
    let units: Vec<&str> = claims.units.iter().map(String::as_str).collect();
    if !units.is_empty() {
        let states = unit::states(&agent.children, host, &units)?;
        ours.units
            .retain(|u| !states.get(u).is_some_and(unit::UnitState::is_active));
    }
    let mut absent_parents: Vec<PathBuf> = Vec::new();
    for parent in claims.paths.iter().filter_map(|p| p.parent()) {
        absent_parents.extend(absent_directories(host, parent)?);
    }
    absent_parents.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    absent_parents.dedup();
    let shared_netns = claims.paths.iter().any(|p| p == Path::new(NETNS_DIR)) && host.at(NETNS_DIR).exists();
    ours.paths = claims
        .paths
        .iter()
        .filter_map(|path| absent_part(&host.at(path), path))
        .collect();
    let mut absent_bases = Vec::new();
    if host.has_kernel() {
        ours.mounts_under.retain(|dir| mounts::below(dir).is_empty());
        ours.cgroups.retain(|name| !cgroups::exists(name));
        ours.programs
            .retain(|program| processes::running(std::slice::from_ref(program)).is_empty());
        if !claims.links.is_empty() {
            let links = route::links().map_err(kernel("listing links"))?;
            ours.links.retain(|name| !links.iter().any(|l| &l.name == name));
        }
        if !claims.nft_tables.is_empty() || !claims.iptables_chains.is_empty() {
            let rules = nft::read().map_err(kernel("reading nftables"))?;
            ours.nft_tables.retain(|name| !rules.has_table(name));
            ours.iptables_chains.retain(|prefix| !rules.has_chain_with(prefix));
            if !claims.iptables_chains.is_empty() {
                absent_bases = rules.absent_iptables_bases();
            }
        }
    }
    if shared_netns {
        ours.paths.push(POD_NETNS.into());
    }
    Ok(Undo::RemoveClaims {
        claims: ours,
        sysctls,
        absent_bases,
        absent_parents,
        effects: effects.to_vec(),
    })
}

fn kernel(what: &str) -> impl FnOnce(std::io::Error) -> AgentError + '_ {
    move |source| AgentError::Kernel {
        what: what.to_owned(),
        source,
    }
}

/// Returns what is absent of a claimed path: all of it; its content, when it is an empty directory (a disk mounted for it, for
/// instance); or nothing.
fn absent_part(real: &Path, path: &Path) -> Option<PathBuf> {
    if safe_delete::kind_at(real).is_none() {
        return Some(path.to_owned());
    }
    let mut entries = std::fs::read_dir(real).ok()?.flatten();
    let empty = entries.all(|e| e.file_name() == "lost+found");
    empty.then(|| path.join("*"))
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
            let mut pids = processes::running(&programs);
            cgroups::kill_all(&cgroup_names);
            pids.extend(cgroups::processes(&cgroup_names));
            pids
        }));
    }
    residue
}

/// Takes everything away. Right when some or all of it is gone or never was. Returns a line for each thing that stays.
pub fn remove(agent: &Agent, claims: &Claims, sysctls: &[(String, String)], absent_bases: &[String]) -> Vec<String> {
    let host = &agent.host;
    let mut residue = quiesce(agent, &[claims]);
    if host.has_kernel() {
        residue.extend(unmount(agent, claims));
        residue.extend(attempt("links", || remove_links(claims)));
        residue.extend(attempt("nftables", || remove_rules(claims, absent_bases)));
        residue.extend(remove_legacy_chains(agent, claims));
        residue.extend(cgroups::remove(&claims.cgroups, &agent.children));
    }
    residue.extend(system::restore_sysctls(host, sysctls));
    for path in &claims.paths {
        residue.extend(remove_path(agent, path));
    }
    // Once more: a device that goes takes its settings along, and one that stays may have been set while others went.
    residue.extend(system::restore_sysctls(host, sysctls));
    system::unload_modules(host, &claims.modules);
    residue.sort();
    residue.dedup();
    residue
}

fn attempt(what: &str, work: impl Fn() -> std::io::Result<()>) -> Vec<String> {
    // Another program may change the same thing between our look and our act: then the kernel refuses, and we look again.
    for _ in 0..3 {
        if work().is_ok() {
            return vec![];
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    work()
        .err()
        .map(|error| format!("{what} could not be taken away: {error}"))
        .into_iter()
        .collect()
}

fn unmount(agent: &Agent, claims: &Claims) -> Vec<String> {
    let pods = Path::new(NETNS_DIR);
    let pod_netns = claims.paths.iter().any(|p| p == Path::new(POD_NETNS));
    mounts::take_away(
        |mount| {
            let below = claims.mounts_under.iter().any(|dir| {
                // What is mounted at the directory itself is ours only when the directory is.
                mount.point.starts_with(dir) && (mount.point != *dir || claims.paths.contains(dir))
            });
            let name = mount.point.strip_prefix(pods).ok().and_then(|n| n.to_str());
            below || (pod_netns && name.is_some_and(|n| n.starts_with("cni-")))
        },
        &agent.children,
    )
}

fn remove_links(claims: &Claims) -> std::io::Result<()> {
    if claims.links.is_empty() {
        return Ok(());
    }
    let links = route::links()?;
    let bridge = claims
        .links
        .iter()
        .any(|n| n == POD_BRIDGE)
        .then(|| links.iter().find(|l| l.name == POD_BRIDGE))
        .flatten();
    for link in &links {
        let port = link.name.starts_with("veth") && bridge.is_some_and(|b| link.master == Some(b.index));
        if port || claims.links.contains(&link.name) {
            route::delete_link(link.index)?;
        }
    }
    Ok(())
}

fn remove_rules(claims: &Claims, absent_bases: &[String]) -> std::io::Result<()> {
    if claims.nft_tables.is_empty() && claims.iptables_chains.is_empty() && absent_bases.is_empty() {
        return Ok(());
    }
    let all = nft::read()?;
    nft::delete_tables(all.tables.iter().filter(|t| claims.nft_tables.contains(&t.to_string())))?;
    if !claims.iptables_chains.is_empty() {
        nft::delete_chains(&nft::read()?, &claims.iptables_chains)?;
    }
    let left = nft::read()?;
    nft::delete_tables(&left.idle_tables(absent_bases))?;
    nft::delete_empty_chains(&left.idle_base_chains(absent_bases))
}

/// Chains of the old iptables can only be reached through its own program, and exist only where that is installed.
fn remove_legacy_chains(agent: &Agent, claims: &Claims) -> Vec<String> {
    let mut residue = Vec::new();
    for (program, names) in [
        ("iptables-legacy", "/proc/net/ip_tables_names"),
        ("ip6tables-legacy", "/proc/net/ip6_tables_names"),
    ] {
        if claims.iptables_chains.is_empty() || agent.host.find_program(program).is_none() {
            continue;
        }
        for table in files::text(names).lines() {
            if let Err(error) = remove_legacy_table_chains(agent, program, table, &claims.iptables_chains) {
                residue.push(format!("chains in {program}'s table {table} stay: {}", error.line()));
            }
        }
    }
    residue
}

fn remove_legacy_table_chains(agent: &Agent, program: &str, table: &str, prefixes: &[String]) -> Result<()> {
    let run = |args: &[&str]| {
        let argv: Vec<&str> = [program, "--wait", "5", "--table", table]
            .iter()
            .chain(args)
            .copied()
            .collect();
        agent.children.run(&agent.host, Job::quick(&argv, 15))
    };
    let ours = |name: &str| prefixes.iter().any(|p| name.starts_with(p.as_str()));
    let listing = run(&["--list-rules"])?.text();
    let chains: Vec<&str> = listing
        .lines()
        .filter_map(|l| l.strip_prefix("-N "))
        .filter(|name| ours(name))
        .collect();
    for line in listing.lines().filter_map(|l| l.strip_prefix("-A ")) {
        let words = shell_words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let target = words.windows(2).find(|w| matches!(w[0], "-j" | "-g")).map(|w| w[1]);
        if !ours(words.first().copied().unwrap_or_default()) && target.is_some_and(ours) {
            run(&[&["--delete"], words.as_slice()].concat())?;
        }
    }
    for verb in ["--flush", "--delete-chain"] {
        for chain in &chains {
            run(&[verb, chain])?;
        }
    }
    Ok(())
}

/// Splits a rule as iptables lists it: words, or texts in double quotes.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    let mut begun = false;
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => {
                quoted = !quoted;
                begun = true;
            }
            ' ' if !quoted => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => word.push(c),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    words
}

/// Removes a claimed path; a last part that ends in `*` stands for every name that begins so.
fn remove_path(agent: &Agent, path: &Path) -> Vec<String> {
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let Some(prefix) = name.strip_suffix('*') else {
        return safe_delete::remove_tree(&agent.host.at(path));
    };
    let Some(parent) = path.parent().map(|p| agent.host.at(p)) else {
        return vec![];
    };
    if prefix.is_empty() {
        return safe_delete::remove_content(&parent);
    }
    let Ok(entries) = std::fs::read_dir(&parent) else {
        return vec![];
    };
    let ours = entries
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(prefix));
    ours.flat_map(|e| safe_delete::remove_tree(&e.path())).collect()
}

#[cfg(test)]
mod tests;
