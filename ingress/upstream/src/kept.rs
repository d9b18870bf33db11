//! What was handed over of a request's body, kept until its endpoint begins to answer: an endpoint that says that it did not act on a
//! request (RFC 9113, 8.7) costs no call then, though its body is on its way. Calls of gRPC all have one.
//!
//! Little is kept, and it counts for what its client may hold: what is larger, or finds no room, is sent once, as all other bodies.

use crate::budget::{Budget, Charge};
use hyper::body::{Bytes, Frame};
use hyper::header::HeaderMap;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Most bytes of one body. Messages of gRPC are rarely larger; Envoy keeps 64 KiB and more.
pub(super) const MOST: usize = 64 * 1024;
/// What a part takes beside its bytes.
const PART: usize = 128;
/// A part of fewer bytes is copied: it would hold a buffer in which most belongs to others, and is free otherwise.
const COPIED: usize = 8 * 1024;
/// Longest wait for a body whose stream has ended to be given back; it is a matter of a few polls.
const GIVEN_BACK: Duration = Duration::from_secs(1);

/// A part of a body.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Part {
    fn of(frame: &Frame<Bytes>) -> Option<Self> {
        let trailers = || frame.trailers_ref().cloned().map(Self::Trailers);
        let own = |data: &Bytes| match data.len() {
            ..COPIED => Bytes::copy_from_slice(data),
            _ => data.clone(),
        };
        frame.data_ref().map(|data| Self::Data(own(data))).or_else(trailers)
    }

    pub(super) fn length(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }

    pub(super) fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}

/// What is kept of one body, shared by the body and by who may send it again; `B` is the body.
pub(crate) struct Kept<B>(Arc<Shared<B>>);

struct Shared<B> {
    state: Mutex<State<B>>,
    /// Told when the body has ended, or was given up.
    ended: Notify,
}

struct State<B> {
    parts: VecDeque<Part>,
    bytes: usize,
    charges: Vec<Charge>,
    /// Nothing is kept any more: there was too much, or the answer has begun.
    over: bool,
    /// The body, from the first part that was not handed over.
    rest: Option<Box<B>>,
}

impl<B> Clone for Kept<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> fmt::Debug for Kept<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept {} bytes", self.lock().bytes)
    }
}

impl<B> Kept<B> {
    pub(super) fn new() -> Self {
        let state = State {
            parts: VecDeque::new(),
            bytes: 0,
            charges: Vec::new(),
            over: false,
            rest: None,
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            ended: Notify::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a part that is handed over, while all of them are few and there is room for them.
    pub(super) fn add(&self, frame: &Frame<Bytes>, budget: &Budget) {
        let mut state = self.lock();
        if state.over {
            return;
        }
        let Some(part) = Part::of(frame) else { return };
        let length = part.length() + PART;
        let charge = Some(length).filter(|length| state.bytes + length <= MOST);
        match charge.and_then(|length| budget.keep(length)) {
            Some(charge) => {
                state.bytes += length;
                state.charges.push(charge);
                state.parts.push_back(part);
            }
            None => state.end(),
        }
    }

    /// Takes the body back when it is given up. Returns it when nobody will send it again.
    pub(super) fn give_back(&self, rest: B) -> Option<B> {
        let mut state = self.lock();
        if state.over {
            return Some(rest);
        }
        state.rest = Some(Box::new(rest));
        drop(state);
        self.0.ended.notify_one();
        None
    }

    /// The answer has begun: nobody will send the body again.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.end();
        let rest = state.rest.take();
        drop(state);
        drop(rest);
    }

    /// What is left of the body, and the parts before that. `None` when not all of them are there. Waits until its stream lets go of it.
    pub(super) async fn take(&self) -> Option<(B, VecDeque<Part>)> {
        if self.lock().over {
            return None;
        }
        let ended = timeout(GIVEN_BACK, self.0.ended.notified()).await;
        let mut state = self.lock();
        let rest = state.rest.take().filter(|_| ended.is_ok() && !state.over);
        let parts = std::mem::take(&mut state.parts);
        state.end();
        rest.map(|rest| (*rest, parts))
    }
}

impl<B> State<B> {
    fn end(&mut self) {
        self.over = true;
        self.parts = VecDeque::new();
        self.charges = Vec::new();
    }
}
