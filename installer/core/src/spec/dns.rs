//! DNS servers of zones outside the cluster.

use super::ClusterSpec;
use crate::name::is_dns_name;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Port of DNS (RFC 1035, 4.2).
const DNS_PORT: u16 = 53;

/// Address of a DNS server: `10.0.0.53`, or `10.0.0.53:5353` where it has another port than 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DnsServer(pub SocketAddr);

impl FromStr for DnsServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
        address
            .or_else(|_| text.parse())
            .map(Self)
            .map_err(|_| format!("{text:?} is no IP address, with or without a port"))
    }
}

impl TryFrom<String> for DnsServer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DnsServer> for String {
    fn from(server: DnsServer) -> Self {
        server.to_string()
    }
}

impl fmt::Display for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.port() == DNS_PORT {
            write!(f, "{}", self.0.ip())
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// Zones of which the cluster's DNS has a block itself: CoreDNS does not start with two blocks of the same zone.
const REVERSE: [&str; 2] = ["in-addr.arpa", "ip6.arpa"];

/// Why CoreDNS cannot ask a server; `None` when nothing speaks against it.
fn fault_of(server: IpAddr, spec: &ClusterSpec) -> Option<(&'static str, &'static str)> {
    match server {
        _ if server.is_loopback() => Some((
            "a loopback address",
            "CoreDNS would ask itself: name an address that pods can reach",
        )),
        IpAddr::V6(_) => Some((
            "an IPv6 address",
            "pods have IPv4 addresses alone: name an IPv4 address",
        )),
        IpAddr::V4(address) if spec.service_cidr.contains(address) => Some((
            "an address of Services",
            "CoreDNS would ask itself, or a Service that needs CoreDNS: name a server outside the cluster",
        )),
        IpAddr::V4(_) => None,
    }
}

/// Checks the servers for names outside the cluster, and the zones that have servers of their own.
pub(super) fn validate(spec: &ClusterSpec, report: &mut dyn FnMut(String, &str)) {
    let domain = &spec.cluster_domain;
    for server in &spec.upstream_dns {
        if let Some((what, next)) = fault_of(*server, spec) {
            report(format!("upstreamDns: {server} is {what}"), next);
        }
    }
    for (zone, servers) in &spec.stub_zones {
        if !is_dns_name(zone) {
            report(
                format!("stubZones: {zone:?} is no DNS name"),
                "use lower-case letters, digits and hyphens, in parts divided by dots (RFC 1123); for addresses, a zone such as 10.in-addr.arpa",
            );
        }
        if zone == domain || zone.ends_with(&format!(".{domain}")) {
            report(
                format!("stubZones: {zone} belongs to the cluster's own domain {domain}"),
                "leave it out: the cluster's DNS answers for its domain itself",
            );
        }
        if REVERSE.contains(&zone.as_str()) {
            report(
                format!("stubZones: {zone} is a zone of the cluster's own DNS"),
                "name a smaller one, such as 10.in-addr.arpa",
            );
        }
        if servers.is_empty() {
            report(
                format!("stubZones.{zone}: no server is named"),
                "name at least one address, for instance [10.0.0.53], or leave the zone out",
            );
        }
        for server in servers {
            if let Some((what, next)) = fault_of(server.0.ip(), spec) {
                report(format!("stubZones.{zone}: {server} is {what}"), next);
            }
        }
    }
}
