//! The effects of kubeadm and of the kubelets that it starts on a cluster. The script `programs/kubeadm.sh` requests each of them, and writes the
//! files.

use super::ETCD_DATA;
use super::ask::Answer;
use super::authority::Authority;
use super::etcd::{Bootstrap, Member};
use super::objects::Store;
use super::{Cluster, ETCD_MANIFEST, State, World};
use landfall_core::layout;
use landfall_core::name::NodeName;
use landfall_core::plan::key::StepKind;
use landfall_core::spec::Cidr;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The credential by which nodes join lives as long as `kubeadm kubeconfig user --validity-period` says; the planner asks for 1 h.
const CREDENTIAL_S: u64 = 3600;
const TAINT: &str = "node-role.kubernetes.io/control-plane";

impl World {
    /// Founds a cluster, or takes part in its founding: `kubeadm init` up to the point where the machine's etcd has its first data.
    pub(super) fn found(&self, node: &NodeName) -> Answer {
        let mut state = self.state();
        state.must_be_intended(node, "a founding", &[StepKind::Init]);
        let Some(ca) = state.ca_of(node) else {
            return Answer::failed("no certificate authority");
        };
        let Some(server) = state.authorities.get(&ca).map(Authority::server) else {
            return Answer::failed("a certificate authority that nobody made");
        };
        let Some(machine) = state.machine(node) else {
            return Answer::failed("no such machine");
        };
        let config = machine.text(layout::KUBEADM_CONFIG);
        let bootstrap = Bootstrap::of(&machine.text(ETCD_MANIFEST), node, machine.address);
        let same = state
            .clusters
            .iter()
            .position(|c| c.ca == ca && c.bootstrap == bootstrap);
        state.may_found(node, same);
        if bootstrap.token.is_some()
            && let Some(at) = same
        {
            return state.take_part(at, node);
        }
        state.forget_gone();
        // The permission to leave was for the previous cluster.
        state.leaving.clear();
        state.clusters.retain(|c| c.ca != ca);
        let Ok((port, server)) = self.serve(server, ca.clone()) else {
            return Answer::failed("no port is free");
        };
        let Ok((dashboard, dashboards)) = self.serve_dashboards(ca.clone()) else {
            return Answer::failed("no port is free");
        };
        let mut store = Store::default();
        for (resource, object) in first_objects(&config) {
            let number = state.number();
            store.create(resource, object, "kubeadm", number);
        }
        let list = bootstrap.list.iter();
        let members = list.map(|(name, peer_url)| Member {
            id: state.number(),
            name: name.clone(),
            peer_url: peer_url.clone(),
            learner: false,
        });
        let members = members.collect();
        state.clusters.push(Cluster {
            ca,
            port,
            server,
            dashboard,
            dashboards,
            members,
            bootstrap,
            bootstrapped: BTreeSet::new(),
            pods: setting(&config, "podSubnet").parse().ok(),
            store,
        });
        let at = state.clusters.len() - 1;
        state.take_part(at, node)
    }
}

/// Returns a value of kubeadm's configuration by its key.
fn setting<'a>(config: &'a str, key: &str) -> &'a str {
    let line = config
        .lines()
        .find_map(|l| l.trim().strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().trim().trim_matches(['"', '\''])
}

/// What an API server makes by itself.
fn first_objects(config: &str) -> Vec<(&'static str, Value)> {
    let services: Option<Cidr> = setting(config, "serviceSubnet").parse().ok();
    let first = services.map_or_else(String::new, |c| c.nth(1).to_string());
    let namespaces = ["default", "kube-system", "kube-public", "kube-node-lease"]
        .iter()
        .map(|name| {
            (
                "namespaces",
                json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }),
            )
        });
    let service = json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kubernetes", "namespace": "default" },
        "spec": { "clusterIP": first, "ports": [{ "name": "https", "port": 443, "targetPort": 6443 }] } });
    namespaces.chain([("services", service)]).collect()
}

/// What `kubeadm init` uploads: its own configuration, and its addon kube-proxy.
fn uploaded_objects(config: &str) -> Vec<(&'static str, Value)> {
    let meta = |name: &str| json!({ "name": name, "namespace": "kube-system" });
    let documents = config.split("---\n");
    let cluster = documents
        .clone()
        .find(|d| d.contains("kind: ClusterConfiguration"))
        .unwrap_or_default();
    vec![
        (
            "configmaps",
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("kubeadm-config"),
            "data": { "ClusterConfiguration": cluster } }),
        ),
        (
            "configmaps",
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("kube-proxy"),
            "data": { "config.conf": config } }),
        ),
        (
            "apps/daemonsets",
            json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta("kube-proxy"),
            "spec": { "selector": { "matchLabels": { "k8s-app": "kube-proxy" } }, "template": {
                "metadata": { "labels": { "k8s-app": "kube-proxy" } },
                "spec": { "hostNetwork": true, "tolerations": [{ "operator": "Exists" }],
                    "containers": [{ "name": "kube-proxy", "image": "kube-proxy" }] } } } }),
        ),
    ]
}

impl State {
    /// Clusters of which no machine has data are gone.
    fn forget_gone(&mut self) {
        let gone = |state: &Self, at: usize| {
            let here = |m: &Member| {
                let data = state.named(&m.name).map(|(_, machine)| machine.text(ETCD_DATA));
                data.is_some_and(|text| text.trim() == m.id.to_string())
            };
            !state.clusters[at].members.iter().any(here)
        };
        for at in (0..self.clusters.len()).rev() {
            if gone(self, at) {
                self.clusters.remove(at);
            }
        }
    }

    /// Makes a certificate authority; prints `ca.crt`.
    pub(super) fn make_authority(&mut self, node: &NodeName) -> Answer {
        self.must_be_intended(node, "a certificate authority", &[StepKind::Certificates]);
        let number = self.number();
        match Authority::new(number) {
            Ok(authority) => {
                let pem = authority.pem.clone();
                self.authorities.insert(authority.digest(), authority);
                Answer::said(pem)
            }
            Err(error) => Answer::failed(&error.to_string()),
        }
    }

    fn authority(&self, node: &NodeName) -> Option<(String, &Authority)> {
        let ca = self.ca_of(node)?;
        let authority = self.authorities.get(&ca)?;
        Some((ca, authority))
    }

    /// Signs a credential by which nodes join.
    pub(super) fn credential(&mut self, node: &NodeName) -> Answer {
        self.must_be_intended(node, "a join credential", &[StepKind::JoinCredential]);
        let number = self.number();
        let Some((ca, authority)) = self.authority(node) else {
            return Answer::failed("no certificate authority");
        };
        let token = format!("join-{number}");
        let text = authority.kubeconfig("landfall-join", &token);
        let ends = self.now_s() + CREDENTIAL_S;
        self.credentials.insert(token, (ends, ca));
        Answer::said(text)
    }

    pub(super) fn admin_conf(&mut self, node: &NodeName) -> Answer {
        match self.authority(node) {
            Some((_, authority)) => Answer::said(authority.kubeconfig("kubernetes-admin", &authority.admin_token)),
            None => Answer::failed("no certificate authority"),
        }
    }

    /// A kubelet asks for its certificate by the join credential, and registers; prints kubelet.conf.
    pub(super) fn join_kubelet(&mut self, node: &NodeName) -> Answer {
        self.must_be_intended(node, "a join", &[StepKind::JoinKubelet, StepKind::JoinWorker]);
        let Some(at) = self.way_to_api(node).filter(|at| self.has_quorum(*at)) else {
            return Answer::failed(
                "error execution phase kubelet-start: couldn't validate the identity of the API Server",
            );
        };
        let conf = self
            .machine(node)
            .map(|m| m.text(layout::JOIN_KUBECONFIG))
            .unwrap_or_default();
        let known = self.credentials.get(setting(&conf, "token"));
        if !known.is_some_and(|(ends, ca)| *ca == self.clusters[at].ca && *ends > self.now_s()) {
            return Answer::failed("error execution phase kubelet-start: Unauthorized");
        }
        let there = self
            .read_all(at, "nodes")
            .into_iter()
            .find(|n| n["metadata"]["name"] == node.as_str());
        if there.is_some_and(|n| super::workloads::is_ready(&n)) {
            let text = format!("a Node with name \"{node}\" and status \"Ready\" already exists in the cluster");
            return Answer::failed(&text);
        }
        self.register(at, node)
    }

    /// A machine's etcd starts with its list. One whose data was lost finds that its peers know it already (etcd's
    /// `isMemberBootstrapped`).
    fn take_part(&mut self, at: usize, node: &NodeName) -> Answer {
        let knows = self.has_quorum(at);
        let cluster = &mut self.clusters[at];
        let Some(id) = cluster.members.iter().find(|m| m.name == node.as_str()).map(|m| m.id) else {
            return Answer::failed("couldn't find local name in the initial cluster configuration");
        };
        if !cluster.bootstrapped.insert(node.to_string()) && knows {
            return Answer::failed(&format!("member {id:x} has already been bootstrapped"));
        }
        Answer::said(format!("{id}\n"))
    }

    /// Says whether a founder's own API server answers, which etcd must have its quorum for.
    pub(super) fn wait_control_plane(&mut self, node: &NodeName) -> Answer {
        let at = self.cluster_of(node);
        let is_ready =
            at.is_some_and(|at| self.has_api_server(at, node) && self.runs_etcd(node) && self.has_quorum(at));
        Answer::said(if is_ready { "ready\n" } else { "not yet\n" }.to_owned())
    }

    /// A founder's kubelet registers.
    pub(super) fn register_founder(&mut self, node: &NodeName) -> Answer {
        match self.cluster_of(node).filter(|at| self.has_quorum(*at)) {
            Some(at) => self.register(at, node),
            None => Answer::failed("etcdserver: request timed out"),
        }
    }

    /// The founder uploads what all kubeadms read later.
    pub(super) fn upload_config(&mut self, node: &NodeName) -> Answer {
        self.must_be_intended(node, "an upload", &[StepKind::Init]);
        let Some(at) = self.cluster_of(node).filter(|at| self.has_quorum(*at)) else {
            return Answer::failed("error execution phase upload-config: etcdserver: request timed out");
        };
        let config = self
            .machine(node)
            .map(|m| m.text(layout::KUBEADM_CONFIG))
            .unwrap_or_default();
        for (resource, object) in uploaded_objects(&config) {
            let number = self.number();
            self.clusters[at].store.create(resource, object, "kubeadm", number);
        }
        Answer::said(String::new())
    }

    fn register(&mut self, at: usize, node: &NodeName) -> Answer {
        let Some(machine) = self.machine(node) else {
            return Answer::failed("no such machine");
        };
        let taints = [layout::KUBELET_JOIN_CONFIG, layout::KUBEADM_CONFIG].map(|path| machine.text(path));
        let tainted = taints[0].contains(TAINT);
        if self.clusters[at].store.get("nodes", "", node.as_str()).is_none() {
            let number = self.number();
            let pods = self.clusters[at].pods;
            let store = &mut self.clusters[at].store;
            let place = u32::try_from(store.all("nodes").count()).unwrap_or(0);
            let pods = pods.map_or_else(String::new, |c| format!("{}/24", c.nth(256 * place)));
            let taint = json!([{ "key": TAINT, "effect": "NoSchedule" }]);
            let object = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node, "labels": {} },
                "spec": { "podCIDR": pods, "taints": if tainted { taint } else { json!([]) } } });
            store.create("nodes", object, "kubelet", number);
        }
        let uid = self.clusters[at].store.get("nodes", "", node.as_str());
        let uid = uid.and_then(|n| n["metadata"]["uid"].as_str()).unwrap_or_default();
        Answer::said(format!("# kubelet of {node}, {uid}, {}\n", self.clusters[at].ca))
    }

    /// Marks a Node as control plane, with the taint that kubeadm's configuration does not take away.
    pub(super) fn mark_control_plane(&mut self, node: &NodeName) -> Answer {
        self.must_be_intended(node, "a marking", &[StepKind::Init, StepKind::FinishControlPlane]);
        let Some(at) = self.cluster_of(node).filter(|at| self.has_quorum(*at)) else {
            return Answer::failed("error execution phase mark-control-plane: etcdserver: request timed out");
        };
        let config = self
            .machine(node)
            .map(|m| m.text(layout::KUBEADM_CONFIG))
            .unwrap_or_default();
        let Some(object) = self.clusters[at].store.get_mut("nodes", "", node.as_str()) else {
            return Answer::failed("error execution phase mark-control-plane: nodes not found");
        };
        object["metadata"]["labels"][TAINT] = json!("");
        if !config.contains("taints: []") {
            object["spec"]["taints"] = json!([{ "key": TAINT, "effect": "NoSchedule" }]);
        }
        Answer::said(String::new())
    }
}
