//! The layer over a memory store that fails as a test says, on a clock that a test moves, with a flusher that a test drives.

mod announcing;
mod closing;
mod conditions;
mod conforming;
mod disk;
mod failing;
mod flushing;
mod opening;
mod ordering;
mod pressure;
mod reading;
mod reopening;

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use futures_util::{FutureExt, TryStreamExt};
use tempfile::TempDir;

use super::flush::{Flusher, Step};
use super::{Ack, WriteBack, WriteBackConfig, WriteBackLayer};
use crate::backends::Memory;
use crate::clock::ManualClock;
use crate::error::Result;
use crate::ext::StoreExt;
use crate::layer::Context;
use crate::store::{Read, Store};
use crate::testing::{FaultStore, Faults};
use crate::types::{Batch, Scan};

/// A store with its flusher, which rests between the steps of a test.
struct Bed {
    store: Arc<WriteBack>,
    flusher: Flusher,
    below: Arc<Memory>,
    faults: Faults,
    clock: ManualClock,
    folder: Arc<TempDir>,
}

fn config(folder: &Path, ack: Ack) -> WriteBackConfig {
    WriteBackConfig { path: Some(folder.join("journal")), ack, ..WriteBackConfig::default() }
}

async fn bed() -> Bed {
    bed_with(|_| ()).await
}

async fn bed_with(change: impl FnOnce(&mut WriteBackConfig)) -> Bed {
    let (clock, folder) = (ManualClock::new(), Arc::new(tempfile::tempdir().unwrap()));
    let below = Arc::new(Memory::with_clock(Arc::new(clock.clone())));
    let mut config = config(folder.path(), Ack::Journal);
    change(&mut config);
    open(config, below, clock, folder).await.unwrap()
}

async fn open(
    config: WriteBackConfig,
    below: Arc<Memory>,
    clock: ManualClock,
    folder: Arc<TempDir>,
) -> Result<Bed> {
    let faults = Faults::seeded(0, Arc::new(clock.clone()));
    let context = Context { clock: Arc::new(clock.clone()), ..Context::default() };
    let layer = WriteBackLayer::open(&config, &context).await?;
    let failing = Arc::new(FaultStore::new(Arc::clone(&below), &faults));
    let (store, flusher) = layer.pair(failing).await?;
    Ok(Bed { store: Arc::new(store), flusher, below, faults, clock, folder })
}

impl Bed {
    async fn put(&self, key: &'static str, value: &'static str) {
        drop(self.store.put(key, value).await.unwrap());
    }

    async fn gives(&self, key: &str, value: Option<&'static str>) {
        assert_eq!(self.store.get(key.as_bytes()).await.unwrap(), value.map(Into::into), "{key}");
    }

    async fn below_gives(&self, key: &str, value: Option<&'static str>) {
        assert_eq!(self.below.get(key.as_bytes()).await.unwrap(), value.map(Into::into), "{key}");
    }

    /// Flushes until nothing is left.
    async fn flush_all(&mut self) {
        while self.flusher.step().await == Step::Flushed {}
        assert!(self.store.shared.overlay.is_empty());
    }

    /// Runs an operation that waits for flushes, concurrently with the flusher.
    async fn beside<T>(&mut self, operation: impl Future<Output = T>) -> T {
        let mut operation = pin!(operation);
        loop {
            if let Some(done) = operation.as_mut().now_or_never() {
                return done;
            }
            if self.flusher.step().await != Step::Flushed {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Keys and values as text.
async fn scanned(store: &(impl Read + ?Sized), scan: Scan) -> Vec<String> {
    let pages: Vec<_> = store.scan(scan).try_collect().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let entries = pages.into_iter().flat_map(|page| page.entries);
    entries.map(|entry| format!("{}={}", text(&entry.key), text(&entry.value.bytes))).collect()
}
