//! A store that fails when it is told to, before or after the work is done.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;

use self::plan::Fate;
pub use self::plan::{Call, Faults, Gate, Rule};
use crate::error::{Operation, Result};
use crate::layer::Layer;
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::types::{Batch, Commit, Identity, Inspection, Page, Profile, Scan, Scope, Usage, Value};
use crate::write_group::complete;

/// Puts a [`FaultStore`] around a store, as a layer of a stack.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::testing::{FaultLayer, Faults};
/// use tierstack::{ErrorKind, Layer, Operation, StoreExt};
///
/// let faults = Faults::new();
/// let store = FaultLayer(faults.clone()).layer(Memory::new());
/// faults.on(Operation::Write).fail(ErrorKind::Unavailable);
/// assert_eq!(store.put("k", "v").await.unwrap_err().kind(), ErrorKind::Unavailable);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct FaultLayer(pub Faults);

impl<S> Layer<S> for FaultLayer {
    type Service = FaultStore<S>;

    fn layer(&self, inner: S) -> FaultStore<S> {
        FaultStore::new(inner, &self.0)
    }
}

/// A store with [`Faults`]. Its snapshots follow the same plan. See [`Faults`] for an example.
#[derive(Clone, Debug)]
pub struct FaultStore<S> {
    inner: S,
    faults: Faults,
}

impl<S> FaultStore<S> {
    /// The store with that plan.
    #[must_use]
    pub fn new(inner: S, faults: &Faults) -> Self {
        Self { inner, faults: faults.clone() }
    }

    /// The store itself, past the plan.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: Store> FaultStore<S> {
    async fn other<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.faults.decide(operation, || Call::Other(operation)).around(call).await
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Read> Read for FaultStore<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        let call = || Call::Get(Bytes::copy_from_slice(key));
        self.faults.decide(Operation::Get, call).reply(|| self.inner.get(key))
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        let call = || Call::GetMany(keys.to_vec());
        self.faults.decide(Operation::GetMany, call).reply(|| self.inner.get_many(keys))
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        let fate = self.faults.decide(Operation::Scan, || Call::Scan(scan.clone()));
        let state = Some((self.inner.scan(scan), fate, 0));
        futures_util::stream::unfold(state, move |state| async move {
            let (mut pages, fate, at) = state?;
            let next = match self.faults.reachable() {
                Ok(()) => page(&mut pages, &fate, at).await?,
                Err(error) => Err(error),
            };
            match next {
                Ok(page) => Some((Ok(page), Some((pages, fate, at + 1)))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

/// The next page of a scan, with what strikes at it. The end of a scan counts as a page.
async fn page(pages: &mut Pages<'_>, fate: &Fate, at: usize) -> Option<Result<Page>> {
    if let Err(error) = fate.strike(false, at).await {
        return Some(Err(error));
    }
    let next = pages.next().await;
    match fate.strike(true, at).await {
        Ok(()) => next,
        Err(error) => Some(Err(error)),
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for FaultStore<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        let fate = self.faults.decide(Operation::Write, || Call::Write(batch.clone()));
        fate.around(self.inner.write(batch)).await
    }

    /// Each batch is struck by itself. Those between reach the store below as groups.
    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        let batches = group.len();
        let (mut answers, mut run) = (Vec::with_capacity(batches), Vec::new());
        let mut group = group.into_iter().peekable();
        while let Some(batch) = group.next() {
            let fate = self.faults.decide(Operation::Write, || Call::Write(batch.clone()));
            let struck = (!fate.is_none()).then_some((fate, batch.clone()));
            if struck.is_none() {
                run.push(batch);
            }
            if struck.is_some() || group.peek().is_none() {
                answers.append(&mut self.inner.write_group(std::mem::take(&mut run)).await);
            }
            if answers.iter().any(Result::is_err) {
                break;
            }
            if let Some((fate, batch)) = struck {
                answers.push(fate.around(self.inner.write(batch)).await);
                if answers.last().is_some_and(Result::is_err) {
                    break;
                }
            }
        }
        complete(answers, batches)
    }

    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        self.other(Operation::Ingest, self.inner.ingest(run)).await
    }

    async fn changes(&self) -> Result<Changes> {
        self.other(Operation::Changes, self.inner.changes()).await
    }

    async fn invalidate(&self, scope: Scope) -> Result<()> {
        self.other(Operation::Invalidate, self.inner.invalidate(scope)).await
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        self.other(Operation::Inspect, self.inner.inspect(key)).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        let inner = self.other(Operation::Snapshot, self.inner.snapshot()).await?;
        Ok(Arc::new(FaultStore { inner, faults: self.faults.clone() }))
    }

    async fn flush(&self) -> Result<()> {
        self.other(Operation::Flush, self.inner.flush()).await
    }

    async fn compact(&self) -> Result<()> {
        self.other(Operation::Compact, self.inner.compact()).await
    }

    async fn usage(&self) -> Result<Usage> {
        self.other(Operation::Usage, self.inner.usage()).await
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.other(Operation::Usage, self.inner.count(prefix)).await
    }

    async fn close(&self) -> Result<()> {
        self.other(Operation::Close, self.inner.close()).await
    }

    /// That of the store below: a plan is no guarantee.
    fn profile(&self) -> Profile {
        Profile::layer("fault", self.inner.profile())
    }

    fn identity(&self) -> Option<Identity> {
        self.inner.identity()
    }
}
