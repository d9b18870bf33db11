//! The objects of the pretended cluster and what happened to them.

use crate::target::Target;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Namespace and name; the namespace is empty for IngressClasses.
pub type Key = (String, String);

#[derive(Default)]
pub struct World {
    pub version: u64,
    /// Watches from before this version are told that it is gone.
    pub oldest: u64,
    pub objects: BTreeMap<String, BTreeMap<Key, Value>>,
    /// Version, plural, watch event.
    pub log: Vec<(u64, String, Value)>,
    /// Plurals whose lists are not answered yet.
    pub held: BTreeSet<String>,
    /// Verb and resource of every request.
    pub requests: Vec<(String, String)>,
    /// Verbs and resources that are refused.
    pub forbidden: BTreeSet<(String, String)>,
    /// Goes up when all watches are cut.
    pub cuts: u64,
}

impl World {
    pub fn find(&self, plural: &str, key: &Key) -> Option<&Value> {
        self.objects.get(plural)?.get(key)
    }

    pub fn put(&mut self, plural: &str, object: Value) -> Value {
        let kind = if self.find(plural, &key_of(&object)).is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        self.record(plural, kind, object)
    }

    pub fn record(&mut self, plural: &str, event: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if event != "DELETED" {
            self.objects
                .entry(plural.to_owned())
                .or_default()
                .insert(key_of(&object), object.clone());
        }
        let event = json!({ "type": event, "object": object });
        self.log.push((self.version, plural.to_owned(), event));
        object
    }

    pub fn patch(&mut self, target: &Target, patch: &Value) -> Result<Value, (StatusCode, &'static str)> {
        let key = (target.namespace.clone(), target.name.clone().unwrap_or_default());
        let Some(mut object) = self.find(&target.plural, &key).cloned() else {
            return Err((StatusCode::NOT_FOUND, "NotFound"));
        };
        let wanted = patch["metadata"].get("resourceVersion");
        if wanted.is_some_and(|version| *version != object["metadata"]["resourceVersion"]) {
            return Err((StatusCode::CONFLICT, "Conflict"));
        }
        merge(&mut object, patch);
        Ok(self.put(&target.plural, object))
    }
}

/// RFC 7396.
fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut into[name], value);
        }
    }
}

pub fn key_of(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}
