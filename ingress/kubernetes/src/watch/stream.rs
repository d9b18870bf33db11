//! One kind's events from the API server, for ever: a streamed list where the server can, pages where it cannot, then a watch.

use super::chain;
use crate::limits::{LIST_PATIENCE, WATCH_FIRST_PAUSE, WATCH_FORGET, WATCH_LONGEST_PAUSE, WATCH_SECONDS};
use crate::state::State;
use futures_util::StreamExt;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource};
use landfall_ingress_telemetry::log;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

/// How the list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lists {
    /// As a watch that begins with everything there is (`sendInitialEvents`): the server need not hold the list in memory, nor we.
    Streamed,
    /// 500 objects at a time; for servers from before 1.32 and those with that feature off.
    Paged,
}

/// Why a stream is begun anew.
#[derive(Debug, PartialEq, Eq)]
enum Again {
    /// The server does not stream lists.
    WithPages,
    /// It no longer knows where we were.
    FromTheList,
    /// Nobody listens any more.
    Never,
}

/// What a refusal of the list means: by missing rights, or because the server has no such kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfRefused {
    /// Nothing is known until it is allowed.
    Wait,
    /// As long as no list was read, there are none. Asking goes on.
    Empty,
}

/// Sends every event on; returns when nobody takes them.
pub async fn follow<K, C>(
    client: Client,
    state: Arc<State>,
    changes: Sender<C>,
    wrap: fn(Event<K>) -> C,
    if_refused: IfRefused,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut lists = Lists::Streamed;
    let mut if_refused = if_refused;
    loop {
        match once::<K, C>(&client, &state, &changes, wrap, lists, &mut if_refused).await {
            Again::WithPages => {
                log(&format!(
                    "{}: the API server does not stream lists, asking for pages",
                    K::plural(&())
                ));
                lists = Lists::Paged;
            }
            Again::FromTheList => {}
            Again::Never => return,
        }
    }
}

async fn once<K, C>(
    client: &Client,
    state: &State,
    changes: &Sender<C>,
    wrap: fn(Event<K>) -> C,
    lists: Lists,
    if_refused: &mut IfRefused,
) -> Again
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
    if lists == Lists::Streamed {
        config = config.streaming_lists();
    }
    let backoff = ResetTimerBackoff::new(Retry(WATCH_FIRST_PAUSE), WATCH_FORGET);
    let stream = watcher(Api::<K>::all(client.clone()), config).backoff(backoff);
    let mut stream = std::pin::pin!(stream);
    let mut listing = false;
    loop {
        let next = match listing && lists == Lists::Streamed {
            // A server that does not know the parameter sends everything, but never says that this was all.
            true => match timeout(LIST_PATIENCE, stream.next()).await {
                Ok(next) => next,
                Err(_) => return Again::WithPages,
            },
            false => stream.next().await,
        };
        match next {
            Some(Ok(event)) => {
                match event {
                    Event::Init => listing = true,
                    Event::InitDone => {
                        listing = false;
                        *if_refused = IfRefused::Wait;
                    }
                    _ => {}
                }
                if changes.send(wrap(event)).await.is_err() {
                    return Again::Never;
                }
            }
            Some(Err(error)) => {
                state.counters.watch_errors.fetch_add(1, Ordering::Relaxed);
                log(&format!("watching {}: {}", K::plural(&()), chain(&error)));
                match answer_code(&error) {
                    Some(403 | 404) if *if_refused == IfRefused::Empty => {
                        *if_refused = IfRefused::Wait;
                        log(&format!(
                            "{}: none are known, and requests are served without",
                            K::plural(&())
                        ));
                        for event in [Event::Init, Event::InitDone] {
                            if changes.send(wrap(event)).await.is_err() {
                                return Again::Never;
                            }
                        }
                    }
                    Some(400 | 422) if lists == Lists::Streamed => return Again::WithPages,
                    // As an event the watcher sees to it; as an answer it would ask the same for ever.
                    Some(410) => {
                        tokio::time::sleep(WATCH_FIRST_PAUSE).await;
                        return Again::FromTheList;
                    }
                    _ => {}
                }
            }
            // The watcher's stream has no end.
            None => return Again::FromTheList,
        }
    }
}

/// The status that a list or a watch was refused with.
fn answer_code(error: &watcher::Error) -> Option<u16> {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status)) | WatchStartFailed(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

/// Pauses that double.
struct Retry(Duration);

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(WATCH_LONGEST_PAUSE);
        Some(pause)
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.0 = WATCH_FIRST_PAUSE;
    }
}
