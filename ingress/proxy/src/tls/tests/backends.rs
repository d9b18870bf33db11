//! TLS to endpoints: checked or not, by chain or by name.

use super::ends::listen;
use super::pki::{Authority, Pair};
use landfall_ingress_tls::client::{Alpn, ClientSettings, config, name};
use landfall_ingress_tls::provider::provider;
use rustls::ServerConfig;
use rustls::version::TLS12;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An endpoint with this certificate.
async fn endpoint(pair: &Pair, alpn: &[&str], versions: &[&'static rustls::SupportedProtocolVersion]) -> SocketAddr {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.der()], pair.key())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(acceptor.accept(stream).await);
        }
    });
    address
}

/// Whether a connection came about; its ALPN.
async fn connect(address: SocketAddr, upstream: &ClientSettings, alpn: Alpn) -> Option<Option<Vec<u8>>> {
    let connector = TlsConnector::from(config(upstream, alpn));
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = connector.connect(name(upstream, address.ip())?, stream).await.ok()?;
    Some(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

fn checking(authority: &Authority, name: Option<&str>) -> ClientSettings {
    ClientSettings {
        verify: true,
        authorities: [authority.der.clone()].into(),
        name: name.map(str::to_owned),
        ..ClientSettings::default()
    }
}

#[tokio::test]
async fn s26_an_unchecked_endpoint_may_show_anything() {
    let ca = Authority::new("ca");
    for pair in [ca.server(&["pod.local"]), ca.expired("pod.local")] {
        for versions in [rustls::ALL_VERSIONS, &[&TLS12]] {
            let address = endpoint(&pair, &[], versions).await;
            assert!(
                connect(address, &ClientSettings::default(), Alpn::Http1)
                    .await
                    .is_some()
            );
        }
    }
}

#[tokio::test]
async fn s26_a_checked_endpoint_must_be_known_to_the_authority_and_have_the_name() {
    let (ca, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let fine = endpoint(&ca.server(&["pod.local"]), &[], rustls::ALL_VERSIONS).await;
    let fine12 = endpoint(&ca.server(&["pod.local"]), &[], &[&TLS12]).await;
    let expired = endpoint(&ca.expired("pod.local"), &[], rustls::ALL_VERSIONS).await;
    for (address, upstream, wanted) in [
        (fine, checking(&ca, None), true),
        (fine, checking(&ca, Some("pod.local")), true),
        (fine12, checking(&ca, Some("pod.local")), true),
        (fine, checking(&ca, Some("other.local")), false),
        (fine, checking(&stranger, None), false),
        (fine, checking(&stranger, Some("pod.local")), false),
        (expired, checking(&ca, None), false),
    ] {
        let connected = connect(address, &upstream, Alpn::Http1).await.is_some();
        assert_eq!(connected, wanted, "{address} {:?}", upstream.name);
    }
}

#[tokio::test]
async fn checking_without_an_authority_refuses_every_endpoint() {
    let ca = Authority::new("ca");
    let address = endpoint(&ca.server(&["pod.local"]), &[], rustls::ALL_VERSIONS).await;
    for authorities in [vec![], vec![b"no certificate".to_vec()]] {
        let upstream = ClientSettings {
            verify: true,
            authorities: authorities.into(),
            ..ClientSettings::default()
        };
        assert!(connect(address, &upstream, Alpn::Http1).await.is_none());
    }
    let bad_name = ClientSettings {
        name: Some("not a name".to_owned()),
        ..ClientSettings::default()
    };
    assert!(name(&bad_name, IpAddr::V4(Ipv4Addr::LOCALHOST)).is_none());
}

#[tokio::test]
async fn the_http_version_is_asked_for_by_alpn() {
    let address = endpoint(
        &Authority::new("ca").server(&["p"]),
        &["h2", "http/1.1"],
        rustls::ALL_VERSIONS,
    )
    .await;
    for (alpn, wanted) in [(Alpn::Http1, &b"http/1.1"[..]), (Alpn::Http2, b"h2")] {
        let chosen = connect(address, &ClientSettings::default(), alpn).await.unwrap();
        assert_eq!(chosen.as_deref(), Some(wanted));
    }
}

#[test]
fn the_same_settings_give_the_same_configuration() {
    let ca = Authority::new("ca");
    let upstream = checking(&ca, Some("a"));
    let other_name = checking(&ca, Some("b"));
    assert!(Arc::ptr_eq(
        &config(&upstream, Alpn::Http1),
        &config(&other_name, Alpn::Http1)
    ));
    assert!(!Arc::ptr_eq(
        &config(&upstream, Alpn::Http1),
        &config(&upstream, Alpn::Http2)
    ));
    let unnamed = checking(&ca, None);
    assert!(!Arc::ptr_eq(
        &config(&upstream, Alpn::Http1),
        &config(&unnamed, Alpn::Http1)
    ));
}
