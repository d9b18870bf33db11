//! Why a request goes where it goes, for a method, a URL and fields that somebody typed. What becomes of it is told by the code that
//! requests meet ([`landfall_ingress_proxy::foresee`]); why rules lost, by the table. Nothing is sent and nothing is counted.

use super::health;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Version, header};
use landfall_ingress_balance::{self as balance, Preference, Turn};
use landfall_ingress_proxy::Proxy;
use landfall_ingress_proxy::foresee::{self, Foreseen, Met, Outcome, Supposed, Way};
use landfall_ingress_routing::{Explanation, Route};
use landfall_ingress_telemetry::reason::Reason;
use landfall_ingress_translate::route::Snapshot;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

/// What was typed.
pub(super) struct Question<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a str,
    /// Each as `Name: value`.
    pub(super) fields: &'a [String],
    /// `1.1` or `2`.
    pub(super) version: &'a str,
    /// Address of the client; that of the asker when it is not said.
    pub(super) client: Option<&'a str>,
    pub(super) asker: SocketAddr,
    /// As `--strict-sni` says.
    pub(super) strict_sni: bool,
}

/// Explains a request. The error says what cannot be read.
pub(super) fn explain(proxy: &Proxy, snapshot: &Snapshot, question: &Question<'_>) -> Result<Value, String> {
    let supposed = supposed(question)?;
    let named = supposed.fields.iter().find(|(name, _)| name == header::HOST);
    let host = named.map_or(Ok(&*supposed.authority), |(_, value)| value.to_str());
    let host = host.map_err(|_| "the Host field is not plain text")?;
    if host.is_empty() {
        return Err("the URL names no host, and there is no Host field".to_owned());
    }
    let found = snapshot.table.explain(host, &supposed.target);
    let foreseen = proxy.foresee(&supposed, &snapshot.table);
    let route = foreseen.route.as_deref();
    let ways: Vec<Value> = foreseen
        .ways
        .iter()
        .filter_map(|way| Some(destination(route?, way)))
        .collect();
    let asked_path = supposed.target.split('?').next();
    let client = foreseen.client.address_text();
    let scheme = if foreseen.client.https { "https" } else { "http" };
    Ok(json!({
        "method": supposed.method.as_str(), "host": found.host.as_deref().unwrap_or(host),
        "path": found.path.as_deref().or(asked_path), "asked_path": asked_path, "http": question.version,
        "client": { "address": client, "scheme": scheme, "trusted": foreseen.client.trusted },
        "answer": answer(&foreseen, &found, &ways), "winner": winner(&found), "stages": stages(&foreseen.met),
        "destinations": ways, "forwarded": forwarded(&foreseen), "answer_fields": pairs(&foreseen.dressed),
        "steps": steps(&found, snapshot), "others": others(&found),
    }))
}

/// Reads what was typed.
fn supposed(question: &Question<'_>) -> Result<Supposed, String> {
    let method = question.method;
    let method: Method = method.parse().map_err(|_| format!("{method:?} is no method"))?;
    let (secure, authority, target) = parts(question.url)?;
    let fields = question.fields.iter().map(|text| {
        let none = || format!("{text:?} is no field: Name: value");
        let (name, value) = text.split_once(':').ok_or_else(none)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| none())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| none())?;
        Ok((name, value))
    });
    let version = match question.version {
        "1.1" => Version::HTTP_11,
        "2" => Version::HTTP_2,
        other => return Err(format!("http={other:?} is not explained: 1.1 or 2")),
    };
    let peer = match question.client {
        Some(text) => {
            let address: IpAddr = text.parse().map_err(|_| format!("{text:?} is no address"))?;
            SocketAddr::new(address, question.asker.port())
        }
        None => question.asker,
    };
    Ok(Supposed {
        method,
        authority,
        target,
        fields: fields.collect::<Result<_, String>>()?,
        version,
        secure,
        strict_sni: question.strict_sni,
        peer,
    })
}

/// Whether a URL asks for TLS, its host and port, and path and query as a client sends them. They are not repaired: what the proxy makes
/// of them is what is asked.
fn parts(url: &str) -> Result<(bool, String, String), String> {
    let none = |why: &str| Err(format!("{url:?} is no URL: {why}"));
    let (secure, rest) = match url.split_once("://") {
        Some(("http" | "ws", rest)) => (false, rest),
        Some(("https" | "wss", rest)) => (true, rest),
        Some((scheme, _)) if !scheme.contains(['/', '?']) => return none("only http and https are explained"),
        _ => (false, url),
    };
    let rest = rest.split('#').next().unwrap_or(rest);
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return none("a host has no blanks");
    }
    if authority.contains('@') {
        return none("user and password go into a field, Authorization");
    }
    if target.contains(|c: char| c.is_control()) {
        return none("it has control characters");
    }
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok((secure, authority.to_owned(), format!("{slash}{target}")))
}

/// What comes of it.
fn answer(foreseen: &Foreseen, found: &Explanation, ways: &[Value]) -> Value {
    let stop = foreseen.met.iter().find_map(|met| match &met.outcome {
        Outcome::Answers(stop) => Some(stop),
        _ => None,
    });
    if let Some(stop) = stop {
        let (status, fields) = (stop.response.status().as_u16(), stop.response.headers());
        let location = fields.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let closed = foreseen.route.as_ref().and_then(|route| route.policy.closed.as_ref());
        let text = match (location, closed) {
            (Some(location), _) => format!("{status}: goes to {location}"),
            (None, Some(why)) => format!("{status}: the route is closed: {why}"),
            (None, None) => stop.reason.text().trim().to_owned(),
        };
        return json!({ "status": status, "reason": stop.reason.label(), "text": text, "location": location });
    }
    let refused = foreseen.refused.or_else(|| {
        let nowhere = ways
            .iter()
            .all(|way| way["endpoints"].as_array().is_none_or(Vec::is_empty));
        nowhere.then_some(Reason::NoEndpoint)
    });
    let Some(reason) = refused else {
        return json!({ "text": format!("It goes to {}", or(ways)) });
    };
    let why = found.refused.as_ref().filter(|_| reason == Reason::BadRequest);
    let down = foreseen.route.as_deref().filter(|_| reason == Reason::NoEndpoint);
    let why = why.cloned().or_else(|| health::reason_of_route(down?));
    let status = reason.status();
    let mut text = why.map_or_else(
        || reason.text().trim().to_owned(),
        |why| format!("{}: {why}", status.as_u16()),
    );
    let page = foreseen.route.as_ref().and_then(|route| {
        let replaced = route.policy.replaced_statuses.contains(&status);
        route.fallback.as_ref().filter(|_| replaced)
    });
    if let Some(page) = page {
        text.push_str(&format!("; {} would be asked for a page in its place", page.name));
    }
    json!({ "status": status.as_u16(), "reason": reason.label(), "text": text })
}

/// The Services that it may go to, with how often it does.
fn or(ways: &[Value]) -> String {
    let name = |way: &Value| way["service"].as_str().unwrap_or_default().to_owned();
    let part = |way: &Value| match way["share"].as_f64() {
        Some(share) if share < 1.0 => format!("{} ({} %)", name(way), (share * 1000.0).round() / 10.0),
        _ => name(way),
    };
    ways.iter().map(part).collect::<Vec<_>>().join(" or ")
}

fn stages(met: &[Met]) -> Vec<Value> {
    let one = |Met { stage, outcome }: &Met| {
        let (word, text) = match outcome {
            Outcome::Unasked => ("not asked for", String::new()),
            Outcome::Passes(text) => ("passes", text.clone()),
            Outcome::Open(text) => ("open", text.clone()),
            Outcome::Answers(stop) => ("answers", stop.response.status().as_u16().to_string()),
            Outcome::Unreached => ("not reached", String::new()),
        };
        json!({ "stage": stage.text(), "outcome": word, "text": text })
    };
    met.iter().map(one).collect()
}

/// A Service that it may go to, with the endpoints that may be taken; which of them, their load decides at that moment.
fn destination(route: &Route, way: &Way) -> Value {
    let seen = balance::foresee(&way.backend, preference(route, way));
    let turn = seen.as_ref().and_then(|seen| seen.turn);
    let word = |e: &balance::Endpoint| match (preference(route, way), turn) {
        (Preference::Service, _) => "service",
        (_, turn) => health::word(e, turn != Some(Turn::Draining)),
    };
    let endpoints = seen.iter().flat_map(|seen| &seen.endpoints);
    let endpoints: Vec<Value> = endpoints.map(|e| health::endpoint(e, word(e), None)).collect();
    let how = match seen {
        Some(_) => how(route, way, turn),
        None => health::Tally::of(&way.backend).reason().unwrap_or_default(),
    };
    let protocol = format!("{:?}", foresee::protocol(route, way)).to_lowercase();
    json!({ "service": way.backend.name, "share": way.share, "why": way.why, "how": how, "protocol": protocol, "endpoints": endpoints })
}

fn preference(route: &Route, way: &Way) -> Preference {
    match route.policy.upstream.service_address {
        true => Preference::Service,
        false => way.preference,
    }
}

/// How one of the endpoints is chosen.
fn how(route: &Route, way: &Way, turn: Option<Turn>) -> String {
    let preference = preference(route, way);
    let set = way.backend.endpoints();
    let by_hints = set.near().len() < set.ready().len();
    let part = match turn {
        None => "",
        Some(Turn::Near) if by_hints => {
            "the less busy of two at random, of those that hints name for this node or zone"
        }
        Some(Turn::Near) => "the less busy of two at random",
        Some(Turn::Ready) => "the less busy of two at random: those that hints name are left out after failures",
        Some(Turn::Ejected) => "left out after failures, and tried all the same: nothing else is left",
        Some(Turn::Draining) => "still serving while ending: none is ready",
    };
    let preferred = match (preference, turn) {
        (Preference::Service, _) => "the Service's own address, behind which kube-proxy chooses",
        (Preference::Endpoint(_), None) => "its cookie names this endpoint",
        (Preference::Key(_), None) => "its hash key leads to this endpoint",
        (Preference::Endpoint(_), Some(_)) => "the endpoint of its cookie is gone or left out; ",
        (Preference::Key(_), Some(_)) | (Preference::Any, _) => "",
    };
    let stuck = matches!((preference, turn), (Preference::Endpoint(_), None));
    let cookie = route.policy.affinity.as_ref().filter(|_| !stuck);
    let cookie = cookie.map_or_else(String::new, |a| format!("; its answer may set the cookie {}", a.cookie));
    format!("{preferred}{part}{cookie}")
}

/// The request as an endpoint would get it, but for what only asking tells.
fn forwarded(foreseen: &Foreseen) -> Value {
    let Some(sent) = &foreseen.sent else { return Value::Null };
    json!({ "method": sent.method.as_str(), "target": sent.uri.to_string(), "fields": pairs(&sent.headers) })
}

fn pairs(fields: &HeaderMap) -> Vec<Value> {
    let pair =
        |(name, value): (&HeaderName, &HeaderValue)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]);
    fields.iter().map(pair).collect()
}

fn host_name(host: &str) -> &str {
    if host.is_empty() { "*" } else { host }
}

fn winner(found: &Explanation) -> Value {
    let Some(winner) = &found.winner else {
        return Value::Null;
    };
    let why = found
        .candidates
        .iter()
        .find(|candidate| candidate.won)
        .map(|candidate| candidate.why.as_str());
    json!({ "host": host_name(&winner.host), "path": winner.path, "type": winner.kind, "ingress": winner.ingress, "service": winner.service,
        "alternatives": winner.alternatives, "why": why.unwrap_or("no rule takes the request, so it goes to the default backend") })
}

fn steps(found: &Explanation, snapshot: &Snapshot) -> Vec<String> {
    let looked = found.hosts.iter().map(|step| {
        let found = if step.found {
            "found; its rules are asked"
        } else {
            "no such host"
        };
        format!("{} host {}: {found}", step.kind, host_name(&step.host))
    });
    let remarks = found.entry.iter().flat_map(|host| snapshot.remarks_on(host));
    let remarks = remarks.map(|remark| format!("{remark}"));
    let left_out = (found.left_out > 0).then(|| format!("{} more rules of this host lost", found.left_out));
    looked.chain(remarks).chain(left_out).collect()
}

fn others(found: &Explanation) -> Vec<Value> {
    let host = found
        .hosts
        .iter()
        .find(|step| step.found)
        .map_or("", |step| step.host.as_str());
    let lost = found.candidates.iter().filter(|candidate| !candidate.won);
    lost.map(|c| json!({ "host": host_name(host), "path": c.path, "type": c.kind, "ingress": c.ingress, "service": c.service, "why": c.why }))
        .collect()
}
