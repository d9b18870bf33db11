//! Sends requests through the real program while endpoints and routes change, and counts their outcomes.
//!
//! *Lost* is a request without a correct answer although a usable endpoint existed throughout. Counted apart: requests that an
//! endpoint was killed under ([`Outcome::Killed`]), and safe requests that a client sent again because a kept connection had ended
//! before the first byte of an answer, as RFC 9110, 9.2.2 lets every client do ([`Tally::resent`]).

mod churn;
mod traffic;
mod upgrade;

use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// What to do.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The proxy's program.
    pub program: PathBuf,
    /// Requests of a phase; of `upgrade` the fewest.
    pub requests: usize,
    /// Clients, each with one connection.
    pub clients: usize,
    /// WebSockets that are held open.
    pub websockets: usize,
    /// Changes of endpoints per second.
    pub endpoint_changes: u32,
    /// Changes of routes per second.
    pub route_changes: u32,
    /// Time between two kills of endpoints.
    pub kill_every: Duration,
    /// Fewest processes that take over from another in the phase `upgrade`.
    pub upgrades: usize,
}

impl Settings {
    /// The rates of the full proof, for so many requests.
    pub fn new(program: PathBuf, requests: usize) -> Self {
        Self {
            program,
            requests,
            clients: 16,
            websockets: 32,
            endpoint_changes: 50,
            route_changes: 10,
            kill_every: Duration::from_secs(2),
            upgrades: 10,
        }
    }
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The right answer.
    Right,
    /// None, and an endpoint of its Service was killed meanwhile.
    Killed,
    /// None, or a wrong one.
    Lost(String),
}

/// The outcomes of all requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests with any outcome.
    pub requests: usize,
    /// See [`Outcome::Lost`].
    pub lost: usize,
    /// See [`Outcome::Killed`].
    pub killed: usize,
    /// Safe requests that were sent twice.
    pub resent: usize,
    /// The first few that were lost.
    pub examples: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.lost += other.lost;
        self.killed += other.killed;
        self.resent += other.resent;
        self.examples.extend(other.examples);
        self.examples.truncate(5);
    }

    fn count(&mut self, outcome: Outcome) {
        self.requests += 1;
        match outcome {
            Outcome::Right => {}
            Outcome::Killed => self.killed += 1,
            Outcome::Lost(why) => {
                self.lost += 1;
                if self.examples.len() < 5 {
                    self.examples.push(why);
                }
            }
        }
    }
}

/// The result of a phase.
#[derive(Debug)]
pub struct Phase {
    /// Requests.
    pub tally: Tally,
    /// WebSockets that were opened.
    pub websockets: usize,
    /// Those of them that ended before the phase did, and how.
    pub websockets_closed: Vec<String>,
    /// Changes of endpoints that were written.
    pub endpoint_changes: usize,
    /// Changes of routes that were written.
    pub route_changes: usize,
    /// Endpoints that were killed.
    pub kills: usize,
    /// Processes that took over from another.
    pub upgrades: usize,
    /// WebSockets that were closed with 1001 by a process that ended, and opened again.
    pub websockets_moved: usize,
    /// How long requests were sent.
    pub took: Duration,
}

impl Phase {
    /// As one JSON object.
    pub fn json(&self) -> Value {
        let seconds = self.took.as_secs_f64();
        let per_second = |count: usize| (count as f64 / seconds * 10.0).round() / 10.0;
        json!({
            "requests": self.tally.requests,
            "lost": self.tally.lost,
            "websockets_closed": self.websockets_closed.len(),
            "websockets": self.websockets,
            "killed": self.tally.killed,
            "kills": self.kills,
            "upgrades": self.upgrades,
            "websockets_moved": self.websockets_moved,
            "resent": self.tally.resent,
            "endpoint_changes_per_s": per_second(self.endpoint_changes),
            "route_changes_per_s": per_second(self.route_changes),
            "requests_per_s": per_second(self.tally.requests),
            "seconds": (seconds * 10.0).round() / 10.0,
            "examples": self.tally.examples.iter().chain(&self.websockets_closed).take(5).collect::<Vec<_>>(),
        })
    }
}

/// The phase `churn`: endpoints and routes come and go through the API server.
pub async fn churn(settings: &Settings) -> Phase {
    churn::run(settings).await
}

/// The phase `upgrade`: one process takes over from another, again and again.
pub async fn upgrade(settings: &Settings) -> Phase {
    upgrade::run(settings).await
}

/// All phases, the second with at least a quarter of the first one's requests.
pub async fn run(settings: &Settings) -> Value {
    let churn = churn(settings).await.json();
    let quarter = Settings {
        requests: settings.requests / 4,
        ..settings.clone()
    };
    json!({ "churn": churn, "upgrade": upgrade(&quarter).await.json() })
}
