//! Reads Ansible inventories like Ansible, with the files beside them, and makes the installer's input from them.
//!
//! The entry point is [`read`]; [`listing`] prints the same as `ansible-inventory`. All problems of all files are
//! reported together, and none contains a secret. Only [`tree::Disk`] reads files; everything else is pure over
//! [`tree::FileTree`] and [`Environment`]. The README names the limits.

#![forbid(unsafe_code)]

pub mod collection;
pub mod config;
mod connect;
mod convert;
mod document;
mod faults;
mod groups;
mod ini;
pub mod listing;
mod literal;
mod overlooked;
mod patterns;
mod playbooks;
mod range;
mod roles;
mod scalar;
mod settings;
mod shlex;
mod sources;
mod ssh_args;
mod template;
pub mod tree;
mod vars;
mod vault;
mod yaml;

use faults::{Faults, Place};
use groups::{Groups, Vars};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Role;
use landfall_core::name::NodeName;
use landfall_core::secret::Secret;
use landfall_core::spec::Desired;
pub use roles::RoleOptions;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use tree::{Entry, FileTree};
pub use vault::Keys;

/// The arguments of the command line.
#[derive(Default)]
pub struct Request {
    /// Values of `-i`.
    pub sources: Vec<String>,
    /// Directory of the playbook, whose `group_vars/` and `host_vars/` count too.
    pub playbook_dir: Option<PathBuf>,
    /// The roles of groups.
    pub role_options: RoleOptions,
    /// Default login user.
    pub user: Option<String>,
    /// Default private key.
    pub private_key: Option<String>,
    /// Default login password.
    pub password: Option<Secret>,
    /// Default password for sudo.
    pub become_password: Option<Secret>,
    /// Values of `-e`: `key=value …`, a mapping of YAML or JSON, or `@FILE`.
    pub extra_vars: Vec<String>,
    /// Passwords of vaults.
    pub keys: Keys,
    /// Value of `--limit`.
    pub limit: Option<String>,
}

/// The environment of the process.
#[derive(Default)]
pub struct Environment {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// The current directory.
    pub cwd: PathBuf,
}

/// The result of reading an inventory.
#[derive(Debug)]
pub struct Understood {
    /// The cluster and its machines.
    pub desired: Desired,
    /// Notices for the user: machines without a role, variables that are not supported.
    pub notices: Vec<String>,
    /// Names of variables of members that nothing reads, by file.
    pub unread: BTreeMap<String, BTreeSet<String>>,
    /// The machines that `--limit` chooses, when it is given.
    pub limit: Option<BTreeSet<NodeName>>,
}

/// An inventory with all its variables.
struct Loaded {
    groups: Groups,
    around: vars::Around,
}

fn load(request: &Request, tree: &dyn FileTree, faults: &mut Faults) -> Loaded {
    let mut sources = sources::Sources {
        tree,
        keys: &request.keys,
        faults,
        groups: Groups::new(),
        dirs: vec![],
    };
    for source in &request.sources {
        sources.read(source);
    }
    let (mut groups, inventories) = (sources.groups, sources.dirs);
    groups.finish();
    let extra = extra_vars(&request.extra_vars, tree, faults);
    let around = vars::Around {
        inventories,
        playbook: request.playbook_dir.clone(),
        extra,
    };
    Loaded { groups, around }
}

/// Reads an inventory. The default login user is the local user, as in Ansible.
///
/// # Errors
/// All problems that were found.
pub fn read(
    request: &Request,
    config: &config::Config,
    environment: &Environment,
    tree: &dyn FileTree,
) -> Result<Understood, Vec<Diagnosis>> {
    let mut faults = Faults::default();
    config.notices.iter().for_each(|notice| faults.notice(notice));
    let mut loaded = load(request, tree, &mut faults);
    roles::add_kubespray_groups(&mut loaded.groups);
    let Environment { env, cwd } = environment;
    let local_user = ["USER", "LOGNAME"].iter().find_map(|key| env.get(*key));
    let defaults = defaults(request, config);
    let file = request.sources.join(", ");
    let common = convert::Common {
        file: &file,
        local_user: local_user.map_or("root", String::as_str),
        defaults: &defaults,
        keys: &request.keys,
        env: Arc::new(env.clone()),
        cwd,
        merge_error: config.merge_error(),
        playbook_dir: request.playbook_dir.as_deref(),
    };
    let broken = !faults.found().is_empty() && loaded.groups.hosts().next().is_none();
    let mut resolver = vars::Resolver::new(&loaded.groups, tree, &loaded.around, &request.keys);
    let role_options = request.role_options.clone();
    // When no machine could be read, the problems that follow from that are left out.
    let desired =
        (!broken).then(|| convert::desired(&loaded.groups, &mut resolver, role_options, &common, &mut faults));
    overlooked::report(request, config, environment, tree, &loaded, &mut faults);
    let notices = faults.take_notices();
    let limit = desired.as_ref().and_then(|found| {
        limit(
            &loaded.groups,
            &found.hosts,
            request.limit.as_deref()?,
            tree,
            &mut faults,
        )
    });
    match (desired, faults.into_list()) {
        (Some(convert::Found { desired, unread, .. }), list) if list.is_empty() => Ok(Understood {
            desired,
            notices,
            unread,
            limit,
        }),
        (_, list) => Err(list),
    }
}

/// Returns the nodes that `--limit` chooses of a `cluster.yaml`, whose groups are named as in an inventory: `kube_control_plane`,
/// `kube_node`, `outside`, and `k8s_cluster` for the members.
///
/// # Errors
/// The pattern chooses nothing.
pub fn limit_of(desired: &Desired, pattern: &str, tree: &dyn FileTree) -> Result<BTreeSet<NodeName>, Vec<Diagnosis>> {
    let mut groups = Groups::new();
    let place = Place::new(&"cluster.yaml".into(), "nodes");
    let mut hosts = vec![];
    for node in &desired.inventory.nodes {
        let group = match node.role {
            Role::ControlPlane => "kube_control_plane",
            Role::Worker => "kube_node",
            Role::Outside => "outside",
        };
        groups.add_host(group, node.name.as_str(), None, &place);
        if node.role != Role::Outside {
            groups.add_host("k8s_cluster", node.name.as_str(), None, &place);
        }
        hosts.push((node.name.to_string(), node.name.clone()));
    }
    groups.finish();
    let mut faults = Faults::default();
    limit(&groups, &hosts, pattern, tree, &mut faults).ok_or_else(|| faults.into_list())
}

/// Returns the nodes of the hosts that a pattern chooses; that it chooses none of the cluster is an error.
fn limit(
    groups: &Groups,
    hosts: &[(String, NodeName)],
    pattern: &str,
    tree: &dyn FileTree,
    faults: &mut Faults,
) -> Option<BTreeSet<NodeName>> {
    let next = "patterns are those of Ansible: hosts and groups with `:`, `!`, `&` and `*`, or @FILE";
    let chosen = match patterns::select(groups, pattern, tree) {
        Ok(chosen) => chosen,
        Err(why) => {
            faults.push(Diagnosis::new(Code::Usage, format!("--limit {pattern}: {why}")).next(next));
            return None;
        }
    };
    let nodes: BTreeSet<NodeName> = hosts
        .iter()
        .filter(|(host, _)| chosen.contains(host))
        .map(|(_, node)| node.clone())
        .collect();
    if nodes.is_empty() {
        let what = format!("--limit {pattern} chooses no machine of the cluster");
        faults.push(Diagnosis::new(Code::Usage, what).next(next));
        return None;
    }
    Some(nodes)
}

/// Returns how to log in where no variable says it, under names that no variable has.
fn defaults(request: &Request, config: &config::Config) -> Vars {
    let file: Rc<str> = "command line".into();
    let mut vars = config.login.clone();
    let mut put = |key: &str, text: Option<&str>| {
        if let Some(text) = text {
            let mut var = config::plain(text, Place::new(&file, key));
            var.value = serde_json::json!({ yaml::UNSAFE: text });
            vars.insert(key.to_owned(), var);
        }
    };
    let secret = |secret: &Option<Secret>| {
        secret
            .as_ref()
            .map(|s| String::from_utf8_lossy(s.expose()).into_owned())
    };
    put("--user", request.user.as_deref());
    put("--private-key", request.private_key.as_deref());
    put("--ask-pass", secret(&request.password).as_deref());
    put("--ask-become-pass", secret(&request.become_password).as_deref());
    vars
}

/// Reads the values of `-e`.
fn extra_vars(values: &[String], tree: &dyn FileTree, faults: &mut Faults) -> Vars {
    let mut vars = Vars::new();
    for value in values {
        let (text, file): (String, Rc<str>) = match value.strip_prefix('@') {
            Some(path) => match tree.entry(Path::new(path)) {
                Ok(Some(Entry::File(text))) => (text, path.into()),
                _ => {
                    let what = format!("{path} cannot be read");
                    faults.push(
                        Diagnosis::new(Code::FileUnreadable, what).next("name a file of variables with -e @FILE"),
                    );
                    continue;
                }
            },
            None => (value.clone(), "-e".into()),
        };
        let mapping = value.starts_with(['@', '{', '[']);
        if mapping {
            match vars::read_mapping(&text, &file, faults) {
                Ok(map) => vars.extend(map.iter().flat_map(|map| yaml::vars(map, &file, ""))),
                Err(diagnosis) => faults.push(diagnosis),
            }
            continue;
        }
        for pair in shlex::split_all(&text).unwrap_or_default() {
            match pair.split_once('=') {
                Some((key, value)) => {
                    let place = Place::new(&file, key);
                    let value = serde_json::Value::from(value);
                    vars.insert(key.to_owned(), groups::Var { value, place });
                }
                None => faults.value(&Place::new(&file, "a word"), "is no key=value"),
            }
        }
    }
    vars
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
