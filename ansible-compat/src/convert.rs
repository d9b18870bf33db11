//! Turns groups and variables into the installer's input: machines with roles, and the spec of the cluster.

use crate::connect::{NODE_NAMES, Reader};
use crate::faults::{Faults, Place};
use crate::groups::{ALL, Groups, Var, Vars};
use crate::roles::{self, RoleOptions, Roles};
use crate::settings::Settings;
use crate::template::Scope;
use crate::vars::Resolver;
use crate::vault::Keys;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::{Connection, Inventory, Node, Proxy, Role};
use landfall_core::name::NodeName;
use landfall_core::spec::Problems;
use landfall_core::spec::parse::cluster_spec;
use landfall_core::spec::{ClusterSpec, Desired, validate};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The variable that holds fields of the cluster.
const CLUSTER: &str = "landfall";

/// The context that all machines share.
pub struct Common<'a> {
    /// The inventory, as the user knows it.
    pub file: &'a str,
    /// The default login user.
    pub local_user: &'a str,
    /// Logins of `ansible.cfg`, the environment and flags, under names that no variable has.
    pub defaults: &'a Vars,
    /// Opens vaults.
    pub keys: &'a Keys,
    /// Environment variables, for `lookup('env', …)`.
    pub env: Arc<BTreeMap<String, String>>,
    /// The current directory.
    pub cwd: &'a Path,
    /// What is wrong when mappings count that Ansible would merge.
    pub merge_error: Option<Diagnosis>,
    /// Directory of the playbook.
    pub playbook_dir: Option<&'a Path>,
}

/// The wanted cluster, and which host of the inventory each machine is.
pub struct Found {
    /// The cluster and its machines.
    pub desired: Desired,
    /// Host of the inventory and name of the node.
    pub hosts: Vec<(String, NodeName)>,
    /// Names of variables of members that nothing reads, by file.
    pub unread: BTreeMap<String, BTreeSet<String>>,
}

/// Makes the wanted cluster. Machines come as Ansible lists them: control planes, workers, then those outside.
pub fn desired(
    groups: &Groups,
    vars: &mut Resolver<'_>,
    mut role_options: RoleOptions,
    common: &Common<'_>,
    faults: &mut Faults,
) -> Found {
    if let Some(var) = cluster_variable(groups, vars, faults) {
        role_options.take(&var.value, &var.place, faults);
        // Of the variables that landfall uses it is the only one that is a mapping.
        common
            .merge_error
            .clone()
            .into_iter()
            .for_each(|error| faults.push(error));
    } else if common.merge_error.is_some() {
        faults.notice(
            "ansible.cfg says hash_behaviour = merge: mappings that variables use are replaced whole here, not merged",
        );
    }
    let roles = roles::assign(groups, &role_options, common.file, faults);
    let mut inventory = Inventory::default();
    let mut hosts = vec![];
    let mut cluster: Option<(Var, Value)> = None;
    let mut settings = Settings::default();
    for (host, role) in machines(&roles) {
        let Some(found) = groups.host(host) else { continue };
        if role == Role::Outside && (roles.control_planes.iter().chain(&roles.workers).any(|h| h == host)) {
            let why = format!("{host} is outside the cluster and a member of it at once");
            faults.value(&found.place, why);
            continue;
        }
        let own = vars.of(host, faults);
        let mut seen = common.defaults.clone();
        seen.extend(own.clone());
        let scope = scope(host, groups, &seen, vars, common);
        if let Some(var) = seen.get(CLUSTER) {
            one_cluster(&mut cluster, var, &scope, faults);
        }
        if role != Role::Outside {
            settings.look(host, &own, &scope, faults);
        }
        let mut node = node(host, role, &found.place, &seen, &scope, common, faults);
        if let Some(node) = &mut node {
            node.schedulable = match role {
                Role::ControlPlane => roles.workers.is_empty() || roles.workers.iter().any(|h| h == host),
                Role::Worker => true,
                Role::Outside => false,
            };
        }
        hosts.extend(node.as_ref().map(|node| (host.to_owned(), node.name.clone())));
        inventory.nodes.extend(node);
    }
    through_bastion(&roles, &hosts, &mut inventory, groups, vars, common, faults);
    let unread = settings.take_unread();
    let (spec, taken) = spec(cluster, settings, faults);
    let desired = Desired { spec, inventory };
    let mut problems = Problems::new(common.file);
    // The missing control plane is reported already, with the groups of the inventory.
    if !roles.control_planes.is_empty() {
        validate::validate(&desired, &mut problems);
    }
    faults.take(problems);
    count_all(&roles, &desired.inventory, faults);
    wrong_networks(&taken, faults);
    odd_members(&roles, faults);
    Found { desired, hosts, unread }
}

/// Returns the cluster variable as it holds for the first machine that has it: `-e`, a group or the machine itself may set it. That it is
/// the same for all members is checked later.
fn cluster_variable(groups: &Groups, vars: &mut Resolver<'_>, faults: &mut Faults) -> Option<Var> {
    let hosts: Vec<&str> = groups.hosts().map(|(host, _)| host).collect();
    hosts.into_iter().find_map(|host| vars.one(host, CLUSTER, faults))
}

/// Makes the first machine of the group bastion the jump host of all machines, as kubespray does, except of those with a proxy of their own
/// and of this machine.
fn through_bastion(
    roles: &Roles,
    hosts: &[(String, NodeName)],
    inventory: &mut Inventory,
    groups: &Groups,
    vars: &mut Resolver<'_>,
    common: &Common<'_>,
    faults: &mut Faults,
) {
    let Some((bastion, others)) = roles.bastions.split_first() else {
        return;
    };
    if !others.is_empty() {
        faults.notice(format_args!(
            "of the group bastion the first is the jump host, {bastion}; kubespray has one too"
        ));
    }
    let mut seen = common.defaults.clone();
    seen.extend(vars.of(bastion, faults));
    let scope = scope(bastion, groups, &seen, vars, common);
    let reader = &mut Reader {
        vars: &seen,
        scope: &scope,
        faults,
    };
    let hop = reader.connect(bastion, common.local_user);
    for node in &mut inventory.nodes {
        let itself = hosts.iter().any(|(host, name)| host == bastion && *name == node.name);
        if !itself && node.connect.connection != Connection::Local && node.connect.ssh.proxy.is_none() {
            node.connect.ssh.proxy = Some(Proxy::Jump(vec![hop.clone()]));
        }
    }
}

fn machines(roles: &Roles) -> impl Iterator<Item = (&str, Role)> {
    let pure_workers = roles.workers.iter().filter(|h| !roles.control_planes.contains(h));
    let control_planes = roles.control_planes.iter().map(|h| (h.as_str(), Role::ControlPlane));
    control_planes
        .chain(pure_workers.map(|h| (h.as_str(), Role::Worker)))
        .chain(roles.outside.iter().map(|h| (h.as_str(), Role::Outside)))
}

/// Fields with a network, as problems name them.
const NETWORKS: [(&str, &str); 2] = [
    ("podNetworkCidr", "the pod network"),
    ("serviceCidr", "the Service network"),
];

/// Says where a network comes from that cannot be the cluster's, and how an inventory sets another one.
fn wrong_networks(taken: &BTreeMap<&'static str, Place>, faults: &mut Faults) {
    for problem in faults.found() {
        for (field, _) in NETWORKS.iter().filter(|(_, name)| problem.what.contains(name)) {
            let from = taken.get(field).map_or(String::new(), |Place { file, at }| {
                format!("{field} is taken from {file}: {at}; ")
            });
            problem.next.push(format!(
                "{from}for another {field}: -e '{{\"landfall\": {{\"{field}\": \"NETWORK\"}}}}'; or with two lines in \
                 group_vars/all.yml:\nlandfall:\n  {field}: NETWORK"
            ));
        }
    }
}

/// Counts the control planes without a valid name too: they are reported already, and their number is that of the groups.
fn count_all(roles: &Roles, inventory: &Inventory, faults: &mut Faults) {
    let (all, valid) = (roles.control_planes.len(), inventory.control_planes().count());
    if all == valid {
        return;
    }
    if let Some((text, _)) = validate::control_planes(valid) {
        faults.found().retain(|problem| problem.what != text);
    }
    if let Some((text, next)) = validate::control_planes(all) {
        faults.push(Diagnosis::new(Code::SpecTopology, text).next(next));
    }
}

/// Suggests which control planes to keep when their number is even.
fn odd_members(roles: &Roles, faults: &mut Faults) {
    let named = &roles.control_planes;
    if named.is_empty() || [1, 3, 5].contains(&named.len()) {
        return;
    }
    let fewer = if named.len() > 5 { 5 } else { named.len() - 1 };
    let (kept, left) = named.split_at(fewer);
    let mut next = format!(
        "leave out {}: --control-planes {} (the others become workers)",
        left.join(", "),
        kept.join(",")
    );
    let mut more = named.clone();
    let others = roles.etcd.iter().chain(&roles.workers);
    for host in others {
        if more.len() < named.len() + 1 && !more.contains(host) && roles.has(host) {
            more.push(host.clone());
        }
    }
    if [3, 5].contains(&more.len()) {
        next.push_str(&format!("; or take one more: --control-planes {}", more.join(",")));
    }
    for problem in faults.found() {
        if problem.what.contains("control planes are named") {
            problem.next.push(next.clone());
        }
    }
}

/// Collects the variables that a host's expressions can name: its own, and those that Ansible adds.
fn scope(host: &str, groups: &Groups, vars: &Vars, resolver: &Resolver<'_>, common: &Common<'_>) -> Scope {
    let file = groups.host(host).map_or("", |h| &*h.place.file);
    let absolute = |path: &Path| normal(&common.cwd.join(path));
    let dir = absolute(Path::new(file).parent().unwrap_or(Path::new("")));
    let playbook = absolute(common.playbook_dir.unwrap_or(Path::new("")));
    let mut names: Vec<&str> = groups.groups_of(host);
    names.retain(|g| *g != ALL);
    names.sort_unstable();
    let mut seen: BTreeMap<String, Value> = vars.iter().map(|(key, var)| (key.clone(), var.value.clone())).collect();
    let uses_groups = vars.values().any(|var| var.value.to_string().contains("groups"));
    let all: Map<String, Value> = if uses_groups {
        groups
            .names()
            .map(|g| (g.to_owned(), json!(groups.hosts_in(g))))
            .collect()
    } else {
        Map::new()
    };
    let magic = [
        ("inventory_hostname", json!(host)),
        ("inventory_hostname_short", json!(host.split('.').next())),
        ("inventory_dir", json!(dir)),
        ("inventory_file", json!(absolute(Path::new(file)))),
        ("playbook_dir", json!(playbook)),
        ("group_names", json!(names)),
        ("groups", Value::Object(all)),
    ];
    seen.extend(magic.into_iter().map(|(key, value)| (key.to_owned(), value)));
    Scope::new(
        seen,
        common.keys.clone(),
        Arc::clone(&common.env),
        resolver.sealed.clone(),
    )
}

/// Takes `.` and `..` out of a path without looking at the disk.
pub fn normal(path: &Path) -> PathBuf {
    let mut found = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(found.pop()),
            std::path::Component::CurDir => {}
            part => found.push(part),
        }
    }
    found
}

/// Keeps the first value of the cluster variable, and reports any that differs.
fn one_cluster(kept: &mut Option<(Var, Value)>, var: &Var, scope: &Scope, faults: &mut Faults) {
    match kept {
        None => {
            let value = made_out(var, scope, faults);
            *kept = Some((var.clone(), value));
        }
        Some((first, _)) if first.value != var.value => {
            let Place { file, at } = &first.place;
            let why = format!("differs from {file}: {at}; all machines share one cluster: set it for the group all");
            faults.value(&var.place, why);
        }
        Some(_) => {}
    }
}

/// Evaluates the fields of the cluster variable, each by itself.
fn made_out(var: &Var, scope: &Scope, faults: &mut Faults) -> Value {
    let Value::Object(map) = &var.value else {
        return scope.value(&var.value).unwrap_or(Value::Null);
    };
    let mut fields = Map::new();
    for (key, value) in map {
        match scope.value(value) {
            Ok(value) => drop(fields.insert(key.clone(), value)),
            Err(why) => {
                let place = Place::new(&var.place.file, format!("{}.{key}", var.place.at));
                faults.value(&place, why);
            }
        }
    }
    Value::Object(fields)
}

fn node(
    host: &str,
    role: Role,
    place: &Place,
    vars: &Vars,
    scope: &Scope,
    common: &Common<'_>,
    faults: &mut Faults,
) -> Option<Node> {
    let mut reader = Reader { vars, scope, faults };
    let own = reader.text(&NODE_NAMES);
    let (name, at) = own.map_or((host.to_owned(), place), |(name, at)| (name, at));
    let ip = reader.address("ip");
    let access_ip = reader.address("access_ip");
    let connect = reader.connect(host, common.local_user);
    let own_name = name;
    let name: Result<NodeName, _> = own_name.parse();
    if let Err(error) = &name {
        let lower = own_name.to_lowercase();
        let way = if own_name != lower && lower.parse::<NodeName>().is_ok() {
            "; for lower case write into group_vars/all.yml: landfall_node_name: \"{{ inventory_hostname | lower }}\""
        } else {
            "; another name than the inventory's: landfall_node_name"
        };
        reader.faults.value(at, format_args!("{error}{way}"));
    }
    Some(Node {
        name: name.ok()?,
        role,
        schedulable: false,
        ip,
        access_ip,
        connect,
    })
}

/// Reads the cluster variable, a mapping with the fields of `cluster.yaml` except `nodes`, and adds what settings of other
/// projects say. Returns it with the places of fields that were taken over from such settings.
fn spec(
    cluster: Option<(Var, Value)>,
    settings: Settings,
    faults: &mut Faults,
) -> (ClusterSpec, BTreeMap<&'static str, Place>) {
    let mut taken = BTreeMap::new();
    let (mut fields, place) = match cluster {
        None => (Map::new(), None),
        Some((var, Value::Object(map))) => (map, Some(var.place)),
        Some((var, _)) => {
            faults.value(&var.place, "must be a mapping with fields of the cluster");
            return (ClusterSpec::default(), taken);
        }
    };
    for key in ["groups", "ignore"] {
        fields.remove(key);
    }
    let own = fields.clone();
    for (field, value, at) in settings.finish(&|field| own.contains_key(field), faults) {
        let mut problems = Problems::new(&at.file);
        cluster_spec(
            &Map::from_iter([(field.to_owned(), value.clone())]),
            "landfall.",
            &mut problems,
        );
        match problems.or(()) {
            Ok(()) => {
                fields.insert(field.to_owned(), value);
                taken.insert(field, at);
            }
            Err(_) => faults.value(
                &at,
                format_args!("cannot be taken over as {field}; set landfall.{field}"),
            ),
        }
    }
    let (file, prefix) = place.map_or((String::new(), String::new()), |p| {
        (p.file.to_string(), format!("{}.", p.at))
    });
    let mut problems = Problems::new(&file);
    let spec = cluster_spec(&fields, &prefix, &mut problems);
    faults.take(problems);
    (spec, taken)
}
