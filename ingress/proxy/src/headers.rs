//! Heads of requests and answers, made fit for the next hop. Pure.
//!
//! What a client says about its origin is believed only of trusted peers (`--trusted-cidrs`), and then added to. Of others, and under
//! other spellings, it is taken away before ([`landfall_ingress_http::claims`]).

use super::Client;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Version};
use landfall_ingress_http::fields;
use landfall_ingress_http::network::Network;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-scheme");
const SCHEME: HeaderName = HeaderName::from_static("x-scheme");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Who asked, as trusted proxies in front tell it: the address before theirs, whether TLS ended there, and the port that was asked.
/// `None` when they tell nothing, or nobody in front is trusted. An address that cannot be read is an unspecified one, never the front's;
/// so is one that is told in another field than X-Forwarded-For, for a front may pass on what its client says there.
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
    let names = [FORWARDED_FOR, header::FORWARDED, REAL_IP];
    let told = names.iter().any(|name| headers.contains_key(name));
    let ports = list(headers, &FORWARDED_PORT);
    let port = told_port(&ports, &hops, believed.map(|(place, _)| place));
    // Else the usual one of the scheme.
    let port = port.or(https.map(|https| if https { 443 } else { 80 }));
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

/// The port that the client asked, by X-Forwarded-Port: its entry for the believed hop.
fn told_port(ports: &[&[u8]], hops: &[&[u8]], believed: Option<usize>) -> Option<u16> {
    let port = entry(ports, hops, believed)?;
    std::str::from_utf8(port).ok()?.parse().ok()
}

/// The entry that the believed hop's proxy wrote, or the first when the lists are no pair, for some balancers add to one of them only.
fn entry<'a>(entries: &[&'a [u8]], hops: &[&[u8]], believed: Option<usize>) -> Option<&'a [u8]> {
    let place = believed.filter(|_| entries.len() == hops.len()).unwrap_or(0);
    entries.get(place).copied()
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

/// Whether TLS is spoken, by X-Forwarded-Proto: its entry for the believed hop. `None` when it says nothing that is known.
fn told_https(protocols: &[&[u8]], hops: &[&[u8]], believed: Option<usize>) -> Option<bool> {
    let told = entry(protocols, hops, believed);
    let is = |word: &[u8]| told.is_some_and(|entry| entry.eq_ignore_ascii_case(word));
    let https = is(b"https") || is(b"wss");
    (https || is(b"http") || is(b"ws")).then_some(https)
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
    let trailers = fields::asks_for_trailers(&parts.headers);
    fields::strip_hop_by_hop(&mut parts.headers);
    fields::strip_continue(&mut parts.headers);
    if trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    claim_origin(&mut parts.headers, client, origin)?;
    parts.headers.insert(fields::HOPS, HeaderValue::from(hops + 1));
    if parts.method == Method::OPTIONS
        && let Some(left) = parts.headers.get(header::MAX_FORWARDS).and_then(fields::forwards)
    {
        let left = HeaderValue::from(left.saturating_sub(1));
        parts.headers.insert(header::MAX_FORWARDS, left);
    }
    Some(Request::from_parts(parts, body))
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

#[cfg(test)]
mod tests;
