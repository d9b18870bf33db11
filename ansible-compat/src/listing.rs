//! Makes the output of `ansible-inventory`: `--list`, `--list --export`, `--yaml`, `--host`, `--graph`.
//!
//! The shapes are those of `ansible/cli/inventory.py` of 2.19. Values are printed as they are set: expressions are not
//! evaluated, inline vaults stay encrypted, and passwords are shown.

use crate::faults::Faults;
use crate::groups::{ALL, Groups, PRIORITY, Vars};
use crate::tree::FileTree;
use crate::vars::Resolver;
use crate::{Request, load, patterns};
use landfall_core::explain::{Code, Diagnosis};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Variables that Ansible sets itself and does not print: `INTERNAL_STATIC_VARS` of 2.19.
#[rustfmt::skip]
const INTERNAL: [&str; 28] = [
    "ansible_async_path", "ansible_collection_name", "ansible_config_file", "ansible_dependent_role_names",
    "ansible_diff_mode", "ansible_facts", "ansible_forks", "ansible_inventory_sources", "ansible_limit",
    "ansible_play_batch", "ansible_play_hosts", "ansible_play_hosts_all", "ansible_play_role_names",
    "ansible_playbook_python", "ansible_role_name", "ansible_role_names", "ansible_run_tags",
    "ansible_skip_tags", "ansible_verbosity", "ansible_version", "inventory_dir", "inventory_file",
    "inventory_hostname", "inventory_hostname_short", "groups", "group_names", "omit", "playbook_dir",
];

/// Where variables are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// All variables of a host with the host.
    Flattened,
    /// Each variable where it is set (`--export`).
    AsSet,
}

/// A whole inventory, ready to be printed.
pub struct Listing<'a> {
    groups: &'a Groups,
    vars: Resolver<'a>,
    export: Export,
    faults: Faults,
}

/// Reads an inventory and passes it to `print`.
///
/// # Errors
/// All problems that were found.
pub fn with<T>(
    request: &Request,
    tree: &dyn FileTree,
    export: Export,
    print: impl FnOnce(&mut Listing<'_>) -> Result<T, Diagnosis>,
) -> Result<T, Vec<Diagnosis>> {
    let mut faults = Faults::default();
    let loaded = load(request, tree, &mut faults);
    let mut listing = Listing {
        groups: &loaded.groups,
        vars: Resolver::new(&loaded.groups, tree, &loaded.around, &request.keys),
        export,
        faults,
    };
    let printed = print(&mut listing);
    let mut list = listing.faults.into_list();
    match printed {
        Ok(printed) if list.is_empty() => Ok(printed),
        Ok(_) => Err(list),
        Err(diagnosis) => {
            list.push(diagnosis);
            Err(list)
        }
    }
}

impl Listing<'_> {
    /// Returns the hosts that a pattern of `--limit` matches.
    ///
    /// # Errors
    /// A part of the pattern matches nothing, or is none.
    pub fn limited(&self, pattern: &str, tree: &dyn FileTree) -> Result<BTreeSet<String>, String> {
        patterns::select(self.groups, pattern, tree)
    }

    /// Returns what `--list` prints.
    pub fn list(&mut self) -> Value {
        let mut found = Map::new();
        let mut seen = BTreeSet::new();
        self.json_group(ALL, &mut found, &mut seen);
        let mut hostvars = Map::new();
        for host in self.groups.hosts().map(|(name, _)| name.to_owned()) {
            let vars = self.host_vars(&host);
            if !vars.is_empty() {
                hostvars.insert(host, Value::Object(vars));
            }
        }
        found.insert(
            "_meta".to_owned(),
            json!({ "hostvars": hostvars, "profile": "inventory_legacy" }),
        );
        Value::Object(found)
    }

    fn json_group(&mut self, name: &str, into: &mut Map<String, Value>, seen: &mut BTreeSet<String>) {
        let groups = self.groups;
        let Some(group) = groups.group(name) else { return };
        let mut entry = Map::new();
        if name != ALL && !group.hosts.is_empty() {
            entry.insert("hosts".to_owned(), json!(group.hosts));
        }
        if !group.children.is_empty() {
            entry.insert("children".to_owned(), json!(group.children));
        }
        if self.export == Export::AsSet {
            let vars = self.group_vars(name);
            if !vars.is_empty() {
                entry.insert("vars".to_owned(), Value::Object(vars));
            }
        }
        if !entry.is_empty() {
            into.insert(name.to_owned(), Value::Object(entry));
        }
        for child in &group.children {
            if seen.insert(child.clone()) {
                self.json_group(child, into, seen);
            }
        }
    }

    /// Returns what `--list --yaml` prints, as a value.
    pub fn list_yaml(&mut self) -> Value {
        let (mut groups, mut hosts) = (BTreeSet::new(), BTreeSet::new());
        let top = self.yaml_group(ALL, &mut groups, &mut hosts);
        Value::Object(
            top.map(|top| Map::from_iter([(ALL.to_owned(), top)]))
                .unwrap_or_default(),
        )
    }

    fn yaml_group(&mut self, name: &str, seen: &mut BTreeSet<String>, hosts: &mut BTreeSet<String>) -> Option<Value> {
        let groups = self.groups;
        let group = groups.group(name)?;
        let mut children = Map::new();
        for child in group.children.iter().filter(|c| *c != ALL) {
            if seen.contains(child) {
                children.insert(child.clone(), json!({}));
            } else {
                let below = self.yaml_group(child, seen, hosts);
                seen.insert(child.clone());
                children.extend(below.map(|below| (child.clone(), below)));
            }
        }
        let mut members = Map::new();
        for host in group.hosts.iter().filter(|_| name != ALL) {
            let vars = if hosts.insert(host.clone()) {
                self.host_vars(host)
            } else {
                Map::new()
            };
            members.insert(host.clone(), Value::Object(vars));
        }
        let vars = match self.export {
            Export::AsSet => self.group_vars(name),
            Export::Flattened => Map::new(),
        };
        let parts = [("children", children), ("hosts", members), ("vars", vars)];
        let entry: Map<String, Value> = parts
            .into_iter()
            .filter(|(_, map)| !map.is_empty())
            .map(|(key, map)| (key.to_owned(), Value::Object(map)))
            .collect();
        (!entry.is_empty()).then_some(Value::Object(entry))
    }

    /// Returns what `--host` prints.
    ///
    /// # Errors
    /// There is no such host.
    pub fn host(&mut self, name: &str) -> Result<Value, Diagnosis> {
        if self.groups.host(name).is_none() {
            let what = format!("there is no host {name} in the inventory");
            return Err(Diagnosis::new(Code::SpecValue, what).next("landfall inventory --graph shows all hosts"));
        }
        Ok(Value::Object(self.host_vars(name)))
    }

    /// Returns what `--graph` prints, from `top` down.
    ///
    /// # Errors
    /// There is no such group.
    pub fn graph(&mut self, top: &str, with_vars: bool) -> Result<String, Diagnosis> {
        if self.groups.group(top).is_none() {
            let what = format!("there is no group {top} in the inventory");
            return Err(Diagnosis::new(Code::SpecValue, what).next("landfall inventory --graph shows all groups"));
        }
        let mut lines = vec![];
        self.graph_group(top, 0, with_vars, &mut lines);
        Ok(lines.join("\n"))
    }

    fn graph_group(&mut self, name: &str, depth: usize, with_vars: bool, lines: &mut Vec<String>) {
        let groups = self.groups;
        let Some(group) = groups.group(name) else { return };
        lines.push(branch(&format!("@{name}:"), depth));
        for child in &group.children {
            self.graph_group(child, depth + 1, with_vars, lines);
        }
        for host in group.hosts.iter().filter(|_| name != ALL) {
            lines.push(branch(host, depth + 1));
            if with_vars {
                let vars = self.host_vars(host);
                lines.extend(leaves(vars, depth + 2));
            }
        }
        if with_vars {
            let vars = self.group_vars(name);
            lines.extend(leaves(vars, depth + 1));
        }
    }

    fn host_vars(&mut self, host: &str) -> Map<String, Value> {
        let vars = match self.export {
            Export::AsSet => self.vars.own(host, &mut self.faults),
            Export::Flattened => self.vars.of(host, &mut self.faults),
        };
        printed(vars)
    }

    fn group_vars(&mut self, name: &str) -> Map<String, Value> {
        let mut vars = printed(self.vars.of_group(name, &mut self.faults));
        let priority = self.groups.priority(name);
        if priority != 1 {
            vars.insert(PRIORITY.to_owned(), json!(priority));
        }
        vars
    }
}

fn printed(vars: Vars) -> Map<String, Value> {
    let shown = vars.into_iter().filter(|(key, _)| !INTERNAL.contains(&key.as_str()));
    shown.map(|(key, var)| (key, var.value)).collect()
}

fn branch(name: &str, depth: usize) -> String {
    if depth == 0 {
        name.to_owned()
    } else {
        format!("{}--{name}", "  |".repeat(depth))
    }
}

fn leaves(vars: Map<String, Value>, depth: usize) -> Vec<String> {
    let line = |(key, value): (String, Value)| branch(&format!("{{{key} = {}}}", python(&value, false)), depth);
    vars.into_iter().map(line).collect()
}

/// Writes a value as Python's `str` does, and within others as `repr`.
fn python(value: &Value, inner: bool) -> String {
    let list = |items: &[Value]| {
        items
            .iter()
            .map(|item| python(item, true))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if !inner => text.clone(),
        Value::String(text) => {
            let quote = if text.contains('\'') && !text.contains('"') {
                '"'
            } else {
                '\''
            };
            let text = text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t");
            let text = if quote == '\'' { text.replace('\'', "\\'") } else { text };
            format!("{quote}{text}{quote}")
        }
        Value::Array(items) => format!("[{}]", list(items)),
        Value::Object(map) => {
            let pairs = map
                .iter()
                .map(|(key, value)| format!("{}: {}", python(&Value::from(key.as_str()), true), python(value, true)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}
