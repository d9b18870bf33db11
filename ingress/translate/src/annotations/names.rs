//! Every name that is known, and what becomes of it. The readers of this folder take the values.

/// What becomes of an annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// As it says.
    Served,
    /// In another way than in ingress-nginx, always.
    Approximated(&'static str),
    /// Known; nothing needs to be done here.
    NoEffect(&'static str),
    /// Known and not served.
    Refused(&'static str),
    /// Pieces of nginx configuration.
    Snippet,
}

use Support::{Approximated, NoEffect, Refused, Served, Snippet};

/// All names, in the order of ANNOTATIONS.md.
pub const NAMES: &[(&str, Support)] = &[
    // Redirects.
    ("ssl-redirect", Served),
    ("force-ssl-redirect", Served),
    ("permanent-redirect", Served),
    ("permanent-redirect-code", Served),
    ("temporal-redirect", Served),
    ("temporal-redirect-code", Served),
    ("from-to-www-redirect", Served),
    ("app-root", Served),
    // Paths.
    ("use-regex", Approximated(REGEX)),
    ("rewrite-target", Approximated(REGEX)),
    ("regex-case", Served),
    ("paths", Served),
    ("encoded-paths", Served),
    // Requests.
    ("proxy-body-size", Served),
    ("client-body-timeout", Served),
    ("limit-rps", Served),
    ("limit-rpm", Served),
    ("limit-connections", Served),
    ("limit-burst-multiplier", Served),
    ("limit-whitelist", Served),
    ("limit-allowlist", Served),
    // Who may come.
    ("whitelist-source-range", Served),
    ("allowlist-source-range", Served),
    ("denylist-source-range", Served),
    ("satisfy", Served),
    ("auth-type", Served),
    ("auth-secret", Served),
    ("auth-secret-type", Served),
    ("auth-realm", Served),
    ("auth-url", Served),
    ("auth-url-ca-secret", Served),
    ("auth-method", Served),
    ("auth-response-headers", Served),
    ("auth-signin", Served),
    ("auth-signin-redirect-param", Served),
    ("auth-request-redirect", Served),
    ("auth-tls-secret", Served),
    ("auth-tls-verify-client", Served),
    ("auth-tls-pass-certificate-to-upstream", Served),
    // Answers.
    ("enable-cors", Served),
    ("cors-allow-origin", Served),
    ("cors-allow-methods", Served),
    ("cors-allow-headers", Served),
    ("cors-allow-credentials", Served),
    ("cors-expose-headers", Served),
    ("cors-max-age", Served),
    ("hsts", Served),
    ("response-headers", Served),
    ("custom-headers", Served),
    ("custom-http-errors", Served),
    ("default-backend", Served),
    ("enable-access-log", Served),
    // Endpoints.
    ("backend-protocol", Served),
    ("upstream-vhost", Served),
    ("x-forwarded-prefix", Served),
    ("service-upstream", Served),
    ("proxy-ssl-secret", Served),
    ("proxy-ssl-name", Served),
    ("proxy-ssl-verify", Served),
    (
        "proxy-ssl-server-name",
        NoEffect("endpoints with TLS always get a server name when one is known"),
    ),
    ("proxy-connect-timeout", Served),
    ("proxy-read-timeout", Served),
    ("proxy-send-timeout", Served),
    ("proxy-next-upstream", Served),
    ("proxy-next-upstream-tries", Served),
    ("proxy-next-upstream-timeout", Served),
    ("load-balance", Served),
    ("upstream-hash-by", Served),
    ("affinity", Served),
    ("affinity-mode", Served),
    ("session-cookie-name", Served),
    ("session-cookie-path", Served),
    ("session-cookie-domain", Served),
    ("session-cookie-max-age", Served),
    (
        "session-cookie-expires",
        Approximated("served as session-cookie-max-age"),
    ),
    ("session-cookie-secure", Served),
    ("session-cookie-samesite", Served),
    ("session-cookie-change-on-failure", Served),
    ("mirror-target", Served),
    ("mirror-request-body", Served),
    // Alternatives and hosts.
    ("canary", Served),
    ("canary-by-header", Served),
    ("canary-by-header-value", Served),
    ("canary-by-header-pattern", Served),
    ("canary-by-cookie", Served),
    ("canary-weight", Served),
    ("canary-weight-total", Served),
    (
        "server-alias",
        Approximated("aliases are whole names; no regular expressions"),
    ),
    // Known, without effect.
    ("proxy-buffering", NoEffect("nothing is buffered here")),
    ("proxy-buffer-size", NoEffect("nothing is buffered here")),
    ("proxy-buffers-number", NoEffect("nothing is buffered here")),
    ("proxy-busy-buffers-size", NoEffect("nothing is buffered here")),
    ("proxy-max-temp-file-size", NoEffect("nothing is buffered here")),
    ("proxy-request-buffering", NoEffect("nothing is buffered here")),
    ("client-body-buffer-size", NoEffect("nothing is buffered here")),
    ("proxy-http-version", NoEffect("the protocol follows backend-protocol")),
    (
        "connection-proxy-header",
        NoEffect("connections to endpoints are kept by themselves"),
    ),
    ("preserve-trailing-slash", NoEffect("no path is given a slash here")),
    (
        "proxy-ssl-verify-depth",
        NoEffect("chains are as long as rustls takes them"),
    ),
    ("proxy-ssl-protocols", NoEffect("TLS 1.2 and 1.3")),
    ("proxy-ssl-ciphers", NoEffect("rustls' own, all of them sound")),
    ("ssl-ciphers", NoEffect("rustls' own, all of them sound")),
    ("ssl-prefer-server-ciphers", NoEffect("rustls' own, all of them sound")),
    ("http2-push-preload", NoEffect("browsers have given up server push")),
    ("enable-rewrite-log", NoEffect("the dashboard explains a request")),
    ("enable-opentelemetry", NoEffect("there are no traces")),
    ("enable-opentracing", NoEffect("there are no traces")),
    ("opentelemetry-trust-incoming-span", NoEffect("there are no traces")),
    ("opentelemetry-operation-name", NoEffect("there are no traces")),
    (
        "affinity-canary-behavior",
        NoEffect("an alternative is chosen for each request"),
    ),
    (
        "session-cookie-conditional-samesite-none",
        NoEffect("SameSite is sent as it is set"),
    ),
    ("auth-cache-key", NoEffect("each request is asked for")),
    ("auth-cache-duration", NoEffect("each request is asked for")),
    (
        "auth-keepalive",
        NoEffect("connections to the authentication service are kept by themselves"),
    ),
    (
        "auth-keepalive-requests",
        NoEffect("connections to the authentication service are kept by themselves"),
    ),
    (
        "auth-keepalive-timeout",
        NoEffect("connections to the authentication service are kept by themselves"),
    ),
    ("auth-keepalive-share-vars", NoEffect("there are no variables to share")),
    (
        "auth-tls-verify-depth",
        NoEffect("chains are as long as rustls takes them"),
    ),
    // Known, not served.
    ("auth-tls-error-page", Refused("a client without certificate gets 400")),
    (
        "auth-tls-match-cn",
        Refused("names of client certificates are not compared"),
    ),
    (
        "auth-always-set-cookie",
        Refused("cookies of the authentication service go out only with its own answers"),
    ),
    (
        "auth-proxy-set-headers",
        Refused("the service is asked with the client's own fields"),
    ),
    ("enable-global-auth", Refused("there is no global authentication")),
    ("mirror-host", Refused("copies carry the target's host")),
    ("limit-rate", Refused("answers are not slowed down")),
    ("limit-rate-after", Refused("answers are not slowed down")),
    ("global-rate-limit", Refused("limits count per proxy")),
    ("global-rate-limit-window", Refused("limits count per proxy")),
    ("global-rate-limit-key", Refused("limits count per proxy")),
    ("global-rate-limit-ignored-cidrs", Refused("limits count per proxy")),
    ("upstream-hash-by-subset", Refused("keys choose among all endpoints")),
    (
        "upstream-hash-by-subset-size",
        Refused("keys choose among all endpoints"),
    ),
    ("proxy-redirect-from", Refused("Location fields go through as they are")),
    ("proxy-redirect-to", Refused("Location fields go through as they are")),
    ("proxy-cookie-domain", Refused("cookies go through as they are")),
    ("proxy-cookie-path", Refused("cookies go through as they are")),
    ("relative-redirects", Refused("Location fields go through as they are")),
    (
        "disable-proxy-intercept-errors",
        Refused("custom-http-errors alone decides"),
    ),
    ("ssl-passthrough", Refused("TLS ends here")),
    ("enable-modsecurity", Refused("there is no web application firewall")),
    (
        "enable-owasp-core-rules",
        Refused("there is no web application firewall"),
    ),
    (
        "modsecurity-transaction-id",
        Refused("there is no web application firewall"),
    ),
    ("proxy-host", Refused("use upstream-vhost")),
    ("configuration-snippet", Snippet),
    ("server-snippet", Snippet),
    ("stream-snippet", Snippet),
    ("auth-snippet", Snippet),
    ("modsecurity-snippet", Snippet),
];

const REGEX: &str = "only this Ingress' own paths with characters of regular expressions are such, and Exact stays exact; case counts, which it does not in ingress-nginx, unless ingress.landfall.dev/regex-case is insensitive";

/// Names without counterpart in ingress-nginx.
const OURS_ONLY: [&str; 7] = [
    "client-body-timeout",
    "regex-case",
    "paths",
    "encoded-paths",
    "hsts",
    "response-headers",
    "auth-url-ca-secret",
];

/// What becomes of a name; `None` when it is not known under its prefix.
pub(super) fn support(short: &str, full: &str) -> Option<Support> {
    if OURS_ONLY.contains(&short) && full.starts_with(super::NGINX) {
        return None;
    }
    let known = NAMES.iter().find(|(name, _)| *name == short)?;
    Some(known.1)
}

/// Names whose value protects: one that cannot be read closes the routes.
pub(super) fn protects(name: &str) -> bool {
    let list = matches!(
        name,
        "whitelist-source-range" | "allowlist-source-range" | "denylist-source-range" | "satisfy"
    );
    list || name.starts_with("auth-")
}

/// Names whose value may have several lines.
pub(super) fn has_lines(name: &str) -> bool {
    name == "response-headers"
}
