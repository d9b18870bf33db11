//! One connection to an endpoint and the exchange that is on it. There is no task of its own: whoever waits for the answer drives it.

use crate::budget::Charge;
use crate::connect::Stream;
use crate::{Alarm, Failure, OnInformational, Progress, Upload, Waits, broken, deadline};
use bytes::{Bytes, BytesMut};
use hyper::Method;
use hyper::body::{Body as _, Frame};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use landfall_ingress_http::fields::words;
use landfall_ingress_http::response::{self, Head, Parsed, Sending};
use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Room for one read: most answers fit.
const READ: usize = 8 * 1024;
/// Bytes of a body that are gathered before they are written, where there is room for so many.
pub const GATHERED: usize = 32 * 1024;

/// See the module's text.
pub struct Connection {
    stream: Stream,
    /// What was read and not yet used.
    pub input: BytesMut,
    /// What is to be written, from `written` on.
    output: Vec<u8>,
    written: usize,
    /// Since when the endpoint takes nothing of it.
    stuck: Option<Instant>,
    /// Some byte of this request was written.
    begun: bool,
    /// What is to be written counts for the client that sent it.
    counted: Option<Charge>,
    /// The body that is being sent, until its end was handed over.
    upload: Option<Upload>,
    chunked: bool,
    /// Trailers that the request's head names; others are dropped.
    named: Vec<HeaderName>,
    /// Nothing went wrong so far: another request may follow.
    sound: bool,
    /// Largest head of an answer, in bytes.
    head_bytes: usize,
    /// For waits of who drives it.
    pub alarm: Alarm,
}

/// Why a request got no answer on this connection.
#[derive(Debug)]
pub(super) enum Lost {
    /// No byte of it was taken, and its body was not asked for.
    Untouched(Box<Upload>),
    /// The connection ended before the answer began.
    Unanswered,
    /// Anything else.
    Failed(Failure),
}

/// Why no more of a request can be sent.
pub enum Unsent {
    /// The endpoint takes no more; an answer may be there all the same.
    Endpoint,
    /// The body broke off.
    Body,
}

/// Why there is no head of an answer.
enum Unread {
    /// The connection ended before its first byte.
    Nothing,
    /// What came is none.
    Malformed,
}

impl Connection {
    pub(super) fn new(stream: Stream, head_bytes: usize) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: Vec::new(),
            written: 0,
            stuck: None,
            begun: false,
            counted: None,
            upload: None,
            chunked: false,
            named: Vec::new(),
            sound: true,
            head_bytes,
            alarm: Alarm::default(),
        }
    }

    /// Sends a request and waits for the head of its answer; interim ones go to `interim`. The body may still be on its way then;
    /// [`Connection::poll_send`] goes on.
    pub(super) async fn exchange(
        &mut self,
        parts: &Parts,
        body: Upload,
        waits: &Waits,
        interim: Option<&dyn OnInformational>,
    ) -> Result<Head, Lost> {
        let progress = body.progress();
        self.begin(parts, body);
        let start = Instant::now();
        self.answer(&parts.method, progress.as_ref(), start, waits, interim)
            .await
    }

    /// Sends what is left of a request, which was begun at `start`, and waits for the head of its answer; interim ones go to `interim`.
    pub(super) async fn answer(
        &mut self,
        method: &Method,
        progress: Option<&Progress>,
        start: Instant,
        waits: &Waits,
        interim: Option<&dyn OnInformational>,
    ) -> Result<Head, Lost> {
        let mut heard = false;
        let failed = || Lost::Failed(broken(progress));
        poll_fn(|context| {
            match self.poll_send(context) {
                Poll::Ready(Err(Unsent::Body)) => return Poll::Ready(Err(failed())),
                Poll::Ready(Err(Unsent::Endpoint)) => match self.upload.take() {
                    body if !self.begun => {
                        return Poll::Ready(Err(Lost::Untouched(Box::new(body.unwrap_or_else(Upload::empty)))));
                    }
                    // Perhaps it has answered before it closed.
                    _ => self.output.clear(),
                },
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            match self.poll_head(method, context) {
                Poll::Ready(Ok(Parsed::Final(head))) => return Poll::Ready(Ok(head)),
                Poll::Ready(Ok(Parsed::Interim(parts))) => {
                    heard = true;
                    if let Some(interim) = interim {
                        interim.on_informational(parts);
                    }
                    // What follows may be there already. First it is the client's turn, and time is looked at: an endpoint may send
                    // nothing else without end.
                    context.waker().wake_by_ref();
                }
                Poll::Ready(Err(Unread::Nothing)) if progress.is_none() && !heard => {
                    return Poll::Ready(Err(Lost::Unanswered));
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(failed())),
                Poll::Pending => {}
            }
            // What waits to be written may be the last that the client sent so far: then it is still the endpoint's turn.
            let due = match self.stuck {
                Some(since) => since + waits.send,
                None => deadline(start, progress, waits),
            };
            let late = self.alarm.poll(due, context);
            late.map(|()| Err(Lost::Failed(Failure::Late)))
        })
        .await
    }

    /// Begins a request without a body by its written head, which is taken.
    #[inline]
    pub fn begin_with(&mut self, head: &mut Vec<u8>) {
        std::mem::swap(&mut self.output, head);
        self.written = 0;
        self.stuck = None;
        self.begun = false;
    }

    /// Whether some byte of this request was written.
    #[inline]
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    fn begin(&mut self, parts: &Parts, body: Upload) {
        let sending = match (body.is_end_stream(), body.size_hint().exact()) {
            (true, _) => Sending::Nothing,
            (false, Some(length)) => Sending::Length(length),
            (false, None) => Sending::Chunked,
        };
        self.output.clear();
        self.written = 0;
        self.stuck = None;
        self.begun = false;
        response::write(&mut self.output, parts, sending);
        self.chunked = sending == Sending::Chunked;
        self.upload = (sending != Sending::Nothing).then_some(body);
        self.named.clear();
        if self.chunked {
            let names = words(&parts.headers, &header::TRAILER);
            self.named
                .extend(names.filter_map(|name| HeaderName::from_bytes(name).ok()));
        }
    }

    /// Sends on; ready when all was sent, which it may be from the start.
    #[inline]
    pub fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        let sent = self.poll_parts(context);
        self.sound &= !matches!(sent, Poll::Ready(Err(_)));
        sent
    }

    fn poll_parts(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        loop {
            while self.written < self.output.len() {
                let rest = &self.output[self.written..];
                let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(context, rest) else {
                    self.stuck.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                };
                match written {
                    Ok(count) if count > 0 => self.written += count,
                    _ => return Poll::Ready(Err(Unsent::Endpoint)),
                }
                self.stuck = None;
                self.begun = true;
            }
            self.output.clear();
            self.counted = None;
            self.written = 0;
            // TLS keeps bytes until it is told; for TCP there is nothing to do.
            let flushed = Pin::new(&mut self.stream).poll_flush(context);
            if ready!(flushed).is_err() {
                return Poll::Ready(Err(Unsent::Endpoint));
            }
            if self.upload.is_none() {
                // A large head is needed no more, and the answer may be long in coming.
                if self.output.capacity() > 2 * READ {
                    self.output = Vec::new();
                }
                return Poll::Ready(Ok(()));
            }
            match self.gather(context) {
                Ok(()) if self.output.is_empty() && self.upload.is_some() => return Poll::Pending,
                Ok(()) => {}
                Err(unsent) => return Poll::Ready(Err(unsent)),
            }
        }
    }

    /// Takes what there is of the body, up to a bound.
    fn gather(&mut self, context: &mut Context<'_>) -> Result<(), Unsent> {
        while let Some(upload) = &mut self.upload
            && self.output.len() < upload.gathered()
        {
            match Pin::new(&mut *upload).poll_frame(context) {
                Poll::Pending => break,
                Poll::Ready(Some(Err(_))) => return Err(Unsent::Body),
                Poll::Ready(Some(Ok(frame))) => {
                    let over = upload.is_end_stream();
                    self.counted = upload.take_counted();
                    self.frame(&frame);
                    if over {
                        self.upload_ends(None);
                    }
                }
                Poll::Ready(None) => self.upload_ends(None),
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            return self.upload_ends(Some(trailers));
        }
        let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) else {
            return;
        };
        if self.chunked {
            // Writing to memory does not fail.
            let _ = write!(self.output, "{:x}\r\n", data.len());
        }
        self.output.extend_from_slice(data);
        if self.chunked {
            self.output.extend_from_slice(b"\r\n");
        }
    }

    /// The first word counts: trailers are the end of a body.
    fn upload_ends(&mut self, trailers: Option<&HeaderMap>) {
        if self.upload.take().is_none() || !self.chunked {
            return;
        }
        self.output.extend_from_slice(b"0\r\n");
        let fine = |name: &HeaderName| self.named.contains(name);
        for (name, value) in trailers.into_iter().flatten().filter(|(name, _)| fine(name)) {
            self.output.extend_from_slice(name.as_str().as_bytes());
            self.output.extend_from_slice(b": ");
            self.output.extend_from_slice(value.as_bytes());
            self.output.extend_from_slice(b"\r\n");
        }
        self.output.extend_from_slice(b"\r\n");
    }

    fn poll_head(&mut self, method: &Method, context: &mut Context<'_>) -> Poll<Result<Parsed, Unread>> {
        loop {
            if !self.input.is_empty() {
                match response::parse(&mut self.input, method, self.head_bytes) {
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Ok(None) => {}
                    Err(response::Malformed) => return Poll::Ready(Err(Unread::Malformed)),
                }
            }
            let nothing = self.input.is_empty();
            match ready!(self.poll_more(READ, context)) {
                Ok(count) if count > 0 => {}
                _ if nothing => return Poll::Ready(Err(Unread::Nothing)),
                _ => return Poll::Ready(Err(Unread::Malformed)),
            }
        }
    }

    /// Reads more; 0 at the end. `room` is how much at once, in bytes.
    #[inline]
    pub fn poll_more(&mut self, room: usize, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < room / 2 {
            self.input.reserve(room);
        }
        pin!(self.stream.read_buf(&mut self.input)).poll(context)
    }

    /// Whether it can take another request: the one before is over on both sides, and nothing came that nobody asked for.
    pub(super) fn is_ready(&self) -> bool {
        self.sound && self.upload.is_none() && self.output.is_empty() && self.input.is_empty()
    }

    /// Gives back the memory that a large exchange took; what a small one takes stays for the next.
    pub(super) fn shrink(&mut self) {
        if self.input.capacity() > 2 * READ {
            self.input = BytesMut::new();
        }
        if self.output.capacity() > 2 * READ {
            self.output = Vec::new();
        }
    }

    /// Whether some of a request is still to be sent, and can be.
    pub(super) fn is_sending(&self) -> bool {
        self.sound && !(self.upload.is_none() && self.output.is_empty())
    }

    /// Whether the endpoint has kept it open. Never waits.
    pub(super) fn is_alive(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        // Bytes would belong to no request.
        Pin::new(&mut self.stream)
            .poll_read(&mut context, &mut buffer)
            .is_pending()
    }

    /// What is left when HTTP is over: the stream, and what was read of it already.
    pub(super) fn into_stream(self) -> (Stream, BytesMut) {
        (self.stream, self.input)
    }
}
