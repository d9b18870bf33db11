//! Addresses that a node may lose: leased ones, and those that will be asked for by DHCP at the next boot.

use super::{Look, choose_address, only};
use crate::facts::FilePattern;
use crate::finding::{Check, Finding, Place};
use std::net::IpAddr;

const NETWORKD_LEASES: &str = "/run/systemd/netif/leases/*";
const INTERFACES: [&str; 2] = ["/etc/network/interfaces", "/etc/network/interfaces.d/*"];
const KEYFILES: [&str; 2] = [
    "/etc/NetworkManager/system-connections/*",
    "/run/NetworkManager/system-connections/*",
];
const IFCFG: [&str; 2] = [
    "/etc/sysconfig/network-scripts/ifcfg-*",
    "/etc/sysconfig/network/ifcfg-*",
];

/// Files that say where addresses come from. Those of NetworkManager hold passwords: only the named keys' lines are asked for.
pub(super) fn files() -> Vec<FilePattern> {
    [
        only(&[NETWORKD_LEASES], &["ADDRESS"]),
        only(&INTERFACES, &["iface"]),
        only(&KEYFILES, &["method", "interface-name"]),
        only(&IFCFG, &["BOOTPROTO", "DEVICE"]),
    ]
    .concat()
}

pub(super) fn check(look: &mut Look) {
    // Which address it is, and whether it is clear, is another check's.
    let Ok((address, interface)) = choose_address(&look.input.desired.spec, look.node, look.facts) else {
        return;
    };
    let mut addresses = look.facts.addresses.iter();
    let leased = addresses.any(|a| IpAddr::V4(a.address) == address && a.is_leased);
    let source = lease(look, address).or_else(|| configured(look, &interface));
    if !leased && source.is_none() {
        return;
    }
    let what = "the node's address comes from DHCP";
    let saw = format!("{address} on {interface}{}", if leased { ", leased" } else { "" });
    let next =
        "give the machine a fixed address, or reserve this one for it on the DHCP server; then `accept` the finding";
    let mut finding = Finding::new(Check::DynamicAddress, what, saw, next);
    finding.place = source;
    look.add(finding);
}

/// A lease of systemd-networkd, which goes when it is not used any more.
fn lease(look: &Look, address: IpAddr) -> Option<Place> {
    let wanted = format!("ADDRESS={address}");
    lines(look, &[NETWORKD_LEASES], |line| line.trim() == wanted)
}

/// A file by which the interface is set up with DHCP.
fn configured(look: &Look, interface: &str) -> Option<Place> {
    let ifupdown = lines(look, &INTERFACES, |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words == ["iface", interface, "inet", "dhcp"]
    });
    let ifcfg = IFCFG.map(|pattern| pattern.replace('*', interface));
    let ifcfg: Vec<&str> = ifcfg.iter().map(String::as_str).collect();
    let by_sysconfig = || {
        lines(look, &ifcfg, |line| {
            let value = line
                .trim()
                .strip_prefix("BOOTPROTO=")
                .map(|v| v.trim_matches(['"', '\'']));
            value.is_some_and(|value| value.starts_with("dhcp"))
        })
    };
    ifupdown.or_else(by_sysconfig).or_else(|| keyfile(look, interface))
}

fn lines(look: &Look, patterns: &[&str], fits: impl Fn(&str) -> bool) -> Option<Place> {
    let files = look.facts.survey.files.iter();
    let mut files = files.filter(|(path, _)| patterns.iter().any(|p| crate::glob::matches(p, path)));
    files.find_map(|(path, file)| {
        let line = file.text.lines().position(&fits)?;
        Some(Place {
            file: path.clone(),
            line: Some(line + 1),
        })
    })
}

/// A connection of NetworkManager's for this interface whose IPv4 method is `auto` (nm-settings-keyfile(5)).
fn keyfile(look: &Look, interface: &str) -> Option<Place> {
    let files = look.facts.survey.files.iter();
    let mut files = files.filter(|(path, _)| KEYFILES.iter().any(|p| crate::glob::matches(p, path)));
    files.find_map(|(path, file)| {
        let (mut section, mut named, mut auto) = ("", false, None);
        for (number, line) in file.text.lines().map(str::trim).enumerate() {
            match line.split_once('=') {
                _ if line.starts_with('[') => section = line,
                Some(("interface-name", name)) => named |= section == "[connection]" && name == interface,
                Some(("method", "auto")) if section == "[ipv4]" => auto = Some(number + 1),
                _ => {}
            }
        }
        auto.filter(|_| named).map(|line| Place {
            file: path.clone(),
            line: Some(line),
        })
    })
}
