//! A store whose entries are made when they are read: however many there are, it holds none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tierstack::backends::Memory;
use tierstack::{
    Batch, Changes, Commit, Entry, Identity, Inspection, Page, Pages, Profile, Read, Reply, Result,
    Scan, Scope, Store, Usage, Value, forward,
};

/// Pages of entries with the same byte as values, and a number in each MiB of them.
#[derive(Clone, Copy)]
pub struct Generated {
    pub pages: u64,
    pub entries: u64,
    pub value: usize,
}

impl Generated {
    /// An empty store, which holds these entries once a page of them was written.
    pub fn target(self) -> Sink {
        Sink { entries: self, memory: Memory::new(), written: AtomicU64::new(0) }
    }

    /// Keys and values are parts of one buffer, as those of an engine's page.
    fn page(self, number: u64) -> Page {
        let size = 8 + self.value;
        let mut buffer = vec![7; size * self.entries as usize];
        for (entry, bytes) in buffer.chunks_mut(size).enumerate() {
            let key = 1 + number * self.entries + entry as u64;
            bytes[..8].copy_from_slice(&key.to_be_bytes());
            for (part, bytes) in bytes[8..].chunks_mut(1 << 20).enumerate() {
                bytes[..8].copy_from_slice(&(key << 16 | part as u64).to_be_bytes());
            }
        }
        let buffer = Bytes::from(buffer);
        let entries = (0..buffer.len()).step_by(size).map(|at| Entry {
            key: buffer.slice(at..at + 8),
            value: Value::new(buffer.slice(at + 8..at + size)),
        });
        Page { entries: entries.collect() }
    }
}

impl Read for Generated {
    fn get<'a>(&'a self, _key: &'a [u8]) -> Reply<'a, Option<Value>> {
        Reply::Now(Ok(None))
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        Reply::Now(Ok(vec![None; keys.len()]))
    }

    fn scan(&self, _scan: Scan) -> Pages<'_> {
        let store = *self;
        futures_util::stream::iter(0..self.pages).map(move |page| Ok(store.page(page))).boxed()
    }
}

/// What a store does in addition to reading, by way of an empty one.
macro_rules! store {
    ($store:ty, |$self:ident, $batch:ident| $write:expr, $memory:expr) => {
        #[async_trait]
        impl Store for $store {
            async fn write(&$self, $batch: Batch) -> Result<Commit> {
                $write
            }

            async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
                tierstack::write_in_order(self, group).await
            }

            async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
                Memory::new().ingest(run).await
            }

            async fn changes(&self) -> Result<Changes> {
                Memory::new().changes().await
            }

            async fn invalidate(&self, _scope: Scope) -> Result<()> {
                Ok(())
            }

            async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
                Memory::new().inspect(key).await
            }

            async fn snapshot(&self) -> Result<Arc<dyn Read>> {
                let snapshot: fn(&Self) -> Arc<dyn Read> = $memory;
                Ok(snapshot(self))
            }

            async fn flush(&self) -> Result<()> {
                Ok(())
            }

            async fn compact(&self) -> Result<()> {
                Ok(())
            }

            async fn usage(&self) -> Result<Usage> {
                Memory::new().usage().await
            }

            async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
                Memory::new().count(prefix).await
            }

            async fn close(&self) -> Result<()> {
                Ok(())
            }

            fn identity(&self) -> Option<Identity> {
                None
            }

            fn profile(&self) -> Profile {
                Memory::new().profile().changed(|guarantees| guarantees.ingest = false)
            }
        }
    };
}

store!(Generated, |self, batch| Memory::new().write(batch).await, |store| Arc::new(*store));

/// Forgets what is written, but that something was; the mark of a restore it keeps.
pub struct Sink {
    entries: Generated,
    memory: Memory,
    written: AtomicU64,
}

impl Read for Sink {
    fn scan(&self, scan: Scan) -> Pages<'_> {
        if self.written.load(Ordering::Relaxed) > 1 << 20 {
            self.entries.scan(scan)
        } else {
            self.memory.scan(scan)
        }
    }

    forward!(self => self.memory; get, get_many);
}

store!(
    Sink,
    |self, batch| {
        let own = batch.ops().iter().all(|op| op.key().starts_with(b"\0tierstack/"));
        self.written.fetch_add(batch.bytes() as u64, Ordering::Relaxed);
        let batch = if own { batch } else { Batch::new() };
        self.memory.write(batch).await
    },
    |_| unreachable!("a restore takes no snapshot")
);
