//! A service is asked whether a request may pass (`auth-url`). Pure; the asking is done in [`super::fetch`].
//!
//! 2xx passes. 401 and 403 are the answer; all else, and no answer at all, is 502. So what goes wrong never lets anything through.

use super::fetch::FetchError;
use super::request_view::RequestView;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use landfall_ingress_http::fields::strip_hop_by_hop;
use landfall_ingress_routing::policy::ExternalAuth;

/// What the service said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The request passes, with these fields, and its answer gets these cookies.
    Passes {
        fields: Vec<(HeaderName, HeaderValue)>,
        cookies: Vec<HeaderValue>,
    },
    /// The client has to log in: there, or as these challenges say.
    LogIn {
        location: Option<String>,
        challenges: Vec<HeaderValue>,
        cookies: Vec<HeaderValue>,
    },
    /// The client may not.
    Forbidden,
    /// Nobody knows.
    Broken,
}

/// Fields that make sense only with the body or with what an endpoint has.
const NOT_ASKED: [HeaderName; 12] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::EXPECT,
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-server"),
];

/// The question: the client's own fields, without its body. None when a part of it cannot be a field.
pub(super) fn question(
    auth: &ExternalAuth,
    view: &RequestView<'_>,
    authority: &str,
    uri: &str,
) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.method_mut() = auth.method.clone();
    *request.uri_mut() = uri.parse().ok()?;
    let headers = request.headers_mut();
    *headers = view.headers.clone();
    strip_hop_by_hop(headers);
    for name in &NOT_ASKED {
        headers.remove(name);
    }
    let request_uri = view.request_uri();
    let redirect = auth.redirect.as_deref().map(|text| view.expand(text));
    let address = view.client.address_text();
    let original = format!("{}://{}{request_uri}", view.scheme(), view.authority);
    for (name, value) in [
        ("host", authority),
        ("x-original-url", &original),
        ("x-original-method", view.method.as_str()),
        ("x-auth-request-redirect", redirect.as_deref().unwrap_or(&request_uri)),
        ("x-forwarded-method", view.method.as_str()),
        ("x-forwarded-uri", &request_uri),
        ("x-forwarded-host", view.authority),
        ("x-forwarded-proto", view.scheme()),
        ("x-forwarded-scheme", view.scheme()),
        ("x-scheme", view.scheme()),
        ("x-forwarded-port", &view.client.port.to_string()),
        ("x-forwarded-for", &address),
        ("x-real-ip", &address),
    ] {
        headers.insert(name, HeaderValue::from_str(value).ok()?);
    }
    Some(request)
}

/// Reads the answer.
pub(super) fn verdict(
    auth: &ExternalAuth,
    view: &RequestView<'_>,
    answer: Result<Response<Bytes>, FetchError>,
) -> Verdict {
    let Ok(answer) = answer else { return Verdict::Broken };
    let all = |name: HeaderName| answer.headers().get_all(name).iter().cloned().collect();
    let cookies = all(header::SET_COOKIE);
    match answer.status() {
        status if status.is_success() => {
            let fields = auth.response_headers.iter().flat_map(|name| {
                let values = answer.headers().get_all(name).iter();
                values.map(|value| (name.clone(), value.clone()))
            });
            Verdict::Passes {
                fields: fields.collect(),
                cookies,
            }
        }
        StatusCode::UNAUTHORIZED => Verdict::LogIn {
            location: auth.signin.as_deref().map(|page| view.expand(page)),
            challenges: all(header::WWW_AUTHENTICATE),
            cookies,
        },
        StatusCode::FORBIDDEN => Verdict::Forbidden,
        _ => Verdict::Broken,
    }
}
