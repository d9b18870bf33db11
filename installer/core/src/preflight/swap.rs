//! Swap: on now, or back after the next boot, by whichever way systemd knows.

use super::places::{GENERATED, is_from_fstab};
use super::{CMDLINE, Look, has_kernel_option, only, whole};
use crate::facts::FilePattern;
use crate::finding::{Check, Finding, Severity};
use std::collections::{BTreeMap, BTreeSet};

const ZRAM_GENERATOR: &str = "/usr/lib/systemd/system-generators/zram-generator";
/// Paths whose existence matters here.
pub(super) const PATHS: [&str; 1] = [ZRAM_GENERATOR];
/// Services that make swap: Debian's zram-tools and dphys-swapfile, Ubuntu's zram-config, Debian's swapspace, Armbian's, and those that people
/// install by hand.
const SERVICES: [&str; 8] = [
    "zramswap.service",
    "dphys-swapfile.service",
    "zram-config.service",
    "swapspace.service",
    "armbian-zram-config.service",
    "systemd-swap.service",
    "zram-swap.service",
    "zramd.service",
];
/// Azure's agent, by the names that distributions give it.
const AZURE_UNITS: [&str; 2] = ["walinuxagent.service", "waagent.service"];
const AZURE_CONF: &str = "/etc/waagent.conf";
const AZURE_FORMAT: &str = "ResourceDisk.Format";
const AZURE_SWAP: &str = "ResourceDisk.EnableSwap";
/// Runs rc.local at a boot, when that is executable.
const RC_LOCAL_UNIT: &str = "rc-local.service";
const RC_LOCAL: [&str; 2] = ["/etc/rc.local", "/etc/rc.d/rc.local"];
/// The first systemd that knows `systemd.swap-extra=`.
const SWAP_EXTRA_SINCE: u32 = 254;
const FSTAB: &str = "/etc/fstab";
/// Where units are, and where a link to /dev/null masks one (systemd.unit(5)).
const MASK_DIRS: [&str; 2] = ["/etc/systemd/system", "/run/systemd/system"];
/// Where zram-generator looks for its configuration, the most important first (zram-generator.conf(5)).
const ZRAM_DIRS: [&str; 4] = [
    "/run/systemd",
    "/etc/systemd",
    "/usr/local/lib/systemd",
    "/usr/lib/systemd",
];
const ZRAM_CONF: &str = "zram-generator.conf";
/// What turns an option of the kernel's command line off (systemd's `parse_boolean`).
const OFF: [&str; 4] = ["0", "no", "false", "off"];
/// What udev knows of block devices, one file each, named by their numbers (`b8:3`).
const UDEV_BLOCK: &str = "/run/udev/data/b";
/// The type of swap partitions in a GPT (Discoverable Partitions Specification), and the flag by which they are left alone (bit 63).
const GPT_SWAP: &str = "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f";
const GPT_NO_AUTO: u64 = 1 << 63;

/// Returns the units whose state matters here.
pub(super) fn units() -> Vec<String> {
    let all = SERVICES.iter().chain(&AZURE_UNITS).chain([&RC_LOCAL_UNIT]);
    all.map(|unit| (*unit).to_owned()).collect()
}

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
        &[
            "What",
            "SourcePath",
            "fs-type",
            "mount-point",
            "zram-size",
            "host-memory-limit",
            "memory-limit",
        ],
    ));
    let about_partitions = ["N:", "E:ID_PART_ENTRY_TYPE", "E:ID_PART_ENTRY_FLAGS"];
    files.extend(only(&[&format!("{UDEV_BLOCK}*")], &about_partitions));
    files.extend(only(&[AZURE_CONF], &[AZURE_FORMAT, AZURE_SWAP]));
    files.extend(only(&RC_LOCAL, &["swapon", "/sbin/swapon", "/usr/sbin/swapon"]));
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
    let no_target = is_masked(look, "swap.target");
    if !no_target && !is_turned_off(look, "systemd.swap") {
        check_fstab(look);
        check_units(look);
        check_partitions(look);
        check_command_line(look);
    }
    if !no_target {
        check_zram(look);
    }
    check_azure(look);
    check_rc_local(look);
    for unit in SERVICES {
        if facts.survey.enabled_units.contains(unit) {
            let next = format!("systemctl disable --now {unit}");
            look.add(at_boot(&format!("{unit} turns it on"), "enabled", &next));
        }
    }
}

/// systemd's generator makes units of `systemd.swap-extra=WHAT[:OPTIONS]` too (systemd-fstab-generator(8)).
fn check_command_line(look: &mut Look) {
    if look.facts.systemd.is_none_or(|version| version < SWAP_EXTRA_SINCE) {
        return;
    }
    let line = look.text(CMDLINE).unwrap_or_default().to_owned();
    for word in line.split_whitespace() {
        let Some(swap) = word.strip_prefix("systemd.swap-extra=") else {
            continue;
        };
        let (what, options) = swap.split_once(':').unwrap_or((swap, ""));
        if !options.split(',').any(|option| option == "noauto") && !is_masked(look, &unit_of(what)) {
            let next = "take the option out of the boot loader's configuration";
            look.add(at_boot("an option of the kernel's command line", word, next).at(CMDLINE, None));
        }
    }
}

/// Azure's agent makes a swap file on the machine's temporary disk, when it is to format that.
fn check_azure(look: &mut Look) {
    let text = look.text(AZURE_CONF).unwrap_or_default();
    // The last line of a key counts.
    let setting = |key: &str| {
        let lines = text.lines().enumerate().filter_map(|(number, line)| {
            let (name, value) = line.split_once('=')?;
            let value = value.split('#').next().unwrap_or_default().trim();
            (name.trim() == key).then(|| (number + 1, value.eq_ignore_ascii_case("y")))
        });
        lines.last()
    };
    let formats = setting(AZURE_FORMAT).is_some_and(|(_, is_on)| is_on);
    let swaps = setting(AZURE_SWAP).filter(|(_, is_on)| *is_on && formats);
    let runs = AZURE_UNITS.iter().any(|unit| look.unit_state(unit).is_some());
    if let Some((line, _)) = swaps.filter(|_| runs) {
        let next = format!("set {AZURE_SWAP}=n");
        let finding = at_boot("Azure's agent makes a swap file", format!("{AZURE_SWAP}=y"), &next);
        look.add(finding.at(AZURE_CONF, line));
    }
}

/// A script that runs at the end of a boot. Whether it is executable is seen by its unit alone, which is active when it has run.
fn check_rc_local(look: &mut Look) {
    let has_run = look
        .facts
        .units
        .get(RC_LOCAL_UNIT)
        .is_some_and(|state| state == "active");
    for path in RC_LOCAL {
        let file = look.facts.survey.files.get(path);
        // One may be a link to the other.
        let text = file
            .filter(|file| file.real.is_none())
            .map_or("", |file| file.text.as_str());
        let lines: Vec<(usize, String)> = text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.contains("swapon"))
            .map(|(number, line)| (number + 1, line.trim().to_owned()))
            .collect();
        for (number, line) in lines {
            let finding = at_boot(&format!("{path} turns it on"), line, "take the line out").at(path, number);
            look.add(if has_run {
                finding
            } else {
                finding.at_most(Severity::Warn)
            });
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

/// Says whether the kernel's command line turns one of systemd's options off.
fn is_turned_off(look: &Look, option: &str) -> bool {
    let off = OFF.map(|value| format!("{option}={value}"));
    has_kernel_option(look, &off.each_ref().map(String::as_str))
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
        let generated = path.starts_with(GENERATED);
        let stale = generated && (is_from_fstab(file) || unit.starts_with("dev-zram"));
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

/// Swap partitions that systemd's generator may find at the next boot although it made no unit of them at the last one: they are new, or a line of
/// fstab stood for them then. It looks on the disk of the root file system alone, which is not known here, so it is a warning.
fn check_partitions(look: &mut Look) {
    if is_turned_off(look, "systemd.gpt_auto") {
        return;
    }
    let mut found = Vec::new();
    for (path, file) in &look.facts.survey.files {
        if !path.starts_with(UDEV_BLOCK) {
            continue;
        }
        let value = |key: &str| file.text.lines().find_map(|line| line.strip_prefix(key));
        let flags = value("E:ID_PART_ENTRY_FLAGS=0x").and_then(|flags| u64::from_str_radix(flags, 16).ok());
        let is_left_alone = flags.is_some_and(|flags| flags & GPT_NO_AUTO != 0);
        let Some(name) = value("N:").filter(|_| value("E:ID_PART_ENTRY_TYPE=") == Some(GPT_SWAP) && !is_left_alone)
        else {
            continue;
        };
        let device = format!("/dev/{name}");
        let unit = unit_of(&device);
        if !is_masked(look, &unit) && !is_generated(look, &unit) {
            let how = "systemd finds a swap partition by its type (systemd-gpt-auto-generator), if the disk is that of the root file system";
            let next = format!("`systemctl mask {unit}`, or give the partition another type");
            found.push(at_boot(how, device, &next).at_most(Severity::Warn));
        }
    }
    found.into_iter().for_each(|finding| look.add(finding));
}

/// Says whether a generator made the unit at the last boot, other than of fstab: [`check_units`] reports it.
fn is_generated(look: &Look, unit: &str) -> bool {
    let files = look.facts.survey.files.iter();
    let mut own = files.filter(|(path, _)| path.starts_with(GENERATED) && path.rsplit('/').next() == Some(unit));
    own.any(|(_, file)| !is_from_fstab(file))
}

/// zram-generator makes a swap area of each section of its configuration that names no file system. A section of several files is one, in which a
/// later file's line counts (zram-generator.conf(5)).
fn check_zram(look: &mut Look) {
    let option = zram_option(look);
    if !look.facts.paths.contains(ZRAM_GENERATOR) || option == Some(false) {
        return;
    }
    let files = &look.facts.survey.files;
    let mut sections: BTreeMap<&str, ZramSection> = BTreeMap::new();
    for path in zram_files(look) {
        let text = files.get(path).map(|file| file.text.as_str()).unwrap_or_default();
        let mut open = None;
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if line.starts_with('[') {
                open = Some(line).filter(|line| is_zram_section(line));
                if let Some(name) = open {
                    sections.entry(name).or_default().place = Some((path, number));
                }
            } else if let (Some(name), Some((key, value))) = (open, line.split_once('=')) {
                let section = sections.entry(name).or_default();
                section.values.insert(key.trim(), value.trim());
            }
        }
    }
    if option == Some(true) {
        sections.entry("[zram0]").or_default();
    }
    let how = "zram-generator makes a swap area in memory";
    let next = format!("put an empty /etc/systemd/{ZRAM_CONF} there, and stop the unit with `swapoff -a`");
    let found: Vec<Finding> = sections
        .iter()
        .filter(|(_, section)| section.makes_swap(look.facts.memory_mib))
        .map(|(name, section)| {
            let finding = at_boot(how, *name, &next);
            match section.place {
                Some((path, number)) => finding.at(path, Some(number)),
                None => finding.at(CMDLINE, None),
            }
        })
        .collect();
    found.into_iter().for_each(|finding| look.add(finding));
}

/// `systemd.zram` of the kernel's command line, of which the last counts: without areas, or with one that no file names (zram-generator(8)).
fn zram_option(look: &Look) -> Option<bool> {
    let words = look.text(CMDLINE).unwrap_or_default().split_whitespace();
    let mut values = words.filter_map(|word| match word.strip_prefix("systemd.zram")? {
        "" | "=1" | "=yes" | "=true" | "=on" => Some(true),
        "=0" | "=no" | "=false" | "=off" => Some(false),
        _ => None,
    });
    values.next_back()
}

/// `[zram0]` and the like; zram-generator passes other sections over.
fn is_zram_section(line: &str) -> bool {
    let number = line.strip_prefix("[zram").and_then(|rest| rest.strip_suffix(']'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The files of zram-generator's configuration, in the order in which they are read: the most important main file, then the parts by name. A part
/// of the same name in a more important directory hides the others.
fn zram_files<'a>(look: &Look<'a>) -> Vec<&'a String> {
    let files = &look.facts.survey.files;
    let main = ZRAM_DIRS
        .iter()
        .find_map(|dir| Some(files.get_key_value(&format!("{dir}/{ZRAM_CONF}"))?.0));
    let mut parts = BTreeMap::new();
    for dir in ZRAM_DIRS {
        let folder = format!("{dir}/{ZRAM_CONF}.d/");
        for path in files.keys().filter(|path| path.starts_with(&folder)) {
            parts.entry(&path[folder.len()..]).or_insert(path);
        }
    }
    main.into_iter().chain(parts.into_values()).collect()
}

/// One section, of all files.
#[derive(Default)]
struct ZramSection<'a> {
    /// The file and the line, from 1, where it is named last.
    place: Option<(&'a String, usize)>,
    values: BTreeMap<&'a str, &'a str>,
}

impl ZramSection<'_> {
    fn makes_swap(&self, memory_mib: u64) -> bool {
        let value = |key: &str| self.values.get(key).copied().unwrap_or_default();
        // The second is the older name.
        let limit = ["host-memory-limit", "memory-limit"].map(|key| value(key).parse::<u64>());
        let limit = limit.into_iter().find_map(Result::ok);
        let is_swap = matches!(value("fs-type"), "" | "swap") && value("mount-point").is_empty();
        is_swap && value("zram-size") != "0" && limit.is_none_or(|limit| memory_mib <= limit)
    }
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
