//! A small world to route in. Services `a` to `f` have one endpoint each, so a letter tells where a request ends.

use crate::options::{CONTROLLER, Options};
use crate::route::{Builder, Objects, Snapshot};
use crate::secrets::lookup::NoSecrets;
use crate::services::SERVICE_LABEL;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;

pub(super) fn object<K: DeserializeOwned>(value: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value).unwrap())
}

/// An Ingress named `name`; names that sort later were created later.
pub(super) fn ingress(name: &str, spec: Value) -> Value {
    let second = name.bytes().last().unwrap() % 60;
    json!({ "metadata": { "name": name, "namespace": "d", "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z") }, "spec": spec })
}

pub(super) fn to(service: &str) -> Value {
    json!({ "service": { "name": service, "port": { "number": 80 } } })
}

pub(super) fn rule(host: &str, paths: &[(&str, &str, &str)]) -> Value {
    let path =
        |(kind, path, service): &(&str, &str, &str)| json!({ "pathType": kind, "path": path, "backend": to(service) });
    let paths: Vec<_> = paths.iter().map(path).collect();
    let host = if host.is_empty() { Value::Null } else { json!(host) };
    json!({ "host": host, "http": { "paths": paths } })
}

pub(super) fn ours(rules: &[Value]) -> Value {
    json!({ "ingressClassName": "landfall", "rules": rules })
}

pub(super) fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> Value {
    json!({ "addressType": "IPv4", "metadata": { "name": name, "namespace": "d", "labels": { SERVICE_LABEL: service } },
        "ports": ports, "endpoints": endpoints })
}

/// A world with these Ingresses and Services `a` to `f` at 10.0.0.1 to 10.0.0.6.
pub(super) fn world(ingresses: &[Value]) -> Objects {
    let class =
        |name, controller| object(json!({ "metadata": { "name": name }, "spec": { "controller": controller } }));
    let objects = Objects {
        ingresses: ingresses.iter().cloned().map(object).collect(),
        classes: vec![class("landfall", CONTROLLER), class("other", "example.com/x")],
        ..Objects::default()
    };
    for (i, name) in ["a", "b", "c", "d", "e", "f"].iter().enumerate() {
        add_service(&objects, name, json!([{ "port": 80 }]));
        let endpoints = json!([{ "addresses": [format!("10.0.0.{}", i + 1)] }]);
        let slice = slice(name, name, json!([{ "name": "", "port": 8080 }]), endpoints);
        objects.services.read_slice(slice).unwrap();
    }
    objects
}

pub(super) fn add_service(objects: &Objects, name: &str, ports: Value) {
    let service = json!({ "metadata": { "name": name, "namespace": "d" }, "spec": { "ports": ports } });
    objects.services.read_service(service).unwrap();
}

/// The Service letter that a request ends at; `0` without endpoints, `-` for nothing.
pub(super) fn end(snapshot: &Snapshot, host: &str, path: &str) -> char {
    let found = snapshot.table.find(host, path);
    match found.map(|route| route.backend.endpoints().addresses().first().copied()) {
        Some(Some(SocketAddr::V4(v4))) => (b'a' + v4.ip().octets()[3] - 1) as char,
        Some(_) => '0',
        None => '-',
    }
}

pub(super) fn check(objects: &Objects, wanted: &[(&str, &str, char)]) -> Snapshot {
    let snapshot = Snapshot::build(objects, "landfall");
    for (host, path, letter) in wanted {
        assert_eq!(end(&snapshot, host, path), *letter, "{host}{path}");
    }
    snapshot
}

pub(super) fn check_rules(rules: &[Value], wanted: &[(&str, &str, char)]) -> Snapshot {
    check(&world(&[ingress("i1", ours(rules))]), wanted)
}

/// Endpoints of Service `m` behind an Ingress that asks for this port, with these slices.
pub(super) fn endpoints_of(port: Value, service_ports: Value, slices: &[Value]) -> (Vec<String>, Vec<String>) {
    let backend = json!({ "service": { "name": "m", "port": port } });
    let path = json!({ "pathType": "Prefix", "path": "/", "backend": backend });
    let objects = world(&[ingress(
        "i1",
        ours(&[json!({ "host": "h", "http": { "paths": [path] } })]),
    )]);
    add_service(&objects, "m", service_ports);
    for slice in slices {
        objects.services.read_slice(slice.clone()).unwrap();
    }
    let snapshot = Snapshot::build(&objects, "landfall");
    let endpoints = snapshot
        .table
        .find("h", "/")
        .unwrap()
        .backend
        .endpoints()
        .addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    (endpoints, texts(&snapshot))
}

/// The remarks as people read them.
pub(super) fn texts(snapshot: &Snapshot) -> Vec<String> {
    snapshot.remarks().iter().map(ToString::to_string).collect()
}

/// A table made with these flags, without Secrets.
pub(super) fn built(objects: &Objects, options: Options) -> Snapshot {
    Builder::new(options).build(objects, &NoSecrets)
}

/// Sets an annotation; the name comes with its prefix.
pub(super) fn annotate(ingress: &mut Value, name: &str, value: &str) {
    ingress["metadata"]["annotations"][name] = json!(value);
}
