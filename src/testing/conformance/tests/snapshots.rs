//! Snapshots that do not stay as they are.

use std::sync::Arc;

use crate::backends::Memory;
use crate::clock::{Clock, ManualClock};
use crate::forward;
use crate::reply::Reply;
use crate::store::Read;
use crate::types::Value;

/// A snapshot in which time goes on.
pub(super) struct Expiring {
    pub(super) frozen: Arc<dyn Read>,
    pub(super) clock: ManualClock,
}

impl Read for Expiring {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        self.frozen.get(key).map(|value| value.filter(|value| !value.is_expired(self.clock.now())))
    }

    forward!(self => self.frozen; get_many, scan);
}

/// A snapshot that turns into the store when that is compacted.
pub(super) struct Mortal {
    pub(super) frozen: Arc<dyn Read>,
    pub(super) memory: Arc<Memory>,
    pub(super) lock: Arc<tokio::sync::Mutex<()>>,
}

impl Mortal {
    fn read(&self) -> &dyn Read {
        if self.lock.try_lock().is_ok() { &*self.frozen } else { &*self.memory }
    }
}

impl Read for Mortal {
    forward!(self => self.read(); get, get_many, scan);
}
