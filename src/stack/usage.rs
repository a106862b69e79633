//! How much a store holds, as gauges.
//!
//! It is asked for where somebody looks at the metrics, and after that look: a scrape never waits for a store. Each
//! store is asked at most once a minute, and for at most a hundredth of the time; one at a time, so that a process with
//! many stores does not ask all of them at once.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::error::ErrorKind;
use crate::store::Store;
use crate::telemetry::{Gauge, Labels, looked, names};
use crate::types::Usage;

/// The shortest time between two questions to a store.
const PERIOD: Duration = Duration::from_secs(60);
/// A store that takes long to answer is asked as much less often.
const PART: u32 = 100;
/// The longest that an answer is waited for: another store wants to be asked.
const LONGEST: Duration = Duration::from_secs(10);

static TURN: Semaphore = Semaphore::const_new(1);

pub(super) struct Gauges {
    memory: Gauge,
    stored: Gauge,
    entries: Gauge,
}

impl Gauges {
    pub(super) fn new(labels: &Labels) -> Self {
        let bytes = |place| labels.gauge(names::STORE_BYTES, &[("place", place)]);
        Self {
            memory: bytes("memory"),
            stored: bytes("stored"),
            entries: labels.gauge(names::STORE_ENTRIES, &[]),
        }
    }

    fn show(&self, usage: Usage) {
        let Usage { entries, memory_bytes, stored_bytes } = usage;
        for (gauge, told) in
            [(&self.memory, memory_bytes), (&self.stored, stored_bytes), (&self.entries, entries)]
        {
            gauge.set(i64::try_from(told.unwrap_or(0)).unwrap_or(i64::MAX));
        }
    }
}

/// Asks the store until this is dropped.
pub(super) struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watch {
    /// `None` outside of a runtime.
    pub(super) fn of(
        store: &Arc<dyn Store>,
        labels: &Labels,
        clock: &Arc<dyn Clock>,
    ) -> Option<Self> {
        let runtime = Handle::try_current().ok()?;
        let watch = watch(Arc::downgrade(store), Gauges::new(labels), Arc::clone(clock));
        Some(Self(runtime.spawn(watch)))
    }
}

async fn watch(store: Weak<dyn Store>, gauges: Gauges, clock: Arc<dyn Clock>) {
    let mut next = Duration::ZERO;
    loop {
        looked().await;
        if clock.monotonic() < next {
            continue;
        }
        // The semaphore is never closed.
        let _turn = TURN.acquire().await;
        let Some(store) = store.upgrade() else { return };
        let asked = clock.monotonic();
        let told = tokio::select! {
            told = store.usage() => Some(told),
            () = clock.sleep(LONGEST) => None,
        };
        match told {
            Some(Ok(usage)) => gauges.show(usage),
            Some(Err(error)) if error.kind() == ErrorKind::Closed => return,
            // What was told last stays; the error is counted as others are.
            Some(Err(_)) | None => {}
        }
        let took = clock.monotonic().saturating_sub(asked);
        next = asked + PERIOD.max(took.saturating_mul(PART));
    }
}
