//! From a route to an answer: one endpoint after another until one takes the request.

use super::Proxy;
use super::exchange::Exchange;
use super::policy::FilterState;
use crate::limits::Limits;
use hyper::{Request, Response};
use landfall_ingress_balance::{Attempts, Backend, Lost, Onward, Outcome, Pick, Preference};
use landfall_ingress_http::fields;
use landfall_ingress_http::protocol::Protocol;
use landfall_ingress_routing::Route;
use landfall_ingress_routing::policy::{Policy, RetryOn, Timeouts};
use landfall_ingress_telemetry::reason::Reason;
use landfall_ingress_tls::client::{self, Alpn};
use landfall_ingress_upstream::{
    self as upstream, Destination, Failure, OnInformational, Over, Stage, Tls, Upload, Waits, copy,
};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

/// The bounds of what a route says, else of the limits.
#[inline]
pub(super) fn waits(timeouts: &Timeouts, limits: &Limits) -> Waits {
    Waits {
        connect: timeouts.connect.unwrap_or(limits.connect),
        answer: timeouts.read.unwrap_or(limits.answer),
        send: timeouts.send.unwrap_or(limits.send),
    }
}

impl Proxy {
    /// Returns the endpoint's answer, or why there is none. `request` is as endpoints shall see it, but for their protocol.
    pub(super) async fn forward(
        &self,
        mut request: Request<Upload>,
        route: &Route,
        filter_state: &FilterState,
        exchange: &mut Exchange,
    ) -> Result<Response<upstream::Body>, Reason> {
        let policy = &route.policy;
        let backend = &filter_state.backend;
        let protocol = protocol(policy, backend);
        if matches!(protocol, Protocol::H2c | Protocol::H2) {
            fields::for_http2(&mut request, protocol).ok_or(Reason::BadRequest)?;
        } else {
            fields::for_http1(&mut request);
        }
        let waits = waits(&policy.timeouts, &self.limits);
        let tries = policy.retries.tries.map_or(self.limits.tries, usize::from);
        let preference = match policy.upstream.service_address {
            true => Preference::Service,
            false => filter_state.preference(),
        };
        let retry_on = policy.retries.on;
        let repeatable = retry_on != RetryOn::default() && request.method().is_idempotent();
        let mut attempts = match exchange.earlier {
            None => Attempts::new(backend, preference, tries),
            Some(earlier) => Attempts::resumed(backend, preference, tries, earlier),
        };
        // An answer that the policy wants another for; it stands when there is no other.
        let mut poor: Option<(_, Pick)> = None;
        // The same of a failure.
        let mut failed = None;
        loop {
            let pick = match (attempts.next(), poor.take()) {
                (Ok(pick), _) => pick,
                (Err(_), Some((answer, pick))) => {
                    exchange.endpoint = Some(pick.address());
                    exchange.pick = Some(pick);
                    return Ok(answer);
                }
                (Err(lost), None) => {
                    return Err(match lost {
                        Lost::NoEndpoint => Reason::NoEndpoint,
                        Lost::Unreachable => failed.unwrap_or(Reason::Unreachable),
                    });
                }
            };
            let address = pick.address();
            exchange.endpoint = Some(address);
            exchange.tries += 1;
            let to = Destination {
                address,
                protocol,
                tls: tls(policy, protocol, address)?,
            };
            let spare = repeatable.then(|| copy(&request)).flatten();
            let interim = exchange
                .interim
                .as_deref()
                .map(|interim| interim as &dyn OnInformational);
            let over = if attempts.needs_new_connection() {
                Over::New
            } else {
                Over::Kept
            };
            let sent = self.upstream.send(&to, request, &waits, over, interim).await;
            let in_time = || policy.retries.within.is_none_or(|most| exchange.start.elapsed() < most);
            match sent {
                Ok(answer) => {
                    pick.report(Outcome::Answered);
                    if let Some(spare) = spare
                        && retry_on.ask_for_another(answer.status())
                        && in_time()
                        && attempts.again(&pick, Onward::Other)
                    {
                        request = spare;
                        poor = Some((answer, pick));
                        continue;
                    }
                    // The endpoint is busy until the answer's last byte.
                    exchange.pick = Some(pick);
                    return Ok(answer);
                }
                Err(failure) => {
                    let spare = spare.filter(|_| wants(retry_on, &failure) && in_time());
                    (request, failed) = self.after(failure, pick, &mut attempts, spare)?;
                }
            }
        }
    }

    /// Returns the request that another endpoint may have, with what to say when there is none, or why none may. `spare` is the request
    /// once more where the policy wants it sent again.
    fn after(
        &self,
        failure: Failure,
        pick: Pick,
        attempts: &mut Attempts<'_>,
        spare: Option<Request<Upload>>,
    ) -> Result<(Request<Upload>, Option<Reason>), Reason> {
        let (outcome, reason) = match failure {
            Failure::Untouched(back) => {
                self.state.counters.failovers.fetch_add(1, Ordering::Relaxed);
                attempts.untouched(pick);
                return Ok((*back, None));
            }
            Failure::Seen(back, onward) => {
                // A kept connection may end at any time. One that ends with its first request, and a stream that is refused, are the
                // endpoint's own doing: it would go on to be asked unless that is counted.
                let own = onward == Onward::Rather || attempts.needs_new_connection();
                if own {
                    pick.report(Outcome::Broken);
                }
                let onward = if own { Onward::Rather } else { onward };
                return match attempts.again(&pick, onward) {
                    true => Ok((*back, None)),
                    false => Err(Reason::Broken),
                };
            }
            Failure::Broken => (Outcome::Broken, Reason::Broken),
            Failure::Late => (Outcome::Late, Reason::Late),
            Failure::Request(Stage::Large) => return Err(Reason::LargeBody),
            Failure::Request(Stage::Slow) => return Err(Reason::SlowRequest),
            Failure::Request(Stage::Malformed) => return Err(Reason::BadFraming),
            Failure::Request(_) => return Err(Reason::BadRequest),
        };
        pick.report(outcome);
        let again = spare.filter(|_| attempts.again(&pick, Onward::Other));
        again.map(|request| (request, Some(reason))).ok_or(reason)
    }
}

/// Whether a failure is worth another try.
fn wants(on: RetryOn, failure: &Failure) -> bool {
    match failure {
        Failure::Broken => on.broken,
        Failure::Late => on.late,
        _ => false,
    }
}

/// How endpoints are spoken to: as the annotations say, else as the Service's port does.
pub(super) fn protocol(policy: &Policy, backend: &Backend) -> Protocol {
    let wanted = policy.upstream.protocol.or(backend.endpoints().protocol);
    wanted.unwrap_or(Protocol::Http1)
}

/// How TLS is spoken with an endpoint, where the protocol has it. A name that is none leads nowhere.
fn tls(policy: &Policy, protocol: Protocol, endpoint: SocketAddr) -> Result<Option<Tls>, Reason> {
    let alpn = match protocol {
        Protocol::Http1 | Protocol::H2c => return Ok(None),
        Protocol::Https => Alpn::Http1,
        Protocol::H2 => Alpn::Http2,
    };
    let name = client::name(&policy.upstream.tls, endpoint.ip()).ok_or(Reason::Unreachable)?;
    let config = client::config(&policy.upstream.tls, alpn);
    Ok(Some(Tls { config, name }))
}
