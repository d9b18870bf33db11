//! The status page: one file, no script, nothing from elsewhere. All text from objects is escaped.

use crate::route::{Backend, Snapshot};
use crate::state::State;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");
/// Rows shown; a browser takes seconds for more. `/status.json` has all.
const ROWS: usize = 1000;

/// Renders the newest snapshot.
pub(super) fn render(state: &State) -> String {
    let snapshot = state.snapshot();
    let minutes = state.uptime().as_secs() / 60;
    let mut facts = vec![
        format!("node {}", escape(&state.node)),
        if state.ready() { "ready" } else { "not ready" }.to_owned(),
        format!("up {minutes} min"),
        format!("{} routes", snapshot.route_count()),
    ];
    if !state.dashboard_host.is_empty() {
        facts.push(escape(&state.dashboard_host));
    }
    if state.leading() {
        facts.push("writes status".to_owned());
    }
    let mut out = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>landfall ingress</title><style>{STYLE}</style></head><body><h1>landfall ingress</h1>\
         <p>{} · <a href=\"/metrics\">metrics</a> · <a href=\"/status.json\">JSON</a></p>",
        facts.join(" · ")
    );
    push_routes(&mut out, &snapshot);
    if !snapshot.remarks.is_empty() {
        out.push_str("<h2>Remarks</h2><ul>");
        for remark in snapshot.remarks.iter().take(ROWS) {
            // Writing to a String does not fail, here and below.
            let _ = write!(out, "<li>{}</li>", escape(&remark.to_string()));
        }
        out.push_str("</ul>");
    }
    out.push_str("</body></html>\n");
    out
}

fn push_routes(out: &mut String, snapshot: &Snapshot) {
    out.push_str("<table><tr><th>Host</th><th>Path</th><th>Ingress</th><th>Service</th><th>Endpoints</th></tr>");
    for route in snapshot.routes().take(ROWS) {
        let host = if route.host.name.is_empty() {
            "*"
        } else {
            &route.host.name
        };
        let exact = if route.exact { " exact" } else { "" };
        let path = format!("<code>{}</code>{exact}", escape(&route.path));
        push_row(out, &escape(host), &path, &escape(&route.ingress), &route.backend);
    }
    if let Some(route) = snapshot.default_route() {
        push_row(out, "everything else", "", &escape(&route.ingress), &route.backend);
    }
    out.push_str("</table>");
    if snapshot.route_count() > ROWS {
        let _ = write!(out, "<p>The first {ROWS} are shown; the JSON has all.</p>");
    }
}

fn push_row(out: &mut String, host: &str, path: &str, ingress: &str, backend: &Backend) {
    let endpoints: Vec<_> = backend.endpoints.iter().map(ToString::to_string).collect();
    let endpoints = match endpoints.is_empty() {
        true => "<span class=\"no\">none</span>".to_owned(),
        false => format!("<code>{}</code>", endpoints.join("<br>")),
    };
    let service = escape(&backend.name);
    let _ = write!(
        out,
        "<tr><td>{host}</td><td>{path}</td><td>{ingress}</td><td>{service}</td><td>{endpoints}</td></tr>"
    );
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
