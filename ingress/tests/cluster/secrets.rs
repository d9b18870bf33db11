//! Secrets that Ingresses name: followed by name, picked up when they come, and never in the way of anything else.

use crate::harness::{Proxy, endpoint, ingress, until};
use crate::{cluster, ready};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const HOST: &str = "test.nginx.com";

/// Signs certificates for [`HOST`].
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self {
            issuer: Issuer::new(params, key),
            der,
        }
    }

    /// A Secret with a new certificate.
    fn secret(&self, name: &str) -> Value {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let data = |label: &str, der: &[u8]| {
            let text = format!(
                "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
                STANDARD.encode(der)
            );
            STANDARD.encode(text)
        };
        json!({ "metadata": { "name": name, "namespace": "default" }, "type": "kubernetes.io/tls",
            "data": { "tls.crt": data("CERTIFICATE", certificate.der()), "tls.key": data("PRIVATE KEY", &key.serialize_der()) } })
    }
}

/// The certificate that the host is served with; `None` when no one may trust it.
async fn trusted(proxy: &Proxy, authority: &Authority) -> Option<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.der.clone())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(proxy.https).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect(ServerName::try_from(HOST).unwrap(), stream)
        .await
        .ok()?;
    Some(stream.get_ref().1.peer_certificates()?[0].to_vec())
}

fn with_tls(secret: &str) -> Value {
    let mut object = ingress("nginx", HOST, "nginx");
    object["spec"]["tls"] = json!([{ "hosts": [HOST], "secretName": secret }]);
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_followed_by_its_name_from_the_moment_an_ingress_names_it() {
    let (api, authority) = (cluster(&[endpoint("one").await]).await, Authority::new());
    api.put("secrets", authority.secret("another"));
    let proxy = ready(&api).await;
    assert_eq!(
        api.count("list", "secrets") + api.count("watch", "secrets"),
        0,
        "no one names any"
    );

    // Named before it is there: the host has the self-signed certificate, and plain requests are not harmed.
    api.put("ingresses", with_tls("web"));
    until("a watch", || async { api.count("watch", "secrets") == 1 }).await;
    assert_eq!(trusted(&proxy, &authority).await, None);
    api.put("secrets", authority.secret("web"));
    until("its certificate", || async {
        trusted(&proxy, &authority).await.is_some()
    })
    .await;

    let before = trusted(&proxy, &authority).await;
    api.put("secrets", authority.secret("web"));
    until("the next certificate", || async {
        let now = trusted(&proxy, &authority).await;
        assert!(now.is_some(), "a rotation fails no handshake");
        now != before
    })
    .await;

    api.delete("secrets", "default", "web");
    until("the self-signed certificate", || async {
        trusted(&proxy, &authority).await.is_none()
    })
    .await;
    assert_eq!(api.count("watch", "secrets"), 1);
    // A change of names is no moment without a certificate: the table waits for the other Secret.
    api.put("ingresses", with_tls("another"));
    until("the other Secret", || async {
        trusted(&proxy, &authority).await.is_some()
    })
    .await;
    assert_eq!(api.count("watch", "secrets"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_table_has_the_certificates_that_are_there() {
    let (api, authority) = (cluster(&[endpoint("one").await]).await, Authority::new());
    api.put("secrets", authority.secret("web"));
    api.put("ingresses", with_tls("web"));
    let proxy = ready(&api).await;
    assert!(
        trusted(&proxy, &authority).await.is_some(),
        "ready means with its certificate"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_may_not_be_read_stop_nothing() {
    let (api, authority) = (cluster(&[endpoint("one").await]).await, Authority::new());
    api.put("ingresses", with_tls("web"));
    api.put("secrets", authority.secret("web"));
    api.forbid("list", "secrets");
    api.forbid("watch", "secrets");
    let proxy = ready(&api).await;
    assert_eq!(trusted(&proxy, &authority).await, None);
    api.put("ingresses", ingress("second", "second.nginx.com", "nginx"));
    until("changes go on", || async {
        proxy.body("second.nginx.com").await == "one"
    })
    .await;
}
