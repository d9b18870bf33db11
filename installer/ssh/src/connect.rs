//! Connection set-up: TCP, jump hosts or a proxy command; handshake; host key check; login. Then the session's pump thread takes over.

use crate::auth::log_in;
use crate::key::{fingerprint, key_type};
use crate::known_hosts::{KnownHosts, Verdict, render_line};
use crate::options::SshOptions;
use crate::proxy::ProxyProcess;
use crate::pump::{DEAD_AFTER, Pump};
use crate::resolve::resolve;
use crate::start::{self, Root, RunAs, Terminal};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::{Connect, Proxy};
use landfall_core::transport::{RemoteChild, Transport};
use ssh2::{ErrorCode, MethodType, Session};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// First pause before a retry, when the server closed the connection before its banner; each further pause is twice as long, up to the maximum.
/// sshd drops connections at random when more than 10 have not logged in yet (sshd_config(5), MaxStartups 10:30:100).
const RETRY_PAUSE: Duration = Duration::from_millis(250);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// libssh2's codes for a server that closed the connection before it sent its version.
const NO_BANNER: [ErrorCode; 3] = [ErrorCode::Session(-2), ErrorCode::Session(-13), ErrorCode::Session(-43)];
/// Held while a new host key is written, so that two threads do not write the same file at once.
static WRITING_KNOWN_HOSTS: Mutex<()> = Mutex::new(());

/// A logged-in SSH connection.
pub struct SshTransport {
    connect: Connect,
    pump: Pump,
    shell_timeout: Duration,
    /// Whether sudo or doas wants one.
    terminal: Terminal,
    /// The connection's route, which must be dropped after the connection.
    _way: Route,
}

/// What a connection runs over and must keep alive.
enum Route {
    Tcp,
    Command(ProxyProcess),
    Jump {
        /// The connection to the last jump host, which ends when it is dropped.
        _host: Box<SshTransport>,
    },
}

impl SshTransport {
    /// Connects and logs in, through jump hosts if any. Each host key is checked before a secret is sent. Blocks for at most a few time-outs for each
    /// machine on the way.
    pub fn connect(connect: &Connect, options: &SshOptions) -> Result<Self, Diagnosis> {
        let known = KnownHosts::read(known_hosts_files(connect, options))?;
        let (session, socket, way) = handshake(connect, options, &known)?;
        check_host_key(&session, connect, options, &known)?;
        log_in(&session, connect, options)?;
        let pump = Pump::start(session, socket).map_err(|error| unreachable_host(connect).because(&error))?;
        Ok(Self {
            connect: connect.clone(),
            pump,
            shell_timeout: options.shell_timeout,
            terminal: Terminal::Without,
            _way: way,
        })
    }
}

impl Transport for SshTransport {
    fn spawn(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
        start::start(&mut self.pump, command, RunAs::LoginUser, self.shell_timeout)
    }

    fn spawn_root(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
        if !self.connect.become_root || self.connect.user == "root" {
            return self.spawn(command);
        }
        let root = Root {
            password: self.connect.become_password.as_ref(),
            terminal: &mut self.terminal,
        };
        start::start(&mut self.pump, command, RunAs::Root(root), self.shell_timeout)
    }
}

fn unreachable_host(connect: &Connect) -> Diagnosis {
    Diagnosis::new(
        Code::Unreachable,
        format!("{} port {} cannot be reached over SSH", connect.host, connect.port),
    )
}

/// Connects and does the key exchange. A server that closes the connection before its banner has too many logins at once and is retried.
fn handshake(
    connect: &Connect,
    options: &SshOptions,
    known: &KnownHosts,
) -> Result<(Session, OwnedFd, Route), Diagnosis> {
    let began = Instant::now();
    let mut pause = RETRY_PAUSE;
    loop {
        let (socket, way) = open_route(connect, options)?;
        let copy = socket
            .try_clone()
            .map_err(|error| unreachable_host(connect).because(&error))?;
        let mut session =
            Session::new().map_err(|e| Diagnosis::new(Code::Internal, "no SSH session can be made").because(&e))?;
        session.set_timeout(u32::try_from(options.timeout.as_millis()).unwrap_or(u32::MAX));
        prefer(&session, connect, known);
        session.set_tcp_stream(socket);
        let Err(error) = session.handshake() else {
            return Ok((session, copy, way));
        };
        if NO_BANNER.contains(&error.code()) && began.elapsed() + pause < options.timeout {
            thread::sleep(with_jitter(pause));
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
            continue;
        }
        let mut diagnosis = unreachable_host(connect).because(&error);
        if let Route::Command(process) = &way {
            return Err(diagnosis
                .saw(format!("the proxy command printed: {}", process.stderr_text()))
                .next("run the command by hand: it has to connect its standard input and output to the machine's SSH port"));
        }
        diagnosis = diagnosis.saw("the port answers, but the SSH handshake failed");
        return Err(if NO_BANNER.contains(&error.code()) {
            diagnosis.next("the server closed the connection before its banner: look for MaxStartups, PerSourcePenalties, fail2ban or hosts.deny on it")
        } else {
            diagnosis
                .next("look whether an SSH server of the last ten years listens there (SHA-1 key exchange is refused)")
        });
    }
}

/// Returns the pause with jitter, between half and one and a half of it, so that many connections do not retry at the same moment.
fn with_jitter(pause: Duration) -> Duration {
    let mut random = [0u8; 1];
    // Without random bytes the pause has no jitter.
    let share = match rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => f64::from(random[0]) / 255.0,
        Err(_) => 0.5,
    };
    pause.mul_f64(0.5 + share)
}

fn open_route(connect: &Connect, options: &SshOptions) -> Result<(OwnedFd, Route), Diagnosis> {
    match &connect.ssh.proxy {
        None | Some(Proxy::Direct) => Ok((open_tcp(connect, options)?.into(), Route::Tcp)),
        Some(Proxy::Command(command)) => {
            let (process, stream) = ProxyProcess::start(command, connect)?;
            Ok((stream.into(), Route::Command(process)))
        }
        Some(Proxy::Jump(hops)) => {
            let Some((last, before)) = hops.split_last() else {
                return Ok((open_tcp(connect, options)?.into(), Route::Tcp));
            };
            let mut last = last.clone();
            if !before.is_empty() {
                last.ssh.proxy = Some(Proxy::Jump(before.to_vec()));
            }
            let on_the_way = |d: Diagnosis| {
                d.saw(format!(
                    "on the way to {}: at the jump host {}",
                    connect.host, last.host
                ))
            };
            let mut hop = SshTransport::connect(&last, options).map_err(on_the_way)?;
            let stream = hop.pump.forward(&connect.host, connect.port).map_err(on_the_way)?;
            Ok((stream.into(), Route::Jump { _host: Box::new(hop) }))
        }
    }
}

fn open_tcp(connect: &Connect, options: &SshOptions) -> Result<TcpStream, Diagnosis> {
    let mut last = unreachable_host(connect);
    for address in resolve(&connect.host)? {
        match TcpStream::connect_timeout(&SocketAddr::new(address, connect.port), options.timeout) {
            Ok(stream) => {
                let set = stream
                    .set_nodelay(true)
                    .and_then(|()| Ok(rustix::net::sockopt::set_socket_keepalive(&stream, true)?))
                    .and_then(|()| {
                        let limit = u32::try_from(DEAD_AFTER.as_millis()).unwrap_or(u32::MAX);
                        Ok(rustix::net::sockopt::set_tcp_user_timeout(&stream, limit)?)
                    });
                set.map_err(|error| unreachable_host(connect).because(&error))?;
                return Ok(stream);
            }
            Err(error) => last = unreachable_host(connect).saw(address.to_string()).because(&error),
        }
    }
    Err(last.next(format!("ssh -p {} {}@{}", connect.port, connect.user, connect.host)))
}

/// Returns the files of known host keys: the user's, and those of this machine, whatever the user's are (ssh_config(5), GlobalKnownHostsFile).
fn known_hosts_files<'a>(connect: &'a Connect, options: &'a SshOptions) -> impl Iterator<Item = &'a PathBuf> {
    let own = connect.ssh.known_hosts.as_ref().unwrap_or(&options.known_hosts);
    let global = connect.ssh.global_known_hosts.as_ref();
    let global = global.unwrap_or(&options.global_known_hosts);
    own.iter().chain(new_keys_file(connect, options)).chain(global)
}

/// Returns the file for new host keys: the first one that ssh_config names for the host, else the default. There is none where it says `none`.
fn new_keys_file<'a>(connect: &'a Connect, options: &'a SshOptions) -> Option<&'a PathBuf> {
    match &connect.ssh.known_hosts {
        Some(files) => files.first(),
        None => Some(&options.new_keys),
    }
}

/// Prefers the key types by which the host is known, and AES-GCM when the processor has AES instructions: libssh2's own order begins with
/// its portable chacha20, which is several times slower there.
fn prefer(session: &Session, connect: &Connect, known: &KnownHosts) {
    let supported = session.supported_algs(MethodType::HostKey).unwrap_or_default();
    let order = known.prefer(&connect.host, connect.port, &supported).join(",");
    // A preference that libssh2 refuses leaves its default order, which works too.
    let _ = session.method_pref(MethodType::HostKey, &order);
    if std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" aes ")) {
        let ciphers =
            "aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr,chacha20-poly1305@openssh.com";
        let _ = session.method_pref(MethodType::CryptCs, ciphers);
        let _ = session.method_pref(MethodType::CryptSc, ciphers);
    }
}

fn check_host_key(
    session: &Session,
    connect: &Connect,
    options: &SshOptions,
    known: &KnownHosts,
) -> Result<(), Diagnosis> {
    let (host, port) = (connect.host.as_str(), connect.port);
    let key = session.host_key().map(|(key, _)| key);
    let key = key.ok_or_else(|| Diagnosis::new(Code::HostKeyUnknown, format!("{host} presented no host key")))?;
    let shown = format!("{} {}", key_type(key).unwrap_or("unknown"), fingerprint(key));
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mismatch =
        |what: &str| Diagnosis::new(Code::HostKeyMismatch, format!("the host key of {host} {what}")).saw(shown.clone());
    match known.check(host, port, key, now_s) {
        Verdict::Known => Ok(()),
        Verdict::Revoked { place } => Err(mismatch("is marked as revoked").saw(place)),
        Verdict::Certificate { why } => Err(mismatch("has a certificate that does not hold").saw(why)),
        Verdict::Unreadable { place, .. } => Err(Diagnosis::new(
            Code::FileUnreadable,
            format!("a line for {host} in known_hosts cannot be read"),
        )
        .saw(place)
        .next("correct the line or remove it")),
        Verdict::Mismatch { places } => Err(places
            .into_iter()
            .fold(mismatch("is not the known one"), |d, place| {
                d.saw(format!("another key is in {place}"))
            })
            .next("find out why before anything else: somebody may intercept the connection")
            .next(format!(
                "if the machine was set up anew: ssh-keygen -R '[{host}]:{port}' and ssh-keygen -R {host}"
            ))),
        Verdict::Unknown if options.accept_new || connect.ssh.accept_new => {
            // Like ssh's, a user's settings without a file keep no new key.
            new_keys_file(connect, options).map_or(Ok(()), |file| remember(file, &render_line(host, port, key)))
        }
        Verdict::Unknown => Err(
            Diagnosis::new(Code::HostKeyUnknown, format!("the host key of {host} is not known"))
                .saw(shown)
                .next(
                    "compare the fingerprint with the machine's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub)",
                )
                .next("then run again with --accept-new-host-keys"),
        ),
    }
}

fn remember(file: &std::path::Path, line: &str) -> Result<(), Diagnosis> {
    let _one_at_a_time = WRITING_KNOWN_HOSTS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let append = || -> std::io::Result<()> {
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // Without this, a last line without a line end would run into the new line.
        let torn = std::fs::read(file).is_ok_and(|bytes| bytes.last().is_some_and(|b| *b != b'\n'));
        let line = if torn { format!("\n{line}") } else { line.to_owned() };
        // The line is appended by one write, so that a crash leaves whole lines.
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(file)?
            .write_all(line.as_bytes())
    };
    append().map_err(|error| {
        Diagnosis::new(
            Code::HostKeyUnknown,
            format!("the new host key cannot be written to {}", file.display()),
        )
        .because(&error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SshConfig;
    use crate::config::apply::Local;

    fn options() -> SshOptions {
        SshOptions {
            known_hosts: ["u1", "u2"].map(PathBuf::from).into(),
            global_known_hosts: ["g1", "g2"].map(PathBuf::from).into(),
            new_keys: "u1".into(),
            accept_new: true,
            agent_socket: None,
            default_keys: vec![],
            passphrases: None,
            timeout: Duration::from_secs(1),
            shell_timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn files_of_the_machine_count_whatever_those_of_the_user_are() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        let files = |settings: &str| {
            std::fs::write(&file, format!("Host cp-1\n{settings}")).unwrap();
            let config = SshConfig::read(&[(file.clone(), directory.path().to_owned())], true).unwrap();
            let text = "nodes: [{name: cp-1, role: control-plane, host: cp-1, user: admin}]\n";
            let desired = landfall_core::spec::parse::cluster_yaml(text, "cluster.yaml").unwrap();
            let mut connect = desired.inventory.nodes[0].connect.clone();
            let ignored = config.apply(&mut connect, &Local::default()).unwrap();
            assert!(ignored.is_empty(), "{ignored:?}");
            let read: Vec<String> = known_hosts_files(&connect, &options())
                .map(|path| path.display().to_string())
                .collect();
            (read.join(" "), new_keys_file(&connect, &options()).cloned())
        };
        let to = |name: &str| Some(PathBuf::from(name));
        assert_eq!(files(""), ("u1 u2 u1 g1 g2".to_owned(), to("u1")));
        assert_eq!(
            files("UserKnownHostsFile /a /b\n"),
            ("/a /b /a g1 g2".to_owned(), to("/a"))
        );
        assert_eq!(files("UserKnownHostsFile none\n"), ("g1 g2".to_owned(), None));
        assert_eq!(files("GlobalKnownHostsFile /g\n"), ("u1 u2 u1 /g".to_owned(), to("u1")));
        assert_eq!(
            files("UserKnownHostsFile /a\nGlobalKnownHostsFile none\n"),
            ("/a /a".to_owned(), to("/a"))
        );
    }
}
