//! What one kind's stream of events means for a store: single changes, and a list that is read again beside the one in use.
//!
//! ```text
//! Init ──> shadow fills (InitApply) ──InitDone──> Replace: whoever is not in the shadow is gone
//! Apply, Delete ──> Put, Remove at once
//! ```
//!
//! INVARIANT: while a list is read nothing is taken away, so what is served stays whole when the API is away or forgets.

use kube::runtime::watcher::Event;

/// Namespace and name.
pub type Key = (Box<str>, Box<str>);

/// What to do with the store.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<V> {
    /// Nothing yet.
    Wait,
    /// One object is new or changed.
    Put(Key, V),
    /// One object is gone.
    Remove(Key),
    /// These are all there are.
    Replace(Vec<(Key, V)>),
}

/// The state of one stream.
#[derive(Debug)]
pub struct Feed<V> {
    shadow: Vec<(Key, V)>,
    whole: bool,
}

impl<V> Default for Feed<V> {
    fn default() -> Self {
        Self {
            shadow: Vec::new(),
            whole: false,
        }
    }
}

impl<V> Feed<V> {
    /// The list was read whole at least once.
    pub fn whole(&self) -> bool {
        self.whole
    }

    /// Takes the next event.
    pub fn take(&mut self, event: Event<(Key, V)>) -> Step<V> {
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
