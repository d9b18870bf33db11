//! Heads of requests and answers, made fit for the next hop. Pure.
//!
//! What a client says about its origin is believed only of trusted peers (`--trusted-cidrs`), and then added to. Of others, and under
//! other spellings, it is taken away before ([`super::claims`]).

use super::Client;
use crate::policy::{Network, Protocol};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-scheme");
const SCHEME: HeaderName = HeaderName::from_static("x-scheme");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// Names a request in all logs on its way.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// On our own answers: [`crate::reason::Reason::label`].
pub(super) const REASON: HeaderName = HeaderName::from_static("x-landfall-reason");

/// How often a request came through proxies of this kind, this one included. `Via` would say it too, but nginx as an endpoint compresses
/// no answer to a request that has one.
pub(crate) const HOPS: HeaderName = HeaderName::from_static("x-landfall-hops");
/// Times that a request may come through. A backend may be another host of this proxy, and that one again; eight are a loop.
pub(super) const HOPS_MOST: u32 = 8;

/// How often a request came through before. A client that lies is answered like a loop; others are not touched by it.
pub(super) fn hops(headers: &HeaderMap) -> u32 {
    let told = headers
        .get(HOPS)
        .map(|told| told.to_str().ok().and_then(|told| told.parse().ok()));
    told.map_or(0, |told| told.unwrap_or(HOPS_MOST))
}

/// Longest `X-Request-ID` of a client that is passed on; longer ones are no names.
const REQUEST_ID_LENGTH: usize = 128;

/// Who asked, as trusted proxies in front tell it: the address before theirs, whether TLS ended there, and the port that was asked.
/// `None` when they tell nothing, or nobody in front is trusted. An address that cannot be read is an unspecified one, never the front's.
pub(super) fn origin(headers: &HeaderMap, client: &Client, trusted: &[Network]) -> Option<Client> {
    if !client.trusted {
        return None;
    }
    let hops = list(headers, &FORWARDED_FOR);
    let believed = believed_hop(&hops, trusted);
    let https = told_https(
        &list(headers, &FORWARDED_PROTO),
        &hops,
        believed.map(|(place, _)| place),
    );
    let told = headers.contains_key(FORWARDED_FOR);
    let port = told_port(headers, https);
    if !told && https.is_none() && port.is_none() {
        return None;
    }
    let mut origin = client.clone();
    if told {
        let address = believed.and_then(|(_, address)| address);
        origin.address.set_ip(address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()));
    }
    origin.https = https.unwrap_or(client.https);
    origin.port = port.unwrap_or(client.port);
    Some(origin)
}

/// The port that the client asked: as X-Forwarded-Port says, else the usual one of the scheme that X-Forwarded-Proto says.
fn told_port(headers: &HeaderMap, https: Option<bool>) -> Option<u16> {
    let told = list(headers, &FORWARDED_PORT);
    let told = told
        .first()
        .and_then(|port| std::str::from_utf8(port).ok()?.parse().ok());
    told.or(https.map(|https| if https { 443 } else { 80 }))
}

/// The entries of a list; empty ones are none (RFC 9110, 5.6.1).
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a [u8]> {
    let values = headers.get_all(name).iter();
    let entries = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    entries
        .map(<[u8]>::trim_ascii)
        .filter(|entry| !entry.is_empty())
        .collect()
}

/// The place of the hop that asked, and its address when that can be read. From the right: every hop was written by the one after it, so
/// the first that is not trusted is the last that is known.
fn believed_hop(hops: &[&[u8]], trusted: &[Network]) -> Option<(usize, Option<IpAddr>)> {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut believed = None;
    for (place, hop) in hops.iter().enumerate().rev() {
        let address = hop_address(hop);
        believed = Some((place, address));
        if !address.is_some_and(is_trusted) {
            break;
        }
    }
    believed
}

/// An entry of X-Forwarded-For as fronts write it: an address, alone or with a port, IPv6 in brackets or not, in quotes or not (RFC 7239,
/// 6; Azure's gateway writes ports). `None` for `unknown`, names that hide one, and all else.
fn hop_address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let text = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let address = text.parse().ok().or_else(with_port).or_else(bracketed)?;
    Some(address.to_canonical()).filter(|address| !address.is_unspecified())
}

/// Whether TLS is spoken, by X-Forwarded-Proto: the entry that the believed hop's proxy wrote, or the first when the lists are no pair,
/// for some balancers add to one of them only. `None` when it says nothing that is known.
fn told_https(protocols: &[&[u8]], hops: &[&[u8]], believed: Option<usize>) -> Option<bool> {
    let place = believed.filter(|_| protocols.len() == hops.len()).unwrap_or(0);
    let is = |word: &[u8]| {
        protocols
            .get(place)
            .is_some_and(|entry| entry.eq_ignore_ascii_case(word))
    };
    let https = is(b"https") || is(b"wss");
    (https || is(b"http") || is(b"ws")).then_some(https)
}

/// Makes a head that everybody reads alike, before anybody does: the cookies of HTTP/2 in one field, and a name for the request, which
/// `name` makes where it has none of its own. `None` when the cookies are no field.
pub(super) fn settle<B>(request: &mut Request<B>, name: impl FnOnce() -> HeaderValue) -> Option<()> {
    if request.version() == Version::HTTP_2 {
        join_cookies(request.headers_mut())?;
    }
    let own_id = request.headers().get(&REQUEST_ID).map(HeaderValue::as_bytes);
    if !own_id.is_some_and(is_request_id) {
        request.headers_mut().insert(REQUEST_ID, name());
    }
    Some(())
}

/// The request as the endpoint gets it: same method, path and Host, hop-by-hop fields gone, who asked in X-Forwarded-*. `None` when
/// its target cannot be sent on. It went through [`settle`]. `client` is the peer, `origin` who asked according to it; `hops` is how
/// often it came through before.
pub(super) fn outgoing<B>(request: Request<B>, client: &Client, origin: &Client, hops: u32) -> Option<Request<B>> {
    let (mut parts, body) = request.into_parts();
    if let Some(authority) = parts.uri.authority() {
        let value = HeaderValue::from_str(authority.as_str()).ok()?;
        parts.headers.insert(header::HOST, value);
        parts.uri = match parts.uri.path_and_query().map_or("/", |p| p.as_str()) {
            // An absolute target may have a query and no path (RFC 9112, 3.2.1).
            query if query.starts_with('?') => format!("/{query}").parse().ok()?,
            path => path.parse().ok()?,
        };
    }
    parts.version = Version::HTTP_11;
    // The one thing that TE says beyond its hop: that trailers are understood. gRPC's servers insist on it.
    let trailers = asks_for_trailers(&parts.headers);
    strip_hop_by_hop(&mut parts.headers);
    strip_continue(&mut parts.headers);
    if trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    claim_origin(&mut parts.headers, client, origin)?;
    parts.headers.insert(HOPS, HeaderValue::from(hops + 1));
    if parts.method == Method::OPTIONS
        && let Some(left) = parts.headers.get(header::MAX_FORWARDS).and_then(forwards)
    {
        let left = HeaderValue::from(left.saturating_sub(1));
        parts.headers.insert(header::MAX_FORWARDS, left);
    }
    Some(Request::from_parts(parts, body))
}

/// How often `Max-Forwards` lets a request be forwarded. `None` when it says nothing that can be read.
pub(super) fn forwards(value: &HeaderValue) -> Option<u32> {
    value.to_str().ok()?.parse().ok()
}

/// Whether a client's name for its request is passed on.
pub(super) fn is_request_id(id: &[u8]) -> bool {
    (1..=REQUEST_ID_LENGTH).contains(&id.len())
}

/// Sets who asked. Of a trusted peer its own words are kept, and it is added to them.
fn claim_origin(headers: &mut HeaderMap, client: &Client, origin: &Client) -> Option<()> {
    let peer = HeaderValue::from_str(&client.address_text()).ok()?;
    if client.trusted {
        let mut chain = Vec::new();
        for value in headers.get_all(FORWARDED_FOR) {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(peer.as_bytes());
        headers.insert(FORWARDED_FOR, HeaderValue::from_bytes(&chain).ok()?);
        headers.insert(REAL_IP, HeaderValue::from_str(&origin.address_text()).ok()?);
    } else {
        headers.insert(REAL_IP, peer.clone());
        headers.insert(FORWARDED_FOR, peer);
    }
    let scheme = HeaderValue::from_static(if origin.https { "https" } else { "http" });
    // ingress-nginx says it three times; applications read one or another.
    headers.insert(FORWARDED_PROTO, scheme.clone());
    headers.insert(FORWARDED_SCHEME, scheme.clone());
    headers.insert(SCHEME, scheme);
    if !(client.trusted && headers.contains_key(FORWARDED_PORT)) {
        headers.insert(FORWARDED_PORT, HeaderValue::from(origin.port));
    }
    if !(client.trusted && headers.contains_key(FORWARDED_HOST)) {
        match headers.get(header::HOST).cloned() {
            Some(host) => headers.insert(FORWARDED_HOST, host),
            None => headers.remove(FORWARDED_HOST),
        };
    }
    Some(())
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

fn asks_for_trailers(headers: &HeaderMap) -> bool {
    has_word(headers, header::TE, "trailers")
}

/// A request from [`outgoing`] in HTTP/2's form: the host as `:authority`. `None` when there is no host.
pub(super) fn for_http2<B>(request: &mut Request<B>, protocol: Protocol) -> Option<()> {
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

/// A request from [`outgoing`] in HTTP/1.1's form: what `TE` says is for the next hop alone, and `Connection` says so (RFC 9110, 10.1.4).
pub(super) fn for_http1<B>(request: &mut Request<B>) {
    let headers = request.headers_mut();
    if headers.contains_key(header::TE) {
        headers.append(header::CONNECTION, HeaderValue::from_static("te"));
    }
}

/// The answer as the client gets it.
pub(super) fn incoming<B>(mut response: Response<B>) -> Response<B> {
    *response.version_mut() = Version::HTTP_11;
    strip_hop_by_hop(response.headers_mut());
    // Whatever a length says here, no body follows (RFC 9110, 8.6), and clients of HTTP/2 would wait for one.
    if response.status() == StatusCode::NO_CONTENT {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
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
pub(crate) fn fit_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    for name in [header::CONTENT_LENGTH, header::HOST, header::TRAILER] {
        trailers.remove(name);
    }
}

/// The client's own hop answers its wish for `100 Continue` (RFC 9110, 10.1.1).
fn strip_continue(headers: &mut HeaderMap) {
    if headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        headers.remove(header::EXPECT);
    }
}

/// Whether a list of words has this one.
pub(crate) fn has_word(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    words(headers, &name).any(|w| w.eq_ignore_ascii_case(word.as_bytes()))
}

/// The words of a list in all its fields. One that is no text spoils none of the others.
pub(crate) fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let fields = headers.get_all(name).into_iter();
    let words = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    words.map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests;
