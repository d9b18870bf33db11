//! The servers that the recipe `upstream` asks, in one process: files and OCI registries over HTTPS on a loopback port, under the names of
//! the real ones, behind a proxy that leads every name there. They fail as they are told to ([`Fault`]).

mod content;
mod server;

use crate::pipes::lock;
use anyhow::{Context, Result};
pub use content::{ARCHITECTURES, elf};
use landfall_bundle::{Bundle, Verified};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// Every name that the servers answer to.
const NAMES: [&str; 9] = [
    "dl.k8s.io",
    "github.com",
    "files.test",
    "registry.k8s.io",
    "registry-1.docker.io",
    "ghcr.io",
    "auth.test",
    "mirror.test",
    "127.0.0.1",
];

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status, with this Retry-After in seconds.
    Status(u16, Option<u64>),
    /// The connection ends behind so many hundredths of the body.
    Cut(usize),
    /// The last byte is another one.
    WrongByte,
    /// Ranges are passed over: the whole body comes, with status 200.
    NoRange,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Host and path: `dl.k8s.io/release/…`.
    pub what: String,
    /// Value of the header Range.
    pub range: Option<String>,
    /// Value of the header Authorization.
    pub authorization: Option<String>,
}

#[derive(Default)]
struct State {
    /// Host and path of each file.
    files: BTreeMap<String, Vec<u8>>,
    /// Host, repository and tag or digest of each manifest.
    manifests: BTreeMap<(String, String, String), Vec<u8>>,
    /// Blobs of all registries.
    blobs: BTreeMap<String, Vec<u8>>,
    /// Part of host and path, fault, and how many requests are still to get it.
    faults: Vec<(String, Fault, usize)>,
    /// Hosts whose images need a login, and the header that is one.
    private: BTreeMap<String, String>,
    seen: Vec<Seen>,
    /// Hosts to which the proxy was asked to lead.
    led: Vec<String>,
}

/// The running servers. They end when it is dropped.
pub struct Publishers {
    state: Arc<Mutex<State>>,
    /// Port of the HTTPS server.
    port: u16,
    proxy_port: u16,
    ca: String,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Publishers {
    /// Starts servers that have everything of the default versions.
    pub fn start() -> Result<Self> {
        Self::with(&content::Words, 2099)
    }

    /// Starts servers that have what is in a bundle of the default versions, under publishers' names. It is held in memory.
    pub fn start_with(bundle: &Bundle<Verified>) -> Result<Self> {
        Self::with(bundle, 2099)
    }

    /// The same with a certificate that is valid no more.
    pub fn start_expired() -> Result<Self> {
        Self::with(&content::Words, 2020)
    }

    fn with(source: &dyn content::Source, last_year: i32) -> Result<Self> {
        let Certified { chain, key, ca } = certificate(last_year)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![chain], PrivateKeyDer::Pkcs8(key))
            .context("a certificate that was just made")?;
        let mut state = State::default();
        content::fill(&mut state, source)?;
        let state = Arc::new(Mutex::new(state));
        let (port, stop) = server::start(Arc::new(config), Arc::clone(&state))?;
        let proxy_port = proxy(port, Arc::clone(&state))?;
        Ok(Self {
            state,
            port,
            proxy_port,
            ca,
            _stop: stop,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The certificate authority of the servers, in PEM form.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// Value of HTTPS_PROXY for which every name leads here.
    pub fn proxy(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy_port)
    }

    /// The server's own address.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The next `times` requests of which host and path contain `what` fail so.
    pub fn fail(&self, what: &str, fault: Fault, times: usize) {
        self.state().faults.push((what.to_owned(), fault, times));
    }

    /// Removes what host and path contain, in files and manifests.
    pub fn remove(&self, what: &str) {
        let mut state = self.state();
        state.files.retain(|path, _| !path.contains(what));
        let full =
            |(host, repository, reference): &(String, String, String)| format!("{host}/{repository}:{reference}");
        state.manifests.retain(|key, _| !full(key).contains(what));
    }

    /// Gives all images of one registry to another host too, below a path.
    pub fn mirror(&self, from: &str, to: &str, path: &str) {
        let mut state = self.state();
        let of = |(key, text): (&(String, String, String), &Vec<u8>)| {
            let (host, repository, reference) = key;
            let key = (to.to_owned(), format!("{path}{repository}"), reference.clone());
            (host == from).then(|| (key, text.clone()))
        };
        let copies: Vec<_> = state.manifests.iter().filter_map(of).collect();
        state.manifests.extend(copies);
    }

    /// Gives all files of one host to another one too, below a path.
    pub fn mirror_files(&self, from: &str, to: &str) {
        let mut state = self.state();
        let of =
            |(path, bytes): (&String, &Vec<u8>)| Some((format!("{to}{}", path.strip_prefix(from)?), bytes.clone()));
        let copies: Vec<_> = state.files.iter().filter_map(of).collect();
        state.files.extend(copies);
    }

    /// The images of a host need this login.
    pub fn require_login(&self, host: &str, basic: &str) {
        self.state().private.insert(host.to_owned(), basic.to_owned());
    }

    /// Adds a file, or replaces it.
    pub fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.state().files.insert(path.to_owned(), bytes.into());
    }

    /// Returns a file.
    pub fn file(&self, path: &str) -> Result<Vec<u8>> {
        self.state().files.get(path).cloned().context("there is no such file")
    }

    /// Returns every manifest, by host, repository and tag or digest.
    pub fn manifests(&self) -> BTreeMap<(String, String, String), Vec<u8>> {
        self.state().manifests.clone()
    }

    /// Returns every blob of an image, by its digest.
    pub fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        self.state().blobs.clone()
    }

    /// Returns the requests that came since the last call.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state().seen)
    }

    /// Returns the hosts to which the proxy led since the last call.
    pub fn led(&self) -> Vec<String> {
        std::mem::take(&mut self.state().led)
    }
}

/// A certificate for all names.
struct Certified {
    chain: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    /// Its authority, in PEM form.
    ca: String,
}

/// Returns certificate, key and authority of a server at 127.0.0.1, in PEM form.
pub fn certificate_files() -> Result<[String; 3]> {
    let Certified { chain, key, ca } = certificate(2099)?;
    let key = crate::cluster::pem(key.secret_pkcs8_der()).replace("CERTIFICATE", "PRIVATE KEY");
    Ok([crate::cluster::pem(&chain), key, ca])
}

fn certificate(last_year: i32) -> Result<Certified> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key)?;
    let issuer = Issuer::from_params(&params, &key);
    let leaf_key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(NAMES.map(str::to_owned))?;
    leaf.not_before = date_time_ymd(2019, 1, 1);
    leaf.not_after = date_time_ymd(last_year, 1, 1);
    let leaf = leaf.signed_by(&leaf_key, &issuer)?;
    Ok(Certified {
        chain: leaf.der().clone(),
        key: PrivatePkcs8KeyDer::from(leaf_key.serialize_der()),
        ca: crate::cluster::pem(authority.der()),
    })
}

/// A proxy that answers CONNECT, and leads everybody to the one server.
fn proxy(port: u16, state: Arc<Mutex<State>>) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let own = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let state = Arc::clone(&state);
            // A client that goes away is no concern of the test.
            std::thread::spawn(move || drop(lead(client, port, &state)));
        }
    });
    Ok(own)
}

fn lead(client: TcpStream, port: u16, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let host = line.split(' ').nth(1).unwrap_or_default().to_owned();
    while line.trim() != "" {
        line.clear();
        reader.read_line(&mut line)?;
    }
    lock(state).led.push(host);
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let mut client = client;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut back, mut to_server, mut to_client) = (server.try_clone()?, server, client);
    let there = std::thread::spawn(move || {
        let copied = std::io::copy(&mut reader, &mut to_server);
        drop(to_server.shutdown(std::net::Shutdown::Write));
        copied
    });
    std::io::copy(&mut back, &mut to_client)?;
    to_client.shutdown(std::net::Shutdown::Both)?;
    drop(there.join());
    Ok(())
}
