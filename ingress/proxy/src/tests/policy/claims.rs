//! What clients say in fields that only this proxy, an authentication service or a front may say, under every spelling.
//!
//! The kinds are those of CVE-2026-39858, CVE-2026-35051 and CVE-2026-54764 (traefik's forward authentication), CVE-2026-88011 (dots in
//! names), CVE-2016-5385 (`Proxy`), and of what Rack takes for https.

use super::world::{Got, World, get, plain, service};
use crate::tests::ends::{Running, ask, listen};
use crate::tests::http2::client_of;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const SPOOFABLE: [&str; 11] = [
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
    let all: Vec<&str> = [&SPOOFABLE[..], &FAMILY, &NEVER, &["X-Authenticated-User", "X-Role"]].concat();
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
    for name in spelled(&[&SPOOFABLE[..], &FAMILY, &NEVER].concat(), "-._") {
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

/// Trailers of a client: some that servers take for fields of the head, and one of its own.
const TRAILED: [&str; 16] = [
    "x-user",
    "X-Forwarded-For",
    "ssl-client-verify",
    "x-auth-request-user",
    "x_user",
    "x.user",
    "authorization",
    "cookie",
    "content-length",
    "transfer-encoding",
    "host",
    "range",
    "if-match",
    "content-type",
    "x-request-id",
    "x-own",
];

/// An endpoint of HTTP/1.1 or HTTP/2 that tells the trailers it got.
async fn trailed(http2: bool) -> (SocketAddr, UnboundedReceiver<HeaderMap>) {
    let (listener, address) = listen().await;
    let (tell, told) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let tell = tell.clone();
                async move {
                    let body = request.into_body().collect().await;
                    let _ = tell.send(body.unwrap().trailers().cloned().unwrap_or_default());
                    Ok::<_, Infallible>(Response::new(String::new()))
                }
            });
            let stream = TokioIo::new(stream);
            match http2 {
                true => drop(tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service),
                )),
                false => drop(tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(stream, service),
                )),
            }
        }
    });
    (address, told)
}

async fn trail_http1(proxy: &Running) -> String {
    let named = TRAILED.join(", ");
    let trailers: String = TRAILED.iter().map(|name| format!("{name}: spoofed\r\n")).collect();
    let text = format!(
        "POST / HTTP/1.1\r\nHost: h.io\r\nConnection: close\r\nTrailer: {named}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n{trailers}\r\n"
    );
    ask(proxy.address, &text).await
}

async fn trail_http2(proxy: &Running) {
    let mut trailers = HeaderMap::new();
    // h2 itself refuses those that end at a hop.
    for name in TRAILED.iter().filter(|name| **name != "transfer-encoding") {
        let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).unwrap();
        trailers.insert(name, HeaderValue::from_static("spoofed"));
    }
    let frames = [Frame::data(Bytes::from_static(b"x")), Frame::trailers(trailers)];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
    let request = Request::post("http://h.io/")
        .header("trailer", TRAILED.join(", "))
        .body(body);
    let mut sender = client_of(proxy).await;
    assert_eq!(sender.send_request(request.unwrap()).await.unwrap().status(), 200);
}

/// RFC 9110, 6.5.1: a server may merge trailers into the fields of the head.
#[tokio::test]
async fn trailers_say_nothing_that_a_client_must_not_say() {
    let auth = plain("auth").await;
    for http2 in [false, true] {
        let (app, mut told) = trailed(http2).await;
        let protocol = if http2 { "GRPC" } else { "HTTP" };
        let annotations = [
            ("auth-url", "http://auth/check"),
            ("auth-response-headers", "X-User"),
            ("backend-protocol", protocol),
        ];
        let proxy = World::new()
            .service("s", &[app])
            .service("auth", &[auth.address])
            .ingress(&annotations, "h.io", ("Prefix", "/", "s"))
            .start()
            .await;
        let answer = trail_http1(&proxy).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let by_http1 = told.recv().await.unwrap();
        trail_http2(&proxy).await;
        let by_http2 = told.recv().await.unwrap();
        for trailers in [by_http1, by_http2] {
            let names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, ["x-own"], "to HTTP/2: {http2}");
        }
    }
}
