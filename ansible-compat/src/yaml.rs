//! Reads an inventory in Ansible's YAML form, and the YAML of variable files.
//!
//! A `!vault` value becomes `{"__ansible_vault": …}` and an `!unsafe` text `{"__ansible_unsafe": …}`, as in Ansible's
//! own JSON: so both survive in a plain JSON value, and files that `ansible-inventory` wrote read the same.

use crate::faults::{Faults, Place};
use crate::groups::{Groups, Var, Vars};
use crate::range;
use landfall_core::explain::{Code, Diagnosis};
use serde_json::{Map, Value};
use std::rc::Rc;

/// Key of a value that is encrypted.
pub const VAULT: &str = "__ansible_vault";
/// Key of a text that must not be taken for an expression.
pub const UNSAFE: &str = "__ansible_unsafe";

/// Parses YAML (or JSON) to a value; merge keys are applied. An empty text is null.
pub fn value(text: &str, file: &str) -> Result<Value, Diagnosis> {
    let syntax = |why: String| Diagnosis::new(Code::SpecSyntax, why);
    if text.trim_start().starts_with("$ANSIBLE_VAULT") {
        let why = format!("{file} is encrypted by ansible-vault, which cannot be read yet");
        return Err(syntax(why).next(format!(
            "put what landfall needs in plain text, or: ansible-vault decrypt {file}"
        )));
    }
    let invalid = |error| syntax(format!("{file} is no valid YAML")).because(&error);
    let mut value: serde_yaml::Value = serde_yaml::from_str(text).map_err(invalid)?;
    value.apply_merge().map_err(invalid)?;
    json(value).map_err(|why| syntax(format!("{file}: {why}")))
}

fn json(value: serde_yaml::Value) -> Result<Value, String> {
    use serde_yaml::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => Value::Bool(flag),
        Yaml::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(n), _) => Value::from(n),
            (None, Some(n)) => Value::from(n),
            (None, None) => number.as_f64().map_or(Value::Null, Value::from),
        },
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(json).collect::<Result<_, _>>()?),
        Yaml::Mapping(pairs) => {
            let mut map = Map::new();
            for (key, value) in pairs {
                map.insert(key_text(key)?, json(value)?);
            }
            Value::Object(map)
        }
        Yaml::Tagged(tagged) => {
            let key = match tagged.tag.to_string().as_str() {
                "!vault" | "!vault-encrypted" => VAULT,
                "!unsafe" => UNSAFE,
                other => return Err(format!("the tag {other} is unknown; !vault and !unsafe are known")),
            };
            Value::Object(Map::from_iter([(key.to_owned(), json(tagged.value)?)]))
        }
    })
}

fn key_text(key: serde_yaml::Value) -> Result<String, String> {
    match json(key)? {
        Value::String(text) => Ok(text),
        Value::Array(_) | Value::Object(_) => Err("a key must be text".to_owned()),
        other => Ok(other.to_string()),
    }
}

/// Reads the groups from the value of an inventory file.
pub fn groups(value: &Map<String, Value>, file: &Rc<str>, faults: &mut Faults) -> Groups {
    let mut reader = Reader {
        groups: Groups::new(),
        file,
        faults,
    };
    for (name, body) in value {
        reader.group(name, body, name);
    }
    reader.groups
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
    groups: Groups,
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
        let Value::Object(map) = value(text, "h.yml").unwrap() else {
            panic!("no mapping");
        };
        let groups = groups(&map, &"h.yml".into(), &mut faults);
        (groups, faults.into_list().into_iter().map(|d| d.what).collect())
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

    #[test]
    fn tags_and_merge_keys_are_understood() {
        let text = "a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  00\nb: !unsafe '{{x}}'\nc: &c {x: 1}\nd: {<<: *c, y: 2}\n1: -3\n";
        let value = value(text, "v.yml").unwrap();
        assert!(value["a"][VAULT].is_string());
        assert_eq!(value["b"], json!({UNSAFE: "{{x}}"}));
        assert_eq!(value["d"], json!({"y": 2, "x": 1}));
        assert_eq!(value["1"], json!(-3));
    }

    #[test]
    fn what_is_no_plain_yaml_is_refused() {
        for (text, wanted) in [
            ("$ANSIBLE_VAULT;1.1;AES256\n00\n", "encrypted"),
            ("a: [", "no valid YAML"),
            ("a: 1\na: 2\n", "no valid YAML"),
            ("a: !python x", "!python is unknown"),
        ] {
            let diagnosis = value(text, "v.yml").unwrap_err();
            assert!(diagnosis.what.contains(wanted), "{text}: {diagnosis}");
        }
    }
}
