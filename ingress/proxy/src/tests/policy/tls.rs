//! TLS to endpoints and to an authentication service: whole requests there and back, what is checked, what is shown.

use super::world::{World, get, plain, send};
use crate::limits::Limits;
use crate::tests::ends::{listen, status};
use crate::tls::tests::pki::{Authority, Pair};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use landfall_ingress_tls::provider::provider;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

const ROOT: (&str, &str, &str) = ("Prefix", "/", "a");

/// An endpoint that speaks TLS alone.
struct Endpoint {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

/// Starts one that shows this certificate, offers these protocols and, where an authority is named, demands a certificate of it. It
/// answers with JSON of what it saw, and trailers over HTTP/2.
async fn endpoint(pair: &Pair, alpn: &[&str], demands: Option<&Authority>) -> Endpoint {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match demands {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(authority.der.clone().into()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = builder.with_single_cert(vec![pair.der()], pair.key()).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            count.fetch_add(1, Ordering::SeqCst);
            let session = stream.get_ref().1;
            let name = session.server_name().map(str::to_owned);
            let shown = session.peer_certificates().map(|chain| chain[0].to_vec());
            let is_http2 = session.alpn_protocol() == Some(b"h2");
            let service = service_fn(move |request: Request<Incoming>| {
                let (name, shown) = (name.clone(), shown.clone());
                async move { Ok::<_, Infallible>(answer(request, name, shown).await) }
            });
            let stream = TokioIo::new(stream);
            if is_http2 {
                tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service));
            } else {
                tokio::spawn(http1::Builder::new().serve_connection(stream, service));
            }
        }
    });
    Endpoint { address, connections }
}

/// Handshakes of a debug build beside other work take their time.
fn patient() -> Limits {
    Limits {
        connect: Duration::from_secs(20),
        subrequest: Duration::from_secs(30),
        ..Limits::default()
    }
}

type Body = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answer(request: Request<Incoming>, name: Option<String>, shown: Option<Vec<u8>>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let seen = json!({ "version": format!("{:?}", parts.version), "method": parts.method.as_str(), "target": parts.uri.to_string(),
        "server_name": name, "shown": shown, "body": String::from_utf8_lossy(&body) });
    let mut frames = vec![Ok(Frame::data(Bytes::from(seen.to_string())))];
    if parts.version == hyper::Version::HTTP_2 {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", "1".parse().unwrap());
        frames.push(Ok(Frame::trailers(trailers)));
    }
    Response::new(StreamBody::new(futures_util::stream::iter(frames)))
}

fn seen(body: &str) -> serde_json::Value {
    // The client's own reader leaves the framing of chunks in.
    let (start, end) = (body.find('{').expect("JSON"), body.rfind('}').expect("JSON"));
    serde_json::from_str(&body[start..=end]).unwrap()
}

#[tokio::test]
async fn backend_protocol_https_and_grpcs_carry_whole_requests() {
    let ca = Authority::new("ca");
    for (protocol, version, alpn) in [("HTTPS", "HTTP/1.1", "http/1.1"), ("GRPCS", "HTTP/2.0", "h2")] {
        let a = endpoint(&ca.server(&["pod.local"]), &[alpn], None).await;
        let proxy = World::new()
            .limits(patient())
            .service("a", &[a.address])
            .ingress(&[("backend-protocol", protocol)], "h.io", ROOT)
            .start()
            .await;
        for n in 0..3 {
            let body = format!("body {n}");
            let head = format!(
                "POST /x?n={n} HTTP/1.1\r\nHost: h.io\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let text = crate::tests::ends::ask(proxy.address, &head).await;
            assert_eq!(status(&text), "200", "{text}");
            let saw = seen(text.split_once("\r\n\r\n").unwrap().1);
            assert_eq!(
                (&saw["version"], &saw["method"], &saw["body"]),
                (&json!(version), &json!("POST"), &json!(body))
            );
            let target = saw["target"].as_str().unwrap();
            assert!(target.ends_with(&format!("/x?n={n}")), "{target}");
        }
        assert_eq!(
            a.connections.load(Ordering::SeqCst),
            1,
            "{protocol}: its connection is kept"
        );
    }
}

#[tokio::test]
async fn proxy_ssl_verify_lets_only_endpoints_of_the_authority_and_the_name_have_requests() {
    let (ca, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let a = endpoint(&ca.server(&["pod.local"]), &["http/1.1"], None).await;
    for (secret, name, wanted) in [
        ("ca", "pod.local", 200),
        ("ca", "other.local", 502),
        ("stranger", "pod.local", 502),
    ] {
        let annotations = [
            ("backend-protocol", "HTTPS"),
            ("proxy-ssl-verify", "on"),
            ("proxy-ssl-secret", secret),
            ("proxy-ssl-name", name),
        ];
        let proxy = World::new()
            .limits(patient())
            .service("a", &[a.address])
            .secret("ca", "ca.crt", &ca.pem())
            .secret("stranger", "ca.crt", &stranger.pem())
            .ingress(&annotations, "h.io", ROOT)
            .start()
            .await;
        let answer = get(&proxy, "/", &[]).await;
        assert_eq!(answer.status, wanted, "{secret} {name}");
        if wanted == 200 {
            assert_eq!(seen(&answer.body)["server_name"], "pod.local");
        }
    }
}

#[tokio::test]
async fn proxy_ssl_secret_shows_its_certificate_to_endpoints_that_ask_for_one() {
    let (ca, clients) = (Authority::new("ca"), Authority::new("clients"));
    let own = clients.client("landfall");
    for (protocol, alpn) in [("HTTPS", "http/1.1"), ("GRPCS", "h2")] {
        let a = endpoint(&ca.server(&["pod.local"]), &[alpn], Some(&clients)).await;
        let world = |secret| {
            World::new()
                .limits(patient())
                .service("a", &[a.address])
                .secret("whole", "tls.crt", &own.chain_pem())
                .secret("whole", "tls.key", &own.key_pem())
                .secret("whole", "ca.crt", &ca.pem())
                .secret("bare", "ca.crt", &ca.pem())
                .ingress(
                    &[
                        ("backend-protocol", protocol),
                        ("proxy-ssl-secret", secret),
                        ("proxy-ssl-verify", "on"),
                    ],
                    "h.io",
                    ROOT,
                )
        };
        let proxy = world("whole").start().await;
        let answer = get(&proxy, "/", &[]).await;
        assert_eq!(answer.status, 200, "{protocol}: {answer:?}");
        assert_eq!(seen(&answer.body)["shown"], json!(own.der));
        // Without it there is no way in, and no other route lends it.
        let proxy = world("bare").start().await;
        assert_eq!(get(&proxy, "/", &[]).await.status, 502, "{protocol}");
    }
}

#[tokio::test]
async fn auth_url_over_https_is_asked_only_when_it_proves_to_be_the_one_that_is_named() {
    let (ca, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let a = plain("alpha").await;
    let auth = endpoint(&ca.server(&["auth.d.svc"]), &["http/1.1"], None).await;
    let world = |url: &str, secret: Option<&str>| {
        let mut annotations = vec![("nginx.ingress.kubernetes.io/auth-url", url)];
        annotations.extend(secret.map(|secret| ("ingress.landfall.dev/auth-url-ca-secret", secret)));
        World::new()
            .limits(patient())
            .service("a", &[a.address])
            .service("auth", &[auth.address])
            .secret("ca", "ca.crt", &ca.pem())
            .secret("stranger", "ca.crt", &stranger.pem())
            .named(&annotations, "h.io", ROOT)
    };
    let url = "https://auth.d.svc:80/check";
    for (url, secret, wanted, reason) in [
        (url, Some("ca"), 200, None),
        (url, Some("stranger"), 502, Some("auth_broken")),
        ("https://auth:80/check", Some("ca"), 502, Some("auth_broken")),
        (url, Some("missing"), 503, Some("closed")),
        (url, None, 503, Some("closed")),
    ] {
        let proxy = world(url, secret).start().await;
        for _ in 0..2 {
            let answer = send(&proxy, "GET", "h.io", "/", &[]).await;
            assert_eq!(
                (answer.status, answer.field("x-landfall-reason")),
                (wanted, reason),
                "{url} {secret:?}"
            );
        }
    }
    // Both questions that were asked went over one connection.
    assert_eq!(auth.connections.load(Ordering::SeqCst), 1);
    assert_eq!(a.asked().len(), 2);
}
