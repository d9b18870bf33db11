//! The page in Chromium, on a phone and on a desk.

use super::{api, world};
use crate::chromium::Chromium;
use crate::harness::{Proxy, fetch, until};
use landfall_test_ingress::FakeApi;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::spawn_blocking;

/// Where screenshots are kept: below the target folder, which is ignored.
fn screenshots() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Starts the program over this cluster, with the flags of a node.
async fn start(api_server: &FakeApi) -> Proxy {
    let flags = [
        "--http-address=127.0.0.1:0",
        "--https-address=127.0.0.1:0",
        "--admin-address=127.0.0.1:0",
        "--node-address=127.0.0.1",
    ];
    let proxy = Proxy::start_with(api_server, "", &flags);
    until("ready", || proxy.ready()).await;
    proxy
}

/// A browser that shows the dashboard; the page stands still, and looks at the API when it changes its view.
fn open(address: SocketAddr) -> Chromium {
    let mut page = Chromium::start();
    page.size(1280, 900, false);
    page.call("Page.navigate", &json!({ "url": format!("http://{address}/") }));
    page.until("!!document.querySelector('#tiles .value') && document.body.dataset.view === 'overview'");
    page.eval("document.getElementById('pause').click()");
    page
}

/// Goes to a view and waits until it is drawn anew.
fn show(page: &mut Chromium, hash: &str) {
    let view = hash.split('=').next().unwrap();
    page.eval(&format!(
        "delete document.body.dataset.view; if (location.hash === '#{hash}') dispatchEvent(new HashChangeEvent('hashchange')); \
         else location.hash = '#{hash}'"
    ));
    page.until(&format!("document.body.dataset.view === '{view}'"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_works_in_a_browser_on_a_phone_and_on_a_desk() {
    if !Chromium::is_installed() {
        return;
    }
    let world = world::busy().await;
    let proxy = start(&world.api).await;
    for i in 0..240 {
        let host = match i % 24 {
            0 => "shop-checkout.internal.example.com".to_owned(),
            1 => "nobody.example.com".to_owned(),
            n if n < 12 => "test.nginx.com".to_owned(),
            n => format!("team-{}.apps.example.com", n - 12),
        };
        assert_ne!(proxy.status(&host).await, 0);
    }
    let (address, http) = (proxy.admin, proxy.http);
    // As long as the page is looked at, an endpoint goes on failing.
    let failing = tokio::spawn(async move {
        loop {
            fetch(http, "flaky.example.com", "/").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    until("an ejection", || async {
        api(&proxy, "overview").await["health"]["endpoints"]["ejected"] == 1
    })
    .await;
    let mut page = spawn_blocking(move || walk(open(address))).await.unwrap();
    failing.abort();
    until("the last answer", || async {
        api(&proxy, "overview").await["traffic"]["in_flight"] == 0
    })
    .await;

    // Nobody asks anything now, so what the page shows is what the API says. It remembers how routes were sorted.
    let overview = api(&proxy, "overview").await;
    let lists = [
        "routes?limit=50&sort=requests&order=desc",
        "services?limit=50",
        "certificates",
        "remarks",
    ];
    let mut said = Vec::new();
    for list in lists {
        said.push(api(&proxy, list).await["items"].as_array().unwrap().clone());
    }
    spawn_blocking(move || {
        compare_overview(&mut page, &overview);
        compare_routes(&mut page, &said[0]);
        compare_services(&mut page, &said[1]);
        let days = |shown: &Value, item: &Value| {
            shown["Days left"] == item["days_left"].as_i64().map_or("–".to_owned(), digits)
        };
        compare(&mut page, "certificates", &said[2], days);
        compare(&mut page, "remarks", &said[3], |shown, item| {
            text(&shown["What"]).contains(text(&item["text"]))
        });
    })
    .await
    .unwrap();
}

/// Walks through all views at both widths, in light and dark.
fn walk(mut page: Chromium) -> Chromium {
    let views = [
        "overview",
        "traffic",
        "routes",
        "services",
        "certificates",
        "remarks",
        "explain",
        "fleet",
    ];
    for (width, dark) in [(1280, false), (390, false), (1280, true), (390, true)] {
        page.size(width, if width == 390 { 844 } else { 900 }, dark);
        for view in views {
            show(&mut page, view);
            if view == "explain" {
                explain(&mut page);
            }
            fits(&mut page, view, width);
            let theme = if dark { "dark" } else { "light" };
            page.eval("document.activeElement.blur()");
            page.screenshot(&screenshots().join(format!("{view}-{width}-{theme}.png")));
            if !dark {
                every_control_is_reached_by_keyboard(&mut page, view);
            }
        }
    }
    for width in [1280, 390] {
        page.size(width, 900, false);
        refused(&mut page);
        fits(&mut page, "explain", width);
        page.screenshot(&screenshots().join(format!("explain-refused-{width}.png")));
    }
    // Names from objects are text, never markup.
    assert_eq!(page.eval("document.querySelectorAll('main img').length"), 0);
    links_lead_to_what_they_name(&mut page);
    search_and_sort(&mut page);
    assert_eq!(page.complaints(), [""; 0]);
    page
}

/// Nothing is wider than the window.
fn fits(page: &mut Chromium, view: &str, width: u32) {
    let over = page.eval(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('svg') && !e.classList.contains('skip') && \
         (e.getBoundingClientRect().right > innerWidth + 1 || e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && \
         getComputedStyle(e).overflowX !== 'hidden' && !['TEXTAREA', 'INPUT', 'SELECT', 'SPAN', 'CODE', 'A', 'STRONG'].includes(e.tagName)))\
         .map(e => e.outerHTML.slice(0, 120)).join('\\n') + \
         (document.documentElement.scrollWidth > innerWidth ? 'the page' : '')",
    );
    assert_eq!(over, "", "{view} is wider than {width} px");
}

/// The ends of the chain of decisions: what its first links and its last are, and the branches of that.
const CHAIN: &str = "(() => { const links = [...document.querySelectorAll('#x-answer .chain li')]; const name = (li) => li.querySelector('.stage').textContent; \
    return links.slice(0, 3).map(name).join(' ') + ' … ' + name(links[links.length - 1]) + ': ' + links[links.length - 1].querySelectorAll('.branch').length; })()";

/// Types a request with a field and a client, and reads what the page makes of it.
fn explain(page: &mut Chromium) {
    for (id, typed) in [
        ("x-headers", "X-Try: never"),
        ("x-client", "10.1.2.3"),
        ("x-url", "http://guarded.example.com/api/cart?item=1"),
    ] {
        page.eval(&format!(
            "document.getElementById('{id}').value = ''; document.getElementById('{id}').focus()"
        ));
        page.call("Input.insertText", &json!({ "text": typed }));
    }
    page.press("Enter", 13);
    page.until("!!document.querySelector('#x-answer .stages')");
    let shown = page.eval("document.getElementById('x-answer').innerText");
    for wanted in [
        "It goes to default/nginx:http",
        "by 10.1.2.3 over http",
        "default/guarded",
        "no canary takes it",
        "10.1.2.3 may come",
        "http://team-1.default.svc.cluster.local/verify would be asked with GET",
        "GET /cart?item=1",
        "x-forwarded-for",
    ] {
        assert!(text(&shown).contains(wanted), "{wanted}: {shown}");
    }
    assert_eq!(
        page.eval("document.querySelectorAll('#x-answer .chain li.met').length"),
        12
    );
    assert_eq!(page.eval(CHAIN), "request host rule … goes to: 1");
}

/// A request that the route's policy answers, and the rules that lost it.
fn refused(page: &mut Chromium) {
    show(page, "explain=http%3A%2F%2Ftest.nginx.com%2Fcart%2Fnew");
    page.until("document.querySelector('#x-answer table')?.innerText.includes('/cart/old')");
    show(page, "explain=http%3A%2F%2Fguarded.example.com%2Fapi%2Fcart");
    page.eval("document.getElementById('x-client').focus()");
    page.call("Input.insertText", &json!({ "text": "203.0.113.7" }));
    page.press("Enter", 13);
    page.until("document.querySelector('#x-answer .verdict.bad')?.innerText.includes('203.0.113.7')");
    let shown = page.eval("document.getElementById('x-answer').innerText");
    for wanted in [
        "403: this client's address is not allowed here",
        "answers 403",
        "not reached",
    ] {
        assert!(text(&shown).contains(wanted), "{wanted}: {shown}");
    }
    // The chain ends where it was answered: what follows is not reached.
    let after = "[...document.querySelectorAll('#x-answer .chain li.met')].map(li => li.className.split(' ')[1])";
    let after = page.eval(after);
    let links: Vec<_> = after.as_array().unwrap().iter().map(text).collect();
    let stop = links.iter().position(|link| *link == "answers").unwrap();
    assert!(links[stop + 1..].iter().all(|link| *link == "not-reached"), "{links:?}");
    assert_eq!(page.eval(CHAIN), "request host rule … answer: 0");
    page.eval("document.activeElement.blur()");
}

/// The text of a value; what is no text is empty.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A number as the page writes it.
fn digits(number: i64) -> String {
    let plain = number.unsigned_abs().to_string();
    let groups = plain
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap());
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", groups.collect::<Vec<_>>().join(","))
}

fn compare_overview(page: &mut Chromium, overview: &Value) {
    show(page, "overview");
    let shown = page.eval(
        "(() => { const all = { told: state.overview }; for (const e of document.querySelectorAll('[data-api]')) all[e.dataset.api] = e.dataset.value; \
         all.total = document.querySelector('.tile .note').textContent; all.header = document.querySelector('header').innerText; \
         all.health = document.getElementById('health').innerText; all.view = document.getElementById('view').innerText; \
         for (const a of document.querySelectorAll('nav a')) all[a.firstChild.textContent] = a.querySelector('.count')?.textContent; return all; })()",
    );
    let traffic = &overview["traffic"];
    for key in ["errors_ours", "errors_upstream", "in_flight"] {
        assert_eq!(shown[key], traffic[key].to_string(), "{key}");
    }
    // These change by themselves, with the minute or with the end of an ejection: what counts is what the API told the page.
    let told = &shown["told"];
    for key in ["p50_ms", "p99_ms", "rps"] {
        assert_eq!(shown[key], told["traffic"][key].to_string(), "{key}");
    }
    assert_eq!(
        shown["total"],
        format!("{} since start", digits(traffic["requests"].as_i64().unwrap()))
    );
    for (title, key) in [
        ("Routes", "routes"),
        ("Services", "services"),
        ("Certificates", "certificates"),
        ("Conflicts", "remarks"),
    ] {
        assert_eq!(
            shown[title],
            digits(overview["counts"][key].as_i64().unwrap()),
            "{title}"
        );
    }
    for word in ["node-1", "127.0.0.1", "ready"] {
        assert!(text(&shown["header"]).contains(word), "{word}: {shown}");
    }
    for (list, states) in [
        ("routes", &told["health"]["routes"]),
        ("remarks", &told["health"]["remarks"]),
    ] {
        for (state, count) in states.as_object().unwrap() {
            let wanted = format!("{count} {state}");
            assert!(
                *count == 0 || text(&shown["health"]).contains(&wanted),
                "{list} {wanted}: {shown}"
            );
        }
    }
    for entry in overview["entry_points"].as_array().unwrap() {
        assert!(text(&shown["view"]).contains(text(&entry["address"])), "{entry}");
    }
}

/// Compares the lines that a view shows with those of the API, one by one.
fn compare(page: &mut Chromium, view: &str, items: &[Value], same: impl Fn(&Value, &Value) -> bool) {
    show(page, view);
    let lines = page.eval(
        "[...document.querySelectorAll('#rows tbody tr')].map(tr => Object.fromEntries([...tr.children].map(td => [td.dataset.label, td.innerText.trim()])))",
    );
    let lines = lines.as_array().unwrap();
    assert_eq!(lines.len(), items.len(), "{view}");
    for (line, item) in lines.iter().zip(items) {
        assert!(same(line, item), "{view}: {line} {item}");
    }
}

fn compare_routes(page: &mut Chromium, items: &[Value]) {
    compare(page, "routes", items, |shown, item| {
        let count = |value: &Value| digits(value.as_i64().unwrap());
        let traffic = &item["traffic"];
        // An ejection may end at any moment.
        let flaky = text(&item["ingress"]) == "default/flaky";
        let state = text(&shown["State"]);
        shown["Requests"] == count(&traffic["requests"])
            && shown["Ours"] == count(&traffic["errors_ours"])
            && shown["Upstream"] == count(&traffic["errors_upstream"])
            && shown["Endpoints"] == count(&item["endpoints"])
            && shown["Host"] == item["host"]
            && (flaky || state.starts_with(text(&item["state"])) && state.contains(text(&item["reason"])))
            && (shown["Last hit"] == "never") == traffic["last_hit"].is_null()
    });
}

fn compare_services(page: &mut Chromium, items: &[Value]) {
    compare(page, "services", items, |shown, item| {
        // Its ejection may end at any moment.
        let flaky = text(&item["name"]).contains("flaky");
        let same = |(title, state): (&str, &str)| shown[title] == digits(item["counts"][state].as_i64().unwrap());
        let counts = [("Ready", "ready"), ("Ejected", "ejected"), ("Draining", "draining")];
        let mut endpoints = item["endpoints"].as_array().unwrap().iter().take(12);
        shown["Service"] == item["name"]
            && (flaky || counts.into_iter().all(same))
            && text(&shown["State"]).contains(text(&item["reason"])) | flaky
            && endpoints.all(|e| text(&shown["Endpoints"]).contains(text(&e["address"])))
            && (!flaky || text(&shown["Endpoints"]).contains("failures in all"))
    });
}

fn links_lead_to_what_they_name(page: &mut Chromium) {
    show(page, "routes=team-7.");
    page.until("document.querySelectorAll('#rows tbody tr').length === 1");
    page.eval("[...document.querySelectorAll('#rows a')].find(a => a.textContent === 'default/team-7:http').click()");
    page.until("document.body.dataset.view === 'services' && document.getElementById('search')?.value === 'default/team-7:http'");
    show(page, "routes=team-7.");
    page.until("document.querySelectorAll('#rows tbody tr').length === 1");
    page.eval("[...document.querySelectorAll('#rows a')].find(a => a.textContent === 'explain').click()");
    page.until("document.querySelector('#x-answer .verdict')?.innerText.includes('It goes to default/team-7:http')");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_cluster_and_one_of_ten_thousand_hosts_are_shown_alike() {
    if !Chromium::is_installed() {
        return;
    }
    for (name, hosts) in [("empty", 0), ("large", 10_000)] {
        let api_server = world::large(hosts).await;
        let proxy = start(&api_server).await;
        let address = proxy.admin;
        let looked = spawn_blocking(move || {
            let mut page = open(address);
            for (width, height) in [(1280, 900), (390, 844)] {
                page.size(width, height, false);
                for view in [
                    "overview",
                    "traffic",
                    "routes",
                    "services",
                    "certificates",
                    "remarks",
                    "fleet",
                ] {
                    show(&mut page, view);
                    fits(&mut page, view, width);
                    page.screenshot(&screenshots().join(format!("{name}-{view}-{width}.png")));
                }
            }
            show(&mut page, "routes");
            if hosts == 0 {
                assert_eq!(
                    page.eval("document.querySelector('#rows .empty').innerText"),
                    "No Ingress of this class has a rule yet."
                );
            } else {
                page.until("document.getElementById('pages').innerText.includes('1 to 50 of 10,000')");
                page.eval(
                    "[...document.querySelectorAll('#pages button')].find(b => b.textContent === 'Next').click()",
                );
                page.until("document.getElementById('pages').innerText.includes('51 to 100 of 10,000')");
                assert_eq!(
                    page.eval("document.querySelector('#rows tbody td:nth-child(2)').innerText"),
                    "app-00050.example.com"
                );
            }
            assert_eq!(page.complaints(), [""; 0]);
        });
        looked.await.unwrap();
    }
}

/// What the API says in a busy quarter of an hour, so that no test waits for one: the page's own look at the API is replaced.
const BUSY: &str = "(() => { const n = 90, up = (of) => Array.from({ length: n }, (_, i) => of(i)); \
    const set = (k) => ({ requests: up((i) => Math.round(k * (400 + 300 * Math.sin(i / 9)))), errors_ours: up((i) => (i > 60 && i < 66 ? 40 * k : 0)), \
      errors_upstream: up((i) => (i % 17 ? 0 : Math.round(9 * k))), p50_ms: up((i) => (i > 30 && i < 36 ? null : 3 + Math.sin(i / 5))), \
      p99_ms: up((i) => (i > 30 && i < 36 ? null : 20 + 15 * Math.abs(Math.sin(i / 7)))) }); \
    const items = ['shop.example.com', 'a-quite-long-label-'.repeat(3) + 'x.example.com'].map((host, k) => ({ ...set(1 / (k + 1)), host, path: '/api/v1', exact: false, ingress: 'team/shop' })); \
    const series = { range_seconds: 900, seconds_ago: up((i) => 4 + 10 * (n - 1 - i)), lengths: up(() => 10), all: { ...set(3), connections: up((i) => 900 + 5 * i) }, total: 30, offset: 0, items }; \
    const node = (name, more) => ({ node: name, address: '10.0.0.1:8080', state: 'ready', self: false, version: '0.1.0', uptime_seconds: 500, leader: false, routes: 31, table: 'a', rps: 50, \
      p99_ms: 4, requests: 900, errors_ours: 0, errors_upstream: 0, entry_points: [{ name: 'http', address: '0.0.0.0:80', rps: 30 }, { name: 'https', address: '0.0.0.0:443', rps: 20 }], ...more }); \
    const fleet = { total: 4, offset: 0, items: [node('cp-1', { self: true, leader: true }), node('worker-1', { rps: 120 }), node('worker-2', { table: 'b', routes: 30 }), \
      { node: 'worker-3', address: '10.0.0.4:8080', state: 'unreachable', reason: 'no answer in time', self: false }] }; \
    const real = get; window.get = async (path) => path.startsWith('series') ? series : path.startsWith('fleet') ? fleet : real(path); })()";

#[tokio::test(flavor = "multi_thread")]
async fn a_quarter_of_an_hour_and_a_fleet_are_drawn() {
    if !Chromium::is_installed() {
        return;
    }
    let api_server = world::empty().await;
    let proxy = start(&api_server).await;
    let address = proxy.admin;
    let looked = spawn_blocking(move || {
        let mut page = open(address);
        page.eval(BUSY);
        for (width, dark) in [(1280, false), (390, false), (1280, true)] {
            page.size(width, if width == 390 { 844 } else { 900 }, dark);
            for view in ["overview", "traffic", "fleet"] {
                show(&mut page, view);
                fits(&mut page, view, width);
                let theme = if dark { "dark" } else { "light" };
                page.screenshot(&screenshots().join(format!("busy-{view}-{width}-{theme}.png")));
            }
        }
        show(&mut page, "traffic");
        // Four graphs of everything and three of each route; times have a gap where nothing was asked.
        assert_eq!(page.eval("document.querySelectorAll('figure.graph').length"), 10);
        let label = "document.querySelector('#series svg').getAttribute('aria-label')";
        assert_eq!(page.eval(label), "Requests per second: requests now 79.7, at most 210");
        let starts = "document.querySelectorAll('#series figure')[2].querySelector('path.line.late').getAttribute('d').split('M').length - 1";
        assert_eq!(page.eval(starts), 2);
        // Every line lies within its picture.
        let outside = "[...document.querySelectorAll('figure.graph path.line')].filter(p => { const b = p.getBBox(); \
            return b.x < -0.1 || b.y < -0.1 || b.x + b.width > 300.1 || b.y + b.height > 80.1; }).length";
        assert_eq!(page.eval(outside), 0);
        show(&mut page, "fleet");
        let boxes = "[...document.querySelectorAll('.node-box')].map(b => b.querySelector('.notes').innerText.replaceAll('\\n', ' ')).join(' | ')";
        assert_eq!(
            page.eval(boxes),
            "this one writes status up to date | up to date | other routes than most | does not answer"
        );
        assert_eq!(page.complaints(), [""; 0]);
    });
    looked.await.unwrap();
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
    let column = "[...document.querySelectorAll('#rows td[data-label=Requests]')].map(td => Number(td.innerText))";
    page.until(&format!(
        "(counts => counts[0] >= 100 && counts.every((n, i) => i === 0 || counts[i - 1] >= n))({column})"
    ));
    assert_eq!(page.eval("document.activeElement.textContent"), "Requests");
}
