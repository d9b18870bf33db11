//! Who may come, and how often.

use super::world::{World, get, plain, send, service};
use crate::limits::Limits;
use crate::tests::ends::{dead, read_until};
use base64::Engine;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const ROOT: (&str, &str, &str) = ("Prefix", "/", "a");
/// anna:hunter2 as SHA-1, bob:hunter2 as bcrypt.
const USERS: &str =
    "anna:{SHA}87u9ZqY9S/F0eUBXjsPQEDUw4h0=\nbob:$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm\n";
const ANNA: &str = "Basic YW5uYTpodW50ZXIy";
const BOB: &str = "Basic Ym9iOmh1bnRlcjI=";

#[tokio::test]
async fn whitelist_and_denylist_source_range_go_by_the_address_that_is_believed() {
    let a = plain("alpha").await;
    let ranges = [
        ("whitelist-source-range", "10.0.0.0/8"),
        ("denylist-source-range", "10.9.0.0/16"),
    ];
    let world = || World::new().service("a", &[a.address]).ingress(&ranges, "h.io", ROOT);
    let believing = world().trusting().start().await;
    for (address, status) in [("10.1.1.1", 200), ("10.9.1.1", 403), ("11.1.1.1", 403)] {
        let answer = get(&believing, "/", &[("X-Forwarded-For", address)]).await;
        assert_eq!(answer.status, status, "{address}");
    }
    // Whoever is not trusted is who it is.
    let proxy = world().start().await;
    for name in [
        "X-Forwarded-For",
        "X-Real-IP",
        "X_Forwarded_For",
        "Forwarded",
        "X-Original-Forwarded-For",
    ] {
        let answer = get(&proxy, "/", &[(name, "10.1.1.1")]).await;
        assert_eq!(
            (answer.status, answer.field("x-landfall-reason")),
            (403, Some("source")),
            "{name}"
        );
    }
    assert_eq!(a.asked().len(), 1);
}

/// A front that says who asked in another field is not the one who asked: a list that names it stays closed to its clients.
#[tokio::test]
async fn whitelist_source_range_of_a_front_is_not_open_to_its_clients_whatever_it_says_them_by() {
    let a = plain("alpha").await;
    let front = [("whitelist-source-range", "127.0.0.0/8")];
    let world = World::new().service("a", &[a.address]).ingress(&front, "h.io", ROOT);
    let proxy = world.trusting().start().await;
    assert_eq!(get(&proxy, "/", &[]).await.status, 200, "the front itself");
    for (name, value) in [
        ("Forwarded", "for=203.0.113.7"),
        ("Forwarded", "proto=https"),
        ("X-Real-IP", "203.0.113.7"),
        ("X-Real-IP", "127.0.0.1"),
        ("X-Forwarded-For", "203.0.113.7"),
    ] {
        let answer = get(&proxy, "/", &[(name, value)]).await;
        assert_eq!(
            (answer.status, answer.field("x-landfall-reason")),
            (403, Some("source")),
            "{name}: {value}"
        );
    }
    assert_eq!(a.asked().len(), 1);
}

#[tokio::test]
async fn denylist_source_range_holds_for_ipv4_addresses_that_are_written_as_ipv6() {
    let a = plain("alpha").await;
    for (range, status) in [
        ("::ffff:127.0.0.0/104", 403),
        ("::ffff:127.0.0.1", 403),
        ("::ffff:10.0.0.0/104", 200),
        // Neither one nor the other: it is not guessed.
        ("::ffff:127.0.0.0/8", 503),
    ] {
        let proxy = World::new()
            .service("a", &[a.address])
            .ingress(&[("denylist-source-range", range)], "h.io", ROOT)
            .start()
            .await;
        assert_eq!(get(&proxy, "/", &[]).await.status, status, "{range}");
    }
}

#[tokio::test]
async fn a_protecting_annotation_that_cannot_be_read_closes_its_routes() {
    let a = plain("alpha").await;
    for bad in [
        &[("whitelist-source-range", "10.0.0.0/33")][..],
        &[("auth-type", "digest"), ("auth-secret", "users")],
        &[("auth-type", "basic"), ("auth-secret", "missing")],
        &[("auth-url", "ftp://x/")],
        &[("auth-url", "http://169.254.169.254/latest")],
        &[("auth-url", "http://127.0.0.1:10250/")],
        &[("auth-url", "http://s.other.svc/")],
    ] {
        let proxy = World::new()
            .service("a", &[a.address])
            .ingress(bad, "h.io", ROOT)
            .start()
            .await;
        let answer = get(&proxy, "/", &[("Authorization", ANNA)]).await;
        assert_eq!(
            (answer.status, answer.field("x-landfall-reason")),
            (503, Some("closed")),
            "{bad:?}"
        );
    }
    assert!(a.asked().is_empty());
}

#[tokio::test]
async fn limit_rps_answers_429_beyond_the_burst_and_says_when_to_come_back() {
    let a = plain("alpha").await;
    for name in ["limit-rps", "limit-rpm"] {
        let limits = [(name, "1"), ("limit-burst-multiplier", "2")];
        let proxy = World::new()
            .service("a", &[a.address])
            .ingress(&limits, "h.io", ROOT)
            .trusting()
            .start()
            .await;
        let mut passed = 0;
        let mut refused = None;
        for _ in 0..20 {
            let answer = get(&proxy, "/", &[("X-Forwarded-For", "10.0.0.1")]).await;
            match answer.status {
                200 => passed += 1,
                _ => refused = Some(answer),
            }
        }
        let refused = refused.expect("a refusal");
        // One more may have been earned meanwhile.
        assert!((3..=4).contains(&passed), "{name}: {passed}");
        assert_eq!(
            (refused.status, refused.field("x-landfall-reason")),
            (429, Some("too_many"))
        );
        assert!(refused.field("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        // Another client has its own.
        assert_eq!(get(&proxy, "/", &[("X-Forwarded-For", "10.0.0.2")]).await.status, 200);
    }
}

#[tokio::test]
async fn limit_connections_counts_answers_that_are_still_on_their_way() {
    let (listener, address) = crate::tests::ends::listen().await;
    tokio::spawn(async move {
        let mut held = vec![];
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
                .await;
            held.push(stream);
        }
    });
    let limit = [("limit-connections", "1")];
    let proxy = World::new()
        .service("a", &[address])
        .ingress(&limit, "h.io", ROOT)
        .start()
        .await;
    let mut first = TcpStream::connect(proxy.address).await.unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nHost: h.io\r\n\r\n").await.unwrap();
    read_until(&mut first, "half").await;
    assert_eq!(get(&proxy, "/", &[]).await.status, 429);
    drop(first);
    // The end of a connection is noticed a moment later.
    let mut second = TcpStream::connect(proxy.address).await.unwrap();
    for _ in 0..500 {
        second.write_all(b"GET / HTTP/1.1\r\nHost: h.io\r\n\r\n").await.unwrap();
        let answer = read_until(&mut second, "\r\n\r\n").await;
        if answer.starts_with("HTTP/1.1 200") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the slot was not given back");
}

#[tokio::test]
async fn auth_type_basic_lets_only_known_users_in_whatever_the_path_looks_like() {
    let a = plain("alpha").await;
    let b = plain("open").await;
    let auth = [
        ("auth-type", "basic"),
        ("auth-secret", "users"),
        ("auth-realm", "the realm"),
    ];
    let proxy = World::new()
        .service("a", &[a.address])
        .service("b", &[b.address])
        .secret("users", "auth", USERS)
        .ingress(&auth, "h.io", ("Prefix", "/admin", "a"))
        .ingress(&[], "h.io", ("Prefix", "/", "b"))
        .start()
        .await;
    for known in [ANNA, BOB, ANNA] {
        let answer = get(&proxy, "/admin/x", &[("Authorization", known)]).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "alpha"), "{known}");
    }
    assert_eq!(a.asked().len(), 3);
    let refused = get(&proxy, "/admin", &[]).await;
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.field("www-authenticate"),
        Some("Basic realm=\"the realm\", charset=\"UTF-8\"")
    );
    for path in [
        "/admin/",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/%2e/admin",
        "/x/%2E%2E/admin",
        "/admin?x",
        "/admin/;x",
    ] {
        let answer = get(&proxy, path, &[]).await;
        assert!(answer.status == 401 || answer.body == "open", "{path}: {answer:?}");
    }
    for path in ["/admin%2F..%2Fx", "/admin/..%2fadmin", "/admin;x"] {
        assert_eq!(get(&proxy, path, &[]).await.status, 400, "{path}");
    }
    for path in ["/ADMIN", "/x/%2e%2e/%2e%2e/admin2"] {
        assert_eq!(get(&proxy, path, &[]).await.body, "open", "{path}");
    }
    for claim in [
        ("Authorization", "Basic YW5uYTp3cm9uZw=="),
        ("Proxy-Authorization", ANNA),
        ("X-Original-URL", "/open"),
        ("X-Rewrite-URL", "/open"),
        ("X-Auth-Request-User", "anna"),
        ("Remote-User", "anna"),
    ] {
        assert_eq!(get(&proxy, "/admin", &[claim]).await.status, 401, "{claim:?}");
    }
    let twice = get(&proxy, "/admin", &[("Authorization", ANNA), ("Authorization", BOB)]).await;
    assert_eq!(twice.status, 401);
    assert_eq!(
        send(
            &proxy,
            "OPTIONS",
            "h.io",
            "/admin",
            &[("Origin", "http://x"), ("Access-Control-Request-Method", "GET")]
        )
        .await
        .status,
        401
    );
    assert!(a.asked().is_empty());
    assert!(b.asked().iter().all(|got| !got.uri.path().starts_with("/admin/")));
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, and its table")]
async fn auth_url_decides_and_only_its_own_results_reach_the_endpoint() {
    let a = plain("alpha").await;
    let auth = service("auth", |headers, _| {
        let said = headers.get("cookie").and_then(|v| v.to_str().ok()).unwrap_or_default();
        match said {
            "ok" => (
                200,
                vec![
                    ("x-user", "anna".to_owned()),
                    ("x-more", "1".to_owned()),
                    ("set-cookie", "s=1".to_owned()),
                ],
            ),
            "quiet" => (204, vec![]),
            "no" => (403, vec![]),
            "moved" => (302, vec![("location", "/x".to_owned())]),
            "broken" => (500, vec![]),
            _ => (401, vec![("www-authenticate", "Bearer".to_owned())]),
        }
    })
    .await;
    let annotations = [
        ("auth-url", "http://auth.d.svc.cluster.local/verify?x=1"),
        ("auth-response-headers", "X-User, X-Group"),
    ];
    let proxy = World::new()
        .service("a", &[a.address])
        .service("auth", &[auth.address])
        .ingress(&annotations, "h.io", ROOT)
        .start()
        .await;
    let spoofs = [
        ("X-User", "root"),
        ("X_User", "root"),
        ("X-Group", "root"),
        ("X-Auth-Request-User", "root"),
        ("X-Original-URL", "http://h.io/open"),
        ("X-Original-Method", "HEAD"),
        ("ssl-client-verify", "SUCCESS"),
        ("ssl-client-cert", "x"),
        ("X-Forwarded-Uri", "/open"),
        ("Connection", "x-user, x-original-url"),
    ];
    let mut fields = vec![("Cookie", "ok")];
    fields.extend(spoofs);
    let answer = send(&proxy, "DELETE", "h.io", "/p/../q?a=b", &fields).await;
    assert_eq!((answer.status, answer.field("set-cookie")), (200, Some("s=1")));
    let question = auth.next().await;
    assert_eq!(
        (question.method.as_str(), question.uri.to_string().as_str()),
        ("GET", "/verify?x=1")
    );
    assert_eq!(question.field("x-original-url"), Some("http://h.io/q?a=b"));
    assert_eq!(question.field("x-original-method"), Some("DELETE"));
    assert_eq!(question.field("x-forwarded-uri"), Some("/q?a=b"));
    assert_eq!(question.field("host"), Some("auth.d.svc.cluster.local"));
    assert!(question.field("x-user").is_none() && question.field("ssl-client-verify").is_none());
    let got = a.next().await;
    assert_eq!(
        (got.field("x-user"), got.field("x-more"), got.field("x-group")),
        (Some("anna"), None, None)
    );
    for name in [
        "x_user",
        "x-auth-request-user",
        "x-original-url",
        "x-original-method",
        "ssl-client-verify",
        "ssl-client-cert",
    ] {
        assert_eq!(got.field(name), None, "{name}");
    }
    // Nothing said: nothing stands, also not what the client said.
    assert_eq!(
        get(&proxy, "/", &[("Cookie", "quiet"), ("X-User", "root")])
            .await
            .status,
        200
    );
    assert_eq!(a.next().await.field("x-user"), None);
    for (cookie, status, reason) in [
        ("no", 403, "auth_forbids"),
        ("moved", 502, "auth_broken"),
        ("broken", 502, "auth_broken"),
        ("else", 401, "unauthorized"),
    ] {
        let answer = get(&proxy, "/", &[("Cookie", cookie)]).await;
        assert_eq!(
            (answer.status, answer.field("x-landfall-reason")),
            (status, Some(reason)),
            "{cookie}"
        );
        assert_eq!(answer.field("www-authenticate"), (status == 401).then_some("Bearer"));
    }
    assert!(a.asked().is_empty());
}

#[tokio::test]
async fn auth_signin_sends_there_with_the_way_back_and_a_dead_service_lets_nobody_in() {
    let a = plain("alpha").await;
    let auth = service("auth", |_, _| (401, vec![])).await;
    let annotations = [
        ("auth-url", "http://$host/oauth2/auth"),
        ("auth-signin", "https://$host/oauth2/start"),
    ];
    let proxy = World::new()
        .service("a", &[a.address])
        .service("auth", &[auth.address])
        .ingress(&annotations, "h.io", ROOT)
        .ingress(&[], "h.io", ("Prefix", "/oauth2", "auth"))
        .start()
        .await;
    let answer = get(&proxy, "/x?y=1&z", &[]).await;
    assert_eq!(answer.status, 302);
    let wanted = "https://h.io/oauth2/start?rd=http://h.io%2Fx%3Fy%3D1%26z";
    assert_eq!(answer.field("location"), Some(wanted));
    assert_eq!(auth.next().await.field("host"), Some("h.io"));
    for gone in [vec![dead()], vec![]] {
        let annotations = [("auth-url", "http://auth/")];
        let proxy = World::new()
            .service("a", &[a.address])
            .service("auth", &gone)
            .ingress(&annotations, "h.io", ROOT)
            .start()
            .await;
        assert_eq!(get(&proxy, "/", &[]).await.status, 502);
    }
    // Silent, until patience ends.
    let (silent, _) = crate::tests::ends::raw_endpoint(b"", true).await;
    let limits = Limits {
        subrequest: std::time::Duration::from_millis(100),
        ..Limits::default()
    };
    let proxy = World::new()
        .service("a", &[a.address])
        .service("auth", &[silent])
        .ingress(&[("auth-url", "http://auth/")], "h.io", ROOT)
        .limits(limits)
        .start()
        .await;
    assert_eq!(get(&proxy, "/", &[]).await.status, 502);
    assert!(a.asked().is_empty());
}

/// kubernetes/ingress-nginx asks any Service of the cluster. Here the one that is asked, or gets copies, has to say that it is meant to.
#[tokio::test]
async fn a_service_of_another_namespace_is_asked_only_when_it_allows_it() {
    let a = plain("alpha").await;
    let auth = service("auth", |_, _| (200, vec![("X-User", "anna".to_owned())])).await;
    let copies = plain("copies").await;
    let annotations = [
        ("auth-url", "http://auth.sso.svc.cluster.local/verify"),
        ("mirror-target", "http://copies.sso/$request_uri"),
    ];
    for (allowed, passes) in [
        (Some("d"), true),
        (Some("shop, d"), true),
        (Some("*"), true),
        (Some("shop"), false),
        (Some("dd,d*"), false),
        (Some(""), false),
        (None, false),
    ] {
        let word = allowed.map(|names| ("ingress.landfall.dev/allow-namespaces", names));
        let proxy = World::new()
            .service("a", &[a.address])
            .service_of("sso", "auth", &[auth.address], word.as_slice())
            .service_of("sso", "copies", &[copies.address], word.as_slice())
            .ingress(&annotations, "h.io", ROOT)
            .ingress(&annotations[1..], "mirrored.io", ROOT)
            .start()
            .await;
        let answer = get(&proxy, "/x", &[]).await;
        let mirrored = send(&proxy, "GET", "mirrored.io", "/x", &[]).await;
        assert_eq!(mirrored.status, 200, "{allowed:?}");
        if passes {
            assert_eq!(answer.status, 200, "{allowed:?}");
            assert_eq!(auth.next().await.uri.path(), "/verify");
            assert_eq!(a.next().await.field("host"), Some("h.io"));
            assert_eq!(
                (copies.next().await.uri.path().to_owned(), copies.next().await.method),
                ("/x".into(), "GET".parse().unwrap())
            );
        } else {
            let refused = (answer.status, answer.field("x-landfall-reason"));
            assert_eq!(refused, (503, Some("closed")), "{allowed:?}");
            assert!(auth.asked().is_empty() && copies.asked().is_empty(), "{allowed:?}");
        }
        a.asked();
    }
}

/// oauth2-proxy is often behind a public name. What that name leads to is checked as a literal is, each time that it is looked up.
#[tokio::test]
async fn auth_url_and_mirror_target_may_be_names_outside_that_lead_nowhere_inside() {
    let a = plain("alpha").await;
    let auth = plain("auth").await;
    let copies = plain("copies").await;
    let dns = crate::dns::tests::server(&[std::net::Ipv4Addr::LOCALHOST], 60, false).await;
    let url = format!("http://auth.example.com:{}/verify", auth.address.port());
    let mirror = format!("http://copies.example.com:{}$request_uri", copies.address.port());
    let annotations = [("auth-url", &*url), ("mirror-target", &*mirror)];
    for inside in [true, false] {
        let proxy = World::new()
            .service("a", &[a.address])
            .ingress(&annotations, "h.io", ROOT)
            .ingress(&annotations[1..], "mirrored.io", ROOT)
            .dns(dns.address, inside)
            .start()
            .await;
        let answer = get(&proxy, "/x", &[]).await;
        let mirrored = send(&proxy, "GET", "mirrored.io", "/y", &[]).await;
        assert_eq!(mirrored.status, 200);
        if inside {
            assert_eq!(answer.status, 200);
            let question = auth.next().await;
            let host = format!("auth.example.com:{}", auth.address.port());
            assert_eq!((question.uri.path(), question.field("host")), ("/verify", Some(&*host)));
            let mut paths = [copies.next().await, copies.next().await].map(|copy| copy.uri.path().to_owned());
            paths.sort();
            assert_eq!(paths, ["/x", "/y"]);
        } else {
            // Everything that the name has is loopback, which an annotation may not name.
            assert_eq!(
                (answer.status, answer.field("x-landfall-reason")),
                (502, Some("auth_broken"))
            );
            assert!(auth.asked().is_empty() && copies.asked().is_empty());
        }
        a.asked();
    }
}

#[tokio::test]
async fn auth_tls_secret_refuses_plain_connections_whatever_they_claim() {
    let a = plain("alpha").await;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let der = params.self_signed(&key).unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der.der());
    let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    let world = |verify| {
        World::new()
            .service("a", &[a.address])
            .secret("ca", "ca.crt", &pem)
            .ingress(
                &[("auth-tls-secret", "d/ca"), ("auth-tls-verify-client", verify)],
                "h.io",
                ROOT,
            )
            .trusting()
    };
    let claims = [
        ("ssl-client-verify", "SUCCESS"),
        ("ssl_client_verify", "SUCCESS"),
        ("ssl-client-cert", "x"),
        ("X-Forwarded-Proto", "https"),
        ("ssl-client-subject-dn", "CN=root"),
    ];
    // Also where a certificate may be left out: a plain connection cannot even ask for one, another may do better.
    for verify in ["on", "optional"] {
        let proxy = world(verify).start().await;
        let answer = get(&proxy, "/", &claims).await;
        assert_eq!(
            (answer.status, answer.field("x-landfall-reason")),
            (421, Some("misdirected")),
            "{verify}"
        );
    }
    assert!(a.asked().is_empty());
}

#[tokio::test]
async fn protection_holds_for_upgrades_absolute_targets_and_other_methods() {
    let a = plain("alpha").await;
    let auth = [("auth-type", "basic"), ("auth-secret", "users")];
    let proxy = World::new()
        .service("a", &[a.address])
        .secret("users", "auth", USERS)
        .ingress(&auth, "h.io", ROOT)
        .start()
        .await;
    for request in [
        "GET /ws HTTP/1.1\r\nHost: h.io\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        "GET http://h.io/ HTTP/1.1\r\nHost: h.io\r\nConnection: close\r\n\r\n",
        "GET http://h.io/ HTTP/1.1\r\nHost: other.io\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: H.IO.:80\r\nConnection: close\r\n\r\n",
        "BREW / HTTP/1.1\r\nHost: h.io\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h.io\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HEAD / HTTP/1.1\r\nHost: h.io\r\nConnection: close, authorization\r\n\r\n",
    ] {
        let answer = crate::tests::ends::ask(proxy.address, request).await;
        assert!(
            answer.starts_with("HTTP/1.1 401") || answer.starts_with("HTTP/1.1 400"),
            "{request}{answer}"
        );
    }
    assert!(a.asked().is_empty());
}

#[tokio::test]
async fn limit_allowlist_is_not_counted() {
    let a = plain("alpha").await;
    let annotations = [
        ("limit-rpm", "1"),
        ("limit-burst-multiplier", "1"),
        ("limit-allowlist", "10.0.0.0/8"),
    ];
    let proxy = World::new()
        .service("a", &[a.address])
        .ingress(&annotations, "h.io", ROOT)
        .trusting()
        .start()
        .await;
    for _ in 0..5 {
        assert_eq!(get(&proxy, "/", &[("X-Forwarded-For", "10.0.0.1")]).await.status, 200);
    }
    let mut last = 0;
    for _ in 0..5 {
        last = get(&proxy, "/", &[("X-Forwarded-For", "11.0.0.1")]).await.status;
    }
    assert_eq!(last, 429);
}
