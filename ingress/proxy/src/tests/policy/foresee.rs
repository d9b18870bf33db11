//! What the dashboard foresees is what happens: each request is foreseen, then sent, and both are compared.

use super::world::{Answer, Got, Service, World, plain, send, service};
use crate::foresee::{Foreseen, Outcome, Supposed};
use crate::policy::Stage;
use crate::tests::ends::Running;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Version, header};
use landfall_ingress_balance as balance;

const ROOT: (&str, &str, &str) = ("Prefix", "/", "a");
/// Fields that differ from request to request.
const UNSTEADY: [&str; 3] = ["x-request-id", "x-forwarded-port", "connection"];

/// A request as it is typed.
struct Typed<'a> {
    method: &'a str,
    host: &'a str,
    path: &'a str,
    fields: &'a [(&'a str, &'a str)],
}

/// Annotations and what is asked then.
type Case<'a> = (&'a [(&'a str, &'a str)], Vec<Typed<'a>>);

/// `GET` of a path of `h.io`.
fn get<'a>(path: &'a str, fields: &'a [(&'a str, &'a str)]) -> Typed<'a> {
    Typed {
        method: "GET",
        host: "h.io",
        path,
        fields,
    }
}

fn foresee(proxy: &Running, typed: &Typed<'_>) -> Foreseen {
    let close = ("connection", "close");
    let field = |(name, value): &(&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    };
    let supposed = Supposed {
        method: typed.method.parse().unwrap(),
        authority: typed.host.to_owned(),
        target: typed.path.to_owned(),
        fields: [close].iter().chain(typed.fields).map(field).collect(),
        version: Version::HTTP_11,
        secure: false,
        strict_sni: false,
        peer: "127.0.0.1:1".parse().unwrap(),
    };
    proxy.proxy.foresee(&supposed, &proxy.state.routes())
}

/// The status that is foreseen: 200 when the request goes to an endpoint.
fn status(foreseen: &Foreseen) -> u16 {
    let answers = foreseen.met.iter().find_map(|met| match &met.outcome {
        Outcome::Answers(stop) => Some(stop.response.status()),
        _ => None,
    });
    let refused = || foreseen.refused.map(|reason| reason.status());
    let nowhere = || {
        foreseen
            .ways
            .iter()
            .all(|way| balance::foresee(&way.backend, way.preference).is_none())
    };
    match answers.or_else(refused) {
        Some(status) => status.as_u16(),
        None if nowhere() => 503,
        None => 200,
    }
}

fn steady(fields: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
    let mut all: Vec<_> = fields
        .iter()
        .map(text)
        .filter(|(name, _)| !UNSTEADY.contains(&&**name))
        .collect();
    all.sort();
    all
}

/// Foresees, sends and compares: status, where a redirect leads, what the answer is dressed with, which endpoint was asked for what.
async fn check(proxy: &Running, services: &[&Service], typed: Typed<'_>) -> Answer {
    let foreseen = foresee(proxy, &typed);
    let answer = send(proxy, typed.method, typed.host, typed.path, typed.fields).await;
    let case = format!("{} {}{} {:?}", typed.method, typed.host, typed.path, typed.fields);
    assert_eq!(status(&foreseen), answer.status, "{case}");
    for (name, value) in &foreseen.dressed {
        assert!(
            answer.all(name.as_str()).contains(&value.to_str().unwrap()),
            "{case}: {name}"
        );
    }
    for met in &foreseen.met {
        if let Outcome::Answers(stop) = &met.outcome {
            let location = stop.response.headers().get(header::LOCATION);
            assert_eq!(
                location.map(|l| l.to_str().unwrap()),
                answer.field("location"),
                "{case}"
            );
            assert_eq!(Some(stop.reason.label()), answer.field("x-landfall-reason"), "{case}");
        }
    }
    let asked: Vec<(&Service, Vec<Got>)> = services.iter().map(|s| (*s, s.asked())).collect();
    for (service, got) in asked.iter().filter(|(_, got)| !got.is_empty()) {
        let possible = foreseen
            .ways
            .iter()
            .filter_map(|way| balance::foresee(&way.backend, way.preference));
        let mut possible = possible.flat_map(|seen| seen.endpoints);
        assert!(
            possible.any(|e| e.address == service.address),
            "{case}: {}",
            service.address
        );
        let sent = foreseen.sent.as_ref().unwrap();
        assert_eq!((&sent.method, &sent.uri), (&got[0].method, &got[0].uri), "{case}");
        assert_eq!(steady(&sent.headers), steady(&got[0].headers), "{case}");
    }
    let reached = asked.iter().any(|(_, got)| !got.is_empty());
    assert_eq!(reached, status(&foreseen) == 200, "{case}");
    answer
}

#[tokio::test]
async fn what_is_foreseen_of_each_stage_is_what_happens() {
    let a = plain("a").await;
    let preflight = |origin: &'static str| [("Origin", origin), ("Access-Control-Request-Method", "PUT")];
    let (allowed, other) = (preflight("https://o.io"), preflight("https://p.io"));
    let options = |fields| Typed {
        method: "OPTIONS",
        ..get("/", fields)
    };
    let cases: Vec<Case<'_>> = vec![
        (
            &[],
            vec![
                get("/", &[]),
                get(
                    "/a//b/../c?x=1&y",
                    &[("X-Original-Url", "/"), ("X_Under", "1"), ("TE", "trailers")],
                ),
                get("/%5Cx", &[]),
                get("/a b", &[]),
                get("/", &[("Content-Length", "1"), ("Transfer-Encoding", "chunked")]),
                get("/", &[("Content-Type", "application/grpc")]),
                get("/", &[("Upgrade", "h2c"), ("X-Forwarded-For", "10.9.9.9")]),
                Typed {
                    host: "else.io",
                    ..get("/", &[])
                },
                Typed {
                    host: "h.io:81",
                    ..get("/", &[])
                },
                Typed {
                    host: "h io",
                    ..get("/", &[])
                },
                Typed {
                    method: "CONNECT",
                    ..get("/", &[])
                },
            ],
        ),
        (&[("whitelist-source-range", "10.0.0.0/8")], vec![get("/", &[])]),
        (&[("whitelist-source-range", "127.0.0.0/8")], vec![get("/", &[])]),
        (&[("whitelist-source-range", "all of them")], vec![get("/", &[])]),
        (&[("force-ssl-redirect", "true")], vec![get("/x//y?q", &[])]),
        (
            &[("permanent-redirect", "https://n.io$request_uri")],
            vec![get("/x?q", &[])],
        ),
        (&[("app-root", "/app")], vec![get("/", &[]), get("/x", &[])]),
        (&[("rewrite-target", "/new")], vec![get("/x?q=1", &[])]),
        (
            &[("enable-cors", "true"), ("cors-allow-origin", "https://o.io")],
            vec![options(&allowed), options(&other), get("/", &allowed)],
        ),
        (&[("proxy-body-size", "4")], vec![get("/", &[("Content-Length", "5")])]),
        (&[("upstream-vhost", "inside.io")], vec![get("/", &[])]),
        (
            &[("limit-rpm", "1"), ("limit-burst-multiplier", "1")],
            (0..4).map(|_| get("/", &[])).collect(),
        ),
        (
            &[
                ("limit-rpm", "1"),
                ("limit-burst-multiplier", "1"),
                ("limit-whitelist", "127.0.0.1"),
            ],
            (0..4).map(|_| get("/", &[])).collect(),
        ),
        (&[("auth-url", "http://gone.d.svc.cluster.local/")], vec![get("/", &[])]),
    ];
    for (annotations, requests) in cases {
        let world = World::new()
            .service("a", &[a.address])
            .ingress(annotations, "h.io", ROOT);
        let proxy = world.start().await;
        for typed in requests {
            check(&proxy, &[&a], typed).await;
        }
    }
}

#[tokio::test]
async fn a_regular_expression_a_missing_service_and_a_trusted_front_are_foreseen() {
    let a = plain("a").await;
    let regex = [("use-regex", "true"), ("rewrite-target", "/$1")];
    let path = ("ImplementationSpecific", "/api/(.*)", "a");
    let proxy = World::new()
        .service("a", &[a.address])
        .service("empty", &[])
        .ingress(&regex, "h.io", path)
        .ingress(&[("default-backend", "a")], "f.io", ("Prefix", "/", "empty"))
        .ingress(&[], "e.io", ("Prefix", "/", "empty"))
        .trusting()
        .start()
        .await;
    for path in ["/api/x?q", "/API/..%2Fx", "/other"] {
        check(&proxy, &[&a], get(path, &[])).await;
    }
    for host in ["e.io", "f.io"] {
        let front = [
            ("X-Forwarded-For", "10.9.9.9, 127.0.0.3"),
            ("X-Forwarded-Proto", "https"),
        ];
        check(
            &proxy,
            &[&a],
            Typed {
                host,
                ..get("/", &front)
            },
        )
        .await;
    }
}

#[tokio::test]
async fn canaries_cookies_and_keys_decide_as_foreseen() {
    let (a, b, c) = (plain("main").await, plain("canary").await, plain("third").await);
    let canary = [
        ("canary", "true"),
        ("canary-by-header", "X-Try"),
        ("canary-by-cookie", "try"),
        ("canary-weight", "30"),
    ];
    let proxy = World::new()
        .service("a", &[a.address, c.address])
        .service("b", &[b.address])
        .ingress(
            &[("affinity", "cookie"), ("session-cookie-name", "stick")],
            "h.io",
            ROOT,
        )
        .ingress(&canary, "h.io", ("Prefix", "/", "b"))
        .ingress(&[("upstream-hash-by", "$request_uri")], "k.io", ROOT)
        .start()
        .await;
    let stick = |backend, to: &Service| format!("stick={}", proxy.proxy.policies.cookie_value(backend, to.address));
    let (on_c, on_b) = (stick("d/a:80", &c), stick("d/b:80", &b));
    let shares = |fields: &[(&str, &str)]| -> Vec<(String, f64)> {
        let ways = foresee(&proxy, &get("/", fields)).ways;
        ways.iter().map(|way| (way.backend.name.clone(), way.share)).collect()
    };
    let (home, there) = ("d/a:80".to_owned(), "d/b:80".to_owned());
    assert_eq!(shares(&[]), [(home.clone(), 0.7), (there.clone(), 0.3)]);
    assert_eq!(shares(&[("X-Try", "always")]), [(there.clone(), 1.0)]);
    assert_eq!(shares(&[("X-Try", "never")]), [(home.clone(), 1.0)]);
    assert_eq!(shares(&[("Cookie", "try=always")]), [(there.clone(), 1.0)]);
    assert_eq!(shares(&[("Cookie", &on_c)]), [(home, 1.0)]);
    assert_eq!(shares(&[("Cookie", &on_b)]), [(there, 1.0)]);
    for fields in [
        &[][..],
        &[("X-Try", "always")],
        &[("X-Try", "never"), ("Cookie", "try=always")],
        &[("Cookie", &on_c)],
        &[("Cookie", &on_b)],
        &[("Cookie", "stick=forged")],
    ] {
        for _ in 0..4 {
            check(&proxy, &[&a, &b, &c], get("/", fields)).await;
        }
    }
    for path in ["/1", "/2", "/3", "/4"] {
        let typed = || Typed {
            host: "k.io",
            ..get(path, &[])
        };
        let foreseen = foresee(&proxy, &typed());
        let way = &foreseen.ways[0];
        assert_eq!(
            balance::foresee(&way.backend, way.preference).unwrap().endpoints.len(),
            1
        );
        check(&proxy, &[&a, &b, &c], typed()).await;
    }
}

#[tokio::test]
async fn nobody_is_asked_and_nothing_is_counted_by_foreseeing() {
    let a = plain("a").await;
    let listener = service("listener", |_, _| (200, vec![])).await;
    let secret = "ada:{SHA}87u9ZqY9S/F0eUBXjsPQEDUw4h0=\n";
    let annotations = [
        ("auth-url", "http://listener.d.svc.cluster.local/"),
        ("auth-type", "basic"),
        ("auth-secret", "users"),
        ("mirror-target", "http://listener.d.svc.cluster.local/copy"),
        ("limit-rpm", "1"),
        ("limit-burst-multiplier", "1"),
    ];
    let proxy = World::new()
        .service("a", &[a.address])
        .service("listener", &[listener.address])
        .secret("users", "auth", secret)
        .ingress(&annotations, "h.io", ROOT)
        .start()
        .await;
    let outcome = |fields: &[(&str, &str)], wanted: Stage| {
        let met = foresee(&proxy, &get("/", fields)).met;
        met.into_iter().find(|met| met.stage == wanted).unwrap().outcome
    };
    // A password is never checked here: right and wrong ones look alike.
    let (right, wrong) = ("Basic YWRhOmh1bnRlcjI=", "Basic YWRhOmh1bnRlcjM=");
    for _ in 0..50 {
        for password in [right, wrong] {
            let fields = [("Authorization", password)];
            for stage in [Stage::Limits, Stage::Password, Stage::External, Stage::Mirror] {
                assert!(matches!(outcome(&fields, stage), Outcome::Open(_)), "{stage:?}");
            }
        }
        assert!(matches!(outcome(&[], Stage::Password), Outcome::Answers(_)));
        assert!(matches!(outcome(&[], Stage::External), Outcome::Unreached));
    }
    assert!(a.asked().is_empty() && listener.asked().is_empty());
    let fields = [("Authorization", right)];
    assert_eq!(send(&proxy, "GET", "h.io", "/", &fields).await.status, 200);
    assert_eq!(a.next().await.uri, "/");
}
