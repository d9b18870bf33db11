//! Reads the targets of verify from the API.

use super::{Expectation, Target, TargetKind, VantageKind, Ways};
use crate::cluster::{Cluster, api_error, is_node_ready};
use crate::context::Way;
use crate::fleet::Sessions;
use crate::kubeconfig::url_host;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use kube::{Client, Error};
use landfall_core::cluster_record::ClusterRecord;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::layout::{SAMPLE_NAMESPACE, SAMPLE_PORT};
use landfall_core::name::NodeName;
use landfall_core::spec::ingress::DashboardAuth;
use landfall_core::spec::{ClusterSpec, Desired};
use landfall_core::verify::{ProbeSpec, Scheme};
use landfall_manifests::SAMPLE_NODE_PORT;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Text that the sample's page holds.
const SAMPLE_TEXT: &str = "Welcome to nginx!";
/// Texts of the dashboard: its answer without a password, and its page when no password is needed.
const DASHBOARD_LOCKED: &str = "landfall ingress dashboard";
const DASHBOARD_OPEN: &str = "landfall";
/// A host that no Ingress names.
const WRONG_HOST: &str = "no-such-host.landfall.invalid";
/// A name that no DNS server has (RFC 6761 reserves the domain).
const WRONG_NAME: &str = "no-such-name.landfall.invalid.";
/// Time for one probe: a healthy one answers in milliseconds; a lost SYN is repeated after 1 s and then 2 s.
const PROBE_MS: u64 = 4000;
/// Time limit of the negative DNS answer: it must not wait for time-outs of servers that do not exist.
const NEGATIVE_MS: u64 = 1000;

/// Whether the sample can be probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sample {
    /// The spec leaves it out.
    NotWanted,
    /// Its Service does not exist: somebody has deleted it.
    Absent,
    /// Its Service exists.
    There,
}

/// All targets, and what is needed to probe them.
pub(crate) struct Targets {
    /// Nodes that the API knows, with whether they are Ready; `None` when the API does not answer.
    pub ready: Option<BTreeMap<NodeName, bool>>,
    /// Node name → container id of its probe pod.
    pub probe_containers: BTreeMap<NodeName, String>,
    node_addresses: Vec<(String, String)>,
    /// Why packet filters let no other machine reach NodePorts; nodes that let them are absent.
    pub closed_node_ports: BTreeMap<NodeName, String>,
    /// Whether there is a sample to look at.
    pub sample: Sample,
    pods: Vec<String>,
    cluster_ip: Option<String>,
    node_port: Option<i32>,
    dns_ip: String,
    closed_dns: bool,
}

/// Reads the targets from the API, through the first control plane whose API answers. Blocks for the requests.
pub(crate) fn look_up(desired: &Desired, cluster: &Cluster, members: &Sessions) -> Result<Targets, Diagnosis> {
    let mut last = Diagnosis::new(
        Code::ClusterApi,
        "no control plane node is connected, so the cluster cannot be asked",
    )
    .next("landfall status");
    for node in desired.inventory.control_planes() {
        let Some(session) = members.get(&node.name) else {
            continue;
        };
        let read = cluster.with_client(session, |client| async move {
            read(desired, client)
                .await
                .map_err(|error| api_error("the cluster cannot be asked what there is to verify", &error))
        });
        match read {
            Ok(targets) => return Ok(targets),
            Err(diagnosis) => last = diagnosis.on(&node.name),
        }
    }
    Err(last)
}

async fn read(desired: &Desired, client: Client) -> Result<Targets, Error> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let address_of = |node: &Node| {
        let addresses = node.status.as_ref()?.addresses.as_ref()?;
        addresses
            .iter()
            .find(|a| a.type_ == "InternalIP")
            .map(|a| a.address.clone())
    };
    let node_addresses = nodes
        .items
        .iter()
        .filter_map(|n| Some((n.metadata.name.clone()?, address_of(n)?)))
        .collect::<Vec<_>>();
    let ready = nodes.items.iter();
    let ready = ready.filter_map(|n| Some((n.metadata.name.as_ref()?.parse().ok()?, is_node_ready(n))));
    let ready = Some(ready.collect());
    let mut sample = Sample::NotWanted;
    let (mut cluster_ip, mut node_port, mut pods) = (None, None, Vec::new());
    if desired.spec.sample {
        let service = Api::<Service>::namespaced(client.clone(), SAMPLE_NAMESPACE)
            .get_opt("nginx")
            .await?;
        sample = if service.is_some() {
            Sample::There
        } else {
            Sample::Absent
        };
        let spec = service.and_then(|s| s.spec).unwrap_or_default();
        node_port = spec.ports.iter().flatten().find_map(|p| p.node_port);
        cluster_ip = spec.cluster_ip;
        let slices = ListParams::default().labels("kubernetes.io/service-name=nginx");
        let slices = Api::<EndpointSlice>::namespaced(client.clone(), SAMPLE_NAMESPACE)
            .list(&slices)
            .await?;
        let ready = |e: &k8s_openapi::api::discovery::v1::Endpoint| {
            e.conditions.as_ref().is_none_or(|c| c.ready.unwrap_or(true))
        };
        let endpoints = slices
            .items
            .iter()
            .flat_map(|s| s.endpoints.iter().flatten())
            .filter(|e| ready(e));
        pods = endpoints.filter_map(|e| e.addresses.first().cloned()).collect();
        pods.sort();
        pods.dedup();
    }
    let probes = Api::<Pod>::namespaced(client.clone(), "landfall-system")
        .list(&ListParams::default())
        .await?;
    let config = Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(client, "kube-system")
        .get("coredns")
        .await?;
    let corefile = config.data.and_then(|d| d.get("Corefile").cloned()).unwrap_or_default();
    Ok(Targets {
        ready,
        probe_containers: probes.items.iter().filter_map(probe_container).collect(),
        node_addresses,
        closed_node_ports: BTreeMap::new(),
        sample,
        pods,
        cluster_ip,
        node_port,
        dns_ip: desired.spec.service_cidr.nth(10).to_string(),
        closed_dns: corefile.contains("NXDOMAIN"),
    })
}

/// Returns the hosts that the ingress proxy is asked for, with the expected status and a text of the answer.
fn hosts(spec: &ClusterSpec, sample: Sample) -> Vec<(&str, u16, &'static str)> {
    let sample = (sample == Sample::There).then_some((spec.sample_host.as_str(), 200, SAMPLE_TEXT));
    // Probes do not send the password over the network, so the expected answer asks for it.
    let (status, text) = match spec.ingress.dashboard_auth {
        DashboardAuth::Password => (401, DASHBOARD_LOCKED),
        DashboardAuth::None => (200, DASHBOARD_OPEN),
    };
    let dashboard = (spec.ingress.dashboard_host.as_str(), status, text);
    let dashboard = spec.ingress.dashboard.then_some(dashboard);
    sample
        .into_iter()
        .chain(dashboard)
        .chain([(WRONG_HOST, 404, "")])
        .collect()
}

/// Returns the node and the container id of a running probe pod.
fn probe_container(pod: &Pod) -> Option<(NodeName, String)> {
    let node = pod.spec.as_ref()?.node_name.as_ref()?.parse().ok()?;
    let status = pod
        .status
        .as_ref()?
        .container_statuses
        .as_ref()?
        .iter()
        .find(|s| s.ready)?;
    let id = status.container_id.as_ref()?.strip_prefix("containerd://")?;
    Some((node, id.to_owned()))
}

impl Targets {
    /// Returns the targets that are known without the API: addresses of nodes, from the cluster's record or else from the inventory, and ports. Only
    /// the API knows addresses of pods and Services, and which pods probe.
    pub(crate) fn without_api(desired: &Desired, record: Option<&ClusterRecord>, ways: &Ways) -> Self {
        let address = |node: &landfall_core::inventory::Node| {
            let recorded = record.and_then(|r| r.members.get(&node.name)).map(|m| m.address);
            let listed = recorded.or(node.access_ip).or(node.ip);
            let resolved = match ways.get(&node.name) {
                Some(Way::Host { addresses, .. }) => addresses.first().copied(),
                Some(Way::Proxy) | None => None,
            };
            // Behind a loopback address is a port of this machine that is forwarded, and no other port of the node.
            let literal = node.connect.host.parse().ok();
            listed
                .or(literal.filter(|host: &IpAddr| !host.is_loopback()))
                .or(resolved)
        };
        let members = desired.inventory.members();
        let addresses = members.filter_map(|n| Some((n.name.to_string(), address(n)?.to_string())));
        let sample = if desired.spec.sample {
            Sample::There
        } else {
            Sample::NotWanted
        };
        let closed = record
            .and_then(|r| r.kept.upstream_dns.as_ref())
            .is_some_and(Vec::is_empty);
        Self {
            ready: None,
            probe_containers: BTreeMap::new(),
            node_addresses: addresses.collect(),
            closed_node_ports: BTreeMap::new(),
            sample,
            pods: vec![],
            cluster_ip: None,
            node_port: (sample == Sample::There).then(|| i32::from(SAMPLE_NODE_PORT)),
            dns_ip: desired.spec.service_cidr.nth(10).to_string(),
            closed_dns: closed,
        }
    }

    /// Returns the names of targets whose address is unknown without the API, for a source that is no pod.
    pub(crate) fn unknown(&self, source: VantageKind) -> &'static [&'static str] {
        let has_routes = matches!(source, VantageKind::Node | VantageKind::Outside);
        if self.ready.is_none() && self.sample == Sample::There && has_routes {
            &["pod-ip", "cluster-ip"]
        } else {
            &[]
        }
    }

    /// Returns the address of the node that static routes of outside machines should lead to.
    pub(crate) fn gateway(&self) -> Option<&str> {
        self.node_addresses.first().map(|(_, address)| address.as_str())
    }

    /// Returns the targets of a source of this kind, on this member if it is on one. `ways` say how the operator reaches the nodes.
    pub(crate) fn seen_from(
        &self,
        vantage: VantageKind,
        member: Option<&NodeName>,
        desired: &Desired,
        ways: &Ways,
    ) -> Vec<Target> {
        let spec = &desired.spec;
        let sample =
            |kind, name: String, at: &At, port, host: &str| at.target(kind, name, port, host, 200, SAMPLE_TEXT);
        let mut targets = Vec::new();
        for pod in &self.pods {
            targets.push(sample(
                TargetKind::PodIp,
                format!("pod-ip/{pod}"),
                &At::only(pod),
                SAMPLE_PORT,
                pod,
            ));
        }
        if let Some(ip) = &self.cluster_ip {
            targets.push(sample(
                TargetKind::ClusterIp,
                "cluster-ip".to_owned(),
                &At::only(ip),
                SAMPLE_PORT,
                ip,
            ));
        }
        for (node, address) in &self.node_addresses {
            let at = match vantage {
                VantageKind::Operator => At::seen_by_operator(node, address, ways),
                VantageKind::Pod | VantageKind::Node | VantageKind::Outside => At::only(address),
            };
            if let Some(port) = self.node_port.and_then(|port| u16::try_from(port).ok()) {
                let name = format!("node-port/{node}");
                targets.push(Target {
                    filtered: self.filter_between(member, node),
                    ..sample(TargetKind::NodePort, name, &at, port, address)
                });
            }
            if spec.ingress.enabled {
                for (n, (host, status, text)) in hosts(spec, self.sample).into_iter().enumerate() {
                    let name = format!("ingress/{node}/{host}");
                    targets.push(at.target(TargetKind::Ingress, name, spec.ingress.http_port, host, status, text));
                    // One target is enough: requests over TLS use the same routes as all others.
                    if n == 0 {
                        let name = format!("ingress-tls/{node}/{host}");
                        let port = spec.ingress.https_port;
                        targets.push(at.target(TargetKind::IngressTls, name, port, host, status, text));
                    }
                }
            }
        }
        targets.extend(self.names(vantage, desired));
        targets
    }

    /// Says which packet filter keeps a source away from the NodePorts of a node. It does not drop what the node itself and its pods send there.
    fn filter_between(&self, member: Option<&NodeName>, node: &str) -> Option<String> {
        let mut closed = self.closed_node_ports.iter();
        let (name, why) = closed.find(|(name, _)| name.as_str() == node)?;
        (member != Some(name)).then(|| why.clone())
    }

    fn names(&self, vantage: VantageKind, desired: &Desired) -> Vec<Target> {
        let domain = &desired.spec.cluster_domain;
        // A pod asks the servers of its own resolver file; all other sources ask the DNS Service's address.
        let server = (vantage != VantageKind::Pod).then(|| format!("{}:53", self.dns_ip));
        let dns = |name: &str, tcp, expect| Target {
            kind: TargetKind::Dns,
            name: format!("dns/{}/{name}", if tcp { "tcp" } else { "udp" }),
            probes: vec![ProbeSpec::Dns {
                name: name.to_owned(),
                server: server.clone(),
                tcp,
                timeout_ms: PROBE_MS,
            }],
            expect,
            unrouted: None,
            filtered: None,
        };
        let api = desired.spec.service_cidr.nth(1).to_string();
        let full = format!("kubernetes.default.svc.{domain}.");
        let mut targets = vec![
            dns(&full, false, Expectation::Resolves(api.clone())),
            dns(&full, true, Expectation::Resolves(api.clone())),
        ];
        if vantage == VantageKind::Pod {
            targets.push(dns("kubernetes.default", false, Expectation::Resolves(api.clone())));
            targets.push(dns("kubernetes.default", true, Expectation::Resolves(api)));
        }
        if self.closed_dns {
            targets.push(dns(
                WRONG_NAME,
                false,
                Expectation::NoSuchName { within_ms: NEGATIVE_MS },
            ));
        }
        targets
    }
}

/// Where a target is probed.
struct At {
    /// The addresses, the one in the cluster last.
    addresses: Vec<String>,
    /// See [`Target::unrouted`].
    unrouted: Option<String>,
}

impl At {
    fn only(address: &str) -> Self {
        Self {
            addresses: vec![address.to_owned()],
            unrouted: None,
        }
    }

    /// Returns where the operator looks for a node. One that logs in at another address than the node's own looks there first, as others outside
    /// would; whether it has a route to the node's own address nobody knows.
    fn seen_by_operator(node: &str, address: &str, ways: &Ways) -> Self {
        let only = Self::only(address);
        let way = ways.iter().find(|(name, _)| name.as_str() == node).map(|(_, way)| way);
        match way {
            None => only,
            Some(Way::Proxy) => Self {
                unrouted: Some(format!(
                    "the operator logs in to {node} through another machine, and has no route to {address}"
                )),
                ..only
            },
            Some(way) => match way.other_host(address.parse().ok()) {
                None => only,
                Some((host, others)) => Self {
                    addresses: others
                        .iter()
                        .map(|other| url_host(&other.to_string()))
                        .chain(only.addresses)
                        .collect(),
                    unrouted: Some(format!(
                        "the operator logs in to {node} at {host}, where this port is not open, and has no route to {address}"
                    )),
                },
            },
        }
    }

    fn target(&self, kind: TargetKind, name: String, port: u16, host: &str, status: u16, contains: &str) -> Target {
        let scheme = if kind == TargetKind::IngressTls {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let probe = |address: &String| ProbeSpec::Http {
            scheme,
            address: format!("{address}:{port}"),
            host: host.to_owned(),
            path: "/".to_owned(),
            timeout_ms: PROBE_MS,
        };
        Target {
            kind,
            name,
            probes: self.addresses.iter().map(probe).collect(),
            expect: Expectation::Http {
                status,
                contains: contains.to_owned(),
            },
            unrouted: self.unrouted.clone(),
            filtered: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(desired: &Desired, ways: &Ways) -> Targets {
        Targets::without_api(desired, None, ways)
    }

    /// Returns the addresses at which the node port of `cp-1` is probed, and whether it may be skipped.
    fn probed(desired: &Desired, ways: &Ways, vantage: VantageKind) -> (Vec<String>, bool) {
        let targets = targets(desired, ways).seen_from(vantage, None, desired, ways);
        let target = targets.into_iter().find(|t| t.name == "node-port/cp-1").unwrap();
        let addresses = target.probes.into_iter().map(|probe| match probe {
            ProbeSpec::Http { address, .. } => address,
            ProbeSpec::Dns { .. } => unreachable!("a node port is asked over HTTP"),
        });
        (addresses.collect(), target.unrouted.is_some())
    }

    #[test]
    fn the_operator_looks_where_it_logs_in_and_others_at_the_nodes_own_address() {
        let text = "name: ship\nnodes:\n- { name: cp-1, role: control-plane, host: 203.0.113.1, ip: 10.0.0.1 }\n";
        let desired = landfall_core::spec::parse::cluster_yaml(text, "cluster.yaml").unwrap();
        let ways = |way| Ways::from([("cp-1".parse().unwrap(), way)]);
        let at = |address: &str| Way::to_host("cp1.example.test", |_| vec![address.parse().unwrap()]);
        let outer = ways(at("203.0.113.1"));
        let (own, both) = ("10.0.0.1:30080".to_owned(), "203.0.113.1:30080".to_owned());
        assert_eq!(
            probed(&desired, &outer, VantageKind::Operator),
            (vec![both, own.clone()], true)
        );
        for inside in [VantageKind::Node, VantageKind::Pod, VantageKind::Outside] {
            assert_eq!(probed(&desired, &outer, inside), (vec![own.clone()], false));
        }
        // The login goes to the node's own address, or to a port of this machine that is forwarded.
        for way in [at("10.0.0.1"), at("127.0.0.1")] {
            assert_eq!(
                probed(&desired, &ways(way), VantageKind::Operator),
                (vec![own.clone()], false)
            );
        }
        let jump = ways(Way::Proxy);
        assert_eq!(probed(&desired, &jump, VantageKind::Operator), (vec![own], true));
    }

    #[test]
    fn a_node_that_is_named_alone_is_probed_at_what_its_name_resolves_to() {
        let text = "name: ship\nnodes:\n- { name: cp-1, role: control-plane, host: cp1.example.test }\n";
        let desired = landfall_core::spec::parse::cluster_yaml(text, "cluster.yaml").unwrap();
        let way = Way::to_host("cp1.example.test", |_| vec!["10.0.0.1".parse().unwrap()]);
        let ways = Ways::from([("cp-1".parse().unwrap(), way)]);
        let (addresses, _) = probed(&desired, &ways, VantageKind::Operator);
        assert_eq!(addresses, ["10.0.0.1:30080"]);
        assert!(targets(&desired, &Ways::new()).node_addresses.is_empty());
    }

    #[test]
    fn a_filter_closes_node_ports_to_others_than_the_node_itself() {
        let text = "name: ship\nnodes:\n- { name: cp-1, role: control-plane, ip: 10.0.0.1 }\n- { name: w-1, role: worker, ip: 10.0.0.2 }\n";
        let desired = landfall_core::spec::parse::cluster_yaml(text, "cluster.yaml").unwrap();
        let ways = Ways::new();
        let mut targets = targets(&desired, &ways);
        let name = |name: &str| -> NodeName { name.parse().unwrap() };
        targets.closed_node_ports = BTreeMap::from([(name("cp-1"), "a filter".to_owned())]);
        let filtered = |vantage, member: Option<&NodeName>| -> Vec<String> {
            let seen = targets.seen_from(vantage, member, &desired, &ways).into_iter();
            let filtered = seen.filter(|target| target.filtered.is_some());
            filtered.map(|target| target.name).collect()
        };
        let (own, other) = (name("cp-1"), name("w-1"));
        assert_eq!(filtered(VantageKind::Operator, None), ["node-port/cp-1"]);
        for inside in [VantageKind::Node, VantageKind::Pod] {
            assert_eq!(filtered(inside, Some(&other)), ["node-port/cp-1"]);
            assert_eq!(filtered(inside, Some(&own)), [""; 0]);
        }
    }

    #[test]
    fn a_sample_that_was_left_out_or_deleted_is_not_probed() {
        let mut spec = ClusterSpec::default();
        let mut sample = Sample::There;
        let names_of = |spec: &ClusterSpec, sample| -> Vec<String> {
            hosts(spec, sample)
                .iter()
                .map(|(host, ..)| (*host).to_owned())
                .collect()
        };
        assert_eq!(
            names_of(&spec, sample),
            ["test.nginx.com", "ui.landfall.local", WRONG_HOST]
        );
        spec.ingress.dashboard = false;
        assert_eq!(names_of(&spec, sample), ["test.nginx.com", WRONG_HOST]);
        for gone in [Sample::Absent, Sample::NotWanted] {
            assert_eq!(names_of(&spec, gone), [WRONG_HOST]);
        }
        sample = Sample::Absent;
        spec.ingress.dashboard = true;
        assert_eq!(hosts(&spec, sample)[0], ("ui.landfall.local", 401, DASHBOARD_LOCKED));
        spec.ingress.dashboard_auth = DashboardAuth::None;
        assert_eq!(hosts(&spec, sample)[0].1, 200);
        assert_eq!(names_of(&spec, sample), ["ui.landfall.local", WRONG_HOST]);
    }
}
