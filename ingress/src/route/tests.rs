use super::*;
use serde_json::{Value, json};

fn class(name: &str, controller: &str) -> IngressClass {
    serde_json::from_value(json!({ "metadata": { "name": name }, "spec": { "controller": controller } })).unwrap()
}

fn service(name: &str, ports: Value) -> Service {
    serde_json::from_value(json!({ "metadata": { "name": name, "namespace": "d" }, "spec": { "ports": ports } }))
        .unwrap()
}

fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> EndpointSlice {
    serde_json::from_value(
        json!({ "addressType": "IPv4", "metadata": { "name": name, "namespace": "d",
        "labels": { SERVICE_LABEL: service } }, "ports": ports, "endpoints": endpoints }),
    )
    .unwrap()
}

fn ingress(name: &str, created: &str, spec: Value) -> Ingress {
    serde_json::from_value(
        json!({ "metadata": { "name": name, "namespace": "d", "creationTimestamp": created }, "spec": spec }),
    )
    .unwrap()
}

fn to(service: &str) -> Value {
    json!({ "service": { "name": service, "port": { "number": 80 } } })
}

fn rule(host: &str, paths: &[(&str, &str, &str)]) -> Value {
    let paths: Vec<_> = paths
        .iter()
        .map(|(kind, path, service)| json!({ "pathType": kind, "path": path, "backend": to(service) }))
        .collect();
    if host.is_empty() {
        json!({ "http": { "paths": paths } })
    } else {
        json!({ "host": host, "http": { "paths": paths } })
    }
}

fn ours(rules: &[Value]) -> Value {
    json!({ "ingressClassName": "landfall", "rules": rules })
}

/// A world with Services `a` to `f`, whose only endpoints are 10.0.0.1 to 10.0.0.6.
fn world(ingresses: Vec<Ingress>) -> Objects {
    let mut objects = Objects {
        ingresses,
        classes: vec![class("landfall", CONTROLLER), class("other", "example.com/x")],
        ..Objects::default()
    };
    for (i, name) in ["a", "b", "c", "d", "e", "f"].iter().enumerate() {
        objects.services.push(service(name, json!([{ "port": 80 }])));
        let endpoints = json!([{ "addresses": [format!("10.0.0.{}", i + 1)] }]);
        objects
            .slices
            .push(slice(name, name, json!([{ "name": "", "port": 8080 }]), endpoints));
    }
    objects
}

/// The Service letter that a request ends at, `-` for nothing.
fn end(snapshot: &Snapshot, host: &str, path: &str) -> char {
    match snapshot.find(host, path) {
        Found::Backend(backend) => match backend.endpoints.first() {
            Some(SocketAddr::V4(v4)) => (b'a' + v4.ip().octets()[3] - 1) as char,
            _ => '0',
        },
        Found::Nothing => '-',
    }
}

fn check(objects: &Objects, wanted: &[(&str, &str, char)]) {
    let snapshot = Snapshot::build(objects, "landfall");
    for (host, path, letter) in wanted {
        assert_eq!(end(&snapshot, host, path), *letter, "{host}{path}");
    }
}

#[test]
fn paths_match_whole_or_by_elements() {
    let spec = ours(&[rule(
        "h",
        &[
            ("Exact", "/foo", "a"),
            ("Prefix", "/bar", "b"),
            ("Prefix", "/bar/baz/", "c"),
            ("ImplementationSpecific", "/imp", "d"),
        ],
    )]);
    check(
        &world(vec![ingress("i", "2026-01-01T00:00:00Z", spec)]),
        &[
            ("h", "/foo", 'a'),
            ("h", "/foo/", '-'),
            ("h", "/Foo", '-'),
            ("h", "/bar", 'b'),
            ("h", "/bar/", 'b'),
            ("h", "/bar/x", 'b'),
            ("h", "/barx", '-'),
            ("h", "/bar/baz", 'c'),
            ("h", "/bar/baz/y", 'c'),
            ("h", "/bar/bazy", 'b'),
            ("h", "/imp/x", 'd'),
            ("h", "/", '-'),
        ],
    );
}

#[test]
fn longer_paths_win_then_exact_then_the_older() {
    let one = ours(&[rule(
        "h",
        &[("Prefix", "/", "a"), ("Prefix", "/x", "b"), ("Exact", "/x", "c")],
    )]);
    let late = ours(&[rule("h", &[("Prefix", "/", "d"), ("Prefix", "/x/y", "e")])]);
    let objects = world(vec![
        ingress("late", "2026-02-01T00:00:00Z", late),
        ingress("one", "2026-01-01T00:00:00Z", one),
    ]);
    check(
        &objects,
        &[
            ("h", "/", 'a'),
            ("h", "/x", 'c'),
            ("h", "/x/z", 'b'),
            ("h", "/x/y/z", 'e'),
        ],
    );
    let snapshot = Snapshot::build(&objects, "landfall");
    assert_eq!(snapshot.remarks, ["d/late: path / belongs to an older Ingress"]);
}

#[test]
fn precise_hosts_beat_wildcards_of_one_label_and_do_not_fall_through() {
    let spec = ours(&[
        rule("*.Foo.com", &[("Prefix", "/", "a")]),
        rule("bar.foo.com", &[("Prefix", "/only", "b")]),
        rule("", &[("Prefix", "/", "c")]),
    ]);
    check(
        &world(vec![ingress("i", "2026-01-01T00:00:00Z", spec)]),
        &[
            ("x.foo.com", "/", 'a'),
            ("y.x.foo.com", "/", 'c'),
            ("foo.com", "/", 'c'),
            ("bar.foo.com", "/only", 'b'),
            ("bar.foo.com", "/", '-'),
            ("else.where", "/", 'c'),
        ],
    );
}

#[test]
fn the_default_backend_takes_the_rest_and_the_oldest_has_it() {
    let one = json!({ "ingressClassName": "landfall", "defaultBackend": to("a"), "rules": [rule("h", &[("Exact", "/x", "b")])] });
    let two = json!({ "ingressClassName": "landfall", "defaultBackend": to("c") });
    check(
        &world(vec![
            ingress("2", "2026-02-01T00:00:00Z", two),
            ingress("1", "2026-01-01T00:00:00Z", one),
        ]),
        &[("h", "/x", 'b'), ("h", "/y", 'a'), ("z", "/", 'a')],
    );
}

#[test]
fn other_classes_are_left_alone_and_the_old_annotation_counts() {
    let mut spec = ours(&[rule("h", &[("Prefix", "/", "a")])]);
    spec["ingressClassName"] = json!("other");
    let foreign = ingress("foreign", "2026-01-01T00:00:00Z", spec.clone());
    spec["ingressClassName"] = json!("unknown");
    let unknown = ingress("unknown", "2026-01-01T00:00:00Z", spec.clone());
    spec["ingressClassName"] = Value::Null;
    spec["rules"][0]["host"] = json!("old");
    let mut old = ingress("old", "2026-01-01T00:00:00Z", spec);
    old.metadata.annotations = Some([(CLASS_ANNOTATION.to_owned(), "landfall".to_owned())].into());
    let objects = world(vec![foreign, unknown, old]);
    check(&objects, &[("h", "/", '-'), ("old", "/", 'a')]);
    assert_eq!(
        Snapshot::build(&objects, "landfall").ours,
        [("d".to_owned(), "old".to_owned())]
    );
}

#[test]
fn a_missing_service_or_endpoint_keeps_the_route() {
    let spec = ours(&[rule("h", &[("Prefix", "/gone", "nope"), ("Prefix", "/empty", "a")])]);
    let mut objects = world(vec![ingress("i", "2026-01-01T00:00:00Z", spec)]);
    objects.slices.clear();
    check(&objects, &[("h", "/gone", '0'), ("h", "/empty", '0'), ("h", "/", '-')]);
}

#[test]
fn ports_go_by_name_through_several_slices_and_nothing_panics_on_nil() {
    let spec = json!({ "ingressClassName": "landfall", "rules": [{ "host": "h", "http": { "paths": [{ "pathType": "Prefix",
        "path": "/", "backend": { "service": { "name": "m", "port": { "name": "web" } } } }] } }] });
    let mut objects = world(vec![ingress("i", "2026-01-01T00:00:00Z", spec)]);
    objects.services.push(service(
        "m",
        json!([{ "name": "metrics", "port": 9 }, { "name": "web", "port": 80 }]),
    ));
    let at = |name: &str, ports: Value, endpoints: Value| slice(name, "m", ports, endpoints);
    objects.slices.push(at("1", json!([{ "name": "web", "port": 8000 }, { "name": "metrics", "port": 9000 }]),
        json!([{ "addresses": ["10.1.0.2", "10.9.9.9"] }, { "addresses": ["10.1.0.1"], "conditions": { "ready": true } },
               { "addresses": ["10.1.0.3"], "conditions": { "ready": false, "serving": true, "terminating": true } }])));
    objects.slices.push(at(
        "2",
        json!([{ "name": "web", "port": 8001 }]),
        json!([{ "addresses": ["10.1.0.2"] }]),
    ));
    objects.slices.push(at(
        "3",
        json!([{ "name": "web" }]),
        json!([{ "addresses": ["10.1.0.7"] }]),
    ));
    objects.slices.push(at("4", Value::Null, Value::Null));
    let snapshot = Snapshot::build(&objects, "landfall");
    let Found::Backend(backend) = snapshot.find("h", "/") else {
        panic!("no route")
    };
    let texts: Vec<_> = backend.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.1.0.1:8000", "10.1.0.2:8000", "10.1.0.2:8001"]);
    let firsts: Vec<_> = (0..4).filter_map(|_| backend.candidates().next()).collect();
    assert_eq!(firsts[0], firsts[3]);
    assert_ne!(firsts[0], firsts[1]);
}

#[test]
fn endpoints_that_go_away_serve_when_no_other_does() {
    let spec = ours(&[rule("h", &[("Prefix", "/", "m")])]);
    let mut objects = world(vec![ingress("i", "2026-01-01T00:00:00Z", spec)]);
    objects.services.push(service("m", json!([{ "port": 80 }])));
    objects.slices.push(slice(
        "m",
        "m",
        json!([{ "name": "", "port": 1 }]),
        json!([{ "addresses": ["10.1.0.3"], "conditions": { "ready": false, "serving": true, "terminating": true } },
               { "addresses": ["10.1.0.4"], "conditions": { "ready": false } }]),
    ));
    let snapshot = Snapshot::build(&objects, "landfall");
    let Found::Backend(backend) = snapshot.find("h", "/") else {
        panic!("no route")
    };
    assert_eq!(backend.endpoints.len(), 1);
    assert_eq!(backend.endpoints[0].to_string(), "10.1.0.3:1");
}

#[test]
fn hosts_are_normalised_or_refused() {
    for (text, wanted) in [
        ("Test.NGINX.com", Some("test.nginx.com")),
        ("test.nginx.com:8080", Some("test.nginx.com")),
        ("test.nginx.com.", Some("test.nginx.com")),
        ("test.nginx.com.:80", Some("test.nginx.com")),
        ("10.0.0.1:80", Some("10.0.0.1")),
        ("[::1]:80", Some("[::1]")),
        ("[::1", None),
        ("", None),
        ("a b", None),
        ("a:b", None),
        ("a/b", None),
    ] {
        assert_eq!(host_of(text).as_deref(), wanted, "{text}");
    }
}
