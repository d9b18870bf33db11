//! Health, metrics and the status page; read-only.

use crate::route::Snapshot;
use crate::state::State;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;

/// Longest wait for the head of a request.
const REQUEST_HEAD: Duration = Duration::from_secs(10);
/// Pause after accept fails.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves for ever.
pub async fn serve(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let state = Arc::clone(&state);
        let service = service_fn(move |request| {
            let response = answer(&request, &state);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        // An error here is the client's.
        tokio::spawn(async move { drop(connection.await) });
    }
}

fn answer(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if state.ready() => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
        "/metrics" => text(StatusCode::OK, metrics(state)),
        "/" => respond(StatusCode::OK, "text/html; charset=utf-8", page(state)),
        _ => text(StatusCode::NOT_FOUND, "404: not here\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    respond(status, "text/plain; version=0.0.4; charset=utf-8", body)
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

/// Prometheus text format 0.0.4.
fn metrics(state: &State) -> String {
    let counters = &state.counters;
    let mut out = String::new();
    let mut put = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let answers: Vec<_> = (1..6)
        .map(|c| {
            (
                format!("{{class=\"{c}xx\"}}"),
                counters.answers[c].load(Ordering::Relaxed),
            )
        })
        .collect();
    let one = |value: u64| vec![(String::new(), value)];
    let load = |counter: &std::sync::atomic::AtomicU64| one(counter.load(Ordering::Relaxed));
    let prefix = "landfall_ingress";
    put(
        &format!("{prefix}_responses_total"),
        "counter",
        "Answers by class of status.",
        &answers,
    );
    put(
        &format!("{prefix}_failovers_total"),
        "counter",
        "Endpoints that could not be reached.",
        &load(&counters.failovers),
    );
    put(
        &format!("{prefix}_snapshots_total"),
        "counter",
        "Route tables taken over.",
        &load(&counters.snapshots),
    );
    put(
        &format!("{prefix}_requests_in_flight"),
        "gauge",
        "Requests being served.",
        &load(&counters.in_flight),
    );
    let routes = state.snapshot().routes().count() as u64;
    put(
        &format!("{prefix}_routes"),
        "gauge",
        "Routes in the table.",
        &one(routes),
    );
    out
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem;color:#1c2733}\
h1{font-size:1.4rem;margin:0}p{color:#556575;margin:.2rem 0 1.4rem}table{border-collapse:collapse;width:100%}\
th{text-align:left;font-weight:600;color:#556575;font-size:.85rem}th,td{padding:.45rem .8rem .45rem 0;border-bottom:1px solid #dde4ea;\
vertical-align:top}code{font:13px ui-monospace,monospace}.no{color:#b3261e;font-weight:600}li{color:#8a5300}\
@media(prefers-color-scheme:dark){body{background:#12181e;color:#dfe7ee}th,p{color:#93a4b3}th,td{border-color:#2a3540}.no{color:#ff8a80}li{color:#ffc266}}";

fn page(state: &State) -> String {
    let snapshot = state.snapshot();
    let minutes = state.started.elapsed().as_secs() / 60;
    let mut out = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>landfall ingress</title><style>{STYLE}</style></head><body><h1>landfall ingress</h1>\
         <p>node {} · up {minutes} min · {} routes · {}{}</p>",
        escape(&state.node),
        snapshot.routes().count(),
        if state.ready() { "ready" } else { "not ready" },
        if state.dashboard_host.is_empty() {
            String::new()
        } else {
            format!(" · {}", escape(&state.dashboard_host))
        },
    );
    out.push_str(&routes(&snapshot));
    if !snapshot.remarks.is_empty() {
        out.push_str("<h2>Remarks</h2><ul>");
        for remark in &snapshot.remarks {
            let _ = write!(out, "<li>{}</li>", escape(remark));
        }
        out.push_str("</ul>");
    }
    out.push_str("</body></html>\n");
    out
}

fn routes(snapshot: &Snapshot) -> String {
    let mut out =
        "<table><tr><th>Host</th><th>Path</th><th>Ingress</th><th>Service</th><th>Endpoints</th></tr>".to_owned();
    for (host, route) in snapshot.routes() {
        let endpoints: Vec<_> = route.backend.endpoints.iter().map(ToString::to_string).collect();
        let endpoints = match endpoints.is_empty() {
            true => "<span class=\"no\">none</span>".to_owned(),
            false => format!("<code>{}</code>", endpoints.join("<br>")),
        };
        let _ = write!(
            out,
            "<tr><td>{}</td><td><code>{}</code>{}</td><td>{}</td><td>{}</td><td>{endpoints}</td></tr>",
            escape(&host),
            escape(&route.path),
            if route.exact { " exact" } else { "" },
            escape(&route.ingress),
            escape(&route.backend.name),
        );
    }
    out.push_str("</table>");
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
