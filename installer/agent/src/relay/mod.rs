//! Blobs that nodes give each other while the operator sends a bundle: a listener on each node ([`serve`]), and the requests of the others
//! ([`fetch`]). TLS 1.3 with the listener's own key, made for it alone; peers hold its public half from the operator, who has it through the
//! node's SSH session. Who asks says the token of the run inside TLS.
//!
//! A blob is passed on while it comes: each chunk as soon as it was checked here. Who takes it checks it again, as if the operator had sent it.
//!
//! Behind the answer come pieces, each with its length before it (4 bytes, the most significant first). An empty piece says that no chunk is whole here, but
//! that the blob still comes: on a slow line a chunk of 4 MiB takes longer than a transfer may be silent.

pub mod fetch;
pub mod serve;
mod tls;

use std::time::Duration;

/// How long a handshake, a question or its answer may stand still.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A transfer in which nothing has come, or nothing could be sent, for so long is over. The operator pings agents as long (30 s).
const IDLE: Duration = Duration::from_secs(30);
/// How often a giver to which a blob comes slowly says so.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Bytes of a piece's length.
const LENGTH: usize = 4;
/// How often a wait looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Most bytes of a question or an answer; a question has some 200.
const MOST_LINE: u64 = 1024;
/// What is read and sent at once.
const BUFFER: usize = 256 * 1024;
