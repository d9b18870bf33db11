//! `landfall ingress allow`: in force at once, recorded, kept by an install, undone.

use crate::scene::Scene;
use landfall_core::explain::Code;
use landfall_core::verify::{Cell, CellOutcome};
use landfall_engine::run::{AllowOptions, Outcome, UndoCommand};
use serde_json::{Value, json};

const BINDINGS: &str = "rbac.authorization.k8s.io/rolebindings";

fn options(namespace: Option<&str>, named: bool) -> AllowOptions {
    AllowOptions {
        namespace: namespace.map(str::to_owned),
        named,
    }
}

fn object(scene: &Scene, resource: &str, namespace: &str, name: &str) -> Option<Value> {
    let founder = "cp-1".parse().unwrap();
    scene.fleet.world().object(&founder, resource, namespace, name)
}

/// A person makes a namespace with an Ingress that names a Secret.
fn make_shop(scene: &Scene) {
    let founder = "cp-1".parse().unwrap();
    let world = scene.fleet.world();
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } });
    world.create_object(&founder, "namespaces", namespace).unwrap();
    let ingress = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": { "name": "shop", "namespace": "shop" },
        "spec": { "tls": [{ "hosts": ["shop.example.com"], "secretName": "shop-tls" }] } });
    world
        .create_object(&founder, "networking.k8s.io/ingresses", ingress)
        .unwrap();
}

/// What verify says of Secrets that may not be read.
fn told(outcome: &Outcome) -> Vec<&Cell> {
    let cells = &outcome.verify.as_ref().unwrap().cells;
    cells.iter().filter(|c| c.target.starts_with("secret/")).collect()
}

#[test]
fn a_namespace_is_allowed_at_once_kept_by_an_install_and_undone() {
    let scene = Scene::new(3, 1);
    scene.must_work(&scene.install("100-a"), "install");
    make_shop(&scene);
    let seen = scene.verify("110-v");
    let cells = told(&seen);
    assert_eq!((cells.len(), cells[0].outcome), (1, CellOutcome::Skip));
    assert_eq!(cells[0].next.as_deref(), Some("landfall ingress allow shop"));

    let shop = options(Some("shop"), false);
    let allowed = scene.allow("200-b", &shop);
    scene.must_work(&allowed, "allow");
    assert_eq!(allowed.changes, 1);
    let binding = object(&scene, BINDINGS, "shop", "landfall-ingress-secrets").unwrap();
    assert_eq!(binding["roleRef"]["name"], "landfall-ingress-secrets");
    assert!(told(&scene.verify("210-v")).is_empty());
    let again = scene.allow("300-c", &shop);
    scene.must_work(&again, "allow again");
    assert_eq!(again.changes, 0);

    let install = scene.install("400-d");
    scene.must_work(&install, "install");
    assert_eq!(
        install.changes, 0,
        "what was allowed is kept, and nothing else is to be done"
    );
    scene.must_work(&scene.undo("500-e", UndoCommand::Rollback), "rollback");
    assert_eq!(object(&scene, BINDINGS, "shop", "landfall-ingress-secrets"), None);
    let role = object(
        &scene,
        "rbac.authorization.k8s.io/clusterroles",
        "",
        "landfall-ingress-secrets",
    );
    assert!(role.is_some(), "the rollback undoes its own run alone");
    assert_eq!(told(&scene.verify("510-v")).len(), 1);
    scene.must_work(&scene.allow("600-f", &options(None, false)), "allow all");
    assert!(told(&scene.verify("610-v")).is_empty());
    scene.must_work(&scene.undo("700-g", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

#[test]
fn only_what_ingresses_name_is_allowed_when_that_is_asked_for() {
    let mut scene = Scene::new(1, 0);
    scene.must_work(&scene.install("100-a"), "install");
    make_shop(&scene);
    scene.must_work(&scene.allow("200-b", &options(Some("shop"), true)), "allow by name");
    let role = object(
        &scene,
        "rbac.authorization.k8s.io/roles",
        "shop",
        "landfall-ingress-named-secrets",
    )
    .unwrap();
    assert_eq!(role["rules"][0]["resourceNames"], json!(["shop-tls"]));
    assert_eq!(object(&scene, BINDINGS, "shop", "landfall-ingress-secrets"), None);
    scene.must_work(&scene.install("300-c"), "install");
    assert!(object(&scene, BINDINGS, "shop", "landfall-ingress-named-secrets").is_some());

    // Without a proxy the command is refused.
    scene.set("ingress: {enabled: false}\n");
    scene.must_work(&scene.install("400-d"), "install without a proxy");
    assert_eq!(object(&scene, BINDINGS, "shop", "landfall-ingress-named-secrets"), None);
    assert_eq!(scene.allow("500-e", &options(None, false)).errors[0].code, Code::Usage);
}

#[test]
fn what_cannot_be_allowed_is_refused_before_anything_is_written() {
    let scene = Scene::new(1, 0);
    let nothing = scene.allow("100-a", &options(None, false));
    assert_eq!(nothing.errors[0].code, Code::Preflight);
    scene.must_be_as_before("allow without a cluster");
    scene.must_work(&scene.install("200-b"), "install");
    let installed = scene.fleet.trees().unwrap();
    for refused in [options(Some("shpo"), false), options(Some("kube-system"), true)] {
        let outcome = scene.allow("300-c", &refused);
        assert_eq!(outcome.errors[0].code, Code::Usage, "{refused:?}");
        scene.must_be_installed_as(&installed, "a refused allow");
    }
}
