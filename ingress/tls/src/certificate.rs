//! One certificate with its chain and key, read from the PEM of a Secret, and what people want to know of it. Pure.

use super::provider::provider;
use crate::limits;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use std::fmt;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate that can be served.
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
}

impl Certificate {
    /// Reads a chain and its key. The certificate that belongs to the key is put first and its issuers after it, in whatever order they
    /// are written; what belongs to neither is left out.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, Fault> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Fault::BadPem("tls.key"))?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|_| Fault::UnusableKey)?;
        let all = certificates_of(chain, "tls.crt")?;
        let mut all: Vec<CertificateDer<'static>> = all.into_iter().map(CertificateDer::from).collect();
        let fits = |der: &CertificateDer<'static>| {
            let candidate = CertifiedKey::new(vec![der.clone()], Arc::clone(&key));
            matches!(
                candidate.keys_match(),
                Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown))
            )
        };
        let own = all.iter().position(fits).ok_or(Fault::OtherKey)?;
        let mut chain = vec![all.remove(own)];
        while let Some(next) = issuer_of(chain.last(), &all) {
            chain.push(all.remove(next));
        }
        let (_, parsed) = X509Certificate::from_der(&chain[0]).map_err(|_| Fault::BadCertificate("tls.crt"))?;
        let (names, validity) = (names(&parsed), parsed.validity());
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Ok(Self {
            key: Arc::new(CertifiedKey::new(chain, key)),
            names,
            not_before,
            not_after,
        })
    }

    /// Makes a self-signed one whose key is nowhere but in memory.
    pub fn self_signed() -> Result<Self, String> {
        let failed = |error: rcgen::Error| format!("no self-signed certificate: {error}");
        let mut params = rcgen::CertificateParams::default();
        let name = "landfall-ingress default certificate";
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        let der = certificate.der().clone();
        let secret = PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| "no self-signed key".to_owned())?;
        let secret = provider().key_provider.load_private_key(secret);
        let secret = secret.map_err(|error| format!("no self-signed key: {error}"))?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|error| format!("no self-signed certificate: {error}"))?;
        let (not_before, not_after) = (parsed.validity().not_before, parsed.validity().not_after);
        Ok(Self {
            names: vec![name.to_owned()],
            not_before: not_before.timestamp(),
            not_after: not_after.timestamp(),
            key: Arc::new(CertifiedKey::new(vec![der], secret)),
        })
    }

    /// Chain and key, as rustls takes them.
    pub fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// Names that it is for.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Begin and end of its validity, in seconds since 1970.
    pub fn validity(&self) -> (i64, i64) {
        (self.not_before, self.not_after)
    }

    /// Whether it is for this host; `host` may be a wildcard itself, which only the same wildcard covers.
    pub fn covers(&self, host: &str) -> bool {
        let parent = host
            .split_once('.')
            .filter(|(label, _)| !label.is_empty())
            .map(|(_, parent)| parent);
        self.names
            .iter()
            .any(|name| name == host || (name.strip_prefix("*.").is_some_and(|suffix| Some(suffix) == parent)))
    }
}

/// The key is no part of it.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({:?} until {})", self.names, self.not_after)
    }
}

/// DNS names, lower case; without any the common name, as older self-made certificates have it.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let general = alternative.iter().flat_map(|a| &a.value.general_names);
    let dns = general.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let mut names: Vec<String> = dns.collect();
    if names.is_empty() {
        let common = certificate
            .subject()
            .iter_common_name()
            .filter_map(|name| name.as_str().ok());
        names.extend(common.map(str::to_ascii_lowercase));
    }
    names
}

fn issuer_of(last: Option<&CertificateDer<'_>>, others: &[CertificateDer<'_>]) -> Option<usize> {
    let (_, last) = X509Certificate::from_der(last?).ok()?;
    others.iter().position(|other| {
        X509Certificate::from_der(other).is_ok_and(|(_, other)| other.subject().as_raw() == last.issuer().as_raw())
    })
}

/// Every certificate of a PEM text, DER; at least one. `key` is the Secret's key that it stands under.
fn certificates_of(pem: &[u8], key: &'static str) -> Result<Vec<Vec<u8>>, Fault> {
    let mut all = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| Fault::BadPem(key))?;
        if X509Certificate::from_der(&certificate).is_err() {
            return Err(Fault::BadCertificate(key));
        }
        if all.len() == limits::PEM_CERTIFICATES {
            return Err(Fault::Long(key));
        }
        all.push(certificate.to_vec());
    }
    if all.is_empty() {
        return Err(Fault::BadPem(key));
    }
    Ok(all)
}

/// Why a Secret gives no certificate, or not for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This key is missing or empty.
    Lacks(&'static str),
    /// No PEM under this key.
    BadPem(&'static str),
    /// PEM, but no certificate.
    BadCertificate(&'static str),
    /// More certificates than anyone needs.
    Long(&'static str),
    /// A key that is damaged, too short or of an unknown kind.
    UnusableKey,
    /// The key belongs to none of the certificates.
    OtherKey,
    /// The certificate is for other names.
    OtherHost,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks(key) => write!(f, "has no {key}"),
            Self::BadPem(key) => write!(f, "has no PEM in {key}"),
            Self::BadCertificate(key) => write!(f, "has something else than certificates in {key}"),
            Self::Long(key) => write!(f, "has too many certificates in {key}"),
            Self::UnusableKey => f.write_str("has a tls.key that is damaged, too short or of an unknown kind"),
            Self::OtherKey => f.write_str("has a tls.key that belongs to none of its certificates"),
            Self::OtherHost => f.write_str("has a certificate for other hosts"),
        }
    }
}
