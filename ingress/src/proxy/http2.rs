//! HTTP/2 with a client, by hyper, bounded against floods.
//!
//! Streams at once, the size of field lists and with it CONTINUATION frames, resets of streams that nobody has looked at (rapid reset)
//! and resets that the client provokes (MadeYouReset) are bounded by h2. Here are the bounds that it lacks: fields by number, requests
//! that are made only to be cancelled, clients that ask for nothing, and clients that open no window for what they asked for.

use super::registry::Place;
use super::{Client, Proxy};
use crate::body::{Stalls, Upload};
use crate::limits::Limits;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};

/// Serves a connection to its end.
pub(super) async fn serve<S>(proxy: &Arc<Proxy>, stream: S, client: Arc<Client>, place: &Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &proxy.limits;
    let watch = Arc::new(Watch::default());
    let service = service_fn(|request: Request<Incoming>| {
        let (proxy, client) = (Arc::clone(proxy), Arc::clone(&client));
        let stream = Watch::open(&watch);
        async move {
            let response = proxy.answer(request.map(Upload::new), &client, None, 0).await;
            Ok::<_, Infallible>(response.map(|body| body.watched(stream.answered())))
        }
    });
    let mut connection = pin!(builder(limits).serve_connection(TokioIo::new(stream), service));
    let mut told = false;
    loop {
        place_by(&watch, place);
        tokio::select! {
            _ = connection.as_mut() => return,
            // GOAWAY without a last stream, and after a round trip one with it: nothing that is on its way is lost.
            () = place.told_to_close(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            // Where HTTP/1 says Connection: close with its next answer.
            () = proxy.state.moved(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(limits.http2_look) => match watch.look(limits) {
                Verdict::Fine => {}
                // Told long ago: what the client did not take by now it never will.
                Verdict::Idle if told && watch.quiet() > limits.head + limits.client_stall => return,
                Verdict::Idle if told => {}
                Verdict::Idle => {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
                Verdict::Hostile => return,
            },
        }
    }
}

fn place_by(watch: &Watch, place: &Place) {
    if watch.open.load(Ordering::Relaxed) == 0 {
        place.set_idle()
    } else {
        place.set_busy()
    }
}

fn builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(u32::try_from(limits.http2_streams).unwrap_or(u32::MAX))
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.http2_resets)
        .max_local_error_reset_streams(limits.http2_errors)
        .initial_stream_window_size(limits.http2_stream_window)
        .initial_connection_window_size(limits.http2_connection_window)
        .keep_alive_interval(limits.http2_ping)
        .keep_alive_timeout(limits.http2_pong);
    builder
}

/// What happens on a connection.
struct Watch {
    start: Instant,
    open: AtomicUsize,
    /// Milliseconds since the start at which a stream was last opened or ended.
    moved: AtomicU64,
    taken: AtomicU64,
    cancelled: AtomicU64,
    stalls: Arc<Stalls>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            open: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            stalls: Arc::default(),
        }
    }
}

enum Verdict {
    Fine,
    /// Nothing was asked for long.
    Idle,
    /// The connection is closed as it is.
    Hostile,
}

impl Watch {
    fn open(watch: &Arc<Self>) -> Stream {
        watch.open.fetch_add(1, Ordering::Relaxed);
        watch.taken.fetch_add(1, Ordering::Relaxed);
        watch.moves();
        Stream {
            watch: Arc::clone(watch),
            answered: false,
        }
    }

    fn moves(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(millis, Ordering::Relaxed);
    }

    fn look(&self, limits: &Limits) -> Verdict {
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        // People cancel too, when they leave a page; not more than half of what they ask for, again and again.
        if cancelled > limits.http2_cancels && cancelled * 2 > self.taken.load(Ordering::Relaxed) {
            return Verdict::Hostile;
        }
        if self.stalls.longest().is_some_and(|stall| stall > limits.client_stall) {
            return Verdict::Hostile;
        }
        let idle = self.open.load(Ordering::Relaxed) == 0 && self.quiet() > limits.head;
        if idle { Verdict::Idle } else { Verdict::Fine }
    }

    /// Since a stream was last opened or ended.
    fn quiet(&self) -> Duration {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(moved)
    }
}

/// A stream until its answer is sent.
struct Stream {
    watch: Arc<Watch>,
    answered: bool,
}

impl Stream {
    fn answered(mut self) -> (Arc<Stalls>, Box<dyn Send + Sync>) {
        self.answered = true;
        (Arc::clone(&self.watch.stalls), Box::new(self))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.watch.open.fetch_sub(1, Ordering::Relaxed);
        self.watch.moves();
        if !self.answered {
            self.watch.cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }
}
