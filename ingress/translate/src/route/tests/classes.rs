//! Which Ingresses are ours.

use super::world::{check, ingress, object, rule, world};
use crate::object::CLASS_ANNOTATION;
use crate::options::CONTROLLER;
use crate::route::{DEFAULT_CLASS, Snapshot};
use serde_json::{Value, json};

#[test]
fn s15_other_classes_are_left_alone_and_the_old_annotation_counts() {
    let of =
        |class: Value, host: &str| json!({ "ingressClassName": class, "rules": [rule(host, &[("Prefix", "/", "a")])] });
    let mut old = ingress("i4", of(Value::Null, "old"));
    old["metadata"]["annotations"] = json!({ CLASS_ANNOTATION: "landfall" });
    let all = [
        ingress("i1", of(json!("other"), "foreign")),
        ingress("i2", of(json!("unknown"), "unknown")),
        ingress("i3", of(Value::Null, "none")),
        old,
    ];
    let wanted = [
        ("foreign", "/", '-'),
        ("unknown", "/", '-'),
        ("none", "/", '-'),
        ("old", "/", 'a'),
    ];
    let snapshot = check(&world(&all), &wanted);
    let names: Vec<_> = snapshot.ours().map(|ours| ours.name()).collect();
    assert_eq!(names, ["i4"]);
    // A class of our name that is for another controller makes nothing ours.
    let mut objects = world(&all);
    objects.classes = vec![object(
        json!({ "metadata": { "name": "landfall" }, "spec": { "controller": "x.y/z" } }),
    )];
    let snapshot = check(&objects, &[("old", "/", '-')]);
    assert_eq!((snapshot.ours_count(), snapshot.remarks().len()), (0, 1));
}

#[test]
fn s16_ingresses_without_a_class_belong_to_the_default_class() {
    let spec = json!({ "rules": [rule("h", &[("Prefix", "/", "a")])] });
    let mut objects = world(&[ingress("i1", spec)]);
    check(&objects, &[("h", "/", '-')]);
    objects.classes = vec![object(
        json!({ "metadata": { "name": "landfall", "annotations": { DEFAULT_CLASS: "true" } },
        "spec": { "controller": CONTROLLER } }),
    )];
    check(&objects, &[("h", "/", 'a')]);
}

#[test]
fn objects_without_anything_make_an_empty_table() {
    let empty = || json!({ "metadata": {} });
    let mut objects = world(&[empty()]);
    objects.services.read_service(empty()).unwrap();
    let slice = json!({ "metadata": {}, "addressType": "", "endpoints": [], "ports": [] });
    objects.services.read_slice(slice).unwrap();
    objects.classes.push(object(empty()));
    let snapshot = Snapshot::build(&objects, "landfall");
    assert_eq!((snapshot.table.route_count(), snapshot.ours_count()), (0, 0));
}
