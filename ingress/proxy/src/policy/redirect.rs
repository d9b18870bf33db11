//! Redirects. Pure.
//!
//! Order: an explicit one, then https, then the application's root. The first that fits answers.

use super::request_view::RequestView;
use hyper::StatusCode;
use landfall_ingress_routing::policy::HttpsRedirect;

/// Where ACME servers look for the answer to an HTTP-01 challenge (RFC 8555, 8.3).
const ACME: &str = "/.well-known/acme-challenge/";

/// Returns status and `Location` when this request is to go elsewhere.
pub(super) fn answer(view: &RequestView<'_>, https_port: u16) -> Option<(StatusCode, String)> {
    // S28: a solver's route exists only for the challenge; sent to https, where there is no certificate yet, it could never be met.
    if view.route.exact && view.path.starts_with(ACME) {
        return None;
    }
    let redirects = &view.route.policy.redirects;
    if let Some(to) = &redirects.to {
        return Some((to.status, view.expand(&to.location)));
    }
    let wanted = match redirects.https {
        HttpsRedirect::Off => false,
        HttpsRedirect::WhenTls => view.host_has_tls,
        HttpsRedirect::Always => true,
    };
    // A request without a host (HTTP/1.0) cannot be sent anywhere.
    if wanted && !view.secure && !view.host.is_empty() {
        let port = match https_port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        let location = format!("https://{}{port}{}", view.host, view.request_uri());
        return Some((StatusCode::PERMANENT_REDIRECT, location));
    }
    let root = redirects.app_root.as_deref()?;
    // Two slashes would begin another host.
    (view.path == "/" && root.starts_with('/') && !root.starts_with("//")).then(|| (StatusCode::FOUND, root.to_owned()))
}
