//! Machines that are reached by the user's own program `ssh`, for logins that libssh2 has not: keys of security tokens, PKCS#11, Kerberos, one-time
//! passwords. ssh reads its own settings and asks on the terminal by itself.
//!
//! One process logs in and is the master of the connection (ssh_config(5), ControlMaster); each command is a session of it. The master itself runs `cat`
//! on the machine: it ends when landfall closes its input or is gone, and the connection with it.

use crate::options::SshOptions;
use crate::process::{self, Process};
use crate::pump::{DEAD_AFTER, KEEPALIVE};
use crate::start::{self, Root, RunAs, Shell, Terminal};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::{Connect, Proxy};
use landfall_core::transport::{RemoteChild, RemoteExit, Transport};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Status with which ssh ends when it failed itself (ssh(1), EXIT STATUS), or a signal ended the command.
const SSH_FAILED: i32 = 255;
/// Status of a shell whose `exec` finds no program (POSIX, exit status for commands).
const NOT_FOUND: i32 = 127;
/// Where the master's socket is: its path has at most 107 bytes (unix(7)), of which ssh takes 17 for a name of its own.
const SOCKET_FOLDER: &str = "/tmp";

/// Held while a master logs in: a security token signs for one login at a time, and all that ask share one terminal.
static LOGGING_IN: Mutex<()> = Mutex::new(());

/// What the user's ssh is told beside a machine's login.
#[derive(Debug, Clone, Default)]
pub struct OpensshOptions {
    /// The file of settings in place of the usual ones (ssh's `-F`).
    pub config: Option<PathBuf>,
    /// The file of known host keys in place of those that the settings name.
    pub known_hosts: Option<PathBuf>,
}

/// A login of the user's ssh.
pub struct OpensshMaster {
    client: Client,
    process: Process,
    /// Its standard input keeps the connection open.
    _streams: Mutex<RemoteChild>,
    /// Whether the login user is root.
    is_root: bool,
}

impl OpensshMaster {
    /// Logs in. `host` is the machine as the inventory names it, so that ssh finds its settings. User and port are `connect`'s where the inventory gives
    /// them, else ssh's own. Blocks until other logins have ended, and then for the time limits of the connection and the shell, in which the user may be
    /// asked.
    pub fn log_in(
        host: &str,
        connect: &Connect,
        options: &SshOptions,
        own: &OpensshOptions,
    ) -> Result<Self, Diagnosis> {
        let internal =
            |error| Diagnosis::new(Code::Internal, format!("no folder can be made in {SOCKET_FOLDER}")).because(&error);
        let folder = tempfile::Builder::new()
            .prefix("landfall-ssh-")
            .tempdir_in(SOCKET_FOLDER);
        let client = Client {
            arguments: arguments(connect, options, own),
            login: login(host, connect),
            folder: folder.map_err(internal)?,
        };
        let limit = options.timeout + options.shell_timeout;
        let _turn = LOGGING_IN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shell = client.shell(&["ControlMaster=yes", "ControlPersist=no"], false);
        let started = start::start(&mut shell, "id -u; exec cat >/dev/null", RunAs::LoginUser, limit);
        let process = shell.processes.pop();
        let (mut streams, process) = match (started, process) {
            (Ok(streams), Some(process)) => (streams, process),
            (Err(found), Some(process)) => return Err(client.explain(found, process.end(), limit)),
            (Err(found), None) => return Err(found),
            (Ok(_), None) => return Err(Diagnosis::new(Code::Internal, "ssh runs and was not started")),
        };
        let mut user_id = String::new();
        let mut stdout = BufReader::new(streams.stdout);
        let read = stdout.read_line(&mut user_id);
        read.map_err(|error| client.unreachable("ssh lost the machine").because(&error))?;
        streams.stdout = Box::new(stdout);
        Ok(Self {
            client,
            process,
            _streams: Mutex::new(streams),
            is_root: user_id.trim() == "0",
        })
    }

    /// Says whether the connection stands.
    pub fn is_alive(&self) -> bool {
        self.process.is_running()
    }

    /// Starts a command as a session of the connection.
    fn start(&self, command: &str, who: RunAs<'_>, shell_timeout: Duration) -> Result<RemoteChild, Diagnosis> {
        // Without its master a session does not log in by itself: nobody waits for a prompt there.
        let mut shell = self
            .client
            .shell(&["ControlMaster=no", "ProxyCommand=false", "BatchMode=yes"], true);
        let started = start::start(&mut shell, command, who, shell_timeout);
        let processes = std::mem::take(&mut shell.processes);
        started.map_err(|found| {
            let ended: Vec<_> = processes.iter().map(Process::end).collect();
            if !ended.contains(&Some(SSH_FAILED)) {
                return found;
            }
            Diagnosis::new(
                Code::ConnectionLost,
                format!("ssh starts no session on {}", self.client.login.join(" ")),
            )
            .saw(found.saw.join("\n"))
            .next("where sshd_config sets MaxSessions there, it must be 2 at least, and 3 where sudo or doas wants a terminal")
        })
    }
}

/// A connection of the user's ssh, which may be shared.
pub struct OpensshTransport {
    master: Arc<OpensshMaster>,
    connect: Connect,
    shell_timeout: Duration,
    /// Whether sudo or doas wants one.
    terminal: Terminal,
}

impl OpensshTransport {
    /// Uses a login.
    pub fn new(master: Arc<OpensshMaster>, connect: &Connect, options: &SshOptions) -> Self {
        Self {
            master,
            connect: connect.clone(),
            shell_timeout: options.shell_timeout,
            terminal: Terminal::Without,
        }
    }
}

impl Transport for OpensshTransport {
    fn spawn(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
        self.master.start(command, RunAs::LoginUser, self.shell_timeout)
    }

    fn spawn_root(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
        let stays = !self.connect.become_root && !self.connect.ssh.unset.become_root;
        if self.master.is_root || stays {
            return self.spawn(command);
        }
        let root = Root {
            password: self.connect.become_password.as_ref(),
            terminal: &mut self.terminal,
        };
        self.master.start(command, RunAs::Root(root), self.shell_timeout)
    }
}

/// What all processes of a connection share.
struct Client {
    arguments: Vec<OsString>,
    /// User, port and host as ssh's arguments, for messages too.
    login: Vec<String>,
    /// Holds the master's socket.
    folder: tempfile::TempDir,
}

impl Client {
    fn shell(&self, options: &'static [&'static str], is_session: bool) -> ClientShell<'_> {
        ClientShell {
            client: self,
            options,
            is_session,
            processes: Vec::new(),
        }
    }

    fn unreachable(&self, what: &str) -> Diagnosis {
        self.failed(Code::Unreachable, what)
    }

    fn failed(&self, code: Code, what: &str) -> Diagnosis {
        let login = self.login.join(" ");
        Diagnosis::new(code, format!("{what}: {login}")).next(format!("try it by hand: ssh {login}"))
    }

    /// Says why no login came about, by ssh's exit status and its own words; without a status it was ended after the time limit.
    fn explain(&self, found: Diagnosis, status: Option<i32>, limit: Duration) -> Diagnosis {
        let words = found.saw.join("\n");
        let has = |text: &str| words.contains(text);
        let explained = match status {
            Some(NOT_FOUND) if has("ssh") => Diagnosis::new(Code::Unreachable, "there is no program ssh on this machine")
                .next("install OpenSSH's client, or leave out `connection: openssh`"),
            Some(SSH_FAILED) if has("HOST IDENTIFICATION HAS CHANGED") || has("REVOKED HOST KEY") => {
                self.failed(Code::HostKeyMismatch, "the machine's host key is not the known one")
            }
            Some(SSH_FAILED) if has("Host key verification failed") => {
                self.failed(Code::HostKeyUnknown, "the machine's host key is not known")
            }
            Some(SSH_FAILED) if has("Permission denied") || has("Too many authentication failures") => {
                self.failed(Code::LoginRefused, "the machine refused the login of ssh")
            }
            Some(SSH_FAILED) => self.unreachable("ssh does not reach the machine"),
            None => self
                .unreachable(&format!("ssh did not log in within {} s", limit.as_secs()))
                .next("a prompt or a touch that nobody answers does this, and a login shell that hangs; --connect-timeout waits longer"),
            Some(_) => return found,
        };
        explained.saw(words.clone())
    }
}

/// Starts processes of a connection.
struct ClientShell<'a> {
    client: &'a Client,
    options: &'static [&'static str],
    is_session: bool,
    /// What was started.
    processes: Vec<Process>,
}

impl Shell for ClientShell<'_> {
    fn spawn(&mut self, line: &str, terminal: Terminal) -> Result<RemoteChild, Diagnosis> {
        let mut ssh = Command::new("sh");
        // ^C and the end of the terminal are for landfall, which ends what runs on the machine first. The master stays in the terminal's group, where it may
        // ask, and ignores both signals; sessions have a group of their own.
        ssh.args(["-c", "trap '' INT HUP; exec ssh \"$@\"", "ssh"]);
        if self.is_session {
            ssh.process_group(0);
        }
        let mut control = OsString::from("-S");
        control.push(self.client.folder.path().join("master"));
        ssh.arg(control).args(&self.client.arguments);
        for option in self.options {
            ssh.args(["-o", option]);
        }
        if terminal == Terminal::With {
            // A `~` in a password is no escape.
            ssh.args(["-tt", "-e", "none"]);
        }
        let (host, login) = self
            .client
            .login
            .split_last()
            .map_or(("", &[][..]), |(host, login)| (host.as_str(), login));
        let spawned = process::spawn(ssh.args(login).args(["--", host, line]));
        let (mut child, process) = spawned.map_err(|error| {
            Diagnosis::new(Code::Unreachable, "ssh cannot be started on this machine").because(&error)
        })?;
        self.processes.push(process);
        child.exit = Box::new(SessionExit(child.exit));
        Ok(child)
    }
}

struct SessionExit(Box<dyn RemoteExit>);

impl RemoteExit for SessionExit {
    fn wait(&mut self) -> Option<i32> {
        // A command that itself ends so counts as cut off.
        self.0.wait().filter(|status| *status != SSH_FAILED)
    }
}

/// Returns user and port, where the inventory gives them, and the host.
fn login(host: &str, connect: &Connect) -> Vec<String> {
    let mut login = Vec::new();
    if !connect.ssh.unset.user {
        login.extend(["-l".to_owned(), connect.user.clone()]);
    }
    if !connect.ssh.unset.port {
        login.extend(["-p".to_owned(), connect.port.to_string()]);
    }
    login.push(host.to_owned());
    login
}

/// Returns the arguments that all processes of a connection have. Settings that would add a terminal, forwardings or commands of the user's have no
/// effect; those of the login do.
fn arguments(connect: &Connect, options: &SshOptions, own: &OpensshOptions) -> Vec<OsString> {
    let accept_new = options.accept_new || connect.ssh.accept_new;
    let mut settings = vec![
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
    if connect.ssh.proxy == Some(Proxy::Direct) {
        settings.push(("ProxyJump", "none".to_owned()));
    }
    let mut all: Vec<OsString> = ["-T", "-x", "-a"].map(OsString::from).into();
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
