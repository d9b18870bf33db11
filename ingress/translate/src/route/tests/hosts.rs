//! Whose a host is, and who else may be on it.

use super::world::{annotate, built, check, end, ingress, object, ours, rule, texts, world};
use crate::options::Options;
use crate::remark::{Reason, Remark, Severity};
use crate::route::Snapshot;
use landfall_ingress_routing::Held;
use serde_json::{Value, json};
use std::borrow::Cow;

const NGINX: &str = "nginx.ingress.kubernetes.io";

/// An Ingress of namespace `n`, which has no Services: its routes end at `0`.
fn elsewhere(name: &str, rules: &[Value]) -> Value {
    let mut ingress = ingress(name, ours(rules));
    ingress["metadata"]["namespace"] = json!("n");
    ingress
}

fn letters(snapshot: &Snapshot, wanted: &[(&str, &str, char)]) {
    for (host, path, letter) in wanted {
        assert_eq!(end(snapshot, host, path), *letter, "{host}{path}");
    }
}

#[test]
fn s20_services_and_secrets_are_of_the_namespace_of_the_ingress() {
    // Service `a` is in namespace `d`; an Ingress of `n` cannot reach it by its name.
    let snapshot = check(
        &world(&[elsewhere("i1", &[rule("h", &[("Prefix", "/", "a")])])]),
        &[("h", "/", '0')],
    );
    assert_eq!(texts(&snapshot), ["n/i1: n/a:80: there is no such Service"]);
    let mut foreign = ingress("i1", ours(&[rule("h", &[("Prefix", "/", "a")])]));
    annotate(&mut foreign, &format!("{NGINX}/auth-tls-secret"), "n/ca");
    let snapshot = check(&world(&[foreign]), &[("h", "/", 'a')]);
    assert!(snapshot.table.find("h", "/").unwrap().policy.closed.is_some());
    assert!(snapshot.wanted.is_empty());
}

#[test]
fn s22_ingresses_of_one_namespace_share_a_host_and_its_tls() {
    let one = ingress("i1", ours(&[rule("h", &[("Prefix", "/", "a")])]));
    let mut two = ingress(
        "i2",
        ours(&[
            rule("h", &[("Prefix", "/two", "b")]),
            rule("w.x.org", &[("Prefix", "/", "c")]),
        ]),
    );
    two["spec"]["tls"] = json!([{ "hosts": ["h", "*.x.org"], "secretName": "cert" }]);
    let snapshot = check(&world(&[one, two]), &[("h", "/", 'a'), ("h", "/two/x", 'b')]);
    assert!(snapshot.remarks().is_empty(), "{:?}", snapshot.remarks());
    for (host, path) in [("h", "/"), ("h", "/two"), ("w.x.org", "/")] {
        assert!(snapshot.table.find(host, path).unwrap().host.tls, "{host}");
        assert_eq!(&*snapshot.table.host(host).unwrap().namespace, "d");
    }
}

#[test]
fn across_namespaces_the_oldest_owns_a_host_and_the_loser_is_shown() {
    let all = [
        elsewhere(
            "i3",
            &[
                rule("h", &[("Prefix", "/login", "a")]),
                rule("own", &[("Prefix", "/", "a")]),
            ],
        ),
        ingress(
            "i1",
            ours(&[rule("h", &[("Prefix", "/", "a")]), rule("", &[("Exact", "/any", "b")])]),
        ),
        elsewhere("i4", &[rule("", &[("Prefix", "/", "a")])]),
        // A precise host below somebody's wildcard is another host.
        ingress("i2", ours(&[rule("*.w", &[("Prefix", "/", "c")])])),
        elsewhere("i5", &[rule("x.w", &[("Prefix", "/", "a")])]),
    ];
    let snapshot = check(
        &world(&all),
        &[
            ("h", "/login", 'a'),
            ("own", "/", '0'),
            ("z", "/any", 'b'),
            ("z", "/", '-'),
            ("x.w", "/", '0'),
            ("y.w", "/", 'c'),
        ],
    );
    let lost = taken(&snapshot);
    let shown: Vec<_> = lost
        .iter()
        .map(|r| (r.name.as_str(), r.host.as_deref(), r.severity))
        .collect();
    assert_eq!(
        shown,
        [
            ("i3", Some("h"), Severity::Refused),
            ("i4", Some(""), Severity::Refused)
        ]
    );
    assert_eq!(lost[0].text, "host h belongs to namespace d, which named it first");

    let merging = Options {
        merge_hosts: true,
        ..Options::default()
    };
    let snapshot = built(&world(&all), merging);
    letters(
        &snapshot,
        &[
            ("h", "/login", '0'),
            ("h", "/", 'a'),
            ("z", "/", '0'),
            ("z", "/any", 'b'),
        ],
    );
}

#[test]
fn s18_certificates_belong_to_hosts_of_their_own_namespace() {
    let mut one = ingress("i1", ours(&[rule("H.com", &[("Prefix", "/", "a")])]));
    one["spec"]["tls"] = json!([
        { "hosts": ["H.com", "*.w.com"], "secretName": "cert" }, { "secretName": "fallback" }, { "hosts": ["bare"] },
        { "hosts": ["no host"], "secretName": "x" } ]);
    let mut two = elsewhere("i2", &[]);
    two["spec"]["tls"] = json!([{ "hosts": ["h.com"], "secretName": "stolen" }]);
    let snapshot = check(&world(&[one, two]), &[]);
    let mut held: Vec<_> = snapshot.table.certificates().collect();
    held.sort_by_key(|(host, _)| *host);
    let secret = |held: &Held| held.secret.as_ref().map(ToString::to_string);
    let held: Vec<_> = held
        .iter()
        .map(|(host, held)| (*host, &*held.ingress, secret(held)))
        .collect();
    let cert = Some("d/cert".to_owned());
    let wanted = [
        ("*.w.com", "d/i1", cert.clone()),
        ("bare", "d/i1", None),
        ("h.com", "d/i1", cert),
    ];
    assert_eq!(held, wanted);
    let default = snapshot.table.default_certificate().and_then(secret);
    assert_eq!(default.as_deref(), Some("d/fallback"));
    let remarks = snapshot.remarks();
    let refused: Vec<_> = remarks.iter().map(|r| (r.name.as_str(), r.reason)).collect();
    assert_eq!(refused, [("i1", Reason::BadHost), ("i2", Reason::HostTaken)]);
}

#[test]
fn aliases_take_what_no_rule_names() {
    let mut one = ingress("i1", ours(&[rule("h", &[("Prefix", "/", "a")])]));
    annotate(&mut one, &format!("{NGINX}/server-alias"), "A.h, named, twice");
    let named = ingress("i2", ours(&[rule("named", &[("Prefix", "/", "b")])]));
    let mut thief = elsewhere("i3", &[rule("x", &[("Prefix", "/", "a")])]);
    annotate(&mut thief, &format!("{NGINX}/server-alias"), "twice h");
    let snapshot = check(
        &world(&[thief, named, one]),
        &[
            ("a.h", "/x", 'a'),
            ("named", "/", 'b'),
            ("twice", "/", 'a'),
            ("h", "/", 'a'),
        ],
    );
    let lost = taken(&snapshot);
    let shown: Vec<_> = lost
        .iter()
        .map(|r| (r.name.as_str(), r.host.as_deref().unwrap()))
        .collect();
    assert_eq!(shown, [("i1", "named"), ("i3", "h"), ("i3", "twice")]);
}

#[test]
fn a_host_that_nobody_names_redirects() {
    let rules = [
        rule("a.com", &[("Prefix", "/", "a")]),
        rule("www.b.com", &[("Prefix", "/", "b")]),
    ];
    let mut one = ingress("i1", ours(&rules));
    annotate(&mut one, &format!("{NGINX}/from-to-www-redirect"), "true");
    let other = ingress("i2", ours(&[rule("b.com", &[("Prefix", "/", "c")])]));
    let snapshot = check(
        &world(&[one, other]),
        &[("a.com", "/", 'a'), ("www.a.com", "/x", '0'), ("b.com", "/", 'c')],
    );
    let to = snapshot
        .table
        .find("www.a.com", "/x")
        .unwrap()
        .policy
        .redirects
        .to
        .clone()
        .unwrap();
    assert_eq!(
        (to.status.as_u16(), to.location.as_str()),
        (308, "$scheme://a.com$request_uri")
    );
    assert!(snapshot.table.find("a.com", "/").unwrap().policy.redirects.to.is_none());
}

#[test]
fn a_canary_gives_alternatives_and_claims_nothing() {
    let main = ingress("i2", ours(&[rule("h", &[("Prefix", "/", "a"), ("Exact", "/x", "b")])]));
    let mut canary = ingress("i1", ours(&[rule("h", &[("Prefix", "/", "c"), ("Prefix", "/x", "d")])]));
    annotate(&mut canary, &format!("{NGINX}/canary"), "true");
    annotate(&mut canary, &format!("{NGINX}/canary-weight"), "30");
    let mut foreign = elsewhere("i0", &[rule("h", &[("Prefix", "/", "a")])]);
    annotate(&mut foreign, &format!("{NGINX}/canary"), "true");
    let snapshot = check(&world(&[main, canary, foreign]), &[("h", "/", 'a'), ("h", "/x", 'b')]);
    let route = snapshot.table.find("h", "/").unwrap();
    let found: Vec<_> = route
        .alternatives
        .iter()
        .map(|a| (&*a.ingress, a.backend.name.as_str(), a.canary.weight))
        .collect();
    assert_eq!(found, [("d/i1", "d/c:80", 30)]);
    assert!(snapshot.table.find("h", "/x").unwrap().alternatives.is_empty());
    let remarks = snapshot.remarks();
    let alone = remarks.iter().filter(|r| r.reason == Reason::CanaryAlone);
    let alone: Vec<_> = alone.map(|r| &*r.name).collect();
    assert_eq!(alone, ["i1", "i0"]);
    assert!(snapshot.table.endpoints().contains(&"10.0.0.3:8080".parse().unwrap()));
}

/// In ingress-nginx an alternative has the path of the other as it is written, and all annotations but its own from there.
#[test]
fn a_canary_has_the_path_of_its_main_ingress_as_it_is_written() {
    let paths = |service| {
        [
            ("ImplementationSpecific", "/(v1|v2)/(\\d+)", service),
            ("Prefix", "/a|b", service),
        ]
    };
    let mut main = ingress("i1", ours(&[rule("h", &paths("a"))]));
    annotate(&mut main, &format!("{NGINX}/rewrite-target"), "/$2");
    let mut plain = ingress(
        "i2",
        ours(&[rule("p", &[("Prefix", "/a|b", "a"), ("Prefix", "/c%2fd", "b")])]),
    );
    plain["metadata"]["annotations"] = json!({});
    let canary = |name: &str, rules: &[Value]| {
        let mut canary = ingress(name, ours(rules));
        annotate(&mut canary, &format!("{NGINX}/canary"), "true");
        annotate(&mut canary, &format!("{NGINX}/canary-weight"), "50");
        canary
    };
    let bare = canary("i3", &[rule("h", &paths("c"))]);
    let mut wordy = canary(
        "i4",
        &[rule("p", &[("Prefix", "/a|b", "d"), ("Prefix", "/c%2Fd", "e")])],
    );
    annotate(&mut wordy, &format!("{NGINX}/use-regex"), "true");
    let stranger = canary("i5", &[rule("h", &[("Prefix", "/v1", "e")])]);
    let snapshot = check(
        &world(&[main, plain, bare, wordy, stranger]),
        &[("h", "/v1/12", 'a'), ("p", "/a%7Cb", 'a')],
    );
    for (host, path, wanted) in [
        ("h", "/v1/12", "d/c:80"),
        ("p", "/a%7Cb", "d/d:80"),
        ("p", "/c%2Fd", "d/e:80"),
    ] {
        let route = snapshot.table.find(host, path).unwrap();
        let names: Vec<_> = route.alternatives.iter().map(|a| a.backend.name.as_str()).collect();
        assert_eq!(names, [wanted], "{host}{path}");
    }
    assert!(snapshot.table.find("h", "/v1/12").unwrap().policy.rewrite.is_some());
    let remarks = snapshot.remarks();
    let alone: Vec<_> = remarks
        .iter()
        .filter(|r| r.reason == Reason::CanaryAlone)
        .map(|r| &*r.name)
        .collect();
    assert_eq!(alone, ["i5"], "{:?}", texts(&snapshot));
}

#[test]
fn endpoints_of_annotations_are_those_of_the_named_services() {
    let mut one = ingress("i1", ours(&[rule("h", &[("Prefix", "/", "a")])]));
    annotate(&mut one, &format!("{NGINX}/default-backend"), "b");
    annotate(
        &mut one,
        &format!("{NGINX}/auth-url"),
        "http://c.d.svc.cluster.local/check",
    );
    annotate(&mut one, &format!("{NGINX}/mirror-target"), "http://d$request_uri");
    let snapshot = check(&world(&[one]), &[("h", "/", 'a')]);
    let route = snapshot.table.find("h", "/").unwrap();
    let name =
        |backend: &Option<std::sync::Arc<landfall_ingress_balance::Backend>>| backend.as_ref().unwrap().name.clone();
    assert_eq!(
        [name(&route.fallback), name(&route.auth), name(&route.mirror)],
        ["d/b:80", "d/c:80", "d/d:80"]
    );
    assert!(
        snapshot.remarks().is_empty() && route.policy.closed.is_none(),
        "{:?}",
        snapshot.remarks()
    );
}

#[test]
fn s17_parameters_of_a_class_are_reported_and_any_class_of_our_controller_counts() {
    let of =
        |class: &str, host: &str| json!({ "ingressClassName": class, "rules": [rule(host, &[("Prefix", "/", "a")])] });
    let mut objects = world(&[
        ingress("i1", of("blue", "b")),
        ingress("i2", of("nginx", "n")),
        ingress("i3", of("landfall", "l")),
    ]);
    let class = |name: &str, controller: &str| {
        object(
            json!({ "metadata": { "name": name }, "spec": { "controller": controller,
            "parameters": { "kind": "ConfigMap", "name": "x" } } }),
        )
    };
    objects.classes = vec![
        class("blue", "landfall.dev/ingress"),
        class("nginx", "k8s.io/ingress-nginx"),
    ];
    let snapshot = built(&objects, Options::default());
    letters(&snapshot, &[("b", "/", 'a'), ("n", "/", '-'), ("l", "/", '-')]);
    assert_eq!(
        texts(&snapshot),
        ["IngressClass blue: spec.parameters are not read: this controller has none"]
    );
    // A migration: the classes of another controller.
    let migrating = Options {
        controller: "k8s.io/ingress-nginx".to_owned(),
        ..Options::default()
    };
    letters(&built(&objects, migrating), &[("b", "/", '-'), ("n", "/", 'a')]);
    // The old annotation counts for a class that has no object.
    let mut old = ingress("i1", json!({ "rules": [rule("o", &[("Prefix", "/", "a")])] }));
    annotate(&mut old, "kubernetes.io/ingress.class", "nginx");
    let mut objects = world(&[old]);
    objects.classes.clear();
    let named = Options {
        class: Some("nginx".to_owned()),
        ..Options::default()
    };
    letters(&built(&objects, named), &[("o", "/", 'a')]);
    letters(&built(&objects, Options::default()), &[("o", "/", '-')]);
}

#[test]
fn replaced_answers_come_from_the_default_backend_when_the_ingress_names_none() {
    let mut one = ingress("i1", ours(&[rule("h", &[("Prefix", "/", "a")])]));
    annotate(&mut one, &format!("{NGINX}/custom-http-errors"), "404,503");
    let default = ingress(
        "i2",
        json!({ "ingressClassName": "landfall", "defaultBackend": super::world::to("f") }),
    );
    let snapshot = check(&world(&[one, default]), &[("h", "/", 'a'), ("z", "/", 'f')]);
    let route = snapshot.table.find("h", "/").unwrap();
    assert_eq!(route.fallback.as_ref().unwrap().name, "d/f:80");
    assert_eq!(route.policy.replaced_statuses.len(), 2);
}

/// A namespace that is nobody's friend has the oldest Ingress without rules.
#[test]
fn a_default_backend_is_never_asked_for_hosts_or_answers_of_another_namespace() {
    let default = |to: &str| json!({ "ingressClassName": "landfall", "defaultBackend": super::world::to(to) });
    let evil = ingress("i0", default("f"));
    let named = |name: &str, rules: Value, to: Option<&str>| {
        let mut named = elsewhere(name, &[]);
        named["spec"]["rules"] = rules;
        if let Some(to) = to {
            named["spec"]["defaultBackend"] = super::world::to(to);
        }
        named
    };
    let api = |host: &str| json!([rule(host, &[("Prefix", "/api", "a")])]);
    let mut errors = named("i2", api("e.t"), None);
    annotate(&mut errors, &format!("{NGINX}/custom-http-errors"), "404,503");
    let mut both = named("i3", api("b.t"), Some("a"));
    annotate(&mut both, &format!("{NGINX}/custom-http-errors"), "404");
    // Whose host it is not has no say in its default backend either.
    let mut thief = ingress("i4", ours(&[rule("v.t", &[("Prefix", "/", "b")])]));
    thief["spec"]["defaultBackend"] = super::world::to("b");
    let any = named("i5", json!([rule("", &[("Exact", "/any", "a")])]), None);
    // One without rules is for its namespace's hosts, however old that of another is.
    let mut own = named("i6", json!([]), Some("b"));
    own["metadata"]["namespace"] = json!("m");
    let mut of_own = named("i7", api("m.t"), None);
    of_own["metadata"]["namespace"] = json!("m");
    let all = [
        own,
        of_own,
        evil,
        named("i1", api("v.t"), Some("a")),
        errors,
        both,
        thief,
        any,
    ];
    let snapshot = check(
        &world(&all),
        // `n` has no Services: what is its own ends at `0`.
        &[
            ("v.t", "/x", '0'),
            ("v.t", "/api", '0'),
            ("e.t", "/x", '-'),
            ("unknown", "/any", '0'),
            ("unknown", "/x", 'f'),
        ],
    );
    let found = |host: &str, path: &str| snapshot.table.find(host, path).unwrap();
    assert_eq!(found("v.t", "/x").backend.name, "n/a:80");
    assert_eq!(found("m.t", "/x").backend.name, "m/b:80");
    assert!(found("e.t", "/api").fallback.is_none());
    assert_eq!(found("b.t", "/api").fallback.as_ref().unwrap().name, "n/a:80");
    assert!(
        snapshot
            .table
            .routes_of("v.t")
            .all(|route| route.ingress.starts_with("n/"))
    );
    assert!(
        snapshot
            .table
            .routes()
            .any(|route| route.path.is_empty() && &*route.host.name == "v.t")
    );
}

#[test]
fn the_default_backend_of_a_host_counts_for_its_aliases_and_demands_its_certificates() {
    let mut one = ingress("i1", ours(&[rule("h", &[("Prefix", "/x", "a")])]));
    annotate(&mut one, &format!("{NGINX}/server-alias"), "a.h");
    one["spec"]["defaultBackend"] = super::world::to("b");
    let snapshot = check(&world(&[one]), &[("h", "/", 'b'), ("a.h", "/", 'b'), ("z", "/", '-')]);
    assert_eq!(snapshot.table.route_count(), 4);
    assert!(snapshot.table.endpoints().contains(&"10.0.0.2:8080".parse().unwrap()));
    assert_eq!(snapshot.table.routes_of("h").count(), 2);
}

/// What is said of hosts that belong to others.
fn taken(snapshot: &Snapshot) -> Vec<Remark> {
    let remarks = snapshot.remarks().into_iter();
    let taken = remarks.filter(|r| r.reason == Reason::HostTaken);
    taken.map(Cow::into_owned).collect()
}
