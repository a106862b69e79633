//! What the demo does, one function a step.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;

use tierstack::{Batch, Entry, Error, Op, Read, Result, Scan, Stopwatch, Store};

use super::counters;
use super::files::Files;
use crate::failure::{Failure, Outcome};
use crate::progress::{Progress, Unit};
use crate::replay::Latencies;
use crate::shutdown::Shutdown;

/// Bytes of files that are read, and written as one batch.
const BATCH_BYTES: u64 = 4 << 20;
/// Reads of one store before the other has its turn.
const TURN: usize = 1000;

/// A digest over entries in the order of their keys.
#[derive(Default)]
pub(super) struct Digest {
    hasher: blake3::Hasher,
    pub(super) entries: u64,
}

impl Digest {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        for part in [key, value] {
            self.hasher.update(&(part.len() as u64).to_le_bytes());
            self.hasher.update(part);
        }
        self.entries += 1;
    }

    /// The digest, short enough to print: 16 hexadecimal digits are for the eye only.
    pub(super) fn hex(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}

/// What the import took.
pub(super) struct Imported {
    /// The digest of the files as they were read.
    pub(super) digest: Digest,
    pub(super) keys: Vec<Bytes>,
    pub(super) bare: Duration,
    pub(super) stack: Duration,
}

/// Writes the files into both stores, batch by batch, and measures each.
pub(super) async fn import(
    files: &Files,
    bare: &Arc<dyn Store>,
    stack: &Arc<dyn Store>,
    stop: &Shutdown,
) -> Outcome<Imported> {
    let progress = Progress::new("importing", Some(files.bytes), Unit::Bytes);
    let mut imported = Imported {
        digest: Digest::default(),
        keys: Vec::with_capacity(files.files.len()),
        bare: Duration::ZERO,
        stack: Duration::ZERO,
    };
    let mut batch = Batch::new();
    let mut bytes = 0;
    for file in &files.files {
        let content = file.read()?;
        imported.digest.add(&file.key, &content);
        imported.keys.push(file.key.clone());
        bytes += (file.key.len() + content.len()) as u64;
        progress.add(content.len() as u64);
        batch.push(Op::Put(file.key.clone(), content.into()));
        if bytes >= BATCH_BYTES {
            write_both(std::mem::take(&mut batch), bare, stack, &mut imported).await?;
            bytes = 0;
        }
        if stop.requested() {
            return Err(Failure::stopped("the demo is not complete"));
        }
    }
    write_both(batch, bare, stack, &mut imported).await?;
    imported.bare += timed(bare.flush()).await?;
    imported.stack += timed(stack.flush()).await?;
    progress.finish();
    Ok(imported)
}

async fn write_both(
    batch: Batch,
    bare: &Arc<dyn Store>,
    stack: &Arc<dyn Store>,
    imported: &mut Imported,
) -> Result<()> {
    imported.bare += timed(bare.write(batch.clone())).await?;
    imported.stack += timed(stack.write(batch)).await?;
    Ok(())
}

async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<Duration> {
    let watch = Stopwatch::new();
    work.await?;
    Ok(watch.elapsed())
}

/// How long reads took.
#[derive(Default)]
pub(super) struct Replayed {
    pub(super) bare: Latencies,
    pub(super) stack: Latencies,
    /// Of the stack's reads, those that its cache answered, and the others.
    pub(super) hits: Latencies,
    pub(super) misses: Latencies,
}

/// Reads the same keys from both stores in turns, so that whatever else the machine does meets both.
pub(super) async fn replay(
    reads: &[u32],
    keys: &[Bytes],
    bare: &Arc<dyn Store>,
    stack: &Arc<dyn Store>,
    hits: Option<&Arc<AtomicU64>>,
    stop: &Shutdown,
) -> Outcome<Replayed> {
    let progress = Progress::new("reading", Some(reads.len() as u64), Unit::Entries);
    let mut replayed = Replayed::default();
    for turn in reads.chunks(TURN) {
        let keys = || turn.iter().filter_map(|at| keys.get(*at as usize));
        for key in keys() {
            replayed.bare.add(read(bare, key).await?);
        }
        let mut counted = counters::value(hits);
        for key in keys() {
            let took = read(stack, key).await?;
            replayed.stack.add(took);
            let before = std::mem::replace(&mut counted, counters::value(hits));
            if counted > before { &mut replayed.hits } else { &mut replayed.misses }.add(took);
        }
        progress.add(turn.len() as u64);
        if stop.requested() {
            return Err(Failure::stopped("the demo is not complete"));
        }
    }
    progress.finish();
    Ok(replayed)
}

async fn read(store: &Arc<dyn Store>, key: &Bytes) -> Result<Duration> {
    let watch = Stopwatch::new();
    let value = store.get(key).await?;
    let took = watch.elapsed();
    match value {
        Some(_) => Ok(took),
        None => Err(Error::corruption("an imported file is missing in the store").with_key(key)),
    }
}

/// The digest of all that a store holds.
pub(super) async fn digest(store: &Arc<dyn Store>, what: &str, total: u64) -> Result<Digest> {
    let progress = Progress::new(what, Some(total), Unit::Entries);
    let mut digest = Digest::default();
    let mut pages = store.scan(Scan::all());
    while let Some(page) = pages.try_next().await? {
        for Entry { key, value } in &page.entries {
            digest.add(key, &value.bytes);
        }
        progress.add(page.entries.len() as u64);
    }
    progress.finish();
    Ok(digest)
}

/// What was done to the files of a database.
pub(super) struct Damage {
    pub(super) overwritten: Vec<PathBuf>,
    pub(super) deleted: Option<PathBuf>,
}

/// Overwrites pieces of every data file of a database, which have this extension, and deletes the first where
/// there are several. The store must be closed.
pub(super) fn damage(database: &Path, extension: &str) -> Result<Damage> {
    let cannot = |path: &Path, error| {
        Error::io(format!("the file {} cannot be damaged", path.display()), error)
    };
    let entries = std::fs::read_dir(database).map_err(|error| cannot(database, error))?;
    let is_table = |path: &PathBuf| path.extension().is_some_and(|name| name == extension);
    let mut tables: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(is_table).collect();
    tables.sort();
    for table in &tables {
        overwrite(table).map_err(|error| cannot(table, error))?;
    }
    let deleted = if tables.len() > 1 { Some(tables.remove(0)) } else { None };
    if let Some(table) = &deleted {
        std::fs::remove_file(table).map_err(|error| cannot(table, error))?;
    }
    Ok(Damage { overwritten: tables, deleted })
}

fn overwrite(path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    let bytes = file.metadata()?.len();
    for quarter in 1..4 {
        file.seek(SeekFrom::Start(bytes / 4 * quarter))?;
        file.write_all(&[0xa5; 512])?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_tells_apart_what_concatenation_does_not() {
        let digest = |entries: &[(&str, &str)]| {
            let mut digest = Digest::default();
            for (key, value) in entries {
                digest.add(key.as_bytes(), value.as_bytes());
            }
            digest.hex()
        };
        assert_eq!(digest(&[("a", "b")]), digest(&[("a", "b")]));
        assert_ne!(digest(&[("a", "bc")]), digest(&[("ab", "c")]));
        assert_ne!(digest(&[("a", ""), ("b", "")]), digest(&[("a", "b")]));
    }

    #[test]
    fn damage_changes_every_table_and_deletes_one() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["1.sst", "2.sst", "CURRENT"] {
            std::fs::write(folder.path().join(name), vec![0; 5000]).unwrap();
        }
        let damage = damage(folder.path(), "sst").unwrap();
        assert_eq!(damage.overwritten.len(), 1);
        assert!(!folder.path().join("1.sst").exists());
        assert!(std::fs::read(folder.path().join("2.sst")).unwrap().contains(&0xa5));
        assert_eq!(std::fs::read(folder.path().join("CURRENT")).unwrap(), vec![0; 5000]);
    }
}
