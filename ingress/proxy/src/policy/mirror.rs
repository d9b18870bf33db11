//! Copies of requests for a second service, whose answer is dropped.
//!
//! The copy is made as the body goes by, so the request itself never waits for it. What is too large, or too much at once, is not
//! mirrored; nothing of it reaches the client.

use super::fetch::{Fetcher, Recipient};
use crate::dns::Resolver;
use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Uri};
use landfall_ingress_upstream::{BodyTee, Destination};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Longest answer that is read to the end, so that the connection can be used again.
const ANSWER_BYTES: usize = 64 * 1024;

/// Where copies go.
pub(super) struct To {
    pub(super) recipient: Recipient,
    /// A name and its port, which is looked up instead.
    pub(super) name: Option<(Arc<Resolver>, String, u16)>,
    /// `Host`; empty for the request's own.
    pub(super) authority: String,
    pub(super) uri: Uri,
}

/// A copy that is being made.
pub(crate) struct Copy {
    to: To,
    head: Request<()>,
    body: Vec<u8>,
    /// Largest body; 0 when it is not copied at all.
    most: usize,
    fetcher: Arc<Fetcher>,
    slot: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Copy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses: Vec<_> = self.to.recipient.destinations.iter().map(|to| to.address).collect();
        write!(f, "Copy to {addresses:?}, {} bytes so far", self.body.len())
    }
}

impl Copy {
    pub(super) fn new(to: To, most: usize, fetcher: Arc<Fetcher>, slot: OwnedSemaphorePermit) -> Self {
        Self {
            to,
            head: Request::new(()),
            body: Vec::new(),
            most,
            fetcher,
            slot,
        }
    }

    /// Takes the head of a request. None when its body is too large, or is no body but the beginning of another protocol.
    pub(super) fn of<B: Body>(mut self: Box<Self>, request: &Request<B>) -> Option<Box<Self>> {
        let large = self.most > 0 && request.body().size_hint().lower() > self.most as u64;
        if large || request.headers().contains_key(header::UPGRADE) {
            return None;
        }
        *self.head.method_mut() = request.method().clone();
        *self.head.uri_mut() = self.to.uri.clone();
        let headers = self.head.headers_mut();
        *headers = request.headers().clone();
        for name in [
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::EXPECT,
            header::TE,
        ] {
            headers.remove(name);
        }
        if !self.to.authority.is_empty() {
            headers.insert(header::HOST, HeaderValue::from_str(&self.to.authority).ok()?);
        }
        Some(self)
    }
}

impl BodyTee for Copy {
    /// Returns whether all of it may still fit.
    fn add(&mut self, data: &[u8]) -> bool {
        if self.most > 0 {
            self.body
                .extend_from_slice(&data[..data.len().min(self.most + 1 - self.body.len())]);
        }
        self.most == 0 || self.body.len() <= self.most
    }

    /// Sends the copy, beside everything else.
    fn complete(self: Box<Self>) {
        let Self {
            to,
            head,
            body,
            fetcher,
            slot,
            ..
        } = *self;
        let request = head.map(|()| Full::new(Bytes::from(body)));
        tokio::spawn(async move {
            let mut recipient = to.recipient;
            if let Some((resolver, name, port)) = to.name {
                let found = resolver.addresses(&name).await;
                let plain = |address: &IpAddr| Destination::plain(SocketAddr::new(*address, port));
                recipient.destinations.extend(found.iter().map(plain));
            }
            // Whether it arrived is nobody's concern.
            drop(fetcher.fetch(&recipient, &request, ANSWER_BYTES).await);
            drop(slot);
        });
    }
}
