//! What clients say in fields that only this proxy, an authentication service or a front may say, under every spelling.
//!
//! The kinds are those of CVE-2026-39858, CVE-2026-35051 and CVE-2026-54764 (traefik's forward authentication), CVE-2026-88011 (dots in
//! names), CVE-2016-5385 (`Proxy`), and of what Rack takes for https.

use super::world::{Got, World, get, plain, service};

const TOLD: [&str; 11] = [
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-For",
    "X-Forwarded-Port",
    "X-Forwarded-Scheme",
    "X-Real-IP",
    "X-Original-URL",
    "X-Original-Method",
    "X-Auth-Request-Redirect",
];
const FAMILY: [&str; 13] = [
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X-Forwarded-By",
    "X-Forwarded-User",
    "X-Forwarded-Groups",
    "X-Forwarded-Client-Cert",
    "X-Forwarded",
    "Forwarded",
    "X-Scheme",
    "X-Url-Scheme",
    "Front-End-Https",
    "X-Original-Forwarded-For",
];
const NEVER: [&str; 3] = ["Proxy", "Ssl-Client-Verify", "Ssl-Client-Cert"];

fn spoofed(got: &Got) -> Vec<&str> {
    let fields = got.headers.iter().filter(|(_, value)| *value == "spoofed");
    fields.map(|(name, _)| name.as_str()).collect()
}

fn spelled(names: &[&str], bytes: &str) -> Vec<String> {
    let all = names
        .iter()
        .flat_map(|name| bytes.chars().map(|byte| name.replace('-', &byte.to_string())));
    all.collect()
}

#[tokio::test]
async fn no_alias_of_what_is_decided_by_reaches_the_authentication_service_or_the_endpoint() {
    let app = plain("app").await;
    let auth = service("auth", |_, _| (200, vec![("x-authenticated-user", "ann".to_owned())])).await;
    let annotations = [
        ("auth-url", "http://auth.d.svc.cluster.local/check"),
        ("auth-response-headers", "X-Authenticated-User, X-Role"),
    ];
    let world = World::new()
        .service("s", &[app.address])
        .service("auth", &[auth.address]);
    let proxy = world.ingress(&annotations, "h.io", ("Prefix", "/", "s")).start().await;
    let all: Vec<&str> = [&TOLD[..], &FAMILY, &NEVER, &["X-Authenticated-User", "X-Role"]].concat();
    for name in spelled(&all, "-_.!~") {
        assert_eq!(
            get(&proxy, "/private", &[(&name, "spoofed")]).await.status,
            200,
            "{name}"
        );
        let (asked, got) = (auth.next().await, app.next().await);
        assert_eq!(spoofed(&asked), [""; 0], "{name} at the authentication service");
        assert_eq!(spoofed(&got), [""; 0], "{name} at the endpoint");
        assert_eq!(
            (asked.field("x-forwarded-uri"), asked.field("x-scheme")),
            (Some("/private"), Some("http"))
        );
        assert_eq!(got.headers.get_all("x-authenticated-user").iter().count(), 1);
    }
    let named = [(
        "Connection",
        "X-Forwarded-Uri, X-Real-IP, X-Scheme, X-Authenticated-User",
    )];
    get(&proxy, "/private", &named).await;
    let (asked, got) = (auth.next().await, app.next().await);
    assert!(asked.field("x-forwarded-uri").is_some() && asked.field("x-real-ip").is_some());
    assert_eq!(
        (got.field("x-authenticated-user"), got.field("x-scheme")),
        (Some("ann"), Some("http"))
    );
}

#[tokio::test]
async fn the_whole_family_is_ours_to_say_unless_a_front_says_it() {
    let app = plain("app").await;
    let world = || {
        World::new()
            .service("s", &[app.address])
            .ingress(&[], "h.io", ("Prefix", "/", "s"))
    };
    let untrusting = world().start().await;
    for name in spelled(&[&TOLD[..], &FAMILY, &NEVER].concat(), "-._") {
        get(&untrusting, "/", &[(&name, "spoofed")]).await;
        let got = app.next().await;
        assert_eq!(spoofed(&got), [""; 0], "{name}");
        assert_eq!(
            (got.field("x-forwarded-scheme"), got.field("x-scheme")),
            (Some("http"), Some("http")),
            "{name}"
        );
    }
    let trusting = world().trusting().start().await;
    for name in [
        "X-Forwarded-User",
        "X-Forwarded-Prefix",
        "X-Forwarded-Ssl",
        "Forwarded",
        "Front-End-Https",
    ] {
        get(&trusting, "/", &[(name, "spoofed")]).await;
        assert_eq!(spoofed(&app.next().await).len(), 1, "{name} of a front passes");
    }
    for name in [spelled(&NEVER, "-._"), spelled(&FAMILY[..7], "._")].concat() {
        get(&trusting, "/", &[(&name, "spoofed")]).await;
        assert_eq!(spoofed(&app.next().await), [""; 0], "{name} of a front");
    }
    get(
        &trusting,
        "/",
        &[("X-Forwarded-Proto", "https"), ("X-Scheme", "spoofed")],
    )
    .await;
    let got = app.next().await;
    assert_eq!(
        (got.field("x-forwarded-scheme"), got.field("x-scheme")),
        (Some("https"), Some("https"))
    );
}

#[tokio::test]
async fn protection_by_address_closes_when_a_front_tells_no_address_that_can_be_read() {
    let app = plain("app").await;
    let world = World::new().service("s", &[app.address]).trusting();
    let world = world.ingress(
        &[
            ("whitelist-source-range", "203.0.113.0/24,2001:db8::/32"),
            ("force-ssl-redirect", "true"),
        ],
        "h.io",
        ("Prefix", "/", "s"),
    );
    let world = world.ingress(
        &[("whitelist-source-range", "127.0.0.0/8,0.0.0.0/8")],
        "h.io",
        ("Prefix", "/inside", "s"),
    );
    let world = world.ingress(
        &[("denylist-source-range", "198.51.100.0/24")],
        "h.io",
        ("Prefix", "/most", "s"),
    );
    let proxy = world.start().await;
    for (hops, outside, inside, most) in [
        ("203.0.113.5", 200, 403, 200),
        ("203.0.113.5:54321", 200, 403, 200),
        ("[2001:db8::1]:443", 200, 403, 200),
        ("\"203.0.113.5:1\", 127.0.0.2", 200, 403, 200),
        ("198.51.100.5:443", 403, 403, 403),
        ("203.0.113.5, 198.51.100.5:443", 403, 403, 403),
        ("[2001:db9::1]:443", 403, 403, 200),
        ("unknown", 403, 403, 403),
        ("_hidden", 403, 403, 403),
        ("203.0.113.5, nobody", 403, 403, 403),
        ("0.0.0.0", 403, 403, 403),
        ("", 403, 403, 403),
    ] {
        let fields = [("X-Forwarded-For", hops), ("X-Forwarded-Proto", "https")];
        let mut statuses = Vec::new();
        for path in ["/", "/inside", "/most"] {
            statuses.push(get(&proxy, path, &fields).await.status);
        }
        assert_eq!(statuses, [outside, inside, most], "{hops:?}");
    }
    // The front itself, which asks whether we are well.
    assert_eq!(get(&proxy, "/inside", &[]).await.status, 200);
    for (protocols, wanted) in [("https, http", 200), ("wss", 200), ("HTTPS", 200), ("http", 308)] {
        let fields = [("X-Forwarded-For", "203.0.113.5"), ("X-Forwarded-Proto", protocols)];
        assert_eq!(get(&proxy, "/", &fields).await.status, wanted, "{protocols}");
    }
}
