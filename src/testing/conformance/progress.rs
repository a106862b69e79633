//! Whether a check still moves: a slow store may take its time, and one that hangs is noticed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use crate::clock::{Clock, SystemClock};
use crate::error::{Operation, Result};
use crate::forward;
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::types::{Batch, Commit, Inspection, Scan, Scope, Usage, Value};

/// The deadline is checked once in each turn, so it is that precise.
const TURN: Duration = Duration::from_secs(10);
/// An operation hangs when it takes longer, and a check when none is done for that long.
const HANGS_AFTER: u32 = 12;
/// A check that moves and never ends, such as one that waits for a value which never comes.
const ENDS_WITHIN: u32 = 180;

/// The operations of one check: those under way, and when the last one was done.
#[derive(Clone, Default)]
pub(super) struct Progress(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    turn: u32,
    /// The turn in which an operation was done.
    moved: u32,
    next: u64,
    /// Each with the turn in which it began.
    under_way: BTreeMap<u64, (u32, Operation)>,
}

impl Progress {
    /// Ends when the check hangs, and says how.
    pub(super) async fn hung(&self) -> String {
        let seconds = |turns: u32| (turns * TURN).as_secs();
        for _ in 0..ENDS_WITHIN {
            SystemClock.sleep(TURN).await;
            let mut state = self.0.lock();
            state.turn += 1;
            let late = |since: u32| state.turn - since > HANGS_AFTER;
            // The operation that began first has the lowest number, unless it moved meanwhile.
            let slow = state.under_way.values().find(|(since, _)| late(*since));
            if let Some((_, operation)) = slow {
                let (name, span) = (operation.as_str(), seconds(HANGS_AFTER));
                return format!("it hangs: {name} has not answered for {span} seconds");
            }
            if late(state.moved) {
                let span = seconds(HANGS_AFTER);
                return format!("it hangs: no operation was done for {span} seconds");
            }
        }
        format!("it does not end: not done after {} seconds", seconds(ENDS_WITHIN))
    }

    fn begin(&self, operation: Operation) -> UnderWay<'_> {
        let mut state = self.0.lock();
        let (id, turn) = (state.next, state.turn);
        state.next += 1;
        state.under_way.insert(id, (turn, operation));
        UnderWay { progress: self, id }
    }

    fn moved(&self) {
        let mut state = self.0.lock();
        state.moved = state.turn;
    }

    async fn around<T>(&self, operation: Operation, call: impl Future<Output = T>) -> T {
        let under_way = self.begin(operation);
        let answer = call.await;
        under_way.moved();
        answer
    }
}

/// An operation that is under way until this is dropped.
struct UnderWay<'a> {
    progress: &'a Progress,
    id: u64,
}

impl UnderWay<'_> {
    fn moved(&self) {
        let mut state = self.progress.0.lock();
        state.moved = state.turn;
        let turn = state.turn;
        if let Some((since, _)) = state.under_way.get_mut(&self.id) {
            *since = turn;
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.progress.0.lock().under_way.remove(&self.id);
    }
}

/// A store whose operations are seen, and nothing else about it changes.
pub(super) struct Watched<S> {
    inner: S,
    progress: Progress,
}

impl<S> Watched<S> {
    pub(super) fn new(inner: S, progress: &Progress) -> Self {
        Self { inner, progress: progress.clone() }
    }

    fn reply<'a, T: Send + 'a>(
        &'a self,
        operation: Operation,
        reply: Reply<'a, T>,
    ) -> Reply<'a, T> {
        match reply {
            Reply::Now(answer) => {
                self.progress.moved();
                Reply::Now(answer)
            }
            Reply::Later(answer) => Reply::later(self.progress.around(operation, answer)),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Read> Read for Watched<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        self.reply(Operation::Get, self.inner.get(key))
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        self.reply(Operation::GetMany, self.inner.get_many(keys))
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        stream::unfold(self.inner.scan(scan), move |mut pages| async move {
            let page = self.progress.around(Operation::Scan, pages.next()).await?;
            Some((page, pages))
        })
        .boxed()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for Watched<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.progress.around(Operation::Write, self.inner.write(batch)).await
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        self.progress.around(Operation::Write, self.inner.write_group(group)).await
    }

    /// Each page that it takes is progress.
    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        let under_way = self.progress.begin(Operation::Ingest);
        let answer = self.inner.ingest(run.inspect(|_| under_way.moved()).boxed()).await;
        under_way.moved();
        answer
    }

    async fn changes(&self) -> Result<Changes> {
        self.progress.around(Operation::Changes, self.inner.changes()).await
    }

    async fn invalidate(&self, scope: Scope) -> Result<()> {
        self.progress.around(Operation::Invalidate, self.inner.invalidate(scope)).await
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        self.progress.around(Operation::Inspect, self.inner.inspect(key)).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        let snapshot = self.progress.around(Operation::Snapshot, self.inner.snapshot()).await?;
        Ok(Arc::new(Watched::new(snapshot, &self.progress)))
    }

    async fn flush(&self) -> Result<()> {
        self.progress.around(Operation::Flush, self.inner.flush()).await
    }

    async fn compact(&self) -> Result<()> {
        self.progress.around(Operation::Compact, self.inner.compact()).await
    }

    async fn usage(&self) -> Result<Usage> {
        self.progress.around(Operation::Usage, self.inner.usage()).await
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.progress.around(Operation::Usage, self.inner.count(prefix)).await
    }

    async fn close(&self) -> Result<()> {
        self.progress.around(Operation::Close, self.inner.close()).await
    }

    forward!(self => self.inner; profile, identity);
}
