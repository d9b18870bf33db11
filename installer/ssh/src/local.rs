//! The machine on which landfall runs, as a node: commands are started here, without SSH. They have no terminal of the operator's and none
//! of the operator's environment, as over SSH.

use crate::process;
use crate::start::{self, Root, RunAs, Shell, Terminal};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Connect;
use landfall_core::secret::Secret;
use landfall_core::transport::{RemoteChild, Transport};
use std::io;
use std::process::Command;
use std::time::Duration;

/// Where programs are looked for: what sshd and sudo of Debian give to root.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a shell of this machine may take to start.
const SHELL_TIMEOUT: Duration = Duration::from_secs(60);

/// A way to start commands on this machine.
pub struct LocalTransport {
    become_password: Option<Secret>,
    /// Whether commands are root's without sudo.
    is_root: bool,
    /// Whether sudo or doas wants one.
    terminal: Terminal,
}

impl LocalTransport {
    /// Whoever runs landfall is the login user; the inventory's user, key and port do not count.
    pub fn new(connect: &Connect) -> Self {
        Self {
            become_password: connect.become_password.clone(),
            is_root: rustix::process::geteuid().is_root(),
            terminal: Terminal::Without,
        }
    }
}

impl Transport for LocalTransport {
    fn spawn(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
        start::start(&mut LocalShell, command, RunAs::LoginUser, SHELL_TIMEOUT)
    }

    fn spawn_root(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
        if self.is_root {
            return self.spawn(command);
        }
        let root = Root {
            password: self.become_password.as_ref(),
            terminal: &mut self.terminal,
        };
        start::start(&mut LocalShell, command, RunAs::Root(root), SHELL_TIMEOUT)
    }
}

/// A shell of this machine, for each command line.
pub struct LocalShell;

impl Shell for LocalShell {
    fn spawn(&mut self, line: &str, terminal: Terminal) -> Result<RemoteChild, Diagnosis> {
        // A session of its own: what the operator types at a terminal, Ctrl-C too, is for landfall alone.
        let mut shell = Command::new("setsid");
        if terminal == Terminal::With {
            // Its standard input is the terminal of the new session.
            shell.arg("-c");
        }
        // The line is one command; in its place, the shell would hide by which signal it ends.
        let line = format!("exec {line}");
        shell.args(["sh", "-c", &line]).env_clear().env("PATH", PATH);
        for name in ["HOME", "USER", "LOGNAME"] {
            if let Some(value) = std::env::var_os(name) {
                shell.env(name, value);
            }
        }
        shell.current_dir("/");
        let failed = |error: io::Error| {
            Diagnosis::new(Code::AgentStart, "no shell can be started on this machine")
                .because(&error)
                .next("install util-linux, which has setsid")
        };
        let spawned = match terminal {
            Terminal::Without => process::spawn(&mut shell),
            Terminal::With => process::spawn_on_terminal(&mut shell),
        };
        let (child, _) = spawned.map_err(failed)?;
        Ok(child)
    }
}
