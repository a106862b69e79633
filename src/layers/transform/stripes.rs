//! What keeps a rewrite from undoing a write.
//!
//! A rewrite reads an entry and writes it again, and the contract has no compare-and-swap. So writers
//! share the locks of their keys, and a rewrite holds the locks of a few keys alone while it looks at
//! them once more and writes. This is the one lock of the crate that is held across a write below; with
//! no rewrite under way nobody ever waits for it.
//!
//! A run of a bulk load may touch any key and take hours, and what waits for a lock makes those wait who
//! come after. So runs hold no locks: they are counted, and a rewrite waits until there is none.
//!
//! A write whose outcome is unknown (dropped, timed out, unavailable) may arrive below later, after its
//! lock is gone. Its keys count as unsettled from then on, and a rewrite leaves them alone.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, watch};

use crate::error::{ErrorKind, Result, Retry};

/// Few enough to be small, many enough that a step of a rewrite stops few writers.
const STRIPES: usize = 256;

pub(super) struct Stripes {
    stripes: Vec<Stripe>,
    /// How many runs are under way.
    runs: watch::Sender<usize>,
}

#[derive(Default)]
struct Stripe {
    lock: RwLock<()>,
    unsettled: AtomicBool,
}

impl Default for Stripes {
    fn default() -> Self {
        let stripes = (0..STRIPES).map(|_| Stripe::default()).collect();
        Self { stripes, runs: watch::Sender::new(0) }
    }
}

impl Stripes {
    /// The stripes of keys, in the one order in which everybody locks them: that rules out deadlocks.
    pub(super) fn of<'a>(keys: impl Iterator<Item = &'a Bytes>) -> Vec<usize> {
        let mut stripes: Vec<usize> = keys.map(|key| stripe(key)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        stripes
    }

    /// Claims stripes for a write.
    pub(super) async fn share(&self, of: Vec<usize>) -> Claim<'_> {
        let mut claim = Claim { claimed: Vec::with_capacity(of.len()), settled: false };
        for stripe in of.iter().filter_map(|at| self.stripes.get(*at)) {
            claim.claimed.push((stripe, stripe.lock.read().await));
        }
        claim
    }

    /// Begins a run: the rewrites that look at entries right now finish first, others wait for its end.
    pub(super) async fn begin_run(&self) -> Run<'_> {
        self.runs.send_modify(|runs| *runs += 1);
        // Until its first entry nothing can arrive late.
        let mut run = Run { of: self, settled: true };
        for stripe in &self.stripes {
            drop(stripe.lock.read().await);
        }
        run.settled = false;
        run
    }

    /// Waits for the runs, and for the writes of stripes, and keeps new writes out.
    pub(super) async fn exclude(&self, of: &[usize]) -> Vec<RwLockWriteGuard<'_, ()>> {
        let mut runs = self.runs.subscribe();
        loop {
            // An error would mean that the sender is gone, which is here.
            let _ = runs.wait_for(|runs| *runs == 0).await;
            let mut guards = Vec::with_capacity(of.len());
            for stripe in of.iter().filter_map(|at| self.stripes.get(*at)) {
                guards.push(stripe.lock.write().await);
            }
            // A run that began meanwhile waits for these locks before its first entry.
            if *self.runs.borrow() == 0 {
                return guards;
            }
        }
    }

    /// Whether a write of the key may still be on its way.
    pub(super) fn is_unsettled(&self, key: &[u8]) -> bool {
        self.stripes.get(stripe(key)).is_none_or(|stripe| stripe.unsettled.load(Ordering::Acquire))
    }
}

fn stripe(key: &[u8]) -> usize {
    crc32fast::hash(key) as usize % STRIPES
}

/// A write under way.
pub(super) struct Claim<'a> {
    claimed: Vec<(&'a Stripe, RwLockReadGuard<'a, ()>)>,
    settled: bool,
}

impl Claim<'_> {
    /// The write has returned.
    pub(super) fn settled_by<R>(mut self, result: Result<R>) -> Result<R> {
        self.settled = is_settled(&result);
        result
    }
}

/// Whether nothing of a write that ended like this can arrive later.
fn is_settled<R>(result: &Result<R>) -> bool {
    result.as_ref().err().is_none_or(|error| {
        use ErrorKind::{Internal, Timeout, Unavailable};
        // What was tried again may still be on its way from before.
        error.retry() != Retry::GaveUp && !matches!(error.kind(), Internal | Timeout | Unavailable)
    })
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.settled {
            for (stripe, _) in &self.claimed {
                stripe.unsettled.store(true, Ordering::Release);
            }
        }
    }
}

/// A run under way.
pub(super) struct Run<'a> {
    of: &'a Stripes,
    settled: bool,
}

impl Run<'_> {
    /// The run has ended.
    pub(super) fn settled_by<R>(mut self, result: Result<R>) -> Result<R> {
        self.settled = is_settled(&result);
        result
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if !self.settled {
            for stripe in &self.of.stripes {
                stripe.unsettled.store(true, Ordering::Release);
            }
        }
        self.of.runs.send_modify(|runs| *runs -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn a_refused_write_is_settled_unless_it_was_tried_before() {
        let refused = Error::new(ErrorKind::Access, "read-only");
        for (error, unsettled) in
            [(refused.clone(), false), (refused.with_retry(Retry::GaveUp), true)]
        {
            let stripes = Stripes::default();
            let key = Bytes::from("k");
            let claim = stripes.share(Stripes::of([&key].into_iter())).await;
            claim.settled_by::<()>(Err(error)).unwrap_err();
            assert_eq!(stripes.is_unsettled(&key), unsettled);
        }
    }
}
