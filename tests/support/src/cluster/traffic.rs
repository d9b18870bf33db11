//! Ways into the cluster: what a probe from a machine or a pod would see.

use super::State;
use super::ask::Answer;
use super::workloads::matches;
use landfall_core::layout;
use landfall_core::name::NodeName;
use landfall_core::verify::{ProbeResult, ProbeSpec};
use serde_json::Value;

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
        let balancer = format!("127.0.0.1:{}", layout::API_BALANCER_PORT);
        match self.way_to_api(node).filter(|_| address == balancer) {
            Some(at) => Answer::said(self.clusters[at].port.to_string()),
            None => Answer::failed("connection refused"),
        }
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
        let services = self.read_all(at, "services");
        if let Some(service) = services.iter().find(|s| s["spec"]["clusterIP"] == ip) {
            return self.behind(at, service);
        }
        let nodes = self.read_all(at, "nodes");
        let is_node = nodes.iter().any(|n| n["status"]["addresses"][0]["address"] == ip);
        let pods = self.pods(at);
        let pod_at = |p: &&Value| p["status"]["podIP"] == ip && p["status"]["containerStatuses"][0]["ready"] == true;
        if !is_node {
            return match pods.iter().find(pod_at) {
                Some(_) => page(200, "Welcome to nginx!"),
                None => failed("timeout"),
            };
        }
        let of_port = |s: &&Value| s["spec"]["ports"][0]["nodePort"] == port;
        if let Some(service) = services.iter().find(of_port) {
            return self.behind(at, service);
        }
        let proxies: Vec<Value> = self.read_all(at, "apps/daemonsets");
        let argument = format!(":{port}");
        let listens = |d: &&Value| {
            let arguments = d["spec"]["template"]["spec"]["containers"][0]["args"].as_array();
            arguments.is_some_and(|list| list.iter().any(|a| a.as_str().is_some_and(|a| a.ends_with(&argument))))
        };
        let proxy = proxies.iter().find(listens);
        let runs = proxy.is_some_and(|d| {
            let of = |p: &&Value| matches(&p["metadata"]["labels"], &d["spec"]["selector"]["matchLabels"]);
            pods.iter().filter(of).any(|p| pod_at(&p))
        });
        if !runs {
            return failed("refused");
        }
        let rules = self.read_all(at, "networking.k8s.io/ingresses");
        let Some(rule) = rules.iter().find(|r| r["spec"]["rules"][0]["host"] == host) else {
            return page(404, "not found");
        };
        let wanted = &rule["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"];
        let of = |s: &&Value| {
            &s["metadata"]["name"] == wanted && s["metadata"]["namespace"] == rule["metadata"]["namespace"]
        };
        services
            .iter()
            .find(of)
            .map_or_else(|| page(503, "no Service"), |service| self.behind(at, service))
    }

    fn dns(&self, at: usize, name: &str, server: Option<&str>) -> ProbeResult {
        let answer = |rcode: &str, addresses| ProbeResult::Dns {
            rcode: rcode.to_owned(),
            addresses,
            took_ms: 1,
        };
        let services = self.read_all(at, "services");
        let named = |wanted: &str| services.iter().find(|s| s["metadata"]["name"] == wanted);
        let own = named("kube-dns")
            .and_then(|s| s["spec"]["clusterIP"].as_str())
            .unwrap_or_default();
        let asked = server.map_or(own, |s| s.trim_end_matches(":53"));
        if asked != own || !self.has_endpoints(at, "kube-system", "kube-dns") {
            return failed("timeout");
        }
        let store = &self.clusters[at].store;
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
