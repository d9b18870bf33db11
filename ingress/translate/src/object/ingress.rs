//! An Ingress with what is read of it: the one form in which it is kept, in a few hundred bytes.

mod written;

pub use written::{Meta, Spec};

use super::annotations::{self, Annotations};
use super::words::Words;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The annotation that named a class before `ingressClassName`; controllers should still honour it.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Addresses in the status of an Ingress.
pub type Addresses = BTreeSet<String>;

/// An Ingress.
#[derive(Debug)]
pub struct Ingress {
    /// `namespace/name`, which tells it from all others.
    pub label: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Tells it from an earlier one of the same name; empty when it is not known.
    pub uid: Box<str>,
    /// When it was created.
    pub created: Option<Time>,
    /// `ingressClassName`.
    pub class: Option<Arc<str>>,
    /// Those that are read.
    pub annotations: Annotations,
    /// Where requests go that no rule takes.
    pub default: Option<Box<Destination>>,
    /// Its rules, as written.
    pub rules: Box<[Rule]>,
    /// Its `tls` items, as written.
    pub tls: Box<[Tls]>,
    /// Beside the rest, so that our own writing of it makes no other version.
    published: Mutex<Option<Arc<Addresses>>>,
}

/// A host as an object names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// In the form of [`landfall_ingress_routing::Host::name`]; as written when it is no host.
    pub name: Arc<str>,
    /// Whether it is a host.
    pub valid: bool,
}

/// One host with its paths.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Empty for all hosts.
    pub host: Named,
    /// Its paths.
    pub paths: Box<[Path]>,
}

/// One path.
#[derive(Debug, PartialEq, Eq)]
pub struct Path {
    /// As written; `/` when nothing is.
    pub path: Arc<str>,
    /// Of type `Exact`; the other types are the same here.
    pub exact: bool,
    /// Where its requests go.
    pub to: Destination,
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Destination {
    /// A Service of the same namespace.
    Service {
        /// Its name.
        name: Box<str>,
        /// Its port.
        port: PortKey,
    },
    /// Something else.
    Resource {
        /// Its kind; empty when the object names nothing at all.
        kind: Box<str>,
        /// Its name.
        name: Box<str>,
    },
}

/// How an Ingress names a Service's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortKey {
    /// By name.
    Name(Arc<str>),
    /// By number.
    Number(i32),
    /// Not at all, which no Service has.
    Unnamed,
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => write!(f, "{number}"),
            Self::Unnamed => Ok(()),
        }
    }
}

/// One `tls` item.
#[derive(Debug, PartialEq, Eq)]
pub struct Tls {
    /// Its hosts.
    pub hosts: Box<[Named]>,
    /// The Secret; `None` is the default certificate.
    pub secret: Option<Box<str>>,
}

/// Two are the same when they ask for the same; status asks for nothing.
impl PartialEq for Ingress {
    fn eq(&self, other: &Self) -> bool {
        self.label == other.label
            && self.uid == other.uid
            && self.created == other.created
            && self.class == other.class
            && self.annotations == other.annotations
            && self.default == other.default
            && self.rules == other.rules
            && self.tls == other.tls
    }
}

impl Ingress {
    /// Takes what is used of an object as read.
    pub fn new(meta: Meta, spec: Spec, words: &mut Words) -> Self {
        let namespace = words.word(meta.namespace.as_deref().unwrap_or_default());
        let name = meta.name.unwrap_or_default();
        let read = |name: &String| name == CLASS_ANNOTATION || annotations::is_read(name);
        let annotations = meta.annotations.unwrap_or_default().into_iter();
        let annotations = annotations.filter(|(name, _)| read(name));
        let rules: Box<[Rule]> = spec.rules.into_iter().flatten().map(|rule| rule.keep(words)).collect();
        let tls = spec.tls.into_iter().flatten().map(|item| item.keep(&rules)).collect();
        Self {
            label: format!("{namespace}/{name}").into(),
            uid: meta.uid.unwrap_or_default().into(),
            created: meta.creation_timestamp,
            class: spec.ingress_class_name.map(|class| words.word(&class)),
            annotations: annotations
                .map(|(name, value)| (words.word(&name), value.into()))
                .collect(),
            default: spec.default_backend.map(|backend| Box::new(backend.keep(words))),
            rules,
            tls,
            published: Mutex::default(),
            namespace,
        }
    }

    /// Its name within the namespace.
    pub fn name(&self) -> &str {
        &self.label[self.namespace.len() + 1..]
    }

    /// Orders by age, then by namespace and name.
    pub fn age(&self) -> impl Ord + '_ {
        (self.created.as_ref(), &*self.namespace, self.name())
    }

    /// The class that the old annotation names.
    pub fn annotated_class(&self) -> Option<&str> {
        self.annotations.get(CLASS_ANNOTATION)
    }

    /// The addresses that its status names, as the watch shows them; `None` when there are none.
    pub fn published(&self) -> Option<Arc<Addresses>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what its status says.
    pub fn publish(&self, addresses: Option<Arc<Addresses>>) {
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }
}
