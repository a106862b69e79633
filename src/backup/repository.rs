//! A repository: its settings, its state, and how its state moves on.
//!
//! The state is a chain of numbered heads, each created once and never changed: the commit of head n + 1
//! is at once what makes a base visible, what keeps a second writer out, and how the state is found. Not
//! every store can replace an object conditionally (a folder cannot), all that are fit for a repository
//! can create conditionally, so there is one way for all. It needs no lease and no clock, and nothing is
//! listed: the last head is found by asking for numbers, twice as large each time, then by halving.

use std::fmt;
use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;

use super::chunking_settings::Chunking;
use super::documents::{
    self, BaseInfo, Hash, Head, HeadBase, Kind, Lineage, REPOSITORY, RepositoryDoc, check_id,
    head_path, manifest_path, random, random_id,
};
use super::folder;
use super::manifest::Manifest;
use super::objects::{Created, Objects, missing};
use super::recovery_target::{Plan, Target, plan};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::objects::{Connection, Location};

/// A folder or bucket that holds bases.
///
/// Cheap to clone; clones share what they know of the repository's state. See the [module docs](super).
#[derive(Clone)]
pub struct Repository {
    pub(super) objects: Objects,
    pub(super) doc: Arc<RepositoryDoc>,
    pub(super) clock: Arc<dyn Clock>,
    /// The number of a head that is known to exist; the search begins there.
    known: Arc<Mutex<u64>>,
}

/// What is chosen when a repository is created, for good.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use object_store::memory::InMemory;
/// use tierstack::backup::{Chunking, Repository, RepositoryOptions};
/// use tierstack::{ErrorKind, SystemClock};
///
/// let objects = Arc::new(InMemory::new());
/// let clock = SystemClock::shared();
/// let none = Chunking { max_entries: 0, ..Chunking::default() };
/// let wrong = RepositoryOptions { chunking: none, ..RepositoryOptions::default() };
/// let refused = Repository::create_or_open_with(objects.clone(), clock.clone(), &wrong).await;
/// assert_eq!(refused.err().unwrap().kind(), ErrorKind::InvalidInput);
///
/// // Fewer requests, for more memory.
/// let large = RepositoryOptions { pack_bytes: 32 << 20, ..RepositoryOptions::default() };
/// let repository = Repository::create_or_open_with(objects, clock, &large).await?;
/// assert!(repository.bases().await?.is_empty());
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryOptions {
    /// Where entries are cut into chunks.
    pub chunking: Chunking,
    /// Chunks are uploaded in packs of about this many bytes, at most 256 MiB. Default 16 MiB: large
    /// enough that requests cost little, small enough that five fit into memory.
    pub pack_bytes: u32,
}

/// Packs are closed when they reach this, whatever a repository's settings say.
pub(super) const MAX_PACK_BYTES: u32 = 256 << 20;

impl Default for RepositoryOptions {
    fn default() -> Self {
        Self { chunking: Chunking::default(), pack_bytes: 16 << 20 }
    }
}

/// A head that was read, or the state before the first.
#[derive(Clone)]
pub(super) struct State {
    /// 0: there is no head yet.
    pub(super) number: u64,
    pub(super) lineage: Lineage,
    pub(super) bases: Vec<HeadBase>,
    pub(super) head: Option<Head>,
}

impl Repository {
    /// Opens a repository that exists.
    ///
    /// # Errors
    /// `InvalidInput` if there is none, `Unsupported` if it is of a newer format, `Corruption` (also if
    /// there are backups here without their `repo.json`), `Unavailable`, `Access`.
    pub async fn open(objects: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Result<Self> {
        let objects = Objects(objects);
        let path = Path::from(REPOSITORY);
        let bytes = match objects.get(&path).await? {
            Some(bytes) => bytes,
            None => {
                let backups = first_folder(&objects).await?;
                // Another may have created it meanwhile, and backed up to it.
                objects.get(&path).await?.ok_or_else(|| no_repository(backups))?
            }
        };
        let doc = read_doc(&bytes).map_err(|error| match error.kind() {
            ErrorKind::Corruption => at(error, &path)
                .with_context("nothing here can be checked without it; bring it back from a copy"),
            _ => at(error, &path),
        })?;
        Ok(Self { objects, doc: Arc::new(doc), clock, known: Arc::default() })
    }

    /// Creates a repository, unless there is one.
    ///
    /// # Errors
    /// Like [`create_or_open_with`](Self::create_or_open_with).
    pub async fn create_or_open(
        objects: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        Self::create_or_open_with(objects, clock, &RepositoryOptions::default()).await
    }

    /// Creates a repository with these options, unless there is one. The options of one that exists
    /// stay. A dropped future leaves a repository or none.
    ///
    /// # Errors
    /// `Unsupported` if the object store cannot keep two writers apart: this is tried out.
    /// `InvalidInput` for options that are out of range; otherwise as [`open`](Self::open).
    pub async fn create_or_open_with(
        objects: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        options: &RepositoryOptions,
    ) -> Result<Self> {
        match Self::open(Arc::clone(&objects), Arc::clone(&clock)).await {
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            opened => return opened,
        }
        create(&Objects(Arc::clone(&objects)), clock.as_ref(), options).await?;
        // Perhaps another's: both then use that one.
        Self::open(objects, clock).await
    }

    /// Opens the repository at a place.
    ///
    /// # Errors
    /// Like [`open`](Self::open), and `Config` if the place cannot be used.
    pub async fn open_at(place: &Location, clock: Arc<dyn Clock>) -> Result<Self> {
        let named = |error: Error| error.with_context(place);
        Self::open(objects_at(place, false).map_err(named)?, clock).await.map_err(named)
    }

    /// Creates a repository at a place, unless there is one.
    ///
    /// # Errors
    /// Like [`create_or_open`](Self::create_or_open), and `Config` if the place cannot be used.
    pub async fn create_or_open_at(place: &Location, clock: Arc<dyn Clock>) -> Result<Self> {
        let named = |error: Error| error.with_context(place);
        Self::create_or_open(objects_at(place, true).map_err(named)?, clock).await.map_err(named)
    }

    /// The repository's identifier, drawn at random when it was created.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.doc.id
    }

    /// Every base, in the order in which they were taken.
    ///
    /// # Errors
    /// `Corruption`, `Unavailable`, `Access`.
    pub async fn bases(&self) -> Result<Vec<BaseInfo>> {
        Ok(self.state().await?.bases.into_iter().map(|entry| entry.base).collect())
    }

    /// What a restore to that target would do.
    ///
    /// # Errors
    /// Like [`plan()`], and as [`bases`](Self::bases).
    pub async fn plan(&self, target: Target) -> Result<Plan> {
        plan(&self.bases().await?, &target, self.clock.now())
    }

    /// The newest head.
    pub(super) async fn state(&self) -> Result<State> {
        let mut number = self.last_head().await?;
        while self.hides(number).await? {
            // Or others have committed heads meanwhile.
            let again = self.last_head().await?;
            if again == number {
                return Err(at(
                    Error::corruption(
                        "it is missing, so the heads behind it are not found, and what is committed \
                         now would be lost; bring it back, or choose an empty place",
                    ),
                    &head_path(number + 1),
                ));
            }
            number = again;
        }
        self.state_at(number).await
    }

    /// Whether a head follows the gap after this one: what was lost in the middle must not pass for
    /// the end. A wider gap is found by `verify`, which lists; without any head, listing is cheap.
    async fn hides(&self, number: u64) -> Result<bool> {
        Ok(self.objects.size(&head_path(number.saturating_add(2))).await?.is_some()
            || (number == 0 && self.objects.list("head").try_next().await?.is_some()))
    }

    pub(super) async fn state_at(&self, number: u64) -> Result<State> {
        if number == 0 {
            let lineage = Lineage { id: self.doc.lineage.clone(), parent: None, fork_seq: None };
            return Ok(State { number, lineage, bases: Vec::new(), head: None });
        }
        let path = head_path(number);
        let bytes = self.objects.get(&path).await?.ok_or_else(|| missing(&path))?;
        let head = self.read_head(number, &bytes).map_err(|error| {
            at(error, &path)
                .with_context("the newest head is damaged; deleting it loses the last base only")
        })?;
        let (lineage, bases) = (head.lineage.clone(), head.bases.clone());
        Ok(State { number, lineage, bases, head: Some(head) })
    }

    fn read_head(&self, number: u64, bytes: &bytes::Bytes) -> Result<Head> {
        let (head, _): (Head, _) = documents::decode(Kind::Head, bytes)?;
        if head.repository != self.doc.id || head.number != number {
            return Err(Error::corruption("it belongs to another repository or place"));
        }
        check_id(&head.lineage.id)?;
        for entry in &head.bases {
            check_id(&entry.base.id)?;
            check_id(&entry.base.lineage)?;
        }
        Ok(head)
    }

    /// The number of the newest head, 0 without one. Heads are numbered without a gap.
    pub(super) async fn last_head(&self) -> Result<u64> {
        let mut low = *self.known.lock();
        let mut step = 1_u64;
        let mut high = loop {
            let number = low.saturating_add(step);
            if self.objects.size(&head_path(number)).await?.is_none() {
                break number;
            }
            low = number;
            step = step.checked_mul(2).ok_or_else(|| {
                Error::corruption(
                    "the place says that every object exists, so no head is the newest",
                )
            })?;
        };
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.objects.size(&head_path(middle)).await? {
                Some(_) => low = middle,
                None => high = middle,
            }
        }
        let mut known = self.known.lock();
        *known = low.max(*known);
        Ok(*known)
    }

    /// Makes a base visible, after the state that it was taken on.
    pub(super) async fn commit(&self, on: &State, base: HeadBase) -> Result<()> {
        let number = on.number + 1;
        let mut head = on.head.clone().unwrap_or_else(|| Head {
            repository: self.doc.id.clone(),
            number,
            nonce: String::new(),
            time: base.base.time,
            epoch: 0,
            lineage: on.lineage.clone(),
            last_seq: None,
            last_segment: None,
            boundary: None,
            bases: Vec::new(),
        });
        head.number = number;
        head.nonce = random_id()?;
        head.time = base.base.time;
        head.bases.push(base);
        let bytes = documents::encode(Kind::Head, &head, &[])?;
        match self.objects.create(&head_path(number), &bytes).await? {
            Created::Ours => {
                let mut known = self.known.lock();
                *known = number.max(*known);
                Ok(())
            }
            Created::Theirs => Err(conflict()),
        }
    }

    /// Whether the store still keeps writers apart: a repository may have been copied to one that does
    /// not. Creating what exists must fail; where it does not, the same bytes were written again.
    pub(super) async fn check_create(&self) -> Result<()> {
        let path = Path::from(REPOSITORY);
        let bytes = self.objects.get(&path).await?.ok_or_else(|| missing(&path))?;
        let mode = object_store::PutMode::Create.into();
        match self.objects.0.put_opts(&path, bytes.into(), mode).await {
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Ok(()),
            Err(error) => Err(super::objects::translate(error, "trying to create", &path)),
            Ok(_) => Err(Error::unsupported(
                "this object store overwrites where it is asked only to create, so it cannot keep \
                 two writers apart; move the repository to another place",
            )),
        }
    }

    pub(super) async fn manifest(&self, entry: &HeadBase) -> Result<Manifest> {
        let path = manifest_path(&entry.base);
        let bytes = self.objects.get(&path).await?.ok_or_else(|| missing(&path))?;
        if bytes.len() as u64 != entry.manifest_bytes || Hash::of(&bytes) != entry.manifest_hash {
            return Err(at(
                Error::corruption("it is not what the head says: it is damaged"),
                &path,
            ));
        }
        let manifest =
            Manifest::decode(&bytes, &self.doc.chunking).map_err(|error| at(error, &path))?;
        if manifest.base != entry.base {
            return Err(at(Error::corruption("it is of another base than the head says"), &path));
        }
        Ok(manifest)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Repository({} in {})", self.doc.id, self.objects.0)
    }
}

fn objects_at(place: &Location, create: bool) -> Result<Arc<dyn ObjectStore>> {
    match place {
        Location::Folder(path) => folder::open(path, create),
        bucket => bucket.objects(create, &Connection::default()),
    }
}

pub(super) fn at(error: Error, path: &Path) -> Error {
    error.with_context(path).with_operation(Operation::Backup)
}

pub(super) fn conflict() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "another writer has changed this repository meanwhile; nothing is lost: run the backup \
         again, and let one process alone back up to this place",
    )
    .with_operation(Operation::Backup)
}

fn read_doc(bytes: &bytes::Bytes) -> Result<RepositoryDoc> {
    let (doc, _): (RepositoryDoc, _) = documents::decode(Kind::Repository, bytes)?;
    check_id(&doc.id)?;
    check_id(&doc.lineage)?;
    doc.chunking
        .check()
        .map_err(|error| Error::corruption("its chunking is out of range").with_source(error))?;
    Ok(doc)
}

/// The first folder that holds a part of backups.
async fn first_folder(objects: &Objects) -> Result<Option<&'static str>> {
    for folder in ["head", "base", "data"] {
        if objects.list(folder).try_next().await?.is_some() {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

fn no_repository(backups: Option<&str>) -> Error {
    match backups {
        None => Error::invalid("there is no repository here; the first backup creates one"),
        Some(folder) => Error::corruption(format!(
            "there are backups here (in '{folder}/'), but no '{REPOSITORY}'; bring it back, or choose \
             an empty place"
        )),
    }
    .with_operation(Operation::Backup)
}

async fn create(objects: &Objects, clock: &dyn Clock, options: &RepositoryOptions) -> Result<()> {
    options.chunking.check()?;
    if !(1..=MAX_PACK_BYTES).contains(&options.pack_bytes) {
        return Err(Error::invalid("pack_bytes is between 1 byte and 256 MiB"));
    }
    let path = Path::from(REPOSITORY);
    let capabilities = objects.probe().await?;
    let mut key = Hash([0; 32]);
    random(&mut key.0)?;
    let doc = RepositoryDoc {
        id: random_id()?,
        key,
        created: clock.now(),
        lineage: random_id()?,
        chunking: options.chunking,
        pack_bytes: options.pack_bytes,
        capabilities,
    };
    let bytes = documents::encode(Kind::Repository, &doc, &[])?;
    objects.create(&path, &bytes).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::backends::Memory;
    use crate::backup::run;
    use crate::clock::ManualClock;

    #[tokio::test]
    async fn a_head_that_got_lost_is_noticed_by_whoever_reads_or_adds_a_base() {
        let objects = Arc::new(InMemory::new());
        let open =
            || Repository::create_or_open(objects.clone() as _, Arc::new(ManualClock::new()));
        let store = Memory::new();
        for _ in 0..5 {
            run(&store, &open().await.unwrap(), &|_| ()).await.unwrap();
        }
        for lost in 1..5 {
            let path = head_path(lost);
            let bytes = objects.get(&path).await.unwrap().bytes().await.unwrap();
            objects.delete(&path).await.unwrap();
            let repository = open().await.unwrap();
            // A search that jumps over the gap finds all.
            if let Ok(bases) = repository.bases().await {
                assert_eq!(bases.len(), 5, "without {lost}");
            } else {
                let error = run(&store, &repository, &|_| ()).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corruption);
                assert!(error.to_string().contains(path.as_ref()), "{error}");
            }
            objects.put(&path, bytes.into()).await.unwrap();
        }
        assert_eq!(open().await.unwrap().bases().await.unwrap().len(), 5);
    }
}
