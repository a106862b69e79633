//! The backends that several stores of a config use, while they are open.
//!
//! Each is opened with its first store and closed with its last one. Stores with the same part of it, which
//! differ in their prefix, have one store of the backend in common.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;

use crate::error::{ErrorKind, Result};
use crate::layer::Slot;
use crate::store::Store;

/// The shared backends of a config by name. A clone is the same, as is that of a cloned config.
#[derive(Clone, Default)]
pub(crate) struct SharedBackends(Arc<Mutex<BTreeMap<String, Arc<SharedBackend>>>>);

impl SharedBackends {
    pub(crate) fn get(&self, name: &str) -> Arc<SharedBackend> {
        Arc::clone(self.0.lock().entry(name.to_owned()).or_default())
    }
}

/// Names only.
impl fmt::Debug for SharedBackends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.lock().keys()).finish()
    }
}

/// One shared backend.
#[derive(Default)]
pub(crate) struct SharedBackend {
    /// Opening and closing take turns, so that a part that is being closed is not opened meanwhile.
    parts: Turn<BTreeMap<String, Weak<Part>>>,
    slot: Slot,
}

/// A part that is open.
struct Part {
    store: Arc<dyn Store>,
    /// Stores that have not closed it.
    users: Mutex<usize>,
}

impl SharedBackend {
    /// What its parts have in common.
    pub(crate) fn slot(&self) -> Slot {
        Arc::clone(&self.slot)
    }

    /// The part of that name, which another store has opened already, or `open` gives.
    pub(crate) async fn open(
        self: Arc<Self>,
        part: &str,
        open: impl Future<Output = Result<Arc<dyn Store>>>,
    ) -> Result<Share> {
        let mut parts = self.parts.lock().await;
        if let Some(there) = parts.get(part).and_then(Weak::upgrade) {
            if there.join() {
                drop(parts);
                return Ok(Share { backend: self, part: there, state: Mutex::new(State::Open) });
            }
            // Its last user did not wait for the end of closing. What failed then does not concern the next user.
            let _ = there.store.close().await;
        }
        let opened = Arc::new(Part { store: open.await?, users: Mutex::new(1) });
        parts.insert(part.to_owned(), Arc::downgrade(&opened));
        drop(parts);
        Ok(Share { backend: self, part: opened, state: Mutex::new(State::Open) })
    }
}

impl Part {
    /// One user more. `false`: there is none any more.
    fn join(&self) -> bool {
        let mut users = self.users.lock();
        if *users == 0 {
            return false;
        }
        *users += 1;
        true
    }

    /// One user less. Whether it was the last one.
    fn leave(&self) -> bool {
        let mut users = self.users.lock();
        *users -= 1;
        *users == 0
    }
}

/// One store's share in a part of a backend.
pub(crate) struct Share {
    backend: Arc<SharedBackend>,
    part: Arc<Part>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Closing has begun, and may have been given up.
    Closing {
        last: bool,
    },
    Closed,
}

impl Share {
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.part.store
    }

    /// Closes the part with its last user; flushes it for each other one.
    pub(crate) async fn close(&self) -> Result<()> {
        let _turn = self.backend.parts.lock().await;
        let last = {
            let mut state = self.state.lock();
            match *state {
                State::Closed => return Ok(()),
                State::Closing { last } => last,
                State::Open => {
                    let last = self.part.leave();
                    *state = State::Closing { last };
                    last
                }
            }
        };
        let closed = match last {
            true => self.store().close().await,
            // Given up before, and the last user has closed the part since, which covers this one too.
            false => match self.store().flush().await {
                Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
                flushed => flushed,
            },
        };
        *self.state.lock() = State::Closed;
        closed
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if *self.state.get_mut() == State::Open {
            self.part.leave();
        }
    }
}
