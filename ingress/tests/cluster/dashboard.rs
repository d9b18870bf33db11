//! The dashboard of the real program: its API, its guards, and its page in a real browser.

mod page;
mod world;

use crate::harness::{Proxy, endpoint, ingress, pod, until};
use crate::{cluster, ready};
use landfall_test_ingress::FakeApi;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn api(proxy: &Proxy, path: &str) -> Value {
    let (status, body) = proxy.page(&format!("/api/v1/{path}")).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// The whole answer to a request with this first line and these fields.
async fn raw(address: SocketAddr, line: &str, fields: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{line} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// A proxy that has answered three requests, and a fourth whose Service is not there.
async fn three_served_and_one_not() -> (FakeApi, Proxy) {
    let api_server = cluster(&[endpoint("one").await]).await;
    api_server.put("ingresses", ingress("dead", "dead.nginx.com", "<b>"));
    let proxy = ready(&api_server).await;
    for _ in 0..3 {
        assert_eq!(proxy.status("test.nginx.com").await, 200);
    }
    assert_eq!(proxy.status("dead.nginx.com").await, 503);
    (api_server, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_counts_what_happened_by_route_and_by_who_is_to_blame() {
    let (api_server, proxy) = three_served_and_one_not().await;
    assert_eq!(proxy.status("nobody").await, 404);
    let overview = api(&proxy, "overview").await;
    let traffic = &overview["traffic"];
    assert_eq!(traffic["requests"], 5);
    assert_eq!(
        traffic["classes"],
        json!({ "1xx": 0, "2xx": 3, "3xx": 0, "4xx": 1, "5xx": 1 })
    );
    assert_eq!(traffic["reasons"], json!({ "no_route": 1, "no_endpoint": 1 }));
    assert_eq!(
        (traffic["errors_ours"].as_u64(), traffic["errors_upstream"].as_u64()),
        (Some(2), Some(0))
    );
    assert!(traffic["p50_ms"].as_f64() > Some(0.0) && traffic["p99_ms"].as_f64() >= traffic["p50_ms"].as_f64());
    assert_eq!(
        (&overview["node"], &overview["state"]),
        (&json!("node-1"), &json!("ready"))
    );
    assert_eq!(overview["health"]["routes"], json!({ "healthy": 1, "down": 1 }));
    let total: u64 = overview["history"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_u64)
        .sum();
    assert!(total <= 5);

    let routes = api(&proxy, "routes?q=test.nginx").await;
    let route = &routes["items"][0];
    assert_eq!(
        (routes["total"].as_u64(), route["traffic"]["requests"].as_u64()),
        (Some(1), Some(3))
    );
    assert!(route["traffic"]["last_hit"].is_string());
    let down = api(&proxy, "routes?state=down").await;
    assert_eq!(down["items"][0]["reason"], "there is no such Service");
    assert_eq!(down["items"][0]["traffic"]["errors_ours"], 1);

    // A table that is built anew keeps the counts.
    api_server.put("ingresses", ingress("more", "more.nginx.com", "nginx"));
    until("the new route", || async { api(&proxy, "routes").await["total"] == 3 }).await;
    let routes = api(&proxy, "routes?q=test.nginx").await;
    assert_eq!(routes["items"][0]["traffic"]["requests"], 3);
    assert_eq!(proxy.status("test.nginx.com").await, 200);
    let series = "route_requests_total{ingress=\"default/nginx\",host=\"test.nginx.com\",path=\"/\",type=\"prefix\",class=\"2xx\"}";
    assert_eq!(proxy.metric(series).await, 4);
    let services = api(&proxy, "services").await;
    assert_eq!(services["items"][1]["name"], "default/nginx:http");
    assert_eq!(services["items"][1]["endpoints"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn services_show_each_endpoint_with_its_state_and_its_failures() {
    let world = world::busy().await;
    let proxy = ready(&world.api).await;
    let here = &proxy;
    let one = |name: &'static str| async move { api(here, &format!("services?q=/{name}:")).await["items"][0].clone() };
    let draining = one("draining").await;
    assert_eq!(
        (&draining["state"], &draining["endpoints"][0]["state"]),
        (&json!("degraded"), &json!("draining"))
    );
    assert_eq!(draining["reason"], "no endpoint is ready; 1 still serving while ending");
    let hinted = one("hinted").await;
    let near: Vec<_> = hinted["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["near"].clone())
        .collect();
    assert_eq!(near, [json!(true), json!(false)]);
    let many = one("many").await;
    assert_eq!(
        (&many["counts"]["ready"], &many["state"]),
        (&json!(40), &json!("healthy"))
    );
    assert_eq!(one("%3Cimg-src%3Dx%3E").await["reason"], "there is no such Service");

    // Connections to one of two endpoints fail: it is left out, and every request is answered all the same.
    until("an ejection", || async {
        assert_eq!(proxy.status("flaky.example.com").await, 200);
        one("flaky").await["counts"]["ejected"] == 1
    })
    .await;
    let flaky = one("flaky").await;
    let (out, well) = (&flaky["endpoints"][0], &flaky["endpoints"][1]);
    assert_eq!(
        (&flaky["state"], &out["state"], &well["state"]),
        (&json!("degraded"), &json!("ejected"), &json!("ready"))
    );
    assert_eq!(out["address"], world.dead.to_string());
    assert!((1..=2000).contains(&out["ejected_for_ms"].as_u64().unwrap()), "{out}");
    assert!(
        out["failures"].as_u64() >= Some(2) && out["unreachable_in_a_row"].as_u64() >= Some(2),
        "{out}"
    );
    assert_eq!(well["failures"], 0);
    // The client has its answer a moment before the endpoint counts as free.
    until("the end of the last request", || async {
        one("flaky").await["endpoints"][1]["in_flight"] == 0
    })
    .await;
    assert_eq!(proxy.metric("endpoint_states{state=\"draining\"}").await, 1);
    until("a metric of the ejection", || async {
        assert_eq!(proxy.status("flaky.example.com").await, 200);
        proxy.metric("endpoint_states{state=\"ejected\"}").await == 1
    })
    .await;

    // The overview counts what the lists show.
    let overview = api(&proxy, "overview").await;
    let total = |list: Value| list["total"].as_u64().unwrap();
    for (list, states) in [
        ("routes", ["healthy", "degraded", "down", "closed"]),
        ("services", ["healthy", "degraded", "down", "closed"]),
    ] {
        assert_eq!(overview["counts"][list], total(api(&proxy, list).await), "{list}");
        for state in states {
            if state == "degraded" {
                continue;
            }
            let shown = total(api(&proxy, &format!("{list}?state={state}")).await);
            assert_eq!(
                overview["health"][list][state].as_u64().unwrap_or(0),
                shown,
                "{list} {state}"
            );
        }
    }
    assert_eq!(
        overview["health"]["remarks"]["refused"],
        total(api(&proxy, "remarks?state=refused").await)
    );
    assert_eq!(overview["counts"]["certificates"], 3);
    assert!(overview["health"]["certificates"]["first_days_left"].as_i64() < Some(0));
    let redirects = api(&proxy, "routes?q=old.example.com").await;
    assert_eq!(redirects["items"][0]["state"], "healthy");
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one page, looked at from all sides")]
async fn a_request_is_explained_without_being_sent() {
    let world = world::busy().await;
    world.api.put("ingresses", ingress("any", "*.nginx.com", "nginx"));
    let proxy = ready(&world.api).await;
    let here = &proxy;
    let explain = |query: &'static str| async move { api(here, &format!("explain?{query}")).await };
    let x = explain("url=http%3A%2F%2Ftest.nginx.com%2Fcart%2Fnew%3Fb").await;
    assert_eq!(
        (&x["winner"]["ingress"], &x["winner"]["path"]),
        (&json!("default/nginx"), &json!("/"))
    );
    assert_eq!(
        (&x["others"][0]["ingress"], &x["others"][0]["why"]),
        (
            &json!("default/cart"),
            &json!("its elements are not the first of the path")
        )
    );
    assert_eq!(
        (&x["host"], &x["path"], &x["method"]),
        (&json!("test.nginx.com"), &json!("/cart/new"), &json!("GET"))
    );
    let endpoints = x["destinations"][0]["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 2);
    assert!(endpoints.iter().any(|e| e["address"] == world.alive.to_string()));
    assert_eq!(x["forwarded"]["target"], "/cart/new?b");
    assert_eq!(
        explain("url=%2Fa&header=Host:+other.nginx.com").await["winner"]["host"],
        "*.nginx.com"
    );
    let x = explain("url=http%3A%2F%2Felse.where%2F").await;
    assert_eq!(
        (&x["answer"]["status"], &x["answer"]["reason"]),
        (&json!(404), &json!("no_route"))
    );
    assert_eq!(
        explain("url=old.example.com").await["answer"]["location"],
        "https://new.example.com/"
    );
    let x = explain("url=closed.example.com").await;
    assert_eq!(
        (&x["answer"]["status"], &x["answer"]["reason"]),
        (&json!(503), &json!("closed"))
    );
    let x = explain("url=shop-checkout.internal.example.com").await;
    assert_eq!(x["answer"]["text"], "503: there is no such Service");

    // Address, field and cookie count, and what only asking tells is not asked.
    let guarded = "url=http://guarded.example.com/api/x?y&client=10.1.2.3";
    let x = explain(guarded).await;
    let outcome = |x: &Value, stage: &str| {
        let stages = x["stages"].as_array().unwrap();
        stages.iter().find(|s| s["stage"] == stage).unwrap()["outcome"].clone()
    };
    for (stage, wanted) in [
        ("client's address", "passes"),
        ("limits", "open"),
        ("external authentication", "open"),
        ("user and password", "not asked for"),
        ("rewrite", "passes"),
    ] {
        assert_eq!(outcome(&x, stage), wanted, "{stage}");
    }
    assert_eq!(x["forwarded"]["target"], "/x?y");
    let shares: Vec<_> = x["destinations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["share"].clone())
        .collect();
    assert_eq!(shares, [json!(0.75), json!(0.25)]);
    let x = explain("url=http://guarded.example.com/api/x&client=10.1.2.3&header=X-Try:always").await;
    assert_eq!(
        (&x["destinations"][0]["service"], &x["destinations"][0]["share"]),
        (&json!("default/team-0:http"), &json!(1.0))
    );
    let x = explain("url=http://guarded.example.com/api/x&client=11.1.2.3").await;
    assert_eq!(
        (&x["answer"]["reason"], outcome(&x, "limits")),
        (&json!("source"), json!("not reached"))
    );
    for bad in [
        "url=%2F",
        "url=http%3A%2F%2Fa%20b%2F",
        "url=ftp://h/",
        "url=http://u:p@h/",
        "url=http://h/&method=a%20b",
        "url=http://h/&client=me",
        "url=http://h/&http=3",
        "url=http://h/&header=a%0D%0Ab:c",
    ] {
        assert_eq!(proxy.page(&format!("/api/v1/explain?{bad}")).await.0, 400, "{bad}");
    }
    assert_eq!(proxy.page("/api/v1/nothing").await.0, 404);
    assert_eq!(api(&proxy, "overview").await["traffic"]["requests"], 0);
}

/// What looks cost is counted, not timed: one round through the table in a second at most, and text of those lines alone that are shown.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_hosts_are_cheap_to_look_at() {
    const LOOKS: u64 = 20;
    let large = world::large(10_000).await;
    let proxy = ready(&large).await;
    until("the table", || async {
        api(&proxy, "overview").await["counts"]["routes"] == 10_000
    })
    .await;
    let (start, rounds) = (Instant::now(), proxy.metric("dashboard_rounds_total").await);
    for path in [
        "overview",
        "routes?limit=50",
        "routes?limit=50&q=app-07&sort=host&order=desc",
        "services?limit=50&sort=state",
    ] {
        let lines = proxy.metric("dashboard_lines_total").await;
        for _ in 0..LOOKS {
            let answer = api(&proxy, path).await;
            let items = answer["items"].as_array();
            assert!(items.is_none_or(|items| items.len() == 50), "{path}");
        }
        let made = proxy.metric("dashboard_lines_total").await - lines;
        assert_eq!(made, if path == "overview" { 0 } else { LOOKS * 50 }, "{path}");
    }
    // However slow the machine is, two rounds are a second apart; the one before the start may have been any moment earlier.
    let made = proxy.metric("dashboard_rounds_total").await - rounds;
    let seconds = start.elapsed().as_secs();
    assert!(made <= seconds + 1, "{made} rounds in {seconds} s");
}

/// A sample is taken every ten seconds, so this waits for the first.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_quarter_of_an_hour_is_kept_by_route_and_by_who_is_to_blame() {
    let (_api_server, proxy) = three_served_and_one_not().await;
    let _open = TcpStream::connect(proxy.http).await.unwrap();
    let sum = |counts: &Value| -> u64 { counts.as_array().unwrap().iter().filter_map(Value::as_u64).sum() };
    until("a sample", || async {
        sum(&api(&proxy, "series").await["all"]["requests"]) == 4
    })
    .await;
    let series = api(&proxy, "series").await;
    let all = &series["all"];
    assert_eq!((sum(&all["errors_ours"]), sum(&all["errors_upstream"])), (1, 0));
    assert!(sum(&all["connections"]) >= 1, "{all}");
    let p99 = all["p99_ms"].as_array().unwrap();
    assert!(p99.iter().any(|value| value.as_f64() > Some(0.0)), "{all}");
    let samples = p99.len();
    for column in ["seconds_ago", "lengths"] {
        assert_eq!(series[column].as_array().unwrap().len(), samples, "{column}");
    }
    assert_eq!(series["range_seconds"], 900);
    // The busiest comes first.
    let routes = series["items"].as_array().unwrap();
    let of = |route: &Value| {
        (
            route["ingress"].clone(),
            sum(&route["requests"]),
            sum(&route["errors_ours"]),
        )
    };
    assert_eq!(of(&routes[0]), (json!("default/nginx"), 3, 0));
    assert_eq!(of(&routes[1]), (json!("default/dead"), 1, 1));
    let found = api(&proxy, "series?q=dead.nginx&limit=1").await;
    assert_eq!((&found["total"], &found["items"][0]), (&json!(1), &routes[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_is_read_only_knows_its_names_and_keeps_its_policy() {
    let api_server = cluster(&[endpoint("one").await]).await;
    let proxy = ready(&api_server).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = raw(
            proxy.admin,
            &format!("{method} /api/v1/overview"),
            "Host: localhost\r\nContent-Length: 0\r\n",
        )
        .await;
        assert!(
            answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD"),
            "{answer}"
        );
    }
    for (path, status) in [
        ("/", 421),
        ("/api/v1/overview", 421),
        ("/metrics", 421),
        ("/status.json", 421),
        ("/healthz", 200),
        ("/readyz", 200),
    ] {
        let answer = raw(proxy.admin, &format!("GET {path}"), "Host: evil.example.com\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    for path in [
        "/",
        "/page.js",
        "/graphs.js",
        "/explain.js",
        "/page.css",
        "/icon.svg",
        "/api/v1/routes",
    ] {
        let answer = raw(proxy.admin, &format!("GET {path}"), "Host: 127.0.0.1\r\n").await;
        let head = answer.split_once("\r\n\r\n").unwrap().0;
        assert!(
            head.starts_with("HTTP/1.1 200") && head.contains("x-content-type-options: nosniff"),
            "{head}"
        );
        assert!(
            head.contains("content-security-policy: default-src 'none'; script-src 'self'"),
            "{head}"
        );
        assert!(
            !head.contains("unsafe") && !head.to_lowercase().contains("access-control"),
            "{head}"
        );
    }
}

/// User and password of [`login`], as Basic authentication writes them.
const RIGHT: &str = "bGFuZGZhbGw6aHVudGVyMg==";

/// What a Secret of type kubernetes.io/basic-auth is as a mounted directory: user `landfall`, password `hunter2`.
fn login() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("username"), "landfall").unwrap();
    std::fs::write(folder.path().join("password"), "hunter2").unwrap();
    folder
}

/// A proxy whose dashboard asks for that login, and the directory, which goes when it is dropped.
fn protected(api: &FakeApi) -> (Proxy, tempfile::TempDir) {
    let folder = login();
    let flag = format!("--dashboard-auth-file={}", folder.path().display());
    (Proxy::start_with(api, "", &[&flag]), folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_everything_but_health_and_the_nodes_metrics() {
    let api_server = cluster(&[endpoint("one").await]).await;
    let (proxy, _login) = protected(&api_server);
    until("ready", || proxy.ready()).await;
    for (path, status) in [
        ("/", 401),
        ("/page.js", 401),
        ("/api/v1/fleet", 401),
        ("/api/v1/explain?url=http://test.nginx.com/", 401),
        ("/status.json", 401),
        ("/metrics", 200),
        ("/healthz", 200),
    ] {
        assert_eq!(proxy.page(path).await.0, status, "{path}");
    }
    let refused = raw(proxy.admin, "GET /", "Host: localhost\r\n").await;
    assert!(
        refused.contains("www-authenticate: Basic realm=\"landfall ingress\""),
        "{refused}"
    );
    let with = |path: &'static str, fields: &'static str| async move {
        let fields = format!("Host: localhost\r\n{fields}");
        raw(proxy.admin, &format!("GET {path}"), &fields).await
    };
    let right = with("/api/v1/overview", "Authorization: Basic bGFuZGZhbGw6aHVudGVyMg==\r\n").await;
    assert!(
        right.starts_with("HTTP/1.1 200") && !right.contains("hunter2"),
        "{right}"
    );
    assert!(!right.contains(RIGHT), "{right}");
    let wrong = with("/api/v1/overview", "Authorization: Basic bGFuZGZhbGw6aHVudGVyMw==\r\n").await;
    assert!(wrong.starts_with("HTTP/1.1 401"), "{wrong}");
    // What comes by a proxy on this node does not come from this node.
    let passed_on = with("/metrics", "X-Forwarded-For: 203.0.113.9\r\n").await;
    assert!(passed_on.starts_with("HTTP/1.1 401"), "{passed_on}");
    let passed_on = "X-Forwarded-For: 203.0.113.9\r\nAuthorization: Basic bGFuZGZhbGw6aHVudGVyMg==\r\n";
    assert!(with("/metrics", passed_on).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_password_the_bare_program_answers_for_health_and_metrics_alone() {
    let api_server = cluster(&[endpoint("one").await]).await;
    // As a Secret is mounted that is not there yet.
    let folder = tempfile::tempdir().unwrap();
    let flag = format!("--dashboard-auth-file={}", folder.path().display());
    for flags in [&["--dashboard-auth=password"][..], &[&flag]] {
        let proxy = Proxy::start_with(&api_server, "", flags);
        until("ready", || proxy.ready()).await;
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(proxy.page(path).await.0, 200, "{path}");
        }
        for path in [
            "/",
            "/page.js",
            "/status.json",
            "/api/v1/overview",
            "/api/v1/explain?url=/",
        ] {
            let (status, text) = proxy.page(path).await;
            assert!(status == 404 && text.contains("is closed"), "{path}: {status} {text}");
        }
        let passed_on = "Host: localhost\r\nX-Forwarded-For: 203.0.113.9\r\n";
        assert!(
            raw(proxy.admin, "GET /metrics", passed_on)
                .await
                .starts_with("HTTP/1.1 404")
        );
        assert_eq!(proxy.body("test.nginx.com").await, "one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboards_host_is_protected_as_its_port_is() {
    let api_server = cluster(&[endpoint("one").await]).await;
    let (proxy, _login) = protected(&api_server);
    api_server.put("services", crate::harness::service("dashboard"));
    api_server.put(
        "endpointslices",
        crate::harness::slice("dashboard", "dashboard", proxy.admin),
    );
    api_server.put("ingresses", ingress("dashboard", "ui.landfall.local", "dashboard"));
    until("the dashboard's host", || async {
        proxy.status("ui.landfall.local").await == 401
    })
    .await;
    for path in ["/metrics", "/api/v1/overview"] {
        let answer = raw(proxy.http, &format!("GET {path}"), "Host: ui.landfall.local\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
        let fields = format!("Host: ui.landfall.local\r\nAuthorization: Basic {RIGHT}\r\n");
        let answer = raw(proxy.http, &format!("GET {path}"), &fields).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_shows_other_proxies_and_those_that_do_not_answer() {
    let api_server = cluster(&[endpoint("one").await]).await;
    api_server.put("pods", pod("a", "127.0.0.1"));
    api_server.put("pods", pod("b", "127.0.0.2"));
    api_server.put("pods", pod("c", "127.0.0.3"));
    let first = Proxy::start_with(
        &api_server,
        "a",
        &[
            "--http-address=127.0.0.1:0",
            "--https-address=127.0.0.1:0",
            "--admin-address=127.0.0.1:0",
            "--node-address=127.0.0.1",
        ],
    );
    let admin = format!("--admin-address=127.0.0.2:{}", first.admin.port());
    let second = Proxy::start_with(
        &api_server,
        "b",
        &["--http-address=127.0.0.2:0", "--https-address=127.0.0.2:0", &admin],
    );
    until("both are ready", || async {
        let other = SocketAddr::from(([127, 0, 0, 2], first.admin.port()));
        first.ready().await && crate::fetch(other, "localhost", "/readyz").await.0 == 200
    })
    .await;
    let fleet = api(&first, "fleet").await;
    let nodes: Vec<_> = fleet["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| (n["state"].clone(), n["self"].clone(), n["routes"].clone()))
        .collect();
    assert_eq!(nodes[0], (json!("ready"), json!(true), json!(1)));
    assert_eq!(nodes[1], (json!("ready"), json!(false), json!(1)));
    assert_eq!(nodes[2].0, "unreachable");
    // What each serves, and where: the same routes are the same table.
    assert_eq!(fleet["items"][0]["table"], fleet["items"][1]["table"]);
    assert!(fleet["items"][1]["table"].is_string());
    let points = |node: usize| fleet["items"][node]["entry_points"].clone();
    assert_eq!(points(0)[0]["address"], first.http.to_string());
    assert_eq!(points(1)[1]["address"], format!("127.0.0.2:{}", second.https.port()));
    assert!(fleet["items"][2]["reason"].is_string());
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_dashboard_its_port_answers_for_health_and_metrics_alone() {
    let api_server = cluster(&[endpoint("one").await]).await;
    let proxy = Proxy::start_with(&api_server, "", &["--no-dashboard"]);
    until("ready", || proxy.ready()).await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(proxy.page(path).await.0, 200, "{path}");
    }
    for path in ["/", "/page.js", "/status.json", "/api/v1/overview", "/api/v1/routes"] {
        let (status, text) = proxy.page(path).await;
        assert!(
            status == 404 && text.contains("no dashboard"),
            "{path}: {status} {text}"
        );
    }
    assert_eq!(proxy.body("test.nginx.com").await, "one");
}
