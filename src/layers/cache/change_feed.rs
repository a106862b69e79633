//! The change feed of a cache: whether the task that follows the store below runs, and the subscribers of this cache.

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use crate::error::{Error, Result};
use crate::layer::Context;
use crate::store::Change;
use crate::telemetry::{Counter, Gauge, Labels, names};

/// Changes that a subscriber may be behind by. One that is further behind is told that any key
/// may have changed.
const BEHIND: usize = 1024;

/// How the last attempt to subscribe ended. `None`: none has ended yet.
type Attempt = Option<Result<()>>;

/// How one cache follows the feed.
#[derive(Debug)]
pub(super) struct ChangeFeed {
    /// `true` tells the task to end. The task holds the one receiver.
    pub(super) stop: watch::Sender<bool>,
    pub(super) starting: Mutex<()>,
    pub(super) attempt: watch::Sender<Attempt>,
    /// The subscribers of this cache. Gone once it is closed.
    pub(super) outer: Mutex<Option<broadcast::Sender<Change>>>,
    pub(super) seed: u64,
    pub(super) labels: Labels,
    pub(super) active: Gauge,
    pub(super) foreign: Counter,
    pub(super) all: Counter,
    pub(super) lost: Counter,
}

impl ChangeFeed {
    pub(super) fn new(context: &Context) -> Self {
        let labels = &context.labels;
        let cause = |cause| labels.counter(names::CACHE_INVALIDATIONS, &[("cause", cause)]);
        Self {
            stop: watch::Sender::new(false),
            starting: Mutex::new(()),
            attempt: watch::Sender::new(None),
            outer: Mutex::new(Some(broadcast::Sender::new(BEHIND))),
            seed: context.seed,
            labels: labels.clone(),
            active: labels.gauge(names::CACHE_CHANGE_FEED_CONNECTED, &[]),
            foreign: cause("foreign"),
            all: cause("all"),
            lost: cause("lost"),
        }
    }

    /// Ends the task and waits until it has let go of its subscription.
    pub(super) async fn stop(&self) {
        {
            let _starting = self.starting.lock();
            self.stop.send_replace(true);
        }
        self.outer.lock().take();
        self.stop.closed().await;
        self.active.set(0);
    }

    /// Tells the subscribers of this cache.
    pub(super) fn tell(&self, change: Change) {
        if let Some(outer) = &*self.outer.lock() {
            // An error means that there is no subscriber.
            let _ = outer.send(change);
        }
    }

    pub(super) fn failed(&self, error: &Error) {
        self.labels.count_error(error);
        self.attempt.send_replace(Some(Err(error.clone())));
    }
}
