//! What an Ingress asks for beside hosts and paths: one typed value per wish, made from its annotations when the table is built.
//!
//! INVARIANT: a wish that protects (authentication, allow-list, client certificate) and cannot be read closes its routes:
//! [`Policy::closed`] is set and every request gets 503. Other wishes that cannot be read leave the last good version of their Ingress
//! in place, or are left out and remarked when there is none.

use crate::target::Target;
use landfall_ingress_http::network::Network;
pub use landfall_ingress_http::path::{EncodedMode, PathMode};
use landfall_ingress_http::protocol::Protocol;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use landfall_ingress_tls::client::ClientSettings;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Everything that is done to requests of a route before and after they are forwarded. The default does nothing.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Why these routes answer 503: a protecting annotation that cannot be read.
    pub closed: Option<String>,
    /// Clients that may come, and those that may not.
    pub sources: Sources,
    /// Redirects that are answered here.
    pub redirects: Redirects,
    /// Requests per second and connections at once.
    pub limits: ClientLimits,
    /// Clients that `limits` does not count.
    pub unlimited: Vec<Network>,
    /// User and password.
    pub basic_auth: Option<BasicAuth>,
    /// A service that is asked before each request.
    pub external_auth: Option<ExternalAuth>,
    /// Certificates that clients must show.
    pub client_certificate: Option<ClientCertificate>,
    /// Answers to other origins.
    pub cors: Option<Cors>,
    /// The path that is forwarded instead.
    pub rewrite: Option<Rewrite>,
    /// How paths that are not canonical are treated.
    pub paths: PathMode,
    /// How paths are treated that mean another one when they are decoded.
    pub encoded_paths: EncodedMode,
    /// Largest request body in bytes; none is unlimited.
    pub body_limit_bytes: Option<u64>,
    /// Waits; what is `None` is as in the program's limits.
    pub timeouts: Timeouts,
    /// When another endpoint is tried.
    pub retries: Retries,
    /// The same client to the same endpoint.
    pub affinity: Option<Affinity>,
    /// How endpoints are spoken to.
    pub upstream: Upstream,
    /// Fields set on answers.
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
    /// `Strict-Transport-Security` on answers over TLS.
    pub hsts: Option<HeaderValue>,
    /// A second service that gets a copy of each request; its answer is dropped.
    pub mirror: Option<Mirror>,
    /// Answers with these statuses are replaced by the answer of [`crate::Route::fallback`].
    pub replaced_statuses: Vec<StatusCode>,
    /// No line in the access log.
    pub unlogged: bool,
}

impl Policy {
    /// Whether a GET or HEAD without a body, whose path is canonical, goes to an endpoint and its answer comes back as they are, but for
    /// redirects to https and for what is said of timeouts and the log. Such requests go the quick way.
    #[inline]
    pub fn lets_pass(&self, secure: bool) -> bool {
        // All fields are named, so that a new one is thought of here.
        let Self {
            closed,
            sources,
            redirects,
            limits,
            unlimited: _,
            basic_auth,
            external_auth,
            client_certificate,
            cors,
            rewrite,
            paths,
            // Paths with encodings do not go the quick way.
            encoded_paths: _,
            body_limit_bytes: _,
            timeouts: _,
            retries,
            affinity,
            upstream,
            response_headers,
            hsts,
            mirror,
            replaced_statuses,
            unlogged: _,
        } = self;
        let protected = closed.is_some()
            || !sources.allow.is_empty()
            || !sources.deny.is_empty()
            || basic_auth.is_some()
            || external_auth.is_some()
            || client_certificate.is_some()
            || limits.requests_per_second.is_some()
            || limits.requests_per_minute.is_some()
            || limits.connections.is_some();
        let changed = redirects.to.is_some()
            || redirects.app_root.is_some()
            || cors.is_some()
            || rewrite.is_some()
            || *paths == PathMode::Strict
            || !response_headers.is_empty()
            || (secure && hsts.is_some());
        let placed = retries.on != RetryOn::default()
            || affinity.is_some()
            || upstream.protocol.is_some_and(|protocol| protocol != Protocol::Http1)
            || upstream.host.is_some()
            || upstream.forwarded_prefix.is_some()
            || upstream.service_address
            || upstream.hash_by.is_some()
            || mirror.is_some()
            || !replaced_statuses.is_empty();
        !(protected || changed || placed)
    }
}

/// Clients by address. Denied first; an empty allow-list allows all.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Networks that may come.
    pub allow: Vec<Network>,
    /// Networks that may not.
    pub deny: Vec<Network>,
}

impl Sources {
    /// Whether a client may come. One whose address is not known is on every list of denied ones, and on none of allowed ones.
    #[inline]
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        let Some(client) = client.map(|client| client.to_canonical()) else {
            return self.allow.is_empty() && self.deny.is_empty();
        };
        let within = |list: &[Network]| list.iter().any(|network| network.contains(client));
        !within(&self.deny) && (self.allow.is_empty() || within(&self.allow))
    }
}

/// Redirects, in the order in which they are looked at.
#[derive(Debug, Clone, Default)]
pub struct Redirects {
    /// All requests go there.
    pub to: Option<Redirect>,
    /// Plain requests go to https.
    pub https: HttpsRedirect,
    /// From `www.` to the bare host or back, whichever has no routes. The table has a route with `to` for it.
    pub www: bool,
    /// `/` goes there.
    pub app_root: Option<String>,
}

/// One redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// `Location`, a valid field value; may hold `$scheme`, `$host`, `$request_uri` and what else nginx has of this kind.
    pub location: String,
}

/// When plain requests are sent to https with 308.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HttpsRedirect {
    /// Never.
    #[default]
    Off,
    /// When the host has TLS in some Ingress.
    WhenTls,
    /// Always: something in front speaks TLS.
    Always,
}

/// Bounds per client address, per proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientLimits {
    /// Requests per second.
    pub requests_per_second: Option<u32>,
    /// Requests per minute.
    pub requests_per_minute: Option<u32>,
    /// Times the rate that may come at once; 5 when not said, as in ingress-nginx.
    pub burst: u32,
    /// Requests being served at once.
    pub connections: Option<u32>,
}

impl ClientLimits {
    /// Nothing is limited.
    pub fn is_none(&self) -> bool {
        self.requests_per_second.is_none() && self.requests_per_minute.is_none() && self.connections.is_none()
    }
}

/// HTTP Basic (RFC 7617) against a htpasswd file.
#[derive(Clone)]
pub struct BasicAuth {
    /// Shown to people.
    pub realm: String,
    /// User to hash (`$2y$`, `$apr1$`, `{SHA}`).
    pub users: Arc<std::collections::BTreeMap<String, String>>,
}

/// Hashes are secrets; they are never shown.
impl std::fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BasicAuth({} users)", self.users.len())
    }
}

/// A service that says with its status whether a request may pass: 2xx passes, 401 and 403 are the answer, all else is 502.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAuth {
    /// `http://host[:port]/path`, as written.
    pub url: String,
    /// Where that is; a Service's backend is [`crate::Route::auth`].
    pub target: Target,
    /// How TLS is spoken there, for `https`.
    pub tls: Option<ClientSettings>,
    /// Method of the question; the request's own path and method go in `X-Original-*`.
    pub method: http::Method,
    /// Fields of a passing answer that are set on the request.
    pub response_headers: Vec<HeaderName>,
    /// Where a 401 is redirected to.
    pub signin: Option<String>,
    /// What `X-Auth-Request-Redirect` says to the service, with variables; the request's own path and query when none.
    pub redirect: Option<String>,
}

/// Client certificates (`auth-tls-*`).
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// DER certificates of the authorities.
    pub authorities: Vec<Vec<u8>>,
    /// Requests without one pass; a wrong one never does.
    pub optional: bool,
    /// The certificate goes on in `ssl-client-cert`, URL-encoded PEM.
    pub pass: bool,
}

/// Cross-origin answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Origins; `*` is all, `https://*.example.com` one label.
    pub origins: Vec<String>,
    /// Methods, as sent.
    pub methods: HeaderValue,
    /// Request fields, as sent.
    pub headers: HeaderValue,
    /// Fields that scripts may read.
    pub expose: Option<HeaderValue>,
    /// Cookies go along.
    pub credentials: bool,
    /// How long a preflight answer may be kept.
    pub max_age_s: u32,
}

/// A path of our own making.
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// The route's path as a regular expression, matched from the start; `None` when the path is a plain one.
    pub pattern: Option<regex::Regex>,
    /// Replacement, with `$1` to `$9`.
    pub target: String,
}

/// Waits for endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Option<Duration>,
    /// For the head of an answer, and silence within it.
    pub read: Option<Duration>,
    /// For the endpoint to take more of a request.
    pub send: Option<Duration>,
    /// Silence of the client within a request's body; then nothing else bounds how long the body may take.
    pub client_body: Option<Duration>,
}

/// When another endpoint is tried. A failed connection always is, within `tries`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retries {
    /// Also on these answers to a safe or idempotent request without a body that left us, and on these failures of one.
    pub on: RetryOn,
    /// Endpoints tried in all; `None` as in the limits.
    pub tries: Option<u8>,
    /// Longest time for all tries.
    pub within: Option<Duration>,
}

/// What is tried again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// The endpoint broke off, or what it sent is no answer.
    pub broken: bool,
    /// The endpoint sent no answer in time.
    pub late: bool,
    /// 403.
    pub forbidden: bool,
    /// 404.
    pub not_found: bool,
    /// 429.
    pub too_many: bool,
    /// 500.
    pub internal: bool,
    /// 502.
    pub bad_gateway: bool,
    /// 503.
    pub unavailable: bool,
    /// 504.
    pub timeout: bool,
}

impl RetryOn {
    /// Whether an answer with this status is worth another try.
    pub fn ask_for_another(&self, status: StatusCode) -> bool {
        match status {
            StatusCode::FORBIDDEN => self.forbidden,
            StatusCode::NOT_FOUND => self.not_found,
            StatusCode::TOO_MANY_REQUESTS => self.too_many,
            StatusCode::INTERNAL_SERVER_ERROR => self.internal,
            StatusCode::BAD_GATEWAY => self.bad_gateway,
            StatusCode::SERVICE_UNAVAILABLE => self.unavailable,
            StatusCode::GATEWAY_TIMEOUT => self.timeout,
            _ => false,
        }
    }
}

/// A cookie that names the endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity {
    /// Its name.
    pub cookie: String,
    /// `Path`.
    pub path: Option<String>,
    /// `Domain`.
    pub domain: Option<String>,
    /// `Max-Age` in seconds; a session cookie when none.
    pub max_age_s: Option<u64>,
    /// `Secure` always; else only over TLS.
    pub secure: bool,
    /// `SameSite`.
    pub same_site: Option<&'static str>,
    /// A client whose endpoint failed gets a new one.
    pub change_on_failure: bool,
}

/// How endpoints are spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upstream {
    /// Protocol; `None` follows the Service port's `appProtocol` (S26).
    pub protocol: Option<Protocol>,
    /// `Host` that endpoints see.
    pub host: Option<String>,
    /// How TLS is spoken with those that have it.
    pub tls: ClientSettings,
    /// `X-Forwarded-Prefix` that endpoints see.
    pub forwarded_prefix: Option<HeaderValue>,
    /// The Service's address instead of its endpoints'.
    pub service_address: bool,
    /// Requests with the same key go to the same endpoint. Its parts, one after another.
    pub hash_by: Option<Vec<HashKey>>,
}

/// What `upstream-hash-by` may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// Between variables.
    Text(String),
    /// `$request_uri`.
    Uri,
    /// `$uri`.
    Path,
    /// `$remote_addr` or `$binary_remote_addr`.
    Client,
    /// `$host`.
    Host,
    /// `$http_NAME`.
    Header(HeaderName),
    /// `$cookie_NAME`.
    Cookie(String),
    /// `$arg_NAME`.
    Argument(String),
}

/// Copies of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `http://host[:port]`, as written; the request's own path follows when it ends in `$request_uri`.
    pub target: String,
    /// Where that is; a Service's backend is [`crate::Route::mirror`].
    pub place: Target,
    /// The body goes too, up to 64 KiB; longer requests are not mirrored.
    pub body: bool,
}

/// Which requests go to an alternative (`canary-*`). The header decides first, then the cookie, then chance, as in ingress-nginx.
#[derive(Debug, Clone, Default)]
pub struct Canary {
    /// A field that decides.
    pub header: Option<CanaryHeader>,
    /// A cookie: `always` goes there, `never` does not, all else leaves it to chance.
    pub cookie: Option<String>,
    /// Requests of `weight_total` that go there by chance.
    pub weight: u32,
    /// At least 1.
    pub weight_total: u32,
}

/// A field that chooses an alternative.
#[derive(Debug, Clone)]
pub struct CanaryHeader {
    /// Its name.
    pub name: HeaderName,
    /// What sends a request there. Without it `always` does, `never` does not, all else leaves it to cookie and chance.
    pub value: Option<HeaderMatch>,
}

/// A value of a field.
#[derive(Debug, Clone)]
pub enum HeaderMatch {
    /// Just this.
    Value(String),
    /// What this finds.
    Pattern(regex::Regex),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_clients_are_refused_and_an_empty_list_allows_all() {
        let networks = |list: &[&str]| list.iter().map(|n| Network::parse(n).unwrap()).collect::<Vec<_>>();
        let sources = Sources {
            allow: networks(&["10.0.0.0/8"]),
            deny: networks(&["10.9.0.0/16"]),
        };
        let admits = |address: &str| sources.admits(Some(address.parse().unwrap()));
        assert!(admits("10.1.1.1") && admits("::ffff:10.1.1.1"));
        assert!(!admits("10.9.1.1") && !admits("11.0.0.1"));
        assert!(Sources::default().admits(Some("11.0.0.1".parse().unwrap())));
        let only = |allow: &[&str], deny: &[&str]| Sources {
            allow: networks(allow),
            deny: networks(deny),
        };
        assert!(Sources::default().admits(None));
        assert!(!only(&["0.0.0.0/0"], &[]).admits(None) && !only(&[], &["10.0.0.0/8"]).admits(None));
    }
}
