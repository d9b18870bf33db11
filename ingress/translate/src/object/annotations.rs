//! The annotations of an Ingress, as they are kept.

use std::sync::Arc;

/// Prefix of our own names.
pub const OWN: &str = "ingress.landfall.dev/";
/// Prefix of ingress-nginx's names.
pub const NGINX: &str = "nginx.ingress.kubernetes.io/";

/// Whether an annotation of this name is read at all; all others can be dropped from memory.
pub fn is_read(name: &str) -> bool {
    name.starts_with(OWN) || name.starts_with(NGINX)
}

/// The annotations of an Ingress that are read, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations(Box<[(Arc<str>, Box<str>)]>);

impl Annotations {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }
}

impl FromIterator<(Arc<str>, Box<str>)> for Annotations {
    fn from_iter<T: IntoIterator<Item = (Arc<str>, Box<str>)>>(all: T) -> Self {
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort();
        Self(all.into())
    }
}

#[cfg(test)]
impl FromIterator<(String, String)> for Annotations {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(all: T) -> Self {
        let all = all.into_iter().map(|(name, value)| (Arc::from(name), Box::from(value)));
        all.collect()
    }
}
