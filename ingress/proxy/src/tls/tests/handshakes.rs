//! Handshakes as clients see them (S18, S19), and their bounds.

use super::ends::{Client, ingress, listen, snapshot};
use super::pki::{Authority, Pair, secret};
use crate::state::State;
use crate::tls::Acceptor;
use crate::tls::accept::Refused;
use k8s_openapi::api::core::v1::Secret;
use landfall_ingress_tls::{MinVersion, Options, Session};
use landfall_ingress_translate::route::Snapshot;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ProtocolVersion};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A port where every connection that shook hands is greeted.
struct Server {
    address: SocketAddr,
    state: Arc<State>,
    outcomes: UnboundedReceiver<Result<Session, Refused>>,
}

impl Server {
    async fn start(snapshot: Snapshot, options: &Options) -> Self {
        Self::bounded(snapshot, options, Duration::from_secs(10), 100).await
    }

    async fn bounded(snapshot: Snapshot, options: &Options, longest: Duration, most: usize) -> Self {
        let state = Arc::new(State::default());
        state.table.store(snapshot.table);
        let acceptor = Acceptor::new(Arc::clone(&state), options)
            .unwrap()
            .with_bounds(longest, most);
        let acceptor = Arc::new(acceptor);
        let (listener, address) = listen().await;
        let (sender, outcomes) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, sender) = (Arc::clone(&acceptor), sender.clone());
                tokio::spawn(async move {
                    let outcome = match acceptor.accept(stream).await {
                        Ok((mut stream, session)) => {
                            let _ = stream.write_all(b"hi").await;
                            let _ = stream.shutdown().await;
                            Ok(session)
                        }
                        Err(refused) => Err(refused),
                    };
                    let _ = sender.send(outcome);
                });
            }
        });
        Self {
            address,
            state,
            outcomes,
        }
    }

    async fn outcome(&mut self) -> Result<Session, Refused> {
        self.outcomes.recv().await.unwrap()
    }
}

/// `a.com` with the certificate of this Secret.
fn one_host(secret: Vec<Secret>) -> Snapshot {
    let item = json!([{ "hosts": ["a.com"], "secretName": "a" }]);
    snapshot(vec![ingress("default", "a", 1, &["a.com"], item)], secret)
}

fn wild(ca: &Authority) -> (Pair, Pair, Snapshot) {
    let (precise, wild) = (ca.server(&["a.com"]), ca.server(&["*.b.com"]));
    let snapshot = snapshot(
        vec![
            ingress(
                "default",
                "a",
                1,
                &["a.com"],
                json!([{ "hosts": ["a.com"], "secretName": "a" }]),
            ),
            ingress(
                "default",
                "b",
                2,
                &["*.b.com"],
                json!([{ "hosts": ["*.b.com"], "secretName": "b" }]),
            ),
        ],
        vec![precise.secret("a"), wild.secret("b")],
    );
    (precise, wild, snapshot)
}

async fn greeted(mut stream: impl AsyncReadExt + Unpin) {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hi");
}

#[tokio::test]
async fn s18_each_server_name_gets_its_certificate_and_unknown_ones_a_self_signed() {
    let ca = Authority::new("ca");
    let (precise, wild, snapshot) = wild(&ca);
    let mut server = Server::start(snapshot, &Options::default()).await;
    let client = Client::trusting(&ca);
    assert_eq!(
        client.connect(server.address, "a.com").await.unwrap().certificate,
        precise.der
    );
    assert_eq!(server.outcome().await.unwrap().server_name.as_deref(), Some("a.com"));
    assert_eq!(
        client.connect(server.address, "x.b.com").await.unwrap().certificate,
        wild.der
    );
    assert_eq!(
        client.connect(server.address, "A.COM").await.unwrap().certificate,
        precise.der
    );
    for unknown in ["b.com", "x.x.b.com", "other.com"] {
        assert!(client.connect(server.address, unknown).await.is_err(), "{unknown}");
    }
    let anyone = Client::trusting_all();
    let default = anyone.connect(server.address, "other.com").await.unwrap().certificate;
    assert!(default != precise.der && default != wild.der);
    let nameless = Client::trusting_all().nameless();
    assert_eq!(
        nameless.connect(server.address, "a.com").await.unwrap().certificate,
        default
    );
}

#[tokio::test]
async fn s18_clients_of_tls_1_2_and_1_3_are_served_unless_told_otherwise() {
    let ca = Authority::new("ca");
    let secret = ca.server(&["a.com"]).secret("a");
    let server = Server::start(one_host(vec![secret.clone()]), &Options::default()).await;
    let old = Client::speaking(&ca, &[&TLS12], None);
    let new = Client::speaking(&ca, &[&TLS13], None);
    let version = |shown: super::ends::Shown| shown.version;
    assert_eq!(
        version(old.connect(server.address, "a.com").await.unwrap()),
        ProtocolVersion::TLSv1_2
    );
    assert_eq!(
        version(new.connect(server.address, "a.com").await.unwrap()),
        ProtocolVersion::TLSv1_3
    );
    let options = Options {
        tls_min_version: MinVersion::Tls13,
        ..Options::default()
    };
    let mut strict = Server::start(one_host(vec![secret]), &options).await;
    assert!(old.connect(strict.address, "a.com").await.is_err());
    assert!(matches!(strict.outcome().await, Err(Refused::Failed(_))));
    assert!(new.connect(strict.address, "a.com").await.is_ok());
}

#[tokio::test]
async fn only_the_chosen_cipher_suites_are_spoken() {
    let ca = Authority::new("ca");
    let suite = landfall_ingress_tls::provider::parse_suite("TLS_AES_128_GCM_SHA256").unwrap();
    let options = Options {
        tls_ciphers: vec![suite],
        ..Options::default()
    };
    let snapshot = one_host(vec![ca.server(&["a.com"]).secret("a")]);
    // No suite of TLS 1.2 is left, so that version is not spoken either.
    let server = Server::start(snapshot, &options).await;
    assert!(
        Client::speaking(&ca, &[&TLS12], None)
            .connect(server.address, "a.com")
            .await
            .is_err()
    );
    let shown = Client::trusting(&ca).connect(server.address, "a.com").await.unwrap();
    let spoken = shown.stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(spoken, suite);
    let error = landfall_ingress_tls::provider::parse_suite("RC4").unwrap_err();
    assert!(error.contains("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"), "{error}");
    let old = Options {
        tls_ciphers: vec![
            landfall_ingress_tls::provider::parse_suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256").unwrap(),
        ],
        tls_min_version: MinVersion::Tls13,
        ..Options::default()
    };
    let nothing = Acceptor::new(Arc::new(State::default()), &old).unwrap_err();
    assert!(nothing.contains("leave nothing to speak"), "{nothing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s19_rotation_under_load_fails_no_handshake_and_takes_effect() {
    let ca = Authority::new("ca");
    let (old, new) = (ca.server(&["a.com"]), ca.server(&["a.com"]));
    let server = Server::start(one_host(vec![old.secret("a")]), &Options::default()).await;
    // Resumed sessions show the certificate that they began with.
    let kinds = [Client::trusting(&ca), Client::trusting(&ca).forgetful()];
    let clients: Vec<_> = kinds
        .iter()
        .cycle()
        .take(4)
        .map(|client| {
            let (client, address) = (client.clone(), server.address);
            let (old, new) = (old.der.clone(), new.der.clone());
            tokio::spawn(async move {
                let mut seen = (0, 0);
                for _ in 0..60 {
                    let shown = client.connect(address, "a.com").await.unwrap();
                    assert!(shown.certificate == old || shown.certificate == new);
                    seen.0 += usize::from(shown.certificate == old);
                    seen.1 += usize::from(shown.certificate == new);
                    greeted(shown.stream).await;
                }
                seen
            })
        })
        .collect();
    let mut rotations = 0;
    while !clients.iter().all(tokio::task::JoinHandle::is_finished) {
        rotations += 1;
        let pair = if rotations % 2 == 0 { &old } else { &new };
        server.state.table.store(one_host(vec![pair.secret("a")]).table);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut seen = (0, 0);
    for client in clients {
        let (old, new) = client.await.unwrap();
        seen = (seen.0 + old, seen.1 + new);
    }
    assert!(
        seen.0 + seen.1 == 240 && seen.1 > 0 && rotations > 10,
        "{seen:?} {rotations}"
    );
    server.state.table.store(one_host(vec![new.secret("a")]).table);
    let shown = Client::trusting(&ca).connect(server.address, "a.com").await.unwrap();
    assert_eq!(shown.certificate, new.der);
}

#[tokio::test]
async fn s19_a_secret_that_comes_later_or_goes_bad_changes_its_host_at_the_next_handshake() {
    let ca = Authority::new("ca");
    let pair = ca.server(&["a.com"]);
    let server = Server::start(one_host(vec![]), &Options::default()).await;
    let client = Client::trusting(&ca);
    assert!(
        client.connect(server.address, "a.com").await.is_err(),
        "the self-signed one"
    );
    server.state.table.store(one_host(vec![pair.secret("a")]).table);
    assert_eq!(
        client.connect(server.address, "a.com").await.unwrap().certificate,
        pair.der
    );
    let bad = secret("a", &[("tls.crt", "nonsense"), ("tls.key", "nonsense")]);
    server.state.table.store(one_host(vec![bad]).table);
    // A fresh client, for a ticket would do without the certificate.
    assert!(Client::trusting(&ca).connect(server.address, "a.com").await.is_err());
    assert!(Client::trusting_all().connect(server.address, "a.com").await.is_ok());
}

#[tokio::test]
async fn sessions_are_resumed_in_both_versions() {
    let ca = Authority::new("ca");
    let server = Server::start(one_host(vec![ca.server(&["a.com"]).secret("a")]), &Options::default()).await;
    for version in [&TLS12, &TLS13] {
        let client = Client::speaking(&ca, &[version], None);
        let first = client.connect(server.address, "a.com").await.unwrap();
        assert_ne!(first.kind, HandshakeKind::Resumed);
        // Tickets of TLS 1.3 come after the handshake.
        greeted(first.stream).await;
        let second = client.connect(server.address, "a.com").await.unwrap();
        assert_eq!(second.kind, HandshakeKind::Resumed, "{version:?}");
        greeted(second.stream).await;
    }
}

#[tokio::test]
async fn alpn_settles_the_http_version() {
    let ca = Authority::new("ca");
    let mut server = Server::start(one_host(vec![ca.server(&["a.com"]).secret("a")]), &Options::default()).await;
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let client = Client::trusting(&ca).offering(offered);
        let shown = client.connect(server.address, "a.com").await.unwrap();
        assert_eq!(shown.alpn.as_deref(), chosen.map(str::as_bytes), "{offered:?}");
        assert_eq!(server.outcome().await.unwrap().http2, chosen == Some("h2"));
    }
    // RFC 7301: no common protocol is an error.
    assert!(
        Client::trusting(&ca)
            .offering(&["spdy/1"])
            .connect(server.address, "a.com")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_cut_off() {
    let ca = Authority::new("ca");
    let snapshot = one_host(vec![ca.server(&["a.com"]).secret("a")]);
    let mut server = Server::bounded(snapshot, &Options::default(), Duration::from_millis(50), 100).await;
    // Silent, and in the middle of a ClientHello.
    for bytes in [&b""[..], b"\x16\x03\x01\x01\x00\x01"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        assert!(matches!(server.outcome().await, Err(Refused::Late)));
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed");
    }
}

#[tokio::test]
async fn when_there_are_too_many_handshakes_the_oldest_gives_way() {
    let ca = Authority::new("ca");
    let snapshot = one_host(vec![ca.server(&["a.com"]).secret("a")]);
    let mut server = Server::bounded(snapshot, &Options::default(), Duration::from_secs(10), 2).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    for _ in 0..3 {
        assert!(matches!(server.outcome().await, Err(Refused::Crowded)));
    }
    assert!(Client::trusting(&ca).connect(server.address, "a.com").await.is_ok());
}

#[tokio::test]
async fn what_is_no_tls_is_refused() {
    let mut server = Server::start(Snapshot::default(), &Options::default()).await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: a.com\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 64],
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        assert!(matches!(server.outcome().await, Err(Refused::Failed(_))));
    }
    // The server goes on.
    assert!(Client::trusting_all().connect(server.address, "a.com").await.is_ok());
}
