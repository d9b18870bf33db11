//! What is known of one request, gathered on its way and recorded at its end.

use super::{Client, Interim};
use crate::observer::Observer;
use hyper::body::Body;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use landfall_ingress_balance::{Earlier, Pick};
use landfall_ingress_routing::Route;
use landfall_ingress_telemetry::access_log::{self, Line};
use landfall_ingress_telemetry::metrics::Counted;
use landfall_ingress_telemetry::reason::Reason;
use landfall_ingress_telemetry::traffic::{End, EntryPoint, Made, RouteStats};
use landfall_ingress_tls::Session;
use landfall_ingress_upstream::Progress;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One request and what became of it. Complete when it is dropped: after the last byte of the answer, or when the client went away.
#[derive(Debug)]
pub struct Exchange {
    /// When its head had been read.
    pub start: Instant,
    /// Who asked.
    pub client: Arc<Client>,
    /// Its method.
    pub method: Method,
    /// Its target as it came.
    pub target: Uri,
    /// Its version.
    pub version: Version,
    /// Its host, normalised; empty until it was read.
    pub host: String,
    /// The value of `X-Request-ID` that the endpoint saw.
    pub request_id: Option<HeaderValue>,
    /// `namespace/name` of the Ingress whose route it took.
    pub ingress: Option<Arc<str>>,
    /// `namespace/service:port` of its backend.
    pub backend: Option<Arc<str>>,
    /// The endpoint that answered; it counts as busy until this record ends.
    pub pick: Option<Pick>,
    /// The endpoint that answered, or the last that was tried.
    pub endpoint: Option<SocketAddr>,
    /// Endpoints tried.
    pub tries: usize,
    /// Times that it came through proxies of this kind before.
    pub(super) hops: u32,
    /// What became of it on the quick way, where it was counted.
    pub(super) earlier: Option<Earlier>,
    /// Until the head of the answer was there.
    pub until_answer: Option<Duration>,
    /// Status of the answer; none when the client went away before.
    pub status: Option<StatusCode>,
    /// Why the answer is ours.
    pub reason: Option<Reason>,
    /// Bytes of the answer's body that were handed to the connection.
    pub sent_bytes: u64,
    /// The answer was sent to its end.
    pub complete: bool,
    /// The endpoint broke off within the answer.
    pub cut: bool,
    /// The answer was an upgrade; what follows is a tunnel.
    pub upgraded: bool,
    /// No line in the access log.
    pub unlogged: bool,
    upload: Option<Progress>,
    /// Counts for the client's limit as long as this lasts.
    pub(super) slot: Option<super::policy::Slot>,
    /// Where interim answers go, for clients that understand them.
    pub(super) interim: Option<Arc<Interim>>,
    _in_flight: Counted,
    /// `User-Agent`.
    pub user_agent: Option<HeaderValue>,
    /// The route that it took.
    pub matched: Option<Arc<Route>>,
    /// Counts of the route.
    pub counts: Option<RouteStats>,
    observer: Arc<Observer>,
}

impl Exchange {
    /// Starts the record of a request.
    pub(super) fn start<B>(
        request: &Request<B>,
        client: &Arc<Client>,
        in_flight: Counted,
        observer: &Arc<Observer>,
    ) -> Box<Self> {
        Box::new(Self {
            start: Instant::now(),
            client: Arc::clone(client),
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            host: String::new(),
            request_id: None,
            ingress: None,
            backend: None,
            pick: None,
            endpoint: None,
            tries: 0,
            hops: 0,
            earlier: None,
            until_answer: None,
            status: None,
            reason: None,
            sent_bytes: 0,
            complete: false,
            cut: false,
            upgraded: false,
            unlogged: false,
            upload: None,
            slot: None,
            interim: None,
            _in_flight: in_flight,
            user_agent: request.headers().get(header::USER_AGENT).cloned(),
            matched: None,
            counts: None,
            observer: Arc::clone(observer),
        })
    }

    /// The route was found.
    pub(super) fn found(&mut self, route: &Arc<Route>) {
        self.ingress = Some(Arc::clone(&route.ingress));
        self.unlogged = route.policy.unlogged;
        self.matched = Some(Arc::clone(route));
        self.counts = Some(self.observer.counts(route));
    }

    /// The request's body is on its way.
    pub(super) fn uploads(&mut self, progress: Option<Progress>) {
        self.upload = progress;
    }

    /// The head of the answer is there.
    pub(super) fn answered<B: Body>(&mut self, response: &Response<B>) {
        self.until_answer = Some(self.start.elapsed());
        self.status = Some(response.status());
        self.complete = response.body().is_end_stream();
        self.count_answer();
    }

    /// More of the answer was handed over.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
    }

    /// Bytes of the request's body that were handed over.
    pub fn received_bytes(&self) -> u64 {
        self.upload.as_ref().map_or(0, Progress::bytes)
    }

    /// Counts the answer, whose head is there.
    fn count_answer(&self) {
        let (Some(status), Some(took)) = (self.status, self.until_answer) else {
            return;
        };
        let made = match (self.reason, self.endpoint) {
            // Redirects and answers to preflights are what the route wants.
            (Some(_), _) if !failed(status) => Made::Route,
            (Some(reason), _) => Made::Us(reason),
            (None, Some(_)) => Made::Endpoint,
            (None, None) => Made::Route,
        };
        self.observer
            .traffic
            .answered(entry_of(self), self.counts.as_deref(), status, made, took);
    }

    /// Counts the request, which is over with or without an answer, and writes its line.
    fn count_end(&self) {
        let end = End {
            received: self.received_bytes(),
            sent: self.sent_bytes,
            took: self.start.elapsed(),
            cut: self.status.is_some() && !self.complete && !self.upgraded,
        };
        self.observer
            .traffic
            .ended(entry_of(self), self.counts.as_deref(), &end);
        let bad = match self.status {
            None => true,
            Some(status) => status.is_server_error() || (self.reason.is_some() && failed(status)) || self.cut,
        };
        if !self.unlogged && self.observer.log.wants(bad) {
            self.write_line(&end);
        }
    }

    fn write_line(&self, end: &End) {
        let agent = self.user_agent.as_ref().and_then(|agent| agent.to_str().ok());
        let given = self.request_id.as_ref().and_then(|id| id.to_str().ok());
        let reason = self.reason.map(|reason| reason.label());
        let reason = reason.or_else(|| why(self.status, self.cut, end.cut));
        let matched = self.matched.as_deref();
        self.observer.log.write(&Line {
            request_id: &access_log::request_id(given),
            client: self.client.address.ip(),
            entry_point: entry_of(self),
            version: self.version,
            tls: tls_version(self),
            method: &self.method,
            host: &self.host,
            path: self.target.path(),
            user_agent: agent,
            status: self.status,
            reason,
            route: matched.map(|route| (&*route.ingress, route.shown_host(), &*route.path)),
            service: self.backend.as_deref().or(matched.map(|route| &*route.backend.name)),
            endpoint: self.endpoint,
            tries: u32::try_from(self.tries).unwrap_or(u32::MAX),
            answer_took: self.until_answer,
            took: Duration::from_micros(u64::try_from(end.took.as_micros()).unwrap_or(u64::MAX)),
            received: end.received,
            sent: end.sent,
            cut: end.cut,
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.count_end();
    }
}

/// Whether a status says that a request failed.
fn failed(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// Why an answer that is not ours is no good one.
fn why(status: Option<StatusCode>, endpoint_broke_off: bool, cut: bool) -> Option<&'static str> {
    match status {
        None => Some("client_gone"),
        Some(_) if endpoint_broke_off => Some("cut_by_endpoint"),
        Some(_) if cut => Some("cut_by_client"),
        Some(status) if status.is_server_error() => Some("upstream"),
        Some(_) => None,
    }
}

/// Version of TLS, as rustls writes it.
fn tls_version(exchange: &Exchange) -> Option<&'static str> {
    let session: &Session = exchange.client.tls.as_deref()?;
    session.version?.as_str()
}

fn entry_of(exchange: &Exchange) -> EntryPoint {
    match exchange.client.tls {
        Some(_) => EntryPoint::Https,
        None => EntryPoint::Http,
    }
}
