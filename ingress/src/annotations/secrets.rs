//! Secrets that an Ingress names, and how their content comes in.

use super::{NGINX, OWN};
use crate::route::Options;
use k8s_openapi::api::networking::v1::Ingress;
use std::collections::BTreeMap;

/// What an annotation needs of Secrets. An error says why the content is not there.
pub trait Secrets {
    /// The bytes of one key; `Ok(None)` when the Secret has no such key.
    fn value(&self, namespace: &str, name: &str, key: &str) -> Result<Option<Vec<u8>>, String>;
    /// All keys.
    fn keys(&self, namespace: &str, name: &str) -> Result<Vec<String>, String>;
    /// Tells versions of a Secret apart, however it changes.
    fn version(&self, namespace: &str, name: &str) -> String;
}

/// No Secret is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn value(&self, _: &str, _: &str, _: &str) -> Result<Option<Vec<u8>>, String> {
        Err("was not read".to_owned())
    }

    fn keys(&self, _: &str, _: &str) -> Result<Vec<String>, String> {
        Err("was not read".to_owned())
    }

    fn version(&self, _: &str, _: &str) -> String {
        String::new()
    }
}

/// A Secret that an Ingress names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `tls` of the spec, or the short name of the annotation.
    pub by: &'static str,
}

/// Annotations that name a Secret.
const NAMING: [&str; 4] = [
    "auth-secret",
    "auth-tls-secret",
    "auth-url-ca-secret",
    "proxy-ssl-secret",
];

/// Every Secret that an Ingress names and may name; in a stable order, without doubles.
pub fn named(ingress: &Ingress, options: &Options) -> Vec<Use> {
    let namespace = ingress.metadata.namespace.as_deref().unwrap_or_default();
    let tls = ingress.spec.iter().flat_map(|s| s.tls.iter().flatten());
    let certificates = tls
        .filter_map(|tls| tls.secret_name.as_deref())
        .filter(|name| !name.is_empty());
    let mut uses: Vec<Use> = certificates
        .filter_map(|name| place(name, namespace, options).ok())
        .map(|(namespace, name)| Use {
            namespace,
            name,
            by: "tls",
        })
        .collect();
    let empty = BTreeMap::new();
    let annotations = ingress.metadata.annotations.as_ref().unwrap_or(&empty);
    for by in NAMING {
        let value = [OWN, NGINX]
            .iter()
            .find_map(|prefix| annotations.get(&format!("{prefix}{by}")));
        if let Some(Ok((namespace, name))) = value.map(|v| place(v.trim(), namespace, options)) {
            uses.push(Use { namespace, name, by });
        }
    }
    uses.sort();
    uses.dedup();
    uses
}

/// Reads `name` or `namespace/name`.
pub(super) fn place(text: &str, own: &str, options: &Options) -> Result<(String, String), &'static str> {
    let (namespace, name) = text.split_once('/').unwrap_or((own, text));
    let place = (
        super::syntax::object_name(namespace)?,
        super::syntax::object_name(name)?,
    );
    if namespace != own && !options.allow_cross_namespace {
        return Err("Secrets of other namespaces are refused");
    }
    Ok(place)
}
