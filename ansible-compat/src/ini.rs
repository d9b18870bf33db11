//! Reads an inventory in Ansible's INI form: sections of hosts, of children and of variables.
//!
//! Wrong lines are reported and skipped, so that all are found at once. Messages give the number of the line and never
//! its text, because a line may hold a password.

use crate::faults::{Faults, Place};
use crate::groups::{Groups, UNGROUPED, Var};
use crate::{literal, range, shlex};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The kind of a section's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hosts,
    Children,
    Vars,
}

/// Reads the text of `file` into `groups`.
pub fn parse(text: &str, file: &Rc<str>, groups: &mut Groups, faults: &mut Faults) {
    let mut reader = Reader {
        declared: groups.names().map(str::to_owned).collect(),
        groups,
        file,
        faults,
        wanted: BTreeMap::new(),
        pending: BTreeMap::new(),
    };
    let mut section = Some((UNGROUPED.to_owned(), Kind::Hosts));
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        let place = Place::new(file, format!("line {}", i + 1));
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[')
            && let Some(header) = header(line)
        {
            section = reader.section(header, &place);
            continue;
        }
        match &section {
            Some((group, Kind::Hosts)) => reader.host(group, line, &place),
            Some((group, Kind::Children)) => reader.child(group, line, &place),
            Some((group, Kind::Vars)) => reader.var(group, line, &place),
            // The wrong header is reported already, and the kind of its lines is unknown.
            None => {}
        }
    }
    reader.finish();
}

/// What stands between the brackets, or nothing where the line is a host such as `[a:c].ship`.
fn header(line: &str) -> Option<&str> {
    let (inside, after) = line.strip_prefix('[')?.split_once(']')?;
    let after = after.trim_start();
    (after.is_empty() || after.starts_with('#')).then_some(inside)
}

struct Reader<'a> {
    groups: &'a mut Groups,
    file: &'a Rc<str>,
    faults: &'a mut Faults,
    /// Groups with a section of hosts or of children.
    declared: BTreeSet<String>,
    /// Groups that must be declared somewhere, with the line and the reason.
    wanted: BTreeMap<String, (String, &'static str)>,
    /// Parents of groups that no line has named yet: such a child joins them when its own section begins.
    pending: BTreeMap<String, Vec<String>>,
}

impl Reader<'_> {
    fn section(&mut self, header: &str, place: &Place) -> Option<(String, Kind)> {
        let (group, kind) = match header.split_once(':') {
            None => (header, Kind::Hosts),
            Some((group, "hosts")) => (group, Kind::Hosts),
            Some((group, "children")) => (group, Kind::Children),
            Some((group, "vars")) => (group, Kind::Vars),
            Some((_, other)) => {
                let why = format!("a section is [group], [group:children] or [group:vars]; {other:?} is unknown");
                self.faults.value(place, why);
                return None;
            }
        };
        if group.is_empty() || group.contains(char::is_whitespace) {
            self.faults.value(place, "the name of a group must be without blanks");
            return None;
        }
        if kind == Kind::Vars {
            self.want(group, place, "has variables but is defined nowhere");
        } else {
            self.declared.insert(group.to_owned());
        }
        self.groups.group_mut(group);
        if kind != Kind::Vars {
            self.join_parents(group, place);
        }
        Some((group.to_owned(), kind))
    }

    /// Joins a group to the parents that named it before its section.
    fn join_parents(&mut self, group: &str, place: &Place) {
        for parent in self.pending.remove(group).unwrap_or_default() {
            self.add_child(&parent, group, place);
            self.join_parents(&parent, place);
        }
    }

    fn add_child(&mut self, parent: &str, child: &str, place: &Place) {
        if self.groups.add_child(parent, child).is_err() {
            let why = format!("the group {child} would contain itself");
            self.faults.value(place, why);
        }
    }

    fn want(&mut self, group: &str, place: &Place, why: &'static str) {
        let found = (place.at.clone(), why);
        self.wanted.entry(group.to_owned()).or_insert(found);
    }

    fn host(&mut self, group: &str, line: &str, place: &Place) {
        let words = match shlex::split(line) {
            Ok(words) => words,
            Err(error) => return self.faults.value(place, error),
        };
        let Some((pattern, pairs)) = words.split_first() else {
            return;
        };
        if pattern.contains('=') {
            return self.faults.value(place, "a host name must come before its variables");
        }
        let (names, port) = match range::expand(pattern) {
            Ok(expanded) => expanded,
            Err(error) => return self.faults.value(place, error),
        };
        let mut vars = vec![];
        for (i, pair) in pairs.iter().enumerate() {
            match pair.split_once('=') {
                Some((key, value)) if !key.is_empty() => vars.push((key, value)),
                _ => {
                    let why = format!("word {} is no key=value; a value with blanks needs quotes", i + 2);
                    self.faults.value(place, why);
                }
            }
        }
        for name in names {
            let host = self.groups.add_host(group, &name, port, place);
            host.extend(vars.iter().map(|(key, value)| variable(key, value, place)));
        }
    }

    fn child(&mut self, parent: &str, line: &str, place: &Place) {
        let child = line.split('#').next().unwrap_or(line).trim_end();
        if child.contains(|c: char| c.is_whitespace() || ":]=".contains(c)) {
            return self.faults.value(place, "one name of a group is expected on a line");
        }
        self.want(child, place, "is a child but is defined nowhere");
        if self.groups.group(child).is_some() {
            self.add_child(parent, child, place);
        } else {
            self.pending
                .entry(child.to_owned())
                .or_default()
                .push(parent.to_owned());
        }
    }

    fn var(&mut self, group: &str, line: &str, place: &Place) {
        match line.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                let (key, var) = variable(key.trim(), value.trim(), place);
                self.groups.group_mut(group).vars.insert(key, var);
            }
            _ => self
                .faults
                .value(place, "key=value is expected in a section of variables"),
        }
    }

    fn finish(self) {
        for (group, (at, why)) in self.wanted {
            if !self.declared.contains(&group) {
                let place = Place::new(self.file, at);
                self.faults.value(&place, format!("the group {group} {why}"));
            }
        }
    }
}

fn variable(key: &str, text: &str, place: &Place) -> (String, Var) {
    let var = Var {
        value: literal::value(text),
        place: Place::new(&place.file, format!("{}, {key}", place.at)),
    };
    (key.to_owned(), var)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> (Groups, Vec<String>) {
        let mut faults = Faults::default();
        let mut groups = Groups::new();
        parse(text, &"h.ini".into(), &mut groups, &mut faults);
        groups.finish();
        (groups, faults.into_list().into_iter().map(|d| d.what).collect())
    }

    #[test]
    fn sections_and_typed_values_are_read() {
        let text = "lone\n# c\n; c\n[web]\nw[1:2]:2222 a=1 b='x # y' c=\"[1, 2]\" # end\n\n[top:children] # c\nweb # c\n\n\
                    [top:vars]\nd = \"1\"\ne = x # y\nf=k=v\n";
        let (groups, faults) = read(text);
        assert_eq!(faults, [""; 0]);
        assert_eq!(groups.hosts_in("top"), ["w1", "w2"]);
        assert_eq!(groups.hosts_in(UNGROUPED), ["lone"]);
        let vars = &groups.host("w2").unwrap().vars;
        for (key, wanted) in [
            ("a", json!(1)),
            ("b", json!("x # y")),
            ("c", json!([1, 2])),
            ("ansible_port", json!(2222)),
        ] {
            assert_eq!(vars[key].value, wanted, "{key}");
        }
        assert_eq!(vars["a"].place.at, "line 5, a");
        let vars = groups.group_vars("top").unwrap();
        for (key, wanted) in [("d", "1"), ("e", "x # y"), ("f", "k=v")] {
            assert_eq!(vars[key].value, json!(wanted), "{key}");
        }
    }

    #[test]
    fn a_group_may_be_used_before_its_section() {
        let (groups, faults) = read("[a:vars]\nx=1\n[b:children]\na\n[a]\nh\n");
        assert_eq!(faults, [""; 0]);
        assert_eq!(groups.groups_of("h"), ["all", "b", "a"]);
    }

    #[test]
    fn every_wrong_line_is_named_and_none_repeated() {
        let text = "[web]\nw1 password=hush hush\nw2 'open\nw3[1:\npassword=hush\n[web:hush]\nhush\n[x:vars]\nhush\n\
                    [y:children]\nz\ny\na b\n[two words]\n";
        let (_, faults) = read(text);
        let all = faults.join("\n");
        for line in [2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 14] {
            assert!(
                all.contains(&format!("line {line}:")),
                "line {line} is not named in:\n{all}"
            );
        }
        assert_eq!(faults.len(), 11, "{all}");
        assert_eq!(
            all.matches("hush").count(),
            1,
            "only the unknown kind of section is repeated:\n{all}"
        );
    }
}
