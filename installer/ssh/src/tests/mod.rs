//! Tests with a real sshd on a loopback port of its own. Tests of users, sudo or doas give it its own `/etc/passwd`, `/etc/shadow`,
//! `/etc/sudoers` and `/etc/doas.conf`, by bind mounts in a mount namespace of its own, so that this machine is not changed.

mod host_keys;
mod jump;
mod local;
mod login;
mod openssh;
mod releases;
mod server;
mod shells;
mod terminal;
mod transport;

use crate::{SshOptions, SshTransport};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::{Connect, Connection, SshSettings};
use landfall_core::secret::Secret;
use landfall_core::transport::{RemoteChild, Transport};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The differences from an sshd with default settings and root as the only user.
#[derive(Default)]
struct Setup<'a> {
    /// First lines of sshd_config: the first value of an option counts there.
    config: &'a str,
    /// Names, login shells and passwords of users.
    users: &'a [(&'a str, &'a str, &'a str)],
    /// Files of this machine, and the text that the server sees in their place.
    files: &'a [(&'a str, &'a str)],
    /// The program that the server sees as `/usr/bin/sudo`.
    sudo: Option<&'a Path>,
    /// Another release's packages, unpacked: its sshd runs in place of this machine's.
    release: Option<&'a Path>,
}

struct Server {
    sshd: Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program} is installed by the test command: {e}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn keygen(path: &Path) {
    run(
        "ssh-keygen",
        &[
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            &path.display().to_string(),
            "-f",
            path.to_str().unwrap(),
        ],
    );
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until a server listens on the port.
fn await_port(port: u16) {
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing listens on {port}");
        thread::sleep(Duration::from_millis(20));
    }
}

impl Server {
    fn start() -> Self {
        Self::with(&Setup::default())
    }

    /// Starts sshd with fresh keys; `bin` goes before the usual search path of sessions.
    fn with(setup: &Setup<'_>) -> Self {
        let directory = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let at = |name: &str| directory.path().join(name);
        keygen(&at("host"));
        keygen(&at("user"));
        std::fs::copy(at("user.pub"), at("authorized")).unwrap();
        std::fs::create_dir_all("/run/sshd").unwrap();
        std::fs::create_dir(at("bin")).unwrap();
        let port = free_port();
        let config = format!(
            "{extra}\nListenAddress 127.0.0.1\nPort {port}\nHostKey {host}\nAuthorizedKeysFile {authorized}\nPermitRootLogin yes\n\
             StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nSetEnv PATH={bin}:/usr/sbin:/usr/bin:/sbin:/bin\n",
            extra = setup.config,
            host = at("host").display(),
            authorized = at("authorized").display(),
            bin = at("bin").display(),
        );
        std::fs::write(at("config"), config).unwrap();
        let mounts = mounts(setup, directory.path());
        let program = setup.release.map_or_else(
            || "/usr/sbin/sshd".to_owned(),
            |release| releases::sshd(release, directory.path()),
        );
        let sshd = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!(
                "{mounts}exec {program} -D -E {log} -f {config}",
                log = at("log").display(),
                config = at("config").display()
            ))
            // sshd must not inherit the test's output: after a test that dies it would keep the pipe open, and the reader would wait.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssh-server is installed by the test command");
        let server = Self { sshd, directory, port };
        await_port(port);
        server
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    fn login(&self) -> Connect {
        Connect {
            host: "127.0.0.1".into(),
            port: self.port,
            user: "root".into(),
            private_key: Some(self.at("user")),
            password: None,
            become_root: false,
            become_password: None,
            connection: Connection::Ssh,
            ssh: SshSettings::default(),
        }
    }

    fn login_of(&self, user: &str) -> Connect {
        Connect {
            user: user.into(),
            become_root: true,
            ..self.login()
        }
    }

    fn options(&self) -> SshOptions {
        SshOptions {
            known_hosts: vec![],
            global_known_hosts: vec![],
            new_keys: self.at("known_hosts"),
            accept_new: true,
            agent_socket: None,
            default_keys: vec![],
            passphrases: None,
            timeout: Duration::from_secs(60),
            shell_timeout: Duration::from_secs(60),
        }
    }

    fn connect(&self) -> SshTransport {
        SshTransport::connect(&self.login(), &self.options()).unwrap()
    }

    /// Logs in, and runs a command.
    fn run(&self, connect: &Connect, command: &str) -> Result<String, Diagnosis> {
        self.run_within(connect, command, Duration::from_secs(60))
    }

    fn run_within(&self, connect: &Connect, command: &str, timeout: Duration) -> Result<String, Diagnosis> {
        let options = SshOptions {
            timeout,
            ..self.options()
        };
        let mut transport = SshTransport::connect(connect, &options)?;
        let (output, _, status) = finish(transport.spawn_root(command)?, b"");
        assert_eq!(status, Some(0));
        Ok(String::from_utf8(output).unwrap())
    }
}

/// Returns the shell commands that replace files of the machine by the server's own; `/etc` as a whole is a copy.
fn mounts(setup: &Setup<'_>, directory: &Path) -> String {
    if setup.users.is_empty() && setup.files.is_empty() && setup.sudo.is_none() {
        return String::new();
    }
    let etc = directory.join("etc");
    run("cp", &["-a", "/etc", etc.to_str().unwrap()]);
    let read = |path: &str| std::fs::read_to_string(etc.join(path)).unwrap();
    let (mut passwd, mut shadow) = (read("passwd"), read("shadow"));
    for (number, (name, shell, password)) in setup.users.iter().enumerate() {
        let home = directory.join(name);
        std::fs::create_dir(&home).unwrap();
        let id = 61_000 + u32::try_from(number).unwrap();
        std::os::unix::fs::chown(&home, Some(id), Some(id)).unwrap();
        passwd += &format!("{name}:x:{id}:{id}::{}:{shell}\n", home.display());
        let hash = run("openssl", &["passwd", "-6", password]);
        shadow += &format!("{name}:{}:19000:0:99999:7:::\n", hash.trim());
    }
    std::fs::write(etc.join("passwd"), passwd).unwrap();
    std::fs::write(etc.join("shadow"), shadow).unwrap();
    let mut lines = format!("mount --bind {} /etc && ", etc.display());
    for (path, text) in setup.files {
        let file = path
            .strip_prefix("/etc/")
            .map_or_else(|| directory.join("covers"), |inside| etc.join(inside));
        std::fs::write(&file, text).unwrap();
        // sudo and doas require that only root can write their files.
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o440)).unwrap();
        if !path.starts_with("/etc/") {
            lines += &format!("mount --bind {} {path} && ", file.display());
        }
    }
    if let Some(program) = setup.sudo {
        let copy = directory.join("sudo");
        std::fs::copy(program, &copy).unwrap();
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o4755)).unwrap();
        lines += &format!("mount --bind {} /usr/bin/sudo && ", copy.display());
    }
    lines
}

/// An agent with a socket of its own.
struct SshAgent {
    process: Child,
    socket: PathBuf,
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl SshAgent {
    fn start(directory: &Path) -> Self {
        let socket = directory.join("agent");
        let process = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        // The file is there before the agent listens on it.
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "the agent listens");
            thread::sleep(Duration::from_millis(10));
        }
        Self { process, socket }
    }

    fn add(&self, key: &Path) {
        let added = Command::new("ssh-add")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", &self.socket)
            .status()
            .unwrap();
        assert!(added.success());
    }
}

fn finish(child: RemoteChild, input: &[u8]) -> (Vec<u8>, String, Option<i32>) {
    let RemoteChild {
        mut stdin,
        mut stdout,
        mut stderr,
        mut exit,
    } = child;
    let input = input.to_vec();
    let writer = thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let errors = thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let mut output = Vec::new();
    stdout.read_to_end(&mut output).unwrap();
    writer.join().unwrap();
    (output, errors.join().unwrap(), exit.wait())
}
