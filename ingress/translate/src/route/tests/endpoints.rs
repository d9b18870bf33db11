//! Rules from a backend to its endpoints.

use super::world::{add_service, built, check, endpoints_of, ingress, ours, rule, slice, world};
use crate::options::Options;
use landfall_ingress_http::protocol::Protocol;
use serde_json::{Value, json};

#[test]
fn s10_ports_go_by_number_or_name_and_then_by_name() {
    let service = json!([{ "name": "metrics", "port": 9 }, { "name": "web", "port": 80 }]);
    let slices = [
        slice(
            "1",
            "m",
            json!([{ "name": "web", "port": 8000 }, { "name": "metrics", "port": 9000 }]),
            json!([{ "addresses": ["10.1.0.1"] }]),
        ),
        slice(
            "2",
            "m",
            json!([{ "name": "web" }]),
            json!([{ "addresses": ["10.1.0.7"] }]),
        ),
        slice(
            "3",
            "m",
            json!([{ "name": "web", "port": 70000 }]),
            json!([{ "addresses": ["10.1.0.8"] }]),
        ),
        slice("4", "m", Value::Null, Value::Null),
    ];
    for port in [json!({ "name": "web" }), json!({ "number": 80 })] {
        assert_eq!(endpoints_of(port, service.clone(), &slices).0, ["10.1.0.1:8000"]);
    }
    for port in [
        json!({ "name": "http" }),
        json!({ "number": 81 }),
        json!({ "number": 8000 }),
        json!({}),
    ] {
        let (endpoints, remarks) = endpoints_of(port, service.clone(), &slices);
        assert!(endpoints.is_empty() && remarks.len() == 1, "{endpoints:?} {remarks:?}");
    }
}

#[test]
fn s11_slices_are_joined_without_duplicates_and_only_the_first_address_counts() {
    let port = json!([{ "name": "", "port": 1 }]);
    let mut six = slice("2", "m", port.clone(), json!([{ "addresses": ["fd00::1"] }]));
    six["addressType"] = json!("IPv6");
    let mut named = slice("3", "m", port.clone(), json!([{ "addresses": ["pod.example.com"] }]));
    named["addressType"] = json!("FQDN");
    let slices = [
        slice(
            "1",
            "m",
            port.clone(),
            json!([{ "addresses": ["10.1.0.2", "10.9.9.9"] }, { "addresses": ["10.1.0.1"] }, { "addresses": [] }]),
        ),
        six,
        named,
        slice("4", "m", port.clone(), json!([{ "addresses": ["10.1.0.2"] }])),
        slice("5", "other", port, json!([{ "addresses": ["10.1.0.9"] }])),
    ];
    let (endpoints, _) = endpoints_of(json!({ "number": 80 }), json!([{ "port": 80 }]), &slices);
    assert_eq!(endpoints, ["10.1.0.1:1", "10.1.0.2:1", "[fd00::1]:1"]);
}

#[test]
fn s12_conditions_left_out_mean_ready_and_draining_endpoints_serve_when_no_other_does() {
    let is = |ip: &str, conditions: Value| json!({ "addresses": [ip], "conditions": conditions });
    let ready = is("10.1.0.1", json!({ "ready": true }));
    let silent = is(
        "10.1.0.2",
        json!({ "ready": null, "serving": null, "terminating": null }),
    );
    let draining = is(
        "10.1.0.3",
        json!({ "ready": false, "serving": true, "terminating": true }),
    );
    let gone = is(
        "10.1.0.4",
        json!({ "ready": false, "serving": false, "terminating": true }),
    );
    let starting = is("10.1.0.5", json!({ "ready": false }));
    for (endpoints, wanted) in [
        (
            json!([ready, silent, draining, gone, starting]),
            vec!["10.1.0.1:1", "10.1.0.2:1"],
        ),
        (json!([draining, gone, starting]), vec!["10.1.0.3:1"]),
        (json!([gone, starting]), vec![]),
    ] {
        let slices = [slice("1", "m", json!([{ "name": "", "port": 1 }]), endpoints)];
        assert_eq!(
            endpoints_of(json!({ "number": 80 }), json!([{ "port": 80 }]), &slices).0,
            wanted
        );
    }
}

#[test]
fn s13_s14_external_names_and_resources_are_refused_and_seen() {
    let resource = json!({ "resource": { "kind": "Bucket", "name": "x" } });
    let path = json!({ "pathType": "Prefix", "path": "/r", "backend": resource });
    let mut spec = ours(&[rule("h", &[("Prefix", "/e", "ext")])]);
    spec["rules"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "host": "h", "http": { "paths": [path] } }));
    let objects = world(&[ingress("i1", spec)]);
    let external = json!({ "metadata": { "name": "ext", "namespace": "d" },
        "spec": { "type": "ExternalName", "externalName": "metadata.internal", "ports": [{ "port": 80 }] } });
    objects.services.read_service(external).unwrap();
    let snapshot = check(&objects, &[("h", "/e", '0'), ("h", "/r", '0')]);
    assert_eq!(snapshot.remarks().len(), 2);
}

#[test]
fn s13_external_names_that_are_addresses_are_served_when_a_flag_says_so() {
    let external = |name: &str| {
        let objects = world(&[ingress("i1", ours(&[rule("h", &[("Prefix", "/", "ext")])]))]);
        let service = json!({ "metadata": { "name": "ext", "namespace": "d" },
            "spec": { "type": "ExternalName", "externalName": name } });
        objects.services.read_service(service).unwrap();
        let options = Options {
            allow_external_name: true,
            ..Options::default()
        };
        let snapshot = built(&objects, options);
        let endpoints = snapshot.table.find("h", "/").unwrap().backend.endpoints().addresses();
        (endpoints, snapshot.remarks().len())
    };
    assert_eq!(external("192.0.2.7"), (vec!["192.0.2.7:80".parse().unwrap()], 0));
    for refused in ["example.com", "127.0.0.1", "169.254.169.254", "::1", "localhost"] {
        assert_eq!(external(refused), (vec![], 1), "{refused}");
    }
}

#[test]
fn s26_the_ports_app_protocol_goes_along() {
    for (text, protocol) in [
        ("kubernetes.io/h2c", Some(Protocol::H2c)),
        ("kubernetes.io/ws", Some(Protocol::Http1)),
        ("kubernetes.io/wss", Some(Protocol::Https)),
        ("https", Some(Protocol::Https)),
        ("mysql", None),
    ] {
        let objects = world(&[ingress("i1", ours(&[rule("h", &[("Prefix", "/", "m")])]))]);
        add_service(&objects, "m", json!([{ "port": 80, "appProtocol": text }]));
        let snapshot = check(&objects, &[]);
        let found = snapshot.table.find("h", "/").unwrap().backend.endpoints().protocol;
        assert_eq!(found, protocol, "{text}");
    }
}
