//! Where requests of our own go: the targets that annotations name.

use super::RequestView;
use landfall_ingress_balance::Backend;
use landfall_ingress_http::path::canonical;
use landfall_ingress_http::protocol::Protocol;
use landfall_ingress_routing::RouteTable;
use landfall_ingress_routing::target::{Place, Target};
use landfall_ingress_tls::client::ClientSettings;
use landfall_ingress_tls::client::{self, Alpn};
use landfall_ingress_upstream::{Destination, Tls};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Path and query of a target. A path variable brings its own slash.
pub(super) fn filled(view: &RequestView<'_>, path: &str) -> String {
    let variable = path
        .strip_prefix('/')
        .filter(|rest| rest.starts_with("$request_uri") || rest.starts_with("$uri"));
    view.expand(variable.unwrap_or(path))
}

/// Addresses of a target. A host of the request's own is looked up in our table, where its route must belong to the same namespace, so
/// that nobody asks another's service past that one's own protection, and be [`one that answers`](landfall_ingress_routing::Route::answers_for). Of a
/// name, those that were `found` for it. Beside them the Service that they belong to, where they do.
pub(super) fn addresses(
    target: &Target,
    service: Option<&Arc<Backend>>,
    view: &RequestView<'_>,
    snapshot: &RouteTable,
    uri: &str,
    found: &[IpAddr],
) -> Option<(Vec<SocketAddr>, Option<Arc<Backend>>)> {
    const TRIES: usize = 3;
    let of_service = |service: &Arc<Backend>| (service.candidates().take(TRIES).collect(), Some(Arc::clone(service)));
    match &target.place {
        Place::Address(address) => Some((vec![*address], None)),
        Place::Service { .. } => Some(of_service(service?)),
        Place::Name { port, .. } => {
            let found = found.iter().take(TRIES);
            Some((found.map(|address| SocketAddr::new(*address, *port)).collect(), None))
        }
        Place::OwnHost => {
            let path = uri.split('?').next().unwrap_or(uri);
            let path = canonical(path).ok()?;
            let route = snapshot.find(view.host, &path)?;
            let namespace = |ingress: &str| ingress.split('/').next().map(str::to_owned);
            let fits = route.answers_for(view.route) && namespace(&route.ingress) == namespace(&view.route.ingress);
            fits.then(|| of_service(&route.backend))
        }
    }
}

/// How each address is spoken to: over TLS where the target says so. None when its name cannot be proven.
pub(super) fn destinations(addresses: Vec<SocketAddr>, tls: Option<&ClientSettings>) -> Option<Vec<Destination>> {
    let Some(tls) = tls else {
        return Some(addresses.into_iter().map(Destination::plain).collect());
    };
    let config = client::config(tls, Alpn::Http1);
    let destination = |address: SocketAddr| {
        let name = client::name(tls, address.ip())?;
        let config = Arc::clone(&config);
        Some(Destination {
            address,
            protocol: Protocol::Https,
            tls: Some(Tls { config, name }),
        })
    };
    addresses.into_iter().map(destination).collect()
}
