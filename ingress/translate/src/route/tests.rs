//! One table per rule, named after it: here those of hosts and paths.

mod classes;
mod endpoints;
mod explain;
mod hosts;
mod paths;
mod versions;
mod world;

use landfall_ingress_http::host::host_of;
use serde_json::json;
use world::{check, check_rules, ingress, ours, rule, texts, to, world};

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
    assert_eq!(texts(&snapshot), ["d/i2: path / belongs to an older Ingress, d/i1"]);
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
fn s8_a_default_backend_takes_the_rest_of_its_hosts_or_without_rules_of_hosts_that_nobody_names() {
    let with = |default, rules: serde_json::Value| json!({ "ingressClassName": "landfall", "defaultBackend": to(default), "rules": rules });
    let exact = |host, service| rule(host, &[("Exact", "/x", service)]);
    let one = with("a", json!([exact("h", "b"), exact("*.w", "b")]));
    let two = with("c", json!([]));
    let later = with("d", json!([exact("h", "e"), exact("own", "e")]));
    let last = with("f", json!([]));
    let bare = ours(&[exact("bare", "e")]);
    let all = [
        ingress("i5", bare),
        ingress("i4", last),
        ingress("i3", later),
        ingress("i2", two),
        ingress("i1", one.clone()),
    ];
    let snapshot = check(
        &world(&all),
        &[
            ("h", "/x", 'b'),
            ("h", "/y", 'a'),
            ("n.w", "/y", 'a'),
            ("own", "/y", 'd'),
            // Of its namespace one without rules takes the rest too.
            ("bare", "/y", 'c'),
            ("z", "/", 'c'),
            ("", "/", 'c'),
        ],
    );
    assert_eq!(
        texts(&snapshot),
        [
            "d/i3: path /x belongs to an older Ingress, d/i1",
            "d/i3: an older Ingress, d/i1, has the default backend of this host",
            "d/i4: an older Ingress has the default backend",
        ]
    );
    let winner = snapshot.table.explain("h", "/y").winner.unwrap();
    assert_eq!(
        (winner.kind, &*winner.host, &*winner.ingress),
        ("DefaultBackend", "h", "d/i1")
    );
    // Alone it is for its own hosts all the same.
    check(
        &world(&[ingress("i1", one)]),
        &[("h", "/y", 'a'), ("z", "/", '-'), ("w", "/", '-')],
    );
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
    let objects = world(&[ingress("i1", spec)]);
    objects.services.remove_slice("d", "a");
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
    assert_eq!(texts(&snapshot), ["d/i1: d/nope:80: there is no such Service"]);
}
