//! The variables that hold for a host, merged from the inventory and the files beside it and beside a playbook.
//!
//! From low to high, as with Ansible: `[all:vars]`, the file's other groups, `group_vars/all`, `group_vars/` of the
//! other groups, the host's own line, `host_vars/`, `-e`. Groups among themselves apply as [`Groups::groups_of`] orders
//! them. So a `group_vars/all.yml` beats a `[web:vars]`. A later value replaces an earlier one whole.

use crate::document;
use crate::faults::{Faults, Place};
use crate::groups::{ALL, Groups, PRIORITY, Var, Vars};
use crate::tree::{Entry, FileTree};
use crate::vault::{self, Keys, Sealed};
use crate::yaml;
use landfall_core::explain::{Code, Diagnosis};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Endings of variable files; the empty one stands for none.
const ENDINGS: [&str; 4] = ["", "yml", "yaml", "json"];

/// Directories that may hold `group_vars/` and `host_vars/`, and what beats all files.
#[derive(Debug, Default)]
pub struct Around {
    /// Directories of the inventory sources, in their order.
    pub inventories: Vec<PathBuf>,
    /// Directory of a playbook.
    pub playbook: Option<PathBuf>,
    /// Variables of `-e`.
    pub extra: Vars,
}

/// Merges variables; each variable file is read once.
pub struct Resolver<'a> {
    groups: &'a Groups,
    tree: &'a dyn FileTree,
    around: &'a Around,
    keys: &'a Keys,
    read: BTreeMap<PathBuf, Rc<Vars>>,
    /// Encrypted files that were met and could not be opened for want of a password.
    pub sealed: Vec<String>,
}

impl<'a> Resolver<'a> {
    /// Starts with an inventory whose reading is finished.
    pub fn new(groups: &'a Groups, tree: &'a dyn FileTree, around: &'a Around, keys: &'a Keys) -> Self {
        Self {
            groups,
            tree,
            around,
            keys,
            read: BTreeMap::new(),
            sealed: vec![],
        }
    }

    /// Returns the variables that hold for a host.
    pub fn of(&mut self, host: &str, faults: &mut Faults) -> Vars {
        let groups = self.groups.groups_of(host);
        let others: Vec<&str> = groups.iter().copied().filter(|g| *g != ALL).collect();
        let mut vars = Vars::new();
        for group in &groups {
            vars.extend(self.groups.group_vars(group).cloned().unwrap_or_default());
        }
        vars.remove(PRIORITY);
        self.add_files(&mut vars, "group_vars", &[ALL], faults);
        self.add_files(&mut vars, "group_vars", &others, faults);
        vars.extend(self.own(host, faults));
        vars.extend(self.around.extra.clone());
        vars
    }

    /// Returns one of the variables that hold for a host, without merging the others.
    pub fn one(&mut self, host: &str, variable: &str, faults: &mut Faults) -> Option<Var> {
        if let Some(var) = self.around.extra.get(variable) {
            return Some(var.clone());
        }
        let groups = self.groups.groups_of(host);
        let others: Vec<&str> = groups.iter().copied().filter(|g| *g != ALL).collect();
        let own = self.groups.host(host).and_then(|h| h.vars.get(variable)).cloned();
        let of_groups = || {
            groups
                .iter()
                .rev()
                .find_map(|group| self.groups.group_vars(group)?.get(variable))
                .cloned()
        };
        let mut in_files = |kind: &str, names: &[&str]| self.in_files(kind, names, variable, faults);
        in_files("host_vars", &[host])
            .or(own)
            .or_else(|| in_files("group_vars", &others))
            .or_else(|| in_files("group_vars", &[ALL]))
            .or_else(of_groups)
    }

    /// Returns what the last of the files says that set a variable for these groups or hosts.
    fn in_files(&mut self, kind: &str, names: &[&str], variable: &str, faults: &mut Faults) -> Option<Var> {
        let around = self.around;
        let mut last = None;
        for dir in around.inventories.iter().chain(&around.playbook) {
            for name in names {
                last = self
                    .beside(&dir.join(kind), name, faults)
                    .get(variable)
                    .cloned()
                    .or(last);
            }
        }
        last
    }

    /// Returns the variables that are set for a host itself.
    pub fn own(&mut self, host: &str, faults: &mut Faults) -> Vars {
        let mut vars = self.groups.host(host).map(|h| h.vars.clone()).unwrap_or_default();
        self.add_files(&mut vars, "host_vars", &[host], faults);
        vars
    }

    /// Returns the variables that are set for a group itself.
    pub fn of_group(&mut self, group: &str, faults: &mut Faults) -> Vars {
        let mut vars = self.groups.group_vars(group).cloned().unwrap_or_default();
        vars.remove(PRIORITY);
        self.add_files(&mut vars, "group_vars", &[group], faults);
        vars
    }

    /// Adds what files set for these groups or hosts: beside the inventories, then beside the playbook.
    fn add_files(&mut self, vars: &mut Vars, kind: &str, names: &[&str], faults: &mut Faults) {
        let around = self.around;
        for dir in around.inventories.iter().chain(&around.playbook) {
            for name in names {
                let found = self.beside(&dir.join(kind), name, faults);
                vars.extend(found.iter().map(|(name, var)| (name.clone(), var.clone())));
            }
        }
    }

    /// Returns the variables that the files of a group or host set in one directory.
    pub fn beside(&mut self, dir: &Path, name: &str, faults: &mut Faults) -> Rc<Vars> {
        // Such a name would leave the directory.
        if name.starts_with('/') {
            return Rc::default();
        }
        let base = dir.join(name);
        if let Some(vars) = self.read.get(&base) {
            return Rc::clone(vars);
        }
        let mut vars = Vars::new();
        for ending in ENDINGS {
            let path = if ending.is_empty() {
                base.clone()
            } else {
                dir.join(format!("{name}.{ending}"))
            };
            // The first that exists is the only one, be it a file or a directory.
            if self.read_path(&path, &mut vars, faults) {
                break;
            }
        }
        let vars = Rc::new(vars);
        self.read.insert(base, Rc::clone(&vars));
        vars
    }

    /// Adds what stands at `path`, and says whether there is anything.
    fn read_path(&mut self, path: &Path, vars: &mut Vars, faults: &mut Faults) -> bool {
        match self.tree.entry(path) {
            Ok(None) => false,
            Ok(Some(Entry::File(text))) => {
                self.read_file(path, text, vars, faults);
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

    fn read_file(&mut self, path: &Path, mut text: String, vars: &mut Vars, faults: &mut Faults) {
        let file: Rc<str> = path.display().to_string().into();
        if text.trim_start().starts_with(vault::HEADER) {
            text = match self.keys.open(&text) {
                Ok(opened) => opened,
                Err(Sealed::NoPassword) => {
                    faults.notice(format_args!(
                        "{file} is encrypted by ansible-vault and was not opened: what it sets is not known; to open it \
                         give --vault-password-file or --ask-vault-pass"
                    ));
                    self.sealed.push(file.to_string());
                    return;
                }
                Err(why) => return faults.push(Diagnosis::new(Code::SpecSyntax, format!("{file} {why}"))),
            };
        }
        match read_mapping(&text, &file, faults) {
            Ok(Some(map)) => vars.extend(yaml::vars(&map, &file, "")),
            Ok(None) => {}
            Err(diagnosis) => faults.push(diagnosis),
        }
    }

    /// Adds the files of a directory in the order of their names; hidden files and copies of editors are skipped.
    fn read_directory(&mut self, dir: &Path, mut names: Vec<String>, vars: &mut Vars, faults: &mut Faults) {
        names.sort();
        for name in names.iter().filter(|n| !n.starts_with('.') && !n.ends_with('~')) {
            let ending = Path::new(name).extension().map(|e| e.to_string_lossy());
            if ENDINGS.contains(&ending.as_deref().unwrap_or_default()) {
                self.read_path(&dir.join(name), vars, faults);
            }
        }
    }
}

/// Reads a text of variables; nothing is returned where it is empty.
pub fn read_mapping(
    text: &str,
    file: &Rc<str>,
    faults: &mut Faults,
) -> Result<Option<serde_json::Map<String, Value>>, Diagnosis> {
    let document = document::parse(text).map_err(|why| {
        let mut diagnosis = Diagnosis::new(Code::SpecSyntax, format!("{file} is no valid YAML"));
        diagnosis.causes.push(why);
        diagnosis
    })?;
    for (key, line) in document.doubled {
        faults.notice(format_args!(
            "{file}: line {line}: the key {key} stands twice; the last one counts, as with Ansible"
        ));
    }
    match document.value {
        Value::Object(map) => Ok(Some(map)),
        Value::Null => Ok(None),
        _ => {
            faults.value(&Place::new(file, "top"), "a file of variables is a mapping");
            Ok(None)
        }
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
        let mut groups = Groups::new();
        ini::parse(inventory, &"i/h.ini".into(), &mut groups, &mut faults);
        groups.finish();
        let files = Files::of(files);
        let around = Around {
            inventories: vec!["i".into()],
            playbook: Some("p".into()),
            extra: Vars::new(),
        };
        let keys = Keys::default();
        let vars = Resolver::new(&groups, &files, &around, &keys).of("h", &mut faults);
        let x = vars.get("x").map(|var| var.value.to_string());
        let one = Resolver::new(&groups, &files, &around, &keys).one("h", "x", &mut Faults::default());
        assert_eq!(one.map(|var| var.value.to_string()), x, "asked for alone");
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
            (None, Some(("p/group_vars/web.yml", "x: 6"))),
            (Some("[web]\nh x=7\n"), None),
            (None, Some(("i/host_vars/h", "x: 8"))),
            (None, Some(("p/host_vars/h", "x: 9"))),
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
                    ("i/host_vars/h.yml", "$ANSIBLE_VAULT;1.1;AES256\n00")
                ]
            )
            .1,
            1,
            "an encrypted file is a notice"
        );
    }
}
