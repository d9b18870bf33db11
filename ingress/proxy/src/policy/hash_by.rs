//! The key that requests are spread by (`upstream-hash-by`). Pure.

use super::cookies;
use super::request_view::RequestView;
use landfall_ingress_routing::policy::HashKey;

/// The bytes of the key; none when the request has nothing of what is named, and then any endpoint will do.
pub(super) fn key(by: &[HashKey], view: &RequestView<'_>) -> Option<Vec<u8>> {
    let mut key = Vec::new();
    let mut found = false;
    for part in by {
        match part {
            HashKey::Text(text) => key.extend_from_slice(text.as_bytes()),
            part => {
                let value = value(part, view);
                found |= value.is_some();
                key.extend(value.unwrap_or_default());
            }
        }
    }
    found.then_some(key)
}

fn value(part: &HashKey, view: &RequestView<'_>) -> Option<Vec<u8>> {
    match part {
        HashKey::Text(text) => Some(text.as_bytes().to_vec()),
        HashKey::Uri => Some(view.request_uri().into_bytes()),
        HashKey::Path => Some(view.path.as_bytes().to_vec()),
        HashKey::Client => Some(view.address().to_string().into_bytes()),
        HashKey::Host => Some(view.host.as_bytes().to_vec()),
        HashKey::Header(name) => view.headers.get(name).map(|value| value.as_bytes().to_vec()),
        HashKey::Cookie(name) => cookies::find(view.headers, name).map(<[u8]>::to_vec),
        HashKey::Argument(name) => argument(view.query?, name).map(|value| value.as_bytes().to_vec()),
    }
}

/// As nginx's `$arg_NAME`: the first of that name, undecoded.
fn argument<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut named = pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name));
    named.next().map(|(_, value)| value)
}
