//! How far an operation has got.

use serde::Serialize;

/// How far a backup, a verification or a restore has got. Numbers only grow.
/// See [`OnProgress`] for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Entries done.
    pub entries: u64,
    /// Entries to do, where that is known beforehand: when verifying and restoring.
    pub total_entries: Option<u64>,
    /// Bytes of keys and values done.
    pub bytes: u64,
    /// Bytes uploaded, after compression. Only of a backup.
    pub uploaded_bytes: u64,
    /// Bytes of chunks, before compression, that an earlier base had already. Only of a backup.
    pub reused_bytes: u64,
}

/// Told about progress, often: it should return at once.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::{Arc, Mutex};
/// use object_store::memory::InMemory;
/// use tierstack::backends::Memory;
/// use tierstack::backup::{self, OnProgress, Progress, Repository};
/// use tierstack::{StoreExt, SystemClock};
///
/// let store = Memory::new();
/// store.put("user:1", "Ada").await?;
/// let repository =
///     Repository::create_or_open(Arc::new(InMemory::new()), SystemClock::shared()).await?;
/// let last = Mutex::new(Progress::default());
/// let on_progress: OnProgress<'_> = &|progress| *last.lock().unwrap() = progress;
/// backup::run(&store, &repository, on_progress).await?;
/// assert_eq!(last.into_inner().unwrap().entries, 1);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);
