//! Parsers of hostile input, fed with mutated corpora: `tests/fuzz/corpus/PARSER/`, one input a file. What is private to a module is fed
//! by a module `fuzz` of its own.
//!
//! How, is in `tests/fuzz/harness.rs`.

use crate::annotations::{self, NoSecrets, OWN};
use crate::handover;
use crate::path;
use crate::route::{Options, host_of};
use std::time::Duration;

#[path = "../../tests/fuzz/harness.rs"]
mod harness;
pub(crate) use harness::fuzz;

/// Cuts an input into so many texts, at line feeds; what is missing is empty, what is too much stays in the last.
pub(crate) fn lines<const N: usize>(input: &[u8]) -> Option<[&str; N]> {
    let text = std::str::from_utf8(input).ok()?;
    let mut lines = text.splitn(N, '\n');
    Some([(); N].map(|()| lines.next().unwrap_or_default()))
}

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
fn annotations_of_any_value_are_read_without_a_panic() {
    fuzz("annotation", |input| {
        // The first byte chooses the name, the rest is the value.
        let Some((first, value)) = input.split_first() else {
            return;
        };
        let (name, _) = &annotations::NAMES[usize::from(*first) % annotations::NAMES.len()];
        let value = String::from_utf8_lossy(value).into_owned();
        let read = |value: String| {
            let all = annotations::Annotations::from_iter([(format!("{OWN}{name}"), value)]);
            annotations::read(&all, "default", &NoSecrets, &Options::default())
        };
        let (once, again) = (read(value.clone()), read(value));
        assert_eq!(once.faults, again.faults);
    });
}

#[test]
fn a_hand_over_s_messages_of_any_bytes_are_refused_or_read() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    fuzz("handover", |input| {
        runtime.block_on(async {
            // Any result will do; a panic or a wait will not.
            let patience = Duration::from_secs(5);
            let (mut one, mut other) = (sent(input), sent(input));
            let read = tokio::time::timeout(patience, handover::receive(&mut one));
            let message = read.await.unwrap();
            let read = tokio::time::timeout(patience, handover::receive_listeners(&mut other));
            let with_listeners = read.await.unwrap();
            // Both ways of reading agree, and what was read is what would be sent.
            assert_eq!(message.is_ok(), with_listeners.is_ok());
            let (Ok(message), Ok((same, listeners))) = (message, with_listeners) else {
                return;
            };
            assert!(listeners.is_empty() && same == message);
            let (mut ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
            handover::send(&mut ours, &message).await.unwrap();
            assert_eq!(handover::receive(&mut theirs).await.unwrap(), message);
        });
    });
}

/// A connection on which this was sent, and nothing more will be.
fn sent(bytes: &[u8]) -> tokio::net::UnixStream {
    use std::io::Write;
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    (&theirs.into_std().unwrap()).write_all(bytes).unwrap();
    ours
}
