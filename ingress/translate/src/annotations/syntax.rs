//! Small parsers of values. Each takes hostile text and gives a type or says what is wrong.

use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};
use landfall_ingress_http::host::host_of;
use landfall_ingress_http::network::Network;
use std::time::Duration;

type Parsed<T> = Result<T, &'static str>;

pub(super) fn number(text: &str) -> Parsed<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or("no whole number")
}

pub(super) fn positive(text: &str) -> Parsed<u32> {
    number(text).and_then(|n| if n == 0 { Err("0 makes no sense here") } else { Ok(n) })
}

/// nginx's times: seconds, or `1m30s`.
pub(super) fn time(text: &str) -> Parsed<Duration> {
    const WRONG: &str = "no time";
    let mut rest = text;
    let mut all = Duration::ZERO;
    if rest.is_empty() {
        return Err(WRONG);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let count = u64::from(number(&rest[..digits]).map_err(|_| WRONG)?);
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let part = match rest[..letters].trim() {
            "ms" => Duration::from_millis(count),
            "" | "s" => Duration::from_secs(count),
            "m" => Duration::from_secs(count.saturating_mul(60)),
            "h" => Duration::from_secs(count.saturating_mul(3600)),
            "d" => Duration::from_secs(count.saturating_mul(24 * 3600)),
            "w" => Duration::from_secs(count.saturating_mul(7 * 24 * 3600)),
            _ => return Err(WRONG),
        };
        rest = &rest[letters..];
        all = all.saturating_add(part);
    }
    Ok(all)
}

/// nginx's sizes: bytes, or with `k`, `m`, `g`. 0 is no limit.
pub(super) fn size(text: &str) -> Parsed<Option<u64>> {
    const WRONG: &str = "no size";
    let (digits, factor) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1_u64),
    };
    let count = u64::from(number(digits).map_err(|_| WRONG)?);
    Ok(Some(count * factor).filter(|bytes| *bytes > 0))
}

pub(super) fn network(text: &str) -> Parsed<Network> {
    Network::parse(text).ok_or("no network")
}

pub(super) fn header_name(text: &str) -> Parsed<HeaderName> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| "no name of a field")
}

pub(super) fn header_value(text: &str) -> Parsed<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| "no value of a field")
}

pub(super) fn method(text: &str) -> Parsed<Method> {
    Method::from_bytes(text.as_bytes()).map_err(|_| "no method")
}

/// Names of Kubernetes objects.
pub(super) fn object_name(text: &str) -> Parsed<String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |l: &str| {
        let middle = l.bytes().all(|b| inner(b) || b == b'-');
        middle && !l.is_empty() && !l.starts_with('-') && !l.ends_with('-')
    };
    let fine = text.len() <= 253 && text.split('.').all(label);
    fine.then(|| text.to_owned()).ok_or("no name of an object")
}

/// A name that clients put into a cookie.
pub(super) fn cookie_name(text: &str) -> Parsed<String> {
    header_name(text).map_err(|_| "no name of a cookie")?;
    Ok(text.to_owned())
}

/// A value between the semicolons of Set-Cookie.
pub(super) fn cookie_attribute(text: &str) -> Parsed<String> {
    let fine =
        !text.is_empty() && text.len() <= 512 && text.bytes().all(|b| b.is_ascii_graphic() && b != b';' && b != b',');
    fine.then(|| text.to_owned()).ok_or("no attribute of a cookie")
}

/// A whole host without wildcard.
pub(super) fn alias(text: &str) -> Parsed<String> {
    match host_of(text) {
        Some(host) if !text.contains(':') && !text.contains('~') => Ok(host),
        _ => Err("no host"),
    }
}

/// Characters of URLs (RFC 3986) and nginx's variables.
fn is_url_text(text: &str) -> bool {
    text.len() <= 2048
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"\"'<>\\^`{|}".contains(&b))
}

/// A URL, a path or a part of one, with nginx's variables.
pub(super) fn url_text(text: &str) -> Parsed<String> {
    (!text.is_empty() && is_url_text(text))
        .then(|| text.to_owned())
        .ok_or("no URL")
}

/// A URL that clients are sent to: http or https, or a path.
pub(super) fn location(text: &str) -> Parsed<String> {
    let scheme = ["http://", "https://", "$scheme://"]
        .iter()
        .any(|s| text.starts_with(s));
    let path = text.starts_with('/') && !text.starts_with("//");
    ((scheme || path) && is_url_text(text))
        .then(|| text.to_owned())
        .ok_or("no URL of http or https")
}

/// A path of our own making, with groups of a regular expression.
pub fn rewrite_target(text: &str) -> Parsed<String> {
    let begins = text.starts_with('/') || text.starts_with('$');
    if !begins || text.starts_with("//") || !is_url_text(text) || text.contains('#') {
        return Err("no path");
    }
    let mut dollars = text.split('$').skip(1);
    let group = |rest: &str| rest.starts_with(|c: char| ('1'..='9').contains(&c));
    dollars
        .all(group)
        .then(|| text.to_owned())
        .ok_or("only $1 to $9 are replaced")
}

/// A path in front of the one that an endpoint sees, with the characters that ingress-nginx takes.
pub(super) fn prefix(text: &str) -> Parsed<HeaderValue> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~:".contains(&b);
    if !text.starts_with('/') || text.starts_with("//") || text.len() > 2048 || !text.bytes().all(plain) {
        return Err("no path of letters, digits and / - . _ ~ :");
    }
    header_value(text)
}

/// A path that clients are sent to.
pub(super) fn root(text: &str) -> Parsed<String> {
    let fine = text.starts_with('/') && !text.starts_with("//") && is_url_text(text) && !text.contains('$');
    fine.then(|| text.to_owned()).ok_or("no path")
}

pub(super) fn redirect_status(text: &str) -> Parsed<StatusCode> {
    match text {
        "301" | "302" | "303" | "307" | "308" => StatusCode::from_bytes(text.as_bytes()).map_err(|_| "no status"),
        _ => Err("no status of a redirect"),
    }
}

pub(super) fn error_status(text: &str) -> Parsed<StatusCode> {
    let status = StatusCode::from_bytes(text.as_bytes()).map_err(|_| "no status")?;
    if status.as_u16() >= 400 && status.as_u16() < 600 {
        Ok(status)
    } else {
        Err("no status of an error")
    }
}

/// A host that endpoints see, with or without port.
pub(super) fn authority(text: &str) -> Parsed<String> {
    host_of(text).map(|_| text.to_owned()).ok_or("no host")
}
