//! What would become of a request, for people who ask: the same way through the same code as [`super::Proxy::respond`], but for what has
//! side effects. Nothing is sent, and nothing is counted.

pub use super::policy::{Met, Outcome, Stage, Stop, Way};
use landfall_ingress_http::fields;

use super::policy::{self, Foreseen as Policed};
use super::{Client, Proxy, find, headers, target};
use crate::tls;
use bytes::BytesMut;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Uri, Version};
use landfall_ingress_http::protocol::Protocol;
use landfall_ingress_routing::{Route, RouteTable};
use landfall_ingress_telemetry::reason::Reason;
use landfall_ingress_upstream::Upload;
use std::net::SocketAddr;
use std::sync::Arc;

/// A request that nobody sent.
#[derive(Debug)]
pub struct Supposed {
    /// Its method.
    pub method: Method,
    /// Host and port of its URL: where the client connects to, and the name in its handshake.
    pub authority: String,
    /// Path and query as sent.
    pub target: String,
    /// Its fields; `Host` only when it is another than `authority`.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// The connection is TLS.
    pub secure: bool,
    /// As `--strict-sni` says.
    pub strict_sni: bool,
    /// The connection's peer.
    pub peer: SocketAddr,
}

/// What would become of it.
pub struct Foreseen {
    /// The host as it is compared; empty when it is none.
    pub host: String,
    /// Who asks, as far as they are believed.
    pub client: Client,
    /// The route that takes it.
    pub route: Option<Arc<Route>>,
    /// Its way through the route's policy.
    pub met: Vec<Met>,
    /// Where it may go.
    pub ways: Vec<Way>,
    /// Why there is an answer before or after all policy.
    pub refused: Option<Reason>,
    /// As an endpoint would get it.
    pub sent: Option<Parts>,
    /// Fields that the answer would get, whoever gives it.
    pub dressed: HeaderMap,
}

impl Foreseen {
    fn refused(client: Client, reason: Reason) -> Self {
        Self {
            host: String::new(),
            client,
            route: None,
            met: Vec::new(),
            ways: Vec::new(),
            refused: Some(reason),
            sent: None,
            dressed: HeaderMap::new(),
        }
    }
}

/// A name that no request has.
const UNNAMED: HeaderValue = HeaderValue::from_static("(made for each request)");

impl Proxy {
    /// Tells what would become of a request now.
    pub fn foresee(&self, supposed: &Supposed, snapshot: &RouteTable) -> Foreseen {
        let client = self.client(supposed, snapshot);
        let (request, least) = match self.head(supposed) {
            Ok(head) => head,
            Err(reason) => return Foreseen::refused(client, reason),
        };
        let mut foreseen = Foreseen::refused(client, Reason::BadRequest);
        foreseen.refused = self.walk(request, least, snapshot, &mut foreseen).err();
        foreseen
    }

    /// The connection that the request would come by.
    fn client(&self, supposed: &Supposed, snapshot: &RouteTable) -> Client {
        let usual = if supposed.secure { 443 } else { 80 };
        let (name, port) = match supposed.authority.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().unwrap_or(usual)),
            _ => (supposed.authority.as_str(), usual),
        };
        let mut client = Client::new(supposed.peer, port);
        client.https = supposed.secure;
        client.trusted = self.front.trusts(supposed.peer);
        client.tls = supposed
            .secure
            .then(|| Arc::new(tls::client::foreseen(snapshot, name, supposed.strict_sni)));
        client
    }

    /// The head as the proxy would read it, and how long its body is at least. HTTP/1 goes through the reader of connections.
    fn head(&self, supposed: &Supposed) -> Result<(Request<Empty<Bytes>>, u64), Reason> {
        let named = supposed.fields.iter().any(|(name, _)| name == header::HOST);
        if supposed.version == Version::HTTP_2 {
            return self.head_of_http2(supposed);
        }
        let mut text = BytesMut::new();
        for part in [supposed.method.as_str(), " ", &supposed.target, " HTTP/1.1\r\n"] {
            text.extend_from_slice(part.as_bytes());
        }
        let host = HeaderValue::from_str(&supposed.authority).map_err(|_| Reason::BadRequest)?;
        let host = (!named).then_some((header::HOST, host));
        for (name, value) in host.iter().chain(&supposed.fields) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                text.extend_from_slice(part);
            }
        }
        text.extend_from_slice(b"\r\n");
        let head =
            landfall_ingress_http::request::parse(&mut text, &self.limits.of_heads())?.ok_or(Reason::BadFraming)?;
        let least = match head.framing {
            landfall_ingress_http::chunked::Framing::Length(bytes) => bytes,
            landfall_ingress_http::chunked::Framing::Chunked => 0,
        };
        Ok((Request::from_parts(head.parts, Empty::new()), least))
    }

    fn head_of_http2(&self, supposed: &Supposed) -> Result<(Request<Empty<Bytes>>, u64), Reason> {
        let host = supposed.fields.iter().find(|(name, _)| name == header::HOST);
        let host = host.map_or(Ok(supposed.authority.as_str()), |(_, value)| value.to_str());
        let uri = Uri::builder()
            .scheme(if supposed.secure { "https" } else { "http" })
            .authority(host.map_err(|_| Reason::BadRequest)?)
            .path_and_query(supposed.target.as_str());
        let mut request = Request::new(Empty::new());
        *request.method_mut() = supposed.method.clone();
        *request.uri_mut() = uri.build().map_err(|_| Reason::BadRequest)?;
        *request.version_mut() = Version::HTTP_2;
        let fields = supposed.fields.iter().filter(|(name, _)| name != header::HOST);
        for (name, value) in fields {
            request.headers_mut().append(name, value.clone());
        }
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok((request, length.unwrap_or(0)))
    }

    /// The way through the proxy; stops where an answer of ours that is no policy's ends it.
    fn walk(
        &self,
        mut request: Request<Empty<Bytes>>,
        least: u64,
        snapshot: &RouteTable,
        foreseen: &mut Foreseen,
    ) -> Result<(), Reason> {
        target::check(&request, &self.limits)?;
        foreseen.host = target::host(&request)?;
        let (route, routed) = find(&mut request, &foreseen.host, snapshot)?;
        foreseen.route = Some(Arc::clone(route));
        let connection = foreseen.client.clone();
        if let Some(told) = headers::origin(request.headers(), &connection, &self.front.trusted) {
            foreseen.client = told;
        }
        let hops = fields::hops(request.headers());
        policy::strip_claims(request.headers_mut(), &connection, route);
        fields::settle(&mut request, || UNNAMED).ok_or(Reason::BadRequest)?;
        let view = policy::RequestView::new(route, &foreseen.client, &request, &foreseen.host, routed.as_deref());
        let Policed {
            met,
            ways,
            filter_state,
        } = self.policies.foresee(&view, snapshot);
        filter_state.apply_to_response(&mut foreseen.dressed);
        let goes_on = !met.iter().any(|met| matches!(met.outcome, Outcome::Answers(_)));
        (foreseen.met, foreseen.ways) = (met, ways);
        if !goes_on {
            return Ok(());
        }
        if !Upload::fits(least, route.policy.body_limit_bytes) {
            return Err(Reason::LargeBody);
        }
        let upgrade = super::UpgradeRequest::of(&request);
        let sent = headers::outgoing(request, &connection, &foreseen.client, hops);
        let mut sent = sent.ok_or(Reason::BadRequest)?;
        if let Some(upgrade) = upgrade {
            upgrade.apply(sent.headers_mut());
        }
        filter_state.apply_to_request(&mut sent);
        foreseen.sent = Some(sent.into_parts().0);
        Ok(())
    }
}

/// How endpoints of this way are spoken to.
pub fn protocol(route: &Route, way: &Way) -> Protocol {
    super::forward::protocol(&route.policy, &way.backend)
}
