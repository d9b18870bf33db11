//! Handshakes with clients.
//!
//! ```text
//! connection ──ClientHello──> server name ──newest snapshot──> authorities for clients? ──> configuration ──> handshake ──> Session
//! ```
//!
//! INVARIANT: a handshake uses one certificate from its start to its end, so a rotation breaks none. Sessions are resumed only under the
//! configuration they began with: nobody resumes past a demand for certificates that came later, or past other authorities.

use super::client::{self, Authorities};
use crate::limits;
use crate::state::State;
use landfall_ingress_tls::certificate::Certificate;
use landfall_ingress_tls::{Options, Session, provider};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// Makes TLS connections of plain ones.
pub struct Acceptor {
    state: Arc<State>,
    options: Options,
    crypto: Arc<CryptoProvider>,
    resolver: Arc<Resolver>,
    /// For hosts that want no client certificates.
    plain: Arc<ServerConfig>,
    /// For those that do, by authorities.
    asking: Mutex<BTreeMap<Arc<Authorities>, Arc<ServerConfig>>>,
    handshakes: Mutex<Handshakes>,
    longest: Duration,
    most: usize,
}

/// Why there is no TLS connection.
#[derive(Debug)]
pub enum Refused {
    /// It took too long.
    Late,
    /// Too many at once, and this was the oldest.
    Crowded,
    /// The client's fault, or the connection's.
    Failed(io::Error),
}

impl Acceptor {
    /// Certificates come from the newest snapshot; a self-signed one is made for hosts without.
    pub fn new(state: Arc<State>, options: &Options) -> Result<Self, String> {
        let crypto = provider::chosen(options);
        let fallback = Certificate::self_signed()?;
        let resolver = Arc::new(Resolver {
            state: Arc::clone(&state),
            fallback: Arc::clone(fallback.key()),
        });
        let plain = configure(&crypto, options, &resolver, None)?;
        Ok(Self {
            state,
            options: options.clone(),
            crypto,
            resolver,
            plain: Arc::new(plain),
            asking: Mutex::default(),
            handshakes: Mutex::default(),
            longest: limits::TLS_HANDSHAKE,
            most: limits::TLS_HANDSHAKES,
        })
    }

    /// Other bounds, for tests.
    #[cfg(test)]
    pub(super) fn with_bounds(mut self, longest: Duration, most: usize) -> Self {
        (self.longest, self.most) = (longest, most);
        self
    }

    /// Shakes hands, within bounds of time and number.
    pub async fn accept<S>(&self, stream: S) -> Result<(TlsStream<S>, Session), Refused>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let place = self.enter();
        let result = tokio::select! {
            shaken = timeout(self.longest, self.shake(stream)) => match shaken {
                Ok(result) => result.map_err(Refused::Failed),
                Err(_) => Err(Refused::Late),
            },
            () = place.crowded.notified() => Err(Refused::Crowded),
        };
        if result.is_err() {
            self.state.counters.handshake_failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn shake<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Session)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let server_name = start.client_hello().server_name().map(client::normal);
        let asked = server_name
            .as_deref()
            .and_then(|name| client::asked(&self.state.routes(), name));
        let asking = asked.and_then(|authorities| self.asking(authorities));
        let (authorities, config) = match asking {
            Some((authorities, config)) => (Some(authorities), config),
            None => (None, Arc::clone(&self.plain)),
        };
        let stream = start.into_stream(config).await?;
        let connection = stream.get_ref().1;
        let suite = connection
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str());
        self.state.counters.handshake(suite.unwrap_or_default());
        let shown = connection.peer_certificates().unwrap_or_default();
        let session = Session {
            server_name,
            client_certificates: shown.iter().map(|der| der.to_vec()).collect(),
            authorities,
            version: connection.protocol_version(),
            http2: connection.alpn_protocol() == Some(b"h2"),
            strict: self.options.strict_sni,
        };
        Ok((stream, session))
    }

    /// The configuration that asks for certificates of these authorities. `None` when not one of them can be used; then no certificate
    /// is asked for, and [`client::admit`] refuses every request that needs one.
    fn asking(&self, authorities: Authorities) -> Option<(Arc<Authorities>, Arc<ServerConfig>)> {
        let mut configs = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((authorities, config)) = configs.get_key_value(&authorities) {
            return Some((Arc::clone(authorities), Arc::clone(config)));
        }
        // Rarely are there many; then sessions are forgotten, nothing more.
        if configs.len() >= landfall_ingress_tls::limits::TLS_CONFIGS {
            configs.clear();
        }
        let config = configure(&self.crypto, &self.options, &self.resolver, Some(&authorities)).ok()?;
        let (authorities, config) = (Arc::new(authorities), Arc::new(config));
        configs.insert(Arc::clone(&authorities), Arc::clone(&config));
        Some((authorities, config))
    }

    fn enter(&self) -> Place<'_> {
        let mut handshakes = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        if handshakes.under_way.len() >= self.most
            && let Some((_, oldest)) = handshakes.under_way.pop_first()
        {
            oldest.notify_one();
        }
        let number = handshakes.next;
        handshakes.next += 1;
        let crowded = Arc::new(Notify::new());
        handshakes.under_way.insert(number, Arc::clone(&crowded));
        Place {
            acceptor: self,
            number,
            crowded,
        }
    }
}

/// Without the keys.
impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Handshakes under way, the oldest first.
#[derive(Default)]
struct Handshakes {
    next: u64,
    under_way: BTreeMap<u64, Arc<Notify>>,
}

/// One handshake's place among them, given up when it is dropped.
struct Place<'a> {
    acceptor: &'a Acceptor,
    number: u64,
    crowded: Arc<Notify>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut handshakes = self.acceptor.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        handshakes.under_way.remove(&self.number);
    }
}

fn configure(
    crypto: &Arc<CryptoProvider>,
    options: &Options,
    resolver: &Arc<Resolver>,
    authorities: Option<&Authorities>,
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(crypto));
    let builder = builder
        .with_protocol_versions(provider::versions(options))
        .map_err(|error| format!("--tls-ciphers and --tls-min-version leave nothing to speak: {error}"))?;
    let verifier = match authorities {
        Some(authorities) => client::verifier(authorities).ok_or("no usable authority")?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let resolver = Arc::clone(resolver);
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    // INVARIANT: keys of its own, so that no session goes from one configuration to another.
    if let Some(tickets) = provider::tickets() {
        config.ticketer = tickets;
    }
    Ok(config)
}

/// What is spoken over TLS.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Picks the certificate by the server name, from the newest snapshot.
struct Resolver {
    state: Arc<State>,
    fallback: Arc<CertifiedKey>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let snapshot = self.state.routes();
        let name = hello.server_name().map(client::normal).unwrap_or_default();
        let certificate = snapshot.certificate(&name);
        Some(Arc::clone(
            certificate.map_or(&self.fallback, |certificate| certificate.key()),
        ))
    }
}
