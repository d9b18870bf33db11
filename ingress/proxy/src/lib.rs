//! The data plane: serves requests, stage by stage.
//!
//! ```text
//! listen ── connection (protocol) ── answer ─┬─ target: host, method
//!                                            ├─ route in the newest snapshot
//!                                            ├─ headers::outgoing
//!                                            ├─ forward: endpoints, one after another
//!                                            └─ fields::incoming, Download ── Exchange is recorded
//! ```
//!
//! A request keeps the table that it began with. No lock is held while anything waits.
//!
//! It promises that every request gets one answer, that nothing waits for ever, and that what one client makes the process hold is bounded
//! ([`Limits`]). It takes routes as [`landfall_ingress_routing::CurrentTable`] has them, and must not know Kubernetes objects or where routes
//! come from.

#![forbid(unsafe_code)]

mod connection;
mod dns;
mod download;
mod exchange;
pub mod foresee;
mod forward;
#[cfg(test)]
mod fuzz;
mod headers;
mod http1;
mod http2;
mod interim;
mod limits;
mod listen;
mod observer;
mod policy;
mod proxy_header;
mod reader;
mod registry;
mod sniff;
mod stall;
mod stalls;
mod state;
mod target;
pub mod tls;
mod upgrade;

pub use dns::Resolver;
use download::{Download, DownloadError};
use exchange::Exchange;
use interim::Interim;
use landfall_ingress_http::fields;
pub use limits::Limits;
pub use listen::{serve, stopped};
pub use observer::Observer;
pub use policy::basic;
pub use registry::client_network;
pub use state::State;
use upgrade::AcceptedUpgrade;

use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use landfall_ingress_balance::Earlier;
use landfall_ingress_http::network::Network;
use landfall_ingress_http::path;
use landfall_ingress_http::path::EncodedMode;
use landfall_ingress_routing::policy::Policy;
use landfall_ingress_routing::{Route, RouteTable};
use landfall_ingress_telemetry::files;
use landfall_ingress_telemetry::reason::Reason;
use landfall_ingress_tls::Session;
use landfall_ingress_upstream::{self as upstream, Upload, UploadLimits, Upstream};
use registry::Registry;
use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;
use upgrade::UpgradeRequest;

/// Where redirects to https lead; in front of another port there is a Service or a firewall that maps it.
const HTTPS_PORT: u16 = 443;

/// Idle connections of clients that are closed for each shortage of open files. It is one more than are needed for the connection that
/// found none, and its own to an endpoint, many times over; shortages come in crowds.
const GIVEN_BACK: usize = 16;

/// What every connection shares.
pub struct Proxy {
    state: Arc<State>,
    upstream: Arc<Upstream>,
    limits: Limits,
    front: Front,
    names: Names,
    registry: Arc<Registry>,
    policies: policy::Policies,
}

/// What stands in front of this proxy.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Front {
    /// Networks of proxies in front, comma-separated: their X-Forwarded-* are believed, and their PROXY headers with --proxy-protocol.
    #[arg(long = "trusted-cidrs", value_delimiter = ',', value_parser = Network::argument)]
    pub trusted: Vec<Network>,
    /// Connections of trusted proxies may begin with a PROXY header, version 1 or 2.
    #[arg(long)]
    pub proxy_protocol: bool,
}

impl Front {
    /// Whether a peer is believed.
    fn trusts(&self, peer: SocketAddr) -> bool {
        let address = peer.ip().to_canonical();
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// What is known of a connection before its first request; of a request, when trusted proxies in front tell more.
#[derive(Debug, Clone)]
pub struct Client {
    /// The client's address, from the connection or as trusted proxies in front tell it; an unspecified one when they tell none that can
    /// be read. For policy and for others there is [`Client::known_address`] and [`Client::address_text`].
    pub address: SocketAddr,
    /// Port that the client asked, for X-Forwarded-Port.
    pub port: u16,
    /// TLS is spoken, here or in front.
    pub https: bool,
    /// What it says about others is believed.
    pub trusted: bool,
    /// Set on a connection with TLS.
    pub tls: Option<Arc<Session>>,
}

impl Client {
    /// A plain connection from a peer that is not trusted.
    pub fn new(address: SocketAddr, port: u16) -> Self {
        Self {
            address,
            port,
            https: false,
            trusted: false,
            tls: None,
        }
    }

    /// The client's address, an IPv4 address as such. `None` when it is not known: then it is not the front's either.
    pub fn known_address(&self) -> Option<IpAddr> {
        let address = self.address.ip().to_canonical();
        (!address.is_unspecified()).then_some(address)
    }

    /// The address for fields and texts; `unknown`, as RFC 7239 has it, when it is not known.
    pub fn address_text(&self) -> String {
        let address = self.known_address();
        address.map_or_else(|| "unknown".to_owned(), |address| address.to_string())
    }
}

impl Proxy {
    /// Starts without connections; [`serve`] brings them. Needs a runtime, for what tidies connections to endpoints.
    pub fn new(state: Arc<State>, limits: Limits, front: Front) -> Arc<Self> {
        let proxy = Arc::new(Self {
            upstream: Arc::new(Upstream::new(limits.of_upstream())),
            registry: Registry::new(&limits),
            policies: policy::Policies::new(&limits, HTTPS_PORT),
            state,
            limits,
            front,
            names: Names::default(),
        });
        tokio::spawn(tidy(Arc::downgrade(&proxy), proxy.limits.sweep));
        proxy
    }

    /// Says who is asked for names outside the cluster, which URLs of annotations may have; the first one counts.
    pub fn resolve_by(&self, resolver: Resolver) {
        self.policies.resolve_by(resolver);
    }

    /// The bounds that it keeps.
    pub fn bounds(&self) -> &Limits {
        &self.limits
    }

    /// Ends what nobody waits for: kept connections to endpoints, and the clients' connections that were idle longest.
    fn give_files_back(&self) {
        self.upstream.close_idle();
        self.registry.close_idle(GIVEN_BACK);
    }

    /// Answers a request, whatever becomes of it. Interim answers go to `interim` before; `earlier` says what became of
    /// it on the quick way.
    async fn answer(
        &self,
        request: Request<Upload>,
        client: &Arc<Client>,
        interim: Option<&Arc<Interim>>,
        earlier: Option<Earlier>,
    ) -> Response<Download> {
        let in_flight = self.state.counters.requests.one();
        let mut exchange = Exchange::start(&request, client, in_flight, &self.state.observer);
        exchange.interim = interim.cloned();
        exchange.earlier = earlier;
        let response = self.respond(request, client, &mut exchange).await;
        self.finish(response, exchange)
    }

    /// Finishes a request that went the quick way until an endpoint had it.
    fn resume(
        &self,
        response: Result<Response<upstream::Body>, Reason>,
        exchange: Box<Exchange>,
    ) -> Response<Download> {
        let route = exchange.matched.as_deref();
        let silence = route.and_then(|route| route.policy.timeouts.read);
        let silence = silence.unwrap_or(self.limits.silence);
        let response = response.map(|answer| fields::incoming(answer).map(|body| Download::endpoint(body, silence)));
        self.finish(response, exchange)
    }

    fn finish(&self, response: Result<Response<Download>, Reason>, mut exchange: Box<Exchange>) -> Response<Download> {
        let mut response = response.unwrap_or_else(|reason| self.refuse(reason, &mut exchange));
        // S25; and the end of the process is told to those who understand it.
        response.headers_mut().entry(header::SERVER).or_insert(OURS);
        let understood = exchange.version != Version::HTTP_2 && response.status() != StatusCode::SWITCHING_PROTOCOLS;
        if understood && self.state.lifecycle.leaving() {
            response.headers_mut().insert(header::CONNECTION, CLOSE);
        }
        self.recorded(response, exchange)
    }

    /// Answers what could not be read as a request.
    fn refused(&self, reason: Reason, client: &Arc<Client>) -> Response<Download> {
        let mut nothing = Request::new(());
        *nothing.method_mut() = Method::from_bytes(b"-").unwrap_or_default();
        *nothing.uri_mut() = Uri::from_static("*");
        let mut exchange = Exchange::start(
            &nothing,
            client,
            self.state.counters.requests.one(),
            &self.state.observer,
        );
        let mut response = self.refuse(reason, &mut exchange);
        response.headers_mut().insert(header::SERVER, OURS);
        self.recorded(response, exchange)
    }

    /// Counts an answer; its exchange is recorded with the body's end.
    fn recorded(&self, response: Response<Download>, mut exchange: Box<Exchange>) -> Response<Download> {
        self.state.counters.answered(response.status());
        exchange.answered(&response);
        response.map(|body| body.recorded(exchange))
    }

    /// The way of a request that makes sense. Stages that answer by themselves return early.
    async fn respond(
        &self,
        mut request: Request<Upload>,
        client: &Arc<Client>,
        exchange: &mut Exchange,
    ) -> Result<Response<Download>, Reason> {
        target::check(&request, &self.limits)?;
        exchange.host = target::host(&request)?;
        let snapshot = self.state.routes();
        let (route, routed) = find(&mut request, &exchange.host, &snapshot)?;
        exchange.found(route);

        exchange.hops = fields::hops(request.headers());
        let told = headers::origin(request.headers(), client, &self.front.trusted);
        if let Some(told) = told {
            exchange.client = Arc::new(told);
        }
        // Who asked, as far as it is known: what a route's policy goes by.
        let origin = Arc::clone(&exchange.client);

        policy::strip_claims(request.headers_mut(), client, route);
        let name = || HeaderValue::from_bytes(&self.names.next()).expect("hex digits are fit for a field");
        fields::settle(&mut request, name).ok_or(Reason::BadRequest)?;
        let view = policy::RequestView::new(route, &origin, &request, &exchange.host, routed.as_deref());
        let mut filter_state = match self.policies.before(&view, &snapshot).await {
            Ok(filter_state) => filter_state,
            Err(stop) => {
                self.count(stop.reason, exchange);
                return Ok(labelled(stop.response.map(Download::own), stop.reason));
            }
        };
        exchange.slot = filter_state.slot.take();
        let mut response = match self
            .carry(request, [client, &origin], route, &mut filter_state, exchange)
            .await
        {
            Ok(response) => {
                self.policies.stick(&mut filter_state, exchange.endpoint);
                response
            }
            Err(reason) => self.refuse(reason, exchange),
        };
        if let Some(page) = self.policies.error_page(&filter_state, route, response.status()).await {
            response = page.map(Download::own);
        }
        filter_state.apply_to_response(response.headers_mut());
        Ok(response)
    }

    /// The way of a request that its route's policy lets pass. `clients` are the one of the connection and the one who asked.
    async fn carry(
        &self,
        mut request: Request<Upload>,
        clients: [&Client; 2],
        route: &Route,
        filter_state: &mut policy::FilterState,
        exchange: &mut Exchange,
    ) -> Result<Response<Download>, Reason> {
        let [client, origin] = clients;
        self.bound_upload(&mut request, &route.policy)?;
        exchange.uploads(request.body().progress());
        let upgrade = UpgradeRequest::of(&request);
        let mut request = headers::outgoing(request, client, origin, exchange.hops).ok_or(Reason::BadRequest)?;
        exchange.request_id = request.headers().get(&fields::REQUEST_ID).cloned();
        if let Some(upgrade) = &upgrade {
            upgrade.apply(request.headers_mut());
        }
        filter_state.apply_to_request(&mut request);
        if let Some(copy) = filter_state.copy(&request) {
            request.body_mut().mirror(copy);
        }
        let response = self.forward(request, route, filter_state, exchange).await?;
        let silence = route.policy.timeouts.read.unwrap_or(self.limits.silence);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let agreed = upgrade.and_then(|upgrade| upgrade.agreed(response, silence));
            let (response, agreed) = agreed.ok_or(Reason::Broken)?;
            exchange.upgraded = true;
            return Ok(response.map(|()| Download::tunnel(agreed)));
        }
        Ok(fields::incoming(response).map(|body| Download::endpoint(body, silence)))
    }

    /// An answer of our own, counted.
    fn refuse(&self, reason: Reason, exchange: &mut Exchange) -> Response<Download> {
        self.count(reason, exchange);
        own(reason)
    }

    fn count(&self, reason: Reason, exchange: &mut Exchange) {
        exchange.reason = Some(reason);
        self.state.counters.own(reason);
    }

    /// Gives a request's body its bounds; refuses one that says itself that it is too large.
    fn bound_upload(&self, request: &mut Request<Upload>, policy: &Policy) -> Result<(), Reason> {
        // A stream of messages may be silent for long; it is bounded by silence alone, as answers are. So is what a route says itself.
        let bounded = policy.timeouts.client_body;
        let slow = bounded.is_some() || target::is_stream(request.headers());
        let limits = UploadLimits {
            bytes: policy.body_limit_bytes,
            silence: Some(bounded.unwrap_or(self.limits.silence)),
            grace: (!slow).then_some(self.limits.body_grace),
            rate: self.limits.body_rate,
        };
        if let Some(auth) = &policy.external_auth {
            request.body_mut().forbid(&auth.response_headers);
        }
        request.body_mut().bound(limits).then_some(()).ok_or(Reason::LargeBody)
    }
}

/// Finds the route of a request; then the request has the path that is forwarded. The second is the path that was routed, where the
/// request had another spelling.
fn find<'s, B>(
    request: &mut Request<B>,
    host: &str,
    snapshot: &'s RouteTable,
) -> Result<(&'s Arc<Route>, Option<String>), Reason> {
    let view = request.uri().path();
    let canonical = path::canonical(view).map_err(|_| Reason::BadRequest)?;
    let read = path::decoded(&canonical).map_err(|_| Reason::EncodedPath)?;
    let route = snapshot.find(host, &canonical).ok_or(Reason::NoRoute)?;
    if let Some(read) = read {
        if route.policy.encoded_paths == EncodedMode::Refuse {
            return Err(Reason::EncodedPath);
        }
        compare(Some(route), snapshot.find(host, &read))?;
    }
    let routed = match &canonical {
        Cow::Owned(path) => Some(path.clone()),
        Cow::Borrowed(_) => None,
    };
    let forwarded = path::forwarded(view, canonical, route.policy.paths).map_err(|_| Reason::BadRequest)?;
    if let Cow::Owned(path) = forwarded {
        *request.uri_mut() = path::replaced(request.uri(), &path).ok_or(Reason::BadRequest)?;
    }
    Ok((route, routed))
}

/// Refuses a path that servers behind may take for one of another route: what protects that one would be passed by.
fn compare(route: Option<&Arc<Route>>, decoded: Option<&Arc<Route>>) -> Result<(), Reason> {
    let other = decoded.filter(|other| route.is_none_or(|route| !Arc::ptr_eq(other, route)));
    let open = other.is_none_or(|other| other.policy.encoded_paths == EncodedMode::Allow);
    open.then_some(()).ok_or(Reason::EncodedPath)
}

/// Closes connections to endpoints that are not wanted any more, and idle ones of both sides when open files run out, as long as there is
/// the proxy.
async fn tidy(proxy: Weak<Proxy>, every: Duration) {
    let mut next = Instant::now() + every;
    loop {
        let short = tokio::time::timeout_at(next, files::shortage()).await.is_ok();
        let Some(proxy) = proxy.upgrade() else { return };
        if short {
            proxy.give_files_back();
        } else {
            next = Instant::now() + every;
            proxy.upstream.sweep(&proxy.state.routes().endpoints());
        }
    }
}

/// What `Server` says where an endpoint says nothing.
const OURS: HeaderValue = HeaderValue::from_static("landfall-ingress");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// An answer of our own; says in a field why.
fn own(reason: Reason) -> Response<Download> {
    let mut response = Response::new(Download::own(reason.text()));
    *response.status_mut() = reason.status();
    let fields = response.headers_mut();
    fields.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if reason == Reason::BadMethod {
        // RFC 9110, 15.5.6 wants it; others may be the endpoint's to take.
        fields.insert(
            header::ALLOW,
            HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"),
        );
    }
    if reason == Reason::UpgradeRequired {
        fields.insert(header::UPGRADE, HeaderValue::from_static("HTTP/2.0"));
    }
    labelled(response, reason)
}

/// Says in a field why an answer is ours.
fn labelled(mut response: Response<Download>, reason: Reason) -> Response<Download> {
    let label = HeaderValue::from_static(reason.label());
    response.headers_mut().insert(fields::REASON, label);
    response
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Makes names for requests: no two alike, and none that can be guessed from another.
#[derive(Default)]
struct Names {
    keys: (RandomState, RandomState),
    next: AtomicU64,
}

impl Names {
    fn next(&self) -> [u8; 32] {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let halves = [self.keys.0.hash_one(number), self.keys.1.hash_one(number)];
        std::array::from_fn(|i| HEX[(halves[i / 16] >> (60 - 4 * (i % 16))) as usize & 15])
    }
}

#[cfg(test)]
mod tests;
