//! Which Ingresses are ours (S15 to S17). Pure.

use super::options::Options;
use super::remark::{Reason, Remark, Severity};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The annotation that named a class before `ingressClassName`; controllers should still honour it.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Marks the class of Ingresses that name none.
pub const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

/// The classes that are served.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Classes {
    names: BTreeSet<String>,
    /// The name that a flag asks for, when no object has it: only the old annotation can mean it.
    bare: Option<String>,
    default: bool,
}

impl Classes {
    /// S15: by `spec.controller`, and by name where a flag names one.
    pub(super) fn find(classes: &[Arc<IngressClass>], options: &Options, remarks: &mut Vec<Remark>) -> Self {
        let mut found = Self::default();
        let mut taken = false;
        for class in classes {
            let name = class.metadata.name.as_deref().unwrap_or_default();
            if options.class.as_deref().is_some_and(|wanted| wanted != name) {
                continue;
            }
            let spec = class.spec.as_ref();
            if spec.and_then(|s| s.controller.as_deref()) != Some(&*options.controller) {
                taken = true;
                continue;
            }
            if spec.is_some_and(|s| s.parameters.is_some()) {
                let text = "spec.parameters are not read: this controller has none";
                remarks.push(Remark::class(name, Severity::Approximated, Reason::Parameters, text));
            }
            let mark = class.metadata.annotations.as_ref().and_then(|a| a.get(DEFAULT_CLASS));
            found.default |= mark.is_some_and(|m| m == "true");
            found.names.insert(name.to_owned());
        }
        if found.names.is_empty() {
            let name = options.class.as_deref().unwrap_or_default();
            let text = format!("there is no such class with controller {}", options.controller);
            remarks.push(Remark::class(name, Severity::Refused, Reason::NoClass, text));
            found.bare = options.class.clone().filter(|_| !taken);
        }
        found
    }

    /// The field counts first, then the old annotation; without both it is ours when one of our classes is the default (S16). The API
    /// server fills in the default class at creation only, so an Ingress that is older than the class has none.
    pub(super) fn have(&self, ingress: &Ingress) -> bool {
        if let Some(class) = ingress.spec.as_ref().and_then(|s| s.ingress_class_name.as_ref()) {
            return self.names.contains(class);
        }
        let annotations = ingress.metadata.annotations.as_ref();
        match annotations.and_then(|a| a.get(CLASS_ANNOTATION)) {
            Some(class) => self.names.contains(class) || self.bare.as_ref() == Some(class),
            None => self.default,
        }
    }
}
