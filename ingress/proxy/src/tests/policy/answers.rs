//! Answers that are given here, and what is done to those of endpoints.

use super::world::{World, get, plain, send, service};

const ROOT: (&str, &str, &str) = ("Prefix", "/", "a");

#[tokio::test]
async fn permanent_and_temporal_redirect_go_where_they_say() {
    let a = plain("alpha").await;
    for (annotations, status, location) in [
        (
            &[("permanent-redirect", "https://new.io/x")][..],
            301,
            "https://new.io/x",
        ),
        (
            &[
                ("permanent-redirect", "https://new.io/"),
                ("permanent-redirect-code", "308"),
            ],
            308,
            "https://new.io/",
        ),
        (
            &[("temporal-redirect", "https://new.io$request_uri")],
            302,
            "https://new.io/p?q=1",
        ),
        (
            &[("permanent-redirect", "https://new.io/x$is_args$args")],
            301,
            "https://new.io/x?q=1",
        ),
        (
            &[("permanent-redirect", "https://new.io/x?a=1&$query_string")],
            301,
            "https://new.io/x?a=1&q=1",
        ),
    ] {
        let proxy = World::new()
            .service("a", &[a.address])
            .ingress(annotations, "h.io", ROOT)
            .start()
            .await;
        let answer = get(&proxy, "/p?q=1", &[]).await;
        assert_eq!((answer.status, answer.field("location")), (status, Some(location)));
        assert_eq!(answer.field("x-landfall-reason"), Some("redirected"));
    }
    assert!(a.asked().is_empty());
}

#[tokio::test]
async fn ssl_redirect_is_for_hosts_with_tls_and_never_for_acme_challenges() {
    let a = plain("alpha").await;
    let acme = plain("acme").await;
    let token = "/.well-known/acme-challenge/token";
    let proxy = World::new()
        .service("a", &[a.address])
        .service("acme", &[acme.address])
        .with(&[("ssl-redirect", "true")], "h.io", ROOT, &["h.io"])
        .ingress(&[("force-ssl-redirect", "true")], "h.io", ("Exact", token, "acme"))
        .ingress(&[("ssl-redirect", "true")], "plain.io", ROOT)
        .ingress(&[("force-ssl-redirect", "true")], "forced.io", ROOT)
        .trusting()
        .start()
        .await;
    let answer = send(&proxy, "POST", "h.io:8080", "/p?q", &[]).await;
    assert_eq!(
        (answer.status, answer.field("location")),
        (308, Some("https://h.io/p?q"))
    );
    assert_eq!(get(&proxy, token, &[]).await.body, "acme");
    for other in [
        "/.well-known/acme-challenge/",
        "/.well-known/acme-challenge/token/x",
        "/.well-known/acme-challenge/other",
    ] {
        assert_eq!(get(&proxy, other, &[]).await.status, 308, "{other}");
    }
    assert_eq!(get(&proxy, "/", &[("X-Forwarded-Proto", "https")]).await.body, "alpha");
    assert_eq!(send(&proxy, "GET", "plain.io", "/", &[]).await.status, 200);
    assert_eq!(
        send(&proxy, "GET", "forced.io", "//evil.org", &[])
            .await
            .field("location"),
        Some("https://forced.io/evil.org")
    );
}

#[tokio::test]
async fn from_to_www_redirect_and_app_root_answer_here() {
    let a = plain("alpha").await;
    let proxy = World::new()
        .service("a", &[a.address])
        .ingress(&[("from-to-www-redirect", "true"), ("app-root", "/app")], "h.io", ROOT)
        .start()
        .await;
    let answer = send(&proxy, "GET", "www.h.io", "/p?q", &[]).await;
    assert_eq!(
        (answer.status, answer.field("location")),
        (308, Some("http://h.io/p?q"))
    );
    let answer = get(&proxy, "/", &[]).await;
    assert_eq!((answer.status, answer.field("location")), (302, Some("/app")));
    assert_eq!(get(&proxy, "/app", &[]).await.status, 200);
}

#[tokio::test]
async fn enable_cors_answers_preflights_and_replaces_what_the_endpoint_grants() {
    let a = service("alpha", |_, _| {
        let all = |text: &str| text.to_owned();
        (
            200,
            vec![
                ("access-control-allow-origin", all("*")),
                ("access-control-allow-credentials", all("true")),
            ],
        )
    })
    .await;
    let annotations = [
        ("enable-cors", "true"),
        ("cors-allow-origin", "https://*.ok.io, https://one.io"),
        ("cors-max-age", "60"),
    ];
    let proxy = World::new()
        .service("a", &[a.address])
        .ingress(&annotations, "h.io", ROOT)
        .start()
        .await;
    let preflight = |origin: &'static str| {
        let fields = [("Origin", origin), ("Access-Control-Request-Method", "PUT")];
        let proxy = &proxy;
        async move { send(proxy, "OPTIONS", "h.io", "/", &fields).await }
    };
    let granted = preflight("https://x.ok.io").await;
    assert_eq!(
        (granted.status, granted.field("access-control-allow-origin")),
        (204, Some("https://x.ok.io"))
    );
    assert_eq!(granted.field("access-control-max-age"), Some("60"));
    assert!(granted.field("access-control-allow-methods").unwrap().contains("PUT"));
    for origin in ["https://ok.io", "http://x.ok.io", "https://x.ok.io.evil.org", "null"] {
        let refused = preflight(origin).await;
        assert_eq!(
            (refused.status, refused.field("access-control-allow-origin")),
            (403, None),
            "{origin}"
        );
    }
    assert!(a.asked().is_empty());
    let answer = get(&proxy, "/", &[("Origin", "https://one.io")]).await;
    assert_eq!(answer.all("access-control-allow-origin"), ["https://one.io"]);
    assert_eq!(answer.field("vary"), Some("Origin"));
    let answer = get(&proxy, "/", &[("Origin", "https://evil.org")]).await;
    assert_eq!(
        (answer.status, answer.field("access-control-allow-origin")),
        (200, None)
    );
    assert_eq!(answer.field("access-control-allow-credentials"), None);
    // An OPTIONS that is no preflight is the endpoint's.
    assert_eq!(send(&proxy, "OPTIONS", "h.io", "/", &[]).await.body, "alpha");
}

#[tokio::test]
async fn rewrite_target_and_upstream_vhost_change_what_the_endpoint_sees() {
    let a = plain("alpha").await;
    let annotations = [
        ("use-regex", "true"),
        ("rewrite-target", "/new/$2"),
        ("upstream-vhost", "inside.io"),
    ];
    let proxy = World::new()
        .service("a", &[a.address])
        .ingress(&annotations, "h.io", ("ImplementationSpecific", "/old(/|$)(.*)", "a"))
        .start()
        .await;
    for (asked, wanted) in [
        ("/old", "/new/"),
        ("/old/x/y?q=1", "/new/x/y?q=1"),
        ("/old//x", "/new/x"),
        ("/old/a%2Fx", "/new/a%2Fx"),
    ] {
        assert_eq!(get(&proxy, asked, &[]).await.status, 200, "{asked}");
        let got = a.next().await;
        assert_eq!(
            (got.uri.to_string().as_str(), got.field("host")),
            (wanted, Some("inside.io")),
            "{asked}"
        );
        assert_eq!(got.field("x-forwarded-host"), Some("h.io"));
    }
    assert_eq!(get(&proxy, "/old/../new/secret", &[]).await.status, 404);
    for path in ["/old/%5C", "/old/..%2Fx"] {
        assert_eq!(get(&proxy, path, &[]).await.status, 400, "{path}");
    }
}

#[tokio::test]
async fn x_forwarded_prefix_is_what_the_route_says() {
    let a = plain("alpha").await;
    let root = ("Prefix", "/", "a");
    let proxy = World::new()
        .service("a", &[a.address])
        .ingress(&[("x-forwarded-prefix", "/api")], "h.io", root)
        .ingress(&[], "other.io", root)
        .start()
        .await;
    for (host, wanted) in [("h.io", Some("/api")), ("other.io", None)] {
        for claim in [
            &[][..],
            &[("X-Forwarded-Prefix", "/evil")],
            &[("X_Forwarded_Prefix", "/evil")],
        ] {
            assert_eq!(send(&proxy, "GET", host, "/", claim).await.status, 200);
            let got = a.next().await;
            assert_eq!(got.field("x-forwarded-prefix"), wanted, "{host} {claim:?}");
            assert!(got.field("x_forwarded_prefix").is_none());
        }
    }
}

#[tokio::test]
async fn custom_http_errors_are_answered_by_the_default_backend() {
    let a = service("alpha", |_, uri| {
        (if uri.path() == "/fine" { 200 } else { 404 }, vec![])
    })
    .await;
    let pages = service("page", |headers, _| {
        let code = headers
            .get("x-code")
            .and_then(|v| v.to_str().ok())
            .unwrap_or("500")
            .parse()
            .unwrap();
        (code, vec![("content-type", "text/html".to_owned())])
    })
    .await;
    let annotations = [("custom-http-errors", "404,503"), ("default-backend", "pages")];
    let world = |endpoints: &[_]| {
        World::new()
            .service("a", endpoints)
            .service("pages", &[pages.address])
            .ingress(&annotations, "h.io", ROOT)
    };
    let proxy = world(&[a.address]).start().await;
    assert_eq!(get(&proxy, "/fine", &[]).await.body, "alpha");
    let answer = get(&proxy, "/gone?x", &[("Accept", "text/html"), ("X-Code", "200")]).await;
    assert_eq!(
        (answer.status, answer.body.as_str(), answer.field("content-type")),
        (404, "page", Some("text/html"))
    );
    let question = pages.next().await;
    assert_eq!(
        (question.field("x-original-uri"), question.field("x-format")),
        (Some("/gone?x"), Some("text/html"))
    );
    assert_eq!(
        (question.field("x-namespace"), question.field("x-service-name")),
        (Some("d"), Some("a"))
    );
    // A backend without endpoints: the default backend has its requests.
    let proxy = world(&[]).start().await;
    get(&proxy, "/other", &[]).await;
    assert_eq!(pages.next().await.uri.path(), "/other");
}

#[tokio::test]
async fn hsts_is_sent_over_tls_alone_and_response_headers_on_every_answer() {
    let a = service("alpha", |_, _| (200, vec![("x-frame-options", "ALLOW".to_owned())])).await;
    let annotations = [
        ("ingress.landfall.dev/hsts", "max-age=60"),
        (
            "ingress.landfall.dev/response-headers",
            "X-Frame-Options: DENY\nX-More: 1",
        ),
        ("nginx.ingress.kubernetes.io/denylist-source-range", "10.0.0.0/8"),
    ];
    let proxy = World::new()
        .service("a", &[a.address])
        .named(&annotations, "h.io", ROOT)
        .trusting()
        .start()
        .await;
    let secure = get(&proxy, "/", &[("X-Forwarded-Proto", "https")]).await;
    assert_eq!(secure.field("strict-transport-security"), Some("max-age=60"));
    assert_eq!(
        (secure.all("x-frame-options"), secure.field("x-more")),
        (vec!["DENY"], Some("1"))
    );
    assert_eq!(get(&proxy, "/", &[]).await.field("strict-transport-security"), None);
    let refused = get(
        &proxy,
        "/",
        &[("X-Forwarded-Proto", "https"), ("X-Forwarded-For", "10.0.0.1")],
    )
    .await;
    assert_eq!((refused.status, refused.field("x-more")), (403, Some("1")));
    assert_eq!(refused.field("strict-transport-security"), Some("max-age=60"));
}

#[tokio::test]
async fn custom_headers_come_from_a_config_map_and_ours_count_before_them() {
    let a = service("alpha", |_, _| (200, vec![("x-frame-options", "ALLOW".to_owned())])).await;
    let proxy = |name: &'static str| {
        let annotations = [
            ("nginx.ingress.kubernetes.io/custom-headers", name),
            ("ingress.landfall.dev/response-headers", "X-More: ours"),
        ];
        World::new()
            .service("a", &[a.address])
            .secret("fields", "X-Frame-Options", "DENY\n")
            .secret("fields", "X-More", "theirs")
            .secret("framing", "Content-Length", "1")
            .secret("lines", "X-A", "1\r\nX-B: 2")
            .named(&annotations, "h.io", ROOT)
            .start()
    };
    for name in ["fields", "d/fields"] {
        let answer = get(&proxy(name).await, "/", &[]).await;
        assert_eq!(answer.all("x-frame-options"), ["DENY"], "{name}");
        assert_eq!(answer.all("x-more"), ["ours"], "{name}");
    }
    // What cannot be set is not, none of it; the route serves.
    for name in ["framing", "lines", "missing", "other/fields"] {
        let answer = get(&proxy(name).await, "/", &[]).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "alpha"), "{name}");
        assert_eq!(
            (answer.all("x-frame-options"), answer.field("x-b")),
            (vec!["ALLOW"], None),
            "{name}"
        );
        assert_eq!(answer.field("x-more"), Some("ours"));
    }
}

#[tokio::test]
async fn enable_cors_lets_preflights_past_authentication_and_scripts_see_a_refusal() {
    let a = plain("alpha").await;
    let annotations = [
        ("enable-cors", "true"),
        ("cors-allow-origin", "https://one.io"),
        ("auth-type", "basic"),
        ("auth-secret", "users"),
    ];
    let proxy = World::new()
        .service("a", &[a.address])
        .secret("users", "auth", "anna:{SHA}87u9ZqY9S/F0eUBXjsPQEDUw4h0=")
        .ingress(&annotations, "h.io", ROOT)
        .start()
        .await;
    let origin = ("Origin", "https://one.io");
    let preflight = send(
        &proxy,
        "OPTIONS",
        "h.io",
        "/",
        &[origin, ("Access-Control-Request-Method", "PUT")],
    )
    .await;
    assert_eq!((preflight.status, preflight.body.as_str()), (204, ""));
    let refused = get(&proxy, "/", &[origin]).await;
    assert_eq!(
        (refused.status, refused.field("access-control-allow-origin")),
        (401, Some("https://one.io"))
    );
    // Without an origin, or with another method, it is a request like any other.
    assert_eq!(send(&proxy, "OPTIONS", "h.io", "/", &[origin]).await.status, 401);
    assert_eq!(
        send(
            &proxy,
            "GET",
            "h.io",
            "/",
            &[origin, ("Access-Control-Request-Method", "PUT")]
        )
        .await
        .status,
        401
    );
    assert!(a.asked().is_empty());
}
