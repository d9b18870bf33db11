//! Kernel modules that somebody forbids, now or at the next boot.

use super::{CMDLINE, Look, sysctl, whole};
use crate::facts::FilePattern;
use crate::finding::{Check, Finding, Severity};
use crate::glob;
use crate::plan::install::kernel_features;
use crate::plan::modules::{self, Comes, DaemonModule};
use crate::spec::ClusterSpec;
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
/// Programs that load modules.
const LOADS: [&str; 3] = ["modprobe", "insmod", "kmod"];
/// Commands that load nothing, whatever their arguments.
const LOADS_NOTHING: [&str; 10] = [
    "true", "false", ":", "exit", "echo", "printf", "logger", "sleep", "test", "[",
];

/// Returns the modules that a node of this cluster needs.
pub(super) fn needed(spec: &ClusterSpec) -> Vec<String> {
    modules::needed(spec.proxy_mode)
        .map(|module| module.name.to_owned())
        .collect()
}

/// Files that say what may be loaded.
pub(super) fn files() -> Vec<FilePattern> {
    let patterns = DIRS.map(|dir| format!("{dir}/*.conf"));
    let mut patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    patterns.extend([CMDLINE, DISABLED]);
    whole(&patterns)
}

pub(super) fn check(look: &mut Look) {
    // What is built in needs no loading, and what is absent is another check's.
    let survey = &look.facts.survey;
    let all = modules::needed(look.input.desired.spec.proxy_mode);
    let needed: Vec<&DaemonModule> = all.filter(|module| survey.modules.contains(module.name)).collect();
    if needed.is_empty() {
        return;
    }
    let mut found = Vec::new();
    for directive in directives(look) {
        let hit: Vec<&DaemonModule> = needed
            .iter()
            .copied()
            .filter(|module| directive.names(module))
            .collect();
        let (kept_out, passed_over): (Vec<&DaemonModule>, Vec<&DaemonModule>) =
            hit.into_iter().partition(|module| directive.keeps_out(module));
        if !kept_out.is_empty() {
            found.push(directive.at(forbidden(look, &directive, &kept_out)));
        }
        if matches!(directive.kind, Kind::Blacklist) && !passed_over.is_empty() {
            let what = format!("the module {} is not loaded by its aliases", names(&passed_over));
            let next = "nothing, unless the module is missing after a boot";
            found.push(directive.at(Finding::new(Check::ModuleBlacklist, what, &directive.line, next)));
        }
    }
    found.extend(locked(look, &needed));
    found.into_iter().for_each(|finding| look.add_before_install(finding));
}

/// Modules that a line keeps out. Of those that a blacklist keeps out, one that is loaded now is there for a reason that cannot be seen here.
fn forbidden(look: &Look, directive: &Directive, modules: &[&DaemonModule]) -> Finding {
    let is_loaded = |module: &&DaemonModule| look.facts.survey.loaded_modules.contains(module.name);
    let (what, next) = match directive.kind {
        Kind::Blacklist => (
            format!(
                "the module {} is loaded by its aliases alone, and may not be",
                names(modules)
            ),
            "take the line out: the kernel asks for the module by an alias when a pod or a rule first needs it",
        ),
        Kind::Forbid | Kind::Alias => (
            format!("the module {} may not be loaded", names(modules)),
            "take the line out: the cluster needs the module",
        ),
    };
    let finding = Finding::new(Check::ModulesForbidden, what, &directive.line, next);
    match directive.kind {
        Kind::Blacklist if modules.iter().all(is_loaded) => finding.at_most(Severity::Warn),
        _ => finding,
    }
}

fn names(modules: &[&DaemonModule]) -> String {
    let names: Vec<&str> = modules.iter().map(|module| module.name).collect();
    names.join(", ")
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Nothing loads the module.
    Forbid,
    /// No alias leads to the module.
    Blacklist,
    /// The name, when somebody says it, leads elsewhere.
    Alias,
}

/// A line that keeps a module out.
struct Directive {
    kind: Kind,
    module: String,
    line: String,
    file: String,
    number: Option<usize>,
}

impl Directive {
    /// Says whether it is about this module. `install` and `alias` take patterns, blacklists take names.
    fn names(&self, module: &DaemonModule) -> bool {
        match self.kind {
            Kind::Blacklist => self.module == module.name,
            Kind::Forbid | Kind::Alias => glob::matches_part(&self.module, module.name),
        }
    }

    /// Says whether the module is not loaded, for the way in which it comes. (Tried with kmod 30; modprobe.d(5).)
    fn keeps_out(&self, module: &DaemonModule) -> bool {
        match self.kind {
            Kind::Forbid => true,
            Kind::Blacklist => module.comes == Comes::ByAlias,
            Kind::Alias => module.comes == Comes::ByName,
        }
    }

    fn at(&self, finding: Finding) -> Finding {
        finding.at(&self.file, self.number)
    }
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
        for (number, line) in whole_lines(text) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (kind, module) = match words.as_slice() {
                ["install", module, command @ ..] if loads_nothing(command) => (Kind::Forbid, *module),
                ["blacklist", module, ..] => (Kind::Blacklist, *module),
                ["alias", module, "off" | "null", ..] => (Kind::Alias, *module),
                _ => continue,
            };
            all.push(Directive {
                kind,
                module: module.replace('-', "_"),
                line: words.join(" "),
                file: path.to_owned(),
                number: Some(number),
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
        all.extend(list.split(',').map(|module| Directive {
            kind,
            module: module.replace('-', "_"),
            line: word.to_owned(),
            file: CMDLINE.to_owned(),
            number: None,
        }));
    }
    all
}

/// Returns lines with their numbers from 1; a backslash at the end of one adds the next one.
fn whole_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        let (at, mut whole) = open.take().unwrap_or((number + 1, String::new()));
        match line.strip_suffix('\\') {
            Some(part) => {
                whole += part;
                open = Some((at, whole + " "));
            }
            None => lines.push((at, whole + line)),
        }
    }
    lines.extend(open);
    lines
}

/// Says whether a command in place of a module's loading is one that loads nothing. What a script of the machine does is not known.
fn loads_nothing(words: &[&str]) -> bool {
    let command = words.join(" ");
    let is_blank = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | '(' | ')');
    let parts = command.split([';', '&', '|']).map(|part| part.trim_matches(is_blank));
    let mut parts = parts.filter(|part| !part.is_empty());
    let name = |part: &str| {
        let program = part.split_whitespace().next().unwrap_or_default();
        program.rsplit('/').next().unwrap_or(program).to_owned()
    };
    let loads = LOADS.iter().any(|program| command.contains(program));
    !words.is_empty() && !loads && parts.all(|part| LOADS_NOTHING.contains(&name(part).as_str()))
}

/// A kernel that loads no module any more, now or after the next boot.
fn locked(look: &Look, needed: &[&DaemonModule]) -> Option<Finding> {
    let survey = &look.facts.survey;
    let next = "boot without kernel.modules_disabled = 1, and set it only when the cluster is up";
    let after_boot = || {
        // systemd-sysctl sets it before the kernel is asked for what comes by an alias, and nothing takes it back before the next boot.
        let (value, file, line) = sysctl::after_boot(&survey.files, "kernel.modules_disabled")?;
        let saw = format!("kernel.modules_disabled = {value}; needed later: {}", names(needed));
        let what = "after the next boot the kernel loads no module";
        (value == "1").then(|| Finding::new(Check::ModulesForbidden, what, saw, next).at(file, line))
    };
    if look.number(DISABLED) != Some(1) {
        return after_boot();
    }
    let features = kernel_features().into_iter().map(|feature| feature.module);
    let mut missing: Vec<String> = features
        .filter(|module| !survey.features_now.contains(module))
        .collect();
    let others = needed.iter().filter(|module| module.comes != Comes::ByName);
    let others = others.filter(|module| !survey.loaded_modules.contains(module.name));
    missing.extend(others.map(|module| module.name.to_owned()));
    if missing.is_empty() {
        let what = "the kernel loads no module any more";
        let now = Finding::new(Check::ModulesForbidden, what, "1", next).at(DISABLED, None);
        return after_boot().or_else(|| Some(now.at_most(Severity::Warn)));
    }
    let what = "the kernel loads no module any more, and some are missing";
    let saw = format!("1; missing: {}", missing.join(", "));
    Some(Finding::new(Check::ModulesForbidden, what, saw, next).at(DISABLED, None))
}
