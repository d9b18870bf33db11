//! landfall's ingress proxy: follows Ingress objects and sends HTTP requests to the pods behind them.
//!
//! Data flows one way: [`watch`] turns API objects into a [`route::Snapshot`], [`proxy`] serves requests from whichever is newest.

#![forbid(unsafe_code)]

mod admin;
mod pool;
mod proxy;
mod route;
mod state;
mod status;
mod watch;

use clap::Parser;
use state::State;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch::channel;

/// Longest wait for requests in flight at the end; the pod has 30 s.
const DRAIN: Duration = Duration::from_secs(20);

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
    let listen = |address: SocketAddr| async move {
        let bound = TcpListener::bind(address).await;
        bound.map_err(|error| format!("cannot listen on {address}: {error}"))
    };
    let admin = listen(args.admin_address).await?;
    let http = listen(args.http_address).await?;
    let port = |listener: &TcpListener| listener.local_addr().map_or(0, |address| address.port());
    log(&format!("listening http={} admin={}", port(&http), port(&admin)));
    let client = client().await?;
    let state = Arc::new(State::new(&args.node_name, &args.dashboard_host));
    let (stop, stopping) = channel(false);
    let tasks = [
        tokio::spawn(watch::follow(client.clone(), args.ingress_class, Arc::clone(&state))),
        tokio::spawn(status::lead(
            client,
            args.pod_name,
            args.pod_namespace,
            Arc::clone(&state),
        )),
    ];
    let admin = tokio::spawn(admin::serve(admin, Arc::clone(&state)));
    let proxy = tokio::spawn(proxy::serve(http, Arc::clone(&state), stopping));
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| format!("signals: {e}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| format!("signals: {e}"))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Not ready first, so that whoever asks goes elsewhere; then no new connections, and those in flight end.
    state.stop();
    let _ = stop.send(true);
    if tokio::time::timeout(DRAIN, proxy).await.is_err() {
        log("some requests did not end in time and are cut off");
    }
    admin.abort();
    for task in tasks {
        task.abort();
    }
    Ok(())
}
