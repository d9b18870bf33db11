//! Rules that span fields and machines.

use super::{ClusterSpec, Desired, Problems};
use crate::explain::{Code, Diagnosis};
use crate::inventory::Inventory;
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
    desired.spec.ingress.validate(&mut topology);
}

/// What is wrong, and what to do about it.
type Report<'a> = &'a mut dyn FnMut(String, &str);

/// Control planes must be able to agree, and each machine must be one.
fn validate_machines(inventory: &Inventory, report: Report) {
    let control_planes = inventory.control_planes().count();
    if ![1, 3, 5].contains(&control_planes) {
        report(
            format!("{control_planes} control planes are named; 1, 3 or 5 can be"),
            "etcd needs an odd number of members to outlive a lost one: add or remove a control plane",
        );
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

/// The cluster's two networks must be large enough, and theirs alone.
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
    if spec.pod_network_cidr.prefix > 22 {
        report(
            format!("the pod network {} is too small", spec.pod_network_cidr),
            "every node takes a /24 of it: choose /22 or larger",
        );
    }
}

/// Names that resolvers and certificates must take.
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

/// RFC 1123, section 2.1: labels of letters, digits and hyphens, 63 characters at most, 253 in all.
fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
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
    fn all_problems_come_at_once_and_secrets_stay_out() {
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
    fn a_mapping_where_text_is_wanted_is_no_default() {
        for (wrong, place) in [
            ("name: {}", "name: "),
            ("name: [x, y]", "name: "),
            ("name: {a: 1}", "name: "),
            ("limits: 3", "limits: "),
            ("proxyMode: {nftables: null, iptables: null}", "proxyMode: "),
            ("upstreamDns: [1.1.1.1, x]", "upstreamDns[1]: "),
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
    fn networks_that_overlap_are_refused() {
        let text = format!("podNetworkCidr: 10.100.0.0/16\n{GOOD}");
        let problems = cluster_yaml(&text, "c.yaml").unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].what.contains("overlap"));
    }

    #[test]
    fn no_yaml_is_said_with_its_line() {
        let problems = cluster_yaml("a: b\nc: [", "c.yaml").unwrap_err();
        assert_eq!(problems[0].code, Code::SpecSyntax);
        assert!(problems[0].causes[0].contains("line"));
    }
}
