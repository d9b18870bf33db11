//! Heads of HTTP/1 requests, read strictly. Pure; made for hostile input.
//!
//! INVARIANT: a head that another reader could take for something else is refused. Refused are bare CR and LF, NUL and other control
//! characters, folded fields, blanks before a colon, `Content-Length` beside `Transfer-Encoding`, more than one of either, lengths that
//! are not plain digits, any coding but `chunked`, any coding in HTTP/1.0, targets with a fragment. What passes is made anew for the
//! endpoint from its parts, so that no byte of a client's framing ever reaches one.

use super::chunked::Framing;
use crate::fields::has_word;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri, Version};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Most fields that are looked at; [`Bounds::fields`] is checked within.
const MOST_FIELDS: usize = 256;

/// Bounds of a request's head.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Largest head in bytes.
    pub bytes: usize,
    /// Longest target in bytes.
    pub target_bytes: usize,
    /// Most fields.
    pub fields: usize,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Two readers could read it in two ways, or it is no HTTP/1.
    Framing,
    /// The target is longer than allowed.
    LongTarget,
    /// The fields are too many or too large.
    Large,
    /// The target makes no sense.
    Target,
}

/// A request's head and what it means for the connection.
#[derive(Debug)]
pub struct Head {
    /// Method, target, version and fields.
    pub parts: Parts,
    /// How the end of the body is found.
    pub framing: Framing,
    /// The client takes another answer on this connection.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The client understands trailers.
    pub takes_trailers: bool,
}

/// Takes a head from the front of `buffer`. `None` when it is not whole yet.
pub fn parse(buffer: &mut BytesMut, bounds: &Bounds) -> Result<Option<Head>, Refused> {
    // An empty line in front is what old clients send after a body (RFC 9112, 2.2).
    while buffer.starts_with(b"\r\n") {
        let _ = buffer.split_to(2);
    }
    // httparse skips such a line.
    if buffer.first() == Some(&b'\n') {
        return Err(Refused::Framing);
    }
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(buffer, &mut fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return too_long(buffer, bounds).map_or(Ok(None), Err),
        Err(httparse::Error::TooManyHeaders) => return Err(Refused::Large),
        Err(_) => return Err(too_long(buffer, bounds).unwrap_or(Refused::Framing)),
    };
    if length > bounds.bytes || request.headers.len() > bounds.fields {
        return Err(Refused::Large);
    }
    if has_bare_newline(&buffer[..length]) {
        return Err(Refused::Framing);
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Refused::Framing);
    };
    if target.len() > bounds.target_bytes {
        return Err(Refused::LongTarget);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refused::Framing)?;
    let place = Place(buffer.as_ptr() as usize);
    let target = place.of(target.as_bytes());
    let count = request.headers.len();
    let mut places = Vec::with_capacity(count);
    for field in request.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Refused::Framing)?;
        places.push((name, place.of(field.value)));
    }

    let head = buffer.split_to(length).freeze();
    let mut headers = HeaderMap::with_capacity(count + ADDED_LATER);
    for (name, range) in places {
        let value = HeaderValue::from_maybe_shared(head.slice(range)).map_err(|_| Refused::Framing)?;
        headers.append(name, value);
    }
    // A fragment is for the client alone; http's parser would drop it silently.
    if head[target.clone()].contains(&b'#') {
        return Err(Refused::Target);
    }
    let uri = Uri::from_maybe_shared(head.slice(target.clone()))
        .or_else(|_| Uri::from_maybe_shared(encoded(&head[target])))
        .map_err(|_| Refused::Target)?;
    let version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.version = version;
    parts.headers = headers;
    meaning(parts).map(Some)
}

/// A target with those characters encoded that no URI may hold and many clients send as they are, as curl does with the quotes of a
/// Prometheus query. Other proxies pass them on.
fn encoded(target: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(target.len() + 32);
    for &byte in target {
        match byte {
            b'"' | b'<' | b'>' | b'`' => text.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            byte => text.push(byte),
        }
    }
    text.into()
}

/// Fields that are set on the way; a map that is large enough from the start is not copied.
const ADDED_LATER: usize = 8;

/// Where slices of the buffer lie in it.
struct Place(usize);

impl Place {
    fn of(&self, slice: &[u8]) -> Range<usize> {
        let start = (slice.as_ptr() as usize).wrapping_sub(self.0);
        start..start + slice.len()
    }
}

/// A head that is not whole and can only become too long.
fn too_long(buffer: &[u8], bounds: &Bounds) -> Option<Refused> {
    let line = buffer.iter().position(|byte| *byte == b'\n');
    match line {
        None if buffer.len() > bounds.target_bytes => Some(Refused::LongTarget),
        Some(line) if line > bounds.target_bytes + 64 => Some(Refused::LongTarget),
        _ => (buffer.len() > bounds.bytes).then_some(Refused::Large),
    }
}

/// Whether a line of a head ends without CR. Without an early exit this runs at several bytes per cycle.
pub fn has_bare_newline(head: &[u8]) -> bool {
    head.windows(2)
        .fold(false, |bad, pair| bad | ((pair[1] == b'\n') & (pair[0] != b'\r')))
}

/// What a head says about the connection and the body.
fn meaning(parts: Parts) -> Result<Head, Refused> {
    let old = parts.version == Version::HTTP_10;
    let headers = &parts.headers;
    let framing = framing(headers, old)?;
    let keep_alive = if has_word(headers, header::CONNECTION, "close") {
        false
    } else {
        !old || has_word(headers, header::CONNECTION, "keep-alive")
    };
    let expects_continue = !old && has_word(headers, header::EXPECT, "100-continue");
    let takes_trailers = !old && has_word(headers, header::TE, "trailers");
    Ok(Head {
        framing,
        keep_alive,
        expects_continue,
        takes_trailers,
        parts,
    })
}

fn framing(headers: &HeaderMap, old: bool) -> Result<Framing, Refused> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let (coding, length) = (codings.next(), lengths.next());
    if codings.next().is_some() || lengths.next().is_some() || (coding.is_some() && length.is_some()) {
        return Err(Refused::Framing);
    }
    if let Some(coding) = coding {
        let fine = !old && coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        return fine.then_some(Framing::Chunked).ok_or(Refused::Framing);
    }
    match length {
        None => Ok(Framing::Length(0)),
        Some(length) => digits(length.as_bytes()).map(Framing::Length).ok_or(Refused::Framing),
    }
}

/// A length: digits and nothing else, and one that fits.
pub fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
