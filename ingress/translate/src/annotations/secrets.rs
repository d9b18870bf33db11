//! Secrets and ConfigMaps that an Ingress names.

use super::{NGINX, OWN};
use crate::object::Ingress;
use crate::options::Options;
use crate::secrets::lookup::Secrets;
use crate::secrets::{Kind, Name};

/// A Secret or ConfigMap that an Ingress names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `tls` of the spec, or the short name of the annotation.
    pub by: &'static str,
}

impl Use {
    /// What is to be read. `None` when the API would take it for no name.
    pub fn wanted(&self) -> Option<Name> {
        Name::of(self.kind(), &self.namespace, &self.name)
    }

    /// What is named.
    pub fn kind(&self) -> Kind {
        match self.by {
            "custom-headers" => Kind::ConfigMap,
            _ => Kind::Secret,
        }
    }
}

/// Annotations that name a Secret, and one that names a ConfigMap.
const NAMING: [&str; 5] = [
    "auth-secret",
    "auth-tls-secret",
    "auth-url-ca-secret",
    "custom-headers",
    "proxy-ssl-secret",
];

/// Every Secret and ConfigMap that an Ingress names and may name; in a stable order, without doubles.
pub fn named(ingress: &Ingress, options: &Options) -> Vec<Use> {
    let own = &*ingress.namespace;
    let certificates = ingress.tls.iter().filter_map(|item| item.secret.as_deref());
    let annotated = NAMING.iter().filter_map(|by| {
        let of = |prefix: &&str| {
            let mut all = ingress.annotations.iter();
            all.find(|(name, _)| name.strip_prefix(*prefix) == Some(*by))
        };
        let (_, value) = [OWN, NGINX].iter().find_map(of)?;
        Some((*by, value.trim()))
    });
    let all = certificates.map(|name| ("tls", name)).chain(annotated);
    let places = all.filter_map(|(by, text)| Some((by, place(text, own, options).ok()?)));
    let mut uses: Vec<Use> = places
        .map(|(by, (namespace, name))| Use { namespace, name, by })
        .collect();
    uses.sort();
    uses.dedup();
    uses
}

/// Where an Ingress is, and what its annotations may read from there.
#[derive(Clone, Copy)]
pub(super) struct Reach<'a> {
    /// The Ingress's own.
    pub(super) namespace: &'a str,
    pub(super) secrets: &'a dyn Secrets,
    pub(super) options: &'a Options,
}

impl Reach<'_> {
    /// Namespace and name of the object that a text names.
    pub(super) fn place(self, text: &str) -> Result<(String, String), &'static str> {
        place(text, self.namespace, self.options)
    }
}

/// Reads `name` or `namespace/name`.
fn place(text: &str, own: &str, options: &Options) -> Result<(String, String), &'static str> {
    let (namespace, name) = text.split_once('/').unwrap_or((own, text));
    let place = (
        super::syntax::object_name(namespace)?,
        super::syntax::object_name(name)?,
    );
    if namespace != own && !options.allow_cross_namespace {
        return Err("objects of other namespaces are refused");
    }
    Ok(place)
}
