//! The roles of machines by their groups: a table of the names that projects use, and the user's own names.
//!
//! A machine without a role is an error, unless its group is known to be no part of a cluster or the inventory says to ignore
//! it.

use crate::faults::{Faults, Place};
use crate::groups::{ALL, Groups, UNGROUPED};
use landfall_core::explain::{Code, Diagnosis};
use serde_json::Value;

/// The role of a group's machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    ControlPlane,
    Worker,
    Outside,
    Etcd,
    Bastion,
    /// A known group that is no part of a cluster.
    Else,
}

/// Names of groups, in the form that [`plain`] gives them. A general word counts only beside one of the groups in the third column.
///
/// Sources: kubespray (`roles/dynamic_groups`, old names until March 2021), k3s-io/k3s-ansible, rancherfederal/rke2-ansible,
/// easzlab/kubeasz, openshift-ansible 3, and names of kubeadm playbooks in public repositories (212 inventories, read 2026-11-29).
#[rustfmt::skip]
const NAMES: &[(Part, &[&str], &[&str])] = &[
    (
        Part::ControlPlane,
        &[
            "kube_control_plane", "control_plane", "masters", "kube_master", "master", "kube_masters", "controlplane", "control_planes",
            "controlplanes", "k8s_control_plane", "k8s_controlplane", "k8s_masters", "k8s_master", "k8s_controller", "k8s_controllers",
            "kubernetes_masters", "kubernetes_master", "kubernetes_control_plane", "kubernetes_master_nodes", "master_node",
            "master_nodes", "all_masters", "rke2_servers", "rke2_server", "rke2_server_group", "k3s_servers", "k3s_server",
            "k3s_masters", "k3s_master", "openshift_master", "openshift_masters",
        ],
        &[],
    ),
    (
        Part::ControlPlane,
        &["server", "servers"],
        &["agent", "agents", "k3s_cluster", "rke2_cluster"],
    ),
    (
        Part::ControlPlane,
        &["controller", "controllers"],
        &["worker", "workers", "node", "nodes"],
    ),
    (Part::ControlPlane, &["manager", "managers"], &["worker", "workers"]),
    (
        Part::Worker,
        &[
            "kube_node", "workers", "worker", "node", "nodes", "kube_nodes", "kube_worker", "kube_workers", "k8s_workers", "k8s_worker",
            "k8s_nodes", "k8s_node", "k8s_slave", "k8s_slaves", "slave", "slaves", "kubernetes_workers", "kubernetes_worker",
            "kubernetes_worker_nodes", "kubernetes_nodes", "kubernetes_node", "worker_node", "worker_nodes", "all_workers",
            "rke2_agents", "rke2_agent", "rke2_agent_group", "k3s_agents", "k3s_agent", "k3s_workers", "k3s_worker", "k3s_nodes",
            "k3s_node", "minions", "compute_nodes", "openshift_node", "openshift_nodes",
        ],
        &[],
    ),
    (
        Part::Worker,
        &["agent", "agents"],
        &["server", "servers", "master", "masters", "k3s_cluster", "rke2_cluster"],
    ),
    (Part::Outside, &["outside"], &[]),
    (Part::Etcd, &["etcd", "etcd_cluster", "etcd_servers", "etcd_node", "etcd_nodes"], &[]),
    (Part::Bastion, &["bastion", "bastions"], &[]),
    (
        Part::Else,
        &[
            "lb", "lbs", "loadbalancer", "loadbalancers", "load_balancer", "load_balancers", "haproxy", "haproxy_keepalived", "ha",
            "keepalived", "ex_lb", "nginx_lb", "nfs", "nfs_server", "nfs_servers", "nfsserver", "storage", "glusterfs", "gfs_cluster",
            "ceph", "registry", "harbor", "docker_registry", "monitoring", "prometheus", "grafana", "logging", "chrony", "ntp", "dns",
            "dns_servers", "db", "database", "databases", "mysql", "postgres", "postgresql", "jenkins", "gitlab", "proxy", "router",
            "dhcp", "pxe", "client", "clients", "installer", "deployer", "ansible", "localhost", "local", "windows", "services",
            "calico_rr",
        ],
        &[],
    ),
];

/// Returns the form in which names of groups and of other projects' variables are compared: people write them in any case, with `-` or `_`.
pub fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// Groups of workers that are never a name for the whole cluster: their members run workloads, whoever they are.
const PLAIN_WORKERS: [&str; 3] = ["kube_node", "workers", "worker"];

/// Names of this machine, which an inventory has for plays of its own.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The user's settings about groups: flags, and `landfall.groups` and `landfall.ignore`.
#[derive(Debug, Default, Clone)]
pub struct RoleOptions {
    /// Groups of control planes, besides the known ones.
    pub control_plane: Vec<String>,
    /// Groups of workers, besides the known ones.
    pub worker: Vec<String>,
    /// Groups of machines outside the cluster, besides the known one.
    pub outside: Vec<String>,
    /// Groups and hosts that are no part of the cluster; `--ignore` too.
    pub ignore: Vec<String>,
    /// The control planes by name; every other member is a worker.
    pub control_planes: Vec<String>,
}

impl RoleOptions {
    /// Takes `groups` and `ignore` out of the cluster variable; what is wrong there is reported.
    pub fn take(&mut self, value: &Value, place: &Place, faults: &mut Faults) {
        let wrong = |faults: &mut Faults, key: &str| {
            let place = Place::new(&place.file, format!("{}.{key}", place.at));
            faults.value(&place, "must be a name or a list of names");
        };
        let lists = [
            ("controlPlane", &mut self.control_plane),
            ("worker", &mut self.worker),
            ("outside", &mut self.outside),
        ];
        let groups = value.get("groups");
        for (key, into) in lists {
            match groups.and_then(|g| g.get(key)).map(names) {
                Some(Some(found)) => into.extend(found),
                Some(None) => wrong(faults, &format!("groups.{key}")),
                None => {}
            }
        }
        if let Some(Value::Object(map)) = groups {
            let known = ["controlPlane", "worker", "outside"];
            for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
                let place = Place::new(&place.file, format!("{}.groups.{key}", place.at));
                faults.value(&place, format_args!("is unknown; known: {}", known.join(", ")));
            }
        } else if groups.is_some() {
            wrong(faults, "groups");
        }
        match value.get("ignore").map(names) {
            Some(Some(found)) => self.ignore.extend(found),
            Some(None) => wrong(faults, "ignore"),
            None => {}
        }
    }

    /// Says whether a host in these groups is no part of the cluster by the user's word.
    fn ignores(&self, host: &str, mine: &[&str]) -> bool {
        self.ignore.iter().any(|i| i == host || mine.contains(&i.as_str()))
    }

    fn own(&self, part: Part) -> &[String] {
        match part {
            Part::ControlPlane => &self.control_plane,
            Part::Worker => &self.worker,
            Part::Outside => &self.outside,
            _ => &[],
        }
    }
}

fn names(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(name) => Some(vec![name.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// The machines by role; each list in Ansible's order.
#[derive(Debug, Default)]
pub struct Roles {
    /// Control planes.
    pub control_planes: Vec<String>,
    /// Machines that run workloads; a control plane may be among them.
    pub workers: Vec<String>,
    /// Machines outside.
    pub outside: Vec<String>,
    /// Members of groups for etcd.
    pub etcd: Vec<String>,
    /// Members of groups for jump hosts: all other machines are reached through the first.
    pub bastions: Vec<String>,
}

impl Roles {
    /// Says whether a host has a role.
    pub fn has(&self, host: &str) -> bool {
        [&self.control_planes, &self.workers, &self.outside]
            .iter()
            .any(|list| list.iter().any(|h| h == host))
    }
}

/// Determines the roles of all machines, and reports those that have none.
pub fn assign(groups: &Groups, role_options: &RoleOptions, file: &str, faults: &mut Faults) -> Roles {
    let place = Place::new(&file.into(), "groups");
    for name in [&role_options.control_plane, &role_options.worker, &role_options.outside]
        .into_iter()
        .flatten()
    {
        if groups.group(name).is_none() {
            faults.value(
                &place,
                format_args!("there is no group {name}; there are: {}", sizes(groups)),
            );
        }
    }
    for name in &role_options.ignore {
        if groups.group(name).is_none() && groups.host(name).is_none() {
            faults.value(
                &place,
                format_args!(
                    "{name} is to be ignored, and is no group or host; there are the groups: {}",
                    sizes(groups)
                ),
            );
        }
    }
    let mut roles = Roles {
        control_planes: members(groups, role_options, Part::ControlPlane),
        workers: members(groups, role_options, Part::Worker),
        outside: members(groups, role_options, Part::Outside),
        etcd: members(groups, role_options, Part::Etcd),
        bastions: members(groups, role_options, Part::Bastion),
    };
    by_name(&mut roles, groups, role_options, &place, faults);
    if roles.control_planes.is_empty() {
        no_control_plane(groups, file, faults);
        return roles;
    }
    etcd_elsewhere(&roles, groups, faults);
    left_out(&roles, groups, role_options, faults);
    roles
}

/// Lets `--control-planes` decide: all other members become workers.
fn by_name(roles: &mut Roles, groups: &Groups, role_options: &RoleOptions, place: &Place, faults: &mut Faults) {
    if role_options.control_planes.is_empty() {
        return;
    }
    for host in role_options.control_planes.iter().filter(|h| groups.host(h).is_none()) {
        faults.value(
            place,
            format_args!("--control-planes names {host}, which is not in the inventory"),
        );
    }
    let known = |host: &&String| groups.host(host).is_some();
    let chosen: Vec<String> = role_options.control_planes.iter().filter(known).cloned().collect();
    let former: Vec<String> = roles
        .control_planes
        .iter()
        .filter(|h| !chosen.contains(h))
        .cloned()
        .collect();
    if roles.control_planes.is_empty() && roles.workers.is_empty() {
        let elsewhere = self::known(groups, Part::Else);
        let others = groups.hosts().map(|(host, _)| host);
        let others = others
            .filter(|host| !chosen.iter().any(|h| h == host) && is_free(host, roles, groups, role_options, &elsewhere));
        roles.workers = others.map(str::to_owned).collect();
    }
    let mixed = roles.workers.iter().any(|h| roles.control_planes.contains(h));
    roles.workers.retain(|h| mixed || !chosen.contains(h));
    for host in former {
        if !roles.workers.contains(&host) {
            roles.workers.push(host);
        }
    }
    roles.control_planes = chosen;
}

/// Says whether nothing but a name of its own says what a host is for.
fn is_free(host: &str, roles: &Roles, groups: &Groups, role_options: &RoleOptions, elsewhere: &[&str]) -> bool {
    let mine = groups.groups_of(host);
    let told = [&roles.outside, &roles.etcd, &roles.bastions];
    !(role_options.ignores(host, &mine)
        || LOCAL_NAMES.contains(&host)
        || mine.iter().any(|g| elsewhere.contains(g))
        || told.into_iter().flatten().any(|h| h == host))
}

fn members(groups: &Groups, role_options: &RoleOptions, part: Part) -> Vec<String> {
    let mut hosts: Vec<String> = vec![];
    let mut add = |name: &str| {
        for host in groups.hosts_in(name) {
            if !role_options.ignores(host, &[name]) && !hosts.iter().any(|h| h == host) {
                hosts.push(host.to_owned());
            }
        }
    };
    role_options.own(part).iter().for_each(|name| add(name));
    // A group that the user names for one role has no other by its name.
    let taken = |name: &str| {
        let all = [&role_options.control_plane, &role_options.worker, &role_options.outside];
        all.into_iter().flatten().any(|n| n == name)
    };
    let names: Vec<&str> = known(groups, part).into_iter().filter(|n| !taken(n)).collect();
    for name in &names {
        if part != Part::Worker || !is_umbrella(groups, role_options, name) {
            add(name);
        }
    }
    hosts
}

/// Returns the groups of the inventory that have a name of a part, in the table's order.
fn known(groups: &Groups, part: Part) -> Vec<&str> {
    let there: Vec<(String, &str)> = groups.names().map(|name| (plain(name), name)).collect();
    let has = |name: &&str| there.iter().any(|(plain, _)| plain == name);
    let rows = NAMES
        .iter()
        .filter(|(p, _, with)| *p == part && (with.is_empty() || with.iter().any(has)));
    rows.flat_map(|(_, names, _)| names.iter())
        .flat_map(|name| there.iter().filter(move |(plain, _)| plain == name))
        .map(|(_, name)| *name)
        .collect()
}

/// Says whether a group such as `nodes` is a name for the whole cluster: control planes and workers are groups below it.
fn is_umbrella(groups: &Groups, role_options: &RoleOptions, name: &str) -> bool {
    let below = groups.descendants(name);
    let mut control_planes = known(groups, Part::ControlPlane);
    control_planes.extend(role_options.control_plane.iter().map(String::as_str));
    !PLAIN_WORKERS.contains(&plain(name).as_str()) && below.iter().any(|g| control_planes.contains(g))
}

/// Lists the groups with their sizes.
fn sizes(groups: &Groups) -> String {
    let named = groups.names().filter(|n| ![ALL, UNGROUPED].contains(n));
    let sizes: Vec<String> = named.map(|n| format!("{n} ({})", groups.hosts_in(n).len())).collect();
    if sizes.is_empty() {
        "no groups".to_owned()
    } else {
        sizes.join(", ")
    }
}

/// Machines without a group that a message names, at most.
const NAMED: usize = 12;

/// Lists the machines without a group.
fn ungrouped(groups: &Groups) -> String {
    let hosts = groups.hosts_in(UNGROUPED);
    if hosts.is_empty() {
        return String::new();
    }
    let more = if hosts.len() > NAMED {
        format!(" and {} more", hosts.len() - NAMED)
    } else {
        String::new()
    };
    let named: Vec<&str> = hosts.into_iter().take(NAMED).collect();
    format!("; without a group: {}{more}", named.join(", "))
}

fn no_control_plane(groups: &Groups, file: &str, faults: &mut Faults) {
    let empty = known(groups, Part::ControlPlane);
    if !empty.is_empty() {
        let what = format!(
            "{file}: no machine is in the group {}; the inventory has: {}",
            empty.join(", "),
            sizes(groups)
        );
        let next = "put the machines of the control plane into it; a group is no machine: its members come by [NAME:children] in INI, and by `children` in YAML";
        faults.push(Diagnosis::new(Code::SpecValue, what).next(next));
        return;
    }
    let what = format!(
        "{file}: groups: no machine is in a group that landfall knows as control planes (kube_control_plane, \
         control_plane, masters …); the inventory has: {}{}",
        sizes(groups),
        ungrouped(groups)
    );
    let next = "say which group is what: --control-plane-group NAME --worker-group NAME; or with two lines in group_vars/all.yml:\n\
                landfall:\n  groups: {controlPlane: NAME, worker: NAME}";
    let by_host = "where all are in one group or in none, name the control planes: --control-planes HOST,HOST,HOST (all other machines are workers then)";
    let problem = Diagnosis::new(Code::SpecValue, what);
    // Flags that name groups are of no use where there are none.
    let has_groups = groups.names().any(|name| ![ALL, UNGROUPED].contains(&name));
    let problem = if has_groups { problem.next(next) } else { problem };
    faults.push(problem.next(by_host));
}

/// etcd runs on the control planes, so machines for etcd alone are an error; other differences are a notice.
fn etcd_elsewhere(roles: &Roles, groups: &Groups, faults: &mut Faults) {
    let alone: Vec<&str> = roles
        .etcd
        .iter()
        .map(String::as_str)
        .filter(|h| !roles.has(h))
        .collect();
    if !alone.is_empty() {
        let what = format!(
            "etcd has machines of its own ({}); landfall runs etcd on the control planes",
            alone.join(", ")
        );
        let of_etcd = known(groups, Part::Etcd);
        let mut names: Vec<&str> = alone
            .iter()
            .flat_map(|host| groups.groups_of(host))
            .filter(|name| of_etcd.contains(name))
            .collect();
        names.sort_unstable();
        names.dedup();
        let (flags, list) = (names.join(" --ignore "), names.join(", "));
        let next = format!(
            "leave these machines out with --ignore {flags}, or landfall: {{ignore: [{list}]}}: the cluster then has its etcd on the control \
             planes; or give them a role"
        );
        faults.push(Diagnosis::new(Code::SpecTopology, what).next(next));
    }
    let workers: Vec<&str> = roles
        .etcd
        .iter()
        .map(String::as_str)
        .filter(|h| roles.has(h) && !roles.control_planes.iter().any(|c| c == h))
        .collect();
    if !workers.is_empty() {
        faults.notice(format_args!(
            "the inventory has etcd on {}; landfall runs it on the control planes alone ({})",
            workers.join(", "),
            roles.control_planes.join(", ")
        ));
    }
}

/// Reports every machine without a role.
fn left_out(roles: &Roles, groups: &Groups, role_options: &RoleOptions, faults: &mut Faults) {
    let elsewhere = known(groups, Part::Else);
    for (host, found) in groups.hosts() {
        let mine = groups.groups_of(host);
        let named: Vec<&str> = mine.iter().copied().filter(|g| ![ALL, UNGROUPED].contains(g)).collect();
        let ignored = role_options.ignores(host, &named);
        let told = roles.etcd.iter().chain(&roles.bastions).any(|h| h == host);
        if roles.has(host) || ignored || told {
            continue;
        }
        let local = LOCAL_NAMES.contains(&host);
        let listed = if named.is_empty() {
            "no group".to_owned()
        } else {
            named.join(", ")
        };
        if local || named.iter().any(|g| elsewhere.contains(g)) {
            faults.notice(format_args!(
                "{host} ({listed}) gets no role: it is no part of the cluster"
            ));
        } else {
            let Place { file, at } = &found.place;
            let group = narrowest(&named, roles, groups);
            let what = format!("{file}: {at}: {host} gets no role: landfall does not know what it is for ({listed})");
            let next = format!(
                "say what it is: --worker-group {group} or --control-plane-group {group}; or with one line in group_vars/all.yml: \
                 landfall: {{groups: {{worker: {group}}}}}; or that it is no part: --ignore {host}, or landfall: {{ignore: [{host}]}}",
            );
            faults.push(Diagnosis::new(Code::SpecValue, what).next(next));
        }
    }
}

/// Returns the smallest of a host's groups that holds no control plane, by which the host can be given a role without changing another's.
fn narrowest<'a>(named: &[&'a str], roles: &Roles, groups: &Groups) -> &'a str {
    let has_control_planes = |group: &str| {
        let hosts = groups.hosts_in(group);
        roles.control_planes.iter().any(|h| hosts.contains(&h.as_str()))
    };
    // The last in the order of variables is the deepest.
    let found = named.iter().rev().find(|group| !has_control_planes(group));
    found
        .copied()
        .unwrap_or(if named.is_empty() { UNGROUPED } else { "NAME" })
}

/// Adds the groups that kubespray makes before it logs in: `roles/dynamic_groups` of 2.29, and the old names.
pub fn add_kubespray_groups(groups: &mut Groups) {
    if !["kube_control_plane", "kube-master"]
        .iter()
        .any(|g| groups.group(g).is_some())
    {
        return;
    }
    for (new, from) in [
        ("kube_control_plane", &["kube-master"][..]),
        ("kube_node", &["kube-node"]),
        ("calico_rr", &["calico-rr"]),
        (
            "k8s_cluster",
            &[
                "kube_control_plane",
                "kube_node",
                "calico_rr",
                "kube-master",
                "kube-node",
                "k8s-cluster",
            ],
        ),
    ] {
        let hosts = from.iter().flat_map(|g| groups.hosts_in(g));
        let have = groups.hosts_in(new);
        let missing: Vec<(String, Place)> = hosts
            .filter(|h| !have.contains(h))
            .filter_map(|h| Some((h.to_owned(), groups.host(h)?.place.clone())))
            .collect();
        for (host, place) in missing {
            groups.add_host(new, &host, None, &place);
        }
    }
    groups.finish();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ini;

    /// Returns the roles and all messages.
    fn roles(text: &str, role_options: &RoleOptions) -> (String, String) {
        let mut faults = Faults::default();
        let mut groups = Groups::new();
        ini::parse(text, &"h".into(), &mut groups, &mut faults);
        groups.finish();
        let roles = assign(&groups, role_options, "h", &mut faults);
        let notices = faults.take_notices().join("\n");
        let said: Vec<String> = faults.into_list().into_iter().map(|d| d.what).collect();
        let found = format!("{} | {}", roles.control_planes.join(" "), roles.workers.join(" "));
        (found, format!("{notices}{}", said.join("\n")))
    }

    #[test]
    fn every_name_of_the_table_has_its_role() {
        for (part, names, with) in NAMES {
            for name in *names {
                let beside = with.first().map(|w| format!("[{w}]\nz\n")).unwrap_or_default();
                let masters = if *part == Part::ControlPlane {
                    ""
                } else {
                    "[kube_control_plane]\nm\n"
                };
                let text = format!("{masters}[{name}]\nx\n{beside}");
                let (found, said) = roles(&text, &RoleOptions::default());
                let (left, right) = found.split_once(" | ").unwrap();
                let has = |list: &str| list.split(' ').any(|h| h == "x");
                match part {
                    Part::ControlPlane => assert!(has(left), "{name}: {found}"),
                    Part::Worker => assert!(has(right), "{name}: {found}"),
                    Part::Outside => assert_eq!(said, "", "{name}"),
                    Part::Etcd => assert!(said.contains("machines of its own (x)"), "{name}: {said}"),
                    Part::Bastion => assert_eq!(said, "", "{name}"),
                    Part::Else => assert!(said.contains("x") && said.contains("no part of"), "{name}: {said}"),
                }
            }
        }
    }

    #[test]
    fn a_machine_without_a_role_is_never_dropped() {
        let text = "[masters]\na\n[workers]\nb\n[gpu]\nc\n";
        let (_, said) = roles(text, &RoleOptions::default());
        assert!(said.contains("c gets no role"), "{said}");
        let gpu = vec!["gpu".to_owned()];
        let role_options = RoleOptions {
            worker: gpu.clone(),
            ..RoleOptions::default()
        };
        assert_eq!(roles(text, &role_options), ("a | c b".to_owned(), String::new()));
        let role_options = RoleOptions {
            ignore: gpu,
            ..RoleOptions::default()
        };
        assert_eq!(roles(text, &role_options), ("a | b".to_owned(), String::new()));
        assert!(
            roles("x\n[masters]\na\n", &RoleOptions::default())
                .1
                .contains("x gets no role")
        );
    }

    #[test]
    fn a_group_of_all_nodes_is_no_group_of_workers() {
        let text = "[masters]\na\n[workers]\nb\n[nodes:children]\nmasters\nworkers\n";
        assert_eq!(
            roles(text, &RoleOptions::default()),
            ("a | b".to_owned(), String::new())
        );
        let text = "[kube_control_plane]\na\n[kube_node:children]\nkube_control_plane\n";
        assert_eq!(roles(text, &RoleOptions::default()).0, "a | a");
        // The same with names that only the user knows.
        let named = |worker: &str| RoleOptions {
            control_plane: vec!["m".into()],
            worker: vec![worker.into()],
            ..RoleOptions::default()
        };
        for parent in ["nodes", "k8s-nodes"] {
            let text = format!("[m]\na\n[w]\nb\n[{parent}:children]\nm\nw\n");
            assert_eq!(
                roles(&text, &named("w")),
                ("a | b".to_owned(), String::new()),
                "{parent}"
            );
            assert_eq!(roles(&text, &named(parent)).0, "a | a b", "the user's word counts");
        }
    }

    #[test]
    fn control_planes_can_be_named_one_by_one() {
        let role_options = RoleOptions {
            control_planes: vec!["a".into()],
            ..RoleOptions::default()
        };
        assert_eq!(roles("[masters]\na\nb\n[workers]\nc\n", &role_options).0, "a | c b");
        let role_options = RoleOptions {
            control_planes: ["a", "b", "c"].map(String::from).to_vec(),
            ..RoleOptions::default()
        };
        assert_eq!(roles("[masters]\na\nb\n[workers]\nc\n", &role_options).0, "a b c | ");
    }

    #[test]
    fn names_are_compared_without_case_and_with_either_stroke() {
        for (master, worker) in [
            ("K8S-Master", "K8s_Node"),
            ("kubernetes-master", "kubernetes-worker"),
            ("k3s-server", "k3s-agent"),
            ("managers", "workers"),
            ("masters", "agents"),
        ] {
            let text = format!("[{master}]\na\n[{worker}]\nb\n");
            assert_eq!(
                roles(&text, &RoleOptions::default()),
                ("a | b".to_owned(), String::new()),
                "{text}"
            );
        }
        let other = RoleOptions {
            control_planes: vec!["a".into()],
            ..RoleOptions::default()
        };
        assert_eq!(roles("[all_nodes]\na\nb\n[nfs]\nc\n", &other).0, "a | b");
    }

    #[test]
    fn hints_name_what_can_be_followed() {
        let hint = |text: &str| {
            let mut faults = Faults::default();
            let mut groups = Groups::new();
            ini::parse(text, &"h".into(), &mut groups, &mut faults);
            groups.finish();
            assign(&groups, &RoleOptions::default(), "h", &mut faults);
            let found = faults.into_list().remove(0);
            format!("{} / {}", found.what, found.next.join(" / "))
        };
        let wide = "[k8s_cluster:children]\nmasters\nk8s_new\n[masters]\na\n[k8s_new]\nb\n";
        assert!(hint(wide).contains("--worker-group k8s_new"), "{}", hint(wide));
        assert!(hint("x\n[masters]\na\n").contains("--worker-group ungrouped"));
        assert!(hint("[turing]\na\nb\n").contains("--control-planes HOST"));
        let none = hint("a\nb\n");
        assert!(
            none.contains("no groups; without a group: a, b / where all are") && none.contains("--control-planes HOST"),
            "{none}"
        );
        let many = hint("a[10:30]\n");
        assert!(many.contains("a21 and 9 more") && !many.contains("a22"), "{many}");
        let empty = hint("[kube_control_plane]\n[kube_node]\nb\n");
        assert!(
            empty.contains("no machine is in the group kube_control_plane"),
            "{empty}"
        );
        let local = hint("[masters]\na\n[mine]\nb ansible_connection=local\n");
        assert!(local.contains("b gets no role"), "{local}");
    }

    #[test]
    fn a_name_to_ignore_that_is_not_there_is_an_error() {
        let typo = RoleOptions {
            ignore: vec!["cc".into()],
            ..RoleOptions::default()
        };
        let (_, said) = roles("[masters]\na\n[workers]\nb\n", &typo);
        assert!(said.contains("cc is to be ignored, and is no group or host"), "{said}");
    }

    #[test]
    fn unknown_groups_are_listed_with_their_sizes() {
        let (_, said) = roles("[web]\na\nb\n[db]\nc\n", &RoleOptions::default());
        assert!(said.contains("web (2), db (1)"), "{said}");
    }
}
