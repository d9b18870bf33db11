//! Kernel modules that somebody forbids, now or at the next boot.

use super::{CMDLINE, Look, sysctl, whole};
use crate::facts::FilePattern;
use crate::finding::{Check, Finding, Severity};
use crate::glob;
use crate::plan::install::kernel_features;
use crate::spec::{ClusterSpec, ProxyMode};
use std::collections::BTreeMap;

/// Where modprobe reads, the most important directory first (modprobe.d(5)).
const DIRS: [&str; 5] = [
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
];
const DISABLED: &str = "/proc/sys/kernel/modules_disabled";
/// Modules that the pod network needs beside those that landfall loads itself, with what they need.
const NETWORK: [&str; 8] = [
    "veth",
    "bridge",
    "stp",
    "llc",
    "udp_tunnel",
    "ip6_udp_tunnel",
    "nf_nat",
    "nf_defrag_ipv4",
];
/// What kube-proxy's and flannel's nftables rules need.
const NFTABLES: [&str; 5] = ["nft_ct", "nft_masq", "nft_nat", "nft_chain_nat", "nft_numgen"];
/// What their iptables rules need.
const IPTABLES: [&str; 7] = [
    "nft_compat",
    "xt_conntrack",
    "xt_MASQUERADE",
    "xt_nat",
    "xt_comment",
    "xt_mark",
    "xt_statistic",
];

/// Returns the modules that a node of this cluster needs.
pub(super) fn needed(spec: &ClusterSpec) -> Vec<String> {
    let rules: &[&str] = match spec.proxy_mode {
        ProxyMode::Nftables => &NFTABLES,
        ProxyMode::Iptables => &IPTABLES,
    };
    let features = kernel_features().into_iter().map(|feature| feature.module);
    let others = NETWORK.iter().chain(rules).map(|name| (*name).to_owned());
    features.chain(others).collect()
}

/// Files that say what may be loaded.
pub(super) fn files() -> Vec<FilePattern> {
    let patterns = DIRS.map(|dir| format!("{dir}/*.conf"));
    let mut patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    patterns.extend([CMDLINE, DISABLED]);
    whole(&patterns)
}

pub(super) fn check(look: &mut Look) {
    let survey = &look.facts.survey;
    // What is built in needs no loading, and what is absent is another check's.
    let needed: Vec<&String> = survey.modules.iter().collect();
    if needed.is_empty() {
        return;
    }
    let mut found = Vec::new();
    for directive in directives(look) {
        let hit: Vec<&str> = needed
            .iter()
            .filter(|module| glob::matches_part(&directive.module, module))
            .map(|module| module.as_str())
            .collect();
        if hit.is_empty() {
            continue;
        }
        let names = hit.join(", ");
        let finding = match directive.kind {
            Kind::Forbid => Finding::new(
                Check::ModulesForbidden,
                format!("the module {names} may not be loaded"),
                directive.line,
                "take the line out: the cluster needs the module",
            ),
            Kind::Blacklist => Finding::new(
                Check::ModuleBlacklist,
                format!("the module {names} is not loaded by its aliases"),
                directive.line,
                "nothing, unless the module is missing after a boot",
            ),
        };
        found.push(finding.at(directive.file, directive.number));
    }
    found.extend(locked(look));
    found.into_iter().for_each(|finding| look.add(finding));
}

enum Kind {
    Forbid,
    Blacklist,
}

/// A line that keeps a module out.
struct Directive {
    kind: Kind,
    module: String,
    line: String,
    file: String,
    number: Option<usize>,
}

/// Reads what keeps modules out: modprobe's files, and the kernel's command line.
fn directives(look: &Look) -> Vec<Directive> {
    let mut by_name: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for dir in DIRS {
        for (path, file) in &look.facts.survey.files {
            let name = path.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/'));
            if let Some(name) = name {
                by_name.entry(name).or_insert((path, &file.text));
            }
        }
    }
    let mut all = Vec::new();
    for (path, text) in by_name.into_values() {
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (kind, module) = match words.as_slice() {
                ["install", module, command, ..] if does_nothing(command) => (Kind::Forbid, *module),
                ["blacklist", module, ..] => (Kind::Blacklist, *module),
                _ => continue,
            };
            all.push(Directive {
                kind,
                module: module.replace('-', "_"),
                line: line.trim().to_owned(),
                file: path.to_owned(),
                number: Some(number + 1),
            });
        }
    }
    for word in look.text(CMDLINE).unwrap_or_default().split_whitespace() {
        // The kernel itself refuses the first; modprobe reads the second as a `blacklist` line.
        let (kind, list) = match word.split_once('=') {
            Some(("module_blacklist", list)) => (Kind::Forbid, list),
            Some(("modprobe.blacklist", list)) => (Kind::Blacklist, list),
            _ => continue,
        };
        let is_forbidden = matches!(kind, Kind::Forbid);
        all.extend(list.split(',').map(|module| Directive {
            kind: if is_forbidden { Kind::Forbid } else { Kind::Blacklist },
            module: module.replace('-', "_"),
            line: word.to_owned(),
            file: CMDLINE.to_owned(),
            number: None,
        }));
    }
    all
}

/// Says whether a command in place of a module's loading is one that loads nothing.
fn does_nothing(command: &str) -> bool {
    let name = command.rsplit('/').next().unwrap_or(command);
    matches!(name, "true" | "false" | ":" | "exit")
}

/// A kernel that loads no module any more, now or after the next boot.
fn locked(look: &Look) -> Option<Finding> {
    let features = kernel_features();
    let survey = &look.facts.survey;
    let next = "boot without kernel.modules_disabled = 1, and set it only when the cluster is up";
    if look.number(DISABLED) == Some(1) {
        let absent: Vec<&str> = features
            .iter()
            .filter(|feature| !survey.features_now.contains(&feature.module))
            .map(|feature| feature.module.as_str())
            .collect();
        let (what, severity) = if absent.is_empty() {
            ("the kernel loads no module any more", Severity::Warn)
        } else {
            (
                "the kernel loads no module any more, and some are missing",
                Severity::Refuse,
            )
        };
        let saw = if absent.is_empty() {
            "1".to_owned()
        } else {
            format!("1; missing: {}", absent.join(", "))
        };
        let finding = Finding::new(Check::ModulesForbidden, what, saw, next);
        return Some(finding.at(DISABLED, None).at_most(severity));
    }
    let (value, file, line) = sysctl::after_boot(&survey.files, "kernel.modules_disabled")?;
    (value == "1").then(|| {
        let what = "after the next boot the kernel loads no module";
        Finding::new(Check::ModulesForbidden, what, "kernel.modules_disabled = 1", next)
            .at(file, line)
            .at_most(Severity::Warn)
    })
}
