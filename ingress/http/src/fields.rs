//! Fields of requests and answers by the rules of RFC 9110 to 9113: which end at a hop, which one connection adds, which trailers pass.

use crate::protocol::Protocol;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};

/// Fields that end at this hop (RFC 9110, section 7.6.1; `HTTP2-Settings` by RFC 7540, 3.2.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields that `Connection` cannot take away: without the first two the request means something else, and all who are asked are to know
/// it by one name.
const KEPT: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, REQUEST_ID];

/// Names a request in all logs on its way.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// On our own answers: why.
pub const REASON: HeaderName = HeaderName::from_static("x-landfall-reason");

/// How often a request came through proxies of this kind, this one included. `Via` would say it too, but nginx as an endpoint compresses
/// no answer to a request that has one.
pub const HOPS: HeaderName = HeaderName::from_static("x-landfall-hops");

/// Times that a request may come through. A backend may be another host of this proxy, and that one again; eight are a loop.
pub const HOPS_MOST: u32 = 8;

/// How often a request came through before. A client that lies is answered like a loop; others are not touched by it.
pub fn hops(headers: &HeaderMap) -> u32 {
    let told = headers
        .get(HOPS)
        .map(|told| told.to_str().ok().and_then(|told| told.parse().ok()));
    told.map_or(0, |told| told.unwrap_or(HOPS_MOST))
}

/// Longest `X-Request-ID` of a client that is passed on; longer ones are no names.
const REQUEST_ID_LENGTH: usize = 128;

/// Makes a head that everybody reads alike, before anybody does: the cookies of HTTP/2 in one field, and a name for the request, which
/// `name` makes where it has none of its own. `None` when the cookies are no field.
pub fn settle<B>(request: &mut Request<B>, name: impl FnOnce() -> HeaderValue) -> Option<()> {
    if request.version() == Version::HTTP_2 {
        join_cookies(request.headers_mut())?;
    }
    let own_id = request.headers().get(&REQUEST_ID).map(HeaderValue::as_bytes);
    if !own_id.is_some_and(is_request_id) {
        request.headers_mut().insert(REQUEST_ID, name());
    }
    Some(())
}

/// How often `Max-Forwards` lets a request be forwarded. `None` when it says nothing that can be read.
pub fn forwards(value: &HeaderValue) -> Option<u32> {
    value.to_str().ok()?.parse().ok()
}

/// Whether a client's name for its request is passed on.
pub fn is_request_id(id: &[u8]) -> bool {
    (1..=REQUEST_ID_LENGTH).contains(&id.len())
}

/// HTTP/2 clients may send each cookie in a field of its own; towards HTTP/1 they are one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Option<()> {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) {
        let mut joined = first.as_bytes().to_vec();
        for crumb in std::iter::once(second).chain(crumbs) {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(crumb.as_bytes());
        }
        headers.insert(header::COOKIE, HeaderValue::from_bytes(&joined).ok()?);
    }
    Some(())
}

/// Whether `TE` says that trailers are understood.
pub fn asks_for_trailers(headers: &HeaderMap) -> bool {
    has_word(headers, header::TE, "trailers")
}

/// A request from this proxy's form in HTTP/2's form: the host as `:authority`. `None` when there is no host.
pub fn for_http2<B>(request: &mut Request<B>, protocol: Protocol) -> Option<()> {
    let host = request.headers_mut().remove(header::HOST)?;
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.authority = Some(Authority::try_from(host.as_bytes()).ok()?);
    uri.scheme = Some(if protocol == Protocol::H2 {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    });
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    *request.version_mut() = Version::HTTP_2;
    Some(())
}

/// A request from this proxy's form in HTTP/1.1's form: what `TE` says is for the next hop alone, and `Connection` says so (RFC 9110, 10.1.4).
pub fn for_http1<B>(request: &mut Request<B>) {
    let headers = request.headers_mut();
    if headers.contains_key(header::TE) {
        headers.append(header::CONNECTION, HeaderValue::from_static("te"));
    }
}

/// The answer as the client gets it.
pub fn incoming<B>(mut response: Response<B>) -> Response<B> {
    *response.version_mut() = Version::HTTP_11;
    strip_hop_by_hop(response.headers_mut());
    // Whatever a length says here, no body follows (RFC 9110, 8.6), and clients of HTTP/2 would wait for one.
    if response.status() == StatusCode::NO_CONTENT {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// Takes away what ends at this hop, and what `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = words(headers, &header::CONNECTION)
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .filter(|name| !KEPT.contains(name))
            .collect();
        for name in &named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Takes away from an endpoint's trailers what would frame, route or end at this hop (RFC 9110, 6.5.1): a client of HTTP/2 would have to
/// give the answer up.
pub fn fit_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    for name in [header::CONTENT_LENGTH, header::HOST, header::TRAILER] {
        trailers.remove(name);
    }
}

/// The client's own hop answers its wish for `100 Continue` (RFC 9110, 10.1.1).
pub fn strip_continue(headers: &mut HeaderMap) {
    if headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        headers.remove(header::EXPECT);
    }
}

/// Whether a list of words has this one.
pub fn has_word(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    words(headers, &name).any(|w| w.eq_ignore_ascii_case(word.as_bytes()))
}

/// The words of a list in all its fields. One that is no text spoils none of the others.
pub fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let fields = headers.get_all(name).into_iter();
    let words = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    words.map(<[u8]>::trim_ascii)
}
