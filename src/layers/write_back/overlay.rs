//! What is dirty: the newest operation of each key that the store below does not have yet.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use imbl::OrdMap;

use super::filter::Filter;
use super::sync::{AtomicUsize, FEWEST_SLOTS, Ordering, RwLock};
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
pub(super) struct Overlay {
    /// So that a read of a clean store takes no lock.
    entries: AtomicUsize,
    /// So that a read of a clean key takes none.
    filter: Filter,
    map: RwLock<Frozen>,
}

/// Bytes that may be dirty for each slot of the filter, and how many of those there are.
const SLOT_BYTES: u64 = 1 << 10;
const SLOTS: std::ops::RangeInclusive<u64> = FEWEST_SLOTS..=1 << 20;

impl Overlay {
    /// For so many bytes at most.
    pub(super) fn new(max_dirty: u64) -> Self {
        let slots = (max_dirty / SLOT_BYTES).clamp(*SLOTS.start(), *SLOTS.end());
        let filter = Filter::new(usize::try_from(slots).unwrap_or(1));
        Self { entries: AtomicUsize::new(0), filter, map: RwLock::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries() == 0
    }

    pub(super) fn entries(&self) -> usize {
        self.entries.load(Ordering::Acquire)
    }

    /// Whether a key may be dirty. `false`: it is not, or is being written right now.
    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        !self.is_empty() && self.filter.may_have(key)
    }

    /// Looks at the newest operation of a key.
    pub(super) fn look<T>(&self, key: &[u8], look: impl FnOnce(&Dirty) -> T) -> Option<T> {
        if self.may_have(key) { self.map.read().get(key).map(look) } else { None }
    }

    /// Looks at this moment.
    pub(super) fn with<T>(&self, look: impl FnOnce(&Frozen) -> T) -> T {
        look(&self.map.read())
    }

    pub(super) fn freeze(&self) -> Frozen {
        self.map.read().clone()
    }

    /// Changes it. Readers see all of the change at once.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Changing<'_>) -> T) -> T {
        let mut map = self.map.write();
        let done = change(&mut Changing { map: &mut map.0, filter: &self.filter });
        self.entries.store(map.0.len(), Ordering::Release);
        done
    }
}

/// A change that readers do not see yet.
pub(super) struct Changing<'a> {
    map: &'a mut OrdMap<Bytes, Dirty>,
    filter: &'a Filter,
}

impl Changing<'_> {
    /// The newest operation of a key. It stays dirty since when it was.
    pub(super) fn put(&mut self, key: &Bytes, value: Option<Value>, sequence: u64, now: Duration) {
        if let Some(dirty) = self.map.get_mut(key) {
            (dirty.value, dirty.sequence) = (value, sequence);
        } else {
            self.filter.add(key);
            self.map.insert(key.clone(), Dirty { value, sequence, since: now });
        }
    }

    /// The store below has an operation of a key. One that is newer stays.
    pub(super) fn flushed(&mut self, key: &Bytes, sequence: u64) {
        if self.map.get(key).is_some_and(|dirty| dirty.sequence == sequence) {
            self.map.remove(key);
            self.filter.remove(key);
        }
    }
}
