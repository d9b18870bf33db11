//! Adds and removes endpoints and routes while requests are sent.
//!
//! An endpoint lives as a pod does: it listens before it is announced; it is announced as terminating while it still serves; it is
//! withdrawn; then it drains. Every Service has an endpoint at any time that takes requests, `lone` at times only one that is
//! terminating. Now and then an endpoint of `mortal` is killed and withdrawn a little later.

use super::traffic::{Host, Kills, Traffic, all_ended, websocket};
use super::{Phase, Settings};
use crate::FakeApi;
use crate::endpoint::Endpoint;
use crate::objects::{Condition, class, ingress, service, slice, slice_with};
use crate::program::{Launch, until};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// Services whose endpoints come and go, with a host of the same name each.
const SERVICES: [&str; 6] = ["one", "two", "three", "four", "mortal", "lone"];
/// Between withdrawal and the server's end: what a `preStop` or a pod's grace gives for the news to get round.
const GRACE: Duration = Duration::from_millis(250);
/// A draining endpoint is gone after this.
const DRAIN: Duration = Duration::from_secs(3);
/// Until a killed endpoint is withdrawn, as the kubelet takes a moment to see it.
const UNSEEN: Duration = Duration::from_millis(100);
/// Ingresses beside those that are asked for.
const BYSTANDERS: usize = 20;

struct Live {
    slice: String,
    endpoint: Endpoint,
    condition: Condition,
}

struct Churn {
    api: FakeApi,
    kills: Kills,
    fleets: Vec<(&'static str, VecDeque<Live>)>,
    born: usize,
}

impl Churn {
    async fn new(api: &FakeApi, kills: &Kills) -> Self {
        let mut churn = Self {
            api: api.clone(),
            kills: kills.clone(),
            fleets: SERVICES.iter().map(|name| (*name, VecDeque::new())).collect(),
            born: 0,
        };
        for (index, name) in SERVICES.iter().enumerate() {
            let first = if *name == "lone" { 1 } else { 2 };
            for _ in 0..first {
                churn.announce(index).await;
            }
        }
        churn
    }

    async fn announce(&mut self, index: usize) {
        let service = self.fleets[index].0;
        let endpoint = Endpoint::short(service).await;
        self.born += 1;
        let name = format!("{service}-{}", self.born);
        self.api.put("endpointslices", slice(&name, service, endpoint.address));
        self.fleets[index].1.push_back(Live {
            slice: name,
            endpoint,
            condition: Condition::Ready,
        });
    }

    fn terminate(&mut self, index: usize) {
        let (service, fleet) = &mut self.fleets[index];
        let oldest = fleet.front_mut().expect("every Service has an endpoint");
        oldest.condition = Condition::Terminating;
        let changed = slice_with(&oldest.slice, service, oldest.endpoint.address, Condition::Terminating);
        self.api.put("endpointslices", changed);
    }

    fn withdraw(&mut self, index: usize) {
        let oldest = self.fleets[index].1.pop_front().expect("every Service has an endpoint");
        self.api.delete("endpointslices", "default", &oldest.slice);
        tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            oldest.endpoint.drain();
            tokio::time::sleep(DRAIN).await;
        });
    }

    /// One change of one Service: a step in the life of its oldest endpoint, or a new one.
    async fn step(&mut self, index: usize) {
        let (service, fleet) = &self.fleets[index];
        let terminating = fleet
            .front()
            .is_some_and(|oldest| oldest.condition == Condition::Terminating);
        let enough = if *service == "lone" { 1 } else { 3 };
        match (terminating, fleet.len() > enough, fleet.len() == enough) {
            // The lone endpoint announces its end before there is another.
            (false, _, true) => self.terminate(index),
            (true, false, true) if *service == "lone" => self.announce(index).await,
            (true, ..) => self.withdraw(index),
            (false, true, _) => self.terminate(index),
            (false, false, _) => self.announce(index).await,
        }
    }

    /// Kills the newest of several endpoints.
    fn kill(&mut self, index: usize) -> bool {
        let (service, fleet) = &mut self.fleets[index];
        if fleet.iter().filter(|live| live.condition == Condition::Ready).count() < 2 {
            return false;
        }
        let victim = fleet.pop_back().expect("there are two");
        self.kills.killed(service);
        victim.endpoint.kill();
        let (api, kills, service) = (self.api.clone(), self.kills.clone(), *service);
        tokio::spawn(async move {
            tokio::time::sleep(UNSEEN).await;
            api.delete("endpointslices", "default", &victim.slice);
            // Waits until the proxy has received the change.
            tokio::time::sleep(GRACE).await;
            kills.withdrawn(service);
        });
        true
    }
}

async fn change_endpoints(
    mut churn: Churn,
    per_second: u32,
    kill_every: Duration,
    stop: watch::Receiver<bool>,
) -> usize {
    let mut ticks = interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mortal = SERVICES.iter().position(|name| *name == "mortal").expect("it is there");
    let (mut changes, mut last_kill) = (0, Instant::now());
    while !*stop.borrow() {
        ticks.tick().await;
        if last_kill.elapsed() >= kill_every && churn.kill(mortal) {
            last_kill = Instant::now();
        } else {
            churn.step(changes % SERVICES.len()).await;
        }
        changes += 1;
    }
    changes
}

/// The Ingress of an asked host, changed in a way that must not matter to its requests.
fn touched(name: &str, service: &str, turn: usize) -> Value {
    let mut object = ingress(name, &format!("{name}.test"), service);
    object["metadata"]["annotations"] = json!({ "example.com/turn": turn.to_string() });
    let mut other = object["spec"]["rules"][0]["http"]["paths"][0].clone();
    other["path"] = json!(format!("/never/{turn}"));
    object["spec"]["rules"][0]["http"]["paths"]
        .as_array_mut()
        .expect("it has paths")
        .push(other);
    object
}

async fn change_routes(api: FakeApi, per_second: u32, stop: watch::Receiver<bool>) -> usize {
    let mut ticks = interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut changes = 0;
    while !*stop.borrow() {
        ticks.tick().await;
        let turn = changes / 4;
        match changes % 4 {
            0 => api.put(
                "ingresses",
                ingress(&format!("bystander-{turn}"), &format!("b{turn}.test"), "one"),
            ),
            1 => {
                let name = SERVICES[turn % SERVICES.len()];
                api.put("ingresses", touched(name, name, turn));
            }
            // Its requests may be answered by either.
            2 => api.put("ingresses", ingress("flip", "flip.test", SERVICES[turn % 2])),
            _ if turn >= BYSTANDERS => api.delete("ingresses", "default", &format!("bystander-{}", turn - BYSTANDERS)),
            _ => api.put("ingresses", touched("tunnel", "tunnel", turn)),
        }
        changes += 1;
    }
    changes
}

pub(super) async fn run(settings: &Settings) -> Phase {
    let api = FakeApi::start().await;
    api.put("ingressclasses", class());
    let mut hosts = Vec::new();
    for name in SERVICES {
        api.put("services", service(name));
        api.put("ingresses", ingress(name, &format!("{name}.test"), name));
        hosts.push(Host {
            name: format!("{name}.test"),
            services: vec![name.to_owned()],
        });
    }
    api.put("ingresses", ingress("flip", "flip.test", SERVICES[0]));
    hosts.push(Host {
        name: "flip.test".to_owned(),
        services: SERVICES[..2].iter().map(ToString::to_string).collect(),
    });
    let tunnel = Endpoint::short("tunnel").await;
    api.put("services", service("tunnel"));
    api.put("ingresses", ingress("tunnel", "tunnel.test", "tunnel"));
    api.put("endpointslices", slice("tunnel-0", "tunnel", tunnel.address));

    let kills = Kills::default();
    let fleet = Churn::new(&api, &kills).await;
    let proxy = Launch::new(&settings.program).start(&api);
    proxy.until_ready().await;
    let (stop, stopping) = watch::channel(false);
    let opened = Arc::new(AtomicUsize::new(0));
    let websockets: Vec<_> = (0..settings.websockets)
        .map(|_| {
            let (address, opened, stopping) = (proxy.http(), Arc::clone(&opened), stopping.clone());
            tokio::spawn(async move {
                websocket(address, "tunnel.test", &opened, &mut stopping.clone())
                    .await
                    .map(|ended| ended.to_string())
            })
        })
        .collect();
    // All are open, or have failed, before anything changes.
    until("WebSockets", || async {
        let failed = websockets.iter().filter(|socket| socket.is_finished()).count();
        opened.load(Ordering::Relaxed) + failed >= settings.websockets
    })
    .await;

    let start = Instant::now();
    let endpoints = tokio::spawn(change_endpoints(
        fleet,
        settings.endpoint_changes,
        settings.kill_every,
        stopping.clone(),
    ));
    let routes = tokio::spawn(change_routes(api.clone(), settings.route_changes, stopping));
    let traffic = Arc::new(Traffic::new(proxy.http(), hosts, kills.clone(), settings.requests));
    let tally = traffic.run(settings.clients).await;
    let took = start.elapsed();
    stop.send_replace(true);
    let websockets_closed = all_ended(websockets).await;
    Phase {
        tally,
        websockets: opened.load(Ordering::Relaxed),
        websockets_closed,
        endpoint_changes: endpoints.await.expect("changes do not panic"),
        route_changes: routes.await.expect("changes do not panic"),
        kills: kills.count(),
        upgrades: 0,
        websockets_moved: 0,
        took,
    }
}
