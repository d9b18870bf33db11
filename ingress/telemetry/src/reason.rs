//! Why the proxy answers by itself: one line per reason, with its status, its label and its text.
//!
//! The label is the value of `X-Landfall-Reason` on the answer, of the access log's field and of the metric's label. Labels are part
//! of the interface.

use http::StatusCode;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident: $status:ident $label:literal $text:literal;)*) => {
        /// Why the proxy answered by itself.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them, in order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Status of the answer.
            pub fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)*
                }
            }

            /// Stable name: lower case and underscores.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// One line for people.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// The request makes no sense.
    BadRequest: BAD_REQUEST "bad_request" "400: a valid target and exactly one valid Host are needed\n";
    /// A path that is another route's once it is decoded, or that hides a dot segment.
    EncodedPath: BAD_REQUEST "encoded_path" "400: decoded, this path is another one\n";
    /// A request that two parsers could read in two ways.
    BadFraming: BAD_REQUEST "bad_framing" "400: this is no well-formed HTTP/1 request\n";
    /// No Ingress has this host and path.
    NoRoute: NOT_FOUND "no_route" "404: no Ingress has this host and path\n";
    /// A method that is not forwarded.
    BadMethod: METHOD_NOT_ALLOWED "bad_method" "405: this method is not forwarded\n";
    /// The head or the body came too slowly.
    SlowRequest: REQUEST_TIMEOUT "slow_request" "408: the request came too slowly\n";
    /// The body is larger than its route allows.
    LargeBody: PAYLOAD_TOO_LARGE "large_body" "413: the body is larger than allowed here\n";
    /// The target is too long.
    LongTarget: URI_TOO_LONG "long_target" "414: the target is too long\n";
    /// A host that this connection's certificate is not for.
    Misdirected: MISDIRECTED_REQUEST "misdirected" "421: this connection is for another host\n";
    /// HTTP/2 or TLS is asked for by a way that is not offered.
    UpgradeRequired: UPGRADE_REQUIRED "upgrade_required" "426: this route needs another protocol\n";
    /// The fields are too many or too large.
    LargeHead: REQUEST_HEADER_FIELDS_TOO_LARGE "large_head" "431: the header fields are too many or too large\n";
    /// A protecting annotation of the route cannot be read.
    Closed: SERVICE_UNAVAILABLE "closed" "503: an annotation that protects this route cannot be read\n";
    /// The client's address may not come.
    Source: FORBIDDEN "source" "403: this client's address is not allowed here\n";
    /// The route sends the request elsewhere.
    Redirected: PERMANENT_REDIRECT "redirected" "308: see Location\n";
    /// The client's rate or number of requests at once is beyond the route's limit.
    TooMany: TOO_MANY_REQUESTS "too_many" "429: too many requests\n";
    /// A CORS preflight was answered.
    Preflight: NO_CONTENT "preflight" "204: this origin may ask\n";
    /// A CORS preflight of an origin that is not allowed.
    Origin: FORBIDDEN "origin" "403: this origin is not allowed here\n";
    /// No client certificate, or one of another authority.
    Certificate: BAD_REQUEST "certificate" "400: a valid client certificate is needed here\n";
    /// No valid user and password, or the authentication service asks for a login.
    Unauthorized: UNAUTHORIZED "unauthorized" "401: authentication is needed here\n";
    /// Too many passwords are being checked.
    AuthBusy: SERVICE_UNAVAILABLE "auth_busy" "503: too many passwords are being checked\n";
    /// The authentication service says no.
    AuthForbids: FORBIDDEN "auth_forbids" "403: the authentication service does not allow this\n";
    /// The authentication service cannot be asked, or gave no answer that says something.
    AuthBroken: BAD_GATEWAY "auth_broken" "502: the authentication service does not answer\n";
    /// The request has come through proxies of this kind too often: a backend leads back here.
    Loop: LOOP_DETECTED "loop" "508: this request comes back here again and again\n";
    /// `Max-Forwards` says that the request ends here (RFC 9110, 7.6.2).
    MaxForwards: OK "max_forwards" "200: Max-Forwards ends this request here\n";
    /// The Service is missing or has no usable endpoint.
    NoEndpoint: SERVICE_UNAVAILABLE "no_endpoint" "503: the Service has no endpoint\n";
    /// No endpoint took a connection.
    Unreachable: BAD_GATEWAY "unreachable" "502: no endpoint of the Service can be reached\n";
    /// An endpoint took the request and broke off.
    Broken: BAD_GATEWAY "broken" "502: the endpoint broke off\n";
    /// An endpoint took the request and did not answer in time.
    Late: GATEWAY_TIMEOUT "late" "504: the endpoint did not answer in time\n";
}

impl From<landfall_ingress_http::request::Refused> for Reason {
    fn from(refused: landfall_ingress_http::request::Refused) -> Self {
        use landfall_ingress_http::request::Refused;
        match refused {
            Refused::Framing => Self::BadFraming,
            Refused::LongTarget => Self::LongTarget,
            Refused::Large => Self::LargeHead,
            Refused::Target => Self::BadRequest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_begin_with_their_status_and_labels_differ() {
        let mut labels = std::collections::BTreeSet::new();
        for reason in Reason::ALL {
            assert!(reason.text().starts_with(reason.status().as_str()), "{reason:?}");
            assert!(
                reason.text().ends_with('\n') && labels.insert(reason.label()),
                "{reason:?}"
            );
        }
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
    }
}
