//! Feature: an Ingress without rules sends everything to its default backend.

use crate::world::World;
use serde_json::json;

async fn ends_at_the_default_backend(method: &str, host: &str, path: &str) {
    let backend = json!({ "service": { "name": "echo-service", "port": { "number": 8080 } } });
    let spec = json!({ "ingressClassName": "landfall", "defaultBackend": backend });
    let world = World::with("default-backend", spec, &[])
        .await
        .exposed("default-backend")
        .await;
    // The suite's client names the address itself when the row has no host.
    let address = world.proxy.http().to_string();
    let host = if host.is_empty() { &address } else { host };
    world.send(method, host, path).await.served_by("echo-service");
}

#[tokio::test(flavor = "multi_thread")]
async fn get_without_a_path() {
    ends_at_the_default_backend("GET", "my-host", "/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn get_with_a_path() {
    ends_at_the_default_backend("GET", "my-host", "/sub-path").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn post_without_a_path() {
    ends_at_the_default_backend("POST", "some-host", "/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn put_without_a_host_of_its_own() {
    ends_at_the_default_backend("PUT", "", "/resource").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_with_a_path() {
    ends_at_the_default_backend("DELETE", "some-host", "/resource").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patch_with_a_path() {
    ends_at_the_default_backend("PATCH", "my-host", "/resource").await;
}
