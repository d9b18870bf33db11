//! Annotations of an Ingress to typed settings. Pure; made for hostile input: every value is parsed into a type, nothing is pasted into
//! anything, and there are no snippets.
//!
//! Two prefixes mean the same names: [`OWN`] and, for those who come from ingress-nginx, [`NGINX`]. Where both name one setting, ours counts.
//! ANNOTATIONS.md has the table of names.

mod auth;
mod canary;
mod names;
mod requests;
mod responses;
mod secrets;
mod syntax;
pub mod target;
mod upstream;
mod values;

use secrets::Reach;
pub use secrets::{NoSecrets, Secrets, Use, named as named_secrets};
#[cfg(test)]
pub(crate) use {auth::htpasswd, names::NAMES, syntax::rewrite_target};

use crate::route::{Options, Reason, Severity, pattern};
use landfall_ingress_routing::policy::{Canary, Policy};
use std::sync::{Arc, OnceLock};
use values::Values;

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

/// What an Ingress's annotations ask for.
#[derive(Debug, Default)]
pub struct AnnotationSettings {
    /// What is done to its requests. `rewrite` has the target only; the pattern is each path's own.
    pub policy: Policy,
    /// Paths with characters of regular expressions are such.
    pub regex: bool,
    /// Whether case counts in them.
    pub case: pattern::Case,
    /// The Ingress offers alternatives to the routes of others.
    pub canary: Option<Canary>,
    /// Further hosts of all its rules, lower case.
    pub aliases: Vec<String>,
    /// A Service of the same namespace that answers when the route's own cannot.
    pub fallback: Option<String>,
    /// What could not be read, or is not served.
    pub faults: Vec<Fault>,
    /// Some value cannot be read that does not protect.
    pub bad: bool,
}

/// What is wrong with one annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// How much it weighs.
    pub severity: Severity,
    /// What it is about.
    pub reason: Reason,
    /// In words, with the annotation's name.
    pub text: String,
}

/// What an Ingress without annotations of ours asks for; one for all of them, for most have none.
pub fn nothing() -> Arc<Policy> {
    static NOTHING: OnceLock<Arc<Policy>> = OnceLock::new();
    let read = || Arc::new(read(&Annotations::default(), "", &NoSecrets, &Options::default()).policy);
    Arc::clone(NOTHING.get_or_init(read))
}

/// Reads the annotations of an Ingress in `namespace`.
pub fn read(
    annotations: &Annotations,
    namespace: &str,
    secrets: &dyn Secrets,
    options: &Options,
) -> AnnotationSettings {
    let mut values = Values::new(annotations);
    let mut policy = Policy::default();
    let reach = Reach {
        namespace,
        secrets,
        options,
    };
    requests::read(&mut values, &mut policy);
    responses::read(&mut values, &mut policy, reach);
    auth::read(&mut values, &mut policy, reach);
    upstream::read(&mut values, &mut policy, reach);
    let canary = canary::read(&mut values);
    let aliases = values.parts("server-alias", syntax::alias);
    let fallback = values.parse("default-backend", syntax::object_name);
    let regex = values.flag("use-regex").unwrap_or(false) || policy.rewrite.is_some();
    let case = values.parse("regex-case", |text| match text {
        "sensitive" => Ok(pattern::Case::Sensitive),
        "insensitive" => Ok(pattern::Case::Insensitive),
        _ => Err("neither sensitive nor insensitive"),
    });
    values.finish(&mut policy);
    AnnotationSettings {
        policy,
        regex,
        case: case.unwrap_or_default(),
        canary,
        aliases,
        fallback,
        faults: values.faults,
        bad: values.bad,
    }
}

#[cfg(test)]
mod tests;
