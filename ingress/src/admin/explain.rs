//! Why a request goes where it goes, for a URL and fields that somebody typed. Pure: nothing is sent and nothing is counted.

use crate::reason::Reason;
use crate::route::{Backend, Explanation, Route, Snapshot};
use hyper::{Method, Uri};
use serde_json::{Value, json};

/// Explains a request to `url` with these fields (`Name: value`). The error says what cannot be read.
pub(super) fn explain(snapshot: &Snapshot, method: &str, url: &str, fields: &[String]) -> Result<Value, String> {
    let method: Method = method.parse().map_err(|_| format!("{method:?} is no method"))?;
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
    for field in fields {
        field
            .split_once(':')
            .ok_or_else(|| format!("{field:?} is no field: Name: value"))?;
    }
    let mut given = fields.iter().filter_map(|field| field.split_once(':'));
    let field = given.find(|(name, _)| name.trim().eq_ignore_ascii_case("host"));
    let host = uri.authority().map(|authority| authority.as_str());
    let host = host.or(field.map(|(_, value)| value.trim()));
    let host = host.ok_or("the URL names no host, and there is no Host field")?;

    let found = snapshot.explain(host, uri.path());
    let route = match (&found.host, &found.path) {
        (Some(host), Some(path)) => snapshot.find(host, path).map(|route| &**route),
        _ => None,
    };
    let mut value = json!({ "method": method.as_str(), "host": found.host.as_deref().unwrap_or(host),
        "path": found.path.as_deref().unwrap_or(uri.path()), "asked_path": uri.path(), "winner": winner(&found),
        "endpoint": endpoint(route), "answer": answer(&method, &found, route), "steps": steps(&found), "others": others(&found) });
    if value["answer"].get("status").is_some() {
        value["endpoint"] = Value::Null;
    }
    Ok(value)
}

/// What comes of it, as far as the table decides.
fn answer(method: &Method, found: &Explanation, route: Option<&Route>) -> Value {
    let ours = |reason: Reason, why: Option<&str>| {
        let text = why.map_or_else(
            || reason.text().trim().to_owned(),
            |why| format!("{}: {why}", reason.status().as_u16()),
        );
        json!({ "status": reason.status().as_u16(), "reason": reason.label(), "text": text })
    };
    if let Some(why) = &found.refused {
        return ours(Reason::BadRequest, Some(why));
    }
    let Some(route) = route.filter(|_| method != Method::CONNECT) else {
        let reason = if method == Method::CONNECT {
            Reason::BadMethod
        } else {
            Reason::NoRoute
        };
        return ours(reason, None);
    };
    if let Some(why) = &route.policy.closed {
        return ours(Reason::NoEndpoint, Some(&format!("the route is closed: {why}")));
    }
    match usable(&route.backend) || route.fallback.as_ref().is_some_and(|fallback| usable(fallback)) {
        true => json!({ "text": format!("It goes to {}", route.backend.name) }),
        false => ours(Reason::NoEndpoint, None),
    }
}

fn usable(backend: &Backend) -> bool {
    !backend.endpoints().is_empty()
}

/// Endpoints that may be taken; which of them, their load decides at that moment.
fn endpoint(route: Option<&Route>) -> Value {
    let backend = route.map(|route| match (&route.fallback, usable(&route.backend)) {
        (Some(fallback), false) => fallback,
        _ => &route.backend,
    });
    let all: Vec<String> = backend
        .into_iter()
        .flat_map(|b| b.endpoints().addresses())
        .map(|a| a.to_string())
        .collect();
    if all.is_empty() {
        Value::Null
    } else {
        json!(all.join(" or "))
    }
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

fn steps(found: &Explanation) -> Vec<String> {
    let looked = found.hosts.iter().map(|step| {
        let found = if step.found {
            "found; its rules are asked"
        } else {
            "no such host"
        };
        format!("{} host {}: {found}", step.kind, host_name(&step.host))
    });
    let alternatives = found.winner.iter().flat_map(|winner| &winner.alternatives);
    let alternatives = alternatives.map(|other| format!("some of these requests go to {other}"));
    let remarks = found.remarks.iter().map(|remark| format!("{remark}"));
    let left_out = (found.left_out > 0).then(|| format!("{} more rules of this host lost", found.left_out));
    looked.chain(alternatives).chain(remarks).chain(left_out).collect()
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
