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

#[cfg(test)]
pub(crate) use names::NAMES;
use secrets::Reach;
pub use secrets::{Use, named as named_secrets};
#[cfg(any(test, feature = "testing"))]
pub use syntax::rewrite_target;

use crate::object::{Annotations, NGINX, OWN};
use crate::options::Options;
use crate::pattern;
use crate::remark::{Reason, Severity};
use crate::secrets::lookup::{NoSecrets, Secrets};
use landfall_ingress_routing::policy::{Canary, Policy};
use std::sync::{Arc, OnceLock};
use values::Values;

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
