//! The JSON API under `/api/v1/`. Lists are searched (`q`), filtered (`state`), sorted (`sort`, `order`) and cut (`offset`, `limit`)
//! here, so that a page over 10,000 routes stays small.

mod lists;
mod query;
mod series;

use super::health::{Health, Summary};
use super::{Asker, Site, explain, respond};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Response, StatusCode};
use landfall_ingress_telemetry::traffic::{EntryPoint, Numbers};
use query::Query;
use serde_json::{Map, Value, json};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

/// Seconds of the history of requests per second.
const HISTORY: u32 = 60;
/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;
/// Longest query; a URL to be explained with some fields fits.
const LONGEST_QUERY: usize = 16 * 1024;

impl Site {
    pub(super) async fn api<B>(&self, name: &str, request: &Request<B>, asker: Asker) -> Response<Full<Bytes>> {
        let text = request.uri().query().unwrap_or_default();
        if text.len() > LONGEST_QUERY {
            return failed(StatusCode::URI_TOO_LONG, "the query is too long");
        }
        let query = match Query::parse(text) {
            Ok(query) => query,
            Err(why) => return failed(StatusCode::BAD_REQUEST, &why),
        };
        let snapshot = self.known.snapshot();
        let value = match name {
            "overview" => self.overview(),
            "entrypoints" => json!({ "items": self.entry_points() }),
            "routes" => query.apply(self.routes(&snapshot), &self.lines),
            "services" => query.apply(lists::services(&snapshot), &self.lines),
            "certificates" => query.apply(lists::certificates(&snapshot), &self.lines),
            "secrets" => query.apply(lists::secrets(&self.known.secrets()), &self.lines),
            "remarks" => query.apply(lists::remarks(&snapshot), &self.lines),
            "series" => self.series(&query),
            "fleet" => {
                let own = self.overview();
                self.fleet.view(&own, self.node_address, request.headers()).await
            }
            "explain" => {
                let question = explain::Question {
                    method: query.first("method").unwrap_or("GET"),
                    url: query.first("url").unwrap_or_default(),
                    fields: &query.all("header"),
                    version: query.first("http").unwrap_or("1.1"),
                    client: query.first("client").filter(|text| !text.is_empty()),
                    asker: asker.peer,
                    strict_sni: self.strict_sni,
                };
                match explain::explain(&self.proxy, &snapshot, &question) {
                    Ok(value) => value,
                    Err(why) => return failed(StatusCode::BAD_REQUEST, &why),
                }
            }
            _ => return failed(StatusCode::NOT_FOUND, "there is no such list"),
        };
        respond(StatusCode::OK, "application/json", format!("{value}\n"))
    }

    fn overview(&self) -> Value {
        let state = &self.state;
        let snapshot = self.known.snapshot();
        let traffic = &state.observer.traffic;
        let word = match (state.lifecycle.stopping(), state.lifecycle.ready()) {
            (true, _) => "stopping",
            (false, true) => "ready",
            (false, false) => "not ready",
        };
        let mut total = numbers(&traffic.total());
        total["in_flight"] = json!(state.counters.requests.value());
        let protocols = state.counters.open_by_protocol().into_iter();
        let protocols: Map<String, Value> = protocols.map(|(name, open)| (name.to_owned(), json!(open))).collect();
        let summary = self.rounds.summary(&snapshot);
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let log = &state.observer.log;
        let mode = format!("{:?}", log.mode()).to_lowercase();
        json!({
            "node": self.node,
            "address": self.node_address.map(|address| address.to_string()),
            "version": env!("CARGO_PKG_VERSION"),
            "state": word,
            "leader": self.known.leading(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "counts": { "routes": summary.routes.iter().sum::<usize>(), "ingresses": snapshot.ours_count(),
                "services": summary.services.iter().sum::<usize>(), "certificates": summary.certificates.count,
                "remarks": summary.remarks.iter().sum::<usize>() },
            "health": health(&summary),
            "traffic": total,
            "history": traffic.history(HISTORY),
            "entry_points": self.entry_points(),
            "connections": { "open": state.counters.connections.value(), "protocols": protocols },
            "table": { "routes": format!("{:016x}", summary.fingerprint), "taken_over": read(&state.counters.snapshots), "watch_errors": read(&state.counters.watch_errors),
                "failovers": read(&state.counters.failovers) },
            "access_log": { "mode": mode, "dropped": log.dropped() },
            "dashboard": { "host": self.host, "authentication": !self.access.is_open() },
        })
    }

    fn entry_points(&self) -> Vec<Value> {
        let traffic = &self.state.observer.traffic;
        let open = EntryPoint::ALL
            .into_iter()
            .filter(|entry| traffic.address(*entry).is_some());
        open.map(|entry| {
            json!({ "name": entry.label(), "address": traffic.address(entry).map(|a| a.to_string()),
                "tls": entry == EntryPoint::Https, "traffic": numbers(&traffic.entry_numbers(entry)) })
        })
        .collect()
    }
}

/// How many are how; words of which there are none are left out.
fn health(summary: &Summary) -> Value {
    let by_health = |counts: &[usize; Health::ALL.len()]| -> Map<String, Value> {
        let some = Health::ALL.into_iter().zip(counts).filter(|(_, count)| **count > 0);
        some.map(|(health, count)| (health.label().to_owned(), json!(count)))
            .collect()
    };
    let Summary {
        endpoints,
        certificates,
        remarks: [notes, approximated, refused],
        ..
    } = summary;
    let days_left = certificates.first_end.map(|end| (end - lists::now()).div_euclid(DAY));
    json!({
        "routes": by_health(&summary.routes),
        "services": by_health(&summary.services),
        "endpoints": { "ready": endpoints.ready, "ejected": endpoints.ejected, "draining": endpoints.draining },
        "certificates": { "faulty": certificates.faulty, "first_days_left": days_left,
            "expiring": days_left.is_some_and(|days| days < lists::EXPIRING_DAYS) },
        "remarks": { "note": notes, "approximated": approximated, "refused": refused },
    })
}

/// Numbers as JSON; times are in milliseconds, `null` when there was nothing to measure.
fn numbers(n: &Numbers) -> Value {
    let classes: Map<String, Value> = (1..6)
        .map(|class| (format!("{class}xx"), json!(n.classes[class])))
        .collect();
    let reasons: Map<String, Value> = n
        .ours
        .iter()
        .map(|(reason, count)| (reason.label().to_owned(), json!(count)))
        .collect();
    let quantile = |i: usize| n.quantiles.map(|q| q[i].as_micros() as f64 / 1000.0);
    let last = n.since_last.and_then(|ago| SystemTime::now().checked_sub(ago));
    let last = last.and_then(|at| k8s_openapi::jiff::Timestamp::try_from(at).ok());
    json!({
        "requests": n.requests,
        "rps": n.rate,
        "p50_ms": quantile(0),
        "p99_ms": quantile(1),
        "classes": classes,
        "errors_ours": n.ours_total(),
        "errors_upstream": n.upstream,
        "reasons": reasons,
        "cut": n.cut,
        "bytes_in": n.received,
        "bytes_out": n.sent,
        "last_hit": last.map(|at| format!("{at:.0}")),
        "last_hit_seconds_ago": n.since_last.as_ref().map(Duration::as_secs_f64),
    })
}

fn failed(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    respond(status, "application/json", format!("{}\n", json!({ "error": why })))
}
