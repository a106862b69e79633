//! Stores with known entries, and object stores and targets that misbehave.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use parking_lot::Mutex;
use tierstack::backends::Memory;
use tierstack::backup::{
    self, Chunking, Level, Plan, Repository, RepositoryOptions, Restore, Restored, Target,
};
use tierstack::{
    Batch, Clock, Commit, Entry, Error, ErrorKind, Guarantees, ManualClock, Op, Profile, Read,
    ReadExt, Result, Scan, Store, Value, forward,
};

/// Runs of a few entries, pieces of 100 bytes, packs of 2 KiB: everything happens in a small repository.
pub fn small() -> RepositoryOptions {
    RepositoryOptions {
        chunking: Chunking {
            min_entries: 2,
            average_entries: 4,
            max_entries: 16,
            key_bytes: 4096,
            inline_bytes: 64,
            piece_bytes: 100,
        },
        pack_bytes: 2048,
    }
}

pub async fn repository(objects: &Arc<InMemory>, clock: &ManualClock) -> Repository {
    let objects: Arc<dyn ObjectStore> = objects.clone();
    Repository::create_or_open_with(objects, Arc::new(clock.clone()), &small()).await.unwrap()
}

pub async fn open(objects: &Arc<InMemory>) -> Result<Repository> {
    Repository::open(objects.clone(), Arc::new(ManualClock::new())).await
}

/// A store with numbered entries, some of them large, none of them compressible.
pub async fn filled(entries: u64) -> Memory {
    let store = Memory::with_clock(Arc::new(ManualClock::new()));
    for number in 0..entries {
        put(&store, number, number).await;
    }
    store
}

/// Sets an entry to a value that depends on `version`.
pub async fn put(store: &dyn Store, number: u64, version: u64) {
    let length = if number % 17 == 3 { 250 } else { (version % 40) as usize };
    let mut random = version.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let value: Vec<u8> = (0..length)
        .map(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as u8
        })
        .collect();
    let op = Op::Put(format!("key-{number:06}").into(), Value::new(value));
    let _ = store.write([op].into_iter().collect()).await.unwrap();
}

pub async fn all<R: Read + ?Sized>(store: &R) -> Vec<Entry> {
    store.collect(Scan::all()).await.unwrap()
}

pub async fn take(store: &dyn Store, repository: &Repository) -> backup::BackupReport {
    backup::run(store, repository, &|_| ()).await.unwrap()
}

pub async fn restore(repository: &Repository, target: Target) -> Result<(Memory, Restored)> {
    let plan: Plan = repository.plan(target).await?;
    let store = Memory::with_clock(Arc::new(ManualClock::new()));
    let restored = backup::restore(repository, &plan, &store, &Restore::default(), &|_| ()).await?;
    Ok((store, restored))
}

/// That every base of the repository is whole.
pub async fn assert_intact(repository: &Repository) {
    let report = repository.verify(Level::All, &|_| ()).await.unwrap();
    assert!(report.is_intact(), "{report:?}");
}

/// Another object store with the same objects.
pub async fn copy(objects: &InMemory) -> Arc<InMemory> {
    let copy = InMemory::new();
    for (path, bytes) in objects_of(objects).await {
        copy.put(&path, bytes.into()).await.unwrap();
    }
    Arc::new(copy)
}

pub async fn objects_of(objects: &dyn ObjectStore) -> Vec<(Path, Bytes)> {
    let mut found = Vec::new();
    let mut list = objects.list(None);
    while let Some(meta) = list.next().await {
        let path = meta.unwrap().location;
        let bytes = objects.get(&path).await.unwrap().bytes().await.unwrap();
        found.push((path, bytes));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// What a faulty object store does with a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// As asked.
    None,
    /// Nothing happens, and an error is told.
    Before,
    /// It happens, and an error is told.
    After,
    /// It happens, and it is told that the object exists: what a retry inside the client meets.
    AfterAsExisting,
    /// Nothing happens, and it is told that the object exists: what S3's 409 becomes.
    BeforeAsExisting,
    /// The condition is ignored.
    Overwrite,
    /// The condition is looked at, and forgotten when the object is written.
    Racy,
}

type Decide = Box<dyn Fn(u64, &Path) -> Fault + Send + Sync>;
type Wait = Box<dyn Fn(&Path) -> BoxFuture<'static, ()> + Send + Sync>;

/// An object store whose writes fail as a function of their number and name decides.
pub struct Faulty {
    pub inner: Arc<dyn ObjectStore>,
    pub puts: AtomicU64,
    pub lists: AtomicU64,
    pub decide: Mutex<Decide>,
    pub wait: Option<Wait>,
}

impl Faulty {
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        decide: impl Fn(u64, &Path) -> Fault + Send + Sync + 'static,
    ) -> Arc<Self> {
        let decide = Mutex::new(Box::new(decide) as Decide);
        Arc::new(Self { inner, puts: 0.into(), lists: 0.into(), decide, wait: None })
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

fn generic() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "the line was cut".into() }
}

fn exists(path: &Path) -> object_store::Error {
    object_store::Error::AlreadyExists { path: path.to_string(), source: "409".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        if let Some(wait) = &self.wait {
            wait(path).await;
        }
        let number = self.puts.fetch_add(1, Ordering::SeqCst);
        let fault = self.decide.lock()(number, path);
        match fault {
            Fault::None => self.inner.put_opts(path, payload, options).await,
            Fault::Before => Err(generic()),
            Fault::BeforeAsExisting => Err(exists(path)),
            Fault::After => {
                self.inner.put_opts(path, payload, options).await?;
                Err(generic())
            }
            Fault::AfterAsExisting => {
                self.inner.put_opts(path, payload, options).await?;
                Err(exists(path))
            }
            Fault::Overwrite => self.inner.put(path, payload).await,
            Fault::Racy => {
                if options.mode == PutMode::Create && self.inner.head(path).await.is_ok() {
                    return Err(exists(path));
                }
                tokio::task::yield_now().await;
                self.inner.put(path, payload).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(
        &self,
        path: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, path: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.inner.list(path)
    }

    async fn list_with_delimiter(&self, path: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(path).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A store that guarantees less, and whose writes fail after some.
pub struct Lesser {
    pub inner: Memory,
    pub change: fn(&mut Guarantees),
    pub writes_left: AtomicI64,
}

impl Lesser {
    pub fn new(change: fn(&mut Guarantees)) -> Self {
        Self { inner: Memory::new(), change, writes_left: i64::MAX.into() }
    }
}

impl Read for Lesser {
    forward!(self => self.inner; get, get_many, scan);
}

#[async_trait]
impl Store for Lesser {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        let guarantees = self.profile().guarantees;
        if batch.len() > 1 && !guarantees.atomic_batches {
            return Err(Error::unsupported("no batches"));
        }
        if self.writes_left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(Error::new(ErrorKind::Unavailable, "the server is gone"));
        }
        self.inner.write(batch).await
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        tierstack::write_in_order(self, group).await
    }

    fn profile(&self) -> Profile {
        self.inner.profile().changed(self.change)
    }

    forward!(self => self.inner; ingest, changes, invalidate, inspect, snapshot, flush, compact, usage, count, close, identity);
}

pub fn clock(clock: &ManualClock) -> Arc<dyn Clock> {
    Arc::new(clock.clone())
}
