//! Objects of the API, with server-side apply as far as the engine uses it: maps are merged, lists are replaced whole, and what a
//! manager applied before and leaves out now goes, unless another manager set it too.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Resource (`group/plural`, without group `plural`), namespace, name.
type Key = (String, String, String);

/// Why a request is refused: status code and message.
pub(super) type Refusal = (u16, String);

#[derive(Debug, Clone)]
struct Object {
    value: Value,
    /// What each manager set, the newest state of it.
    managed: BTreeMap<String, Value>,
}

/// All objects of a cluster.
#[derive(Debug, Default)]
pub(super) struct Store {
    objects: BTreeMap<Key, Object>,
}

fn key(resource: &str, namespace: &str, name: &str) -> Key {
    (resource.to_owned(), namespace.to_owned(), name.to_owned())
}

impl Store {
    pub(super) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&key(resource, namespace, name)).map(|o| &o.value)
    }

    pub(super) fn get_mut(&mut self, resource: &str, namespace: &str, name: &str) -> Option<&mut Value> {
        self.objects
            .get_mut(&key(resource, namespace, name))
            .map(|o| &mut o.value)
    }

    pub(super) fn all(&self, resource: &str) -> impl Iterator<Item = &Value> {
        self.objects
            .iter()
            .filter(move |(k, _)| k.0 == resource)
            .map(|(_, o)| &o.value)
    }

    /// Creates an object that its maker need not apply.
    pub(super) fn create(&mut self, resource: &str, body: Value, manager: &str, number: u64) {
        let namespace = body["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let (object, _) = applied(None, &body, manager, number, resource);
        self.objects.insert(key(resource, &namespace, &name), object);
    }

    pub(super) fn delete(&mut self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let object = self.objects.remove(&key(resource, namespace, name))?;
        if resource == "namespaces" {
            self.objects.retain(|(_, n, _), _| n != name);
        }
        Some(object.value)
    }

    /// Applies a body; a dry run answers the same and keeps nothing. Returns the object and whether it is new.
    pub(super) fn apply(&mut self, request: &Apply) -> Result<(Value, bool), Refusal> {
        let Apply {
            resource,
            namespace,
            name,
            ..
        } = *request;
        if !namespace.is_empty() && self.get("namespaces", "", namespace).is_none() {
            return Err((404, format!("namespaces \"{namespace}\" not found")));
        }
        let there = self.objects.get(&key(resource, namespace, name));
        if let Some(there) = there {
            may_change(&there.value, request)?;
            if !request.force {
                let other = there
                    .managed
                    .iter()
                    .find(|(m, set)| *m != request.manager && differs(set, request.body));
                if let Some((manager, _)) = other {
                    return Err((
                        409,
                        format!("Apply failed with 1 conflict: conflict with \"{manager}\""),
                    ));
                }
            }
        }
        let (object, changed) = applied(there, request.body, request.manager, request.number, resource);
        let (value, new) = (object.value.clone(), there.is_none());
        if changed && !request.dry_run {
            self.objects.insert(key(resource, namespace, name), object);
        }
        Ok((value, new))
    }
}

/// A server-side apply.
pub(super) struct Apply<'a> {
    pub(super) resource: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) body: &'a Value,
    pub(super) manager: &'a str,
    pub(super) force: bool,
    pub(super) dry_run: bool,
    /// A number for a uid and a version.
    pub(super) number: u64,
}

/// Fields that the API server lets nobody change.
fn may_change(there: &Value, request: &Apply) -> Result<(), Refusal> {
    let fields: &[&str] = match request.resource {
        "services" => &["/spec/clusterIP"],
        "apps/deployments" | "apps/daemonsets" => &["/spec/selector"],
        "rbac.authorization.k8s.io/clusterrolebindings" | "rbac.authorization.k8s.io/rolebindings" => &["/roleRef"],
        _ => &[],
    };
    for field in fields {
        let (old, new) = (there.pointer(field), request.body.pointer(field));
        if new.is_some() && old.is_some() && old != new {
            let text = format!(
                "{} \"{}\" is invalid: {field}: field is immutable",
                request.resource, request.name
            );
            return Err((422, text));
        }
    }
    Ok(())
}

/// Says whether two sets of fields give one field different values.
fn differs(set: &Value, other: &Value) -> bool {
    match (set, other) {
        (Value::Object(set), Value::Object(other)) => {
            set.iter().any(|(k, v)| other.get(k).is_some_and(|o| differs(v, o)))
        }
        (set, other) => set != other,
    }
}

fn merge(live: &mut Value, config: &Value) {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) => {
            for (key, value) in config.iter().filter(|(_, v)| !v.is_null()) {
                match live.get_mut(key) {
                    Some(there) => merge(there, value),
                    None => drop(live.insert(key.clone(), without_nulls(value))),
                }
            }
        }
        (live, config) => *live = without_nulls(config),
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, v)| !v.is_null())
                .map(|(k, v)| (k.clone(), without_nulls(v)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// Takes away what `old` set, `new` does not, and nobody else sets.
fn take_dropped(live: &mut Value, old: &Value, new: &Value, others: &[&Value]) {
    let (Value::Object(live), Value::Object(old)) = (live, old) else {
        return;
    };
    for (key, was) in old {
        let theirs: Vec<&Value> = others.iter().filter_map(|o| o.get(key)).collect();
        match (new.get(key), live.get_mut(key)) {
            (Some(now), Some(there)) => take_dropped(there, was, now, &theirs),
            (None, Some(there)) if !theirs.is_empty() => take_dropped(there, was, &Value::Null, &theirs),
            (None, Some(_)) => drop(live.shift_remove(key)),
            (_, None) => {}
        }
    }
}

/// Takes away what `new` sets otherwise.
fn take_differing(old: &mut Value, new: &Value) {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return;
    };
    old.retain(|key, was| match new.get(key) {
        Some(now) if was.is_object() && now.is_object() => {
            take_differing(was, now);
            has_fields(was)
        }
        Some(now) => was == now,
        None => true,
    });
}

fn has_fields(set: &Value) -> bool {
    set.as_object().is_none_or(|map| !map.is_empty())
}

/// The tree of fields that a body sets, as `managedFields` shows it.
fn fields(value: &Value) -> Value {
    let Value::Object(map) = value else { return json!({}) };
    Value::Object(map.iter().map(|(k, v)| (format!("f:{k}"), fields(v))).collect())
}

/// What managers own: all but the object's place.
fn owned_part(body: &Value) -> Value {
    let mut body = without_nulls(body);
    if let Some(map) = body.as_object_mut() {
        for key in ["apiVersion", "kind", "status"] {
            map.shift_remove(key);
        }
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            for key in [
                "name",
                "namespace",
                "managedFields",
                "uid",
                "resourceVersion",
                "generation",
                "creationTimestamp",
            ] {
                metadata.shift_remove(key);
            }
        }
    }
    body
}

fn applied(there: Option<&Object>, body: &Value, manager: &str, number: u64, resource: &str) -> (Object, bool) {
    let set = owned_part(body);
    let mut object = there.cloned().unwrap_or_else(|| first(body, number, resource));
    let others: Vec<Value> = object
        .managed
        .iter()
        .filter(|(m, _)| *m != manager)
        .map(|(_, v)| v.clone())
        .collect();
    let before = object.value.clone();
    if let Some(old) = object.managed.get(manager) {
        take_dropped(&mut object.value, old, &set, &others.iter().collect::<Vec<_>>());
    }
    merge(&mut object.value, &set);
    // The server leaves out an empty map of a ConfigMap or Secret.
    if matches!(resource, "configmaps" | "secrets")
        && object.value["data"].as_object().is_some_and(Map::is_empty)
        && let Some(value) = object.value.as_object_mut()
    {
        value.shift_remove("data");
    }
    // A Service keeps the address that it was given when nobody names one (pkg/registry/core/service/strategy.go, `patchAllocatedValues`).
    let address = &before["spec"]["clusterIP"];
    if resource == "services" && address.is_string() && object.value["spec"]["clusterIP"].is_null() {
        object.value["spec"]["clusterIP"] = address.clone();
    }
    // Whoever applies with force takes the fields that others have set otherwise from them.
    for (_, theirs) in object.managed.iter_mut().filter(|(m, _)| *m != manager) {
        take_differing(theirs, &set);
    }
    object.managed.retain(|_, theirs| has_fields(theirs));
    let same = object.managed.get(manager) == Some(&set);
    object.managed.insert(manager.to_owned(), set);
    let changed = there.is_none() || object.value != before || !same;
    if changed {
        let version = json!(number.to_string());
        let spec_changed = there.is_some() && object.value.get("spec") != before.get("spec");
        let managed = object.managed.iter().map(|(m, set)| {
            json!({ "manager": m, "operation": "Apply", "apiVersion": body["apiVersion"], "fieldsType": "FieldsV1",
                "fieldsV1": fields(set) })
        });
        let managed: Vec<Value> = managed.collect();
        let metadata = &mut object.value["metadata"];
        metadata["resourceVersion"] = version;
        metadata["managedFields"] = Value::Array(managed);
        if spec_changed {
            metadata["generation"] = json!(metadata["generation"].as_u64().unwrap_or(1) + 1);
        }
    }
    (object, changed)
}

/// A new object with what the server adds.
fn first(body: &Value, number: u64, resource: &str) -> Object {
    let mut metadata = Map::new();
    for key in ["name", "namespace"] {
        if let Some(text) = body["metadata"][key].as_str() {
            metadata.insert(key.to_owned(), json!(text));
        }
    }
    metadata.insert("uid".to_owned(), json!(format!("00000000-0000-4000-8000-{number:012}")));
    metadata.insert("generation".to_owned(), json!(1));
    metadata.insert("creationTimestamp".to_owned(), json!("2026-11-28T00:00:00Z"));
    let mut value = json!({ "apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata });
    if resource == "services" && body["spec"]["clusterIP"].is_null() {
        // Out of the default range's second half, where nobody asks for an address by name.
        value["spec"] = json!({ "clusterIP": format!("10.104.{}.{}", number / 250 % 250, number % 250 + 1) });
    }
    Object {
        value,
        managed: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(store: &mut Store, manager: &str, force: bool, dry_run: bool, body: &Value) -> Result<Value, Refusal> {
        let request = Apply {
            resource: "configmaps",
            namespace: "",
            name: "a",
            body,
            manager,
            force,
            dry_run,
            number: 7,
        };
        store.apply(&request).map(|(value, _)| value)
    }

    fn map(data: Value) -> Value {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": data })
    }

    #[test]
    fn a_field_that_is_left_out_goes_unless_another_manager_has_it() {
        let mut store = Store::default();
        apply(&mut store, "one", false, false, &map(json!({ "x": "1", "y": "1" }))).unwrap();
        apply(&mut store, "two", false, false, &map(json!({ "y": "1" }))).unwrap();
        let conflict = apply(&mut store, "two", false, false, &map(json!({ "x": "2" })));
        assert_eq!(conflict.unwrap_err().0, 409);
        let tried = apply(&mut store, "one", false, true, &map(json!({}))).unwrap();
        assert_eq!(tried["data"], json!({ "y": "1" }));
        let kept = store.get("configmaps", "", "a").unwrap();
        assert_eq!(kept["data"], json!({ "x": "1", "y": "1" }), "a dry run keeps nothing");
        let version = kept["metadata"]["resourceVersion"].clone();
        let same = apply(&mut store, "one", true, false, &map(json!({ "x": "1", "y": "1" }))).unwrap();
        assert_eq!(
            same["metadata"]["resourceVersion"], version,
            "the same again changes nothing"
        );
    }
}
