//! How packets of pods get from node to node.

use crate::layout;
use serde::{Deserialize, Serialize};

/// Bytes that VXLAN over IPv4 adds to a packet: Ethernet, IPv4, UDP and VXLAN headers (RFC 7348, section 5); flannel takes off as many.
pub const VXLAN_OVERHEAD: u16 = 50;
/// MTU of Ethernet, in bytes, for an interface that does not tell its own.
pub const ETHERNET_MTU: u16 = 1500;
/// UDP port of VXLAN on Linux, and flannel's default.
pub const VXLAN_PORT: u16 = 8472;
/// MTUs that pods can have, in bytes: the least that every IPv4 host must take (RFC 791), and what VXLAN leaves of IPv4's largest packet.
const MTUS: std::ops::RangeInclusive<u16> = 576..=u16::MAX - VXLAN_OVERHEAD;

/// The pod network between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodNetwork {
    /// What carries packets. Fixed once the cluster stands.
    pub backend: Backend,
    /// UDP port of VXLAN. Fixed once the cluster stands.
    pub vxlan_port: u16,
    /// MTU of pods, in bytes; `None`: what the nodes' interfaces leave, measured when the cluster is made. Fixed once the cluster stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Whether the kernel may leave checksums of what goes through VXLAN to the network card.
    pub checksum_offload: bool,
}

/// flannel's way of carrying packets between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// In UDP datagrams, across any network.
    #[default]
    Vxlan,
    /// By routes to the other nodes, which must be in one subnet.
    HostGw,
}

impl Default for PodNetwork {
    fn default() -> Self {
        Self {
            backend: Backend::Vxlan,
            vxlan_port: VXLAN_PORT,
            mtu: None,
            checksum_offload: true,
        }
    }
}

impl Backend {
    /// Returns its name in `cluster.yaml` and in flannel's configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
        }
    }

    /// Returns how many bytes of a node's packet it needs for itself.
    pub fn overhead(self) -> u16 {
        match self {
            Self::Vxlan => VXLAN_OVERHEAD,
            Self::HostGw => 0,
        }
    }
}

impl PodNetwork {
    /// Returns the UDP port that nodes need of each other.
    pub fn udp_port(&self) -> Option<u16> {
        (self.backend == Backend::Vxlan).then_some(self.vxlan_port)
    }

    /// Returns the MTU of pods for nodes whose interfaces have these MTUs, in bytes: the setting, else what the smallest leaves.
    pub fn pod_mtu(&self, interfaces: impl IntoIterator<Item = u32>) -> u16 {
        let measured = || {
            let smallest = interfaces.into_iter().min().unwrap_or(u32::from(ETHERNET_MTU));
            let smallest = u16::try_from(smallest).unwrap_or(u16::MAX);
            smallest.saturating_sub(self.backend.overhead()).max(*MTUS.start())
        };
        self.mtu.unwrap_or_else(measured)
    }

    /// Reports what cannot be: what is wrong, and what to do.
    pub(super) fn validate(&self, report: &mut dyn FnMut(String, &str)) {
        let port = self.vxlan_port;
        if port == 0 {
            report(
                "podNetwork.vxlanPort: 0 is no port".to_owned(),
                "choose one from 1 to 65535; 8472 is the usual one",
            );
        } else if self.backend == Backend::Vxlan && layout::NODE_PORT_RANGE.contains(&port) {
            report(
                format!("podNetwork.vxlanPort: {port} is a NodePort"),
                "choose a port that no Service can be given: below 30000 or above 32767",
            );
        }
        if let Some(mtu) = self.mtu.filter(|mtu| !MTUS.contains(mtu)) {
            report(
                format!(
                    "podNetwork.mtu: {mtu} bytes cannot be; {} to {} can",
                    MTUS.start(),
                    MTUS.end()
                ),
                "leave it out to have it measured; with VXLAN it is 50 bytes less than the smallest MTU of the nodes' interfaces",
            );
        }
        if self.backend == Backend::HostGw && !self.checksum_offload {
            report(
                "podNetwork.checksumOffload: false is for VXLAN, and the backend is host-gw".to_owned(),
                "leave it out: with host-gw there is no VXLAN link",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse::cluster_yaml;

    fn problems(field: &str) -> Vec<String> {
        let text = format!("podNetwork: {field}\nnodes: [{{name: a, role: control-plane, host: 10.9.0.1}}]\n");
        let problems = cluster_yaml(&text, "c.yaml").err().unwrap_or_default();
        problems.into_iter().map(|p| p.what).collect()
    }

    #[test]
    fn all_wrong_fields_are_named_at_once() {
        for good in [
            "{}",
            "{backend: host-gw}",
            "{backend: vxlan, vxlanPort: 4789, mtu: 1400, checksumOffload: false}",
            "{mtu: 576}",
        ] {
            assert_eq!(problems(good), [""; 0], "{good}");
        }
        let named = problems("{backend: ipip, vxlanPort: 0, mtu: 100, checksumOffload: 1, colour: red}");
        for field in ["backend", "vxlanPort", "mtu", "checksumOffload", "colour"] {
            let field = format!("podNetwork.{field}");
            assert!(named.iter().any(|p| p.contains(&field)), "{field}: {named:?}");
        }
        assert_eq!(named.len(), 5, "{named:?}");
        assert!(problems("{vxlanPort: 30080}")[0].contains("NodePort"));
        assert!(problems("{vxlanPort: 65536}")[0].contains("vxlanPort"));
        assert!(problems("{backend: host-gw, checksumOffload: false}")[0].contains("checksumOffload"));
    }

    #[test]
    fn the_smallest_interface_counts_unless_the_spec_says_otherwise() {
        let of = |backend, mtu, interfaces: &[u32]| {
            let network = PodNetwork {
                backend,
                mtu,
                ..PodNetwork::default()
            };
            network.pod_mtu(interfaces.iter().copied())
        };
        assert_eq!(of(Backend::Vxlan, None, &[9001, 1460, 1500]), 1410);
        assert_eq!(of(Backend::HostGw, None, &[9001, 1460, 1500]), 1460);
        assert_eq!(of(Backend::Vxlan, None, &[]), 1450);
        assert_eq!(of(Backend::Vxlan, None, &[65_536]), 65_485);
        assert_eq!(of(Backend::Vxlan, Some(1380), &[9001]), 1380);
    }
}
