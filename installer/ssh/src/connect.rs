//! Connecting: address, handshake with the right host key first, host key check, login; then the session goes to its pump thread.

use crate::auth::log_in;
use crate::known_hosts::{KnownHosts, Verdict, fingerprint, key_type, render_line};
use crate::pump::Pump;
use crate::resolve::resolve;
use crate::sudo;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Connect;
use landfall_core::transport::{RemoteChild, Transport};
use ssh2::{MethodType, Session};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// The kernel gives a connection up when sent bytes stay unanswered for so long: keepalives every 5 s make sure that some are sent.
const DEAD_AFTER: Duration = Duration::from_secs(30);
/// One at a time, so that two new hosts do not write the same file at once.
static WRITING_KNOWN_HOSTS: Mutex<()> = Mutex::new(());

/// How connections are made.
#[derive(Debug, Clone)]
pub struct SshOptions {
    /// Files of known host keys, in OpenSSH's format; ones that are absent are passed over.
    pub known_hosts: Vec<PathBuf>,
    /// Where keys of new hosts are written when they are accepted; `None` refuses unknown hosts.
    pub accept_new: Option<PathBuf>,
    /// Whether keys of an SSH agent are tried.
    pub use_agent: bool,
    /// Keys tried when the inventory names none.
    pub default_keys: Vec<PathBuf>,
    /// Time for the TCP connection and for each answer of the handshake.
    pub timeout: Duration,
}

/// A logged-in SSH connection.
pub struct SshTransport {
    connect: Connect,
    pump: Pump,
}

impl SshTransport {
    /// Connects and logs in. Blocks for at most some time-outs; the host key is checked before any secret is sent.
    pub fn connect(connect: &Connect, options: &SshOptions) -> Result<Self, Diagnosis> {
        let stream = reach(connect, options)?;
        let tcp = stream
            .try_clone()
            .map_err(|error| unreachable_host(connect).because(&error))?;
        let known = read_known_hosts(options);
        let mut session =
            Session::new().map_err(|e| Diagnosis::new(Code::Internal, "no SSH session can be made").because(&e))?;
        session.set_timeout(u32::try_from(options.timeout.as_millis()).unwrap_or(u32::MAX));
        prefer(&session, connect, &known);
        session.set_tcp_stream(stream);
        session.handshake().map_err(|error| {
            unreachable_host(connect)
                .saw("the port answers, but the SSH handshake failed")
                .because(&error)
                .next("look whether an SSH server of the last ten years listens there (SHA-1 key exchange is refused)")
        })?;
        check_host_key(&session, connect, options, &known)?;
        log_in(&session, connect, &options.default_keys, options.use_agent)?;
        let pump = Pump::start(session, tcp).map_err(|error| unreachable_host(connect).because(&error))?;
        Ok(Self {
            connect: connect.clone(),
            pump,
        })
    }
}

#[cfg(test)]
impl SshTransport {
    pub(crate) fn pump(&mut self) -> &mut Pump {
        &mut self.pump
    }
}

impl Transport for SshTransport {
    fn spawn(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
        self.pump.spawn(&sudo::shell(command))
    }

    fn spawn_root(&mut self, command: &str) -> Result<RemoteChild, Diagnosis> {
        if !self.connect.become_root || self.connect.user == "root" {
            return self.spawn(command);
        }
        sudo::spawn(&mut self.pump, command, self.connect.become_password.as_ref())
    }
}

fn unreachable_host(connect: &Connect) -> Diagnosis {
    Diagnosis::new(
        Code::Unreachable,
        format!("{} port {} cannot be reached over SSH", connect.host, connect.port),
    )
}

fn reach(connect: &Connect, options: &SshOptions) -> Result<TcpStream, Diagnosis> {
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

fn read_known_hosts(options: &SshOptions) -> KnownHosts {
    let mut known = KnownHosts::default();
    for file in options.known_hosts.iter().chain(&options.accept_new) {
        if let Ok(text) = std::fs::read_to_string(file) {
            known.extend(KnownHosts::parse(&text));
        }
    }
    known
}

/// Asks for the key types by which the host is known, and for AES-GCM where the processor has AES: libssh2's own order has its
/// portable chacha20 first, which is several times slower there.
fn prefer(session: &Session, connect: &Connect, known: &KnownHosts) {
    let supported = session.supported_algs(MethodType::HostKey).unwrap_or_default();
    let wanted = known.key_types(&connect.host, connect.port);
    let of_type = |algorithm: &&str| {
        wanted.contains(algorithm) || (wanted.contains(&"ssh-rsa") && algorithm.starts_with("rsa-sha2-"))
    };
    let (first, rest): (Vec<&str>, Vec<&str>) = supported.iter().copied().partition(|a| of_type(a));
    let order = [first, rest].concat().join(",");
    // A preference that is not taken leaves the default order, which works too.
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
    let type_name = key_type(key).unwrap_or("unknown");
    let print = fingerprint(key);
    match known.check(host, port, key) {
        Verdict::Known => Ok(()),
        Verdict::Revoked => Err(Diagnosis::new(Code::HostKeyMismatch, format!("the host key of {host} is marked as revoked"))
            .saw(format!("{type_name} {print}"))),
        Verdict::Mismatch => Err(Diagnosis::new(Code::HostKeyMismatch, format!("the host key of {host} is not the known one"))
            .saw(format!("{type_name} {print}"))
            .next("find out why before anything else: somebody may be in between")
            .next(format!("if the machine was set up anew: ssh-keygen -R '[{host}]:{port}' and ssh-keygen -R {host}"))),
        Verdict::Unknown => match &options.accept_new {
            Some(file) => remember(file, &render_line(host, port, type_name, key)),
            None => Err(Diagnosis::new(Code::HostKeyUnknown, format!("the host key of {host} is not known"))
                .saw(format!("{type_name} {print}"))
                .next("compare the fingerprint with the machine's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub)")
                .next("then run again with --accept-new-host-keys")),
        },
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
        // One write of one line in append mode: a crash leaves whole lines.
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
