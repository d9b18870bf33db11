//! The body of a request.

use super::kept::{self, Kept, Part};
use crate::budget::{Budget, Charge};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::HeaderName;
use landfall_ingress_http::claims::may_trail;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Largest part of a body over HTTP/2: the frame that everybody may send (RFC 9113, 4.2), and hyper allows no larger one.
const FRAME: usize = 16 * 1024;

/// Who gets a copy of a body as it goes by.
pub trait BodyTee: fmt::Debug + Send + Sync {
    /// Takes a piece of the body. Returns whether it takes more.
    fn add(&mut self, data: &[u8]) -> bool;

    /// The body is complete.
    fn complete(self: Box<Self>);
}

/// The body of a request, from client to endpoint.
#[derive(Debug)]
pub struct Upload {
    source: Source,
    /// Shared with whoever waits for the answer; none when there is no body.
    progress: Option<Progress>,
    limits: UploadLimits,
    /// Time in which the client was waited for, before the wait that runs now.
    waited: Duration,
    waiting: Option<Waiting>,
    /// Goes to a second service when the body is complete.
    copy: Option<Box<dyn BodyTee>>,
    /// Further names that trailers must not have.
    forbidden: Box<[HeaderName]>,
    /// What its client may hold.
    budget: Option<Arc<Budget>>,
    /// Bytes that are gathered of it before they are written.
    gathered: usize,
    /// Room for the next part of a body that shares its connection with others; afterwards, of the last one.
    counted: Option<Charge>,
    /// Parts bring their room along, for they are written elsewhere.
    carries: bool,
    /// Where parts are kept until the answer begins.
    kept: Option<Kept<Upload>>,
    /// What was handed over before, to an endpoint that did not act on it.
    again: VecDeque<Part>,
}

/// A body that was read by ourselves.
type Own = Pin<Box<dyn Body<Data = Bytes, Error = UploadError> + Send>>;

enum Source {
    Empty,
    /// From a client of HTTP/2.
    Hyper(Incoming),
    /// From a client of HTTP/1.
    Own(Own),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Hyper(_) => "Hyper",
            Self::Own(_) => "Own",
        })
    }
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    over: Pin<Box<Sleep>>,
}

/// Bounds of one body.
#[derive(Debug, Clone, Copy, Default)]
pub struct UploadLimits {
    /// Largest size in bytes.
    pub bytes: Option<u64>,
    /// Longest silence of the client.
    pub silence: Option<Duration>,
    /// The client may keep us waiting this long in all, and one second more for each `rate` bytes.
    pub grace: Option<Duration>,
    /// Bytes per second that are expected at least.
    pub rate: u64,
}

impl Upload {
    /// Wraps the body of a client of HTTP/2. Each part counts for its connection until it is written to an endpoint.
    pub fn new(body: Incoming, budget: &Arc<Budget>) -> Self {
        if body.is_end_stream() {
            return Self::empty();
        }
        let mut upload = Self::from_source(Source::Hyper(body), Some(Progress::start()));
        upload.budget = Some(Arc::clone(budget));
        upload
    }

    /// Wraps a body that was read by ourselves and is not empty; so many bytes of it may be gathered before they are written.
    pub fn own(body: Own, gathered: usize, budget: &Arc<Budget>) -> Self {
        let mut upload = Self::from_source(Source::Own(body), Some(Progress::start()));
        upload.budget = Some(Arc::clone(budget));
        upload.gathered = gathered;
        upload
    }

    /// No body.
    pub fn empty() -> Self {
        Self::from_source(Source::Empty, None)
    }

    fn from_source(source: Source, progress: Option<Progress>) -> Self {
        Self {
            source,
            progress,
            limits: UploadLimits::default(),
            waited: Duration::ZERO,
            waiting: None,
            copy: None,
            forbidden: [].into(),
            budget: None,
            // One part at a time.
            gathered: 1,
            counted: None,
            carries: false,
            kept: None,
            again: VecDeque::new(),
        }
    }

    /// Bytes that are gathered before they are written: no more parts are taken above that.
    pub fn gathered(&self) -> usize {
        self.gathered
    }

    /// The room that the last part takes, for who writes it; it counts until that is dropped.
    pub(crate) fn take_counted(&mut self) -> Option<Charge> {
        self.counted.take()
    }

    /// Has parts bring their room along.
    pub(crate) fn carry_counted(&mut self) {
        self.carries = true;
    }

    /// Has what is handed over kept. `None` without a body, and for one that is too large for sure.
    pub(crate) fn keep(&mut self) -> Option<Kept<Self>> {
        if self.is_end_stream() || self.budget.is_none() || self.size_hint().lower() > kept::MOST as u64 {
            return None;
        }
        let kept = Kept::new();
        self.kept = Some(kept.clone());
        Some(kept)
    }

    /// Has nothing kept any more: nothing was handed over.
    pub(crate) fn keep_nothing(&mut self) {
        self.kept = None;
    }

    /// The same body with these parts before what is left of it.
    fn again(mut self, parts: VecDeque<Part>) -> Self {
        if let Some(progress) = &self.progress {
            progress.begin_again();
        }
        self.again = parts;
        self
    }

    /// A part that was handed over before.
    fn next_again(&mut self) -> Option<Frame<Bytes>> {
        let part = self.again.pop_front()?;
        let stage = if self.is_end_stream() {
            Stage::Sent
        } else {
            Stage::Endpoint
        };
        let progress = self.progress.as_ref()?;
        progress.moved(part.length() as u64);
        progress.set(stage);
        Some(part.into_frame())
    }

    /// Room for the next part, where parts are counted.
    fn poll_counted(&mut self, context: &Context<'_>) -> Poll<()> {
        if let (Source::Hyper(_), Some(budget), None) = (&self.source, &self.budget, &self.counted) {
            self.counted = Some(ready!(budget.poll_receive(FRAME, context)));
        }
        Poll::Ready(())
    }

    /// The frame as it is handed over: kept where that is wanted, with its room where it is to bring that along.
    fn handed_over(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if let (Some(kept), Some(budget)) = (&self.kept, &self.budget) {
            kept.add(&frame, budget);
        }
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(mut charge) = self.counted.take() else {
            return frame;
        };
        charge.shrink(length);
        if self.carries {
            return frame.map_data(|data| charge.with(data));
        }
        self.counted = Some(charge);
        frame
    }

    /// Has these names taken away from trailers, beside those that no client may say there.
    pub fn forbid(&mut self, names: &[HeaderName]) {
        if self.progress.is_some() {
            self.forbidden = names.into();
        }
    }

    /// Takes away from trailers what a client must not say in them; nothing is left of them when nothing passes.
    fn fit(&self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let mut trailers = match frame.into_trailers() {
            Ok(trailers) => trailers,
            Err(frame) => return Some(frame),
        };
        let goes = |name: &&HeaderName| !may_trail(name.as_str(), &self.forbidden);
        let names: Vec<HeaderName> = trailers.keys().filter(goes).cloned().collect();
        for name in &names {
            trailers.remove(name);
        }
        (!trailers.is_empty()).then(|| Frame::trailers(trailers))
    }

    /// Has a copy made as the body goes by; without a body it is complete already.
    pub fn mirror(&mut self, copy: Box<dyn BodyTee>) {
        if self.is_end_stream() {
            copy.complete();
        } else {
            self.copy = Some(copy);
        }
    }

    fn copy(&mut self, frame: Option<&Result<Frame<Bytes>, UploadError>>, complete: bool) {
        let Some(mut copy) = self.copy.take() else { return };
        let fits = match frame {
            Some(Ok(frame)) => frame.data_ref().is_none_or(|data| copy.add(data)),
            Some(Err(_)) => false,
            None => true,
        };
        match (fits, complete) {
            (true, true) => copy.complete(),
            (true, false) => self.copy = Some(copy),
            (false, _) => {}
        }
    }

    /// Sets the bounds. Returns whether the body can be within them: its size may be known.
    pub fn bound(&mut self, limits: UploadLimits) -> bool {
        self.limits = limits;
        Self::fits(self.size_hint().lower(), limits.bytes)
    }

    /// Whether a body of at least so many bytes can be within this bound.
    pub fn fits(least: u64, most: Option<u64>) -> bool {
        most.is_none_or(|most| least <= most)
    }

    /// Tells how far this body is.
    pub fn progress(&self) -> Option<Progress> {
        self.progress.clone()
    }

    /// The moment at which waiting for the client is over.
    fn patience(&self, since: Instant, bytes: u64) -> Option<Instant> {
        let silence = self.limits.silence.map(|silence| since + silence);
        let slow = self.limits.grace.map(|grace| {
            let earned = Duration::from_secs(bytes.checked_div(self.limits.rate).unwrap_or(0));
            since + (grace + earned).saturating_sub(self.waited)
        });
        match (silence, slow) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = &mut *self;
        if let Some(frame) = this.next_again() {
            return Poll::Ready(Some(Ok(this.handed_over(frame))));
        }
        // The part before may have been written.
        ready!(this.poll_counted(context));
        let Some(progress) = &this.progress else {
            return Poll::Ready(None);
        };
        let frame = match &mut this.source {
            Source::Empty => Poll::Ready(None),
            Source::Hyper(body) => Pin::new(body).poll_frame(context).map_err(|_| UploadError::Gone),
            Source::Own(body) => body.as_mut().poll_frame(context),
        };
        let Poll::Ready(frame) = frame else {
            // A client that is silent keeps no room from others.
            this.counted = None;
            progress.set(Stage::Client);
            if this.waiting.is_none() {
                let since = Instant::now();
                let bytes = progress.bytes();
                if let Some(over) = this.patience(since, bytes) {
                    let over = Box::pin(sleep_until(over));
                    this.waiting = Some(Waiting { since, over });
                }
            }
            if let Some(waiting) = &mut this.waiting
                && waiting.over.as_mut().poll(context).is_ready()
            {
                this.source = Source::Empty;
                if let Some(progress) = &this.progress {
                    progress.set(Stage::Slow);
                }
                return Poll::Ready(Some(Err(UploadError::Slow)));
            }
            return Poll::Pending;
        };
        if let Some(waiting) = this.waiting.take() {
            this.waited += waiting.since.elapsed();
        }
        let frame = match frame {
            Some(Ok(frame)) => this.fit(frame).map(Ok),
            other => other,
        };
        let length = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
            _ => 0,
        };
        let bytes = progress.moved(length);
        let stage = match &frame {
            Some(Ok(_)) if this.limits.bytes.is_some_and(|most| bytes > most) => {
                progress.set(Stage::Large);
                this.source = Source::Empty;
                return Poll::Ready(Some(Err(UploadError::Large)));
            }
            Some(Ok(_)) if !this.source.is_end() => Stage::Endpoint,
            Some(Err(UploadError::Malformed)) => Stage::Malformed,
            Some(Err(_)) => Stage::Gone,
            _ => Stage::Sent,
        };
        progress.set(stage);
        this.copy(frame.as_ref(), stage == Stage::Sent);
        Poll::Ready(frame.map(|frame| frame.map(|frame| this.handed_over(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.again.is_empty() && self.source.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Hyper(body) => body.size_hint(),
            Source::Own(body) => body.size_hint(),
        };
        let before: usize = self.again.iter().map(Part::length).sum();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + before as u64);
        if let Some(most) = rest.upper() {
            hint.set_upper(most + before as u64);
        }
        hint
    }
}

impl Kept<Upload> {
    /// The body as it was before any of it was handed over. `None` when not all of it is there. Waits until its stream lets go of it.
    pub(crate) async fn whole(&self) -> Option<Upload> {
        let (rest, parts) = self.take().await?;
        Some(rest.again(parts))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take() {
            let rest = std::mem::replace(self, Self::empty());
            drop(kept.give_back(rest));
        }
    }
}

impl Source {
    fn is_end(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Hyper(body) => body.is_end_stream(),
            Self::Own(body) => body.is_end_stream(),
        }
    }
}

/// Where the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// The endpoint is to take more of it; also before the first of it was asked for.
    Endpoint,
    /// The client is to send more of it.
    Client,
    /// All of it was handed over.
    Sent,
    /// The client went away.
    Gone,
    /// What came is no body.
    Malformed,
    /// It is too large.
    Large,
    /// It comes too slowly.
    Slow,
}

/// How far a body is, for those who wait for the answer to it.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Marks>);

#[derive(Debug)]
struct Marks {
    start: Instant,
    millis: AtomicU64,
    bytes: AtomicU64,
    stage: AtomicU8,
}

impl Progress {
    fn start() -> Self {
        Self(Arc::new(Marks {
            start: Instant::now(),
            millis: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            stage: AtomicU8::new(Stage::Endpoint as u8),
        }))
    }

    fn moved(&self, bytes: u64) -> u64 {
        let millis = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.millis.store(millis, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    fn begin_again(&self) {
        self.0.bytes.store(0, Ordering::Relaxed);
        self.set(Stage::Endpoint);
        self.moved(0);
    }

    fn set(&self, stage: Stage) {
        self.0.stage.store(stage as u8, Ordering::Release);
    }

    /// The last moment of movement, the start when there was none.
    pub fn last(&self) -> Instant {
        self.0.start + Duration::from_millis(self.0.millis.load(Ordering::Relaxed))
    }

    /// Bytes that were handed over.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Who is waited for.
    pub fn stage(&self) -> Stage {
        let stage = self.0.stage.load(Ordering::Acquire);
        let all = [
            Stage::Endpoint,
            Stage::Client,
            Stage::Sent,
            Stage::Gone,
            Stage::Malformed,
            Stage::Large,
            Stage::Slow,
        ];
        all.into_iter().find(|s| *s as u8 == stage).unwrap_or(Stage::Endpoint)
    }
}

/// Why a request's body ended early; the endpoint sees its connection close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadError {
    /// The client went away.
    Gone,
    /// What came is no body.
    Malformed,
    /// The body is larger than allowed.
    Large,
    /// The body comes too slowly.
    Slow,
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "the client broke off",
            Self::Malformed => "the body is malformed",
            Self::Large => "the body is too large",
            Self::Slow => "the body comes too slowly",
        })
    }
}

impl std::error::Error for UploadError {
    /// What an endpoint of HTTP/2 is told: that the request is wanted no more, and not that something broke.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        static CANCEL: LazyLock<h2::Error> = LazyLock::new(|| h2::Reason::CANCEL.into());
        Some(&*CANCEL)
    }
}
