//! A cluster with one Ingress in it, and what a request to it meets.

use landfall_test_ingress::FakeApi;
use landfall_test_ingress::client::{self, Answer};
use landfall_test_ingress::endpoint::Endpoint;
use landfall_test_ingress::objects::{class, pod, slice};
use landfall_test_ingress::program::{Launch, Program, built, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What Go's client calls itself, which the suite expects to arrive.
const AGENT: &str = "Go-http-client/1.1";
/// Node of our pod: where the status has to say that the Ingress is exposed. Requests go to loopback in its place.
const NODE: &str = "10.0.0.1";

/// A cluster with an Ingress, its Services and a pod for each.
pub struct World {
    pub api: FakeApi,
    pub proxy: Program,
    pods: Vec<Endpoint>,
}

impl World {
    /// Creates the Ingress, and for each Service that it names the Service and one pod.
    pub async fn with(name: &str, spec: Value, more: &[(&str, Value)]) -> Self {
        let api = FakeApi::start().await;
        api.put("ingressclasses", class());
        api.put("pods", pod("proxy", NODE));
        for (plural, object) in more {
            api.put(plural, object.clone());
        }
        let mut pods = Vec::new();
        for service in services_of(&spec) {
            let ports = json!([{ "name": "http", "port": 8080, "targetPort": 3000 }]);
            let metadata = json!({ "name": service, "namespace": "default" });
            api.put("services", json!({ "metadata": metadata, "spec": { "ports": ports } }));
            let endpoint = Endpoint::echo(&service, &format!("{service}-0")).await;
            api.put(
                "endpointslices",
                slice(&format!("{service}-0"), &service, endpoint.address),
            );
            pods.push(endpoint);
        }
        let metadata = json!({ "name": name, "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z" });
        api.put("ingresses", json!({ "metadata": metadata, "spec": spec }));
        let proxy = Launch::new(built()).pod("proxy").start(&api);
        proxy.until_ready().await;
        Self { api, proxy, pods }
    }

    /// Waits until the Ingress's status has the node's address.
    pub async fn exposed(self, name: &str) -> Self {
        until("an address in the status", || async {
            self.addresses(name) == json!([{ "ip": NODE }])
        })
        .await;
        self
    }

    /// What the Ingress's status says of where it is exposed.
    pub fn addresses(&self, name: &str) -> Value {
        self.api.get("ingresses", "default", name).unwrap()["status"]["loadBalancer"]["ingress"].clone()
    }

    /// Gives a Service so many pods, and waits until the proxy shows them all.
    pub async fn scale(&mut self, service: &str, replicas: usize) {
        for number in 1..replicas {
            let name = format!("{service}-{number}");
            let endpoint = Endpoint::echo(service, &name).await;
            self.api.put("endpointslices", slice(&name, service, endpoint.address));
            self.pods.push(endpoint);
        }
        let wanted: Vec<String> = self.pods.iter().map(|pod| pod.address.to_string()).collect();
        until("all pods on the dashboard", || async {
            let (_, text) = self.proxy.page("/status.json").await;
            wanted.iter().all(|address| text.contains(address))
        })
        .await;
    }

    /// Sends a request with an empty body.
    pub async fn send(&self, method: &str, host: &str, path: &str) -> Asked {
        let mut connection = client::connect(self.proxy.http()).await.unwrap();
        let answer = connection
            .exchange(request(method, host, path).as_bytes())
            .await
            .unwrap();
        Asked::new(answer, method, host, path)
    }

    /// The same over TLS. Only this certificate is trusted, and it has to be for this host.
    pub async fn send_tls(&self, host: &str, certificate: &rustls::pki_types::CertificateDer<'static>) -> Asked {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connection = client::connect_tls(self.proxy.https(), host, Arc::new(config))
            .await
            .unwrap();
        let answer = connection.exchange(request("GET", host, "/").as_bytes()).await.unwrap();
        Asked::new(answer, "GET", host, "/")
    }
}

fn request(method: &str, host: &str, path: &str) -> String {
    let length = if ["POST", "PUT", "PATCH"].contains(&method) {
        "Content-Length: 0\r\n"
    } else {
        ""
    };
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\n{length}\r\n")
}

/// An answer and what the endpoint says of the request.
pub struct Asked {
    answer: Answer,
    seen: Value,
}

impl Asked {
    /// An answer of an endpoint has to be as the suite wants every answer to be.
    fn new(answer: Answer, method: &str, host: &str, path: &str) -> Self {
        let seen = if answer.status == 200 {
            serde_json::from_slice(&answer.body).expect("an endpoint's JSON")
        } else {
            Value::Null
        };
        if answer.status == 200 {
            assert_eq!(answer.minor_version, 1);
            for name in ["content-length", "content-type", "date", "server"] {
                assert!(
                    answer.field(name).is_some_and(|value| !value.is_empty()),
                    "{name}: {answer:?}"
                );
            }
            assert_eq!(seen["proto"], "HTTP/1.1");
            assert_eq!(
                (seen["method"].as_str(), seen["target"].as_str()),
                (Some(method), Some(path))
            );
            assert_eq!(seen["host"], host);
            let agents: Vec<_> = seen["fields"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|f| f[0] == "user-agent")
                .collect();
            assert_eq!(agents, [&json!(["user-agent", AGENT])]);
        }
        Self { answer, seen }
    }

    pub fn served_by(&self, service: &str) {
        assert_eq!(
            (self.answer.status, &self.seen["service"]),
            (200, &json!(service)),
            "{}",
            self.answer.text()
        );
    }

    pub fn is_redirected_to(&self, start: &str) {
        let location = self.answer.field("location").unwrap_or_default();
        assert!(
            self.answer.status == 308 && location.starts_with(start),
            "{:?}",
            self.answer
        );
    }

    pub fn is_not_found(&self) {
        assert_eq!(self.answer.status, 404, "{}", self.answer.text());
    }

    pub fn pod(&self) -> String {
        self.seen["pod"].as_str().expect("an endpoint's answer").to_owned()
    }
}

fn services_of(spec: &Value) -> BTreeSet<String> {
    let mut backends = vec![&spec["defaultBackend"]];
    for rule in spec["rules"].as_array().into_iter().flatten() {
        backends.extend(
            rule["http"]["paths"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|path| &path["backend"]),
        );
    }
    backends
        .iter()
        .filter_map(|backend| backend["service"]["name"].as_str().map(str::to_owned))
        .collect()
}

/// A rule for a host; each path is path type, path, Service, and goes to port 8080.
pub fn rule(host: &str, paths: &[(&str, &str, &str)]) -> Value {
    let path = |(kind, path, service): &(&str, &str, &str)| json!({ "path": path, "pathType": kind, "backend": { "service": { "name": service, "port": { "number": 8080 } } } });
    json!({ "host": host, "http": { "paths": paths.iter().map(path).collect::<Vec<_>>() } })
}
