//! A run that the store below refuses for good: which of its batches that is.

use super::config::NAME;
use super::counters::Cause;
use super::replay::READER;
use super::shared::{Log, Shared};
use crate::clock::Timestamp;
use crate::error::{Error, Result, Retry};
use crate::journal::batch;
use crate::store::Store;
use crate::types::{Batch, Op};

/// Bytes of records that are read at a time.
const PAGE: usize = 1 << 20;

impl Shared {
    /// Writes the batches of the first run one by one, as the journal has them, after the store below has refused the run. `Ok`: it
    /// has taken them all. Otherwise the batches before the one that failed are below, and the journal releases them: so the first that it
    /// holds is the one that failed.
    pub(super) async fn single_out(&self, log: &Log, last: u64) -> Result<(), (u64, Error)> {
        let first = self.state.lock().flushed + 1;
        let mut reader = log.reader.lock().await;
        let usage = log.journal.usage();
        let released = usage.readers.iter().find(|(name, _)| name == READER).map(|(_, next)| *next);
        let from = released.unwrap_or(first).max(first);
        reader.seek(from).map_err(|error| (from, error))?;
        let mut written = from.saturating_sub(1);
        let mut failed = None;
        'pages: while written < last {
            let records = reader.read(PAGE).await.map_err(|error| (written + 1, error))?;
            if records.is_empty() {
                let error = Error::internal("a batch is not in the journal");
                return Err((written + 1, error));
            }
            for record in records.into_iter().take_while(|record| record.sequence <= last) {
                if let Err(error) = self.write_one(record.bytes).await {
                    failed = Some((record.sequence, error));
                    break 'pages;
                }
                written = record.sequence;
            }
        }
        if written >= from && failed.is_some() {
            let synced = match self.must_sync() {
                true => self.below.flush().await,
                false => Ok(()),
            };
            let released = match synced {
                Ok(()) => reader.release(written),
                Err(error) => Err(error),
            };
            released.map_err(|error| (written + 1, error))?;
        }
        failed.map_or(Ok(()), Err)
    }

    /// But for what has landed by itself, over a store without atomic batches: that is newer, and nothing hides it any more.
    async fn write_one(&self, record: bytes::Bytes) -> Result<()> {
        let mut batch = unexpired(batch::decode(record)?, self.clock.now())?;
        if !self.profile.guarantees.atomic_batches {
            let state = self.state.lock();
            batch = batch.into_ops().into_iter().filter(|op| state.is_left(op.key())).collect();
        }
        if batch.is_empty() { Ok(()) } else { write(&*self.below, batch).await }
    }

    /// Nothing is dropped, and nothing is acknowledged any more. `batch`: the one that is refused, where that is known.
    pub(super) fn refused(&self, last: u64, batch: Option<u64>, error: Error) {
        let first = self.state.lock().flushed + 1;
        let which = match batch.or((first == last).then_some(last)) {
            Some(batch) => format!("the batch {batch}"),
            None => format!("one of the batches {first} to {last}"),
        };
        let kept = match self.log {
            Some(_) => {
                "what was acknowledged is in the journal, and `tierstack journal` shows it and skips what is refused"
            }
            None => "what was acknowledged is in memory only, as there is no journal",
        };
        self.counters.failed(Cause::Refused);
        self.stop(error.with_context(format!(
            "the store below refuses {which} for good, so nothing is acknowledged any more; {kept}"
        )));
    }

    pub(super) fn stop(&self, error: Error) {
        let error = error.with_retry(Retry::Never).with_layer(NAME);
        tracing::error!(%error, "writing back has stopped");
        self.fail(error.clone());
        self.progress.send_modify(|progress| progress.stopped = Some(error));
    }
}

/// What has expired is deleted.
pub(super) fn unexpired(batch: Batch, now: Timestamp) -> Result<Batch> {
    batch.try_map(|op| match op {
        Op::Put(key, value) if value.is_expired(now) => Ok(Op::Delete(key)),
        op => Ok(op),
    })
}

/// A batch, or its operations one by one where the store has no atomic batches.
pub(super) async fn write(store: &dyn Store, batch: Batch) -> Result<()> {
    if store.profile().guarantees.atomic_batches || batch.len() <= 1 {
        return store.write(batch).await?.durable().await;
    }
    for op in batch.into_ops() {
        store.write([op].into_iter().collect()).await?.durable().await?;
    }
    Ok(())
}
