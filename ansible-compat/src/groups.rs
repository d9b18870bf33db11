//! The groups and hosts of an inventory, with Ansible's rules for membership and order.
//!
//! `all` and `ungrouped` exist from the start. Files are read one after the other; [`Groups::finish`] then does the same as
//! Ansible: groups without a parent become children of `all`, hosts without a group members of `ungrouped`, and depths are
//! computed. Groups form a DAG: [`Groups::add_child`] refuses a loop, so that depths exist.

use crate::faults::Place;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The group that every host is in.
pub const ALL: &str = "all";
/// The group of hosts that are in no other.
pub const UNGROUPED: &str = "ungrouped";

/// The variable that orders groups of one depth; Ansible does not hand it on as a variable.
pub const PRIORITY: &str = "ansible_group_priority";

/// A variable and where it was set.
#[derive(Debug, Clone, PartialEq)]
pub struct Var {
    /// Its value; `!vault` and `!unsafe` values are mappings with one key, as in Ansible's JSON (see `yaml`).
    pub value: Value,
    /// Where it was set.
    pub place: Place,
}

/// Variables by name.
pub type Vars = BTreeMap<String, Var>;

/// A host as the inventory file describes it.
#[derive(Debug)]
pub struct Host {
    /// Where it is named first.
    pub place: Place,
    /// Variables on the host itself.
    pub vars: Vars,
}

/// A group as the inventory file describes it.
#[derive(Debug, Default)]
pub struct Group {
    /// Its own hosts, in the order of the file.
    pub hosts: Vec<String>,
    /// Its own children, in the order of the file.
    pub children: Vec<String>,
    /// Variables on the group.
    pub vars: Vars,
}

/// All groups and hosts.
#[derive(Debug)]
pub struct Groups {
    hosts: BTreeMap<String, Host>,
    host_order: Vec<String>,
    groups: BTreeMap<String, Group>,
    group_order: Vec<String>,
    index: Index,
}

/// What [`Groups::finish`] computes.
#[derive(Debug, Default)]
struct Index {
    /// Groups that a host is in by itself.
    direct: BTreeMap<String, Vec<String>>,
    parents: BTreeMap<String, Vec<String>>,
    /// Length of the longest path from `all`.
    depth: BTreeMap<String, usize>,
}

/// A group would become its own ancestor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loop;

impl Groups {
    /// Starts with `all` and `ungrouped`.
    pub fn new() -> Self {
        let mut groups = Self {
            hosts: BTreeMap::new(),
            host_order: vec![],
            groups: BTreeMap::new(),
            group_order: vec![],
            index: Index::default(),
        };
        groups.group_mut(UNGROUPED);
        groups.group_mut(ALL).children.push(UNGROUPED.to_owned());
        groups
    }

    /// Returns all hosts in the order in which they were named first.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, &Host)> {
        self.host_order.iter().map(|name| (name.as_str(), &self.hosts[name]))
    }

    /// Returns the names of all groups in the order in which they were named first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.group_order.iter().map(String::as_str)
    }

    /// Returns the group of that name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name)
    }

    /// Returns the host of that name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.get(name)
    }

    /// Returns the group of that name, and makes it where there is none.
    pub fn group_mut(&mut self, name: &str) -> &mut Group {
        if !self.groups.contains_key(name) {
            self.group_order.push(name.to_owned());
        }
        self.groups.entry(name.to_owned()).or_default()
    }

    /// Returns the variables on a group.
    pub fn group_vars(&self, name: &str) -> Option<&Vars> {
        self.groups.get(name).map(|g| &g.vars)
    }

    /// Adds a host to a group and returns its variables. A port is set only for a new host.
    pub fn add_host(&mut self, group: &str, name: &str, port: Option<u16>, place: &Place) -> &mut Vars {
        let members = &mut self.group_mut(group).hosts;
        if !members.iter().any(|m| m == name) {
            members.push(name.to_owned());
        }
        if !self.hosts.contains_key(name) {
            self.host_order.push(name.to_owned());
        }
        let host = self.hosts.entry(name.to_owned()).or_insert_with(|| {
            let port = port.map(|port| Var {
                value: Value::from(port),
                place: place.clone(),
            });
            Host {
                place: place.clone(),
                vars: port.map(|var| ("ansible_port".to_owned(), var)).into_iter().collect(),
            }
        });
        &mut host.vars
    }

    /// Makes one group a child of another.
    pub fn add_child(&mut self, parent: &str, child: &str) -> Result<(), Loop> {
        self.group_mut(child);
        if self.descendants(child).contains(&parent) {
            return Err(Loop);
        }
        let children = &mut self.group_mut(parent).children;
        if !children.iter().any(|c| c == child) {
            children.push(child.to_owned());
        }
        Ok(())
    }

    /// Puts groups without a parent below `all` and hosts without a group into `ungrouped`, and computes depths. Must be called again after a
    /// change.
    pub fn finish(&mut self) {
        self.index = Index::default();
        for name in &self.group_order {
            for child in &self.groups[name].children {
                self.index.parents.entry(child.clone()).or_default().push(name.clone());
            }
        }
        for name in self.group_order.clone() {
            if name != ALL && !self.index.parents.contains_key(&name) {
                self.group_mut(ALL).children.push(name.clone());
                self.index.parents.insert(name, vec![ALL.to_owned()]);
            }
        }
        self.sort_out_ungrouped();
        for name in self.parents_first() {
            let parents = self.index.parents.get(&name).into_iter().flatten();
            let depth = parents
                .filter_map(|p| self.index.depth.get(p))
                .max()
                .map_or(0, |d| d + 1);
            self.index.depth.insert(name, depth);
        }
    }

    /// Hosts of other groups leave `ungrouped`, and hosts without one join it.
    fn sort_out_ungrouped(&mut self) {
        for name in &self.group_order {
            for host in &self.groups[name].hosts {
                self.index.direct.entry(host.clone()).or_default().push(name.clone());
            }
        }
        for host in self.host_order.clone() {
            let direct = self.index.direct.entry(host.clone()).or_default();
            let others = direct.iter().any(|g| ![ALL, UNGROUPED].contains(&g.as_str()));
            let listed = direct.iter().any(|g| g == UNGROUPED);
            if others && listed {
                direct.retain(|g| g != UNGROUPED);
                self.group_mut(UNGROUPED).hosts.retain(|h| *h != host);
            } else if !others && !listed {
                direct.push(UNGROUPED.to_owned());
                self.group_mut(UNGROUPED).hosts.push(host);
            }
        }
    }

    /// Returns all groups so that each comes after its parents.
    fn parents_first(&self) -> Vec<String> {
        let count = |name: &String| self.index.parents.get(name).map_or(0, Vec::len);
        let mut missing: BTreeMap<&str, usize> = self.group_order.iter().map(|n| (n.as_str(), count(n))).collect();
        let mut open: VecDeque<&str> = missing
            .iter()
            .filter(|(_, n)| **n == 0)
            .map(|(name, _)| *name)
            .collect();
        let mut order = vec![];
        while let Some(name) = open.pop_front() {
            order.push(name.to_owned());
            for child in &self.groups[name].children {
                if let Some(left) = missing.get_mut(child.as_str()) {
                    *left -= 1;
                    if *left == 0 {
                        open.push_back(child);
                    }
                }
            }
        }
        order
    }

    /// Returns the hosts of a group and of the groups below it: own hosts first, then level by level.
    pub fn hosts_in(&self, group: &str) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let members = self.descendants(group);
        let hosts = members
            .iter()
            .filter_map(|g| self.groups.get(*g))
            .flat_map(|g| &g.hosts);
        hosts.map(String::as_str).filter(|h| seen.insert(*h)).collect()
    }

    /// Returns the groups that a host is in, in the order in which their variables apply: later ones win.
    pub fn groups_of(&self, host: &str) -> Vec<&str> {
        let mut mine: BTreeSet<&str> = BTreeSet::from([ALL]);
        let mut open: Vec<&String> = self.index.direct.get(host).into_iter().flatten().collect();
        while let Some(group) = open.pop() {
            if mine.insert(group) {
                open.extend(self.index.parents.get(group).into_iter().flatten());
            }
        }
        let mut ordered: Vec<&str> = mine.into_iter().collect();
        ordered.sort_by_key(|name| (self.index.depth.get(*name), self.priority(name), *name));
        ordered
    }

    /// Returns the group and all below it, breadth first.
    pub fn descendants<'a>(&'a self, group: &'a str) -> Vec<&'a str> {
        let mut seen = BTreeSet::from([group]);
        let mut found = vec![group];
        let mut at = 0;
        while let Some(name) = found.get(at) {
            let children = self.groups.get(*name).map(|g| g.children.iter());
            found.extend(
                children
                    .into_iter()
                    .flatten()
                    .map(String::as_str)
                    .filter(|c| seen.insert(c)),
            );
            at += 1;
        }
        found
    }

    /// Returns `ansible_group_priority`, 1 unless set. Ansible takes it from inventory files only.
    pub fn priority(&self, group: &str) -> i64 {
        let var = self.groups.get(group).and_then(|g| g.vars.get(PRIORITY));
        var.and_then(|var| match &var.value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        })
        .unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place::new(&"f".into(), "x")
    }

    fn diamond() -> Groups {
        let mut groups = Groups::new();
        groups.add_host("leaf", "a", None, &place());
        groups.add_host("zoo", "a", None, &place());
        groups.add_host("top", "b", None, &place());
        groups.add_host("ungrouped", "a", None, &place());
        for (parent, child) in [("top", "mid"), ("mid", "leaf"), ("top", "leaf")] {
            groups.add_child(parent, child).unwrap();
        }
        groups.finish();
        groups
    }

    #[test]
    fn groups_apply_by_longest_depth_then_name() {
        assert_eq!(diamond().groups_of("a"), ["all", "top", "zoo", "mid", "leaf"]);
        assert_eq!(diamond().groups_of("b"), ["all", "top"]);
    }

    #[test]
    fn priority_comes_before_the_name() {
        let mut groups = diamond();
        let priority = Var {
            value: Value::from("10"),
            place: place(),
        };
        groups
            .group_mut("top")
            .vars
            .insert("ansible_group_priority".into(), priority);
        groups.finish();
        assert_eq!(groups.groups_of("a"), ["all", "zoo", "top", "mid", "leaf"]);
    }

    #[test]
    fn a_host_in_no_group_is_ungrouped() {
        let mut groups = Groups::new();
        groups.add_host(UNGROUPED, "a", None, &place());
        groups.finish();
        assert_eq!(groups.groups_of("a"), ["all", "ungrouped"]);
    }

    #[test]
    fn hosts_come_own_first_then_level_by_level() {
        assert_eq!(diamond().hosts_in("top"), ["b", "a"]);
        assert!(diamond().hosts_in("nothing").is_empty());
    }

    #[test]
    fn loops_are_refused() {
        assert_eq!(diamond().add_child("leaf", "top"), Err(Loop));
        assert_eq!(diamond().add_child("top", "top"), Err(Loop));
    }

    #[test]
    fn a_port_is_set_for_a_new_host_only() {
        let mut groups = Groups::new();
        assert!(
            groups
                .add_host("g", "a", Some(22), &place())
                .contains_key("ansible_port")
        );
        groups.add_host("g", "b", None, &place());
        assert!(groups.add_host("g", "b", Some(22), &place()).is_empty());
    }

    #[test]
    fn sixty_layers_of_two_groups_take_no_time() {
        let mut groups = Groups::new();
        for layer in 0..60 {
            for (parent, child) in [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")] {
                groups
                    .add_child(&format!("{parent}{layer}"), &format!("{child}{}", layer + 1))
                    .unwrap();
            }
        }
        groups.add_host("a60", "h", None, &place());
        groups.finish();
        let mine = groups.groups_of("h");
        assert_eq!((mine.len(), mine[1], mine[120]), (122, "a0", "b59"));
    }
}
