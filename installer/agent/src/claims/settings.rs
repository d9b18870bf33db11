//! Kernel settings.

use super::{Left, forwarding};
use crate::actions::system::{differing_sysctls, read_sysctl, write_sysctl};
use crate::agent::Agent;
use crate::files;
use crate::host::Host;
use landfall_core::action::{Claims, Undo};
use landfall_core::layout;
use landfall_core::plan::written_settings;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where files with settings lie. Of two with the same name the one further up counts (sysctl.d(5), sysctl(8)).
const DIRECTORIES: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];
/// Read last of all (sysctl(8)).
const LAST_FILE: &str = "/etc/sysctl.conf";

const IP_FORWARD: &str = "net.ipv4.ip_forward";
const IPV6_FORWARDING: &str = "net.ipv6.conf.all.forwarding";
const REDIRECTS: &str = "net.ipv4.conf.all.accept_redirects";

/// Returns what the kernel sets along with a setting, as it is now: `inet_forward_change` in `net/ipv4/devinet.c` sets
/// `accept_redirects` of `all` to the opposite and `forwarding` of `default` and every link to the same; `addrconf_fixup_forwarding` in
/// `net/ipv6/addrconf.c` does the latter.
fn along_with(host: &Host, name: &str) -> Vec<(String, String)> {
    let (directory, opposite) = match name {
        IP_FORWARD => ("net/ipv4/conf", Some(REDIRECTS)),
        IPV6_FORWARDING => ("net/ipv6/conf", None),
        _ => return vec![],
    };
    let entries = std::fs::read_dir(host.at("/proc/sys").join(directory))
        .into_iter()
        .flatten()
        .flatten();
    let links = entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|link| link != "all")
        .map(|link| format!("{directory}/{link}/forwarding"));
    opposite
        .map(str::to_owned)
        .into_iter()
        .chain(links)
        .filter_map(|name| read_sysctl(host, &name).map(|value| (name, value)))
        .collect()
}

/// Writes a setting, and restores the settings that the kernel changes as a side effect. `forwarding` of single links follows.
pub fn write(host: &Host, name: &str, value: &str) -> crate::error::Result<()> {
    let redirects = (name == IP_FORWARD).then(|| read_sysctl(host, REDIRECTS)).flatten();
    write_sysctl(host, name, value)?;
    match redirects {
        Some(value) if read_sysctl(host, REDIRECTS).as_ref() != Some(&value) => write_sysctl(host, REDIRECTS, &value),
        _ => Ok(()),
    }
}

/// Writes those settings that differ.
pub fn write_all(host: &Host, settings: &[(String, String)]) -> crate::error::Result<()> {
    for (name, value) in differing_sysctls(host, settings) {
        write(host, &name, &value)?;
    }
    Ok(())
}

/// Returns the settings with their present values, and those that the kernel changes along with them: of links, those that forward
/// otherwise than the machine.
pub fn prior(host: &Host, names: &[String]) -> Vec<(String, String)> {
    let mut prior: Vec<(String, String)> = Vec::new();
    for name in names {
        let Some(value) = read_sysctl(host, name) else { continue };
        let along = along_with(host, name);
        prior.push((name.clone(), value.clone()));
        prior.extend(
            along
                .into_iter()
                .filter(|(n, v)| (n == REDIRECTS || *v != value) && !names.contains(n)),
        );
    }
    prior
}

/// Returns what landfall, its daemons and the kernel with them set: `wanted`, and what is known of the rest.
pub fn set_values(prior: &[(String, String)], wanted: &[(String, String)]) -> Vec<(String, String)> {
    // What Go's runtime.NumCPU counts: the processors on which this program may run.
    let processors = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize);
    let known = written_settings(processors);
    let value_of = |name: &str| {
        let own = wanted.iter().chain(&known).find(|(n, _)| n == name);
        own.map(|(_, value)| value.clone())
            .or_else(|| name.ends_with("/forwarding").then(|| "1".to_owned()))
    };
    prior
        .iter()
        .filter_map(|(name, _)| value_of(name).map(|value| (name.clone(), value)))
        .collect()
}

/// Returns how settings that differ from the wanted ones are put back.
pub fn undo_for(host: &Host, wanted: &[(String, String)]) -> Undo {
    let differing = wanted
        .iter()
        .filter(|(name, value)| read_sysctl(host, name).as_ref() != Some(value));
    let names: Vec<String> = differing.map(|(name, _)| name.clone()).collect();
    let settings = prior(host, &names);
    let set = set_values(&settings, wanted);
    Undo::RestoreSysctls { settings, set }
}

/// Puts settings back that still have the value that was set: to what the machine's own files say, else to the prior one. A journal
/// without `set` is judged by the values that this version knows; a setting that is in neither stays when it has changed.
pub fn restore(agent: &Agent, prior: &[(String, String)], set: &[(String, String)], ours: &Claims) -> Left {
    restore_with(agent, prior, set, |agent| still_needed(agent, ours))
}

fn restore_with(
    agent: &Agent,
    prior: &[(String, String)],
    set: &[(String, String)],
    still_needed: impl Fn(&Agent) -> Option<String>,
) -> Left {
    let host = &agent.host;
    if prior.is_empty() {
        return Left::default();
    }
    let files = configured(host);
    let set = if set.is_empty() {
        set_values(prior, &[])
    } else {
        set.to_vec()
    };
    let mut left = Left::default();
    // What shall be in the end, of all that is there. Decided before anything is written.
    let mut wanted: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in prior {
        let Some(present) = read_sysctl(host, name) else {
            continue;
        };
        let target = files.get(&sysctl_key(name)).unwrap_or(value);
        let landfalls = set.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        if landfalls == Some(&present) || present == *target {
            wanted.insert(name, target.clone());
        } else {
            left.notes
                .push(format!("{name} stays {present}: something else has set it since"));
            wanted.insert(name, present);
        }
    }
    for switch in [IP_FORWARD, IPV6_FORWARDING] {
        let Some(value) = wanted.get(switch).cloned() else {
            continue;
        };
        let along = along_with(host, switch);
        if read_sysctl(host, switch).as_ref() == Some(&value) {
            if value != "0" {
                // What a machine that forwards has by it.
                wanted.retain(|name, _| !along.iter().any(|(n, _)| n == name));
            }
            continue;
        }
        if let Some(why) = (value == "0").then(|| still_needed(agent)).flatten() {
            left.notes.push(format!("{switch} stays as it is: {why}"));
            wanted.retain(|name, _| *name != switch && !along.iter().any(|(n, _)| n == name));
            continue;
        }
        left.residue.extend(put(host, switch, &value));
        // Of what the kernel has changed with it: recorded values come below; this one is kept even by journals that lack it.
        if let Some((name, value)) = along
            .iter()
            .find(|(n, _)| n == REDIRECTS && !wanted.contains_key(n.as_str()))
        {
            left.residue.extend(put(host, name, value));
        }
    }
    for (name, value) in &wanted {
        left.residue.extend(put(host, name, value));
    }
    left
}

fn still_needed(agent: &Agent, ours: &Claims) -> Option<String> {
    if !agent.host.has_kernel() {
        return None;
    }
    match forwarding::users(agent, ours) {
        Ok(users) if users.is_empty() => None,
        Ok(users) => Some(format!("{} may need it", users.join(", "))),
        Err(error) => Some(format!("who else needs it could not be looked up: {error}")),
    }
}

fn put(host: &Host, name: &str, value: &str) -> Option<String> {
    if read_sysctl(host, name).is_none_or(|now| now == value) {
        return None;
    }
    let error = write_sysctl(host, name, value).err()?;
    Some(format!("{name} is not {value} again: {error}"))
}

/// Returns a setting's name as a path below `/proc/sys`; of a name with dots, slashes stand for dots (sysctl.d(5)).
fn sysctl_key(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'.') => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// Returns what the machine's files say, landfall's own left out: by name of the file, later ones win. `*` stands for one whole part of
/// a name, and a name that is written out wins over it.
fn configured(host: &Host) -> Settings {
    let mut by_name: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for directory in DIRECTORIES {
        for entry in std::fs::read_dir(host.at(directory)).into_iter().flatten().flatten() {
            if Path::new(&entry.file_name()).extension().is_some_and(|e| e == "conf") {
                by_name.entry(entry.file_name()).or_insert(entry.path());
            }
        }
    }
    by_name.retain(|_, path| *path != host.at(layout::SYSCTL_FILE));
    let mut settings = Settings::default();
    for path in by_name.into_values().chain([host.at(LAST_FILE)]) {
        for line in files::text(path)
            .lines()
            .map(str::trim)
            .filter(|l| !l.starts_with(['#', ';']))
        {
            if let Some((name, value)) = line.strip_prefix('-').unwrap_or(line).split_once('=') {
                let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
                let key = sysctl_key(name.trim());
                let list = if key.contains('*') {
                    &mut settings.patterns
                } else {
                    &mut settings.names
                };
                list.insert(key, value);
            }
        }
    }
    settings
}

/// What files say.
#[derive(Debug, Default)]
struct Settings {
    names: BTreeMap<String, String>,
    patterns: BTreeMap<String, String>,
}

impl Settings {
    fn get(&self, key: &str) -> Option<&String> {
        let fits = |pattern: &str| {
            let (mut left, mut right) = (pattern.split('/'), key.split('/'));
            pattern.split('/').count() == key.split('/').count()
                && left.all(|part| right.next().is_some_and(|k| part == "*" || part == k))
        };
        let pattern = || {
            self.patterns
                .iter()
                .find(|(pattern, _)| fits(pattern))
                .map(|(_, value)| value)
        };
        // `net.ipv4.ip_forward` and `net.ipv4.conf.all.forwarding` are one setting.
        let twin = (key == "net/ipv4/ip_forward").then_some("net/ipv4/conf/all/forwarding");
        self.names
            .get(key)
            .or_else(|| twin.and_then(|twin| self.names.get(twin)))
            .or_else(pattern)
    }
}

#[cfg(test)]
mod tests;
