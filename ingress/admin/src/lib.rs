//! The dashboard's port: health, metrics, the page and its JSON API. Read-only, and nothing secret in it.
//!
//! Every request but `/healthz` and `/readyz` names a host that is this proxy's own ([`guard`]), so that no page of another site can
//! read it through a name of that site. The dashboard asks for a password ([`auth`]); `/metrics` asks those who are neither a node nor a
//! Pod ([`sources`]); health asks nobody.
//!
//! It promises that nothing is changed by reading, and that what it costs is bounded. It must not be needed by requests: no other crate sees it.

#![forbid(unsafe_code)]

mod api;
mod auth;
mod explain;
mod fleet;
mod guard;
mod health;
mod places;
mod report;
mod sources;

pub use auth::Protection;
use auth::{Access, Admission};
use fleet::Fleet;
use guard::Names;
use health::{Health, Rounds, Summary};
use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use landfall_ingress_http::network::Network;
use landfall_ingress_kubernetes as kubernetes;
use landfall_ingress_listen::Listener;
use landfall_ingress_proxy::Proxy;
use landfall_ingress_proxy::State;
use landfall_ingress_proxy::tls;
use landfall_ingress_telemetry::files;
use landfall_ingress_telemetry::metrics::{Text, label};
use places::Places;
use sources::Sources;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Longest wait for the head of a request. Kubernetes' probes and Prometheus send theirs at once.
const REQUEST_HEAD: Duration = Duration::from_secs(10);
/// Longest life of a connection, so that readers that stopped reading hold nothing for ever.
const CONNECTION: Duration = Duration::from_secs(300);
/// Certificates with a series of their own: those that end first.
const MOST_CERTIFICATES: usize = 100;
/// Pause after accept fails.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Only files of this port, no script or style within the page, no frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// Everything that is served on the port.
pub struct Site {
    state: Arc<State>,
    /// What is known of the cluster.
    known: Arc<kubernetes::State>,
    started: Instant,
    node: String,
    /// Host of the dashboard.
    host: String,
    names: Names,
    /// There is a dashboard.
    shown: bool,
    access: Access,
    sources: Sources,
    node_address: Option<IpAddr>,
    strict_sni: bool,
    proxy: Arc<Proxy>,
    rounds: Rounds,
    /// Lines of lists that became JSON.
    lines: AtomicU64,
    /// The other proxies.
    pub fleet: Fleet,
}

/// What the dashboard is told of its place.
#[derive(Debug, Default)]
pub struct Config {
    /// There is a dashboard.
    pub shown: bool,
    /// How it is protected.
    pub protection: Protection,
    /// Who may read it: a htpasswd file, or the directory of a mounted Secret.
    pub password_file: Option<PathBuf>,
    /// Its host.
    pub host: String,
    /// Further hosts under which it answers.
    pub further_hosts: Vec<String>,
    /// Name of the node.
    pub node: String,
    /// Address of the node.
    pub node_address: Option<IpAddr>,
    /// Namespace of this pod.
    pub namespace: String,
    /// Where the dashboards of all proxies listen.
    pub port: u16,
    /// Networks of the cluster's Pods, Services and nodes.
    pub cluster: Vec<Network>,
    /// As `--strict-sni` says.
    pub strict_sni: bool,
}

/// Who reads.
#[derive(Debug, Clone, Copy)]
struct Asker {
    peer: SocketAddr,
    /// The address that was connected to.
    local: Option<IpAddr>,
}

impl Site {
    /// Reads the password file, if one is named. An error when the machine has no random numbers.
    pub fn new(
        config: Config,
        state: Arc<State>,
        known: Arc<kubernetes::State>,
        proxy: Arc<Proxy>,
    ) -> Result<Self, String> {
        Ok(Self {
            names: Names::new(&config),
            shown: config.shown,
            access: Access::new(config.protection, config.password_file.as_deref())?,
            sources: Sources::new(&config.cluster, config.node_address),
            node_address: config.node_address,
            strict_sni: config.strict_sni,
            proxy,
            rounds: Rounds::default(),
            lines: AtomicU64::default(),
            fleet: Fleet::new(&config.namespace, config.port),
            state,
            known,
            started: Instant::now(),
            node: config.node,
            host: config.host,
        })
    }
}

/// Serves for ever, also when the listener is closed at the end: open connections are still answered.
pub async fn serve(mut listener: Listener, site: Arc<Site>) {
    let places = Arc::new(Places::default());
    site.fleet.port(listener.address().port());
    loop {
        let (stream, peer) = match listener.accept().await {
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) => {
                files::ran_out(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
            None => return std::future::pending().await,
        };
        let site = Arc::clone(&site);
        let asker = Asker {
            peer,
            local: stream.local_addr().ok().map(|address| address.ip()),
        };
        let Some(place) = places.enter(peer.ip()) else { continue };
        let service = service_fn(move |request| {
            let site = Arc::clone(&site);
            async move { Ok::<_, Infallible>(site.answer(&request, asker).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // An error here is the client's.
            drop(timeout(CONNECTION, connection).await);
            drop(place);
        });
    }
}

impl Site {
    async fn answer<B: Body>(&self, request: &Request<B>, asker: Asker) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "405: only GET and HEAD\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(header::ALLOW, allowed);
            return response;
        }
        let path = request.uri().path();
        match path {
            "/healthz" => return text(StatusCode::OK, "ok\n"),
            "/readyz" if self.state.lifecycle.ready() => return text(StatusCode::OK, "ok\n"),
            "/readyz" => return text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            _ => {}
        }
        if !self.names.admits(request, asker.local, &self.fleet) {
            let why = "421: the dashboard does not answer to this host; see --dashboard-allow-host\n";
            return text(StatusCode::MISDIRECTED_REQUEST, why);
        }
        if path == "/metrics" {
            if !self.access.is_open()
                && !self.sources.admit(request, asker, &self.fleet).await
                && let Err(response) = self
                    .admitted(
                        request,
                        asker,
                        "metrics are for nodes and Pods, and for who has the password",
                    )
                    .await
            {
                return response;
            }
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            return respond(StatusCode::OK, kind, self.metrics());
        }
        if !self.shown {
            return text(StatusCode::NOT_FOUND, "404: this proxy shows no dashboard\n");
        }
        let closed = "the dashboard is closed: it has no password (--dashboard-auth-file, or --dashboard-auth=none)";
        if let Err(response) = self.admitted(request, asker, closed).await {
            return response;
        }
        if let Some(name) = path.strip_prefix("/api/v1/") {
            return self.api(name, request, asker).await;
        }
        let file = |kind, text: &'static str| respond(StatusCode::OK, kind, text.to_owned());
        match path {
            "/" => file("text/html; charset=utf-8", include_str!("page.html")),
            "/page.css" => file("text/css; charset=utf-8", include_str!("page.css")),
            "/page.js" => file("text/javascript; charset=utf-8", include_str!("page.js")),
            "/graphs.js" => file("text/javascript; charset=utf-8", include_str!("graphs.js")),
            "/explain.js" => file("text/javascript; charset=utf-8", include_str!("explain.js")),
            "/icon.svg" => file("image/svg+xml", include_str!("icon.svg")),
            "/status.json" => respond(StatusCode::OK, "application/json", self.report()),
            _ => text(StatusCode::NOT_FOUND, "404: not here\n"),
        }
    }

    /// Asks for the password. `closed` is said when there is none that could be right.
    async fn admitted<B>(&self, request: &Request<B>, asker: Asker, closed: &str) -> Result<(), Response<Full<Bytes>>> {
        match self.access.admits(request.headers(), asker.peer.ip()).await {
            Admission::Granted => Ok(()),
            Admission::Closed => Err(text(StatusCode::NOT_FOUND, &format!("404: {closed}\n"))),
            Admission::Refused => {
                let why = "401: user and password of the landfall ingress dashboard are needed; `landfall dashboard` prints them\n";
                let mut response = text(StatusCode::UNAUTHORIZED, why);
                let fields = response.headers_mut();
                fields.insert(header::WWW_AUTHENTICATE, Access::challenge());
                Err(response)
            }
        }
    }

    fn metrics(&self) -> String {
        let state = &self.state;
        let snapshot = self.known.snapshot();
        let summary = self.rounds.summary(&snapshot);
        let mut text = Text::default();
        state.counters.render(
            &mut text,
            &[
                (
                    "ready",
                    "Whether requests are wanted here.",
                    u64::from(state.lifecycle.ready()),
                ),
                (
                    "leader",
                    "Whether this proxy writes status.",
                    u64::from(self.known.leading()),
                ),
                (
                    "handed_over",
                    "Whether another process of this node takes connections.",
                    u64::from(state.lifecycle.handed_over()),
                ),
                ("routes", "Routes in the table.", count(snapshot.table.route_count())),
                ("ingresses", "Ingresses that are served.", count(snapshot.ours_count())),
                (
                    "remarks",
                    "Objects that lost or could not be used.",
                    count(summary.remarks.iter().sum()),
                ),
                (
                    "uptime_seconds",
                    "Time since the start.",
                    self.started.elapsed().as_secs(),
                ),
            ],
        );
        self.limits(&mut text);
        let dropped = [(String::new(), state.observer.log.dropped())];
        let help = "Lines of the access log that found its queue full.";
        text.series("access_log_dropped_total", "counter", help, dropped);
        self.work(&mut text);
        states(&mut text, &summary);
        let ends = tls::earliest(&snapshot.table, MOST_CERTIFICATES).into_iter();
        let ends = ends.map(|(secret, end)| (format!("{{secret=\"{}\"}}", label(&secret)), end));
        let help = "End of the certificates that end first, in seconds since 1970.";
        text.series("tls_certificate_not_after_seconds", "gauge", help, ends);
        state.observer.traffic.render(&mut text);
        text.finish()
    }

    /// What looking at the dashboard costs, in counts: a figure in seconds would depend on the machine.
    fn work(&self, text: &mut Text) {
        let help = "Looks through the whole table for the dashboard and metrics, one in a second at most.";
        let rounds = [(String::new(), self.rounds.made())];
        text.series("dashboard_rounds_total", "counter", help, rounds);
        let help = "Lines of lists of the dashboard that became JSON.";
        let lines = [(String::new(), self.lines.load(Ordering::Relaxed))];
        text.series("dashboard_lines_total", "counter", help, lines);
    }

    /// How much there may be at once.
    fn limits(&self, text: &mut Text) {
        let bounds = self.proxy.bounds();
        for (name, help, value) in [
            (
                "open_files_limit",
                "Files that this process may have open.",
                files::limit(),
            ),
            (
                "connections_limit",
                "Connections that clients may have at once; idle ones give way for new ones.",
                count(bounds.connections),
            ),
            (
                "connections_per_address_limit",
                "The same for one address, or one IPv6 /64.",
                count(bounds.connections_per_address),
            ),
        ] {
            text.series(name, "gauge", help, [(String::new(), value)]);
        }
        let help = "Times that no file was left for a connection.";
        text.series(
            "open_files_shortages_total",
            "counter",
            help,
            [(String::new(), files::shortages())],
        );
    }
}

/// How routes, Services and endpoints are.
fn states(text: &mut Text, summary: &Summary) {
    let by_health = |counts: [usize; Health::ALL.len()]| {
        let of = |(health, count): (Health, usize)| (format!("{{state=\"{}\"}}", health.label()), count);
        Health::ALL.into_iter().zip(counts).map(of).collect::<Vec<_>>()
    };
    let help = "Routes by how they are.";
    text.series("route_states", "gauge", help, by_health(summary.routes));
    let help = "Services' ports that routes lead to, by how they are.";
    text.series("service_states", "gauge", help, by_health(summary.services));
    let endpoints = &summary.endpoints;
    let states = [
        ("ready", endpoints.ready),
        ("ejected", endpoints.ejected),
        ("draining", endpoints.draining),
    ];
    let states = states.map(|(state, count)| (format!("{{state=\"{state}\"}}"), count));
    let help = "Endpoints that routes lead to, by how they are.";
    text.series("endpoint_states", "gauge", help, states);
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body.to_owned())
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let fields = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
