//! One model of the Kubernetes clusters on a fleet: etcd's members, Nodes, API objects. What runs is read off the machines' files
//! (a kubelet that is active, a static pod's manifest, etcd's data), so that whatever ends an agent leaves what it would leave on a
//! real one. Views of it: an HTTPS API server on loopback for each cluster ([`api`]), and a socket by which the programs of a machine
//! (kubeadm, ctr, the agent's network) ask it ([`ask`]).
//!
//! What must never happen ([`Law`]) is looked for at every question and kept in a list: see [`World::violations`].

mod api;
mod ask;
mod authority;
mod dashboard;
mod etcd;
mod kubeadm;
mod laws;
mod objects;
mod traffic;
mod workloads;

use crate::pipes::lock;
use anyhow::{Context, Result};
pub use api::AskedWith;
use authority::Authority;
pub(crate) use authority::pem;
use etcd::{Bootstrap, Member};
use landfall_core::journal::{Ownership, parse_journal, replay};
use landfall_core::layout;
use landfall_core::name::{Digest, NodeName};
use landfall_core::spec::Cidr;
pub use laws::{Law, Violation};
use objects::{Apply, Store};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::task::AbortHandle;

/// Where a member keeps its id; wiping etcd's data takes it away.
const ETCD_DATA: &str = "/var/lib/etcd/member/id";
/// The static pod of a machine's etcd.
const ETCD_MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";
/// A mark that keeps etcd's container down, for tests.
const ETCD_STOPPED: &str = "/sim/etcd-stopped";

/// The clusters of a fleet. Cloning gives a second handle.
#[derive(Debug, Clone)]
pub struct World(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    points: Mutex<Vec<Point>>,
    passed: Mutex<BTreeSet<(NodeName, String)>>,
    runtime: tokio::runtime::Handle,
    // Dropping it ends the runtime's thread, and with it every API server.
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        let state = lock(&self.state);
        // The machines' files may have changed since.
        state.pods.borrow_mut().clear();
        state
    }
}

/// When something happens at a named point: just before a question is answered, or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The machine asked, and nothing has come of it yet.
    Before,
    /// The model has changed, and the machine does not know yet.
    After,
}

struct Point {
    node: NodeName,
    word: String,
    when: When,
    action: Box<dyn Fn() + Send>,
}

impl std::fmt::Debug for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {} on {}", self.when, self.word, self.node)
    }
}

/// A machine as the model sees it.
#[derive(Debug)]
struct Place {
    root: PathBuf,
    address: IpAddr,
}

impl Place {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn has(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    fn journal(&self) -> Option<Ownership> {
        let text = std::fs::read(self.at(layout::STATE_DIR).join("journal.jsonl")).ok()?;
        replay(&parse_journal(&text).ok()?).ok()
    }
}

#[derive(Debug, Default)]
struct State {
    machines: BTreeMap<NodeName, Place>,
    off: BTreeSet<NodeName>,
    /// Pairs of which the first does not reach the second.
    cut: BTreeSet<(NodeName, NodeName)>,
    /// Ports of this machine's loopback on which machines listen for others, by the address at which they are reached.
    listeners: BTreeMap<SocketAddr, u16>,
    /// How often machines were asked to try each other.
    meshes: usize,
    /// Seconds that the fleet's clock is ahead of this machine's.
    ahead_s: u64,
    /// Numbers handed out: uids, versions, etcd's ids.
    counter: u64,
    authorities: BTreeMap<String, Authority>,
    clusters: Vec<Cluster>,
    /// Join credentials: when they end, and whose they are.
    credentials: BTreeMap<String, (u64, String)>,
    leaving: BTreeSet<String>,
    violations: Vec<Violation>,
    /// Pods of each cluster, since the model was asked.
    pods: RefCell<BTreeMap<usize, Arc<[Value]>>>,
}

/// A cluster: everything that etcd holds, and its members.
#[derive(Debug)]
struct Cluster {
    /// Digest of its certificate authority.
    ca: String,
    port: u16,
    server: AbortHandle,
    /// Port of all ingress proxies' dashboards.
    dashboard: u16,
    dashboards: AbortHandle,
    members: Vec<Member>,
    /// The list and token with which its etcd was bootstrapped.
    bootstrap: Bootstrap,
    /// Members of that list that have started with it.
    bootstrapped: BTreeSet<String>,
    /// Range of the pods' addresses, which its controller managers know.
    pods: Option<Cidr>,
    store: Store,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.server.abort();
        self.dashboards.abort();
    }
}

/// The state of the cluster that a machine belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// etcd's members by name, with whether each is healthy.
    pub members: BTreeMap<String, bool>,
    /// Nodes by name, with uid and whether each is Ready.
    pub nodes: BTreeMap<String, (String, bool)>,
    /// Whether etcd has its quorum.
    pub quorum: bool,
}

impl World {
    /// Starts a model without clusters. `machines` are the directories and addresses of the fleet.
    pub(crate) fn start(machines: impl IntoIterator<Item = (NodeName, PathBuf, IpAddr)>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || runtime.block_on(async { drop(stopped.await) }));
        let machines = machines
            .into_iter()
            .map(|(name, root, address)| (name, Place { root, address }))
            .collect();
        let state = State {
            machines,
            ..State::default()
        };
        Ok(Self(Arc::new(Inner {
            state: Mutex::new(state),
            points: Mutex::default(),
            passed: Mutex::default(),
            runtime: handle,
            _stop: stop,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state()
    }

    /// Returns the violations of laws so far.
    pub fn violations(&self) -> Vec<Violation> {
        let mut state = self.state();
        state.check();
        state.violations.clone()
    }

    /// Says whether a machine is off: it answers nobody and runs nothing.
    pub(crate) fn set_off(&self, node: &NodeName, off: bool) {
        let mut state = self.state();
        if off {
            state.off.insert(node.clone());
        } else {
            state.off.remove(node);
        }
    }

    /// Keeps a machine from reaching another, or lets it again.
    pub fn set_cut(&self, from: &NodeName, to: &NodeName, cut: bool) {
        let pair = (from.clone(), to.clone());
        let mut state = self.state();
        if cut {
            state.cut.insert(pair);
        } else {
            state.cut.remove(&pair);
        }
    }

    /// Returns how often machines were asked to try each other.
    pub fn meshes(&self) -> usize {
        self.state().meshes
    }

    pub(crate) fn is_off(&self, node: &NodeName) -> bool {
        self.state().off.contains(node)
    }

    /// Lets seconds pass on the machines' clocks, for whatever expires.
    pub fn pass(&self, seconds: u64) {
        self.state().ahead_s += seconds;
    }

    /// Says that a member leaves because the test wants it to: its removal is then no violation.
    pub fn may_leave(&self, name: &str) {
        self.state().leaving.insert(name.to_owned());
    }

    /// Does something once, when a machine's program asks the model this word (see [`ask`]) the next time.
    pub fn at_point(&self, node: &NodeName, word: &str, when: When, action: impl Fn() + Send + 'static) {
        lock(&self.0.points).push(Point {
            node: node.clone(),
            word: word.to_owned(),
            when,
            action: Box::new(action),
        });
    }

    /// Removes the actions at points that were not reached.
    pub fn forget_points(&self) {
        lock(&self.0.points).clear();
    }

    /// Returns the named points that machines' programs have reached since the model started.
    pub fn points_passed(&self) -> Vec<(NodeName, String)> {
        lock(&self.0.passed).iter().cloned().collect()
    }

    fn pass_point(&self, node: &NodeName, word: &str, when: When) {
        lock(&self.0.passed).insert((node.clone(), word.to_owned()));
        let due: Vec<Point> = {
            let mut points = lock(&self.0.points);
            let is_due = |p: &mut Point| p.when == when && p.word == word && &p.node == node;
            points.extract_if(.., is_due).collect()
        };
        due.iter().for_each(|point| (point.action)());
    }

    /// Returns the state of the cluster whose certificate authority a machine has.
    pub fn seen_from(&self, node: &NodeName) -> Option<Seen> {
        let state = self.state();
        let at = state.cluster_of(node)?;
        Some(state.seen(at))
    }

    /// Returns an object of the API as it is; `resource` is `group/plural`, without group `plural`.
    pub fn object(&self, from: &NodeName, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let state = self.state();
        let at = state.cluster_of(from)?;
        state.read_all(at, resource).into_iter().find(|o| {
            o["metadata"]["name"].as_str() == Some(name)
                && o["metadata"]["namespace"].as_str().unwrap_or_default() == namespace
        })
    }

    /// Creates an object, as a user does.
    pub fn create_object(&self, from: &NodeName, resource: &str, object: Value) -> Result<()> {
        let mut state = self.state();
        let at = state.cluster_of(from).context("no cluster")?;
        let number = state.number();
        state.clusters[at].store.create(resource, object, "kubectl", number);
        Ok(())
    }

    /// Sets fields of an object that is there, as a user does with `kubectl apply --server-side --force-conflicts`.
    pub fn apply_object(&self, from: &NodeName, resource: &str, body: &Value) -> Result<()> {
        let mut state = self.state();
        let at = state.cluster_of(from).context("no cluster")?;
        let number = state.number();
        let named = |key: &str| body["metadata"][key].as_str().unwrap_or_default();
        let request = Apply {
            resource,
            namespace: named("namespace"),
            name: named("name"),
            body,
            manager: "kubectl",
            force: true,
            dry_run: false,
            number,
        };
        let applied = state.clusters[at].store.apply(&request);
        applied.map(drop).map_err(|(_, why)| anyhow::anyhow!(why))
    }

    /// Deletes an object, as a user does.
    pub fn delete_object(&self, from: &NodeName, resource: &str, namespace: &str, name: &str) -> Result<()> {
        let mut state = self.state();
        let at = state.cluster_of(from).context("no cluster")?;
        let deleted = state.clusters[at].store.delete(resource, namespace, name);
        deleted
            .map(drop)
            .with_context(|| format!("no {resource} {namespace}/{name}"))
    }

    /// Kills etcd on a machine without anything else: its container does not come back.
    pub fn stop_etcd(&self, node: &NodeName, stopped: bool) -> Result<()> {
        let state = self.state();
        let mark = state.machine(node).context("no such machine")?.at(ETCD_STOPPED);
        if stopped {
            std::fs::write(mark, "")?;
        } else {
            std::fs::remove_file(mark)?;
        }
        Ok(())
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn now_s(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_secs() + self.ahead_s
    }

    fn machine(&self, node: &NodeName) -> Option<&Place> {
        self.machines.get(node)
    }

    fn named(&self, name: &str) -> Option<(&NodeName, &Place)> {
        self.machines.iter().find(|(n, _)| n.as_str() == name)
    }

    /// Says whether a unit runs on a machine that is on.
    fn runs(&self, node: &NodeName, unit: &str) -> bool {
        let on = !self.off.contains(node);
        on && self
            .machine(node)
            .is_some_and(|m| m.has(&format!("/run/systemd/active/{unit}")))
    }

    /// Returns the digest of the certificate authority that a machine has.
    fn ca_of(&self, node: &NodeName) -> Option<String> {
        let bytes = std::fs::read(self.machine(node)?.at("/etc/kubernetes/pki/ca.crt")).ok()?;
        Some(Digest::of(&bytes).hex())
    }

    fn cluster_of(&self, node: &NodeName) -> Option<usize> {
        let ca = self.ca_of(node)?;
        self.clusters.iter().position(|c| c.ca == ca)
    }

    /// Says whether a machine runs an API server of this cluster.
    fn has_api_server(&self, at: usize, node: &NodeName) -> bool {
        self.runs(node, "kubelet.service")
            && self
                .machine(node)
                .is_some_and(|m| m.has("/etc/kubernetes/manifests/kube-apiserver.yaml"))
            && self.cluster_of(node) == Some(at)
    }

    fn seen(&self, at: usize) -> Seen {
        let members = &self.clusters[at].members;
        let nodes = self.read_all(at, "nodes").into_iter().map(|node| {
            let text = |key: &str| node["metadata"][key].as_str().unwrap_or_default().to_owned();
            (text("name"), (text("uid"), workloads::is_ready(&node)))
        });
        Seen {
            members: members.iter().map(|m| (m.name.clone(), self.is_healthy(m))).collect(),
            nodes: nodes.collect(),
            quorum: self.has_quorum(at),
        }
    }
}
