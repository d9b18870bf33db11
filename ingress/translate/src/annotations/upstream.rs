//! How endpoints are chosen and spoken to.

use super::auth::authorities;
use super::secrets::Reach;
use super::syntax;
use super::target;
use super::values::Values;
use landfall_ingress_http::protocol::Protocol;
use landfall_ingress_routing::policy::{Affinity, HashKey, Mirror, Policy, Retries, RetryOn, Timeouts, Upstream};
use landfall_ingress_routing::target::Place;
use landfall_ingress_tls::certificate::Fault;
use landfall_ingress_tls::client::ClientSettings;
use landfall_ingress_tls::client::Identity;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// ingress-nginx's name for the cookie.
const COOKIE: &str = "INGRESSCOOKIE";
/// Longest time that an annotation may ask for.
const LONGEST_TIME: Duration = Duration::from_secs(24 * 3600);
/// Endpoints tried for one request at most, whatever an annotation says.
const MOST_TRIES: u32 = 10;

pub(super) fn read(values: &mut Values<'_>, policy: &mut Policy, reach: Reach<'_>) {
    policy.timeouts = Timeouts {
        connect: time(values, "proxy-connect-timeout"),
        read: time(values, "proxy-read-timeout"),
        send: time(values, "proxy-send-timeout"),
        client_body: time(values, "client-body-timeout"),
    };
    let retried = values.parse("proxy-next-upstream", retry_on);
    if retried.is_some_and(|(_, any)| any) {
        let how = "requests that are not idempotent, and those with a body, are never sent again";
        values.approximate("proxy-next-upstream", how);
    }
    policy.retries = Retries {
        on: retried.map(|(on, _)| on).unwrap_or_default(),
        // 0 is no bound in ingress-nginx; here the limits are.
        tries: values
            .parse("proxy-next-upstream-tries", syntax::number)
            .filter(|n| *n > 0)
            .and_then(|n| u8::try_from(n.min(MOST_TRIES)).ok()),
        within: time(values, "proxy-next-upstream-timeout"),
    };
    policy.affinity = affinity(values);
    policy.upstream = upstream(values, reach);
    policy.mirror = mirror(values, reach);
    match values.text("load-balance") {
        None | Some("ewma") => {}
        Some("round_robin") => values.approximate("load-balance", "the less busy of two endpoints is taken"),
        Some(_) => values.fault("load-balance", "neither round_robin nor ewma"),
    }
}

/// A time that is waited; 0 is none. Longer ones than the longest are that.
fn time(values: &mut Values<'_>, name: &str) -> Option<Duration> {
    let asked = values.parse(name, syntax::time)?;
    if asked > LONGEST_TIME {
        values.approximate(
            name,
            "a day is waited at most: what waits longer is no request any more",
        );
    }
    Some(asked.min(LONGEST_TIME)).filter(|time| !time.is_zero())
}

/// What nginx's `proxy_next_upstream` may list, and whether requests of all methods are meant. Failed connections are always tried
/// elsewhere.
fn retry_on(text: &str) -> Result<(RetryOn, bool), &'static str> {
    let mut on = RetryOn::default();
    let mut any = false;
    for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
        match word {
            "error" | "invalid_header" => on.broken = true,
            "timeout" => on.late = true,
            "http_403" => on.forbidden = true,
            "http_404" => on.not_found = true,
            "http_429" => on.too_many = true,
            "http_500" => on.internal = true,
            "http_502" => on.bad_gateway = true,
            "http_503" => on.unavailable = true,
            "http_504" => on.timeout = true,
            "non_idempotent" => any = true,
            // Whatever stands beside it.
            "off" => return Ok(Default::default()),
            _ => return Err("not what proxy_next_upstream lists"),
        }
    }
    Ok((on, any))
}

fn affinity(values: &mut Values<'_>) -> Option<Affinity> {
    let wanted = match values.text("affinity") {
        Some("cookie") => true,
        None | Some("") => false,
        Some(_) => {
            values.fault("affinity", "only cookie is served");
            false
        }
    };
    match values.text("affinity-mode") {
        None | Some("persistent") => {}
        Some("balanced") => values.approximate("affinity-mode", "clients stay with their endpoint, as in persistent"),
        Some(_) => values.fault("affinity-mode", "neither balanced nor persistent"),
    }
    let age = values.parse("session-cookie-max-age", syntax::number);
    let age = age.or(values.parse("session-cookie-expires", syntax::number));
    let affinity = Affinity {
        cookie: values
            .parse("session-cookie-name", syntax::cookie_name)
            .unwrap_or_else(|| COOKIE.to_owned()),
        path: values.parse("session-cookie-path", syntax::cookie_attribute),
        domain: values.parse("session-cookie-domain", syntax::cookie_attribute),
        max_age_s: age.map(u64::from).filter(|age| *age > 0),
        secure: values.flag("session-cookie-secure").unwrap_or(false),
        same_site: values.parse("session-cookie-samesite", |text| {
            let known = ["None", "Lax", "Strict"].into_iter();
            let mut known = known.filter(|word| word.eq_ignore_ascii_case(text));
            known.next().ok_or("not None, Lax or Strict")
        }),
        change_on_failure: values.flag("session-cookie-change-on-failure").unwrap_or(false),
    };
    wanted.then_some(affinity)
}

fn upstream(values: &mut Values<'_>, reach: Reach<'_>) -> Upstream {
    let protocol = values.parse("backend-protocol", |text| match text.to_ascii_uppercase().as_str() {
        "HTTP" | "AUTO_HTTP" => Ok(Protocol::Http1),
        "HTTPS" => Ok(Protocol::Https),
        "GRPC" => Ok(Protocol::H2c),
        "GRPCS" => Ok(Protocol::H2),
        "FCGI" => Err("FastCGI is not served"),
        _ => Err("not HTTP, HTTPS, GRPC or GRPCS"),
    });
    let tls_verify = values.flag("proxy-ssl-verify").unwrap_or(false);
    let (mut tls_authorities, mut tls_identity) = (vec![], None);
    if let Some(text) = values.text("proxy-ssl-secret") {
        match authorities(reach, text) {
            Ok(authorities) => tls_authorities = authorities,
            // Without authorities nothing can be verified: endpoints then fail, as they should.
            Err(why) if tls_verify => values.approximate("proxy-ssl-secret", &why),
            Err(_) => {}
        }
        match identity(reach, text) {
            Ok(identity) => tls_identity = identity.map(Arc::new),
            Err(why) => {
                let why = format!("endpoints are shown no certificate: {why}");
                values.approximate("proxy-ssl-secret", &why);
            }
        }
    }
    let hash_by = values.parse("upstream-hash-by", hash_key);
    Upstream {
        protocol,
        host: values.parse("upstream-vhost", syntax::authority),
        tls: ClientSettings {
            name: values.parse("proxy-ssl-name", syntax::alias),
            verify: tls_verify,
            authorities: tls_authorities.into(),
            identity: tls_identity,
        },
        forwarded_prefix: values.parse("x-forwarded-prefix", syntax::prefix),
        service_address: values.flag("service-upstream").unwrap_or(false),
        hash_by,
    }
}

/// The certificate of `tls.crt` with the key of `tls.key`; none when the Secret has neither.
fn identity(reach: Reach<'_>, text: &str) -> Result<Option<Identity>, String> {
    let (namespace, name) = reach.place(text)?;
    let of = |why: String| format!("Secret {namespace}/{name} {why}");
    let value = |key| {
        reach
            .secrets
            .value(&namespace, &name, key)
            .map(|value| value.map(Zeroizing::new))
    };
    match (value("tls.crt").map_err(of)?, value("tls.key").map_err(of)?) {
        (None, None) => Ok(None),
        (Some(chain), Some(key)) => Identity::read(&chain, &key)
            .map(Some)
            .map_err(|fault| of(fault.to_string())),
        (None, Some(_)) => Err(of(Fault::Lacks("tls.crt").to_string())),
        (Some(_), None) => Err(of(Fault::Lacks("tls.key").to_string())),
    }
}

/// nginx's variables with text between them; one alone may be without its dollar.
fn hash_key(text: &str) -> Result<Vec<HashKey>, &'static str> {
    if !text.contains('$') {
        return Ok(vec![variable(text)?]);
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (before, behind) = rest.split_once('$').unwrap_or((rest, ""));
        if !before.is_empty() {
            parts.push(HashKey::Text(before.to_owned()));
        }
        if rest.len() == before.len() {
            break;
        }
        let (name, after) = match behind.strip_prefix('{') {
            Some(behind) => behind.split_once('}').ok_or("a brace is not closed")?,
            None => {
                let inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
                behind.split_at(behind.find(|c| !inner(c)).unwrap_or(behind.len()))
            }
        };
        parts.push(variable(name)?);
        rest = after;
    }
    Ok(parts)
}

/// One of nginx's variables, by its name.
fn variable(name: &str) -> Result<HashKey, &'static str> {
    if let Some(field) = name.strip_prefix("http_") {
        return syntax::header_name(&field.replace('_', "-")).map(HashKey::Header);
    }
    if let Some(cookie) = name.strip_prefix("cookie_") {
        return syntax::cookie_name(cookie).map(HashKey::Cookie);
    }
    if let Some(argument) = name.strip_prefix("arg_") {
        return syntax::cookie_name(argument).map(HashKey::Argument);
    }
    match name {
        "request_uri" => Ok(HashKey::Uri),
        "uri" => Ok(HashKey::Path),
        "remote_addr" | "binary_remote_addr" => Ok(HashKey::Client),
        "host" => Ok(HashKey::Host),
        _ => Err("only $request_uri, $uri, $remote_addr, $host, $http_NAME, $cookie_NAME, $arg_NAME"),
    }
}

fn mirror(values: &mut Values<'_>, reach: Reach<'_>) -> Option<Mirror> {
    let body = match values.text("mirror-request-body") {
        None | Some("on" | "true") => true,
        Some("off" | "false") => false,
        Some(_) => {
            values.fault("mirror-request-body", "neither on nor off");
            true
        }
    };
    let target = values.text("mirror-target")?;
    let place = values.parse("mirror-target", |url| {
        let target = target::parse(url, reach.namespace, reach.options)?;
        match target.place {
            // A copy for the same host would come back and be copied again.
            Place::OwnHost => Err("a copy cannot go to the request's own host"),
            _ if target.tls => Err("copies go over plain http only"),
            _ => Ok(target),
        }
    })?;
    Some(Mirror {
        target: target.to_owned(),
        place,
        body,
    })
}
