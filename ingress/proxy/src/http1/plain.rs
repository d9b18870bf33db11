//! Plain requests, the quick way: a GET or HEAD that is written to an endpoint and answered as it came, field by field, without a copy
//! of either head in another form. Nearly all requests are like this, and this is most of what a request costs.
//!
//! ```text
//! request::read ──> route without annotations ──> connection ──> answer::read ──> written, recorded
//!       │                    │                   │              │
//!       └── not plain ───────┴── the usual way ──┘              └── unusual: the usual way from here on
//! ```
//!
//! INVARIANT: the head stays in the reader's buffer until its answer is there. So the usual way can begin anew when no endpoint got a
//! byte of it, and repeat it when one may have and the backend's budget allows that; and what cannot be answered here has a whole request to be recorded by.
//!
//! That both ways say the same to endpoint and client is shown by `plain/tests.rs` and by a fuzz test there.

mod answer;
mod carry;
mod deliver;
mod request;

use landfall_ingress_routing::policy::HttpsRedirect;

use crate::exchange::Exchange;
use crate::tls;
use crate::{Client, Proxy};
use hyper::Response;
use landfall_ingress_balance::Earlier;
use landfall_ingress_http::protocol::Protocol;
use landfall_ingress_routing::{Route, RouteTable};
use landfall_ingress_telemetry::reason::Reason;
use landfall_ingress_upstream as upstream;
use std::sync::Arc;

/// What a connection keeps for its plain requests.
#[derive(Default)]
pub(super) struct Scratch {
    /// Fields that say who asks, the same for all requests. None for peers that are trusted to say more.
    origin: Option<Vec<u8>>,
    fields: Vec<u8>,
    /// The head that an endpoint gets.
    head: Vec<u8>,
}

/// A plain request that has its route; what the endpoint gets is in [`Scratch::head`].
pub(super) struct Plain {
    length: usize,
    head_only: bool,
    keep_alive: bool,
    route: Arc<Route>,
    /// The request's name, where it has none of its own.
    id: [u8; 32],
}

impl Plain {
    /// Bytes of its head.
    pub(super) fn length(&self) -> usize {
        self.length
    }
}

/// What became of a plain request.
pub(super) enum Carried {
    /// It is answered and recorded.
    Done {
        /// The connection can be used again.
        keep: bool,
    },
    /// The client is gone, or its answer broke off; recorded.
    Over,
    /// It goes the usual way.
    Usual {
        /// What has become of it: nothing yet, or one endpoint has had its try.
        earlier: Earlier,
    },
    /// What the endpoint made of it goes the usual way, with the record of the request.
    Unusual {
        head_only: bool,
        /// The client takes another answer on this connection.
        keep: bool,
        exchange: Box<Exchange>,
        answer: Result<Response<upstream::Body>, Reason>,
    },
}

impl Scratch {
    pub(super) fn new(client: &Client) -> Self {
        let origin = (!client.trusted).then(|| {
            let address = client.address_text();
            let proto = if client.https { "https" } else { "http" };
            let port = client.port;
            format!(
                "x-real-ip: {address}\r\nx-forwarded-for: {address}\r\nx-forwarded-proto: {proto}\r\n\
                 x-forwarded-scheme: {proto}\r\nx-scheme: {proto}\r\nx-forwarded-port: {port}\r\nx-landfall-hops: 1\r\n"
            )
        });
        Self {
            origin: origin.map(String::into_bytes),
            ..Self::default()
        }
    }

    /// Reads a plain request from the front of `buffer` and finds its route. `None` when it is not plain, or its route is not.
    pub(super) fn prepare(&mut self, proxy: &Proxy, client: &Client, buffer: &[u8]) -> Option<Plain> {
        let origin = self.origin.as_deref()?;
        self.fields.clear();
        let asked = request::read(buffer, &proxy.limits, &mut self.fields)?;
        // A log of all requests wants more than is gathered here; the end is told to clients on the usual way.
        if !proxy.limits.quick || proxy.state.lifecycle.leaving() || proxy.state.observer.log.wants(false) {
            return None;
        }
        let snapshot = proxy.state.routes();
        let route = snapshot.find(asked.host, asked.path)?;
        if !is_plain(route, &snapshot, asked.host, client) {
            return None;
        }
        self.head.clear();
        let id = proxy.names.next();
        asked.write(&mut self.head, &self.fields, origin, &id);
        Some(Plain {
            length: asked.length,
            head_only: asked.head_only,
            keep_alive: asked.keep_alive,
            route: Arc::clone(route),
            id,
        })
    }
}

/// Whether a route lets plain requests pass as they are, and its endpoints are spoken to in plain HTTP/1.1.
fn is_plain(route: &Route, snapshot: &RouteTable, host: &str, client: &Client) -> bool {
    let alone = route.alternatives.is_empty() && route.fallback.is_none();
    let redirected = !client.https
        && match route.policy.redirects.https {
            HttpsRedirect::Off => false,
            HttpsRedirect::WhenTls => route.host.tls,
            HttpsRedirect::Always => true,
        };
    let protocol = route.policy.upstream.protocol.or(route.backend.endpoints().protocol);
    alone
        && !redirected
        && protocol.is_none_or(|protocol| protocol == Protocol::Http1)
        && route.policy.lets_pass(client.https)
        && !tls::client::misdirected(snapshot, host, None, client.tls.as_deref())
}

#[cfg(test)]
mod tests;
