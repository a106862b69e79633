//! [`StoreExt`] and [`ReadExt`]: conveniences for callers of a store.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{BoxStream, FuturesUnordered};
use futures_util::{StreamExt, TryStreamExt};

use crate::error::Result;
use crate::reply::Reply;
use crate::store::{Pages, Read, Store};
use crate::transaction::{Isolation, Transact, Transaction};
use crate::types::{Batch, Commit, Entry, Op, Page, RunOrder, Scan, Value};

/// Conveniences of everything that can be read: stores and snapshots.
///
/// ```
/// # tokio_test::block_on(async {
/// use futures_util::TryStreamExt;
/// use tierstack::backends::Memory;
/// use tierstack::{Batch, ReadExt, Scan, Store};
///
/// let store = Memory::new();
/// store.write(Batch::new().put("user:1", "Ada").put("user:2", "Bob")).await?;
/// assert_eq!(store.collect(Scan::prefix("user:")).await?.len(), 2);
///
/// let mut users = store.entries(Scan::prefix("user:").reverse());
/// assert_eq!(users.try_next().await?.unwrap().value, "Bob".into());
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
pub trait ReadExt: Read {
    /// Whether the key exists. Reads its value.
    ///
    /// # Errors
    /// Like [`Read::get`].
    fn contains<'a>(&'a self, key: &'a [u8]) -> Reply<'a, bool> {
        self.get(key).map(|value| value.is_some())
    }

    /// The entries whose keys begin with the prefix, in key order, a page at a time.
    fn scan_prefix(&self, prefix: &[u8]) -> Pages<'_> {
        self.scan(Scan::prefix(prefix))
    }

    /// The entries of a scan, one at a time.
    fn entries(&self, scan: Scan) -> BoxStream<'_, Result<Entry>> {
        self.scan(scan)
            .map_ok(|page| futures_util::stream::iter(page.entries.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    /// The keys of a scan, one at a time, without reading values where the store can avoid it
    /// ([`Scan::keys_only`]).
    ///
    /// ```
    /// # tokio_test::block_on(async {
    /// use futures_util::TryStreamExt;
    /// use tierstack::backends::Memory;
    /// use tierstack::{ReadExt, Scan, StoreExt};
    ///
    /// let store = Memory::new();
    /// store.put("user:1", "Ada").await?;
    /// let keys: Vec<_> = store.keys(Scan::prefix("user:")).try_collect().await?;
    /// assert_eq!(keys, ["user:1"]);
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    fn keys(&self, scan: Scan) -> BoxStream<'_, Result<Bytes>> {
        self.entries(scan.keys_only()).map_ok(|entry| entry.key).boxed()
    }

    /// The entries of a scan, all in memory.
    ///
    /// # Errors
    /// The first error of the scan.
    fn collect(&self, scan: Scan) -> impl Future<Output = Result<Vec<Entry>>> + Send {
        async move {
            let pages: Vec<_> = self.scan(scan).try_collect().await?;
            Ok(pages.into_iter().flat_map(|page| page.entries).collect())
        }
    }
}

impl<R: Read + ?Sized> ReadExt for R {}

/// Conveniences of every store.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::{Read, ReadExt, StoreExt};
///
/// let store = Memory::new();
/// store.put("user:1", "Ada").await?;
/// assert!(store.contains(b"user:1").await?);
/// store.delete("user:1").await?;
/// assert_eq!(store.get(b"user:1").await?, None);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
pub trait StoreExt: Store {
    /// Sets the value of one key.
    ///
    /// # Errors
    /// Like [`Store::write`].
    fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Value>,
    ) -> impl Future<Output = Result<Commit>> + Send {
        self.write(Batch::new().put(key, value))
    }

    /// Puts a run of entries, in strictly ascending key order, as fast as the store can: by
    /// [`ingest`](Store::ingest) where it is offered, otherwise page by page in batches. Gives their
    /// number.
    ///
    /// Not atomic: after an error, or when the future is dropped, any part of the run may be there.
    ///
    /// # Errors
    /// The first error of the run, as it is; `InvalidInput` for a run that is out of order; otherwise
    /// as [`Store::write`].
    ///
    /// ```
    /// # tokio_test::block_on(async {
    /// use tierstack::backends::Memory;
    /// use tierstack::{Read, Scan, StoreExt};
    ///
    /// let (from, to) = (Memory::new(), Memory::new());
    /// from.put("k", "v").await?;
    /// assert_eq!(to.load(from.scan(Scan::all())).await?, 1);
    /// assert_eq!(to.get(b"k").await?, Some("v".into()));
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    fn load<'a>(&'a self, run: Pages<'a>) -> impl Future<Output = Result<u64>> + Send + 'a {
        async move {
            if self.profile().guarantees.ingest {
                self.ingest(run).await
            } else {
                load_by_batches(self, run).await
            }
        }
    }

    /// Removes one key.
    ///
    /// # Errors
    /// Like [`Store::write`].
    fn delete(&self, key: impl Into<Bytes>) -> impl Future<Output = Result<Commit>> + Send {
        self.write(Batch::new().delete(key))
    }

    /// Begins a transaction, which ends with [`Transaction::commit`], or leaves nothing behind.
    ///
    /// # Errors
    /// `Unsupported` if the store lacks what the level of isolation [needs](Isolation::check); otherwise as
    /// [`Store::snapshot`].
    fn begin(
        self: &Arc<Self>,
        isolation: Isolation,
    ) -> impl Future<Output = Result<Transaction>> + Send {
        Transaction::begin(Arc::new(Arc::clone(self)), isolation)
    }

    /// Runs a transaction, and runs it again where its commit meets a conflict: up to 20 times, with growing
    /// pauses. `body` gets the transaction, and gives it back with a value; then it is committed. Gives that value,
    /// and the commit. [`Transact`] does the same with settings, and says more.
    ///
    /// # Errors
    /// Like [`Transact::run`].
    ///
    /// ```
    /// # tokio_test::block_on(async {
    /// use std::sync::Arc;
    /// use tierstack::backends::Memory;
    /// use tierstack::{Isolation, Read, StoreExt};
    ///
    /// let store = Arc::new(Memory::new());
    /// let (number, commit) = store
    ///     .transact(Isolation::Serializable, |mut tx| async move {
    ///         let last = tx.get(b"last").await?.map_or(0, |value| value.bytes[0]);
    ///         tx.put("last", vec![last + 1])?;
    ///         Ok((tx, last + 1))
    ///     })
    ///     .await?;
    /// commit.durable().await?;
    /// assert_eq!(number, 1);
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    fn transact<T, F>(
        self: &Arc<Self>,
        isolation: Isolation,
        body: impl FnMut(Transaction) -> F + Send,
    ) -> impl Future<Output = Result<(T, Commit)>> + Send
    where
        T: Send,
        F: Future<Output = Result<(Transaction, T)>> + Send,
    {
        async move { Transact::new(isolation).run(self, body).await }
    }
}

impl<S: Store + ?Sized> StoreExt for S {}

/// Operations and bytes of a batch of [`StoreExt::load`]: large enough to spread the cost of a synced
/// write.
const LOAD_OPS: usize = 8192;
const LOAD_BYTES: usize = 4 << 20;
/// Writes at a time to a store that takes one operation each, of this many bytes together.
const LOAD_WRITERS: usize = 32;
const LOAD_BYTES_AT_ONCE: usize = 32 << 20;

/// Loads by batches, or by many single writes at a time where there are no atomic batches. The run is
/// read meanwhile.
async fn load_by_batches<S: Store + ?Sized>(store: &S, mut run: Pages<'_>) -> Result<u64> {
    let guarantees = store.profile().guarantees;
    let most = guarantees.batch_ops().unwrap_or(LOAD_OPS).min(LOAD_OPS);
    let writers = if guarantees.atomic_batches { 1 } else { LOAD_WRITERS };
    let (mut order, mut loaded, mut bytes_at_once) = (RunOrder::default(), 0, 0);
    let mut ready: VecDeque<Batch> = VecDeque::new();
    let mut writes = FuturesUnordered::new();
    // How the run ended; nothing more is begun from then on, and what was begun is waited for, so that
    // it does not arrive later.
    let mut ended: Option<Result<()>> = None;
    loop {
        while let Some(batch) = ready.pop_front() {
            let busy = writes.len() >= writers || bytes_at_once >= LOAD_BYTES_AT_ONCE;
            if !writes.is_empty() && busy {
                ready.push_front(batch);
                break;
            }
            bytes_at_once += batch.bytes();
            writes.push(write_counted(store, batch));
        }
        if let Some(how) = ended.take_if(|_| writes.is_empty() && ready.is_empty()) {
            return how.map(|()| loaded);
        }
        tokio::select! {
            Some(written) = writes.next(), if !writes.is_empty() => {
                let (bytes, written) = written;
                bytes_at_once -= bytes;
                match written {
                    Ok(entries) => loaded += entries,
                    Err(error) => {
                        ready.clear();
                        // The first error counts, of the run or of a write.
                        if !matches!(ended, Some(Err(_))) {
                            ended = Some(Err(error));
                        }
                    }
                }
            }
            page = run.next(), if ready.is_empty() && ended.is_none() => {
                let page = page.transpose().and_then(|page| match page {
                    Some(page) => order.check(&page).map(|()| Some(page)),
                    None => Ok(None),
                });
                match page {
                    Ok(Some(page)) => ready.extend(lots(page, most)),
                    Ok(None) => ended = Some(Ok(())),
                    Err(error) => ended = Some(Err(error)),
                }
            }
        }
    }
}

/// Writes a batch; gives its bytes, and its entries if they were written.
async fn write_counted<S: Store + ?Sized>(store: &S, batch: Batch) -> (usize, Result<u64>) {
    let (entries, bytes) = (batch.len() as u64, batch.bytes());
    (bytes, store.write(batch).await.map(|_| entries))
}

/// A page in batches that the store takes.
fn lots(page: Page, most: usize) -> Vec<Batch> {
    let mut lots = vec![Batch::new()];
    let mut bytes = 0;
    for Entry { key, value } in page.entries {
        let size = key.len() + value.bytes.len();
        match lots.last_mut() {
            Some(lot) if lot.len() < most && bytes + size <= LOAD_BYTES => {
                lot.push(Op::Put(key, value));
                bytes += size;
            }
            _ => {
                lots.push(Batch::new().put(key, value));
                bytes = size;
            }
        }
    }
    lots.retain(|lot| !lot.is_empty());
    lots
}
