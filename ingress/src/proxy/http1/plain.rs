//! Plain requests, the quick way: a GET or HEAD that is written to an endpoint and answered as it came, field by field, without a copy
//! of either head in another form. Nearly all requests are like this, and this is most of what a request costs.
//!
//! ```text
//! request::read ──> route without wishes ──> connection ──> answer::read ──> written, recorded
//!       │                    │                   │              │
//!       └── not plain ───────┴── the usual way ──┘              └── unusual: the usual way from here on
//! ```
//!
//! INVARIANT: the head stays in the reader's buffer until its answer is there. So up to the first byte that an endpoint got of it the
//! usual way can begin anew, and what cannot be answered here has a whole request to be recorded by.
//!
//! That both ways say the same to endpoint and client is shown by `plain/tests.rs` and by a fuzz test there.

mod answer;
mod request;

pub(crate) use request::passes;

use super::{Connection, READ_AHEAD, answer as usual_answer, head};
use crate::balance::{Attempts, Outcome, Pick, Preference};
use crate::policy::{HttpsRedirect, Protocol};
use crate::proxy::exchange::Exchange;
use crate::proxy::http1::Reader;
use crate::proxy::{Client, Proxy, headers, target};
use crate::reason::Reason;
use crate::route::{Route, Snapshot};
use crate::tls;
use crate::traffic::{End, EntryPoint, Made};
use crate::upstream::{self, Failure, Taken, Waits};
use bytes::Buf;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Bodies up to this size are copied behind their head.
const COPIED: usize = 8 * 1024;
/// Room for one read of an answer.
const READ: usize = 8 * 1024;
/// Room for one read of a large body.
const READ_LARGE: usize = 64 * 1024;

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

/// What became of a plain request.
pub(super) enum Carried {
    /// It is answered and recorded.
    Done {
        /// The connection can be used again.
        keep: bool,
    },
    /// The client is gone, or its answer broke off; recorded.
    Over,
    /// Nothing has happened yet: it goes the usual way.
    Usual,
    /// What the endpoint made of it goes the usual way, with the record of the request.
    Unusual {
        head_only: bool,
        /// The client takes another answer on this connection.
        keep: bool,
        exchange: Box<Exchange>,
        answer: Result<Response<upstream::Body>, Reason>,
    },
}

/// Who broke off within an answer.
enum Cut {
    Client,
    Endpoint,
}

/// What came first.
enum First {
    Answer(answer::Answer),
    Unusual,
    /// The endpoint had nothing of the request, or ended before it answered what may be sent again.
    Nothing,
    Broken,
    Late,
    /// The client went away.
    Gone,
}

impl Scratch {
    pub(super) fn new(client: &Client) -> Self {
        let origin = (!client.trusted).then(|| {
            let address = client.address.ip().to_canonical();
            let proto = if client.https { "https" } else { "http" };
            let port = client.port;
            format!(
                "x-real-ip: {address}\r\nx-forwarded-for: {address}\r\nx-forwarded-proto: {proto}\r\nx-forwarded-port: {port}\r\n"
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
        if !proxy.limits.quick || proxy.state.leaving() || proxy.state.observer.log.wants(false) {
            return None;
        }
        let snapshot = proxy.state.snapshot();
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
fn is_plain(route: &Route, snapshot: &Snapshot, host: &str, client: &Client) -> bool {
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
        && !tls::client::misdirected(snapshot, host, None, client)
}

impl<S> Connection<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Carries a plain request to an endpoint and its answer back.
    pub(super) async fn carry(&mut self, plain: Plain, reader: &mut Reader<S>) -> Carried {
        let proxy = self.proxy;
        let start = Instant::now();
        let Ok(pick) = Attempts::new(&plain.route.backend, Preference::Any, 1).next() else {
            return Carried::Usual;
        };
        let waits = Waits::of(&plain.route.policy.timeouts, &proxy.limits);
        let connected = tokio::select! {
            biased;
            endpoint = proxy.upstream.connection(pick.address(), &waits) => endpoint,
            () = left(reader) => {
                drop(self.record(reader, &plain, start, pick));
                return Carried::Over;
            }
        };
        let Some(mut endpoint) = connected else {
            // The usual way counts this once more, and goes on to others.
            pick.report(Outcome::Unreachable);
            return Carried::Usual;
        };
        let in_flight = proxy.state.counters.requests.one();
        endpoint.connection.begin_with(&mut self.scratch.head);
        let first = self.first(&plain, &mut endpoint, reader, start).await;
        let answer = match first {
            First::Answer(answer) => answer,
            First::Nothing if !endpoint.fresh || !endpoint.connection.has_begun() => return Carried::Usual,
            First::Gone => {
                drop(self.record(reader, &plain, start, pick));
                return Carried::Over;
            }
            First::Nothing | First::Broken | First::Late => {
                let (outcome, reason) = match first {
                    First::Late => (Outcome::Late, Reason::Late),
                    _ => (Outcome::Broken, Reason::Broken),
                };
                pick.report(outcome);
                return self.unusual(reader, &plain, start, pick, Err(reason));
            }
            First::Unusual => {
                let method = if plain.head_only { Method::HEAD } else { Method::GET };
                let result = tokio::select! {
                    biased;
                    result = endpoint.answer(&method, &waits, &proxy.limits) => result,
                    () = left(reader) => {
                        drop(self.record(reader, &plain, start, pick));
                        return Carried::Over;
                    }
                };
                let (outcome, result) = match result {
                    // Nobody asked for another protocol.
                    Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                        (Outcome::Answered, Err(Reason::Broken))
                    }
                    Ok(answer) => (Outcome::Answered, Ok(answer)),
                    Err(Failure::Late) => (Outcome::Late, Err(Reason::Late)),
                    Err(_) => (Outcome::Broken, Err(Reason::Broken)),
                };
                pick.report(outcome);
                return self.unusual(reader, &plain, start, pick, result);
            }
        };
        pick.report(Outcome::Answered);
        let until_answer = start.elapsed();
        let observer = &proxy.state.observer;
        let entry = match self.client.tls {
            Some(_) => EntryPoint::Https,
            None => EntryPoint::Http,
        };
        let counts = observer.counts(&plain.route);
        proxy.state.counters.answered(answer.status);
        let traffic = &observer.traffic;
        traffic.answered(entry, Some(&counts), answer.status, Made::Endpoint, until_answer);

        let keep = plain.keep_alive && !self.place.closing() && !proxy.state.leaving();
        answer.finish(&mut self.out, keep);
        endpoint.connection.input.advance(answer.length);
        let mut left = answer.body;
        let silence = plain.route.policy.timeouts.read.unwrap_or(proxy.limits.silence);
        let whole = self.body(&mut endpoint, reader, &mut left, silence).await;
        let sent = answer.body - left;
        if whole.is_ok() {
            endpoint.keep();
        }
        let whole = match whole {
            Ok(()) => usual_answer::flush(&mut self.writer, &mut self.out)
                .await
                .map_err(|_| Cut::Client),
            Err(cut) => {
                // What there is of an answer that broke off reaches the client too.
                let _ = usual_answer::flush(&mut self.writer, &mut self.out).await;
                Err(cut)
            }
        };
        match whole {
            Ok(()) => {
                let end = End {
                    received: 0,
                    sent,
                    took: start.elapsed(),
                    cut: false,
                };
                traffic.ended(entry, Some(&counts), &end);
                reader.buffer.advance(plain.length);
                drop((pick, in_flight));
                Carried::Done { keep }
            }
            Err(cut) => {
                let mut exchange = self.record(reader, &plain, start, pick);
                exchange.status = Some(answer.status);
                exchange.until_answer = Some(until_answer);
                exchange.sent_bytes = sent;
                exchange.cut = matches!(cut, Cut::Endpoint);
                Carried::Over
            }
        }
    }

    /// Sends the request and waits for what comes first. The head of a plain answer is in `self.out` then, but for its end.
    async fn first(&mut self, plain: &Plain, endpoint: &mut Taken, reader: &mut Reader<S>, start: Instant) -> First {
        let most = self.proxy.limits.head_bytes;
        let answer = plain.route.policy.timeouts.read.unwrap_or(self.proxy.limits.answer);
        let due = tokio::time::Instant::from_std(start + answer);
        let out = &mut self.out;
        let connection = &mut endpoint.connection;
        poll_fn(|context| {
            if let Poll::Ready(Err(_)) = connection.poll_send(context)
                && !connection.has_begun()
            {
                return Poll::Ready(First::Nothing);
            }
            loop {
                if !connection.input.is_empty() {
                    out.clear();
                    match answer::read(&connection.input, plain.head_only, most, out) {
                        answer::Read::Plain(answer) => return Poll::Ready(First::Answer(answer)),
                        answer::Read::Partial => out.clear(),
                        answer::Read::Other => {
                            out.clear();
                            return Poll::Ready(First::Unusual);
                        }
                    }
                }
                match connection.poll_more(READ, context) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(count)) if count > 0 => {}
                    Poll::Ready(_) if connection.input.is_empty() => return Poll::Ready(First::Nothing),
                    Poll::Ready(_) => return Poll::Ready(First::Broken),
                }
            }
            if has_left(reader, context) {
                return Poll::Ready(First::Gone);
            }
            connection.alarm.poll(due, context).map(|()| First::Late)
        })
        .await
    }

    /// Carries the body of an answer; `left` is what is still to come. Its last bytes may wait in `self.out` afterwards.
    async fn body(
        &mut self,
        endpoint: &mut Taken,
        reader: &mut Reader<S>,
        left: &mut u64,
        silence: Duration,
    ) -> Result<(), Cut> {
        let connection = &mut endpoint.connection;
        loop {
            let there = connection.input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            if there <= COPIED {
                self.out.extend_from_slice(&connection.input[..there]);
            } else {
                let mut all = (&self.out[..]).chain(&connection.input[..there]);
                self.writer.write_all_buf(&mut all).await.map_err(|_| Cut::Client)?;
                self.out.clear();
            }
            connection.input.advance(there);
            *left -= there as u64;
            if *left == 0 {
                return Ok(());
            }
            let room = if *left > COPIED as u64 { READ_LARGE } else { READ };
            let more = poll_fn(|context| Poll::Ready(connection.poll_more(room, context))).await;
            let more = match more {
                Poll::Ready(more) => more.map_err(|_| Cut::Endpoint)?,
                Poll::Pending => {
                    // The client gets what there is before it waits.
                    let flushed = usual_answer::flush(&mut self.writer, &mut self.out).await;
                    flushed.map_err(|_| Cut::Client)?;
                    let due = tokio::time::Instant::now() + silence;
                    poll_fn(|context| {
                        if let Poll::Ready(more) = connection.poll_more(room, context) {
                            return Poll::Ready(more.map_err(|_| Cut::Endpoint));
                        }
                        if has_left(reader, context) {
                            return Poll::Ready(Err(Cut::Client));
                        }
                        connection.alarm.poll(due, context).map(|()| Err(Cut::Endpoint))
                    })
                    .await?
                }
            };
            if more == 0 {
                return Err(Cut::Endpoint);
            }
        }
    }

    fn unusual(
        &self,
        reader: &mut Reader<S>,
        plain: &Plain,
        start: Instant,
        pick: Pick,
        answer: Result<Response<upstream::Body>, Reason>,
    ) -> Carried {
        Carried::Unusual {
            head_only: plain.head_only,
            keep: plain.keep_alive,
            exchange: self.record(reader, plain, start, pick),
            answer,
        }
    }

    /// The record of a request that ends in an unusual way; its head is taken from the buffer.
    fn record(&self, reader: &mut Reader<S>, plain: &Plain, start: Instant, pick: Pick) -> Box<Exchange> {
        let proxy = self.proxy;
        let head = head::parse(&mut reader.buffer, &proxy.limits);
        let parts = head.ok().flatten().expect("what is plain is a request").parts;
        let request = Request::from_parts(parts, ());
        let in_flight = proxy.state.counters.requests.one();
        let mut exchange = Exchange::start(&request, &self.client, in_flight, &proxy.state.observer);
        exchange.start = start;
        exchange.host = target::host(&request).expect("what is plain has a host");
        let own = request.headers().get(&headers::REQUEST_ID).cloned();
        exchange.request_id = own.or_else(|| HeaderValue::from_bytes(&plain.id).ok());
        exchange.found(&plain.route);
        exchange.endpoint = Some(pick.address());
        exchange.tries = 1;
        exchange.pick = Some(pick);
        exchange
    }
}

/// Waits until the client has gone away.
async fn left<S: AsyncRead + AsyncWrite + Unpin>(reader: &mut Reader<S>) {
    poll_fn(|context| match has_left(reader, context) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// Reads what the client sends meanwhile; whether it went away.
fn has_left<S: AsyncRead + AsyncWrite + Unpin>(reader: &mut Reader<S>, context: &mut Context<'_>) -> bool {
    while reader.buffer.len() < READ_AHEAD {
        match reader.poll_more(context) {
            Poll::Pending => return false,
            Poll::Ready(Ok(count)) if count > 0 => {}
            Poll::Ready(_) => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests;
