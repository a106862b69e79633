//! A cache as a store: each operation, and the order in which it touches what is kept and the store below.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::coherence::Mode;
use super::state::Cache;
use crate::error::{Error, Outcome, Result};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::types::{Batch, Commit, Identity, Inspection, Profile, Scan, Scope, Usage, Value};
use crate::write_group::complete;

#[deny(clippy::missing_trait_methods)]
impl<S: Store> Read for Cache<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        self.read(key)
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        self.read_many(keys)
    }

    /// Passes by: a scan neither asks the cache nor fills it.
    fn scan(&self, scan: Scan) -> Pages<'_> {
        self.0.inner.scan(scan)
    }
}

/// Whether nothing of the write can still arrive below.
fn is_settled(answer: &Result<Commit>) -> bool {
    answer.as_ref().err().is_none_or(|error| error.outcome() == Outcome::Nothing)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Cache<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        let shared = &*self.0;
        if shared.has_left_disk() {
            return Err(Error::closed().with_outcome(Outcome::Nothing));
        }
        let batches = std::slice::from_ref(&batch);
        let (writing, written) = (shared.register(batches), shared.written(batches));
        let commit = shared.inner.write(batch).await;
        if commit.is_ok() {
            shared.keep_written(written, &writing);
        }
        if is_settled(&commit) {
            writing.settle();
        }
        commit
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        let shared = &*self.0;
        if shared.has_left_disk() {
            let closed = Error::closed().with_outcome(Outcome::Nothing);
            return complete(vec![Err(closed)], group.len());
        }
        let (writing, written) = (shared.register(&group), shared.written(&group));
        let batches = group.len();
        let answers = shared.inner.write_group(group).await;
        // What a store leaves unanswered has an unknown outcome.
        let answered = answers.len() == batches;
        if answered && answers.iter().all(Result::is_ok) {
            shared.keep_written(written, &writing);
        }
        if answered && answers.iter().all(is_settled) {
            writing.settle();
        }
        answers
    }

    /// Nothing is kept while a run is taken, and nothing from before it.
    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        let shared = &*self.0;
        if shared.has_left_disk() {
            return Err(Error::closed());
        }
        if !shared.inner.profile().guarantees.ingest {
            // It is refused, so what is kept stays.
            return shared.inner.ingest(run).await;
        }
        let writing = shared.coherence.begin_write_all();
        shared.forget();
        let taken = shared.inner.ingest(run).await;
        if taken.is_ok() {
            writing.settle();
        }
        taken
    }

    async fn changes(&self) -> Result<Changes> {
        match &self.0.change_feed {
            Some(change_feed) => self.subscribe(change_feed).await,
            None => self.0.inner.changes().await,
        }
    }

    async fn invalidate(&self, scope: Scope) -> Result<()> {
        self.drop_below_and_here(scope).await
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        let below = self.0.inner.inspect(key).await?;
        let disk = self.0.inspection_on_disk(key).await;
        Ok(std::iter::once(self.0.inspection(key)).chain(disk).chain(below).collect())
    }

    /// A snapshot passes by: it is older than what is kept.
    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        self.0.inner.snapshot().await
    }

    async fn flush(&self) -> Result<()> {
        self.0.inner.flush().await
    }

    async fn compact(&self) -> Result<()> {
        self.0.inner.compact().await
    }

    async fn usage(&self) -> Result<Usage> {
        let below = self.0.inner.usage().await?;
        let memory_bytes = Some(below.memory_bytes.unwrap_or(0) + self.0.engine.bytes());
        Ok(Usage { memory_bytes, ..below })
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.0.inner.count(prefix).await
    }

    async fn close(&self) -> Result<()> {
        let shared = &*self.0;
        if let Some(warm) = &shared.warm {
            warm.stop().await;
        }
        let before = shared.coherence.epochs.now();
        shared.coherence.epochs.begin(Mode::Closed);
        if let Some(warm) = shared.warm.as_ref().filter(|_| before != shared.coherence.epochs.now())
        {
            warm.save(&shared.engine).await;
        }
        shared.empty_memory().await;
        if let Some(change_feed) = &self.0.change_feed {
            change_feed.stop().await;
        }
        shared.close_levels().await
    }

    fn profile(&self) -> Profile {
        self.0.config.profile_over(self.0.inner.profile())
    }

    fn identity(&self) -> Option<Identity> {
        self.0.inner.identity()
    }
}
