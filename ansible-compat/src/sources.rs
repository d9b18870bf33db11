//! Reads inventory sources in the order in which Ansible tries them: lists of hosts, directories, and files as YAML, then as INI.
//!
//! Sources that would have to be run (scripts, plugins) are errors.

use crate::faults::{Faults, Place};
use crate::groups::{Groups, UNGROUPED};
use crate::tree::{Entry, FileTree};
use crate::vault::{self, Keys};
use crate::{document, ini, range, yaml};
use landfall_core::explain::{Code, Diagnosis};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Endings that a directory of inventories may hold but that are no inventories: `INVENTORY_IGNORE_EXTS` of 2.19.
const IGNORED_ENDINGS: [&str; 12] = [
    ".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst", ".orig", ".cfg", ".retry",
];
/// Directories beside inventories that hold no inventories.
const IGNORED_NAMES: [&str; 3] = ["host_vars", "group_vars", "vars_plugins"];

/// Reads inventory sources into one set of groups.
pub struct Sources<'a> {
    /// The files.
    pub tree: &'a dyn FileTree,
    /// The keys of vaults.
    pub keys: &'a Keys,
    /// Where problems go.
    pub faults: &'a mut Faults,
    /// The groups that were read so far.
    pub groups: Groups,
    /// Directories of the sources, where variable files are looked for.
    pub dirs: Vec<PathBuf>,
}

impl Sources<'_> {
    /// Reads one value of `-i`.
    pub fn read(&mut self, source: &str) {
        let path = Path::new(source);
        match self.tree.entry(path) {
            Ok(None) if source.contains(',') => self.host_list(source),
            Ok(None) => self.unreadable(path, &std::io::Error::other("No such file or directory")),
            Ok(Some(Entry::Directory(names))) => {
                self.dirs.push(path.to_owned());
                self.directory(path, names);
            }
            Ok(Some(Entry::File(text))) => {
                self.dirs.push(path.parent().unwrap_or(Path::new("")).to_owned());
                self.file(path, text);
            }
            Err(error) => self.unreadable(path, &error),
        }
    }

    fn unreadable(&mut self, path: &Path, error: &std::io::Error) {
        let what = format!("{} cannot be read", path.display());
        let next = "name a cluster.yaml or an Ansible inventory with -i";
        self.faults
            .push(Diagnosis::new(Code::FileUnreadable, what).because(error).next(next));
    }

    /// Reads `a,b,` as names of hosts.
    fn host_list(&mut self, source: &str) {
        let place = Place::new(&"-i".into(), "list of hosts");
        for host in source.split(',').map(str::trim).filter(|h| !h.is_empty()) {
            match range::split_port(host) {
                Ok((name, port)) => drop(self.groups.add_host(UNGROUPED, name, port, &place)),
                Err(error) => self.faults.value(&place, error),
            }
        }
    }

    fn directory(&mut self, dir: &Path, mut names: Vec<String>) {
        names.sort();
        for name in names {
            let ignored = name.starts_with('.')
                || IGNORED_NAMES.contains(&name.as_str())
                || IGNORED_ENDINGS.iter().any(|ending| name.ends_with(ending));
            if ignored {
                continue;
            }
            let path = dir.join(name);
            match self.tree.entry(&path) {
                Ok(Some(Entry::Directory(names))) => self.directory(&path, names),
                Ok(Some(Entry::File(text))) => self.file(&path, text),
                Ok(None) => {}
                Err(error) => self.unreadable(&path, &error),
            }
        }
    }

    fn file(&mut self, path: &Path, mut text: String) {
        let file: Rc<str> = path.display().to_string().into();
        if text.trim_start().starts_with(vault::HEADER) {
            match self.keys.open(&text) {
                Ok(opened) => text = opened,
                Err(why) => {
                    return self
                        .faults
                        .push(Diagnosis::new(Code::SpecSyntax, format!("{file} {why}")));
                }
            }
        }
        let ending = path.extension().map(|e| e.to_string_lossy().into_owned());
        if let Some(why) = must_be_run(&text, ending.as_deref()) {
            let next = "write it out with Ansible and use the result: ansible-inventory -i";
            let next = format!("{next} {file} --list --export --yaml --output inventory.yml");
            let what = format!("{file} {why}");
            return self.faults.push(Diagnosis::new(Code::SpecSyntax, what).next(next));
        }
        let as_yaml = matches!(ending.as_deref(), None | Some("yml" | "yaml" | "json"));
        let parsed = as_yaml.then(|| document::parse(&text));
        match parsed {
            Some(Ok(document)) => match document.value {
                Value::Object(map) if map.get("plugin").is_some_and(|p| !p.is_null()) => {
                    let what = format!("{file} configures an inventory plugin, which landfall does not run");
                    let next = "write it out with Ansible and use the result: ansible-inventory -i";
                    let next = format!("{next} {file} --list --export --yaml --output inventory.yml");
                    self.faults.push(Diagnosis::new(Code::SpecSyntax, what).next(next));
                }
                Value::Object(map) if !map.is_empty() => {
                    for (key, line) in document.doubled {
                        self.faults.notice(format_args!(
                            "{file}: line {line}: the key {key} stands twice; the last one counts, as with Ansible"
                        ));
                    }
                    yaml::groups(&map, &file, &mut self.groups, self.faults);
                }
                // Ansible reads a document that is no mapping as INI.
                _ => ini::parse(&text, &file, &mut self.groups, self.faults),
            },
            Some(Err(why)) if !looks_like_ini(&text) => {
                let mut diagnosis = Diagnosis::new(Code::SpecSyntax, format!("{file} is no valid YAML"));
                diagnosis.causes.push(why);
                self.faults.push(diagnosis);
            }
            Some(Err(_)) | None => ini::parse(&text, &file, &mut self.groups, self.faults),
        }
    }
}

/// Says why a file cannot be read without running something, or in a form that is not read.
fn must_be_run(text: &str, ending: Option<&str>) -> Option<&'static str> {
    if text.starts_with("#!") {
        Some("is a script; landfall does not run inventory scripts")
    } else if ending == Some("toml") {
        Some("is TOML, which is not read")
    } else {
        None
    }
}

/// Says whether a text that is no YAML is meant as INI: it has a section, or no line that could be a key of YAML.
fn looks_like_ini(text: &str) -> bool {
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.split(" #").next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let section = lines.iter().any(|line| line.starts_with('[') && line.ends_with(']'));
    let key = |line: &&str| line.ends_with(':') || line.starts_with("---");
    match lines.first() {
        Some(first) if key(first) => false,
        _ => section || !lines.iter().any(|line| key(line) || line.contains(": ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Files;

    /// Reads files and returns the names of all hosts, and the problems.
    fn hosts(sources: &[&str], files: &[(&str, &str)]) -> (String, Vec<String>) {
        let mut faults = Faults::default();
        let mut found = Sources {
            tree: &Files::of(files),
            keys: &Keys::default(),
            faults: &mut faults,
            groups: Groups::new(),
            dirs: vec![],
        };
        for source in sources {
            found.read(source);
        }
        let names: Vec<_> = found.groups.hosts().map(|(name, _)| name.to_owned()).collect();
        (
            names.join(" "),
            faults.into_list().into_iter().map(|d| d.what).collect(),
        )
    }

    #[test]
    fn content_tells_the_form() {
        for (path, text) in [
            ("h.yml", "all: {hosts: {a: }}\n"),
            ("h.json", "{\"all\": {\"hosts\": {\"a\": {}}}}"),
            ("h", "all: # c\n  hosts: {a: }\n"),
            ("h", "---\nall: {hosts: a}\n"),
            ("h", "[g]\na x=1\n"),
            ("h", "# c\n\na ansible_host=x\n"),
            ("h.yml", "[g]\na ansible_host=10.0.0.1\n[g:vars]\nx=1\n"),
            ("h.ini", "[g]\na\n"),
            ("hosts.prod", "[g]\na\n"),
        ] {
            assert_eq!(
                hosts(&[path], &[(path, text)]),
                ("a".to_owned(), vec![]),
                "{path} {text:?}"
            );
        }
    }

    #[test]
    fn lists_directories_and_several_sources_are_read() {
        let files = [
            ("d/b.yml", "g: {hosts: {b: }}\n"),
            ("d/a", "[g]\na\n"),
            ("d/c/in", "c\n"),
            ("d/group_vars/all.yml", "x: 1\n"),
            ("d/ansible.cfg", "[defaults]\n"),
            ("d/.hidden", "no\n"),
            ("d/old~", "no\n"),
        ];
        assert_eq!(hosts(&["d", "x,y:2222,"], &files), ("a b c x y".to_owned(), vec![]));
    }

    #[test]
    fn unreadable_sources_are_refused() {
        for (text, path, wanted) in [
            ("#!/bin/sh\n", "h", "script"),
            ("", "h.toml", "TOML"),
            ("plugin: aws_ec2\n", "h.yml", "plugin"),
            ("all:\n  hosts: [\n", "h.yml", "no valid YAML"),
            (
                "$ANSIBLE_VAULT;1.1;AES256\n00\n",
                "h.ini",
                "h.ini is encrypted by ansible-vault",
            ),
        ] {
            let (_, faults) = hosts(&[path], &[(path, text)]);
            assert!(faults.len() == 1 && faults[0].contains(wanted), "{path}: {faults:?}");
        }
        assert!(hosts(&["no"], &[]).1[0].contains("no cannot be read"));
    }
}
