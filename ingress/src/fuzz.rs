//! Parsers of hostile input, fed with mutated corpora: `tests/fuzz/corpus/PARSER/`, one input a file. What is private to a module is fed
//! by a module `fuzz` of its own.
//!
//! How, is in `tests/fuzz/harness.rs`.

use crate::annotations::{self, NoSecrets, OWN};
use crate::handover;
use crate::route::Options;
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
