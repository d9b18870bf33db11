//! What the operator decides about routing, by flags.

use landfall_ingress_http::network::Network;
use std::net::{IpAddr, SocketAddr};

/// The value of `spec.controller` of classes that are ours, when no flag says otherwise.
pub const CONTROLLER: &str = "landfall.dev/ingress";

/// Flags of routing.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Serve only the IngressClass of this name; without it all classes of our controller.
    #[arg(long = "ingress-class", value_name = "NAME")]
    pub class: Option<String>,
    /// Serve classes whose spec.controller is this, e.g. k8s.io/ingress-nginx during a migration.
    #[arg(long = "controller-class", value_name = "NAME", default_value = CONTROLLER)]
    pub controller: String,
    /// Let Ingresses of several namespaces share a host. Otherwise the namespace of the oldest owns it.
    #[arg(long = "merge-hosts-across-namespaces")]
    pub merge_hosts: bool,
    /// Send requests to Services of type ExternalName whose name is an address.
    #[arg(long)]
    pub allow_external_name: bool,
    /// Let annotations name loopback and link-local addresses, those of the cluster and the API server (auth-url, mirror-target, ExternalName).
    #[arg(long)]
    pub allow_internal_targets: bool,
    /// Let annotations name Secrets and Services of other namespaces.
    #[arg(long)]
    pub allow_cross_namespace: bool,
    /// Networks of the cluster's Pods, Services and nodes, comma-separated: annotations may not name an address in them, and from there
    /// /metrics may be read without a password.
    #[arg(long = "cluster-cidrs", value_name = "CIDR", value_delimiter = ',', value_parser = Network::argument)]
    pub cluster: Vec<Network>,
    /// The cluster's DNS, for names outside the cluster in auth-url and mirror-target: an address, with a port unless that is 53. Without
    /// it such names are refused.
    #[arg(long = "cluster-dns", value_name = "ADDRESS", value_parser = server)]
    pub dns: Option<SocketAddr>,
    /// Addresses of the API server.
    #[arg(skip)]
    pub api_server: Vec<IpAddr>,
}

/// A DNS server as people write it.
fn server(text: &str) -> Result<SocketAddr, String> {
    let bare = |_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    text.parse::<SocketAddr>()
        .or_else(bare)
        .map_err(|_| format!("{text:?} is no address, such as 10.96.0.10 or 10.96.0.10:53"))
}

impl Default for Options {
    fn default() -> Self {
        Self {
            class: None,
            controller: CONTROLLER.to_owned(),
            merge_hosts: false,
            allow_external_name: false,
            allow_internal_targets: false,
            allow_cross_namespace: false,
            cluster: vec![],
            dns: None,
            api_server: vec![],
        }
    }
}

impl Options {
    /// Takes note of the API server's address, as `KUBERNETES_SERVICE_HOST` has it.
    pub fn guarding(mut self, api_server: Option<&str>) -> Self {
        self.api_server
            .extend(api_server.and_then(|host| host.parse::<IpAddr>().ok()));
        self
    }

    /// Whether annotations may lead there.
    pub fn admits(&self, address: IpAddr) -> Result<(), &'static str> {
        let address = address.to_canonical();
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        match () {
            () if self.allow_internal_targets => Ok(()),
            () if address.is_loopback() || address.is_unspecified() => Err("loopback addresses are refused"),
            () if link_local => Err("link-local addresses are refused"),
            () if address.is_multicast() || broadcast => Err("multicast addresses are refused"),
            () if self.api_server.contains(&address) => Err("the API server is refused"),
            // A NetworkPolicy sees the proxy, not who wrote the annotation. A Service is named by its name, within its own namespace.
            () if self.cluster.iter().any(|network| network.contains(address)) => {
                Err("addresses of Pods, Services and nodes are refused: name a Service of this namespace")
            }
            () => Ok(()),
        }
    }
}
