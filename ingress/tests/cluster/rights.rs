//! What `deploy.yaml` grants is what the program needs: with each rule taken away something fails, and nothing is granted that is not asked.

use crate::harness::{Proxy, endpoint, ingress, pod, program, until};
use crate::{FakeApi, cluster};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};

/// A verb on a resource.
type Right = (String, String);

/// How long something must go on failing: many times what it takes when nothing is missing.
const FAILING: Duration = Duration::from_secs(2);

/// All objects of the shipped manifest.
fn manifest() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

/// The rules of all roles that are bound, each as the rights that it grants.
fn rules() -> Vec<Vec<Right>> {
    let list = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
    let mut rules = Vec::new();
    // A role that nothing binds grants nothing.
    let manifest = manifest();
    let bound = |role: &Value| {
        manifest.iter().any(|binding| {
            let (of, kind) = (&binding["roleRef"]["name"], &binding["roleRef"]["kind"]);
            *of == role["metadata"]["name"] && *kind == role["kind"]
        })
    };
    for object in manifest.iter().filter(|object| bound(object)) {
        for rule in object["rules"].as_array().into_iter().flatten() {
            let verbs = list(&rule["verbs"]);
            let rights = list(&rule["resources"]).into_iter().flat_map(|resource| {
                verbs
                    .iter()
                    .map(move |verb| (verb.clone(), resource.clone()))
                    .collect::<Vec<_>>()
            });
            rules.push(rights.collect());
        }
    }
    rules
}

/// Everything that the roles grant.
pub fn granted() -> BTreeSet<Right> {
    rules().into_iter().flatten().collect()
}

/// What stands before the API server: refuses rights and notes which were asked for.
#[derive(Clone, Default)]
struct Gate {
    missing: Vec<Right>,
    /// As a server does that is older than streaming lists.
    no_streaming: bool,
    asked: Arc<Mutex<BTreeSet<Right>>>,
}

impl Gate {
    /// The API as it is seen through this gate.
    async fn before(self, api: &FakeApi) -> FakeApi {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (mut seen, real) = (api.clone(), api.address);
        seen.address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let gate = self.clone();
                let service = service_fn(move |request| {
                    let gate = gate.clone();
                    async move { gate.pass(request, real).await }
                });
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        seen
    }

    async fn pass(
        &self,
        request: Request<Incoming>,
        real: std::net::SocketAddr,
    ) -> Result<Response<BoxBody<Bytes, hyper::Error>>, hyper::Error> {
        let right = right(&request);
        self.asked.lock().unwrap().insert(right.clone());
        let streaming = request
            .uri()
            .query()
            .is_some_and(|query| query.contains("sendInitialEvents=true"));
        let refusal = if self.missing.contains(&right) {
            Some((StatusCode::FORBIDDEN, "Forbidden"))
        } else if streaming && self.no_streaming {
            Some((StatusCode::UNPROCESSABLE_ENTITY, "Invalid"))
        } else {
            None
        };
        if let Some((status, reason)) = refusal {
            let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason,
                "code": status.as_u16() });
            let body = Full::from(body.to_string()).map_err(|never| match never {}).boxed();
            let mut response = Response::new(body);
            *response.status_mut() = status;
            return Ok(response);
        }
        let stream = TcpStream::connect(real).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?.map(BodyExt::boxed))
    }
}

/// What a request asks for, as RBAC sees it.
fn right(request: &Request<Incoming>) -> Right {
    let mut parts: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    parts.drain(..if parts.first() == Some(&"api") { 2 } else { 3 });
    if parts.first() == Some(&"namespaces") && parts.len() > 2 {
        parts.drain(..2);
    }
    let watched = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let verb = match (request.method(), parts.len()) {
        (&Method::GET, 1) if watched => "watch",
        (&Method::GET, 1) => "list",
        (&Method::GET, _) => "get",
        (&Method::POST, _) => "create",
        (&Method::PATCH, _) => "patch",
        _ => "another",
    };
    let resource = match parts.as_slice() {
        [plural, _, sub] => format!("{plural}/{sub}"),
        [plural, ..] => (*plural).to_owned(),
        [] => String::new(),
    };
    (verb.to_owned(), resource)
}

/// One proxy in a cluster in which all is there that it has to do.
struct Life {
    api: FakeApi,
    proxy: Proxy,
    gate: Gate,
}

impl Life {
    async fn begin(api: FakeApi, gate: Gate) -> Self {
        api.put("pods", pod("a", "10.0.0.1"));
        // Something to complain of.
        let mut bad = ingress("bad", "bad.nginx.com", "nginx");
        bad["metadata"]["uid"] = json!("1");
        bad["spec"]["rules"][0]["http"]["paths"][0]["path"] = json!("no-slash");
        api.put("ingresses", bad);
        let seen = gate.clone().before(&api).await;
        Self {
            proxy: Proxy::start(&seen, "a"),
            api,
            gate,
        }
    }

    fn asked(&self) -> BTreeSet<Right> {
        self.gate.asked.lock().unwrap().clone()
    }

    /// It does all that it is there for: serves, follows changes of every kind, leads, writes status and Events.
    async fn is_whole(&self) -> bool {
        if !self.proxy.ready().await {
            return false;
        }
        let api = &self.api;
        if api.get("ingresses", "default", "later").is_none() {
            let later = |name: &str| {
                let mut object =
                    json!({ "metadata": { "name": name }, "spec": { "controller": "landfall.dev/ingress" } });
                object["metadata"]["resourceVersion"] = json!("1");
                object
            };
            api.put("ingressclasses", later("later"));
            api.put("services", crate::service("later"));
            let endpoint = api.get("endpointslices", "default", "nginx-0").unwrap();
            let mut slice = endpoint.clone();
            slice["metadata"]["name"] = json!("later-0");
            slice["metadata"]["labels"]["kubernetes.io/service-name"] = json!("later");
            api.put("endpointslices", slice);
            api.put("ingresses", ingress("later", "later.nginx.com", "later"));
        }
        let status = api.get("ingresses", "default", "nginx").unwrap()["status"].clone();
        self.proxy.body("later.nginx.com").await == "one"
            && status["loadBalancer"]["ingress"] == json!([{ "ip": "10.0.0.1" }])
            && (!granted().iter().any(|(_, resource)| resource == "events")
                || self.asked().contains(&("create".to_owned(), "events".to_owned())))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_rule_of_the_shipped_roles_something_fails() {
    let one = endpoint("one").await;
    let mut lives = Vec::new();
    for rule in rules() {
        // Rights on several kinds are several rules.
        for kind in rule
            .iter()
            .map(|(_, resource)| resource.clone())
            .collect::<BTreeSet<_>>()
        {
            let missing: Vec<Right> = rule.iter().filter(|(_, resource)| *resource == kind).cloned().collect();
            lives.push(tokio::spawn(async move {
                let gate = Gate {
                    missing: missing.clone(),
                    ..Gate::default()
                };
                let life = Life::begin(cluster(&[one]).await, gate).await;
                until(&format!("{missing:?} is asked for"), || async {
                    let _ = life.is_whole().await;
                    missing.iter().any(|right| life.asked().contains(right))
                })
                .await;
                // An Event that is refused was asked for all the same, and requests are served without the namespaces.
                if ["events", "namespaces"].contains(&kind.as_str()) {
                    return;
                }
                let start = Instant::now();
                while start.elapsed() < FAILING {
                    assert!(!life.is_whole().await, "nothing fails without {missing:?}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }));
        }
    }
    assert!(lives.len() >= 6);
    for life in lives {
        life.await.unwrap();
    }
}

/// An image that is newer than the cluster's roles must not cost the cluster its ingress.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_namespaces_it_serves_and_follows_changes() {
    let one = endpoint("one").await;
    for no_streaming in [false, true] {
        let missing = ["list", "watch"].map(|verb| (verb.to_owned(), "namespaces".to_owned()));
        let gate = Gate {
            missing: missing.to_vec(),
            no_streaming,
            ..Gate::default()
        };
        let life = Life::begin(cluster(&[one]).await, gate).await;
        until("all is done", || life.is_whole()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_right_is_used_and_none_is_missing() {
    let one = endpoint("one").await;
    let mut asked = BTreeSet::new();
    for no_streaming in [false, true] {
        let api = cluster(&[one]).await;
        if no_streaming {
            // Another way through the same work: a Lease that is there and free.
            let lease = json!({ "metadata": { "name": "landfall-ingress", "namespace": "kube-system" },
                "spec": { "holderIdentity": "" } });
            api.put("leases", lease);
        }
        let gate = Gate {
            no_streaming,
            ..Gate::default()
        };
        let life = Life::begin(api, gate).await;
        until("all is done", || life.is_whole()).await;
        asked.extend(life.asked());
    }
    let granted = granted();
    let missing: Vec<_> = asked.difference(&granted).collect();
    let unused: Vec<_> = granted.difference(&asked).collect();
    assert!(
        missing.is_empty() && unused.is_empty(),
        "missing: {missing:?}, never used: {unused:?}"
    );
}

#[test]
fn the_program_knows_every_flag_of_the_manifest() {
    let objects = manifest();
    let set = objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let words = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
    let run = |arguments: Vec<String>| {
        let output = std::process::Command::new(program())
            .args(&arguments)
            .arg("--help")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(words(&container["args"]));
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        run(words(&container[probe]["exec"]["command"]).split_off(1));
    }
}
