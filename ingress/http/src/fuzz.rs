//! Parsers of hostile input, fed with mutated corpora: `tests/fuzz/corpus/PARSER/`, one input a file. How, is in `tests/fuzz/harness.rs`.
//! Heads and chunks are compared with a reader that is as plain as the grammar.

use crate::chunked::{Decoder, Framing, Malformed, Piece};
use crate::claims;
use crate::host::host_of;
use crate::path;
use crate::request::{Bounds, parse};
use bytes::BytesMut;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use regex::bytes::Regex;

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;
use harness::fuzz;

const BOUNDS: Bounds = Bounds {
    bytes: 64 * 1024,
    target_bytes: 16 * 1024,
    fields: 100,
};

#[test]
fn a_path_means_the_same_as_its_canonical_form() {
    fuzz("path", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let Ok(once) = path::canonical(text) else { return };
        let twice = path::canonical(&once).expect("a canonical path is a path");
        assert_eq!(once, twice);
        assert!(once.starts_with('/') && !once.contains("//") && !once.contains('\\') && !once.contains("%00"));
        assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
        assert!(once.bytes().all(|byte| byte.is_ascii_graphic()));
    });
}

/// What a server sees that decodes a path, splits it, and leaves parameters out.
fn segments(path: &str) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16)).unwrap_or(0);
        bytes.push(if byte == b'%' {
            (digit() * 16 + digit()) as u8
        } else {
            byte
        });
    }
    let segments = bytes.split(|byte| *byte == b'/');
    let named = segments.map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or(segment).to_vec());
    named.filter(|segment| !segment.is_empty()).collect()
}

#[test]
fn the_decoded_reading_of_a_path_is_what_a_server_sees() {
    fuzz("path", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let Ok(path) = path::canonical(text) else { return };
        let seen = segments(&path);
        let dots = seen.iter().any(|segment| matches!(&segment[..], b"." | b".."));
        match path::decoded(&path) {
            Err(why) => assert!(dots, "{path:?}: {why}"),
            Ok(read) => {
                assert!(!dots, "{path:?}");
                let read = read.unwrap_or_else(|| path.to_string());
                assert!(path::is_canonical(read.as_bytes()), "{path:?} {read:?}");
                assert_eq!(
                    segments(&read.replace("%3B", "")),
                    segments(&read),
                    "no parameter is left in {read:?}"
                );
                assert_eq!(segments(&read), seen, "{path:?} {read:?}");
            }
        }
    });
}

#[test]
fn a_host_is_read_once_and_for_all() {
    fuzz("host", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let Some(host) = host_of(text) else { return };
        assert_eq!(host_of(&host).as_deref(), Some(host.as_str()), "{text:?}");
        assert!(
            !host
                .bytes()
                .any(|byte| byte.is_ascii_uppercase() || byte <= b' ' || b"/\\@?#".contains(&byte))
        );
    });
}

#[test]
fn a_head_that_passes_can_be_read_in_one_way_only() {
    fuzz("request-head", |input| {
        let mut rest = BytesMut::from(input);
        let Ok(Some(head)) = parse(&mut rest, &BOUNDS) else {
            return;
        };
        let length = input.len() - rest.len();
        assert_eq!(&input[length..], &rest[..]);
        // Nothing is decided before its last byte.
        for end in (0..length).filter(|end| length - end < 8 || end % 16 == 0) {
            let begun = parse(&mut BytesMut::from(&input[..end]), &BOUNDS);
            assert!(matches!(begun, Ok(None)), "{end}");
        }
        // Lines end with CR LF, hold no other control character but tabs, and are not folded.
        let text = &input[..length];
        let start = text.chunks(2).take_while(|pair| pair == b"\r\n").count() * 2;
        let text = String::from_utf8(
            text[start..]
                .iter()
                .map(|byte| if byte.is_ascii() { *byte } else { b'?' })
                .collect(),
        );
        let text = text.unwrap();
        let mut lines = text.strip_suffix("\r\n\r\n").expect("an empty line").split("\r\n");
        let mut fields = Vec::new();
        let first: Vec<_> = lines.next().unwrap().split(' ').collect();
        assert_eq!((first.len(), first[0]), (3, head.parts.method.as_str()));
        for line in lines {
            let (name, value) = line.split_once(':').expect("a colon");
            assert!(
                !line.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t'),
                "{line:?}"
            );
            assert!(!name.is_empty() && !name.contains([' ', '\t']), "{line:?}");
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut read: Vec<_> = head
            .parts
            .headers
            .iter()
            .map(|(name, value)| {
                let value = value
                    .as_bytes()
                    .iter()
                    .map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' });
                (name.as_str().to_owned(), value.collect::<String>())
            })
            .collect();
        let framing: Vec<_> = fields
            .iter()
            .filter(|(name, _)| name == "content-length" || name == "transfer-encoding")
            .cloned()
            .collect();
        fields.sort();
        read.sort();
        assert_eq!(fields, read);
        match (&framing[..], head.framing) {
            ([], Framing::Length(0)) => {}
            ([(name, value)], Framing::Length(length)) if name == "content-length" => {
                assert_eq!(value.parse(), Ok(length))
            }
            ([(name, value)], Framing::Chunked) if name == "transfer-encoding" => {
                assert!(value.eq_ignore_ascii_case("chunked"))
            }
            other => panic!("{other:?}"),
        }
    });
}

/// Data, trailers and what follows of a chunked body that arrives in pieces.
fn decode<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> Result<Option<(Vec<u8>, usize, usize)>, Malformed> {
    let (mut decoder, mut buffer) = (Decoder::new(Framing::Chunked), BytesMut::new());
    let (mut data, mut trailers) = (Vec::new(), 0);
    loop {
        match decoder.next(&mut buffer)? {
            Piece::Data(bytes) => data.extend_from_slice(&bytes),
            Piece::Trailers(fields) => trailers = fields.len(),
            Piece::End => break,
            Piece::More => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return Ok(None),
            },
        }
    }
    assert!(decoder.is_done());
    Ok(Some((
        data,
        trailers,
        buffer.len() + pieces.map(<[u8]>::len).sum::<usize>(),
    )))
}

#[test]
fn chunks_are_read_by_the_grammar_however_they_arrive() {
    // RFC 9112, 7.1, with bounds, and without CR, LF or NUL in extensions.
    let line = Regex::new(r"(?s-u)^([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n\x00]*)?\r\n").unwrap();
    let trailers = Regex::new(r"(?s-u)^((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n").unwrap();
    let plain = |input: &[u8]| {
        let (mut rest, mut data) = (input, Vec::new());
        loop {
            let size = line.captures(rest)?;
            rest = &rest[size[0].len()..];
            let size = usize::from_str_radix(std::str::from_utf8(&size[1]).ok()?, 16).ok()?;
            if size == 0 {
                let section = trailers.captures(rest)?;
                let count = section[1].split(|byte| *byte == b'\n').count() - 1;
                return Some((data, count, rest.len() - section[0].len()));
            }
            data.extend_from_slice(rest.get(..size)?);
            rest = rest[size..].strip_prefix(b"\r\n")?;
        }
    };
    fuzz("chunked", |input| {
        let whole = decode(std::iter::once(input));
        let step = input.first().map_or(1, |byte| usize::from(byte % 7) + 1);
        let pieces = decode(input.chunks(step));
        assert_eq!(whole, pieces, "in pieces of {step}");
        match (whole, plain(input)) {
            (Ok(Some(ours)), theirs) => assert_eq!(Some(ours), theirs),
            // Bounds are narrower than the grammar: long lines, many trailers.
            (Err(_), Some(_)) => {
                assert!(input.len() > 256 || input.windows(2).filter(|pair| pair == b"\r\n").count() > 32)
            }
            (Ok(None), Some(_)) => panic!("it is whole"),
            (_, None) => {}
        }
    });
}

/// How a server reads a name that makes variables of fields: letters and digits, in one case, and everything else is one character.
fn folded(name: &str) -> String {
    let fold = |letter: char| {
        if letter.is_ascii_alphanumeric() {
            letter.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    name.chars().map(fold).collect()
}

#[test]
fn no_field_passes_that_a_server_may_take_for_one_that_its_sender_must_not_say() {
    let nobody = ["proxy", "x-user"];
    let nobody_family = ["x-original-", "x-auth-request-", "ssl-client-", "x-landfall-"];
    let fronts = [
        "forwarded",
        "x-forwarded",
        "x-real-ip",
        "x-scheme",
        "x-url-scheme",
        "front-end-https",
    ];
    let managed = [
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "max-forwards",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-request-id",
    ];
    let result = HeaderName::from_static("x-user");
    fuzz("field-names", |input| {
        let mut headers = HeaderMap::new();
        for name in input.split(|byte| *byte == b'\n') {
            if let Ok(name) = HeaderName::from_bytes(name) {
                headers.insert(name, HeaderValue::from_static("1"));
            }
        }
        for trusted in [false, true] {
            let mut left = headers.clone();
            claims::strip(&mut left, trusted, [&result]);
            for name in headers.keys() {
                let (text, read) = (name.as_str(), folded(name.as_str()));
                let same = text == read;
                let is_nobody_s = nobody.contains(&&*read) || nobody_family.iter().any(|start| read.starts_with(start));
                let is_front_s = fronts.contains(&&*read) || read.starts_with("x-forwarded-");
                let goes = is_nobody_s
                    || is_front_s && !(same && trusted)
                    || !same && (text.contains('_') || managed.contains(&&*read));
                assert_eq!(left.contains_key(name), !goes, "{text}, trusted: {trusted}");
                // What may not stand in a head may not stand behind a body.
                assert!(
                    !goes || !claims::may_trail(text, std::slice::from_ref(&result)),
                    "{text}"
                );
            }
        }
    });
}
