//! `rocksdb`: a RocksDB database, or one column family of it, as it is.
//!
//! # Guarantees
//! It opens an existing database and reads its values as they are. Nothing about it changes until it is written to, except
//! what RocksDB does at every open: it replays its log and writes new `MANIFEST` and `LOG` files. Files are written in the
//! format that the database's own `OPTIONS` file names, so a program with an older RocksDB can open it again. Batches are
//! atomic. An acknowledged write survives a power cut with `sync`, the default, and a crash of the process without.
//! Snapshots see one moment. RocksDB locks the folder, so no other process writes, and conditions are checked in this
//! process: a batch with conditions is written alone, from its check to its end; other batches are written concurrently.
//!
//! A sorted run is written as tables, which are taken in whole and need no log. The folder `tierstack-ingest` in that of the
//! database holds them until then. With `read_only` nothing in the folder is written, made or locked, and the database is
//! read as it was when it was opened.
//!
//! What is in memory, in memtables and the block cache, is answered inline, without a future or a thread. The disk is read
//! inline too, up to eight keys a call, while its reads take less than 50 µs, as they do where the system has the block in
//! memory. A slower read sends reads to threads of the runtime for twenty times as long, up to ten seconds. A disk that stops
//! answering blocks all but one of the machine's threads at most, and at least one, each with one read. With
//! `inline_reads: false` the disk is read in threads only. Scans read it in threads.
//!
//! # Gives up
//! Expiry of entries (the `expire` layer adds it). A database whose values only another program can
//! read or keep is refused: one with a merge operator that is not RocksDB's own, with a comparator other than the bytewise one,
//! with user-defined timestamps, with a time to live that the settings do not name (`ttl`), with wide columns, or with FIFO compaction. So is one whose log is
//! in a folder that the settings do not name (`wal_dir`), as a copy of it would consume the log of the original.
//!
//! # Cancellation
//! A read that was begun in a thread ends by itself and is dropped. A write takes effect wholly or not
//! at all. An idle scan occupies no thread and holds nothing back.
//!
//! # Errors
//! Opening: `Config` (settings; a folder of other files; nothing there and `create: false`), `Conflict`
//! (open elsewhere: then nothing was touched), `Access`, `Corruption`, `Unsupported` (see above, or written by a newer RocksDB),
//! `Capacity`. Later: `InvalidInput` (key, limits), `Unsupported` (an expiry; a durability beyond this
//! machine; no tokio runtime for what needs a thread), `Capacity` when the disk is full: writes fail
//! and reads go on, `Corruption` of an entry, `Closed`.
//!
//! Closing waits for operations that run, ends compactions, and lets go of the folder before it
//! returns. Snapshots that are still alive then fail with `Closed`.
//!
//! # Configuration
//! `rocksdb: { path: ./data/orders }`; see [`RocksDbConfig`].
//!
//! # Example
//! ```
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path();
//! # tokio_test::block_on(async {
//! use tierstack::backends::{RocksDb, RocksDbConfig};
//! use tierstack::{Read, Store, StoreExt};
//!
//! let store = RocksDb::open(RocksDbConfig::new(path)).await?;
//! store.put("user:1", "Ada").await?;
//! assert_eq!(store.get(b"user:1").await?, Some("Ada".into()));
//! store.close().await?;
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod backend_config;
mod blocking;
mod config;
mod engine;
mod error;
mod folder_lock;
mod ingest;
mod inline_policy;
mod look_up;
mod open;
mod options;
mod options_file;
mod read_source;
mod read_tier;
mod reader;
mod scan;
mod survey;
#[cfg(test)]
mod tests;
mod ttl;
mod wide_columns;
mod write;

use std::fmt;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::blocking::{Offloaded, offload, spawn};
pub use self::config::{Compaction, Compression, RocksDbConfig, TableFolder};
use self::engine::Engine;
use self::error::{failed, is_incomplete};
use self::ingest::{LOT_BYTES, Tables};
use self::inline_policy::Pace;
use self::read_source::Moment;
use self::reader::Reader;
use self::ttl::Stamps;
use crate::error::{Error, ErrorKind, Operation, Outcome, Result};
use crate::layer::{BackendConfig, Common, Context};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::types::units::Span;
use crate::types::{
    Batch, Commit, Identity, Inspection, Op, Profile, RunOrder, Scan, Scope, Usage, Value,
};
use crate::write_group::{admitted, complete};

/// A RocksDB database, or one column family of it. See the [module docs](self).
pub struct RocksDb {
    reader: Reader<Engine>,
    /// The snapshots that may be alive, to be taken away when the store is closed.
    snapshots: Mutex<Vec<Weak<Reader<Moment>>>>,
    profile: Profile,
    sync: bool,
    /// Whether nothing in the folder of the database is touched.
    only_reads: bool,
    /// How many folders the tables are in, if they are named.
    folders: usize,
    tables: Arc<Tables>,
    identity: Option<Identity>,
    /// Ends when the last user of the database has let go of it.
    gone: watch::Receiver<()>,
}

/// A larger batch is copied in a thread.
const INLINE_WRITE_BYTES: usize = 64 << 10;
/// More batches of a group are written in a thread.
const INLINE_BATCHES: usize = 64;

impl RocksDb {
    /// Opens or makes the database.
    ///
    /// # Errors
    /// See the [module docs](self). A dropped future may leave the database open for a moment.
    pub async fn open(config: RocksDbConfig) -> Result<Self> {
        Self::open_with(config, &Context::default()).await
    }

    /// Opens the column family of a database, which other stores may have open in common.
    async fn open_with(config: RocksDbConfig, context: &Context) -> Result<Self> {
        let profile = config.profile()?;
        let only_reads = config.read_only;
        let config = RocksDbConfig { create: config.create && !only_reads, ..config };
        let folders = config.db_paths.len();
        let (sender, gone) = watch::channel(());
        let sync = config.sync;
        let common = context.common.as_ref();
        let others: Vec<_> = common.into_iter().flat_map(Common::settings).cloned().collect();
        let (first, clock) = (config.clone(), Arc::clone(&context.clock));
        let opening = async { offload(move || open::open(&first, &others)).await };
        let opened = async {
            let database = match common {
                Some(common) => common.share(opening).await?,
                None => opening.await?,
            };
            let over = move || {
                open::join(&database, &config)?;
                let tables = Tables::of(&config)?;
                let identity = open::identity(database.db(), &config);
                let stamps = config.ttl.map(|Span(ttl)| Stamps::new(Arc::clone(&clock), ttl));
                let pace = Pace::new(clock, config.inline_reads);
                let engine = Engine::over(database, &config.column_family, pace, stamps, sender)?;
                Ok((engine, tables, identity))
            };
            offload(over).await
        };
        let (engine, tables, identity) =
            opened.await.map_err(|error: Error| error.with_layer(RocksDbConfig::NAME))?;
        let (snapshots, tables) = (Mutex::default(), Arc::new(tables));
        let reader = Reader::new(engine);
        Ok(Self { reader, snapshots, profile, sync, only_reads, folders, tables, identity, gone })
    }

    /// Writes without waiting, if that is possible. `false`: it is not.
    fn write_now(&self, batch: &Batch) -> Result<bool> {
        match self.reader.view()?.write_now(batch) {
            Some(Ok(())) => Ok(true),
            None => Ok(false),
            Some(Err(error)) if is_incomplete(&error) => Ok(false),
            Some(Err(error)) => Err(failed(Operation::Write, error)),
        }
    }

    /// Refuses what would change a database that is only read.
    fn may_write(&self, operation: Operation) -> Result<()> {
        self.reader.view()?;
        if !self.only_reads {
            return Ok(());
        }
        let message = "the database is open for reading only (`read_only: true`); leave that out to change it";
        let error = Error::new(ErrorKind::Access, message).with_outcome(Outcome::Nothing);
        Err(error.with_operation(operation).with_layer(RocksDbConfig::NAME))
    }

    fn is_inline(&self, batch: &Batch) -> bool {
        !self.sync && !batch.is_conditional() && batch.bytes() <= INLINE_WRITE_BYTES
    }

    /// Writes the first batches of a group as far as that is possible without waiting, and takes them off.
    fn write_start_now(&self, group: &mut Vec<Batch>) -> Vec<Result<()>> {
        let (mut answers, mut bytes) = (Vec::new(), 0);
        for batch in group.iter() {
            bytes += batch.bytes();
            if !self.is_inline(batch)
                || bytes > INLINE_WRITE_BYTES
                || answers.len() >= INLINE_BATCHES
            {
                break;
            }
            match self.write_now(batch) {
                Ok(true) => answers.push(Ok(())),
                Ok(false) => break,
                Err(error) => {
                    answers.push(Err(error));
                    break;
                }
            }
        }
        group.drain(..answers.len());
        answers
    }

    /// Puts the next entries of a run, once the ones before them are there.
    async fn put_lot(&self, before: &mut Option<Offloaded<()>>, lot: Batch) -> Result<()> {
        if let Some(before) = before.take() {
            before.await?;
        }
        let (engine, tables, sync) = (self.reader.view()?, Arc::clone(&self.tables), self.sync);
        *before = Some(spawn(move || tables.take_in(&engine, &lot, sync))?);
        Ok(())
    }

    async fn put_run(
        &self,
        mut run: Pages<'_>,
        under_way: &mut Option<Offloaded<()>>,
    ) -> Result<u64> {
        let (mut order, mut entries) = (RunOrder::default(), 0);
        let (mut lot, mut bytes) = (Batch::new(), 0);
        while let Some(page) = run.try_next().await? {
            order.check(&page)?;
            entries += page.len() as u64;
            bytes += page.bytes();
            let puts = page.entries.into_iter().map(|entry| Op::Put(entry.key, entry.value));
            let puts: Batch = puts.collect();
            self.profile.guarantees.check_batch(&puts)?;
            puts.into_ops().into_iter().for_each(|put| lot.push(put));
            if bytes >= LOT_BYTES {
                self.put_lot(under_way, std::mem::take(&mut lot)).await?;
                bytes = 0;
            }
        }
        self.put_lot(under_way, lot).await?;
        Ok(entries)
    }
}

#[deny(clippy::missing_trait_methods)]
impl Read for RocksDb {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        self.reader.get(key)
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        self.reader.get_many(keys)
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        self.reader.scan(scan)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for RocksDb {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.may_write(Operation::Write)?;
        self.profile.guarantees.check_batch(&batch)?;
        if self.is_inline(&batch) && self.write_now(&batch)? {
            return Ok(Commit::done());
        }
        let sync = self.sync;
        self.reader.offload(move |engine| engine.write(&batch, sync)).await?;
        // RocksDB has sequence numbers, but does not say which one a batch got.
        Ok(Commit::done())
    }

    /// Each batch is handed to the operating system by itself; with `sync`, one fsync saves them all.
    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        if let Err(error) = self.may_write(Operation::Write) {
            return complete(vec![Err(error)], group.len());
        }
        let checked = |batch: Batch| self.profile.guarantees.check_batch(&batch).map(|()| batch);
        let (mut group, rest) = admitted(group, checked);
        let mut answers = self.write_start_now(&mut group);
        if !group.is_empty() && answers.iter().all(Result::is_ok) {
            let (batches, sync) = (group.len(), self.sync);
            let written = self.reader.offload(move |engine| Ok(engine.write_group(&group, sync)));
            answers
                .extend(written.await.unwrap_or_else(|error| complete(vec![Err(error)], batches)));
        }
        let answers = answers.into_iter().map(|answer| answer.map(|()| Commit::done()));
        rest.after(answers.collect())
    }

    /// In lots of 32 MiB, each of which is there wholly or not at all.
    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        self.may_write(Operation::Ingest)?;
        let mut under_way = None;
        let read = self.put_run(run, &mut under_way).await;
        let written = match under_way {
            Some(under_way) => under_way.await,
            None => Ok(()),
        };
        let entries = read?;
        written.map(|()| entries)
    }

    async fn changes(&self) -> Result<Changes> {
        self.reader.view()?;
        Err(Error::unsupported(match self.only_reads {
            true => "RocksDB does not tell what another process changes",
            false => {
                "only this process can change the database while it is open, so there is no change feed"
            }
        }))
    }

    /// There is nothing in front of the data here.
    async fn invalidate(&self, _: Scope) -> Result<()> {
        self.reader.view().map(drop)
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        let value = self.get(key).await?;
        Ok(vec![Inspection::of_entry(RocksDbConfig::NAME, "disk", value.as_ref())])
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        // Taken before the engine is looked up, so that closing finds the snapshot or this finds it closed.
        let mut snapshots = self.snapshots.lock();
        let snapshot = Arc::new(Reader::new(Moment::of(self.reader.view()?)));
        snapshots.retain(|snapshot| snapshot.strong_count() > 0);
        snapshots.push(Arc::downgrade(&snapshot));
        Ok(snapshot)
    }

    async fn flush(&self) -> Result<()> {
        if self.only_reads {
            return self.reader.view().map(drop);
        }
        self.reader.offload(|engine| engine.sync(Operation::Flush)).await
    }

    async fn compact(&self) -> Result<()> {
        self.may_write(Operation::Compact)?;
        if self.folders > 1 {
            return Err(Error::unsupported(
                "a compaction by hand would write all tables into the first folder of `db_paths`; those that RocksDB makes by itself keep to their sizes",
            ));
        }
        self.reader.offload(Engine::compact).await
    }

    async fn usage(&self) -> Result<Usage> {
        Ok(self.reader.view()?.usage())
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        let mut counted = 0;
        let mut from = Some(prefix.to_vec());
        while let Some(at) = from.take() {
            let prefix = prefix.to_vec();
            let lot = self.reader.offload(move |engine| engine.count(at, &prefix)).await?;
            counted += lot.0;
            from = lot.1;
        }
        Ok(Some(counted))
    }

    async fn close(&self) -> Result<()> {
        let closing = match self.reader.close() {
            Some(engine) => {
                for snapshot in self.snapshots.lock().drain(..) {
                    snapshot.upgrade().and_then(|snapshot| snapshot.close());
                }
                // A second call finds nothing left to sync, so this one is not called off.
                let (tables, only_reads) = (Arc::clone(&self.tables), self.only_reads);
                let closing = spawn(move || {
                    let last = engine.leave();
                    if only_reads {
                        return Ok(());
                    }
                    if last {
                        tables.remove_folder();
                    }
                    let flushed = engine.sync(Operation::Close);
                    if last {
                        engine.cancel_background_work();
                    }
                    flushed
                })?;
                Some(closing.in_any_case())
            }
            None => None,
        };
        let flushed = match closing {
            Some(closing) => closing.await,
            None => Ok(()),
        };
        // Nothing is ever sent: it fails when the sender is dropped, along with the database.
        let _ = self.gone.clone().changed().await;
        flushed
    }

    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    fn identity(&self) -> Option<Identity> {
        self.identity.clone()
    }
}

impl fmt::Debug for RocksDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksDb").field("sync", &self.sync).finish_non_exhaustive()
    }
}
