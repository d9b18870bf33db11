//! landfall's ingress proxy: follows Ingress objects and sends HTTP requests to the pods behind them.
//!
//! Data flows one way: [`watch`] turns API objects into a [`route::Snapshot`], [`state`] holds the newest, [`proxy`] serves requests from
//! it. [`admin`] shows it, [`status`] tells the API where it is served.

#![forbid(unsafe_code)]

mod admin;
mod body;
mod lease;
mod limits;
mod metrics;
mod policy;
mod pool;
mod proxy;
mod route;
mod state;
mod status;
mod watch;

use clap::Parser;
use limits::Limits;
use state::State;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch::{Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// HTTP proxy for Kubernetes Ingress objects.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Where requests for the cluster's Ingresses are taken.
    #[arg(long, default_value = "0.0.0.0:80")]
    http_address: SocketAddr,
    /// Where the status page, metrics and health are served.
    #[arg(long, default_value = "0.0.0.0:8080")]
    admin_address: SocketAddr,
    /// Name of the IngressClass that is served.
    #[arg(long, default_value = "landfall")]
    ingress_class: String,
    /// Host under which the status page itself is reached; shown there.
    #[arg(long, default_value = "")]
    dashboard_host: String,
    /// Name of this pod, for the election of the one that writes status.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pod_name: String,
    /// Namespace of this pod.
    #[arg(long, env = "POD_NAMESPACE", default_value = "kube-system")]
    pod_namespace: String,
    /// Node that this pod runs on; shown on the status page.
    #[arg(long, env = "NODE_NAME", default_value = "")]
    node_name: String,
    #[command(flatten)]
    stopping: Stopping,
}

/// Bounds of the end. The pod has 30 s (`terminationGracePeriodSeconds`); both together stay below.
#[derive(clap::Args)]
struct Stopping {
    /// Milliseconds after SIGTERM in which requests are still taken, each answered with Connection: close.
    #[arg(long, default_value_t = 2000)]
    stop_delay_ms: u64,
    /// Seconds after that in which requests in flight may end.
    #[arg(long, default_value_t = 20)]
    drain_seconds: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Err(format!("no runtime: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            log(&text);
            ExitCode::FAILURE
        }
    }
}

/// One line for the container's log.
pub(crate) fn log(text: &str) {
    use std::io::Write;
    // A closed log has no reader to tell.
    let _ = writeln!(std::io::stderr(), "landfall-ingress: {text}");
}

/// The service account's client; a kubeconfig only when one is named, for running outside a cluster.
///
/// A static glibc program cannot look up names or users, so neither `kubernetes.default.svc` nor a home directory is asked for.
async fn client() -> Result<kube::Client, String> {
    let config = if std::env::var_os("KUBECONFIG").is_some() {
        kube::Config::infer().await.map_err(|error| error.to_string())
    } else {
        kube::Config::incluster().map_err(|error| error.to_string())
    };
    let client = config.and_then(|config| kube::Client::try_from(config).map_err(|error| error.to_string()));
    client.map_err(|error| format!("no way to the Kubernetes API: {error}"))
}

async fn run(args: Args) -> Result<(), String> {
    let admin = listen(args.admin_address).await?;
    let http = listen(args.http_address).await?;
    let port = |listener: &TcpListener| listener.local_addr().map_or(0, |address| address.port());
    log(&format!("listening http={} admin={}", port(&http), port(&admin)));
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| format!("signals: {error}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| format!("signals: {error}"))?;

    let client = client().await?;
    let state = Arc::new(State::new(&args.node_name, &args.dashboard_host));
    let (stop, stopping) = channel(false);
    let mut watching = tokio::spawn(watch::follow(client.clone(), args.ingress_class, Arc::clone(&state)));
    let place = status::Place {
        pod: args.pod_name,
        namespace: args.pod_namespace,
    };
    // Outside a cluster there is no pod, so no one whose address could be written.
    let leading = (!place.pod.is_empty())
        .then(|| tokio::spawn(status::lead(client, place, Arc::clone(&state), stopping.clone())));
    let mut admin = tokio::spawn(admin::serve(admin, Arc::clone(&state)));
    let mut proxy = tokio::spawn(proxy::serve(http, Arc::clone(&state), Limits::default(), stopping));

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        // None of these ends by itself. Half a proxy is worse than none: the kubelet starts a whole one.
        _ = &mut watching => return Err("the API is no longer followed".to_owned()),
        _ = &mut admin => return Err("the dashboard's port is no longer served".to_owned()),
        _ = &mut proxy => return Err("requests are no longer served".to_owned()),
    }
    let drained = drain(&state, &stop, proxy, leading, &args.stopping);
    tokio::select! {
        () = drained => {}
        _ = interrupt.recv() => log("interrupted again: leaving now"),
    }
    watching.abort();
    admin.abort();
    Ok(())
}

/// Not ready first, while requests are still taken, so that whoever asks goes elsewhere; then no new connections, and those in flight
/// end.
async fn drain(
    state: &State,
    stop: &Sender<bool>,
    proxy: JoinHandle<()>,
    leading: Option<JoinHandle<()>>,
    bounds: &Stopping,
) {
    state.stop();
    tokio::time::sleep(Duration::from_millis(bounds.stop_delay_ms)).await;
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

async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| format!("cannot listen on {address}: {error}"))
}
