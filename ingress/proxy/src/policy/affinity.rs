//! The same client to the same endpoint, by a cookie.
//!
//! The cookie holds a keyed hash of the endpoint. It shows no address, and all it can choose is one of the endpoints that the route
//! has anyway; any other value is as no cookie. All proxies of a cluster make the same hash, so that the next request may come to
//! another node.

use super::cookies;
use super::keyed::Key;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::{HeaderMap, HeaderValue};
use landfall_ingress_htpasswd::same;
use landfall_ingress_routing::policy::Affinity;
use std::net::SocketAddr;

/// The value of the cookie for an endpoint.
pub(super) fn value(key: &Key, backend: &str, endpoint: SocketAddr) -> String {
    let hash = key.hash(&[b"affinity", backend.as_bytes(), endpoint.to_string().as_bytes()]);
    // 96 bits: more than can be guessed, short enough for every request.
    URL_SAFE_NO_PAD.encode(&hash[..12])
}

/// Returns the endpoint that a request's cookie names.
pub(super) fn named(
    affinity: &Affinity,
    key: &Key,
    backend: &str,
    endpoints: impl IntoIterator<Item = SocketAddr>,
    headers: &HeaderMap,
) -> Option<SocketAddr> {
    let sent = cookies::find(headers, &affinity.cookie)?;
    if sent.len() != 16 {
        return None;
    }
    let is_named = |endpoint: &SocketAddr| same(value(key, backend, *endpoint).as_bytes(), sent);
    endpoints.into_iter().find(is_named)
}

/// `Set-Cookie` for an endpoint; `path` is where it counts when the annotations do not say.
pub(super) fn set_cookie(affinity: &Affinity, value: &str, path: &str, secure: bool) -> Option<HeaderValue> {
    use std::fmt::Write;
    let path = affinity.path.as_deref().unwrap_or(path);
    let path = if path.contains(|c: char| c == ';' || c.is_control()) {
        "/"
    } else {
        path
    };
    let mut text = format!("{}={value}; Path={path}; HttpOnly", affinity.cookie);
    // Writing to a String does not fail.
    if let Some(domain) = &affinity.domain {
        let _ = write!(text, "; Domain={domain}");
    }
    if let Some(age) = affinity.max_age_s {
        let _ = write!(text, "; Max-Age={age}");
    }
    if affinity.secure || secure {
        text.push_str("; Secure");
    }
    if let Some(same_site) = affinity.same_site {
        let _ = write!(text, "; SameSite={same_site}");
    }
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affinity() -> Affinity {
        Affinity {
            cookie: "stick".to_owned(),
            path: None,
            domain: None,
            max_age_s: None,
            secure: false,
            same_site: None,
            change_on_failure: false,
        }
    }

    #[test]
    fn cookies_name_endpoints_of_this_backend_only() {
        let key = Key::of(b"cluster");
        let endpoints: Vec<SocketAddr> = (1..=3).map(|i| format!("10.0.0.{i}:80").parse().unwrap()).collect();
        let ask = |cookie: &str, backend: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("cookie", HeaderValue::from_str(&format!("stick={cookie}")).unwrap());
            named(&affinity(), &key, backend, endpoints.iter().copied(), &headers)
        };
        for endpoint in &endpoints {
            let cookie = value(&key, "d/s:80", *endpoint);
            assert_eq!(ask(&cookie, "d/s:80"), Some(*endpoint));
            assert_eq!(ask(&cookie, "d/t:80"), None);
            assert_eq!(ask(&value(&Key::of(b"other"), "d/s:80", *endpoint), "d/s:80"), None);
            assert_eq!(ask(&endpoint.to_string(), "d/s:80"), None);
        }
        let elsewhere = "169.254.169.254:80".parse().unwrap();
        assert_eq!(ask(&value(&key, "d/s:80", elsewhere), "d/s:80"), None);
        assert_eq!(ask("", "d/s:80"), None);
    }

    #[test]
    fn attributes_are_as_asked_and_nothing_breaks_out() {
        let plain = set_cookie(&affinity(), "v", "/app", false).unwrap();
        assert_eq!(plain, "stick=v; Path=/app; HttpOnly");
        let all = Affinity {
            path: Some("/p".to_owned()),
            domain: Some("a.com".to_owned()),
            max_age_s: Some(60),
            same_site: Some("Lax"),
            ..affinity()
        };
        let text = set_cookie(&all, "v", "/app", true).unwrap();
        assert_eq!(
            text,
            "stick=v; Path=/p; HttpOnly; Domain=a.com; Max-Age=60; Secure; SameSite=Lax"
        );
        let odd = set_cookie(&affinity(), "v", "/a;Domain=b", false).unwrap();
        assert_eq!(odd, "stick=v; Path=/; HttpOnly");
    }
}
