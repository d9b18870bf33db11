//! Reads inventory files and flags into the input of the engine.

use crate::args::{Common, InventoryArgs};
use crate::passwords;
use landfall_ansible::config::{self, Config};
use landfall_ansible::tree::Disk;
use landfall_ansible::{Environment, Keys, Request, RoleOptions, Understood};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::secret::Secret;
use landfall_core::spec::parse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const LOGIN_PASSWORD: &str = "login password";
const SUDO_PASSWORD: &str = "password of sudo";
const VAULT_PASSWORD: &str = "password of the vault";

/// Reads a `cluster.yaml` or an Ansible inventory, which its content tells apart, and the machines that `limit` chooses.
pub fn read(args: &InventoryArgs, limit: Option<&str>) -> Result<Understood, Vec<Diagnosis>> {
    if let Some((path, text)) = cluster_yaml(args) {
        no_flags(args, &path).map_err(|d| vec![d])?;
        let desired = parse::cluster_yaml(&text, &path)?;
        let choose = |pattern| landfall_ansible::limit_of(&desired, pattern, &Disk);
        let limit = limit.map(choose).transpose()?;
        return Ok(Understood {
            desired,
            notices: vec![],
            unread: BTreeMap::new(),
            limit,
        });
    }
    let (mut request, config, environment) = request(args)?;
    request.limit = limit.map(str::to_owned);
    landfall_ansible::read(&request, &config, &environment, &Disk)
}

/// Reads the inventory of a command that acts on every member. `refusal` is the error for a `--limit`.
pub fn whole(common: &Common, refusal: impl FnOnce() -> Diagnosis) -> Result<Understood, Vec<Diagnosis>> {
    let understood = read(&common.inventory, common.limit.as_deref())?;
    match understood.limit {
        None => Ok(understood),
        Some(_) => Err(vec![refusal()]),
    }
}

/// Returns the request of the flags and Ansible's settings. Asks for passwords when they say so, and blocks for that.
pub fn request(args: &InventoryArgs) -> Result<(Request, Config, Environment), Vec<Diagnosis>> {
    let one = |diagnosis| vec![diagnosis];
    let environment = Environment {
        env: std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        cwd: std::env::current_dir().unwrap_or_default(),
    };
    let mut config = config::find(&Disk, &environment.env, &environment.cwd).map_err(one)?;
    let sources = if args.sources.is_empty() {
        config.inventory.clone()
    } else {
        args.sources.clone()
    };
    if sources.is_empty() {
        let what = "no inventory is named, and no ansible.cfg names one";
        return Err(one(
            Diagnosis::new(Code::Usage, what).next("name a cluster.yaml or an Ansible inventory with -i")
        ));
    }
    let ask = |wanted: bool, what: &str| wanted.then(|| passwords::ask(what)).transpose().map_err(one);
    let from = |file: &Option<PathBuf>, what: &str| {
        let read = |path: &PathBuf| passwords::from_file(&parse::expand_home(&path.to_string_lossy()), what, None);
        file.as_ref().map(read).transpose().map_err(one)
    };
    let password = from(&args.connection_password_file, LOGIN_PASSWORD)?;
    let become_password = from(&args.become_password_file, SUDO_PASSWORD)?;
    let asks = |known: &Option<Secret>, wanted: bool| known.is_none() && wanted;
    let (ask_pass, ask_become) = (
        asks(&password, args.ask_pass || config.ask_pass),
        asks(&become_password, args.ask_become_pass || config.ask_become_pass),
    );
    let request = Request {
        sources,
        playbook_dir: args.playbook_dir.clone(),
        role_options: RoleOptions {
            control_plane: args.control_plane_group.clone(),
            worker: args.worker_group.clone(),
            control_planes: args.control_planes.clone(),
            ignore: args.ignore.clone(),
            outside: vec![],
        },
        user: args.user.clone(),
        private_key: args.private_key.clone(),
        password: password.or(ask(ask_pass, LOGIN_PASSWORD)?),
        become_password: become_password.or(ask(ask_become, SUDO_PASSWORD)?),
        extra_vars: args.extra_vars.clone(),
        keys: vault_keys(args, &mut config).map_err(one)?,
        limit: None,
    };
    Ok((request, config, environment))
}

/// Collects the passwords of vaults. A file that `ansible.cfg` names and that is not there is a notice: what needs it says so, and a flag names another.
fn vault_keys(args: &InventoryArgs, config: &mut Config) -> Result<Keys, Diagnosis> {
    let mut keys = Keys::default();
    for value in &args.vault_id {
        let (id, source) = match value.split_once('@') {
            Some((id, source)) => (Some(id.to_owned()), source),
            None => (None, value.as_str()),
        };
        let password = match source {
            "prompt" => passwords::ask(&format!("password of the vault {}", id.as_deref().unwrap_or_default()))?,
            file => passwords::from_file(&parse::expand_home(file), VAULT_PASSWORD, id.as_deref())?,
        };
        keys.add(id, password);
    }
    let expanded = |path: &Path| parse::expand_home(&path.to_string_lossy());
    let files = args.vault_password_file.iter().map(|path| (None, expanded(path)));
    let configured = config.vaults.iter().map(|(id, path)| (id.clone(), expanded(path)));
    let (there, missing): (Vec<_>, Vec<_>) = configured.partition(|(_, path)| path.exists());
    for (id, path) in files.chain(there) {
        keys.add(id.clone(), passwords::from_file(&path, VAULT_PASSWORD, id.as_deref())?);
    }
    for (_, path) in missing {
        config.notices.push(format!(
            "ansible.cfg names {} for the password of a vault, and that file is not there; another: --vault-password-file",
            path.display()
        ));
    }
    if args.ask_vault_pass {
        keys.add(None, passwords::ask(VAULT_PASSWORD)?);
    }
    Ok(keys)
}

/// Returns the path and text of the `cluster.yaml` that the flags name; `None` when they name an inventory.
pub fn cluster_yaml(args: &InventoryArgs) -> Option<(String, String)> {
    let [path] = &args.sources[..] else { return None };
    let text = std::fs::read_to_string(Path::new(path)).ok()?;
    is_cluster_yaml(&text).then(|| (path.clone(), text))
}

/// Refuses flags that have no effect with a `cluster.yaml`, in which each machine has its own fields.
fn no_flags(args: &InventoryArgs, path: &str) -> Result<(), Diagnosis> {
    let set = [
        ("--control-plane-group", !args.control_plane_group.is_empty()),
        ("--worker-group", !args.worker_group.is_empty()),
        ("--control-planes", !args.control_planes.is_empty()),
        ("--ignore", !args.ignore.is_empty()),
        ("--user", args.user.is_some()),
        ("--private-key", args.private_key.is_some()),
        ("--ask-pass", args.ask_pass),
        ("--ask-become-pass", args.ask_become_pass),
        ("--connection-password-file", args.connection_password_file.is_some()),
        ("--become-password-file", args.become_password_file.is_some()),
        ("--extra-vars", !args.extra_vars.is_empty()),
        ("--playbook-dir", args.playbook_dir.is_some()),
        ("--vault-password-file", !args.vault_password_file.is_empty()),
        ("--vault-id", !args.vault_id.is_empty()),
        ("--ask-vault-pass", args.ask_vault_pass),
    ];
    let flags: Vec<&str> = set.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag).collect();
    if flags.is_empty() {
        return Ok(());
    }
    let what = format!(
        "{} is for Ansible inventories, and {path} is a cluster.yaml",
        flags.join(", ")
    );
    Err(Diagnosis::new(Code::Usage, what).next(format!("set the fields of the machines in {path}")))
}

/// Says whether a text is a `cluster.yaml`, which may be JSON: it has a list `nodes` at its top, where an inventory has groups, which are mappings or
/// sections. In a file with broken YAML the line `nodes:` decides.
fn is_cluster_yaml(text: &str) -> bool {
    if let Ok(serde_yaml::Value::Mapping(top)) = serde_yaml::from_str(text) {
        return top
            .get("nodes")
            .is_some_and(|nodes| nodes.is_sequence() || nodes.is_null());
    }
    let mut lines = text
        .lines()
        .map(str::trim_end)
        .skip_while(|line| !line.starts_with("nodes:"));
    let Some(first) = lines.next() else { return false };
    let inline = first.trim_start_matches("nodes:").trim();
    if !inline.is_empty() && !inline.starts_with('#') {
        return inline.starts_with('[');
    }
    let next = lines.find(|line| !line.is_empty() && !line.trim_start().starts_with('#'));
    next.is_none_or(|line| line.trim_start().starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_that_name_is_an_inventory() {
        for yes in [
            "name: x\nnodes:\n  - name: a\n",
            "nodes: [{name: a}]\n",
            "nodes:\n# why\n- a\n",
            "nodes:\n",
            r#"{"name": "x", "nodes": [{"name": "a"}]}"#,
            "{\n  \"nodes\": []\n}\n",
            "name: x\nname: y\nnodes:\n- a\n",
        ] {
            assert!(is_cluster_yaml(yes), "{yes}");
        }
        for no in [
            "all:\n  hosts: {}\n",
            "nodes:\n  hosts:\n    a: {}\n",
            "[nodes]\na\n",
            "nodes: {hosts: {}}\n",
            r#"{"nodes": {"hosts": {"a": {}}}}"#,
        ] {
            assert!(!is_cluster_yaml(no), "{no}");
        }
    }
}
