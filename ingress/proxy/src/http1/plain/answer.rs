//! Which answers to plain requests are plain, and the head that the client gets of one. Pure.
//!
//! INVARIANT: what is written here is what `http/src/response.rs`, [`landfall_ingress_http::fields::incoming`] and `answer.rs` make of the
//! same answer, but for the order of fields.

use super::request::append_lower;
use hyper::StatusCode;
use landfall_ingress_http::date;
use landfall_ingress_http::lines::status_line;
use std::io::Write;
use std::mem::MaybeUninit;

/// More fields than this are not plain.
const FIELDS: usize = 64;

/// A plain answer at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Bytes of the head.
    pub(super) length: usize,
    pub(super) status: StatusCode,
    /// Bytes of the body that follows; none of a HEAD's or a 304's.
    pub(super) body: u64,
    has_date: bool,
    has_server: bool,
}

/// What is at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Plain(Answer),
    /// The head is not whole yet.
    Partial,
    /// Something that the usual way sees to; `out` holds nothing of use.
    Other,
}

/// Reads an answer's head, and appends status line and fields to `out` as the client gets them.
pub(super) fn read(buffer: &[u8], head_only: bool, most: usize, out: &mut Vec<u8>) -> Read {
    let mut room = [const { MaybeUninit::uninit() }; FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let length = match parser.parse_response_with_uninit_headers(&mut response, buffer, &mut room) {
        Ok(httparse::Status::Complete(length)) if length <= most => length,
        Ok(httparse::Status::Partial) if buffer.len() <= most => return Read::Partial,
        _ => return Read::Other,
    };
    let (Some(code @ 200..500), Some(1)) = (response.code, response.version) else {
        return Read::Other;
    };
    let Ok(status) = StatusCode::from_u16(code) else {
        return Read::Other;
    };
    status_line(out, status);
    let (mut body, mut has_date, mut has_server) = (None, false, false);
    for field in response.headers.iter() {
        let is = |word: &str| field.name.eq_ignore_ascii_case(word);
        match field.name.as_bytes().first().map(u8::to_ascii_lowercase) {
            Some(b'c') if is("content-length") => {
                let length = landfall_ingress_http::request::digits(field.value);
                // The usual way leaves a HEAD's length as it was written.
                let as_written = field.value.len() == 1 || field.value.first() != Some(&b'0');
                if body.is_some() || length.is_none() || !as_written {
                    return Read::Other;
                }
                body = length;
                continue;
            }
            Some(b'c') if is("connection") => {
                if !field.value.eq_ignore_ascii_case(b"keep-alive") {
                    return Read::Other;
                }
                continue;
            }
            Some(b'k') if is("keep-alive") => continue,
            Some(b't') if is("te") || is("transfer-encoding") => return Read::Other,
            Some(b'p') if is("proxy-connection") => return Read::Other,
            Some(b'u') if is("upgrade") => return Read::Other,
            Some(b'd') if is("date") => has_date = true,
            Some(b's') if is("server") => has_server = true,
            _ => {}
        }
        append_lower(out, field.name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(field.value);
        out.extend_from_slice(b"\r\n");
    }
    let no_content = status == StatusCode::NO_CONTENT;
    let bodiless = head_only || no_content || status == StatusCode::NOT_MODIFIED;
    if let Some(length) = body.filter(|_| !no_content) {
        // Writing to memory does not fail.
        let _ = write!(out, "content-length: {length}\r\n");
    }
    let body = match body {
        _ if bodiless => 0,
        Some(length) => length,
        None => return Read::Other,
    };
    Read::Plain(Answer {
        length,
        status,
        body,
        has_date,
        has_server,
    })
}

impl Answer {
    /// Appends the end of the head.
    pub(super) fn finish(&self, out: &mut Vec<u8>, keep: bool) {
        if !self.has_server {
            out.extend_from_slice(b"server: ");
            out.extend_from_slice(crate::OURS.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if !self.has_date {
            out.extend_from_slice(b"date: ");
            date::append(out);
            out.extend_from_slice(b"\r\n");
        }
        if !keep {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}
