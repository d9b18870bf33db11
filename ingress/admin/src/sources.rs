//! Who may read /metrics without a password: nodes and Pods, told by the address that a connection comes from.
//!
//! A request that came through a proxy has that proxy's address. So one that bears a proxy's fields, as every request to the dashboard's
//! host does, is nobody's.

use super::Asker;
use super::fleet::Fleet;
use hyper::Request;
use hyper::header::{self, HeaderMap};
use landfall_ingress_http::fields::HOPS;
use landfall_ingress_http::network::Network;
use std::net::IpAddr;

/// Fields by which proxies name whom they speak for.
const FORWARDED: [header::HeaderName; 4] = [
    HOPS,
    header::FORWARDED,
    header::VIA,
    header::HeaderName::from_static("x-forwarded-for"),
];

/// Addresses of nodes and Pods.
pub(super) struct Sources {
    /// `--cluster-cidrs`.
    networks: Vec<Network>,
    /// This node's.
    node: Option<IpAddr>,
}

impl Sources {
    pub(super) fn new(networks: &[Network], node: Option<IpAddr>) -> Self {
        Self {
            networks: networks.to_vec(),
            node,
        }
    }

    /// Whether a node or a Pod asks. May wait for a list of our Pods, whose nodes are the ones with a proxy; [`Fleet`] bounds how often.
    pub(super) async fn admit<B>(&self, request: &Request<B>, asker: Asker, fleet: &Fleet) -> bool {
        if is_forwarded(request.headers()) {
            return false;
        }
        let address = asker.peer.ip().to_canonical();
        self.has(address, asker.local) || fleet.knows(address).await
    }

    /// An address of this node, or of a network that was named.
    fn has(&self, address: IpAddr, local: Option<IpAddr>) -> bool {
        address.is_loopback()
            || self.node == Some(address)
            || local.is_some_and(|local| local.to_canonical() == address)
            || self.networks.iter().any(|network| network.contains(address))
    }
}

fn is_forwarded(headers: &HeaderMap) -> bool {
    FORWARDED.iter().any(|name| headers.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    async fn admitted(peer: &str, field: Option<&'static str>) -> bool {
        let networks = [Network::parse("10.244.0.0/16").unwrap()];
        let sources = Sources::new(&networks, Some([192, 0, 2, 1].into()));
        let mut request = Request::new(());
        if let Some(name) = field {
            let value = header::HeaderValue::from_static("x");
            request.headers_mut().insert(name, value);
        }
        let asker = Asker {
            peer: SocketAddr::new(peer.parse().unwrap(), 4711),
            local: Some([198, 51, 100, 7].into()),
        };
        sources.admit(&request, asker, &Fleet::new("kube-system", 8080)).await
    }

    #[tokio::test]
    async fn nodes_and_pods_are_told_by_their_addresses() {
        for inside in [
            "127.0.0.1",
            "::1",
            "192.0.2.1",
            "198.51.100.7",
            "10.244.3.9",
            "::ffff:10.244.3.9",
        ] {
            assert!(admitted(inside, None).await, "{inside}");
        }
        for outside in ["192.0.2.2", "10.245.0.1", "203.0.113.5", "2001:db8::1"] {
            assert!(!admitted(outside, None).await, "{outside}");
        }
    }

    #[tokio::test]
    async fn what_a_proxy_passes_on_is_not_the_proxys_own() {
        for field in ["x-forwarded-for", "forwarded", "via", "x-landfall-hops"] {
            assert!(!admitted("10.244.3.9", Some(field)).await, "{field}");
            assert!(!admitted("127.0.0.1", Some(field)).await, "{field}");
        }
    }
}
