//! The order of one life: who was here before, the lists, the listeners, serving, the end.

use crate::args::{Serve, Stopping};
use crate::probe;
use landfall_ingress_admin as admin;
use landfall_ingress_kubernetes::{self as kubernetes, status, watch};
use landfall_ingress_listen::handover::{self, Link, Offer, Predecessor, RestartSocket};
use landfall_ingress_listen::{Lifecycle, Listener, Listeners, Reserved};
use landfall_ingress_proxy::tls::Acceptor;
use landfall_ingress_proxy::{self as proxy, Limits, Observer, Proxy, Resolver, State};
use landfall_ingress_telemetry::access_log::AccessLog;
use landfall_ingress_telemetry::traffic::{EntryPoint, Traffic, series};
use landfall_ingress_telemetry::{files, log};
use landfall_ingress_translate::options::Options;
use landfall_ingress_translate::route::LastGood;
use landfall_ingress_translate::services::Locality;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, timeout};

/// What ends a process on purpose.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, String> {
        let of = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
        Ok(Self {
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until a signal, or until a part that never ends does end.
pub async fn run(args: Serve) -> Result<(), String> {
    let publish = status::Publish::parse(&args.publish_address)?;
    let followed = followed(&args);
    let mut signals = Signals::new()?;
    let (state, known, proxy) = prepare(&args);
    let site = admin::Site::new(args.admin(), Arc::clone(&state), Arc::clone(&known), Arc::clone(&proxy))?;
    let site = Arc::new(site);
    // Parts that never end. Half a proxy is worse than none: the kubelet starts a whole one.
    let mut parts = JoinSet::new();
    if let Some(socket) = &args.probe_socket {
        parts.spawn(answer_kubelet(probe::listen(socket)?, Arc::clone(&state.lifecycle)));
    }
    let restart_socket = args.handover.config().map(RestartSocket::prepare).transpose()?;
    let predecessor = greet(restart_socket.as_ref()).await;
    let addresses = [args.http_address, args.https_address, args.admin_address];
    let mut entrances = Entrances::new(addresses, predecessor.as_ref())?;
    let listeners = Arc::new(Listeners::default());
    let listening = entrances.text();
    // Whoever asks why this proxy is not ready wants an answer before the table is there.
    if let Some(admin) = entrances.own_admin() {
        parts.spawn(serve_admin(admin.open(&mut None, &listeners)?, Arc::clone(&site)));
    }
    if predecessor.is_none() {
        log(&listening);
    }

    parts.spawn(sample(Arc::clone(&state)));
    let acceptor = Arc::new(Acceptor::new(Arc::clone(&state), &args.tls)?);
    let client = kubernetes::client().await?;
    site.fleet.connect(client.clone());
    let (stop, stopping) = channel(false);
    let kept = inherited(predecessor.as_ref());
    parts.spawn(follow(client.clone(), followed, kept, Arc::clone(&known)));
    let (pod, namespace) = (args.pod_name, args.pod_namespace);
    let leading = lead(client, pod, namespace, publish, &known, &state.lifecycle, &stopping);

    tokio::select! {
        // Nothing was served, so there is nothing to drain.
        () = signals.any() => return Ok(()),
        ended = parts.join_next() => return Err(reason(ended)),
        () = known.built() => {}
    }
    let mut offer = take(restart_socket.as_ref(), predecessor.as_ref()).await;
    let open = entrances.open(&mut offer, &listeners)?;
    open.tell(&state.observer.traffic);
    let listening = open.text(args.admin_address);
    if let Some(listener) = open.admin {
        parts.spawn(serve_admin(listener, site));
    }
    let mut requests = serve_requests(proxy, open.http, open.https, acceptor, stopping);
    let link = confirm(offer).await;
    state.lifecycle.open();
    if predecessor.is_some() {
        log(&listening);
    }
    if let Some(restart_socket) = restart_socket {
        parts.spawn(hand_over(
            restart_socket,
            Arc::clone(&listeners),
            Arc::clone(&state),
            known,
        ));
    }

    tokio::select! {
        () = signals.any() => {}
        ended = parts.join_next() => return Err(reason(ended)),
        _ = &mut requests => return Err("requests are no longer served".to_owned()),
    }
    let drained = drain(&state, &listeners, &stop, requests, leading, &args.stopping);
    tokio::select! {
        () = drained => {}
        _ = signals.interrupt.recv() => log("interrupted again: leaving now"),
    }
    parts.abort_all();
    drop(link);
    Ok(())
}

/// What is followed of the API, and how it is read.
struct Followed {
    routing: Options,
    tls: watch::Tls,
    here: Locality,
}

fn followed(args: &Serve) -> Followed {
    Followed {
        routing: guarded(&args.routing),
        tls: watch::Tls {
            secrets: args.secrets,
            default_certificate: args.default_certificate.clone(),
        },
        here: Locality {
            node: args.node_name.clone(),
            zone: args.node_zone.clone(),
        },
    }
}

/// The flags of routing, with the API server's address as one that annotations may not name.
fn guarded(routing: &Options) -> Options {
    let api_server = std::env::var("KUBERNETES_SERVICE_HOST").ok();
    routing.clone().guarding(api_server.as_deref())
}

/// State of the data plane and of the API's side, and the proxy, with limits by the files that may be open.
fn prepare(args: &Serve) -> (Arc<State>, Arc<kubernetes::State>, Arc<Proxy>) {
    let access_log = AccessLog::start(args.access_log, std::io::stdout());
    let observer = Observer::new(args.metrics_routes, access_log);
    let state = Arc::new(State {
        observer: Arc::new(observer),
        ..State::default()
    });
    let files = files::raise_limit();
    let limits = Limits {
        idle: Duration::from_secs(args.idle_seconds),
        ..Limits::default().within(files)
    };
    log(&format!(
        "limits open_files={files} connections={} connections_per_address={}",
        limits.connections, limits.connections_per_address
    ));
    let proxy = Proxy::new(Arc::clone(&state), limits, args.front.clone());
    if let Some(server) = args.routing.dns {
        let options = guarded(&args.routing);
        proxy.resolve_by(Resolver::new(
            server,
            Box::new(move |address| options.admits(address).is_ok()),
        ));
    }
    let known = kubernetes::State::new(Arc::clone(&state.table), Arc::clone(&state.counters));
    (state, Arc::new(known), proxy)
}

async fn answer_kubelet(listener: UnixListener, lifecycle: Arc<Lifecycle>) -> &'static str {
    probe::serve(listener, lifecycle).await;
    "the kubelet's questions are no longer answered"
}

/// Keeps what the dashboard's graphs show.
async fn sample(state: Arc<State>) -> &'static str {
    let mut ticks = tokio::time::interval(series::PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let connections = state.counters.connections.value();
        state.observer.traffic.sample(connections);
    }
}

async fn follow(
    client: kube::Client,
    followed: Followed,
    kept: LastGood,
    known: Arc<kubernetes::State>,
) -> &'static str {
    let Followed { routing, tls, here } = followed;
    watch::follow(client, routing, tls, kept, here, known).await;
    "the API is no longer followed"
}

/// Writes status while this proxy is the leader. Outside a cluster there is no pod, so no one whose address could be written.
fn lead(
    client: kube::Client,
    pod: String,
    namespace: String,
    publish: status::Publish,
    known: &Arc<kubernetes::State>,
    lifecycle: &Arc<Lifecycle>,
    stopping: &Receiver<bool>,
) -> Option<JoinHandle<()>> {
    if pod.is_empty() {
        return None;
    }
    let place = status::Place { pod, namespace };
    let (known, lifecycle, mut stopping) = (Arc::clone(known), Arc::clone(lifecycle), stopping.clone());
    Some(tokio::spawn(async move {
        let stop = proxy::stopped(&mut stopping);
        status::lead(client, place, publish, known, || lifecycle.ready(), stop).await;
    }))
}

/// The process that is here already, if it hands over.
async fn greet(restart_socket: Option<&RestartSocket>) -> Option<Predecessor> {
    Predecessor::greet(restart_socket?).await
}

/// Its listeners.
async fn take(restart_socket: Option<&RestartSocket>, predecessor: Option<&Predecessor>) -> Option<Offer> {
    predecessor?.take(restart_socket?).await
}

/// Tells it that this process serves.
async fn confirm(offer: Option<Offer>) -> Option<Link> {
    Some(offer?.confirm().await)
}

async fn hand_over(
    restart_socket: RestartSocket,
    listeners: Arc<Listeners>,
    state: Arc<State>,
    known: Arc<kubernetes::State>,
) -> &'static str {
    let lifecycle = Arc::clone(&state.lifecycle);
    handover::serve(restart_socket, listeners, lifecycle, move || known.last_good()).await;
    "nobody could take over"
}

/// Takes connections until `stopping`. The task ends when all are served.
fn serve_requests(
    proxy: Arc<Proxy>,
    http: Listener,
    https: Listener,
    acceptor: Arc<Acceptor>,
    stopping: Receiver<bool>,
) -> JoinHandle<()> {
    let plain = proxy::serve(Arc::clone(&proxy), http, None, stopping.clone());
    let tls = proxy::serve(proxy, https, Some(acceptor), stopping);
    tokio::spawn(async {
        tokio::join!(plain, tls);
    })
}

/// What the process before kept. One that cannot be read is left: what it held is bad by its newest version, which has its own remark.
fn inherited(predecessor: Option<&Predecessor>) -> LastGood {
    let Some(predecessor) = predecessor else {
        return LastGood::default();
    };
    serde_json::from_slice(&predecessor.state).unwrap_or_else(|error| {
        log(&format!(
            "hand-over: the last good versions of objects cannot be read: {error}"
        ));
        LastGood::default()
    })
}

/// The listeners to be.
struct Entrances {
    http: Entrance,
    https: Entrance,
    /// Gone once it is open.
    admin: Option<Entrance>,
}

/// Listeners that are open; `admin` when it was not before.
struct Open {
    http: Listener,
    https: Listener,
    admin: Option<Listener>,
}

impl Entrances {
    fn new([http, https, admin]: [SocketAddr; 3], predecessor: Option<&Predecessor>) -> Result<Self, String> {
        Ok(Self {
            http: Entrance::new("http", http, predecessor)?,
            https: Entrance::new("https", https, predecessor)?,
            admin: Some(Entrance::new("admin", admin, predecessor)?),
        })
    }

    fn text(&self) -> String {
        let admin = self.admin.as_ref().map_or(0, Entrance::port);
        let (http, https) = (self.http.port(), self.https.port());
        format!("listening http={http} https={https} admin={admin}")
    }

    /// Takes out the one of the dashboard, unless it comes from the process before.
    fn own_admin(&mut self) -> Option<Entrance> {
        self.admin.take_if(|admin| admin.is_ours())
    }

    fn open(self, offer: &mut Option<Offer>, listeners: &Listeners) -> Result<Open, String> {
        Ok(Open {
            http: self.http.open(offer, listeners)?,
            https: self.https.open(offer, listeners)?,
            admin: self.admin.map(|admin| admin.open(offer, listeners)).transpose()?,
        })
    }
}

impl Open {
    /// Counts are kept by the listener's address.
    fn tell(&self, traffic: &Traffic) {
        traffic.listens(EntryPoint::Http, self.http.address());
        traffic.listens(EntryPoint::Https, self.https.address());
    }

    /// `admin` is the address of the one that was open before.
    fn text(&self, admin: SocketAddr) -> String {
        let admin = self.admin.as_ref().map_or(admin, Listener::address).port();
        let (http, https) = (self.http.address().port(), self.https.address().port());
        format!("listening http={http} https={https} admin={admin}")
    }
}

/// One listener to be: reserved for this process, or expected from the one before.
struct Entrance {
    name: &'static str,
    address: SocketAddr,
    reserved: Option<Reserved>,
}

impl Entrance {
    /// Takes the address at once unless it comes from the process before, so that a conflict shows at the start.
    fn new(name: &'static str, address: SocketAddr, predecessor: Option<&Predecessor>) -> Result<Self, String> {
        let comes = predecessor.is_some_and(|p| p.has(name, address));
        let reserved = (!comes).then(|| Reserved::bind(name, address)).transpose()?;
        Ok(Self {
            name,
            address,
            reserved,
        })
    }

    fn is_ours(&self) -> bool {
        self.reserved.is_some()
    }

    fn port(&self) -> u16 {
        self.reserved.as_ref().map_or(self.address.port(), Reserved::port)
    }

    /// Opens with what was offered, or by itself.
    fn open(self, offer: &mut Option<Offer>, listeners: &Listeners) -> Result<Listener, String> {
        let taken = offer.as_mut().and_then(|offer| offer.listener(self.name, self.address));
        if let Some(listener) = taken {
            let listener = listeners.listener(self.name, listener);
            return listener.map_err(|error| format!("the listener for {}: {error}", self.name));
        }
        let reserved = match self.reserved {
            Some(reserved) => reserved,
            None => Reserved::bind(self.name, self.address)?,
        };
        reserved.listen(listeners)
    }
}

async fn serve_admin(listener: Listener, site: Arc<admin::Site>) -> &'static str {
    admin::serve(listener, site).await;
    "the dashboard's port is no longer served"
}

/// Why the program ends although nobody asked it to.
fn reason(ended: Option<Result<&'static str, JoinError>>) -> String {
    match ended {
        Some(Ok(part)) => part.to_owned(),
        Some(Err(error)) => format!("a part broke: {error}"),
        None => "nothing is served".to_owned(),
    }
}

/// Not ready first, while requests are still taken, so that whoever asks goes elsewhere; then no new connections, and those in flight
/// end.
async fn drain(
    state: &State,
    listeners: &Listeners,
    stop: &Sender<bool>,
    proxy: JoinHandle<()>,
    leading: Option<JoinHandle<()>>,
    bounds: &Stopping,
) {
    state.lifecycle.stop();
    tokio::time::sleep(Duration::from_millis(bounds.stop_delay_ms)).await;
    listeners.close().await;
    // The receivers are tasks that may have ended.
    let _ = stop.send(true);
    let everything = async {
        let _ = proxy.await;
        if let Some(leading) = leading {
            let _ = leading.await;
        }
    };
    if timeout(Duration::from_secs(bounds.drain_seconds), everything)
        .await
        .is_err()
    {
        let left = state.counters.requests.value();
        log(&format!(
            "{left} requests did not end in {} s and are cut off",
            bounds.drain_seconds
        ));
    }
}
