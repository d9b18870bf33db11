//! Swap: on now, or back after the next boot, by whichever way systemd knows.

use super::{CMDLINE, Look, has_kernel_option, only, whole};
use crate::facts::FilePattern;
use crate::finding::{Check, Finding};
use std::collections::BTreeSet;

const ZRAM_GENERATOR: &str = "/usr/lib/systemd/system-generators/zram-generator";
/// Paths whose existence matters here.
pub(super) const PATHS: [&str; 1] = [ZRAM_GENERATOR];
/// Services that make swap: Debian's zram-tools and dphys-swapfile, Ubuntu's zram-config, Debian's swapspace, and Armbian's.
pub(super) const UNITS: [&str; 5] = [
    "zramswap.service",
    "dphys-swapfile.service",
    "zram-config.service",
    "swapspace.service",
    "armbian-zram-config.service",
];
const FSTAB: &str = "/etc/fstab";
/// Where units are, and where a link to /dev/null masks one (systemd.unit(5)).
const MASK_DIRS: [&str; 2] = ["/etc/systemd/system", "/run/systemd/system"];
/// Where zram-generator looks for its configuration, the most important first (zram-generator.conf(5)).
const ZRAM_DIRS: [&str; 4] = [
    "/etc/systemd",
    "/run/systemd",
    "/usr/local/lib/systemd",
    "/usr/lib/systemd",
];
const ZRAM_CONF: &str = "zram-generator.conf";

/// Files that say whether swap comes back.
pub(super) fn files() -> Vec<FilePattern> {
    let mut files = whole(&[FSTAB, CMDLINE]);
    let mut units = vec![
        "/etc/systemd/system/swap.target".to_owned(),
        "/run/systemd/system/swap.target".to_owned(),
    ];
    for dir in [
        "/etc/systemd/system",
        "/run/systemd/system",
        "/usr/local/lib/systemd/system",
        "/usr/lib/systemd/system",
        "/lib/systemd/system",
        "/run/systemd/generator*",
    ] {
        units.extend(["*.swap", "*.wants/*.swap", "*.requires/*.swap"].map(|name| format!("{dir}/{name}")));
    }
    for dir in ZRAM_DIRS {
        units.extend([format!("{dir}/{ZRAM_CONF}"), format!("{dir}/{ZRAM_CONF}.d/*.conf")]);
    }
    let units: Vec<&str> = units.iter().map(String::as_str).collect();
    files.extend(only(
        &units,
        &["What", "SourcePath", "fs-type", "mount-point", "zram-size"],
    ));
    files
}

pub(super) fn check(look: &mut Look) {
    // The lab's machines share the host's swap, and their kubelets run beside it.
    if look.lab {
        return;
    }
    let facts = look.facts;
    if !facts.swaps.is_empty() {
        look.add(Finding::new(
            Check::Swap,
            "swap is on",
            facts.swaps.join(", "),
            "swapoff -a, and take away what brings it back at a boot",
        ));
    }
    // systemd.swap=0: neither fstab nor partitions are looked at (systemd-fstab-generator(8)).
    let off = ["0", "no", "false", "off"].map(|value| format!("systemd.swap={value}"));
    let off: Vec<&str> = off.iter().map(String::as_str).collect();
    let no_target = is_masked(look, "swap.target");
    if !no_target && !has_kernel_option(look, &off) {
        check_fstab(look);
        check_units(look);
    }
    if !no_target {
        check_zram(look);
    }
    for unit in UNITS {
        if facts.survey.enabled_units.contains(unit) {
            let next = format!("systemctl disable --now {unit}");
            look.add(at_boot(&format!("{unit} turns it on"), "enabled", &next));
        }
    }
}

fn at_boot(how: &str, saw: impl Into<String>, next: &str) -> Finding {
    Finding::new(
        Check::Swap,
        format!("swap will be on after the next boot: {how}"),
        saw,
        next,
    )
}

fn is_masked(look: &Look, unit: &str) -> bool {
    MASK_DIRS.iter().any(|dir| {
        let file = look.facts.survey.files.get(&format!("{dir}/{unit}"));
        file.is_some_and(|file| file.real.as_deref() == Some("/dev/null"))
    })
}

fn check_fstab(look: &mut Look) {
    let text = look.text(FSTAB).unwrap_or_default().to_owned();
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [what, _, "swap", rest @ ..] = words.as_slice() else {
            continue;
        };
        let options = rest.first().copied().unwrap_or_default();
        let comes = !what.starts_with('#') && !options.split(',').any(|option| option == "noauto");
        if comes && !is_masked(look, &unit_of(what)) {
            let next = "take the line out, then run `systemctl daemon-reload`";
            look.add(at_boot("a line of /etc/fstab", line.trim(), next).at(FSTAB, number + 1));
        }
    }
}

/// Returns the name of the unit that systemd makes of a swap area in fstab (systemd-escape(1), `--path`).
fn unit_of(what: &str) -> String {
    let tags = [
        ("UUID=", "by-uuid"),
        ("LABEL=", "by-label"),
        ("PARTUUID=", "by-partuuid"),
        ("PARTLABEL=", "by-partlabel"),
    ];
    let by_tag = tags.iter().find_map(|(tag, dir)| {
        let value = what.strip_prefix(tag)?.trim_matches('"');
        Some(format!("/dev/disk/{dir}/{value}"))
    });
    let path = by_tag.unwrap_or_else(|| what.to_owned());
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut name = String::new();
    for (at, byte) in parts.join("/").bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at == 0 => name.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => name.push(char::from(byte)),
            other => name.push_str(&format!("\\x{other:02x}")),
        }
    }
    format!("{name}.swap")
}

/// Units that something wants at a boot: own ones, and those that systemd's generator makes of partitions (systemd-gpt-auto-generator(8)).
fn check_units(look: &mut Look) {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (path, file) in &look.facts.survey.files {
        let mut parts = path.rsplit('/');
        let (Some(unit), Some(dir)) = (parts.next(), parts.next()) else {
            continue;
        };
        let wanted = dir.ends_with(".wants") || dir.ends_with(".requires");
        // fstab and zram-generator's files are read anew: what was made of them at the last boot may be out of date.
        let from_fstab = file.text.lines().any(|l| l.trim() == "SourcePath=/etc/fstab");
        let generated = path.starts_with("/run/systemd/generator");
        let stale = generated && (from_fstab || unit.starts_with("dev-zram"));
        if !unit.ends_with(".swap") || !wanted || stale || is_masked(look, unit) || !seen.insert(unit.to_owned()) {
            continue;
        }
        let device = file.text.lines().find_map(|line| line.trim().strip_prefix("What="));
        let saw = format!("{unit}: {}", device.unwrap_or("a swap area"));
        let how = if generated {
            "systemd finds a swap partition by its type (systemd-gpt-auto-generator)"
        } else {
            "a unit turns it on"
        };
        let file = file.real.clone().unwrap_or_else(|| path.clone());
        let finding = at_boot(how, saw, &format!("systemctl mask --now '{unit}'"));
        found.push(finding.at(file, None));
    }
    found.into_iter().for_each(|finding| look.add(finding));
}

/// zram-generator makes a swap area of each section of its configuration that names no file system.
fn check_zram(look: &mut Look) {
    if !look.facts.paths.contains(ZRAM_GENERATOR) {
        return;
    }
    let files = &look.facts.survey.files;
    let main = ZRAM_DIRS
        .iter()
        .map(|dir| format!("{dir}/{ZRAM_CONF}"))
        .find(|path| files.contains_key(path));
    // A part of the same name in a more important directory hides the others.
    let mut parts = std::collections::BTreeMap::new();
    for dir in ZRAM_DIRS {
        let folder = format!("{dir}/{ZRAM_CONF}.d/");
        for path in files.keys().filter(|path| path.starts_with(&folder)) {
            parts.entry(&path[folder.len()..]).or_insert(path);
        }
    }
    let mut found = Vec::new();
    for path in main.iter().chain(parts.values().copied()) {
        let text = files.get(path).map(|file| file.text.as_str()).unwrap_or_default();
        found.extend(zram_sections(text).map(|(number, section)| {
            let how = "zram-generator makes a swap area in memory";
            let next = format!("put an empty /etc/systemd/{ZRAM_CONF} there, and stop the unit with `swapoff -a`");
            at_boot(how, section, &next).at(path, number)
        }));
    }
    found.into_iter().for_each(|finding| look.add(finding));
}

/// Returns the sections that make swap, with their lines from 1.
fn zram_sections(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_heading = |line: &str| line.starts_with('[');
    let sections: Vec<(usize, &str)> = (0..lines.len())
        .filter(|at| lines[*at].starts_with("[zram"))
        .filter(|at| {
            let body = lines[at + 1..].iter().take_while(|line| !is_heading(line));
            let mut pairs = body.filter_map(|line| line.split_once('='));
            !pairs.any(|(key, value)| match key.trim() {
                "fs-type" => value.trim() != "swap",
                "mount-point" => true,
                "zram-size" => value.trim() == "0",
                _ => false,
            })
        })
        .map(|at| (at + 1, lines[at]))
        .collect();
    sections.into_iter()
}

#[cfg(test)]
mod tests {
    use super::unit_of;

    /// Compared with `systemd-escape --path --suffix=swap` of systemd 252.
    #[test]
    fn units_of_swap_areas_are_named_as_systemd_does() {
        for (what, unit) in [
            ("/swap.img", "swap.img.swap"),
            ("/dev/sda2", "dev-sda2.swap"),
            ("/dev/mapper/vg-swap", "dev-mapper-vg\\x2dswap.swap"),
            ("/.swap/file 1", "\\x2eswap-file\\x201.swap"),
            ("UUID=ab-1", "dev-disk-by\\x2duuid-ab\\x2d1.swap"),
        ] {
            assert_eq!(unit_of(what), unit);
        }
    }
}
