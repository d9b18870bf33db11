//! Objects with annotations, and services that keep what they were asked.

use crate::Front;
use crate::dns::Resolver;
use crate::limits::Limits;
use crate::tests::ends::{Running, ask, listen, proxy_over};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use landfall_ingress_http::network::Network;
use landfall_ingress_translate::options::{CONTROLLER, Options};
use landfall_ingress_translate::route::{Builder, Objects, Snapshot};
use landfall_ingress_translate::secrets::lookup::Secrets;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A request as a service got it.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Got {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A service on loopback.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    got: Mutex<UnboundedReceiver<Got>>,
}

impl Service {
    /// Everything it was asked since the last look.
    pub(super) fn asked(&self) -> Vec<Got> {
        let mut got = self.got.lock().unwrap();
        std::iter::from_fn(|| got.try_recv().ok()).collect()
    }

    /// The next request, which may still be on its way.
    #[expect(clippy::await_holding_lock, reason = "one test, one thread")]
    pub(super) async fn next(&self) -> Got {
        let mut got = self.got.lock().unwrap();
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), got.recv());
        next.await.expect("in time").expect("the service runs")
    }
}

/// Starts a service that answers as told: status, fields, and its name as body.
pub(super) async fn service<F>(name: &'static str, answer: F) -> Service
where
    F: Fn(&HeaderMap, &Uri) -> (u16, Vec<(&'static str, String)>) + Send + Sync + 'static,
{
    let (listener, address) = listen().await;
    let (sender, got) = unbounded_channel();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (sender, answer) = (sender.clone(), Arc::clone(&answer));
            let service = service_fn(move |request: Request<Incoming>| {
                let (sender, answer) = (sender.clone(), Arc::clone(&answer));
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
                    let (status, fields) = answer(&parts.headers, &parts.uri);
                    let mut response = Response::builder().status(status);
                    for (name, value) in fields {
                        response = response.header(name, value);
                    }
                    // The test may be over.
                    let _ = sender.send(Got {
                        method: parts.method,
                        uri: parts.uri,
                        headers: parts.headers,
                        body,
                    });
                    Ok::<_, Infallible>(response.body(Full::new(Bytes::from(name))).unwrap())
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Service {
        address,
        got: Mutex::new(got),
    }
}

/// A service that answers everything with 200 and its name.
pub(super) async fn plain(name: &'static str) -> Service {
    service(name, |_, _| (200, vec![])).await
}

#[derive(Default)]
pub(super) struct World {
    objects: Objects,
    secrets: Keys,
    limits: Option<Limits>,
    trusting: bool,
    options: Options,
}

/// Values by name and key; those of ConfigMaps and of Secrets have names apart.
#[derive(Default)]
struct Keys(BTreeMap<(String, String), String>);

impl Secrets for Keys {
    fn value(&self, _: &str, name: &str, key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self
            .0
            .get(&(name.to_owned(), key.to_owned()))
            .map(|v| v.clone().into_bytes()))
    }

    fn keys(&self, _: &str, name: &str) -> Result<Vec<String>, String> {
        Ok(self
            .0
            .keys()
            .filter(|(n, _)| n == name)
            .map(|(_, k)| k.clone())
            .collect())
    }

    fn config(&self, _: &str, name: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
        let of = self.0.iter().filter(|((n, _), _)| n == name);
        let pairs: Vec<_> = of.map(|((_, k), v)| (k.clone(), v.clone().into_bytes())).collect();
        (!pairs.is_empty()).then_some(pairs).ok_or("does not exist".to_owned())
    }
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value).unwrap())
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self::default();
        let class = json!({ "metadata": { "name": "landfall" }, "spec": { "controller": CONTROLLER } });
        world.objects.classes.push(object(class));
        world
    }

    /// A Service in namespace `d` with these endpoints.
    pub(super) fn service(self, name: &str, endpoints: &[SocketAddr]) -> Self {
        self.service_of("d", name, endpoints, &[])
    }

    /// The same in another namespace, with annotations.
    pub(super) fn service_of(
        self,
        namespace: &str,
        name: &str,
        endpoints: &[SocketAddr],
        annotations: &[(&str, &str)],
    ) -> Self {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let metadata = json!({ "name": name, "namespace": namespace, "annotations": annotations });
        let service = json!({ "metadata": metadata, "spec": { "ports": [{ "port": 80 }] } });
        self.objects.services.read_service(service).unwrap();
        for (i, endpoint) in endpoints.iter().enumerate() {
            let slice = json!({ "addressType": "IPv4",
                "metadata": { "name": format!("{name}-{i}"), "namespace": namespace, "labels": { "kubernetes.io/service-name": name } },
                "ports": [{ "name": "", "port": endpoint.port() }], "endpoints": [{ "addresses": [endpoint.ip()] }] });
            self.objects.services.read_slice(slice).unwrap();
        }
        self
    }

    /// An Ingress in namespace `d`: annotations without their prefix, and one path of one host.
    pub(super) fn ingress(self, annotations: &[(&str, &str)], host: &str, path: (&str, &str, &str)) -> Self {
        self.with(annotations, host, path, &[])
    }

    /// The same with TLS for these hosts.
    pub(super) fn with(self, annotations: &[(&str, &str)], host: &str, path: (&str, &str, &str), tls: &[&str]) -> Self {
        let prefixed =
            |(name, value): &(&str, &str)| (format!("nginx.ingress.kubernetes.io/{name}"), (*value).to_owned());
        self.add(annotations.iter().map(prefixed).collect(), host, path, tls)
    }

    /// The same with the whole names of annotations.
    pub(super) fn named(self, annotations: &[(&str, &str)], host: &str, path: (&str, &str, &str)) -> Self {
        let whole = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.add(annotations.iter().map(whole).collect(), host, path, &[])
    }

    fn add(
        mut self,
        annotations: BTreeMap<String, String>,
        host: &str,
        (kind, path, service): (&str, &str, &str),
        tls: &[&str],
    ) -> Self {
        let name = format!("i{}", self.objects.ingresses.len());
        // An item without hosts would be TLS for all of them.
        let tls: Vec<Value> = tls.iter().map(|host| json!({ "hosts": [host] })).collect();
        self.objects.ingresses.push(object(
            json!({ "metadata": { "name": name, "namespace": "d", "annotations": annotations },
            "spec": { "ingressClassName": "landfall", "tls": tls, "rules": [{ "host": host, "http": { "paths": [
                { "path": path, "pathType": kind, "backend": { "service": { "name": service, "port": { "number": 80 } } } }] } }] } }),
        ));
        self
    }

    /// A key of a Secret, or of a ConfigMap.
    pub(super) fn secret(mut self, name: &str, key: &str, value: &str) -> Self {
        self.secrets
            .0
            .insert((name.to_owned(), key.to_owned()), value.to_owned());
        self
    }

    pub(super) fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Names outside the cluster are looked up there; they may lead to loopback, where all services of these tests are, when it is `inside`.
    pub(super) fn dns(mut self, server: SocketAddr, inside: bool) -> Self {
        self.options.dns = Some(server);
        self.options.allow_internal_targets = inside;
        self
    }

    /// The client is a trusted proxy: it may say who asked, and how.
    pub(super) fn trusting(mut self) -> Self {
        self.trusting = true;
        self
    }

    /// The table of these objects, and what is to be said of them.
    pub(super) fn snapshot(&self) -> Snapshot {
        Builder::new(self.options.clone()).build(&self.objects, &self.secrets)
    }

    pub(super) async fn start(self) -> Running {
        self.run(false).await
    }

    /// Clients speak TLS.
    pub(super) async fn start_tls(self) -> Running {
        self.run(true).await
    }

    /// Clients speak TLS or do not.
    pub(super) async fn run(self, tls: bool) -> Running {
        let snapshot = self.snapshot();
        let trusted = self.trusting.then(|| Network::parse("127.0.0.0/8").unwrap());
        let front = Front {
            trusted: trusted.into_iter().collect(),
            ..Front::default()
        };
        let running = proxy_over(snapshot, self.limits.unwrap_or_default(), front, tls).await;
        if let Some(server) = self.options.dns {
            running.proxy.resolve_by(Resolver::new(
                server,
                Box::new(move |address| self.options.admits(address).is_ok()),
            ));
        }
        running
    }
}

/// An answer, read apart.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(n, _)| n == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}

/// Asks for a host and path with further fields, on a connection of its own.
pub(super) async fn send(proxy: &Running, method: &str, host: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let fields: String = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n");
    read(&ask(proxy.address, &text).await)
}

pub(super) async fn get(proxy: &Running, path: &str, fields: &[(&str, &str)]) -> Answer {
    send(proxy, "GET", "h.io", path, fields).await
}

pub(super) fn read(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    Answer {
        status: head.get(9..12).and_then(|s| s.parse().ok()).unwrap_or_default(),
        fields: fields.map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).collect(),
        body: body.to_owned(),
    }
}
