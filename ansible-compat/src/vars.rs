//! The variables that hold for a host, merged from the inventory file and the files beside it.
//!
//! From low to high, as with Ansible: `[all:vars]`, the file's other groups, `group_vars/all`, `group_vars/` of the
//! other groups, the host's own line, `host_vars/`. Groups among themselves apply as [`Groups::groups_of`] orders
//! them. So a `group_vars/all.yml` beats a `[web:vars]`. A later value replaces an earlier one whole.

use crate::faults::{Faults, Place};
use crate::groups::{ALL, Groups, Vars};
use crate::tree::{Entry, FileTree};
use crate::yaml;
use landfall_core::explain::{Code, Diagnosis};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Endings of variable files; the empty one stands for none.
const ENDINGS: [&str; 4] = ["", "yml", "yaml", "json"];

/// Merges variables; each variable file is read once.
pub struct Resolver<'a> {
    groups: &'a Groups,
    tree: &'a dyn FileTree,
    dir: &'a Path,
    read: BTreeMap<PathBuf, Vars>,
}

impl<'a> Resolver<'a> {
    /// Starts with an inventory file whose directory is `dir`.
    pub fn new(groups: &'a Groups, tree: &'a dyn FileTree, dir: &'a Path) -> Self {
        Self {
            groups,
            tree,
            dir,
            read: BTreeMap::new(),
        }
    }

    /// Returns the variables that hold for a host.
    pub fn of(&mut self, host: &str, faults: &mut Faults) -> Vars {
        let groups = self.groups.groups_of(host);
        let mut vars = Vars::new();
        for group in &groups {
            vars.extend(self.groups.group_vars(group).cloned().unwrap_or_default());
        }
        for group in [ALL].iter().chain(groups.iter().filter(|g| **g != ALL)) {
            vars.extend(self.beside("group_vars", group, faults));
        }
        if let Some(host) = self.groups.host(host) {
            vars.extend(host.vars.clone());
        }
        vars.extend(self.beside("host_vars", host, faults));
        vars
    }

    /// Returns the variables that the files of a group or host set.
    fn beside(&mut self, kind: &str, name: &str, faults: &mut Faults) -> Vars {
        let base = self.dir.join(kind).join(name);
        // Such a name would leave the directory.
        if name.starts_with('/') {
            return Vars::new();
        }
        if let Some(vars) = self.read.get(&base) {
            return vars.clone();
        }
        let mut vars = Vars::new();
        for ending in ENDINGS {
            let path = if ending.is_empty() {
                base.clone()
            } else {
                self.dir.join(kind).join(format!("{name}.{ending}"))
            };
            // The first that exists is the only one, be it a file or a directory.
            if self.read_path(&path, &mut vars, faults) {
                break;
            }
        }
        self.read.insert(base, vars.clone());
        vars
    }

    /// Adds what stands at `path`, and says whether there is anything.
    fn read_path(&self, path: &Path, vars: &mut Vars, faults: &mut Faults) -> bool {
        match self.tree.entry(path) {
            Ok(None) => false,
            Ok(Some(Entry::File(text))) => {
                read_file(path, &text, vars, faults);
                true
            }
            Ok(Some(Entry::Directory(names))) => {
                self.read_directory(path, names, vars, faults);
                true
            }
            Err(error) => {
                let what = format!("{} cannot be read", path.display());
                faults.push(Diagnosis::new(Code::FileUnreadable, what).because(&error));
                true
            }
        }
    }

    /// Adds the files of a directory in the order of their names; hidden files and copies of editors are skipped.
    fn read_directory(&self, dir: &Path, mut names: Vec<String>, vars: &mut Vars, faults: &mut Faults) {
        names.sort();
        for name in names.iter().filter(|n| !n.starts_with('.') && !n.ends_with('~')) {
            let ending = Path::new(name).extension().map(|e| e.to_string_lossy());
            if ENDINGS.contains(&ending.as_deref().unwrap_or_default()) {
                self.read_path(&dir.join(name), vars, faults);
            }
        }
    }
}

fn read_file(path: &Path, text: &str, vars: &mut Vars, faults: &mut Faults) {
    let file: Rc<str> = path.display().to_string().into();
    match yaml::value(text, &file) {
        Ok(Value::Object(map)) => vars.extend(yaml::vars(&map, &file, "")),
        Ok(Value::Null) => {}
        Ok(_) => faults.value(&Place::new(&file, "top"), "a file of variables is a mapping"),
        Err(diagnosis) => faults.push(diagnosis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ini;
    use crate::tree::Files;

    /// Returns the value of `x` for the host h, and the number of problems.
    fn x(inventory: &str, files: &[(&str, &str)]) -> (String, usize) {
        let mut faults = Faults::default();
        let groups = ini::parse(inventory, &"i/h.ini".into(), &mut faults);
        let files = Files::of(files);
        let vars = Resolver::new(&groups, &files, Path::new("i")).of("h", &mut faults);
        let x = vars.get("x").map(|var| var.value.to_string());
        (x.unwrap_or_default(), faults.into_list().len())
    }

    const PLAIN: &str = "[web]\nh\n[top:children]\nweb\n";

    #[test]
    fn precedence_is_that_of_ansible() {
        // Each step adds one source of a higher rank than all before.
        let mut inventory = PLAIN.to_owned();
        let mut files: Vec<(&str, &str)> = vec![];
        for (n, (section, file)) in [
            (Some("[all:vars]\nx=0\n"), None),
            (Some("[top:vars]\nx=1\n"), None),
            (Some("[web:vars]\nx=2\n"), None),
            (None, Some(("i/group_vars/all.yml", "x: 3"))),
            (None, Some(("i/group_vars/top.yaml", "x: 4"))),
            (None, Some(("i/group_vars/web.json", "{\"x\": 5}"))),
            (Some("[web]\nh x=6\n"), None),
            (None, Some(("i/host_vars/h", "x: 7"))),
        ]
        .into_iter()
        .enumerate()
        {
            inventory.push_str(section.unwrap_or_default());
            files.extend(file);
            assert_eq!(x(&inventory, &files), (n.to_string(), 0), "step {n}");
        }
    }

    #[test]
    fn a_directory_hides_the_file_and_is_read_in_order() {
        let files = [
            ("i/group_vars/web/b.yml", "x: 2"),
            ("i/group_vars/web/a", "x: 1"),
            ("i/group_vars/web/b/c.yml", "x: 3"),
            ("i/group_vars/web/.z.yml", "x: 9"),
            ("i/group_vars/web/z.yml~", "x: 9"),
            ("i/group_vars/web/z.txt", "x: 9"),
            ("i/group_vars/web.yml", "x: 9"),
        ];
        assert_eq!(x(PLAIN, &files), ("2".to_owned(), 0));
        assert_eq!(x(PLAIN, &files[1..]), ("3".to_owned(), 0));
    }

    #[test]
    fn empty_files_are_nothing_and_others_problems() {
        assert_eq!(x(PLAIN, &[("i/group_vars/web", "---\n")]), (String::new(), 0));
        assert_eq!(x(PLAIN, &[("i/group_vars/web", "- 1")]).1, 1);
        assert_eq!(
            x(
                PLAIN,
                &[
                    ("i/group_vars/web", "a: ["),
                    ("i/host_vars/h.yml", "$ANSIBLE_VAULT;1.1")
                ]
            )
            .1,
            2
        );
    }
}
