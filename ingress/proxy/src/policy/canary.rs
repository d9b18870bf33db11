//! Which requests a canary gets. Pure.

use super::cookies;
use hyper::header::HeaderMap;
use landfall_ingress_routing::policy::{Canary, HeaderMatch};

/// What the request itself says, as in ingress-nginx: the field, then the cookie. The first that says something decides; nothing leaves
/// it to chance.
pub(super) fn decided_by_rules(canary: &Canary, headers: &HeaderMap) -> Option<bool> {
    by_header(canary, headers).or_else(|| by_cookie(canary, headers))
}

/// What chance says; `lot` is any number.
pub(super) fn by_lot(canary: &Canary, lot: u64) -> bool {
    lot % u64::from(canary.weight_total.max(1)) < u64::from(canary.weight)
}

/// How often chance says yes, from 0 to 1.
pub(super) fn share(canary: &Canary) -> f64 {
    f64::from(canary.weight.min(canary.weight_total.max(1))) / f64::from(canary.weight_total.max(1))
}

fn by_header(canary: &Canary, headers: &HeaderMap) -> Option<bool> {
    let header = canary.header.as_ref()?;
    let value = headers.get(&header.name)?.as_bytes();
    match &header.value {
        Some(HeaderMatch::Value(wanted)) => (value == wanted.as_bytes()).then_some(true),
        // Bytes that are no text match what any character does.
        Some(HeaderMatch::Pattern(pattern)) => pattern.is_match(&String::from_utf8_lossy(value)).then_some(true),
        None => always_or_never(value),
    }
}

fn by_cookie(canary: &Canary, headers: &HeaderMap) -> Option<bool> {
    always_or_never(cookies::find(headers, canary.cookie.as_ref()?)?)
}

fn always_or_never(value: &[u8]) -> Option<bool> {
    match value {
        b"always" => Some(true),
        b"never" => Some(false),
        _ => None,
    }
}
