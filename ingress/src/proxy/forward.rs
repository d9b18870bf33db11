//! From a route to an answer: one endpoint after another until one takes the request.

use super::exchange::Exchange;
use super::policy::Passage;
use super::{Proxy, headers};
use crate::balance::{Attempts, Backend, Lost, Onward, Outcome, Pick, Preference};
use crate::body::{Stage, Upload};
use crate::policy::{Policy, Protocol, RetryStatuses};
use crate::reason::Reason;
use crate::route::Route;
use crate::tls::backend::{self, Alpn};
use crate::upstream::{self, Destination, Failure, Over, Tls, Waits, copy};
use hyper::{Request, Response};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

impl Proxy {
    /// Returns the endpoint's answer, or why there is none. `request` is as endpoints shall see it, but for their protocol.
    pub(super) async fn forward(
        &self,
        mut request: Request<Upload>,
        route: &Route,
        passage: &Passage,
        exchange: &mut Exchange,
    ) -> Result<Response<upstream::Body>, Reason> {
        let policy = &route.policy;
        let backend = &passage.backend;
        let protocol = protocol(policy, backend);
        if matches!(protocol, Protocol::H2c | Protocol::H2) {
            headers::for_http2(&mut request, protocol).ok_or(Reason::BadRequest)?;
        }
        let waits = Waits::of(&policy.timeouts, &self.limits);
        let tries = policy.retries.tries.map_or(self.limits.tries, usize::from);
        let preference = match policy.upstream.service_address {
            true => Preference::Service,
            false => passage.preference(),
        };
        let repeatable = policy.retries.statuses != RetryStatuses::default() && request.method().is_idempotent();
        let mut attempts = match exchange.repeats {
            0 => Attempts::new(backend, preference, tries),
            // Counted when it was sent first.
            repeats => Attempts::resumed(backend, preference, tries, repeats),
        };
        // An answer that the policy wants another for; it stands when there is no other.
        let mut poor: Option<(_, Pick)> = None;
        loop {
            let pick = match (attempts.next(), poor.take()) {
                (Ok(pick), _) => pick,
                (Err(_), Some((answer, pick))) => {
                    exchange.endpoint = Some(pick.address());
                    exchange.pick = Some(pick);
                    return Ok(answer);
                }
                (Err(Lost::NoEndpoint), None) => return Err(Reason::NoEndpoint),
                (Err(Lost::Unreachable), None) => return Err(Reason::Unreachable),
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
            let interim = exchange.interim.as_deref();
            let over = if attempts.needs_new_connection() {
                Over::New
            } else {
                Over::Kept
            };
            match self.upstream.send(&to, request, &waits, over, interim).await {
                Ok(answer) => {
                    pick.report(Outcome::Answered);
                    let in_time = || policy.retries.within.is_none_or(|most| exchange.start.elapsed() < most);
                    if let Some(spare) = spare
                        && policy.retries.statuses.ask_for_another(answer.status())
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
                Err(failure) => request = self.after(failure, pick, &mut attempts)?,
            }
        }
    }

    /// Returns the request that another endpoint may have, or why none may.
    fn after(&self, failure: Failure, pick: Pick, attempts: &mut Attempts<'_>) -> Result<Request<Upload>, Reason> {
        match failure {
            Failure::Untouched(back) => {
                self.state.counters.failovers.fetch_add(1, Ordering::Relaxed);
                attempts.untouched(pick);
                Ok(*back)
            }
            Failure::Seen(back, onward) => match attempts.again(&pick, onward) {
                true => Ok(*back),
                false => Err(Reason::Broken),
            },
            Failure::Broken => {
                pick.report(Outcome::Broken);
                Err(Reason::Broken)
            }
            Failure::Late => {
                pick.report(Outcome::Late);
                Err(Reason::Late)
            }
            Failure::Request(Stage::Large) => Err(Reason::LargeBody),
            Failure::Request(Stage::Slow) => Err(Reason::SlowRequest),
            Failure::Request(Stage::Malformed) => Err(Reason::BadFraming),
            Failure::Request(_) => Err(Reason::BadRequest),
        }
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
    let name = backend::name(&policy.upstream, endpoint.ip()).ok_or(Reason::Unreachable)?;
    let config = backend::config(&policy.upstream, alpn);
    Ok(Some(Tls { config, name }))
}
