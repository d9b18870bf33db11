//! How endpoints are chosen and spoken to.

use super::auth::authorities;
use super::secrets::Reach;
use super::syntax;
use super::target::{Place, Target};
use super::values::Values;
use crate::policy::{Affinity, HashKey, Mirror, Policy, Protocol, Retries, RetryStatuses, Timeouts, Upstream};
use crate::tls::Fault;
use crate::tls::backend::Identity;
use std::sync::Arc;
use zeroize::Zeroizing;

/// ingress-nginx's name for the cookie.
const COOKIE: &str = "INGRESSCOOKIE";
/// Endpoints tried for one request at most, whatever an annotation says.
const MOST_TRIES: u32 = 10;

pub(super) fn read(values: &mut Values<'_>, policy: &mut Policy, reach: Reach<'_>) {
    policy.timeouts = Timeouts {
        connect: values
            .parse("proxy-connect-timeout", syntax::time)
            .filter(|t| !t.is_zero()),
        read: values
            .parse("proxy-read-timeout", syntax::time)
            .filter(|t| !t.is_zero()),
        send: values
            .parse("proxy-send-timeout", syntax::time)
            .filter(|t| !t.is_zero()),
        client_body: values
            .parse("client-body-timeout", syntax::time)
            .filter(|t| !t.is_zero()),
    };
    policy.retries = Retries {
        statuses: values.parse("proxy-next-upstream", statuses).unwrap_or_default(),
        // 0 is no bound in ingress-nginx; here the limits are.
        tries: values
            .parse("proxy-next-upstream-tries", syntax::number)
            .filter(|n| *n > 0)
            .and_then(|n| u8::try_from(n.min(MOST_TRIES)).ok()),
        within: values
            .parse("proxy-next-upstream-timeout", syntax::time)
            .filter(|t| !t.is_zero()),
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

/// What nginx's `proxy_next_upstream` may list. Failed connections are always tried elsewhere, so only statuses are left to say.
fn statuses(text: &str) -> Result<RetryStatuses, &'static str> {
    let mut statuses = RetryStatuses::default();
    for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
        match word {
            "http_500" => statuses.internal = true,
            "http_502" => statuses.bad_gateway = true,
            "http_503" => statuses.unavailable = true,
            "http_504" => statuses.timeout = true,
            "off" | "error" | "timeout" | "invalid_header" | "http_403" | "http_404" | "http_429"
            | "non_idempotent" => {}
            _ => return Err("not what proxy_next_upstream lists"),
        }
    }
    Ok(statuses)
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
        same_site: values.parse("session-cookie-samesite", |text| match text {
            "None" => Ok("None"),
            "Lax" => Ok("Lax"),
            "Strict" => Ok("Strict"),
            _ => Err("not None, Lax or Strict"),
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
        tls_name: values.parse("proxy-ssl-name", syntax::alias),
        tls_verify,
        tls_authorities: tls_authorities.into(),
        tls_identity,
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

/// One of nginx's variables.
fn hash_key(text: &str) -> Result<HashKey, &'static str> {
    let name = text.strip_prefix('$').unwrap_or(text);
    let name = name.strip_prefix('{').and_then(|n| n.strip_suffix('}')).unwrap_or(name);
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
        "request_uri" | "uri" => Ok(HashKey::Uri),
        "remote_addr" | "binary_remote_addr" => Ok(HashKey::Client),
        "host" => Ok(HashKey::Host),
        _ => Err("only one of $request_uri, $remote_addr, $host, $http_NAME, $cookie_NAME, $arg_NAME"),
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
        let target = Target::parse(url, reach.namespace, reach.options)?;
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
