//! The upstream conformance suite against the real program in a pretended cluster; a test for each feature, which names the scenarios
//! that do not hold. The lab plays the same in a real cluster.

use landfall_test_ingress::conformance::{Loopback, features, play};

/// Plays the feature of that name; `scenarios` is how many it has.
async fn holds(name: &str, scenarios: usize) {
    let feature = features().into_iter().find(|feature| feature.name == name).unwrap();
    let shown = play(&Loopback::start().await, feature).await.unwrap();
    let failed: Vec<_> = shown.iter().filter(|shown| shown.failure.is_some()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(shown.len(), scenarios);
}

#[tokio::test(flavor = "multi_thread")]
async fn default_backend() {
    holds("default-backend", 6).await;
}

/// As the suite meets it when one feature follows another: the namespace of the one before is still being deleted.
#[tokio::test(flavor = "multi_thread")]
async fn default_backend_after_another() {
    holds("default-backend-after-another", 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_rules() {
    holds("host-rules", 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ingress_class() {
    holds("ingress-class", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balancing() {
    holds("load-balancing", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn path_rules() {
    holds("path-rules", 16).await;
}
