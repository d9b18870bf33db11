//! What clients must not say, because pods would take it for a result of ours.

use hyper::header::{HeaderMap, HeaderName};

/// Beginnings of names that this proxy, an authentication service or a TLS front sets, never a client.
const OURS: [&str; 4] = ["x-original-", "x-auth-request-", "ssl-client-", "x-landfall-"];

/// Removes them. `results` are further names that this route's authentication sets.
///
/// Underscores count as hyphens: many servers behind make the same variable of both.
pub(crate) fn strip<'a>(headers: &mut HeaderMap, results: impl IntoIterator<Item = &'a HeaderName>) {
    let claimed: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in &claimed {
        headers.remove(name);
    }
    for result in results {
        let aliases: Vec<HeaderName> = headers
            .keys()
            .filter(|name| alike(name.as_str(), result.as_str()))
            .cloned()
            .collect();
        for name in &aliases {
            headers.remove(name);
        }
    }
}

fn is_claim(name: &str) -> bool {
    // Nearly all names differ in their first byte.
    matches!(name.as_bytes().first(), Some(b'x' | b's'))
        && OURS
            .iter()
            .any(|ours| name.get(..ours.len()).is_some_and(|start| alike(start, ours)))
}

/// Names are lower case here.
fn alike(a: &str, b: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    a.len() == b.len() && a.bytes().map(plain).eq(b.bytes().map(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn results_of_ours_are_taken_away_also_under_other_spellings() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-original-url",
            "X-Original_Method",
            "X-Auth-Request-User",
            "x_auth_request_email",
            "ssl-client-cert",
            "SSL_Client_Verify",
            "x-user",
            "X_User",
            "x-landfall-reason",
            "x-auth-token",
            "x-request-id",
            "sslx",
            "x",
            "s",
            "authorization",
        ] {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static("1"),
            );
        }
        strip(&mut headers, [&HeaderName::from_static("x-user")]);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            ["authorization", "s", "sslx", "x", "x-auth-token", "x-request-id"]
        );
    }
}
