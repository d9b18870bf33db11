//! HTTP/2 with a client, by hyper, bounded against floods.
//!
//! Streams at once, the size of field lists and with it CONTINUATION frames, resets of streams that nobody has looked at (rapid reset)
//! and resets that the client provokes (MadeYouReset) are bounded by h2. Here are the bounds that it lacks: fields by number, requests
//! that are made only to be cancelled, clients that ask for nothing, and streams whose window the client does not open. These cost the
//! stream alone (RFC 9113, 5.4.2): the others of its connection go on.

use super::registry::Place;
use super::stalls::StreamStall;
use super::{Client, Proxy};
use crate::limits::Limits;
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use landfall_ingress_upstream::Upload;
use landfall_ingress_upstream::budget::{Budget, Charge};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};

/// Serves a connection to its end.
pub(super) async fn serve<S>(proxy: &Arc<Proxy>, stream: S, client: Arc<Client>, place: &Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &proxy.limits;
    let Some(_cost) = place.budget.receive(limits.http2_cost) else {
        proxy.state.counters.refused_connections.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let watch = Arc::new(Watch::default());
    let window = match place.budget.is_light() {
        true => limits.http2_connection_window,
        false => limits.http2_small_window.min(limits.http2_connection_window),
    };
    let service = service_fn(|request: Request<Incoming>| {
        let (proxy, client) = (Arc::clone(proxy), Arc::clone(&client));
        let budget = Arc::clone(&place.budget);
        place.set_busy();
        let mut stream = Watch::open(&watch);
        stream.held = watch.hold(&request, &budget, window, limits);
        async move {
            if stream.held.is_none() {
                // Its client may ask again (RFC 9113, 8.7), with less at once.
                stream.refuse();
                proxy.state.counters.refused_streams.fetch_add(1, Ordering::Relaxed);
                return Err(h2::Error::from(h2::Reason::REFUSED_STREAM));
            }
            let response = proxy
                .answer(request.map(|body| Upload::new(body, &budget)), &client, None, None)
                .await;
            Ok(response.map(|body| body.watched(stream.answered(), &budget)))
        }
    });
    let builder = builder(limits, window, Tasks(Arc::clone(&watch)));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut told = false;
    loop {
        place_by(&watch, place);
        tokio::select! {
            _ = connection.as_mut() => return,
            // GOAWAY without a last stream, and after a round trip one with it: nothing that is on its way is lost.
            () = place.told_to_close(false), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
                if place.evicted() && watch.open.load(Ordering::Relaxed) == 0 {
                    // Others wait for its place: GOAWAY is written as far as the kernel takes it, and no answer is waited for.
                    let written = |context: &mut Context<'_>| Poll::Ready(connection.as_mut().poll(context).is_ready());
                    poll_fn(written).await;
                    return;
                }
            }
            // Where HTTP/1 says Connection: close with its next answer.
            () = proxy.state.lifecycle.moved(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(limits.http2_look) => match watch.look(limits) {
                Verdict::Fine => {}
                // Told long ago: what the client did not take by now it never will.
                Verdict::Idle if told && watch.quiet() > limits.idle + limits.client_stall => return,
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
        place.set_idle_since(watch.last_move());
    } else {
        place.set_busy();
    }
}

fn builder(limits: &Limits, window: u32, tasks: Tasks) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(u32::try_from(limits.http2_streams).unwrap_or(u32::MAX))
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.http2_resets)
        .max_local_error_reset_streams(limits.http2_errors)
        .initial_stream_window_size(limits.http2_stream_window.min(window))
        .initial_connection_window_size(window)
        .max_send_buf_size(limits.http2_send_buffer)
        .keep_alive_interval(limits.http2_ping)
        .keep_alive_timeout(limits.http2_pong);
    builder
}

/// Starts the tasks of a connection: one for each stream, right after its service was called.
#[derive(Clone)]
struct Tasks(Arc<Watch>);

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let task = tokio::spawn(future);
        if let Some(stall) = self.0.lock().newest.take() {
            stall.sent_by(task.abort_handle());
        }
    }
}

/// What happens on a connection.
struct Watch {
    start: Instant,
    open: AtomicUsize,
    /// Milliseconds since the start at which a stream was last opened or ended.
    moved: AtomicU64,
    taken: AtomicU64,
    cancelled: AtomicU64,
    streams: Mutex<Streams>,
}

#[derive(Default)]
struct Streams {
    open: HashMap<u64, Arc<StreamStall>>,
    /// The one whose task is still to be started.
    newest: Option<Arc<StreamStall>>,
    /// The connection's window, as long as some request may fill it.
    window: Weak<Charge>,
}

/// What a request holds.
struct Held {
    _head: Charge,
    _window: Option<Arc<Charge>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            open: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            streams: Mutex::default(),
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
        let number = watch.taken.fetch_add(1, Ordering::Relaxed);
        watch.moves();
        let stall = Arc::<StreamStall>::default();
        let mut streams = watch.lock();
        streams.open.insert(number, Arc::clone(&stall));
        streams.newest = Some(Arc::clone(&stall));
        drop(streams);
        Stream {
            watch: Arc::clone(watch),
            number,
            stall,
            held: None,
            answered: false,
        }
    }

    /// Counts a request for what its connection may hold. `None` when that is too much.
    fn hold(&self, request: &Request<Incoming>, budget: &Budget, window: u32, limits: &Limits) -> Option<Held> {
        // A field's cost as RFC 7541, 4.1 counts it.
        let fields = request.headers().iter();
        let fields: usize = fields.map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let head = budget.receive(limits.request_cost + fields + target)?;
        let mut streams = self.lock();
        let window = match (request.body().is_end_stream(), streams.window.upgrade()) {
            (true, _) => None,
            (false, Some(counted)) => Some(counted),
            (false, None) => {
                let counted = Arc::new(budget.receive(window as usize)?);
                streams.window = Arc::downgrade(&counted);
                Some(counted)
            }
        };
        Some(Held {
            _head: head,
            _window: window,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the streams whose client has taken nothing for so long.
    fn cancel_stalled(&self, longest: Duration) {
        let streams = self.lock();
        let stalled = |stall: &&Arc<StreamStall>| stall.length().is_some_and(|length| length > longest);
        streams.open.values().filter(stalled).for_each(|stall| stall.cancel());
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
        self.cancel_stalled(limits.client_stall);
        let idle = self.open.load(Ordering::Relaxed) == 0 && self.quiet() > limits.idle;
        if idle { Verdict::Idle } else { Verdict::Fine }
    }

    /// When a stream was last opened or ended; the start when none was.
    fn last_move(&self) -> Instant {
        self.start + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }

    /// Since then.
    fn quiet(&self) -> Duration {
        self.last_move().elapsed()
    }
}

/// A stream until its answer is sent.
struct Stream {
    watch: Arc<Watch>,
    number: u64,
    stall: Arc<StreamStall>,
    held: Option<Held>,
    answered: bool,
}

impl Stream {
    /// It ends here, and not by its client.
    fn refuse(&mut self) {
        self.answered = true;
    }

    fn answered(mut self) -> (Arc<StreamStall>, Box<dyn Send + Sync>) {
        self.answered = true;
        (Arc::clone(&self.stall), Box::new(self))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.watch.open.fetch_sub(1, Ordering::Relaxed);
        self.watch.lock().open.remove(&self.number);
        self.watch.moves();
        if !self.answered {
            self.watch.cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }
}
