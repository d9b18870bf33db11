//! Tasks that do nothing but wait for a time, and a clock that jumps from one such time to the next. Equal schedules run alike.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The clock and the tasks that wait for it.
#[derive(Default)]
pub(super) struct Clock {
    now_ms: Cell<u64>,
    timers: RefCell<BTreeMap<(u64, usize), usize>>,
    asked: Cell<usize>,
    current: Cell<usize>,
    spawned: RefCell<Vec<Task>>,
}

impl Clock {
    pub(super) fn now(&self) -> u64 {
        self.now_ms.get()
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.spawned.borrow_mut().push(Box::pin(task));
    }

    pub(super) async fn sleep(&self, ms: u64) {
        let at = self.now() + ms;
        let mut asked = false;
        std::future::poll_fn(|_| {
            if self.now() >= at {
                return Poll::Ready(());
            }
            if !asked {
                asked = true;
                self.asked.set(self.asked.get() + 1);
                self.timers
                    .borrow_mut()
                    .insert((at, self.asked.get()), self.current.get());
            }
            Poll::Pending
        })
        .await;
    }

    /// Runs until all tasks have ended.
    pub(super) fn run(&self) {
        let mut tasks: BTreeMap<usize, Task> = BTreeMap::new();
        let mut count = 0;
        let mut context = Context::from_waker(Waker::noop());
        let mut poll = |id: usize, tasks: &mut BTreeMap<usize, Task>| {
            self.current.set(id);
            let done = tasks
                .get_mut(&id)
                .is_some_and(|task| task.as_mut().poll(&mut context).is_ready());
            if done {
                tasks.remove(&id);
            }
        };
        loop {
            let spawned: Vec<Task> = self.spawned.borrow_mut().drain(..).collect();
            if !spawned.is_empty() {
                for task in spawned {
                    count += 1;
                    tasks.insert(count, task);
                    poll(count, &mut tasks);
                }
                continue;
            }
            let first = self.timers.borrow_mut().pop_first();
            let Some(((at, _), id)) = first else { break };
            self.now_ms.set(at);
            landfall_ingress_balance::clock::set(at + 1);
            poll(id, &mut tasks);
        }
        assert!(tasks.is_empty(), "a task waits for something else than the clock");
    }
}
