//! What people should know of an object: that it lost, was refused, or is served in another way than it asks for.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How much a remark weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Served as asked; something is worth knowing.
    Note,
    /// Served in another way than asked.
    Approximated,
    /// Some of it is not served, or answered with an error.
    Refused,
}

impl Severity {
    /// Its word for people; the same as in JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Approximated => "approximated",
            Self::Refused => "refused",
        }
    }
}

/// What a remark is about; stable, fit for an Event's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// Another namespace owns the host.
    HostTaken,
    /// An older Ingress has the path.
    PathTaken,
    /// An older Ingress has the default backend.
    DefaultTaken,
    /// A Service or its port is missing.
    NoService,
    /// The Service is of type ExternalName.
    ExternalName,
    /// The backend is no Service.
    Resource,
    /// There is no class that is ours.
    NoClass,
    /// The class has parameters.
    Parameters,
    /// A host that is none.
    BadHost,
    /// A path that is none.
    BadPath,
    /// An annotation that cannot be read.
    BadAnnotation,
    /// An annotation that nobody here knows.
    UnknownAnnotation,
    /// An annotation that is known and not served.
    UnsupportedAnnotation,
    /// An annotation that is served in another way.
    ApproximatedAnnotation,
    /// A setting that protects cannot be read: the routes answer 503.
    Closed,
    /// A canary whose routes no other Ingress has.
    CanaryAlone,
    /// A Secret that a check was not given.
    NotInInput,
    /// An API version that is gone.
    OldVersion,
    /// A Secret gives no certificate, or not the one that is served.
    Certificate,
    /// An object that cannot be used; its last good version is served.
    LastGoodKept,
}

/// One remark.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Remark {
    /// How much it weighs.
    pub severity: Severity,
    /// What it is about.
    pub reason: Reason,
    /// `Ingress` or `IngressClass`.
    pub kind: String,
    /// Empty for what has none.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The host that it concerns, when it concerns one; as in [`landfall_ingress_routing::Host::name`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<String>,
    /// In words.
    pub text: String,
}

impl Remark {
    /// A remark on an Ingress.
    pub fn ingress(namespace: &str, name: &str, severity: Severity, reason: Reason, text: impl Into<String>) -> Self {
        Self {
            severity,
            reason,
            kind: "Ingress".to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            host: None,
            text: text.into(),
        }
    }

    /// A remark on a class.
    pub fn class(name: &str, severity: Severity, reason: Reason, text: impl Into<String>) -> Self {
        Self {
            kind: "IngressClass".to_owned(),
            ..Self::ingress("", name, severity, reason, text)
        }
    }

    /// Says which host it concerns.
    pub fn on(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.namespace.is_empty(), self.kind.as_str()) {
            (true, kind) => write!(f, "{kind} {}: {}", self.name, self.text),
            (false, _) => write!(f, "{}/{}: {}", self.namespace, self.name, self.text),
        }
    }
}
