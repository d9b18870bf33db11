//! SELinux, AppArmor, fapolicyd and the kernel's lockdown.

use super::{Look, whole};
use crate::facts::FilePattern;
use crate::finding::{Check, Finding};
use crate::layout;
use crate::layout::CONTAINERD_DIR;

/// Units whose state matters here.
pub(super) const UNITS: [&str; 1] = ["fapolicyd.service"];
const APPARMOR: &str = "/sys/module/apparmor/parameters/enabled";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const SELINUX_CONFIG: &str = "/etc/selinux/config";
/// 1 when SELinux enforces now; absent when the kernel has none, or it is switched off.
const SELINUX_ENFORCE: &str = "/sys/fs/selinux/enforce";

/// Files that tell what the kernel enforces.
pub(super) fn files() -> Vec<FilePattern> {
    whole(&[APPARMOR, LOCKDOWN, SELINUX_CONFIG, SELINUX_ENFORCE])
}

pub(super) fn check(look: &mut Look) {
    check_selinux(look);
    if look.text(APPARMOR).is_some_and(|text| text.trim() == "Y") {
        let finding = Finding::new(Check::Apparmor, "AppArmor is on", "enabled: Y", "nothing");
        look.add(finding.at(APPARMOR, None));
    }
    if let Some(saw) = look.unit_state(UNITS[0]) {
        let next = format!(
            "put these lines into /etc/fapolicyd/rules.d/30-landfall.rules, run `fagenrules --load`, and `accept` the finding:\n{}",
            fapolicyd_rules().join("\n")
        );
        look.add(Finding::new(
            Check::Fapolicyd,
            "fapolicyd forbids programs that it does not know",
            saw,
            next,
        ));
    }
    // The active level stands in brackets.
    let level = look
        .text(LOCKDOWN)
        .and_then(|text| text.split('[').nth(1)?.split(']').next());
    if let Some(level) = level.filter(|level| *level != "none").map(str::to_owned) {
        let finding = Finding::new(Check::Lockdown, "the kernel is locked down", level, "nothing");
        look.add(finding.at(LOCKDOWN, None));
    }
}

/// Returns lines for fapolicyd by which all programs of landfall and of containers may run (fapolicyd.rules(5)).
pub fn fapolicyd_rules() -> Vec<String> {
    let directories = [
        layout::STATE_DIR,
        layout::BIN_DIR,
        "/opt/landfall",
        CONTAINERD_DIR,
        "/run/containerd",
    ];
    directories
        .map(|dir| format!("allow perm=any all : dir={dir}/"))
        .to_vec()
}

fn check_selinux(look: &mut Look) {
    let next = "set SELINUX=permissive in /etc/selinux/config and `setenforce 0`, or use a machine without SELinux";
    if look.facts.selinux_enforcing {
        look.add(Finding::new(
            Check::Selinux,
            "SELinux enforces, which landfall was not tried with",
            "enforcing",
            next,
        ));
        return;
    }
    let text = look.text(SELINUX_CONFIG).unwrap_or_default();
    let line = text
        .lines()
        .position(|line| line.trim().eq_ignore_ascii_case("SELINUX=enforcing"));
    let Some(line) = line else { return };
    // Without the file system of SELinux the kernel has none, and the file says nothing.
    if look.text(SELINUX_ENFORCE).is_none() {
        return;
    }
    let finding = Finding::new(
        Check::Selinux,
        "SELinux will enforce after the next boot, which landfall was not tried with",
        "SELINUX=enforcing",
        next,
    );
    look.add(finding.at(SELINUX_CONFIG, line + 1));
}
