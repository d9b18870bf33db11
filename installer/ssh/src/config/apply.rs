//! Completes a login with the settings of `ssh_config`, where cluster.yaml or the inventory gives no value.

use super::{SshConfig, Target, Values};
use landfall_core::inventory::{Connect, Proxy};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Most jump hosts on the way to a machine when each one's settings name another.
const MAX_HOPS: usize = 8;

/// Properties of this machine that settings may refer to.
#[derive(Debug, Clone, Default)]
pub struct Local {
    /// Who runs landfall.
    pub user: String,
    /// That user's home directory.
    pub home: PathBuf,
}

impl SshConfig {
    /// Completes a login, and those of its jump hosts. Returns the names of settings that apply to them and are not supported.
    ///
    /// # Errors
    /// A value is not valid; the text says which.
    pub fn apply(&self, connect: &mut Connect, local: &Local) -> Result<BTreeSet<String>, String> {
        let mut ignored = BTreeSet::new();
        self.complete(connect, local, &mut ignored, MAX_HOPS)?;
        Ok(ignored)
    }

    fn complete(
        &self,
        connect: &mut Connect,
        local: &Local,
        ignored: &mut BTreeSet<String>,
        hops: usize,
    ) -> Result<(), String> {
        let given = connect.host.clone();
        let target = Target {
            host: &given,
            user: &connect.user,
            user_unset: connect.ssh.unset.user,
            local_user: &local.user,
        };
        let values = self.values(&target);
        if let Some(name) = &values.host_name {
            connect.host = name.replace("%h", &given).replace("%%", "%");
        }
        if let Some(user) = values.user.as_ref().filter(|_| connect.ssh.unset.user) {
            connect.user.clone_from(user);
            if connect.ssh.unset.become_root {
                connect.become_root = user != "root";
            }
        }
        if let Some(port) = values.port.as_ref().filter(|_| connect.ssh.unset.port) {
            connect.port = port
                .parse()
                .map_err(|_| format!("Port {port} for {given} is no port"))?;
        }
        let file = |text: &String| expand(text, connect, &given, local);
        let identities: Vec<PathBuf> = values.identity_files.iter().map(file).collect();
        let certificates = values.certificate_files.iter().map(file).collect();
        let files = |names: &Option<Vec<String>>| {
            let names = names.as_ref()?;
            // `none` alone is no file (ssh_config(5), UserKnownHostsFile).
            let is_none = matches!(names.as_slice(), [name] if name.eq_ignore_ascii_case("none"));
            Some(names.iter().filter(|_| !is_none).map(file).collect::<Vec<_>>())
        };
        let (known, global) = (files(&values.known_hosts), files(&values.global_known_hosts));
        if connect.private_key.is_none() {
            connect.ssh.identity_files.extend(identities);
        }
        connect.ssh.certificate_files = certificates;
        connect.ssh.identities_only = values.identities_only.unwrap_or(false);
        (connect.ssh.known_hosts, connect.ssh.global_known_hosts) = (known, global);
        connect.ssh.accept_new = values
            .strict
            .as_ref()
            .is_some_and(|s| ["no", "off", "accept-new"].contains(&s.as_str()));
        if connect.ssh.proxy.is_none() {
            connect.ssh.proxy = proxy_of(&values, &given, local)?;
        }
        ignored.extend(values.ignored);
        let Some(Proxy::Jump(list)) = &mut connect.ssh.proxy else {
            return Ok(());
        };
        for (number, hop) in list.iter_mut().enumerate() {
            let left = hops
                .checked_sub(1)
                .ok_or_else(|| format!("the jump hosts on the way to {given} lead in a circle"))?;
            // The first jump host is reached by its own settings; each other one through the one before.
            if number > 0 {
                hop.ssh.proxy = Some(Proxy::Direct);
            }
            self.complete(hop, local, ignored, left)?;
        }
        Ok(())
    }
}

fn proxy_of(values: &Values, given: &str, local: &Local) -> Result<Option<Proxy>, String> {
    if let Some(command) = &values.proxy_command {
        let none = command.trim().eq_ignore_ascii_case("none");
        return Ok(Some(if none {
            Proxy::Direct
        } else {
            Proxy::Command(command.clone())
        }));
    }
    let Some(jump) = &values.proxy_jump else {
        return Ok(None);
    };
    let way = Connect::parse_jump(jump, &local.user).map_err(|why| format!("ProxyJump for {given}: {why}"))?;
    match &way {
        // `Host *` with a jump host matches the jump host itself.
        Proxy::Jump(hops) if hops.iter().any(|hop| hop.host == given) => Ok(None),
        _ => Ok(Some(way)),
    }
}

/// Expands the tokens in a file name (ssh_config(5), TOKENS): `~`, `%d`, `%h`, `%n`, `%p`, `%r`, `%u`, `%%` and `${NAME}`.
fn expand(text: &str, connect: &Connect, given: &str, local: &Local) -> PathBuf {
    let home = local.home.display().to_string();
    let text = text
        .strip_prefix("~/")
        .map_or_else(|| text.to_owned(), |rest| format!("{home}/{rest}"));
    let mut expanded = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(['%', '$']) {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some((name, behind)) = rest.strip_prefix("${").and_then(|r| r.split_once('}')) {
            expanded.push_str(&std::env::var(name).unwrap_or_default());
            rest = behind;
            continue;
        }
        let value = match rest.get(..2) {
            Some("%d") => home.clone(),
            Some("%h") => connect.host.clone(),
            Some("%n") => given.to_owned(),
            Some("%p") => connect.port.to_string(),
            Some("%r") => connect.user.clone(),
            Some("%u") => local.user.clone(),
            Some("%%") => "%".to_owned(),
            _ => {
                expanded.push_str(&rest[..1]);
                rest = &rest[1..];
                continue;
            }
        };
        expanded.push_str(&value);
        rest = &rest[2..];
    }
    expanded.push_str(rest);
    PathBuf::from(expanded)
}
