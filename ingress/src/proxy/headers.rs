//! Heads of requests and answers, made fit for the next hop. Pure.

use super::Client;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, Uri, Version};

/// Fields that end at this hop (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields that `Connection` cannot take away: without them the request means something else.
const KEPT: [HeaderName; 2] = [header::HOST, header::CONTENT_LENGTH];

/// What clients could claim about where a request came from. This proxy is the edge and pods believe these fields.
const CLAIMS: [HeaderName; 4] = [
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-original-forwarded-for"),
];

/// The request as the endpoint gets it: same method, path and Host, hop-by-hop fields gone, who asked in X-Forwarded-*. `None` when
/// its target cannot be sent on.
pub(super) fn outgoing<B>(request: Request<B>, client: &Client) -> Option<Request<B>> {
    let (mut parts, body) = request.into_parts();
    if let Some(authority) = parts.uri.authority() {
        let value = HeaderValue::from_str(authority.as_str()).ok()?;
        parts.headers.insert(header::HOST, value);
    }
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    parts.uri = path.parse::<Uri>().ok()?;
    parts.version = Version::HTTP_11;
    strip_hop_by_hop(&mut parts.headers);
    for claim in &CLAIMS {
        parts.headers.remove(claim);
    }
    let mut set = |name: &'static str, value: &str| {
        // Addresses and numbers are always valid values.
        if let Ok(value) = HeaderValue::from_str(value) {
            parts.headers.insert(name, value);
        }
    };
    let address = client.address.ip().to_canonical().to_string();
    set("x-forwarded-for", &address);
    set("x-real-ip", &address);
    set("x-forwarded-proto", if client.tls.is_some() { "https" } else { "http" });
    set("x-forwarded-port", &client.port.to_string());
    match parts.headers.get(header::HOST).cloned() {
        Some(host) => parts.headers.insert("x-forwarded-host", host),
        None => parts.headers.remove("x-forwarded-host"),
    };
    Some(Request::from_parts(parts, body))
}

/// The answer as the client gets it.
pub(super) fn incoming<B>(mut response: Response<B>) -> Response<B> {
    *response.version_mut() = Version::HTTP_11;
    strip_hop_by_hop(response.headers_mut());
    response
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !KEPT.contains(name))
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut request = Request::new(());
        *request.uri_mut() = "/p?q=%2F".parse().unwrap();
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        let client = Client {
            address: "[::ffff:10.0.0.9]:50000".parse().unwrap(),
            port: 80,
            tls: None,
        };
        let request = outgoing(request, &client).unwrap();
        assert_eq!(request.uri(), "/p?q=%2F");
        request.headers().clone()
    }

    #[test]
    fn what_the_client_claims_is_replaced() {
        let headers = sent(&[
            ("host", "h:80"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
        ]);
        let all: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        assert_eq!(all, ["10.0.0.9"]);
        assert_eq!(headers["x-forwarded-host"], "h:80");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-port"], "80");
        assert_eq!(headers["x-real-ip"], "10.0.0.9");
        assert!(!headers.contains_key("forwarded"));
    }

    #[test]
    fn hop_by_hop_fields_end_here_and_host_cannot_be_named_away() {
        let headers = sent(&[
            ("host", "h"),
            ("connection", "close, X-Secret , host,content-length, \"bad"),
            ("connection", "x-forwarded-for"),
            ("content-length", "3"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("keep-alive", "timeout=5"),
            ("accept", "*/*"),
        ]);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let added = [
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-proto",
            "x-real-ip",
        ];
        let kept = ["accept", "content-length", "host"];
        assert_eq!(names, [&kept[..], &added[..]].concat());
    }
}
