//! tuned, which writes kernel settings after systemd-sysctl did, whenever its profile is applied.

use super::{Look, only, sysctl};
use crate::facts::FilePattern;
use crate::finding::{Check, Finding};
use crate::sysctl_conf::same_value;

/// Units whose state matters here.
pub(super) const UNITS: [&str; 1] = ["tuned.service"];
const ACTIVE: &str = "/etc/tuned/active_profile";
const MAIN: &str = "/etc/tuned/tuned-main.conf";
/// Where profiles are, the most important first (tuned-profiles(7); newer versions have a folder more).
const PROFILE_DIRS: [&str; 4] = [
    "/etc/tuned/profiles",
    "/etc/tuned",
    "/usr/lib/tuned/profiles",
    "/usr/lib/tuned",
];

/// The files that say what tuned writes.
pub(super) fn files() -> Vec<FilePattern> {
    let mut files = super::whole(&[ACTIVE]);
    files.extend(only(&[MAIN], &["reapply_sysctl"]));
    let profiles = PROFILE_DIRS.map(|dir| format!("{dir}/*/tuned.conf"));
    let profiles: Vec<&str> = profiles.iter().map(String::as_str).collect();
    files.extend(only(&profiles, &["include", "vm", "kernel", "net"]));
    files
}

pub(super) fn check(look: &mut Look) {
    let survey = &look.facts.survey;
    let runs = look.unit_state(UNITS[0]).is_some();
    let value = |text: &str| text.split_once('=').map(|(_, value)| value.trim().to_ascii_lowercase());
    let reapplies = look.text(MAIN).and_then(|text| text.lines().find_map(value));
    // By default tuned applies the files of sysctl.d once more after its own settings, and they win.
    let reapplies = reapplies.is_none_or(|value| !matches!(value.as_str(), "0" | "false" | "no"));
    if !runs || reapplies {
        return;
    }
    let mut profiles: Vec<String> = look
        .text(ACTIVE)
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let (mut at, mut found) = (0, Vec::new());
    while let Some(profile) = profiles.get(at).cloned() {
        at += 1;
        let paths = PROFILE_DIRS.map(|dir| format!("{dir}/{profile}/tuned.conf"));
        let Some((path, file)) = paths.iter().find_map(|path| Some((path, survey.files.get(path)?))) else {
            continue;
        };
        let mut in_settings = false;
        for (number, line) in file.text.lines().enumerate() {
            if line.starts_with('[') {
                in_settings = line.trim() == "[sysctl]";
            }
            let Some((key, value)) = line.split_once('=').map(|(k, v)| (k.trim(), v.trim())) else {
                continue;
            };
            if key == "include" {
                let included = value.split([',', ' ']).filter(|name| !name.is_empty());
                // A profile that includes itself is read once.
                profiles.extend(
                    included
                        .filter(|name| !profiles.iter().any(|p| p == name))
                        .map(str::to_owned)
                        .collect::<Vec<_>>(),
                );
            }
            let settings = look.input.settings.iter();
            let differs = settings.filter(|(name, wanted)| name == key && !same_value(value, wanted));
            found.extend(differs.filter(|_| in_settings).map(|(name, wanted)| {
                Finding::new(
                    Check::SysctlLater,
                    format!("tuned's profile {profile} sets {name} behind landfall's"),
                    format!("{value}, wanted is {wanted}; reapply_sysctl is off in {MAIN}"),
                    format!("set reapply_sysctl = 1 in {MAIN}, or make a profile without {name}"),
                )
                .at(path, number + 1)
                .because(sysctl::why(name, look.lab))
            }));
        }
    }
    found.into_iter().for_each(|finding| look.add(finding));
}
