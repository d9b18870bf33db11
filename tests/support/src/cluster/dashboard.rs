//! The ingress proxies' dashboards, as far as the installer uses them: HTTP on a loopback port, with the login of the cluster's Secret.

use super::traffic::is_open;
use super::{Inner, State, World};
use anyhow::Result;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use landfall_core::layout::{DASHBOARD, INGRESS_NAMESPACE};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Weak};
use tokio::task::AbortHandle;

impl World {
    /// Opens a port for the dashboards of the cluster with this authority.
    pub(super) fn serve_dashboards(&self, ca: String) -> Result<(u16, AbortHandle)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let world = Arc::downgrade(&self.0);
        let task = self.0.runtime.spawn(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((tcp, _)) = listener.accept().await {
                let (world, ca) = (world.clone(), ca.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let answer = answer(&world, &ca, &request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(tcp), service).await;
                });
            }
        });
        Ok((port, task.abort_handle()))
    }
}

fn answer(world: &Weak<Inner>, ca: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|field| field.to_str().ok());
    let (status, value) = respond(world, ca, given).unwrap_or((503, json!({})));
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response
}

fn respond(world: &Weak<Inner>, ca: &str, given: Option<&str>) -> Option<(u16, Value)> {
    let inner = world.upgrade()?;
    let state = inner.state();
    let at = state.clusters.iter().position(|cluster| cluster.ca == ca)?;
    let sets = state.read_all(at, "apps/daemonsets");
    let open = sets.iter().any(is_open);
    let secret = state.clusters[at].store.get("secrets", INGRESS_NAMESPACE, DASHBOARD);
    let right = secret.and_then(|secret| basic(&secret["data"]));
    Some(match (open, right) {
        (false, None) => (404, json!({})),
        (false, Some(right)) if given != Some(&right) => (401, json!({})),
        _ => (200, json!({ "items": state.named_secrets(at) })),
    })
}

impl State {
    /// The Secrets that Ingresses name for TLS, and whether a binding lets the proxy read them.
    fn named_secrets(&self, at: usize) -> Vec<Value> {
        let bindings = self.read_all(at, "rbac.authorization.k8s.io/rolebindings");
        let everywhere = self.read_all(at, "rbac.authorization.k8s.io/clusterrolebindings");
        let lets = |binding: &Value| {
            let role = binding["roleRef"]["name"].as_str().unwrap_or_default();
            role.ends_with("-secrets") && binding["subjects"][0]["name"] == "landfall-ingress"
        };
        let mut named = Vec::new();
        for ingress in self.read_all(at, "networking.k8s.io/ingresses") {
            let namespace = &ingress["metadata"]["namespace"];
            let may = everywhere.iter().any(lets)
                || bindings
                    .iter()
                    .any(|b| lets(b) && b["metadata"]["namespace"] == *namespace);
            for item in ingress["spec"]["tls"].as_array().into_iter().flatten() {
                let state = if may { "read" } else { "forbidden" };
                named.push(
                    json!({ "kind": "Secret", "namespace": namespace, "name": item["secretName"], "state": state }),
                );
            }
        }
        named
    }
}

/// The field that shows user and password of a Secret, both in base64.
fn basic(data: &Value) -> Option<String> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let value = |name: &str| STANDARD.decode(data[name].as_str()?).ok();
    let both = [value("username")?, b":".to_vec(), value("password")?].concat();
    Some(format!("Basic {}", STANDARD.encode(both)))
}
