//! Dropping what is kept, because somebody says that it is old.

use bytes::Bytes;

use super::coherence::Invalidated;
use super::state::{Cache, Shared};
use crate::error::Result;
use crate::store::{Change, Store};
use crate::types::Scope;

impl<S: Store> Cache<S> {
    /// First below: what is dropped here first, a cache below would give again. Then the subscribers of this
    /// cache, which they would ask.
    pub(super) async fn drop_below_and_here(&self, scope: Scope) -> Result<()> {
        let shared = &self.0;
        let dropped_below = shared.inner.invalidate(scope.clone()).await;
        shared.invalidations.count(&scope);
        let change = match scope {
            Scope::Keys(keys) => {
                shared.drop_keys(&keys);
                Change::Keys(keys)
            }
            Scope::Prefix(prefix) => {
                shared.drop_prefix(&prefix);
                Change::Prefix(prefix)
            }
            Scope::All => {
                shared.forget();
                // Not `All`, which ends a `Lost`: the connection may have been lost meanwhile.
                Change::Prefix(Bytes::new())
            }
        };
        if let Some(change_feed) = &shared.change_feed {
            change_feed.tell(change);
        }
        dropped_below
    }
}

impl<S> Shared<S> {
    pub(super) fn drop_keys(&self, keys: &[Bytes]) {
        // As a write that begins and ends at this moment.
        let writing = self.coherence.begin_write(keys.iter().map(Bytes::as_ref));
        keys.iter().for_each(|key| self.remove(key));
        writing.settle();
    }

    pub(super) fn drop_prefix(&self, prefix: &[u8]) {
        match self.coherence.epochs.invalidate_prefix(prefix) {
            Invalidated::Done => self.leave_nothing_on_disk(),
            Invalidated::Everything => self.clear(),
            Invalidated::Full(prefixes) => {
                // What a load may still keep, as it looked at the prefixes before they were full, is there then.
                self.coherence.wait_for_keepers();
                self.engine.remove_where(|key, began| prefixes.covers(began, key));
                // It does not know its keys. Behind the memory, which may evict some of them until then.
                self.clear_disk();
                self.coherence.epochs.swept(&prefixes);
            }
        }
    }
}
