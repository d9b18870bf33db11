//! Client certificates (`auth-tls-*`): checked again for the route, and passed on.
//!
//! The handshake checked them against the authorities of the name that the client asked for then. A request may name another host, so
//! what counts is this check: against the authorities of the very route that the request found.

use super::keyed::Key;
use super::remembered::Remembered;
use super::request_view::escape;
use crate::Client;
use crate::limits::Limits;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{HeaderName, HeaderValue};
use landfall_ingress_routing::policy::ClientCertificate;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use std::sync::Arc;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::x509::X509Name;

const CERTIFICATE: HeaderName = HeaderName::from_static("ssl-client-cert");
const VERIFIED: HeaderName = HeaderName::from_static("ssl-client-verify");
const SUBJECT: HeaderName = HeaderName::from_static("ssl-client-subject-dn");
const ISSUER: HeaderName = HeaderName::from_static("ssl-client-issuer-dn");

/// Why a request may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// No certificate, or a wrong one.
    Certificate,
    /// This connection was made for another host, where none was asked for.
    Connection,
}

/// Checks certificates.
pub(super) struct Certificates {
    key: Key,
    verified: Remembered,
}

impl Certificates {
    pub(super) fn new(key: Key, limits: &Limits) -> Self {
        Self {
            key,
            verified: Remembered::new(limits.verified_certificates, limits.verified_certificate_kept),
        }
    }

    /// Returns the fields that tell the endpoint about the certificate.
    pub(super) fn check(
        &self,
        wanted: &ClientCertificate,
        client: &Client,
        host: &str,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Refused> {
        let session = client.tls.as_deref();
        let chain = session.map(|s| s.client_certificates.as_slice()).unwrap_or_default();
        let Some(own) = chain.first() else {
            let here = session.is_none_or(|s| s.server_name.as_deref() == Some(host));
            return match (wanted.optional, here) {
                (true, _) => Ok(vec![(VERIFIED, HeaderValue::from_static("NONE"))]),
                (false, true) => Err(Refused::Certificate),
                (false, false) => Err(Refused::Connection),
            };
        };
        if !self.is_valid(&wanted.authorities, chain) {
            return Err(Refused::Certificate);
        }
        describe(own, wanted.pass).ok_or(Refused::Certificate)
    }

    fn is_valid(&self, authorities: &[Vec<u8>], chain: &[Vec<u8>]) -> bool {
        // The empty part says where the authorities end.
        let authority = authorities.iter().map(Vec::as_slice);
        let parts: Vec<&[u8]> = authority
            .chain([&[][..]])
            .chain(chain.iter().map(Vec::as_slice))
            .collect();
        let entry = self.key.hash(&parts);
        if self.verified.has(&entry) {
            return true;
        }
        let valid = verify(authorities, chain).is_some();
        if valid {
            self.verified.add(entry);
        }
        valid
    }
}

fn verify(authorities: &[Vec<u8>], chain: &[Vec<u8>]) -> Option<()> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(CertificateDer::from_slice(authority)).ok()?;
    }
    let provider = landfall_ingress_tls::provider::provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .ok()?;
    let mut chain = chain.iter().map(|der| CertificateDer::from_slice(der));
    let own = chain.next()?;
    let between: Vec<_> = chain.collect();
    verifier.verify_client_cert(&own, &between, UnixTime::now()).ok()?;
    Some(())
}

fn describe(der: &[u8], pass: bool) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    let mut fields = vec![
        (VERIFIED, HeaderValue::from_static("SUCCESS")),
        (SUBJECT, HeaderValue::from_str(&name(parsed.subject())).ok()?),
        (ISSUER, HeaderValue::from_str(&name(parsed.issuer())).ok()?),
    ];
    if pass {
        fields.push((CERTIFICATE, HeaderValue::from_str(&escape(pem(der).as_bytes())).ok()?));
    }
    Some(fields)
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().copied().map(char::from));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

/// A name as in RFC 2253, which is how nginx writes it: last part first, specials escaped.
fn name(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let part = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        let kind = oid2abbrev(attribute.attr_type(), oid_registry())
            .map_or_else(|_| attribute.attr_type().to_string(), str::to_owned);
        format!("{kind}={}", escaped(attribute.as_str().unwrap_or_default()))
    };
    let written = parts
        .iter()
        .rev()
        .map(|rdn| rdn.iter().map(part).collect::<Vec<_>>().join("+"));
    written.collect::<Vec<_>>().join(",")
}

fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let edge = (byte == b' ' && (at == 0 || at == last)) || (byte == b'#' && at == 0);
        if b",+\"\\<>;".contains(&byte) || edge {
            out.push('\\');
            out.push(char::from(byte));
        } else if byte.is_ascii_graphic() || byte == b' ' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("\\{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Session;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    struct Authority {
        der: Vec<u8>,
        issuer: Issuer<'static, KeyPair>,
    }

    fn authority(common_name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, common_name);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Authority {
            der,
            issuer: Issuer::new(params, key),
        }
    }

    fn certificate(authority: &Authority, common_name: &str) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "O");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &authority.issuer).unwrap().der().to_vec()
    }

    fn client(server_name: &str, chain: Option<Vec<Vec<u8>>>) -> Client {
        let mut client = Client::new("10.0.0.1:5".parse().unwrap(), 443);
        client.tls = chain.map(|client_certificates| {
            Arc::new(Session {
                server_name: Some(server_name.to_owned()),
                client_certificates,
                ..Session::default()
            })
        });
        client
    }

    #[test]
    fn only_certificates_of_the_routes_own_authority_pass() {
        let (ours, theirs) = (authority("ours"), authority("theirs"));
        let certificates = Certificates::new(Key::of(b"k"), &Limits::default());
        let mut wanted = ClientCertificate {
            authorities: vec![ours.der.clone()],
            optional: false,
            pass: true,
        };
        let good = client("h", Some(vec![certificate(&ours, "anna, \"x\"")]));
        let wrong = client("h", Some(vec![certificate(&theirs, "anna")]));
        let none = client("h", Some(vec![]));
        let elsewhere = client("other", Some(vec![]));
        let plain = client("h", None);
        for _ in 0..2 {
            let fields = certificates.check(&wanted, &good, "h").unwrap();
            assert_eq!(fields[0], (VERIFIED, HeaderValue::from_static("SUCCESS")));
            assert_eq!(fields[1].1, "O=O,CN=anna\\, \\\"x\\\"");
            assert_eq!(fields[2].1, "CN=ours");
            assert!(
                fields[3]
                    .1
                    .to_str()
                    .unwrap()
                    .starts_with("-----BEGIN%20CERTIFICATE-----%0AMI")
            );
            assert_eq!(certificates.check(&wanted, &wrong, "h"), Err(Refused::Certificate));
        }
        assert_eq!(certificates.check(&wanted, &none, "h"), Err(Refused::Certificate));
        assert_eq!(certificates.check(&wanted, &plain, "h"), Err(Refused::Certificate));
        assert_eq!(certificates.check(&wanted, &elsewhere, "h"), Err(Refused::Connection));
        wanted.optional = true;
        wanted.pass = false;
        assert_eq!(certificates.check(&wanted, &wrong, "h"), Err(Refused::Certificate));
        assert_eq!(certificates.check(&wanted, &none, "h").unwrap()[0].1, "NONE");
        assert_eq!(certificates.check(&wanted, &good, "h").unwrap().len(), 3);
        wanted.authorities.clear();
        assert_eq!(certificates.check(&wanted, &good, "h"), Err(Refused::Certificate));
    }
}
