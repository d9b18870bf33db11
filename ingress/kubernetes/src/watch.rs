//! Follows the API: five lists, kept current. Endpoints are in force with their event; routes with the table that is built next.
//!
//! ```text
//! stream.rs (one task per kind) ──events──> world.rs ──Services──> backends' endpoints, at once
//!                                              └─Changes──> translate/ (a thread of its own) ──Snapshot──> State
//! ```
//!
//! INVARIANT: no snapshot before all five lists were read whole (that of namespaces may be refused: it only says which are being deleted); afterwards a lost watch, or a list that is read again, leaves the last
//! one in place until the new list is whole.

mod feed;
mod kinds;
mod stream;
mod tables;
mod world;

pub use kinds::{ClassObject, IngressObject, ServiceObject};
pub use world::{Change, World};

use crate::limits::{CHANGES_WAITING, REBUILD_LONGEST_PAUSE};
use crate::secret_watch::{Scope, Secrets};
use crate::state::State;
use kube::Client;
use landfall_ingress_telemetry::log;
use landfall_ingress_translate::options::Options;
use landfall_ingress_translate::route::{Builder, Changes, LastGood};
use landfall_ingress_translate::secrets::Name;
use landfall_ingress_translate::services::{Locality, Touched};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use stream::IfRefused;
use tables::Tables;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;

/// What is read for TLS beside Ingresses.
pub struct Tls {
    /// How Secrets are followed.
    pub secrets: Scope,
    /// The operator's certificate for hosts without.
    pub default_certificate: Option<Name>,
}

/// A table that is being built; says how long that took.
type Building = JoinHandle<Result<Duration, JoinError>>;

/// Runs until one of its tasks ends, which none does unless it panics: a table that is no longer kept current must not go on serving.
///
/// `inherited` are the good versions that the process before had of Ingresses whose newest one is bad.
pub async fn follow(
    client: Client,
    options: Options,
    tls: Tls,
    inherited: LastGood,
    here: Locality,
    state: Arc<State>,
) {
    let (changes, receiver) = channel(CHANGES_WAITING);
    let mut tasks = JoinSet::new();
    let kind = |state| (client.clone(), Arc::clone(state), changes.clone());
    let (c, s, tx) = kind(&state);
    tasks.spawn(stream::follow(c, s, tx, Change::Ingress, IfRefused::Wait));
    let (c, s, tx) = kind(&state);
    tasks.spawn(stream::follow(c, s, tx, Change::Class, IfRefused::Wait));
    let (c, s, tx) = kind(&state);
    tasks.spawn(stream::follow(c, s, tx, Change::Namespace, IfRefused::Empty));
    let (c, s, tx) = kind(&state);
    tasks.spawn(stream::follow(c, s, tx, Change::Service, IfRefused::Wait));
    let (c, s, tx) = kind(&state);
    tasks.spawn(stream::follow(c, s, tx, Change::Slice, IfRefused::Wait));
    drop(changes);
    let secrets = Secrets::new(client.clone(), tls.secrets, Arc::clone(&state.rebuild));
    // It is told once, by the only one who follows.
    let _ = state.secrets.set(Arc::clone(&secrets));
    let builder = Builder::new(options)
        .with_last_good(inherited)
        .with_default_certificate(tls.default_certificate);
    let world = World::new(here);
    let services = Arc::clone(world.services());
    let tables = Arc::new(Tables::new(builder, services, Arc::clone(&secrets), Arc::clone(&state)));
    tokio::select! {
        ended = tasks.join_next() => {
            if let Some(Err(error)) = ended {
                log(&format!("following the API: {error}"));
            }
        }
        () = secrets.follow() => {}
        () = keep_current(world, &state, receiver, |changes| tokio::spawn(Arc::clone(&tables).build(changes))) => {}
    }
}

/// Applies events as they come and has tables built beside that; `build` starts one and returns how long it took. The next one waits as
/// long, so that half of one core is the most that tables can cost. Returns when a table could not be built.
async fn keep_current(
    mut world: World,
    state: &State,
    mut changes: Receiver<Change>,
    build: impl Fn(Changes) -> Building,
) {
    let mut stale = true;
    let mut building: Option<Building> = None;
    let mut not_before = Instant::now();
    loop {
        let begin = stale && building.is_none() && world.whole();
        tokio::select! {
            // Endpoints first: a request may be waiting for them.
            biased;
            change = changes.recv() => {
                let Some(change) = change else { return };
                stale |= world.apply(change) == Touched::Table;
            }
            took = ended(&mut building) => {
                building = None;
                match took {
                    Ok(took) => not_before = Instant::now() + took.min(REBUILD_LONGEST_PAUSE),
                    Err(error) => {
                        log(&format!("the route table: {error}"));
                        return;
                    }
                }
            }
            () = state.rebuild.notified() => stale = true,
            () = tokio::time::sleep_until(not_before), if begin => {
                stale = false;
                building = Some(build(world.take_changes()));
            }
        }
    }
}

/// Waits for the table that is being built, for ever when there is none.
async fn ended(building: &mut Option<Building>) -> Result<Duration, JoinError> {
    match building {
        Some(task) => task.await.flatten(),
        None => std::future::pending().await,
    }
}

/// An error with those of its causes that say more: the outermost alone says "failed to perform initial object list".
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod changes;
#[cfg(test)]
mod simulation;
