//! A fake API server on loopback, with everything that the proxy uses.
//!
//! Lists (in pages too), watches with resource versions, streaming lists (`sendInitialEvents`), bookmarks, selectors, creations, merge
//! patches and their conflicts, deletions; expired histories (410), closed watches, lists that hang, revoked rights. Objects are kept as text,
//! so that 10,000 Ingresses with their Services are listed in milliseconds.

mod target;
mod world;

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
use std::time::Duration;
use target::Target;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use world::{World, key_of};

pub use world::StreamingLists;

/// How often a watch that allows it hears of the newest version. A real server: about once a minute.
const BOOKMARK_EVERY: Duration = Duration::from_secs(5);

/// A running fake; ends with the test's runtime.
#[derive(Clone)]
pub struct FakeApi {
    /// Where it listens, without TLS.
    pub address: SocketAddr,
    world: Arc<Mutex<World>>,
    changed: Arc<watch::Sender<()>>,
}

impl FakeApi {
    /// Starts with no objects.
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
                // Events are small; without it they would wait for acknowledgements.
                stream.set_nodelay(true).unwrap();
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

    /// Creates or replaces many objects; whoever watches is woken once.
    pub fn put_all(&self, plural: &str, objects: impl IntoIterator<Item = Value>) {
        self.change(|world| objects.into_iter().for_each(|object| drop(world.put(plural, object))));
    }

    /// Removes an object that is there.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let object = self.change(|world| world.delete(plural, &key));
        object.unwrap_or_else(|| panic!("no {plural} {namespace}/{name}"));
    }

    /// The object as it is now.
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.world().find(plural, &(namespace.to_owned(), name.to_owned()))
    }

    /// All objects of a kind.
    pub fn all(&self, plural: &str) -> Vec<Value> {
        self.world().all(plural)
    }

    /// Leaves lists of this kind unanswered, streaming lists too.
    pub fn hold(&self, plural: &str) {
        self.world().held.insert(plural.to_owned());
    }

    /// Answers the lists that are held.
    pub fn release(&self, plural: &str) {
        self.change(|world| world.held.remove(plural));
    }

    /// Answers 403 to this verb on this resource (`ingresses/status` for a subresource) from now on.
    pub fn forbid(&self, verb: &str, resource: &str) {
        self.world().forbidden.insert((verb.to_owned(), resource.to_owned()));
    }

    /// Grants a right again.
    pub fn allow(&self, verb: &str, resource: &str) {
        self.world().forbidden.remove(&(verb.to_owned(), resource.to_owned()));
    }

    /// Sets how streaming lists are answered from now on.
    pub fn streaming_lists(&self, how: StreamingLists) {
        self.world().streaming_lists = how;
    }

    /// Forgets a list that is being read in pages: its next page is answered with 410.
    pub fn expire_page(&self) {
        self.world().expired_page = true;
    }

    /// Ends all watches; they can go on where they were.
    pub fn cut(&self) {
        self.change(|world| world.cuts += 1);
    }

    /// Ends all watches and forgets what happened so far: whoever watches has to list again.
    pub fn cut_and_forget(&self) {
        self.change(|world| {
            world.cuts += 1;
            world.version += 1;
            world.oldest = world.version;
        });
    }

    /// How many requests of this verb for this resource came. A streaming list counts as a watch.
    pub fn count(&self, verb: &str, resource: &str) -> usize {
        let key = (verb.to_owned(), resource.to_owned());
        self.world().requests.get(&key).copied().unwrap_or_default()
    }

    /// Names of the Secrets that went out, in lists and watches.
    pub fn sent_secrets(&self) -> BTreeSet<String> {
        self.world().sent_secrets.clone()
    }

    /// Every verb and resource that was asked for.
    pub fn asked(&self) -> BTreeSet<(String, String)> {
        self.world().requests.keys().cloned().collect()
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
            (&Method::PUT, ..) => "update",
            (&Method::PATCH, ..) => "patch",
            (&Method::DELETE, ..) => "delete",
            _ => return failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        };
        if !self.world().admit(verb, &resource) {
            return failure(StatusCode::FORBIDDEN, "Forbidden");
        }
        let Ok(body) = request.into_body().collect().await.map(|body| body.to_bytes()) else {
            return failure(StatusCode::BAD_REQUEST, "BadRequest");
        };
        let key = (target.namespace.clone(), target.name.clone().unwrap_or_default());
        match verb {
            "watch" => return self.watch(target).await,
            "list" => return self.list(&target).await,
            "get" => {
                return match self.world().find(&target.plural, &key) {
                    Some(object) => success(&object),
                    None => failure(StatusCode::NOT_FOUND, "NotFound"),
                };
            }
            "delete" => {
                return match self.change(|world| world.delete(&target.plural, &key)) {
                    Some(object) => success(&object),
                    None => failure(StatusCode::NOT_FOUND, "NotFound"),
                };
            }
            _ => {}
        }
        let Ok(sent) = serde_json::from_slice::<Value>(&body) else {
            return failure(StatusCode::BAD_REQUEST, "BadRequest");
        };
        let result = match verb {
            "create" => self.change(|world| match world.find(&target.plural, &key_of(&sent)) {
                Some(_) => Err((StatusCode::CONFLICT, "AlreadyExists")),
                None => Ok(world.put(&target.plural, sent)),
            }),
            "update" => self.change(|world| world.update(&target, sent)),
            _ => self.change(|world| world.patch(&target, &sent)),
        };
        match result {
            Ok(object) => success(&object),
            Err((status, reason)) => failure(status, reason),
        }
    }

    /// Waits while lists of this kind are held.
    async fn released(&self, plural: &str) {
        let mut changed = self.changed.subscribe();
        while self.world().held.contains(plural) {
            changed.changed().await.unwrap();
        }
    }

    async fn list(&self, target: &Target) -> Response<Stream> {
        self.released(&target.plural).await;
        if target.after.is_some() && std::mem::take(&mut self.world().expired_page) {
            return failure(StatusCode::GONE, "Expired");
        }
        let mut world = self.world();
        let text = world.list(target);
        world.note_secrets(target, text.as_bytes());
        respond(StatusCode::OK, text)
    }

    async fn watch(&self, target: Target) -> Response<Stream> {
        if target.initial_events && self.world().streaming_lists == StreamingLists::Refused {
            return failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(self.clone().follow(target, sender));
        Response::new(Stream(receiver))
    }

    async fn follow(self, target: Target, sender: mpsc::UnboundedSender<Bytes>) {
        let mut changed = self.changed.subscribe();
        let cuts = self.world().cuts;
        let end = Instant::now() + target.timeout;
        let mut cursor = target.version;
        if target.initial_events {
            self.released(&target.plural).await;
            let (version, mut events) = self.world().initial_events(&target);
            cursor = version;
            if self.world().streaming_lists == StreamingLists::Ignored {
                // The bookmark.
                events.pop();
            }
            if events.into_iter().any(|event| sender.send(event).is_err()) {
                return;
            }
        }
        let mut bookmark = Instant::now() + BOOKMARK_EVERY;
        loop {
            let (version, events) = {
                let world = self.world();
                if world.cuts != cuts {
                    return;
                }
                (world.version, world.since(cursor, &target))
            };
            cursor = version.max(cursor);
            events
                .iter()
                .for_each(|event| self.world().note_secrets(&target, event));
            if events.into_iter().any(|event| sender.send(event).is_err()) {
                return;
            }
            tokio::select! {
                result = changed.changed() => result.unwrap(),
                () = sender.closed() => return,
                () = sleep_until(end) => return,
                () = sleep_until(bookmark) => {
                    bookmark = Instant::now() + BOOKMARK_EVERY;
                    if target.bookmarks && sender.send(world::bookmark(&target.plural, cursor, false)).is_err() {
                        return;
                    }
                }
            }
        }
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

fn respond(status: StatusCode, text: String) -> Response<Stream> {
    let (sender, receiver) = mpsc::unbounded_channel();
    sender.send(Bytes::from(text)).unwrap();
    let mut response = Response::new(Stream(receiver));
    *response.status_mut() = status;
    response
}

fn success(object: &Value) -> Response<Stream> {
    respond(StatusCode::OK, object.to_string())
}

fn failure(status: StatusCode, reason: &str) -> Response<Stream> {
    let text = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": status.as_u16(),
        "metadata": {} });
    respond(status, text.to_string())
}

#[cfg(test)]
mod tests;
