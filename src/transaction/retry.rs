//! Running a transaction again after a conflict.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use super::isolation::Isolation;
use super::optimistic::Transaction;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::store::Store;
use crate::types::Commit;
use crate::types::units::counted;

/// The pause after the first conflict, which doubles after each. Jitter adds up to as much again.
const MIN_DELAY: Duration = Duration::from_millis(1);
/// The longest pause, before jitter.
const MAX_DELAY: Duration = Duration::from_millis(250);
const ATTEMPTS: usize = 20;

/// How a transaction is run, and run again after a conflict. What [`StoreExt::transact`](crate::StoreExt::transact)
/// does, with settings.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use tierstack::backends::Memory;
/// use tierstack::{Isolation, Read, StoreExt, Transact};
///
/// let store = Arc::new(Memory::new());
/// let patient = Transact::new(Isolation::Serializable).attempts(100);
/// patient
///     .run(&store, |mut tx| async move {
///         let count = tx.get(b"count").await?.map_or(0, |value| value.bytes.len());
///         tx.put("count", vec![b'x'; count + 1])?;
///         Ok((tx, ()))
///     })
///     .await?;
/// assert_eq!(store.get(b"count").await?, Some("x".into()));
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
pub struct Transact {
    isolation: Isolation,
    attempts: usize,
    clock: Arc<dyn Clock>,
    /// The seed of the next run's jitter: each has its own, or they would all come back at once.
    seed: AtomicU64,
}

impl Transact {
    /// Up to 20 attempts, with growing, jittered pauses of 1 ms to 250 ms between them.
    #[must_use]
    pub fn new(isolation: Isolation) -> Self {
        let seed = AtomicU64::new(RandomState::new().hash_one(()));
        Self { isolation, attempts: ATTEMPTS, clock: SystemClock::shared(), seed }
    }

    /// How often it is tried, the first time included; at least 1.
    #[must_use]
    pub fn attempts(mut self, attempts: usize) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The clock by which it pauses.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The seed of the pauses' jitter. Without one it differs from process to process.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = AtomicU64::new(seed);
        self
    }

    /// Begins a transaction, hands it to `body`, and commits what comes back. A commit that meets a
    /// [`Conflict`](ErrorKind::Conflict) begins again, with a new transaction. Gives what `body` gave with the
    /// transaction that was committed, and the commit.
    ///
    /// `body` runs once for each attempt, so it has no effects but those on its transaction. An error of its own
    /// ends the run, with nothing written.
    ///
    /// # Errors
    /// Those of [`begin`](crate::StoreExt::begin), of `body`, and of [`commit`](Transaction::commit), as they are. A
    /// commit with an [unknown outcome](Error::outcome) is not repeated: it may have taken effect. After the last
    /// attempt its `Conflict`, which then says [`GaveUp`](Retry::GaveUp).
    pub async fn run<S, T, F>(
        &self,
        store: &Arc<S>,
        mut body: impl FnMut(Transaction) -> F,
    ) -> Result<(T, Commit)>
    where
        S: Store + ?Sized,
        F: Future<Output = Result<(Transaction, T)>>,
    {
        let mut delays = ExponentialBuilder::new()
            .with_min_delay(MIN_DELAY)
            .with_max_delay(MAX_DELAY)
            .with_max_times(self.attempts - 1)
            .with_jitter()
            .with_jitter_seed(self.seed.fetch_add(1, Ordering::Relaxed))
            .build();
        loop {
            let begun = Transaction::begin(Arc::new(Arc::clone(store)), self.isolation).await?;
            let (transaction, value) = body(begun).await?;
            let error = match transaction.commit().await {
                Ok(commit) => return Ok((value, commit)),
                Err(error) => error,
            };
            let conflict =
                error.kind() == ErrorKind::Conflict && error.outcome() == Outcome::Nothing;
            if !conflict {
                return Err(error);
            }
            let Some(delay) = delays.next() else { return Err(self.give_up(error)) };
            self.clock.sleep(delay).await;
        }
    }

    fn give_up(&self, error: Error) -> Error {
        let attempts = counted(self.attempts, "attempt", "attempts");
        error.with_retry(Retry::GaveUp).with_context(format_args!("gave up after {attempts}"))
    }
}

impl fmt::Debug for Transact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transact({}, {} attempts)", self.isolation, self.attempts)
    }
}
