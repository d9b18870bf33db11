//! Open files: the soft limit is raised, connections are bounded by what was granted, and when there are none left idle ones give way.
//!
//! containerd/containerd#8924 (pods inherit a soft limit of 1,024), envoyproxy/envoy#31502, kubermatic/kubermatic#15829.

use super::harness::{Proxy, endpoint, fetch, until};
use super::{cluster, ready};
use landfall_test_ingress::program::Launch;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::net::SocketAddr;
use tokio::net::TcpStream;

async fn idle(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn the_soft_limit_is_raised_and_idle_connections_stop_nobody() {
    let api = cluster(&[endpoint("one").await]).await;
    let proxy = Proxy::start_launch(
        Launch::new(super::harness::program().as_ref()).open_files(256, 1024),
        &api,
    );
    until("ready", || proxy.ready()).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", proxy.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(
        files.split_whitespace().collect::<Vec<_>>()[3..5],
        ["1024", "1024"],
        "soft and hard"
    );
    for (name, value) in [
        ("open_files_limit", 1024),
        ("connections_limit", 448),
        ("connections_per_address_limit", 392),
        ("open_files_shortages_total", 0),
    ] {
        assert_eq!(proxy.metric(name).await, value, "{name}");
    }
    // One address has a share, and its idle connections give way within that for nobody; others are served.
    let held = idle(proxy.http, 380).await;
    for _ in 0..5 {
        assert_eq!(proxy.body("test.nginx.com").await, "one");
    }
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_files_run_out_idle_connections_give_way_and_the_listener_goes_on() {
    let api = cluster(&[endpoint("one").await]).await;
    let proxy = ready(&api).await;
    let open = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count() as u64;
    let fewer = Rlimit {
        current: Some(open + 40),
        maximum: Some(open + 40),
    };
    let pid = Pid::from_raw(proxy.pid().cast_signed()).unwrap();
    prlimit(Some(pid), Resource::Nofile, fewer).unwrap();
    let held = idle(proxy.http, 200).await;
    for _ in 0..20 {
        assert_eq!(fetch(proxy.http, "test.nginx.com", "/").await, (200, "one".to_owned()));
    }
    assert_eq!(proxy.page("/readyz").await.0, 200);
    assert!(proxy.metric("open_files_shortages_total").await > 0);
    drop(held);
}
