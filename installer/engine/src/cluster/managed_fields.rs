//! Which part of an object landfall manages, by the `managedFields` that the API server keeps (Kubernetes documentation, "Server-Side Apply").

use kube::api::DynamicObject;
use landfall_core::plan::objects;
use serde_json::{Map, Value};

/// Field manager of server-side apply.
pub(super) const FIELD_MANAGER: &str = "landfall";

/// Returns the managers that set fields of an object.
pub(super) fn managers(object: &DynamicObject) -> impl Iterator<Item = &str> {
    let entries = object.metadata.managed_fields.iter().flatten();
    entries.filter_map(|entry| entry.manager.as_deref())
}

/// Says whether landfall manages a field of an object.
pub(super) fn is_managed(object: &DynamicObject) -> bool {
    managers(object).any(|manager| manager == FIELD_MANAGER)
}

/// Says whether an object has field managers and landfall is none of them: others made it, also in the place of what landfall had made. An object
/// that was applied with nothing but a name has no manager at all.
pub(super) fn is_of_others(object: &DynamicObject) -> bool {
    managers(object).next().is_some() && !is_managed(object)
}

/// Returns of an earlier body of an object what may be put back: fields that landfall manages now, and those that nobody sets now. What others have set
/// since stays theirs. `None` when landfall manages nothing of the object.
pub(super) fn to_put_back(earlier: &Value, now: &DynamicObject) -> Option<Value> {
    let entries = now.metadata.managed_fields.iter().flatten();
    let ours: Vec<&Value> = entries
        .filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
        .filter_map(|entry| Some(&entry.fields_v1.as_ref()?.0))
        .collect();
    if ours.is_empty() {
        return None;
    }
    let now = serde_json::to_value(now).unwrap_or(Value::Null);
    let mut body = part(earlier, Some(&now), &ours).unwrap_or(Value::Null);
    // What names the object is managed by nobody.
    let names = objects::identity(earlier);
    for key in ["apiVersion", "kind"] {
        body[key] = names[key].clone();
    }
    let named = names["metadata"].as_object().into_iter().flatten();
    for (key, value) in named.filter(|(_, value)| !value.is_null()) {
        body["metadata"][key] = value.clone();
    }
    Some(body)
}

/// Returns the part of `earlier` that is in one of the sets of fields, or that `now` lacks. A list counts as one field.
fn part(earlier: &Value, now: Option<&Value>, ours: &[&Value]) -> Option<Value> {
    let is_whole = |set: &&Value| set.as_object().is_none_or(Map::is_empty);
    let (Value::Object(fields), Some(Value::Object(there))) = (earlier, now) else {
        let may_be_set = now.is_none() || !ours.is_empty();
        return may_be_set.then(|| earlier.clone());
    };
    if ours.iter().any(is_whole) {
        return Some(earlier.clone());
    }
    let of_field = |(name, value): (&String, &Value)| {
        let ours: Vec<&Value> = ours.iter().filter_map(|set| set.get(format!("f:{name}"))).collect();
        Some((name.clone(), part(value, there.get(name), &ours)?))
    };
    let kept: Map<String, Value> = fields.iter().filter_map(of_field).collect();
    (!kept.is_empty()).then_some(Value::Object(kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(mut body: Value, managed: &[(&str, Value)]) -> DynamicObject {
        let entries = managed.iter().map(|(manager, fields)| {
            json!({ "manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields })
        });
        body["metadata"]["managedFields"] = entries.collect();
        serde_json::from_value(body).unwrap()
    }

    fn deployment(spec: Value) -> Value {
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": "a" }, "spec": spec })
    }

    #[test]
    fn what_others_have_set_since_stays_theirs() {
        let earlier = deployment(json!({
            "replicas": 2, "paused": true, "minReadySeconds": 5,
            "template": { "spec": { "containers": [{ "name": "nginx", "image": "nginx:1" }] } },
        }));
        let now = deployment(json!({
            "replicas": 7, "minReadySeconds": 9,
            "template": { "spec": { "containers": [{ "name": "nginx", "image": "nginx:2" }] } },
        }));
        let ours = json!({ "f:spec": {
            "f:minReadySeconds": {},
            "f:template": { "f:spec": { "f:containers": { r#"k:{"name":"nginx"}"#: { ".": {}, "f:image": {} } } } },
        } });
        let scaled = json!({ "f:spec": { "f:replicas": {} } });
        let now = object(now, &[("landfall", ours), ("kubectl", scaled)]);
        assert!(is_managed(&now) && !is_of_others(&now));
        let expected = deployment(json!({
            "paused": true, "minReadySeconds": 5,
            "template": { "spec": { "containers": [{ "name": "nginx", "image": "nginx:1" }] } },
        }));
        assert_eq!(to_put_back(&earlier, &now), Some(expected));
    }

    #[test]
    fn a_field_that_is_managed_as_a_whole_comes_back_as_a_whole() {
        let map = |value: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "dns" }, "data": { "Corefile": value } });
        let now = object(map("new"), &[("landfall", json!({ "f:data": { "f:Corefile": {} } }))]);
        assert_eq!(to_put_back(&map("old"), &now), Some(map("old")));
    }

    #[test]
    fn nothing_comes_back_into_an_object_of_others() {
        let body = deployment(json!({ "replicas": 2 }));
        let theirs = object(body.clone(), &[("helm", json!({ "f:spec": { "f:replicas": {} } }))]);
        assert!(is_of_others(&theirs) && !is_managed(&theirs));
        assert_eq!(to_put_back(&body, &theirs), None);
        let name_alone = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } });
        assert!(!is_of_others(&object(name_alone, &[])));
    }
}
