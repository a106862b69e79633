//! `timeout`: every operation has a deadline.
//!
//! # Guarantees
//! An operation that the store below has not answered in time ends with an error, however the store
//! hangs. Of a scan, and of reads of a snapshot, each page and each read has its own deadline, and the
//! time between two pages does not count. A group of batches has one deadline.
//!
//! # Gives up
//! Knowing how a write ended: it may take effect after its deadline. Writing it again is safe, unless it
//! is [`if_absent`](crate::Batch::if_absent): then read first.
//!
//! # Position
//! Anywhere, inside `retry`: outside, it would cut off the attempts of the retry.
//!
//! # Cancellation
//! The deadline begins when the operation is first polled, and ends with it. At the deadline the
//! operation below is dropped.
//!
//! # Errors
//! `Timeout`, to be tried again. `ingest`, `flush`, `compact` and `close` have no deadline: how long they
//! take follows from how much there is to do. Nor has the change feed a deadline, as a change may never come.
//!
//! # Metrics
//! None of its own; the errors are counted at the boundary.
//!
//! # Configuration
//! `timeout: { after: 10s }`
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::Memory;
//! use tierstack::layers::timeout::{TimeoutConfig, TimeoutLayer};
//! use tierstack::{Context, Layer, StoreExt};
//!
//! let config = TimeoutConfig { after: "2s".parse().unwrap() };
//! let store = TimeoutLayer::new(&config, &Context::default())?.layer(Memory::new());
//! store.put("k", "v").await?;
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::forward;
use crate::layer::{Context, Layer, LayerConfig, StackLayer, Zone};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::types::units::Span;
use crate::types::{Batch, Commit, Inspection, Profile, Scan, Scope, Usage, Value};

/// Settings of the timeout layer. See the [module docs](self).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TimeoutConfig {
    /// How long an operation, or a page of a scan, may take. Default 10s; more than 0. A short one
    /// frees the caller sooner, and gives up on answers that were on their way.
    pub after: Span,
}

impl Default for TimeoutConfig {
    fn default() -> Self {
        Self { after: Span(Duration::from_secs(10)) }
    }
}

impl TimeoutConfig {
    fn check(&self) -> Result<()> {
        if self.after.0.is_zero() {
            return Err(Error::config(
                "after is 0, so that every operation would fail; it must be longer, such as 10s",
            )
            .with_setting("after"));
        }
        Ok(())
    }
}

#[async_trait]
impl LayerConfig for TimeoutConfig {
    const NAME: &'static str = "timeout";
    const ZONE: Zone = Zone::Guard;

    fn profile(&self, below: Profile) -> Result<Profile> {
        self.check()?;
        Ok(Profile::layer(Self::NAME, below))
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>> {
        Ok(Arc::new(TimeoutLayer::new(self, context)?))
    }
}

/// Gives the operations of the stores it wraps a deadline. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct TimeoutLayer {
    deadline: Deadline,
}

impl TimeoutLayer {
    /// A layer with these settings, on the context's clock.
    ///
    /// # Errors
    /// `Config` if a setting is out of range.
    pub fn new(config: &TimeoutConfig, context: &Context) -> Result<Self> {
        config.check()?;
        let deadline = Deadline { after: config.after, clock: Arc::clone(&context.clock) };
        Ok(Self { deadline })
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout { inner, deadline: self.deadline.clone() }
    }
}

/// See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Timeout<S> {
    inner: S,
    deadline: Deadline,
}

#[deny(clippy::missing_trait_methods)]
impl<S: Read> Read for Timeout<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        match self.inner.get(key) {
            Reply::Now(result) => Reply::Now(result),
            later => Reply::later(self.deadline.of(Operation::Get, later)),
        }
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        match self.inner.get_many(keys) {
            Reply::Now(result) => Reply::Now(result),
            later => Reply::later(self.deadline.of(Operation::GetMany, later)),
        }
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        let pages = self.inner.scan(scan);
        futures_util::stream::unfold(Some(pages), |pages| async {
            let mut pages = pages?;
            let next = async { pages.next().await.transpose() };
            match self.deadline.of(Operation::Scan, next).await.transpose()? {
                Ok(page) => Some((Ok(page), Some(pages))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Timeout<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        let outcome = if batch.is_conditional() { UNKNOWN_IF_ABSENT } else { UNKNOWN };
        self.deadline.or_else_say(Operation::Write, outcome, self.inner.write(batch)).await
    }

    /// With one deadline for the group. How far it came by then is unknown, so every batch has that error.
    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        let batches = group.len();
        let written = async { Ok(self.inner.write_group(group).await) };
        match self.deadline.or_else_say(Operation::Write, UNKNOWN_GROUP, written).await {
            Ok(answers) => answers,
            Err(error) => (0..batches).map(|_| Err(error.clone())).collect(),
        }
    }

    async fn changes(&self) -> Result<Changes> {
        self.deadline.of(Operation::Changes, self.inner.changes()).await
    }

    async fn invalidate(&self, scope: Scope) -> Result<()> {
        self.deadline.of(Operation::Invalidate, self.inner.invalidate(scope)).await
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        self.deadline.of(Operation::Inspect, self.inner.inspect(key)).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        let inner = self.deadline.of(Operation::Snapshot, self.inner.snapshot()).await?;
        Ok(Arc::new(Timeout { inner, deadline: self.deadline.clone() }))
    }

    async fn usage(&self) -> Result<Usage> {
        self.deadline.of(Operation::Usage, self.inner.usage()).await
    }

    // Without a deadline: it may read everything.
    forward!(self => self.inner; count);

    fn profile(&self) -> Profile {
        Profile::layer(TimeoutConfig::NAME, self.inner.profile())
    }

    forward!(self => self.inner; ingest, flush, compact, close, identity);
}

const UNKNOWN: &str = "; the batch may or may not have taken effect, and writing it again is safe";
const UNKNOWN_GROUP: &str = "; of its group the first batches may or may not have taken effect, any number of them: read before you write them again";
const UNKNOWN_IF_ABSENT: &str = "; the batch may or may not have taken effect: read before you write it again, as it would meet its own entries";

#[derive(Clone, Debug)]
struct Deadline {
    after: Span,
    clock: Arc<dyn Clock>,
}

impl Deadline {
    /// The answer, or an error once the time is up. An answer that is there wins.
    async fn of<T>(
        &self,
        operation: Operation,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.or_else_say(operation, "", answer).await
    }

    /// The same, with what is to be known about the outcome.
    async fn or_else_say<T>(
        &self,
        operation: Operation,
        outcome: &str,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            answer = answer => answer,
            () = self.clock.sleep(self.after.0) => {
                let message = format!("no answer within {}{outcome}", self.after);
                Err(Error::new(ErrorKind::Timeout, message)
                    .with_layer(TimeoutConfig::NAME)
                    .with_operation(operation))
            }
        }
    }
}
