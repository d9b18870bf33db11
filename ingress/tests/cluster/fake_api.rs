//! An API server as far as the proxy can tell: lists, watches with resource versions, merge patches, conflicts; on loopback.

use crate::target::Target;
use crate::world::{World, key_of};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// A running fake; ends with the test's runtime.
#[derive(Clone)]
pub struct FakeApi {
    pub address: SocketAddr,
    world: Arc<Mutex<World>>,
    changed: Arc<watch::Sender<()>>,
}

impl FakeApi {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let api = Self {
            address: listener.local_addr().unwrap(),
            world: Arc::default(),
            changed: Arc::new(watch::channel(()).0),
        };
        let served = api.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let api = served.clone();
                let service = service_fn(move |request| {
                    let api = api.clone();
                    async move { Ok::<_, Infallible>(api.answer(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        api
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn change<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        let result = f(&mut self.world());
        self.changed.send_replace(());
        result
    }

    /// Creates an object or puts another in its place.
    pub fn put(&self, plural: &str, object: Value) {
        self.change(|world| world.put(plural, object));
    }

    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.change(|world| {
            let key = (namespace.to_owned(), name.to_owned());
            let object = world.objects.get_mut(plural).unwrap().remove(&key).unwrap();
            world.record(plural, "DELETED", object);
        });
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (namespace.to_owned(), name.to_owned());
        self.world().objects.get(plural)?.get(&key).cloned()
    }

    /// Leaves lists of this kind unanswered.
    pub fn hold(&self, plural: &str) {
        self.world().held.insert(plural.to_owned());
    }

    pub fn release(&self, plural: &str) {
        self.change(|world| world.held.remove(plural));
    }

    /// Answers 403 to this verb on this resource from now on.
    pub fn forbid(&self, verb: &str, resource: &str) {
        self.world().forbidden.insert((verb.to_owned(), resource.to_owned()));
    }

    /// Ends all watches and forgets what happened so far: whoever watches has to list again.
    pub fn cut_and_forget(&self) {
        self.change(|world| {
            world.cuts += 1;
            world.version += 1;
            world.oldest = world.version;
        });
    }

    /// How many requests of this verb for this resource came.
    pub fn count(&self, verb: &str, resource: &str) -> usize {
        let world = self.world();
        world
            .requests
            .iter()
            .filter(|(v, r)| v == verb && r == resource)
            .count()
    }

    /// Every verb and resource that was asked for.
    pub fn asked(&self) -> BTreeSet<(String, String)> {
        self.world().requests.iter().cloned().collect()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Stream> {
        let Some(target) = Target::parse(&request) else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        let resource = [&target.plural, target.sub.as_deref().unwrap_or("")].join("/");
        let resource = resource.trim_end_matches('/').to_owned();
        let verb = match (request.method(), target.watch, target.name.is_some()) {
            (&Method::GET, true, _) => "watch",
            (&Method::GET, false, false) => "list",
            (&Method::GET, false, true) => "get",
            (&Method::POST, ..) => "create",
            (&Method::PATCH, ..) => "patch",
            _ => return failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        };
        let refused = self.world().forbidden.contains(&(verb.to_owned(), resource.clone()));
        self.world().requests.push((verb.to_owned(), resource));
        if refused {
            return failure(StatusCode::FORBIDDEN, "Forbidden");
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        match verb {
            "watch" => self.watch(target),
            "list" => self.list(&target).await,
            "get" => match self.get(&target.plural, &target.namespace, &target.name.unwrap()) {
                Some(object) => success(&object),
                None => failure(StatusCode::NOT_FOUND, "NotFound"),
            },
            "create" => self.change(|world| {
                let object: Value = serde_json::from_slice(&body).unwrap();
                if world.find(&target.plural, &key_of(&object)).is_some() {
                    return failure(StatusCode::CONFLICT, "AlreadyExists");
                }
                success(&world.put(&target.plural, object))
            }),
            _ => match self.change(|world| world.patch(&target, &serde_json::from_slice(&body).unwrap())) {
                Ok(object) => success(&object),
                Err((status, reason)) => failure(status, reason),
            },
        }
    }

    async fn list(&self, target: &Target) -> Response<Stream> {
        let mut changed = self.changed.subscribe();
        while self.world().held.contains(&target.plural) {
            changed.changed().await.unwrap();
        }
        let world = self.world();
        let all = world.objects.get(&target.plural).into_iter().flatten();
        let items: Vec<_> = all.filter(|(key, _)| target.has(key)).map(|(_, o)| o).collect();
        success(&json!({ "metadata": { "resourceVersion": world.version.to_string() }, "items": items }))
    }

    fn watch(&self, target: Target) -> Response<Stream> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let api = self.clone();
        tokio::spawn(async move {
            let mut changed = api.changed.subscribe();
            let cuts = api.world().cuts;
            let mut cursor = target.version;
            loop {
                let events: Vec<Value> = {
                    let world = api.world();
                    if world.cuts != cuts {
                        return;
                    }
                    if cursor < world.oldest {
                        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
                            "message": "too old resource version", "metadata": {} });
                        vec![json!({ "type": "ERROR", "object": status })]
                    } else {
                        let new = world.log.iter().filter(|(version, plural, event)| {
                            *version > cursor && *plural == target.plural && target.has(&key_of(&event["object"]))
                        });
                        new.map(|(_, _, event)| event.clone()).collect()
                    }
                };
                cursor = api.world().version.max(cursor);
                for event in events {
                    if sender.send(Bytes::from(format!("{event}\n"))).is_err() {
                        return;
                    }
                }
                tokio::select! {
                    result = changed.changed() => result.unwrap(),
                    () = sender.closed() => return,
                }
            }
        });
        Response::new(Stream(receiver))
    }
}

/// A body whose parts come when there are any.
pub struct Stream(mpsc::UnboundedReceiver<Bytes>);

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|part| part.map(|bytes| Ok(Frame::data(bytes))))
    }
}

fn respond(status: StatusCode, value: &Value) -> Response<Stream> {
    let (sender, receiver) = mpsc::unbounded_channel();
    sender.send(Bytes::from(value.to_string())).unwrap();
    let mut response = Response::new(Stream(receiver));
    *response.status_mut() = status;
    response
}

fn success(object: &Value) -> Response<Stream> {
    respond(StatusCode::OK, object)
}

fn failure(status: StatusCode, reason: &str) -> Response<Stream> {
    let text = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": status.as_u16(),
        "metadata": {} });
    respond(status, &text)
}
