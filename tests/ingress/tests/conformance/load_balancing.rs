//! Feature: all pods of a Service are used.

use crate::world::World;
use serde_json::json;
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_requests_reach_all_ten_pods() {
    let backend = json!({ "service": { "name": "echo-service", "port": { "number": 8080 } } });
    let spec = json!({ "ingressClassName": "landfall", "defaultBackend": backend });
    let mut world = World::with("load-balancing", spec, &[])
        .await
        .exposed("load-balancing")
        .await;
    world.scale("echo-service", 10).await;
    let mut pods = BTreeSet::new();
    for _ in 0..100 {
        let asked = world.send("GET", "load-balancing", "/").await;
        asked.served_by("echo-service");
        pods.insert(asked.pod());
    }
    assert_eq!(pods.len(), 10, "{pods:?}");
}
