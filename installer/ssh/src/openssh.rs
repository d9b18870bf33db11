//! Machines that are reached by the user's own program `ssh`, for logins that libssh2 has not: keys of security tokens, PKCS#11, Kerberos, one-time
//! passwords. ssh reads its own settings and asks on the terminal by itself.
//!
//! The first process logs in once and is the master of the connection (ssh_config(5), ControlMaster); each command is a session of it. The master
//! itself runs `cat` on the machine: it ends when landfall closes its input or is gone, and the connection with it.

use crate::options::SshOptions;
use crate::process;
use crate::pump::{DEAD_AFTER, KEEPALIVE};
use crate::start::{self, RunAs, Shell};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Connect;
use landfall_core::transport::{RemoteChild, RemoteExit, Transport};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Status with which ssh ends when it failed itself (ssh(1), EXIT STATUS), or a signal ended the command.
const SSH_FAILED: i32 = 255;
/// Status of a shell whose `exec` finds no program (POSIX, exit status for commands).
const NOT_FOUND: i32 = 127;
/// Where the master's socket is: its path has at most 107 bytes (unix(7)), of which ssh takes 17 for a name of its own.
const SOCKET_FOLDER: &str = "/tmp";

/// What the user's ssh is told beside a machine's login.
#[derive(Debug, Clone, Default)]
pub struct OpensshOptions {
    /// The file of settings in place of the usual ones (ssh's `-F`).
    pub config: Option<PathBuf>,
    /// The file of known host keys in place of those that the settings name.
    pub known_hosts: Option<PathBuf>,
}

/// A logged-in connection of the user's ssh.
pub struct OpensshTransport {
    client: Client,
    connect: Connect,
    shell_timeout: Duration,
    /// Its standard input keeps the connection open; `None` once it is closed.
    master: Option<RemoteChild>,
}

impl OpensshTransport {
    /// Logs in. `host` is the machine as the inventory names it, so that ssh finds its settings; the other values are those of `connect`. Blocks for the
    /// time limits of the connection and the shell, in which the user may be asked.
    pub fn connect(
        host: &str,
        connect: &Connect,
        options: &SshOptions,
        own: &OpensshOptions,
    ) -> Result<Self, Diagnosis> {
        if connect.password.is_some() {
            return Err(Diagnosis::new(Code::LoginRefused, "ssh asks for passwords itself")
                .next("leave out --ask-pass for machines with `connection: openssh`"));
        }
        let internal =
            |error| Diagnosis::new(Code::Internal, format!("no folder can be made in {SOCKET_FOLDER}")).because(&error);
        let folder = tempfile::Builder::new()
            .prefix("landfall-ssh-")
            .tempdir_in(SOCKET_FOLDER);
        let mut client = Client {
            arguments: arguments(connect, options, own),
            host: host.to_owned(),
            folder: folder.map_err(internal)?,
            master: None,
        };
        let limit = options.timeout + options.shell_timeout;
        let master = start::start(&mut client, "exec cat >/dev/null", &RunAs::LoginUser, limit);
        let master = master.map_err(|diagnosis| explain(diagnosis, client.end_master(), connect))?;
        Ok(Self {
            client,
            connect: connect.clone(),
            shell_timeout: options.shell_timeout,
            master: Some(master),
        })
    }
}

impl Drop for OpensshTransport {
    fn drop(&mut self) {
        let Some(RemoteChild { stdin, mut exit, .. }) = self.master.take() else {
            return;
        };
        drop(stdin);
        // Commands may still run over the connection; ssh ends after the last one.
        thread::spawn(move || exit.wait());
    }
}

impl Transport for OpensshTransport {
    fn spawn(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
        start::start(&mut self.client, command, &RunAs::LoginUser, self.shell_timeout)
    }

    fn spawn_root(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
        if !self.connect.become_root || self.connect.user == "root" {
            return self.spawn(command);
        }
        let who = RunAs::Root(self.connect.become_password.as_ref());
        start::start(&mut self.client, command, &who, self.shell_timeout)
    }
}

/// Starts the processes of one connection.
struct Client {
    arguments: Vec<OsString>,
    host: String,
    /// Holds the master's socket.
    folder: tempfile::TempDir,
    /// The process that logged in; it is the first one.
    master: Option<Pid>,
}

impl Client {
    /// Ends a master whose login failed, and returns its exit status. Blocks until it has ended.
    fn end_master(&mut self) -> Option<i32> {
        let master = self.master.take()?;
        // It may have ended; until it is waited for, no other process gets its id.
        let _ = kill_process(master, Signal::TERM);
        let (_, status) = waitpid(Some(master), WaitOptions::empty()).ok()??;
        status.exit_status()
    }
}

impl Shell for Client {
    fn spawn(&mut self, line: &str) -> Result<RemoteChild, Diagnosis> {
        let mut ssh = Command::new("sh");
        // ^C at the terminal is for landfall, which ends what runs on the machine first. The master stays in the terminal's group, where it may ask, and
        // passes the signal over; sessions do not.
        ssh.args(["-c", "trap '' INT; exec ssh \"$@\"", "ssh"]);
        let mut control = OsString::from("-S");
        control.push(self.folder.path().join("master"));
        ssh.arg(control).args(&self.arguments);
        if self.master.is_some() {
            ssh.process_group(0);
        }
        let options: &[&str] = match self.master {
            None => &["ControlMaster=yes", "ControlPersist=no"],
            // Without its master a session does not log in by itself: nobody waits for a prompt there.
            Some(_) => &["ControlMaster=no", "ProxyCommand=false", "BatchMode=yes"],
        };
        for option in options {
            ssh.args(["-o", option]);
        }
        let spawned = process::spawn(ssh.args(["--", &self.host, line]));
        let (child, id) = spawned.map_err(|error| {
            Diagnosis::new(Code::Unreachable, "ssh cannot be started on this machine").because(&error)
        })?;
        self.master.get_or_insert(id);
        let RemoteChild {
            stdin,
            stdout,
            stderr,
            exit,
        } = child;
        Ok(RemoteChild {
            stdin,
            stdout,
            stderr,
            exit: Box::new(SessionExit(exit)),
        })
    }
}

struct SessionExit(Box<dyn RemoteExit>);

impl RemoteExit for SessionExit {
    fn wait(&mut self) -> Option<i32> {
        // A command that itself ends so counts as cut off.
        self.0.wait().filter(|status| *status != SSH_FAILED)
    }
}

/// Returns the arguments that all processes of a connection have. Settings that would add a terminal, forwardings or commands of the user's have no
/// effect; those of the login do.
fn arguments(connect: &Connect, options: &SshOptions, own: &OpensshOptions) -> Vec<OsString> {
    let accept_new = options.accept_new || connect.ssh.accept_new;
    let settings = [
        ("ClearAllForwardings", "yes".to_owned()),
        ("PermitLocalCommand", "no".to_owned()),
        ("RemoteCommand", "none".to_owned()),
        ("LogLevel", "ERROR".to_owned()),
        ("ConnectTimeout", options.timeout.as_secs().max(1).to_string()),
        ("ServerAliveInterval", KEEPALIVE.as_secs().to_string()),
        (
            "ServerAliveCountMax",
            (DEAD_AFTER.as_secs() / KEEPALIVE.as_secs()).to_string(),
        ),
        // `no` would accept a changed key, and `ask` asks in the middle of landfall's own output.
        (
            "StrictHostKeyChecking",
            if accept_new { "accept-new" } else { "yes" }.to_owned(),
        ),
    ];
    let mut all: Vec<OsString> = ["-T", "-x", "-a", "-l", &connect.user, "-p", &connect.port.to_string()]
        .map(OsString::from)
        .into();
    for (name, value) in settings {
        all.extend(["-o".into(), format!("{name}={value}").into()]);
    }
    if let Some(file) = &own.config {
        all.extend(["-F".into(), file.into()]);
    }
    if let Some(file) = &own.known_hosts {
        let mut option = OsString::from("UserKnownHostsFile=");
        option.push(file);
        all.extend(["-o".into(), option]);
    }
    if let Some(key) = &connect.private_key {
        all.extend(["-i".into(), key.into(), "-o".into(), "IdentitiesOnly=yes".into()]);
    }
    all
}

/// Says why no login came about, by ssh's exit status and its own words.
fn explain(found: Diagnosis, status: Option<i32>, connect: &Connect) -> Diagnosis {
    let words = found.saw.join("\n");
    let has = |text: &str| words.contains(text);
    let new = |code, what: &str| Diagnosis::new(code, what).saw(words.clone());
    match status {
        Some(NOT_FOUND) if has("ssh") => new(Code::Unreachable, "there is no program ssh on this machine")
            .next("install OpenSSH's client, or leave out `connection: openssh`"),
        Some(SSH_FAILED) if has("HOST IDENTIFICATION HAS CHANGED") || has("REVOKED HOST KEY") => {
            new(Code::HostKeyMismatch, "the machine's host key is not the known one")
        }
        Some(SSH_FAILED) if has("Host key verification failed") => {
            new(Code::HostKeyUnknown, "the machine's host key is not known")
        }
        Some(SSH_FAILED) if has("Permission denied") || has("Too many authentication failures") => {
            new(Code::LoginRefused, "the machine refused the login").next(format!(
                "ssh -l {} -p {} by hand logs in to it the same way",
                connect.user, connect.port
            ))
        }
        Some(SSH_FAILED) => new(Code::Unreachable, "ssh does not reach the machine"),
        _ => found,
    }
}
