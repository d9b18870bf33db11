//! Clients, and the network between the proxy and the pods.

use super::cluster::{Cluster, SERVICES};
use super::pods::{Life, pod_of};
use super::{LENGTH_MS, Stage};
use landfall_ingress_balance::clock::milliseconds;
use landfall_ingress_balance::{Attempts, Lost, Outcome, Preference};
use std::rc::Rc;
use std::time::Duration;

/// How long a new route, or a pod that was told, may take to be in force: two of the longest tables with their
/// pauses, and the end of a list.
const IN_FORCE_MS: u64 = 500;

/// Endpoints tried for one request, and the longest wait for one of them, as in the data plane.
const TRIES: usize = 16;
const CONNECT: Duration = Duration::from_millis(1500);

/// What became of all requests.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) answered: u64,
    /// Answered by another endpoint than the first that was tried.
    pub(super) moved_on: u64,
    /// No answer, and no usable endpoint throughout.
    pub(super) refused: u64,
    /// The pod that had the request was killed.
    pub(super) killed: u64,
    pub(super) lost: Vec<String>,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.moved_on += other.moved_on;
        self.refused += other.refused;
        self.killed += other.killed;
        self.lost.extend(other.lost);
    }
}

/// Why there was no answer.
#[derive(Debug)]
enum End {
    Answered {
        tries: usize,
    },
    NoRoute,
    NoEndpoint,
    Unreachable,
    Killed,
    /// By a pod of another Service.
    Wrong(usize),
}

/// What the network does with a try.
enum Reply {
    Answer,
    Untouched,
    Broken,
}

/// Asks until the end.
pub(super) async fn ask(stage: Rc<Stage>) {
    while stage.state.snapshot().table.route_count() == 0 {
        stage.clock.sleep(10).await;
    }
    while stage.clock.now() < LENGTH_MS {
        stage.clock.sleep(stage.chance.between(1, 60)).await;
        let client = Rc::clone(&stage);
        stage.clock.spawn(async move {
            let service = usize::try_from(client.chance.below(SERVICES as u64)).unwrap();
            let start = client.clock.now();
            let end = request(&client, service).await;
            judge(
                &client.cluster.borrow(),
                &mut client.tally.borrow_mut(),
                service,
                start,
                &end,
            );
        });
    }
}

/// As `proxy/src/forward.rs` does it.
async fn request(stage: &Stage, service: usize) -> End {
    let snapshot = stage.state.snapshot();
    let Some(route) = snapshot.table.find(&format!("s{service}"), "/") else {
        return End::NoRoute;
    };
    let preference = match stage.chance.below(3) {
        0 => Preference::Key(stage.chance.below(100)),
        _ => Preference::Any,
    };
    let mut attempts = Attempts::new(&route.backend, preference, TRIES);
    let mut tries = 0;
    loop {
        let pick = match attempts.next() {
            Ok(pick) => pick,
            Err(Lost::NoEndpoint) => return End::NoEndpoint,
            Err(Lost::Unreachable) => return End::Unreachable,
        };
        tries += 1;
        let pod = pod_of(pick.address());
        match send(stage, pod, milliseconds(CONNECT)).await {
            Reply::Answer => {
                pick.report(Outcome::Answered);
                let answered_by = stage.cluster.borrow().pods.all.get(&pod).map(|pod| pod.service);
                return match answered_by {
                    Some(other) if other != service => End::Wrong(other),
                    _ => End::Answered { tries },
                };
            }
            Reply::Untouched => attempts.untouched(pick),
            Reply::Broken => {
                pick.report(Outcome::Broken);
                return End::Killed;
            }
        }
    }
}

/// A connection and a request over it. Who is gone refuses, or says nothing when its node is gone too.
async fn send(stage: &Stage, pod: u16, connect_ms: u64) -> Reply {
    let chance = &stage.chance;
    stage.clock.sleep(chance.below(3)).await;
    let life = || stage.cluster.borrow().pods.all.get(&pod).map(|pod| pod.life);
    match life() {
        None if chance.percent(10) => {
            stage.clock.sleep(connect_ms).await;
            return Reply::Untouched;
        }
        None | Some(Life::Starting) => return Reply::Untouched,
        Some(Life::Ready | Life::Ending) => {}
    }
    let long = chance.percent(2);
    let work = if long {
        chance.between(500, 2500)
    } else {
        chance.below(40)
    };
    stage.clock.sleep(work).await;
    // Pods that end gently wait for their requests, which are all shorter than that; one that is gone now was killed.
    if life().is_some() { Reply::Answer } else { Reply::Broken }
}

fn judge(cluster: &Cluster, tally: &mut Tally, service: usize, start: u64, end: &End) {
    let settled = start.saturating_sub(IN_FORCE_MS);
    let routed = cluster.told_routes.get(&service).is_some_and(|told| *told < settled);
    let usable = cluster.pods.usable_since(service, settled);
    match (end, usable) {
        (End::Answered { tries }, _) => {
            tally.answered += 1;
            tally.moved_on += u64::from(*tries > 1);
        }
        (End::Killed, _) => tally.killed += 1,
        (End::Wrong(other), _) => tally.lost.push(format!("a request for s{service} went to s{other}")),
        (end, Some(pod)) if routed => tally
            .lost
            .push(format!("s{service}: {end:?} although pod {pod} was ready")),
        _ => tally.refused += 1,
    }
}
