//! The HTTPS server: files, manifests, blobs and tokens, by the name that the client asks for.

use super::{Fault, Seen, State};
use crate::pipes::lock;
use anyhow::Result;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio_rustls::TlsAcceptor;

type Answer = Response<BoxBody<Bytes, io::Error>>;

/// Starts it in a thread of its own; it ends with the sender.
pub(super) fn start(
    config: Arc<ServerConfig>,
    state: Arc<Mutex<State>>,
) -> Result<(u16, tokio::sync::oneshot::Sender<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            tokio::spawn(accept(listener, TlsAcceptor::from(config), state));
            // An error says that the sender is gone, which is what is waited for.
            let _ = stopped.await;
        });
    });
    Ok((port, stop))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            // A client that does not like the certificate goes away; it says so on its side.
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let service = service_fn(move |request| {
                let answer = answer(&mut lock(&state), &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let server = hyper::server::conn::http1::Builder::new();
            let _ = server.serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

fn header(request: &Request<Incoming>, name: &str) -> Option<String> {
    Some(request.headers().get(name)?.to_str().ok()?.to_owned())
}

fn answer(state: &mut State, request: &Request<Incoming>) -> Answer {
    let host = header(request, "host").unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    let path = request.uri().path();
    let what = format!("{host}{path}");
    let authorization = header(request, "authorization");
    let range = header(request, "range");
    state.seen.push(Seen {
        what: what.clone(),
        range: range.clone(),
        authorization: authorization.clone(),
    });
    let fault = fault(state, &what);
    if let Some(Fault::Status(status, retry_after)) = fault {
        let mut answer = plain(status, "");
        if let Some(seconds) = retry_after {
            answer.headers_mut().insert("retry-after", seconds.into());
        }
        return answer;
    }
    let found = match path.strip_prefix("/v2/") {
        Some(path) => registry(state, host, path, authorization.as_deref()),
        None if host == "auth.test" => Err(token(state, request, authorization.as_deref())),
        None => file(state, &what, authorization.is_some()),
    };
    match found {
        Ok(bytes) => body(bytes, range.as_deref(), fault),
        Err(answer) => answer,
    }
}

/// The first fault that is meant for this request.
fn fault(state: &mut State, what: &str) -> Option<Fault> {
    let meant = |(part, _, times): &&mut (String, Fault, usize)| *times > 0 && what.contains(part.as_str());
    let (_, fault, times) = state.faults.iter_mut().find(meant)?;
    *times -= 1;
    Some(*fault)
}

/// Files of GitHub are at another host, as they really are. Nobody who is sent there brings a login.
fn file(state: &State, what: &str, login: bool) -> Result<Vec<u8>, Answer> {
    let plain_path = what.strip_prefix("files.test/moved/").unwrap_or(what);
    let bytes = state.files.get(plain_path).ok_or_else(|| plain(404, ""))?;
    if plain_path.starts_with("github.com/") && plain_path == what {
        return Err(redirect(&format!("https://files.test/moved/{what}")));
    }
    if login {
        return Err(plain(400, "a login went where it does not belong"));
    }
    Ok(bytes.clone())
}

fn registry(state: &State, host: &str, path: &str, authorization: Option<&str>) -> Result<Vec<u8>, Answer> {
    // files.test holds the blobs of registries, as their storage does.
    if host == "files.test" {
        let blob = path.strip_prefix("blobs/").and_then(|digest| state.blobs.get(digest));
        return match (blob, authorization) {
            (Some(bytes), None) => Ok(bytes.clone()),
            _ => Err(plain(400, "")),
        };
    }
    let (repository, kind, reference) = match (path.rsplit_once("/manifests/"), path.rsplit_once("/blobs/")) {
        (Some((repository, reference)), _) => (repository, "manifests", reference),
        (_, Some((repository, reference))) => (repository, "blobs", reference),
        _ => return Err(plain(404, "")),
    };
    if authorization != Some(&format!("Bearer token-for-{host}-{repository}")) {
        let mut answer = plain(401, "");
        let asks =
            format!(r#"Bearer realm="https://auth.test/token",service="{host}",scope="repository:{repository}:pull""#);
        if let Ok(value) = asks.parse() {
            answer.headers_mut().insert("www-authenticate", value);
        }
        return Err(answer);
    }
    if kind == "blobs" {
        return match state.blobs.contains_key(reference) {
            true => Err(redirect(&format!("https://files.test/v2/blobs/{reference}"))),
            false => Err(plain(404, "")),
        };
    }
    let key = (host.to_owned(), repository.to_owned(), reference.to_owned());
    state.manifests.get(&key).cloned().ok_or_else(|| plain(404, ""))
}

fn token(state: &State, request: &Request<Incoming>, authorization: Option<&str>) -> Answer {
    let query = request.uri().query().unwrap_or_default();
    let of = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name))
            .unwrap_or_default()
    };
    let (host, scope) = (of("service="), of("scope="));
    let repository = scope.trim_start_matches("repository:").trim_end_matches(":pull");
    let login = state.private.get(host);
    if login.is_some_and(|login| authorization != Some(login.as_str())) {
        return plain(401, "");
    }
    let token: Value = json!({ "token": format!("token-for-{host}-{repository}"), "expires_in": 300 });
    plain(200, &token.to_string())
}

fn plain(status: u16, text: &str) -> Answer {
    let body = Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed());
    *answer.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    answer
}

fn redirect(to: &str) -> Answer {
    let mut answer = plain(307, "");
    if let Ok(value) = to.parse() {
        answer.headers_mut().insert("location", value);
    }
    answer
}

fn body(mut bytes: Vec<u8>, range: Option<&str>, fault: Option<Fault>) -> Answer {
    let total = bytes.len();
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let from = from.filter(|_| fault != Some(Fault::NoRange));
    if from.is_some_and(|from| from >= total) {
        return plain(416, "");
    }
    if fault == Some(Fault::WrongByte)
        && let Some(last) = bytes.last_mut()
    {
        *last ^= 1;
    }
    let rest = bytes.split_off(from.unwrap_or(0));
    let length = rest.len();
    let sent = match fault {
        Some(Fault::Cut(hundredths)) => length * hundredths / 100,
        _ => length,
    };
    let body = Partly {
        bytes: Some(Bytes::from(rest).slice(..sent)),
        whole: sent == length,
        flushed: false,
        length,
    };
    let mut answer = Response::new(body.boxed());
    answer.headers_mut().insert("content-length", length.into());
    if let Some(from) = from {
        *answer.status_mut() = hyper::StatusCode::PARTIAL_CONTENT;
        if let Ok(value) = format!("bytes {from}-{}/{total}", total - 1).parse() {
            answer.headers_mut().insert("content-range", value);
        }
    }
    answer
}

/// A body that may break off.
struct Partly {
    bytes: Option<Bytes>,
    whole: bool,
    flushed: bool,
    length: usize,
}

impl Body for Partly {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if self.whole {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut self.flushed, true) {
            // What was sent goes out before the connection breaks: hyper writes while a body is not ready.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(io::Error::other("the test cuts here"))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length as u64)
    }
}
