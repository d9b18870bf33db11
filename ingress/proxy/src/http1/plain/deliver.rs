//! From the head of a plain answer to its last byte.

use super::{Carried, Plain, answer};
use crate::http1::{Connection, answer as usual_answer};
use crate::reader::Reader;
use bytes::Buf;
use landfall_ingress_balance::Pick;
use landfall_ingress_telemetry::traffic::{End, EntryPoint, Made};
use landfall_ingress_upstream::Taken;
use landfall_ingress_upstream::budget::Charge;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Bodies up to this size, in bytes, are copied behind their head.
const COPIED: usize = 8 * 1024;
/// Room for one read of a small body.
const READ: usize = 8 * 1024;
/// Room for one read of a large one, where it can be had.
const READ_LARGE: usize = 64 * 1024;

/// An answer on its way.
pub(super) struct Delivery {
    /// When the request's head had been read.
    pub(super) start: Instant,
    /// The endpoint is busy until the answer's last byte.
    pub(super) pick: Pick,
    pub(super) answer: answer::Answer,
}

/// Who broke off within an answer.
enum Cut {
    Client,
    Endpoint,
}

impl<S> Connection<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Sends the answer whose fields are in `self.out`, and records it.
    pub(super) async fn deliver(
        &mut self,
        plain: &Plain,
        mut endpoint: Taken,
        reader: &mut Reader<S>,
        delivery: Delivery,
    ) -> Carried {
        let proxy = self.proxy;
        let Delivery { start, pick, answer } = delivery;
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

        let keep = plain.keep_alive && !self.place.closing() && !proxy.state.lifecycle.leaving();
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
                Carried::Done { keep }
            }
            Err(cut) => {
                let mut exchange = self.record(reader, plain, start, pick);
                exchange.status = Some(answer.status);
                exchange.until_answer = Some(until_answer);
                exchange.sent_bytes = sent;
                exchange.cut = matches!(cut, Cut::Endpoint);
                Carried::Over
            }
        }
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
        // Room for large reads, once it was asked for.
        let mut counted: Option<Option<Charge>> = None;
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
            let mut is_large = || {
                let budget = &self.place.budget;
                counted
                    .get_or_insert_with(|| budget.buffers(COPIED + READ_LARGE))
                    .is_some()
            };
            let rest_is_large = *left > COPIED as u64;
            let room = if rest_is_large && is_large() { READ_LARGE } else { READ };
            if rest_is_large && room == READ {
                // Small parts are not gathered.
                self.writer.write_all(&self.out).await.map_err(|_| Cut::Client)?;
                self.out.clear();
            }
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
                        if reader.has_left(context) {
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
}
