//! `retry`: what failed for a moment is tried again.
//!
//! # Guarantees
//! An operation that fails with an error that says "try again later" is repeated, with growing,
//! jittered pauses, until it succeeds or a bound is reached. A scan goes on behind the last entry it
//! gave: none is given twice, none is left out. Reads of a snapshot are repeated as well. A read that
//! succeeds at once costs nothing; a write costs a copy of its list of operations.
//!
//! A write is repeated only after an attempt of which [nothing happened](crate::Outcome::Nothing), such as
//! one that found no connection or no turn: so it takes effect once. A group of batches is taken up at the batch that
//! failed. After an attempt with an unknown outcome
//! its error is passed on, and the caller decides. `ingest` is tried once, as a run can be read once.
//!
//! # Gives up
//! With `unknown_writes: true`, writes are repeated after an unknown outcome too. Then a write may take effect
//! twice: a reader may see its value, then the acknowledged value of another writer, then its value again.
//! Set it where each key has one writer, or where the last writer is to win in any case. A batch with
//! [conditions](crate::Batch::require) is not repeated even so, as it could meet its own entries.
//!
//! # Position
//! Anywhere, outside `timeout`, which turns an attempt that hangs into one that failed. Of two
//! retries in a stack, the outer one leaves alone what the inner one gave up on.
//!
//! # Cancellation
//! A dropped operation stops trying.
//!
//! # Errors
//! The error of the last attempt, which then says [`GaveUp`](crate::Retry::GaveUp) and how many attempts
//! there were.
//! Errors that trying again cannot help pass at once; after an earlier attempt they say `GaveUp` too. The
//! [outcome](crate::Error::outcome) that the error of a write has is that of all its attempts. `close` is not repeated: a second call would
//! succeed, and hide what the first could not save.
//!
//! # Metrics
//! | name | type | labels | a rise means |
//! |---|---|---|---|
//! | `tierstack_retries_total` | counter | op | the store below fails more often |
//!
//! # Configuration
//! `retry: { attempts: 4, min_delay: 50ms, max_delay: 5s, max_elapsed: 30s, unknown_writes: false }`
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::Memory;
//! use tierstack::layers::retry::{RetryConfig, RetryLayer};
//! use tierstack::{Context, Layer, StoreExt};
//!
//! let config = RetryConfig { attempts: 6, ..RetryConfig::default() };
//! let store = RetryLayer::new(&config, &Context::default())?.layer(Memory::new());
//! store.put("k", "v").await?;
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::error::{Error, Operation, Outcome, Result, Retry as Again};
use crate::forward;
use crate::layer::{Context, Layer, LayerConfig, StackLayer, Zone};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::telemetry::{Counter, Labels, names};
use crate::types::units::{Span, counted};
use crate::types::{Batch, Commit, Inspection, Page, Profile, Scan, Scope, Usage, Value};
use crate::write_group::complete;

/// Settings of the retry layer. See the [module docs](self).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// How often an operation is tried, the first time included; of a scan, each page. Default 4; at
    /// least 1. More attempts outlast longer failures, and load a failing store more.
    pub attempts: usize,
    /// The pause after the first attempt, which doubles after each. Jitter adds up to as much again.
    /// Default 50ms; more than 0.
    pub min_delay: Span,
    /// The longest pause, before jitter. Default 5s; at least `min_delay`.
    pub max_delay: Span,
    /// No attempt begins later than this after the first failure. Default 30s. Bounds how long a caller
    /// waits, together with a `timeout` inside.
    pub max_elapsed: Span,
    /// Whether a write is repeated after an attempt whose outcome is unknown, so that it may take effect
    /// twice. Default false: the error is passed on. True hides more failures, and lets a repeated write
    /// overwrite what another writer wrote after its first attempt.
    pub unknown_writes: bool,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 4,
            min_delay: Span(Duration::from_millis(50)),
            max_delay: Span(Duration::from_secs(5)),
            max_elapsed: Span(Duration::from_secs(30)),
            unknown_writes: false,
        }
    }
}

impl RetryConfig {
    fn check(&self) -> Result<()> {
        if self.attempts == 0 {
            return Err(Error::config("attempts is 0; it must be at least 1, the first attempt")
                .with_setting("attempts"));
        }
        if self.min_delay.0.is_zero() {
            return Err(Error::config(
                "min_delay is 0, which would try again without a pause; it must be longer, such as 50ms",
            )
            .with_setting("min_delay"));
        }
        if self.max_delay < self.min_delay {
            return Err(Error::config(format!(
                "max_delay is {}, shorter than min_delay, {}; it must be at least as long",
                self.max_delay, self.min_delay
            ))
            .with_setting("max_delay"));
        }
        Ok(())
    }
}

#[async_trait]
impl LayerConfig for RetryConfig {
    const NAME: &'static str = "retry";
    const ZONE: Zone = Zone::Guard;

    fn profile(&self, below: Profile) -> Result<Profile> {
        self.check()?;
        Ok(Profile::layer(Self::NAME, below))
    }

    fn register_metrics(&self, context: &Context, _: &Profile) {
        drop(Retries::new(&context.labels));
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>> {
        Ok(Arc::new(RetryLayer::new(self, context)?))
    }
}

/// Repeats what fails in the stores it wraps. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct RetryLayer {
    shared: Arc<Shared>,
}

impl RetryLayer {
    /// A layer with these settings, on the context's clock, with jitter from its seed.
    ///
    /// # Errors
    /// `Config` if a setting is out of range.
    pub fn new(config: &RetryConfig, context: &Context) -> Result<Self> {
        config.check()?;
        let shared = Shared {
            config: config.clone(),
            clock: Arc::clone(&context.clock),
            retries: Retries::new(&context.labels),
            seed: AtomicU64::new(context.seed),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { inner, shared: Arc::clone(&self.shared) }
    }
}

/// See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Retry<S> {
    inner: S,
    shared: Arc<Shared>,
}

#[deny(clippy::missing_trait_methods)]
impl<S: Read> Read for Retry<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        self.reply(Operation::Get, || self.inner.get(key))
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        self.reply(Operation::GetMany, || self.inner.get_many(keys))
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        let resumable = Resumable { store: self, scan, pages: None };
        futures_util::stream::unfold(Some(resumable), |resumable| async {
            let mut resumable = resumable?;
            match resumable.next().await.transpose()? {
                Ok(page) => Some((Ok(page), Some(resumable))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Retry<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        // Repeated after an unknown outcome, a condition could meet its own entry and report a conflict.
        let unknown = self.shared.config.unknown_writes && !batch.is_conditional();
        let mut attempts = None;
        loop {
            // Keys and values are shared by the copies.
            let error = match self.inner.write(batch.clone()).await {
                Ok(commit) => return Ok(commit),
                Err(error) => error,
            };
            if !unknown && error.outcome() == Outcome::Unknown {
                // Nothing happened in the attempts before, so the caller may decide about this one alone.
                return Err(error);
            }
            let attempts = attempts.get_or_insert_with(|| self.shared.attempts(Operation::Write));
            attempts.pause_after(error).await?;
        }
    }

    /// From the first batch on that failed. Where several have an unknown outcome, none of them is repeated: a
    /// reader would see the effects of the later ones, and then those of the earlier ones again.
    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        let (batches, mut rest) = (group.len(), group);
        let mut answers = Vec::with_capacity(batches);
        let mut attempts = None;
        loop {
            let mut failed = self.inner.write_group(rest.clone()).await;
            let written = failed.iter().take_while(|answer| answer.is_ok()).count();
            answers.extend(failed.drain(..written));
            rest.drain(..written.min(rest.len()));
            if written > 0 {
                // The batch that failed now is another one.
                attempts = None;
            }
            let Some(Err(error)) = failed.first() else { break };
            let unknown = |answer: &Result<Commit>| matches!(answer, Err(error) if error.outcome() == Outcome::Unknown);
            let repeatable = self.shared.config.unknown_writes
                && rest.first().is_some_and(|batch| !batch.is_conditional())
                && !failed.iter().skip(1).any(unknown);
            if !repeatable && failed.iter().any(unknown) {
                answers.append(&mut failed);
                break;
            }
            let attempts = attempts.get_or_insert_with(|| self.shared.attempts(Operation::Write));
            if let Err(error) = attempts.pause_after(error.clone()).await {
                answers.push(Err(error));
                break;
            }
        }
        complete(answers, batches)
    }

    // Passes: a run can be read once only.
    forward!(self => self.inner; ingest);

    async fn changes(&self) -> Result<Changes> {
        self.shared.repeat(Operation::Changes, || self.inner.changes()).await
    }

    async fn invalidate(&self, scope: Scope) -> Result<()> {
        self.shared.repeat(Operation::Invalidate, || self.inner.invalidate(scope.clone())).await
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        self.shared.repeat(Operation::Inspect, || self.inner.inspect(key)).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        let inner = self.shared.repeat(Operation::Snapshot, || self.inner.snapshot()).await?;
        Ok(Arc::new(Retry { inner, shared: Arc::clone(&self.shared) }))
    }

    async fn flush(&self) -> Result<()> {
        self.shared.repeat(Operation::Flush, || self.inner.flush()).await
    }

    async fn compact(&self) -> Result<()> {
        self.shared.repeat(Operation::Compact, || self.inner.compact()).await
    }

    async fn usage(&self) -> Result<Usage> {
        self.shared.repeat(Operation::Usage, || self.inner.usage()).await
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.shared.repeat(Operation::Usage, || self.inner.count(prefix)).await
    }

    fn profile(&self) -> Profile {
        Profile::layer(RetryConfig::NAME, self.inner.profile())
    }

    forward!(self => self.inner; close, identity);
}

impl<S: Read> Retry<S> {
    fn reply<'a, T: Send + 'a>(
        &'a self,
        operation: Operation,
        mut ask: impl FnMut() -> Reply<'a, T> + Send + 'a,
    ) -> Reply<'a, T> {
        match ask() {
            Reply::Now(Ok(value)) => Reply::ready(value),
            Reply::Now(Err(error)) if error.retry() != Again::Later => Reply::Now(Err(error)),
            first => {
                let mut first = Some(first);
                let ask = move || first.take().unwrap_or_else(&mut ask);
                Reply::later(self.shared.repeat(operation, ask))
            }
        }
    }
}

/// A scan that is taken up behind the last entry it gave.
struct Resumable<'a, S> {
    store: &'a Retry<S>,
    /// What is left to read.
    scan: Scan,
    pages: Option<Pages<'a>>,
}

impl<S: Read> Resumable<'_, S> {
    async fn next(&mut self) -> Result<Option<Page>> {
        let mut attempts = None;
        loop {
            let pages = self.pages.get_or_insert_with(|| self.store.inner.scan(self.scan.clone()));
            match pages.next().await.transpose() {
                Ok(page) => {
                    if let Some(page) = &page {
                        self.scan.consume(page.len());
                        if let Some(last) = page.entries.last() {
                            self.scan.resume_after(&last.key);
                        }
                    }
                    return Ok(page);
                }
                Err(error) => {
                    self.pages = None;
                    let shared = &self.store.shared;
                    let attempts = attempts.get_or_insert_with(|| shared.attempts(Operation::Scan));
                    attempts.pause_after(error).await?;
                }
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    config: RetryConfig,
    clock: Arc<dyn Clock>,
    retries: Retries,
    /// The seed of the next operation's jitter: each has its own, or they would all come back at once.
    seed: AtomicU64,
}

impl Shared {
    async fn repeat<T, F: Future<Output = Result<T>>>(
        &self,
        operation: Operation,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T> {
        let mut attempts = None;
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => {
                    let attempts = attempts.get_or_insert_with(|| self.attempts(operation));
                    attempts.pause_after(error).await?;
                }
            }
        }
    }

    /// Begins to count, at the first failure.
    fn attempts(&self, operation: Operation) -> Attempts<'_> {
        let config = &self.config;
        let delays = ExponentialBuilder::new()
            .with_min_delay(config.min_delay.0)
            .with_max_delay(config.max_delay.0)
            .with_max_times(config.attempts - 1)
            .with_jitter()
            .with_jitter_seed(self.seed.fetch_add(1, Ordering::Relaxed))
            .build();
        Attempts {
            shared: self,
            operation,
            delays,
            made: 0,
            unknown: false,
            began: self.clock.monotonic(),
        }
    }
}

/// Attempts beyond the first, by operation.
#[derive(Debug)]
struct Retries([Counter; REPEATED.len()]);

/// What is repeated.
const REPEATED: [Operation; 11] = [
    Operation::Get,
    Operation::GetMany,
    Operation::Scan,
    Operation::Write,
    Operation::Changes,
    Operation::Invalidate,
    Operation::Inspect,
    Operation::Snapshot,
    Operation::Flush,
    Operation::Compact,
    Operation::Usage,
];

impl Retries {
    fn new(labels: &Labels) -> Self {
        Self(REPEATED.map(|op| labels.counter(names::RETRIES, &[("op", op.as_str())])))
    }

    fn count(&self, operation: Operation) {
        for (_, counter) in REPEATED.iter().zip(&self.0).filter(|(op, _)| **op == operation) {
            counter.increment(1);
        }
    }
}

/// The attempts of one operation.
struct Attempts<'a> {
    shared: &'a Shared,
    operation: Operation,
    delays: ExponentialBackoff,
    made: usize,
    /// Whether an attempt of a write may have taken effect.
    unknown: bool,
    began: Duration,
}

impl Attempts<'_> {
    /// Returns when it is time for the next attempt.
    ///
    /// # Errors
    /// That of the last attempt, if there is no next one.
    async fn pause_after(&mut self, error: Error) -> Result<()> {
        self.made += 1;
        self.unknown |= error.outcome() == Outcome::Unknown;
        if error.retry() != Again::Later {
            // What the attempts before it did is as unknown as it was.
            return Err(if self.made == 1 { error } else { self.give_up(error) });
        }
        let clock = &self.shared.clock;
        let elapsed = clock.monotonic().saturating_sub(self.began);
        let delay = self
            .delays
            .next()
            .filter(|delay| elapsed.saturating_add(*delay) <= self.shared.config.max_elapsed.0);
        let Some(delay) = delay else { return Err(self.give_up(error)) };
        clock.sleep(delay).await;
        self.shared.retries.count(self.operation);
        Ok(())
    }

    fn give_up(&self, error: Error) -> Error {
        let error = if self.unknown { error.with_outcome(Outcome::Unknown) } else { error };
        error.with_retry(Again::GaveUp).with_context(format_args!(
            "gave up after {}",
            counted(self.made, "attempt", "attempts")
        ))
    }
}
