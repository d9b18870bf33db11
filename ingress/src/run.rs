//! The order of one life: who was here before, the lists, the listeners, serving, the end.

use crate::access_log::AccessLog;
use crate::args::{Serve, Stopping};
use crate::handover::{self, Door, Doors, Meeting, Offer, Predecessor, Reserved};
use crate::limits::Limits;
use crate::observer::Observer;
use crate::proxy::Proxy;
use crate::route::LastGood;
use crate::services::Locality;
use crate::state::State;
use crate::tls::Acceptor;
use crate::traffic::EntryPoint;
use crate::{admin, files, log, probe, proxy, status, watch};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch::{Sender, channel};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::timeout;

/// The service account's client; a kubeconfig only when one is named, for running outside a cluster.
///
/// A static glibc program cannot look up names or users, so neither `kubernetes.default.svc` nor a home directory is asked for.
pub async fn client() -> Result<kube::Client, String> {
    let config = if std::env::var_os("KUBECONFIG").is_some() {
        kube::Config::infer().await.map_err(|error| error.to_string())
    } else {
        kube::Config::incluster().map_err(|error| error.to_string())
    };
    let client = config.and_then(|config| kube::Client::try_from(config).map_err(|error| error.to_string()));
    client.map_err(|error| format!("no way to the Kubernetes API: {error}"))
}

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
    let mut signals = Signals::new()?;
    let observer = Observer::new(
        args.metrics_routes,
        AccessLog::start(args.access_log, std::io::stdout()),
    );
    let state = Arc::new(State::new(&args.node_name, &args.dashboard_host).observed(observer));
    let files = files::raise_limit();
    let limits = Limits::default().within(files);
    log(&format!(
        "limits open_files={files} connections={} connections_per_address={}",
        limits.connections, limits.connections_per_address
    ));
    let proxy = Proxy::new(Arc::clone(&state), limits, args.front.clone());
    let site = Arc::new(admin::Site::new(&args, Arc::clone(&state), Arc::clone(&proxy))?);
    // Parts that never end. Half a proxy is worse than none: the kubelet starts a whole one.
    let mut parts = JoinSet::new();
    if let Some(socket) = &args.probe_socket {
        let listener = probe::listen(socket)?;
        let state = Arc::clone(&state);
        parts.spawn(async move {
            probe::serve(listener, state).await;
            "the kubelet's questions are no longer answered"
        });
    }
    let meeting = Meeting::prepare(args.handover)?;
    let predecessor = match &meeting {
        Some(meeting) => Predecessor::greet(meeting).await,
        None => None,
    };
    let [http, https, admin] = [
        ("http", args.http_address),
        ("https", args.https_address),
        ("admin", args.admin_address),
    ]
    .map(|(name, address)| Entrance::new(name, address, predecessor.as_ref()));
    let (http, https, admin) = (http?, https?, admin?);
    let ports = (http.port(), https.port(), admin.port());
    let doors = Arc::new(Doors::default());
    // Whoever asks why this proxy is not ready wants an answer before the table is there.
    let admin = if admin.is_ours() {
        parts.spawn(serve_admin(admin.open(&mut None, &doors)?, Arc::clone(&site)));
        None
    } else {
        Some(admin)
    };
    if predecessor.is_none() {
        log(&format!(
            "listening http={} https={} admin={}",
            ports.0, ports.1, ports.2
        ));
    }

    let acceptor = Arc::new(Acceptor::new(Arc::clone(&state), &args.tls)?);
    let client = client().await?;
    site.fleet.connect(client.clone());
    let (stop, stopping) = channel(false);
    let read = watch::Tls {
        secrets: args.secrets,
        default_certificate: args.tls.default_certificate,
    };
    let here = Locality {
        node: args.node_name,
        zone: args.node_zone,
    };
    let follow = watch::follow(
        client.clone(),
        args.routing
            .guarding(std::env::var("KUBERNETES_SERVICE_HOST").ok().as_deref()),
        read,
        inherited(predecessor.as_ref()),
        here,
        Arc::clone(&state),
    );
    parts.spawn(async {
        follow.await;
        "the API is no longer followed"
    });
    let place = status::Place {
        pod: args.pod_name,
        namespace: args.pod_namespace,
    };
    // Outside a cluster there is no pod, so no one whose address could be written.
    let leading = (!place.pod.is_empty()).then(|| {
        tokio::spawn(status::lead(
            client,
            place,
            publish,
            Arc::clone(&state),
            stopping.clone(),
        ))
    });

    tokio::select! {
        // Nothing was served, so there is nothing to drain.
        () = signals.any() => return Ok(()),
        ended = parts.join_next() => return Err(reason(ended)),
        () = state.built() => {}
    }
    let mut offer = match (&meeting, &predecessor) {
        (Some(meeting), Some(predecessor)) => predecessor.take(meeting).await,
        _ => None,
    };
    let http = http.open(&mut offer, &doors)?;
    let https = https.open(&mut offer, &doors)?;
    let admin = admin.map(|admin| admin.open(&mut offer, &doors)).transpose()?;
    let admin_port = admin
        .as_ref()
        .map_or(args.admin_address.port(), |door| door.address().port());
    let (http_port, https_port) = (http.address().port(), https.address().port());
    let taken = format!("listening http={http_port} https={https_port} admin={admin_port}");
    if let Some(door) = admin {
        parts.spawn(serve_admin(door, Arc::clone(&site)));
    }
    state.observer.traffic.listens(EntryPoint::Http, http.address());
    state.observer.traffic.listens(EntryPoint::Https, https.address());
    let plain = proxy::serve(Arc::clone(&proxy), http, None, stopping.clone());
    let tls = proxy::serve(proxy, https, Some(acceptor), stopping);
    let mut proxy = tokio::spawn(async {
        tokio::join!(plain, tls);
    });
    let link = match offer {
        Some(offer) => Some(offer.confirm().await),
        None => None,
    };
    state.open();
    if predecessor.is_some() {
        log(&taken);
    }
    if let Some(meeting) = meeting {
        let giving = handover::serve(meeting, Arc::clone(&doors), Arc::clone(&state));
        parts.spawn(async {
            giving.await;
            "nobody could take over"
        });
    }

    tokio::select! {
        () = signals.any() => {}
        ended = parts.join_next() => return Err(reason(ended)),
        _ = &mut proxy => return Err("requests are no longer served".to_owned()),
    }
    let drained = drain(&state, &doors, &stop, proxy, leading, &args.stopping);
    tokio::select! {
        () = drained => {}
        _ = signals.interrupt.recv() => log("interrupted again: leaving now"),
    }
    parts.abort_all();
    drop(link);
    Ok(())
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
    fn open(self, offer: &mut Option<Offer>, doors: &Doors) -> Result<Door, String> {
        let taken = offer.as_mut().and_then(|offer| offer.listener(self.name, self.address));
        if let Some(listener) = taken {
            let door = doors.door(self.name, listener);
            return door.map_err(|error| format!("the listener for {}: {error}", self.name));
        }
        let reserved = match self.reserved {
            Some(reserved) => reserved,
            None => Reserved::bind(self.name, self.address)?,
        };
        reserved.listen(doors)
    }
}

async fn serve_admin(door: Door, site: Arc<admin::Site>) -> &'static str {
    admin::serve(door, site).await;
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
    doors: &Doors,
    stop: &Sender<bool>,
    proxy: JoinHandle<()>,
    leading: Option<JoinHandle<()>>,
    bounds: &Stopping,
) {
    state.stop();
    tokio::time::sleep(Duration::from_millis(bounds.stop_delay_ms)).await;
    doors.close().await;
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
