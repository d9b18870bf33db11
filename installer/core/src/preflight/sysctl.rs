//! Kernel settings after the next boot: which file wins, by the rules of systemd-sysctl (sysctl.d(5)).

use super::Look;
use crate::facts::FileText;
use crate::finding::{Check, Finding};
use crate::layout;
use crate::plan::claims::KUBELET_SETTINGS;
use crate::sysctl_conf::{Assignment, Assignments, path_form, same_value};
use std::collections::BTreeMap;

pub(super) fn check(look: &mut Look) {
    let files = &look.facts.survey.files;
    if files.is_empty() {
        return;
    }
    let ours: String = look
        .input
        .settings
        .iter()
        .map(|(k, v)| format!("{k} = {v}\n"))
        .collect();
    let assignments = Assignments::read(files, Some(&ours));
    let mut found = Vec::new();
    for (name, wanted) in look.input.settings {
        let Some(winner) = assignments.winner(name) else {
            continue;
        };
        if winner.file == layout::SYSCTL_FILE || same_value(winner.value, wanted) {
            continue;
        }
        let file = real(files, winner.file);
        let read_as = if file == winner.file {
            String::new()
        } else {
            format!(" (read as {})", winner.file)
        };
        found.push(
            Finding::new(
                Check::SysctlLater,
                format!("another file sets {name} behind landfall's"),
                format!("{}{}, wanted is {wanted}{read_as}", twin(name, winner), winner.value),
                format!("take the line out, or set {name} = {wanted} there"),
            )
            .at(file, winner.line)
            .because(why(name, look.lab)),
        );
    }
    found.into_iter().for_each(|finding| look.add(finding));
}

/// Returns the name that a line uses for a setting, with an equals sign, where it is another one.
fn twin(name: &str, line: &Assignment) -> String {
    if path_form(line.name) == path_form(name) {
        return String::new();
    }
    format!("{} = ", line.name)
}

/// Says what breaks when a setting has another value.
pub(super) fn why(name: &str, lab: bool) -> String {
    let after = "after a boot the kernel has the other value";
    match name {
        _ if KUBELET_SETTINGS.contains(&name) && !lab => {
            format!("{after}, and the kubelet, which compares it (protectKernelDefaults), does not start")
        }
        "net.ipv4.ip_forward" => format!("{after}, and the node forwards nothing to and from pods"),
        "net.bridge.bridge-nf-call-iptables" => {
            format!("{after}, and Services cannot be reached from pods on the same node")
        }
        _ => after.to_owned(),
    }
}

/// Returns the value that a setting has after a boot by the files alone, with file and line, when one sets it.
pub(super) fn after_boot<'a>(files: &'a BTreeMap<String, FileText>, name: &str) -> Option<(&'a str, String, usize)> {
    let assignments = Assignments::read(files, None);
    let winner = assignments.winner(name)?;
    Some((winner.value, real(files, winner.file), winner.line))
}

/// Returns where a file really is.
fn real(files: &BTreeMap<String, FileText>, path: &str) -> String {
    let real = files.get(path).and_then(|file| file.real.clone());
    real.unwrap_or_else(|| path.to_owned())
}
