//! From a plain request to the head of its answer.

use super::deliver::Delivery;
use super::{Carried, Plain, answer};
use crate::exchange::Exchange;
use crate::forward::waits;
use crate::http1::Connection;
use crate::http1::answer::flush;
use crate::reader::Reader;
use crate::target;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use landfall_ingress_balance::{Attempts, Earlier, Outcome, Pick, Preference};
use landfall_ingress_http::fields;
use landfall_ingress_http::request as head;
use landfall_ingress_telemetry::reason::Reason;
use landfall_ingress_upstream::{self as upstream, Failure, Taken, Waits};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};

/// Room for one read: most answers fit.
const READ: usize = 8 * 1024;

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

impl<S> Connection<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Carries a plain request to an endpoint and its answer back.
    pub(in crate::http1) async fn carry(&mut self, plain: Plain, reader: &mut Reader<S>) -> Carried {
        let proxy = self.proxy;
        let start = Instant::now();
        let Ok(pick) = Attempts::new(&plain.route.backend, Preference::Any, 1).next() else {
            return Carried::Usual {
                earlier: Earlier::default(),
            };
        };
        let waits = waits(&plain.route.policy.timeouts, &proxy.limits);
        let connected = tokio::select! {
            biased;
            endpoint = proxy.upstream.connection(pick.address(), &waits) => endpoint,
            () = left(reader) => {
                drop(self.record(reader, &plain, start, pick));
                return Carried::Over;
            }
        };
        let Some(mut endpoint) = connected else {
            // The usual way goes on to others.
            pick.report(Outcome::Unreachable);
            proxy.state.counters.failovers.fetch_add(1, Ordering::Relaxed);
            let untouched = Some(pick.address());
            return Carried::Usual {
                earlier: Earlier { repeats: 0, untouched },
            };
        };
        let in_flight = proxy.state.counters.requests.one();
        endpoint.connection.begin_with(&mut self.scratch.head);
        let first = self.first(&plain, &mut endpoint, reader, start).await;
        let answer = match first {
            First::Answer(answer) => answer,
            First::Nothing if !endpoint.connection.has_begun() => {
                return Carried::Usual {
                    earlier: Earlier::default(),
                };
            }
            First::Nothing if !endpoint.fresh && pick.may_repeat() => {
                return Carried::Usual {
                    earlier: Earlier {
                        repeats: 1,
                        untouched: None,
                    },
                };
            }
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
                let Some(result) = self.later(&plain, endpoint, reader, start, &waits).await else {
                    drop(self.record(reader, &plain, start, pick));
                    return Carried::Over;
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
        let delivery = Delivery { start, pick, answer };
        let carried = self.deliver(&plain, endpoint, reader, delivery).await;
        drop(in_flight);
        carried
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
            if reader.has_left(context) {
                return Poll::Ready(First::Gone);
            }
            connection.alarm.poll(due, context).map(|()| First::Late)
        })
        .await
    }

    /// Waits for an answer that is not plain; interim ones pass meanwhile. `None` when the client went away.
    async fn later(
        &mut self,
        plain: &Plain,
        endpoint: Taken,
        reader: &mut Reader<S>,
        start: Instant,
        waits: &Waits,
    ) -> Option<Result<Response<upstream::Body>, Failure>> {
        let method = if plain.head_only { Method::HEAD } else { Method::GET };
        let mut answer = pin!(endpoint.answer(&method, start.into(), waits, &*self.interim));
        loop {
            tokio::select! {
                biased;
                result = &mut answer => {
                    self.interim.take(&mut self.out);
                    return Some(result.map(|answer| answer.map(upstream::Body::http1)));
                }
                () = self.interim.there() => {
                    self.interim.take(&mut self.out);
                    flush(&mut self.writer, &mut self.out).await.ok()?;
                }
                () = left(reader) => return None,
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
    pub(super) fn record(&self, reader: &mut Reader<S>, plain: &Plain, start: Instant, pick: Pick) -> Box<Exchange> {
        let proxy = self.proxy;
        let head = head::parse(&mut reader.buffer, &proxy.limits.of_heads());
        let parts = head.ok().flatten().expect("what is plain is a request").parts;
        let request = Request::from_parts(parts, ());
        let in_flight = proxy.state.counters.requests.one();
        let mut exchange = Exchange::start(&request, &self.client, in_flight, &proxy.state.observer);
        exchange.start = start;
        exchange.host = target::host(&request).expect("what is plain has a host");
        let own = request.headers().get(&fields::REQUEST_ID).cloned();
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
    poll_fn(|context| match reader.has_left(context) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}
