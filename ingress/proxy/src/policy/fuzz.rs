//! What policies read of requests and files, hostile: see [`crate::fuzz`].

use super::request_view::RequestView;
use super::{basic, cookies, rewrite};
use crate::Client;
use crate::fuzz::{fuzz, lines};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderValue};
use landfall_ingress_http::path::{canonical, decoded};
use landfall_ingress_routing::Route;
use landfall_ingress_routing::policy::Rewrite;
use landfall_ingress_translate::annotations;

/// A field for each line; none when a line cannot be a value.
fn fields<'a>(name: &'static str, values: impl Iterator<Item = &'a [u8]>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(headers)
}

#[test]
fn a_cookie_is_the_first_of_its_name_whatever_stands_around_it() {
    fuzz("cookie", |input| {
        // The first line is the name that is looked for.
        let mut parts = input.split(|byte| *byte == b'\n');
        let Ok(name) = std::str::from_utf8(parts.next().unwrap_or_default()) else {
            return;
        };
        let values: Vec<_> = parts.collect();
        let Some(headers) = fields("cookie", values.iter().copied()) else {
            return;
        };
        let joined = values.join(&b';');
        let mut wanted = None;
        for pair in joined.rsplit(|byte| *byte == b';') {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            if let (Some(key), Some(value)) = (halves.next(), halves.next())
                && key.trim_ascii() == name.as_bytes()
            {
                wanted = Some(value.trim_ascii().to_vec());
            }
        }
        let unquoted = |value: Vec<u8>| match value.len() {
            2.. if value.starts_with(b"\"") && value.ends_with(b"\"") => value[1..value.len() - 1].to_vec(),
            _ => value,
        };
        assert_eq!(cookies::find(&headers, name).map(<[u8]>::to_vec), wanted.map(unquoted));
    });
}

#[test]
fn credentials_come_from_one_field_and_are_what_was_encoded() {
    fuzz("basic-credentials", |input| {
        let Some(headers) = fields("authorization", input.split(|byte| *byte == b'\n')) else {
            return;
        };
        let Some((user, password)) = basic::credentials(&headers) else {
            return;
        };
        assert!(headers.len() == 1 && !user.contains(':'));
        let token = STANDARD.encode([user.as_bytes(), b":", &password].concat());
        let again = fields("authorization", [format!("Basic {token}").as_bytes()].into_iter()).unwrap();
        assert_eq!(basic::credentials(&again), Some((user, password)));
        let twice = [input, b"\nBasic YTpi"].concat();
        let twice = fields("authorization", twice.split(|byte| *byte == b'\n')).unwrap();
        assert_eq!(basic::credentials(&twice), None);
    });
}

#[test]
fn variables_are_replaced_once_and_everything_else_stays() {
    let (route, client) = (Route::default(), Client::new("192.0.2.1:1".parse().unwrap(), 80));
    let (method, headers) = (Method::GET, HeaderMap::new());
    let names = regex::Regex::new(r"\$([A-Za-z0-9_]*)").unwrap();
    fuzz("expand", |input| {
        let Some([template, host, path, query]) = lines::<4>(input) else {
            return;
        };
        let view = RequestView {
            route: &route,
            client: &client,
            method: &method,
            headers: &headers,
            host,
            authority: host,
            path,
            query: (!query.is_empty()).then_some(query),
            secure: query.len() % 2 == 0,
            host_has_tls: false,
        };
        let plain = names.replace_all(template, |found: &regex::Captures<'_>| {
            let uri = format!("{path}{}{query}", if query.is_empty() { "" } else { "?" });
            match &found[1] {
                "host" | "http_host" | "best_http_host" => host.to_owned(),
                "uri" => path.to_owned(),
                "request_uri" => uri,
                "scheme" | "pass_access_scheme" => if view.secure { "https" } else { "http" }.to_owned(),
                "remote_addr" => "192.0.2.1".to_owned(),
                "escaped_request_uri" => uri
                    .bytes()
                    .map(|byte| match byte {
                        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
                        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                        byte => format!("%{byte:02X}"),
                    })
                    .collect(),
                _ => found[0].to_owned(),
            }
        });
        assert_eq!(view.expand(template), plain);
    });
}

#[test]
fn a_rewritten_path_is_canonical_and_stays_on_the_host() {
    fuzz("rewrite", |input| {
        let Some([pattern, target, path, query]) = lines::<4>(input) else {
            return;
        };
        let pattern = (!pattern.is_empty()).then(|| regex::Regex::new(&format!("^(?i:{pattern})")));
        let (Ok(pattern), Ok(path)) = (pattern.transpose(), canonical(path)) else {
            return;
        };
        let Ok(target) = annotations::rewrite_target(target) else {
            return;
        };
        let rewrite = Rewrite { pattern, target };
        let query = (!query.is_empty()).then_some(query);
        let Ok(uri) = rewrite::rewritten(&rewrite, None, &path, query) else {
            return;
        };
        assert!(uri.scheme().is_none() && uri.authority().is_none(), "{uri}");
        assert_eq!(canonical(uri.path()).as_deref(), Ok(uri.path()));
        assert!(decoded(uri.path()).is_ok(), "{uri} hides a dot segment");
        // A fragment is no part of a target; what came with the request ends there.
        if let Some(query) = query.filter(|query| !query.contains('#')) {
            assert!(uri.query().is_some_and(|all| all.ends_with(query)), "{uri}");
        }
    });
}
