//! Directories that landfall and the cluster write to or run programs from, and the overlay that containers need.

use super::{Look, only};
use crate::drop_in;
use crate::facts::{FilePattern, FileText, Tried};
use crate::finding::{Check, Finding};
use crate::inventory::Role;
use crate::layout::{self, CONTAINERD_DIR, ETCD_DIR, KUBELET_DIR};
use crate::spec::BinDir;
use std::collections::{BTreeMap, BTreeSet};

const HOSTS: &str = "/etc/hosts";
const FSTAB: &str = "/etc/fstab";
/// Directories that may be disks of their own.
const DISKS: [&str; 3] = [CONTAINERD_DIR, ETCD_DIR, KUBELET_DIR];
/// Where systemd's generators write units at each boot.
pub(super) const GENERATED: &str = "/run/systemd/generator";

/// Places from which programs are run, beside the spec's own: landfall's agent, CNI plugins, containers.
const PROGRAM_PLACES: [&str; 3] = [layout::STATE_DIR, layout::CNI_BIN_DIR, CONTAINERD_DIR];
/// Places where only files are kept.
const FILE_PLACES: [&str; 8] = [
    layout::CONFIG_DIR,
    layout::KUBERNETES_DIR,
    layout::UNIT_DIR,
    "/etc/sysctl.d",
    "/etc/modules-load.d",
    KUBELET_DIR,
    "/var/lib/cni",
    "/var/log/pods",
];

/// Returns the places of a node.
pub(super) fn places(role: Role, bin_dir: BinDir) -> Vec<String> {
    let etcd = (role == Role::ControlPlane).then_some(ETCD_DIR);
    let all = program_places(bin_dir).chain(FILE_PLACES).chain(etcd);
    all.map(str::to_owned).collect()
}

fn program_places(bin_dir: BinDir) -> impl Iterator<Item = &'static str> {
    PROGRAM_PLACES.into_iter().chain([bin_dir.path()])
}

/// Returns files that landfall changes or replaces when they are there.
pub(super) fn mutable_files(bin_dir: BinDir) -> Vec<String> {
    let units = ["kubelet.service", "containerd.service"].map(|unit| format!("{}/{unit}", layout::UNIT_DIR));
    let programs = ["landfall", "kubelet", "kubeadm", "kubectl", "containerd", "ctr", "runc"];
    let programs = programs.map(|program| format!("{}/{program}", bin_dir.path()));
    let files = [HOSTS, layout::SYSCTL_FILE, layout::MODULES_FILE].map(str::to_owned);
    files.into_iter().chain(units).chain(programs).collect()
}

/// Files that say what is mounted at a boot, beside fstab.
pub(super) fn files() -> Vec<FilePattern> {
    let generated = format!("{GENERATED}*");
    let dirs = drop_in::DIRS.into_iter().chain([generated.as_str()]);
    let of_dir = |dir: &str| DISKS.map(|disk| units_of(disk).map(|unit| format!("{dir}/{unit}")));
    let paths: Vec<String> = dirs.flat_map(of_dir).flatten().collect();
    only(&paths.iter().map(String::as_str).collect::<Vec<_>>(), &["SourcePath"])
}

/// Returns the names of the units that mount something at a path, which holds no character that systemd escapes.
fn units_of(path: &str) -> [String; 2] {
    let name = path.trim_matches('/').replace('/', "-");
    [format!("{name}.mount"), format!("{name}.automount")]
}

pub(super) fn check(look: &mut Look) {
    check_places(look);
    // Volumes of the lab's machines are mounted by what runs these.
    if !look.lab {
        check_mounts(look);
    }
}

/// Disks that somebody mounted by hand.
fn check_mounts(look: &mut Look) {
    let survey = &look.facts.survey;
    let mounted = DISKS
        .iter()
        .filter_map(|disk| Some((*disk, survey.places.get(*disk)?.mounted.as_ref()?)));
    // ZFS mounts its data sets by their own properties.
    let by_hand = mounted.filter(|(disk, mounted)| mounted.kind != "zfs" && !is_mounted_at_boot(look, disk));
    let findings: Vec<Finding> = by_hand
        .map(|(disk, mounted)| {
            let what = format!("{disk} is mounted now, and nothing mounts it at the next boot");
            let saw = format!(
                "{} ({}), in no line of {FSTAB} and no unit",
                mounted.source, mounted.kind
            );
            let next = format!("add a line for it to {FSTAB}, by its UUID, and run `systemctl daemon-reload`");
            Finding::new(Check::MountAtBoot, what, saw, next).at(disk, None)
        })
        .collect();
    findings.into_iter().for_each(|finding| look.add(finding));
}

/// Says whether systemd mounts something there after a boot. What is `noauto` comes too: landfall's units ask for it (`RequiresMountsFor`).
fn is_mounted_at_boot(look: &Look, path: &str) -> bool {
    let fstab = look.text(FSTAB).unwrap_or_default();
    let is_line = |line: &str| {
        let mut words = line.split_whitespace();
        let what = words.next().unwrap_or_default();
        !what.starts_with('#') && words.next().is_some_and(|point| point.trim_end_matches('/') == path)
    };
    if fstab.lines().any(is_line) {
        return true;
    }
    units_of(path).iter().any(|unit| {
        let all = look.facts.survey.files.iter();
        let mut files = all.filter(|(file, _)| file.strip_suffix(unit.as_str()).is_some_and(|dir| dir.ends_with('/')));
        let is_masked = |file: &FileText| file.real.as_deref() == Some("/dev/null");
        // What was made of a line of fstab at the last boot, and has gone from there, comes no more.
        let is_stale = |path: &str, file: &FileText| path.starts_with(GENERATED) && is_from_fstab(file);
        let masks = files.clone().any(|(_, file)| is_masked(file));
        !masks && files.any(|(path, file)| !is_stale(path, file))
    })
}

/// Says whether a unit was made of a line of fstab (systemd-fstab-generator(8)).
pub(super) fn is_from_fstab(unit: &FileText) -> bool {
    unit.text.lines().any(|line| line.trim() == "SourcePath=/etc/fstab")
}

fn check_places(look: &mut Look) {
    let survey = &look.facts.survey;
    let bin_dir = look.input.desired.spec.bin_dir;
    // One file system, or one directory, is one finding, whatever is to be put there.
    let mut noexec: BTreeMap<(u64, &str), Vec<&str>> = BTreeMap::new();
    let mut unwritable: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (place, seen) in &survey.places {
        if seen.noexec && program_places(bin_dir).any(|program_place| program_place == place) {
            noexec.entry((seen.device, &seen.directory)).or_default().push(place);
        }
        if let Tried::Fails(why) = &seen.write {
            unwritable.entry((&seen.directory, why)).or_default().push(place);
        }
    }
    let mut found = Vec::new();
    for ((_, directory), places) in noexec {
        found.push(
            Finding::new(
                Check::Noexec,
                format!("{directory} is mounted noexec"),
                format!("programs will run from {}", places.join(", ")),
                format!("mount it with exec: mount -o remount,exec {directory}, and in /etc/fstab"),
            )
            .at(directory, None),
        );
    }
    for ((directory, why), places) in unwritable {
        let mut next = "look whether it is mounted read-only (findmnt -T) or immutable (lsattr -d)".to_owned();
        if places == [layout::BIN_DIR] {
            next += &format!(
                "; where that is meant to be, set binDir: {} in the spec",
                layout::OPT_BIN_DIR
            );
        }
        found.push(
            Finding::new(
                Check::NotWritable,
                format!("no file can be made in {directory}"),
                format!("{why}; landfall puts files into {}", places.join(", ")),
                next,
            )
            .at(directory, None),
        );
    }
    for file in survey.immutable.iter().collect::<BTreeSet<_>>() {
        let next = format!("chattr -i -a {file}");
        let finding = Finding::new(
            Check::NotWritable,
            format!("{file} is immutable"),
            "its attribute i or a is set",
            next,
        );
        found.push(finding.at(file, None));
    }
    if let Tried::Fails(why) = &survey.overlay {
        let directory = survey
            .places
            .get(CONTAINERD_DIR)
            .map_or(CONTAINERD_DIR, |p| &p.directory);
        let next = "use a file system for /var/lib/containerd that takes overlays: ext4, or XFS made with ftype=1";
        let what = format!("no overlay can be mounted on the file system of {directory}");
        found.push(Finding::new(Check::Overlay, what, why, next).at(directory, None));
    }
    found.into_iter().for_each(|finding| look.add(finding));
}
