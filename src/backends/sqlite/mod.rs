//! `sqlite`: a table of a SQLite database, as it is.
//!
//! # Guarantees
//! It opens the table that a user already has, under the names that the settings give, and reads its
//! rows as they are; or makes one. Batches are transactions. An acknowledged write survives a power cut
//! with `sync`, the default, and a crash of the process without. Other programs may read and write the
//! database meanwhile: what they commit is seen at once. Snapshots see one moment. Expiry is kept in a
//! column, by the clock of the process; what has expired is not there, and is removed by later writes
//! and by `compact`.
//!
//! A get, and a small write that need not be synced, are done on the caller's thread as long as they
//! take microseconds there, as a hop to another thread costs several times as much. SQLite cannot tell
//! beforehand whether it will need the disk: when more than one in 128 operations has lately taken over
//! 150 µs, they go to threads, until for long enough nearly all were fast there. So a few reads of the
//! disk happen on the caller's thread. Everything else runs in threads.
//!
//! # Gives up
//! Counting entries, which SQLite does by reading them. A change feed. A key that is not
//! stored as the setting `keys` says, a value that is a number, or a NULL: reading it is an error.
//! Views, virtual tables, and text that is not in UTF-8.
//!
//! # Cancellation
//! A read in a thread ends by itself and is dropped. A write takes effect wholly or not at all; one that
//! no thread has begun does not. An idle scan holds neither a connection nor a transaction.
//!
//! # Errors
//! Opening: `Config` (settings; no such table or column; a type, index or journal mode that does not
//! fit, with the setting that would; made by a newer tierstack), `Access`, `Corruption` (also of a file
//! that is no database), `Unavailable` (locked). Later: `InvalidInput` (key, limits; a constraint of the
//! table), `Unavailable` when another program holds its lock for longer than `busy_timeout`, `Capacity`
//! when the disk is full or too many snapshots are open, `Access`, `Corruption`, `Config` when somebody
//! has changed the table, `Closed`, also once the disk has failed to save a write.
//!
//! The stores of a process over one file take turns to write, so none finds it locked by another; once the disk has failed
//! to save a write of one, each refuses to write.
//!
//! Closing waits for operations that run. Snapshots that are still alive then fail with `Closed`.
//!
//! # Configuration
//! `sqlite: { path: ./data.db }`; see [`SqliteConfig`].
//!
//! # Example
//! ```
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("data.db");
//! # tokio::runtime::Builder::new_multi_thread().build().unwrap().block_on(async {
//! use tierstack::backends::{Sqlite, SqliteConfig};
//! use tierstack::{Read, Store, StoreExt};
//!
//! let store = Sqlite::open(SqliteConfig::new(path)).await?;
//! store.put("user:1", "Ada").await?;
//! assert_eq!(store.get(b"user:1").await?, Some("Ada".into()));
//! store.close().await?;
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod backend_config;
mod config;
mod error;
mod indexes;
mod inline_policy;
mod key;
mod number;
mod open;
mod pool;
mod read;
mod rows;
mod shared_database;
mod statements;
mod survey;
mod table_columns;
#[cfg(test)]
mod tests;
mod times;
mod untouched;
mod value;
mod verify;
mod writer;

use std::fmt;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use parking_lot::Mutex;

pub use self::config::{Columns, Journal, Keys, SqliteConfig, Storage};
use self::error::NAME;
use self::pool::{Base, Moment, Pool, Source, offload};
use self::read::Reader;
use self::statements::Layout;
use self::writer::{Manner, Writer};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::layer::BackendConfig;
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
pub use crate::types::{All, ExpiresUnit, Fields, KeyColumns, RowColumns, RowForm, ValueColumns};
use crate::types::{
    Batch, Commit, Identity, Inspection, Op, Profile, RunOrder, Scan, Scope, Usage, Value,
};
use crate::write_group::{admitted, complete};

/// A table of a SQLite database. See the [module docs](self).
pub struct Sqlite {
    base: Arc<Base>,
    reader: Reader<Pool>,
    /// The snapshots that may be alive, to be taken away when the store is closed.
    snapshots: Mutex<Vec<Weak<Moment>>>,
    /// `None`: opened for reading only.
    writer: Option<Writer>,
    identity: Option<Identity>,
    profile: Profile,
}

/// Bytes of a transaction of a run.
const INGEST_BYTES: usize = 2 << 20;

impl Sqlite {
    /// Opens the database, or makes it, with expiry by the system's clock.
    ///
    /// # Errors
    /// See the [module docs](self). A dropped future may leave the database open for a moment.
    pub async fn open(config: SqliteConfig) -> Result<Self> {
        Self::open_with_clock(config, SystemClock::shared()).await
    }

    /// Like [`open`](Self::open), with expiry by that clock.
    ///
    /// # Errors
    /// Like [`open`](Self::open).
    pub async fn open_with_clock(config: SqliteConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_for(config, clock, true).await
    }

    /// Without `background`, what has expired is removed by `compact` only.
    async fn open_for(
        config: SqliteConfig,
        clock: Arc<dyn Clock>,
        background: bool,
    ) -> Result<Self> {
        let profile = config.profile()?;
        let opening = offload(move || {
            let mut layout = Layout::new(&config);
            let opened = open::open(&config, &mut layout)?;
            let first = opened.site.reader()?;
            let (sync, sweep) = (config.sync, config.sweep);
            let manner = Manner { sync, wal: opened.wal, sweep, background };
            let identity = opened.site.identity(&layout);
            let base = Arc::new(Base::new(opened.site, layout, clock));
            let writer = match config.read_only {
                true => None,
                false => Some(Writer::start(Arc::clone(&base), opened.db, opened.found, manner)?),
            };
            Ok((base, first, writer, identity))
        });
        let (base, first, writer, identity) = opening
            .await
            .map_err(|error| error.with_operation(Operation::Open).with_layer(NAME))?;
        let reader = Reader(Arc::new(Pool::new(Arc::clone(&base), first)));
        Ok(Self { base, reader, snapshots: Mutex::default(), writer, identity, profile })
    }

    /// Reads the whole database, all tables and indexes, and checks that they are sound and agree.
    /// Reads and writes go on meanwhile.
    ///
    /// # Errors
    /// `Corruption` that says what is wrong first; as a read otherwise. After a dropped future it goes
    /// on to its end.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("data.db");
    /// # tokio::runtime::Builder::new_multi_thread().build().unwrap().block_on(async {
    /// use tierstack::backends::{Sqlite, SqliteConfig};
    /// use tierstack::{Store, StoreExt};
    ///
    /// let store = Sqlite::open(SqliteConfig::new(path)).await?;
    /// store.put("user:1", "Ada").await?;
    /// store.integrity_check().await?;
    /// # store.close().await?;
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    pub async fn integrity_check(&self) -> Result<()> {
        let pool = Arc::clone(&self.reader.0);
        pool.in_thread(|db| open::check(db, "integrity_check", Operation::Get)).await
    }

    fn writer(&self) -> Result<&Writer> {
        self.base.check_open()?;
        self.writer.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Access,
                "the database is open for reading only (`read_only: true`)",
            )
            .with_layer(NAME)
        })
    }

    fn check_batch(&self, batch: &Batch) -> Result<()> {
        self.profile.guarantees.check_batch(batch)?;
        for condition in batch.conditions() {
            let checked = self.base.layout.key.check(condition.key());
            checked.map_err(|error| error.with_key(condition.key()))?;
        }
        batch.ops().iter().try_for_each(|op| self.base.layout.check_op(op))
    }
}

#[deny(clippy::missing_trait_methods)]
impl Read for Sqlite {
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
impl Store for Sqlite {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        let writer = self.writer()?;
        self.check_batch(&batch)?;
        if !batch.is_empty() || batch.is_conditional() {
            writer.write(batch).await?;
        }
        // SQLite does not number its transactions.
        Ok(Commit::done())
    }

    /// In one transaction, with a savepoint for each batch.
    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        let writer = match self.writer() {
            Ok(writer) => writer,
            Err(error) => return complete(vec![Err(error)], group.len()),
        };
        let (group, rest) = admitted(group, |batch| self.check_batch(&batch).map(|()| batch));
        let answers = match group.is_empty() {
            true => Vec::new(),
            false => writer.write_group(group).await,
        };
        let answers = answers.into_iter().map(|answer| answer.map(|()| Commit::done()));
        rest.after(answers.collect())
    }

    /// In large transactions: the next is gathered while one is written.
    async fn ingest(&self, mut run: Pages<'_>) -> Result<u64> {
        let writer = self.writer()?;
        let (mut order, mut entries) = (RunOrder::default(), 0);
        let mut lot = Vec::new();
        let mut bytes = 0;
        while let Some(page) = run.try_next().await? {
            order.check(&page)?;
            entries += page.len() as u64;
            bytes += page.bytes();
            lot.extend(page.entries.into_iter().map(|entry| Op::Put(entry.key, entry.value)));
            if bytes >= INGEST_BYTES {
                bytes = 0;
                let batch = std::mem::take(&mut lot).into_iter().collect();
                self.check_batch(&batch)?;
                writer.write(batch).await?;
            }
        }
        let _ = self.write(lot.into_iter().collect()).await?;
        Ok(entries)
    }

    async fn changes(&self) -> Result<Changes> {
        self.base.check_open()?;
        Err(Error::unsupported(
            "SQLite has no change feed: it does not report what other programs write",
        ))
    }

    /// There is nothing in front of the data here.
    async fn invalidate(&self, _: Scope) -> Result<()> {
        self.base.check_open()
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        let value = self.get(key).await?;
        Ok(vec![Inspection::of_entry(NAME, "table", value.as_ref())])
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        self.base.check_open()?;
        if !self.profile.guarantees.snapshots {
            return Err(Error::unsupported(
                "with a rollback journal a snapshot would hold up every write; `journal: wal` has snapshots",
            ));
        }
        let moment = Arc::new(self.reader.0.freeze().await?);
        let mut snapshots = self.snapshots.lock();
        // Closing looks for snapshots after it has said that it closes.
        self.base.check_open()?;
        snapshots.retain(|snapshot| snapshot.strong_count() > 0);
        snapshots.push(Arc::downgrade(&moment));
        Ok(Arc::new(Reader(moment)))
    }

    async fn flush(&self) -> Result<()> {
        self.base.check_open()?;
        match &self.writer {
            Some(writer) => writer.flush().await,
            None => Ok(()),
        }
    }

    /// Removes what has expired, gives unused pages back, and empties the log, in short steps between
    /// which writes go on.
    async fn compact(&self) -> Result<()> {
        let writer = self.writer()?;
        let mut behind = Bytes::new();
        while let Some(last) = writer.run(move |engine| engine.expire(&behind)).await? {
            behind = last;
        }
        while writer.run(|engine| engine.shrink()).await? {}
        writer
            .run(|engine| {
                engine.empty_log();
                Ok(())
            })
            .await
    }

    async fn usage(&self) -> Result<Usage> {
        self.base.check_open()?;
        let base = Arc::clone(&self.base);
        let stored = offload(move || base.site.bytes()).await?;
        Ok(Usage { stored_bytes: Some(stored), ..Usage::default() })
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.base.check_open()?;
        if self.base.layout.no_scans.is_some() {
            return Ok(None);
        }
        self.reader.count(prefix).await.map(Some)
    }

    async fn close(&self) -> Result<()> {
        self.reader.0.close().await;
        let alive: Vec<_> = self.snapshots.lock().drain(..).collect();
        for snapshot in alive.iter().filter_map(Weak::upgrade) {
            snapshot.close().await;
        }
        match &self.writer {
            Some(writer) => writer.close().await,
            None => Ok(()),
        }
    }

    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    fn identity(&self) -> Option<Identity> {
        self.identity.clone()
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("profile", &self.profile.to_string()).finish_non_exhaustive()
    }
}
