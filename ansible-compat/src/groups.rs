//! The groups and hosts of one inventory file, with Ansible's rules for who belongs to whom and in which order.
//!
//! `all` and `ungrouped` exist from the start. A group without a parent is a child of `all`. Groups form a DAG:
//! [`Groups::add_child`] refuses a loop, so that depths exist.

use crate::faults::Place;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The group that every host is in.
pub const ALL: &str = "all";
/// The group of hosts that are in no other.
pub const UNGROUPED: &str = "ungrouped";

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
    groups: BTreeMap<String, Group>,
}

/// A group would become its own ancestor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loop;

impl Groups {
    /// Starts with `all` and `ungrouped`.
    pub fn new() -> Self {
        let groups = [ALL, UNGROUPED].map(|name| (name.to_owned(), Group::default()));
        Self {
            hosts: BTreeMap::new(),
            groups: BTreeMap::from(groups),
        }
    }

    /// Returns the host of that name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.get(name)
    }

    /// Returns the group of that name, and makes it where there is none.
    pub fn group_mut(&mut self, name: &str) -> &mut Group {
        self.groups.entry(name.to_owned()).or_default()
    }

    /// Returns the variables that the file sets on a group.
    pub fn group_vars(&self, name: &str) -> Option<&Vars> {
        self.groups.get(name).map(|group| &group.vars)
    }

    /// Puts a host into a group. A port sticks only where the host is new, as with Ansible.
    pub fn add_host(&mut self, group: &str, name: &str, port: Option<u16>, place: &Place) -> &mut Vars {
        let members = &mut self.group_mut(group).hosts;
        if !members.iter().any(|m| m == name) {
            members.push(name.to_owned());
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
        if self.descendants(child).iter().any(|d| d == parent) {
            return Err(Loop);
        }
        self.group_mut(child);
        let children = &mut self.group_mut(parent).children;
        if !children.iter().any(|c| c == child) {
            children.push(child.to_owned());
        }
        Ok(())
    }

    /// Returns the hosts of a group and of the groups below it: own hosts first, then level by level.
    pub fn hosts_in(&self, group: &str) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let members = self.descendants(group);
        let hosts = members.iter().filter_map(|g| self.groups.get(g)).flat_map(|g| &g.hosts);
        hosts.map(String::as_str).filter(|h| seen.insert(*h)).collect()
    }

    /// Returns the groups that a host is in, in the order in which their variables apply: later ones win.
    pub fn groups_of(&self, host: &str) -> Vec<&str> {
        let mut mine: BTreeSet<&str> = BTreeSet::from([ALL]);
        let direct = self.groups.iter().filter(|(_, g)| g.hosts.iter().any(|h| h == host));
        let mut open: Vec<&str> = direct.map(|(name, _)| name.as_str()).collect();
        while let Some(group) = open.pop() {
            if mine.insert(group) {
                open.extend(self.parents(group));
            }
        }
        if mine.iter().any(|g| ![ALL, UNGROUPED].contains(g)) {
            mine.remove(UNGROUPED);
        }
        let mut ordered: Vec<&str> = mine.into_iter().collect();
        ordered.sort_by_key(|name| (self.depth(name), self.priority(name), *name));
        ordered
    }

    fn parents<'a>(&'a self, child: &'a str) -> impl Iterator<Item = &'a str> {
        let above = self
            .groups
            .iter()
            .filter(move |(_, g)| g.children.iter().any(|c| c == child));
        above.map(|(name, _)| name.as_str())
    }

    /// Returns the group and all below it, breadth first.
    fn descendants(&self, group: &str) -> Vec<String> {
        let mut found = vec![group.to_owned()];
        let mut open = VecDeque::from([group]);
        while let Some(children) = open
            .pop_front()
            .and_then(|name| self.groups.get(name))
            .map(|g| &g.children)
        {
            for child in children {
                if !found.contains(child) {
                    found.push(child.clone());
                    open.push_back(child);
                }
            }
        }
        found
    }

    /// Returns the longest way down from `all`.
    fn depth(&self, group: &str) -> usize {
        if group == ALL {
            return 0;
        }
        self.parents(group).map(|parent| self.depth(parent)).max().unwrap_or(0) + 1
    }

    /// Returns `ansible_group_priority`, 1 unless set. Ansible takes it from the inventory file only.
    fn priority(&self, group: &str) -> i64 {
        let var = self
            .groups
            .get(group)
            .and_then(|g| g.vars.get("ansible_group_priority"));
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
        assert_eq!(groups.groups_of("a"), ["all", "zoo", "top", "mid", "leaf"]);
    }

    #[test]
    fn a_host_in_no_group_is_ungrouped() {
        let mut groups = Groups::new();
        groups.add_host(UNGROUPED, "a", None, &place());
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
    fn a_port_sticks_to_a_new_host_only() {
        let mut groups = Groups::new();
        assert!(
            groups
                .add_host("g", "a", Some(22), &place())
                .contains_key("ansible_port")
        );
        groups.add_host("g", "b", None, &place());
        assert!(groups.add_host("g", "b", Some(22), &place()).is_empty());
    }
}
