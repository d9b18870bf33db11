//! Manifests that the builder of the bundle added.

use landfall_core::bundle_index::Manifest;
use landfall_core::explain::Code;
use landfall_core::name::NodeName;
use landfall_engine::run::UndoCommand;
use landfall_test_sim::scene::Scene;
use serde_json::{Value, json};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// A namespace, a Deployment in it and a ConfigMap.
fn shop(motto: &str) -> Manifest {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } });
    // The sample's Deployment has the same name.
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "nginx", "namespace": "shop" },
        "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "shop" } }, "template": {
            "metadata": { "labels": { "app": "shop" } }, "spec": { "containers": [{ "name": "c", "image": "example.com/c:1" }] },
        } },
    });
    Manifest {
        name: "shop".to_owned(),
        objects: vec![namespace, deployment, config(motto)],
    }
}

fn config(motto: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "motto", "namespace": "shop" }, "data": { "text": motto } })
}

fn motto(scene: &Scene) -> Option<Value> {
    let found = scene.fleet.world().object(&name("cp-1"), "configmaps", "shop", "motto");
    found.map(|object| object["data"]["text"].clone())
}

#[test]
fn added_manifests_are_applied_followed_and_removed_with_the_bundle() {
    let mut scene = Scene::new(1, 1);
    let with = scene.bundle_with(vec![shop("one")]);
    let plain = std::mem::replace(&mut scene.bundle, with);
    scene.must_work(&scene.install("100-a"), "with manifests");
    assert_eq!(motto(&scene), Some(json!("one")));
    assert_eq!(scene.install("200-b").changes, 0, "they are as they should be");
    scene.bundle = scene.bundle_with(vec![shop("two")]);
    scene.must_work(&scene.install("300-c"), "changed manifests");
    assert_eq!(motto(&scene), Some(json!("two")));
    scene.must_work(&scene.undo("400-d", UndoCommand::Rollback), "rollback");
    assert_eq!(motto(&scene), Some(json!("one")));
    scene.bundle = plain;
    scene.must_work(&scene.install("500-e"), "without manifests");
    let there = |resource: &str, name_of: &str| scene.fleet.world().object(&name("cp-1"), resource, "shop", name_of);
    assert_eq!((motto(&scene), there("apps/deployments", "nginx")), (None, None));
    assert!(
        scene
            .fleet
            .world()
            .object(&name("cp-1"), "namespaces", "", "shop")
            .is_none(),
        "the namespace went with what was in it"
    );
    scene.must_work(&scene.undo("600-f", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

#[test]
fn an_object_of_others_is_not_taken_over() {
    let mut scene = Scene::new(1, 0);
    scene.must_work(&scene.install("100-a"), "install");
    let world = scene.fleet.world();
    for (resource, body) in [
        ("namespaces", shop("").objects[0].clone()),
        ("configmaps", config("theirs")),
    ] {
        world.create_object(&name("cp-1"), resource, body).unwrap();
    }
    scene.bundle = scene.bundle_with(vec![shop("ours")]);
    let refused = scene.install("200-b");
    let codes: Vec<Code> = refused.errors.iter().map(|error| error.code).collect();
    assert_eq!(codes, [Code::ForeignObject], "{:#?}", refused.errors);
    assert_eq!(motto(&scene), Some(json!("theirs")));
}
