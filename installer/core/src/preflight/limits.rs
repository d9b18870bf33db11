//! Limits of the kernel: inotify, open files, and ports of outgoing connections.

use super::{Look, sysctl, tcp_ports, whole};
use crate::facts::FilePattern;
use crate::finding::{Check, Finding};
use crate::layout;

const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// A number that the kernel has and that should not be smaller.
struct Least {
    check: Check,
    setting: &'static str,
    least: u64,
    source: &'static str,
}

const LEAST: [Least; 4] = [
    Least {
        check: Check::InotifyLimits,
        setting: "fs.inotify.max_user_instances",
        least: 128,
        source: "the kernel's own default (fs/notify/inotify/inotify_user.c)",
    },
    Least {
        check: Check::InotifyLimits,
        setting: "fs.inotify.max_user_watches",
        least: 8192,
        source: "the kernel's own default on the smallest machine (fs/notify/inotify/inotify_user.c)",
    },
    Least {
        check: Check::FileLimits,
        setting: "fs.nr_open",
        least: 1_000_000,
        source: "the kubelet's maxOpenFiles (KubeletConfiguration)",
    },
    Least {
        check: Check::FileLimits,
        setting: "fs.file-max",
        least: 1_000_000,
        source: "the kubelet's maxOpenFiles (KubeletConfiguration)",
    },
];

fn path_of(setting: &str) -> String {
    format!("/proc/sys/{}", setting.replace('.', "/"))
}

/// Files that hold the limits.
pub(super) fn files() -> Vec<FilePattern> {
    let paths: Vec<String> = LEAST.iter().map(|least| path_of(least.setting)).collect();
    let mut paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    paths.extend([PORT_RANGE, RESERVED]);
    whole(&paths)
}

pub(super) fn check(look: &mut Look) {
    let mut found = Vec::new();
    for least in LEAST {
        let (setting, wanted) = (least.setting, least.least);
        let path = path_of(setting);
        let after = sysctl::after_boot(&look.facts.survey.files, setting);
        let later = after.and_then(|(value, file, line)| Some((value.parse::<u64>().ok()?, file, line)));
        let (value, file, line, when) = match (look.number(&path), later) {
            (_, Some((value, file, line))) if value < wanted => (value, file, Some(line), "after the next boot"),
            (Some(value), later) if value < wanted && later.is_none() => (value, path, None, "now"),
            _ => continue,
        };
        let what = format!("{setting} is below {wanted}, which is {}", least.source);
        let next = format!("set {setting} = {wanted} or more in a file of /etc/sysctl.d");
        found.push(Finding::new(least.check, what, format!("{value} {when}"), next).at(file, line));
    }
    found.extend(port_range(look));
    found.into_iter().for_each(|finding| look.add(finding));
}

/// Outgoing connections must not be given ports that the cluster needs.
fn port_range(look: &Look) -> Option<Finding> {
    let mut range = look.text(PORT_RANGE)?.split_whitespace().map(str::parse::<u16>);
    let (low, high) = (range.next()?.ok()?, range.next()?.ok()?);
    let reserved = ranges(look.text(RESERVED).unwrap_or_default());
    let is_given =
        |port: u16| (low..=high).contains(&port) && !reserved.iter().any(|(from, to)| (*from..=*to).contains(&port));
    let mut own = tcp_ports(&look.input.desired.spec, look.node.role);
    own.sort_unstable();
    let mut needed: Vec<String> = own
        .into_iter()
        .filter(|p| is_given(*p))
        .map(|p| p.to_string())
        .collect();
    let (first, last) = (layout::NODE_PORT_RANGE.start(), layout::NODE_PORT_RANGE.end());
    if layout::NODE_PORT_RANGE.clone().any(is_given) {
        needed.push(format!("{first}-{last} (NodePorts)"));
    }
    (!needed.is_empty()).then(|| {
        let needed = needed.join(", ");
        Finding::new(
            Check::PortRange,
            format!("outgoing connections may take ports that the cluster needs: {needed}"),
            format!("ip_local_port_range {low} {high}"),
            "reserve them by net.ipv4.ip_local_reserved_ports, or set net.ipv4.ip_local_port_range = 32768 60999 (the kernel's default)",
        )
        .at(PORT_RANGE, None)
    })
}

/// Reads `1-3,7` (Documentation/networking/ip-sysctl.rst).
fn ranges(text: &str) -> Vec<(u16, u16)> {
    let parts = text.trim().split(',');
    parts
        .filter_map(|part| match part.split_once('-') {
            Some((from, to)) => Some((from.trim().parse().ok()?, to.trim().parse().ok()?)),
            None => part.trim().parse().ok().map(|port| (port, port)),
        })
        .collect()
}
