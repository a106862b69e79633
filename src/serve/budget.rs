//! How much memory bodies may hold: those of requests while they are read, those of answers until they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;
use bytes::Bytes;
use parking_lot::Mutex;

use super::counters::Refusal;
use super::problem::Problem;

/// What is held of the memory, by all together.
#[derive(Default)]
pub(in crate::serve) struct Budget(AtomicU64);

/// What one request or one answer holds of it, until it is dropped.
pub(in crate::serve) struct Share {
    budget: Arc<Budget>,
    most: u64,
    /// Changed under its lock together with the sum, which so has what this one holds and what others hold, never half of a change.
    held: Mutex<u64>,
}

impl Budget {
    /// A share that is empty at first. All of them hold no more than `most`, unless one holds all of it.
    pub(in crate::serve) fn share(self: &Arc<Self>, most: u64) -> Share {
        Share { budget: Arc::clone(self), most, held: Mutex::new(0) }
    }
}

impl Share {
    /// Takes so many bytes more, if there is room for them, or nothing else is held.
    pub(in crate::serve) fn take(&self, bytes: u64) -> bool {
        let mut own = self.held.lock();
        let more = |held: u64| {
            let all = held.saturating_add(bytes);
            (all <= self.most || held == *own).then_some(all)
        };
        let taken = self.budget.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if taken {
            *own += bytes;
        }
        taken
    }

    /// Takes what one part of an answer needs, until that is dropped.
    pub(in crate::serve) fn part(self: &Arc<Self>, bytes: usize) -> Result<Part, Problem> {
        let bytes = bytes as u64;
        if !self.take(bytes) {
            return Err(crowded());
        }
        Ok(Part { share: Arc::clone(self), bytes })
    }

    /// These bytes, which count until nothing holds them any more: the last of them may be sent long after the body of
    /// the answer was dropped.
    pub(in crate::serve) fn keep(self, bytes: Bytes) -> Result<Bytes, Problem> {
        match self.take(bytes.len() as u64) {
            true => Ok(kept(bytes, self)),
            false => Err(crowded()),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(*self.held.get_mut(), Ordering::Relaxed);
    }
}

/// A part of what an answer holds, until it is dropped.
pub(in crate::serve) struct Part {
    share: Arc<Share>,
    bytes: u64,
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut held = self.share.held.lock();
        self.share.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
        *held -= self.bytes;
    }
}

/// Bytes with what is to be dropped with the last of them.
pub(in crate::serve) fn kept(bytes: impl Into<Bytes>, with: impl Send + 'static) -> Bytes {
    struct Kept<T>(Bytes, T);
    impl<T> AsRef<[u8]> for Kept<T> {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Kept(bytes.into(), with))
}

fn crowded() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "answers that their callers have not taken yet fill the memory for answers; ask again in a moment",
    )
    .turned_away(Refusal::Body)
    .retry_after(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_hold_no_more_than_there_is_and_give_it_back() {
        let budget = Arc::new(Budget::default());
        let (one, other) = (budget.share(100), Arc::new(budget.share(100)));
        assert!(one.take(60) && one.take(20));
        assert!(!other.take(21));
        let part = other.part(20).unwrap();
        assert!(other.part(1).is_err() && !one.take(1));
        drop(part);
        let whole = other.part(20).unwrap();
        drop((one, whole));
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_alone_has_room_for_whatever_it_is() {
        let budget = Arc::new(Budget::default());
        let share = Arc::new(budget.share(10));
        let (page, line) = (share.part(50).unwrap(), share.part(70).unwrap());
        assert!(!budget.share(10).take(1));
        drop((page, line));
        assert!(budget.share(10).take(11));
    }

    /// Another part of its own, which is just being dropped, is nobody else's.
    #[test]
    fn one_alone_has_room_while_parts_of_it_are_dropped() {
        let budget = Arc::new(Budget::default());
        let share = Arc::new(budget.share(10));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..100_000 {
                        assert!(share.part(50).is_ok(), "nothing else is held");
                    }
                });
            }
        });
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn bytes_count_until_the_last_of_them_is_gone() {
        let budget = Arc::new(Budget::default());
        let mut bytes = budget.share(10).keep(Bytes::from_static(b"12345678")).unwrap();
        let part = bytes.split_off(7);
        assert!(budget.share(10).keep(Bytes::from_static(b"123")).is_err());
        drop(bytes);
        assert_eq!(budget.0.load(Ordering::Relaxed), 8, "a part holds all of it");
        drop(part);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }
}
