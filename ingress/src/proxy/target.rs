//! Host and method of a request: what it is for (S6). Pure.

use crate::reason::Reason;
use crate::route::host_of;
use hyper::{Method, Request, Version, header};

/// Returns the normalised host.
///
/// S6: a target in absolute form, which is what `:authority` is in HTTP/2, wins over the Host field; more than one Host, or none, is a
/// bad request (RFC 9112, 3.2). Only HTTP/1.0 may have none, which gives an empty host. In HTTP/2 both may be there, and must agree then
/// (RFC 9113, 8.3.1).
pub(super) fn host<B>(request: &Request<B>) -> Result<String, Reason> {
    // A tunnel to wherever the client likes is not what an ingress is for.
    if request.method() == Method::CONNECT {
        return Err(Reason::BadMethod);
    }
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
