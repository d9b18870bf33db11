//! A cluster, its API and clients within one thread, on a clock that only moves when all wait: many schedules per second, each
//! repeatable by its seed.
//!
//! What is real: the world, the table, the choice of endpoints, ejection, failover. What is pretended: the API's streams
//! ([`cluster`]), and the network to the pods ([`clients`]).
//!
//! A request is *lost* when it got no answer from its Service although a pod of it was ready in truth, and known here to be, from the
//! request's start to its end, and its route was in force for as long. A pod that is killed while it has the request is counted apart.
//!
//! `cargo xtask simulate --seed 7` plays one seed, `--count 1000` more from there on; a seed that loses a request becomes a test of its
//! own.

mod clients;
mod clock;
mod cluster;
mod pods;

use super::{Change, World};
use crate::state::State;
use clients::Tally;
use clock::Clock;
use cluster::Cluster;
use landfall_ingress_balance as balance;
use landfall_ingress_balance::chance::{Chance, seeds};
use landfall_ingress_translate::options::Options;
use landfall_ingress_translate::route::Builder;
use landfall_ingress_translate::secrets::lookup::NoSecrets;
use landfall_ingress_translate::services::{Locality, Touched};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Seeds per ordinary run; they take a few seconds.
const SEEDS: u64 = 60;
/// Pretended time per seed.
const LENGTH_MS: u64 = 60_000;
/// Longest time that a table takes to be built.
const BUILD_MS: u64 = 60;

/// What is played.
#[derive(Debug, Clone, Copy)]
struct Script {
    seed: u64,
    /// Pods are killed in the middle of requests, too.
    kills: bool,
}

/// Everything that the tasks of one schedule share.
struct Stage {
    clock: Clock,
    chance: Chance,
    cluster: RefCell<Cluster>,
    proxy: RefCell<Proxy>,
    builder: RefCell<Builder>,
    state: Arc<State>,
    tally: RefCell<Tally>,
}

/// The part of the proxy that keeps itself current; as [`super::keep_current`] does it.
struct Proxy {
    world: World,
    stale: bool,
    building: bool,
}

impl Stage {
    /// The proxy takes an event; endpoints are in force when this returns.
    fn tell(self: &Rc<Self>, change: Change) {
        let mut proxy = self.proxy.borrow_mut();
        proxy.stale |= proxy.world.apply(change) == Touched::Table;
        if !proxy.stale || proxy.building || !proxy.world.whole() {
            return;
        }
        proxy.building = true;
        let stage = Rc::clone(self);
        self.clock.spawn(async move { stage.build().await });
    }

    /// A table takes its time, in which everything else goes on; the next one comes after a pause.
    async fn build(&self) {
        loop {
            let (changes, services) = {
                let mut proxy = self.proxy.borrow_mut();
                proxy.building = std::mem::take(&mut proxy.stale);
                if !proxy.building {
                    return;
                }
                (proxy.world.take_changes(), Arc::clone(proxy.world.services()))
            };
            let took = self.chance.below(BUILD_MS);
            self.clock.sleep(took).await;
            let built = self.builder.borrow_mut().update(changes, &services, &NoSecrets);
            self.state.replace(built.snapshot);
            services.sweep();
            self.clock.sleep(took).await;
        }
    }
}

/// Plays one schedule.
fn play(script: Script) -> Tally {
    balance::seed(script.seed);
    let chance = Chance::new(script.seed);
    let state = Arc::new(State::default());
    let world = World::new(Locality::default());
    let stage = Rc::new(Stage {
        clock: Clock::default(),
        cluster: RefCell::new(Cluster::new(&chance, script.kills)),
        chance,
        proxy: RefCell::new(Proxy {
            world,
            stale: true,
            building: false,
        }),
        builder: RefCell::new(Builder::new(Options::default())),
        state,
        tally: RefCell::default(),
    });
    stage.clock.spawn(cluster::happen(Rc::clone(&stage)));
    stage.clock.spawn(cluster::tell(Rc::clone(&stage)));
    stage.clock.spawn(clients::ask(Rc::clone(&stage)));
    Clock::run(&stage.clock);
    stage.tally.take()
}

/// Plays a seed and says what was wrong, if anything.
fn check(script: Script) -> Tally {
    let tally = play(script);
    assert!(
        tally.lost.is_empty(),
        "{} of {} requests lost, the first: {}\nagain: cargo xtask simulate --seed {}",
        tally.lost.len(),
        tally.answered,
        tally.lost[0],
        script.seed
    );
    tally
}

#[test]
fn no_request_is_lost_that_had_a_usable_endpoint_throughout() {
    let seeds = seeds(SEEDS);
    let count = seeds.end - seeds.start;
    let mut sum = Tally::default();
    for seed in seeds {
        sum.add(check(Script {
            seed,
            kills: seed % 2 == 1,
        }));
    }
    println!("{sum:?}");
    // A schedule in which nothing happens would prove nothing.
    assert!(
        count < SEEDS || (sum.answered > 1000 && sum.moved_on > 10 && sum.refused > 0),
        "{sum:?}"
    );
}

#[test]
fn a_seed_plays_the_same_every_time() {
    let script = Script { seed: 5, kills: true };
    let (first, second) = (play(script), play(script));
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
}
