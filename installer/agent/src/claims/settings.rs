//! Kernel settings.

use super::{Left, forwarding};
use crate::actions::system::{differing_sysctls, read_sysctl, write_sysctl};
use crate::agent::Agent;
use crate::host::Host;
use crate::text_files;
use landfall_core::action::{Claims, Undo};
use landfall_core::facts::{FilePattern, FileText};
use landfall_core::layout;
use landfall_core::plan::written_settings;
use landfall_core::sysctl_conf::{self, Assignments, LAST_FILE};
use std::collections::BTreeMap;

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
    let files = files_of(host);
    let configured = Configured::by(&files);
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
        let target = configured.get(name).map_or_else(|| value.clone(), |said| said.value);
        let landfalls = set.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        if landfalls == Some(&present) || present == target {
            wanted.insert(name, target);
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

/// Reads the machine's files, landfall's own left out.
fn files_of(host: &Host) -> BTreeMap<String, FileText> {
    let mut patterns = sysctl_conf::patterns();
    patterns.push(FilePattern {
        pattern: LAST_FILE.to_owned(),
        only: vec![],
    });
    let mut files = text_files::read(host, &patterns);
    if let Some(own) = files.get_mut(layout::SYSCTL_FILE) {
        // It still hides files of its name.
        own.text.clear();
    }
    files
}

/// Returns the file and line by which the machine's own sysctl configuration asks for another value than `value`, in words.
pub fn asked_otherwise(host: &Host, name: &str, value: &str) -> Option<String> {
    let files = files_of(host);
    let said = Configured::by(&files).get(name).filter(|said| said.value != value)?;
    Some(format!("{}, line {},", said.file, said.line))
}

/// A value in a file. Words are set apart by one blank.
#[derive(Debug)]
struct Said {
    value: String,
    file: String,
    /// From 1.
    line: usize,
}

/// What files say.
#[derive(Debug)]
struct Configured<'a>(Assignments<'a>);

impl<'a> Configured<'a> {
    fn by(files: &'a BTreeMap<String, FileText>) -> Self {
        Self(Assignments::read(files, None))
    }

    fn get(&self, name: &str) -> Option<Said> {
        let said = self.0.winner(name)?;
        Some(Said {
            value: said.value.split_whitespace().collect::<Vec<_>>().join(" "),
            file: said.file.to_owned(),
            line: said.line,
        })
    }
}

#[cfg(test)]
mod tests;
