//! Other clusters and container runtimes, or what is left of them.

use super::{Look, only};
use crate::facts::FilePattern;
use crate::finding::{Check, Finding};
use crate::layout;
use crate::layout::{CONTAINERD_DIR, ETCD_DIR, KUBELET_DIR};
use std::collections::BTreeMap;

/// Programs whose presence means another Kubernetes.
pub(super) const FOREIGN_PATHS: [&str; 3] = [
    "/usr/local/bin/kubelet",
    "/usr/bin/kubelet",
    "/opt/landfall/bin/kubelet",
];
/// Directories whose content means another Kubernetes or containerd. Empty ones, and disks mounted there, are welcome.
pub(super) const DIRECTORIES: [&str; 4] = [layout::KUBERNETES_DIR, KUBELET_DIR, ETCD_DIR, CONTAINERD_DIR];
/// What a new file system holds.
const LOST_AND_FOUND: &str = "lost+found";
/// Units that landfall has too.
const OWN_UNITS: [&str; 2] = ["kubelet.service", "containerd.service"];
/// Units of other Kubernetes distributions.
const CLUSTER_UNITS: [&str; 11] = [
    "k3s.service",
    "k3s-agent.service",
    "rke2-server.service",
    "rke2-agent.service",
    "k0scontroller.service",
    "k0sworker.service",
    "snap.microk8s.daemon-kubelite.service",
    "snap.microk8s.daemon-containerd.service",
    "snap.microk8s.daemon-k8s-dqlite.service",
    "snap.k8s.kubelet.service",
    "snap.k8s.containerd.service",
];
/// Units of container runtimes.
const RUNTIME_UNITS: [&str; 5] = [
    "docker.service",
    "docker.socket",
    "snap.docker.dockerd.service",
    "crio.service",
    "cri-docker.service",
];
/// Where drop-ins of units are (systemd.unit(5)).
const DROP_IN_DIRS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Prefixes of chains: kube-proxy and kubelet, CNI's portmap, flannel; Calico, Cilium, Weave.
pub(super) const CHAINS: [&str; 6] = ["KUBE-", "CNI-", "FLANNEL-", "cali-", "CILIUM_", "WEAVE"];
/// The first of [`CHAINS`] are landfall's own too.
const OWN_CHAINS: usize = 3;
/// Links that landfall's network makes by name.
const OWN_LINKS: [&str; 3] = ["cni0", "flannel.1", "flannel-v6.1"];
/// Links of other pod networks, by pattern, with their owners.
const FOREIGN_LINKS: [(&str, &str); 12] = [
    ("flannel*", "flannel"),
    ("kube-ipvs0", "kube-proxy's ipvs mode"),
    ("kube-bridge", "kube-router"),
    ("kube-dummy-if", "kube-router"),
    ("nodelocaldns", "node-local DNS"),
    ("cali*", "Calico"),
    ("vxlan.calico", "Calico"),
    ("wireguard.cali", "Calico"),
    ("cilium_*", "Cilium"),
    ("lxc_health", "Cilium"),
    ("weave", "Weave"),
    ("antrea-gw0", "Antrea"),
];

/// Returns all units whose state matters here.
pub(super) fn units() -> Vec<String> {
    let all = OWN_UNITS.iter().chain(&CLUSTER_UNITS).chain(&RUNTIME_UNITS);
    all.map(|unit| (*unit).to_owned()).collect()
}

/// Drop-ins that would change landfall's units. Only whether they are there matters.
pub(super) fn files() -> Vec<FilePattern> {
    let drop_ins = DROP_IN_DIRS
        .iter()
        .flat_map(|dir| OWN_UNITS.map(|unit| format!("{dir}/{unit}.d/*.conf")));
    let drop_ins: Vec<String> = drop_ins.collect();
    only(
        &drop_ins.iter().map(String::as_str).collect::<Vec<_>>(),
        &["ExecStart", "EnvironmentFile"],
    )
}

pub(super) fn check(look: &mut Look) {
    check_cluster(look);
    check_drop_ins(look);
    check_runtimes(look);
    check_links(look);
    check_chains(look);
}

/// Says how a unit is there: it runs, or it will after the next boot.
fn state(look: &Look, unit: &str) -> Option<&'static str> {
    if look.facts.units.get(unit).is_some_and(|state| state == "active") {
        return Some("active");
    }
    let enabled = look.facts.survey.enabled_units.contains(unit);
    enabled.then_some("starts at the next boot")
}

fn check_cluster(look: &mut Look) {
    let facts = look.facts;
    let mut saw: Vec<String> = Vec::new();
    if !look.ours {
        saw.extend(
            FOREIGN_PATHS
                .iter()
                .filter(|p| facts.paths.contains(**p))
                .map(|p| (*p).to_owned()),
        );
        for directory in DIRECTORIES {
            let names = facts.survey.contents.get(directory).into_iter().flatten();
            let names: Vec<&str> = names
                .map(String::as_str)
                .filter(|name| *name != LOST_AND_FOUND)
                .collect();
            if !names.is_empty() {
                saw.push(format!("{directory} holds {}", names.join(" ")));
            }
        }
    }
    let own = OWN_UNITS.iter().filter(|_| !look.ours);
    for unit in own.chain(&CLUSTER_UNITS) {
        saw.extend(state(look, unit).map(|state| format!("{unit} ({state})")));
    }
    if !saw.is_empty() {
        look.add_before_install(Finding::new(
            Check::ForeignCluster,
            "there is a Kubernetes or a container runtime that is not landfall's",
            saw.join(", "),
            "remove it with its own tools first; landfall does not touch what it did not make",
        ));
    }
}

/// Drop-ins that others put beside units which landfall writes: each changes the unit, for instance what it starts.
fn check_drop_ins(look: &mut Look) {
    let mut found: BTreeMap<&str, Finding> = BTreeMap::new();
    for dir in DROP_IN_DIRS {
        for (path, file) in &look.facts.survey.files {
            let Some(name) = path.strip_prefix(dir) else { continue };
            let unit = OWN_UNITS.iter().find(|unit| name.starts_with(&format!("/{unit}.d/")));
            // A drop-in of the same name in a more important directory takes this one's place.
            let (Some(unit), false) = (unit, found.contains_key(name)) else {
                continue;
            };
            let first = file.text.lines().map(str::trim).find(|line| line.starts_with("Exec"));
            let what = format!("a drop-in that is not landfall's changes {unit}");
            let saw = first.map_or_else(|| "a drop-in".to_owned(), str::to_owned);
            let next = format!("rm {path}, and `systemctl daemon-reload`");
            let finding = Finding::new(Check::ForeignCluster, what, saw, next).at(path, None);
            found.insert(name, finding);
        }
    }
    // An empty one, by a link to /dev/null, only takes others' places.
    let files = &look.facts.survey.files;
    let is_empty = |finding: &Finding| {
        let place = finding.place.as_ref();
        place.is_some_and(|place| files.get(&place.file).and_then(|f| f.real.as_deref()) == Some("/dev/null"))
    };
    let found: Vec<Finding> = found.into_values().filter(|f| !is_empty(f)).collect();
    found.into_iter().for_each(|finding| look.add_before_install(finding));
}

fn check_runtimes(look: &mut Look) {
    let runtimes = RUNTIME_UNITS.iter();
    let saw: Vec<String> = runtimes
        .filter_map(|unit| state(look, unit).map(|state| format!("{unit} ({state})")))
        .collect();
    if !saw.is_empty() {
        look.add_before_install(Finding::new(
            Check::ForeignRuntime,
            "there is another container runtime",
            saw.join(", "),
            "systemctl disable --now each of them, or remove it with its own tools",
        ));
    }
}

fn check_links(look: &mut Look) {
    let mut found = Vec::new();
    for (name, kind) in &look.facts.survey.links {
        let saw = if kind.is_empty() {
            name.clone()
        } else {
            format!("{name} ({kind})")
        };
        let next = format!("ip link delete {name}");
        if OWN_LINKS.contains(&name.as_str()) {
            if !look.ours {
                let what = format!("the link {name} is there and not landfall's");
                found.push(Finding::new(Check::LinkTaken, what, saw, next));
            }
            continue;
        }
        let owner = FOREIGN_LINKS
            .iter()
            .find(|(pattern, _)| crate::glob::matches_part(pattern, name));
        if let Some((_, owner)) = owner {
            let what = format!("the link {name} is left of another cluster's network ({owner})");
            found.push(Finding::new(Check::ForeignLink, what, saw, next));
        }
    }
    found.into_iter().for_each(|finding| look.add_before_install(finding));
}

fn check_chains(look: &mut Look) {
    let own = &CHAINS[..OWN_CHAINS];
    let chains = look.facts.survey.chains.iter().filter(|chain| {
        let name = chain.rsplit(' ').next().unwrap_or_default();
        !look.ours || !own.iter().any(|prefix| name.starts_with(prefix))
    });
    let chains: Vec<&str> = chains.map(String::as_str).collect();
    if let [first, ..] = chains.as_slice() {
        let saw = match chains.len() {
            1 => (*first).to_owned(),
            n => format!("{first} and {} more", n - 1),
        };
        look.add_before_install(Finding::new(
            Check::ForeignChain,
            "packet filter chains of another cluster are there",
            saw,
            "boot the machine, or take them away by the tools of that cluster (iptables-save shows them)",
        ));
    }
}
