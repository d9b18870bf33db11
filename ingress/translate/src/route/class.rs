//! Which Ingresses are ours (S15 to S17). Pure.

use crate::object::{Ingress, Meta};
use crate::options::Options;
use crate::remark::{Reason, Remark, Severity};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Marks the class of Ingresses that name none.
pub const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

/// An IngressClass with what is read of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: Box<str>,
    controller: Box<str>,
    parameters: bool,
    default: bool,
}

/// What is read of a class's `spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ClassSpec {
    controller: Option<String>,
    parameters: Option<Value>,
}

impl Class {
    /// Takes what is used of an object as read.
    pub fn new(meta: Meta, spec: ClassSpec) -> Self {
        let mark = meta.annotations.as_ref().and_then(|all| all.get(DEFAULT_CLASS));
        Self {
            default: mark.is_some_and(|mark| mark == "true"),
            name: meta.name.unwrap_or_default().into(),
            controller: spec.controller.unwrap_or_default().into(),
            parameters: spec.parameters.is_some(),
        }
    }
}

/// As the API writes it.
impl<'de> Deserialize<'de> for Class {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Whole {
            metadata: Meta,
            spec: Option<ClassSpec>,
        }
        let whole = Whole::deserialize(deserializer)?;
        Ok(Self::new(whole.metadata, whole.spec.unwrap_or_default()))
    }
}

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
    pub(super) fn find(classes: &[Arc<Class>], options: &Options, remarks: &mut Vec<Remark>) -> Self {
        let mut found = Self::default();
        let mut taken = false;
        for class in classes {
            let name = &*class.name;
            if options.class.as_deref().is_some_and(|wanted| wanted != name) {
                continue;
            }
            if *class.controller != *options.controller {
                taken = true;
                continue;
            }
            if class.parameters {
                let text = "spec.parameters are not read: this controller has none";
                remarks.push(Remark::class(name, Severity::Approximated, Reason::Parameters, text));
            }
            found.default |= class.default;
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
        match (ingress.class.as_deref(), ingress.annotated_class()) {
            (Some(class), _) => self.names.contains(class),
            (None, Some(class)) => self.names.contains(class) || self.bare.as_deref() == Some(class),
            (None, None) => self.default,
        }
    }
}
