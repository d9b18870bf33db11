//! What a request is for: its method and host (S6). Pure.

use crate::limits::Limits;
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, Version};
use landfall_ingress_http::fields;
use landfall_ingress_http::host::host_of;
use landfall_ingress_telemetry::reason::Reason;

/// Refuses what is not forwarded, whatever its host and path are.
pub(super) fn check<B>(request: &Request<B>, limits: &Limits) -> Result<(), Reason> {
    // A tunnel to wherever the client likes is not what an ingress is for, and TRACE shows fields that scripts must not see; ingress-nginx
    // refuses both.
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Reason::BadMethod);
    }
    if fields::hops(request.headers()) >= fields::HOPS_MOST {
        return Err(Reason::Loop);
    }
    let forwards = request.headers().get(header::MAX_FORWARDS).and_then(fields::forwards);
    if request.method() == Method::OPTIONS && forwards == Some(0) {
        return Err(Reason::MaxForwards);
    }
    // HTTP/1's own reader has looked at these already.
    if request.version() == Version::HTTP_2 {
        // Towards an endpoint of HTTP/1 these would frame. h2 takes two lengths when they are equal.
        let two_lengths = request.headers().get_all(header::CONTENT_LENGTH).iter().count() > 1;
        if two_lengths || request.headers().contains_key(header::TRANSFER_ENCODING) {
            return Err(Reason::BadFraming);
        }
        // A client may send each cookie in a field of its own; all of them are one (RFC 9113, 8.2.3). h2 bounds their bytes.
        let crumbs = request.headers().get_all(header::COOKIE).iter().count();
        if request.headers().len() - crumbs.saturating_sub(1) > limits.head_fields {
            return Err(Reason::LargeHead);
        }
        if request
            .uri()
            .path_and_query()
            .is_some_and(|target| target.as_str().len() > limits.target_bytes)
        {
            return Err(Reason::LongTarget);
        }
    } else if is_grpc(request.headers()) {
        // Its status comes in trailers, which HTTP/1's clients rarely take.
        return Err(Reason::UpgradeRequired);
    }
    Ok(())
}

/// gRPC, but not `application/grpc-web`, which is another protocol and made for HTTP/1.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let rest = kind.and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// A stream of messages in both directions: gRPC, or Connect's own protocol (connectrpc.com, `application/connect+proto` and `+json`).
pub(super) fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let is_connect = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/connect+"));
    is_connect || is_grpc(headers)
}

/// Returns the normalised host.
///
/// S6: a target in absolute form, which is what `:authority` is in HTTP/2, wins over the Host field; more than one Host, or none, is a
/// bad request (RFC 9112, 3.2). Only HTTP/1.0 may have none, which gives an empty host. In HTTP/2 both may be there, and must agree then
/// (RFC 9113, 8.3.1).
pub(super) fn host<B>(request: &Request<B>) -> Result<String, Reason> {
    let version = request.version();
    let mut fields = request.headers().get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(Reason::BadRequest);
    }
    let from_field = match field {
        Some(field) => Some(field.to_str().ok().and_then(host_of).ok_or(Reason::BadRequest)?),
        None => None,
    };
    let Some(authority) = request.uri().authority() else {
        return match from_field {
            Some(host) => Ok(host),
            None if version == Version::HTTP_10 => Ok(String::new()),
            None => Err(Reason::BadRequest),
        };
    };
    let host = host_of(authority.as_str()).ok_or(Reason::BadRequest)?;
    let agrees = match from_field {
        Some(other) => version != Version::HTTP_2 || other == host,
        // An absolute target does not stand in for the field.
        None => version != Version::HTTP_11,
    };
    agrees.then_some(host).ok_or(Reason::BadRequest)
}
