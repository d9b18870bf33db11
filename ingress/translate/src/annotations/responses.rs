//! What happens to answers: cross-origin fields, our own fields, statuses that are replaced.

use super::secrets::Reach;
use super::syntax;
use super::values::Values;
use http::header::{HeaderName, HeaderValue};
use landfall_ingress_routing::policy::{Cors, Policy};

/// ingress-nginx's defaults.
const CORS_METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const CORS_HEADERS: &str =
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization";
const CORS_AGE_S: u32 = 1_728_000;

/// Fields that frame the message or belong to one connection; an annotation must not touch them.
const NOT_OURS: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "date",
];

/// Fields that one Ingress may set.
const MOST_FIELDS: usize = 32;

pub(super) fn read(values: &mut Values<'_>, policy: &mut Policy, reach: Reach<'_>) {
    policy.cors = cors(values);
    policy.hsts = values.parse("hsts", hsts);
    policy.response_headers = values.parse("response-headers", fields).unwrap_or_default();
    if let Some(text) = values.text("custom-headers") {
        match custom(reach, text) {
            Ok(mut more) => {
                // Ours count where both have a field.
                more.retain(|(name, _)| !policy.response_headers.iter().any(|(ours, _)| ours == name));
                policy.response_headers.extend(more);
            }
            // What a ConfigMap says is no part of the Ingress: the rest of it is served.
            Err(why) => values.refuse("custom-headers", &why),
        }
    }
    policy.replaced_statuses = values
        .list("custom-http-errors", syntax::error_status)
        .unwrap_or_default();
    policy.unlogged = values.flag("enable-access-log") == Some(false);
}

/// Names and values of a ConfigMap.
fn custom(reach: Reach<'_>, text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let (namespace, name) = reach.place(text)?;
    let of = |why: &str| format!("its fields are not set: ConfigMap {namespace}/{name} {why}");
    let pairs = reach.secrets.config(&namespace, &name).map_err(|why| of(&why))?;
    if pairs.len() > MOST_FIELDS {
        return Err(of("has more than 32 keys"));
    }
    let field = |(name, value): (String, Vec<u8>)| {
        let text = String::from_utf8(value).map_err(|_| of(&format!("has no text under {name:?}")))?;
        checked(&name, &text).map_err(|why| of(&format!("has a key {name:?}: {why}")))
    };
    pairs.into_iter().map(field).collect()
}

fn cors(values: &mut Values<'_>) -> Option<Cors> {
    let enabled = values.flag("enable-cors").unwrap_or(false);
    let cors = Cors {
        origins: values
            .list("cors-allow-origin", origin)
            .unwrap_or_else(|| vec!["*".to_owned()]),
        methods: words(values, "cors-allow-methods", CORS_METHODS),
        headers: words(values, "cors-allow-headers", CORS_HEADERS),
        expose: values.parse("cors-expose-headers", tokens),
        credentials: values.flag("cors-allow-credentials").unwrap_or(true),
        max_age_s: values.parse("cors-max-age", syntax::number).unwrap_or(CORS_AGE_S),
    };
    enabled.then_some(cors)
}

fn words(values: &mut Values<'_>, name: &str, usual: &'static str) -> HeaderValue {
    values.parse(name, tokens).unwrap_or(HeaderValue::from_static(usual))
}

/// A list of methods or names of fields, or a star.
fn tokens(text: &str) -> Result<HeaderValue, &'static str> {
    let fine = |word: &str| word == "*" || syntax::header_name(word).is_ok();
    if text.is_empty() || !text.split(',').all(|word| fine(word.trim())) {
        return Err("no list of names");
    }
    syntax::header_value(text)
}

/// `*`, or scheme and host with an optional port; `*.` in front of the host stands for one label.
fn origin(text: &str) -> Result<String, &'static str> {
    const WRONG: &str = "no origin";
    if text == "*" {
        return Ok(text.to_owned());
    }
    let (scheme, host) = text.split_once("://").ok_or(WRONG)?;
    let letters = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let host = host.strip_prefix("*.").unwrap_or(host);
    (letters && landfall_ingress_http::host::host_of(host).is_some())
        .then(|| text.to_owned())
        .ok_or(WRONG)
}

/// `max-age=N`, with `includeSubDomains` and `preload` if wanted.
fn hsts(text: &str) -> Result<HeaderValue, &'static str> {
    const WRONG: &str = "not max-age=N, with includeSubDomains and preload if wanted";
    let mut parts = text.split(';').map(str::trim);
    let age = parts.next().and_then(|p| p.strip_prefix("max-age=")).ok_or(WRONG)?;
    syntax::number(age).map_err(|_| WRONG)?;
    let fine = parts.all(|part| part == "includeSubDomains" || part == "preload");
    if fine { syntax::header_value(text) } else { Err(WRONG) }
}

/// `Name: value`, one a line.
fn fields(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, &'static str> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.len() > MOST_FIELDS {
        return Err("more than 32 fields");
    }
    lines.into_iter().map(field).collect()
}

fn field(line: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let (name, value) = line.split_once(':').ok_or("not a name, a colon and a value a line")?;
    checked(name, value)
}

fn checked(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let name = syntax::header_name(name)?;
    if NOT_OURS.contains(&name.as_str()) {
        return Err("this field frames the message");
    }
    Ok((name, syntax::header_value(value.trim())?))
}
