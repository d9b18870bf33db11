//! What is made of a request on its way and at its end: counts, and a line in the access log.

use crate::proxy::Exchange;
use hyper::StatusCode;
use landfall_ingress_routing::Route;
use landfall_ingress_telemetry::access_log::{self, AccessLog, Line, Mode};
use landfall_ingress_telemetry::traffic::{End, EntryPoint, Made, RouteStats, Traffic};
use landfall_ingress_tls::Session;
use std::sync::Arc;
use std::time::Duration;

/// Records requests. Nothing here waits.
#[derive(Debug)]
pub struct Observer {
    /// Counts.
    pub traffic: Traffic,
    /// Lines.
    pub log: AccessLog,
}

impl Default for Observer {
    fn default() -> Self {
        Self::new(usize::MAX, AccessLog::start(Mode::Off, std::io::sink()))
    }
}

impl Observer {
    /// `exported` routes at most have series of their own.
    pub fn new(exported: usize, log: AccessLog) -> Self {
        Self {
            traffic: Traffic::new(exported),
            log,
        }
    }

    /// Where a route is counted.
    pub fn counts(&self, route: &Route) -> RouteStats {
        Arc::clone(self.traffic.routes.find(&route.traffic, || route.key()))
    }

    /// The head of an answer is there.
    pub fn answered(&self, exchange: &Exchange) {
        let (Some(status), Some(took)) = (exchange.status, exchange.until_answer) else {
            return;
        };
        let made = match (exchange.reason, exchange.endpoint) {
            // Redirects and answers to preflights are what the route wants.
            (Some(_), _) if !failed(status) => Made::Route,
            (Some(reason), _) => Made::Us(reason),
            (None, Some(_)) => Made::Endpoint,
            (None, None) => Made::Route,
        };
        self.traffic
            .answered(entry_of(exchange), exchange.counts.as_deref(), status, made, took);
    }

    /// A request is over, with or without an answer.
    pub fn ended(&self, exchange: &Exchange) {
        let end = End {
            received: exchange.received_bytes(),
            sent: exchange.sent_bytes,
            took: exchange.start.elapsed(),
            cut: exchange.status.is_some() && !exchange.complete && !exchange.upgraded,
        };
        self.traffic.ended(entry_of(exchange), exchange.counts.as_deref(), &end);
        let bad = match exchange.status {
            None => true,
            Some(status) => status.is_server_error() || (exchange.reason.is_some() && failed(status)) || exchange.cut,
        };
        if !exchange.unlogged && self.log.wants(bad) {
            self.write(exchange, &end);
        }
    }

    fn write(&self, exchange: &Exchange, end: &End) {
        let agent = exchange.user_agent.as_ref().and_then(|agent| agent.to_str().ok());
        let given = exchange.request_id.as_ref().and_then(|id| id.to_str().ok());
        let reason = exchange.reason.map(|reason| reason.label());
        let reason = reason.or_else(|| why(exchange.status, exchange.cut, end.cut));
        let matched = exchange.matched.as_deref();
        self.log.write(&Line {
            request_id: &access_log::request_id(given),
            client: exchange.client.address.ip(),
            entry_point: entry_of(exchange),
            version: exchange.version,
            tls: tls_version(exchange),
            method: &exchange.method,
            host: &exchange.host,
            path: exchange.target.path(),
            user_agent: agent,
            status: exchange.status,
            reason,
            route: matched.map(|route| (&*route.ingress, route.shown_host(), &*route.path)),
            service: exchange
                .backend
                .as_deref()
                .or(matched.map(|route| &*route.backend.name)),
            endpoint: exchange.endpoint,
            tries: u32::try_from(exchange.tries).unwrap_or(u32::MAX),
            answer_took: exchange.until_answer,
            took: Duration::from_micros(u64::try_from(end.took.as_micros()).unwrap_or(u64::MAX)),
            received: end.received,
            sent: end.sent,
            cut: end.cut,
        });
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
