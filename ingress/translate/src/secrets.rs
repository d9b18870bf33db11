//! The Secrets that Ingresses name: certificates, htpasswd files, authorities; and in the same way the ConfigMaps. Followed by name, so that
//! a right on each name is enough; who follows them is not of this crate.
//!
//! Which are wanted is said by the table's builder (`route::Snapshot::wanted`), which depends on Ingresses alone. What was found comes back to
//! it as a [`View`], with the names of those that are different. What is kept of a Secret is wiped when it is dropped and never shown; the buffers in which the API's answer came
//! are not ours to wipe.

pub mod lookup;
mod material;

pub use material::Material;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The ClusterRole, of the manifests, that lets the proxy read Secrets and ConfigMaps where it is bound.
const ROLE: &str = "landfall-ingress-secrets";
/// Longest name of a Secret or namespace in Kubernetes.
const LONGEST_NAME: usize = 253;

/// What is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A Secret.
    Secret,
    /// A ConfigMap. Nothing in it is secret; it is followed by the same means.
    ConfigMap,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Namespace and name of a Secret or ConfigMap, fit to be sent to the API. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    kind: Kind,
    /// `namespace/name`.
    text: Arc<str>,
    /// Where the slash is.
    slash: usize,
}

impl Name {
    /// Names a Secret. `None` when one of the two is no name: annotations are free text, and the name goes into a field selector.
    pub fn new(namespace: &str, name: &str) -> Option<Self> {
        Self::of(Kind::Secret, namespace, name)
    }

    /// The same for an object of either kind.
    pub fn of(kind: Kind, namespace: &str, name: &str) -> Option<Self> {
        (is_name(namespace) && is_name(name)).then(|| Self {
            kind,
            text: [namespace, "/", name].concat().into(),
            slash: namespace.len(),
        })
    }

    /// Reads `namespace/name`.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        Self::new(namespace, name)
    }

    /// `namespace/name`.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// What it names.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.text[..self.slash]
    }

    /// Its name within the namespace.
    pub fn name(&self) -> &str {
        &self.text[self.slash + 1..]
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// RFC 1123's subdomain, as the API server checks names of Secrets.
fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |label: &str| {
        label.bytes().all(|b| inner(b) || b == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= LONGEST_NAME && text.split('.').all(label)
}

/// Secrets that some Ingress, or a flag, names.
pub type Wanted = BTreeSet<Name>;

/// What is known of a wanted Secret.
#[derive(Debug, Clone)]
pub enum Found {
    /// The API was asked and has not answered yet.
    Pending,
    /// There is none.
    Missing,
    /// It was never read: the proxy has no right to.
    Forbidden,
    /// It was never read; why, as the API says it.
    Unreadable(Arc<str>),
    /// As it is now. When the API can no longer be asked, as it was.
    Here(Arc<Material>),
}

impl Found {
    /// Nothing was read yet.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Pending | Self::Forbidden | Self::Unreadable(_))
    }
}

/// All wanted Secrets at one moment; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct View(Arc<BTreeMap<Name, Found>>);

impl View {
    /// Puts a view together.
    #[cfg(any(test, feature = "testing"))]
    pub fn new(found: BTreeMap<Name, Found>) -> Self {
        Self(Arc::new(found))
    }

    /// What is known of each, in the order of their names.
    pub fn all(&self) -> impl Iterator<Item = (&Name, &Found)> {
        self.0.iter()
    }

    /// What is known of one.
    pub fn found(&self, name: &Name) -> Option<&Found> {
        self.0.get(name)
    }

    /// All, to be changed; who has this view already does not see it.
    pub fn all_mut(&mut self) -> &mut BTreeMap<Name, Found> {
        Arc::make_mut(&mut self.0)
    }

    /// A Secret's content, or why there is none.
    pub fn get(&self, name: &Name) -> Result<&Arc<Material>, Absent> {
        match self.0.get(name) {
            Some(Found::Here(material)) => Ok(material),
            Some(Found::Missing) => Err(Absent::Missing),
            Some(Found::Forbidden) => Err(Absent::Forbidden(name.clone())),
            Some(Found::Unreadable(why)) => Err(Absent::Unreadable(Arc::clone(why))),
            Some(Found::Pending) | None => Err(Absent::Pending),
        }
    }

    fn read(&self, kind: Kind, namespace: &str, name: &str) -> Result<&Arc<Material>, String> {
        let name = Name::of(kind, namespace, name).ok_or("has no valid name")?;
        self.get(&name).map_err(|absent| absent.to_string())
    }
}

/// As annotations read them.
impl crate::secrets::lookup::Secrets for View {
    fn value(&self, namespace: &str, name: &str, key: &str) -> Result<Option<Vec<u8>>, String> {
        let material = self.read(Kind::Secret, namespace, name)?;
        Ok(material.value(key).map(<[u8]>::to_vec))
    }

    fn keys(&self, namespace: &str, name: &str) -> Result<Vec<String>, String> {
        let material = self.read(Kind::Secret, namespace, name)?;
        Ok(material.keys().map(str::to_owned).collect())
    }

    fn config(&self, namespace: &str, name: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
        let material = self.read(Kind::ConfigMap, namespace, name)?;
        let value = |key: &str| material.value(key).unwrap_or_default().to_vec();
        Ok(material.keys().map(|key| (key.to_owned(), value(key))).collect())
    }

    fn material(&self, name: &Name) -> Option<Result<&Arc<Material>, Absent>> {
        Some(self.get(name))
    }
}

/// Why a Secret's content is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// Not read yet.
    Pending,
    /// There is no such Secret.
    Missing,
    /// It may not be read.
    Forbidden(Name),
    /// It cannot be read.
    Unreadable(Arc<str>),
}

/// What to do about a Secret that may not be read, in clusters of landfall's and in others.
fn forbidden(name: &Name) -> String {
    let namespace = name.namespace();
    format!(
        "may not be read by the ingress proxy; run: landfall ingress allow {namespace} (in a cluster that landfall did not install: kubectl \
         -n {namespace} create rolebinding {ROLE} --clusterrole={ROLE} --serviceaccount=kube-system:landfall-ingress)"
    )
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("was not read yet"),
            Self::Missing => f.write_str("does not exist"),
            Self::Forbidden(name) => forbidden(name).fmt(f),
            Self::Unreadable(why) => write!(f, "cannot be read: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_widen_a_field_selector_are_no_names() {
        for fine in ["a", "a-b", "tls.example.com", "0"] {
            assert!(Name::new("default", fine).is_some(), "{fine}");
        }
        let long = "a".repeat(254);
        for bad in [
            "",
            "a,metadata.name!=b",
            "A",
            "a_b",
            "-a",
            "a-",
            "a..b",
            "a/b",
            "a=b",
            "ä",
            " a",
            long.as_str(),
        ] {
            assert!(Name::new("default", bad).is_none(), "{bad}");
            assert!(Name::new(bad, "default").is_none(), "{bad}");
        }
        assert_eq!(Name::parse("kube-system/x").unwrap().to_string(), "kube-system/x");
        assert_eq!(Name::parse("x"), None);
        assert_eq!(Name::parse("a/b/c"), None);
    }

    #[test]
    fn a_view_says_why_a_secret_is_not_there() {
        let name = |n| Name::new("default", n).unwrap();
        let view = View::new(BTreeMap::from([
            (name("missing"), Found::Missing),
            (name("refused"), Found::Unreadable("connection refused".into())),
            (name("forbidden"), Found::Forbidden),
            (name("pending"), Found::Pending),
        ]));
        let why = |n| view.get(&name(n)).unwrap_err().to_string();
        assert_eq!(why("missing"), "does not exist");
        assert_eq!(why("refused"), "cannot be read: connection refused");
        assert!(
            why("forbidden").starts_with("may not be read by the ingress proxy; run: landfall ingress allow default (")
        );
        assert_eq!((why("pending"), why("unknown")), (why("unknown"), why("pending")));
        use crate::secrets::lookup::Secrets;
        assert_eq!(view.value("default", "missing", "k"), Err("does not exist".to_owned()));
    }
}
