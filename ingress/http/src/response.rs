//! Heads in HTTP/1.1's form: requests written, answers read. Pure.
//!
//! An endpoint is no enemy, but a broken one must not be able to mix up two requests: an answer whose length can be read in two ways
//! is refused. What passes is written anew for the client, so that no byte of an endpoint's framing reaches one.

use bytes::BytesMut;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use http::{request, response};
use std::io::Write;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Most fields of an answer. nginx bounds their bytes alone, and applications send a cookie in each of hundreds; hyper's own 100 are too few.
const FIELDS: usize = 1000;

/// How the end of an answer's body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; also none at all.
    Length(u64),
    /// In chunks, which say their end themselves.
    Chunked,
    /// By the connection's end.
    UntilClose,
    /// There is no body, whatever the fields say: it answers HEAD, or its status has none.
    None,
}

/// An answer's head and what it means for the connection.
#[derive(Debug)]
pub struct Head {
    /// Status, version and fields.
    pub parts: response::Parts,
    /// How the end of the body is found.
    pub framing: Framing,
    /// The endpoint takes another request on this connection.
    pub keep_alive: bool,
}

impl Head {
    /// Bytes of the body, where they are known.
    pub fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(length) => Some(length),
            Framing::None => Some(0),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }
}

/// What an endpoint sends.
#[derive(Debug)]
pub enum Parsed {
    /// The answer to the request.
    Final(Head),
    /// 1xx but 101; another one follows.
    Interim(response::Parts),
}

/// The bytes are no answer that can be understood in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// How a request's body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// There is no body.
    Nothing,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// Appends a request's head.
pub fn write(out: &mut Vec<u8>, parts: &request::Parts, sending: Sending) {
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &parts.headers {
        if *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    // The length of a body is what is known of the body; what was said of none is said again.
    let length = match sending {
        Sending::Length(length) => Some(length),
        Sending::Nothing => parts.headers.contains_key(header::CONTENT_LENGTH).then_some(0),
        Sending::Chunked => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            None
        }
    };
    if let Some(length) = length {
        // Writing to memory does not fail.
        let _ = write!(out, "content-length: {length}\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Takes the head of an answer to `method` from the front of `buffer`. `None` when it is not whole yet. `most` bounds its size in bytes.
pub fn parse(buffer: &mut BytesMut, method: &Method, most: usize) -> Result<Option<Parsed>, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    // RFC 9112, 5.1: a proxy takes such blanks away and goes on.
    parser.allow_spaces_after_header_name_in_responses(true);
    let length = match parser.parse_response_with_uninit_headers(&mut response, buffer, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length <= most => length,
        Ok(httparse::Status::Partial) if buffer.len() <= most => return Ok(None),
        _ => return Err(Malformed),
    };
    let (Some(code), Some(minor)) = (response.code, response.version) else {
        return Err(Malformed);
    };
    let status = StatusCode::from_u16(code).map_err(|_| Malformed)?;
    let start = buffer.as_ptr() as usize;
    let place = |value: &[u8]| -> Range<usize> {
        let from = (value.as_ptr() as usize).wrapping_sub(start);
        from..from + value.len()
    };
    let mut places = Vec::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
        places.push((name, place(field.value)));
    }
    let head = buffer.split_to(length).freeze();
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.headers = HeaderMap::with_capacity(places.len() + ADDED_LATER);
    for (name, range) in places {
        let value = HeaderValue::from_maybe_shared(head.slice(range)).map_err(|_| Malformed)?;
        parts.headers.append(name, value);
    }
    parts.status = status;
    parts.version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    // What is said of a length has no meaning in an interim answer: none has a body (RFC 9112, 6.3).
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Some(Parsed::Interim(parts)));
    }
    meaning(parts, method).map(|head| Some(Parsed::Final(head)))
}

/// Fields that are set on the way; a map that is large enough from the start is not copied.
const ADDED_LATER: usize = 4;

/// RFC 9112, 6.3, without repairs: a length beside a coding, two lengths that differ, any coding but `chunked`, any in HTTP/1.0.
fn meaning(parts: response::Parts, method: &Method) -> Result<Head, Malformed> {
    let old = parts.version == Version::HTTP_10;
    let headers = &parts.headers;
    let length = length(headers)?;
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let framing = match (codings.next(), length) {
        (Some(coding), None) => {
            let chunked = !old && coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
            chunked.then_some(Framing::Chunked).ok_or(Malformed)?
        }
        (Some(_), Some(_)) => return Err(Malformed),
        (None, Some(length)) => Framing::Length(length),
        (None, None) => Framing::UntilClose,
    };
    let bodiless = *method == Method::HEAD || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let framing = match parts.status {
        // What follows is another protocol.
        StatusCode::SWITCHING_PROTOCOLS => Framing::UntilClose,
        _ if bodiless => Framing::None,
        _ => framing,
    };
    let says = |word| crate::fields::has_word(headers, header::CONNECTION, word);
    let wants = if headers.contains_key(header::CONNECTION) {
        !says("close") && (!old || says("keep-alive"))
    } else {
        !old
    };
    Ok(Head {
        keep_alive: wants && framing != Framing::UntilClose,
        framing,
        parts,
    })
}

/// Servers do send a length twice; as long as both are the same it is one.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut found = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let digits = value.as_bytes();
        let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let number = plain.then(|| value.to_str().ok()?.parse::<u64>().ok()).flatten();
        let number = number.ok_or(Malformed)?;
        if found.is_some_and(|other| other != number) {
            return Err(Malformed);
        }
        found = Some(number);
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
