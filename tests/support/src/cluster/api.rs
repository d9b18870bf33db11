//! The API server of a cluster: HTTPS on a loopback port that the kernel chooses, with the cluster's own certificate. It answers
//! only while etcd has its quorum and the asker shows the administrator's token.

use super::objects::{Apply, Refusal};
use super::workloads::matches;
use super::{Inner, State, World};
use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use landfall_core::name::NodeName;
use rustls::ServerConfig;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Weak};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// What a question shows to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedWith {
    /// The token of the cluster's administrator.
    AdministratorsToken,
    /// A token that nobody was given.
    UnknownToken,
}

impl World {
    /// Asks the API server of a machine. `target` is path and query. Returns status and body.
    pub fn ask_api(
        &self,
        from: &NodeName,
        rights: AskedWith,
        method: &str,
        target: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value)> {
        let mut state = self.state();
        let ca = state.ca_of(from).context("no cluster")?;
        let at = state.cluster_of(from).filter(|at| state.has_api_server(*at, from));
        anyhow::ensure!(at.is_some(), "{from} runs no API server");
        let admin = state.authorities.get(&ca).map(|a| a.admin_token.clone());
        let token = match rights {
            AskedWith::AdministratorsToken => admin.unwrap_or_default(),
            AskedWith::UnknownToken => "nobody".to_owned(),
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (method, body) = (method.parse()?, body.map(Value::to_string).unwrap_or_default());
        let asked = Asked {
            method: &method,
            path,
            query,
            token: &token,
            body: body.as_bytes(),
        };
        Ok(state.answered(&ca, &asked))
    }

    /// Opens a port for the API servers of the cluster with this authority.
    pub(super) fn serve(&self, config: Arc<ServerConfig>, ca: String) -> Result<(u16, AbortHandle)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let (acceptor, world) = (TlsAcceptor::from(config), Arc::downgrade(&self.0));
        let task = self.0.runtime.spawn(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, world, ca) = (acceptor.clone(), world.clone(), ca.clone());
                let _ = tcp.set_nodelay(true);
                tokio::spawn(async move {
                    // A client that refuses the certificate closes the connection and reports the error itself.
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request| answer(world.clone(), ca.clone(), request));
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        Ok((port, task.abort_handle()))
    }
}

async fn answer(
    world: Weak<Inner>,
    ca: String,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let token = parts
        .headers
        .get("authorization")
        .and_then(|h| h.to_str().ok())
        .unwrap_or_default();
    let asked = Asked {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        token: token.trim_start_matches("Bearer "),
        body: &body,
    };
    let (status, value) = match world.upgrade() {
        Some(inner) => inner.state().answered(&ca, &asked),
        None => (503, failure(503, "the test is over")),
    };
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(
        "content-type",
        hyper::header::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

fn failure(code: u16, message: &str) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        _ => "InternalError",
    };
    failure_for(code, reason, message)
}

fn failure_for(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {}, "message": message, "reason": reason, "code": code })
}

struct Asked<'a> {
    method: &'a Method,
    path: &'a str,
    query: &'a str,
    token: &'a str,
    body: &'a [u8],
}

impl Asked<'_> {
    fn parameter(&self, name: &str) -> Option<String> {
        let pair = self.query.split('&').filter_map(|p| p.split_once('='));
        pair.into_iter().find(|(k, _)| *k == name).map(|(_, v)| decoded(v))
    }
}

/// Undoes the percent-encoding of a query's value.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        match (first, hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a path names: resource, namespace, name.
fn place(path: &str) -> Option<(String, String, String)> {
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, rest) = match words.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let full = |plural: &str| {
        if group.is_empty() {
            plural.to_owned()
        } else {
            format!("{group}/{plural}")
        }
    };
    let (namespace, plural, name) = match rest {
        ["namespaces", name] => ("", "namespaces", *name),
        ["namespaces", namespace, plural] => (*namespace, *plural, ""),
        ["namespaces", namespace, plural, name, ..] => (*namespace, *plural, *name),
        [plural] => ("", *plural, ""),
        [plural, name, ..] => ("", *plural, *name),
        [] => return None,
    };
    Some((full(plural), namespace.to_owned(), name.to_owned()))
}

impl State {
    fn answered(&mut self, ca: &str, asked: &Asked) -> (u16, Value) {
        let result = self.api(ca, asked);
        result.unwrap_or_else(|(code, message)| (code, failure(code, &message)))
    }

    fn api(&mut self, ca: &str, asked: &Asked) -> Result<(u16, Value), Refusal> {
        let at = self
            .clusters
            .iter()
            .position(|c| c.ca == ca)
            .ok_or((503, "gone".to_owned()))?;
        let admin = self.authorities.get(ca).map(|a| a.admin_token.clone());
        if admin.as_deref() != Some(asked.token) {
            return Err((401, "Unauthorized".to_owned()));
        }
        if !self.has_quorum(at) {
            return Err((500, "etcdserver: request timed out".to_owned()));
        }
        if asked.path == "/version" {
            return Ok((200, json!({ "major": "1", "minor": "37", "gitVersion": "v1.37.0" })));
        }
        let (resource, namespace, name) = place(asked.path).ok_or((404, "the server could not find it".to_owned()))?;
        let missing = || (404, format!("{resource} \"{name}\" not found"));
        let found = |state: &Self| {
            let all = state.read_all(at, &resource);
            all.into_iter().find(|o| is_at(o, &namespace, &name))
        };
        match *asked.method {
            Method::GET if name.is_empty() => Ok((200, self.list(at, &resource, &namespace, asked))),
            Method::GET => Ok((200, found(self).ok_or_else(missing)?)),
            Method::PATCH => self.patch(at, (&resource, &namespace, &name), asked),
            Method::POST => {
                let body: Value = serde_json::from_slice(asked.body).map_err(|e| (400, e.to_string()))?;
                let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if self.clusters[at].store.get(&resource, &namespace, &name).is_some() {
                    let message = format!("{resource} \"{name}\" already exists");
                    return Ok((409, failure_for(409, "AlreadyExists", &message)));
                }
                self.apply(at, (&resource, &namespace, &name), &body, asked)
            }
            Method::DELETE => {
                let there = found(self).ok_or_else(missing)?;
                if resource == "nodes" {
                    self.may_remove_node(at, &there, &name);
                } else {
                    self.may_delete(&there, &format!("{resource} {name}"));
                }
                self.must_be_intended_somewhere("an object was deleted");
                self.clusters[at]
                    .store
                    .delete(&resource, &namespace, &name)
                    .ok_or_else(missing)?;
                Ok((200, there))
            }
            _ => Err((405, format!("{} is not modelled", asked.method))),
        }
    }

    fn list(&self, at: usize, resource: &str, namespace: &str, asked: &Asked) -> Value {
        let selector = asked.parameter("labelSelector").unwrap_or_default();
        let wanted: serde_json::Map<String, Value> = selector
            .split(',')
            .filter_map(|p| p.split_once('='))
            .map(|(k, v)| (k.to_owned(), json!(v.trim_start_matches('='))))
            .collect();
        let wanted = Value::Object(wanted);
        let selected = |o: &Value| selector.is_empty() || matches(&o["metadata"]["labels"], &wanted);
        let items = self.read_all(at, resource).into_iter();
        let items: Vec<Value> = items
            .filter(|o| namespace.is_empty() || o["metadata"]["namespace"] == namespace)
            .filter(selected)
            .collect();
        let kind = items.first().and_then(|o| o["kind"].as_str()).unwrap_or("Object");
        json!({ "kind": format!("{kind}List"), "apiVersion": "v1", "metadata": { "resourceVersion": self.counter.to_string() }, "items": items })
    }

    fn patch(&mut self, at: usize, place: (&str, &str, &str), asked: &Asked) -> Result<(u16, Value), Refusal> {
        // JSON is YAML, so one reader serves both forms of a body.
        let text = String::from_utf8_lossy(asked.body);
        let body: Value = serde_yaml::from_str(&text).map_err(|e| (400, e.to_string()))?;
        self.apply(at, place, &body, asked)
    }

    fn apply(
        &mut self,
        at: usize,
        place: (&str, &str, &str),
        body: &Value,
        asked: &Asked,
    ) -> Result<(u16, Value), Refusal> {
        let number = self.number();
        let manager = asked.parameter("fieldManager").unwrap_or_else(|| "unknown".to_owned());
        let dry_run = asked.parameter("dryRun").is_some();
        let request = Apply {
            resource: place.0,
            namespace: place.1,
            name: place.2,
            body,
            manager: &manager,
            force: asked.parameter("force").as_deref() == Some("true"),
            dry_run,
            number,
        };
        if !dry_run {
            self.must_be_intended_somewhere("an object was applied");
        }
        let (value, new) = self.clusters[at].store.apply(&request)?;
        Ok((if new { 201 } else { 200 }, value))
    }
}

fn is_at(object: &Value, namespace: &str, name: &str) -> bool {
    let metadata = &object["metadata"];
    metadata["name"] == name && metadata["namespace"].as_str().unwrap_or_default() == namespace
}
