//! Every bound on time and size, with its reason. Tests pass smaller ones.

use std::time::Duration;

/// Bounds of the data plane.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest wait for the head of a request, and so for the next request on an idle connection. nginx: 60 s and 75 s.
    pub head: Duration,
    /// Largest head of a request or an answer. nginx takes 32 KiB, haproxy 16 KiB; cookies have made larger ones common.
    pub head_bytes: usize,
    /// Longest time in which a client takes nothing of what is sent to it (nginx's `send_timeout`).
    pub client_stall: Duration,
    /// Connections of clients at once; each may need a second one to an endpoint. More wait in the kernel's queue.
    pub connections: usize,
    /// Longest wait for a connection to an endpoint. Within a cluster it takes milliseconds; a lost SYN is repeated after 1 s.
    pub connect: Duration,
    /// Longest wait for the head of an answer since the request last moved (nginx's `proxy_read_timeout`).
    pub answer: Duration,
    /// Longest silence within an answer. Server-sent events are often silent for minutes; a node that died is silent for ever.
    pub silence: Duration,
    /// Endpoints tried for one request.
    pub tries: usize,
    /// How long connections to endpoints are kept idle: below the 75 s of nginx; Node closes after 5 s, which the pool notices.
    pub pool_idle: Duration,
    /// Idle connections kept per endpoint.
    pub pool_idle_per_endpoint: usize,
    /// How often connections to endpoints that are gone are closed.
    pub sweep: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(60),
            head_bytes: 64 * 1024,
            client_stall: Duration::from_secs(60),
            connections: 16_384,
            connect: Duration::from_millis(1500),
            answer: Duration::from_secs(60),
            silence: Duration::from_secs(600),
            tries: 3,
            pool_idle: Duration::from_secs(30),
            pool_idle_per_endpoint: 64,
            sweep: Duration::from_secs(5),
        }
    }
}
