//! TLS to endpoints: what is checked of their certificates, and the name that is asked for.

use super::provider::provider;
use crate::certificate::{Certificate, Fault};
use crate::limits;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// HTTP version that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alpn {
    /// `http/1.1`.
    Http1,
    /// `h2`.
    Http2,
}

/// A certificate of ours, with its key, that endpoints are shown.
#[derive(Debug)]
pub struct Identity {
    certificate: Certificate,
    /// Tells identities apart: a hash of what they were read from.
    digest: [u8; 32],
}

impl Identity {
    /// Reads a chain and its key, both PEM.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, Fault> {
        let digest = Sha256::new().chain_update(chain).chain_update([0]).chain_update(key);
        Ok(Self {
            certificate: Certificate::read(chain, key)?,
            digest: digest.finalize().into(),
        })
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Identity {}

/// How TLS is spoken with endpoints. The default checks nothing, as ingress-nginx does unless told otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// Name that an endpoint must prove; `None` is not checked.
    pub name: Option<String>,
    /// Whether an endpoint's certificate is checked against `authorities`.
    pub verify: bool,
    /// DER certificates of the authorities; shared, because each connection's configuration is looked up by them.
    pub authorities: Arc<[Vec<u8>]>,
    /// Certificate that endpoints are shown when they ask for one.
    pub identity: Option<Arc<Identity>>,
}

/// What makes two configurations the same.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    alpn: Alpn,
    check: Check,
    authorities: Arc<[Vec<u8>]>,
    identity: Option<[u8; 32]>,
}

/// What is checked of an endpoint's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Check {
    /// Nothing, as ingress-nginx does unless told otherwise.
    Nothing,
    /// That an authority signed it.
    Chain,
    /// That an authority signed it for the name.
    Name,
}

static CONFIGS: Mutex<BTreeMap<Key, Arc<ClientConfig>>> = Mutex::new(BTreeMap::new());

/// How to speak TLS with the endpoints of a route. The same wishes give the same configuration, which remembers sessions.
///
/// When endpoints are to be checked and there is no usable authority, every endpoint is refused.
pub fn config(settings: &ClientSettings, alpn: Alpn) -> Arc<ClientConfig> {
    let key = Key {
        alpn,
        check: match (settings.verify, &settings.name) {
            (false, _) => Check::Nothing,
            (true, None) => Check::Chain,
            (true, Some(_)) => Check::Name,
        },
        authorities: if settings.verify {
            Arc::clone(&settings.authorities)
        } else {
            Arc::default()
        },
        identity: settings.identity.as_ref().map(|identity| identity.digest),
    };
    let mut configs = CONFIGS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(config) = configs.get(&key) {
        return Arc::clone(config);
    }
    // Rarely are there many; then sessions are forgotten, nothing more.
    if configs.len() >= limits::TLS_CONFIGS {
        configs.clear();
    }
    let config = Arc::new(build(&key, settings.identity.as_deref()));
    configs.insert(key, Arc::clone(&config));
    config
}

/// The name that an endpoint is asked for: the one that was named, else its address, which is not sent. `None` when it is no name: then
/// there must be no connection.
pub fn name(settings: &ClientSettings, endpoint: IpAddr) -> Option<ServerName<'static>> {
    match &settings.name {
        Some(name) => ServerName::try_from(name.clone()).ok(),
        None => Some(ServerName::IpAddress(endpoint.into())),
    }
}

fn build(key: &Key, identity: Option<&Identity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(key.authorities.iter().map(|der| CertificateDer::from(der.as_slice())));
    let verifier = Verifier {
        check: key.check,
        roots,
    };
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(identity) => {
            let shown = SingleCertAndKey::from(Arc::clone(identity.certificate.key()));
            builder.with_client_cert_resolver(Arc::new(shown))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![match key.alpn {
        Alpn::Http1 => b"http/1.1".to_vec(),
        Alpn::Http2 => b"h2".to_vec(),
    }];
    config
}

#[derive(Debug)]
struct Verifier {
    check: Check,
    roots: RootCertStore,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.check != Check::Nothing {
            let own = ParsedCertificate::try_from(own)?;
            let algorithms = provider().signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&own, &self.roots, others, now, algorithms)?;
            if self.check == Check::Name {
                verify_server_name(&own, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.check == Check::Nothing {
            // A certificate that proves nothing may be one that cannot be parsed either.
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, own, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.check == Check::Nothing {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, own, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
