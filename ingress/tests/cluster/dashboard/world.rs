//! A cluster with everything that a dashboard can show: Services in every state, certificates, conflicts, names of every length.

use crate::cluster;
use crate::harness::{class, endpoint, ingress, pod, refusing, service, slice};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_test_ingress::FakeApi;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// What a busy cluster is made of.
pub struct World {
    pub api: FakeApi,
    /// An endpoint that answers, and one that refuses connections; `flaky` has both.
    pub alive: SocketAddr,
    pub dead: SocketAddr,
}

/// A host as long as hosts may be.
pub fn long_host() -> String {
    let label = "a-quite-long-label-".repeat(3);
    format!("{label}x.{label}y.{label}z.{}.example.com", "w".repeat(40))
}

fn annotated(mut object: Value, annotations: &[(&str, &str)]) -> Value {
    for (name, value) in annotations {
        object["metadata"]["annotations"][format!("nginx.ingress.kubernetes.io/{name}")] = json!(value);
    }
    object
}

fn with_tls(mut object: Value, secret: &str) -> Value {
    object["spec"]["tls"] = json!([{ "hosts": [object["spec"]["rules"][0]["host"]], "secretName": secret }]);
    object
}

fn at(mut object: Value, path: &str, kind: &str) -> Value {
    object["spec"]["rules"][0]["http"]["paths"][0]["path"] = json!(path);
    object["spec"]["rules"][0]["http"]["paths"][0]["pathType"] = json!(kind);
    object
}

/// A Secret with a certificate for this host that ends with this year.
fn secret(name: &str, host: &str, last_year: i32) -> Value {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(last_year, 12, 31);
    let certificate = params.self_signed(&key).unwrap();
    let data = |label: &str, der: &[u8]| {
        let body = STANDARD.encode(der);
        STANDARD.encode(format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"))
    };
    json!({ "metadata": { "name": name, "namespace": "default" }, "type": "kubernetes.io/tls",
        "data": { "tls.crt": data("CERTIFICATE", certificate.der()), "tls.key": data("PRIVATE KEY", &key.serialize_der()) } })
}

/// Everything at once, over two endpoints that answer with their names.
pub async fn busy() -> World {
    let (one, two, dead) = (endpoint("one").await, endpoint("two").await, refusing());
    let api = cluster(&[one, two]).await;
    for (name, node) in [("a", "127.0.0.1"), ("b", "127.0.0.2")] {
        api.put("pods", pod(name, node));
    }
    // Below its path another rule takes the request; and two objects that come too late.
    api.put(
        "ingresses",
        at(ingress("cart", "test.nginx.com", "nginx"), "/cart/old", "Prefix"),
    );
    let mut double = ingress("double", "test.nginx.com", "nginx");
    double["metadata"]["creationTimestamp"] = json!("2026-02-02T00:00:00Z");
    api.put("ingresses", double);
    let mut taken = ingress("elsewhere", "test.nginx.com", "nginx");
    taken["metadata"]["namespace"] = json!("other");
    taken["metadata"]["creationTimestamp"] = json!("2026-02-02T00:00:00Z");
    api.put("ingresses", taken);
    for i in 0..30 {
        let name = format!("team-{i}");
        api.put("services", service(&name));
        api.put(
            "endpointslices",
            slice(&name, &name, if i % 2 == 0 { one } else { two }),
        );
        api.put(
            "ingresses",
            ingress(&name, &format!("team-{i}.apps.example.com"), &name),
        );
    }
    services(&api, one, two, dead);
    // Nobody has this Service, and its name is no markup.
    api.put(
        "ingresses",
        ingress("dead", "shop-checkout.internal.example.com", "<img-src=x>"),
    );
    policies(&api);
    for (name, year) in [("valid", 2090), ("ended", 2021)] {
        let host = format!("{name}.example.com");
        api.put("secrets", secret(name, &host, year));
        api.put("ingresses", with_tls(ingress(name, &host, "nginx"), name));
    }
    api.put(
        "ingresses",
        with_tls(ingress("keyless", "keyless.example.com", "nginx"), "nowhere"),
    );
    let long = at(
        ingress(&"long-name-".repeat(20), &long_host(), "nginx"),
        &format!("/{}", "deep/".repeat(50)),
        "Exact",
    );
    api.put("ingresses", long);
    World { api, alive: one, dead }
}

/// Services whose endpoints are draining, failing, near by, many.
fn services(api: &FakeApi, one: SocketAddr, two: SocketAddr, dead: SocketAddr) {
    for name in ["draining", "flaky", "hinted", "many"] {
        api.put("services", service(name));
        api.put("ingresses", ingress(name, &format!("{name}.example.com"), name));
    }
    let mut ending = slice("draining", "draining", one);
    ending["endpoints"][0]["conditions"] = json!({ "ready": false, "serving": true, "terminating": true });
    api.put("endpointslices", ending);
    api.put("endpointslices", slice("flaky-alive", "flaky", one));
    api.put("endpointslices", slice("flaky-dead", "flaky", dead));
    for (name, address, node) in [("hinted-near", one, "node-1"), ("hinted-far", two, "node-2")] {
        let mut hinted = slice(name, "hinted", address);
        hinted["endpoints"][0]["hints"] = json!({ "forNodes": [{ "name": node }] });
        api.put("endpointslices", hinted);
    }
    let mut many = slice("many", "many", one);
    let addresses =
        (1..=40).map(|last| json!({ "addresses": [format!("10.9.8.{last}")], "conditions": { "ready": true } }));
    many["endpoints"] = addresses.collect();
    api.put("endpointslices", many);
}

/// Routes whose annotations decide.
fn policies(api: &FakeApi) {
    let closed = annotated(
        ingress("closed", "closed.example.com", "nginx"),
        &[("whitelist-source-range", "all of us")],
    );
    api.put("ingresses", closed);
    let moved = annotated(
        ingress("moved", "old.example.com", "nginx"),
        &[("permanent-redirect", "https://new.example.com/")],
    );
    api.put("ingresses", moved);
    let guarded = [
        ("whitelist-source-range", "10.0.0.0/8,127.0.0.0/8"),
        ("limit-rps", "50"),
        ("auth-url", "http://team-1.default.svc.cluster.local/verify"),
        ("affinity", "cookie"),
        ("use-regex", "true"),
        ("rewrite-target", "/$1"),
    ];
    let guarded = annotated(ingress("guarded", "guarded.example.com", "nginx"), &guarded);
    api.put("ingresses", at(guarded, "/api/(.*)", "ImplementationSpecific"));
    let canary = [
        ("canary", "true"),
        ("canary-by-header", "X-Try"),
        ("canary-weight", "25"),
    ];
    let canary = annotated(ingress("guarded-canary", "guarded.example.com", "team-0"), &canary);
    api.put("ingresses", at(canary, "/api/(.*)", "ImplementationSpecific"));
}

/// A cluster with nothing but a class.
pub async fn empty() -> FakeApi {
    let api = FakeApi::start().await;
    api.put("ingressclasses", class());
    api
}

/// So many hosts, ten to a Service.
pub async fn large(hosts: usize) -> FakeApi {
    let api = empty().await;
    let one = endpoint("one").await;
    let services = || (0..hosts.div_ceil(10)).map(|i| format!("app-{i:04}"));
    api.put_all("services", services().map(|name| service(&name)));
    api.put_all("endpointslices", services().map(|name| slice(&name, &name, one)));
    let host = |i| {
        let name = format!("app-{i:05}");
        ingress(&name, &format!("{name}.example.com"), &format!("app-{:04}", i / 10))
    };
    api.put_all("ingresses", (0..hosts).map(host));
    api
}
