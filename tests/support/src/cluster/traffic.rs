//! Simulates probes into the cluster from a machine or a pod.

use super::State;
use super::ask::Answer;
use super::workloads::matches;
use landfall_core::layout;
use landfall_core::mesh::{MeshSeen, MeshTry, PortSeen, UdpSeen};
use landfall_core::name::NodeName;
use landfall_core::verify::{ProbeResult, ProbeSpec};
use serde_json::Value;
use std::net::SocketAddr;

fn failed(kind: &str) -> ProbeResult {
    ProbeResult::Failed {
        kind: kind.to_owned(),
        text: format!("{kind} in the model"),
        took_ms: 1,
    }
}

fn page(status: u16, body: &str) -> ProbeResult {
    ProbeResult::Http {
        status,
        body: body.to_owned(),
        took_ms: 1,
    }
}

/// Arguments of a DaemonSet's program.
fn arguments(set: &Value) -> impl Iterator<Item = &str> {
    let list = set["spec"]["template"]["spec"]["containers"][0]["args"].as_array();
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// Says whether a proxy asks nobody for a password.
pub(super) fn is_open(proxy: &Value) -> bool {
    arguments(proxy).any(|a| a == "--dashboard-auth=none")
}

impl State {
    /// Returns the cluster whose API a machine reaches through its own balancer: an API server that is ready, else one that is there.
    pub(super) fn way_to_api(&self, node: &NodeName) -> Option<usize> {
        let unit = "landfall-api-balancer.service";
        if !self.runs(node, unit) {
            return None;
        }
        let text = self.machine(node)?.text(&format!("{}/{unit}", layout::UNIT_DIR));
        let backends = text.split_whitespace().filter_map(|word| word.strip_suffix(":6443"));
        let owners =
            backends.filter_map(|address| self.machines.iter().find(|(_, m)| m.address.to_string() == address));
        let servers = owners.filter_map(|(name, _)| Some((name, self.cluster_of(name)?)));
        let servers: Vec<_> = servers.filter(|(name, at)| self.has_api_server(*at, name)).collect();
        let ready = servers.iter().find(|(_, at)| self.has_quorum(*at));
        ready.or(servers.first()).map(|(_, at)| *at)
    }

    /// Answers where a connection to an address really goes: a port of this machine's loopback.
    pub(super) fn connect(&self, node: &NodeName, address: &str) -> Answer {
        let dashboard = address.strip_prefix("127.0.0.1:").and_then(|port| port.parse().ok());
        if let (Some(at), Some(port)) = (self.cluster_of(node), dashboard)
            && let Some(machine) = self.machine(node)
            && self.proxy_on(at, &machine.address.to_string(), port).is_some()
        {
            return Answer::said(self.clusters[at].dashboard.to_string());
        }
        let balancer = format!("127.0.0.1:{}", layout::API_BALANCER_PORT);
        match self.way_to_api(node).filter(|_| address == balancer) {
            Some(at) => Answer::said(self.clusters[at].port.to_string()),
            None => Answer::failed("connection refused"),
        }
    }

    /// Remembers where a machine listens: its address, and the port of this machine's loopback that stands for it.
    pub(super) fn listen(&mut self, words: &[String]) -> Answer {
        let read = |at: usize| words.get(at).map_or("", String::as_str);
        let (Ok(address), Ok(port)) = (read(1).parse(), read(2).parse()) else {
            return Answer::failed("listen ADDRESS PORT");
        };
        self.listeners.insert(address, port);
        Answer::said(String::new())
    }

    /// Answers where another machine's listener really is, unless that machine is off or cut off from this one.
    pub(super) fn relay(&self, node: &NodeName, address: &str) -> Answer {
        let address: Option<SocketAddr> = address.parse().ok();
        let owner = address.and_then(|address| self.machines.iter().find(|(_, m)| m.address == address.ip()));
        let is_reached = owner
            .is_some_and(|(peer, _)| !self.cut.contains(&(node.clone(), peer.clone())) && !self.off.contains(peer));
        match address
            .and_then(|address| self.listeners.get(&address))
            .filter(|_| is_reached)
        {
            Some(port) => Answer::said(port.to_string()),
            None => Answer::failed("connection refused"),
        }
    }

    /// Tries other machines: each is reached on every port, unless it is off or cut off from this one.
    pub(super) fn mesh(&mut self, node: &NodeName, input: &str) -> Answer {
        self.meshes += 1;
        let asked: MeshTry = match serde_json::from_str(input) {
            Ok(asked) => asked,
            Err(error) => return Answer::failed(&error.to_string()),
        };
        let seen = asked.peers.iter().map(|peer| {
            let pair = (node.clone(), peer.node.clone());
            let is_reached = !self.cut.contains(&pair) && !self.off.contains(&peer.node);
            let port = if is_reached {
                PortSeen::Open { took_us: 200 }
            } else {
                PortSeen::Silent
            };
            let ports = peer.tcp.iter().chain(&peer.daemons);
            MeshSeen {
                node: peer.node.clone(),
                tcp: ports.map(|number| (*number, port.clone())).collect(),
                udp: peer.udp.map(|_| UdpSeen {
                    sent: 20,
                    answered: if is_reached { 20 } else { 0 },
                    round_trip_us: is_reached.then_some(200),
                    mtu: 1500,
                    largest: if is_reached { 1500 } else { 0 },
                }),
            }
        });
        let seen: Vec<MeshSeen> = seen.collect();
        Answer::said(serde_json::json!(seen).to_string())
    }

    /// Tries probes as seen from a machine, or from a pod on it.
    pub(super) fn probe(&self, node: &NodeName, input: &str) -> Answer {
        let probes: Vec<ProbeSpec> = match serde_json::from_str(input) {
            Ok(probes) => probes,
            Err(error) => return Answer::failed(&error.to_string()),
        };
        let results: Vec<ProbeResult> = probes.iter().map(|probe| self.try_one(node, probe)).collect();
        Answer::said(serde_json::json!(results).to_string())
    }

    fn try_one(&self, node: &NodeName, probe: &ProbeSpec) -> ProbeResult {
        let Some(at) = self.cluster_of(node) else {
            return failed("unreachable");
        };
        match probe {
            ProbeSpec::Http { address, host, .. } => {
                let Some((ip, port)) = address.rsplit_once(':') else {
                    return failed("other");
                };
                self.http(at, ip, port.parse().unwrap_or(0), host)
            }
            ProbeSpec::Dns { name, server, .. } => self.dns(at, name, server.as_deref()),
        }
    }

    fn behind(&self, at: usize, service: &Value) -> ProbeResult {
        let text = |key: &str| service["metadata"][key].as_str().unwrap_or_default();
        if !self.has_endpoints(at, text("namespace"), text("name")) {
            return failed("refused");
        }
        let is_sample = service["spec"]["selector"]["app.kubernetes.io/name"] == "nginx";
        page(200, if is_sample { "Welcome to nginx!" } else { "landfall" })
    }

    fn http(&self, at: usize, ip: &str, port: u64, host: &str) -> ProbeResult {
        let store = &self.clusters[at].store;
        let services = || store.all("services");
        if let Some(service) = services().find(|s| s["spec"]["clusterIP"] == ip) {
            return self.behind(at, service);
        }
        let machine = |node: &Value| self.named(node["metadata"]["name"].as_str().unwrap_or_default());
        let is_node = store
            .all("nodes")
            .filter_map(machine)
            .any(|(_, machine)| machine.address.to_string() == ip);
        let pods = self.pods(at);
        let pod_at = |p: &&Value| p["status"]["podIP"] == ip && p["status"]["containerStatuses"][0]["ready"] == true;
        if !is_node {
            return match pods.iter().find(pod_at) {
                Some(_) => page(200, "Welcome to nginx!"),
                None => failed("timeout"),
            };
        }
        let of_port = |s: &&Value| s["spec"]["ports"][0]["nodePort"] == port;
        if let Some(service) = services().find(of_port) {
            return self.behind(at, service);
        }
        let Some(proxy) = self.proxy_on(at, ip, port) else {
            return failed("refused");
        };
        let mut rules = store.all("networking.k8s.io/ingresses");
        let Some(rule) = rules.find(|r| r["spec"]["rules"][0]["host"] == host) else {
            return page(404, "not found");
        };
        let wanted = &rule["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"];
        let of = |s: &&Value| {
            &s["metadata"]["name"] == wanted && s["metadata"]["namespace"] == rule["metadata"]["namespace"]
        };
        match services().find(of) {
            Some(service) if service["metadata"]["name"] == layout::DASHBOARD && !is_open(proxy) => page(
                401,
                "401: user and password of the landfall ingress dashboard are needed",
            ),
            Some(service) => self.behind(at, service),
            None => page(503, "no Service"),
        }
    }

    /// The DaemonSet whose pod on the node with this address listens on this port.
    fn proxy_on(&self, at: usize, ip: &str, port: u64) -> Option<&Value> {
        let argument = format!(":{port}");
        let listens = |d: &&Value| arguments(d).any(|a| a.ends_with(&argument));
        let proxy = self.clusters[at].store.all("apps/daemonsets").find(listens)?;
        let pods = self.pods(at);
        let ready = |p: &&Value| p["status"]["podIP"] == ip && p["status"]["containerStatuses"][0]["ready"] == true;
        let selector = &proxy["spec"]["selector"]["matchLabels"];
        let runs = pods
            .iter()
            .filter(ready)
            .any(|p| matches(&p["metadata"]["labels"], selector));
        runs.then_some(proxy)
    }

    fn dns(&self, at: usize, name: &str, server: Option<&str>) -> ProbeResult {
        let answer = |rcode: &str, addresses| ProbeResult::Dns {
            rcode: rcode.to_owned(),
            addresses,
            took_ms: 1,
        };
        let store = &self.clusters[at].store;
        let named = |wanted: &str| store.all("services").find(|s| s["metadata"]["name"] == wanted);
        let own = named("kube-dns")
            .and_then(|s| s["spec"]["clusterIP"].as_str())
            .unwrap_or_default();
        let asked = server.map_or(own, |s| s.trim_end_matches(":53"));
        if asked != own || !self.has_endpoints(at, "kube-system", "kube-dns") {
            return failed("timeout");
        }
        let corefile = store.get("configmaps", "kube-system", "coredns");
        let corefile = corefile
            .and_then(|c| c["data"]["Corefile"].as_str())
            .unwrap_or_default();
        let domain = corefile.split(':').next().unwrap_or_default();
        let names = [
            format!("kubernetes.default.svc.{domain}."),
            "kubernetes.default".to_owned(),
        ];
        if names.iter().any(|n| n == name) {
            let address = named("kubernetes").and_then(|s| s["spec"]["clusterIP"].as_str());
            return answer("NOERROR", address.map(str::to_owned).into_iter().collect());
        }
        answer(
            if corefile.contains("NXDOMAIN") {
                "NXDOMAIN"
            } else {
                "SERVFAIL"
            },
            vec![],
        )
    }
}
