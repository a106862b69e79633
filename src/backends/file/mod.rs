//! `file`: a folder with one file for each entry, which people can see and edit.
//!
//! # Guarantees
//! A folder of files is opened as it is: the file `docs/readme.md` is the entry `docs/readme.md`, its content
//! the value. Nothing is added but the folder `.tierstack`, with a lock, the layout and what is under way.
//! Any key can be stored; names stay readable where the key is text ([`Names`]). Batches are atomic, for
//! readers of this process and across a crash, by a small file that says what is about to be done. An
//! acknowledged write survives a power cut with `sync`, the default, and a crash of the process without.
//! What other programs change is seen at once. Scans are in the order of the keys. One process at a time
//! can open a folder as a store.
//!
//! # Gives up
//! Snapshots, expiry (the `expire` layer adds it), counting. Other programs see a batch file by file. What
//! in the folder is no regular file (symbolic links among it) or has a name that stands for no key is
//! refused or passed by ([`Foreign`]), never followed. A file that is replaced is a new one with the owner,
//! rights and extended attributes of the old; its other names (hard links) keep the old content.
//! A folder that becomes empty by a delete is removed.
//!
//! # Cancellation
//! Everything runs in threads of the runtime. A write takes effect wholly or not at all: dropped before a
//! thread has begun it, not at all. An idle scan holds no file, no lock and no thread.
//!
//! # Errors
//! Opening: `Config` (settings, layout, a file system that does not keep names), `Conflict` (open
//! elsewhere; says in which process), `Access` (a folder that is not writable), `Corruption` (a damaged
//! intent or layout). Later: `InvalidInput`, `Unsupported` (an expiry; foreign things), `Capacity` (disk full:
//! nothing was written; a file over 1 GiB), `Conflict` (a key that was to be absent), `Access`. A batch that
//! a failing disk left half done is `Unavailable`, and so is every operation until one has finished it. After
//! a sync that failed, writes are `Unavailable` until the store is opened again.
//!
//! # Configuration
//! `file: { path: ./data/documents }`; see [`FileConfig`].
//!
//! # Example
//! ```
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path();
//! # tokio_test::block_on(async {
//! use tierstack::backends::{FileConfig, FileStore};
//! use tierstack::{Read, Store, StoreExt};
//!
//! std::fs::write(path.join("notes.md"), "as it is").unwrap();
//! let store = FileStore::open(FileConfig::new(path)).await?;
//! assert_eq!(store.get(b"notes.md").await?, Some("as it is".into()));
//!
//! store.put("docs/readme.md", "Hello").await?;
//! assert_eq!(std::fs::read(path.join("docs/readme.md")).unwrap(), b"Hello");
//! store.close().await?;
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

mod backend_config;
mod batch;
mod blocking;
mod config;
mod core;
mod entry_files;
mod error;
mod fault;
mod folder;
mod intent;
mod layout_file;
mod names;
mod open;
mod own_files;
mod prepare;
mod scan;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;

use self::blocking::offload;
pub use self::config::{FileConfig, Foreign};
use self::core::Core;
use self::entry_files::{Touched, Tree};
pub use self::names::Names;
use crate::error::{Error, Operation, Result};
use crate::filesystem;
use crate::layer::BackendConfig;
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::types::{
    Batch, Commit, Identity, Inspection, Op, Profile, RunOrder, Scan, Scope, Usage, Value,
    check_key,
};

/// A folder with a file for each entry. See the [module docs](self).
pub struct FileStore {
    core: Arc<Core>,
    identity: Option<Identity>,
    profile: Profile,
}

/// Changed folders that an ingest remembers before it syncs them.
const MOST_TOUCHED: usize = 4096;

impl FileStore {
    /// Opens or makes the folder.
    ///
    /// # Errors
    /// See the [module docs](self). A dropped future may leave the folder locked for a moment.
    pub async fn open(config: FileConfig) -> Result<Self> {
        Self::open_for(config, true).await
    }

    async fn open_for(config: FileConfig, may_create: bool) -> Result<Self> {
        let profile = config.profile()?;
        let opening = offload(move || {
            let core = open::open(&config, may_create)?;
            let about = std::fs::metadata(&config.path).ok();
            let parts = about.as_ref().and_then(filesystem::identity);
            let identity = parts.map(|parts| {
                Identity::new(FileConfig::NAME, &parts.each_ref().map(String::as_str))
            });
            Ok((core, identity))
        });
        let (core, identity) = opening.await.map_err(|error| told(error, Operation::Open))?;
        Ok(Self { core: Arc::new(core), identity, profile })
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce(&Core) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let core = Arc::clone(&self.core);
        offload(move || work(&core)).await.map_err(|error| told(error, operation))
    }

    fn read<'a, T: Send + 'static>(
        &'a self,
        operation: Operation,
        keys: &[&[u8]],
        work: impl FnOnce(&Tree) -> Result<T> + Send + 'static,
    ) -> Reply<'a, T> {
        let wrong = keys.iter().find_map(|key| check_key(key).err());
        if let Some(error) = self.core.check_open().err().or(wrong) {
            return Reply::Now(Err(told(error, operation)));
        }
        Reply::later(self.run(operation, move |core| core.reading(work)))
    }
}

fn told(error: Error, operation: Operation) -> Error {
    error.with_operation(operation).with_layer(FileConfig::NAME)
}

#[deny(clippy::missing_trait_methods)]
impl Read for FileStore {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        let wanted = Bytes::copy_from_slice(key);
        self.read(Operation::Get, &[key], move |tree| {
            let value = tree.get(&wanted).map_err(|error| error.with_key(&wanted))?;
            Ok(value.map(Value::new))
        })
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        let wanted = keys.to_vec();
        let keys: Vec<&[u8]> = keys.iter().map(Bytes::as_ref).collect();
        self.read(Operation::GetMany, &keys, move |tree| {
            let values = wanted.iter().map(|key| {
                let value = tree.get(key).map_err(|error| error.with_key(key))?;
                Ok(value.map(Value::new))
            });
            values.collect()
        })
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        scan::pages(&self.core, scan)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for FileStore {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.profile.guarantees.check_batch(&batch)?;
        self.run(Operation::Write, move |core| core.write(&batch)).await?;
        Ok(Commit::done())
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        crate::write_in_order(self, group).await
    }

    /// A page at a time: its values are written and synced concurrently, and each folder is synced
    /// once, at the end.
    async fn ingest(&self, mut run: Pages<'_>) -> Result<u64> {
        self.core.check_open()?;
        let (mut order, mut entries, mut touched) = (RunOrder::default(), 0, Touched::new());
        while let Some(page) = run.try_next().await? {
            order.check(&page)?;
            entries += page.len() as u64;
            let puts = page.entries.into_iter().map(|entry| Op::Put(entry.key, entry.value));
            let batch: Batch = puts.collect();
            self.profile.guarantees.check_batch(&batch)?;
            let ingesting = self.run(Operation::Ingest, move |core| {
                core.ingest(&batch, &mut touched)?;
                if touched.len() > MOST_TOUCHED {
                    core.sync_touched(&std::mem::take(&mut touched))?;
                }
                Ok(touched)
            });
            touched = ingesting.await?;
        }
        self.run(Operation::Ingest, move |core| core.sync_touched(&touched)).await?;
        Ok(entries)
    }

    async fn changes(&self) -> Result<Changes> {
        self.core.check_open()?;
        Err(Error::unsupported(
            "a folder has no change feed: it does not report what other programs change in it",
        ))
    }

    /// There is nothing in front of the data here.
    async fn invalidate(&self, _: Scope) -> Result<()> {
        self.core.check_open()
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        let value = self.get(key).await?;
        Ok(vec![Inspection::of_entry(FileConfig::NAME, "folder", value.as_ref())])
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        self.core.check_open()?;
        Err(Error::unsupported(
            "a folder of files has no snapshots; a backend such as `rocksdb` or `sqlite` has them",
        ))
    }

    async fn flush(&self) -> Result<()> {
        self.run(Operation::Flush, Core::flush).await
    }

    async fn compact(&self) -> Result<()> {
        self.core.check_open()
    }

    async fn usage(&self) -> Result<Usage> {
        self.core.check_open()?;
        Ok(Usage::default())
    }

    /// All files, whatever they are called. `Unsupported` where reads pass over some.
    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        if !prefix.is_empty() {
            return self.core.check_open().map(|()| None);
        }
        self.run(Operation::Usage, |core| core.reading(Tree::count)).await.map(Some)
    }

    async fn close(&self) -> Result<()> {
        self.run(Operation::Close, Core::close).await
    }

    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    fn identity(&self) -> Option<Identity> {
        self.identity.clone()
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("sync", &self.core.sync).finish_non_exhaustive()
    }
}
