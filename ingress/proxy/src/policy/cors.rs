//! Cross-origin requests (the Fetch standard, "CORS protocol"). Pure.

use hyper::Method;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use landfall_ingress_routing::policy::Cors;

/// What an endpoint says about origins counts for nothing where the annotations speak.
const GRANTS: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

/// Whether a browser asks if it may ask. Such a request carries no credentials, so it comes before authentication.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The value of `Access-Control-Allow-Origin` for this request, none when its origin is not allowed.
///
/// `*` is answered with `*`, never with the request's own origin: browsers then send no cookies, whatever else is said.
pub(super) fn allowed_origin(cors: &Cors, headers: &HeaderMap) -> Option<HeaderValue> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let origin = origins.next()?;
    if origins.next().is_some() {
        return None;
    }
    if cors.origins.iter().any(|pattern| pattern == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    let text = origin.to_str().ok()?;
    let allowed = cors.origins.iter().any(|pattern| matches(pattern, text));
    allowed.then(|| origin.clone())
}

/// Exact, or with `*.` in place of one label. Scheme and port count.
fn matches(pattern: &str, origin: &str) -> bool {
    let Some((scheme, host)) = pattern.split_once("://*.") else {
        return pattern.eq_ignore_ascii_case(origin);
    };
    let Some((origin_scheme, origin_host)) = origin.split_once("://") else {
        return false;
    };
    let Some((label, rest)) = origin_host.split_once('.') else {
        return false;
    };
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-';
    scheme.eq_ignore_ascii_case(origin_scheme)
        && !label.is_empty()
        && label.chars().all(fine)
        && rest.eq_ignore_ascii_case(host)
}

/// Sets the fields of an answer; `origin` is what [`allowed_origin`] said.
pub(super) fn dress(cors: &Cors, origin: Option<&HeaderValue>, preflight: bool, headers: &mut HeaderMap) {
    for grant in &GRANTS {
        headers.remove(grant);
    }
    let all = cors.origins.iter().any(|pattern| pattern == "*");
    if !all {
        // Also without a grant: a cache must not give this answer to another origin.
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    let Some(origin) = origin else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if cors.credentials && !all {
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, cors.methods.clone());
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, cors.headers.clone());
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age_s));
    } else if let Some(expose) = &cors.expose {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_whole_and_a_star_is_one_label() {
        for (pattern, origin, wanted) in [
            ("https://a.com", "https://a.com", true),
            ("https://a.com", "https://A.com", true),
            ("https://a.com", "http://a.com", false),
            ("https://a.com", "https://a.com:8443", false),
            ("https://a.com", "https://a.com.evil.org", false),
            ("https://*.a.com", "https://x.a.com", true),
            ("https://*.a.com", "https://a.com", false),
            ("https://*.a.com", "https://.a.com", false),
            ("https://*.a.com", "https://y.x.a.com", false),
            ("https://*.a.com", "https://evil.org/.a.com", false),
            ("https://*.a.com", "https://evil.org?.a.com", false),
            ("https://*.a.com", "https://xa.com", false),
            ("http://*.a.com:81", "http://x.a.com:81", true),
            ("http://*.a.com:81", "http://x.a.com", false),
            ("https://a.com", "null", false),
        ] {
            assert_eq!(matches(pattern, origin), wanted, "{pattern} {origin}");
        }
    }
}
