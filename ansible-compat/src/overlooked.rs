//! Files that Ansible would read when it is run from another directory or with a playbook of another one, and that are not read here.

use crate::config::{self, Config};
use crate::convert::normal;
use crate::faults::Faults;
use crate::groups::Groups;
use crate::playbooks::{self, Folder};
use crate::tree::FileTree;
use crate::vault::Keys;
use crate::{Environment, Loaded, Request, settings, vars};
use landfall_core::explain::{Code, Diagnosis};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Files that one notice names, at most.
const NAMED: usize = 10;

/// Reports such files. One that changes a login is an error where it lies above the inventory or where a playbook usually is.
pub fn report(
    request: &Request,
    config: &Config,
    environment: &Environment,
    tree: &dyn FileTree,
    loaded: &Loaded,
    faults: &mut Faults,
) {
    let cwd = &environment.cwd;
    let inventories: Vec<PathBuf> = loaded.around.inventories.iter().map(|d| normal(&cwd.join(d))).collect();
    let read = |place: &PathBuf| inventories.contains(place);
    let mut known: BTreeSet<PathBuf> = BTreeSet::new();
    for dir in &inventories {
        if config.file.is_none()
            && let Some((path, sets)) = config::above(tree, dir)
        {
            let (what, next) = unread_login(&path, &sets);
            let next = format!("{next}; to go without it: ANSIBLE_CONFIG=/dev/null");
            faults.push(Diagnosis::new(Code::SpecValue, what).next(next));
        }
        let mut places: Vec<PathBuf> = vec![];
        for above in config::ancestors(tree, dir).skip(1) {
            places.extend([above.clone(), above.join("playbooks")]);
        }
        places.push(cwd.to_owned());
        places.retain(|place| !read(place));
        if request.playbook_dir.is_none() {
            unread_vars(dir, &places, tree, &loaded.groups, faults);
        }
        known.extend(places);
    }
    let home = environment.env.get("HOME").map(Path::new);
    let mut folders: BTreeMap<PathBuf, (Folder, &Path)> = BTreeMap::new();
    for dir in &inventories {
        let found = playbooks::folders(tree, &loaded.groups, dir, home).into_iter();
        let others = found.filter(|folder| !read(&folder.dir));
        folders.extend(others.map(|folder| (folder.dir.clone(), (folder, dir.as_path()))));
    }
    let sources: Vec<PathBuf> = request.sources.iter().map(|s| normal(&cwd.join(s))).collect();
    for (folder, inventory) in folders.values() {
        if config.file.is_none() {
            unread_config(&folder.dir, &sources, tree, faults);
        }
        if request.playbook_dir.is_none() && !known.contains(&folder.dir) {
            elsewhere(folder, inventory, tree, &loaded.groups, faults);
        }
    }
}

/// Says what an `ansible.cfg` that is not in force would set, and how to put it in force.
fn unread_login(path: &Path, sets: &[String]) -> (String, String) {
    let what = format!(
        "{} sets the login ({}) but is not in force here",
        path.display(),
        sets.join(", ")
    );
    let next = format!(
        "run landfall in {}, where Ansible finds it, or set ANSIBLE_CONFIG={}",
        path.parent().unwrap_or(Path::new(".")).display(),
        path.display()
    );
    (what, next)
}

/// Names the `ansible.cfg` beside a playbook, where Ansible may be run, when it sets a login and is not of another inventory.
fn unread_config(dir: &Path, sources: &[PathBuf], tree: &dyn FileTree, faults: &mut Faults) {
    let Some((path, Some(config))) = config::in_directory(tree, dir) else {
        return;
    };
    let is_ours = |named: &String| {
        let named = normal(Path::new(named));
        sources.iter().any(|source| source.starts_with(&named))
    };
    if !config.inventory.is_empty() && !config.inventory.iter().any(is_ours) {
        return;
    }
    if let Some(sets) = config.login_settings() {
        let (what, next) = unread_login(&path, &sets);
        faults.notice(format_args!("{what}; if it counts, {next}"));
    }
}

/// Names variables beside a playbook in a folder of another name. It may be that of the cluster or another one, so that nothing is refused.
fn elsewhere(folder: &Folder, inventory: &Path, tree: &dyn FileTree, groups: &Groups, faults: &mut Faults) {
    let mut files: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for found in beside_playbook(tree, &folder.dir, groups) {
        files.entry(found.file).or_default().push(found.name);
    }
    if files.is_empty() {
        return;
    }
    let mut named: Vec<String> = files
        .iter()
        .map(|(file, names)| format!("{} ({})", file.display(), names.join(", ")))
        .take(NAMED)
        .collect();
    if files.len() > NAMED {
        named.push(format!("{} more files", files.len() - NAMED));
    }
    faults.notice(format_args!(
        "variables beside the playbook {} are not read, and landfall would use or report these: {}; {}",
        folder.playbook.display(),
        named.join(", "),
        ways(&folder.dir, inventory)
    ));
}

/// Names files of variables above the inventory, in a folder `playbooks` there, or in the current directory. One that sets a login, a network or
/// the cluster is an error; one that sets what landfall would report is a notice.
fn unread_vars(dir: &Path, places: &[PathBuf], tree: &dyn FileTree, groups: &Groups, faults: &mut Faults) {
    let found: Vec<(&PathBuf, Beside)> = places
        .iter()
        .flat_map(|place| {
            beside_playbook(tree, place, groups)
                .into_iter()
                .map(move |found| (place, found))
        })
        .collect();
    if let Some((place, used)) = found.iter().find(|(_, found)| found.is_used) {
        let what = format!(
            "{} is beside a playbook, not beside the inventory, and is not read",
            used.file.display()
        );
        faults.push(Diagnosis::new(Code::SpecValue, what).next(ways(place, dir)));
    } else if let Some((place, told)) = found.first() {
        faults.notice(format_args!(
            "{} is beside a playbook and is not read, with settings that landfall would report; {}",
            told.file.display(),
            ways(place, dir)
        ));
    }
}

/// Says how to have the variables in `place` read, and how not to.
fn ways(place: &Path, inventory: &Path) -> String {
    format!(
        "say that it counts: --playbook-dir {}; or that it does not: --playbook-dir {}",
        place.display(),
        inventory.display()
    )
}

/// A variable beside a playbook that landfall would use or report.
struct Beside {
    file: PathBuf,
    name: String,
    /// It sets a login, a network or the cluster.
    is_used: bool,
}

/// Looks at the files of variables in `dir` for the groups and hosts of the inventory.
fn beside_playbook(tree: &dyn FileTree, dir: &Path, groups: &Groups) -> Vec<Beside> {
    let mut ignored = Faults::default();
    let none = vars::Around::default();
    let keys = Keys::default();
    let mut resolver = vars::Resolver::new(groups, tree, &none, &keys);
    let names = groups.names().map(|name| ("group_vars", name));
    let names = names.chain(groups.hosts().map(|(name, _)| ("host_vars", name)));
    // Most places have neither folder, and an inventory may have thousands of hosts.
    let [groups_there, hosts_there] =
        ["group_vars", "host_vars"].map(|kind| matches!(tree.entry(&dir.join(kind)), Ok(Some(_))));
    let there = names.filter(|(kind, _)| {
        if *kind == "group_vars" {
            groups_there
        } else {
            hosts_there
        }
    });
    let mut all = vec![];
    for (kind, name) in there {
        for (name, var) in resolver.beside(&dir.join(kind), name, &mut ignored).iter() {
            let is_used = is_used(name);
            if is_used || settings::is_told(name, &var.value) {
                all.push(Beside {
                    file: PathBuf::from(&*var.place.file),
                    name: name.clone(),
                    is_used,
                });
            }
        }
    }
    all
}

/// Says whether a variable sets a login, a network or the cluster.
fn is_used(name: &str) -> bool {
    settings::is_ansibles(name) && name != "ansible_python_interpreter"
        || ["ip", "access_ip", "landfall"].contains(&name)
        || settings::is_mapped(name)
}
