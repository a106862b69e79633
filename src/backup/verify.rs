//! Verifying a repository: structure, or every byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use parking_lot::Mutex;
use serde::Serialize;

use super::content_digest::Digest;
use super::documents::{Hash, HeadBase, head_path, manifest_path, pack_of, pack_path};
use super::manifest::Manifest;
use super::objects::missing;
use super::progress::{OnProgress, Progress};
use super::read::{Entries, chunks};
use super::repository::{Repository, State};
use crate::error::{Error, ErrorKind, Result};

/// Packs that are looked at at a time.
const PACKS: usize = 4;

/// Packs with their sizes, and the place of the first base that needs each.
type Packs = BTreeMap<Hash, (u64, usize)>;

/// How closely to look. See [`Report`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The newest head, every manifest, and that every pack is there and has its size.
    Structure,
    /// Also every byte of every pack, and the entries of every base as a restore reads them: order,
    /// number, digest. The time and traffic are those of restoring every base.
    All,
}

/// One thing that is not as it must be.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::backup::{self, Level, Location, Repository};
/// use tierstack::{StoreExt, SystemClock};
///
/// # let path = folder.path();
/// let store = Memory::new();
/// store.put("user:1", "Ada").await?;
/// let place = Location::Folder(path.into());
/// let repository = Repository::create_or_open_at(&place, SystemClock::shared()).await?;
/// let taken = backup::run(&store, &repository, &|_| ()).await?;
///
/// std::fs::remove_dir_all(path.join("data")).unwrap();
/// let report = repository.verify(Level::Structure, &|_| ()).await?;
/// assert!(!report.is_intact());
/// assert_eq!(report.findings[0].base, Some(taken.base.id));
/// assert!(report.findings[0].object.ends_with(".pack"));
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The object that is damaged or missing.
    pub object: String,
    /// A base that needs it.
    pub base: Option<String>,
    /// What is wrong.
    pub what: String,
}

/// What was found.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use object_store::memory::InMemory;
/// use tierstack::backends::Memory;
/// use tierstack::backup::{self, Level, Repository};
/// use tierstack::{StoreExt, SystemClock};
///
/// let store = Memory::new();
/// store.put("user:1", "Ada").await?;
/// let repository =
///     Repository::create_or_open(Arc::new(InMemory::new()), SystemClock::shared()).await?;
/// backup::run(&store, &repository, &|_| ()).await?;
///
/// let report = repository.verify(Level::All, &|_| ()).await?;
/// assert!(report.is_intact());
/// assert_eq!((report.bases, report.entries, report.orphans), (1, 1, 0));
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Bases looked at.
    pub bases: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Entries read.
    pub entries: u64,
    /// Bytes of packs read.
    pub bytes: u64,
    /// Everything that is wrong. Empty: every base can be restored.
    pub findings: Vec<Finding>,
    /// Objects that no base needs: of bases that were not finished. They do no harm. Not counted when
    /// a manifest is damaged.
    pub orphans: u64,
    /// Bytes of those objects.
    pub orphan_bytes: u64,
}

impl Report {
    /// Whether every base can be restored, as far as was looked.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty()
    }

    fn add(&mut self, object: &Path, base: Option<&str>, error: &Error) {
        self.findings.push(Finding {
            object: object.to_string(),
            base: base.map(str::to_owned),
            what: error.message().to_owned(),
        });
    }
}

/// Damage becomes a finding; what keeps from looking (no access, no network) ends the verification.
fn damage<T>(result: Result<T>) -> Result<Result<T>> {
    match result {
        Err(error) if !matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Unsupported) => {
            Err(error)
        }
        other => Ok(other),
    }
}

impl Repository {
    /// Checks the repository, and reports all that is wrong with it. Changes nothing.
    ///
    /// # Errors
    /// What keeps from looking: `Unavailable`, `Access`. Damage is in the report.
    #[tracing::instrument(name = "verify", skip_all)]
    pub async fn verify(&self, level: Level, on_progress: OnProgress<'_>) -> Result<Report> {
        let mut report = Report::default();
        let state = self.newest_readable(&mut report).await?;
        self.check_heads(&mut report).await?;
        let (bases, packs) = self.check_manifests(&state, &mut report).await?;
        self.check_packs(level, &state, &packs, &mut report).await?;
        if level == Level::All {
            let total = bases.iter().map(|entry| entry.base.entries).sum();
            let mut progress = Progress { total_entries: Some(total), ..Progress::default() };
            for entry in &bases {
                // Read once more: the manifests of all bases at a time would need too much memory.
                let manifest = Arc::new(self.manifest(entry).await?);
                self.check_entries(&manifest, &mut progress, on_progress, &mut report).await?;
            }
            report.entries = progress.entries;
        }
        if bases.len() == state.bases.len() {
            self.count_orphans(&state, &packs, &mut report).await?;
        }
        Ok(report)
    }

    /// The newest head that can be read; those above it are reported.
    async fn newest_readable(&self, report: &mut Report) -> Result<State> {
        let mut number = self.last_head().await?;
        loop {
            match damage(self.state_at(number).await)? {
                Ok(state) => return Ok(state),
                Err(error) => report.add(&head_path(number), None, &error),
            }
            number -= 1;
        }
    }

    /// Heads are found by number, so one that is missing hides those behind it.
    async fn check_heads(&self, report: &mut Report) -> Result<()> {
        // Listed first: a head that is committed meanwhile is not missed.
        let listed: Vec<_> = self.objects.list("head").try_collect().await?;
        let last = head_path(self.last_head().await?);
        for object in listed {
            if object.location > last {
                let error = Error::corruption("a head before it is missing, so it is not found");
                report.add(&object.location, None, &error);
            }
        }
        Ok(())
    }

    /// The bases whose manifests are whole, and the packs that they need.
    async fn check_manifests<'a>(
        &self,
        state: &'a State,
        report: &mut Report,
    ) -> Result<(Vec<&'a HeadBase>, Packs)> {
        let (mut bases, mut packs) = (Vec::new(), Packs::new());
        for (at, entry) in state.bases.iter().enumerate() {
            report.bases += 1;
            match damage(self.manifest(entry).await)? {
                Ok(manifest) => {
                    for pack in manifest.packs {
                        packs.entry(pack.id).or_insert((pack.bytes, at));
                    }
                    bases.push(entry);
                }
                Err(error) => {
                    report.add(&manifest_path(&entry.base), Some(&entry.base.id), &error);
                }
            }
        }
        report.packs = packs.len() as u64;
        Ok((bases, packs))
    }

    async fn check_packs(
        &self,
        level: Level,
        state: &State,
        packs: &Packs,
        report: &mut Report,
    ) -> Result<()> {
        let packs: Vec<_> = packs.iter().map(|(id, (bytes, at))| (*id, *bytes, *at)).collect();
        let mut checked = futures_util::stream::iter(packs)
            .map(|(id, bytes, at)| async move {
                let result = match level {
                    Level::Structure => self.check_size(&id, bytes).await,
                    Level::All => self.check_bytes(&id, bytes).await,
                };
                (id, bytes, at, result)
            })
            .buffer_unordered(PACKS);
        while let Some((id, bytes, at, result)) = checked.next().await {
            match damage(result)? {
                Ok(()) if level == Level::All => report.bytes += bytes,
                Ok(()) => {}
                Err(error) => {
                    let base = state.bases.get(at).map(|entry| entry.base.id.as_str());
                    report.add(&pack_path(&id), base, &error);
                }
            }
        }
        Ok(())
    }

    async fn check_size(&self, id: &Hash, bytes: u64) -> Result<()> {
        let path = pack_path(id);
        match self.objects.size(&path).await? {
            Some(size) if size == bytes => Ok(()),
            Some(size) => Err(Error::corruption(format!("it has {size} bytes instead of {bytes}"))),
            None => Err(missing(&path)),
        }
    }

    async fn check_bytes(&self, id: &Hash, bytes: u64) -> Result<()> {
        self.check_size(id, bytes).await?;
        let path = pack_path(id);
        let hash = self.objects.keyed_hash(&path, &self.doc.key).await?;
        if hash.ok_or_else(|| missing(&path))? == *id {
            Ok(())
        } else {
            Err(Error::corruption("its content is not what its name says: it is damaged"))
        }
    }

    /// Reads a base as a restore does, and goes on behind what is damaged.
    async fn check_entries(
        &self,
        manifest: &Arc<Manifest>,
        progress: &mut Progress,
        on_progress: OnProgress<'_>,
        report: &mut Report,
    ) -> Result<()> {
        let base = &manifest.base;
        let failed: Mutex<BTreeMap<Option<u32>, Failed>> = Mutex::default();
        let mut all = chunks(self, manifest, 0..manifest.chunks.len()).inspect(|(at, chunk)| {
            if let Err(error) = chunk {
                let pack = manifest.chunks.get(*at).map(|chunk| chunk.place.pack);
                failed.lock().entry(pack).or_insert_with(|| Failed::new(error)).chunks += 1;
            }
        });
        let before = *progress;
        let mut digest = Digest::new(&self.doc.key);
        let mut entries = Entries::new(&mut all, manifest);
        let read = loop {
            match entries.digest(&mut digest).await {
                Ok(Some(bytes)) => {
                    progress.entries += 1;
                    progress.bytes += bytes;
                    if progress.entries.is_multiple_of(4096) {
                        on_progress(*progress);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(entries);
        while all.next().await.is_some() {}
        drop(all);
        on_progress(*progress);

        let failed = failed.into_inner();
        for (pack, Failed { first, chunks }) in &failed {
            let error = damage(Err::<(), _>(first.clone()))?.err();
            let pack = pack.and_then(|pack| manifest.packs.get(pack as usize));
            if let (Some(error), Some(pack)) = (error, pack) {
                let error = match chunks {
                    1 => error,
                    more => error.with_context(format!("{more} chunks, the first of them")),
                };
                report.add(&pack_path(&pack.id), Some(&base.id), &error);
            }
        }
        let path = manifest_path(base);
        match damage(read)? {
            Err(error) if failed.is_empty() => report.add(&path, Some(&base.id), &error),
            Err(_) => {}
            Ok(()) => {
                let seen = (progress.entries - before.entries, progress.bytes - before.bytes);
                if (seen, digest.finish()) != ((base.entries, base.bytes), base.digest) {
                    let error = Error::corruption("its entries are not those it was taken of");
                    report.add(&path, Some(&base.id), &error);
                }
            }
        }
        Ok(())
    }

    async fn count_orphans(&self, state: &State, packs: &Packs, report: &mut Report) -> Result<()> {
        let manifests: BTreeSet<Path> =
            state.bases.iter().map(|entry| manifest_path(&entry.base)).collect();
        for folder in ["base", "data"] {
            let mut listed = self.objects.list(folder);
            while let Some(object) = listed.try_next().await? {
                let path = &object.location;
                let needed = manifests.contains(path)
                    || pack_of(path).is_some_and(|pack| packs.contains_key(&pack));
                if !needed {
                    report.orphans += 1;
                    report.orphan_bytes += object.size;
                }
            }
        }
        Ok(())
    }
}

/// What failed of a pack's chunks.
struct Failed {
    first: Error,
    chunks: u64,
}

impl Failed {
    fn new(first: &Error) -> Self {
        Self { first: first.clone(), chunks: 0 }
    }
}
