//! Rules that span fields and machines.

use super::{ClusterSpec, Desired, Problems, dns};
use crate::explain::{Code, Diagnosis};
use crate::inventory::{Connection, Inventory, Node, Proxy};
use crate::layout;
use crate::name::is_dns_name;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Adds every broken rule to `problems`.
pub fn validate(desired: &Desired, problems: &mut Problems) {
    let mut topology = |text: String, next: &str| {
        problems.push(Diagnosis::new(Code::SpecTopology, text).next(next));
    };
    validate_machines(&desired.inventory, &mut topology);
    validate_networks(desired, &mut topology);
    validate_names(&desired.spec, &mut topology);
    validate_ports(&desired.spec, &mut topology);
    desired.spec.pod_network.validate(&mut topology);
    desired.spec.ingress.validate(&mut topology);
    dns::validate(&desired.spec, &mut topology);
}

/// What is wrong, and what to do about it.
type Report<'a> = &'a mut dyn FnMut(String, &str);

/// Says what is wrong with a number of control planes, and what to do about it.
pub fn control_planes(number: usize) -> Option<(String, &'static str)> {
    (![1, 3, 5].contains(&number)).then(|| {
        (
            format!("{number} control planes are named; 1, 3 or 5 can be"),
            "etcd needs an odd number of members to outlive a lost one: add or remove a control plane",
        )
    })
}

/// Checks that the control planes can form a quorum and that no machine is listed twice.
fn validate_machines(inventory: &Inventory, report: Report) {
    if let Some((text, next)) = control_planes(inventory.control_planes().count()) {
        report(text, next);
    }
    let mut names = BTreeMap::new();
    let mut places = BTreeMap::new();
    for node in &inventory.nodes {
        *names.entry(&node.name).or_insert(0) += 1;
        *places.entry((&node.connect.host, node.connect.port)).or_insert(0) += 1;
    }
    for (name, _) in names.iter().filter(|(_, n)| **n > 1) {
        report(
            format!("the machine {name} is named more than once"),
            "give each machine one name and one role",
        );
    }
    for ((host, port), _) in places.iter().filter(|(_, n)| **n > 1) {
        report(
            format!("more than one machine is reached at {host} port {port}"),
            "give each machine its own host",
        );
    }
    let local: Vec<&str> = inventory
        .nodes
        .iter()
        .filter(|node| node.connect.connection == Connection::Local)
        .map(|node| node.name.as_str())
        .collect();
    if local.len() > 1 {
        report(
            format!("{} are all said to be this machine", local.join(", ")),
            "one machine alone can have a local connection: reach the others over SSH",
        );
    }
    let by_openssh = |node: &&Node| node.connect.connection == Connection::Openssh;
    for node in inventory.nodes.iter().filter(by_openssh) {
        if matches!(node.connect.ssh.proxy, Some(Proxy::Jump(_) | Proxy::Command(_))) {
            report(
                format!(
                    "{} is reached by ssh itself, to which jump and proxyCommand are not passed",
                    node.name
                ),
                "leave them out, and write ProxyJump or ProxyCommand into ~/.ssh/config",
            );
        }
        if node.connect.password.is_some() {
            report(
                format!(
                    "{} is reached by ssh itself, which asks for passwords itself",
                    node.name
                ),
                "leave out password and passwordFile",
            );
        }
    }
    for node in &inventory.nodes {
        if let Some(v6) = node.ip.iter().chain(&node.access_ip).find(|ip| ip.is_ipv6()) {
            report(
                format!(
                    "{v6} of {} is an IPv6 address; clusters of landfall are IPv4",
                    node.name
                ),
                "give an IPv4 address of the machine",
            );
        }
    }
}

/// Checks that the cluster's two networks are large enough and overlap with nothing.
fn validate_networks(desired: &Desired, report: Report) {
    let spec = &desired.spec;
    if spec.pod_network_cidr.overlaps(&spec.service_cidr) {
        report(
            format!(
                "the pod network {} and the Service network {} overlap",
                spec.pod_network_cidr, spec.service_cidr
            ),
            "choose two networks that share no address",
        );
    }
    for node in &desired.inventory.nodes {
        for address in node.ip.iter().chain(&node.access_ip) {
            let IpAddr::V4(v4) = address else { continue };
            for (what, cidr) in [("pod", spec.pod_network_cidr), ("Service", spec.service_cidr)] {
                if cidr.contains(*v4) {
                    report(
                        format!("{address} of {} lies in the {what} network {cidr}", node.name),
                        "choose a network that no machine uses",
                    );
                }
            }
        }
    }
    validate_sizes(desired, report);
}

/// Refuses networks that kubeadm or the controller manager refuses, or that have too few addresses.
fn validate_sizes(desired: &Desired, report: Report) {
    let (pods, services) = (desired.spec.pod_network_cidr, desired.spec.service_cidr);
    let machines = desired.inventory.members().count().max(1);
    let needed = NODE_PREFIX - u8::try_from(machines.next_power_of_two().ilog2()).unwrap_or(NODE_PREFIX);
    if pods.prefix > needed {
        report(
            format!("the pod network {pods} is too small: {machines} machines need /{needed}"),
            &format!(
                "every node takes a /{NODE_PREFIX} of it: set podNetworkCidr to a network of /{needed} or larger, larger still when machines may follow"
            ),
        );
    }
    if pods.prefix < LEAST_POD_PREFIX {
        report(
            format!("the pod network {pods} is too large"),
            &format!(
                "the controller manager takes /{LEAST_POD_PREFIX} at most: set podNetworkCidr to /{LEAST_POD_PREFIX} or smaller"
            ),
        );
    }
    let (largest, smallest) = (SERVICE_PREFIXES.start(), SERVICE_PREFIXES.end());
    if !SERVICE_PREFIXES.contains(&services.prefix) {
        report(
            format!("the Service network {services} has a size that Kubernetes does not take"),
            &format!(
                "choose one from /{largest} to /{smallest}: kubeadm refuses larger ones, and in smaller ones there is no address for DNS"
            ),
        );
    }
}

/// Each node's share of the pod network (kube-controller-manager's --node-cidr-mask-size, default for IPv4).
const NODE_PREFIX: u8 = 24;
/// Largest pod network for shares of that size: 16 bits of difference at most (kubeadm's `PodSubnetNodeMaskMaxDiff`).
const LEAST_POD_PREFIX: u8 = NODE_PREFIX - 16;
/// Service networks: 20 bits at most (kubeadm's `MaximumBitsForServiceSubnet`), and the tenth address is that of DNS.
const SERVICE_PREFIXES: std::ops::RangeInclusive<u8> = 12..=28;

/// Checks the ports of the ingress proxy, which listens on every node, beside the cluster's own programs.
fn validate_ports(spec: &ClusterSpec, report: Report) {
    let ingress = &spec.ingress;
    let ports = [
        ("httpPort", ingress.http_port),
        ("httpsPort", ingress.https_port),
        ("dashboardPort", ingress.dashboard_port),
    ];
    let next = "choose a port that nothing on the nodes needs";
    for (field, port) in ports.into_iter().filter(|_| ingress.enabled) {
        let mut own = layout::NODE_PORTS.iter().chain(&layout::CONTROL_PLANE_PORTS);
        if let Some(own) = own.find(|own| own.port == port) {
            report(format!("ingress.{field}: {port} is the port of {}", own.listener), next);
        } else if layout::NODE_PORT_RANGE.contains(&port) {
            let (first, last) = (layout::NODE_PORT_RANGE.start(), layout::NODE_PORT_RANGE.end());
            report(
                format!("ingress.{field}: {port} is a NodePort ({first} to {last})"),
                next,
            );
        }
    }
}

/// Checks the names that resolvers and certificates must accept.
fn validate_names(spec: &ClusterSpec, report: Report) {
    let names = [
        ("clusterDomain", &spec.cluster_domain),
        ("controlPlaneEndpoint", &spec.control_plane_endpoint),
        ("sampleHost", &spec.sample_host),
        ("ingress.dashboardHost", &spec.ingress.dashboard_host),
        ("name", &spec.name),
    ];
    for (field, value) in names.into_iter().filter(|(_, value)| !is_dns_name(value)) {
        report(
            format!("{field}: {value:?} is no DNS name"),
            "use lower-case letters, digits and hyphens, in parts divided by dots (RFC 1123)",
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::explain::Code;
    use crate::inventory::Role;
    use crate::spec::Profile;
    use crate::spec::parse::cluster_yaml;

    const GOOD: &str = "name: ship\nprofile: lab\nnodes:\n  - {name: cp-1, role: control-plane, host: 10.9.0.1, user: admin, becomePassword: x}\n  \
                        - {name: w-1, role: worker, ip: 10.9.0.2}\n  - {name: pc, role: outside, host: 10.9.0.3, port: 2222}\n";

    #[test]
    fn a_good_file_is_read_whole() {
        let desired = cluster_yaml(GOOD, "c.yaml").unwrap();
        assert_eq!(desired.spec.name, "ship");
        assert_eq!(desired.spec.profile, Profile::Lab);
        assert_eq!(desired.spec.service_cidr.to_string(), "10.96.0.0/12");
        let nodes = &desired.inventory.nodes;
        assert!(nodes[0].connect.become_root && !nodes[0].schedulable);
        assert_eq!(nodes[0].connect.become_password.as_ref().unwrap().expose(), b"x");
        assert_eq!(
            (nodes[1].connect.host.as_str(), nodes[1].schedulable),
            ("10.9.0.2", true)
        );
        assert_eq!((nodes[2].role, nodes[2].connect.port), (Role::Outside, 2222));
    }

    #[test]
    fn all_problems_are_reported_together_without_secrets() {
        let bad = "podNetworkCidr: 10.96.1.0/99\nproxyMode: ipvs\ncolour: red\nnodes:\n  - {name: UPPER_, role: boss, port: x}\n  \
                   - {name: a, role: control-plane, host: h, password: [hush]}\n  - {name: a, role: control-plane, host: h, shoe: 1}\n";
        let problems = cluster_yaml(bad, "c.yaml").unwrap_err();
        let text = problems.iter().map(|p| p.what.clone()).collect::<Vec<_>>().join("\n");
        for wanted in [
            "podNetworkCidr",
            "proxyMode",
            "colour",
            "nodes[0].name",
            "nodes[0].role",
            "nodes[0].port",
            "nodes[1].password",
            "nodes[2].shoe",
            "machine a is named more than once",
            "at h port 22",
            "2 control planes",
        ] {
            assert!(text.contains(wanted), "{wanted} is not named in:\n{text}");
        }
        assert!(!text.contains("hush"));
        assert!(problems.iter().any(|p| p.code == Code::SpecTopology));
    }

    #[test]
    fn names_that_no_resolver_takes_are_refused() {
        let text = GOOD
            .replace("name: ship", "name: The Ship\nsampleHost: a..b\nclusterDomain: -x")
            .replace("ip: 10.9.0.2", "ip: 'fd00::2'");
        let problems = cluster_yaml(&text, "c.yaml").unwrap_err();
        let text = problems.iter().map(|p| p.what.clone()).collect::<Vec<_>>().join("\n");
        for wanted in ["name: \"The Ship\"", "sampleHost", "clusterDomain", "fd00::2"] {
            assert!(text.contains(wanted), "{wanted} is not named in:\n{text}");
        }
        assert_eq!(problems.len(), 4, "{text}");
    }

    #[test]
    fn a_mapping_in_place_of_text_is_refused() {
        for (wrong, place) in [
            ("name: {}", "name: "),
            ("name: [x, y]", "name: "),
            ("name: {a: 1}", "name: "),
            ("limits: 3", "limits: "),
            ("proxyMode: {nftables: null, iptables: null}", "proxyMode: "),
            ("upstreamDns: [1.1.1.1, x]", "upstreamDns[1]: "),
            ("stubZones: {a.test: [1.1.1.1, 'x:53']}", "stubZones.a.test[1]: "),
            ("stubZones: [a.test]", "stubZones: "),
        ] {
            let problems = cluster_yaml(&GOOD.replace("name: ship", wrong), "c.yaml").unwrap_err();
            let text = problems.iter().map(|p| p.what.as_str()).collect::<Vec<_>>().join("\n");
            assert!(
                problems.len() == 1 && text.contains(&format!("c.yaml: {place}")),
                "{wrong}: {text}"
            );
        }
    }

    #[test]
    fn zones_with_servers_of_their_own_are_read_and_checked() {
        let field = "stubZones: {corp.test: [10.0.0.53, '10.0.0.54:5353'], 10.in-addr.arpa: [10.0.0.53]}";
        let desired = with_machines(1, field).unwrap();
        let text = serde_json::to_string(&desired.spec.stub_zones).unwrap();
        let wanted = r#"{"10.in-addr.arpa":["10.0.0.53"],"corp.test":["10.0.0.53","10.0.0.54:5353"]}"#;
        assert_eq!(text, wanted);
        for (field, wanted) in [
            ("stubZones: {Corp.test: [10.0.0.53]}", "no DNS name"),
            ("stubZones: {corp.test.: [10.0.0.53]}", "no DNS name"),
            ("stubZones: {a.cluster.local: [10.0.0.53]}", "own domain"),
            ("stubZones: {cluster.local: [10.0.0.53]}", "own domain"),
            ("stubZones: {corp.test: []}", "no server"),
            ("stubZones: {corp.test: [127.0.0.53]}", "loopback"),
            ("stubZones: {corp.test: ['fd00::53']}", "IPv6"),
            ("stubZones: {in-addr.arpa: [10.0.0.53]}", "the cluster's own DNS"),
            ("stubZones: {ip6.arpa: [10.0.0.53]}", "the cluster's own DNS"),
            ("upstreamDns: [127.0.0.53]", "loopback"),
            ("upstreamDns: ['2001:db8::53']", "IPv6"),
            ("upstreamDns: [10.96.0.10]", "an address of Services"),
        ] {
            let problems = with_machines(1, field).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].what.contains(wanted), "{field}: {}", problems[0].what);
        }
    }

    #[test]
    fn networks_that_overlap_are_refused() {
        let text = format!("podNetworkCidr: 10.100.0.0/16\n{GOOD}");
        let problems = cluster_yaml(&text, "c.yaml").unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].what.contains("overlap"));
    }

    /// A file with so many machines and one more field.
    fn with_machines(machines: usize, field: &str) -> Result<crate::spec::Desired, Vec<crate::explain::Diagnosis>> {
        let nodes: String = (1..=machines)
            .map(|n| {
                let role = if n == 1 { "control-plane" } else { "worker" };
                format!("  - {{name: n-{n}, role: {role}, host: 10.9.0.{n}}}\n")
            })
            .collect();
        cluster_yaml(&format!("{field}\nnodes:\n{nodes}"), "c.yaml")
    }

    #[test]
    fn networks_must_be_large_enough_for_the_machines_and_for_kubernetes() {
        for (machines, field, wanted) in [
            (5, "podNetworkCidr: 10.244.0.0/22", Some("5 machines need /21")),
            (4, "podNetworkCidr: 10.244.0.0/22", None),
            (5, "podNetworkCidr: 10.244.0.0/21", None),
            (1, "podNetworkCidr: 10.244.0.0/24", None),
            (1, "podNetworkCidr: 10.244.0.0/25", Some("1 machines need /24")),
            (9, "podNetworkCidr: 10.244.0.0/21", Some("9 machines need /20")),
            (1, "podNetworkCidr: 12.0.0.0/7", Some("too large")),
            (1, "serviceCidr: 10.96.0.0/30", Some("/12 to /28")),
            (1, "serviceCidr: 10.96.0.0/28", None),
            (1, "serviceCidr: 11.0.0.0/8", Some("/12 to /28")),
        ] {
            let problems = with_machines(machines, field).err().unwrap_or_default();
            let text: Vec<String> = problems.iter().map(|p| format!("{} {:?}", p.what, p.next)).collect();
            match wanted {
                Some(wanted) => {
                    assert!(
                        text.len() == 1 && text[0].contains(wanted),
                        "{machines}, {field}: {text:?}"
                    );
                    assert_eq!(problems[0].code, Code::SpecTopology);
                }
                None => assert!(text.is_empty(), "{machines}, {field}: {text:?}"),
            }
        }
    }

    #[test]
    fn ports_of_the_cluster_are_not_the_proxys() {
        for (field, wanted) in [
            ("httpPort: 6443", "API server"),
            ("httpsPort: 7443", "balancer"),
            ("dashboardPort: 10250", "kubelet"),
            ("httpPort: 2379", "etcd"),
            ("httpsPort: 30000", "NodePort"),
            ("dashboardPort: 32767", "NodePort"),
        ] {
            let problems = with_machines(1, &format!("ingress: {{{field}}}")).unwrap_err();
            let text: Vec<&str> = problems.iter().map(|p| p.what.as_str()).collect();
            assert!(text.len() == 1 && text[0].contains(wanted), "{field}: {text:?}");
            assert!(
                with_machines(1, &format!("ingress: {{enabled: false, {field}}}")).is_ok(),
                "{field}"
            );
        }
        assert!(with_machines(1, "ingress: {httpPort: 8081, httpsPort: 8443}").is_ok());
    }

    #[test]
    fn checks_to_accept_are_known_by_their_ids() {
        use crate::finding::Check;
        let accepted = with_machines(1, "accept: [disk, memory, disk]").unwrap().spec.accept;
        assert_eq!(accepted.into_iter().collect::<Vec<_>>(), [Check::Memory, Check::Disk]);
        let problems = with_machines(1, "accept: [disk, dsik]").unwrap_err();
        assert_eq!((problems.len(), problems[0].code), (1, Code::SpecValue));
        let text = &problems[0].what;
        assert!(text.contains("accept[1]") && text.contains("dsik"), "{text}");
        for check in Check::ALL {
            assert!(text.contains(check.id()), "{check} is not listed in {text}");
        }
    }

    #[test]
    fn broken_yaml_is_reported_with_its_line() {
        let problems = cluster_yaml("a: b\nc: [", "c.yaml").unwrap_err();
        assert_eq!(problems[0].code, Code::SpecSyntax);
        assert!(problems[0].causes[0].contains("line"));
    }
}
