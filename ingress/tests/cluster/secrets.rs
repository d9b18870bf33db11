//! Secrets that Ingresses name: followed by name, picked up when they come, and never in the way of anything else.

use crate::harness::{Proxy, endpoint, ingress, pod, until};
use crate::{cluster, ready};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_test_ingress::client;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_of_fields_is_followed_by_its_name_however_secrets_are() {
    for flags in [&[][..], &CLUSTER] {
        let api = cluster(&[endpoint("one").await]).await;
        let mut object = ingress("nginx", HOST, "nginx");
        object["metadata"]["annotations"] = json!({ "nginx.ingress.kubernetes.io/custom-headers": "default/fields" });
        api.put("ingresses", object);
        let fields = |value: &str| json!({ "metadata": { "name": "fields", "namespace": "default" }, "data": { "X-Team": value } });
        api.put("configmaps", fields("one"));
        // A Secret of that name is another thing.
        api.put("secrets", Authority::new().secret("fields"));
        let proxy = Proxy::start_with(&api, "", flags);
        until("ready", || proxy.ready()).await;
        let shown = || async {
            let mut connection = client::connect(proxy.http).await.unwrap();
            let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
            let answer = connection.exchange(request.as_bytes()).await.unwrap();
            answer.field("x-team").map(str::to_owned)
        };
        assert_eq!(shown().await.as_deref(), Some("one"), "{flags:?}");
        api.put("configmaps", fields("two"));
        until("the next value", || async { shown().await.as_deref() == Some("two") }).await;
        api.delete("configmaps", "default", "fields");
        until("no field", || async { shown().await.is_none() }).await;
        assert!(
            proxy
                .page("/api/v1/remarks")
                .await
                .1
                .contains("ConfigMap default/fields does not exist")
        );
        assert_eq!(
            (api.count("watch", "configmaps"), api.count("get", "configmaps")),
            (1, 0)
        );
    }
}

const CLUSTER: [&str; 1] = ["--secrets=cluster"];

#[tokio::test(flavor = "multi_thread")]
async fn one_watch_over_the_whole_cluster_finds_what_is_wanted_now_and_later() {
    let (api, authority) = (cluster(&[endpoint("one").await]).await, Authority::new());
    api.put("secrets", authority.secret("web"));
    api.put("secrets", authority.secret("another"));
    api.put("ingresses", with_tls("web"));
    let proxy = Proxy::start_with(&api, "", &CLUSTER);
    until("ready", || proxy.ready()).await;
    let before = trusted(&proxy, &authority).await;
    assert!(before.is_some(), "ready means with its certificate");

    api.put("secrets", authority.secret("web"));
    until("the next certificate", || async {
        let now = trusted(&proxy, &authority).await;
        assert!(now.is_some(), "a rotation fails no handshake");
        now != before
    })
    .await;
    // One that was there all the time, and was not kept: it is read by itself, and followed by the same watch.
    api.put("ingresses", with_tls("another"));
    until("the other Secret", || async {
        trusted(&proxy, &authority).await.is_some()
    })
    .await;
    let gets = api.count("get", "secrets");
    let before = trusted(&proxy, &authority).await;
    api.put("secrets", authority.secret("another"));
    until("its next certificate", || async {
        trusted(&proxy, &authority).await != before
    })
    .await;
    api.delete("secrets", "default", "another");
    until("the self-signed certificate", || async {
        trusted(&proxy, &authority).await.is_none()
    })
    .await;
    api.put("ingresses", with_tls("later"));
    until("it is asked for", || async { api.count("get", "secrets") > gets }).await;
    api.put("secrets", authority.secret("later"));
    until("one that comes later", || async {
        trusted(&proxy, &authority).await.is_some()
    })
    .await;
    assert_eq!((api.count("list", "secrets"), api.count("watch", "secrets")), (1, 1));
    // What was missed while the watch was cut is read again.
    let before = trusted(&proxy, &authority).await;
    api.cut_and_forget();
    api.put("secrets", authority.secret("later"));
    until("the certificate from behind the cut", || async {
        trusted(&proxy, &authority).await.is_some_and(|now| Some(now) != before)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_kinds_that_no_ingress_names_are_not_sent_at_all() {
    let (api, authority) = (cluster(&[endpoint("one").await]).await, Authority::new());
    for (name, kind) in [
        ("release", "helm.sh/release.v1"),
        ("token", "kubernetes.io/service-account-token"),
        ("pull", "kubernetes.io/dockerconfigjson"),
    ] {
        let mut secret = authority.secret(name);
        secret["type"] = json!(kind);
        api.put("secrets", secret);
    }
    api.put("secrets", authority.secret("web"));
    api.put("ingresses", with_tls("web"));
    let proxy = Proxy::start_with(&api, "", &CLUSTER);
    until("ready", || proxy.ready()).await;
    assert!(trusted(&proxy, &authority).await.is_some());
    assert_eq!(api.sent_secrets(), ["web".to_owned()].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_over_all_secrets_that_is_given_later_is_used() {
    let (api, authority) = (cluster(&[endpoint("one").await]).await, Authority::new());
    for verb in ["get", "list", "watch"] {
        api.forbid(verb, "secrets");
    }
    api.put("secrets", authority.secret("web"));
    api.put("ingresses", with_tls("web"));
    let proxy = Proxy::start_with(&api, "", &CLUSTER);
    until("ready", || proxy.ready()).await;
    assert_eq!(trusted(&proxy, &authority).await, None);
    until("the reason", || async {
        proxy
            .page("/api/v1/remarks")
            .await
            .1
            .contains("may not be read by the ingress proxy")
    })
    .await;
    for verb in ["get", "list", "watch"] {
        api.allow(verb, "secrets");
    }
    until("its certificate", || async {
        trusted(&proxy, &authority).await.is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_that_nobody_can_check_are_remarked_on_the_dashboard_and_in_an_event() {
    let api = cluster(&[endpoint("one").await]).await;
    api.put("pods", pod("a", "10.0.0.1"));
    let users = json!({ "metadata": { "name": "users", "namespace": "default" },
        "data": { "auth": "YW5uYTokNiRzYWx0JGhhc2gK" } });
    api.put("secrets", users);
    let mut object = ingress("locked", "locked.nginx.com", "nginx");
    object["metadata"]["annotations"] =
        json!({ "nginx.ingress.kubernetes.io/auth-type": "basic", "nginx.ingress.kubernetes.io/auth-secret": "users" });
    api.put("ingresses", object);
    let proxy = Proxy::start(&api, "a");
    let wanted = "1 of 1 users cannot log in";
    until("the remark", || async {
        let (_, page) = proxy.page("/api/v1/remarks").await;
        let event = api
            .all("events")
            .iter()
            .any(|event| event["note"].as_str().is_some_and(|n| n.contains(wanted)));
        page.contains(wanted) && event
    })
    .await;
    assert_eq!(proxy.status("locked.nginx.com").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_may_not_be_read_names_the_command_and_is_served_as_soon_as_it_may() {
    let authority = Authority::new();
    let api = cluster(&[endpoint("one").await]).await;
    api.put("pods", pod("a", "127.0.0.1"));
    for verb in ["get", "list", "watch"] {
        api.forbid(verb, "secrets");
    }
    api.put("secrets", authority.secret("web"));
    let mut tls = ingress("nginx", HOST, "nginx");
    tls["spec"]["tls"] = json!([{ "hosts": [HOST], "secretName": "web" }]);
    api.put("ingresses", tls);
    let proxy = Proxy::start(&api, "a");
    until("ready", || proxy.ready()).await;
    assert_eq!(trusted(&proxy, &authority).await, None);
    let command = "landfall ingress allow default";
    until("an Event with the command", || async {
        api.all("events").iter().any(|event| {
            let note = event["note"].as_str().unwrap_or_default();
            event["regarding"]["name"] == "nginx" && note.contains(command)
        })
    })
    .await;
    let (_, remarks) = proxy.page("/api/v1/remarks").await;
    assert!(remarks.contains(command), "{remarks}");
    let list =
        || async { serde_json::from_str::<Value>(&proxy.page("/api/v1/secrets").await.1).unwrap()["items"].clone() };
    let line = |state: &str| json!([{ "kind": "Secret", "namespace": "default", "name": "web", "state": state }]);
    assert_eq!(list().await, line("forbidden"));

    for verb in ["get", "list", "watch"] {
        api.allow(verb, "secrets");
    }
    // The longest pause between two tries is 10 s.
    until("the certificate", || async {
        trusted(&proxy, &authority).await.is_some()
    })
    .await;
    assert_eq!(list().await, line("read"));
    let (_, remarks) = proxy.page("/api/v1/remarks").await;
    assert!(!remarks.contains(command), "{remarks}");
}
