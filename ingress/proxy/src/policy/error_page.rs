//! Answers of another backend in place of an endpoint's errors (`custom-http-errors`). Pure.
//!
//! It is asked as ingress-nginx asks it: with GET, the status in `X-Code` and what else it may want to know in `X-*`. Its status is the
//! status of the answer.

use super::filter_state::FilterState;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use landfall_ingress_http::fields::strip_hop_by_hop;
use landfall_ingress_routing::Route;

pub(super) fn question(filter_state: &FilterState, route: &Route, status: StatusCode) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::new(Bytes::new()));
    let headers = request.headers_mut();
    let (namespace, name) = route.ingress.split_once('/').unwrap_or(("", &route.ingress));
    let service = filter_state
        .backend
        .name
        .split_once('/')
        .map_or("", |(_, service)| service);
    let (service, port) = service.rsplit_once(':').unwrap_or((service, ""));
    for (field, value) in [
        ("host", "error-page"),
        ("x-code", status.as_str()),
        ("x-original-uri", &filter_state.request_uri),
        ("x-namespace", namespace),
        ("x-ingress-name", name),
        ("x-service-name", service),
        ("x-service-port", port),
    ] {
        headers.insert(field, HeaderValue::from_str(value).ok()?);
    }
    if let Some(accept) = &filter_state.accept {
        headers.insert(header::ACCEPT, accept.clone());
        headers.insert("x-format", accept.clone());
    }
    Some(request)
}

/// The page as the client gets it; its length is known anew.
pub(super) fn answer(mut page: Response<Bytes>) -> Response<Bytes> {
    strip_hop_by_hop(page.headers_mut());
    page.headers_mut().remove(header::CONTENT_LENGTH);
    page
}
