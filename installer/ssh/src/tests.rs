//! Against a real sshd on a loopback port of its own.

use crate::{SshOptions, SshTransport};
use landfall_core::explain::Code;
use landfall_core::inventory::Connect;
use landfall_core::secret::Secret;
use landfall_core::transport::{RemoteChild, Transport};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

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

fn keygen(path: &Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(made.success());
}

impl Server {
    /// Starts sshd with fresh keys; `path` goes before the usual search path of sessions.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        keygen(&at("host"));
        keygen(&at("user"));
        std::fs::copy(at("user.pub"), at("authorized")).unwrap();
        std::fs::create_dir_all("/run/sshd").unwrap();
        std::fs::create_dir(at("bin")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {host}\nAuthorizedKeysFile {authorized}\nPermitRootLogin yes\n\
             StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nSetEnv PATH={bin}:/usr/sbin:/usr/bin:/sbin:/bin\n",
            host = at("host").display(),
            authorized = at("authorized").display(),
            bin = at("bin").display(),
        );
        std::fs::write(at("config"), config).unwrap();
        let sshd = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(at("config"))
            // Were it inherited, a test that dies would leave its output open and whoever reads it waiting.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssh-server is installed by the test command");
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "sshd does not listen");
            thread::yield_now();
        }
        Self { sshd, directory, port }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
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
        }
    }

    fn options(&self) -> SshOptions {
        SshOptions {
            known_hosts: vec![],
            accept_new: Some(self.at("known_hosts")),
            use_agent: false,
            default_keys: vec![],
            timeout: Duration::from_secs(10),
        }
    }

    fn connect(&self) -> SshTransport {
        SshTransport::connect(&self.login(), &self.options()).unwrap()
    }

    /// A sudo with the real one's protocol: prompt on standard error, one line from standard input, three tries.
    fn fake_sudo(&self, password: &str) {
        let script = format!(
            "#!/bin/sh\nwhile [ \"$1\" != -p ]; do shift; done\np=$2; shift 3\nif [ -n '{password}' ]; then\n  \
             for i in 1 2 3; do printf %s \"$p\" >&2; read -r line || exit 1\n    [ \"$line\" = '{password}' ] && exec \"$@\"\n    \
             echo 'Sorry, try again.' >&2; done; exit 1\nfi\nexec \"$@\"\n"
        );
        std::fs::write(self.at("bin/sudo"), script).unwrap();
        std::fs::set_permissions(self.at("bin/sudo"), std::fs::Permissions::from_mode(0o755)).unwrap();
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

#[test]
fn commands_keep_their_streams_and_status_apart() {
    let server = Server::start();
    let mut transport = server.connect();
    let child = transport.spawn("cat; echo \"it's\" >&2; exit 7").unwrap();
    assert_eq!(
        finish(child, b"hello"),
        (b"hello".to_vec(), "it's\n".to_owned(), Some(7))
    );
    let killed = transport.spawn("kill -9 $$").unwrap();
    assert_eq!(finish(killed, b"").2, None);
}

#[test]
fn much_goes_both_ways_at_once_on_several_commands() {
    let server = Server::start();
    let mut transport = server.connect();
    let data: Vec<u8> = (0..20_000_000u32).map(|i| (i % 253) as u8).collect();
    let children: Vec<_> = (0..3).map(|_| transport.spawn("cat").unwrap()).collect();
    thread::scope(|scope| {
        for child in children {
            let data = &data;
            scope.spawn(move || {
                let (output, _, status) = finish(child, data);
                assert!(output == *data);
                assert_eq!(status, Some(0));
            });
        }
    });
}

#[test]
fn host_keys_are_strict() {
    let server = Server::start();
    let strict = SshOptions {
        accept_new: None,
        known_hosts: vec![server.at("known_hosts")],
        ..server.options()
    };
    let error = SshTransport::connect(&server.login(), &strict).err().unwrap();
    assert_eq!(error.code, Code::HostKeyUnknown);
    assert!(error.saw[0].contains("SHA256:"));
    drop(server.connect());
    assert!(SshTransport::connect(&server.login(), &strict).is_ok());
    let written = std::fs::metadata(server.at("known_hosts")).unwrap();
    assert_eq!(written.permissions().mode() & 0o777, 0o600);
    let other = Server::start();
    let line = format!(
        "[127.0.0.1]:{} {}",
        server.port,
        std::fs::read_to_string(other.at("host.pub")).unwrap()
    );
    std::fs::write(server.at("known_hosts"), line).unwrap();
    for options in [strict, server.options()] {
        let error = SshTransport::connect(&server.login(), &options).err().unwrap();
        assert_eq!(error.code, Code::HostKeyMismatch);
    }
}

#[test]
fn refused_logins_and_closed_ports_are_told_apart() {
    let server = Server::start();
    keygen(&server.at("stranger"));
    let stranger = Connect {
        private_key: Some(server.at("stranger")),
        ..server.login()
    };
    let error = SshTransport::connect(&stranger, &server.options()).err().unwrap();
    assert_eq!(error.code, Code::LoginRefused);
    assert!(
        error.saw.iter().any(|line| line.contains("stranger")),
        "{:?}",
        error.saw
    );
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = Connect { port, ..server.login() };
    assert_eq!(
        SshTransport::connect(&closed, &server.options()).err().unwrap().code,
        Code::Unreachable
    );
}

#[test]
fn sudo_gets_its_password_and_the_command_never_does() {
    let server = Server::start();
    let run = |password: Option<&str>| {
        let mut transport = server.connect();
        let secret = password.map(Secret::new);
        crate::sudo::spawn(transport.pump(), "cat; exit 3", secret.as_ref()).map(|child| finish(child, b"input"))
    };
    server.fake_sudo("right");
    assert_eq!(run(Some("right")).unwrap(), (b"input".to_vec(), String::new(), Some(3)));
    assert_eq!(run(Some("wrong")).unwrap_err().code, Code::SudoRefused);
    assert_eq!(run(None).unwrap_err().code, Code::SudoRefused);
    server.fake_sudo("");
    assert_eq!(run(Some("right")).unwrap().0, b"input");
}

#[test]
fn a_dead_server_ends_readers_and_waiters() {
    let mut server = Server::start();
    let mut transport = server.connect();
    let child = transport.spawn("sleep 60").unwrap();
    // The session's own process, not only the listener, must go.
    let pid = server.sshd.id().to_string();
    let killed = Command::new("pkill").args(["-KILL", "-P", &pid]).status().unwrap();
    assert!(killed.success());
    let _ = server.sshd.kill();
    let (output, _, status) = finish(child, b"");
    assert_eq!((output.len(), status), (0, None));
    assert_eq!(transport.spawn("true").err().unwrap().code, Code::ConnectionLost);
}

/// A login that waits for a directory service, or a machine under load: longer than the pause between keepalives, within the time-out.
#[test]
fn a_server_that_starts_a_command_slowly_is_waited_for() {
    let server = Server::start();
    let mut transport = server.connect();
    let pid = server.sshd.id().to_string();
    let signal = |name: &str| Command::new("pkill").args([name, "-P", &pid]).status().unwrap();
    assert!(signal("-STOP").success());
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_secs(7));
            assert!(signal("-CONT").success());
        });
        let child = transport.spawn("cat").unwrap();
        assert_eq!(finish(child, b"late").0, b"late");
    });
}
