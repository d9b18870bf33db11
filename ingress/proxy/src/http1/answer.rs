//! Answers in HTTP/1's form.

use crate::Download;
use crate::reader::{READ_AHEAD, Reader};
use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame};
use hyper::header::{self, HeaderMap};
use hyper::{Response, StatusCode};
use landfall_ingress_http::date;
use landfall_ingress_http::lines::{field, status_line};
use std::future::poll_fn;
use std::io::Write;
use std::pin::Pin;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf};

/// Frames up to this size are copied behind what waits to be written; larger ones are written from where they are.
pub(super) const COPIED: usize = 8 * 1024;
/// Bytes that are gathered before they are written, where there is room for so many.
pub(super) const GATHERED: usize = 32 * 1024;

/// How an answer is written: what the request said about its form, and what there is room for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// The method was HEAD.
    pub(super) head_only: bool,
    /// HTTP/1.0, which has no chunks.
    pub(super) old: bool,
    /// Trailers are understood.
    pub(super) takes_trailers: bool,
    /// Bytes that are gathered before they are written.
    pub(super) gathered: usize,
}

impl Form {
    /// Of HTTP/1.1, without trailers.
    pub(super) fn of_own(head_only: bool) -> Self {
        Self {
            head_only,
            old: false,
            takes_trailers: false,
            gathered: GATHERED,
        }
    }
}

/// How the client finds the end of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// There is none.
    None,
    Known(u64),
    Chunked,
    UntilClose,
}

/// The answer cannot be finished: the client has to see that by the connection's end.
#[derive(Debug)]
pub(super) struct Cut;

/// Writes an answer behind what is in `out`; returns whether the connection can be used again, which is never more than `keep` says.
pub(super) async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    writer: &mut WriteHalf<S>,
    out: &mut Vec<u8>,
    response: Response<Download>,
    form: Form,
    keep: bool,
    reader: Option<&mut Reader<S>>,
) -> Result<bool, Cut> {
    let length = length(&response, form);
    let keep = keep && length != Length::UntilClose && !says_close(response.headers());
    head(out, &response, form, length, keep);
    let mut body = response.into_body();
    if length == Length::None {
        flush(writer, out).await?;
        return Ok(keep);
    }
    let whole = frames(writer, out, &mut body, length, form, reader).await;
    // What there is of an answer that broke off reaches the client too.
    flush(writer, out).await?;
    whole.map(|()| keep)
}

fn says_close(headers: &HeaderMap) -> bool {
    headers.get(header::CONNECTION).is_some_and(|value| value == "close")
}

fn bodiless(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

pub(super) fn length(response: &Response<Download>, form: Form) -> Length {
    if form.head_only || bodiless(response.status()) {
        return Length::None;
    }
    match response.body().size_hint().exact() {
        Some(length) => Length::Known(length),
        None if form.old => Length::UntilClose,
        None => Length::Chunked,
    }
}

pub(super) fn head(out: &mut Vec<u8>, response: &Response<Download>, form: Form, length: Length, keep: bool) {
    let status = response.status();
    status_line(out, status);
    // A HEAD's or 304's length is that of the body that is not sent.
    let kept_length = length == Length::None && !status.is_informational() && status != StatusCode::NO_CONTENT;
    for (name, value) in response.headers() {
        let ours = match *name {
            header::CONNECTION => status != StatusCode::SWITCHING_PROTOCOLS,
            header::CONTENT_LENGTH => !kept_length,
            header::TRANSFER_ENCODING => true,
            _ => false,
        };
        if !ours {
            field(out, name.as_str(), value.as_bytes());
        }
    }
    match length {
        Length::Known(length) => number_field(out, length),
        Length::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Length::None | Length::UntilClose => {}
    }
    if !response.headers().contains_key(header::DATE) {
        out.extend_from_slice(b"date: ");
        date::append(out);
        out.extend_from_slice(b"\r\n");
    }
    if status != StatusCode::SWITCHING_PROTOCOLS {
        match (keep, form.old) {
            (false, _) => out.extend_from_slice(b"connection: close\r\n"),
            (true, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (true, false) => {}
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn number_field(out: &mut Vec<u8>, length: u64) {
    // Writing to memory does not fail.
    let _ = write!(out, "content-length: {length}\r\n");
}

/// Writes frames as they come; what is there at once goes out together.
async fn frames<S: AsyncRead + AsyncWrite + Unpin>(
    writer: &mut WriteHalf<S>,
    out: &mut Vec<u8>,
    body: &mut Download,
    length: Length,
    form: Form,
    mut reader: Option<&mut Reader<S>>,
) -> Result<(), Cut> {
    let mut left = match length {
        Length::Known(length) => length,
        _ => u64::MAX,
    };
    loop {
        let frame = match poll_fn(|context| Poll::Ready(Pin::new(&mut *body).poll_frame(context))).await {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                flush(writer, out).await?;
                next(body, &mut reader).await?
            }
        };
        let frame = match frame {
            None => break,
            Some(frame) => frame.map_err(|_| Cut)?,
        };
        match frame.into_data() {
            Ok(data) => {
                left = left.checked_sub(data.len() as u64).ok_or(Cut)?;
                chunk(writer, out, data, length == Length::Chunked, form.gathered).await?;
                if left == 0 {
                    return Ok(());
                }
            }
            Err(frame) if length == Length::Chunked => {
                out.extend_from_slice(b"0\r\n");
                trailers(out, &frame, form);
                out.extend_from_slice(b"\r\n");
                return Ok(());
            }
            Err(_) => {}
        }
    }
    match length {
        Length::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
        Length::Known(_) if left > 0 => return Err(Cut),
        _ => {}
    }
    Ok(())
}

fn trailers(out: &mut Vec<u8>, frame: &Frame<Bytes>, form: Form) {
    let fields = frame.trailers_ref().filter(|_| form.takes_trailers);
    for (name, value) in fields.into_iter().flatten() {
        field(out, name.as_str(), value.as_bytes());
    }
}

/// Waits for a frame, and meanwhile looks whether the client is still there.
async fn next<S: AsyncRead + AsyncWrite + Unpin>(
    body: &mut Download,
    reader: &mut Option<&mut Reader<S>>,
) -> Result<Option<Result<Frame<Bytes>, crate::DownloadError>>, Cut> {
    loop {
        let watched = reader.as_mut().filter(|reader| reader.buffer.len() < READ_AHEAD);
        let Some(watched) = watched else {
            return Ok(poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await);
        };
        tokio::select! {
            biased;
            frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)) => return Ok(frame),
            read = watched.more(READ_AHEAD) => match read {
                Ok(read) if read > 0 => {}
                _ => return Err(Cut),
            },
        }
    }
}

pub(super) async fn chunk<S: AsyncRead + AsyncWrite + Unpin>(
    writer: &mut WriteHalf<S>,
    out: &mut Vec<u8>,
    data: Bytes,
    chunked: bool,
    gathered: usize,
) -> Result<(), Cut> {
    if data.is_empty() {
        return Ok(());
    }
    if chunked {
        // Writing to memory does not fail.
        let _ = write!(out, "{:x}\r\n", data.len());
    }
    let end: &[u8] = if chunked { b"\r\n" } else { b"" };
    if data.len() <= COPIED {
        out.extend_from_slice(&data);
        out.extend_from_slice(end);
        return if out.len() > gathered {
            flush(writer, out).await
        } else {
            Ok(())
        };
    }
    let mut all = (&out[..]).chain(data).chain(end);
    writer.write_all_buf(&mut all).await.map_err(|_| Cut)?;
    out.clear();
    Ok(())
}

/// Writes all that waits.
pub(super) async fn flush<S: AsyncRead + AsyncWrite + Unpin>(
    writer: &mut WriteHalf<S>,
    out: &mut Vec<u8>,
) -> Result<(), Cut> {
    if !out.is_empty() {
        writer.write_all(out).await.map_err(|_| Cut)?;
        out.clear();
    }
    // TLS keeps bytes until it is told.
    writer.flush().await.map_err(|_| Cut)
}
