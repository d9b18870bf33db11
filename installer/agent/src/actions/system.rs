//! The hosts file, kernel settings and kernel features.

use crate::agent::Agent;
use crate::child::Job;
use crate::error::{AgentError, Result, io_at};
use crate::files::{self, Meta};
use crate::host::Host;
use landfall_core::action::{FeatureEvidence, KernelFeature, Prior, Undo};
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const HOSTS: &str = "/etc/hosts";

/// Returns where the hosts file is: behind symbolic links, which stay. (systems with a read-only /etc link it to a state directory.)
fn hosts_file(host: &Host) -> Result<PathBuf> {
    /// As the kernel's limit for one path (`MAXSYMLINKS`).
    const MOST_LINKS: usize = 40;
    let mut path = PathBuf::from(HOSTS);
    for _ in 0..MOST_LINKS {
        match std::fs::read_link(host.at(&path)) {
            // An absolute target replaces the path.
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(AgentError::Refused(format!(
        "{HOSTS} is a symbolic link that leads in a circle"
    )))
}

/// Returns the lines that do not stand in the hosts file.
pub fn missing_hosts_lines(host: &Host, lines: &[String]) -> Result<Vec<String>> {
    let text = String::from_utf8_lossy(&files::read(&host.at(hosts_file(host)?))?.unwrap_or_default()).into_owned();
    Ok(lines
        .iter()
        .filter(|line| !text.lines().any(|l| l == line.as_str()))
        .cloned()
        .collect())
}

/// Returns how the hosts file is put back.
pub fn undo_for_hosts(host: &Host, lines: &[String]) -> Result<Undo> {
    let path = hosts_file(host)?;
    if !host.at(&path).exists() {
        return Ok(Undo::RestorePath {
            path,
            prior: Prior::Absent,
        });
    }
    Ok(Undo::RemoveHostsLines {
        lines: missing_hosts_lines(host, lines)?,
    })
}

/// Adds lines. They go to the end; when the last line has no newline they go to the front, so that removing them restores every byte.
pub fn add_hosts_lines(host: &Host, lines: &[String]) -> Result<()> {
    let path = host.at(hosts_file(host)?);
    let old = files::read(&path)?.unwrap_or_default();
    let new: String = missing_hosts_lines(host, lines)?
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    let text = match old.last() {
        None | Some(b'\n') => [&old, new.as_bytes()].concat(),
        Some(_) => [new.as_bytes(), &old].concat(),
    };
    rewrite_hosts(host, &text)
}

/// Removes lines; ones that are gone are fine.
pub fn remove_hosts_lines(host: &Host, lines: &[String]) -> Result<()> {
    let path = host.at(hosts_file(host)?);
    files::remove_file(&files::part_of(&path))?;
    let Some(old) = files::read(&path)? else { return Ok(()) };
    let ours = |line: &[u8]| {
        line.strip_suffix(b"\n")
            .is_some_and(|l| lines.iter().any(|o| o.as_bytes() == l))
    };
    let new: Vec<u8> = old
        .split_inclusive(|b| *b == b'\n')
        .filter(|line| !ours(line))
        .flatten()
        .copied()
        .collect();
    if new == old { Ok(()) } else { rewrite_hosts(host, &new) }
}

fn rewrite_hosts(host: &Host, text: &[u8]) -> Result<()> {
    let path = host.at(hosts_file(host)?);
    let meta = match std::fs::metadata(&path) {
        Ok(meta) => Meta {
            mode: meta.mode() & 0o7777,
            owner: Some((meta.uid(), meta.gid())),
        },
        Err(_) => Meta::mode(0o644),
    };
    files::write_bytes(&path, meta, text)
}

/// Returns the file of a kernel setting. A name may use `/` where an interface's name has a dot.
fn sysctl_path(host: &Host, name: &str) -> PathBuf {
    let relative = if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    host.at("/proc/sys").join(relative)
}

/// Reads a kernel setting; `None` when the kernel has no such one. Words are set apart by one blank.
pub fn read_sysctl(host: &Host, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(sysctl_path(host, name)).ok()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Returns those settings that are not as wanted.
pub fn differing_sysctls(host: &Host, settings: &[(String, String)]) -> Vec<(String, String)> {
    settings
        .iter()
        .filter(|(name, value)| read_sysctl(host, name).as_ref() != Some(value))
        .cloned()
        .collect()
}

/// Writes one setting, and nothing but it. The file is not emptied first and its value comes with one write: tests use plain files
/// in place of `/proc`, and a reader must never find one empty. Line ends cover the rest of a longer old value:
/// the kernel skips them after a number and ends a text at the first one (`proc_get_long` and `_proc_do_string` in `kernel/sysctl.c`).
pub fn write_sysctl(host: &Host, name: &str, value: &str) -> Result<()> {
    let path = sysctl_path(host, name);
    let old_length = std::fs::read(&path).map_or(0, |old| old.len());
    let covering = "\n".repeat(old_length.saturating_sub(value.len()));
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).open(&path)?;
        file.write_all(format!("{value}{covering}").as_bytes())?;
        // The kernel takes no notice of it.
        file.set_len(value.len() as u64)
    };
    write().map_err(io_at("setting", &path))
}

/// Says whether a kernel feature is there.
pub fn has_feature(host: &Host, evidence: &FeatureEvidence) -> bool {
    match evidence {
        FeatureEvidence::Path(path) => host.at(path).exists(),
        FeatureEvidence::Nftables => {
            host.at("/sys/module/nf_tables").exists() || (host.has_kernel() && crate::netlink::nft::read().is_ok())
        }
        FeatureEvidence::Filesystem(kind) => files::text(host.at("/proc/filesystems"))
            .lines()
            .any(|l| l.split_whitespace().next_back() == Some(kind)),
    }
}

/// Returns the names of loaded modules.
pub fn loaded_modules(host: &Host) -> BTreeSet<String> {
    let text = files::text(host.at("/proc/modules"));
    text.lines()
        .filter_map(|l| l.split(' ').next().map(str::to_owned))
        .collect()
}

/// The kernel's own list of modules and what each needs.
pub struct ModuleIndex {
    files: Vec<(String, Vec<String>)>,
}

impl ModuleIndex {
    /// Reads the list of the running kernel; empty when it has no modules.
    pub fn read(host: &Host) -> Self {
        let release = files::text(host.at("/proc/sys/kernel/osrelease"));
        let path = host.at("/lib/modules").join(release.trim()).join("modules.dep");
        let files = files::text(path)
            .lines()
            .filter_map(|line| {
                let (file, needs) = line.split_once(':')?;
                Some((module_name(file), needs.split_whitespace().map(module_name).collect()))
            })
            .collect();
        Self { files }
    }

    /// Says whether a module could be loaded.
    pub fn has(&self, module: &str) -> bool {
        self.files.iter().any(|(name, _)| name == module)
    }

    /// Returns a module and everything that is loaded with it.
    pub fn closure(&self, module: &str) -> Vec<String> {
        let needs = self
            .files
            .iter()
            .find(|(name, _)| name == module)
            .map(|(_, needs)| needs.clone())
            .unwrap_or_default();
        std::iter::once(module.to_owned()).chain(needs).collect()
    }
}

fn module_name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split('.').next().unwrap_or(base).replace('-', "_")
}

/// Returns those of these modules that could be loaded and are not. One that the kernel has no file for is part of it.
pub fn missing_modules<'a>(host: &Host, wanted: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let (loaded, index) = (loaded_modules(host), ModuleIndex::read(host));
    let missing = wanted.into_iter().filter(|m| index.has(m) && !loaded.contains(*m));
    missing.cloned().collect()
}

/// Returns the modules that loading the missing features would load, and that are not there.
pub fn absent_modules(host: &Host, features: &[KernelFeature]) -> Vec<String> {
    let (loaded, index) = (loaded_modules(host), ModuleIndex::read(host));
    let missing = features.iter().filter(|f| !has_feature(host, &f.evidence));
    let all: BTreeSet<String> = missing.flat_map(|f| index.closure(&f.module)).collect();
    all.into_iter().filter(|m| !loaded.contains(m)).collect()
}

/// Loads the modules of missing features.
pub fn load_features(agent: &Agent, features: &[KernelFeature]) -> Result<()> {
    for feature in features.iter().filter(|f| !has_feature(&agent.host, &f.evidence)) {
        agent
            .children
            .run(&agent.host, Job::quick(&["modprobe", "--", &feature.module], 30))?;
        if !has_feature(&agent.host, &feature.evidence) {
            let text = format!(
                "the module {} was loaded, but the kernel feature is not there",
                feature.module
            );
            return Err(AgentError::NotSatisfied(text));
        }
    }
    Ok(())
}

/// Returns those of these modules, and of what they need, that are neither loaded nor part of the kernel.
pub fn absent_with_needs(host: &Host, modules: &[String]) -> Vec<String> {
    let (loaded, index) = (loaded_modules(host), ModuleIndex::read(host));
    let mut absent: Vec<String> = Vec::new();
    for module in modules.iter().flat_map(|m| index.closure(m)) {
        let there = loaded.contains(&module) || host.at("/sys/module").join(&module).exists();
        if !there && !absent.contains(&module) {
            absent.push(module);
        }
    }
    absent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(hosts: &str) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::under(root.path());
        std::fs::create_dir_all(host.at("/etc")).unwrap();
        std::fs::write(host.at(HOSTS), hosts).unwrap();
        (root, host)
    }

    #[test]
    fn hosts_lines_come_and_go_and_leave_every_byte() {
        let lines = vec!["10.0.0.1 a".to_owned(), "10.0.0.2 b".to_owned()];
        for before in ["", "127.0.0.1 localhost\n", "no newline at end", "10.0.0.1 a\nx\n"] {
            let (_root, host) = machine(before);
            let Undo::RemoveHostsLines { lines: added } = undo_for_hosts(&host, &lines).unwrap() else {
                panic!()
            };
            add_hosts_lines(&host, &lines).unwrap();
            assert!(missing_hosts_lines(&host, &lines).unwrap().is_empty());
            remove_hosts_lines(&host, &added).unwrap();
            remove_hosts_lines(&host, &added).unwrap();
            assert_eq!(std::fs::read_to_string(host.at(HOSTS)).unwrap(), before);
        }
    }

    #[test]
    fn lines_that_others_add_later_stay() {
        let (_root, host) = machine("first\n");
        add_hosts_lines(&host, &["ours".to_owned()]).unwrap();
        let now = std::fs::read_to_string(host.at(HOSTS)).unwrap();
        std::fs::write(host.at(HOSTS), format!("{now}theirs\n")).unwrap();
        remove_hosts_lines(&host, &["ours".to_owned()]).unwrap();
        assert_eq!(std::fs::read_to_string(host.at(HOSTS)).unwrap(), "first\ntheirs\n");
    }

    #[test]
    fn a_setting_is_never_seen_empty_while_it_is_written() {
        let (_root, host) = machine("");
        let file = host.at("/proc/sys/kernel/panic");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "0").unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for value in ["1", "0"].repeat(5_000) {
                    write_sysctl(&host, "kernel.panic", value).unwrap();
                }
            });
            while !writer.is_finished() {
                let seen = read_sysctl(&host, "kernel.panic").unwrap();
                assert!(seen == "1" || seen == "0", "{seen:?}");
            }
        });
        for value in ["100", "25", "0"] {
            write_sysctl(&host, "kernel.panic", value).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), value);
        }
    }

    #[test]
    fn modules_are_known_with_what_they_need() {
        let (_root, host) = machine("");
        for (path, text) in [
            ("/proc/sys/kernel/osrelease", "6.1.0\n"),
            ("/proc/modules", "llc 16384 1 stp, Live 0x0\n"),
            (
                "/lib/modules/6.1.0/modules.dep",
                "kernel/net/bridge/br_netfilter.ko: kernel/net/bridge/bridge.ko.xz kernel/net/802/stp.ko kernel/net/llc/llc.ko\n",
            ),
        ] {
            std::fs::create_dir_all(host.at(path).parent().unwrap()).unwrap();
            std::fs::write(host.at(path), text).unwrap();
        }
        let feature = KernelFeature {
            module: "br_netfilter".into(),
            evidence: FeatureEvidence::Path("/proc/sys/net/bridge".into()),
        };
        assert_eq!(absent_modules(&host, &[feature]), ["br_netfilter", "bridge", "stp"]);
    }
}
