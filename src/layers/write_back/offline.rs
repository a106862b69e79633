//! The journal of a stack that is not open: what an operator sees of it, and does.

use std::path::Path;
use std::sync::Arc;

use super::refusal::{unexpired, write};
use super::replay::{READER, check_owner, no_journal, owner};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::journal::{Journal, Reader, Record, Settings, batch};
use crate::store::Store;
use crate::types::Batch;

/// Bytes of records that are read at a time.
const PAGE: usize = 1 << 20;

/// A batch that the store below may not have.
///
/// See [`JournalContent`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct WaitingBatch {
    /// Its place.
    pub sequence: u64,
    /// Entries that it puts.
    pub puts: usize,
    /// Keys that it deletes.
    pub deletes: usize,
    /// Bytes of its keys and values.
    pub bytes: usize,
}

/// What a journal holds for the store below.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::Arc;
/// use tierstack::backends::Memory;
/// use tierstack::layers::write_back::{self, WriteBackConfig};
/// use tierstack::{Context, LayerConfig, Store, StoreExt};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("journal");
/// let config = WriteBackConfig { path: Some(path.clone()), ..WriteBackConfig::default() };
/// let store = config.open(&Context::default()).await?.wrap(Arc::new(Memory::new())).await?;
/// store.put("user:1", "Ada").await?;
/// store.close().await?;
///
/// let inspection = write_back::inspect(&path).await?;
/// assert!(inspection.batches.is_empty(), "close has brought it to the store below");
/// assert!(inspection.owner.unwrap().starts_with("memory:"));
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct JournalContent {
    /// The identity of the store that the batches are for. `None`: it could not tell.
    pub owner: Option<String>,
    /// In their order. The first is the one that the store below refuses, where it refuses one.
    pub batches: Vec<WaitingBatch>,
    /// Bytes of the records that the journal keeps.
    pub bytes: u64,
}

/// The journal of a folder, and what it holds for the store.
async fn open(path: &Path) -> Result<(Journal, Reader)> {
    if !Journal::is_in(path)? {
        return Err(no_journal(path));
    }
    let journal = Journal::open(path, Settings::default()).await?;
    let reader = journal.reader(READER, 0).await?;
    Ok((journal, reader))
}

fn decoded(record: Record) -> Result<Batch> {
    let number = record.sequence;
    batch::decode(record.bytes).map_err(|error| error.with_context(format!("the batch {number}")))
}

/// The journal of a folder, and how many batches it holds for the store. Nothing else can open it before it is closed.
#[cfg(feature = "config")]
pub(crate) async fn hold(path: &Path) -> Result<(Journal, usize)> {
    let (journal, mut reader) = open(path).await?;
    match waiting(&mut reader).await {
        Ok(batches) => Ok((journal, batches.len())),
        Err(error) => {
            let _ = journal.close().await;
            Err(error)
        }
    }
}

async fn waiting(reader: &mut Reader) -> Result<Vec<WaitingBatch>> {
    let mut batches = Vec::new();
    loop {
        let records = reader.read(PAGE).await?;
        if records.is_empty() {
            return Ok(batches);
        }
        for record in records {
            let sequence = record.sequence;
            let batch = decoded(record)?;
            let puts = batch.ops().iter().filter(|op| op.value().is_some()).count();
            let (deletes, bytes) = (batch.len() - puts, batch.bytes());
            batches.push(WaitingBatch { sequence, puts, deletes, bytes });
        }
    }
}

/// What the journal in a folder holds that the store below may not have. The stack must not be open.
///
/// # Errors
/// `InvalidInput` where there is no journal; as [`Journal::open`].
pub async fn inspect(path: &Path) -> Result<JournalContent> {
    let (journal, mut reader) = open(path).await?;
    let batches = waiting(&mut reader).await?;
    let bytes = journal.usage().bytes;
    journal.close().await?;
    let owner = owner(path)?.filter(|owner| !owner.is_empty());
    Ok(JournalContent { owner, batches, bytes })
}

/// Writes what the journal in a folder holds to the store that it is for: the store below the `write_back`. The stack must not
/// be open. Gives the number of batches.
///
/// # Errors
/// `Conflict` where the store is another one; that of the first batch that the store does not take, with its number. The
/// batches before it are written, and released.
pub async fn drain(path: &Path, store: &Arc<dyn Store>) -> Result<u64> {
    drain_to(path, store, false).await
}

/// The same, also to another store than the one that the batches are for: to a copy of it, or to a server that has begun a new
/// history since, as Redis does when it restarts.
///
/// # Errors
/// Those of [`drain`], without the `Conflict`.
pub async fn drain_to_other(path: &Path, store: &Arc<dyn Store>) -> Result<u64> {
    drain_to(path, store, true).await
}

async fn drain_to(path: &Path, store: &Arc<dyn Store>, other: bool) -> Result<u64> {
    let (journal, mut reader) = open(path).await?;
    let waiting = usize::from(journal.usage().next > reader.next() && !other);
    let drained = match check_owner(path, store.identity().as_ref(), waiting) {
        Ok(()) => drain_all(&mut reader, store).await,
        Err(error) => Err(error),
    };
    journal.close().await?;
    drained
}

async fn drain_all(reader: &mut Reader, store: &Arc<dyn Store>) -> Result<u64> {
    let mut batches = 0;
    loop {
        let records = reader.read(PAGE).await?;
        if records.is_empty() {
            return Ok(batches);
        }
        let (mut last, mut failed) = (None, None);
        for record in records {
            let sequence = record.sequence;
            let batch = unexpired(decoded(record)?, SystemClock.now())?;
            if let Err(error) = write(&**store, batch).await {
                failed = Some(error.with_context(format!("the batch {sequence}")));
                break;
            }
            (last, batches) = (Some(sequence), batches + 1);
        }
        if let Some(last) = last {
            store.flush().await?;
            reader.release(last)?;
        }
        if let Some(error) = failed {
            return Err(error);
        }
    }
}

/// Takes the first batch that waits out of the journal in a folder, as the store below refuses it, and keeps it in
/// a journal of its own in the folder `copy_to`, from which it can be [drained](drain). The stack must not be open.
///
/// # Errors
/// `InvalidInput` where the first batch is another one: only that can be skipped, as the others depend on their order. As
/// [`Journal::open`]; the batch stays where it was.
pub async fn skip(path: &Path, sequence: u64, copy_to: &Path) -> Result<()> {
    let (journal, mut reader) = open(path).await?;
    let skipped = skip_first(path, &mut reader, sequence, copy_to).await;
    journal.close().await?;
    skipped
}

async fn skip_first(path: &Path, reader: &mut Reader, sequence: u64, copy_to: &Path) -> Result<()> {
    // One record, as there is always room for one.
    let first = reader.read(1).await?.into_iter().next();
    let record = match first {
        None => {
            return Err(Error::invalid(
                "no batch waits in this journal, so there is none to be skipped",
            ));
        }
        Some(first) if first.sequence != sequence => {
            return Err(Error::invalid(format!(
                "the first batch that waits is {}, and only that can be skipped, not {sequence}: the others depend on their order",
                first.sequence
            )));
        }
        Some(first) => first,
    };
    let copy = Journal::open(copy_to, Settings::default()).await?;
    let kept = async {
        // Before the record: without a reader nothing is kept.
        copy.reader(READER, 0).await?;
        let own = copy.append(record.bytes).await?;
        copy.durable(own).await
    };
    let kept = kept.await;
    copy.close().await?;
    kept?;
    if let Some(owner) = owner(path)? {
        super::replay::write_owner(copy_to, &owner)?;
    }
    reader.release(sequence)
}
