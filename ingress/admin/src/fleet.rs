//! The other proxies: found by their pods when somebody looks, asked over their nodes' addresses. Bounded in number, time and size.

use futures_util::StreamExt;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Label of our pods.
const LABEL: &str = "app.kubernetes.io/name=landfall-ingress";
/// How long a list of pods is good: people look every two seconds, pods change rarely.
const LIST_LASTS: Duration = Duration::from_secs(10);
/// Longest wait for the list.
const LIST_PATIENCE: Duration = Duration::from_secs(3);
/// Longest wait for one proxy, from connect to the last byte.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Proxies that are asked, at once and in all.
const AT_ONCE: usize = 16;
const MOST: usize = 256;
/// Largest answer; an overview has 3 KB.
const LARGEST: usize = 64 * 1024;

/// A pod of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Peer {
    address: IpAddr,
    node: String,
}

/// All proxies of the cluster, as seen from here.
pub struct Fleet {
    namespace: String,
    port: AtomicU16,
    client: OnceLock<kube::Client>,
    peers: Mutex<Option<(Instant, Arc<[Peer]>)>>,
    /// When a stranger's address last made us ask for the list.
    strangers: Mutex<Option<Instant>>,
}

impl Fleet {
    /// Knows nobody yet. All proxies have their dashboard on the same port.
    pub fn new(namespace: &str, port: u16) -> Self {
        Self {
            namespace: namespace.to_owned(),
            port: AtomicU16::new(port),
            client: OnceLock::new(),
            peers: Mutex::default(),
            strangers: Mutex::default(),
        }
    }

    /// Gives the way to the API; the first one counts.
    pub fn connect(&self, client: kube::Client) {
        let _ = self.client.set(client);
    }

    /// Says which port it became.
    pub(super) fn port(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    /// Whether this is the address of a node with a proxy, as far as is known.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers
            .as_ref()
            .is_some_and(|(_, peers)| peers.iter().any(|peer| peer.address == address))
    }

    /// The same, after a look at the list when it is not known. However many strangers come, that is one list in [`LIST_LASTS`].
    pub(super) async fn knows(&self, address: IpAddr) -> bool {
        if self.has(address) {
            return true;
        }
        {
            let mut last = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < LIST_LASTS) {
                return false;
            }
            *last = Some(Instant::now());
        }
        // An API that does not answer tells of no node.
        drop(self.peers().await);
        self.has(address)
    }

    async fn peers(&self) -> Result<Arc<[Peer]>, String> {
        if let Some((at, peers)) = &*self.peers.lock().unwrap_or_else(PoisonError::into_inner)
            && at.elapsed() < LIST_LASTS
        {
            return Ok(Arc::clone(peers));
        }
        let client = self.client.get().ok_or("there is no way to the API yet")?.clone();
        let pods = Api::<Pod>::namespaced(client, &self.namespace);
        let wanted = ListParams::default().labels(LABEL);
        let list = timeout(LIST_PATIENCE, pods.list(&wanted)).await;
        let list = list
            .map_err(|_| "the API did not answer in time")?
            .map_err(|error| error.to_string())?;
        let mut peers: Vec<Peer> = list.items.iter().filter_map(peer_of).collect();
        peers.sort();
        // While one pod of a node takes over from another both have the same address.
        peers.dedup_by(|a, b| a.address == b.address);
        peers.truncate(MOST);
        let peers: Arc<[Peer]> = peers.into();
        let found = Some((Instant::now(), Arc::clone(&peers)));
        *self.peers.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(peers)
    }

    /// Every proxy with its numbers, or with the reason why there are none. `own` is this one's overview; the reader's `headers` let
    /// the others check the same password.
    pub(super) async fn view(&self, own: &Value, here: Option<IpAddr>, headers: &HeaderMap) -> Value {
        let peers = match self.peers().await {
            Ok(peers) => peers,
            Err(error) => {
                let this = summary(own, &own["address"], true);
                return json!({ "items": [this], "total": 1, "offset": 0, "error": format!("the list of pods: {error}") });
            }
        };
        let port = self.port.load(Ordering::Relaxed);
        let authorization = headers.get(header::AUTHORIZATION);
        let mut asked = Vec::with_capacity(peers.len());
        for peer in peers.iter() {
            let peer = peer.clone();
            let at = SocketAddr::new(peer.address, port);
            let own = (Some(peer.address) == here).then(|| summary(own, &json!(at.to_string()), true));
            let authorization = authorization.cloned();
            asked.push(async move {
                match own {
                    Some(own) => own,
                    None => one(peer, at, authorization).await,
                }
            });
        }
        let mut items: Vec<Value> = futures_util::stream::iter(asked).buffered(AT_ONCE).collect().await;
        if !items.iter().any(|item| item["self"] == true) {
            items.insert(0, summary(own, &own["address"], true));
        }
        json!({ "total": items.len(), "offset": 0, "items": items })
    }
}

/// One proxy's numbers, or why there are none.
async fn one(peer: Peer, at: SocketAddr, authorization: Option<header::HeaderValue>) -> Value {
    let address = json!(at.to_string());
    match timeout(PATIENCE, ask(at, authorization.as_ref())).await {
        Ok(Ok(overview)) => summary(&overview, &address, false),
        failed => {
            let why = failed.map_or_else(|_| "no answer in time".to_owned(), |r| r.err().unwrap_or_default());
            json!({ "state": "unreachable", "reason": why, "node": peer.node, "address": address, "self": false })
        }
    }
}

/// What the view shows of an overview; nothing else of another's answer is passed on.
fn summary(overview: &Value, address: &Value, this: bool) -> Value {
    let traffic = &overview["traffic"];
    json!({ "state": overview["state"], "node": overview["node"], "address": address, "self": this, "version": overview["version"],
        "uptime_seconds": overview["uptime_seconds"], "leader": overview["leader"], "routes": overview["counts"]["routes"],
        "table": overview["table"]["routes"], "entry_points": entry_points(overview),
        "rps": traffic["rps"], "p99_ms": traffic["p99_ms"], "requests": traffic["requests"],
        "errors_ours": traffic["errors_ours"], "errors_upstream": traffic["errors_upstream"] })
}

/// Where a proxy takes requests, and how many.
fn entry_points(overview: &Value) -> Vec<Value> {
    let all = overview["entry_points"].as_array().into_iter().flatten();
    all.map(|entry| json!({ "name": entry["name"], "address": entry["address"], "rps": entry["traffic"]["rps"] }))
        .collect()
}

fn peer_of(pod: &Pod) -> Option<Peer> {
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    Some(Peer {
        address: status.host_ip.as_deref()?.parse().ok()?,
        node: pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default(),
    })
}

async fn ask(at: SocketAddr, authorization: Option<&header::HeaderValue>) -> Result<Value, String> {
    let stream = TcpStream::connect(at).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // Its error reaches whoever waits for the answer.
    tokio::spawn(timeout(PATIENCE, connection));
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = "/api/v1/overview".parse().map_err(|_| "no path")?;
    let host = at.to_string().parse().map_err(|_| "no host")?;
    request.headers_mut().insert(header::HOST, host);
    if let Some(value) = authorization {
        request.headers_mut().insert(header::AUTHORIZATION, value.clone());
    }
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if response.status() != StatusCode::OK {
        return Err(format!("it answered {}", response.status()));
    }
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| format!("its answer makes no sense: {error}"))
}
