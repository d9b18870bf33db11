//! Reads an inventory in Ansible's YAML form; `document` has read the text.
//!
//! A `!vault` value becomes `{"__ansible_vault": …}` and an `!unsafe` text `{"__ansible_unsafe": …}`, as in Ansible's
//! own JSON: so both survive in a plain JSON value, and files that `ansible-inventory` wrote read the same.

use crate::faults::{Faults, Place};
use crate::groups::{Groups, Var, Vars};
use crate::range;
use serde_json::{Map, Value};
use std::rc::Rc;

/// Key of a value that is encrypted.
pub const VAULT: &str = "__ansible_vault";
/// Key of a text that must not be taken for an expression.
pub const UNSAFE: &str = "__ansible_unsafe";

/// Reads the groups from the value of an inventory file into `groups`.
pub fn groups(value: &Map<String, Value>, file: &Rc<str>, groups: &mut Groups, faults: &mut Faults) {
    let mut reader = Reader { groups, file, faults };
    for (name, body) in value {
        reader.group(name, body, name);
    }
}

/// Turns a mapping to variables; `path` leads to it and may be empty.
pub fn vars(map: &Map<String, Value>, file: &Rc<str>, path: &str) -> Vars {
    let dot = if path.is_empty() { "" } else { "." };
    map.iter()
        .map(|(key, value)| {
            let var = Var {
                value: value.clone(),
                place: Place::new(file, format!("{path}{dot}{key}")),
            };
            (key.clone(), var)
        })
        .collect()
}

struct Reader<'a> {
    groups: &'a mut Groups,
    file: &'a Rc<str>,
    faults: &'a mut Faults,
}

impl Reader<'_> {
    fn wrong(&mut self, path: &str, why: impl std::fmt::Display) {
        self.faults.value(&Place::new(self.file, path), why);
    }

    fn group(&mut self, name: &str, body: &Value, path: &str) {
        self.groups.group_mut(name);
        let sections = match body {
            Value::Null => return,
            Value::Object(sections) => sections,
            _ => return self.wrong(path, "a group is a mapping with hosts, vars and children"),
        };
        for (section, content) in sections {
            let path = format!("{path}.{section}");
            let one;
            let content = match content {
                Value::Null => continue,
                Value::Object(content) => content,
                // Ansible takes a lone name for a mapping with that key.
                Value::String(name) => {
                    one = Map::from_iter([(name.clone(), Value::Null)]);
                    &one
                }
                _ => {
                    self.wrong(&path, "must be a mapping: each name is a key, followed by a colon");
                    continue;
                }
            };
            match section.as_str() {
                "hosts" => self.hosts(name, content, &path),
                "vars" => {
                    let vars = vars(content, self.file, &path);
                    self.groups.group_mut(name).vars.extend(vars);
                }
                "children" => self.children(name, content, &path),
                _ => self.wrong(&path, "is unknown here; a group has hosts, vars and children"),
            }
        }
    }

    fn hosts(&mut self, group: &str, hosts: &Map<String, Value>, path: &str) {
        for (pattern, body) in hosts {
            // A host line of an INI inventory, pasted: it may hold a password, so it is not repeated.
            if pattern.contains(|c: char| c == '=' || c.is_whitespace()) {
                self.wrong(
                    path,
                    "a host name has no blanks; variables stand below it as key: value",
                );
                continue;
            }
            let path = format!("{path}.{pattern}");
            let host_vars = match body {
                Value::Null => Vars::new(),
                Value::Object(map) => vars(map, self.file, &path),
                _ => {
                    self.wrong(&path, "the variables of a host must be a mapping");
                    continue;
                }
            };
            let (names, port) = match range::expand(pattern) {
                Ok(expanded) => expanded,
                Err(error) => {
                    self.wrong(&path, error);
                    continue;
                }
            };
            let place = Place::new(self.file, path);
            for name in names {
                let host = self.groups.add_host(group, &name, port, &place);
                host.extend(host_vars.clone());
            }
        }
    }

    fn children(&mut self, parent: &str, children: &Map<String, Value>, path: &str) {
        for (child, body) in children {
            let path = format!("{path}.{child}");
            self.group(child, body, &path);
            if self.groups.add_child(parent, child).is_err() {
                self.wrong(&path, format!("the group {child} would contain itself"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> (Groups, Vec<String>) {
        let mut faults = Faults::default();
        let Value::Object(map) = crate::document::parse(text).unwrap().value else {
            panic!("no mapping");
        };
        let mut found = Groups::new();
        groups(&map, &"h.yml".into(), &mut found, &mut faults);
        found.finish();
        (found, faults.into_list().into_iter().map(|d| d.what).collect())
    }

    #[test]
    fn nested_groups_are_read() {
        let text = "all:\n  vars: {x: 1}\n  hosts: {lone: }\n  children:\n    top:\n      children:\n        web:\n          \
                    hosts:\n            w[1:2]:2222: {a: true}\n          vars: {b: [1]}\n    empty:\nother:\n  hosts: w1\n";
        let (groups, faults) = read(text);
        assert_eq!(faults, [""; 0]);
        assert_eq!(groups.hosts_in("all"), ["lone", "w1", "w2"]);
        assert_eq!(groups.groups_of("w1"), ["all", "other", "top", "web"]);
        let vars = &groups.host("w2").unwrap().vars;
        assert_eq!(vars["a"].value, json!(true));
        assert_eq!(vars["ansible_port"].value, json!(2222));
        assert_eq!(vars["a"].place.at, "all.children.top.children.web.hosts.w[1:2]:2222.a");
        assert!(groups.group_vars("empty").is_some());
    }

    #[test]
    fn every_wrong_place_is_named() {
        let (_, faults) = read(
            "a: {hosts: [h], vars: 3, host: {x: }}\nb: 7\nc: {hosts: {h: 1, 'n[1:': }, children: {c: }}\nd: {hosts: {a p=hush: }}\n",
        );
        let all = faults.join("\n");
        for place in [
            "a.hosts",
            "a.vars",
            "a.host",
            "b",
            "c.hosts.h",
            "c.hosts.n[1:",
            "c.children.c",
            "d.hosts",
        ] {
            assert!(
                all.contains(&format!("h.yml: {place}: ")),
                "{place} is not named in:\n{all}"
            );
        }
        assert_eq!(faults.len(), 8);
        assert!(!all.contains("hush"));
    }
}
