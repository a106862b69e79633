//! What is dirty: the newest operation of each key that the store below does not have yet.

use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use imbl::OrdMap;
use parking_lot::{RwLock, RwLockWriteGuard};

use crate::clock::Timestamp;
use crate::types::{Order, Scan, Value};

/// The newest operation of a key.
#[derive(Clone, Debug)]
pub(super) struct Dirty {
    /// `None`: the key was deleted.
    pub(super) value: Option<Value>,
    pub(super) sequence: u64,
    /// When the key became dirty, on the monotonic clock.
    pub(super) since: Duration,
}

impl Dirty {
    /// What a reader finds. The clock is read only for an entry that can expire. One that has expired hides what is below, as
    /// a delete does.
    pub(super) fn found(&self, now: impl FnOnce() -> Timestamp) -> Option<&Value> {
        self.value.as_ref().filter(|value| value.expires_at.is_none() || !value.is_expired(now()))
    }
}

/// All of them at one moment. A copy copies no entries.
#[derive(Clone, Default)]
pub(super) struct Frozen(OrdMap<Bytes, Dirty>);

impl Frozen {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Dirty> {
        self.0.get(key)
    }

    pub(super) fn insert(&mut self, key: Bytes, dirty: Dirty) {
        self.0.insert(key, dirty);
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.0.remove(key);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those in the range of a scan, in its order.
    pub(super) fn within(
        &self,
        scan: &Scan,
    ) -> Box<dyn Iterator<Item = (&Bytes, &Dirty)> + Send + '_> {
        let range = (scan.from.clone(), scan.to.clone());
        let range = self.0.range::<(Bound<Bytes>, Bound<Bytes>), Bytes>(range);
        match scan.order {
            Order::Forward => Box::new(range),
            Order::Reverse => Box::new(range.rev()),
        }
    }

    pub(super) fn touches(&self, scan: &Scan) -> bool {
        !self.0.is_empty() && !scan.is_empty() && self.within(scan).next().is_some()
    }
}

/// What readers look at first. It is changed under the lock of the state only, so a batch is there wholly or not at all.
#[derive(Default)]
pub(super) struct Overlay {
    /// So that a read of a clean store takes no lock.
    entries: AtomicUsize,
    map: RwLock<Frozen>,
}

impl Overlay {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.load(Ordering::Acquire) == 0
    }

    pub(super) fn entries(&self) -> usize {
        self.entries.load(Ordering::Acquire)
    }

    /// Looks at the newest operation of a key.
    pub(super) fn look<T>(&self, key: &[u8], look: impl FnOnce(&Dirty) -> T) -> Option<T> {
        if self.is_empty() { None } else { self.map.read().get(key).map(look) }
    }

    /// Looks at this moment.
    pub(super) fn with<T>(&self, look: impl FnOnce(&Frozen) -> T) -> T {
        look(&self.map.read())
    }

    pub(super) fn freeze(&self) -> Frozen {
        self.map.read().clone()
    }

    /// Changes it. Readers see all of the change at once.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Frozen) -> T) -> T {
        let mut map: RwLockWriteGuard<'_, Frozen> = self.map.write();
        let done = change(&mut map);
        self.entries.store(map.len(), Ordering::Release);
        done
    }
}
