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
use crate::annotations::NoSecrets;
use crate::balance;
use crate::route::{Builder, Options};
use crate::services::{Locality, Touched};
use crate::state::State;
use clients::Tally;
use clock::Clock;
use cluster::Cluster;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// Seeds per ordinary run; they take a few seconds.
const SEEDS: u64 = 60;
/// Pretended time per seed.
const LENGTH_MS: u64 = 60_000;
/// Longest time that a table takes to be built.
const BUILD_MS: u64 = 60;

/// Repeatable chance; splitmix64.
#[derive(Debug)]
struct Chance(Cell<u64>);

impl Chance {
    fn number(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let z = self.0.get();
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&self, bound: u64) -> u64 {
        self.number() % bound
    }

    fn percent(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn between(&self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }
}

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
            let objects = {
                let mut proxy = self.proxy.borrow_mut();
                proxy.building = proxy.stale;
                proxy.stale = false;
                proxy.building.then(|| proxy.world.objects())
            };
            let Some(objects) = objects else { return };
            let took = self.chance.below(BUILD_MS);
            self.clock.sleep(took).await;
            self.state
                .replace(self.builder.borrow_mut().build(&objects, &NoSecrets));
            objects.services.sweep();
            self.clock.sleep(took).await;
        }
    }
}

/// Plays one schedule.
fn play(script: Script) -> Tally {
    balance::seed(script.seed);
    let chance = Chance(Cell::new(script.seed));
    let state = Arc::new(State::new("node", ""));
    let world = World::new(Locality::default(), Arc::clone(&state.published));
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
    let given = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let first = given("LANDFALL_SEED").unwrap_or(u64::from(std::process::id()) << 16);
    let count = given("LANDFALL_SEEDS").unwrap_or(SEEDS);
    let seeds = first..first + count;
    println!("seeds {seeds:?}");
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
