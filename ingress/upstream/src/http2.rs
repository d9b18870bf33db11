//! HTTP/2 to endpoints: connections that many requests share.

use super::connect::connect;
use super::{Config, Destination, Failure, Over, Upload, Waits, broken, copy_head, in_time};
use crate::kept::Kept;
use crate::limits::{HTTP2_ENDPOINT_WINDOW, HTTP2_UPLOAD_BUFFER};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use landfall_ingress_balance::Onward;
use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::{Instant, timeout};

/// Largest window there is (RFC 9113, 6.9.1).
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// Connections by destination.
pub(super) struct Shared {
    open: Mutex<HashMap<Destination, Vec<Open>>>,
    config: Config,
}

struct Open {
    sender: SendRequest<Upload>,
    /// Streams that the endpoint takes at once, as it said last.
    allowed: Arc<AtomicUsize>,
    /// Counts one more than there are requests on this connection.
    places: Arc<()>,
    used: Instant,
}

/// A request's place on a connection.
pub(super) struct Lease {
    _place: Arc<()>,
}

impl Shared {
    pub(super) fn new(config: Config) -> Self {
        Self {
            open: Mutex::default(),
            config,
        }
    }

    pub(super) async fn send(
        &self,
        to: &Destination,
        mut request: Request<Upload>,
        waits: &Waits,
        over: Over,
    ) -> Result<Response<Answered>, Failure> {
        // A shared connection may be about to end; then the request comes back and gets a new one.
        if over == Over::Kept
            && let Some((sender, lease)) = self.join(to)
        {
            match exchange(sender, lease, request, waits).await {
                Err(Failure::Untouched(back)) => {
                    request = *back;
                    self.forget_closed(to);
                }
                other => return other,
            }
        }
        let Some(stream) = connect(to, waits.connect).await else {
            return Err(Failure::Untouched(Box::new(request)));
        };
        let window = HTTP2_ENDPOINT_WINDOW;
        let streams = u32::try_from(self.config.http2_streams).unwrap_or(u32::MAX);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(self.config.head_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(self.config.http2_ping)
            .keep_alive_timeout(self.config.http2_pong)
            .initial_stream_window_size(window)
            .initial_connection_window_size(window.saturating_mul(streams).min(LARGEST_WINDOW))
            .max_send_buf_size(HTTP2_UPLOAD_BUFFER);
        // With prior knowledge this sends the preface and waits for nothing.
        let Ok(Ok((sender, connection))) = timeout(waits.connect, builder.handshake(TokioIo::new(stream))).await else {
            return Err(Failure::Untouched(Box::new(request)));
        };
        let allowed = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        let said = Arc::clone(&allowed);
        let mut connection = Box::pin(connection);
        tokio::spawn(poll_fn(move |context| {
            let polled = connection.as_mut().poll(context);
            said.store(connection.current_max_send_streams(), Ordering::Relaxed);
            // Its error reaches whoever waits for an answer.
            polled.map(drop)
        }));
        let place = Arc::new(());
        let lease = Lease {
            _place: Arc::clone(&place),
        };
        let shared = Open {
            sender: sender.clone(),
            allowed,
            places: place,
            used: Instant::now(),
        };
        self.share(to, shared);
        exchange(sender, lease, request, waits).await
    }

    /// A place on a connection that has one free: RFC 9113, 5.1.2 leaves it to us to open another. Until an endpoint has said how many
    /// streams it takes, that is as many as we give one connection.
    fn join(&self, to: &Destination) -> Option<(SendRequest<Upload>, Lease)> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let list = open.get_mut(to)?;
        let most = self.config.http2_streams;
        // One that takes none at the moment is waited for on one connection, not on one for each request.
        let takes = |o: &Open| o.allowed.load(Ordering::Relaxed).clamp(1, most);
        let free = |o: &&mut Open| !o.sender.is_closed() && Arc::strong_count(&o.places) <= takes(o);
        let found = list.iter_mut().find(free)?;
        found.used = Instant::now();
        let lease = Lease {
            _place: Arc::clone(&found.places),
        };
        Some((found.sender.clone(), lease))
    }

    fn share(&self, to: &Destination, connection: Open) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.entry(to.clone()).or_default().push(connection);
    }

    fn forget_closed(&self, to: &Destination) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = open.get_mut(to) {
            list.retain(|o| !o.sender.is_closed());
        }
    }

    pub(super) fn close_idle(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, list| {
            list.retain(|o| Arc::strong_count(&o.places) > 1);
            !list.is_empty()
        });
    }

    pub(super) fn sweep(&self, wanted: &BTreeSet<SocketAddr>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Requests that are on their way keep a connection open after it is forgotten here.
        open.retain(|to, list| {
            let busy = |o: &Open| Arc::strong_count(&o.places) > 1;
            list.retain(|o| !o.sender.is_closed() && (busy(o) || o.used.elapsed() < self.config.pool_idle));
            wanted.contains(&to.address) && !list.is_empty()
        });
    }
}

/// A body, with the place on the shared connection that it holds to its end.
type Answered = (Incoming, Lease);

async fn exchange(
    mut sender: SendRequest<Upload>,
    lease: Lease,
    mut request: Request<Upload>,
    waits: &Waits,
) -> Result<Response<Answered>, Failure> {
    let progress = request.body().progress();
    request.body_mut().carry_counted();
    let spare = Spare::of(&mut request);
    match in_time(sender.try_send_request(request), progress.as_ref(), waits).await? {
        Ok(response) => Ok(response.map(|body| (body, lease))),
        Err(mut error) => {
            if let Some(mut request) = error.take_message() {
                request.body_mut().keep_nothing();
                return Err(Failure::Untouched(Box::new(request)));
            }
            let Some(onward) = unheard(error.error()) else {
                return Err(broken(progress.as_ref()));
            };
            match spare.request().await {
                Some(request) => Err(Failure::Seen(Box::new(request), onward)),
                None => Err(broken(progress.as_ref())),
            }
        }
    }
}

/// A request once more, for an endpoint that says that it did not act on it: its head, and what was handed over of its body. Nothing of
/// that is kept when this is dropped.
struct Spare {
    /// None when the request has a body that is not kept.
    head: Option<Request<()>>,
    kept: Option<Kept<Upload>>,
}

impl Spare {
    fn of(request: &mut Request<Upload>) -> Self {
        let kept = request.body_mut().keep();
        let head = (kept.is_some() || request.body().is_end_stream()).then(|| copy_head(request));
        Self { head, kept }
    }

    /// The whole request; `None` when not all of it was kept.
    async fn request(mut self) -> Option<Request<Upload>> {
        let head = self.head.take()?;
        let body = match &self.kept {
            Some(kept) => kept.whole().await?,
            None => Upload::empty(),
        };
        Some(head.map(|()| body))
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(kept) = &self.kept {
            kept.end();
        }
    }
}

/// Where a request may go of which the endpoint says that it did not act on it: its stream was refused, or came after the last one that
/// the endpoint took (RFC 9113, 8.7).
fn unheard(error: &hyper::Error) -> Option<Onward> {
    let error = error.source()?.downcast_ref::<h2::Error>()?;
    match error.reason()? {
        h2::Reason::REFUSED_STREAM if error.is_remote() => Some(Onward::Rather),
        // It ends this connection, and takes others.
        h2::Reason::NO_ERROR if error.is_remote() && error.is_go_away() => Some(Onward::Same),
        _ => None,
    }
}
