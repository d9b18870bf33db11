//! The objects of the fake cluster and their history.

use super::target::Target;
use hyper::StatusCode;
use hyper::body::Bytes;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

/// Namespace and name; the namespace is empty for IngressClasses.
pub(super) type Key = (String, String);

/// What happened is remembered this long per kind; who watches from before is told that it is gone, as by a server's watch cache.
const HISTORY: usize = 50_000;

/// Everything of one kind.
#[derive(Default)]
struct Kind {
    objects: BTreeMap<Key, Bytes>,
    log: VecDeque<Happened>,
    /// Watches from before this version missed something that was dropped from the log.
    oldest: u64,
}

struct Happened {
    version: u64,
    namespace: String,
    object: Bytes,
    event: Bytes,
}

/// What becomes of a watch that is to begin with all objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StreamingLists {
    /// It does, and a bookmark says where they end.
    #[default]
    Served,
    /// 422, by a server on which they are turned off.
    Refused,
    /// All objects come, as in any watch without a version, and nothing says where they end: a server that does not know the wish.
    Ignored,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) version: u64,
    /// Watches from before this version are told that it is gone.
    pub(super) oldest: u64,
    kinds: BTreeMap<String, Kind>,
    /// Plurals whose lists are not answered yet.
    pub(super) held: BTreeSet<String>,
    /// Verb and resource that are refused.
    pub(super) forbidden: BTreeSet<(String, String)>,
    pub(super) streaming_lists: StreamingLists,
    /// The next page that continues a list is answered with 410.
    pub(super) expired_page: bool,
    /// Requests by verb and resource.
    pub(super) requests: BTreeMap<(String, String), usize>,
    /// Names of Secrets that went out in lists and watches.
    pub(super) sent_secrets: BTreeSet<String>,
    /// Goes up when all watches are cut.
    pub(super) cuts: u64,
}

impl World {
    /// Counts a request and says whether it is allowed.
    pub(super) fn admit(&mut self, verb: &str, resource: &str) -> bool {
        let key = (verb.to_owned(), resource.to_owned());
        let allowed = !self.forbidden.contains(&key);
        *self.requests.entry(key).or_default() += 1;
        allowed
    }

    pub(super) fn find(&self, plural: &str, key: &Key) -> Option<Value> {
        let text = self.kinds.get(plural)?.objects.get(key)?;
        Some(serde_json::from_slice(text).unwrap())
    }

    pub(super) fn all(&self, plural: &str) -> Vec<Value> {
        let objects = self
            .kinds
            .get(plural)
            .into_iter()
            .flat_map(|kind| kind.objects.values());
        objects.map(|text| serde_json::from_slice(text).unwrap()).collect()
    }

    pub(super) fn put(&mut self, plural: &str, object: Value) -> Value {
        let kind = self.kinds.entry(plural.to_owned()).or_default();
        let event = if kind.objects.contains_key(&key_of(&object)) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        self.record(plural, event, object)
    }

    pub(super) fn delete(&mut self, plural: &str, key: &Key) -> Option<Value> {
        let text = self.kinds.get_mut(plural)?.objects.remove(key)?;
        Some(self.record(plural, "DELETED", serde_json::from_slice(&text).unwrap()))
    }

    fn record(&mut self, plural: &str, event: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let key = key_of(&object);
        let text = Bytes::from(object.to_string());
        let kind = self.kinds.entry(plural.to_owned()).or_default();
        kind.log.push_back(Happened {
            version: self.version,
            namespace: key.0.clone(),
            object: text.clone(),
            event: event_text(event, &text),
        });
        if kind.log.len() > HISTORY {
            kind.oldest = kind.log.pop_front().map_or(0, |dropped| dropped.version);
        }
        if event != "DELETED" {
            kind.objects.insert(key, text);
        }
        object
    }

    pub(super) fn patch(&mut self, target: &Target, patch: &Value) -> Result<Value, (StatusCode, &'static str)> {
        let mut object = self.current(target, patch)?;
        merge(&mut object, patch);
        Ok(self.put(&target.plural, object))
    }

    pub(super) fn update(&mut self, target: &Target, object: Value) -> Result<Value, (StatusCode, &'static str)> {
        self.current(target, &object)?;
        Ok(self.put(&target.plural, object))
    }

    /// The object that a change is meant for, if it still is the version that the change names.
    fn current(&self, target: &Target, change: &Value) -> Result<Value, (StatusCode, &'static str)> {
        let key = (target.namespace.clone(), target.name.clone().unwrap_or_default());
        let object = self.find(&target.plural, &key);
        let object = object.ok_or((StatusCode::NOT_FOUND, "NotFound"))?;
        let wanted = change["metadata"].get("resourceVersion");
        if wanted.is_some_and(|version| *version != object["metadata"]["resourceVersion"]) {
            return Err((StatusCode::CONFLICT, "Conflict"));
        }
        Ok(object)
    }

    /// One page of a list. All pages bear the first one's version, so that a watch from there misses nothing.
    pub(super) fn list(&self, target: &Target) -> String {
        let (version, after) = match target.after.as_deref().and_then(|token| token.split_once(':')) {
            Some((version, key)) => (version.to_owned(), key.split_once('/')),
            None => (self.version.to_string(), None),
        };
        let start = after.map_or(Bound::Unbounded, |(namespace, name)| {
            Bound::Excluded((namespace.to_owned(), name.to_owned()))
        });
        let objects = self.kinds.get(&target.plural).map(|kind| &kind.objects);
        let mut chosen = objects
            .into_iter()
            .flat_map(|objects| objects.range((start.clone(), Bound::Unbounded)))
            .filter(|(key, text)| target.selects(&key.0, text))
            .peekable();
        let (mut items, mut more, mut count) = (String::new(), String::new(), 0);
        while let Some((key, text)) = chosen.next() {
            items.push_str(if count == 0 { "" } else { "," });
            items.push_str(std::str::from_utf8(text).unwrap());
            count += 1;
            if count == target.limit && chosen.peek().is_some() {
                more = format!("{version}:{}/{}", key.0, key.1);
                break;
            }
        }
        format!("{{\"metadata\":{{\"resourceVersion\":\"{version}\",\"continue\":\"{more}\"}},\"items\":[{items}]}}")
    }

    /// Takes note of the Secrets in a list or an event.
    pub(super) fn note_secrets(&mut self, target: &Target, text: &[u8]) {
        if target.plural != "secrets" {
            return;
        }
        let value: Value = serde_json::from_slice(text).unwrap();
        let listed = value["items"].as_array().into_iter().flatten();
        let names = listed
            .chain([&value["object"]])
            .filter_map(|o| o["metadata"]["name"].as_str());
        self.sent_secrets.extend(names.map(str::to_owned));
    }

    /// All objects as a watch would show them, and the bookmark that says so.
    pub(super) fn initial_events(&self, target: &Target) -> (u64, Vec<Bytes>) {
        let objects = self.kinds.get(&target.plural).map(|kind| &kind.objects);
        let chosen = objects
            .into_iter()
            .flatten()
            .filter(|(key, text)| target.selects(&key.0, text));
        let mut events: Vec<_> = chosen.map(|(_, text)| event_text("ADDED", text)).collect();
        events.push(bookmark(&target.plural, self.version, true));
        (self.version, events)
    }

    /// What happened after `cursor`; an error event when that is no longer known.
    pub(super) fn since(&self, cursor: u64, target: &Target) -> Vec<Bytes> {
        let kind = self.kinds.get(&target.plural);
        if cursor < self.oldest.max(kind.map_or(0, |kind| kind.oldest)) {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
                "message": "too old resource version", "metadata": {} });
            return vec![event_text("ERROR", &Bytes::from(status.to_string()))];
        }
        let Some(kind) = kind else { return Vec::new() };
        let first = kind.log.partition_point(|happened| happened.version <= cursor);
        let new = kind.log.range(first..);
        new.filter(|happened| target.selects(&happened.namespace, &happened.object))
            .map(|happened| happened.event.clone())
            .collect()
    }
}

fn event_text(event: &str, object: &Bytes) -> Bytes {
    let object = std::str::from_utf8(object).unwrap();
    Bytes::from(format!("{{\"type\":\"{event}\",\"object\":{object}}}\n"))
}

/// A bookmark; `ends_list` marks the end of a streaming list.
pub(super) fn bookmark(plural: &str, version: u64, ends_list: bool) -> Bytes {
    let (kind, group) = match plural {
        "ingresses" => ("Ingress", "networking.k8s.io/v1"),
        "ingressclasses" => ("IngressClass", "networking.k8s.io/v1"),
        "endpointslices" => ("EndpointSlice", "discovery.k8s.io/v1"),
        "services" => ("Service", "v1"),
        "secrets" => ("Secret", "v1"),
        "namespaces" => ("Namespace", "v1"),
        "nodes" => ("Node", "v1"),
        "configmaps" => ("ConfigMap", "v1"),
        _ => ("Pod", "v1"),
    };
    let mut metadata = json!({ "resourceVersion": version.to_string(), "creationTimestamp": null });
    if ends_list {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    let object = json!({ "kind": kind, "apiVersion": group, "metadata": metadata });
    event_text("BOOKMARK", &Bytes::from(object.to_string()))
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

pub(super) fn key_of(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}
