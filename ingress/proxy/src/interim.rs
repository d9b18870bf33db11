//! Interim answers of endpoints on their way to a client of HTTP/1.1 (RFC 9110, 15.2): 103 above all. They wait here as they are sent.
//!
//! INVARIANT: whoever puts one here and whoever sends it are polled by one task, so nobody has to be woken, and what there is has gone
//! on before the next one is read. The final answer goes behind them.

use hyper::http::response;
use hyper::{StatusCode, header};
use landfall_ingress_http::fields;
use landfall_ingress_http::lines::{field, status_line};
use landfall_ingress_upstream::OnInformational;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// Bytes that may wait before another one is dropped: a hint more is worth no memory. One always finds room, however large it is; the
/// size of a head has its own bound.
const WAITING: usize = 8 * 1024;

/// See the module's text. A connection has one for all its requests.
#[derive(Debug, Default)]
pub(crate) struct Interim(Mutex<Vec<u8>>);

impl Interim {
    /// Takes an endpoint's, by the rules for final ones, and without a length, for there is no body. 100 ends here: clients that expect
    /// one get ours, and have it when their body is asked for.
    fn put(&self, mut parts: response::Parts) {
        let mut waiting = self.lock();
        if parts.status == StatusCode::CONTINUE || waiting.len() >= WAITING {
            return;
        }
        fields::strip_hop_by_hop(&mut parts.headers);
        parts.headers.remove(header::CONTENT_LENGTH);
        status_line(&mut waiting, parts.status);
        for (name, value) in &parts.headers {
            field(&mut waiting, name.as_str(), value.as_bytes());
        }
        waiting.extend_from_slice(b"\r\n");
    }

    /// Appends those that wait to what is to be sent. Keeps no memory: few endpoints have any.
    pub(super) fn take(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&std::mem::take(&mut *self.lock()));
    }

    /// Waits until there is one; to be polled after the endpoint's answer, in the same task.
    pub(super) async fn there(&self) {
        poll_fn(|_| match self.lock().is_empty() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OnInformational for Interim {
    fn on_informational(&self, parts: response::Parts) {
        self.put(parts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Response;

    #[test]
    fn what_waits_is_bounded_and_whole() {
        let interim = Interim::default();
        let hint = |length| {
            let response = Response::builder().status(103).header("link", "x".repeat(length));
            response.body(()).unwrap().into_parts().0
        };
        interim.put(hint(60_000));
        for _ in 0..1000 {
            interim.put(hint(1));
        }
        let mut out = b"before ".to_vec();
        interim.take(&mut out);
        let wanted = format!(
            "before HTTP/1.1 103 Early Hints\r\nlink: {}\r\n\r\n",
            "x".repeat(60_000)
        );
        assert!(out == wanted.as_bytes());
        for _ in 0..1000 {
            interim.put(hint(1));
        }
        out.clear();
        interim.take(&mut out);
        assert!((WAITING..WAITING + 64).contains(&out.len()) && out.ends_with(b"link: x\r\n\r\n"));
        interim.take(&mut out);
        assert!(out.len() < WAITING + 64, "they are taken once");
    }
}
