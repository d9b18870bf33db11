//! Groups and variables to what the installer wants: machines with roles, and the cluster.

use crate::connect::{Reader, opaque};
use crate::faults::{Faults, Place};
use crate::groups::{Groups, Var, Vars};
use crate::vars::Resolver;
use crate::yaml::UNSAFE;
use landfall_core::inventory::{Inventory, Node, Role};
use landfall_core::spec::parse::{Problems, cluster_spec};
use landfall_core::spec::{ClusterSpec, Desired, validate};
use serde_json::Value;
use std::rc::Rc;

/// Groups of control plane nodes.
const CONTROL_PLANES: [&str; 3] = ["kube_control_plane", "control_plane", "masters"];
/// Groups of nodes that run workloads.
const WORKERS: [&str; 2] = ["kube_node", "workers"];
/// Group of machines that look at the cluster from outside.
const OUTSIDE: [&str; 1] = ["outside"];
/// The variable that holds fields of the cluster.
const CLUSTER: &str = "landfall";

/// Makes the wanted cluster. Machines come as Ansible lists them: control planes, workers, then those outside.
pub fn desired(groups: &Groups, vars: &mut Resolver<'_>, local_user: &str, file: &str, faults: &mut Faults) -> Desired {
    let control_planes = members(groups, &CONTROL_PLANES);
    let workers = members(groups, &WORKERS);
    let mut inventory = Inventory::default();
    let mut cluster: Option<Var> = None;
    let pure_workers = workers.iter().filter(|h| !control_planes.contains(h));
    let outside = members(groups, &OUTSIDE);
    let machines = control_planes
        .iter()
        .map(|host| (*host, Role::ControlPlane))
        .chain(pure_workers.map(|host| (*host, Role::Worker)))
        .chain(outside.iter().map(|host| (*host, Role::Outside)));
    for (host, role) in machines {
        let Some(place) = groups.host(host).map(|h| &h.place) else {
            continue;
        };
        if role == Role::Outside && (control_planes.contains(&host) || workers.contains(&host)) {
            faults.value(
                place,
                format!("{host} is outside the cluster and a member of it at once"),
            );
            continue;
        }
        let vars = vars.of(host, faults);
        if let Some(var) = vars.get(CLUSTER) {
            one_cluster(&mut cluster, var, faults);
        }
        let mut node = node(host, role, place, &vars, local_user, faults);
        if let Some(node) = &mut node {
            node.schedulable = match role {
                Role::ControlPlane => workers.is_empty() || workers.contains(&host),
                Role::Worker => true,
                Role::Outside => false,
            };
        }
        inventory.nodes.extend(node);
    }
    if control_planes.is_empty() {
        let place = Place::new(&Rc::from(file), "groups");
        let why = format!(
            "no machine is in a group of control planes: {}",
            CONTROL_PLANES.join(", ")
        );
        faults.value(&place, why);
    }
    let spec = cluster.map(|var| spec(&var, faults)).unwrap_or_default();
    let desired = Desired { spec, inventory };
    let mut problems = Problems::new(file);
    validate::validate(&desired, &mut problems);
    faults.take(problems);
    desired
}

/// Returns the hosts of several groups, each once.
fn members<'a>(groups: &'a Groups, names: &[&str]) -> Vec<&'a str> {
    let mut hosts = vec![];
    for host in names.iter().flat_map(|name| groups.hosts_in(name)) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

/// Keeps the first value of the cluster variable, and reports any that differs.
fn one_cluster(kept: &mut Option<Var>, var: &Var, faults: &mut Faults) {
    match kept {
        None => *kept = Some(var.clone()),
        Some(first) if first.value != var.value => {
            let Place { file, at } = &first.place;
            let why = format!("differs from {file}: {at}; all machines share one cluster: set it for the group all");
            faults.value(&var.place, why);
        }
        Some(_) => {}
    }
}

fn node(host: &str, role: Role, place: &Place, vars: &Vars, local_user: &str, faults: &mut Faults) -> Option<Node> {
    let name = host.parse();
    if let Err(error) = &name {
        faults.value(place, error);
    }
    let mut reader = Reader { vars, faults };
    let ip = reader.address("ip");
    let access_ip = reader.address("access_ip");
    let connect = reader.connect(host, local_user);
    Some(Node {
        name: name.ok()?,
        role,
        schedulable: false,
        ip,
        access_ip,
        connect,
    })
}

/// Reads the cluster variable: a mapping with the fields of `cluster.yaml` except `nodes`.
fn spec(var: &Var, faults: &mut Faults) -> ClusterSpec {
    let Value::Object(map) = &var.value else {
        faults.value(&var.place, "must be a mapping with fields of the cluster");
        return ClusterSpec::default();
    };
    let mut fields = map.clone();
    fields.retain(|key, value| {
        let why = opaque(value);
        if let Some(why) = why {
            let place = Place::new(&var.place.file, format!("{}.{key}", var.place.at));
            faults.value(&place, why);
        }
        why.is_none()
    });
    fields.values_mut().for_each(unwrap_unsafe);
    let mut problems = Problems::new(&var.place.file);
    let spec = cluster_spec(&fields, &format!("{}.", var.place.at), &mut problems);
    faults.take(problems);
    spec
}

/// Replaces `!unsafe` texts by the texts.
fn unwrap_unsafe(value: &mut Value) {
    match value {
        Value::Object(map) => match map.remove(UNSAFE) {
            Some(text) => *value = text,
            None => map.values_mut().for_each(unwrap_unsafe),
        },
        Value::Array(items) => items.iter_mut().for_each(unwrap_unsafe),
        _ => {}
    }
}
