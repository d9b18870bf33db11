//! What is asked, as policies see it: after routing, before anything is changed. With the texts that annotations build from it.

use crate::Client;
use hyper::header::HeaderMap;
use hyper::{Method, Request, Uri};
use landfall_ingress_routing::Route;
use std::net::IpAddr;

/// A request that found its route.
pub(crate) struct RequestView<'a> {
    /// Where it leads.
    pub(crate) route: &'a Route,
    /// Who asks.
    pub(crate) client: &'a Client,
    /// Its method.
    pub(crate) method: &'a Method,
    /// Its fields, without what a client must not say.
    pub(crate) headers: &'a HeaderMap,
    /// Host, lower case, without port.
    pub(crate) host: &'a str,
    /// Host as asked, with the port if there was one.
    pub(crate) authority: &'a str,
    /// Canonical path.
    pub(crate) path: &'a str,
    /// Behind the question mark.
    pub(crate) query: Option<&'a str>,
    /// The client's connection is TLS, here or at a trusted proxy in front.
    pub(crate) secure: bool,
    /// Some Ingress has TLS for this host.
    pub(crate) host_has_tls: bool,
}

impl<'a> RequestView<'a> {
    /// A request for this host that found this route; `routed` is the path that was routed, where the request has another now. What a
    /// client must not say is taken away before ([`super::strip_claims`]).
    pub(crate) fn new<B>(
        route: &'a Route,
        client: &'a Client,
        request: &'a Request<B>,
        host: &'a str,
        routed: Option<&'a str>,
    ) -> Self {
        let uri = request.uri();
        Self {
            route,
            client,
            method: request.method(),
            headers: request.headers(),
            host,
            authority: authority(uri, request.headers(), host),
            path: routed.unwrap_or(uri.path()),
            query: uri.query(),
            secure: client.https,
            host_has_tls: route.host.tls,
        }
    }
}

impl RequestView<'_> {
    /// Who asks, an IPv4 address as such; all whose address is not known are one.
    pub(super) fn address(&self) -> IpAddr {
        self.client.address.ip().to_canonical()
    }

    /// `http` or `https`.
    pub(super) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Path and query, the path in its canonical form: what a client sent to confuse does not come back.
    pub(super) fn request_uri(&self) -> String {
        match self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.to_owned(),
        }
    }

    /// Replaces nginx's variables in a text from an annotation. Names that are not known stay as they are.
    pub(super) fn expand(&self, template: &str) -> String {
        let mut out = String::with_capacity(template.len());
        let mut rest = template;
        while let Some(dollar) = rest.find('$') {
            out.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            match self.variable(&rest[..end]) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push('$');
                    out.push_str(&rest[..end]);
                }
            }
            rest = &rest[end..];
        }
        out.push_str(rest);
        out
    }

    fn variable(&self, name: &str) -> Option<String> {
        Some(match name {
            "scheme" | "pass_access_scheme" => self.scheme().to_owned(),
            "host" => self.host.to_owned(),
            "http_host" | "best_http_host" => self.authority.to_owned(),
            "uri" => self.path.to_owned(),
            "request_uri" => self.request_uri(),
            "escaped_request_uri" => escape(self.request_uri().as_bytes()),
            "is_args" => self.query.map_or_else(String::new, |_| "?".to_owned()),
            "args" | "query_string" => self.query.unwrap_or_default().to_owned(),
            "remote_addr" => self.client.address_text(),
            _ => return None,
        })
    }
}

/// Host and port as the request has them: its target's in absolute form or HTTP/2, else the field.
fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap, host: &'a str) -> &'a str {
    let field = || headers.get(hyper::header::HOST).and_then(|value| value.to_str().ok());
    uri.authority().map(|a| a.as_str()).or_else(field).unwrap_or(host)
}

/// Percent-encodes everything that is not unreserved (RFC 3986, 2.3), as nginx does for components.
pub(super) fn escape(bytes: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}
