//! Reads `ansible.cfg`, where Ansible finds it, and the environment variables that override it.
//!
//! Its login settings become [`Vars`] under names of the form `section.key`, which no variable of an inventory has. In
//! `connect` all variables override them.

use crate::faults::Place;
use crate::groups::{Var, Vars};
use crate::tree::{Entry, FileTree};
use landfall_core::explain::{Code, Diagnosis};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Keys of login settings.
const LOGIN: [&str; 14] = [
    "defaults.remote_user",
    "defaults.private_key_file",
    "defaults.remote_port",
    "defaults.transport",
    "privilege_escalation.become",
    "privilege_escalation.become_method",
    "privilege_escalation.become_user",
    "privilege_escalation.become_exe",
    "privilege_escalation.become_flags",
    "ssh_connection.ssh_args",
    "ssh_connection.ssh_common_args",
    "ssh_connection.ssh_extra_args",
    "ssh_connection.ssh_executable",
    "paramiko_connection.proxy_command",
];
/// Environment variables of the same meaning.
const ENVIRONMENT: [&str; 12] = [
    "ANSIBLE_REMOTE_USER",
    "ANSIBLE_PRIVATE_KEY_FILE",
    "ANSIBLE_REMOTE_PORT",
    "ANSIBLE_TRANSPORT",
    "ANSIBLE_BECOME_METHOD",
    "ANSIBLE_BECOME_USER",
    "ANSIBLE_BECOME_EXE",
    "ANSIBLE_BECOME_FLAGS",
    "ANSIBLE_SSH_ARGS",
    "ANSIBLE_SSH_COMMON_ARGS",
    "ANSIBLE_SSH_EXTRA_ARGS",
    "ANSIBLE_PARAMIKO_PROXY_COMMAND",
];

/// Ansible's settings.
#[derive(Debug, Default)]
pub struct Config {
    /// The file in force, if there is one.
    pub file: Option<PathBuf>,
    /// Login settings, which variables override.
    pub login: Vars,
    /// Inventories, for a call without `-i`.
    pub inventory: Vec<String>,
    /// Files with passwords of vaults, each with its id where one is named.
    pub vaults: Vec<(Option<String>, PathBuf)>,
    /// Asks for the password of the login.
    pub ask_pass: bool,
    /// Asks for the password of sudo.
    pub ask_become_pass: bool,
    /// The file that says `hash_behaviour = merge`: Ansible merges mappings then, and this replaces them whole.
    pub merges: Option<String>,
    /// Notices for the user.
    pub notices: Vec<String>,
}

/// What is said where Ansible would not check the keys of hosts.
pub const HOST_KEYS: &str = "landfall always checks host keys (--accept-new-host-keys takes new ones)";

impl Config {
    /// Returns the keys of settings that decide a login, or nothing where none does; options that only tune ssh do not.
    pub fn login_settings(&self) -> Option<Vec<String>> {
        let keys = self.login.keys().filter(|k| !k.starts_with("ssh_connection."));
        let sets: Vec<String> = keys.cloned().collect();
        let is_jump = |var: &Var| var.value.to_string().to_ascii_lowercase().contains("proxy");
        (!sets.is_empty() || self.login.values().any(is_jump)).then_some(sets)
    }

    /// Returns the error for an inventory that would mean something else with merged mappings.
    pub fn merge_error(&self) -> Option<Diagnosis> {
        let file = self.merges.as_ref()?;
        let what = format!("{file}: [defaults] hash_behaviour = merge is not supported: mappings are replaced whole");
        let next = "write the merged mapping out, or set another ANSIBLE_CONFIG";
        Some(Diagnosis::new(Code::SpecValue, what).next(next))
    }
}

/// Finds and reads Ansible's settings: `ANSIBLE_CONFIG`, the current directory, the home directory, `/etc/ansible`.
pub fn find(tree: &dyn FileTree, env: &BTreeMap<String, String>, cwd: &Path) -> Result<Config, Diagnosis> {
    let home = env.get("HOME").map(|home| Path::new(home).join(".ansible.cfg"));
    let named = env.get("ANSIBLE_CONFIG").map(PathBuf::from);
    let named = named.map(|path| if path.is_dir() { path.join("ansible.cfg") } else { path });
    let places = [
        named,
        Some(cwd.join("ansible.cfg")),
        home,
        Some("/etc/ansible/ansible.cfg".into()),
    ];
    let mut config = Config::default();
    for path in places.into_iter().flatten() {
        if let Ok(Some(Entry::File(text))) = tree.entry(&path) {
            config.read(&text, &path, cwd)?;
            config.file = Some(path);
            break;
        }
    }
    config.environment(env);
    Ok(config)
}

/// Names the first `ansible.cfg` beside or above `dir` that sets a login, up to the root of the project.
pub fn above(tree: &dyn FileTree, dir: &Path) -> Option<(PathBuf, Vec<String>)> {
    let (path, config) = ancestors(tree, dir).find_map(|dir| in_directory(tree, &dir))?;
    Some((path, config?.login_settings()?))
}

/// Reads the `ansible.cfg` of a directory; there are no settings where it cannot be understood.
pub fn in_directory(tree: &dyn FileTree, dir: &Path) -> Option<(PathBuf, Option<Config>)> {
    let path = dir.join("ansible.cfg");
    let Ok(Some(Entry::File(text))) = tree.entry(&path) else {
        return None;
    };
    let mut config = Config::default();
    let read = config.read(&text, &path, dir);
    Some((path, read.is_ok().then_some(config)))
}

/// Returns a directory and those above it that may belong to the same project: four at most, none above a git checkout.
pub fn ancestors(tree: &dyn FileTree, dir: &Path) -> impl Iterator<Item = PathBuf> {
    let mut found: Vec<PathBuf> = vec![];
    for dir in dir.ancestors().take(4) {
        found.push(dir.to_owned());
        if matches!(tree.entry(&dir.join(".git")), Ok(Some(_))) {
            break;
        }
    }
    found.into_iter()
}

impl Config {
    fn read(&mut self, text: &str, path: &Path, cwd: &Path) -> Result<(), Diagnosis> {
        let file: Rc<str> = path.display().to_string().into();
        let dir = path.parent().unwrap_or(Path::new(""));
        let set = settings(text);
        let truth = |key: &str| {
            set.get(key)
                .is_some_and(|v| ["true", "yes", "on", "1", "y", "t"].contains(&v.to_ascii_lowercase().as_str()))
        };
        let full = |name: &str| {
            let path = landfall_core::spec::parse::expand_home(name);
            dir.join(path)
        };
        if set.get("defaults.hash_behaviour").is_some_and(|v| v == "merge") {
            self.merges = Some(file.to_string());
        }
        for key in LOGIN {
            let Some(value) = set.get(key) else { continue };
            // A false one only leaves it to the play, and the installer needs root.
            if key == "privilege_escalation.become" && !truth(key) {
                continue;
            }
            // Ansible takes a path here from the file's own directory; in the current one it means the same as it is written.
            let is_elsewhere = key == "defaults.private_key_file" && !value.is_empty() && dir != cwd;
            let path = is_elsewhere.then(|| full(value).display().to_string());
            let value = path.as_deref().unwrap_or(value);
            self.login.insert(key.to_owned(), plain(value, Place::new(&file, key)));
        }
        let list = |key: &str| {
            set.get(key)
                .into_iter()
                .flat_map(|v| v.split(','))
                .map(str::trim)
                .filter(|v| !v.is_empty())
        };
        self.inventory = list("defaults.inventory")
            .map(|name| full(name).display().to_string())
            .collect();
        for name in list("defaults.vault_identity_list").chain(list("defaults.vault_password_file")) {
            match name.split_once('@') {
                Some((id, file)) => self.vaults.push((Some(id.to_owned()), full(file))),
                None => self.vaults.push((None, full(name))),
            }
        }
        self.ask_pass = truth("defaults.ask_pass");
        self.ask_become_pass = truth("privilege_escalation.become_ask_pass");
        if set.contains_key("defaults.host_key_checking") && !truth("defaults.host_key_checking") {
            self.notices.push(format!(
                "{file}: [defaults] host_key_checking is not followed: {HOST_KEYS}"
            ));
        }
        Ok(())
    }

    fn environment(&mut self, env: &BTreeMap<String, String>) {
        let file: Rc<str> = "environment".into();
        for key in ENVIRONMENT {
            if let Some(value) = env.get(key) {
                self.login.insert(key.to_owned(), plain(value, Place::new(&file, key)));
            }
        }
        if let Some(list) = env.get("ANSIBLE_INVENTORY") {
            self.inventory = list
                .split(',')
                .map(str::trim)
                .filter(|v| !v.is_empty())
                .map(str::to_owned)
                .collect();
        }
        if let Some(path) = env.get("ANSIBLE_VAULT_PASSWORD_FILE") {
            self.vaults.push((None, path.into()));
        }
    }
}

/// A value that holds no expression, whatever it looks like.
pub fn plain(text: &str, place: Place) -> Var {
    let value = if crate::template::is_template(text) {
        serde_json::json!({ crate::yaml::UNSAFE: text })
    } else {
        Value::from(text)
    };
    Var { value, place }
}

/// Reads the lines of a configuration file as Python's `configparser` does, as far as Ansible's own files go.
fn settings(text: &str) -> BTreeMap<String, String> {
    let mut set = BTreeMap::new();
    let mut section = String::new();
    let mut last: Option<String> = None;
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = bare.strip_prefix('[').and_then(|l| l.split_once(']')) {
            section = name.0.trim().to_owned();
            last = None;
        } else if line.starts_with(char::is_whitespace)
            && let Some(key) = &last
            && let Some(value) = set.get_mut(key)
        {
            let value: &mut String = value;
            value.push('\n');
            value.push_str(bare);
        } else if let Some((key, value)) = bare.split_once(['=', ':']) {
            // Ansible allows comments after a blank and a semicolon.
            let value = value.split(" ;").next().unwrap_or_default().trim();
            let value = unquoted(value);
            let key = format!("{section}.{}", key.trim().to_ascii_lowercase());
            last = Some(key.clone());
            set.insert(key, value.to_owned());
        }
    }
    set
}

/// Removes the quotes around a whole value.
fn unquoted(value: &str) -> &str {
    let inner = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Files;

    const TEXT: &str = "[defaults]\nremote_user = pi ; who\nprivate_key_file=keys/pi\ninventory = hosts, more\nhost_key_checking = False\n\
                        vault_identity_list = prod@p.txt\n[privilege_escalation]\nbecome = true\nbecome_ask_pass: yes\n\
                        [ssh_connection]\nssh_args = -C\n  -q\n";

    #[test]
    fn the_first_file_in_ansibles_order_counts() {
        let files = Files::of(&[
            ("/w/ansible.cfg", TEXT),
            ("/h/.ansible.cfg", "[defaults]\nremote_user = other\n"),
        ]);
        let env = BTreeMap::from([("HOME".to_owned(), "/h".to_owned())]);
        let config = find(&files, &env, Path::new("/w")).unwrap();
        for (key, wanted) in [
            ("defaults.remote_user", "pi"),
            ("defaults.private_key_file", "keys/pi"),
            ("privilege_escalation.become", "true"),
            ("ssh_connection.ssh_args", "-C\n-q"),
        ] {
            assert_eq!(config.login[key].value, wanted, "{key}");
        }
        assert_eq!(config.inventory, ["/w/hosts", "/w/more"]);
        assert_eq!(config.vaults, [(Some("prod".to_owned()), PathBuf::from("/w/p.txt"))]);
        assert!(config.ask_become_pass && config.notices.len() == 1);
        assert_eq!(
            find(&files, &env, Path::new("/x")).unwrap().login["defaults.remote_user"].value,
            "other"
        );
        let env = BTreeMap::from([("ANSIBLE_CONFIG".to_owned(), "/w/ansible.cfg".to_owned())]);
        assert_eq!(
            find(&files, &env, Path::new("/x")).unwrap().login["defaults.remote_user"].value,
            "pi"
        );
        let elsewhere = BTreeMap::from([("ANSIBLE_CONFIG".to_owned(), "/w/ansible.cfg".to_owned())]);
        let config = find(&files, &elsewhere, Path::new("/x")).unwrap();
        assert_eq!(config.login["defaults.private_key_file"].value, "/w/keys/pi");
    }

    #[test]
    fn a_file_above_the_inventory_is_named() {
        let files = Files::of(&[("/w/ansible.cfg", TEXT), ("/w/i/hosts", "a\n")]);
        let (path, sets) = above(&files, Path::new("/w/i")).unwrap();
        assert_eq!((path, sets.len()), (PathBuf::from("/w/ansible.cfg"), 3));
    }
}
