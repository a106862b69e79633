mod coherence;
mod damage;
mod faults;
mod model;
mod restart;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tempfile::TempDir;

use super::super::coherence::{Epoch, Epochs, Mode};
use super::super::config::DiskConfig;
use super::super::policy::CoarseTime;
use super::disk_level::{DiskHit, DiskLevel};
use super::hash::HashKey;
use super::log::Shape;
use super::open::Disk;
use super::read::MOST_WAIT;
use super::record::Copy;
use super::table::{State, Stop};
use super::{index_file, record, timeline};
use crate::clock::{Clock as _, ManualClock};
use crate::error::Result;
use crate::layer::Context;
use crate::types::Value;
use crate::types::units::ByteSize;

/// Lets the disk fail after so many steps, and from then on. Below 0: the next step panics.
#[derive(Debug)]
pub(super) struct Fault(AtomicI64);

impl Default for Fault {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MAX))
    }
}

impl Fault {
    pub(super) fn step(&self) -> io::Result<()> {
        match self.0.load(Ordering::SeqCst) {
            ..0 => {
                self.after(i64::MAX);
                panic!("a defect");
            }
            i64::MAX => return Ok(()),
            _ => {}
        }
        match self.0.fetch_sub(1, Ordering::SeqCst) {
            0 => {
                self.after(0);
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn after(&self, steps: i64) {
        self.0.store(steps, Ordering::SeqCst);
    }
}

const SHAPE: Shape =
    Shape { capacity: 8 << 10, segment: 1 << 10, waiting: 4 << 10, entries: 1 << 20 };

/// A folder, and a clock that outlives the levels in it.
struct Rig {
    folder: TempDir,
    clock: ManualClock,
}

impl Rig {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: ManualClock::new() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("level")
    }

    fn try_open(&self, path: &Path, warm: bool) -> Result<DiskLevel> {
        let level = self.open_with(path, warm, SHAPE)?;
        level.belongs_to(Some("stack"));
        Ok(level)
    }

    fn open_with(&self, path: &Path, warm: bool, shape: Shape) -> Result<DiskLevel> {
        let (path, capacity) = (path.to_owned(), ByteSize(0));
        let config = DiskConfig { path, capacity, index_memory: None, warm };
        let context = Context { clock: Arc::new(self.clock.clone()), ..Context::default() };
        DiskLevel::open(&config, shape, &context)
    }

    fn open(&self) -> DiskLevel {
        self.try_open(&self.path(), true).unwrap()
    }

    /// A level in a copy of the folder as it is now, as after a crash.
    fn after_crash(&self) -> (TempDir, DiskLevel) {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(self.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        let level = self.try_open(copy.path(), true).unwrap();
        (copy, level)
    }

    /// A moment from now.
    fn after(&self, seconds: u64) -> CoarseTime {
        CoarseTime(CoarseTime::now(&self.clock).0 + seconds * 1000)
    }

    fn put(&self, level: &DiskLevel, key: &[u8], value: impl Into<Value>) {
        level.offer(key, &value.into(), CoarseTime::NEVER, Epoch::FIRST);
    }
}

fn later_epoch() -> Epoch {
    let epochs = Epochs::new(Mode::Keeping);
    epochs.renew();
    epochs.now()
}

fn write_all(level: &DiskLevel) {
    while level.step(false) {}
}

/// As a clean close does. Tells whether it came to its end.
fn close(level: &DiskLevel) {
    level.stop(Stop::Written { keep: level.warm });
    write_all(level);
    assert!(*level.closed.borrow());
}

fn found(level: &DiskLevel, key: &[u8]) -> Option<DiskHit> {
    let held = level.table.lock().find(level.hash(key), key)?;
    level.read(key, held)
}

fn get(level: &DiskLevel, key: &[u8]) -> Option<Value> {
    found(level, key).map(|found| found.value)
}

fn entries(level: &DiskLevel) -> usize {
    level.table.lock().entries()
}

/// Bytes of all files there.
fn bytes(path: &Path) -> u64 {
    let files = std::fs::read_dir(path).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

fn segments(path: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with("segment-"))
        .collect();
    files.sort();
    files
}

/// What the series of a name and a cause have come to since this was asked last.
fn counted(recorder: &DebuggingRecorder) -> impl Fn(&str, &str) -> f64 {
    crate::telemetry::gather();
    let series = recorder.snapshotter().snapshot().into_vec();
    move |name, cause| {
        let found = series.iter().filter(|(key, ..)| {
            let has = key.key().labels().any(|label| label.value() == cause);
            key.key().name() == format!("tierstack_cache_{name}") && (cause.is_empty() || has)
        });
        found
            .map(|(.., value)| match value {
                DebugValue::Counter(count) => *count as f64,
                DebugValue::Gauge(value) => value.into_inner(),
                DebugValue::Histogram(_) => 0.0,
            })
            .sum()
    }
}
