//! Taking a base: snapshot, packs, manifest, head, in this order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use tokio::task::{JoinHandle, JoinSet};
use tracing::Instrument as _;

use super::chunk::{Cutter, FRAME_HEADER, PACK_MAGIC, RunWriter, encode_frame};
use super::content_digest::Digest;
use super::documents::{BaseInfo, Hash, HeadBase, manifest_path, pack_path, random_id};
use super::manifest::{ChunkLocation, Lists, Pack, Run, boundary};
use super::objects::Created;
use super::progress::{OnProgress, Progress};
use super::repository::{MAX_PACK_BYTES, Repository, State, conflict};
use super::restore::unfinished_restore;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::Store;
use crate::types::{Entry, RESERVED_PREFIX, Scan};

/// Packs that are uploaded at a time: with the one being filled, this bounds the memory.
const UPLOADS: usize = 4;
/// Chunks that are hashed and compressed at a time.
const SEALERS: usize = 4;
/// Packs whose presence is asked for at a time.
const QUESTIONS: usize = 16;

/// A base that was taken.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use object_store::memory::InMemory;
/// use tierstack::backends::Memory;
/// use tierstack::backup::{self, Repository};
/// use tierstack::{StoreExt, SystemClock};
///
/// let store = Memory::new();
/// store.put("user:1", "Ada").await?;
/// let repository =
///     Repository::create_or_open(Arc::new(InMemory::new()), SystemClock::shared()).await?;
/// let first = backup::run(&store, &repository, &|_| ()).await?;
/// assert_eq!((first.base.entries, first.base.bytes), (1, 9));
///
/// // Nothing has changed since, so nothing is uploaded again.
/// let second = backup::run(&store, &repository, &|_| ()).await?;
/// assert_eq!(second.base.parent, Some(first.base.id));
/// assert_eq!(second.progress.uploaded_bytes, 0);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BackupReport {
    /// The base.
    pub base: BaseInfo,
    /// What it took.
    pub progress: Progress,
}

/// Takes a base of the store. Chunks that the newest base has, in packs that are there, are not uploaded
/// again.
///
/// The store should be what is below the `backup` layer: a base holds what the backend holds. A dropped
/// future leaves no base, and at most objects that nothing refers to.
///
/// # Errors
/// `Unsupported` if the store lacks snapshots or ordered scans, or the object store keeps writers apart
/// no more; `Conflict` if another writer was faster, or the store holds a restore that has not finished;
/// `Corruption` of the store or the repository; `Unavailable`, after which it is unknown whether the
/// base was taken; `Access`, `Capacity`.
pub async fn run(
    store: &dyn Store,
    repository: &Repository,
    on_progress: OnProgress<'_>,
) -> Result<BackupReport> {
    take(store, repository, true, on_progress)
        .await
        .map_err(|error| error.with_operation(Operation::Backup))
}

/// Takes a base and uploads all of it, whatever earlier bases have: what to do after `verify` has found
/// damage, so that later bases do not refer to it.
///
/// # Errors
/// Like [`run`].
pub async fn run_whole(
    store: &dyn Store,
    repository: &Repository,
    on_progress: OnProgress<'_>,
) -> Result<BackupReport> {
    take(store, repository, false, on_progress)
        .await
        .map_err(|error| error.with_operation(Operation::Backup))
}

#[tracing::instrument(name = "backup", skip_all)]
async fn take(
    store: &dyn Store,
    repository: &Repository,
    reuse: bool,
    on_progress: OnProgress<'_>,
) -> Result<BackupReport> {
    check_source(store).await?;
    repository.check_create().await?;
    let state = repository.state().await?;
    let earlier = if reuse { Earlier::of(repository, &state).await? } else { Earlier::default() };

    let clock_before = repository.clock.now();
    let snapshot = store.snapshot().await?;
    let time = repository.clock.now();
    let mut base = BaseInfo {
        id: random_id()?,
        lineage: state.lineage.id.clone(),
        parent: state.bases.last().map(|entry| entry.base.id.clone()),
        started: clock_before.min(time),
        time,
        first_seq: None,
        last_seq: None,
        entries: 0,
        expiring: 0,
        bytes: 0,
        longest_key: 0,
        longest_value: 0,
        uploaded_bytes: 0,
        digest: Hash([0; 32]),
    };

    let mut writer = Writer::new(repository, earlier, on_progress);
    let mut digest = Digest::new(&repository.doc.key);
    let mut last_key = Bytes::new();
    let mut pages = snapshot.scan(Scan::all());
    while let Some(page) = pages.try_next().await? {
        for entry in page.entries {
            if entry.key <= last_key {
                let what = "the store's scan is not in key order";
                return Err(Error::internal(what).with_key(&entry.key));
            }
            let before = std::mem::replace(&mut last_key, entry.key.clone());
            if !entry.key.starts_with(RESERVED_PREFIX) {
                count(&mut base, &entry);
                digest.add(&entry);
                writer.add(&before, entry).await?;
            }
        }
        writer.tell();
    }
    drop(pages);
    drop(snapshot);
    base.digest = digest.finish();

    let (lists, progress) = writer.finish().await?;
    base.uploaded_bytes = progress.uploaded_bytes;
    let entry = put_manifest(repository, &base, &lists).await?;
    repository.commit(&state, entry).await?;
    Ok(BackupReport { base, progress })
}

async fn check_source(store: &dyn Store) -> Result<()> {
    let profile = store.profile();
    let lacks = match (profile.guarantees.snapshots, profile.guarantees.ordered_scans) {
        (true, true) => {
            // In an image, as layers refuse to read reserved keys. Where even that is refused, a stack hides them,
            // which was looked at when it was opened.
            let unfinished = match unfinished_restore(&*store.snapshot().await?).await {
                Err(error) if error.kind() == ErrorKind::InvalidInput => None,
                found => found?,
            };
            return match unfinished {
                None => Ok(()),
                Some(_) => Err(Error::new(
                    ErrorKind::Conflict,
                    "this store holds a restore that has not finished; finish it or empty the store",
                )),
            };
        }
        (false, _) => "snapshots",
        (_, false) => "ordered scans",
    };
    Err(Error::unsupported(format!(
        "a base is an image of one moment in key order, and '{}' has no {lacks}",
        profile.name
    )))
}

fn count(base: &mut BaseInfo, entry: &Entry) {
    let (key, value) = (entry.key.len() as u64, entry.value.bytes.len() as u64);
    base.entries += 1;
    base.expiring += u64::from(entry.value.expires_at.is_some());
    base.bytes += key + value;
    base.longest_key = base.longest_key.max(key);
    base.longest_value = base.longest_value.max(value);
}

async fn put_manifest(repository: &Repository, base: &BaseInfo, lists: &Lists) -> Result<HeadBase> {
    let bytes = lists.encode(base)?;
    let entry = HeadBase {
        base: base.clone(),
        manifest_bytes: bytes.len() as u64,
        manifest_hash: Hash::of(&bytes),
    };
    match repository.objects.create(&manifest_path(base), &bytes).await? {
        Created::Ours => Ok(entry),
        Created::Theirs => Err(conflict()),
    }
}

/// The chunks of the base before, of which those count whose pack is there.
#[derive(Default)]
struct Earlier {
    packs: Vec<Pack>,
    chunks: HashMap<Hash, ChunkLocation>,
}

impl Earlier {
    async fn of(repository: &Repository, state: &State) -> Result<Self> {
        let Some(last) = state.bases.last() else { return Ok(Self::default()) };
        let manifest = match repository.manifest(last).await {
            Ok(manifest) => manifest,
            Err(error) if error.kind() == ErrorKind::Corruption => {
                tracing::warn!(%error, "the last base cannot be read; everything is uploaded again");
                return Ok(Self::default());
            }
            Err(error) => return Err(error),
        };
        let present: Vec<bool> = futures_util::stream::iter(manifest.packs.clone())
            .map(|pack| async move {
                let size = repository.objects.size(&pack_path(&pack.id)).await?;
                Ok::<_, Error>(size == Some(pack.bytes))
            })
            .buffered(QUESTIONS)
            .try_collect()
            .await?;
        let there = |place: ChunkLocation| present.get(place.pack as usize) == Some(&true);
        let chunks = manifest.chunks.iter().filter(|chunk| there(chunk.place));
        let chunks = chunks.map(|chunk| (chunk.hash, chunk.place)).collect();
        Ok(Self { chunks, packs: manifest.packs })
    }
}

/// A chunk on its way through hashing and compression.
struct Sealing {
    sealed: JoinHandle<Result<Sealed>>,
    run: Option<Run>,
}

/// A chunk with its name.
struct Sealed {
    hash: Hash,
    plain_bytes: u32,
    /// `None`: the base before has the chunk.
    frame: Option<Vec<u8>>,
}

/// Turns entries into chunks, chunks into packs, and uploads packs.
struct Writer<'a> {
    repository: &'a Repository,
    on_progress: OnProgress<'a>,
    progress: Progress,
    earlier: Arc<Earlier>,
    cutter: Cutter,
    run: RunWriter,
    /// The boundary of the run that is being filled, unless it is empty.
    boundary: Bytes,
    sealing: VecDeque<Sealing>,
    /// Where each pack of the base before is in the new list.
    reused: HashMap<u32, u32>,
    /// Pieces only: no key occurs twice, and so no run.
    written: HashMap<Hash, ChunkLocation>,
    lists: Lists,
    /// The pack that is being filled: the last of the list, unless empty.
    pack: Vec<u8>,
    pack_at: usize,
    uploads: JoinSet<Result<u64>>,
}

impl<'a> Writer<'a> {
    fn new(repository: &'a Repository, earlier: Earlier, on_progress: OnProgress<'a>) -> Self {
        Self {
            repository,
            on_progress,
            progress: Progress::default(),
            earlier: Arc::new(earlier),
            cutter: Cutter::new(repository.doc.chunking, repository.doc.key),
            run: RunWriter::default(),
            boundary: Bytes::new(),
            sealing: VecDeque::new(),
            reused: HashMap::new(),
            written: HashMap::new(),
            lists: Lists::default(),
            pack: Vec::new(),
            pack_at: 0,
            uploads: JoinSet::new(),
        }
    }

    fn tell(&self) {
        (self.on_progress)(self.progress);
    }

    /// Adds an entry, which follows the key `before`.
    async fn add(&mut self, before: &[u8], entry: Entry) -> Result<()> {
        let chunking = self.repository.doc.chunking;
        if self.run.entries == 0 {
            self.boundary = boundary(before, &entry.key);
        }
        self.progress.entries += 1;
        self.progress.bytes += (entry.key.len() + entry.value.bytes.len()) as u64;
        if self.run.add(&entry, chunking.inline_bytes) {
            let mut rest = entry.value.bytes;
            while !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(chunking.piece_bytes as usize));
                self.seal(piece, None).await?;
            }
        }
        if self.cutter.ends_with(&entry.key) {
            self.end_run().await?;
        }
        Ok(())
    }

    async fn end_run(&mut self) -> Result<()> {
        let run = std::mem::take(&mut self.run);
        if run.entries == 0 {
            return Ok(());
        }
        let about = Run { entries: run.entries, boundary: std::mem::take(&mut self.boundary) };
        self.seal(run.finish(), Some(about)).await
    }

    /// Has a chunk hashed and compressed; chunks leave in the order in which they came.
    async fn seal(&mut self, plain: Bytes, run: Option<Run>) -> Result<()> {
        if self.sealing.len() >= SEALERS {
            self.settle().await?;
        }
        let (key, earlier) = (self.repository.doc.key, Arc::clone(&self.earlier));
        let sealed = tokio::task::spawn_blocking(move || {
            let hash = Hash::keyed(&key, &plain);
            let known = earlier.chunks.contains_key(&hash);
            let frame = if known { None } else { Some(encode_frame(&hash, &plain)?) };
            // Below 64 MiB: `Chunking::check`.
            Ok(Sealed { hash, plain_bytes: plain.len() as u32, frame })
        });
        self.sealing.push_back(Sealing { sealed, run });
        Ok(())
    }

    /// Gives the chunk that came first its place.
    async fn settle(&mut self) -> Result<()> {
        let Some(Sealing { sealed, run }) = self.sealing.pop_front() else { return Ok(()) };
        let Sealed { hash, plain_bytes, frame } = sealed.await.map_err(panicked)??;
        let place = match (self.written.get(&hash), self.earlier.chunks.get(&hash), frame) {
            (Some(place), _, _) => {
                self.progress.reused_bytes += u64::from(plain_bytes);
                *place
            }
            (None, Some(place), _) => {
                self.progress.reused_bytes += u64::from(plain_bytes);
                self.reuse(*place)?
            }
            (None, None, Some(frame)) => self.write(plain_bytes, &frame).await?,
            (None, None, None) => return Err(Error::internal("a chunk was lost")),
        };
        if run.is_none() {
            self.written.insert(hash, place);
        }
        self.lists.push(&hash, place, run.as_ref());
        Ok(())
    }

    fn reuse(&mut self, mut place: ChunkLocation) -> Result<ChunkLocation> {
        place.pack = match self.reused.get(&place.pack) {
            Some(pack) => *pack,
            None => {
                let old = self.earlier.packs.get(place.pack as usize);
                let old = *old.ok_or_else(|| Error::internal("a chunk's pack is not listed"))?;
                self.lists.packs.push(old);
                let pack = number(self.lists.packs.len() - 1)?;
                self.reused.insert(place.pack, pack);
                pack
            }
        };
        Ok(place)
    }

    async fn write(&mut self, plain_bytes: u32, frame: &[u8]) -> Result<ChunkLocation> {
        if self.pack.is_empty() {
            // It may pass its size by one chunk.
            let chunk = self.repository.doc.chunking.largest_chunk() as usize + FRAME_HEADER;
            self.pack.reserve_exact(self.pack_bytes() + chunk);
            self.pack.extend_from_slice(PACK_MAGIC);
            self.pack_at = self.lists.packs.len();
            // Its name is known when it is full.
            self.lists.packs.push(Pack { id: Hash([0; 32]), bytes: 0 });
        }
        let place = ChunkLocation {
            pack: number(self.pack_at)?,
            offset: self.pack.len() as u64,
            stored_bytes: number(frame.len())?,
            plain_bytes,
        };
        self.pack.extend_from_slice(frame);
        if self.pack.len() >= self.pack_bytes() {
            self.end_pack().await?;
        }
        Ok(place)
    }

    /// When a pack is closed.
    fn pack_bytes(&self) -> usize {
        self.repository.doc.pack_bytes.min(MAX_PACK_BYTES) as usize
    }

    async fn end_pack(&mut self) -> Result<()> {
        let mut pack = std::mem::take(&mut self.pack);
        // The last one may be far from full.
        pack.shrink_to_fit();
        let bytes = Bytes::from(pack);
        if bytes.is_empty() {
            return Ok(());
        }
        let id = Hash::keyed(&self.repository.doc.key, &bytes);
        let size = bytes.len() as u64;
        if let Some(pack) = self.lists.packs.get_mut(self.pack_at) {
            *pack = Pack { id, bytes: size };
        }
        while self.uploads.len() >= UPLOADS {
            self.uploaded().await?;
        }
        let objects = self.repository.objects.clone();
        let upload = async move {
            objects.put_content(&pack_path(&id), bytes).await?;
            Ok(size)
        };
        self.uploads.spawn(upload.in_current_span());
        Ok(())
    }

    async fn uploaded(&mut self) -> Result<()> {
        if let Some(done) = self.uploads.join_next().await {
            self.progress.uploaded_bytes += done.map_err(panicked)??;
            self.tell();
        }
        Ok(())
    }

    /// Uploads the rest. The manifest names only packs that are there.
    async fn finish(mut self) -> Result<(Lists, Progress)> {
        self.end_run().await?;
        while !self.sealing.is_empty() {
            self.settle().await?;
        }
        self.end_pack().await?;
        while !self.uploads.is_empty() {
            self.uploaded().await?;
        }
        Ok((self.lists, self.progress))
    }
}

fn number(of: usize) -> Result<u32> {
    u32::try_from(of).map_err(|_| {
        Error::new(ErrorKind::Capacity, "a base cannot have more than 4,294,967,295 packs")
    })
}

fn panicked(error: tokio::task::JoinError) -> Error {
    Error::internal("a task of the backup ended early").with_source(error)
}
