//! API objects, as short as they can be.

use serde_json::{Value, json};
use std::net::SocketAddr;

/// Our IngressClass, marked as the cluster's default.
pub fn class() -> Value {
    json!({ "metadata": { "name": "landfall", "annotations": { "ingressclass.kubernetes.io/is-default-class": "true" } },
        "spec": { "controller": "landfall.dev/ingress" } })
}

/// An Ingress in `default` with this spec.
pub fn ingress_of(name: &str, spec: Value) -> Value {
    json!({ "metadata": { "name": name, "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z" }, "spec": spec })
}

/// All paths of a host to a Service's port `http`, as the sample's.
pub fn ingress(name: &str, host: &str, service: &str) -> Value {
    let backend = json!({ "service": { "name": service, "port": { "name": "http" } } });
    let path = json!({ "path": "/", "pathType": "Prefix", "backend": backend });
    let spec = json!({ "ingressClassName": "landfall", "rules": [{ "host": host, "http": { "paths": [path] } }] });
    ingress_of(name, spec)
}

/// A Service with port 80, named `http`.
pub fn service(name: &str) -> Value {
    json!({ "metadata": { "name": name, "namespace": "default" },
        "spec": { "type": "NodePort", "ports": [{ "name": "http", "port": 80, "targetPort": 80 }] } })
}

/// How an endpoint is doing, as a slice says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Takes requests.
    Ready,
    /// Is ending, still takes requests.
    Terminating,
}

/// One ready endpoint in a slice of its own, for ports differ on loopback.
pub fn slice(name: &str, service: &str, endpoint: SocketAddr) -> Value {
    slice_with(name, service, endpoint, Condition::Ready)
}

/// The same in any condition.
pub fn slice_with(name: &str, service: &str, endpoint: SocketAddr, condition: Condition) -> Value {
    let ready = condition == Condition::Ready;
    json!({ "metadata": { "name": name, "namespace": "default", "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "ports": [{ "name": "http", "port": endpoint.port() }],
        "endpoints": [{ "addresses": [endpoint.ip()], "conditions": { "ready": ready, "serving": true, "terminating": !ready } }] })
}

/// A Ready pod of ours on a node.
pub fn pod(name: &str, node: &str) -> Value {
    json!({ "metadata": { "name": name, "namespace": "kube-system", "labels": { "app.kubernetes.io/name": "landfall-ingress" } },
        "status": { "hostIP": node, "conditions": [{ "type": "Ready", "status": "True" }] } })
}

/// A Secret with a certificate and its key, both given in DER.
pub fn tls_secret(name: &str, certificate: &[u8], key: &[u8]) -> Value {
    let (certificate, key) = (pem("CERTIFICATE", certificate), pem("PRIVATE KEY", key));
    let data = json!({ "tls.crt": base64(certificate.as_bytes()), "tls.key": base64(key.as_bytes()) });
    json!({ "metadata": { "name": name, "namespace": "default" }, "type": "kubernetes.io/tls", "data": data })
}

/// DER as PEM.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = base64(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
