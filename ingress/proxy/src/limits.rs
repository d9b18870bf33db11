//! Every bound of the data plane on time and size, with its reason. Tests pass smaller ones.

use std::time::Duration;

/// Bounds of the data plane.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest wait for the head of a request from its first byte on, and for the first byte of a connection. nginx: 60 s.
    pub head: Duration,
    /// Longest wait for the next request on a connection that had one (`--idle-seconds`). nginx: 75 s. A balancer in front must give its
    /// connections up first, or sends requests into their end: AWS' does after 60 s by default, Google's after 600 s.
    pub idle: Duration,
    /// Largest head of a request or an answer. nginx takes 32 KiB, haproxy 16 KiB; cookies have made larger ones common.
    pub head_bytes: usize,
    /// Longest target. nginx takes 8 KiB; browsers send up to 64 KiB, servers behind rarely take more than 8.
    pub target_bytes: usize,
    /// Most fields of a head. nginx has no such bound, Apache has 100, which is also what hyper has by itself.
    pub head_fields: usize,
    /// Longest time in which a client takes nothing of what is sent to it (nginx's `send_timeout`).
    pub client_stall: Duration,
    /// Connections of clients at once, where open files allow it ([`Limits::within`]). More wait in the kernel's queue.
    pub connections: usize,
    /// Longest wait for a connection to an endpoint. Within a cluster it takes milliseconds; a lost SYN is repeated after 1 s.
    pub connect: Duration,
    /// Longest silence of an endpoint that is to take more of a request (nginx's `proxy_send_timeout`).
    pub send: Duration,
    /// A client may keep us waiting this long for its body, and one second more for each `body_rate` bytes of it (Apache's
    /// `RequestReadTimeout body=20,MinRate=500`).
    pub body_grace: Duration,
    /// See `body_grace`.
    pub body_rate: u64,
    /// Longest wait for the head of an answer since the request last moved (nginx's `proxy_read_timeout`).
    pub answer: Duration,
    /// Longest silence within an answer. Server-sent events are often silent for minutes; a node that died is silent for ever.
    pub silence: Duration,
    /// Endpoints tried for one request. A refused connection costs nothing, and a table that is old (the API is away) may name many pods
    /// that are gone; nginx tries all. Repeating what may have been acted on has a bound of its own, [`landfall_ingress_balance::limits::REPEATS`].
    pub tries: usize,
    /// How long connections to endpoints are kept idle: below the 75 s of nginx; Node closes after 5 s, which the pool notices.
    pub pool_idle: Duration,
    /// Connections of one client address at once. High, because whole networks stand behind one; trusted peers have no such bound.
    pub connections_per_address: usize,
    /// Longest wait for a PROXY header, which comes with the first packet.
    pub proxy_header: Duration,
    /// How long a connection that is given up is still read, so that its client gets the answer (nginx's `lingering_timeout`: 5 s).
    pub linger: Duration,
    /// How long tunnels may go on after the stop before they are closed. Below `--drain-seconds`.
    pub tunnel_grace: Duration,
    /// Longest wait for the end of a tunnel that was told to close.
    pub tunnel_close: Duration,
    /// Streams that a client reset before anybody looked at them (rapid reset); h2's own bound.
    pub http2_resets: usize,
    /// Resets that a client provoked by its errors (MadeYouReset). h2 allows 1024.
    pub http2_errors: usize,
    /// Requests on one connection that were cancelled before their answer, when they are more than half of all.
    pub http2_cancels: u64,
    /// How often a connection is looked at for that, for idleness and for clients that open no window.
    pub http2_look: Duration,
    /// Requests at once on one HTTP/2 connection, to endpoints as from clients; nginx has 128, and hyper's clients begin with 100.
    pub http2_streams: usize,
    /// Bytes that a stream may be ahead of who reads it. 64 KiB are too few on long ways; 256 KiB are 20 Mbit/s at 100 ms.
    pub http2_stream_window: u32,
    /// The same for a whole connection.
    pub http2_connection_window: u32,
    /// The same for connections of an address that holds half of what it may: what RFC 9113 begins with.
    pub http2_small_window: u32,
    /// Bytes of an answer that a stream takes ahead of what is sent. hyper's 400 KiB are 40 MB for a client of 100 streams that reads nothing.
    pub http2_send_buffer: usize,
    /// Bytes that requests of one connection may hold at once: heads, bodies that endpoints have not taken, and `request_cost` each. With
    /// `sent_bytes`, and what is not counted, below 4 MiB.
    pub received_bytes: usize,
    /// Bytes of answers that one HTTP/2 connection may hold.
    pub sent_bytes: usize,
    /// Bytes of both kinds that all connections of one address may hold.
    pub bytes_per_address: usize,
    /// What a connection counts for: its task (4 KiB), and the small buffers that one of HTTP/1 always has: 8 KiB each of what the client
    /// sent, of what an endpoint sent, and of what is to be written. Larger ones are counted as they are used.
    pub connection_cost: usize,
    /// What one of HTTP/2 counts for beside that; both together are what 1,500 idle ones were measured to take (35 KiB each, 2026-11-28).
    pub http2_cost: usize,
    /// What one over TLS counts for beside that: a record that is not sent yet (RFC 8446, 5.1: 16 KiB), which is what its layer may keep.
    pub tls_cost: usize,
    /// What a request counts for, beside its head: its record, its tasks and its connection to an endpoint.
    pub request_cost: usize,
    /// How often the other side of an HTTP/2 connection is asked whether it is there.
    pub http2_ping: Duration,
    /// Longest wait for the answer to that.
    pub http2_pong: Duration,
    /// How often connections to endpoints that are gone are closed.
    pub sweep: Duration,
    /// Clients whose rates are kept, of all Ingresses together: 6 MiB. Those beyond share one rate per Ingress.
    pub limited_clients: usize,
    /// Passwords checked at once. bcrypt takes a core for 50 ms to 1 s; two leave room for everything else.
    pub password_checks: usize,
    /// Longest wait for a free check, then 503.
    pub password_patience: Duration,
    /// Users whose password need not be checked again, and for how long. Changed files count at once.
    pub verified_passwords: usize,
    /// See `verified_passwords`.
    pub verified_password_kept: Duration,
    /// Chains of client certificates that need not be checked again, and for how long: they may expire meanwhile.
    pub verified_certificates: usize,
    /// See `verified_certificates`.
    pub verified_certificate_kept: Duration,
    /// Requests of our own (authentication, mirrors, error pages) at once.
    pub subrequests: usize,
    /// Longest time for one of them, from waiting for its turn to the last byte. nginx waits 60 s, in which clients have left.
    pub subrequest: Duration,
    /// Largest answer to one of them that is passed on: error pages are small.
    pub subrequest_bytes: usize,
    /// Copies of requests that are being made or sent. Those beyond are not mirrored.
    pub mirrored_requests: usize,
    /// Largest body of a mirrored request; with `mirrored_requests` 4 MiB at most.
    pub mirrored_bytes: usize,
    /// Plain requests go the quick way; off where both ways are compared.
    pub quick: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(60),
            idle: Duration::from_secs(75),
            head_bytes: 64 * 1024,
            target_bytes: 16 * 1024,
            head_fields: 100,
            client_stall: Duration::from_secs(60),
            connections: 16_384,
            connect: Duration::from_millis(1500),
            send: Duration::from_secs(60),
            body_grace: Duration::from_secs(20),
            body_rate: 500,
            answer: Duration::from_secs(60),
            silence: Duration::from_secs(600),
            tries: 16,
            pool_idle: Duration::from_secs(30),
            connections_per_address: 8192,
            proxy_header: Duration::from_secs(5),
            linger: Duration::from_secs(2),
            tunnel_grace: Duration::from_secs(10),
            tunnel_close: Duration::from_secs(2),
            http2_resets: 20,
            http2_errors: 128,
            http2_cancels: 500,
            http2_look: Duration::from_secs(5),
            http2_streams: 100,
            http2_stream_window: 256 * 1024,
            http2_connection_window: 1024 * 1024,
            http2_small_window: 65_535,
            http2_send_buffer: 16 * 1024,
            received_bytes: 2560 * 1024,
            sent_bytes: 1024 * 1024,
            bytes_per_address: 256 * 1024 * 1024,
            connection_cost: 28 * 1024,
            http2_cost: 8 * 1024,
            tls_cost: 16 * 1024,
            request_cost: 8 * 1024,
            http2_ping: Duration::from_secs(30),
            http2_pong: Duration::from_secs(20),
            sweep: Duration::from_secs(5),
            limited_clients: 65_536,
            password_checks: 2,
            password_patience: Duration::from_secs(2),
            verified_passwords: 1024,
            verified_password_kept: Duration::from_secs(300),
            verified_certificates: 1024,
            verified_certificate_kept: Duration::from_secs(60),
            subrequests: 256,
            subrequest: Duration::from_secs(10),
            subrequest_bytes: 1024 * 1024,
            mirrored_requests: 64,
            mirrored_bytes: 64 * 1024,
            quick: true,
        }
    }
}

/// Files that are kept for what is no connection of a client nor one to an endpoint for it: listeners, the API's watches, Secrets, the
/// dashboard, questions of the kubelet. At most so many, and never more than an eighth of all.
const FILES_KEPT: u64 = 256;

impl Limits {
    /// Bounds of a request's head.
    pub fn of_heads(&self) -> landfall_ingress_http::request::Bounds {
        landfall_ingress_http::request::Bounds {
            bytes: self.head_bytes,
            target_bytes: self.target_bytes,
            fields: self.head_fields,
        }
    }

    /// Bounds of connections to endpoints; those that clients have not are constants of that crate.
    pub fn of_upstream(&self) -> landfall_ingress_upstream::Config {
        landfall_ingress_upstream::Config {
            head_bytes: self.head_bytes,
            pool_idle: self.pool_idle,
            linger: self.linger,
            http2_streams: self.http2_streams,
            http2_ping: self.http2_ping,
            http2_pong: self.http2_pong,
        }
    }

    /// The same with as many connections as this many open files allow: two each, one to the client and one to an endpoint.
    pub fn within(self, files: u64) -> Self {
        let kept = FILES_KEPT.min(files / 8);
        let connections = usize::try_from((files - kept) / 2).unwrap_or(usize::MAX);
        let connections = self.connections.min(connections);
        Self {
            connections,
            // Some are left for others, whoever it is that asks for all.
            connections_per_address: self.connections_per_address.min(connections - connections / 8),
            ..self
        }
    }
}

/// Longest time for a TLS handshake, from the connection to its end. Over the slowest links it takes about 2 s.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);
/// TLS handshakes at once. The oldest gives way to a new one: a client that means it is done in a few round trips.
pub const TLS_HANDSHAKES: usize = 4096;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_bounded_by_the_open_files_that_were_granted() {
        let bounds = |files| {
            let limits = Limits::default().within(files);
            (limits.connections, limits.connections_per_address)
        };
        assert_eq!(bounds(1024), (448, 392));
        assert_eq!(bounds(20_000), (9872, 8192));
        assert_eq!(bounds(524_288), (16_384, 8192));
        assert_eq!(bounds(u64::MAX), (16_384, 8192));
        assert_eq!(bounds(0), (0, 0));
    }
}
