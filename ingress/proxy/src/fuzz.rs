//! Parsers of hostile input, fed with mutated corpora: `tests/fuzz/corpus/PARSER/`, one input a file. Here is what proxies in front say;
//! other modules are fed by a module `fuzz` of their own.
//!
//! How, is in `tests/fuzz/harness.rs`.

use super::Client;
use super::headers::origin;
use super::proxy_header::{Parsed, parse};
use hyper::header::{HeaderMap, HeaderValue};
use landfall_ingress_http::network::Network;

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;
pub(crate) use harness::fuzz;

/// Cuts an input into so many texts, at line feeds; what is missing is empty, what is too much stays in the last.
pub(crate) fn lines<const N: usize>(input: &[u8]) -> Option<[&str; N]> {
    let text = std::str::from_utf8(input).ok()?;
    let mut lines = text.splitn(N, '\n');
    Some([(); N].map(|()| lines.next().unwrap_or_default()))
}

#[test]
fn a_proxy_header_has_one_end_and_one_meaning_however_it_arrives() {
    fuzz("proxy-header", |input| {
        let Ok(Parsed::Header(length, told)) = parse(input) else {
            return;
        };
        let header = &input[..length];
        // Nothing is decided before the last byte, and nothing behind it matters.
        for end in (0..length).filter(|end| *end < 128 || end % 64 == 0) {
            assert_eq!(parse(&header[..end]), Ok(Parsed::Partial), "{end}");
        }
        assert_eq!(parse(header), Ok(Parsed::Header(length, told)));
        assert_eq!(parse(&[header, b"\r\nGET"].concat()), Ok(Parsed::Header(length, told)));
        let Some(told) = told else { return };
        let family = if told.source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (told.source, told.destination);
        let text = format!(
            "PROXY {family} {} {} {} {}\r\n",
            from.ip(),
            to.ip(),
            from.port(),
            to.port()
        );
        assert_eq!(parse(text.as_bytes()), Ok(Parsed::Header(text.len(), Some(told))));
    });
}

#[test]
fn an_origin_is_one_that_a_trusted_proxy_named_and_never_one_further_on() {
    let trusted = [
        Network::parse("10.0.0.0/8").unwrap(),
        Network::parse("fd00::/8").unwrap(),
    ];
    let is_trusted = |address| trusted.iter().any(|network| network.contains(address));
    let peer = Client::new("10.0.0.1:1000".parse().unwrap(), 80);
    fuzz("forwarded-for", |input| {
        let mut headers = HeaderMap::new();
        for line in input.split(|byte| *byte == b'\n') {
            let Ok(value) = HeaderValue::from_bytes(line) else {
                return;
            };
            headers.append("x-forwarded-for", value);
        }
        let mut peer = peer.clone();
        assert!(origin(&headers, &peer, &trusted).is_none());
        peer.trusted = true;
        let Some(told) = origin(&headers, &peer, &trusted) else {
            return;
        };
        // One entry alone is read as in the list.
        let alone = |hop: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.append("x-forwarded-for", HeaderValue::from_bytes(hop).unwrap());
            origin(&headers, &peer, &trusted)
                .and_then(|told| told.known_address())
                .ok_or(())
        };
        let entries = input.split(|byte| matches!(byte, b',' | b'\n')).map(<[u8]>::trim_ascii);
        let hops: Vec<_> = entries.filter(|hop| !hop.is_empty()).map(alone).collect();
        let Some(address) = told.known_address() else {
            let unread = hops.iter().rposition(Result::is_err);
            let behind = hops[unread.map_or(hops.len(), |place| place + 1)..].iter();
            assert!(
                behind.flatten().all(|hop| is_trusted(*hop)),
                "a hop that can be read counts"
            );
            return;
        };
        // Never the front itself, but where it is named.
        assert!(address != peer.address.ip() || hops.contains(&Ok(address)));
        let after = |place: usize| {
            hops[place + 1..]
                .iter()
                .all(|hop| hop.as_ref().is_ok_and(|hop| is_trusted(*hop)))
        };
        let place = (0..hops.len()).find(|place| hops[*place] == Ok(address) && after(*place));
        let place = place.expect("it stands in the list, with trusted ones behind it");
        // It is the last that is known: trusted only where there is nothing before it.
        assert!(!is_trusted(address) || place == 0);
    });
}
