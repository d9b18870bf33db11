//! Runs work once for each key: the first caller does it, others wait until it is done.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Underway,
    Done,
}

/// The keys whose work is under way or done.
pub struct OncePerKey<K> {
    states: Mutex<BTreeMap<K, State>>,
    changed: Condvar,
}

impl<K> Default for OncePerKey<K> {
    fn default() -> Self {
        Self {
            states: Mutex::default(),
            changed: Condvar::new(),
        }
    }
}

impl<K: Ord + Clone> OncePerKey<K> {
    /// Does the work, unless it is done for this key. Blocks while another thread does it; when that thread fails, this one tries.
    pub fn run<E>(&self, key: &K, work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match states.get(key) {
                Some(State::Done) => return Ok(()),
                Some(State::Underway) => {
                    states = self.changed.wait(states).unwrap_or_else(PoisonError::into_inner);
                }
                None => break,
            }
        }
        states.insert(key.clone(), State::Underway);
        drop(states);
        let result = work();
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => states.insert(key.clone(), State::Done),
            Err(_) => states.remove(key),
        };
        self.changed.notify_all();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn the_second_caller_waits_until_the_first_is_done() {
        let once: OncePerKey<&str> = OncePerKey::default();
        let done = AtomicUsize::new(0);
        let (began, first_began) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let (done, once) = (&done, &once);
            scope.spawn(move || {
                let work = || {
                    began.send(()).unwrap();
                    released.recv().unwrap();
                    done.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, ()>(())
                };
                once.run(&"a", work).unwrap();
            });
            first_began.recv().unwrap();
            let second = scope.spawn(move || {
                once.run::<()>(&"a", || panic!("it is done once")).unwrap();
                done.load(Ordering::SeqCst)
            });
            once.run::<()>(&"b", || Ok(())).unwrap();
            release.send(()).unwrap();
            assert_eq!(second.join().unwrap(), 1, "it waited for the first");
        });
    }

    #[test]
    fn failed_work_is_retried() {
        let once = OncePerKey::default();
        assert_eq!(once.run(&1, || Err("lost")), Err("lost"));
        let mut again = false;
        let work = || {
            again = true;
            Ok::<_, &str>(())
        };
        once.run(&1, work).unwrap();
        assert!(again);
    }
}
