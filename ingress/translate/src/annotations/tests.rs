//! Values by table, and what closes.

use super::names::NAMES;
use super::target;
use super::*;
use landfall_ingress_http::network::Network;
use landfall_ingress_http::path::{EncodedMode, PathMode};
use landfall_ingress_http::protocol::Protocol;
use landfall_ingress_routing::policy::{HashKey, HttpsRedirect, RetryOn};
use landfall_ingress_routing::target::Place;
use std::time::Duration;

/// Secrets by `namespace/name/key`.
struct Given(&'static [(&'static str, &'static str)]);

impl Secrets for Given {
    fn value(&self, namespace: &str, name: &str, key: &str) -> Result<Option<Vec<u8>>, String> {
        self.keys(namespace, name)?;
        let wanted = format!("{namespace}/{name}/{key}");
        Ok(self
            .0
            .iter()
            .find(|(full, _)| *full == wanted)
            .map(|(_, value)| value.as_bytes().to_vec()))
    }

    fn keys(&self, namespace: &str, name: &str) -> Result<Vec<String>, String> {
        let start = format!("{namespace}/{name}/");
        let keys: Vec<_> = self
            .0
            .iter()
            .filter_map(|(full, _)| full.strip_prefix(&start))
            .map(str::to_owned)
            .collect();
        if keys.is_empty() {
            Err("does not exist".to_owned())
        } else {
            Ok(keys)
        }
    }
}

const USERS: Given = Given(&[
    ("d/users/auth", "# people\nann:{SHA}x\n\nbob:$apr1$y:comment\n"),
    ("d/map/carl", "{SHA}z"),
    ("d/broken/auth", "no colon"),
    ("d/empty/auth", ""),
    ("d/ca/ca.crt", "no PEM"),
    ("other/users/auth", "eve:{SHA}x"),
]);

fn settings(pairs: &[(&str, &str)]) -> AnnotationSettings {
    let full = pairs
        .iter()
        .map(|(name, value)| (format!("{NGINX}{name}"), (*value).to_owned()));
    read(&full.collect(), "d", &USERS, &Options::default())
}

fn one(name: &str, value: &str) -> AnnotationSettings {
    settings(&[(name, value)])
}

#[test]
fn every_name_stands_in_the_table_for_people() {
    let table = include_str!("../../../ANNOTATIONS.md");
    for (name, _) in NAMES {
        assert!(table.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn our_prefix_counts_before_the_other_and_other_annotations_are_left_alone() {
    let both = Annotations::from_iter([
        (format!("{NGINX}proxy-body-size"), "1k".to_owned()),
        (format!("{OWN}proxy-body-size"), "2k".to_owned()),
        ("example.com/x".to_owned(), "y".to_owned()),
    ]);
    let settings = read(&both, "d", &USERS, &Options::default());
    assert_eq!(settings.policy.body_limit_bytes, Some(2048));
    assert!(settings.faults.is_empty());
}

#[test]
fn unknown_names_and_snippets_are_remarked() {
    let unknown = one("no-such-name", "x");
    assert_eq!(unknown.faults[0].reason, Reason::UnknownAnnotation);
    assert!(!unknown.bad && unknown.policy.closed.is_none());
    // A name of ours alone is unknown under the other prefix.
    assert_eq!(one("hsts", "max-age=1").faults[0].reason, Reason::UnknownAnnotation);
    let harmless = one("configuration-snippet", "more_set_headers \"A: b\";");
    assert_eq!(harmless.faults[0].severity, Severity::Refused);
    assert!(harmless.policy.closed.is_none());
    for protecting in ["deny all;", "auth_basic on;", "if ($x) { return 403; }"] {
        assert!(
            one("server-snippet", protecting).policy.closed.is_some(),
            "{protecting}"
        );
    }
    // What is said in fields of answers protects nothing here, whatever words it is said with.
    for harmless in [
        "more_set_headers \"X-Frame-Options: DENY\";",
        "more_set_headers \"Access-Control-Allow-Origin: *\"",
        "add_header Content-Security-Policy \"default-src 'self'; frame-ancestors 'none'; allow x\";\nproxy_hide_header X-Auth;",
        "if ($request_method = GET) { add_header X-Auth \"deny\" always; }",
    ] {
        let settings = one("configuration-snippet", harmless);
        assert!(settings.policy.closed.is_none(), "{harmless}");
        assert_eq!(settings.faults[0].severity, Severity::Refused);
    }
    for protecting in [
        "add_header A b; deny all;",
        "more_set_headers \"A: b\";\nauth_basic on;",
        "location / { add_header A b; allow 10.0.0.0/8; }",
        // Quotes within words are none, and what does not pair is not trusted.
        "add_header A don't; deny all; add_header B can't;",
        "add_header A \"b; deny all;",
        "add_header A # \"\n b; deny all; add_header B \"c\" d\";",
        "proxy_set_header Authorization x;",
    ] {
        assert!(
            one("server-snippet", protecting).policy.closed.is_some(),
            "{protecting}"
        );
    }
}

#[test]
fn settings_that_protect_and_cannot_be_read_close() {
    for pairs in [
        &[("whitelist-source-range", "10.0.0.0/8, nonsense")][..],
        &[("whitelist-source-range", "")],
        &[("denylist-source-range", "10.0.0.0/99")],
        &[("allowlist-source-range", "10.0.0.0/8\n0.0.0.0/0")],
        &[("auth-type", "digest"), ("auth-secret", "users")],
        &[("auth-type", "basic")],
        &[("auth-secret", "users")],
        &[("auth-type", "basic"), ("auth-secret", "missing")],
        &[("auth-type", "basic"), ("auth-secret", "broken")],
        &[("auth-type", "basic"), ("auth-secret", "empty")],
        &[("auth-type", "basic"), ("auth-secret", "other/users")],
        &[
            ("auth-type", "basic"),
            ("auth-secret", "users"),
            ("auth-secret-type", "odd"),
        ],
        &[("auth-type", "basic"), ("auth-secret", "users"), ("auth-realm", "a\"b")],
        &[("auth-url", "ftp://x/")],
        &[("auth-url", "http://127.0.0.1/")],
        &[("auth-url", "http://auth.example.com/")],
        &[("auth-url", "https://auth.example.com/")],
        &[("auth-url", "https://auth/")],
        &[("auth-url", "https://auth/"), ("auth-url-ca-secret", "missing")],
        &[("auth-url", "http://auth/x"), ("auth-response-headers", "a b:c")],
        &[("auth-tls-secret", "missing")],
        &[("auth-tls-secret", "ca")],
        &[("auth-tls-verify-client", "on")],
        &[("auth-tls-secret", "ca"), ("auth-tls-verify-client", "optional_no_ca")],
        &[("satisfy", "none")],
    ] {
        let settings = settings(pairs);
        assert!(settings.policy.closed.is_some(), "{pairs:?}");
        assert!(!settings.bad, "{pairs:?}: what protects counts from the newest version");
        assert!(settings.faults.iter().any(|f| f.reason == Reason::Closed), "{pairs:?}");
    }
}

#[test]
fn passwords_come_from_files_and_maps() {
    let file = settings(&[
        ("auth-type", "basic"),
        ("auth-secret", "users"),
        ("auth-realm", "Who are you?"),
    ]);
    let auth = file.policy.basic_auth.unwrap();
    assert_eq!(auth.realm, "Who are you?");
    let users: Vec<_> = auth
        .users
        .iter()
        .map(|(user, hash)| (user.as_str(), hash.as_str()))
        .collect();
    assert_eq!(users, [("ann", "{SHA}x"), ("bob", "$apr1$y")]);
    let map = settings(&[
        ("auth-type", "basic"),
        ("auth-secret", "d/map"),
        ("auth-secret-type", "auth-map"),
    ]);
    assert_eq!(map.policy.basic_auth.unwrap().users["carl"], "{SHA}z");
    // None of these hashes is whole: who has one cannot log in, and people are told so, without names.
    let told: Vec<_> = file.faults.iter().filter(|f| f.severity == Severity::Refused).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].text.contains("auth-secret: 2 of 2 users cannot log in"),
        "{}",
        told[0].text
    );
    assert!(!told[0].text.contains("bob") && file.policy.closed.is_none() && !file.bad);
    let none = one("auth-tls-verify-client", "off");
    assert!(none.policy.closed.is_none() && none.policy.client_certificate.is_none());
}

#[test]
fn other_values_that_cannot_be_read_make_the_object_bad() {
    for (name, value) in [
        ("proxy-body-size", "8x"),
        ("proxy-read-timeout", "soon"),
        ("ssl-redirect", "maybe"),
        ("permanent-redirect", "javascript:alert(1)"),
        ("permanent-redirect", "//evil.example"),
        ("permanent-redirect", "https://x/\u{7}"),
        ("permanent-redirect-code", "200"),
        ("x-forwarded-prefix", "api"),
        ("x-forwarded-prefix", "//evil"),
        ("x-forwarded-prefix", "/a b"),
        ("x-forwarded-prefix", "/$1"),
        ("mirror-target", "https://10.0.0.1/"),
        ("app-root", "https://x"),
        ("app-root", "//x"),
        ("rewrite-target", "x"),
        ("rewrite-target", "/$host"),
        ("rewrite-target", "/a;\nproxy_pass http://x"),
        ("backend-protocol", "FCGI"),
        ("upstream-hash-by", "$arg"),
        ("upstream-hash-by", "$host$nothing"),
        ("upstream-hash-by", "${host"),
        ("upstream-hash-by", "$"),
        ("upstream-vhost", "a b"),
        ("affinity", "ip"),
        ("session-cookie-name", "a=b"),
        ("session-cookie-path", "/;x"),
        ("session-cookie-samesite", "laxer"),
        ("canary-weight", "-1"),
        ("canary-by-header-pattern", "("),
        ("cors-allow-origin", "h"),
        ("cors-allow-methods", "GET;"),
        ("custom-http-errors", "200"),
        ("default-backend", "A_b"),
        ("server-alias", "~^x$"),
        ("limit-rps", "many"),
        ("mirror-target", "http://169.254.169.254/"),
        ("mirror-target", "http://$host/"),
        ("proxy-next-upstream", "http_418"),
    ] {
        let settings = one(name, value);
        assert!(settings.bad, "{name}: {value}");
        assert!(settings.policy.closed.is_none(), "{name}: {value}");
    }
    assert!(one("app-root", &format!("/{}", "x".repeat(20_000))).bad);
}

#[test]
fn redirects_follow_ingress_nginx() {
    assert_eq!(settings(&[]).policy.redirects.https, HttpsRedirect::WhenTls);
    assert_eq!(one("ssl-redirect", "false").policy.redirects.https, HttpsRedirect::Off);
    assert_eq!(
        one("force-ssl-redirect", "true").policy.redirects.https,
        HttpsRedirect::Always
    );
    let to = |pairs: &[(&str, &str)]| {
        settings(pairs)
            .policy
            .redirects
            .to
            .map(|to| (to.status.as_u16(), to.location))
    };
    let url = "https://x/$request_uri";
    assert_eq!(to(&[("permanent-redirect", url)]), Some((301, url.to_owned())));
    assert_eq!(
        to(&[("permanent-redirect", url), ("permanent-redirect-code", "308")]),
        Some((308, url.to_owned()))
    );
    assert_eq!(to(&[("temporal-redirect", "/a")]), Some((302, "/a".to_owned())));
    assert_eq!(
        to(&[("temporal-redirect", "/a"), ("permanent-redirect", url)]),
        Some((302, "/a".to_owned()))
    );
}

#[test]
fn a_part_of_a_list_of_aliases_that_is_none_costs_itself_alone() {
    let list = one("server-alias", "a.h, *.w.h ~^x$ b.h");
    assert_eq!(
        (&list.aliases[..], list.bad),
        (&["a.h".to_owned(), "b.h".to_owned()][..], false)
    );
    let told: Vec<_> = list
        .faults
        .iter()
        .filter(|fault| fault.severity == Severity::Refused)
        .collect();
    assert!(told.len() == 2 && told[0].text.contains("*.w.h"), "{told:?}");
    assert!(one("server-alias", "*.w.h").bad && one("server-alias", "").aliases.is_empty());
}

#[test]
fn sizes_times_and_counts_are_nginx_own() {
    for (text, bytes) in [
        ("0", None),
        ("1", Some(1)),
        ("8m", Some(8 << 20)),
        ("1G", Some(1 << 30)),
        ("64k", Some(65_536)),
    ] {
        let settings = one("proxy-body-size", text);
        assert!(!settings.bad);
        assert_eq!(settings.policy.body_limit_bytes, bytes, "{text}");
    }
    for (text, seconds) in [("5", 5), ("60s", 60), ("1m30s", 90), ("2h", 7200)] {
        let read = one("proxy-read-timeout", text).policy.timeouts.read;
        assert_eq!(read, Some(Duration::from_secs(seconds)), "{text}");
    }
    // Longer than the longest is the longest, and people are told so.
    for text in ["604800", "7d", "1w", "90000"] {
        let settings = one("proxy-read-timeout", text);
        assert_eq!(
            settings.policy.timeouts.read,
            Some(Duration::from_secs(86_400)),
            "{text}"
        );
        assert_eq!(
            (settings.faults[0].severity, settings.bad),
            (Severity::Approximated, false),
            "{text}"
        );
    }
    assert!(one("proxy-read-timeout", "1d").faults.is_empty());
    let limits = settings(&[("limit-rps", "10"), ("limit-rpm", "0"), ("limit-connections", "3")])
        .policy
        .limits;
    assert_eq!(
        (
            limits.requests_per_second,
            limits.requests_per_minute,
            limits.connections
        ),
        (Some(10), None, Some(3))
    );
    assert_eq!(limits.burst, 5);
}

#[test]
fn keys_of_upstream_hash_by_are_variables_with_text_between() {
    let text = |text: &str| HashKey::Text(text.to_owned());
    for (written, keys) in [
        ("$request_uri$host", vec![HashKey::Uri, HashKey::Host]),
        ("${request_uri}-text", vec![HashKey::Uri, text("-text")]),
        (
            "a:$uri:$arg_q.b",
            vec![
                text("a:"),
                HashKey::Path,
                text(":"),
                HashKey::Argument("q".to_owned()),
                text(".b"),
            ],
        ),
        ("uri", vec![HashKey::Path]),
    ] {
        assert_eq!(
            one("upstream-hash-by", written).policy.upstream.hash_by,
            Some(keys),
            "{written}"
        );
    }
    for (text, key) in [
        ("$request_uri", HashKey::Uri),
        ("$uri", HashKey::Path),
        ("$binary_remote_addr", HashKey::Client),
        ("${host}", HashKey::Host),
        ("$http_x_user", HashKey::Header("x-user".parse().unwrap())),
        ("$cookie_sid", HashKey::Cookie("sid".to_owned())),
        ("$arg_q", HashKey::Argument("q".to_owned())),
    ] {
        assert_eq!(
            one("upstream-hash-by", text).policy.upstream.hash_by,
            Some(vec![key]),
            "{text}"
        );
    }
}

#[test]
fn endpoints_are_spoken_to_and_chosen_as_asked() {
    for (text, protocol) in [
        ("HTTP", Protocol::Http1),
        ("https", Protocol::Https),
        ("GRPC", Protocol::H2c),
        ("GRPCS", Protocol::H2),
    ] {
        assert_eq!(
            one("backend-protocol", text).policy.upstream.protocol,
            Some(protocol),
            "{text}"
        );
    }
    let next = settings(&[
        ("proxy-next-upstream", "error http_502 http_503"),
        ("proxy-next-upstream-tries", "200"),
    ]);
    let retries = next.policy.retries;
    assert!(retries.on.bad_gateway && retries.on.unavailable && retries.on.broken && !retries.on.internal);
    assert_eq!(retries.tries, Some(10));
    let all = one(
        "proxy-next-upstream",
        "timeout invalid_header http_403 http_404 http_429",
    )
    .policy
    .retries
    .on;
    assert!(all.broken && all.late && all.forbidden && all.not_found && all.too_many && !all.unavailable);
    assert_eq!(
        one("proxy-next-upstream", "error off").policy.retries.on,
        RetryOn::default()
    );
    let any = one("proxy-next-upstream", "error non_idempotent");
    assert_eq!(any.faults[0].severity, Severity::Approximated);
    for text in ["lax", "LAX", "Lax"] {
        let cookie = settings(&[("affinity", "cookie"), ("session-cookie-samesite", text)]);
        assert_eq!(cookie.policy.affinity.unwrap().same_site, Some("Lax"), "{text}");
    }
    let affinity = settings(&[("affinity", "cookie"), ("session-cookie-max-age", "60")])
        .policy
        .affinity
        .unwrap();
    assert_eq!(
        (affinity.cookie.as_str(), affinity.max_age_s),
        ("INGRESSCOOKIE", Some(60))
    );
    assert!(one("session-cookie-name", "sid").policy.affinity.is_none());
    let canary = settings(&[("canary", "true"), ("canary-weight", "30"), ("canary-by-cookie", "c")])
        .canary
        .unwrap();
    assert_eq!(
        (canary.weight, canary.weight_total, canary.cookie.as_deref()),
        (30, 100, Some("c"))
    );
    assert!(one("canary-weight", "30").canary.is_none());
}

#[test]
fn our_own_names_are_read() {
    let own = |name: &str, value: &str| {
        let all = Annotations::from_iter([(format!("{OWN}{name}"), value.to_owned())]);
        read(&all, "d", &USERS, &Options::default())
    };
    assert_eq!(own("paths", "strict").policy.paths, PathMode::Strict);
    for (text, mode) in [
        ("compare", EncodedMode::Compare),
        ("allow", EncodedMode::Allow),
        ("refuse", EncodedMode::Refuse),
    ] {
        assert_eq!(own("encoded-paths", text).policy.encoded_paths, mode);
    }
    assert!(own("encoded-paths", "open").bad);
    assert_eq!(
        own("hsts", "max-age=60; preload").policy.hsts.unwrap(),
        "max-age=60; preload"
    );
    assert!(own("hsts", "max-age=60; evil").bad);
    let fields = own("response-headers", "X-A: b\n\nX-C:  d e\n").policy.response_headers;
    let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
    assert_eq!(fields, [("x-a", "b"), ("x-c", "d e")]);
    for bad in ["no colon", "a b: c", "Transfer-Encoding: chunked", "Content-Length: 1"] {
        assert!(own("response-headers", bad).bad, "{bad}");
    }
}

/// A NetworkPolicy that keeps a Pod from all but its own does not see who wrote an annotation.
#[test]
fn addresses_within_the_cluster_are_refused_as_targets() {
    let networks = ["10.244.0.0/16", "10.96.0.0/12", "192.0.2.1"];
    let mut options = Options {
        cluster: networks.map(|text| Network::parse(text).unwrap()).to_vec(),
        ..Options::default()
    };
    for inside in [
        "http://10.244.3.4:8080/",
        "http://10.96.0.10/",
        "http://192.0.2.1:9100/",
        "http://[::ffff:10.244.3.4]/",
    ] {
        let refused = target::parse(inside, "d", &options).unwrap_err();
        assert!(refused.contains("Pods, Services and nodes"), "{inside}: {refused}");
    }
    assert!(target::parse("http://192.0.2.2/", "d", &options).is_ok());
    options.allow_internal_targets = true;
    assert!(target::parse("http://10.244.3.4/", "d", &options).is_ok());
}

#[test]
fn targets_are_addresses_services_or_the_own_host_and_never_inside() {
    let mut options = Options {
        api_server: vec!["10.96.0.1".parse().unwrap()],
        ..Options::default()
    };
    let service = |name: &str, port| Place::Service {
        namespace: "d".to_owned(),
        name: name.to_owned(),
        port,
    };
    for (url, place, path) in [
        (
            "http://10.1.2.3:8080/check?x=1",
            Place::Address("10.1.2.3:8080".parse().unwrap()),
            "/check?x=1",
        ),
        (
            "https://[fd00::1]/a",
            Place::Address("[fd00::1]:443".parse().unwrap()),
            "/a",
        ),
        ("http://auth", service("auth", 80), "/"),
        (
            "http://auth.d.svc.cluster.local:4180/oauth2/auth",
            service("auth", 4180),
            "/oauth2/auth",
        ),
        (
            "https://auth.d.svc?rd=$escaped_request_uri",
            service("auth", 443),
            "/?rd=$escaped_request_uri",
        ),
        ("http://auth.d$request_uri", service("auth", 80), "/$request_uri"),
        ("https://$host/oauth2/auth", Place::OwnHost, "/oauth2/auth"),
    ] {
        let target = target::parse(url, "d", &options).unwrap();
        assert_eq!((target.place, target.path.as_str()), (place, path), "{url}");
    }
    for url in [
        "",
        "auth",
        "file:///etc/passwd",
        "http://",
        "http://127.0.0.1/",
        "http://127.1.2.3/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0/",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "http://224.0.0.1/",
        "http://localhost/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://10.96.0.1/api",
        "https://kubernetes.default.svc/api",
        "http://example.com.evil.org/",
        "http://user@auth/",
        "http://auth:99999/",
        "http://auth:0/",
        "http://auth /",
        "http://auth/\r\nX: y",
        "http://$arg_x/",
    ] {
        assert!(target::parse(url, "d", &options).is_err(), "{url}");
    }
    options.allow_internal_targets = true;
    for url in ["http://127.0.0.1/", "http://169.254.1.1/"] {
        assert!(target::parse(url, "d", &options).is_ok(), "{url}");
    }
}

#[test]
fn names_outside_are_taken_where_they_are_looked_up() {
    let mut options = Options::default();
    // Names outside are looked up only where there is somebody to ask; what other resolvers take for an address is no name.
    assert!(target::parse("http://auth.example.com/", "d", &options).is_err());
    options.dns = Some(([10, 96, 0, 10], 53).into());
    let outside = target::parse("https://Auth.Example.com:8443/x", "d", &options).unwrap();
    let name = Place::Name {
        host: "auth.example.com".to_owned(),
        port: 8443,
    };
    assert_eq!((outside.place, outside.path.as_str()), (name, "/x"));
    for url in [
        "http://0x7f.0.0.1/",
        "http://127.0.1/",
        "http://10-0-0-1.d.pod.cluster.local/",
        "http://a..example.com/",
        "http://sub.localhost/",
        "http://1.2.3.4.5/",
    ] {
        assert!(target::parse(url, "d", &options).is_err(), "{url}");
    }
}

#[test]
fn hostile_values_of_every_name_are_read_without_a_panic_and_never_open_what_protects() {
    let long = "a".repeat(70_000);
    let hostile = [
        "",
        " ",
        ",",
        "/",
        "$",
        "${",
        "$1",
        "://",
        "http://",
        "http://[",
        "http://]:1",
        "http://$",
        "https://$host",
        "-1",
        "0",
        "99999999999999999999",
        "1e9",
        "\u{0}",
        "\r\nX: y",
        "\u{e4}\u{1f600}",
        "((((",
        "[a-",
        "(?i)",
        "a{1000}{1000}",
        "\\",
        "\"",
        "';",
        "../..",
        "a/b/c",
        "::",
        "::/0",
        "*",
        "*.*",
        "~^(",
        "max-age=",
        ":",
        "a:",
        ":a",
        "1m1",
        "k",
        "\u{e4}k",
        "$http_",
        "$cookie_\u{e4}",
        long.as_str(),
    ];
    for (name, _) in NAMES {
        for prefix in [OWN, NGINX] {
            for value in hostile {
                let all = Annotations::from_iter([(format!("{prefix}{name}"), value.to_owned())]);
                let settings = read(&all, "d", &USERS, &Options::default());
                let protects = name.ends_with("source-range") || *name == "auth-type" || *name == "auth-url";
                let kept = !settings.policy.sources.allow.is_empty()
                    || !settings.policy.sources.deny.is_empty()
                    || settings.policy.external_auth.is_some();
                // An empty deny-list denies nobody, which is what it says.
                let nothing = *name == "denylist-source-range" && value.trim().trim_matches(',').is_empty();
                assert!(
                    !protects || kept || nothing || settings.policy.closed.is_some(),
                    "{name}: {value:.50}"
                );
            }
        }
    }
}
