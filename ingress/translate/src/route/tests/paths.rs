//! Precedence against a naive model, spellings, regular expressions, challenges.

use super::world::{annotate, check, check_rules, end, ingress, ours, rule, texts, world};
use crate::remark::Reason;
use landfall_ingress_http::path::canonical;
use landfall_ingress_routing::policy::HttpsRedirect;
use landfall_ingress_routing::{Route, Table, order};
use serde_json::json;
use std::sync::Arc;

const NGINX: &str = "nginx.ingress.kubernetes.io";

/// Numbers from a fixed seed: the same in each run.
fn numbers() -> impl FnMut(usize) -> usize {
    let mut seed: u64 = 0xfeed;
    move |below| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    }
}

#[test]
fn s4_the_search_gives_what_looking_at_every_route_gives() {
    const PIECES: [&str; 9] = ["/a", "/b", "/ab", "/a-b", "/a.", "/", "/%2F", "/aa", "/A"];
    let mut next = numbers();
    let mut compared = 0;
    for _ in 0..3_000 {
        let mut path = |most: usize| {
            let path: String = (0..=next(most)).map(|_| PIECES[next(PIECES.len())]).collect();
            canonical(&path).unwrap().into_owned()
        };
        let mut routes: Vec<Arc<Route>> = vec![];
        for i in 0..12 {
            let path = path(3);
            let exact = i % 3 == 0;
            if !routes.iter().any(|r| *r.path == *path && r.exact == exact) {
                routes.push(Arc::new(Route {
                    exact,
                    path: path.into(),
                    ..Route::default()
                }));
            }
        }
        order(&mut routes);
        let table = Table::new(routes.clone());
        for _ in 0..12 {
            let path = path(4);
            let naive = routes.iter().find(|route| route.matches(&path));
            let found = table.find(&path);
            compared += usize::from(naive.is_some());
            let name = |r: &Arc<Route>| (r.exact, r.path.clone());
            assert_eq!(
                found.map(name),
                naive.map(name),
                "{path} in {:?}",
                routes.iter().map(name).collect::<Vec<_>>()
            );
        }
    }
    assert!(compared > 5_000, "{compared}");
}

#[test]
fn ten_thousand_paths_of_one_host_are_found_without_looking_at_all() {
    let routes = (0..10_000).map(|i| {
        Arc::new(Route {
            path: format!("/a{i}/b").into(),
            ..Route::default()
        })
    });
    let mut routes: Vec<_> = routes.collect();
    order(&mut routes);
    let table = Table::new(routes);
    let deep = format!("/a77/b{}", "/x".repeat(10_000));
    // Looking at all of them would be 5 * 10^8 comparisons.
    for _ in 0..50_000 {
        assert_eq!(&*table.find(&deep).unwrap().path, "/a77/b");
        assert!(table.find("/a77").is_none());
    }
}

#[test]
fn decisions_are_the_same_for_all_spellings_of_a_path() {
    let snapshot = check_rules(
        &[rule(
            "h",
            &[
                ("Prefix", "/admin", "a"),
                ("Exact", "/k\u{e4}se", "b"),
                ("Prefix", "/x%2fy", "c"),
                ("Prefix", "/%61bc", "d"),
                ("Prefix", "/", "e"),
            ],
        )],
        &[
            ("h", "/k%C3%A4se", 'b'),
            ("h", "/x%2Fy/z", 'c'),
            ("h", "/x/y", 'e'),
            ("h", "/abc", 'd'),
        ],
    );
    for (spelled, letter) in [
        ("/admin", 'a'),
        ("//admin", 'a'),
        ("/%61dmin", 'a'),
        ("/./admin/x", 'a'),
        ("/public/../admin", 'a'),
        ("/public/%2e%2e/admin", 'a'),
        ("/public/..%2Fadmin", 'e'),
        ("/admin/..", 'e'),
        ("/Admin", 'e'),
    ] {
        let form = canonical(spelled).unwrap();
        assert_eq!(end(&snapshot, "h", &form), letter, "{spelled}");
        let (one, two) = (snapshot.table.explain("h", spelled), snapshot.table.explain("h", &form));
        assert_eq!(one, two, "{spelled}");
    }
}

#[test]
fn regular_expressions_count_on_their_own_ingress_only() {
    let mut one = ingress(
        "i1",
        ours(&[rule(
            "h",
            &[
                ("ImplementationSpecific", "/api(/|$)(.*)", "a"),
                ("Prefix", "/plain", "b"),
                ("Exact", "/e(x)", "c"),
            ],
        )]),
    );
    annotate(&mut one, &format!("{NGINX}/rewrite-target"), "/$2");
    let other = ingress(
        "i2",
        ours(&[rule(
            "h",
            &[
                ("Prefix", "/a.c", "d"),
                ("Prefix", "/x(y)", "e"),
                ("Exact", "/api/exact", "f"),
            ],
        )]),
    );
    let snapshot = check(
        &world(&[one, other]),
        &[
            ("h", "/api", 'a'),
            ("h", "/api/v1/x", 'a'),
            ("h", "/apix", '-'),
            ("h", "/API", '-'),
            ("h", "/x/api/", '-'),
            ("h", "/api/exact", 'f'),
            ("h", "/plain/x", 'b'),
            ("h", "/plainer", '-'),
            ("h", "/e(x)", 'c'),
            ("h", "/ex", '-'),
            ("h", "/a.c", 'd'),
            ("h", "/abc", '-'),
            ("h", "/x(y)", 'e'),
            ("h", "/xy", '-'),
        ],
    );
    let rewrite = |path: &str| snapshot.table.find("h", path).unwrap().policy.rewrite.clone();
    let api = rewrite("/api/v1").unwrap();
    assert_eq!(api.pattern.unwrap().replace("/api/v1/x", api.target.as_str()), "/v1/x");
    assert!(rewrite("/plain").unwrap().pattern.is_none());
    assert!(rewrite("/a.c").is_none());
    assert_eq!(snapshot.table.find("h", "/api").unwrap().kind(), "Regex");
}

#[test]
fn regular_expressions_mind_case_unless_told_otherwise() {
    for (case, upper) in [("sensitive", '-'), ("insensitive", 'a')] {
        let mut one = ingress(
            "i1",
            ours(&[rule(
                "h",
                &[("ImplementationSpecific", "/api(/|$)(.*)", "a"), ("Exact", "/e", "b")],
            )]),
        );
        annotate(&mut one, &format!("{NGINX}/use-regex"), "true");
        annotate(&mut one, "ingress.landfall.dev/regex-case", case);
        let _ = check(
            &world(&[one]),
            &[
                ("h", "/api/x", 'a'),
                ("h", "/API/x", upper),
                ("h", "/e", 'b'),
                ("h", "/E", '-'),
            ],
        );
    }
}

#[test]
fn s28_challenges_are_answered_over_plain_http_before_anything_redirects() {
    let mut site = ingress("i1", ours(&[rule("h", &[("Prefix", "/", "a")])]));
    site["spec"]["tls"] = json!([{ "hosts": ["h"], "secretName": "cert" }]);
    annotate(&mut site, &format!("{NGINX}/permanent-redirect"), "https://elsewhere/");
    let token = "/.well-known/acme-challenge/token";
    let solver = ingress("i2", ours(&[rule("h", &[("Exact", token, "b")])]));
    let snapshot = check(&world(&[site, solver]), &[("h", token, 'b'), ("h", "/", 'a')]);
    let redirects = |path: &str| snapshot.table.find("h", path).unwrap().policy.redirects.clone();
    assert_eq!(redirects(token).https, HttpsRedirect::Off);
    assert!(redirects(token).to.is_none());
    assert_eq!(redirects("/").https, HttpsRedirect::WhenTls);
}

#[test]
fn bad_hosts_and_paths_are_left_out_and_the_rest_is_served() {
    let mut spec = ours(&[
        rule(
            "h",
            &[
                ("Prefix", "/a", "a"),
                ("Prefix", "/b\\c", "b"),
                ("Exact", "/%zz", "b"),
                ("ImplementationSpecific", "c", "c"),
            ],
        ),
        rule("not a host", &[("Prefix", "/", "b")]),
        rule("h:80", &[("Prefix", "/", "b")]),
    ]);
    spec["rules"][0]["http"]["paths"][0]["pathType"] = json!("Unknown");
    let snapshot = check(
        &world(&[
            ingress("i1", spec),
            ingress("i2", ours(&[rule("ok", &[("Prefix", "/", "d")])])),
        ]),
        &[("h", "/a/x", 'a'), ("h", "/b", '-'), ("ok", "/", 'd')],
    );
    let reasons: Vec<_> = snapshot.remarks().iter().map(|r| r.reason).collect();
    assert_eq!(
        reasons,
        [
            Reason::BadHost,
            Reason::BadHost,
            Reason::BadPath,
            Reason::BadPath,
            Reason::BadPath
        ],
        "{:?}",
        texts(&snapshot)
    );
}
