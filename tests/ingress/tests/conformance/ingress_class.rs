//! Feature: an Ingress of a class that is not ours is left alone.

use crate::world::{World, rule};
use landfall_test_ingress::objects::ingress;
use landfall_test_ingress::program::until;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_of_an_unknown_class_gets_no_status_and_no_traffic() {
    let rules = [rule("ingress-class", &[("Prefix", "/", "ingress-class-prefix")])];
    let spec = json!({ "ingressClassName": "some-invalid-class-name", "rules": rules });
    // Ours beside it shows when the writer has written what it has to write.
    let ours = ("ingresses", ingress("ours", "ours", "ingress-class-prefix"));
    let world = World::with("test-ingress-class", spec, &[ours])
        .await
        .exposed("ours")
        .await;
    // Two more rounds of the writer.
    let rounds = world.api.count("list", "pods") + world.api.count("watch", "pods");
    let written = world.api.count("patch", "leases");
    until("the writer is at it again", || async {
        world.api.count("list", "pods") + world.api.count("watch", "pods") > rounds
            || world.api.count("patch", "leases") > written
    })
    .await;
    assert_eq!(world.addresses("test-ingress-class"), Value::Null);
    world.send("GET", "ingress-class", "/").await.is_not_found();
}
