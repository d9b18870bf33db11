//! What an authentication service is asked, who is asked, and what of it the endpoint sees.

use super::world::{World, get, plain, send, service};
use crate::limits::Limits;
use crate::tests::ends::raw_endpoint;
use crate::tests::http2::client;
use http_body_util::Full;
use hyper::Request;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const ROOT: (&str, &str, &str) = ("Prefix", "/", "a");
const OWN: [(&str, &str); 1] = [("auth-url", "https://$host/oauth2/auth")];

/// The kind is an oauth2-proxy whose own Ingress was forgotten, or has the annotation too.
#[tokio::test]
async fn auth_url_of_the_own_host_never_asks_the_application_about_itself() {
    let app = plain("app").await;
    let auth = service("auth", |_, _| (401, vec![])).await;
    let world = || {
        World::new()
            .service("a", &[app.address])
            .service("auth", &[auth.address])
            .ingress(&OWN, "h.io", ROOT)
    };
    for (world, why) in [
        (world(), "no other route"),
        (
            world().ingress(&OWN, "h.io", ("Prefix", "/oauth2", "auth")),
            "one that asks itself",
        ),
        (
            world().ingress(&[("auth-url", "http://auth/")], "h.io", ("Prefix", "/oauth2", "auth")),
            "one that asks somebody else",
        ),
    ] {
        let remarks: Vec<_> = world.snapshot().remarks().iter().map(ToString::to_string).collect();
        let proxy = world.start().await;
        for path in ["/secret", "/oauth2/auth", "/"] {
            let answer = get(&proxy, path, &[]).await;
            let closed = (answer.status, answer.field("x-landfall-reason")) == (503, Some("closed"));
            assert!(closed || answer.status == 401, "{why} {path}: {answer:?}");
        }
        assert_eq!(get(&proxy, "/secret", &[]).await.status, 503, "{why}");
        assert!(
            remarks
                .iter()
                .any(|text| text.contains("auth-url") && text.contains("/oauth2/auth")),
            "{why}: {remarks:?}"
        );
    }
    // Where a variable leads shows with the request only: it is refused all the same.
    for url in ["http://$host$request_uri", "http://$host$uri/auth"] {
        let proxy = World::new()
            .service("a", &[app.address])
            .ingress(&[("auth-url", url)], "h.io", ROOT)
            .start()
            .await;
        assert_eq!(get(&proxy, "/secret", &[]).await.status, 502, "{url}");
    }
    assert!(app.asked().is_empty());
    auth.asked();
    // A route of its own is asked, and one that only redirects asks nobody.
    let proxy = world()
        .ingress(&[], "h.io", ("Prefix", "/oauth2", "auth"))
        .ingress(&[OWN[0], ("permanent-redirect", "https://h.io/")], "old.io", ROOT)
        .start()
        .await;
    assert_eq!(get(&proxy, "/secret", &[]).await.status, 401);
    assert_eq!(auth.next().await.uri, "/oauth2/auth");
    assert_eq!(send(&proxy, "GET", "old.io", "/", &[]).await.status, 301);
    assert!(app.asked().is_empty());
}

#[tokio::test]
async fn credentials_that_the_service_replaces_reach_the_service_and_never_the_endpoint() {
    let app = plain("app").await;
    let auth = service("auth", |headers, _| match headers.get("authorization") {
        Some(said) if said == "Bearer mine" => (200, vec![("authorization", "Bearer inner".to_owned())]),
        Some(said) if said == "Bearer quiet" => (200, vec![]),
        _ => (401, vec![]),
    })
    .await;
    let annotations = [
        ("auth-url", "http://auth/check"),
        ("auth-response-headers", "Authorization, Cookie, X-User"),
    ];
    let proxy = World::new()
        .service("a", &[app.address])
        .service("auth", &[auth.address])
        .ingress(&annotations, "h.io", ROOT)
        .start()
        .await;
    for (said, wanted) in [("Bearer mine", Some("Bearer inner")), ("Bearer quiet", None)] {
        let fields = [("Authorization", said), ("Cookie", "s=1"), ("X-User", "root")];
        assert_eq!(get(&proxy, "/", &fields).await.status, 200, "{said}");
        let question = auth.next().await;
        assert_eq!(
            (
                question.field("authorization"),
                question.field("cookie"),
                question.field("x-user")
            ),
            (Some(said), Some("s=1"), None)
        );
        let got = app.next().await;
        assert_eq!(
            (got.field("authorization"), got.field("cookie"), got.field("x-user")),
            (wanted, None, None)
        );
    }
    assert_eq!(get(&proxy, "/", &[("Authorization", "Bearer other")]).await.status, 401);
    assert!(app.asked().is_empty());
}

#[tokio::test]
async fn auth_request_redirect_says_where_to_go_back_and_two_credentials_are_none() {
    let app = plain("app").await;
    let auth = plain("auth").await;
    let world = |more: &[(&str, &str)]| {
        let annotations = [&[("auth-url", "http://auth/check")], more].concat();
        let world = World::new()
            .service("a", &[app.address])
            .service("auth", &[auth.address]);
        world.ingress(&annotations, "h.io", ROOT)
    };
    for (more, wanted) in [
        (&[][..], "/p?q=1"),
        (
            &[("auth-request-redirect", "https://$host/back$request_uri")],
            "https://h.io/back/p?q=1",
        ),
    ] {
        let proxy = world(more).start().await;
        assert_eq!(
            get(&proxy, "/p?q=1", &[("X-Auth-Request-Redirect", "/evil")])
                .await
                .status,
            200
        );
        assert_eq!(auth.next().await.field("x-auth-request-redirect"), Some(wanted));
    }
    app.asked();
    let proxy = world(&[]).start().await;
    let two = [("Authorization", "Bearer a"), ("Authorization", "Bearer b")];
    assert_eq!(get(&proxy, "/", &two).await.status, 401);
    assert!(app.asked().is_empty() && auth.asked().is_empty());
}

#[tokio::test]
async fn the_service_and_the_endpoint_know_a_request_by_one_name() {
    let app = plain("app").await;
    let auth = plain("auth").await;
    let proxy = World::new()
        .service("a", &[app.address])
        .service("auth", &[auth.address])
        .ingress(&[("auth-url", "http://auth/check")], "h.io", ROOT)
        .start()
        .await;
    let own = [("X-Request-ID", "mine")];
    for fields in [
        &[][..],
        &own,
        &[own[0], ("Connection", "x-request-id")],
        &[("X-Request-ID", "")],
    ] {
        get(&proxy, "/", fields).await;
        let (asked, got) = (auth.next().await, app.next().await);
        let name = asked.field("x-request-id").expect("a name").to_owned();
        assert!(
            !name.is_empty() && got.field("x-request-id") == Some(&name),
            "{fields:?}"
        );
        assert!(fields.len() != 1 || fields != own || name == "mine", "{name}");
    }
}

/// RFC 9113, 8.2.3: each cookie may be a field of its own, and all of them are one.
#[tokio::test]
async fn cookies_of_http2_are_one_field_to_the_service_too_and_count_as_one() {
    let app = plain("app").await;
    let auth = plain("auth").await;
    let proxy = World::new()
        .service("a", &[app.address])
        .service("auth", &[auth.address])
        .ingress(&[("auth-url", "http://auth/check")], "h.io", ROOT)
        .start()
        .await;
    let mut sender = client(&proxy).await;
    let ask = |cookies: usize, others: usize| {
        let mut request = Request::builder().uri("http://h.io/");
        for number in 0..cookies {
            request = request.header("cookie", format!("c{number}=1"));
        }
        for number in 0..others {
            request = request.header(format!("x-{number}"), "1");
        }
        request.body(Full::default()).unwrap()
    };
    assert_eq!(sender.send_request(ask(3, 0)).await.unwrap().status(), 200);
    for got in [auth.next().await, app.next().await] {
        let all: Vec<_> = got.headers.get_all("cookie").iter().collect();
        assert_eq!(all, ["c0=1; c1=1; c2=1"]);
    }
    assert_eq!(sender.send_request(ask(400, 80)).await.unwrap().status(), 200);
    assert_eq!(sender.send_request(ask(1, 110)).await.unwrap().status(), 431);
    // Their bytes are bounded as ever; here h2 answers itself.
    let large = sender.send_request(ask(6000, 0)).await;
    assert!(large.is_err() || large.is_ok_and(|answer| answer.status() == 431));
}

/// Nobody's authentication waits for that of another route.
#[tokio::test]
async fn a_service_that_hangs_leaves_slots_to_the_others() {
    let app = plain("app").await;
    let auth = service("auth", |_, _| (200, vec![])).await;
    let (hangs, _) = raw_endpoint(b"", true).await;
    let limits = Limits {
        subrequests: 8,
        ..Limits::default()
    };
    let proxy = World::new()
        .service("a", &[app.address])
        .service("auth", &[auth.address])
        .service("hangs", &[hangs])
        .ingress(&[("auth-url", "http://hangs/check")], "hangs.io", ROOT)
        .ingress(&[("auth-url", "http://auth/check")], "h.io", ROOT)
        .limits(limits)
        .start()
        .await;
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let text = b"GET / HTTP/1.1\r\nHost: hangs.io\r\n\r\n";
        stream.write_all(text).await.unwrap();
        waiting.push(stream);
    }
    while proxy.state.counters.requests.value() < 8 {
        tokio::task::yield_now().await;
    }
    let answer = tokio::time::timeout(Duration::from_secs(5), get(&proxy, "/", &[])).await;
    assert_eq!(answer.expect("it waits for the other service").status, 200);
}
