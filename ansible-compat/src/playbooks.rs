//! Finds the folders of a project that hold playbooks. Ansible reads `group_vars/` and `host_vars/` beside the playbook that it runs, and no
//! inventory says which one that is.

use crate::config;
use crate::document;
use crate::groups::Groups;
use crate::patterns;
use crate::tree::FileTree;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Directories that are listed at most: the first levels of a project have fewer, and a directory of many projects may have any number.
const DIRECTORIES: usize = 300;
/// Names of one directory that are looked at, at most.
const NAMES: usize = 1_000;
/// Files of one directory that are read to find a play, at most.
const FILES: usize = 50;
/// Size of a file that is read to find a play, at most: playbooks are written by hand.
const BYTES: u64 = 1 << 20;
/// Folders that are found at most: more of them are no help to a reader.
const FOLDERS: usize = 20;
/// Levels below the directories from the inventory to the root of its project.
const LEVELS: usize = 2;
/// Folders whose playbooks make no cluster of the user: tests, and parts of a playbook.
const SKIPPED: [&str; 9] = [
    "collections",
    "group_vars",
    "host_vars",
    "molecule",
    "node_modules",
    "roles",
    "test",
    "tests",
    "venv",
];

/// A folder with a playbook of the inventory's machines, and files beside it that Ansible would read.
#[derive(Debug, PartialEq, Eq)]
pub struct Folder {
    /// The folder.
    pub dir: PathBuf,
    /// A playbook in it.
    pub playbook: PathBuf,
}

/// Returns the folders with a playbook of these machines beside `group_vars/`, `host_vars/` or `ansible.cfg` in the project of the inventory in
/// `dir`, in the order of their paths. Left out are folders above the inventory, and folders with an inventory of their own: their variables are
/// of its machines.
pub fn folders(tree: &dyn FileTree, groups: &Groups, dir: &Path, home: Option<&Path>) -> Vec<Folder> {
    let (above, levels) = project(tree, dir, home);
    let mut search = Search {
        tree,
        groups,
        chosen: BTreeMap::new(),
        seen: above.iter().cloned().collect(),
        found: vec![],
    };
    for dir in &above {
        search.below(dir, levels);
    }
    search.found.sort_by(|a, b| a.dir.cmp(&b.dir));
    search.found
}

/// Returns the directories from that of an inventory up to the root of its project, and how many levels below them belong to it. The root has
/// `.git`, or else is the highest with an `ansible.cfg`. Without one only folders right below the inventory are known to belong to it. Home
/// directories and `/` hold more than one project.
fn project(tree: &dyn FileTree, dir: &Path, home: Option<&Path>) -> (Vec<PathBuf>, usize) {
    let is_project = |dir: &PathBuf| Some(dir.as_path()) != home && dir.parent().is_some();
    let mut above: Vec<PathBuf> = config::ancestors(tree, dir).take_while(is_project).collect();
    let has = |dir: &PathBuf, name: &str| matches!(tree.entry(&dir.join(name)), Ok(Some(_)));
    let root = above.iter().position(|dir| has(dir, ".git"));
    match root.or_else(|| above.iter().rposition(|dir| has(dir, "ansible.cfg"))) {
        Some(root) => {
            above.truncate(root + 1);
            (above, LEVELS)
        }
        None => {
            above.truncate(1);
            (above, 1)
        }
    }
}

struct Search<'a> {
    tree: &'a dyn FileTree,
    groups: &'a Groups,
    /// Whether the parts of patterns that were met choose a machine: an inventory may have thousands.
    chosen: BTreeMap<String, bool>,
    seen: BTreeSet<PathBuf>,
    found: Vec<Folder>,
}

impl Search<'_> {
    /// Looks at the folders below `dir`.
    fn below(&mut self, dir: &Path, levels: usize) {
        let mut names = self.tree.names(dir, NAMES).unwrap_or_default();
        names.sort();
        for name in names {
            if self.seen.len() >= DIRECTORIES || self.found.len() >= FOLDERS {
                return;
            }
            let is_other = name.starts_with('.') || is_inventory(&name) || SKIPPED.contains(&name.as_str());
            let dir = dir.join(name);
            if is_other || self.seen.contains(&dir) {
                continue;
            }
            let Some(names) = self.tree.names(&dir, NAMES) else {
                continue;
            };
            self.seen.insert(dir.clone());
            if names
                .iter()
                .any(|name| is_inventory(name) && !self.is_playbook(&dir.join(name)))
            {
                continue;
            }
            self.look(&dir, names);
            if levels > 1 {
                self.below(&dir, levels - 1);
            }
        }
    }

    fn look(&mut self, dir: &Path, mut names: Vec<String>) {
        let beside = ["group_vars", "host_vars", "ansible.cfg"];
        if !names.iter().any(|name| beside.contains(&name.as_str())) {
            return;
        }
        names.sort();
        let files = names.iter().filter(|name| is_yaml(name)).take(FILES);
        let playbook = files.map(|name| dir.join(name)).find(|path| self.is_playbook(path));
        self.found.extend(playbook.map(|playbook| Folder {
            dir: dir.to_owned(),
            playbook,
        }));
    }

    /// Says whether a file is a list of plays of which one is for machines of the inventory, or takes others in.
    fn is_playbook(&mut self, path: &Path) -> bool {
        plays(self.tree, path).iter().any(|hosts| match hosts {
            Value::String(pattern) => self.chooses(pattern),
            Value::Array(patterns) => patterns.iter().filter_map(Value::as_str).any(|p| self.chooses(p)),
            _ => true,
        })
    }

    /// Says whether a part of a pattern chooses a machine. Ansible passes over the parts that choose none, and values of expressions are not known.
    fn chooses(&mut self, pattern: &str) -> bool {
        let parts = patterns::split(pattern).into_iter();
        let mut names = parts.filter(|part| !part.starts_with(['!', '@']));
        names.any(|part| {
            let name = part.trim_start_matches('&');
            let choose = || patterns::select(self.groups, name, self.tree).is_ok_and(|chosen| !chosen.is_empty());
            part.contains("{{") || *self.chosen.entry(name.to_owned()).or_insert_with(choose)
        })
    }
}

/// Returns the `hosts` of the plays in a file, null for plays of other files. Lists of tasks have none.
fn plays(tree: &dyn FileTree, path: &Path) -> Vec<Value> {
    let text = tree.small_file(path, BYTES).unwrap_or_default();
    // Most files are no playbooks, and this is quicker than to parse them.
    if !text.contains("hosts") && !text.contains("import_playbook") {
        return vec![];
    }
    let Ok(Value::Array(items)) = document::parse(&text).map(|d| d.value) else {
        return vec![];
    };
    let hosts = |item: Value| {
        let Value::Object(mut map) = item else { return None };
        let others = map.keys().any(|key| key.ends_with("import_playbook"));
        map.remove("hosts").or(others.then_some(Value::Null))
    };
    items.into_iter().filter_map(hosts).collect()
}

fn is_yaml(name: &str) -> bool {
    name.ends_with(".yml") || name.ends_with(".yaml")
}

/// Says whether a name is one that inventories have: `hosts`, `hosts.ini`, `inventory/`, `prod.ini` …
fn is_inventory(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("invent") || name.starts_with("hosts") || name.ends_with(".ini") || name.ends_with(".inv")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Place;
    use crate::tree::Files;

    const PLAY: &str = "- hosts: all\n";

    fn found(files: &[(&str, &str)], dir: &str) -> Vec<String> {
        let tree = Files::of(files);
        let mut groups = Groups::new();
        groups.add_host("masters", "a", None, &Place::new(&"h".into(), "line 1"));
        groups.finish();
        let found = folders(&tree, &groups, Path::new(dir), Some(Path::new("/home/me")));
        found.iter().map(|f| f.playbook.display().to_string()).collect()
    }

    #[test]
    fn a_search_ends_at_the_project() {
        let beside = [
            ("/p/a/x/group_vars/all", ""),
            ("/p/a/x/x.yml", PLAY),
            ("/p/i/hosts", ""),
        ];
        let mut files = beside.to_vec();
        assert_eq!(found(&files, "/p/i"), [""; 0], "no root is known");
        for root in ["/p/.git/HEAD", "/p/ansible.cfg", "/p/.git"] {
            files.push((root, ""));
            assert_eq!(found(&files, "/p/i"), ["/p/a/x/x.yml"], "{root}");
            files.pop();
        }
        files.push(("/p/i/ansible.cfg", ""));
        assert_eq!(found(&files, "/p/i"), [""; 0], "the root is below");
        let home = [
            ("/home/me/.git/HEAD", ""),
            ("/home/me/hosts", ""),
            ("/home/me/x/group_vars/all", ""),
            ("/home/me/x/x.yml", PLAY),
        ];
        assert_eq!(found(&home, "/home/me"), [""; 0], "a home directory is no project");
        let no_root = [("/p/hosts", ""), ("/p/x/group_vars/all", ""), ("/p/x/x.yml", PLAY)];
        assert_eq!(found(&no_root, "/p"), ["/p/x/x.yml"], "right below the inventory");
    }

    #[test]
    fn a_search_is_bounded() {
        let mut files: Vec<(String, &str)> = vec![("/p/.git/HEAD".into(), ""), ("/p/z/group_vars/all".into(), "")];
        files.push(("/p/z/z.yml".into(), PLAY));
        for n in 0..DIRECTORIES - 2 {
            files.push((format!("/p/d{n}/f"), ""));
        }
        let read = |files: &[(String, &str)]| {
            let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
            found(&files, "/p").len()
        };
        assert_eq!(read(&files), 1, "the last directory that is listed");
        files.push(("/p/more/f".into(), ""));
        assert_eq!(read(&files), 0);
        for n in 0..=FOLDERS {
            files.push((format!("/p/d{n}/host_vars/a"), ""));
            files.push((format!("/p/d{n}/x.yml"), PLAY));
        }
        assert_eq!(read(&files), FOLDERS);
    }

    #[test]
    fn playbooks_are_lists_of_plays_for_machines_of_the_inventory() {
        for (text, wanted) in [
            (PLAY, 1),
            ("- import_playbook: a.yml\n", 1),
            ("- ansible.builtin.import_playbook: a.yml\n", 1),
            ("- hosts: localhost\n- hosts: [web, 'etcd:masters[0:1]']\n", 1),
            ("- hosts: '{{ target }}'\n", 1),
            ("- hosts: localhost\n", 0),
            ("- hosts: web:!masters\n", 0),
            ("- name: x\n  debug: {msg: hosts}\n", 0),
            ("all: {hosts: {a: }}\n", 0),
            ("hosts: [\n", 0),
        ] {
            let files = [("/p/.git/HEAD", ""), ("/p/x/host_vars/a", ""), ("/p/x/x.yaml", text)];
            assert_eq!(found(&files, "/p").len(), wanted, "{text}");
        }
        let files = [("/p/.git/HEAD", ""), ("/p/x/host_vars/a", ""), ("/p/x/hosts.yml", PLAY)];
        assert_eq!(
            found(&files, "/p"),
            ["/p/x/hosts.yml"],
            "a playbook with the name of an inventory"
        );
    }
}
