//! What another process says, fed with a mutated corpus: `tests/fuzz/corpus/handover/`. How, is in `tests/fuzz/harness.rs`.

use crate::handover;
use std::time::Duration;

#[path = "../../../tests/fuzz/harness.rs"]
mod harness;
use harness::fuzz;

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
