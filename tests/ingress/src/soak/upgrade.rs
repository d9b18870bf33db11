//! One process of the proxy takes over from another while requests are sent, as in a DaemonSet's upgrade with maxSurge 1: the new one
//! starts, takes the listeners and is ready; then the old one gets its SIGTERM, drains and ends.

use super::traffic::{Host, Traffic, all_ended, websocket};
use super::{Phase, Settings};
use crate::FakeApi;
use crate::endpoint::Endpoint;
use crate::objects::{class, ingress, service, slice};
use crate::program::{Launch, Program, until};
use crate::websocket::Ended;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A process serves this long before the next one comes.
const TERM: Duration = Duration::from_millis(500);
/// A process ends within its drain; the pod's grace is 30 s.
const END: Duration = Duration::from_secs(30);

/// Takes over again and again until there is no traffic any more, which there is until it was done `least` times; returns how often.
async fn take_over(
    launch: Launch,
    api: FakeApi,
    mut current: Program,
    traffic: Arc<Traffic>,
    least: usize,
    stop: watch::Receiver<bool>,
) -> usize {
    let mut upgrades = 0;
    while !*stop.borrow() {
        tokio::time::sleep(TERM).await;
        // It says that it listens when it has taken over; its table is built then.
        let next = {
            let (launch, api) = (launch.clone(), api.clone());
            let started = tokio::task::spawn_blocking(move || launch.start(&api));
            started.await.expect("the next process starts")
        };
        current.terminate();
        let status = current.exit_within(END).await;
        assert!(status.success(), "{status}: {}", current.log());
        current = next;
        upgrades += 1;
        if upgrades == least {
            traffic.may_end();
        }
    }
    upgrades
}

/// An address that nobody has; processes of ours share it.
async fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    listener.local_addr().expect("it is bound")
}

pub(super) async fn run(settings: &Settings) -> Phase {
    let api = FakeApi::start().await;
    api.put("ingressclasses", class());
    let (mut hosts, mut endpoints) = (Vec::new(), Vec::new());
    for name in ["one", "two", "tunnel"] {
        api.put("services", service(name));
        api.put("ingresses", ingress(name, &format!("{name}.test"), name));
        for number in 0..2 {
            let endpoint = Endpoint::short(name).await;
            api.put(
                "endpointslices",
                slice(&format!("{name}-{number}"), name, endpoint.address),
            );
            endpoints.push(endpoint);
        }
        hosts.push(Host {
            name: format!("{name}.test"),
            services: vec![name.to_owned()],
        });
    }
    let directory = tempfile::tempdir().expect("a directory");
    let address = free().await;
    let launch = Launch::new(&settings.program)
        .argument(format!("--http-address={address}"))
        .argument(format!("--admin-address={}", free().await))
        .argument(format!("--handover-directory={}", directory.path().display()));
    let first = launch.start(&api);
    first.until_ready().await;

    let (stop, stopping) = watch::channel(false);
    let (opened, moved) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let websockets: Vec<_> = (0..settings.websockets)
        .map(|_| {
            let (opened, moved, mut stopping) = (Arc::clone(&opened), Arc::clone(&moved), stopping.clone());
            tokio::spawn(async move {
                loop {
                    match websocket(address, "tunnel.test", &opened, &mut stopping).await {
                        // Going away, as announced: a client opens another.
                        Some(Ended::Closed(Some(1001))) => moved.fetch_add(1, Ordering::Relaxed),
                        Some(ended) => return Some(ended.to_string()),
                        None => return None,
                    };
                }
            })
        })
        .collect();
    until("WebSockets", || async {
        let failed = websockets.iter().filter(|socket| socket.is_finished()).count();
        opened.load(Ordering::Relaxed) + failed >= settings.websockets
    })
    .await;

    let start = Instant::now();
    let (done, finished) = watch::channel(false);
    let traffic = Arc::new(Traffic::without_end(address, hosts, settings.requests));
    let mut upgrades = tokio::spawn(take_over(
        launch,
        api.clone(),
        first,
        Arc::clone(&traffic),
        settings.upgrades,
        finished,
    ));
    let tally = tokio::select! {
        tally = traffic.run(settings.clients) => tally,
        ended = &mut upgrades => panic!("the upgrades ended before the traffic: {ended:?}"),
    };
    let took = start.elapsed();
    stop.send_replace(true);
    let websockets_closed = all_ended(websockets).await;
    done.send_replace(true);
    Phase {
        tally,
        websockets: settings.websockets,
        websockets_closed,
        endpoint_changes: 0,
        route_changes: 0,
        kills: 0,
        upgrades: upgrades.await.expect("the upgrades do not fail"),
        websockets_moved: moved.load(Ordering::Relaxed),
        took,
    }
}
