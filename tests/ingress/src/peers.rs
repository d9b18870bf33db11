//! The proxies that are compared, equally configured: one worker, kept connections on both sides, forwarded fields, upgrades, bodies
//! that are not held back, no access log. Limits are their own.

mod haproxy;
mod nginx;
mod traefik;

use crate::client;
use anyhow::{Context, Result, bail};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Number of attempts to start a proxy whose ports are in use.
const TRIES: u32 = 5;
/// What all of them say then, in lower case.
const TAKEN: &str = "address already in use";

/// Where a proxy takes what.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// HTTP/1.1.
    pub http: SocketAddr,
    /// HTTP/2 by prior knowledge.
    pub http2: SocketAddr,
    /// TLS.
    pub https: SocketAddr,
}

/// One route.
#[derive(Debug, Clone)]
pub struct Site {
    /// Host, lower case.
    pub host: String,
    /// Prefix of the path by elements, `/` for all. A host needs one for `/`, and has it last.
    pub path: &'static str,
    /// What answers there.
    pub backends: Vec<SocketAddr>,
}

/// What a peer is told.
pub struct Task<'a> {
    /// Keeps the peer on this core.
    pub core: Option<usize>,
    /// The routes, each host's one after another.
    pub sites: &'a [Site],
    /// PEM of a certificate and of its key.
    pub certificate: (&'a str, &'a str),
}

/// A running nginx, haproxy or traefik.
pub struct Peer {
    child: Child,
    /// Where it listens.
    pub ports: Ports,
    _folder: TempDir,
}

/// Which proxy.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Debian's.
    Nginx,
    /// Debian's.
    Haproxy,
    /// This program.
    Traefik(PathBuf),
}

impl Kind {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Traefik(_) => "traefik",
        }
    }

    /// Where its program is.
    pub fn program(&self) -> &Path {
        match self {
            Self::Nginx => Path::new("/usr/sbin/nginx"),
            Self::Haproxy => Path::new("/usr/sbin/haproxy"),
            Self::Traefik(program) => program,
        }
    }

    /// The first line of what it says of its version; empty where it is not installed.
    pub fn version(&self) -> String {
        let flag = if matches!(self, Self::Traefik(_)) {
            "version"
        } else {
            "-v"
        };
        let output = Command::new(self.program()).arg(flag).stdin(Stdio::null()).output();
        let text = output.map_or_else(|_| Vec::new(), |output| [output.stdout, output.stderr].concat());
        String::from_utf8_lossy(&text)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Peer {
    /// Its first process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts it; waits, 30 s at most, until it answers by its routes.
    pub async fn start(kind: &Kind, task: &Task<'_>) -> Result<Self> {
        let mut tries = 1;
        loop {
            match Self::start_once(kind, task).await {
                // Another connection has taken one of the free ports in the meantime.
                Err(error) if tries < TRIES && error.to_string().to_lowercase().contains(TAKEN) => tries += 1,
                result => return result,
            }
        }
    }

    async fn start_once(kind: &Kind, task: &Task<'_>) -> Result<Self> {
        let mut ports = free_ports()?;
        if let Kind::Traefik(_) = kind {
            ports.http2 = ports.http;
        }
        let folder = tempfile::tempdir()?;
        let arguments = match kind {
            Kind::Nginx => nginx::configure(task, &ports, folder.path()),
            Kind::Haproxy => haproxy::configure(task, &ports, folder.path()),
            Kind::Traefik(_) => traefik::configure(task, &ports, folder.path()),
        }?;
        let program = kind.program();
        let said = folder.path().join("stderr");
        let mut command = match task.core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", &core.to_string()]).arg(program);
                command
            }
            None => Command::new(program),
        };
        // For programs in Go; the others have the number of their threads in their files.
        command.env("GOMAXPROCS", "1").args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&said)?);
        let mut peer = Self {
            child: command.spawn().with_context(|| program.display().to_string())?,
            ports,
            _folder: folder,
        };
        let host = task.sites.first().map_or("", |site| &site.host);
        let start = Instant::now();
        while !knows(ports.http, host).await {
            if peer.child.try_wait()?.is_some() || start.elapsed() > Duration::from_secs(30) {
                let said = fs::read_to_string(said).unwrap_or_default();
                bail!("{} does not serve {host}: {said}", program.display());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(peer)
    }
}

/// Whether this host is served: traefik listens before it has read its routes. The backend is asked for it, too.
async fn knows(address: SocketAddr, host: &str) -> bool {
    let (status, _) = client::fetch(address, host, "/").await;
    ![0, 404].contains(&status)
}

impl Drop for Peer {
    fn drop(&mut self) {
        // nginx's master ends its worker on SIGTERM, not on SIGKILL.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn free_ports() -> Result<Ports> {
    let listeners: Vec<_> = (0..3)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()?;
    let port = |index: usize| listeners[index].local_addr();
    Ok(Ports {
        http: port(0)?,
        http2: port(1)?,
        https: port(2)?,
    })
}
