//! Client certificates over real handshakes.

use super::world::{Answer, World, plain, read};
use crate::foresee::{Met, Outcome, Supposed};
use crate::policy::Stage;
use crate::tests::ends::Running;
use crate::tls::tests::pki::Authority;
use landfall_ingress_tls::client::ClientSettings;
use landfall_ingress_tls::client::{Alpn, config};
use landfall_ingress_tls::provider::provider;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What a client of this authority shows.
fn client(authority: &Authority, name: &str) -> Arc<CertifiedKey> {
    let pair = authority.client(name);
    let signing = provider().key_provider.load_private_key(pair.key()).unwrap();
    Arc::new(CertifiedKey::new(vec![pair.der()], signing))
}

/// Asks over TLS; the name of the handshake and the host of the request may differ. None when the handshake or the connection fails.
async fn ask(proxy: &Running, name: &str, host: &str, own: Option<&Arc<CertifiedKey>>, fields: &str) -> Option<Answer> {
    let mut client = (*config(&ClientSettings::default(), Alpn::Http1)).clone();
    if let Some(own) = own {
        client.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(Arc::clone(own)));
    }
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.ok()?;
    let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    // The other side may end without saying so, after a handshake that it does not like.
    let _ = stream.read_to_end(&mut answer).await;
    (!answer.is_empty()).then(|| read(&String::from_utf8_lossy(&answer)))
}

/// What the dashboard says of a request without a certificate: the stage that decides, and the status where there is one.
fn foreseen(proxy: &Running, secure: bool, name: &str, host: &str) -> (Stage, Option<u16>) {
    let supposed = Supposed {
        method: hyper::Method::GET,
        authority: name.to_owned(),
        target: "/".to_owned(),
        fields: vec![(hyper::header::HOST, host.parse().unwrap())],
        version: hyper::Version::HTTP_11,
        secure,
        strict_sni: false,
        peer: "127.0.0.1:1".parse().unwrap(),
    };
    let foreseen = proxy.proxy.foresee(&supposed, &proxy.state.routes());
    let decides = |met: &Met| matches!(met.outcome, Outcome::Open(_) | Outcome::Answers(_));
    let met = foreseen.met.iter().find(|met| decides(met));
    let met = met.or(foreseen.met.last()).expect("it has a route");
    let status = match &met.outcome {
        Outcome::Answers(stop) => Some(stop.response.status().as_u16()),
        _ => None,
    };
    (met.stage, status)
}

#[tokio::test]
async fn a_demand_for_certificates_is_foreseen_as_it_is_met() {
    let a = plain("alpha").await;
    let ours = Authority::new("ours");
    let demand = |mode| [("auth-tls-secret", "d/ours"), ("auth-tls-verify-client", mode)];
    let root = ("Prefix", "/", "a");
    let world = || {
        World::new()
            .service("a", &[a.address])
            .secret("ours", "ca.crt", &ours.pem())
            .with(&demand("on"), "h.io", root, &["h.io"])
            .with(&demand("optional"), "o.io", root, &["o.io"])
            .with(&[], "open.io", root, &["open.io"])
    };
    let proxy = world().start_tls().await;
    for (name, host, stage) in [
        ("h.io", "h.io", Stage::Certificate),
        ("open.io", "h.io", Stage::Connection),
        ("o.io", "o.io", Stage::Mirror),
        ("open.io", "open.io", Stage::Mirror),
    ] {
        let (decides, status) = foreseen(&proxy, true, name, host);
        assert_eq!(decides, stage, "{name} {host}");
        let real = ask(&proxy, name, host, None, "").await.expect("an answer").status;
        // Only a certificate would tell more; without one this is the answer.
        let wanted = if stage == Stage::Certificate { Some(400) } else { status };
        assert_eq!(real, wanted.unwrap_or(200), "{name} {host}");
    }
    // Over plain HTTP the redirect to https comes first.
    assert_eq!(foreseen(&proxy, false, "h.io", "h.io"), (Stage::Redirect, Some(308)));
}

#[tokio::test]
async fn auth_tls_secret_lets_its_own_clients_in_and_tells_the_endpoint_who_they_are() {
    let a = plain("alpha").await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let annotations = |secret| {
        [
            ("auth-tls-secret", secret),
            ("auth-tls-verify-client", "on"),
            ("auth-tls-pass-certificate-to-upstream", "true"),
        ]
    };
    let root = ("Prefix", "/", "a");
    let proxy = World::new()
        .service("a", &[a.address])
        .secret("ours", "ca.crt", &ours.pem())
        .secret("theirs", "ca.crt", &theirs.pem())
        .with(&annotations("d/ours"), "h.io", root, &["h.io"])
        .with(&annotations("d/theirs"), "t.io", root, &["t.io"])
        .with(&[], "open.io", root, &["open.io"])
        .with(
            &[("auth-tls-secret", "d/ours"), ("auth-tls-verify-client", "optional")],
            "o.io",
            root,
            &["o.io"],
        )
        .start_tls()
        .await;
    let (anna, eve) = (client(&ours, "anna"), client(&theirs, "anna"));
    let spoof = "ssl-client-subject-dn: CN=root\r\nssl-client-verify: FAILED\r\nConnection: ssl-client-verify\r\n";
    let answer = ask(&proxy, "h.io", "h.io", Some(&anna), spoof)
        .await
        .expect("an answer");
    assert_eq!((answer.status, answer.body.as_str()), (200, "alpha"));
    let got = a.next().await;
    assert_eq!(
        (got.field("ssl-client-verify"), got.field("ssl-client-subject-dn")),
        (Some("SUCCESS"), Some("CN=anna"))
    );
    assert_eq!(got.headers.get_all("ssl-client-verify").iter().count(), 1);
    assert!(
        got.field("ssl-client-cert")
            .unwrap()
            .starts_with("-----BEGIN%20CERTIFICATE-----%0A")
    );
    // Nobody else: no certificate, another authority's, and any of that by way of another host's handshake.
    for (name, host, own) in [
        ("h.io", "h.io", None),
        ("h.io", "h.io", Some(&eve)),
        ("t.io", "h.io", Some(&eve)),
        ("t.io", "h.io", None),
        ("open.io", "h.io", None),
        ("open.io", "h.io", Some(&eve)),
        ("open.io", "h.io", Some(&anna)),
    ] {
        let answer = ask(&proxy, name, host, own, spoof).await;
        let status = answer.map_or(0, |answer| answer.status);
        assert!(
            [0, 400, 421].contains(&status),
            "{name} {host} {}: {status}",
            own.is_some()
        );
    }
    assert!(a.asked().is_empty());
    let open = ask(&proxy, "open.io", "open.io", None, spoof).await.expect("an answer");
    assert_eq!(open.status, 200);
    let got = a.next().await;
    assert!(got.field("ssl-client-verify").is_none() && got.field("ssl-client-subject-dn").is_none());
    let left_out = ask(&proxy, "o.io", "o.io", None, spoof).await.expect("an answer");
    assert_eq!(left_out.status, 200);
    assert_eq!(a.next().await.field("ssl-client-verify"), Some("NONE"));
    let wrong = ask(&proxy, "o.io", "o.io", Some(&eve), spoof).await;
    assert!(wrong.is_none_or(|answer| answer.status == 400));
    assert!(a.asked().is_empty());
}

#[tokio::test]
async fn the_authentication_service_learns_who_the_certificate_says_the_client_is() {
    let a = plain("alpha").await;
    let auth = plain("auth").await;
    let ours = Authority::new("ours");
    let annotations = |pass| {
        [
            ("auth-tls-secret", "d/ours"),
            ("auth-tls-verify-client", "optional"),
            ("auth-tls-pass-certificate-to-upstream", pass),
            ("auth-url", "http://auth/check"),
        ]
    };
    for pass in ["true", "false"] {
        let proxy = World::new()
            .service("a", &[a.address])
            .service("auth", &[auth.address])
            .secret("ours", "ca.crt", &ours.pem())
            .with(&annotations(pass), "h.io", ("Prefix", "/", "a"), &["h.io"])
            .start_tls()
            .await;
        let anna = client(&ours, "anna");
        let spoof = "ssl-client-subject-dn: CN=root\r\nssl-client-cert: x\r\n";
        for (own, verified, subject) in [(Some(&anna), "SUCCESS", Some("CN=anna")), (None, "NONE", None)] {
            let answer = ask(&proxy, "h.io", "h.io", own, spoof).await.expect("an answer");
            assert_eq!(answer.status, 200);
            for got in [auth.next().await, a.next().await] {
                assert_eq!(
                    (got.field("ssl-client-verify"), got.field("ssl-client-subject-dn")),
                    (Some(verified), subject)
                );
                let shown = got
                    .field("ssl-client-cert")
                    .is_some_and(|cert| cert.starts_with("-----BEGIN"));
                assert_eq!(shown, pass == "true" && own.is_some(), "{pass} {verified}");
            }
        }
    }
}
