//! The proxies that are compared, equally configured: one worker, kept connections on both sides, forwarded fields, upgrades, bodies
//! that are not held back, no access log. Limits are their own.

use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where a proxy takes what.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// HTTP/1.1.
    pub http: SocketAddr,
    /// HTTP/2 by prior knowledge.
    pub http2: SocketAddr,
    /// TLS.
    pub https: Option<SocketAddr>,
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
    /// Folder for its files.
    pub folder: &'a Path,
    /// The routes, each host's one after another.
    pub sites: &'a [Site],
    /// PEM of a certificate and of its key.
    pub certificate: (&'a str, &'a str),
}

/// A running nginx or haproxy.
pub struct Peer {
    child: Child,
    /// Where it listens.
    pub ports: Ports,
}

impl Peer {
    /// Its first process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it calls its version; empty where it is not installed.
    pub fn version(name: &str) -> String {
        let output = Command::new(program(name)).arg("-v").stdin(Stdio::null()).output();
        let text = output.map_or_else(|_| Vec::new(), |output| [output.stdout, output.stderr].concat());
        String::from_utf8_lossy(&text)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    /// Debian's nginx.
    pub fn nginx(task: &Task) -> Result<Self> {
        let ports = free_ports()?;
        let folder = task.folder.display();
        fs::write(task.folder.join("tls.crt"), task.certificate.0)?;
        fs::write(task.folder.join("tls.key"), task.certificate.1)?;
        let mut text = format!(
            "daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log error;\n\
             events {{ worker_connections 8192; }}\n\
             http {{\n access_log off; server_tokens off; keepalive_timeout 75s; keepalive_requests 1000000000;\n\
             server_names_hash_max_size 65536; server_names_hash_bucket_size 128; proxy_http_version 1.1;\n\
             proxy_request_buffering off; client_max_body_size 0; map $http_upgrade $upgrade {{ default upgrade; '' ''; }}\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade;\n\
             proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr;\n\
             proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;\n\
             proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Port $server_port;\n\
             ssl_certificate {folder}/tls.crt; ssl_certificate_key {folder}/tls.key; ssl_protocols TLSv1.3; ssl_ecdh_curve X25519;\n\
             ssl_session_cache off; ssl_session_tickets off;\n"
        );
        let https = ports.https.context("a port for TLS")?;
        let listen = format!(
            "listen {}; listen {} http2; listen {https} ssl;",
            ports.http, ports.http2
        );
        let default = format!(
            "listen {} default_server; listen {} http2 default_server;",
            ports.http, ports.http2
        );
        writeln!(
            text,
            " server {{ {default} listen {https} ssl default_server; server_name _; return 404; }}"
        )?;
        for (number, site) in task.sites.iter().enumerate() {
            let servers: String = site
                .backends
                .iter()
                .map(|address| format!("server {address}; "))
                .collect();
            writeln!(
                text,
                " upstream u{number} {{ {servers} keepalive 64; keepalive_requests 1000000000; }}"
            )?;
        }
        let numbered: Vec<_> = task.sites.iter().enumerate().collect();
        for sites in numbered.chunk_by(|(_, a), (_, b)| a.host == b.host) {
            write!(text, " server {{ {listen} server_name {};", sites[0].1.host)?;
            for (number, Site { path, .. }) in sites {
                if *path == "/" {
                    write!(text, " location / {{ proxy_pass http://u{number}; }}")?;
                } else {
                    write!(text, " location = {path} {{ proxy_pass http://u{number}; }}")?;
                    write!(text, " location {path}/ {{ proxy_pass http://u{number}; }}")?;
                }
            }
            text.push_str(" }\n");
        }
        text.push_str("}\n");
        let file = task.folder.join("nginx.conf");
        fs::write(&file, text)?;
        Self::start("nginx", &["-c".as_ref(), file.as_os_str()], ports, task)
    }

    /// Debian's haproxy.
    pub fn haproxy(task: &Task) -> Result<Self> {
        let ports = free_ports()?;
        let folder = task.folder.display();
        fs::write(
            task.folder.join("tls.pem"),
            format!("{}{}", task.certificate.0, task.certificate.1),
        )?;
        let (mut map, mut paths, mut backends) = (String::new(), String::new(), String::new());
        for (
            number,
            Site {
                host,
                path,
                backends: addresses,
            },
        ) in task.sites.iter().enumerate()
        {
            if *path == "/" {
                writeln!(map, "{host} b{number}")?;
            } else {
                let is_host = format!("{{ req.hdr(host),field(1,:),lower -m str {host} }}");
                writeln!(paths, " use_backend b{number} if {is_host} {{ path {path} }}")?;
                writeln!(paths, " use_backend b{number} if {is_host} {{ path_beg {path}/ }}")?;
            }
            writeln!(backends, "backend b{number}\n http-reuse always")?;
            for (index, address) in addresses.iter().enumerate() {
                writeln!(backends, " server s{index} {address}")?;
            }
        }
        fs::write(task.folder.join("hosts.map"), map)?;
        let https = ports.https.context("a port for TLS")?;
        let text = format!(
            "global\n nbthread 1\n maxconn 8192\n tune.ssl.cachesize 0\n ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets\n\
             \x20ssl-default-bind-curves X25519\n\
             defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n timeout http-keep-alive 75s\n\
             frontend f\n bind {}\n bind {} proto h2\n bind {https} ssl crt {folder}/tls.pem\n\
             \x20http-request del-header X-Forwarded-For\n http-request set-header X-Forwarded-For %[src]\n\
             \x20http-request set-header X-Real-IP %[src]\n http-request set-header X-Forwarded-Host %[req.hdr(host)]\n\
             \x20http-request set-header X-Forwarded-Port %[dst_port]\n\
             \x20http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}\n\
             \x20http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}\n\
             {paths}\x20use_backend %[req.hdr(host),field(1,:),lower,map({folder}/hosts.map,none)]\n default_backend none\n\
             backend none\n http-request return status 404\n{backends}",
            ports.http, ports.http2
        );
        let file = task.folder.join("haproxy.cfg");
        fs::write(&file, text)?;
        Self::start(
            "haproxy",
            &["-db".as_ref(), "-q".as_ref(), "-f".as_ref(), file.as_os_str()],
            ports,
            task,
        )
    }

    fn start(name: &str, arguments: &[&std::ffi::OsStr], ports: Ports, task: &Task) -> Result<Self> {
        let (folder, core) = (task.folder, task.core);
        let path = program(name);
        let error = fs::File::create(folder.join("stderr"))?;
        let mut command = match core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", &core.to_string(), &path]);
                command
            }
            None => Command::new(&path),
        };
        command.args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(error);
        let mut peer = Self {
            child: command.spawn().with_context(|| path.clone())?,
            ports,
        };
        let start = Instant::now();
        while TcpStream::connect(ports.http).is_err() {
            if peer.child.try_wait()?.is_some() || start.elapsed() > Duration::from_secs(30) {
                let said = fs::read_to_string(folder.join("stderr")).unwrap_or_default();
                bail!("{path} does not listen: {said}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(peer)
    }
}

/// Where Debian puts it.
fn program(name: &str) -> String {
    format!("/usr/sbin/{name}")
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
        https: Some(port(2)?),
    })
}
