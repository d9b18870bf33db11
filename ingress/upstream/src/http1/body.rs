//! The body of an endpoint's answer. It drives its connection, and what is left of the request on it, and gives it back at its end.

use super::connection::{Connection, Unsent};
use super::{Home, Tunnel};
use crate::Cut;
use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use landfall_ingress_http::chunked::{self, Decoder, Piece};
use landfall_ingress_http::response::Framing;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use tokio::time::timeout;

/// Room for one read of a small body, or of one whose size is not known.
const READ: usize = 16 * 1024;
/// Room for one read of a large one.
pub const READ_LARGE: usize = 64 * 1024;

/// See the module's text.
pub struct Body {
    /// Gone at the end.
    exchange: Option<(Connection, Home)>,
    ending: Ending,
    keep_alive: bool,
    /// It ended before its end.
    cut: bool,
    /// Room for one read at most.
    room: usize,
}

enum Ending {
    Decoder(Decoder),
    UntilClose,
}

impl Body {
    pub(super) fn new(connection: Connection, home: Home, framing: Framing, keep_alive: bool) -> Self {
        let ending = match framing {
            Framing::None => Ending::Decoder(Decoder::new(chunked::Framing::Length(0))),
            Framing::Length(length) => Ending::Decoder(Decoder::new(chunked::Framing::Length(length))),
            Framing::Chunked => Ending::Decoder(Decoder::new(chunked::Framing::Chunked)),
            Framing::UntilClose => Ending::UntilClose,
        };
        let mut body = Self {
            exchange: Some((connection, home)),
            ending,
            keep_alive,
            cut: false,
            room: READ_LARGE,
        };
        body.look();
        body
    }

    /// Reads in parts of so many bytes at most.
    pub fn read_parts_of(&mut self, bytes: usize) {
        self.room = bytes;
    }

    /// The connection of an answer that is none any more. `None` when the answer has ended.
    pub fn into_tunnel(self) -> Option<Tunnel> {
        let (connection, _) = self.exchange?;
        let (stream, read) = connection.into_stream();
        Some(Tunnel { stream, read })
    }

    /// The next frame; an error is the last.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Some((connection, _)) = &mut self.exchange else {
            return Poll::Ready(None);
        };
        // Whether an endpoint that reads no more still answers shows below.
        if let Poll::Ready(Err(Unsent::Body)) = connection.poll_send(context) {
            return self.cut();
        }
        let piece = match &mut self.ending {
            Ending::Decoder(decoder) => loop {
                match decoder.next(&mut connection.input) {
                    Ok(Piece::More) => {}
                    Ok(piece) => break piece,
                    Err(chunked::Malformed) => return self.cut(),
                }
                let room = match decoder.remaining() {
                    Some(left) if left > READ as u64 => self.room,
                    _ => READ.min(self.room),
                };
                match ready!(connection.poll_more(room, context)) {
                    Ok(count) if count > 0 => {}
                    _ => return self.cut(),
                }
            },
            Ending::UntilClose => loop {
                if !connection.input.is_empty() {
                    break Piece::Data(take(&mut connection.input));
                }
                match ready!(connection.poll_more(READ.min(self.room), context)) {
                    Ok(0) => break Piece::End,
                    Ok(_) => {}
                    Err(_) => return self.cut(),
                }
            },
        };
        self.look();
        Poll::Ready(match piece {
            Piece::Data(data) => Some(Ok(Frame::data(data))),
            Piece::Trailers(fields) => Some(Ok(Frame::trailers(fields))),
            Piece::End | Piece::More => {
                self.exchange = None;
                None
            }
        })
    }

    fn cut(&mut self) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.exchange = None;
        self.cut = true;
        Poll::Ready(Some(Err(Cut::Broken)))
    }

    /// Gives the connection back if the answer has been read to its end.
    fn look(&mut self) {
        let over = matches!(&self.ending, Ending::Decoder(decoder) if decoder.is_done());
        if over
            && let Some((connection, home)) = self.exchange.take()
            && self.keep_alive
        {
            match connection.is_sending() {
                // An answer may come before the whole request was sent.
                true => drop(tokio::spawn(send_rest(connection, home))),
                false if connection.is_ready() => home.keep(connection),
                false => {}
            }
        }
    }

    /// Nothing more will come.
    pub fn is_end_stream(&self) -> bool {
        self.exchange.is_none() && !self.cut
    }

    /// What is known of the bytes that are still to come.
    pub fn size_hint(&self) -> SizeHint {
        match &self.ending {
            Ending::Decoder(decoder) => decoder.remaining().map_or_else(SizeHint::default, SizeHint::with_exact),
            Ending::UntilClose => SizeHint::default(),
        }
    }
}

/// Sends the rest of a request that was answered early, as long as its client waits for that.
async fn send_rest(mut connection: Connection, home: Home) {
    let rest = poll_fn(|context| connection.poll_send(context));
    if let Ok(Ok(())) = timeout(home.idle.config.linger, rest).await
        && connection.is_ready()
    {
        home.keep(connection);
    }
}

fn take(buffer: &mut BytesMut) -> Bytes {
    buffer.split().freeze()
}
