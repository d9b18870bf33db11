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

/// Checks the zones that have servers of their own.
pub(super) fn validate(spec: &ClusterSpec, report: &mut dyn FnMut(String, &str)) {
    let domain = &spec.cluster_domain;
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
        if servers.is_empty() {
            report(
                format!("stubZones.{zone}: no server is named"),
                "name at least one address, for instance [10.0.0.53], or leave the zone out",
            );
        }
        if let Some(server) = servers.iter().find(|server| server.0.ip().is_loopback()) {
            report(
                format!("stubZones.{zone}: {server} is a loopback address"),
                "CoreDNS would ask itself: name an address that pods can reach",
            );
        }
    }
}
