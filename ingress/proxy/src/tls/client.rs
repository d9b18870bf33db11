//! Client certificates: which authorities a handshake asks for, and whether a request may come over a connection.
//!
//! A handshake knows only the server name; routes of that host may ask for different authorities, and a request may name another host.
//! So the handshake asks for all authorities that any route of the host accepts, and lets clients without a certificate through: the
//! route's policy checks what was shown against its own authorities, for each request.
//!
//! INVARIANT: a route that demands a certificate is never reached over a connection without TLS, or with another server name, or on
//! which none was asked for: [`misdirected`].

use landfall_ingress_routing::RouteTable;
use landfall_ingress_routing::policy::ClientCertificate;
use landfall_ingress_tls::Session;
use landfall_ingress_tls::provider::provider;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use std::collections::BTreeSet;
use std::sync::Arc;

/// DER certificates of authorities.
pub type Authorities = Vec<Vec<u8>>;

/// The authorities that a handshake for this server name asks for; `None` when no route of the host wants certificates.
pub(super) fn asked(snapshot: &RouteTable, server_name: &str) -> Option<Authorities> {
    let routes = snapshot.routes_of(server_name);
    let demands = routes.filter_map(|route| route.policy.client_certificate.as_ref());
    let all: BTreeSet<&Vec<u8>> = demands.flat_map(|demand| &demand.authorities).collect();
    (!all.is_empty()).then(|| all.into_iter().cloned().collect())
}

/// Checks certificates against these authorities; clients without one pass. `None` when not one of them can be used.
pub(super) fn verifier(authorities: &Authorities) -> Option<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.iter().map(|der| CertificateDer::from(der.as_slice())));
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    builder.allow_unauthenticated().build().ok()
}

/// What a handshake for this server name would settle now with a client that has no certificate; an address is no server name.
pub fn foreseen(snapshot: &RouteTable, name: &str, strict: bool) -> Session {
    let is_address = name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok();
    let server_name = (!is_address).then(|| normal(name));
    let authorities = server_name.as_deref().and_then(|name| asked(snapshot, name));
    Session {
        authorities: authorities.filter(|all| verifier(all).is_some()).map(Arc::new),
        server_name,
        strict,
        ..Session::default()
    }
}

/// Server names as hosts are compared (S6).
pub(super) fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Whether a request for `host` came over the wrong connection, of which `session` is the handshake, so that another one may do better (421).
pub fn misdirected(
    snapshot: &RouteTable,
    host: &str,
    demand: Option<&ClientCertificate>,
    session: Option<&Session>,
) -> bool {
    let name = session.and_then(|session| session.server_name.as_deref());
    if session.is_some_and(|session| session.strict)
        && name.is_some_and(|name| name != host && !snapshot.same_certificate(name, host))
    {
        return true;
    }
    // Plain, or made for another host, or before the demand was there: no certificate was asked for on this host's behalf.
    let fits = || name == Some(host) && session.is_some_and(|session| session.authorities.is_some());
    demand.is_some() && !fits()
}
