//! Lists of the API.

use super::super::Site;
use super::super::health::{self, Tally};
use super::numbers;
use super::query::{Key, Line};
use landfall_ingress_balance::Backend;
use landfall_ingress_balance::Endpoint;
use landfall_ingress_proxy::tls::{self, Fact};
use landfall_ingress_routing::Route;
use landfall_ingress_telemetry::traffic::{Numbers, Traffic};
use landfall_ingress_translate::remark::Remark;
use landfall_ingress_translate::route::Snapshot;
use landfall_ingress_translate::secrets::{Found, Name, View};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// Days before its end in which a certificate is shown as expiring: cert-manager renews 30 days before, Let's Encrypt warned at 20.
pub(super) const EXPIRING_DAYS: i64 = 20;
/// Endpoints of one Service that are shown, those that something is wrong with first.
const MOST_ENDPOINTS: usize = 100;

/// A route of the table.
pub(super) struct RouteLine<'a> {
    route: &'a Route,
    traffic: &'a Traffic,
}

/// A Service's port.
pub(super) struct ServiceLine<'a> {
    backend: &'a Backend,
    /// Routes that may send something there.
    routes: usize,
    /// Some of them send it to the Service's own address.
    by_address: bool,
}

/// A host's certificate.
pub(super) struct CertificateLine(Fact);

/// What people should know.
pub(super) struct RemarkLine<'a> {
    remark: Cow<'a, Remark>,
    object: String,
}

/// A Secret or ConfigMap that Ingresses name.
pub(super) struct SecretLine {
    name: Name,
    found: &'static str,
}

impl Site {
    pub(super) fn routes<'a>(&'a self, snapshot: &'a Snapshot) -> Vec<RouteLine<'a>> {
        let traffic = &self.state.observer.traffic;
        let all = snapshot.table.routes().chain(snapshot.table.default_routes());
        all.map(|route| RouteLine { route, traffic }).collect()
    }
}

/// Secrets and ConfigMaps that Ingresses name, and whether they could be read; never what is in them.
pub(super) fn secrets(view: &View) -> Vec<SecretLine> {
    let all = view.all().map(|(name, found)| SecretLine {
        name: name.clone(),
        found: match found {
            Found::Here(_) => "read",
            Found::Missing => "missing",
            Found::Forbidden => "forbidden",
            Found::Unreadable(_) => "unreadable",
            Found::Pending => "pending",
        },
    });
    all.collect()
}

pub(super) fn services(snapshot: &Snapshot) -> Vec<ServiceLine<'_>> {
    let mut services: BTreeMap<&str, ServiceLine<'_>> = BTreeMap::new();
    for route in snapshot.table.routes().chain(snapshot.table.default_routes()) {
        for backend in health::backends(route) {
            let line = services.entry(&backend.name).or_insert(ServiceLine {
                backend,
                routes: 0,
                by_address: false,
            });
            line.routes += 1;
            line.by_address |= route.policy.upstream.service_address;
        }
    }
    services.into_values().collect()
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

pub(super) fn certificates(snapshot: &Snapshot) -> Vec<CertificateLine> {
    let facts = tls::facts(&snapshot.table, now()).into_iter();
    facts.map(CertificateLine).collect()
}

pub(super) fn remarks(snapshot: &Snapshot) -> Vec<RemarkLine<'_>> {
    let all = snapshot.remarks().into_iter();
    all.map(|remark| RemarkLine {
        object: object(&remark),
        remark,
    })
    .collect()
}

fn object(remark: &Remark) -> String {
    match remark.namespace.is_empty() {
        true => format!("{} {}", remark.kind, remark.name),
        false => format!("{}/{}", remark.namespace, remark.name),
    }
}

impl RouteLine<'_> {
    fn numbers(&self) -> Numbers {
        let key = self.route.key();
        self.traffic
            .routes
            .numbers(&key, self.traffic.now())
            .unwrap_or_default()
    }
}

impl Line for RouteLine<'_> {
    fn state(&self) -> &str {
        health::of_route(self.route).label()
    }

    fn any_text(&self, is_wanted: &dyn Fn(&str) -> bool) -> bool {
        let route = self.route;
        let names = [route.shown_host(), &route.path, &route.ingress, &route.backend.name];
        names.into_iter().any(is_wanted) || health::reason_of_route(route).is_some_and(|why| is_wanted(&why))
    }

    fn key(&self, name: &str) -> Key<'_> {
        let count = |n: u64| Key::Number(n as f64);
        match name {
            "state" => self.state().into(),
            "host" => self.route.shown_host().into(),
            "path" => (&*self.route.path).into(),
            "ingress" => (&*self.route.ingress).into(),
            "rps" => Key::Number(self.numbers().rate),
            "requests" => count(self.numbers().requests),
            "p99" => self.numbers().quantiles.map(|q| q[1].as_secs_f64()).into(),
            "ours" => count(self.numbers().ours_total()),
            "upstream" => count(self.numbers().upstream),
            // The later the greater.
            "last" => self.numbers().since_last.map(|ago| -ago.as_secs_f64()).into(),
            _ => Key::None,
        }
    }

    fn json(&self) -> Value {
        let route = self.route;
        let endpoints = route.backend.endpoints().addresses().len();
        json!({ "host": route.shown_host(), "path": &*route.path, "type": route.shown_kind(), "ingress": &*route.ingress,
            "service": route.backend.name, "endpoints": endpoints, "state": self.state(),
            "reason": health::reason_of_route(route), "traffic": numbers(&self.numbers()) })
    }
}

impl Line for ServiceLine<'_> {
    fn state(&self) -> &str {
        Tally::of(self.backend).health().label()
    }

    fn any_text(&self, is_wanted: &dyn Fn(&str) -> bool) -> bool {
        let is_address = |e: &Arc<Endpoint>| is_wanted(&e.address.to_string());
        is_wanted(&self.backend.name)
            || Tally::of(self.backend).reason().is_some_and(|why| is_wanted(&why))
            || self.backend.endpoints().all().any(is_address)
    }

    fn key(&self, name: &str) -> Key<'_> {
        match name {
            "state" => self.state().into(),
            "name" => self.backend.name.as_str().into(),
            _ => Key::None,
        }
    }

    fn json(&self) -> Value {
        let tally = Tally::of(self.backend);
        let set = self.backend.endpoints();
        // Hints say something only when they name a part.
        let hints = set.near().len() < set.ready().len();
        let ready = set.ready().iter().enumerate();
        let ready = ready.map(|(i, e)| (e, health::word(e, true), hints.then_some(i < set.near().len())));
        let draining = set.draining().iter().map(|e| (e, health::word(e, false), None));
        let own = set.service().filter(|_| self.by_address).map(|e| (e, "service", None));
        let mut all: Vec<_> = ready.chain(draining).collect();
        let trouble = |word: &str| ["ejected", "draining", "ready"].iter().position(|w| *w == word);
        all.sort_by_key(|(e, word, near)| (trouble(word), *near == Some(false), e.address));
        let left_out = all.len().saturating_sub(MOST_ENDPOINTS);
        let shown = own.into_iter().chain(all.into_iter().take(MOST_ENDPOINTS));
        let endpoints: Vec<Value> = shown.map(|(e, word, near)| health::endpoint(e, word, near)).collect();
        json!({ "name": self.backend.name, "state": tally.health().label(), "reason": tally.reason(), "routes": self.routes,
            "counts": { "ready": tally.ready, "ejected": tally.ejected, "draining": tally.draining },
            "endpoints": endpoints, "endpoints_left_out": left_out })
    }
}

impl Line for CertificateLine {
    fn state(&self) -> &str {
        match (&self.0.problem, self.0.days_left) {
            (Some(_), _) | (None, None) => "unusable",
            (None, Some(days)) if days < EXPIRING_DAYS => "expiring",
            (None, Some(_)) => "valid",
        }
    }

    fn any_text(&self, is_wanted: &dyn Fn(&str) -> bool) -> bool {
        let Fact {
            host,
            secret,
            ingress,
            problem,
            ..
        } = &self.0;
        let more = [secret, problem].into_iter().flatten();
        [host, ingress].into_iter().chain(more).any(|text| is_wanted(text))
    }

    fn key(&self, name: &str) -> Key<'_> {
        match name {
            "state" => self.state().into(),
            "host" => self.0.host.as_str().into(),
            "secret" => self.0.secret.as_deref().into(),
            "ingress" => self.0.ingress.as_str().into(),
            "days" => self.0.days_left.map(|days| days as f64).into(),
            _ => Key::None,
        }
    }

    fn json(&self) -> Value {
        let fact = &self.0;
        json!({ "host": fact.host, "secret": fact.secret, "ingress": fact.ingress, "not_after": fact.not_after,
            "days_left": fact.days_left, "names": fact.names, "state": self.state(), "reason": fact.problem })
    }
}

impl Line for SecretLine {
    fn state(&self) -> &str {
        self.found
    }

    fn any_text(&self, is_wanted: &dyn Fn(&str) -> bool) -> bool {
        is_wanted(&self.name.to_string())
    }

    fn key(&self, name: &str) -> Key<'_> {
        match name {
            "state" => self.found.into(),
            "name" => self.name.name().into(),
            "namespace" => self.name.namespace().into(),
            _ => Key::None,
        }
    }

    fn json(&self) -> Value {
        let name = &self.name;
        json!({ "kind": name.kind().to_string(), "namespace": name.namespace(), "name": name.name(), "state": self.found })
    }
}

impl Line for RemarkLine<'_> {
    fn state(&self) -> &str {
        self.remark.severity.label()
    }

    fn any_text(&self, is_wanted: &dyn Fn(&str) -> bool) -> bool {
        let host = self.remark.host.as_deref();
        [&*self.object, &self.remark.text]
            .into_iter()
            .chain(host)
            .any(is_wanted)
    }

    fn key(&self, name: &str) -> Key<'_> {
        match name {
            // The heavier the greater.
            "state" => Key::Number(f64::from(self.remark.severity as u8)),
            "object" => self.object.as_str().into(),
            "host" => self.remark.host.as_deref().into(),
            _ => Key::None,
        }
    }

    fn json(&self) -> Value {
        let remark = &self.remark;
        json!({ "severity": remark.severity, "state": remark.severity, "kind": remark.reason, "object": self.object, "on": remark.host,
            "text": remark.text })
    }
}
