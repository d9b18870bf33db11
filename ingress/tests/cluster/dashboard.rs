//! The dashboard of the real program: its API, its guards, and its page in a real browser.

use crate::chromium::Chromium;
use crate::harness::{Proxy, endpoint, ingress, pod, service, slice, until};
use crate::{cluster, ready};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
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

#[tokio::test(flavor = "multi_thread")]
async fn the_api_counts_what_happened_by_route_and_by_who_is_to_blame() {
    let api_server = cluster(&[endpoint("one").await]).await;
    api_server.put("ingresses", ingress("dead", "dead.nginx.com", "<b>"));
    let proxy = ready(&api_server).await;
    for _ in 0..3 {
        assert_eq!(proxy.status("test.nginx.com").await, 200);
    }
    assert_eq!(proxy.status("dead.nginx.com").await, 503);
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
    assert_eq!(down["items"][0]["reason"], "no endpoint is ready");
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
async fn a_request_is_explained_without_being_sent() {
    let one = endpoint("one").await;
    let api_server = cluster(&[one]).await;
    api_server.put("ingresses", ingress("any", "*.nginx.com", "nginx"));
    let proxy = ready(&api_server).await;
    let explain = |url: &'static str| api(&proxy, url);
    let x = explain("explain?url=http%3A%2F%2Ftest.nginx.com%2Fa%3Fb").await;
    assert_eq!(
        (&x["winner"]["ingress"], &x["endpoint"]),
        (&json!("default/nginx"), &json!(one.to_string()))
    );
    assert_eq!(
        (&x["host"], &x["path"], &x["method"]),
        (&json!("test.nginx.com"), &json!("/a"), &json!("GET"))
    );
    let x = explain("explain?url=%2Fa&header=Host:+other.nginx.com").await;
    assert_eq!(x["winner"]["host"], "*.nginx.com");
    let x = explain("explain?url=http%3A%2F%2Felse.where%2F").await;
    assert_eq!(
        (&x["answer"]["status"], &x["answer"]["reason"]),
        (&json!(404), &json!("no_route"))
    );
    for bad in [
        "explain?url=%2F",
        "explain?url=http%3A%2F%2Fa%20b%2F",
        "explain?url=http%3A%2F%2Fh%2F&method=a%20b",
        "nothing",
    ] {
        assert!(
            (400..405).contains(&proxy.page(&format!("/api/v1/{bad}")).await.0),
            "{bad}"
        );
    }
    assert_eq!(api(&proxy, "overview").await["traffic"]["requests"], 0);
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
    for path in ["/", "/page.js", "/page.css", "/icon.svg", "/api/v1/routes"] {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_everything_but_health_and_metrics() {
    let api_server = cluster(&[endpoint("one").await]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    // The password is `hunter2`.
    std::fs::write(file.path(), "ada:{SHA}87u9ZqY9S/F0eUBXjsPQEDUw4h0=\n").unwrap();
    let flag = format!("--dashboard-auth-file={}", file.path().display());
    let proxy = Proxy::start_with(
        &api_server,
        "",
        &[
            "--http-address=127.0.0.1:0",
            "--https-address=127.0.0.1:0",
            "--admin-address=127.0.0.1:0",
            &flag,
        ],
    );
    until("ready", || proxy.ready()).await;
    for (path, status) in [
        ("/", 401),
        ("/page.js", 401),
        ("/api/v1/fleet", 401),
        ("/status.json", 401),
        ("/metrics", 200),
        ("/healthz", 200),
    ] {
        assert_eq!(proxy.page(path).await.0, status, "{path}");
    }
    let with = |password: &'static str| async move {
        let fields = format!("Host: localhost\r\nAuthorization: Basic {password}\r\n");
        raw(proxy.admin, "GET /api/v1/overview", &fields).await
    };
    let right = with("YWRhOmh1bnRlcjI=").await;
    assert!(right.starts_with("HTTP/1.1 200") && !right.contains("87u9"), "{right}");
    assert!(with("YWRhOmh1bnRlcjM=").await.starts_with("HTTP/1.1 401"));
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
    assert!(fleet["items"][2]["reason"].is_string());
    drop(second);
}

/// Where screenshots are kept: below the target folder, which is ignored.
fn screenshots() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_works_in_a_browser_on_a_phone_and_on_a_desk() {
    if !Chromium::is_installed() {
        return;
    }
    let (one, two) = (endpoint("one").await, endpoint("two").await);
    let api_server = cluster(&[one, two]).await;
    api_server.put("pods", pod("a", "127.0.0.1"));
    api_server.put("pods", pod("b", "127.0.0.2"));
    api_server.put(
        "ingresses",
        ingress("dead", "shop-checkout.internal.example.com", "<img-src=x>"),
    );
    api_server.put("ingresses", ingress("double", "test.nginx.com", "nginx"));
    for i in 0..30 {
        let name = format!("team-{i}");
        api_server.put("services", service(&name));
        api_server.put(
            "endpointslices",
            slice(&name, &name, if i % 2 == 0 { one } else { two }),
        );
        api_server.put(
            "ingresses",
            ingress(&name, &format!("team-{i}.apps.example.com"), &name),
        );
    }
    let flags = [
        "--http-address=127.0.0.1:0",
        "--https-address=127.0.0.1:0",
        "--admin-address=127.0.0.1:0",
        "--node-address=127.0.0.1",
    ];
    let proxy = Proxy::start_with(&api_server, "", &flags);
    until("ready", || proxy.ready()).await;
    for i in 0..240 {
        let host = match i % 24 {
            0 => "shop-checkout.internal.example.com".to_owned(),
            1 => "nobody.example.com".to_owned(),
            n if n < 12 => "test.nginx.com".to_owned(),
            n => format!("team-{}.apps.example.com", n - 12),
        };
        assert_ne!(proxy.status(&host).await, 0);
    }
    let address = proxy.admin;
    let shown = tokio::task::spawn_blocking(move || browse(address)).await.unwrap();
    // The page is paused, so what it showed is what the API says now: nobody has asked anything since.
    let overview = api(&proxy, "overview").await;
    for key in ["requests", "errors_ours", "errors_upstream", "in_flight"] {
        assert_eq!(
            shown[key].as_str().map(ToOwned::to_owned),
            Some(overview["traffic"][key].to_string()),
            "{key}"
        );
    }
    assert_eq!(shown["routes"], overview["counts"]["routes"].to_string());
    assert_eq!(overview["traffic"]["requests"], 240);
}

/// Walks through all views at both widths; returns what the page shows at its end.
fn browse(address: SocketAddr) -> Value {
    let mut page = Chromium::start();
    page.size(1280, 900, false);
    page.call("Page.navigate", &json!({ "url": format!("http://{address}/") }));
    page.until("!!document.querySelector('#tiles .value') && document.body.dataset.view === 'overview'");
    page.eval("document.getElementById('pause').click()");
    for (width, height, dark) in [
        (1280, 900, false),
        (390, 844, false),
        (1280, 900, true),
        (390, 844, true),
    ] {
        page.size(width, height, dark);
        for view in [
            "overview",
            "routes",
            "services",
            "certificates",
            "remarks",
            "explain",
            "fleet",
        ] {
            page.eval(&format!("delete document.body.dataset.view; location.hash = '#{view}'; if (location.hash === '#{view}') dispatchEvent(new HashChangeEvent('hashchange'))"));
            page.until(&format!("document.body.dataset.view === '{view}'"));
            if view == "explain" {
                explain(&mut page);
            }
            let over = page.eval(
                "[...document.querySelectorAll('body *')].filter(e => !e.closest('svg') && !e.classList.contains('skip') && \
                 (e.getBoundingClientRect().right > innerWidth + 1 || e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && \
                 getComputedStyle(e).overflowX !== 'hidden' && !['TEXTAREA', 'INPUT', 'SELECT', 'SPAN', 'CODE', 'A', 'STRONG'].includes(e.tagName)))\
                 .map(e => e.outerHTML.slice(0, 120)).join('\\n') + \
                 (document.documentElement.scrollWidth > innerWidth ? 'the page' : '')",
            );
            assert_eq!(over, "", "{view} is wider than {width} px");
            if !dark {
                every_control_is_reached_by_keyboard(&mut page, view);
            }
            let theme = if dark { "dark" } else { "light" };
            page.screenshot(&screenshots().join(format!("{view}-{width}-{theme}.png")));
        }
    }
    // Names from objects are text, never markup.
    assert_eq!(page.eval("document.querySelectorAll('main img').length"), 0);
    search_and_sort(&mut page);
    let complaints = page.complaints();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    page.eval(
        "(async () => { location.hash = '#overview'; await new Promise(r => setTimeout(r, 300)); \
         document.getElementById('pause').click(); document.getElementById('pause').click(); await new Promise(r => setTimeout(r, 500)); \
         const all = {}; const o = state.overview; \
         for (const e of document.querySelectorAll('[data-api]')) all[e.dataset.api] = e.dataset.value; \
         all.requests = document.querySelector('.tile .note').textContent.replace(/[^0-9]/g, ''); \
         all.routes = document.querySelector('nav a[href=\"#routes\"] .count').textContent; return all; })()",
    )
}

fn explain(page: &mut Chromium) {
    page.eval("document.getElementById('x-url').value = ''; document.getElementById('x-url').focus()");
    page.call(
        "Input.insertText",
        &json!({ "text": "http://test.nginx.com/cart?item=1" }),
    );
    page.press("Enter", 13);
    page.until("!!document.querySelector('#x-answer .verdict')");
    let text = page.eval("document.getElementById('x-answer').innerText");
    assert!(text.as_str().unwrap().contains("default/nginx"), "{text}");
}

/// Tab from the top passes by every control in the order of the page, and each shows that it has the focus.
fn every_control_is_reached_by_keyboard(page: &mut Chromium, view: &str) {
    let controls = "[...document.querySelectorAll('a[href], button, input, select, textarea')].filter(e => !e.disabled && e.getClientRects().length)";
    let wanted = page.eval(&format!("(document.activeElement.blur(), window.reached = new Set(), window.unmarked = [], scrollTo(0, 0), {controls}.length)"));
    let wanted = wanted.as_u64().unwrap();
    for _ in 0..wanted + 2 {
        page.press("Tab", 9);
        page.eval(
            "(() => { const e = document.activeElement; if (e === document.body) return; reached.add(e); \
             if (getComputedStyle(e).outlineStyle === 'none') unmarked.push(e.outerHTML.slice(0, 100)); })()",
        );
    }
    let missed = page.eval(&format!(
        "{controls}.filter(e => !reached.has(e)).map(e => e.outerHTML.slice(0, 100)).join('\\n')"
    ));
    assert_eq!(missed, "", "{view}: not reached by keyboard");
    assert_eq!(page.eval("unmarked.join('\\n')"), "", "{view}: focus does not show");
}

fn search_and_sort(page: &mut Chromium) {
    page.size(1280, 900, false);
    page.eval("delete document.body.dataset.view; location.hash = '#routes'");
    page.until("document.body.dataset.view === 'routes' && !!document.getElementById('search')");
    page.eval("document.getElementById('search').focus()");
    page.call("Input.insertText", &json!({ "text": "team-7." }));
    page.until("document.querySelectorAll('#rows tbody tr').length === 1");
    assert_eq!(page.eval("document.activeElement.id"), "search");
    page.eval("document.getElementById('search').select()");
    page.press("Delete", 46);
    page.until("document.querySelectorAll('#rows tbody tr').length > 20");
    page.eval("[...document.querySelectorAll('th button')].find(b => b.textContent === 'Requests').focus()");
    page.press("Enter", 13);
    page.until("document.querySelector('th[aria-sort=descending] button')?.textContent === 'Requests'");
    page.until("document.querySelector('#rows tbody tr td:nth-child(2)').innerText === 'test.nginx.com'");
    assert_eq!(page.eval("document.activeElement.textContent"), "Requests");
}
