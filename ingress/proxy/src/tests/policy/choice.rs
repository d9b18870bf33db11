//! Which backend, which endpoint, and who else gets a copy.

use super::world::{World, get, plain, read, send};
use crate::tests::ends::{ask, dead, listen};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ROOT: (&str, &str, &str) = ("Prefix", "/", "a");

#[tokio::test]
async fn canary_goes_by_header_then_cookie_then_weight() {
    let (a, b) = (plain("main").await, plain("canary").await);
    let world = |annotations: &[(&str, &str)]| {
        let mut all = vec![("canary", "true")];
        all.extend(annotations);
        World::new()
            .service("a", &[a.address])
            .service("b", &[b.address])
            .ingress(&[], "h.io", ROOT)
            .ingress(&all, "h.io", ("Prefix", "/", "b"))
    };
    let proxy = world(&[
        ("canary-by-header", "X-Try"),
        ("canary-by-cookie", "try"),
        ("canary-weight", "0"),
    ])
    .start()
    .await;
    for (fields, wanted) in [
        (&[][..], "main"),
        (&[("X-Try", "always")], "canary"),
        (&[("X-Try", "never"), ("Cookie", "try=always")], "main"),
        (&[("X-Try", "what"), ("Cookie", "try=always")], "canary"),
        (&[("Cookie", "try=never")], "main"),
        (&[("Cookie", "nottry=always")], "main"),
    ] {
        assert_eq!(get(&proxy, "/", fields).await.body, wanted, "{fields:?}");
    }
    let by_value = world(&[("canary-by-header", "X-Try"), ("canary-by-header-value", "blue")])
        .start()
        .await;
    assert_eq!(get(&by_value, "/", &[("X-Try", "blue")]).await.body, "canary");
    assert_eq!(get(&by_value, "/", &[("X-Try", "always")]).await.body, "main");
    let by_pattern = world(&[("canary-by-header", "X-Try"), ("canary-by-header-pattern", "^b.*e$")])
        .start()
        .await;
    assert_eq!(get(&by_pattern, "/", &[("X-Try", "bare")]).await.body, "canary");
    let weighted = world(&[("canary-weight", "3"), ("canary-weight-total", "10")])
        .start()
        .await;
    let mut canary = 0;
    for _ in 0..300 {
        canary += usize::from(get(&weighted, "/", &[]).await.body == "canary");
    }
    // Six standard deviations around 90.
    assert!((42..=138).contains(&canary), "{canary}");
}

#[tokio::test]
async fn canary_stands_under_the_protection_of_its_route() {
    let (a, b) = (plain("main").await, plain("canary").await);
    let proxy = World::new()
        .service("a", &[a.address])
        .service("b", &[b.address])
        .ingress(&[("whitelist-source-range", "10.0.0.0/8")], "h.io", ROOT)
        .ingress(
            &[("canary", "true"), ("canary-by-header", "X-Try")],
            "h.io",
            ("Prefix", "/", "b"),
        )
        .start()
        .await;
    assert_eq!(get(&proxy, "/", &[("X-Try", "always")]).await.status, 403);
}

#[tokio::test]
async fn affinity_cookie_leads_back_and_names_no_address() {
    let services = [plain("one").await, plain("two").await, plain("three").await];
    let addresses: Vec<_> = services.iter().map(|s| s.address).collect();
    let annotations = [
        ("affinity", "cookie"),
        ("session-cookie-name", "stick"),
        ("session-cookie-max-age", "60"),
    ];
    let proxy = World::new()
        .service("a", &addresses)
        .ingress(&annotations, "h.io", ROOT)
        .start()
        .await;
    let mut seen = BTreeSet::new();
    for _ in 0..12 {
        let first = get(&proxy, "/", &[]).await;
        let cookie = first.field("set-cookie").expect("a cookie");
        assert!(cookie.ends_with("; Path=/; HttpOnly; Max-Age=60"), "{cookie}");
        let cookie = cookie.split(';').next().unwrap().to_owned();
        assert!(
            addresses
                .iter()
                .all(|a| !cookie.contains(&a.port().to_string()) || cookie.len() == 22)
        );
        for _ in 0..4 {
            let again = get(&proxy, "/", &[("Cookie", &cookie)]).await;
            assert_eq!(
                (again.body.as_str(), again.field("set-cookie")),
                (first.body.as_str(), None)
            );
        }
        seen.insert(first.body);
    }
    assert!(seen.len() > 1, "{seen:?}");
    for forged in [
        addresses[0].to_string(),
        "AAAAAAAAAAAAAAAA".to_owned(),
        "169.254.169.254:80".to_owned(),
        String::new(),
    ] {
        let answer = get(&proxy, "/", &[("Cookie", &format!("stick={forged}"))]).await;
        assert!(answer.status == 200 && answer.field("set-cookie").is_some(), "{forged}");
    }
}

#[tokio::test]
async fn affinity_survives_a_dead_endpoint_and_changes_only_if_asked() {
    let a = plain("one").await;
    let dead = dead();
    for (change, wanted) in [("false", false), ("true", true)] {
        let annotations = [("affinity", "cookie"), ("session-cookie-change-on-failure", change)];
        let both = World::new()
            .service("a", &[dead, a.address])
            .ingress(&annotations, "h.io", ROOT)
            .start()
            .await;
        // The cookie of an endpoint that was there and is not any more.
        let key = cookie_of(&both, dead);
        let answer = get(&both, "/", &[("Cookie", &format!("INGRESSCOOKIE={key}"))]).await;
        assert_eq!(answer.body, "one");
        assert_eq!(answer.field("set-cookie").is_some(), wanted, "{change}");
    }
}

/// What the running proxy would set for an endpoint.
fn cookie_of(proxy: &crate::tests::ends::Running, endpoint: std::net::SocketAddr) -> String {
    proxy.proxy.policies.cookie_value("d/a:80", endpoint)
}

#[tokio::test]
async fn upstream_hash_by_sends_equal_keys_to_one_endpoint() {
    let services = [plain("one").await, plain("two").await, plain("three").await];
    let addresses: Vec<_> = services.iter().map(|s| s.address).collect();
    for (key, fields) in [
        ("$request_uri", ("X-None", "")),
        ("$request_uri$host", ("X-None", "")),
        ("${arg_user}-text", ("X-None", "")),
        ("$http_x_user", ("X-User", "")),
        ("$cookie_user", ("Cookie", "user=")),
        ("$arg_user", ("X-None", "")),
    ] {
        let proxy = World::new()
            .service("a", &addresses)
            .ingress(&[("upstream-hash-by", key)], "h.io", ROOT)
            .start()
            .await;
        let mut all = BTreeSet::new();
        for user in 0..12 {
            let value = format!("{}{user}", fields.1);
            let path = format!("/?user={user}");
            let mut bodies = BTreeSet::new();
            for _ in 0..3 {
                bodies.insert(get(&proxy, &path, &[(fields.0, &value)]).await.body);
            }
            assert_eq!(bodies.len(), 1, "{key}");
            all.extend(bodies);
        }
        assert!(all.len() > 1, "{key}: {all:?}");
    }
    // `$uri` is the path alone.
    let proxy = World::new()
        .service("a", &addresses)
        .ingress(&[("upstream-hash-by", "$uri")], "h.io", ROOT)
        .start()
        .await;
    let mut bodies = BTreeSet::new();
    for user in 0..12 {
        bodies.insert(get(&proxy, &format!("/p?user={user}"), &[]).await.body);
    }
    assert_eq!(bodies.len(), 1);
}

/// A service that answers the first request of a connection, and reads the second and closes. Counts requests.
async fn twice() -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                for place in 0..2 {
                    if stream.read(&mut [0; 4096]).await.unwrap_or(0) == 0 {
                        return;
                    }
                    counter.fetch_add(1, Ordering::SeqCst);
                    if place == 0 {
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        stream.write_all(answer).await.unwrap();
                    }
                }
            });
        }
    });
    (address, seen)
}

/// Whoever reads a request and closes may have acted on it.
#[tokio::test]
async fn a_copy_that_a_service_may_have_acted_on_is_made_again_only_where_that_changes_nothing() {
    let a = plain("alpha").await;
    let annotations = [("mirror-target", "http://b.d.svc.cluster.local$request_uri")];
    for (method, all) in [("POST", 2), ("GET", 3)] {
        let (b, seen) = twice().await;
        let world = World::new().service("a", &[a.address]).service("b", &[b]);
        let proxy = world.ingress(&annotations, "h.io", ROOT).start().await;
        for number in 1..=2 {
            let field = [("Content-Length", "0")];
            assert_eq!(send(&proxy, method, "h.io", "/", &field).await.body, "alpha");
            let copied = async {
                while seen.load(Ordering::SeqCst) < number {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), copied)
                .await
                .expect("a copy");
            // The connection is kept by then.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(seen.load(Ordering::SeqCst), all, "{method}");
    }
}

#[tokio::test]
async fn mirror_target_gets_a_copy_with_its_body_and_nobody_waits_for_it() {
    let (a, b) = (plain("alpha").await, plain("mirror").await);
    let annotations = [("mirror-target", "http://b.d.svc.cluster.local$request_uri")];
    let world = |to: SocketAddr| {
        World::new()
            .service("a", &[a.address])
            .service("b", &[to])
            .ingress(&annotations, "h.io", ROOT)
    };
    let proxy = world(b.address).start().await;
    let text = "POST /p?q=1 HTTP/1.1\r\nHost: h.io\r\nConnection: close\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello";
    assert_eq!(read(&ask(proxy.address, text).await).body, "alpha");
    let copy = b.next().await;
    assert_eq!(
        (copy.method.as_str(), copy.uri.to_string().as_str(), &copy.body[..]),
        ("POST", "/p?q=1", &b"hello"[..])
    );
    assert_eq!(
        (copy.field("x-a"), copy.field("host")),
        (Some("1"), Some("b.d.svc.cluster.local"))
    );
    assert_eq!(a.next().await.body, "hello");
    // Too large for a copy: the request itself passes whole.
    let large = "x".repeat(100_000);
    let text = format!(
        "POST /large HTTP/1.1\r\nHost: h.io\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n{large}\r\n0\r\n\r\n"
    );
    assert_eq!(read(&ask(proxy.address, &text).await).body, "alpha");
    assert_eq!(a.next().await.body.len(), 100_000);
    assert_eq!(send(&proxy, "GET", "h.io", "/last", &[]).await.body, "alpha");
    assert_eq!(b.next().await.uri.path(), "/last");
    let nobody = world(dead()).start().await;
    assert_eq!(get(&nobody, "/", &[]).await.body, "alpha");
}
