//! HTTP/1 with a client: one request after another on a connection.
//!
//! ```text
//! head ──> answer ──> body of the answer ──> head …
//!   │         │ reader lent to the request's body, comes home at its end; interim answers pass
//!   │         └── 101: the connection becomes a tunnel
//!   └── refused: an answer of ours, then the end
//! ```
//!
//! This is not hyper's server because it has to refuse what hyper repairs (bare LF, two lengths), to answer in our own words when it
//! refuses, and to be cheap: a request without a body takes no task, no channel and one write.
//!
//! INVARIANT: the next head is read only where the last body ended. When a body is not read to its end the connection is closed.

mod answer;
#[cfg(test)]
mod fuzz;
mod plain;
mod request_body;

use super::registry::Place;
use super::{Client, Interim, Proxy, upgrade};
use crate::Download;
use crate::reader::{READ, READ_AHEAD, Reader};
use answer::{Form, flush};
use bytes::BytesMut;
use hyper::{Method, Request, Response, Version};
use landfall_ingress_balance::Earlier;
use landfall_ingress_http::chunked::Decoder;
use landfall_ingress_http::request::{self as head, Head};
use landfall_ingress_telemetry::reason::Reason;
use landfall_ingress_upstream as upstream;
use landfall_ingress_upstream::budget::Charge;
use landfall_ingress_upstream::{Alarm, Upload};
use plain::{Carried, Plain, Scratch};
use request_body::{Home, RequestBody};
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// A body of more bytes, or of none knows how many, has buffers that count for what its address may hold, or small ones.
const SMALL_BODY: u64 = 8 * 1024;
/// Room for one read of a large body when only small buffers can be had.
const SMALL_READ: usize = 4 * 1024;
/// What buffers of a large upload hold: one read, and what is gathered for an endpoint, with a frame that goes beyond.
const UPLOAD_BUFFERS: usize = READ + upstream::GATHERED + READ;
/// The same of a large answer: one read, and what is gathered for the client.
const ANSWER_BUFFERS: usize = upstream::READ_LARGE + answer::GATHERED + answer::COPIED;
/// Bytes that are read and dropped after the last answer, so that the client gets it: unread bytes would reset the connection.
const LINGER_BYTES: usize = 256 * 1024;

/// Serves a connection to its end; `buffer` is what was read from it already.
pub(super) async fn serve<S>(proxy: &Proxy, stream: S, buffer: BytesMut, client: Arc<Client>, place: &Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (half, writer) = tokio::io::split(stream);
    let mut reader = Reader {
        half,
        buffer,
        in_use: 0,
    };
    let mut connection = Connection {
        proxy,
        scratch: Scratch::new(&client),
        client,
        place,
        writer,
        out: Vec::new(),
        large_head: None,
        interim: Arc::default(),
        alarm: Alarm::default(),
    };
    loop {
        let after = match connection.next_head(&mut reader).await {
            Next::Plain(plain) => connection.quick_turn(plain, reader).await,
            Next::Head(head) => connection.turn(*head, reader, None).await,
            Next::Refused(reason) => connection.refuse(reason, reader).await,
            Next::End => After::Close(None),
        };
        match after {
            After::Next(back) => reader = back,
            After::Close(back) => return connection.close(back).await,
            After::Tunnel(back, endpoint) => {
                return upgrade::tunnel(proxy, back, connection.writer, endpoint, place).await;
            }
        }
    }
}

enum Next {
    Plain(Plain),
    Head(Box<Head>),
    Refused(Reason),
    /// Nothing more will come, or nothing more is wanted.
    End,
}

enum After<S> {
    /// Ready for the next request.
    Next(Reader<S>),
    /// The end; with a reader when the client may still be sending.
    Close(Option<Reader<S>>),
    /// Another protocol from here on.
    Tunnel(Reader<S>, Box<upgrade::AcceptedUpgrade>),
}

struct Connection<'a, S> {
    proxy: &'a Proxy,
    client: Arc<Client>,
    place: &'a Place,
    writer: WriteHalf<S>,
    out: Vec<u8>,
    /// Of a head that is larger than what is read ahead, until its request is done with.
    large_head: Option<Charge>,
    /// Where interim answers wait for what is being sent.
    interim: Arc<Interim>,
    /// For what a client is waited for between requests.
    alarm: Alarm,
    scratch: Scratch,
}

impl<S> Connection<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    async fn next_head(&mut self, reader: &mut Reader<S>) -> Next {
        let (limits, place) = (&self.proxy.limits, self.place);
        self.give_back(reader);
        // From the first byte of a head on it has a deadline of its own.
        let mut idle_until = None;
        let mut deadline = None;
        let mut seen = 0;
        let mut most = READ_AHEAD;
        loop {
            // A head can only have become whole with a line's end; without this, byte by byte would be dear.
            let fresh = &reader.buffer[seen..];
            if !fresh.is_empty() && (seen == 0 || fresh.contains(&b'\n') || reader.buffer.len() > limits.target_bytes) {
                if let Some(plain) = self.scratch.prepare(self.proxy, &self.client, &reader.buffer) {
                    place.set_busy();
                    return Next::Plain(plain);
                }
                match head::parse(&mut reader.buffer, &limits.of_heads()) {
                    Ok(Some(head)) => {
                        place.set_busy();
                        return Next::Head(Box::new(head));
                    }
                    Ok(None) => {}
                    Err(refused) => return Next::Refused(refused.into()),
                }
            }
            seen = reader.buffer.len();
            if seen >= READ_AHEAD && self.large_head.is_none() {
                self.large_head = place.budget.receive(limits.head_bytes);
                if self.large_head.is_none() {
                    return Next::Refused(Reason::LargeHead);
                }
                // One byte more shows that a head is too large.
                most = limits.head_bytes.max(limits.target_bytes) + 1;
            }
            let begun = seen > 0;
            if place.closing() && !begun {
                return Next::End;
            }
            // Bytes of a head that does not end make nobody younger.
            if idle_until.is_none() {
                place.set_idle();
            }
            let idle_until = *idle_until.get_or_insert_with(|| Instant::now() + limits.idle);
            let deadline = match begun {
                true => *deadline.get_or_insert_with(|| Instant::now() + limits.head),
                false => idle_until,
            };
            tokio::select! {
                biased;
                read = reader.more(most) => match read {
                    Ok(read) if read > 0 => {}
                    _ => return Next::End,
                },
                // Without an answer, whose end would be waited for while others wait for the place.
                () = place.told_to_close(begun) => return Next::End,
                () = poll_fn(|context| self.alarm.poll(deadline, context)) => {
                    return if begun { Next::Refused(Reason::SlowRequest) } else { Next::End };
                }
            }
        }
    }

    /// Gives back, before the next request, the memory that a large one took.
    fn give_back(&mut self, reader: &mut Reader<S>) {
        if self.large_head.take().is_some() {
            reader.shrink();
            self.scratch = Scratch::new(&self.client);
        }
        if self.out.capacity() > 2 * answer::COPIED {
            self.out = Vec::new();
        }
    }

    /// Lets an answer's body have large buffers, which count until the result is dropped; else it has small ones.
    fn buffers(&self, form: &mut Form, body: &mut Download) -> Option<Charge> {
        if body.is_small(SMALL_BODY) {
            return None;
        }
        let charge = self.place.budget.buffers(ANSWER_BUFFERS);
        if charge.is_none() {
            body.read_parts_of(SMALL_READ);
            form.gathered = SMALL_READ;
        }
        charge
    }

    /// One plain request.
    async fn quick_turn(&mut self, plain: Plain, mut reader: Reader<S>) -> After<S> {
        reader.in_use = plain.length();
        let carried = self.carry(plain, &mut reader).await;
        reader.in_use = 0;
        match carried {
            Carried::Done { keep: true } => After::Next(reader),
            Carried::Done { keep: false } => After::Close((!reader.buffer.is_empty()).then_some(reader)),
            Carried::Over => After::Close(None),
            Carried::Usual { earlier } => match head::parse(&mut reader.buffer, &self.proxy.limits.of_heads()) {
                Ok(Some(head)) => self.turn(head, reader, Some(earlier)).await,
                // What is plain is a whole request.
                Ok(None) => After::Close(None),
                Err(refused) => self.refuse(refused.into(), reader).await,
            },
            Carried::Unusual {
                head_only,
                keep,
                exchange,
                answer,
            } => {
                let mut response = self.proxy.resume(answer, exchange);
                let mut form = Form::of_own(head_only);
                let _counted = self.buffers(&mut form, response.body_mut());
                let keep = keep && !self.place.closing();
                let written =
                    answer::write(&mut self.writer, &mut self.out, response, form, keep, Some(&mut reader)).await;
                match written {
                    Ok(true) => After::Next(reader),
                    Ok(false) => After::Close((!reader.buffer.is_empty()).then_some(reader)),
                    Err(_) => After::Close(None),
                }
            }
        }
    }

    /// One request; `earlier` says what became of it on the quick way.
    async fn turn(&mut self, head: Head, reader: Reader<S>, earlier: Option<Earlier>) -> After<S> {
        let mut form = Form {
            old: head.parts.version == Version::HTTP_10,
            takes_trailers: head.takes_trailers,
            ..Form::of_own(head.parts.method == Method::HEAD)
        };
        let (upload, mut lent) = self.lend(reader, Decoder::new(head.framing), head.expects_continue);
        let request = Request::from_parts(head.parts, upload);
        let Some(mut response) = self.answer(request, &mut lent, earlier).await else {
            return After::Close(None);
        };
        lent.look();
        if let Some(endpoint) = response.body_mut().agreed() {
            let written = answer::write(&mut self.writer, &mut self.out, response, form, true, None).await;
            return match (written, lent.reader) {
                (Ok(_), Some(reader)) => After::Tunnel(reader, endpoint),
                _ => After::Close(None),
            };
        }
        let keep = head.keep_alive && !lent.unfinished && !self.place.closing();
        let _counted = self.buffers(&mut form, response.body_mut());
        let written = answer::write(
            &mut self.writer,
            &mut self.out,
            response,
            form,
            keep,
            lent.reader.as_mut(),
        )
        .await;
        let Ok(keep) = written else {
            return After::Close(None);
        };
        // The rest of a request that was answered early may still be on its way to the endpoint.
        if let Some(home) = lent.home.take()
            && let Ok(Ok(home)) = timeout(self.proxy.limits.linger, home).await
        {
            lent.came_home(home);
        }
        if let (Some(_), Some(reader)) = (&lent.counted, &mut lent.reader) {
            reader.shrink();
        }
        match lent.reader {
            Some(reader) if keep && !lent.unfinished => After::Next(reader),
            reader => After::Close(reader.filter(|reader| lent.unfinished || !reader.buffer.is_empty())),
        }
    }

    /// The body of a request, which has the reader while there is one.
    fn lend(&self, reader: Reader<S>, decoder: Decoder, expects_continue: bool) -> (Upload, Lent<S>) {
        let mut lent = Lent {
            reader: None,
            home: None,
            asked: None,
            unfinished: false,
            counted: None,
        };
        if decoder.is_done() {
            lent.reader = Some(reader);
            return (Upload::empty(), lent);
        }
        if decoder.remaining().is_none_or(|length| length > SMALL_BODY) {
            lent.counted = self.place.budget.buffers(UPLOAD_BUFFERS);
        }
        let (read, gathered) = match lent.counted {
            Some(_) => (READ, upstream::GATHERED),
            None => (SMALL_READ, SMALL_READ),
        };
        let (body, home, asked) = RequestBody::new(reader, decoder, read);
        lent.home = Some(home);
        lent.asked = expects_continue.then_some(asked);
        (Upload::own(Box::pin(body), gathered, &self.place.budget), lent)
    }

    /// Waits for the answer. `None` when the client went away.
    async fn answer(
        &mut self,
        request: Request<Upload>,
        lent: &mut Lent<S>,
        earlier: Option<Earlier>,
    ) -> Option<Response<Download>> {
        // HTTP/1.0 has no interim answers.
        let interim = (request.version() != Version::HTTP_10).then_some(&self.interim);
        let mut answer = pin!(self.proxy.answer(request, &self.client, interim, earlier));
        loop {
            tokio::select! {
                biased;
                response = &mut answer => {
                    self.interim.take(&mut self.out);
                    return Some(response);
                }
                () = self.interim.there() => {
                    self.interim.take(&mut self.out);
                    flush(&mut self.writer, &mut self.out).await.ok()?;
                }
                asked = or_never(&mut lent.asked) => {
                    lent.asked = None;
                    if asked.is_ok() {
                        self.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                        flush(&mut self.writer, &mut self.out).await.ok()?;
                    }
                }
                home = or_never(&mut lent.home) => {
                    lent.home = None;
                    let home = home.ok().filter(|home| !home.gone)?;
                    lent.came_home(home);
                }
                read = read_ahead(&mut lent.reader) => if read == 0 {
                    return None;
                },
            }
        }
    }

    /// Answers what is no request.
    async fn refuse(&mut self, reason: Reason, reader: Reader<S>) -> After<S> {
        let response = self.proxy.refused(reason, &self.client);
        let form = Form::of_own(false);
        let written = answer::write(&mut self.writer, &mut self.out, response, form, false, None).await;
        After::Close(written.is_ok().then_some(reader))
    }

    /// Ends the connection; reads on for a moment where the client may still be sending.
    async fn close(mut self, reader: Option<Reader<S>>) {
        // The client may be gone already.
        let _ = self.writer.shutdown().await;
        let Some(mut reader) = reader else { return };
        let rest = async {
            let mut read = reader.buffer.len();
            while read < LINGER_BYTES {
                reader.buffer.clear();
                match reader.more(READ_AHEAD).await {
                    Ok(more) if more > 0 => read += more,
                    _ => return,
                }
            }
        };
        let _ = timeout(self.proxy.limits.linger, rest).await;
    }
}

/// The reader while a request is served: here, or with the request's body.
struct Lent<S> {
    reader: Option<Reader<S>>,
    home: Option<oneshot::Receiver<Home<S>>>,
    asked: Option<oneshot::Receiver<()>>,
    /// The body was given up before its end.
    unfinished: bool,
    /// Large buffers of the body.
    counted: Option<Charge>,
}

impl<S> Lent<S> {
    fn came_home(&mut self, home: Home<S>) {
        self.unfinished |= !home.finished;
        self.reader = Some(home.reader);
    }

    /// Takes the reader back if it has come home by now.
    fn look(&mut self) {
        if let Some(home) = &mut self.home
            && let Ok(home) = home.try_recv()
        {
            self.home = None;
            self.came_home(home);
        }
    }
}

async fn or_never<T>(channel: &mut Option<oneshot::Receiver<T>>) -> Result<T, oneshot::error::RecvError> {
    match channel {
        Some(channel) => channel.await,
        None => pending().await,
    }
}

/// Reads what the client sends while it waits for an answer; 0 when it went away.
async fn read_ahead<S: AsyncRead + AsyncWrite + Unpin>(reader: &mut Option<Reader<S>>) -> usize {
    match reader {
        Some(reader) if reader.buffer.len() < READ_AHEAD => reader.more(READ_AHEAD).await.unwrap_or(0),
        _ => pending().await,
    }
}
