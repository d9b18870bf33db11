//! Feature: requests go by host; a wildcard covers one label; TLS by the host's certificate.

use crate::world::{World, rule};
use landfall_test_ingress::objects::tls_secret;
use serde_json::json;

/// The world of this feature, and the certificate for foo.bar.com in it.
async fn world() -> (World, rustls::pki_types::CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["foo.bar.com".to_owned()]).unwrap();
    let secret = tls_secret("conformance-tls", made.cert.der(), &made.signing_key.serialize_der());
    let mut precise = rule("foo.bar.com", &[("Prefix", "/", "foo-bar-com")]);
    precise["http"]["paths"][0]["backend"]["service"]["port"] = json!({ "name": "http" });
    let spec = json!({
        "ingressClassName": "landfall",
        "tls": [{ "hosts": ["foo.bar.com"], "secretName": "conformance-tls" }],
        "rules": [rule("*.foo.com", &[("Prefix", "/", "wildcard-foo-com")]), precise],
    });
    let world = World::with("host-rules", spec, &[("secrets", secret)]).await;
    (world.exposed("host-rules").await, made.cert.der().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_for_a_host_verifies_and_arrives() {
    let (world, certificate) = world().await;
    world
        .send_tls("foo.bar.com", &certificate)
        .await
        .served_by("foo-bar-com");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_s_requests_arrive() {
    let (world, certificate) = world().await;
    // A host with TLS is redirected to it by default, and the suite's client follows.
    world
        .send("GET", "foo.bar.com", "/")
        .await
        .is_redirected_to("https://foo.bar.com");
    world
        .send_tls("foo.bar.com", &certificate)
        .await
        .served_by("foo-bar-com");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_is_not_found() {
    world()
        .await
        .0
        .send("GET", "subdomain.bar.com", "/")
        .await
        .is_not_found();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_covers_one_label() {
    world()
        .await
        .0
        .send("GET", "bar.foo.com", "/")
        .await
        .served_by("wildcard-foo-com");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_does_not_cover_two_labels() {
    world().await.0.send("GET", "baz.bar.foo.com", "/").await.is_not_found();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_does_not_cover_no_label() {
    world().await.0.send("GET", "foo.com", "/").await.is_not_found();
}
