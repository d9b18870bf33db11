//! What happens to requests before they are forwarded: redirects, paths, sizes, limits, sources.

use super::syntax;
use super::values::Values;
use http::StatusCode;
use landfall_ingress_http::network::Network;
use landfall_ingress_http::path::{EncodedMode, PathMode};
use landfall_ingress_routing::policy::{ClientLimits, HttpsRedirect, Policy, Redirect, Rewrite};

/// ingress-nginx's default.
const BURST: u32 = 5;

pub(super) fn read(values: &mut Values<'_>, policy: &mut Policy) {
    redirects(values, policy);
    policy.rewrite = values
        .parse("rewrite-target", syntax::rewrite_target)
        .map(|target| Rewrite { pattern: None, target });
    let mode = values.parse("paths", |text| match text {
        "canonical" => Ok(PathMode::Canonical),
        "keep-slashes" => Ok(PathMode::KeepSlashes),
        "reject" => Ok(PathMode::Reject),
        "strict" => Ok(PathMode::Strict),
        _ => Err("not canonical, keep-slashes, reject or strict"),
    });
    policy.paths = mode.unwrap_or_default();
    let encoded = values.parse("encoded-paths", |text| match text {
        "compare" => Ok(EncodedMode::Compare),
        "allow" => Ok(EncodedMode::Allow),
        "refuse" => Ok(EncodedMode::Refuse),
        _ => Err("not compare, allow or refuse"),
    });
    policy.encoded_paths = encoded.unwrap_or_default();
    policy.body_limit_bytes = values.parse("proxy-body-size", syntax::size).flatten();
    limits(values, policy);
    sources(values, policy);
}

fn redirects(values: &mut Values<'_>, policy: &mut Policy) {
    let force = values.flag("force-ssl-redirect").unwrap_or(false);
    // As in ingress-nginx: who has a certificate for a host is sent there.
    let plain = values.flag("ssl-redirect").unwrap_or(true);
    policy.redirects.https = match (force, plain) {
        (true, _) => HttpsRedirect::Always,
        (false, true) => HttpsRedirect::WhenTls,
        (false, false) => HttpsRedirect::Off,
    };
    policy.redirects.www = values.flag("from-to-www-redirect").unwrap_or(false);
    policy.redirects.app_root = values.parse("app-root", syntax::root);
    let kinds = [
        (
            "permanent-redirect",
            "permanent-redirect-code",
            StatusCode::MOVED_PERMANENTLY,
        ),
        ("temporal-redirect", "temporal-redirect-code", StatusCode::FOUND),
    ];
    // Where both are, the temporal one counts, as in ingress-nginx.
    for (name, code, usual) in kinds {
        let status = values.parse(code, syntax::redirect_status).unwrap_or(usual);
        if let Some(location) = values.parse(name, syntax::location) {
            policy.redirects.to = Some(Redirect { status, location });
        }
    }
}

fn limits(values: &mut Values<'_>, policy: &mut Policy) {
    // 0 is no limit, as in ingress-nginx.
    let count = |values: &mut Values<'_>, name| values.parse(name, syntax::number).filter(|n| *n > 0);
    policy.limits = ClientLimits {
        requests_per_second: count(values, "limit-rps"),
        requests_per_minute: count(values, "limit-rpm"),
        connections: count(values, "limit-connections"),
        burst: values
            .parse("limit-burst-multiplier", syntax::positive)
            .unwrap_or(BURST),
    };
    policy.unlimited = networks(values, ["limit-whitelist", "limit-allowlist"]);
}

fn sources(values: &mut Values<'_>, policy: &mut Policy) {
    policy.sources.allow = networks(values, ["whitelist-source-range", "allowlist-source-range"]);
    // A list that names nobody admits all in ingress-nginx, and nobody in spirit. Neither is guessed.
    if policy.sources.allow.is_empty() {
        for name in ["whitelist-source-range", "allowlist-source-range"] {
            if values.has(name) {
                values.fault(name, "an empty list");
            }
        }
    }
    policy.sources.deny = values
        .list("denylist-source-range", syntax::network)
        .unwrap_or_default();
    match values.text("satisfy") {
        None | Some("all") => {}
        Some("any") => values.approximate("satisfy", "all checks must pass, not any one of them"),
        Some(_) => values.fault("satisfy", "neither all nor any"),
    }
}

/// Two names of one list: all of both.
fn networks(values: &mut Values<'_>, names: [&str; 2]) -> Vec<Network> {
    let lists = names.map(|name| values.list(name, syntax::network).unwrap_or_default());
    lists.concat()
}
