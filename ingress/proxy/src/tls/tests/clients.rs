//! Client certificates (`auth-tls-*`) through the whole proxy, and ways around them that must not exist.

use super::ends::{Client, class, listen, view};
use super::pki::{Authority, secret};
use crate::limits::Limits;
use crate::state::State;
use crate::tls::Acceptor;
use crate::{Front, Proxy, serve};
use k8s_openapi::api::core::v1::Secret;
use landfall_ingress_tls::Options;
use landfall_ingress_translate::options::Options as RouteOptions;
use landfall_ingress_translate::route::{Builder, Objects, Snapshot};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// An endpoint that answers with the head that it got.
async fn endpoint() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = String::new();
                let mut buffer = [0; 4096];
                while !head.ends_with("\r\n\r\n") {
                    match stream.read(&mut buffer).await {
                        Ok(read) if read > 0 => head.push_str(&String::from_utf8_lossy(&buffer[..read])),
                        _ => return,
                    }
                }
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{head}",
                    head.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

/// A proxy with a plain port and one with TLS.
struct World {
    plain: SocketAddr,
    https: SocketAddr,
    state: Arc<State>,
    endpoint: SocketAddr,
    server: Authority,
    _stop: watch::Sender<bool>,
}

/// What a host demands: name, authority's Secret, more annotations.
type Demand<'a> = (&'a str, Option<&'a str>, Value);

impl World {
    async fn start(authorities: &[(&str, &Authority)], demands: &[Demand<'_>]) -> Self {
        Self::with(authorities, demands, &Options::default()).await
    }

    async fn with(authorities: &[(&str, &Authority)], demands: &[Demand<'_>], options: &Options) -> Self {
        let state = Arc::new(State::default());
        let acceptor = Arc::new(Acceptor::new(Arc::clone(&state), options).unwrap());
        let proxy = Proxy::new(Arc::clone(&state), Limits::default(), Front::default());
        let (stop, stopping) = watch::channel(false);
        let ((plain, plain_address), (https, https_address)) = (listen().await, listen().await);
        tokio::spawn(serve(Arc::clone(&proxy), plain.into(), None, stopping.clone()));
        tokio::spawn(serve(proxy, https.into(), Some(acceptor), stopping));
        let world = Self {
            plain: plain_address,
            https: https_address,
            state,
            endpoint: endpoint().await,
            server: Authority::new("server"),
            _stop: stop,
        };
        world.state.table.store(world.snapshot(authorities, demands).table);
        world
    }

    fn snapshot(&self, authorities: &[(&str, &Authority)], demands: &[Demand<'_>]) -> Snapshot {
        let of = |(name, authority): &(&str, &Authority)| secret(name, &[("ca.crt", &authority.pem())]);
        self.snapshot_with(demands, authorities.iter().map(of).collect())
    }

    fn snapshot_with(&self, demands: &[Demand<'_>], mut secrets: Vec<Secret>) -> Snapshot {
        fn object<K: serde::de::DeserializeOwned>(value: Value) -> Arc<K> {
            Arc::new(serde_json::from_value(value).unwrap())
        }
        secrets.extend(
            demands
                .iter()
                .map(|(host, ..)| self.server.server(&[host]).secret(host)),
        );
        let ingress = |(i, (host, authority, more)): (usize, &Demand<'_>)| {
            let mut annotations = more.clone();
            if let Some(authority) = authority {
                annotations["nginx.ingress.kubernetes.io/auth-tls-secret"] = json!(format!("default/{authority}"));
            }
            annotations["nginx.ingress.kubernetes.io/ssl-redirect"] = json!("false");
            let path = format!("/{}", if i == 0 { "" } else { "p" });
            let backend = json!({ "service": { "name": "s", "port": { "number": 80 } } });
            object(
                json!({ "metadata": { "namespace": "default", "name": format!("i{i}"), "annotations": annotations },
                "spec": { "ingressClassName": "landfall", "tls": [{ "hosts": [host], "secretName": host }], "rules": [{ "host": host,
                    "http": { "paths": [{ "path": path, "pathType": "Prefix", "backend": backend }] } }] } }),
            )
        };
        let objects = Objects {
            ingresses: demands.iter().enumerate().map(ingress).collect(),
            classes: vec![Arc::new(class())],
            ..Objects::default()
        };
        let service =
            json!({ "metadata": { "name": "s", "namespace": "default" }, "spec": { "ports": [{ "port": 80 }] } });
        objects.services.read_service(service).unwrap();
        let slice = json!({ "addressType": "IPv4",
            "metadata": { "name": "s", "namespace": "default", "labels": { "kubernetes.io/service-name": "s" } },
            "ports": [{ "name": "", "port": self.endpoint.port() }], "endpoints": [{ "addresses": [self.endpoint.ip()] }] });
        objects.services.read_slice(slice).unwrap();
        let secrets = view(secrets);
        Builder::new(RouteOptions::default()).build(&objects, &secrets)
    }

    /// The answer over TLS; `None` when the handshake, or what follows it at once, fails.
    async fn ask(&self, client: &Client, name: &str, host: &str, path: &str) -> Option<String> {
        let shown = client.connect(self.https, name).await.ok()?;
        exchange(shown.stream, host, path).await
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str, path: &str) -> Option<String> {
    let spoof = "ssl-client-verify: SUCCESS\r\nssl-client-subject-dn: CN=root\r\nssl-client-cert: forged\r\n";
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{spoof}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    // Some servers end without a closing alert; what came counts.
    let _ = stream.read_to_end(&mut answer).await;
    Some(String::from_utf8(answer).unwrap()).filter(|answer| !answer.is_empty())
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

#[tokio::test]
async fn a_demanded_certificate_must_be_shown_and_known_to_the_authority() {
    let (ca, stranger) = (Authority::new("clients"), Authority::new("stranger"));
    let world = World::start(
        &[("ca", &ca)],
        &[("a.com", Some("ca"), json!({})), ("b.com", None, json!({}))],
    )
    .await;
    let nobody = Client::trusting(&world.server);
    let known = Client::with_certificate(&world.server, &ca.client("alice"));
    let unknown = Client::with_certificate(&world.server, &stranger.client("mallory"));
    let answer = world.ask(&known, "a.com", "a.com", "/").await.unwrap();
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(
        answer.contains("ssl-client-verify: SUCCESS") && answer.contains("CN=alice"),
        "{answer}"
    );
    assert!(
        !answer.contains("ssl-client-cert") && !answer.contains("CN=root"),
        "{answer}"
    );
    let answer = world.ask(&nobody, "a.com", "a.com", "/").await.unwrap();
    assert!(status(&answer).starts_with('4') && status(&answer) != "421", "{answer}");
    assert!(
        world
            .ask(&unknown, "a.com", "a.com", "/")
            .await
            .is_none_or(|a| status(&a).starts_with('4'))
    );
    // A host without a demand asks nobody, and believes no claims.
    let answer = world.ask(&unknown, "b.com", "b.com", "/p").await.unwrap();
    assert!(status(&answer) == "200" && !answer.contains("ssl-client"), "{answer}");
}

#[tokio::test]
async fn neither_plain_http_nor_another_server_name_leads_past_a_demanded_certificate() {
    let ca = Authority::new("clients");
    let world = World::start(
        &[("ca", &ca)],
        &[("a.com", Some("ca"), json!({})), ("b.com", None, json!({}))],
    )
    .await;
    let known = Client::with_certificate(&world.server, &ca.client("alice"));
    let plain = TcpStream::connect(world.plain).await.unwrap();
    let answer = exchange(plain, "a.com", "/").await.unwrap();
    assert_eq!(status(&answer), "421", "{answer}");
    // With a certificate that would do, too: the handshake of b.com did not ask for it.
    for client in [&Client::trusting(&world.server), &known] {
        let answer = world.ask(client, "b.com", "a.com", "/").await.unwrap();
        assert_eq!(status(&answer), "421", "{answer}");
    }
    // The other way round nothing is demanded.
    let answer = world.ask(&known, "a.com", "b.com", "/p").await.unwrap();
    assert_eq!(status(&answer), "200", "{answer}");
    let nameless = Client::with_certificate(&world.server, &ca.client("alice")).nameless();
    if let Some(answer) = world.ask(&nameless, "a.com", "a.com", "/").await {
        assert_eq!(status(&answer), "421", "{answer}");
    }
}

#[tokio::test]
async fn an_old_connection_or_ticket_does_not_outlive_a_new_demand() {
    let ca = Authority::new("clients");
    let world = World::start(&[("ca", &ca)], &[("a.com", None, json!({}))]).await;
    let client = Client::trusting(&world.server);
    let kept = client.connect(world.https, "a.com").await.unwrap();
    // Takes a ticket.
    assert_eq!(status(&world.ask(&client, "a.com", "a.com", "/").await.unwrap()), "200");
    let demanding = world.snapshot(&[("ca", &ca)], &[("a.com", Some("ca"), json!({}))]);
    world.state.table.store(demanding.table);
    let answer = exchange(kept.stream, "a.com", "/").await.unwrap();
    assert_eq!(status(&answer), "421", "{answer}");
    let answer = world.ask(&client, "a.com", "a.com", "/").await;
    assert!(answer.is_none_or(|a| status(&a).starts_with('4')));
}

#[tokio::test]
async fn authorities_with_a_revocation_list_close_their_routes() {
    let ca = Authority::new("clients");
    let world = World::start(&[("ca", &ca)], &[("a.com", Some("ca"), json!({}))]).await;
    let snapshot = world.snapshot_with(
        &[("a.com", Some("ca"), json!({}))],
        vec![secret("ca", &[("ca.crt", &ca.pem()), ("ca.crl", "x")])],
    );
    world.state.table.store(snapshot.table);
    let known = Client::with_certificate(&world.server, &ca.client("alice"));
    let answer = world.ask(&known, "a.com", "a.com", "/").await.unwrap();
    assert_eq!(status(&answer), "503", "{answer}");
}

#[tokio::test]
async fn optional_certificates_may_be_left_out_and_passed_ones_go_on() {
    let ca = Authority::new("clients");
    let more = json!({ "nginx.ingress.kubernetes.io/auth-tls-verify-client": "optional",
        "nginx.ingress.kubernetes.io/auth-tls-pass-certificate-to-upstream": "true" });
    let world = World::start(&[("ca", &ca)], &[("a.com", Some("ca"), more)]).await;
    let answer = world
        .ask(&Client::trusting(&world.server), "a.com", "a.com", "/")
        .await
        .unwrap();
    assert!(
        status(&answer) == "200" && answer.contains("ssl-client-verify: NONE"),
        "{answer}"
    );
    let known = Client::with_certificate(&world.server, &ca.client("alice"));
    let answer = world.ask(&known, "a.com", "a.com", "/").await.unwrap();
    assert!(
        answer.contains("ssl-client-cert: -----BEGIN%20CERTIFICATE-----%0A"),
        "{answer}"
    );
    let stranger = Authority::new("stranger");
    let unknown = Client::with_certificate(&world.server, &stranger.client("mallory"));
    assert!(
        world
            .ask(&unknown, "a.com", "a.com", "/")
            .await
            .is_none_or(|a| status(&a) != "200")
    );
}

#[tokio::test]
async fn two_routes_of_a_host_with_different_authorities_take_each_their_own() {
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let demands = [("a.com", Some("one"), json!({})), ("a.com", Some("two"), json!({}))];
    let world = World::start(&[("one", &one), ("two", &two)], &demands).await;
    let alice = Client::with_certificate(&world.server, &one.client("alice"));
    let bob = Client::with_certificate(&world.server, &two.client("bob"));
    for (client, path, wanted) in [
        (&alice, "/", true),
        (&alice, "/p", false),
        (&bob, "/", false),
        (&bob, "/p", true),
    ] {
        let answer = world.ask(client, "a.com", "a.com", path).await.unwrap();
        assert_eq!(status(&answer) == "200", wanted, "{path}: {answer}");
    }
}

#[tokio::test]
async fn s18_the_host_picks_the_route_whatever_the_server_name_unless_strict() {
    let demands = [("a.com", None, json!({})), ("b.com", None, json!({}))];
    let world = World::start(&[], &demands).await;
    let client = Client::trusting(&world.server);
    let answer = world.ask(&client, "a.com", "b.com", "/p").await.unwrap();
    assert!(
        status(&answer) == "200" && answer.contains("x-forwarded-proto: https"),
        "{answer}"
    );
    let strict = Options {
        strict_sni: true,
        ..Options::default()
    };
    let world = World::with(&[], &demands, &strict).await;
    let client = Client::trusting(&world.server);
    assert_eq!(
        status(&world.ask(&client, "a.com", "b.com", "/p").await.unwrap()),
        "421"
    );
    assert_eq!(status(&world.ask(&client, "a.com", "a.com", "/").await.unwrap()), "200");
}
