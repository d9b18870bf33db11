//! The real program in a cluster that is only pretended: readiness, routing, changes, failover, stop, status, metrics.

#![expect(
    clippy::unwrap_used,
    reason = "all of this is test code, which clippy does not see in helpers"
)]

mod chromium;
mod commands;
mod dashboard;
mod files;
mod flood;
mod handover;
mod harness;
mod lists;
mod memory;
mod protocols;
mod rights;
mod secrets;
mod status;

use harness::{Proxy, class, endpoint, fetch, ingress, pod, read_all, refusing, service, slice, split, until};
use landfall_test_ingress::FakeApi;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Kinds that the proxy follows.
const KINDS: [&str; 5] = [
    "ingresses",
    "ingressclasses",
    "namespaces",
    "services",
    "endpointslices",
];

/// A cluster whose host `test.nginx.com` leads to these endpoints.
async fn cluster(endpoints: &[SocketAddr]) -> FakeApi {
    let api = FakeApi::start().await;
    api.put("ingressclasses", class());
    api.put("services", service("nginx"));
    api.put("ingresses", ingress("nginx", "test.nginx.com", "nginx"));
    for (i, endpoint) in endpoints.iter().enumerate() {
        api.put("endpointslices", slice(&format!("nginx-{i}"), "nginx", *endpoint));
    }
    api
}

async fn ready(api: &FakeApi) -> Proxy {
    let proxy = Proxy::start(api, "");
    until("ready", || proxy.ready()).await;
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn s29_ready_comes_after_the_last_of_five_lists_whichever_it_is() {
    for held in KINDS {
        let api = cluster(&[endpoint("one").await]).await;
        api.hold(held);
        let proxy = Proxy::start(&api, "");
        // Each list is the beginning of a watch; this one says nothing yet.
        until("five watches", || async {
            KINDS.iter().all(|k| api.count("watch", k) > 0)
        })
        .await;
        assert_eq!(proxy.page("/readyz").await.0, 503, "{held} is not read yet");
        assert_eq!(proxy.page("/healthz").await.0, 200);
        assert_eq!(proxy.metric("snapshots_total").await, 0);
        api.release(held);
        until("ready", || proxy.ready()).await;
        assert_eq!(proxy.body("test.nginx.com").await, "one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_by_host_and_changes_count_without_a_restart() {
    let (one, two) = (endpoint("one").await, endpoint("two").await);
    let api = cluster(&[one]).await;
    let proxy = ready(&api).await;
    assert_eq!(proxy.body("test.nginx.com").await, "one");
    assert_eq!(proxy.body("TEST.nginx.com:80").await, "one");
    assert_eq!(proxy.status("other.nginx.com").await, 404);

    api.put("endpointslices", slice("nginx-0", "nginx", two));
    until("the other endpoint", || async {
        proxy.body("test.nginx.com").await == "two"
    })
    .await;
    api.delete("endpointslices", "default", "nginx-0");
    until("no endpoint", || async { proxy.status("test.nginx.com").await == 503 }).await;
    api.put("endpointslices", slice("nginx-9", "nginx", one));
    until("an endpoint again", || async {
        proxy.body("test.nginx.com").await == "one"
    })
    .await;

    api.put("ingresses", ingress("second", "second.nginx.com", "nginx"));
    until("a second host", || async {
        proxy.body("second.nginx.com").await == "one"
    })
    .await;
    api.delete("ingresses", "default", "second");
    until("the host is gone", || async {
        proxy.status("second.nginx.com").await == 404
    })
    .await;
    api.delete("ingressclasses", "", "landfall");
    until("nothing is ours", || async {
        proxy.status("test.nginx.com").await == 404
    })
    .await;
    assert!(proxy.ready().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn s29_what_was_missed_while_the_watch_was_cut_is_read_again() {
    let (one, two) = (endpoint("one").await, endpoint("two").await);
    let api = cluster(&[one]).await;
    let proxy = ready(&api).await;
    // The lists that follow the cut stay open for a while: the table that is there goes on serving.
    KINDS.iter().for_each(|kind| api.hold(kind));
    api.put("services", service("unrelated"));
    api.cut_and_forget();
    until("lists after the cut", || async {
        // The first one, the one that went on from there and was told that this is gone, and the list.
        KINDS.iter().all(|k| api.count("watch", k) >= 3)
    })
    .await;
    assert_eq!(proxy.body("test.nginx.com").await, "one");
    assert!(proxy.ready().await);
    api.put("endpointslices", slice("nginx-0", "nginx", two));
    KINDS.iter().for_each(|kind| api.release(kind));
    until("the other endpoint", || async {
        proxy.body("test.nginx.com").await == "two"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_refuses_costs_no_request() {
    let api = cluster(&[refusing(), endpoint("two").await]).await;
    let proxy = ready(&api).await;
    for _ in 0..40 {
        assert_eq!(proxy.body("test.nginx.com").await, "two");
    }
    // It is left out after two failures, for some seconds each time.
    assert!((1..=10).contains(&proxy.metric("failovers_total").await));
    api.delete("endpointslices", "default", "nginx-1");
    until("no endpoint left that answers", || async {
        proxy.status("test.nginx.com").await == 502
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_endpoints_and_routes_come_and_go() {
    let (one, two, refuses) = (endpoint("one").await, endpoint("two").await, refusing());
    let api = cluster(&[one, two]).await;
    let proxy = Arc::new(ready(&api).await);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let proxy = Arc::clone(&proxy);
            tokio::spawn(async move {
                for _ in 0..250 {
                    let (status, body) = fetch(proxy.http, "test.nginx.com", "/").await;
                    assert!(
                        status == 200 && ["one", "two"].contains(&body.as_str()),
                        "{status} {body}"
                    );
                }
            })
        })
        .collect();
    let mut round = 0;
    while !clients.iter().all(JoinHandle::is_finished) {
        let first = [one, two, refuses][round % 3];
        api.put("endpointslices", slice("nginx-0", "nginx", first));
        api.put(
            "ingresses",
            ingress("other", &format!("h{}.nginx.com", round % 7), "nginx"),
        );
        round += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for client in clients {
        client.await.unwrap();
    }
    assert!(round > 10 && proxy.metric("failovers_total").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_the_request_in_flight_end_and_takes_no_other() {
    let api = cluster(&[endpoint("one").await]).await;
    let mut proxy = ready(&api).await;
    let mut upload = TcpStream::connect(proxy.http).await.unwrap();
    upload
        .write_all(b"POST / HTTP/1.1\r\nHost: test.nginx.com\r\nContent-Length: 4\r\n\r\nab")
        .await
        .unwrap();
    until("in flight", || async { proxy.metric("requests_in_flight").await == 1 }).await;
    proxy.terminate();
    until("not ready", || async { proxy.page("/readyz").await.0 == 503 }).await;
    assert_eq!(
        proxy.body("test.nginx.com").await,
        "one",
        "requests are taken until the stop was noticed"
    );
    until("no new connections", || async {
        TcpStream::connect(proxy.http).await.is_err()
    })
    .await;
    assert_eq!(proxy.page("/healthz").await.0, 200);
    upload.write_all(b"cd").await.unwrap();
    let answer = read_all(&mut upload).await;
    assert_eq!(split(&answer), (200, "one".to_owned()));
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(proxy.exit().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_the_report_show_routes_and_numbers() {
    let one = endpoint("one").await;
    let api = cluster(&[one]).await;
    api.put("ingresses", ingress("x", "x.nginx.com", "<b>"));
    let proxy = ready(&api).await;
    assert_eq!(proxy.status("test.nginx.com").await, 200);
    assert_eq!(proxy.status("nobody").await, 404);
    assert_eq!(proxy.status("x.nginx.com").await, 503);
    for (series, wanted) in [
        ("responses_total{class=\"2xx\"}", 1),
        ("responses_total{class=\"4xx\"}", 1),
        ("own_responses_total{reason=\"no_route\"}", 1),
        ("own_responses_total{reason=\"no_endpoint\"}", 1),
        ("routes", 2),
        ("ready", 1),
        ("watch_errors_total", 0),
    ] {
        assert_eq!(proxy.metric(series).await, wanted, "{series}");
    }
    let report: Value = serde_json::from_str(&proxy.page("/status.json").await.1).unwrap();
    assert_eq!(report["routes"][0]["endpoints"], json!([one]));
    assert_eq!(
        (report["node"].as_str(), report["ready"].as_bool()),
        (Some("node-1"), Some(true))
    );
    assert_eq!(proxy.page("/nothing").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn s21_one_proxy_writes_status_once_and_another_follows_it() {
    let api = cluster(&[endpoint("one").await]).await;
    let foreign =
        json!({ "metadata": { "name": "foreign", "namespace": "default" }, "spec": { "ingressClassName": "other" } });
    api.put("ingresses", foreign);
    api.put("pods", pod("a", "10.0.0.1"));
    api.put("pods", pod("b", "10.0.0.2"));
    let mut first = Proxy::start(&api, "a");
    until("a leads", || async { first.metric("leader").await == 1 }).await;
    let second = Proxy::start(&api, "b");
    until("b is ready", || second.ready()).await;
    let addresses = || api.get("ingresses", "default", "nginx").unwrap()["status"]["loadBalancer"]["ingress"].clone();
    until("status", || async {
        addresses() == json!([{ "ip": "10.0.0.1" }, { "ip": "10.0.0.2" }])
    })
    .await;
    // The writer's second round sees its own writing and leaves it.
    let rounds = api.count("list", "pods");
    until("another round", || async { api.count("list", "pods") > rounds }).await;
    assert_eq!(api.count("patch", "ingresses/status"), 1);
    assert_eq!(second.metric("leader").await, 0);
    assert!(
        api.get("ingresses", "default", "foreign")
            .unwrap()
            .get("status")
            .is_none()
    );

    api.delete("pods", "kube-system", "a");
    first.terminate();
    assert_eq!(first.exit().await.code(), Some(0));
    until("b leads", || async { second.metric("leader").await == 1 }).await;
    until("status of b", || async { addresses() == json!([{ "ip": "10.0.0.2" }]) }).await;
    let lease = api.get("leases", "kube-system", "landfall-ingress").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "b");
    assert_rights(&api);
}

/// All that was asked for is granted by the shipped roles.
fn assert_rights(api: &FakeApi) {
    let granted = rights::granted();
    for right in api.asked() {
        assert!(granted.contains(&right), "{right:?} is not granted");
    }
}
