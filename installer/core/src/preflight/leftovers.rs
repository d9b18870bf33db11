//! Other clusters and container runtimes, or what is left of them.

use super::{Look, only};
use crate::drop_in;
use crate::facts::{FilePattern, FileText};
use crate::finding::{Check, Finding};
use crate::glob;
use crate::inventory::Role;
use crate::layout;
use crate::layout::{CONTAINERD_DIR, ETCD_DIR, KUBELET_DIR};
use crate::plan::claims::DAEMON_TABLES;
use std::collections::{BTreeMap, BTreeSet};

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
const CLUSTER_UNITS: [&str; 18] = [
    "kube-apiserver.service",
    "kube-controller-manager.service",
    "kube-scheduler.service",
    "kube-proxy.service",
    "flanneld.service",
    "microshift.service",
    "k3s.service",
    "k3s-agent.service",
    "rke2-server.service",
    "rke2-agent.service",
    "k0scontroller.service",
    "k0sworker.service",
    "k0sserver.service",
    "snap.microk8s.daemon-kubelite.service",
    "snap.microk8s.daemon-containerd.service",
    "snap.microk8s.daemon-k8s-dqlite.service",
    "snap.k8s.kubelet.service",
    "snap.k8s.containerd.service",
];
/// A unit that a worker may have for something else, for instance for Patroni.
const ETCD_UNIT: &str = "etcd.service";
/// Units of container runtimes.
const RUNTIME_UNITS: [&str; 5] = [
    "docker.service",
    "docker.socket",
    "snap.docker.dockerd.service",
    "crio.service",
    "cri-docker.service",
];
/// Folders of drop-ins that landfall's units read: of those that others have too, of its own, and of a prefix of their names.
const DROP_IN_FOLDERS: [&str; 3] = ["kubelet.service.d", "containerd.service.d", "landfall-*.service.d"];
/// Prefixes of chains: kube-proxy and kubelet, CNI's portmap, flannel; Calico, Cilium, Weave.
pub(super) const CHAINS: [&str; 6] = ["KUBE-", "CNI-", "FLANNEL-", "cali-", "CILIUM_", "WEAVE"];
/// The first of [`CHAINS`] are landfall's own too.
const OWN_CHAINS: usize = 3;
/// Links that landfall's network makes by name.
const OWN_LINKS: [&str; 3] = ["cni0", "flannel.1", "flannel-v6.1"];
/// Links of other pod networks, by pattern, with their owners.
const FOREIGN_LINKS: [(&str, &str); 18] = [
    ("cbr0", "kubenet"),
    ("flannel*", "flannel"),
    ("kube-ipvs0", "kube-proxy's ipvs mode"),
    ("kube-bridge", "kube-router"),
    ("kube-dummy-if", "kube-router"),
    ("nodelocaldns", "node-local DNS"),
    ("cali*", "Calico"),
    ("vxlan.calico", "Calico"),
    ("vxlan-v6.calico", "Calico"),
    ("wireguard.cali", "Calico"),
    ("cilium_*", "Cilium"),
    ("lxc_health", "Cilium"),
    ("weave", "Weave"),
    ("vethwe*", "Weave"),
    ("ovn0", "Kube-OVN"),
    ("ovn-k8s-mp*", "OVN-Kubernetes"),
    ("genev_sys_6081", "Open vSwitch, for OVN or Antrea"),
    ("antrea-gw0", "Antrea"),
];

/// Returns all units whose state matters here.
pub(super) fn units() -> Vec<String> {
    let all = OWN_UNITS.iter().chain(&CLUSTER_UNITS).chain(&RUNTIME_UNITS);
    all.chain([&ETCD_UNIT]).map(|unit| (*unit).to_owned()).collect()
}

/// Drop-ins that would change landfall's units. Of most only matters whether they are there.
pub(super) fn files() -> Vec<FilePattern> {
    let patterns = |folders: &[&str]| -> Vec<String> {
        let of_dir = |dir: &&str| {
            folders
                .iter()
                .map(|folder| format!("{dir}/{folder}/*.conf"))
                .collect::<Vec<_>>()
        };
        drop_in::DIRS.iter().flat_map(of_dir).collect()
    };
    let ask = |patterns: &[String], keys: &[&str]| {
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        only(&patterns, keys)
    };
    let mut files = ask(&patterns(&DROP_IN_FOLDERS), &["ExecStart", "EnvironmentFile"]);
    files.extend(ask(&patterns(&[drop_in::ALL_SERVICES]), &drop_in::HARMFUL));
    files
}

pub(super) fn check(look: &mut Look) {
    check_cluster(look);
    check_drop_ins(look);
    check_runtimes(look);
    check_links(look);
    check_chains(look);
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
    let etcd = [&ETCD_UNIT]
        .into_iter()
        .filter(|_| look.node.role == Role::ControlPlane);
    for unit in own.chain(&CLUSTER_UNITS).chain(etcd) {
        saw.extend(look.unit_state(unit).map(|state| format!("{unit} ({state})")));
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

/// Drop-ins that others put beside units which landfall writes, or for all services: each changes a unit, for instance what it starts.
fn check_drop_ins(look: &mut Look) {
    // By folder and name: one in a more important directory takes the place of others.
    let mut counted: BTreeMap<&str, (&String, &FileText)> = BTreeMap::new();
    for dir in drop_in::DIRS {
        for (path, file) in &look.facts.survey.files {
            let name = path.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/'));
            if let Some(name) = name.filter(|name| name.ends_with(".conf")) {
                counted.entry(name).or_insert((path, file));
            }
        }
    }
    // An empty one, by a link to /dev/null, only takes others' places.
    counted.retain(|_, (_, file)| file.real.as_deref() != Some("/dev/null"));
    let findings: Vec<Finding> = counted
        .into_iter()
        .filter_map(|(name, (path, file))| {
            let next = format!("rm {path}, and `systemctl daemon-reload`");
            let folder = name.split_once('/')?.0;
            if folder == drop_in::ALL_SERVICES {
                let line = drop_in::harmful_line(&file.text)?;
                let what = "a drop-in for all services changes landfall's too";
                return Some(Finding::new(Check::ServiceDropIn, what, line, next).at(path, None));
            }
            let ours = |pattern: &&str| glob::matches_part(pattern, folder);
            DROP_IN_FOLDERS.iter().find(|pattern| ours(pattern))?;
            let first = file.text.lines().map(str::trim).find(|line| line.starts_with("Exec"));
            let what = format!(
                "a drop-in that is not landfall's changes {}",
                folder.trim_end_matches(".d")
            );
            let saw = first.map_or_else(|| "a drop-in".to_owned(), str::to_owned);
            Some(Finding::new(Check::ForeignCluster, what, saw, next).at(path, None))
        })
        .collect();
    findings
        .into_iter()
        .for_each(|finding| look.add_before_install(finding));
}

fn check_runtimes(look: &mut Look) {
    let runtimes = RUNTIME_UNITS.iter();
    let saw: Vec<String> = runtimes
        .filter_map(|unit| look.unit_state(unit).map(|state| format!("{unit} ({state})")))
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
            .find(|(pattern, _)| glob::matches_part(pattern, name));
        if let Some((_, owner)) = owner {
            let what = format!("the link {name} is left of another cluster's network ({owner})");
            found.push(Finding::new(Check::ForeignLink, what, saw, next));
        }
    }
    found.into_iter().for_each(|finding| look.add_before_install(finding));
}

/// Returns the names of tables that daemons of a cluster make.
pub(super) fn table_names() -> Vec<String> {
    let names = DAEMON_TABLES.iter().filter_map(|table| table.split_once(' '));
    let names: BTreeSet<&str> = names.map(|(_, name)| name).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Returns the chains in what `iptables-save` prints, as `program table chain`.
fn legacy_chains(text: &str) -> impl Iterator<Item = String> {
    let mut table = "";
    text.lines().filter_map(move |line| {
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim();
            return None;
        }
        let chain = line.strip_prefix(':')?.split_whitespace().next()?;
        Some(format!("iptables-legacy {table} {chain}"))
    })
}

/// Chains and tables that daemons of a cluster make. Claims leave those out that were there before (`agent/src/claims.rs`), so landfall's own would stay in
/// them.
fn check_chains(look: &mut Look) {
    let survey = &look.facts.survey;
    let own = &CHAINS[..OWN_CHAINS];
    let has_prefix = |chain: &&String, prefixes: &[&str]| {
        let name = chain.rsplit(' ').next().unwrap_or_default();
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    let legacy: Vec<String> = survey
        .filters
        .iptables_legacy
        .iter()
        .flat_map(|text| legacy_chains(text))
        .collect();
    let legacy = legacy.iter().filter(|chain| has_prefix(chain, &CHAINS));
    let chains = survey.chains.iter().chain(legacy);
    let chains = chains.filter(|chain| !look.ours || !has_prefix(chain, own));
    let tables = survey
        .tables
        .iter()
        .filter(|_| !look.ours)
        .map(|table| format!("table {table}"));
    let seen: Vec<String> = tables.chain(chains.cloned()).collect();
    if let [first, ..] = seen.as_slice() {
        let saw = match seen.len() {
            1 => first.clone(),
            n => format!("{first} and {} more", n - 1),
        };
        look.add_before_install(Finding::new(
            Check::ForeignChain,
            "packet filter chains of another cluster are there",
            saw,
            "boot the machine, or take them away by the tools of that cluster (iptables-save and `nft list tables` show them)",
        ));
    }
}
