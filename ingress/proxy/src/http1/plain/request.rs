//! Which requests are plain, and the head that an endpoint gets of one. Pure; made for hostile input.
//!
//! INVARIANT: what is written here is what [`crate::headers::outgoing`] and the rest of the usual way make of the same request,
//! but for the order of fields. Everything that they would change, refuse or look at more closely is not plain.

use crate::limits::Limits;
use landfall_ingress_http::claims::{self, Speaker};
use std::mem::MaybeUninit;

/// More fields than this are not plain.
const FIELDS: usize = 64;

/// A plain request at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FastPathHead<'a> {
    /// Bytes of the head.
    pub(super) length: usize,
    /// The method is HEAD, else GET.
    pub(super) head_only: bool,
    pub(super) target: &'a str,
    /// The target without its query.
    pub(super) path: &'a str,
    /// The field as it is.
    pub(super) authority: &'a str,
    /// Without port.
    pub(super) host: &'a str,
    pub(super) keep_alive: bool,
    /// It has a name of its own that is passed on.
    has_id: bool,
}

/// Reads a plain request and appends the fields that are passed on to `fields`. `None` for everything else, also for a head that is
/// not whole yet; `fields` holds nothing of use then.
pub(super) fn read<'a>(buffer: &'a [u8], limits: &Limits, fields: &mut Vec<u8>) -> Option<FastPathHead<'a>> {
    let head_only = match buffer.first()? {
        b'G' => false,
        b'H' => true,
        _ => return None,
    };
    let mut room = [const { MaybeUninit::uninit() }; FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(buffer, &mut room);
    let Ok(httparse::Status::Complete(length)) = parsed else {
        return None;
    };
    let within = length <= limits.head_bytes && request.headers.len() <= limits.head_fields;
    let method = if head_only { "HEAD" } else { "GET" };
    if !within || request.method != Some(method) || request.version != Some(1) {
        return None;
    }
    if landfall_ingress_http::request::has_bare_newline(&buffer[..length]) {
        return None;
    }
    let target = request.path.filter(|target| target.len() <= limits.target_bytes)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // What such a path is when it is decoded is looked at on the usual way.
    let whole = landfall_ingress_http::path::is_canonical(path.as_bytes())
        && !landfall_ingress_http::path::may_read_otherwise(path);
    if !whole || !query.bytes().all(is_plain_in_query) {
        return None;
    }
    let mut asked = FastPathHead {
        length,
        head_only,
        target,
        path,
        authority: "",
        host: "",
        keep_alive: true,
        has_id: false,
    };
    for field in request.headers.iter() {
        match kind(field.name) {
            Kind::Passes => {}
            Kind::Host if asked.authority.is_empty() => {
                asked.authority = std::str::from_utf8(field.value).ok()?;
                asked.host = plain_host(asked.authority)?;
            }
            Kind::Connection => {
                match field.value {
                    value if value.eq_ignore_ascii_case(b"keep-alive") => {}
                    value if value.eq_ignore_ascii_case(b"close") => asked.keep_alive = false,
                    _ => return None,
                }
                continue;
            }
            Kind::Id if !asked.has_id && landfall_ingress_http::fields::is_request_id(field.value) => {
                asked.has_id = true
            }
            Kind::Host | Kind::Id | Kind::Other => return None,
        }
        append_lower(fields, field.name);
        fields.extend_from_slice(b": ");
        fields.extend_from_slice(field.value);
        fields.extend_from_slice(b"\r\n");
    }
    (!asked.host.is_empty()).then_some(asked)
}

impl FastPathHead<'_> {
    /// Appends the head for the endpoint: `fields` are those that [`read`] found, `origin` those that say who asked, but for the host;
    /// `id` is its name where it has none of its own.
    pub(super) fn write(&self, out: &mut Vec<u8>, fields: &[u8], origin: &[u8], id: &[u8]) {
        out.extend_from_slice(if self.head_only { b"HEAD " } else { b"GET " });
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        out.extend_from_slice(fields);
        out.extend_from_slice(origin);
        out.extend_from_slice(b"x-forwarded-host: ");
        out.extend_from_slice(self.authority.as_bytes());
        if !self.has_id {
            out.extend_from_slice(b"\r\nx-request-id: ");
            out.extend_from_slice(id);
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Passes,
    Host,
    Connection,
    /// `X-Request-ID`.
    Id,
    /// It ends here, is set anew, or means more than its bytes.
    Other,
}

/// Beginnings of names that are not passed on as they are, beside those that are not the client's to say ([`claims`]); see `headers.rs`
/// for what becomes of them.
const OTHERS: [&str; 10] = [
    "content-length",
    "content-type",
    "expect",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
];

fn kind(name: &str) -> Kind {
    let bytes = name.as_bytes();
    let is = |word: &str| name.eq_ignore_ascii_case(word);
    let begins = |word: &str| {
        name.get(..word.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    let other = match bytes.first().map(u8::to_ascii_lowercase) {
        Some(b'h') if is("host") => return Kind::Host,
        Some(b'c') if is("connection") => return Kind::Connection,
        Some(b'x') if is("x-request-id") => return Kind::Id,
        // "upgrade" and no more: browsers send "upgrade-insecure-requests" with every page.
        Some(b'u') => is("upgrade"),
        Some(b't') => is("te") || is("trailer") || is("transfer-encoding"),
        Some(b'c' | b'e' | b'h' | b'k' | b'm' | b'p') => OTHERS.iter().any(|word| begins(word)),
        _ => false,
    };
    if other || !claims::is_plain(name) || claims::speaker(name) != Speaker::Client {
        Kind::Other
    } else {
        Kind::Passes
    }
}

/// Characters of a query that every reader takes as they are (RFC 3986, 3.4), with the brackets that forms send.
fn is_plain_in_query(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/?[]".contains(&byte)
}

/// The host of a field without its port, when it is spelled as it is routed.
fn plain_host(authority: &str) -> Option<&str> {
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| !label.is_empty() && label.bytes().all(fine);
    let port_fine = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    (host.len() <= 253 && port_fine && host.split('.').all(label)).then_some(host)
}

/// Appends a name in lower case, as the usual way writes it.
pub(super) fn append_lower(out: &mut Vec<u8>, name: &str) {
    let start = out.len();
    out.extend_from_slice(name.as_bytes());
    out[start..].make_ascii_lowercase();
}
