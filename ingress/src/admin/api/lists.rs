//! Lists of the API, and what a query makes of them.

use super::super::Site;
use super::numbers;
use crate::route::{Backend, Remark, Route};
use crate::tls::{self, Fact};
use crate::traffic::{RouteKey, shown_host, shown_kind};
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Days before its end in which a certificate is shown as expiring: cert-manager renews 30 days before, Let's Encrypt warned at 20.
const EXPIRING_DAYS: i64 = 20;
/// Items of one answer, when nothing is said and at most.
const USUAL: usize = 100;
const MOST: usize = 1000;

impl Site {
    pub(super) fn routes(&self) -> Vec<Value> {
        let snapshot = self.state.snapshot();
        let all = snapshot.routes().chain(snapshot.default_route());
        all.map(|route| self.route(route)).collect()
    }

    fn route(&self, route: &Route) -> Value {
        let traffic = &self.state.observer.traffic;
        let counts = traffic
            .routes
            .numbers(&RouteKey::of(route), traffic.now())
            .unwrap_or_default();
        let (state, reason) = match &route.policy.closed {
            Some(why) => ("closed", Some(why.clone())),
            None => health(&route.backend),
        };
        json!({ "host": shown_host(route), "path": route.path, "type": shown_kind(route), "ingress": &*route.ingress,
            "service": route.backend.name, "endpoints": route.backend.endpoints().addresses().len(), "state": state, "reason": reason,
            "traffic": numbers(&counts) })
    }

    pub(super) fn services(&self) -> Vec<Value> {
        let snapshot = self.state.snapshot();
        let mut services: BTreeMap<&str, (&Backend, usize)> = BTreeMap::new();
        for route in snapshot.routes().chain(snapshot.default_route()) {
            let others = route.alternatives.iter().map(|other| &other.backend);
            let extra = [&route.fallback, &route.auth, &route.mirror].into_iter().flatten();
            for backend in std::iter::once(&route.backend).chain(others).chain(extra) {
                services.entry(&backend.name).or_insert((backend, 0)).1 += 1;
            }
        }
        let item = |(name, (backend, routes)): (&str, (&Backend, usize))| {
            let (state, reason) = health(backend);
            let endpoints: Vec<_> = backend
                .endpoints()
                .addresses()
                .iter()
                .map(|a| json!({ "address": a, "state": "ready" }))
                .collect();
            json!({ "name": name, "state": state, "reason": reason, "routes": routes, "endpoints": endpoints })
        };
        services.into_iter().map(item).collect()
    }

    pub(super) fn certificates(&self) -> Vec<Value> {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let item = |fact: Fact| {
            let state = match (&fact.problem, fact.days_left) {
                (Some(_), _) | (None, None) => "unusable",
                (None, Some(days)) if days < EXPIRING_DAYS => "expiring",
                (None, Some(_)) => "valid",
            };
            json!({ "host": fact.host, "secret": fact.secret, "ingress": fact.ingress, "not_after": fact.not_after,
                "days_left": fact.days_left, "names": fact.names, "state": state, "reason": fact.problem })
        };
        tls::facts(&self.state.snapshot().tls, now)
            .into_iter()
            .map(item)
            .collect()
    }

    pub(super) fn remarks(&self) -> Vec<Value> {
        let snapshot = self.state.snapshot();
        let item = |remark: &Remark| {
            let object = match remark.namespace.is_empty() {
                true => format!("{} {}", remark.kind, remark.name),
                false => format!("{}/{}", remark.namespace, remark.name),
            };
            json!({ "severity": remark.severity, "state": remark.severity, "kind": remark.reason, "object": object, "on": remark.host,
                "text": remark.text })
        };
        snapshot.remarks.iter().map(item).collect()
    }
}

/// State of a Service, and why it is no better.
fn health(backend: &Backend) -> (&'static str, Option<String>) {
    match backend.endpoints().is_empty() {
        true => ("down", Some("no endpoint is ready".to_owned())),
        false => ("healthy", None),
    }
}

/// A parsed query.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, decoded(value)?))
        });
        pairs.collect::<Result<_, String>>().map(Self)
    }

    pub(super) fn first(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn all(&self, name: &str) -> Vec<String> {
        let found = self.0.iter().filter(|(n, _)| n == name);
        found.map(|(_, value)| value.clone()).collect()
    }

    /// Searches, filters, sorts and cuts. Stable, so that equal items keep the table's order.
    pub(super) fn apply(&self, mut items: Vec<Value>) -> Value {
        if let Some(wanted) = self.first("q").map(str::to_lowercase) {
            let fields = [
                "host", "path", "ingress", "service", "name", "object", "text", "reason", "secret",
            ];
            let has = |item: &Value, field| item[field].as_str().is_some_and(|v| v.to_lowercase().contains(&wanted));
            items.retain(|item| fields.iter().any(|field| has(item, field)));
        }
        if let Some(state) = self.first("state") {
            items.retain(|item| item["state"] == state);
        }
        if let Some(key) = self.first("sort") {
            items.sort_by(|a, b| compare(value_of(a, key), value_of(b, key)));
            if self.first("order") == Some("desc") {
                items.reverse();
            }
        }
        let number = |name| self.first(name).and_then(|text| text.parse::<usize>().ok());
        let (total, offset) = (items.len(), number("offset").unwrap_or(0));
        let limit = number("limit").unwrap_or(USUAL).min(MOST);
        let items: Vec<Value> = items.into_iter().skip(offset).take(limit).collect();
        json!({ "total": total, "offset": offset, "items": items })
    }
}

/// What an item is sorted by; names of the page's columns.
fn value_of<'a>(item: &'a Value, key: &str) -> &'a Value {
    let traffic = &item["traffic"];
    match key {
        "rps" => &traffic["rps"],
        "requests" => &traffic["requests"],
        "p99" => &traffic["p99_ms"],
        "ours" => &traffic["errors_ours"],
        "upstream" => &traffic["errors_upstream"],
        "last" => &traffic["last_hit"],
        "days" => &item["days_left"],
        "host" if item["host"].is_null() => &item["object"],
        other => &item[other],
    }
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => a.as_str().cmp(&b.as_str()),
    }
}

/// `%41` and `+` as browsers write them.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next(), rest.next()].map(|d| d.and_then(|d| char::from(d).to_digit(16)));
                let [Some(high), Some(low)] = digits else {
                    return Err("a % in the query is followed by no number".to_owned());
                };
                // Two hexadecimal digits fit a byte.
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| "the query is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(query: &str) -> Vec<String> {
        let item = |name: &str, state: &str, rps: Option<f64>| json!({ "name": name, "state": state, "traffic": { "rps": rps } });
        let items = vec![
            item("a/One", "healthy", Some(2.0)),
            item("b/two", "down", None),
            item("c/three", "healthy", Some(10.0)),
        ];
        let list = Query::parse(query).unwrap().apply(items);
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["name"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn lists_are_searched_filtered_sorted_and_cut() {
        assert_eq!(names("q=one"), ["a/One"]);
        assert_eq!(names("q=%2F&state=healthy"), ["a/One", "c/three"]);
        assert_eq!(names("sort=rps&order=desc"), ["c/three", "a/One", "b/two"]);
        assert_eq!(names("sort=name&limit=1&offset=1"), ["b/two"]);
        assert!(names("offset=9").is_empty());
        let list = Query::parse("limit=1").unwrap().apply(vec![json!({}), json!({})]);
        assert_eq!((list["total"].as_u64(), list["offset"].as_u64()), (Some(2), Some(0)));
    }

    #[test]
    fn queries_are_decoded_or_refused() {
        let query = Query::parse("url=http%3A%2F%2Fh%2F%C3%A4&header=A:+b&header=C").unwrap();
        assert_eq!(query.first("url"), Some("http://h/\u{e4}"));
        assert_eq!(query.all("header"), ["A: b", "C"]);
        for bad in ["q=%", "q=%4", "q=%zz", "q=%+4", "q=%ff"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
    }
}
