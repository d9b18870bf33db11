//! Bounds of connections to endpoints, with their reasons.

use std::time::Duration;

/// Idle connections kept per endpoint.
pub const POOL_IDLE_PER_ENDPOINT: usize = 64;
/// Bytes that an endpoint of HTTP/2 may send ahead of one client. The window of the connection is as many for each of its
/// [`Config::http2_streams`], so a client that reads nothing uses up its own part alone. 32 KiB are 60 MB/s at half a millisecond.
pub(crate) const HTTP2_ENDPOINT_WINDOW: u32 = 32 * 1024;
/// Bytes of a request's body that a stream to an endpoint takes ahead of what is sent, beside one part. hyper's 1 MiB are 100 MiB for 100
/// uploads to an endpoint that reads nothing.
pub(crate) const HTTP2_UPLOAD_BUFFER: usize = 8 * 1024;

/// Bounds that the program sets, for it has them for clients too.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Largest head of an answer.
    pub head_bytes: usize,
    /// How long connections are kept idle.
    pub pool_idle: Duration,
    /// How long the rest of a request is sent whose answer has ended already.
    pub linger: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub http2_streams: usize,
    /// How often the other side of an HTTP/2 connection is asked whether it is there.
    pub http2_ping: Duration,
    /// Longest wait for the answer to that.
    pub http2_pong: Duration,
}

/// What the program sets.
#[cfg(test)]
pub(crate) fn usual() -> Config {
    Config {
        head_bytes: 64 * 1024,
        pool_idle: Duration::from_secs(30),
        linger: Duration::from_secs(2),
        http2_streams: 100,
        http2_ping: Duration::from_secs(30),
        http2_pong: Duration::from_secs(20),
    }
}
