//! What `--publish-address` makes the leader write.

use crate::cluster;
use crate::harness::{Proxy, endpoint, ingress, pod, until};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn s21_publish_address_stands_in_every_status_instead_of_the_nodes_and_none_empties_it() {
    let api = cluster(&[endpoint("one").await]).await;
    api.put("pods", pod("a", "10.0.0.1"));
    let points = |name: &str| -> Value {
        api.get("ingresses", "default", name).unwrap()["status"]["loadBalancer"]["ingress"].clone()
    };
    let start = |flag: &str| Proxy::start_with(&api, "a", &[flag]);

    let mut first = start("--publish-address=lb.example.com,192.0.2.1");
    let both = json!([{ "ip": "192.0.2.1" }, { "hostname": "lb.example.com" }]);
    until("both addresses", || async { points("nginx") == both }).await;
    api.put("ingresses", ingress("second", "second.nginx.com", "nginx"));
    until("those of an Ingress that came later", || async {
        points("second") == both
    })
    .await;
    assert_eq!(api.count("list", "pods"), 0, "pods are not asked for");
    first.terminate();
    assert!(first.exit().await.success());

    let mut second = start("--publish-address=none");
    until("no address", || async {
        points("nginx") == json!([]) && points("second") == json!([])
    })
    .await;
    second.terminate();
    assert!(second.exit().await.success());
    // And as without the flag.
    let _third = Proxy::start(&api, "a");
    until("the node's", || async {
        points("nginx") == json!([{ "ip": "10.0.0.1" }])
    })
    .await;
}

#[test]
fn an_address_that_is_none_is_said_before_anything_starts() {
    let output = std::process::Command::new(crate::harness::program())
        .args([
            "--publish-address=http://x",
            "--http-address=127.0.0.1:0",
            "--admin-address=127.0.0.1:0",
        ])
        .env_clear()
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("neither an address nor a host name"),
        "{text}"
    );
}
