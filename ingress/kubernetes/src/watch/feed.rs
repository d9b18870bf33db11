//! What one kind's stream of events means for a store: single changes, and a list that is read again beside the one in use.
//!
//! ```text
//! Init ──> shadow fills (InitApply) ──InitDone──> Replace: whoever is not in the shadow is gone
//! Apply, Delete ──> Put, Remove at once
//! ```
//!
//! INVARIANT: while a list is read nothing is taken away, so what is served stays whole when the API is away or forgets.

use kube::runtime::watcher::Event;

/// What to do with the store.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<K, V> {
    /// Nothing yet.
    Wait,
    /// One object is new or changed.
    Put(K, V),
    /// One object is gone.
    Remove(K),
    /// These are all there are.
    Replace(Vec<(K, V)>),
}

/// The state of one stream.
#[derive(Debug)]
pub struct Feed<K, V> {
    shadow: Vec<(K, V)>,
    whole: bool,
}

impl<K, V> Default for Feed<K, V> {
    fn default() -> Self {
        Self {
            shadow: Vec::new(),
            whole: false,
        }
    }
}

impl<K, V> Feed<K, V> {
    /// The list was read whole at least once.
    pub fn whole(&self) -> bool {
        self.whole
    }

    /// Takes the next event.
    pub fn take(&mut self, event: Event<(K, V)>) -> Step<K, V> {
        match event {
            // A list that broke off begins again here.
            Event::Init => {
                self.shadow = Vec::new();
                Step::Wait
            }
            Event::InitApply(object) => {
                self.shadow.push(object);
                Step::Wait
            }
            Event::InitDone => {
                self.whole = true;
                Step::Replace(std::mem::take(&mut self.shadow))
            }
            Event::Apply((key, object)) => Step::Put(key, object),
            Event::Delete((key, _)) => Step::Remove(key),
        }
    }
}
