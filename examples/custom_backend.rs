//! A backend of your own, and the conformance suite run on it.
//!
//! ```text
//! cargo run --release --example custom_backend --features testing
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tierstack::testing::conformance::{self, Fixture};
use tierstack::{
    Batch, Changes, Commit, Conditions, Counting, Durability, Entry, Error, Freshness, Guarantees,
    Identity, Inspection, Limits, Op, Order, Page, Pages, Profile, Read, Reply, Result, Scan,
    Scope, Store, Usage, Value,
};

/// Runs the suite on the store, and says what came of it.
#[tokio::main]
pub async fn main() -> std::process::ExitCode {
    let report = conformance::run(|| async { Ok(Fixture::new(Shelf::default())) }).await;
    println!("{report}");
    for (check, why) in report.skipped() {
        println!("  does not apply: {check}: {why}");
    }
    if report.is_ok() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}

/// A map behind a lock. No snapshots and no expiry, and its profile says so.
#[derive(Default)]
struct Shelf {
    entries: Mutex<BTreeMap<Bytes, Bytes>>,
    closed: AtomicBool,
}

impl Shelf {
    /// The entries, unless the store was closed. Nobody panics with the lock held.
    fn entries(&self) -> Result<MutexGuard<'_, BTreeMap<Bytes, Bytes>>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(entries) }
    }

    fn get_now(&self, key: &[u8]) -> Result<Option<Value>> {
        check(key)?;
        Ok(self.entries()?.get(key).cloned().map(Value::new))
    }

    /// The next page of a scan, and whether it is the last.
    fn page(&self, scan: &Scan) -> Result<(Page, bool)> {
        let entries = self.entries()?;
        let mut page = Page::default();
        if scan.is_empty() {
            return Ok((page, true));
        }
        let mut take = |(key, value): (&Bytes, &Bytes)| {
            let value = if scan.keys_only { Value::default() } else { value.clone().into() };
            page.entries.push(Entry { key: key.clone(), value });
            page.len() >= scan.next_page_entries() || page.bytes() >= scan.page_bytes
        };
        let mut range = entries.range::<Bytes, _>((scan.from.as_ref(), scan.to.as_ref()));
        let full = match scan.order {
            Order::Forward => range.any(&mut take),
            Order::Reverse => range.rev().any(&mut take),
        };
        Ok((page, !full))
    }
}

fn check(key: &[u8]) -> Result<()> {
    if key.is_empty() {
        return Err(Error::invalid("a key must have at least 1 byte"));
    }
    Limits::default().check(key.len(), 0)
}

impl Read for Shelf {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        Reply::Now(self.get_now(key))
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        Reply::Now(keys.iter().map(|key| self.get_now(key)).collect())
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        futures_util::stream::unfold(Some(scan), move |scan| async move {
            let mut scan = scan?;
            let (page, last) = match self.page(&scan) {
                Ok(page) => page,
                Err(error) => return Some((Err(error), None)),
            };
            // The lock is free between pages: the next one starts behind the last key.
            scan.resume_after(page.entries.last()?.key.clone());
            scan.consume(page.len());
            Some((Ok(page), (!last).then_some(scan)))
        })
        .boxed()
    }
}

#[async_trait]
impl Store for Shelf {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.profile().guarantees.check_batch(&batch)?;
        let mut entries = self.entries()?;
        for op in batch.into_ops() {
            match op {
                Op::Put(key, value) => entries.insert(key, value.bytes),
                Op::Delete(key) => entries.remove(&key),
            };
        }
        Ok(Commit::done())
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        tierstack::write_in_order(self, group).await
    }

    async fn ingest(&self, _: Pages<'_>) -> Result<u64> {
        let _open = self.entries()?;
        Err(Error::unsupported("a shelf takes batches only"))
    }

    async fn changes(&self) -> Result<Changes> {
        let _open = self.entries()?;
        Err(Error::unsupported("a shelf has no change feed"))
    }

    /// There is no cache in a shelf.
    async fn invalidate(&self, _: Scope) -> Result<()> {
        self.entries().map(drop)
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        let value = self.get_now(key)?;
        Ok(vec![Inspection::of_entry("shelf", "memory", value.as_ref())])
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        let _open = self.entries()?;
        Err(Error::unsupported("a shelf has no snapshots"))
    }

    async fn flush(&self) -> Result<()> {
        self.entries().map(drop)
    }

    async fn compact(&self) -> Result<()> {
        self.entries().map(drop)
    }

    async fn usage(&self) -> Result<Usage> {
        Ok(Usage { entries: Some(self.entries()?.len() as u64), ..Usage::default() })
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        let begins = |key: &&Bytes| key.starts_with(prefix);
        Ok(Some(self.entries()?.keys().filter(begins).count() as u64))
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }

    fn profile(&self) -> Profile {
        Profile::backend(
            "shelf",
            Guarantees {
                durability: Durability::Nothing,
                durability_on_request: Durability::Nothing,
                durability_after_flush: Durability::Nothing,
                atomic_batches: true,
                conditions: Conditions::None,
                verbatim: true,
                freshness: Freshness::Exclusive,
                change_feed: None,
                ordered_scans: true,
                atomic_pages: true,
                snapshots: false,
                expiry: false,
                ingest: false,
                counts: Counting::Exact,
                writable: true,
                places: Vec::new(),
                recovery: None,
                limits: Limits::default(),
            },
        )
    }

    fn identity(&self) -> Option<Identity> {
        None
    }
}
