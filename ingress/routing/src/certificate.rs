//! The certificate of a host.

use landfall_ingress_tls::certificate::Certificate;
use std::sync::Arc;

/// What a host has.
#[derive(Debug)]
pub struct Held {
    /// Namespace that the host belongs to.
    pub namespace: Arc<str>,
    /// `namespace/name` of the Ingress that says so; empty when a flag does.
    pub ingress: Arc<str>,
    /// `namespace/name` of the Secret that is named, if any.
    pub secret: Option<Arc<str>>,
    /// The certificate, when it can be used; otherwise the default one is served.
    pub certificate: Option<Arc<Certificate>>,
    /// Why it cannot be used.
    pub fault: Option<String>,
}
