//! One table per rule, named after it. Services `a` to `f` have one endpoint each, so a letter tells where a request ends.

use super::build::CONTROLLER;
use super::endpoints::SERVICE_LABEL;
use super::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;

fn object<K: DeserializeOwned>(value: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value).unwrap())
}

/// An Ingress named `name`; names that sort later were created later.
fn ingress(name: &str, spec: Value) -> Value {
    let second = name.bytes().last().unwrap() % 60;
    json!({ "metadata": { "name": name, "namespace": "d", "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z") }, "spec": spec })
}

fn to(service: &str) -> Value {
    json!({ "service": { "name": service, "port": { "number": 80 } } })
}

fn rule(host: &str, paths: &[(&str, &str, &str)]) -> Value {
    let path =
        |(kind, path, service): &(&str, &str, &str)| json!({ "pathType": kind, "path": path, "backend": to(service) });
    let paths: Vec<_> = paths.iter().map(path).collect();
    let host = if host.is_empty() { Value::Null } else { json!(host) };
    json!({ "host": host, "http": { "paths": paths } })
}

fn ours(rules: &[Value]) -> Value {
    json!({ "ingressClassName": "landfall", "rules": rules })
}

fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> Value {
    json!({ "addressType": "IPv4", "metadata": { "name": name, "namespace": "d", "labels": { SERVICE_LABEL: service } },
        "ports": ports, "endpoints": endpoints })
}

/// A world with these Ingresses and Services `a` to `f` at 10.0.0.1 to 10.0.0.6.
fn world(ingresses: &[Value]) -> Objects {
    let class =
        |name, controller| object(json!({ "metadata": { "name": name }, "spec": { "controller": controller } }));
    let mut objects = Objects {
        ingresses: ingresses.iter().cloned().map(object).collect(),
        classes: vec![class("landfall", CONTROLLER), class("other", "example.com/x")],
        ..Objects::default()
    };
    for (i, name) in ["a", "b", "c", "d", "e", "f"].iter().enumerate() {
        add_service(&mut objects, name, json!([{ "port": 80 }]));
        let endpoints = json!([{ "addresses": [format!("10.0.0.{}", i + 1)] }]);
        objects.slices.push(object(slice(
            name,
            name,
            json!([{ "name": "", "port": 8080 }]),
            endpoints,
        )));
    }
    objects
}

fn add_service(objects: &mut Objects, name: &str, ports: Value) {
    let service = json!({ "metadata": { "name": name, "namespace": "d" }, "spec": { "ports": ports } });
    objects.services.push(object(service));
}

/// The Service letter that a request ends at; `0` without endpoints, `-` for nothing.
fn end(snapshot: &Snapshot, host: &str, path: &str) -> char {
    match snapshot.find(host, path).map(|b| b.endpoints.first()) {
        Some(Some(SocketAddr::V4(v4))) => (b'a' + v4.ip().octets()[3] - 1) as char,
        Some(_) => '0',
        None => '-',
    }
}

fn check(objects: &Objects, wanted: &[(&str, &str, char)]) -> Snapshot {
    let snapshot = Snapshot::build(objects, "landfall");
    for (host, path, letter) in wanted {
        assert_eq!(end(&snapshot, host, path), *letter, "{host}{path}");
    }
    snapshot
}

fn check_rules(rules: &[Value], wanted: &[(&str, &str, char)]) -> Snapshot {
    check(&world(&[ingress("i1", ours(rules))]), wanted)
}

/// Endpoints of Service `m` behind an Ingress that asks for this port, with these slices.
fn endpoints_of(port: Value, service_ports: Value, slices: &[Value]) -> (Vec<String>, Vec<String>) {
    let backend = json!({ "service": { "name": "m", "port": port } });
    let path = json!({ "pathType": "Prefix", "path": "/", "backend": backend });
    let mut objects = world(&[ingress(
        "i1",
        ours(&[json!({ "host": "h", "http": { "paths": [path] } })]),
    )]);
    add_service(&mut objects, "m", service_ports);
    objects.slices.extend(slices.iter().cloned().map(object));
    let snapshot = Snapshot::build(&objects, "landfall");
    let endpoints = snapshot
        .find("h", "/")
        .unwrap()
        .endpoints
        .iter()
        .map(ToString::to_string)
        .collect();
    (endpoints, snapshot.remarks)
}

#[test]
fn s1_exact_is_the_whole_path_and_case_counts() {
    check_rules(
        &[rule("h", &[("Exact", "/foo", "a"), ("Exact", "/bar/", "b")])],
        &[
            ("h", "/foo", 'a'),
            ("h", "/foo/", '-'),
            ("h", "/Foo", '-'),
            ("h", "/foo/x", '-'),
            ("h", "/bar/", 'b'),
            ("h", "/bar", '-'),
            ("h", "/", '-'),
        ],
    );
}

#[test]
fn s2_prefix_goes_by_elements() {
    check_rules(
        &[rule("h", &[("Prefix", "/foo/bar", "a"), ("Prefix", "/aa/", "b")])],
        &[
            ("h", "/foo/bar", 'a'),
            ("h", "/foo/bar/", 'a'),
            ("h", "/foo/bar/baz", 'a'),
            ("h", "/foo/barbaz", '-'),
            ("h", "/foo", '-'),
            ("h", "/FOO/bar", '-'),
            ("h", "/aa", 'b'),
            ("h", "/aa/", 'b'),
            ("h", "/aa/b", 'b'),
            ("h", "/aab", '-'),
        ],
    );
    check_rules(
        &[rule(
            "h",
            &[("Prefix", "/foo", "a"), ("Prefix", "/foo/", "b"), ("Prefix", "/", "c")],
        )],
        &[
            ("h", "/foo", 'b'),
            ("h", "/foo/x", 'b'),
            ("h", "/", 'c'),
            ("h", "/anything/else", 'c'),
            ("h", "//", 'c'),
        ],
    );
}

#[test]
fn s3_implementation_specific_is_prefix_and_a_missing_path_is_all() {
    check_rules(
        &[rule(
            "h",
            &[
                ("ImplementationSpecific", "/imp", "a"),
                ("ImplementationSpecific", "", "b"),
            ],
        )],
        &[("h", "/imp/x", 'a'), ("h", "/impx", 'b'), ("h", "/", 'b')],
    );
}

#[test]
fn s4_longer_paths_win_then_exact_then_the_older() {
    let one = ours(&[rule(
        "h",
        &[("Prefix", "/", "a"), ("Prefix", "/x", "b"), ("Exact", "/x", "c")],
    )]);
    let late = ours(&[rule("h", &[("Prefix", "/", "d"), ("Prefix", "/x/y", "e")])]);
    let wanted = [
        ("h", "/", 'a'),
        ("h", "/x", 'c'),
        ("h", "/x/z", 'b'),
        ("h", "/x/y/z", 'e'),
    ];
    let snapshot = check(
        &world(&[ingress("i2", late.clone()), ingress("i1", one.clone())]),
        &wanted,
    );
    assert_eq!(snapshot.remarks, ["d/i2: path / belongs to an older Ingress"]);
    // Of the same age: by namespace and name.
    let (mut one, mut late) = (ingress("i1", one), ingress("i2", late));
    one["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    late["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    check(&world(&[late, one]), &wanted);
}

#[test]
fn s5_precise_hosts_beat_wildcards_of_one_label_and_do_not_fall_through() {
    check_rules(
        &[
            rule("*.Foo.com", &[("Prefix", "/", "a")]),
            rule("bar.foo.com", &[("Prefix", "/only", "b")]),
            rule("", &[("Prefix", "/", "c")]),
        ],
        &[
            ("x.foo.com", "/", 'a'),
            ("y.x.foo.com", "/", 'c'),
            ("foo.com", "/", 'c'),
            (".foo.com", "/", 'c'),
            ("bar.foo.com", "/only", 'b'),
            ("bar.foo.com", "/", '-'),
            ("else.where", "/", 'c'),
        ],
    );
}

#[test]
fn s6_hosts_are_normalised_or_refused() {
    for (text, wanted) in [
        ("Test.NGINX.com", Some("test.nginx.com")),
        ("test.nginx.com:8080", Some("test.nginx.com")),
        ("test.nginx.com.", Some("test.nginx.com")),
        ("test.nginx.com.:80", Some("test.nginx.com")),
        ("test.nginx.com:", Some("test.nginx.com")),
        ("10.0.0.1:80", Some("10.0.0.1")),
        ("[::1]:80", Some("[::1]")),
        ("[0:0::1]", Some("[::1]")),
        ("[::1", None),
        ("[::1]x", None),
        ("[h]", None),
        ("", None),
        (".", None),
        (":80", None),
        ("a b", None),
        ("a:b", None),
        ("a:1:2", None),
        ("a/b", None),
        ("user@h", None),
        ("h\u{e4}", None),
    ] {
        assert_eq!(host_of(text).as_deref(), wanted, "{text}");
    }
    assert_eq!(host_of(&"a".repeat(254)), None);
}

#[test]
fn s7_no_host_is_all_hosts_and_no_http_is_the_default_backend() {
    let mut spec = ours(&[rule("", &[("Prefix", "/all", "a")]), json!({ "host": "bare" })]);
    spec["defaultBackend"] = to("b");
    check(
        &world(&[ingress("i1", spec)]),
        &[
            ("any", "/all", 'a'),
            ("", "/all", 'a'),
            ("any", "/", 'b'),
            ("bare", "/all", 'b'),
            ("bare", "/", 'b'),
        ],
    );
}

#[test]
fn s8_the_default_backend_takes_the_rest_and_the_oldest_has_it() {
    let one = json!({ "ingressClassName": "landfall", "defaultBackend": to("a"), "rules": [rule("h", &[("Exact", "/x", "b")])] });
    let two = json!({ "ingressClassName": "landfall", "defaultBackend": to("c") });
    let snapshot = check(
        &world(&[ingress("i2", two), ingress("i1", one)]),
        &[("h", "/x", 'b'), ("h", "/y", 'a'), ("z", "/", 'a')],
    );
    assert_eq!(snapshot.remarks, ["d/i2: an older Ingress has the default backend"]);
}

#[test]
fn s9_nothing_matches_without_default_and_a_route_without_endpoints_stays() {
    let spec = ours(&[rule(
        "h",
        &[
            ("Prefix", "/gone", "nope"),
            ("Prefix", "/empty", "a"),
            ("Prefix", "/b", "b"),
        ],
    )]);
    let mut objects = world(&[ingress("i1", spec)]);
    objects.slices.remove(0);
    let snapshot = check(
        &objects,
        &[
            ("h", "/gone", '0'),
            ("h", "/empty", '0'),
            ("h", "/b", 'b'),
            ("h", "/", '-'),
            ("z", "/", '-'),
        ],
    );
    assert_eq!(snapshot.remarks, ["d/i1: d/nope:80: there is no such Service"]);
}

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
    let mut objects = world(&[ingress("i1", spec)]);
    objects
        .services
        .push(object(json!({ "metadata": { "name": "ext", "namespace": "d" },
        "spec": { "type": "ExternalName", "externalName": "metadata.internal", "ports": [{ "port": 80 }] } })));
    let snapshot = check(&objects, &[("h", "/e", '0'), ("h", "/r", '0')]);
    assert_eq!(snapshot.remarks.len(), 2);
}

#[test]
fn s15_other_classes_are_left_alone_and_the_old_annotation_counts() {
    let of =
        |class: Value, host: &str| json!({ "ingressClassName": class, "rules": [rule(host, &[("Prefix", "/", "a")])] });
    let mut old = ingress("i4", of(Value::Null, "old"));
    old["metadata"]["annotations"] = json!({ CLASS_ANNOTATION: "landfall" });
    let all = [
        ingress("i1", of(json!("other"), "foreign")),
        ingress("i2", of(json!("unknown"), "unknown")),
        ingress("i3", of(Value::Null, "none")),
        old,
    ];
    let wanted = [
        ("foreign", "/", '-'),
        ("unknown", "/", '-'),
        ("none", "/", '-'),
        ("old", "/", 'a'),
    ];
    let snapshot = check(&world(&all), &wanted);
    let names: Vec<_> = snapshot.ours.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["i4"]);
    // A class of our name that is for another controller makes nothing ours.
    let mut objects = world(&all);
    objects.classes = vec![object(
        json!({ "metadata": { "name": "landfall" }, "spec": { "controller": "x.y/z" } }),
    )];
    let snapshot = check(&objects, &[("old", "/", '-')]);
    assert!(snapshot.ours.is_empty() && snapshot.remarks.len() == 1);
}

#[test]
fn s16_ingresses_without_a_class_belong_to_the_default_class() {
    let spec = json!({ "rules": [rule("h", &[("Prefix", "/", "a")])] });
    let mut objects = world(&[ingress("i1", spec)]);
    check(&objects, &[("h", "/", '-')]);
    objects.classes = vec![object(
        json!({ "metadata": { "name": "landfall", "annotations": { DEFAULT_CLASS: "true" } },
        "spec": { "controller": CONTROLLER } }),
    )];
    check(&objects, &[("h", "/", 'a')]);
}

#[test]
fn endpoints_take_turns_and_the_others_follow_for_failover() {
    let backend = Backend {
        endpoints: (1..=3).map(|port| SocketAddr::from(([10, 0, 0, 1], port))).collect(),
        ..Backend::default()
    };
    let turns: Vec<Vec<u16>> = (0..4)
        .map(|_| backend.candidates().map(|e| e.port()).collect())
        .collect();
    assert_eq!(turns, [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
    assert_eq!(Backend::default().candidates().count(), 0);
}

#[test]
fn objects_without_anything_make_an_empty_table() {
    let empty = || json!({ "metadata": {} });
    let mut objects = world(&[empty()]);
    objects.services.push(object(empty()));
    objects.slices.push(object(
        json!({ "metadata": {}, "addressType": "", "endpoints": [], "ports": [] }),
    ));
    objects.classes.push(object(empty()));
    let snapshot = Snapshot::build(&objects, "landfall");
    assert_eq!((snapshot.route_count(), snapshot.ours.len()), (0, 0));
}
