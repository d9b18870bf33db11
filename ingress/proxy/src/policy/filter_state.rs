//! What policies decided about one request, kept until its answer goes out; and answers that they give by themselves.

use super::mirror::Copy;
use super::request_view::RequestView;
use super::{CREDENTIALS, cors, limit, set_all};
use hyper::body::{Body, Bytes};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use landfall_ingress_balance::{Backend, Preference};
use landfall_ingress_routing::policy::Policy;
use landfall_ingress_telemetry::reason::Reason;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// A request that may go on.
pub(crate) struct FilterState {
    pub(super) policy: Arc<Policy>,
    /// Where it goes: the route's backend, or a canary.
    pub(crate) backend: Arc<Backend>,
    /// The endpoint that the client's cookie names.
    pub(crate) endpoint: Option<SocketAddr>,
    /// Requests with equal keys go to one endpoint.
    pub(crate) hash_key: Option<Vec<u8>>,
    /// What is forwarded in place of the request's own path and query.
    pub(crate) uri: Option<Uri>,
    /// Counts for the client as long as its answer lasts.
    pub(crate) slot: Option<limit::Slot>,
    /// Fields for the endpoint.
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
    /// `Set-Cookie` for the client.
    pub(super) cookies: Vec<HeaderValue>,
    pub(super) origin: Option<HeaderValue>,
    pub(super) is_preflight: bool,
    pub(super) secure: bool,
    pub(super) cookie_path: String,
    /// What an error page may want to know.
    pub(super) accept: Option<HeaderValue>,
    pub(super) request_uri: String,
    /// Where its copy goes.
    pub(super) mirror: Option<Box<Copy>>,
}

impl FilterState {
    pub(super) fn new(view: &RequestView<'_>) -> Self {
        let policy = Arc::clone(&view.route.policy);
        let cors = policy.cors.as_ref();
        let cookie_path = match (&policy.affinity, &view.route.pattern) {
            (None, _) => String::new(),
            (Some(_), None) => view.route.path.to_string(),
            // A regular expression is no path that a browser could compare.
            (Some(_), Some(_)) => "/".to_owned(),
        };
        let pages = !policy.replaced_statuses.is_empty();
        Self {
            backend: Arc::clone(&view.route.backend),
            endpoint: None,
            hash_key: None,
            uri: None,
            slot: None,
            fields: Vec::new(),
            cookies: Vec::new(),
            origin: cors.and_then(|cors| cors::allowed_origin(cors, view.headers)),
            is_preflight: cors.is_some() && cors::is_preflight(view.method, view.headers),
            secure: view.secure,
            cookie_path,
            accept: view.headers.get(header::ACCEPT).filter(|_| pages).cloned(),
            request_uri: if pages { view.request_uri() } else { String::new() },
            mirror: None,
            policy,
        }
    }

    /// Which endpoint is tried first.
    pub(crate) fn preference(&self) -> Preference {
        match (self.endpoint, &self.hash_key) {
            (Some(own), _) => Preference::Endpoint(own),
            (None, Some(key)) => Preference::key(key),
            (None, None) => Preference::Any,
        }
    }

    /// Sets what the endpoint gets, on a request that is otherwise ready to go.
    pub(crate) fn apply_to_request<B>(&self, request: &mut Request<B>) {
        if let Some(rewritten) = &self.uri {
            *request.uri_mut() = rewritten.clone();
        }
        let headers = request.headers_mut();
        // What the client said to the authentication service is none of its results.
        let results = self.policy.external_auth.iter().flat_map(|auth| &auth.response_headers);
        for credential in results.filter(|name| CREDENTIALS.contains(name)) {
            headers.remove(credential);
        }
        set_all(headers, &self.fields);
        let mut set = |name: HeaderName, value: &Option<String>| {
            if let Some(value) = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        };
        set(header::HOST, &self.policy.upstream.host);
        if let Some(prefix) = &self.policy.upstream.forwarded_prefix {
            headers.insert(FORWARDED_PREFIX, prefix.clone());
        }
    }

    /// The copy for the mirror, of a request that is ready to go. None when it is not mirrored.
    pub(crate) fn copy<B: Body>(&mut self, request: &Request<B>) -> Option<Box<Copy>> {
        self.mirror.take()?.of(request)
    }

    /// Sets what the client gets, on answers of endpoints and of our own alike.
    pub(crate) fn apply_to_response(&self, headers: &mut HeaderMap) {
        set_all(headers, &self.policy.response_headers);
        if let Some(cors) = &self.policy.cors {
            cors::dress(cors, self.origin.as_ref(), self.is_preflight, headers);
        }
        // Over plain HTTP anyone could have said it (RFC 6797, 7.2).
        if let Some(hsts) = self.policy.hsts.as_ref().filter(|_| self.secure) {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        for cookie in &self.cookies {
            headers.append(header::SET_COOKIE, cookie.clone());
        }
    }
}

/// An answer that a policy gives.
#[derive(Debug)]
pub struct Stop {
    /// Why.
    pub reason: Reason,
    /// The answer.
    pub response: Response<Bytes>,
}

impl Stop {
    pub(super) fn plain(reason: Reason) -> Box<Self> {
        Self::new(reason, reason.status(), reason.text())
    }

    fn new(reason: Reason, status: StatusCode, text: &'static str) -> Box<Self> {
        let mut response = Response::new(Bytes::from_static(text.as_bytes()));
        *response.status_mut() = status;
        if !text.is_empty() {
            let kind = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        Box::new(Self { reason, response })
    }

    pub(super) fn redirect(status: StatusCode, location: &str) -> Box<Self> {
        let Ok(location) = HeaderValue::from_str(location) else {
            return Self::plain(Reason::BadRequest);
        };
        let mut stop = Self::new(Reason::Redirected, status, "");
        stop.response.headers_mut().insert(header::LOCATION, location);
        stop
    }

    pub(super) fn too_many(retry_after: Duration) -> Box<Self> {
        let mut stop = Self::plain(Reason::TooMany);
        let seconds = HeaderValue::from(retry_after.as_millis().div_ceil(1000).max(1) as u64);
        stop.response.headers_mut().insert(header::RETRY_AFTER, seconds);
        stop
    }

    pub(super) fn preflight(allowed: bool) -> Box<Self> {
        match allowed {
            true => Self::new(Reason::Preflight, StatusCode::NO_CONTENT, ""),
            false => Self::plain(Reason::Origin),
        }
    }

    pub(super) fn unauthorized(challenges: impl IntoIterator<Item = HeaderValue>) -> Box<Self> {
        let mut stop = Self::plain(Reason::Unauthorized);
        for challenge in challenges {
            stop.response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
        }
        stop
    }
}
