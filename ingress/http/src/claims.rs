//! Fields that say who asked, or what was decided about a request: who may say them, under whatever spelling. Pure.
//!
//! Servers that make variables of field names (CGI, WSGI, PHP, Rack) read every byte but letters and digits as one character. So a name
//! that reads like one of these is one of these (CVE-2026-39858, CVE-2026-88011), and is taken away from everybody when it is not spelled
//! as that. What is here comes before a route's policy, so neither an authentication service nor an endpoint sees it.

use http::header::{HeaderMap, HeaderName};

/// Who may say a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// Everybody.
    Client,
    /// Trusted proxies in front: where a request comes from.
    Front,
    /// This proxy, an authentication service, or nobody at all.
    Nobody,
}

/// Fields of fronts. The last three are older names of X-Forwarded-Proto.
const FRONT: [&str; 6] = [
    "forwarded",
    "x-forwarded",
    "x-real-ip",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
];
/// Beginnings of names of fields of fronts.
const FRONT_FAMILY: [&str; 1] = ["x-forwarded-"];
/// `Proxy` is a variable that programs take for their own proxy (CVE-2016-5385).
const NOBODY: [&str; 1] = ["proxy"];
/// Beginnings of names that this proxy or an authentication service sets.
const NOBODY_FAMILY: [&str; 4] = ["x-original-", "x-auth-request-", "ssl-client-", "x-landfall-"];
/// Fields that this proxy reads or sets beside those.
const MANAGED: [&str; 15] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-request-id",
];

/// Who may say a field, by what its name reads like.
pub fn speaker(name: &str) -> Speaker {
    // Nearly all names differ in their first byte.
    if !matches!(
        name.as_bytes().first(),
        Some(b'x' | b'X' | b's' | b'S' | b'f' | b'F' | b'p' | b'P')
    ) {
        return Speaker::Client;
    }
    let is_of = |names: &[&str]| names.iter().any(|word| alike(name, word));
    let begins = |word: &&str| name.get(..word.len()).is_some_and(|start| alike(start, word));
    if is_of(&NOBODY) || NOBODY_FAMILY.iter().any(begins) {
        Speaker::Nobody
    } else if is_of(&FRONT) || FRONT_FAMILY.iter().any(begins) {
        Speaker::Front
    } else {
        Speaker::Client
    }
}

/// Fields that mean something before a body only: how it is framed and coded, where it goes, on what conditions, and who asks (RFC 9110,
/// 6.5.1). Beside those that are managed here.
const NOT_IN_TRAILERS: [&str; 18] = [
    "age",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "cookie",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "pragma",
    "proxy-authorization",
    "range",
    "set-cookie",
    "x-http-method-override",
    "x-rewrite-url",
];

/// Whether a client may say a field behind a body; servers may take it for one of the head. `results` are further names that this route's
/// authentication sets.
pub fn may_trail(name: &str, results: &[HeaderName]) -> bool {
    let is_of = |other: &str| alike(name, other);
    let plain = is_plain(name) && speaker(name) == Speaker::Client;
    let ours = MANAGED.iter().chain(&NOT_IN_TRAILERS).any(|word| is_of(word));
    plain && !ours && !results.iter().any(|result| is_of(result.as_str()))
}

/// Whether a name has letters, digits and hyphens alone, and so reads like itself only.
pub fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Removes what this client must not say. `results` are further names that this route's authentication sets. Names with `_` go whatever
/// they read like, as nginx does it.
pub fn strip<'a>(headers: &mut HeaderMap, client_is_trusted: bool, results: impl IntoIterator<Item = &'a HeaderName>) {
    let results: Vec<&str> = results.into_iter().map(HeaderName::as_str).collect();
    let goes = |name: &&HeaderName| {
        let name = name.as_str();
        let plain = is_plain(name);
        let speaks = match speaker(name) {
            Speaker::Client => plain || !(name.contains('_') || MANAGED.iter().any(|managed| alike(name, managed))),
            Speaker::Front => plain && client_is_trusted,
            Speaker::Nobody => false,
        };
        !speaks || results.iter().any(|result| alike(name, result))
    };
    // Most requests have none.
    if headers.keys().any(|name| goes(&name)) {
        let names: Vec<HeaderName> = headers.keys().filter(goes).cloned().collect();
        for name in &names {
            headers.remove(name);
        }
    }
}

/// Whether two names are one to a server that keeps letters and digits only.
fn alike(a: &str, b: &str) -> bool {
    let folded = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            byte.to_ascii_lowercase()
        } else {
            b'-'
        }
    };
    a.len() == b.len() && a.bytes().map(folded).eq(b.bytes().map(folded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderValue;

    /// Names that are left of these.
    fn left(names: &[&str], trusted: bool, results: &[&'static str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static("1"),
            );
        }
        let results: Vec<_> = results.iter().map(|name| HeaderName::from_static(name)).collect();
        strip(&mut headers, trusted, &results);
        let mut left: Vec<_> = headers.keys().map(ToString::to_string).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn results_of_ours_are_taken_away_under_every_spelling() {
        let mut names = Vec::new();
        for name in [
            "x-original-url",
            "x-auth-request-user",
            "ssl-client-verify",
            "x-landfall-reason",
            "x-user",
            "proxy",
        ] {
            names.extend(
                "-_.!#$%&'*+^`|~"
                    .chars()
                    .map(|byte| name.replace('-', &byte.to_string())),
            );
        }
        names.sort_unstable();
        names.dedup();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for trusted in [false, true] {
            assert_eq!(left(&names, trusted, &["x-user"]), [""; 0], "trusted: {trusted}");
        }
    }

    #[test]
    fn where_a_request_comes_from_is_for_fronts_to_say_and_for_them_in_one_spelling() {
        let names = [
            "x-forwarded-for",
            "x-forwarded-user",
            "x-forwarded-anything",
            "x-forwarded",
            "forwarded",
            "x-scheme",
            "front-end-https",
            "x-url-scheme",
            "x-real-ip",
        ];
        assert_eq!(left(&names, false, &[]), [""; 0]);
        assert_eq!(left(&names, true, &[]).len(), names.len());
        let aliases: Vec<String> = names
            .iter()
            .map(|name| name.replace('-', "."))
            .filter(|name| name.contains('.'))
            .collect();
        let aliases: Vec<&str> = aliases.iter().map(String::as_str).collect();
        assert_eq!(left(&aliases, true, &[]), [""; 0]);
    }

    #[test]
    fn other_fields_pass() {
        let names = [
            "accept.version",
            "authorization",
            "s",
            "sslx",
            "x",
            "x-auth-token",
            "x-forwardedness",
            "x-request-id",
            "x.y",
        ];
        assert_eq!(left(&names, false, &[]), names);
        assert_eq!(
            left(
                &["a_b", "content.length", "x.request.id", "transfer~encoding", "h_ost"],
                true,
                &[]
            ),
            [""; 0]
        );
    }
}
