use super::*;
use landfall_ingress_http::protocol::Protocol;
use std::net::SocketAddr;

fn service(ports: &[(&str, u16)]) -> Service {
    let ports = ports.iter().map(|(name, number)| ServicePort {
        name: (*name).into(),
        number: *number,
        protocol: None,
    });
    Service {
        ports: ports.collect(),
        address: "10.96.0.1".parse().ok(),
        external: None,
        shared_with: None,
    }
}

fn endpoint(last: u8, node_hint: Hint, zone_hint: Hint) -> SliceEndpoint {
    SliceEndpoint {
        address: [10, 0, 0, last].into(),
        ready: true,
        node_hint,
        zone_hint,
    }
}

fn slice(endpoints: &[SliceEndpoint]) -> Slice {
    let port = SlicePort {
        name: "".into(),
        number: 8080,
    };
    Slice {
        ports: [port].into(),
        endpoints: endpoints.into(),
    }
}

fn plain(lasts: &[u8]) -> Slice {
    let all: Vec<_> = lasts.iter().map(|l| endpoint(*l, Hint::None, Hint::None)).collect();
    slice(&all)
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 8080))
}

const PORT: PortKey = PortKey::Number(80);

#[test]
fn a_service_and_slices_that_come_after_the_route_are_picked_up() {
    let services = Services::default();
    let backend = services.backend("d", "a", &PORT).0;
    assert_eq!(backend.endpoints().problem, Some("there is no such Service"));
    services.put_slice("d", "a-1", "a", plain(&[1]));
    assert!(backend.endpoints().is_empty());
    assert_eq!(
        services.put_service("d", "a", service(&[("", 80)])),
        Touched::Table,
        "a remark ends"
    );
    assert_eq!(backend.endpoints().addresses(), [at(1)]);
    services.put_slice("d", "a-2", "a", plain(&[2]));
    assert_eq!(backend.endpoints().addresses(), [at(1), at(2)]);
    services.remove_slice("d", "a-1");
    assert_eq!(backend.endpoints().addresses(), [at(2)]);
    assert_eq!(services.remove_service("d", "a"), Touched::Table);
    assert!(backend.endpoints().is_empty());
}

#[test]
fn routes_to_one_port_share_a_backend_and_what_nobody_holds_goes() {
    let services = Services::default();
    let backend = services.backend("d", "a", &PORT).0;
    assert!(Arc::ptr_eq(&backend, &services.backend("d", "a", &PORT).0));
    assert!(!Arc::ptr_eq(&backend, &services.backend("e", "a", &PORT).0));
    services.sweep();
    assert!(services.inner().entries.len() == 1, "the one that is held stays");
    drop(backend);
    services.sweep();
    assert!(services.inner().entries.is_empty());
    services.put_slice("d", "a-1", "a", plain(&[1]));
    services.remove_slice("d", "a-1");
    let inner = services.inner();
    assert!(inner.entries.is_empty() && inner.slices.values().all(HashMap::is_empty));
}

#[test]
fn a_slice_may_change_its_service() {
    let services = Services::default();
    let _ = services.put_service("d", "a", service(&[("", 80)]));
    let _ = services.put_service("d", "b", service(&[("", 80)]));
    let [a, b] = ["a", "b"].map(|name| services.backend("d", name, &PORT).0);
    services.put_slice("d", "x", "a", plain(&[1]));
    services.put_slice("d", "x", "b", plain(&[1]));
    assert!(a.endpoints().is_empty());
    assert_eq!(b.endpoints().addresses(), [at(1)]);
}

#[test]
fn what_routes_resolve_themselves_touches_the_table_and_all_else_does_not() {
    let services = Services::default();
    let http = || service(&[("", 80)]);
    assert_eq!(services.put_service("d", "a", http()), Touched::Table);
    let backend = services.backend("d", "a", &PORT).0;
    assert_eq!(services.put_service("d", "a", http()), Touched::Endpoints);
    let mut h2c = http();
    h2c.ports[0].protocol = Some(Protocol::H2c);
    assert_eq!(services.put_service("d", "a", h2c), Touched::Endpoints);
    assert_eq!(backend.endpoints().protocol, Some(Protocol::H2c));
    let more = service(&[("", 80), ("x", 81)]);
    assert_eq!(services.put_service("d", "a", more), Touched::Table);
    let other_first = service(&[("x", 81), ("", 80)]);
    assert_eq!(services.put_service("d", "a", other_first), Touched::Table);
    // Whom it is shared with is the table's to know, like its ports.
    let shared = |names: &str| Service {
        shared_with: Some(names.into()),
        ..http()
    };
    assert_eq!(services.put_service("d", "a", shared("b, c")), Touched::Table);
    let with = |namespace| services.is_shared("d", "a", namespace);
    assert_eq!(["b", "c", "d", "", "b, c"].map(with), [true, true, false, false, false]);
    assert_eq!(services.put_service("d", "a", shared("*")), Touched::Table);
    assert!(services.is_shared("d", "a", "e") && !services.is_shared("d", "none", "e"));
    let external = |name: &str| Service {
        external: Some(name.into()),
        ..http()
    };
    assert_eq!(services.put_service("d", "a", external("10.0.0.1")), Touched::Table);
    assert_eq!(services.put_service("d", "a", external("10.0.0.2")), Touched::Table);
    assert_eq!(services.remove_service("d", "a"), Touched::Table);
}

fn near(endpoints: &[SliceEndpoint]) -> Vec<u8> {
    let services = Services::default();
    let _ = services.put_service("d", "a", service(&[("", 80)]));
    services.put_slice("d", "a-1", "a", slice(endpoints));
    let backend = services.backend("d", "a", &PORT).0;
    let set = backend.endpoints();
    let last = |e: &Arc<landfall_ingress_balance::Endpoint>| match e.address {
        SocketAddr::V4(v4) => v4.ip().octets()[3],
        SocketAddr::V6(_) => 0,
    };
    set.near().iter().map(last).collect()
}

#[test]
fn hints_are_followed_when_all_have_one_and_some_are_for_here() {
    use Hint::{Elsewhere, Here, None};
    let all = |hints: &[(Hint, Hint)]| {
        let endpoints = hints
            .iter()
            .zip(1..)
            .map(|((node, zone), last)| endpoint(last, *node, *zone));
        near(&endpoints.collect::<Vec<_>>())
    };
    assert_eq!(all(&[(None, Here), (None, Elsewhere), (None, Here)]), [1, 3]);
    assert_eq!(all(&[(None, Here), (None, None)]), [1, 2], "one without a hint");
    assert_eq!(
        all(&[(None, Elsewhere), (None, Elsewhere)]),
        [1, 2],
        "none for this zone"
    );
    assert_eq!(
        all(&[(Here, Here), (Elsewhere, Here), (Elsewhere, Elsewhere)]),
        [1],
        "node before zone"
    );
    assert_eq!(
        all(&[(Elsewhere, Here), (Elsewhere, Elsewhere)]),
        [1],
        "no endpoint on this node"
    );
    assert_eq!(
        all(&[(None, None), (None, None)]),
        [1, 2],
        "without hints the own node is not preferred"
    );
}

#[test]
fn hints_name_this_node_or_zone() {
    let hint = |here: &str, names: &[&str]| Locality::hint(here, names.iter().copied());
    assert_eq!(hint("z1", &["z0", "z1"]), Hint::Here);
    assert_eq!(hint("z1", &["z0"]), Hint::Elsewhere);
    assert_eq!(hint("z1", &[]), Hint::None);
    assert_eq!(hint("", &[""]), Hint::Elsewhere, "a zone that is not known is nobody's");
}
