//! What routes ask for beside their backend, done to each request before and after it is forwarded.
//!
//! Before, in this order ([`Stage::ALL`]), after the route was found by the canonical path. The first that has an answer gives it:
//!
//! | step | answer |
//! |---|---|
//! | a protecting annotation cannot be read | 503 |
//! | the client's address | 403 |
//! | redirects; never on an `Exact` route of an ACME challenge (S28) | 301 to 308 |
//! | rates and requests at once, per client and Ingress | 429 with `Retry-After` (ingress-nginx: 503 unless configured) |
//! | CORS preflight: browsers send it without credentials | 204, or 403 for an origin that is not allowed |
//! | client certificate | 400; 421 on a connection that was made for another host |
//! | user and password | 401; 503 when too many passwords are being checked |
//! | external authentication | 401, 403, 302 to the login page; 502 when nobody can say |
//! | canary, affinity, hash key, rewrite, mirror | 400 when a rewritten path is none |
//!
//! Each of these fails closed: what cannot be decided is not forwarded. What clients say in fields that only we may set is taken away
//! before the first step, and what we set is set after hop-by-hop fields are gone, so `Connection` cannot name it away.

mod affinity;
pub mod basic;
mod canary;
mod certificate;
mod cookies;
mod cors;
mod error_page;
mod external;
mod fetch;
mod filter_state;
mod foresee;
#[cfg(test)]
mod fuzz;
mod hash_by;
pub(crate) mod keyed;
mod limit;
pub(crate) mod mirror;
mod place;
mod redirect;
mod remembered;
mod request_view;
mod rewrite;
mod slots;
mod stage;

pub(super) use filter_state::FilterState;
pub use filter_state::Stop;
pub(super) use foresee::Foreseen;
pub use foresee::{Met, Outcome, Way};
pub(super) use limit::Slot;
pub(super) use request_view::RequestView;

use crate::dns::Resolver;
use crate::limits::Limits;
use crate::tls;
use crate::{Client, compare};
use basic::{Passwords, Verdict};
use certificate::{Certificates, Refused};
use external::Verdict as Answer;
use fetch::{Fetcher, Recipient};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Uri};
use keyed::Key;
use landfall_ingress_balance::Backend;
use landfall_ingress_http::claims;
use landfall_ingress_http::path;
use landfall_ingress_routing::policy::{Canary, ExternalAuth};
use landfall_ingress_routing::target::{Place, Target};
use landfall_ingress_routing::{Route, RouteTable};
use landfall_ingress_telemetry::reason::Reason;
use landfall_ingress_upstream::Destination;
use limit::Limiter;
use place::{addresses, destinations, filled};
pub use stage::Stage;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;

/// Known to every proxy of a cluster and to no client of its services.
const CLUSTER_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// What all requests share.
pub(super) struct Policies {
    limiter: Arc<Limiter>,
    passwords: Passwords,
    certificates: Certificates,
    fetcher: Arc<Fetcher>,
    mirrors: Arc<Semaphore>,
    /// Asks for names outside the cluster, when there is somebody to ask.
    resolver: OnceLock<Arc<Resolver>>,
    /// Of cookies that name endpoints.
    cluster: Key,
    lots: (RandomState, AtomicU64),
    https_port: u16,
    limits: Limits,
}

/// Fields by which clients prove who they are. Where a route's authentication sets one, the service still has to see the client's own;
/// it is taken away before the endpoint ([`FilterState::apply_to_request`]).
const CREDENTIALS: [HeaderName; 2] = [header::AUTHORIZATION, header::COOKIE];

/// Takes away what this client must not say on this route.
pub(super) fn strip_claims(headers: &mut HeaderMap, client: &Client, route: &Route) {
    let auth = route.policy.external_auth.iter();
    let results = auth.flat_map(|auth| &auth.response_headers);
    claims::strip(
        headers,
        client.trusted,
        results.filter(|name| !CREDENTIALS.contains(name)),
    );
}

impl Policies {
    pub(super) fn new(limits: &Limits, https_port: u16) -> Self {
        // Without random numbers TLS would not work either.
        let own = Key::random().expect("the kernel has random numbers");
        Self {
            limiter: Arc::new(Limiter::new(limits.limited_clients)),
            passwords: Passwords::new(own.clone(), limits),
            certificates: Certificates::new(own.clone(), limits),
            fetcher: Arc::new(Fetcher::new(limits)),
            mirrors: Arc::new(Semaphore::new(limits.mirrored_requests)),
            resolver: OnceLock::new(),
            cluster: std::fs::read(CLUSTER_CA).map_or(own, |ca| Key::of(&ca)),
            lots: (RandomState::new(), AtomicU64::new(0)),
            https_port,
            limits: limits.clone(),
        }
    }

    /// Says who is asked for names; the first one counts.
    pub(super) fn resolve_by(&self, resolver: Resolver) {
        let _ = self.resolver.set(Arc::new(resolver));
    }

    /// The addresses of a target that is a name; none of others.
    async fn found(&self, target: &Target) -> Arc<[IpAddr]> {
        match (&target.place, self.resolver.get()) {
            (Place::Name { host, .. }, Some(resolver)) => resolver.addresses(host).await,
            _ => Arc::from([]),
        }
    }

    /// All that comes before forwarding. Waits for passwords and for external authentication, within the limits.
    pub(super) async fn before(&self, view: &RequestView<'_>, snapshot: &RouteTable) -> Result<FilterState, Box<Stop>> {
        let mut filter_state = FilterState::new(view);
        match self.pass(view, snapshot, &mut filter_state).await {
            Ok(()) => Ok(filter_state),
            Err(mut stop) => {
                filter_state.apply_to_response(stop.response.headers_mut());
                Err(stop)
            }
        }
    }

    async fn pass(
        &self,
        view: &RequestView<'_>,
        snapshot: &RouteTable,
        filter_state: &mut FilterState,
    ) -> Result<(), Box<Stop>> {
        for stage in Stage::ALL {
            match stage {
                Stage::Limits => self.count(view, filter_state)?,
                Stage::Password => self.identify(view).await?,
                Stage::External => self.ask(view, snapshot, filter_state).await?,
                Stage::Choice => self.choose(view, filter_state, |canary| canary::by_lot(canary, self.lot())),
                Stage::Mirror => filter_state.mirror = self.mirror(view, snapshot),
                _ => self.decide(stage, view, snapshot, filter_state)?,
            }
        }
        Ok(())
    }

    /// The stages that wait for nothing and change nothing but the filter_state.
    fn decide(
        &self,
        stage: Stage,
        view: &RequestView<'_>,
        snapshot: &RouteTable,
        filter_state: &mut FilterState,
    ) -> Result<(), Box<Stop>> {
        let policy = &view.route.policy;
        match stage {
            Stage::Closed if policy.closed.is_some() => return Err(Stop::plain(Reason::Closed)),
            Stage::Source if !policy.sources.admits(view.client.known_address()) => {
                return Err(Stop::plain(Reason::Source));
            }
            Stage::Redirect => {
                if let Some((status, location)) = redirect::answer(view, self.https_port) {
                    return Err(Stop::redirect(status, &location));
                }
            }
            Stage::Connection => {
                let demand = policy.client_certificate.as_ref();
                if tls::client::misdirected(snapshot, view.host, demand, view.client.tls.as_deref()) {
                    return Err(Stop::plain(Reason::Misdirected));
                }
            }
            Stage::Preflight if policy.cors.is_some() && filter_state.is_preflight => {
                return Err(Stop::preflight(filter_state.origin.is_some()));
            }
            Stage::Certificate => {
                if let Some(wanted) = &policy.client_certificate {
                    let fields = self.certificates.check(wanted, view.client, view.host);
                    filter_state.fields.extend(fields.map_err(|refused| match refused {
                        Refused::Certificate => Stop::plain(Reason::Certificate),
                        Refused::Connection => Stop::plain(Reason::Misdirected),
                    })?);
                }
            }
            Stage::Rewrite => {
                if let Some(rewrite) = &policy.rewrite {
                    let uri = rewrite::rewritten(rewrite, view.route.pattern.as_ref(), view.path, view.query);
                    let uri = uri.and_then(|uri| one_reading(view.host, uri, snapshot));
                    filter_state.uri = Some(uri.map_err(Stop::plain)?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Counts the request for its client, who may be beyond the limits.
    fn count(&self, view: &RequestView<'_>, filter_state: &mut FilterState) -> Result<(), Box<Stop>> {
        let policy = &view.route.policy;
        if !unlimited(view) {
            filter_state.slot = self
                .limiter
                .admit(&policy.limits, &view.route.ingress, view.address())
                .map_err(|many| Stop::too_many(many.retry_after))?;
        }
        Ok(())
    }

    /// Checks user and password.
    async fn identify(&self, view: &RequestView<'_>) -> Result<(), Box<Stop>> {
        let Some(auth) = &view.route.policy.basic_auth else {
            return Ok(());
        };
        match self.passwords.check(auth, view.headers, view.client.address.ip()).await {
            Verdict::Known => Ok(()),
            Verdict::Unknown => Err(Stop::unauthorized([basic::challenge(&auth.realm)])),
            Verdict::Busy => Err(Stop::plain(Reason::AuthBusy)),
        }
    }

    /// Asks the authentication service.
    async fn ask(
        &self,
        view: &RequestView<'_>,
        snapshot: &RouteTable,
        filter_state: &mut FilterState,
    ) -> Result<(), Box<Stop>> {
        let Some(auth) = &view.route.policy.external_auth else {
            return Ok(());
        };
        if !basic::speaks_once(view.headers) {
            return Err(Stop::unauthorized([]));
        }
        let found = self.found(&auth.target).await;
        let answer = match question(auth, view, snapshot, &found, &filter_state.fields) {
            Some((recipient, question)) => {
                let most = self.limits.subrequest_bytes;
                self.fetcher.fetch(&recipient, &question, most).await
            }
            None => Err(fetch::FetchError::Unreachable),
        };
        match external::verdict(auth, view, answer) {
            Answer::Passes { fields, cookies } => {
                filter_state.fields.extend(fields);
                filter_state.cookies.extend(cookies);
                Ok(())
            }
            Answer::LogIn {
                location,
                challenges,
                cookies,
            } => {
                filter_state.cookies.extend(cookies);
                Err(match location {
                    Some(location) => Stop::redirect(hyper::StatusCode::FOUND, &location),
                    None => Stop::unauthorized(challenges),
                })
            }
            Answer::Forbidden => Err(Stop::plain(Reason::AuthForbids)),
            Answer::Broken => Err(Stop::plain(Reason::AuthBroken)),
        }
    }

    /// Backend and endpoint: a cookie that names an endpoint decides over the lot of a canary, not over its field or cookie. `draw` says
    /// for a canary that is left to chance whether the request goes there.
    fn choose(&self, view: &RequestView<'_>, filter_state: &mut FilterState, mut draw: impl FnMut(&Canary) -> bool) {
        let route = view.route;
        let policy = &route.policy;
        let stuck = |backend: &Arc<Backend>| {
            let affinity = policy.affinity.as_ref()?;
            let endpoints = backend.endpoints().addresses().into_iter();
            affinity::named(affinity, &self.cluster, &backend.name, endpoints, view.headers)
        };
        let at_home = stuck(&route.backend);
        for alternative in &route.alternatives {
            let there = stuck(&alternative.backend);
            let canary = &alternative.canary;
            let by_chance = || match (at_home, there) {
                (Some(_), _) => false,
                (None, Some(_)) => canary.weight > 0,
                (None, None) => draw(canary),
            };
            if canary::decided_by_rules(canary, view.headers).unwrap_or_else(by_chance) {
                filter_state.backend = Arc::clone(&alternative.backend);
                filter_state.endpoint = there;
                break;
            }
        }
        if Arc::ptr_eq(&filter_state.backend, &route.backend) {
            filter_state.endpoint = at_home;
        }
        if let Some(fallback) = route
            .fallback
            .as_ref()
            .filter(|_| filter_state.backend.endpoints().is_empty())
        {
            filter_state.backend = Arc::clone(fallback);
            filter_state.endpoint = None;
        }
        if let Some(by) = &policy.upstream.hash_by {
            filter_state.hash_key = hash_by::key(by, view);
        }
    }

    fn lot(&self) -> u64 {
        self.lots.0.hash_one(self.lots.1.fetch_add(1, Ordering::Relaxed))
    }

    /// The cookie for the endpoint that took the request, when the client is to have another than it sent.
    pub(super) fn stick(&self, filter_state: &mut FilterState, endpoint: Option<SocketAddr>) {
        let (Some(affinity), Some(endpoint)) = (&filter_state.policy.affinity, endpoint) else {
            return;
        };
        let moved = match filter_state.endpoint {
            None => true,
            // Its own endpoint failed this time only, unless the annotations say that it is given up.
            Some(own) => own != endpoint && affinity.change_on_failure,
        };
        if moved {
            let value = affinity::value(&self.cluster, &filter_state.backend.name, endpoint);
            let cookie = affinity::set_cookie(affinity, &value, &filter_state.cookie_path, filter_state.secure);
            filter_state.cookies.extend(cookie);
        }
    }

    /// A place for the copy of this request. None when it is not to be mirrored, or not now.
    fn mirror(&self, view: &RequestView<'_>, snapshot: &RouteTable) -> Option<Box<mirror::Copy>> {
        let mirror = view.route.policy.mirror.as_ref()?;
        let uri = filled(view, &mirror.place.path);
        // A name is looked up when the copy is sent: the request itself never waits for that.
        let (addresses, service) = addresses(&mirror.place, view.route.mirror.as_ref(), view, snapshot, &uri, &[])?;
        let name = match &mirror.place.place {
            Place::Name { host, port } => Some((Arc::clone(self.resolver.get()?), host.clone(), *port)),
            _ => None,
        };
        let slot = Arc::clone(&self.mirrors).try_acquire_owned().ok()?;
        let most = if mirror.body { self.limits.mirrored_bytes } else { 0 };
        let to = mirror::To {
            recipient: Recipient {
                destinations: destinations(addresses, None)?,
                service,
            },
            name,
            authority: mirror.place.authority.clone(),
            uri: uri.parse().ok()?,
        };
        Some(Box::new(mirror::Copy::new(to, most, Arc::clone(&self.fetcher), slot)))
    }

    /// What the cookie of an endpoint holds.
    #[cfg(test)]
    pub(super) fn cookie_value(&self, backend: &str, endpoint: SocketAddr) -> String {
        affinity::value(&self.cluster, backend, endpoint)
    }

    /// The answer of the route's other backend in place of one with a status that is to be replaced. None when there is none to be had:
    /// then the endpoint's own answer stands.
    pub(super) async fn error_page(
        &self,
        filter_state: &FilterState,
        route: &Route,
        status: hyper::StatusCode,
    ) -> Option<hyper::Response<hyper::body::Bytes>> {
        if !route.policy.replaced_statuses.contains(&status) {
            return None;
        }
        let fallback = route.fallback.as_ref()?;
        let question = error_page::question(filter_state, route, status)?;
        let candidates = fallback.candidates().take(self.limits.tries);
        let recipient = Recipient {
            destinations: candidates.map(Destination::plain).collect(),
            service: Some(Arc::clone(fallback)),
        };
        let most = self.limits.subrequest_bytes;
        let page = self.fetcher.fetch(&recipient, &question, most).await.ok()?;
        Some(error_page::answer(page))
    }
}

/// Whether the client is not counted.
fn unlimited(view: &RequestView<'_>) -> bool {
    let networks = &view.route.policy.unlimited;
    let address = view.client.known_address();
    address.is_some_and(|address| networks.iter().any(|network| network.contains(address)))
}

/// A rewritten path obeys the rule of paths that are asked: to a server that decodes it first it is none of another route.
fn one_reading(host: &str, uri: Uri, snapshot: &RouteTable) -> Result<Uri, Reason> {
    let read = path::decoded(uri.path()).map_err(|_| Reason::EncodedPath)?;
    if let Some(read) = read {
        compare(snapshot.find(host, uri.path()), snapshot.find(host, &read))?;
    }
    Ok(uri)
}

/// What the authentication service is asked, and where; `fields` are what was found out about the client before. None when it cannot be
/// asked.
fn question(
    auth: &ExternalAuth,
    view: &RequestView<'_>,
    snapshot: &RouteTable,
    found: &[IpAddr],
    fields: &[(HeaderName, HeaderValue)],
) -> Option<(Recipient, Request<Full<Bytes>>)> {
    let uri = filled(view, &auth.target.path);
    let authority = match auth.target.authority.as_str() {
        "" => view.authority,
        own => own,
    };
    let (addresses, service) = addresses(&auth.target, view.route.auth.as_ref(), view, snapshot, &uri, found)?;
    let recipient = Recipient {
        destinations: destinations(addresses, auth.tls.as_ref())?,
        service,
    };
    let mut question = external::question(auth, view, authority, &uri)?;
    set_all(question.headers_mut(), fields);
    Some((recipient, question))
}

/// Sets fields, replacing what is there; several of one name stay several.
fn set_all(headers: &mut HeaderMap, fields: &[(HeaderName, HeaderValue)]) {
    for (name, _) in fields {
        headers.remove(name);
    }
    for (name, value) in fields {
        headers.append(name, value.clone());
    }
}
