//! What is kept for a key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::coherence::Epoch;
use super::coarse_time::CoarseTime;
use crate::error::Error;
use crate::types::Value;

#[derive(Clone, Debug)]
pub(in crate::layers::cache) enum Answer {
    Value(Value),
    /// There is no such key.
    Missing,
    /// The last load failed.
    Failed(Error),
}

#[derive(Clone, Debug)]
pub(in crate::layers::cache) struct Cached {
    pub(in crate::layers::cache) answer: Answer,
    /// The end of its ttl. What may be served behind it follows from the settings.
    pub(in crate::layers::cache) until: CoarseTime,
    /// In which its load began.
    pub(in crate::layers::cache) epoch: Epoch,
    /// What few entries have.
    pub(in crate::layers::cache) extra: Option<Arc<Extra>>,
}

/// What an entry has in an allocation of its own.
#[derive(Debug)]
pub(in crate::layers::cache) struct Extra {
    read: AtomicU64,
    /// A load failed, and until then no other begins while this may be served.
    pub(in crate::layers::cache) held_until: CoarseTime,
}

/// What an [`Extra`] takes, and what the error of a failed load does.
const EXTRA_BYTES: u64 = 48;
const ERROR_BYTES: u64 = 256;

impl Extra {
    pub(in crate::layers::cache) fn new(read: CoarseTime, held_until: CoarseTime) -> Arc<Self> {
        Arc::new(Self { read: AtomicU64::new(read.0), held_until })
    }

    /// When it was last read.
    pub(in crate::layers::cache) fn read(&self) -> CoarseTime {
        CoarseTime(self.read.load(Ordering::Relaxed))
    }

    /// It is read. Written once in a millisecond: all readers of the key share it.
    pub(in crate::layers::cache) fn touch(&self, now: CoarseTime) {
        if self.read() < now {
            self.read.store(now.0, Ordering::Relaxed);
        }
    }
}

impl Cached {
    pub(in crate::layers::cache) fn value(&self) -> Option<&Value> {
        match &self.answer {
            Answer::Value(value) => Some(value),
            Answer::Missing | Answer::Failed(_) => None,
        }
    }

    /// In addition to its key and what every entry has.
    pub(in crate::layers::cache) fn bytes(&self) -> u64 {
        let answer = match &self.answer {
            Answer::Value(value) => value.bytes.len() as u64,
            Answer::Missing => 0,
            Answer::Failed(_) => ERROR_BYTES,
        };
        answer + self.extra.as_ref().map_or(0, |_| EXTRA_BYTES)
    }

    /// Whether this is the entry that was looked at, and not a later one.
    pub(in crate::layers::cache) fn is(&self, other: &Self) -> bool {
        let extra = |cached: &Self| cached.extra.as_ref().map(Arc::as_ptr);
        let value = |cached: &Self| {
            let value = cached.value();
            value.map(|value| (value.bytes.as_ptr(), value.bytes.len(), value.expires_at))
        };
        (self.until, self.epoch) == (other.until, other.epoch)
            && extra(self) == extra(other)
            && value(self) == value(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry is counted with what it takes; `tests/cache_memory.rs` measures that.
    #[test]
    fn an_entry_is_no_larger_than_a_value_with_two_numbers_and_a_pointer() {
        assert_eq!(size_of::<Cached>(), size_of::<Value>() + 24);
        assert!(size_of::<Extra>() + 32 <= EXTRA_BYTES as usize, "with the head of an `Arc`");
    }
}
