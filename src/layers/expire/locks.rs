//! Keeps the sweeper and the writers of a key apart.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// So many that the keys the sweeper holds at a time are a small part of all.
const STRIPES: usize = 1024;

/// Locks by the hash of the key: writers share one, the sweeper has it alone.
///
/// The sweeper only ever tries. If it waited for a writer that hangs, all other writers of the stripe
/// would queue behind it.
pub(super) struct KeyLocks {
    stripes: Box<[RwLock<()>]>,
    hasher: RandomState,
}

impl KeyLocks {
    pub(super) fn new() -> Self {
        let stripes = (0..STRIPES).map(|_| RwLock::new(())).collect();
        Self { stripes, hasher: RandomState::new() }
    }

    /// For a writer: waits while the sweeper holds one of the keys.
    pub(super) async fn share<'a>(
        &self,
        keys: impl Iterator<Item = &'a Bytes>,
    ) -> Vec<RwLockReadGuard<'_, ()>> {
        let mut stripes: Vec<usize> = keys.map(|key| self.stripe(key)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        let mut held = Vec::with_capacity(stripes.len());
        for stripe in stripes.into_iter().filter_map(|stripe| self.stripes.get(stripe)) {
            held.push(stripe.read().await);
        }
        held
    }

    /// For a writer of any keys.
    pub(super) async fn share_all(&self) -> Vec<RwLockReadGuard<'_, ()>> {
        let mut held = Vec::with_capacity(STRIPES);
        for stripe in &self.stripes {
            held.push(stripe.read().await);
        }
        held
    }

    /// For the sweeper: those of the keys that no writer holds.
    pub(super) fn try_alone(&self, keys: &[Bytes]) -> (Vec<Bytes>, Vec<RwLockWriteGuard<'_, ()>>) {
        let mut by_stripe = BTreeMap::<usize, Vec<Bytes>>::new();
        for key in keys {
            by_stripe.entry(self.stripe(key)).or_default().push(key.clone());
        }
        let (mut free, mut held) = (Vec::new(), Vec::new());
        for (stripe, keys) in by_stripe {
            if let Some(Ok(guard)) = self.stripes.get(stripe).map(RwLock::try_write) {
                free.extend(keys);
                held.push(guard);
            }
        }
        (free, held)
    }

    fn stripe(&self, key: &Bytes) -> usize {
        // The remainder is below STRIPES.
        (self.hasher.hash_one(key) % STRIPES as u64) as usize
    }
}
