//! What is common to all watchers of a server.

use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::status::{ListenerFacts, Monitor};

/// Streams at a time; each further caller is to ask for `/v1/status` now and then.
pub(in crate::serve) const STREAMS: usize = 16;

/// Tells where the server listens now, and what may be done there with these stores.
type Listeners = Box<dyn Fn(&[&str]) -> Vec<ListenerFacts> + Send + Sync>;

pub(in crate::serve) struct Watched {
    monitor: OnceLock<Monitor>,
    listeners: OnceLock<Listeners>,
    streams: Arc<Semaphore>,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            monitor: OnceLock::new(),
            listeners: OnceLock::new(),
            streams: Arc::new(Semaphore::new(STREAMS)),
        }
    }
}

impl Watched {
    /// Says how the listeners are told of. Only the first call counts.
    pub(in crate::serve) fn listening(
        &self,
        listeners: impl Fn(&[&str]) -> Vec<ListenerFacts> + Send + Sync + 'static,
    ) {
        let _ = self.listeners.set(Box::new(listeners));
    }

    /// The listeners, and what may be done there with these stores.
    pub(in crate::serve) fn listeners(&self, stores: &[&str]) -> Vec<ListenerFacts> {
        self.listeners.get().map(|listeners| listeners(stores)).unwrap_or_default()
    }

    /// The one monitor. It is made the first time, once the stores are there.
    pub(in crate::serve) fn monitor(&self, make: impl FnOnce() -> Monitor) -> &Monitor {
        self.monitor.get_or_init(make)
    }

    /// The right to one more stream.
    pub(in crate::serve) fn stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }
}
