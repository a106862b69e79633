//! Restoring: a base into an empty store of any kind, and the proof that it arrived.
//!
//! No backend can take all of a base in one atomic batch, so a restore that is cut off leaves part of
//! it. To keep that from passing for the whole, the first thing that is written is a mark under a
//! reserved key, and the last thing is that it is removed. A program that opens a store asks
//! [`unfinished_restore`]; [`run`](super::run) refuses such a store, and so does `restore`, unless it is
//! told to go on with the same base.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};

use super::content_digest::Digest;
use super::documents::BaseInfo;
use super::manifest::Manifest;
use super::progress::{OnProgress, Progress};
use super::read::{Entries, chunks};
use super::recovery_target::Plan;
use super::repository::Repository;
use super::restore_check::{Witness, chunks_with, prove};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::ext::{ReadExt, StoreExt};
use crate::store::{Read, Store};
use crate::types::units::counted;
use crate::types::{Guarantees, Page, Scan};

const MARK: &[u8] = b"\0tierstack/restore";

/// A page on its way into the target ends at this many entries or bytes.
const PAGE_ENTRIES: usize = 1000;
const PAGE_BYTES: usize = 4 << 20;

/// How to restore. The default: everything, with proof.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use object_store::memory::InMemory;
/// use tierstack::backends::Memory;
/// use tierstack::backup::{self, Repository, Restore, Target};
/// use tierstack::{Read, StoreExt, SystemClock};
///
/// let store = Memory::new();
/// store.put("order:1", "tea").await?;
/// store.put("user:1", "Ada").await?;
/// let repository =
///     Repository::create_or_open(Arc::new(InMemory::new()), SystemClock::shared()).await?;
/// backup::run(&store, &repository, &|_| ()).await?;
///
/// let plan = repository.plan(Target::Latest).await?;
/// let users = Restore { prefix: "user:".into(), ..Restore::default() };
/// let copy = Memory::new();
/// let restored = backup::restore(&repository, &plan, &copy, &users, &|_| ()).await?;
/// assert_eq!((restored.entries, restored.proven), (1, true));
/// assert_eq!(copy.get(b"order:1").await?, None);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restore {
    /// Only entries whose keys begin with this.
    pub prefix: Bytes,
    /// Go on in a target that holds an unfinished restore of the same base and prefix. Everything is
    /// written again.
    pub resume: bool,
    /// Do not read the target back.
    pub skip_proof: bool,
}

/// What was restored. See [`Restore`] for an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The base.
    pub base: BaseInfo,
    /// The moment that was reached.
    pub reached: Timestamp,
    /// The sequence that was reached, where the store had sequences.
    pub reached_seq: Option<u64>,
    /// Entries written.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Entries left out, because their expiry has passed since.
    pub expired: u64,
    /// Whether the target was read back and compared.
    pub proven: bool,
}

/// What an unfinished restore leaves in the target.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::backup::{self, Location, Repository, Restore, Target};
/// use tierstack::{StoreExt, SystemClock};
///
/// # let path = folder.path();
/// let store = Memory::new();
/// store.put("user:1", "Ada").await?;
/// let place = Location::Folder(path.into());
/// let repository = Repository::create_or_open_at(&place, SystemClock::shared()).await?;
/// let taken = backup::run(&store, &repository, &|_| ()).await?;
///
/// // All packs are lost, which a restore notices when it has begun.
/// std::fs::remove_dir_all(path.join("data")).unwrap();
/// let plan = repository.plan(Target::Latest).await?;
/// let copy = Memory::new();
/// let cut_off = backup::restore(&repository, &plan, &copy, &Restore::default(), &|_| ()).await;
/// assert!(cut_off.is_err());
///
/// let unfinished = backup::unfinished_restore(&copy).await?.unwrap();
/// assert_eq!(unfinished.base, taken.base.id);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnfinishedRestore {
    /// The identifier of the repository.
    pub repository: String,
    /// The base that was being restored.
    pub base: String,
    /// The prefix that was asked for.
    pub prefix: Vec<u8>,
    /// When it began.
    pub started: Timestamp,
}

/// Whether the store holds part of a restore that was cut off. A program that opens a store should ask, and
/// refuse to work on it.
///
/// # Errors
/// Like [`Read::get`]; `Corruption` if the mark cannot be read.
pub async fn unfinished_restore<R: Read + ?Sized>(store: &R) -> Result<Option<UnfinishedRestore>> {
    let Some(mark) = store.get(MARK).await? else { return Ok(None) };
    serde_json::from_slice(&mark.bytes).map(Some).map_err(|error| {
        Error::corruption("the mark of an unfinished restore cannot be read").with_source(error)
    })
}

/// Restores the base of a plan into an empty store.
///
/// A dropped future, and an error after the first write, leave part of the base in the target with a
/// mark that says so; call it again with [`resume`](Restore::resume), or empty the target.
///
/// # Errors
/// `Conflict` if the target is not empty or marked; `Unsupported` if it lacks what the base needs
/// (writes, ordered scans, expiry: then nothing was written); `InvalidInput` if an entry is over its
/// limits (nothing was written); `Corruption` if the base is damaged, or the proof fails;
/// `Unavailable`, `Access`, `Capacity`.
#[tracing::instrument(name = "restore", skip_all)]
pub async fn restore(
    repository: &Repository,
    plan: &Plan,
    target: &dyn Store,
    options: &Restore,
    on_progress: OnProgress<'_>,
) -> Result<Restored> {
    let operation = |error: Error| error.with_operation(Operation::Backup);
    let guarantees = target.profile().guarantees;
    check_fits(&plan.base, &guarantees).map_err(operation)?;
    let mark = UnfinishedRestore {
        repository: repository.id().to_owned(),
        base: plan.base.id.clone(),
        prefix: options.prefix.to_vec(),
        started: repository.clock.now(),
    };
    check_target(target, &mark, options.resume).await.map_err(operation)?;
    let manifest = Arc::new(find(repository, &plan.base).await.map_err(operation)?);

    let bytes = serde_json::to_vec(&mark)
        .map_err(|error| Error::internal("the mark cannot be written").with_source(error))?;
    target.put(MARK, bytes).await.map_err(operation)?.durable().await?;
    target.flush().await?;

    let filled = fill(repository, plan, &manifest, target, options, on_progress).await;
    filled.map_err(|error| {
        operation(error.with_context(format!(
            "the restore of base {} has not finished, and the target holds part of it",
            plan.base.id
        )))
    })
}

fn check_fits(base: &BaseInfo, target: &Guarantees) -> Result<()> {
    if !target.writable || !target.ordered_scans {
        let lacks = if target.writable { "ordered scans" } else { "writes" };
        return Err(Error::unsupported(format!(
            "the target has no {lacks}, which a restore needs"
        )));
    }
    if base.expiring > 0 && !target.expiry {
        return Err(Error::unsupported(format!(
            "{} an expiry, which the target's backend cannot keep; restore into one that can, such as sqlite \
             or postgres, and copy from there",
            counted(base.expiring, "entry of this base has", "entries of this base have")
        )));
    }
    let longest = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let longest = (longest(base.longest_key), longest(base.longest_value));
    let fits = target.limits.check(longest.0, longest.1);
    fits.map_err(|error| error.with_context("this base does not fit the target"))
}

async fn check_target(target: &dyn Store, mine: &UnfinishedRestore, resume: bool) -> Result<()> {
    let conflict = |text: String| Err(Error::new(ErrorKind::Conflict, text));
    match unfinished_restore(target).await? {
        Some(found) if !resume => conflict(format!(
            "the target holds part of base {}, from a restore that did not finish; resume it, or \
             empty the target",
            found.base
        )),
        Some(found)
            if (&found.repository, &found.base, &found.prefix)
                != (&mine.repository, &mine.base, &mine.prefix) =>
        {
            conflict(format!(
                "the target holds part of another restore (base {}); resume that one, or empty the \
                 target",
                found.base
            ))
        }
        Some(_) => Ok(()),
        None if target.collect(Scan::all().limit(1).keys_only()).await?.is_empty() => Ok(()),
        None => conflict("the target is not empty; restore into an empty store".to_owned()),
    }
}

async fn find(repository: &Repository, base: &BaseInfo) -> Result<Manifest> {
    let state = repository.state().await?;
    let entry = state.bases.iter().find(|entry| entry.base == *base);
    let entry = entry.ok_or_else(|| {
        Error::invalid(format!("base {} is not in this repository any more", base.id))
    })?;
    repository.manifest(entry).await
}

async fn fill(
    repository: &Repository,
    plan: &Plan,
    manifest: &Arc<Manifest>,
    target: &dyn Store,
    options: &Restore,
    on_progress: OnProgress<'_>,
) -> Result<Restored> {
    let base = &manifest.base;
    let whole = options.prefix.is_empty();
    let part = chunks_with(manifest, &options.prefix);
    let mut run = Filling {
        entries: Entries::new(chunks(repository, manifest, part), manifest),
        repository,
        prefix: &options.prefix,
        read: Digest::new(&repository.doc.key),
        expected: Witness::new(&repository.doc.key),
        expired: 0,
        bytes: 0,
        progress: Progress { total_entries: whole.then_some(base.entries), ..Progress::default() },
        on_progress,
    };
    let pages = futures_util::stream::try_unfold(&mut run, |run| async move {
        let page = run.page().await?;
        Ok((!page.is_empty()).then_some((page, run)))
    });
    let entries = target.load(pages.boxed()).await?;
    if whole
        && (run.progress.entries, run.progress.bytes, run.read.finish())
            != (base.entries, base.bytes, base.digest)
    {
        return Err(Error::corruption("the entries are not those that the base was taken of"));
    }
    // The load is as durable as a write.
    target.flush().await?;
    on_progress(run.progress);
    let proven = !options.skip_proof;
    if proven {
        prove(repository, manifest, target, &options.prefix, &run.expected).await?;
    }
    target.delete(MARK).await?.durable().await?;
    target.flush().await?;
    Ok(Restored {
        base: base.clone(),
        reached: plan.reached,
        reached_seq: base.last_seq,
        entries,
        bytes: run.bytes,
        expired: run.expired,
        proven,
    })
}

/// The entries of a base on their way into the target.
struct Filling<'a, S> {
    entries: Entries<S>,
    repository: &'a Repository,
    prefix: &'a Bytes,
    /// The digest of everything that was read.
    read: Digest,
    /// What the target must hold in the end.
    expected: Witness,
    bytes: u64,
    expired: u64,
    progress: Progress,
    on_progress: OnProgress<'a>,
}

impl<S: Stream<Item = super::read::Read> + Unpin> Filling<'_, S> {
    /// The next entries for the target; none at the end.
    async fn page(&mut self) -> Result<Page> {
        // What was read before has been taken, so the progress is close behind.
        (self.on_progress)(self.progress);
        let (mut page, mut bytes) = (Page::default(), 0);
        while page.len() < PAGE_ENTRIES && bytes < PAGE_BYTES {
            let Some(entry) = self.entries.next().await? else { break };
            let size = entry.key.len() + entry.value.bytes.len();
            self.read.add(&entry);
            self.progress.entries += 1;
            self.progress.bytes += size as u64;
            // The first and the last run of a prefix reach beyond it.
            if !entry.key.starts_with(self.prefix) {
                continue;
            }
            if entry.value.expires_at.is_some_and(|at| at <= self.repository.clock.now()) {
                self.expired += 1;
            } else {
                self.bytes += size as u64;
                self.expected.add(&entry);
                bytes += size;
                page.entries.push(entry);
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::memory::InMemory;

    use super::*;
    use crate::backends::Memory;
    use crate::backup::{Target, run};
    use crate::clock::{Clock, ManualClock};
    use crate::testing::{FaultStore, Faults};
    use crate::types::Value;

    /// Restores entries with a deadline, of which the first passes before they are read back.
    async fn restored(lose: Option<&'static str>) -> Result<Restored> {
        let time = ManualClock::new();
        let clock: Arc<dyn Clock> = Arc::new(time.clone());
        let objects = Arc::new(InMemory::new());
        let repository = Repository::create_or_open(objects, Arc::clone(&clock)).await?;
        let store = Memory::with_clock(Arc::clone(&clock));
        for (key, seconds) in [("a", 60), ("b", 3600), ("c", 3600)] {
            let at = clock.now() + Duration::from_secs(seconds);
            let _ = store.put(key, Value::new("v").expiring_at(at)).await?;
        }
        run(&store, &repository, &|_| ()).await?;

        let memory = Arc::new(Memory::with_clock(Arc::clone(&clock)));
        let faults = Faults::seeded(0, clock);
        let target = FaultStore::new(Arc::clone(&memory), &faults);
        // The first flush is that of the mark, the second that of the entries.
        let written = faults.on(Operation::Flush).skip(1).times(1).hold();
        let plan = repository.plan(Target::Latest).await?;
        let meanwhile = async {
            written.reached(1).await;
            time.advance(Duration::from_secs(60));
            if let Some(key) = lose {
                let _ = memory.delete(key).await.unwrap();
            }
            written.open();
        };
        let options = Restore::default();
        let restore = restore(&repository, &plan, &target, &options, &|_| ());
        tokio::join!(restore, meanwhile).0
    }

    #[tokio::test]
    async fn the_proof_excuses_what_has_expired_and_nothing_else() {
        assert!(restored(None).await.unwrap().proven);
        for lost in ["b", "c"] {
            assert_eq!(restored(Some(lost)).await.unwrap_err().kind(), ErrorKind::Corruption);
        }
    }

    #[tokio::test]
    async fn a_prefix_counts_no_expired_entry_beside_it() {
        let time = ManualClock::new();
        let clock: Arc<dyn Clock> = Arc::new(time.clone());
        let objects = Arc::new(InMemory::new());
        let repository = Repository::create_or_open(objects, Arc::clone(&clock)).await.unwrap();
        let store = Memory::with_clock(Arc::clone(&clock));
        let soon = clock.now() + Duration::from_secs(1);
        for key in ["a", "b", "ba", "c"] {
            let _ = store.put(key, Value::new("v").expiring_at(soon)).await.unwrap();
        }
        run(&store, &repository, &|_| ()).await.unwrap();
        time.advance(Duration::from_secs(1));
        let plan = repository.plan(Target::Latest).await.unwrap();
        let options = Restore { prefix: "b".into(), ..Restore::default() };
        let target = Memory::with_clock(clock);
        let restored = restore(&repository, &plan, &target, &options, &|_| ()).await.unwrap();
        assert_eq!((restored.entries, restored.expired), (0, 2));
    }
}
