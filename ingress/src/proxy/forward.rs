//! One request: its backend, then one endpoint after another until one takes it.

use super::{Client, Proxy, headers};
use crate::body::{Connection, Upload};
use crate::metrics::Reason;
use crate::pool::Failure;
use crate::route::host_of;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, Version, header};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Proxy {
    /// Returns the endpoint's answer, or why there is none.
    pub(super) async fn forward(
        &self,
        request: Request<Incoming>,
        client: &Client,
    ) -> Result<(Response<Incoming>, Connection), Reason> {
        if request.method() == Method::CONNECT {
            return Err(Reason::BadMethod);
        }
        let host = requested_host(&request).ok_or(Reason::BadRequest)?;
        let snapshot = self.state.snapshot();
        let backend = snapshot.find(&host, request.uri().path()).ok_or(Reason::NoRoute)?;
        if backend.endpoints.is_empty() {
            return Err(Reason::NoEndpoint);
        }
        let mut request = headers::outgoing(request, client)
            .ok_or(Reason::BadRequest)?
            .map(Upload::new);
        for endpoint in backend.candidates().take(self.limits.tries) {
            match self.pool.send(endpoint, request).await {
                Ok((response, sender)) => {
                    let pool = Arc::clone(&self.pool);
                    return Ok((response, Connection { endpoint, sender, pool }));
                }
                Err(Failure::Untouched(back)) => {
                    self.state.counters.failovers.fetch_add(1, Ordering::Relaxed);
                    request = *back;
                }
                Err(Failure::Broken) => return Err(Reason::Broken),
                Err(Failure::Late) => return Err(Reason::Late),
            }
        }
        Err(Reason::Unreachable)
    }
}

/// S6: a target in absolute form wins over the Host field; more than one Host, or none, is a bad request (RFC 9112, 3.2). Only
/// HTTP/1.0 may have none, which gives an empty host.
fn requested_host(request: &Request<Incoming>) -> Option<String> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let field = hosts.next();
    if hosts.next().is_some() || (field.is_none() && request.version() != Version::HTTP_10) {
        return None;
    }
    match (request.uri().authority(), field) {
        (Some(authority), _) => host_of(authority.as_str()),
        (None, Some(field)) => host_of(field.to_str().ok()?),
        (None, None) => Some(String::new()),
    }
}
