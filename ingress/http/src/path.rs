//! The one spelling of a path that is routed and forwarded. Pure; made for hostile input.
//!
//! Routing and the endpoint must read the same path, or what a route protects is reached by another spelling. So every path is brought
//! to its canonical form first, the table is asked for that form, and that form is what goes on:
//!
//! - encoded unreserved characters (RFC 3986, 2.3: letters, digits, `-._~`) are decoded, all other encodings stay, in upper case;
//! - characters that a path may not hold as they are get encoded;
//! - doubled slashes become one, as in nginx, then `.` and `..` are resolved (RFC 3986, 5.2.4), never above the root;
//! - `%2F` stays as it is: it is no separator here, and is forwarded encoded. What servers make of a path that decode it before they look
//!   it up is [`decoded`]; where that leads to another route, the request is refused;
//! - 400 for what endpoints read in different ways: backslashes and `%5C`, `%00`, a `%` without two hex digits, and `.;` or `..;` in
//!   front of a path parameter, which Java servers take for a dot segment.
//!
//! A path that is canonical already is not copied and goes on byte by byte.

use std::borrow::Cow;
use std::fmt;

/// Why a path is answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPath {
    /// It does not begin with a slash.
    NotAbsolute,
    /// A backslash, plain or encoded.
    Backslash,
    /// `%00`.
    Nul,
    /// A percent sign that no two hex digits follow.
    Encoding,
    /// A dot segment with a path parameter.
    DotParameter,
    /// Not canonical, on a route that takes only canonical paths.
    NotCanonical,
    /// Doubled slashes beside dot segments, on a route that keeps doubled slashes: the two readings differ.
    Ambiguous,
    /// `%2F` on a route that refuses it.
    EncodedSlash,
    /// A dot segment that shows only when the path is decoded.
    HiddenDots,
    /// A dot segment in a path that was put together here.
    BuiltDots,
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "the path does not begin with a slash",
            Self::Backslash => "the path holds a backslash",
            Self::Nul => "the path holds an encoded NUL",
            Self::Encoding => "the path holds a percent sign without two hex digits",
            Self::DotParameter => "the path holds a dot segment with a parameter",
            Self::NotCanonical => "the path is not canonical, which this route asks for",
            Self::Ambiguous => "the path holds doubled slashes beside dot segments",
            Self::EncodedSlash => "the path holds an encoded slash, which this route refuses",
            Self::BuiltDots => "the path that was put together holds a dot segment",
            Self::HiddenDots => "the path holds a dot segment that shows only when it is decoded",
        })
    }
}

/// What is done with a path that is not canonical.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PathMode {
    /// Forwarded in the canonical form that was routed.
    #[default]
    Canonical,
    /// As `Canonical`, but doubled slashes are forwarded as they came. Routing still sees one.
    KeepSlashes,
    /// Answered with 400.
    Reject,
    /// Answered with 400, and so is `%2F`.
    Strict,
}

/// What is done with a path that means another one to a server that decodes it before it looks it up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EncodedMode {
    /// Refused where the other one has another route.
    #[default]
    Compare,
    /// Passes from other routes to this one; requests that are routed here already pass anyway.
    Allow,
    /// Refused, wherever it leads.
    Refuse,
}

/// Whether [`decoded`] may have something to say of a canonical path: it has a parameter, or an encoded character that a path may hold as
/// it is. What is no character of a path reads like itself.
pub fn may_read_otherwise(canonical: &str) -> bool {
    let bytes = canonical.as_bytes();
    bytes.iter().enumerate().any(|(at, byte)| match byte {
        b';' => true,
        b'%' => hex_value(bytes, at).is_none_or(is_path_byte),
        _ => false,
    })
}

/// Returns what a canonical path is to a server that decodes it once before it looks it up, as nginx, Go and WSGI do, and that leaves
/// path parameters out, as Java's do: in canonical form again. `None` when that is the same path.
///
/// A dot segment that shows only then is refused: no client has a use for it (CVE-2021-29492, CVE-2025-66490).
pub fn decoded(canonical: &str) -> Result<Option<String>, BadPath> {
    if !may_read_otherwise(canonical) {
        return Ok(None);
    }
    let bytes = canonical.as_bytes();
    let mut out = String::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let value = match byte {
            b'%' => {
                i += 2;
                hex_value(bytes, i - 2).ok_or(BadPath::Encoding)?
            }
            byte => byte,
        };
        if is_path_byte(value) {
            out.push(char::from(value));
        } else {
            push_encoded(&mut out, value);
        }
        i += 1;
    }
    let segments: Vec<&str> = out.split('/').map(|s| s.split(';').next().unwrap_or(s)).collect();
    if segments.iter().any(|segment| matches!(*segment, "." | "..")) {
        return Err(BadPath::HiddenDots);
    }
    let path = resolve(&segments.join("/"));
    Ok((path != canonical).then_some(path))
}

/// Returns the canonical form of a path that was put together of pieces. Its dot segments are nobody's wish: they are refused, also those
/// that show only when it is decoded.
pub fn composed(path: &str) -> Result<String, BadPath> {
    let spelled = respell(path)?;
    if spelled.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(BadPath::BuiltDots);
    }
    let path = resolve(&spelled);
    decoded(&path)?;
    Ok(path)
}

/// Returns a canonical path as people write it, with what a path may not hold unencoded: letters of all scripts, blanks, quotes. Separators
/// and all else that means something (`%2F`, `%25`, `%3F`, `%23`), and control characters, stay encoded. `None` when that is the same path,
/// or no text.
pub fn readable(canonical: &str) -> Option<String> {
    let bytes = canonical.as_bytes();
    if !bytes.contains(&b'%') {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let value = hex_value(bytes, at).filter(|_| byte == b'%');
        match value.filter(|value| is_readable(*value)) {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    (out.len() < bytes.len()).then(|| String::from_utf8(out).ok()).flatten()
}

/// The opposite of [`readable`], for a piece of it.
pub fn spelled(readable: &str) -> String {
    let mut out = String::with_capacity(readable.len());
    for byte in readable.bytes() {
        match is_readable(byte) {
            true => push_encoded(&mut out, byte),
            false => out.push(char::from(byte)),
        }
    }
    out
}

/// What stands for itself in [`readable`] only.
fn is_readable(byte: u8) -> bool {
    !is_path_byte(byte) && !byte.is_ascii_control() && !b"%?#\\".contains(&byte)
}

/// Returns the canonical form of a path without its query, or why there is none.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, BadPath> {
    if is_canonical(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let spelled = respell(path)?;
    Ok(Cow::Owned(resolve(&spelled)))
}

/// Returns what is forwarded for a path that was routed as `canonical`, or why it is refused on this route.
pub fn forwarded<'a>(path: &'a str, canonical: Cow<'a, str>, mode: PathMode) -> Result<Cow<'a, str>, BadPath> {
    let changed = matches!(canonical, Cow::Owned(_));
    match mode {
        PathMode::Strict if canonical.contains("%2F") => Err(BadPath::EncodedSlash),
        PathMode::Reject | PathMode::Strict if changed => Err(BadPath::NotCanonical),
        PathMode::KeepSlashes if path.contains("//") => {
            let spelled = respell(path)?;
            let dots = spelled.split('/').any(|segment| segment == "." || segment == "..");
            if dots {
                Err(BadPath::Ambiguous)
            } else {
                Ok(Cow::Owned(spelled))
            }
        }
        _ => Ok(canonical),
    }
}

/// The same URI with another path; the query stays as it is.
pub fn replaced(uri: &http::Uri, path: &str) -> Option<http::Uri> {
    let mut parts = uri.clone().into_parts();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    parts.path_and_query = Some(format!("{path}{query}").parse().ok()?);
    http::Uri::from_parts(parts).ok()
}

/// One look at each byte; nearly all paths end here. Says no when in doubt.
pub fn is_canonical(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') {
        return false;
    }
    let mut before = 0;
    let mut i = 0;
    while let Some(&byte) = path.get(i) {
        match byte {
            b'/' if before == b'/' => return false,
            // A segment that begins with a dot is looked at closely.
            b'.' if before == b'/' && !plain_dots(&path[i..]) => return false,
            b'%' => match hex_value(path, i) {
                Some(value) if stays_encoded(value) && !has_lower_hex(path, i) => i += 2,
                _ => return false,
            },
            byte if is_path_byte(byte) => {}
            _ => return false,
        }
        before = byte;
        i += 1;
    }
    true
}

/// Whether a segment that begins with a dot is neither a dot segment nor close to one.
fn plain_dots(rest: &[u8]) -> bool {
    let after = if rest.get(1) == Some(&b'.') {
        rest.get(2)
    } else {
        rest.get(1)
    };
    !matches!(after, None | Some(b'/' | b';'))
}

/// The path with every character in its one spelling; segments are as they came.
fn respell(path: &str) -> Result<String, BadPath> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(BadPath::NotAbsolute);
    }
    let mut out = String::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        match byte {
            b'%' => {
                let value = hex_value(bytes, i).ok_or(BadPath::Encoding)?;
                match value {
                    0 => return Err(BadPath::Nul),
                    b'\\' => return Err(BadPath::Backslash),
                    _ if stays_encoded(value) => push_encoded(&mut out, value),
                    _ => out.push(char::from(value)),
                }
                i += 2;
            }
            0 => return Err(BadPath::Nul),
            b'\\' => return Err(BadPath::Backslash),
            _ if is_path_byte(byte) => out.push(char::from(byte)),
            _ => push_encoded(&mut out, byte),
        }
        i += 1;
    }
    let hidden = |segment: &str| segment.starts_with(".;") || segment.starts_with("..;");
    if out.split('/').any(hidden) {
        return Err(BadPath::DotParameter);
    }
    Ok(out)
}

/// Takes out empty segments and dot segments. A dot segment at the end leaves its slash.
fn resolve(path: &str) -> String {
    let mut kept: Vec<&str> = vec![];
    let mut open = true;
    for segment in path.split('/') {
        open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if open || kept.is_empty() {
        out.push('/');
    }
    out
}

/// The byte that `%XX` at this place stands for.
fn hex_value(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let (high, low) = (digit(bytes.get(at + 1))?, digit(bytes.get(at + 2))?);
    u8::try_from(high * 16 + low).ok()
}

fn has_lower_hex(bytes: &[u8], at: usize) -> bool {
    bytes[at + 1..at + 3].iter().any(u8::is_ascii_lowercase)
}

/// Everything but unreserved characters; NUL and the backslash are no part of any canonical path.
fn stays_encoded(value: u8) -> bool {
    value != 0 && value != b'\\' && !is_unreserved(value)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// RFC 3986, 3.3: what a path holds without encoding, and the slash.
fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@/".contains(&byte)
}

fn push_encoded(out: &mut String, byte: u8) {
    let digit = |n: u8| char::from(b"0123456789ABCDEF"[usize::from(n & 15)]);
    out.push('%');
    out.push(digit(byte >> 4));
    out.push(digit(byte));
}

#[cfg(test)]
mod tests;
