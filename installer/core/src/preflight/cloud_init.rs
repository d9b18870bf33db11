//! cloud-init, where it writes /etc/hosts or the host name at each boot.

use super::{CMDLINE, Look, has_kernel_option, only, whole};
use crate::facts::FilePattern;
use crate::finding::{Check, Finding};

const PROGRAM: &str = "/usr/bin/cloud-init";
const DISABLED: &str = "/etc/cloud/cloud-init.disabled";
/// Paths whose existence matters here.
pub(super) const PATHS: [&str; 2] = [PROGRAM, DISABLED];
const MAIN: &str = "/etc/cloud/cloud.cfg";
/// The configuration in the order in which it is merged: the later wins (cloud-init's "configuration priority": base, vendor data,
/// user data).
const SOURCES: [&str; 5] = [
    MAIN,
    "/etc/cloud/cloud.cfg.d/*.cfg",
    "/var/lib/cloud/instance/vendor-cloud-config.txt",
    "/var/lib/cloud/instance/vendor2-cloud-config.txt",
    "/var/lib/cloud/instance/cloud-config.txt",
];
const UNITS: [&str; 3] = ["cloud-init.target", "cloud-init.service", "cloud-init-local.service"];
const HOSTS: &str = "manage_etc_hosts";
const HOSTNAME: &str = "preserve_hostname";

/// Files that say what cloud-init does at a boot. They may hold passwords: only the two keys' lines are asked for.
pub(super) fn files() -> Vec<FilePattern> {
    let mut files = only(&SOURCES, &[HOSTS, HOSTNAME]);
    let units = UNITS.map(|unit| format!("/etc/systemd/system/{unit}"));
    files.extend(only(&units.iter().map(String::as_str).collect::<Vec<_>>(), &["none"]));
    files.extend(whole(&[CMDLINE]));
    files
}

pub(super) fn check(look: &mut Look) {
    if !runs(look) {
        return;
    }
    // `localhost` changes one line alone, that of the host's own name.
    if let Some(setting) = setting(look, HOSTS).filter(|s| s.is_true() || s.value == "template") {
        let finding = Finding::new(
            Check::HostsRewritten,
            "cloud-init writes /etc/hosts anew at each boot",
            format!("{HOSTS}: {}", setting.value),
            format!("set `{HOSTS}: localhost` or `false`, or put the line into /etc/cloud/templates/hosts.*.tmpl too"),
        );
        look.add(finding.at(setting.file, setting.line));
    }
    // `preserve_hostname` is off where nothing is said (cloud-init's module "set hostname").
    let preserved = setting(look, HOSTNAME);
    if preserved.as_ref().is_none_or(|s| !s.is_true()) {
        let saw = preserved.as_ref().map_or_else(
            || format!("{HOSTNAME} is not set, which means false"),
            |setting| format!("{HOSTNAME}: {}", setting.value),
        );
        let finding = Finding::new(
            Check::HostnameRewritten,
            "cloud-init may set the host name at a boot",
            saw,
            format!("set `{HOSTNAME}: true` in a file of /etc/cloud/cloud.cfg.d"),
        );
        let (file, line) = preserved.map_or((MAIN.to_owned(), None), |s| (s.file, Some(s.line)));
        look.add(finding.at(file, line));
    }
}

/// Says whether cloud-init acts at a boot.
fn runs(look: &Look) -> bool {
    let facts = look.facts;
    let masked = UNITS.iter().any(|unit| {
        let file = facts.survey.files.get(&format!("/etc/systemd/system/{unit}"));
        file.is_some_and(|file| file.real.as_deref() == Some("/dev/null"))
    });
    let switched_off = facts.paths.contains(DISABLED) || has_kernel_option(look, &["cloud-init=disabled"]);
    facts.paths.contains(PROGRAM) && !switched_off && !masked
}

struct Setting {
    value: String,
    file: String,
    line: usize,
}

impl Setting {
    /// Says whether cloud-init takes it for true: what YAML 1.1 does, and the number (cloud-init's `util.is_true`).
    fn is_true(&self) -> bool {
        matches!(self.value.as_str(), "true" | "1" | "on" | "yes")
    }
}

/// Returns the line that has the last word on a key.
fn setting(look: &Look, key: &str) -> Option<Setting> {
    let files = &look.facts.survey.files;
    let sources = SOURCES.iter().flat_map(|pattern| {
        // Paths are in the order of their names, as cloud-init reads them.
        files
            .iter()
            .filter(move |(path, _)| crate::glob::matches(pattern, path))
    });
    let lines = sources.flat_map(|(path, file)| file.text.lines().enumerate().map(move |(n, line)| (path, n, line)));
    let found = lines.filter_map(|(path, number, line)| {
        let (name, value) = line.split_once(':')?;
        let value = value.split('#').next().unwrap_or_default().trim();
        (name.trim() == key).then(|| Setting {
            value: value.trim_matches(['"', '\'']).to_ascii_lowercase(),
            file: path.clone(),
            line: number + 1,
        })
    });
    found.last()
}
