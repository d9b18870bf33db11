//! Follows the wanted Secrets: one watch each, or one over the whole cluster. ConfigMaps always have one each.
//!
//! INVARIANT: what was read once is only replaced by something newer or by "there is none", never by "could not be asked".

use crate::limits;
use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Client, Resource, ResourceExt};
use landfall_ingress_telemetry::log;
use landfall_ingress_translate::secrets::{Found, Kind, Material, Name, View, Wanted};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch as channel};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Types that never hold what an Ingress names; some are large, all are better not read.
const FOREIGN_TYPES: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,\
    type!=kubernetes.io/dockerconfigjson,type!=kubernetes.io/dockercfg,type!=bootstrap.kubernetes.io/token";

/// How Secrets are followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Scope {
    /// Each by its name: needs get, list and watch on these names only.
    #[default]
    Named,
    /// All with one watch: needs these rights on every Secret of the cluster.
    Cluster,
}

/// Whether an answer is the newest there is, or may be older than what a watch said meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Newest,
    First,
}

/// What is known of the wanted Secrets.
#[derive(Default)]
struct Known {
    found: View,
    /// Those of which it is something else since the last view.
    changed: BTreeSet<Name>,
}

impl Known {
    fn get(&self, name: &Name) -> Option<&Found> {
        self.found.found(name)
    }

    fn put(&mut self, name: &Name, found: Found) {
        // Copied when a table is being built from it, which is rare.
        self.found.all_mut().insert(name.clone(), found);
        self.changed.insert(name.clone());
    }

    fn is_pending(&self) -> bool {
        self.found.all().any(|(_, found)| matches!(found, Found::Pending))
    }
}

/// Follows Secrets while [`Secrets::follow`] runs.
pub struct Secrets {
    client: Client,
    scope: Scope,
    known: Mutex<Known>,
    wanted: channel::Sender<Arc<Wanted>>,
    /// Said after each change, for the one who builds tables.
    changed: Arc<Notify>,
    /// Goes up with each change, for those who wait for the first answers.
    answers: channel::Sender<u64>,
}

impl Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secrets>")
    }
}

impl Secrets {
    /// Nothing is wanted yet. `changed` is notified whenever a wanted Secret changed.
    pub fn new(client: Client, scope: Scope, changed: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            client,
            scope,
            known: Mutex::default(),
            wanted: channel::channel(Arc::default()).0,
            changed,
            answers: channel::channel(0).0,
        })
    }

    /// Says which Secrets are wanted from now on. Returns whether one of them was not answered for yet.
    pub fn want(&self, wanted: &Arc<Wanted>) -> bool {
        let differs = {
            let before = self.wanted.borrow();
            !Arc::ptr_eq(&before, wanted) && *before != *wanted
        };
        let pending = {
            let mut known = self.known();
            if differs {
                let found = known.found.all_mut();
                found.retain(|name, _| wanted.contains(name));
                for name in wanted.iter() {
                    found.entry(name.clone()).or_insert(Found::Pending);
                }
            }
            known.is_pending()
        };
        // Last: an answer about a Secret that is not known is dropped.
        if differs {
            self.wanted.send_replace(Arc::clone(wanted));
        }
        pending
    }

    /// All wanted Secrets as they are now.
    pub fn found(&self) -> View {
        self.known().found.clone()
    }

    /// All wanted Secrets as they are now, and those that are something else than in the last view.
    pub fn view(&self) -> (View, BTreeSet<Name>) {
        let mut known = self.known();
        (known.found.clone(), std::mem::take(&mut known.changed))
    }

    /// Waits until every wanted Secret was answered for, at most `longest`. Returns whether they were.
    pub async fn settled(&self, longest: Duration) -> bool {
        let mut answers = self.answers.subscribe();
        let all = async {
            while self.known().is_pending() {
                // The sender lives in self.
                let _ = answers.changed().await;
            }
        };
        timeout(longest, all).await.is_ok()
    }

    /// Runs until one of its tasks ends, which none does unless it panics.
    pub async fn follow(self: Arc<Self>) {
        match self.scope {
            Scope::Named => self.follow_named(|_| true).await,
            Scope::Cluster => tokio::select! {
                () = Arc::clone(&self).follow_cluster() => {}
                () = Arc::clone(&self).follow_named(|name| name.kind() == Kind::ConfigMap) => {}
            },
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a watch says.
    fn set(&self, name: &Name, new: Found) {
        self.answer(name, new, Answer::Newest);
    }

    /// Takes an answer over, unless the Secret is no longer wanted or nothing is new.
    fn answer(&self, name: &Name, new: Found, answer: Answer) {
        {
            let mut known = self.known();
            let Some(old) = known.get(name) else { return };
            if answer == Answer::First && !old.is_open() {
                return;
            }
            let same = match (old, &new) {
                (Found::Here(old), Found::Here(new)) => old.same_version(new),
                (Found::Missing, Found::Missing) => true,
                _ => false,
            };
            if same {
                return;
            }
            known.put(name, new);
        }
        self.tell();
    }

    /// Keeps what was read, and gives the reason where nothing was.
    fn failed(&self, name: &Name, why: Found) {
        let text = match &why {
            Found::Unreadable(text) => text.to_string(),
            _ => "forbidden".to_owned(),
        };
        {
            let mut known = self.known();
            let Some(old) = known.get(name) else { return };
            let told = match (old, &why) {
                (Found::Here(_) | Found::Missing, _) | (Found::Forbidden, Found::Forbidden) => true,
                (Found::Unreadable(before), Found::Unreadable(now)) => before == now,
                _ => false,
            };
            if told {
                return;
            }
            known.put(name, why);
        }
        log(&format!("{} {name} cannot be read: {text}", name.kind()));
        self.tell();
    }

    fn tell(&self) {
        self.answers.send_modify(|answers| *answers = answers.wrapping_add(1));
        self.changed.notify_one();
    }

    /// One watch for each of these.
    async fn follow_named(self: Arc<Self>, these: fn(&Name) -> bool) {
        let mut wanted = self.wanted.subscribe();
        let mut tasks = JoinSet::new();
        let mut watches: BTreeMap<Name, AbortHandle> = BTreeMap::new();
        loop {
            let now = Arc::clone(&wanted.borrow_and_update());
            watches.retain(|name, task| {
                let stays = now.contains(name);
                if !stays {
                    task.abort();
                }
                stays
            });
            for name in now.iter().filter(|name| these(name)) {
                if watches.contains_key(name) {
                    continue;
                }
                if watches.len() == limits::SECRET_WATCHES {
                    let why = "more Secrets are named than are followed by name: use --secrets=cluster";
                    self.failed(name, Found::Unreadable(why.into()));
                    continue;
                }
                let this = Arc::clone(&self);
                let task = match name.kind() {
                    Kind::Secret => tasks.spawn(this.follow_one::<Secret>(name.clone())),
                    Kind::ConfigMap => tasks.spawn(this.follow_one::<ConfigMap>(name.clone())),
                };
                watches.insert(name.clone(), task);
            }
            loop {
                tokio::select! {
                    // The sender lives in self.
                    _ = wanted.changed() => break,
                    Some(ended) = tasks.join_next() => if !ended.is_err_and(|error| error.is_cancelled()) {
                        log("a Secret is no longer followed");
                        return;
                    },
                }
            }
        }
    }

    async fn follow_one<K>(self: Arc<Self>, name: Name)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
        Material: From<K>,
    {
        let api = Api::<K>::namespaced(self.client.clone(), name.namespace());
        // The form that a right on one name covers.
        let config = watcher::Config::default().fields(&format!("metadata.name={}", name.name()));
        let mut events = pin!(watch(api, config).backoff(backoff()));
        let mut listed = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = None,
                Ok(Event::InitApply(object)) => listed = Some(object),
                Ok(Event::InitDone) => self.set(&name, found(listed.take())),
                Ok(Event::Apply(object)) => self.set(&name, found(Some(object))),
                Ok(Event::Delete(_)) => self.set(&name, Found::Missing),
                Err(error) => self.failed(&name, unread(&error)),
            }
        }
    }

    /// One watch; of what is not wanted nothing is kept. So a Secret that becomes wanted later is read once by itself.
    async fn follow_cluster(self: Arc<Self>) {
        let api = Api::<Secret>::all(self.client.clone());
        let config = watcher::Config::default().fields(FOREIGN_TYPES);
        let mut events = pin!(watch(api, config).backoff(backoff()));
        let mut wanted = self.wanted.subscribe();
        let mut asked = BTreeSet::new();
        let mut reads = JoinSet::new();
        // Wanted when the list began: those of them that it does not have do not exist.
        let mut listing = Arc::new(Wanted::new());
        let mut listed = BTreeMap::new();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(Event::Init)) => {
                        listing = Arc::clone(&self.wanted.borrow());
                        listed.clear();
                    }
                    Some(Ok(Event::InitApply(secret))) => {
                        if let Some(name) = name_of(&secret).filter(|name| listing.contains(name)) {
                            listed.insert(name, secret);
                        }
                    }
                    Some(Ok(Event::InitDone)) => {
                        for name in listing.iter().filter(|name| name.kind() == Kind::Secret) {
                            self.set(name, found(listed.remove(name)));
                        }
                    }
                    Some(Ok(Event::Apply(secret))) => {
                        if let Some(name) = name_of(&secret) {
                            self.set(&name, found(Some(secret)));
                        }
                    }
                    Some(Ok(Event::Delete(secret))) => {
                        if let Some(name) = name_of(&secret) {
                            self.set(&name, Found::Missing);
                        }
                    }
                    Some(Err(error)) => {
                        let why = unread(&error);
                        let names = Arc::clone(&self.wanted.borrow());
                        let secrets = names.iter().filter(|name| name.kind() == Kind::Secret);
                        secrets.for_each(|name| self.failed(name, why.clone()));
                    }
                    None => return,
                },
                _ = wanted.changed() => {
                    let now = Arc::clone(&wanted.borrow_and_update());
                    asked.retain(|name| now.contains(name));
                    for name in now.iter().filter(|name| name.kind() == Kind::Secret) {
                        if asked.insert(name.clone()) {
                            reads.spawn(Arc::clone(&self).read_once(name.clone()));
                        }
                    }
                }
                Some(ended) = reads.join_next() => if ended.is_err() {
                    log("a Secret could not be read: its task failed");
                    return;
                },
            }
        }
    }

    /// Answers for a Secret for which the watch did not, and ends.
    async fn read_once(self: Arc<Self>, name: Name) {
        let api = Api::<Secret>::namespaced(self.client.clone(), name.namespace());
        let mut pauses = Retry::default();
        loop {
            match api.get_opt(name.name()).await {
                Ok(secret) => return self.answer(&name, found(secret), Answer::First),
                Err(error) => self.failed(&name, unread(&error)),
            }
            let open = self.known().get(&name).is_some_and(Found::is_open);
            let Some(pause) = pauses.next().filter(|_| open) else {
                return;
            };
            sleep(pause).await;
        }
    }
}

/// Pauses that double. A right that is missing is given by a person, so the last ones are long.
struct Retry(Duration);

impl Default for Retry {
    fn default() -> Self {
        Self(limits::SECRET_RETRY_FIRST)
    }
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(limits::SECRET_RETRY_LONGEST);
        Some(pause)
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Why nothing was read: by the cause that says most, what the API answered, without the layers around it.
fn unread(error: &(dyn Error + 'static)) -> Found {
    let mut error = error;
    loop {
        let status = match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        };
        if status == Some(403) {
            return Found::Forbidden;
        }
        match error.source() {
            Some(cause) => error = cause,
            None => return Found::Unreadable(error.to_string().into()),
        }
    }
}

fn backoff() -> ResetTimerBackoff<Retry> {
    ResetTimerBackoff::new(Retry::default(), limits::SECRET_RETRY_FORGET)
}

fn found<K>(object: Option<K>) -> Found
where
    Material: From<K>,
{
    object.map_or(Found::Missing, |object| Found::Here(Arc::new(Material::from(object))))
}

fn name_of(secret: &Secret) -> Option<Name> {
    Name::new(&secret.namespace()?, &secret.name_any())
}
