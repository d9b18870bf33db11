//! A timer for waits that nearly always end early.
//!
//! A timer per wait would be set and taken back for each request. This one stays set from wait to wait: moved to a later moment it
//! rings at the earlier one, finds that it is not time yet, and is set anew then. So the usual wait costs a comparison.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};

/// See the module's text. Needs a runtime with time.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready at `due` or soon after; until then the task is woken at `due`, and perhaps before.
    #[inline]
    pub fn poll(&mut self, due: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test]
    async fn it_rings_when_it_is_due_however_it_was_set_before() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut alarm = Alarm::default();
        for due in [5_000, 90_000, 20, 70_000, 30] {
            let looks = poll_fn(|context| Poll::Ready(alarm.poll(at(due), context))).await;
            assert!(looks.is_pending());
        }
        // It is still set to 20.
        poll_fn(|context| alarm.poll(at(60), context)).await;
        assert!(at(60) <= Instant::now());
        poll_fn(|context| alarm.poll(at(10), context)).await;
        let later = Instant::now() + Duration::from_millis(20);
        poll_fn(|context| alarm.poll(later, context)).await;
        assert!(later <= Instant::now());
    }
}
