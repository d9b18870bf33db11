//! Programs of the node that would configure the cluster's own links: systemd-networkd by a file that matches every link, and nm-cloud-setup.

use super::{Look, only};
use crate::facts::FilePattern;
use crate::finding::{Check, Finding};
use crate::glob::matches_part;
use std::collections::BTreeMap;

const NETWORKD: &str = "systemd-networkd.service";
const NM_CLOUD_SETUP: [&str; 2] = ["nm-cloud-setup.service", "nm-cloud-setup.timer"];
/// Units whose state matters here.
pub(super) const UNITS: [&str; 3] = [NETWORKD, NM_CLOUD_SETUP[0], NM_CLOUD_SETUP[1]];

/// Where networkd's files are, the most important folder first (systemd.network(5)).
const DIRS: [&str; 5] = [
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
    "/lib/systemd/network",
];

/// A link of the cluster, as a `[Match]` section sees it.
struct Link {
    name: &'static str,
    /// networkd's type (`networkctl list`).
    kind_of_device: &'static str,
    /// The kind of a virtual link, which is its driver's name too.
    kind: &'static str,
}

/// The pods' bridge, flannel's VXLAN link, and the end of a pod's link at the node, whose name is made of random digits.
const LINKS: [Link; 3] = [
    Link {
        name: "cni0",
        kind_of_device: "bridge",
        kind: "bridge",
    },
    Link {
        name: "flannel.1",
        kind_of_device: "vxlan",
        kind: "vxlan",
    },
    Link {
        name: "veth0a1b2c3d",
        kind_of_device: "ether",
        kind: "veth",
    },
];

/// The files that say which links networkd configures.
pub(super) fn files() -> Vec<FilePattern> {
    let patterns = DIRS.map(|dir| format!("{dir}/*.network"));
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    only(
        &patterns,
        &[
            "Name",
            "Type",
            "Kind",
            "Driver",
            "MACAddress",
            "PermanentMACAddress",
            "OriginalName",
            "Path",
            "Property",
            "Host",
            "Virtualization",
            "Architecture",
            "Kernel",
            "Credential",
            "Firmware",
            "Version",
            "WLANInterfaceType",
            "SSID",
            "BSSID",
            "Unmanaged",
        ],
    )
}

pub(super) fn check(look: &mut Look) {
    if look.unit_state(NETWORKD).is_some() {
        networkd(look);
    }
    let states = NM_CLOUD_SETUP
        .iter()
        .filter_map(|unit| Some(format!("{unit}: {}", look.unit_state(unit)?)));
    let states: Vec<String> = states.collect();
    if !states.is_empty() {
        look.add_before_install(Finding::new(
            Check::LinkConfig,
            "nm-cloud-setup writes routing rules by which packets of Pods go astray",
            states.join(", "),
            "systemctl disable --now nm-cloud-setup.service nm-cloud-setup.timer, and boot the machine again",
        ));
    }
}

/// For each link the first file that matches decides, by the names of the files; one in a more important folder stands in for those of its name.
fn networkd(look: &mut Look) {
    let mut files: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for dir in DIRS {
        for (path, file) in &look.facts.survey.files {
            let Some((folder, name)) = path.rsplit_once('/') else {
                continue;
            };
            if folder == dir && name.ends_with(".network") {
                files.entry(name).or_insert((path, &file.text));
            }
        }
    }
    let mut taken: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for link in LINKS {
        let mut matching = files.values().filter(|(_, text)| matches(text, &link));
        if let Some((path, text)) = matching.next()
            && !is_unmanaged(text)
        {
            taken.entry((*path).to_owned()).or_default().push(link.name);
        }
    }
    for (path, links) in taken {
        let finding = Finding::new(
            Check::LinkConfig,
            "systemd-networkd would configure links of the cluster, and take their addresses away",
            format!("its [Match] fits {}", links.join(", ")),
            "write /etc/systemd/network/00-cluster.network with [Match] Name=cni0 flannel.* veth* and [Link] Unmanaged=yes, then networkctl reload",
        );
        look.add_before_install(finding.at(&path, None));
    }
}

/// The settings of one section, in the file's order.
fn section<'a>(text: &'a str, heading: &'static str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let mut inside = false;
    text.lines().map(str::trim).filter_map(move |line| {
        if line.starts_with('[') {
            inside = line == heading;
        }
        let (key, value) = line.split_once('=').filter(|_| inside)?;
        Some((key.trim(), value.trim()))
    })
}

/// Says whether a file's `[Match]` fits a link: all of its keys must. What a key asks of the machine or of hardware is taken for not fulfilled: such a
/// file names one link, or one machine of many. A file without any key fits every link; an empty file is one that is masked.
fn matches(text: &str, link: &Link) -> bool {
    let fits = |(key, value): (&str, &str)| match key {
        "Name" => fits_list(value, link.name),
        "Type" => fits_list(value, link.kind_of_device),
        "Kind" | "Driver" => fits_list(value, link.kind),
        _ => false,
    };
    !text.trim().is_empty() && section(text, "[Match]").all(fits)
}

/// Says whether a list of patterns has one that fits; with `!` ahead of the list, none may.
fn fits_list(list: &str, text: &str) -> bool {
    let (list, wanted) = match list.strip_prefix('!') {
        Some(rest) => (rest, false),
        None => (list, true),
    };
    list.split_whitespace().any(|pattern| matches_part(pattern, text)) == wanted
}

/// Says whether networkd leaves the links of a file alone.
fn is_unmanaged(text: &str) -> bool {
    let values = section(text, "[Link]").filter(|(key, _)| *key == "Unmanaged");
    let last = values.last().map(|(_, value)| value.to_ascii_lowercase());
    last.is_some_and(|value| matches!(value.as_str(), "1" | "yes" | "y" | "true" | "t" | "on"))
}
