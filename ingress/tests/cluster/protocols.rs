//! Whole requests over each way in to the real program, and out to endpoints of each protocol.

use crate::harness::ingress;
use crate::{cluster, ready};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use landfall_test_ingress::endpoint::Endpoint;
use landfall_test_ingress::objects::{slice, tls_secret};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const HOST: &str = "test.nginx.com";

async fn speak<S>(stream: S) -> SendRequest<Full<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn post(sender: &mut SendRequest<Full<Bytes>>, scheme: &str, body: &str) -> (u16, Value) {
    let request = Request::post(format!("{scheme}://{HOST}/x?q=1"))
        .header("x-own", "1")
        .body(Full::from(body.to_owned()))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body: Incoming = response.into_body();
    let body = body.collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// What an endpoint of HTTP/1.1 says of the request.
fn is_whole(seen: &Value, scheme: &str, body: &str) {
    assert_eq!(seen["proto"], "HTTP/1.1", "{seen}");
    assert_eq!(
        (&seen["method"], &seen["target"], &seen["host"]),
        (&json!("POST"), &json!("/x?q=1"), &json!(HOST))
    );
    assert_eq!(seen["body"], body);
    let fields = seen["fields"].as_array().unwrap();
    for field in [json!(["x-own", "1"]), json!(["x-forwarded-proto", scheme])] {
        assert!(fields.contains(&field), "{field} is not in {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_by_alpn_and_by_prior_knowledge_reaches_the_endpoint_and_comes_back() {
    let api = cluster(&[]).await;
    let pod = Endpoint::echo("nginx", "nginx-0").await;
    api.put("endpointslices", slice("nginx-0", "nginx", pod.address));
    let made = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).unwrap();
    api.put(
        "secrets",
        tls_secret("web", made.cert.der(), &made.signing_key.serialize_der()),
    );
    let mut object = ingress("nginx", HOST, "nginx");
    object["spec"]["tls"] = json!([{ "hosts": [HOST], "secretName": "web" }]);
    // Else plain requests are sent to https.
    object["metadata"]["annotations"] = json!({ "ingress.landfall.dev/ssl-redirect": "false" });
    api.put("ingresses", object);
    let proxy = ready(&api).await;

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(proxy.https).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect(ServerName::try_from(HOST).unwrap(), stream)
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut over_tls = speak(stream).await;
    let mut plain = speak(TcpStream::connect(proxy.http).await.unwrap()).await;
    let large = "x".repeat(300_000);
    for body in ["", "small", &large] {
        for (sender, scheme) in [(&mut over_tls, "https"), (&mut plain, "http")] {
            let (status, seen) = post(sender, scheme, body).await;
            assert_eq!(status, 200, "{scheme}");
            is_whole(&seen, scheme, body);
        }
    }
    assert_eq!(proxy.metric("responses_total{class=\"2xx\"}").await, 6);
}
