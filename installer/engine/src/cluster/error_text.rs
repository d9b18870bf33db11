//! Texts for transport errors between this machine and an API server. The client library's own texts ("ServiceError: client error
//! (SendRequest)") name layers of a program and no machine.

use landfall_core::layout;
use std::error::Error;
use std::io::ErrorKind;

/// Says why the API did not answer, or what it refused. Every request goes to a node's own balancer.
pub fn error_text(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("the API server refuses: {} ({})", status.message, status.code);
    }
    let balancer = format!("the API at 127.0.0.1:{} of the node", layout::API_BALANCER_PORT);
    match failure(error) {
        Failure::Refused => format!("{balancer} refuses connections: landfall-api-balancer does not run there"),
        Failure::Closed => format!("{balancer} closes connections: no API server is up behind the balancer"),
        Failure::Silent => format!("{balancer} does not answer in time"),
        Failure::Other(text) => format!("{balancer} cannot be asked: {text}"),
    }
}

enum Failure {
    Refused,
    Closed,
    Silent,
    Other(String),
}

fn failure(error: &kube::Error) -> Failure {
    let mut innermost = String::new();
    let mut at: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = at {
        let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let text = cause.to_string().to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        match kind {
            Some(ErrorKind::ConnectionRefused) => return Failure::Refused,
            Some(
                ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::NotConnected,
            ) => return Failure::Closed,
            Some(ErrorKind::TimedOut | ErrorKind::WouldBlock) => return Failure::Silent,
            // The errors of hyper and rustls have no kind that can be read here, so their texts are compared.
            _ if says(&[
                "connection closed",
                "handshake eof",
                "incomplete message",
                "connection reset",
                "channel closed",
            ]) =>
            {
                return Failure::Closed;
            }
            _ if says(&["deadline has elapsed", "timed out"]) => return Failure::Silent,
            _ => innermost = cause.to_string(),
        }
        at = cause.source();
    }
    Failure::Other(innermost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn service(error: impl Into<Box<dyn Error + Send + Sync>>) -> String {
        error_text(&kube::Error::Service(error.into()))
    }

    #[derive(Debug, thiserror::Error)]
    #[error("client error (SendRequest)")]
    struct SendRequest(#[source] io::Error);

    #[test]
    fn a_transport_error_names_address_and_cause() {
        let cases = [
            (io::ErrorKind::ConnectionRefused, "refuses connections"),
            (io::ErrorKind::UnexpectedEof, "no API server is up"),
            (io::ErrorKind::TimedOut, "does not answer in time"),
        ];
        for (kind, wanted) in cases {
            let text = service(SendRequest(io::Error::from(kind)));
            assert!(text.contains(wanted) && text.contains("127.0.0.1:7443"), "{text}");
            assert!(
                !text.contains("SendRequest") && !text.contains("ServiceError"),
                "{text}"
            );
        }
        assert!(service("tls handshake eof").contains("no API server is up"));
        let text = service(SendRequest(io::Error::other("certificate expired")));
        assert!(text.ends_with("cannot be asked: certificate expired"), "{text}");
    }
}
