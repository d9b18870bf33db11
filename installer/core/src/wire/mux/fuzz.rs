//! Frames of any bytes: see [`crate::fuzz`].

use super::*;
use crate::fuzz::fuzz;

/// Whether a channel ends with an error depends on the bytes; that it ends, with memory for what it may send alone, must not.
#[test]
fn a_channel_of_any_bytes_ends_and_fills_no_memory() {
    fuzz("frames", |input| {
        for role in [Role::Operator, Role::Agent(Box::new(String::new))] {
            let is_agent = matches!(role, Role::Agent(_));
            let mux = Mux::new(role, Box::new(io::sink()));
            let own = if is_agent { None } else { mux.open(b"request").ok() };
            let _ = mux.pump(input);
            let state = mux.lock();
            assert!(state.streams.len() <= MAX_STREAMS, "{input:?}");
            let queued: usize = state.streams.values().map(|half| half.inbox.len()).sum();
            assert!(queued <= input.len(), "{input:?}");
            assert!(
                is_agent || state.opened.is_empty(),
                "{input:?}: a node opens no streams here"
            );
            assert!(state.closed.is_some(), "{input:?}");
            drop(state);
            drop(own);
        }
    });
}
