//! Deadlines that mostly do not come: moved often, and armed rarely.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::clock::Clock;

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) struct Alarm {
    clock: Arc<dyn Clock>,
    /// When what is waited for began.
    since: Option<Duration>,
    armed: Option<(Duration, Sleep)>,
}

impl Alarm {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, since: None, armed: None }
    }

    /// What was waited for has come.
    pub(super) fn reset(&mut self) {
        self.since = None;
    }

    /// Whether something is waited for.
    pub(super) fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// What is waited for began then.
    pub(super) fn begin_at(&mut self, moment: Duration) {
        self.since = Some(moment);
    }

    /// Ready once that much time has passed since the first call after a reset.
    pub(super) fn poll_after(&mut self, cx: &mut Context<'_>, span: Duration) -> Poll<()> {
        let now = self.clock.coarse();
        let due = *self.since.get_or_insert(now) + span;
        self.poll_at(cx, due, now)
    }

    fn poll_at(&mut self, cx: &mut Context<'_>, due: Duration, mut now: Duration) -> Poll<()> {
        loop {
            if now >= due {
                return Poll::Ready(());
            }
            // One that is armed for an earlier moment rings, and is then armed again.
            if self.armed.as_ref().is_none_or(|(at, _)| *at > due) {
                let clock = Arc::clone(&self.clock);
                let span = due - now;
                self.armed = Some((due, Box::pin(async move { clock.sleep(span).await })));
            }
            if let Some((_, sleep)) = &mut self.armed {
                ready!(sleep.as_mut().poll(cx));
                self.armed = None;
            }
            now = self.clock.coarse();
        }
    }
}
