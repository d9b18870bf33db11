//! Which hosts the dashboard answers to. A page of another site could let its own name point here and read everything as its own
//! (DNS rebinding); its requests then name a host that is not in this list.

use super::Config;
use super::fleet::Fleet;
use hyper::{Request, header};
use landfall_ingress_http::host::host_of;
use std::net::IpAddr;

/// The Service in front of the dashboards, as the manifests name it.
const SERVICE: &str = "landfall-dashboard";

/// Hosts that are this proxy's own.
pub(super) struct Names {
    known: Vec<String>,
    /// The Service's name with its namespace; what follows is the cluster's domain.
    service: String,
}

impl Names {
    pub(super) fn new(config: &Config) -> Self {
        let mut known = vec!["localhost".to_owned(), SERVICE.to_owned()];
        let address = config.node_address.map(shown);
        let given = [&config.host, &config.node].into_iter().chain(&config.further_hosts);
        known.extend(given.chain(&address).filter_map(|host| host_of(host)));
        Self {
            known,
            service: format!("{SERVICE}.{}", config.namespace),
        }
    }

    /// Exactly one `Host` that is in the list, an address of a node of ours, or the address that was connected to.
    pub(super) fn admits<B>(&self, request: &Request<B>, local: Option<IpAddr>, fleet: &Fleet) -> bool {
        let mut fields = request.headers().get_all(header::HOST).iter();
        let field = fields.next().and_then(|host| host.to_str().ok());
        if fields.next().is_some() {
            return false;
        }
        let asked = request.uri().authority().map(|authority| authority.as_str()).or(field);
        let Some(host) = asked.and_then(host_of) else {
            return false;
        };
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            let ours = address.is_loopback() || local.is_some_and(|local| local.to_canonical() == address);
            return ours || self.known.contains(&host) || fleet.has(address);
        }
        let rest = host.strip_prefix(&self.service);
        self.known.contains(&host)
            || rest.is_some_and(|rest| rest.is_empty() || rest == ".svc" || rest.starts_with(".svc."))
    }
}

/// An address as a host.
fn shown(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(host: &[&str], local: &str) -> bool {
        let config = Config {
            host: "ui.landfall.local".to_owned(),
            further_hosts: vec!["Dash.Example.com".to_owned()],
            node: "node-1".to_owned(),
            namespace: "kube-system".to_owned(),
            node_address: "10.0.0.1".parse().ok(),
            ..Config::default()
        };
        let names = Names::new(&config);
        let mut request = Request::new(());
        for host in host {
            request.headers_mut().append(header::HOST, host.parse().unwrap());
        }
        names.admits(&request, Some(local.parse().unwrap()), &Fleet::new("kube-system", 8080))
    }

    #[test]
    fn only_own_names_and_addresses_are_answered_to() {
        for host in [
            "ui.landfall.local",
            "UI.landfall.local:30080",
            "node-1:8080",
            "10.0.0.1:8080",
            "192.0.2.7",
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "dash.example.com",
            "landfall-dashboard.kube-system.svc.cluster.local:8080",
        ] {
            assert!(admitted(&[host], "192.0.2.7"), "{host}");
        }
        for host in [
            "evil.example.com",
            "ui.landfall.local.evil.example.com",
            "landfall-dashboard.kube-system.svcevil.com",
            "landfall-dashboard.kube-system.evil.com",
            "10.0.0.2",
            "192.0.2.8:8080",
            "a b",
        ] {
            assert!(!admitted(&[host], "192.0.2.7"), "{host}");
        }
        assert!(!admitted(&[], "192.0.2.7"));
        assert!(!admitted(&["localhost", "localhost"], "192.0.2.7"));
    }
}
