//! The API server that a kubeconfig names: one line of a file that kubeadm made and that holds a key. Only that line is changed, and
//! no copy of the file is kept.

use super::unit;
use crate::agent::Agent;
use crate::child::Job;
use crate::error::{AgentError, Result, io_at};
use crate::files::{self, Meta};
use crate::host::Host;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Seconds that a restart may take.
const RESTART_S: u64 = 60;

/// Says whether a kubeconfig is there and names this server.
pub fn names_server(host: &Host, path: &Path, server: &str) -> Result<bool> {
    let text = read(host, path)?;
    Ok(text.is_some_and(|text| text.lines().any(|line| server_of(line) == Some(server))))
}

/// Replaces one server by another, and restarts the unit that reads the file when it runs. A file that is not there, or names another
/// server, stays as it is. Blocks until the restart is done.
pub fn replace_server(agent: &Agent, path: &Path, from: &str, to: &str, restart: Option<&str>) -> Result<()> {
    let host = &agent.host;
    if !names_server(host, path, from)? {
        return Ok(());
    }
    let real = host.at(path);
    let meta = std::fs::metadata(&real).map_err(io_at("looking at", &real))?;
    let meta = Meta {
        mode: meta.mode() & 0o7777,
        owner: Some((meta.uid(), meta.gid())),
    };
    let text = read(host, path)?.unwrap_or_default();
    files::write_bytes(&real, meta, with_server(&text, from, to).as_bytes())?;
    if let Some(name) = restart
        && unit::states(&agent.children, host, &[name])?
            .get(name)
            .is_some_and(unit::UnitState::is_active)
    {
        let argv = ["systemctl", "restart", "--", name];
        agent.children.run(host, Job::quick(&argv, RESTART_S))?;
    }
    Ok(())
}

fn read(host: &Host, path: &Path) -> Result<Option<String>> {
    let Some(bytes) = files::read(&host.at(path))? else {
        return Ok(None);
    };
    // Not from_utf8_lossy: what is written back must be what was there.
    let text = String::from_utf8(bytes);
    text.map(Some)
        .map_err(|_| AgentError::Refused(format!("{} is no kubeconfig: it is not UTF-8", path.display())))
}

/// The value of a line `server: VALUE`.
fn server_of(line: &str) -> Option<&str> {
    let value = line.trim_start().strip_prefix("server:")?.trim();
    Some(value.trim_matches(['"', '\'']))
}

fn with_server(text: &str, from: &str, to: &str) -> String {
    let replaced = |line: &str| match server_of(line) {
        Some(server) if server == from => line.replacen(from, to, 1),
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(replaced).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_server_that_is_meant_is_replaced() {
        let text = "clusters:\n- cluster:\n    certificate-authority-data: eA==\n    server: https://api.x:7443\n  name: a\n\
                    - cluster:\n    server: \"https://10.0.0.1:6443\"\n# api.x:7443 in a comment\n";
        let new = with_server(text, "https://api.x:7443", "https://127.0.0.1:7443");
        assert_eq!(new, text.replacen("https://api.x:7443", "https://127.0.0.1:7443", 1));
        assert_eq!(with_server(&new, "https://127.0.0.1:7443", "https://api.x:7443"), text);
        assert_eq!(
            with_server(text, "https://10.0.0.1:6443", "https://h"),
            text.replace("https://10.0.0.1:6443", "https://h")
        );
        assert_eq!(
            with_server(text, "https://api.x", "https://h"),
            text,
            "a part of a URL is another server"
        );
    }
}
