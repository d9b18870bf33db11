//! Which requests a canary gets. Pure.

use super::cookies;
use crate::policy::{Canary, HeaderMatch};
use hyper::header::HeaderMap;

/// Order as in ingress-nginx: field, then cookie, then the lot. The first that says something decides; `lot` is none when the request
/// is bound to the main backend already.
pub(super) fn takes(canary: &Canary, headers: &HeaderMap, lot: Option<u64>) -> bool {
    let by_lot = || lot.is_some_and(|lot| lot % u64::from(canary.weight_total.max(1)) < u64::from(canary.weight));
    by_header(canary, headers)
        .or_else(|| by_cookie(canary, headers))
        .unwrap_or_else(by_lot)
}

fn by_header(canary: &Canary, headers: &HeaderMap) -> Option<bool> {
    let header = canary.header.as_ref()?;
    let value = headers.get(&header.name)?.to_str().ok()?;
    match &header.value {
        Some(HeaderMatch::Value(wanted)) => (value == wanted).then_some(true),
        Some(HeaderMatch::Pattern(pattern)) => pattern.is_match(value).then_some(true),
        None => always_or_never(value),
    }
}

fn by_cookie(canary: &Canary, headers: &HeaderMap) -> Option<bool> {
    always_or_never(cookies::find(headers, canary.cookie.as_ref()?)?)
}

fn always_or_never(value: &str) -> Option<bool> {
    match value {
        "always" => Some(true),
        "never" => Some(false),
        _ => None,
    }
}
