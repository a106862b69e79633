mod rewriting;

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use self::rewriting::stale;
use super::*;
use crate::backends::Memory;
use crate::forward;
use crate::layer::RewriteReport;
use crate::types::{Op, Page};
use crate::{ErrorKind, ReadExt, StoreExt, Timestamp};

/// A frame is `~`, a stamp, the value.
#[derive(Debug, Default)]
struct Stamp {
    now: AtomicU8,
    /// Nothing is ever current, so a rewrite rewrites everything.
    restless: bool,
    /// Where the last value was decoded.
    thread: parking_lot::Mutex<Option<std::thread::ThreadId>>,
}

impl Stamp {
    fn layer(now: u8, accept_plain: bool) -> TransformLayer<Self> {
        let stamp = Self { now: now.into(), ..Self::default() };
        TransformLayer::from_transform(stamp, accept_plain, &Labels::default())
    }
}

impl Transform for Stamp {
    const NAME: &'static str = "stamp";

    fn encode(&self, _key: &[u8], value: &Value) -> Result<Bytes> {
        let value = &*value.bytes;
        if value == b"refused" {
            return Err(Error::invalid("refused"));
        }
        let now = if self.restless {
            self.now.fetch_add(1, Ordering::Relaxed)
        } else {
            self.now.load(Ordering::Relaxed)
        };
        Ok([b"~", &[now][..], value].concat().into())
    }

    fn decode(&self, _key: &[u8], stored: Value) -> Result<Value> {
        *self.thread.lock() = Some(std::thread::current().id());
        let bytes = &stored.bytes;
        if !Self::is_frame(bytes) || bytes.len() < 2 || bytes.ends_with(b"damage") {
            return Err(Error::corruption("not a stamped value"));
        }
        Ok(Value { bytes: bytes.slice(2..), ..stored })
    }

    /// A value that begins with `large` claims much more than it has.
    fn claimed(stored: &[u8]) -> usize {
        let large = stored.get(2..).is_some_and(|value| value.starts_with(b"large"));
        if large { INLINE_BYTES + 1 } else { stored.len() }
    }

    fn is_frame(stored: &[u8]) -> bool {
        stored.starts_with(b"~")
    }

    fn is_current(&self, stored: &[u8]) -> bool {
        !self.restless && stored.get(1) == Some(&self.now.load(Ordering::Relaxed))
    }

    fn is_foreign(&self, _: &[u8]) -> bool {
        false
    }

    fn profile(&self, _accept_plain: bool, below: Profile) -> Profile {
        Profile::layer(Self::NAME, below)
    }
}

/// A memory store whose answers can be held back. What was written arrives in the end, whether or not
/// somebody still waits for it.
#[derive(Debug)]
struct Slow {
    memory: Arc<Memory>,
    reads: Arc<Gate>,
    writes: Arc<Gate>,
    /// Takes no batches.
    one_by_one: bool,
    compares: bool,
}

#[derive(Debug)]
struct Gate {
    open: watch::Sender<bool>,
    arrived: AtomicUsize,
}

impl Default for Slow {
    fn default() -> Self {
        let (reads, writes) = Default::default();
        Self { memory: Arc::default(), reads, writes, one_by_one: false, compares: true }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self { open: watch::channel(true).0, arrived: AtomicUsize::new(0) }
    }
}

impl Gate {
    async fn pass(&self) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
    }

    fn close(&self) {
        self.open.send_replace(false);
        self.arrived.store(0, Ordering::SeqCst);
    }

    fn open(&self) {
        self.open.send_replace(true);
    }

    async fn reached(&self) {
        self.reached_by(1).await;
    }

    async fn reached_by(&self, many: usize) {
        until(|| self.arrived.load(Ordering::SeqCst) >= many).await;
    }
}

async fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it does not happen");
}

/// Lets every task that can go on do so.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

impl Read for Slow {
    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        Reply::later(async move {
            let values = self.memory.get_many(keys).await;
            self.reads.pass().await;
            values
        })
    }

    forward!(self => self.memory; get, scan);
}

#[async_trait]
impl Store for Slow {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.profile().guarantees.check_batch(&batch)?;
        let (memory, gate) = (Arc::clone(&self.memory), Arc::clone(&self.writes));
        let write = async move {
            gate.pass().await;
            memory.write(batch).await
        };
        tokio::spawn(write).await.unwrap()
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        crate::write_in_order(self, group).await
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn compact(&self) -> Result<()> {
        Ok(())
    }

    fn profile(&self) -> Profile {
        self.memory.profile().changed(|guarantees| {
            guarantees.atomic_batches = !self.one_by_one;
            if !self.compares {
                guarantees.conditions = crate::Conditions::Absence;
            }
        })
    }

    forward!(self => self.memory; ingest, changes, invalidate, inspect, snapshot, usage, count, close, identity);
}

fn nobody() -> impl FnMut(&RewriteReport) + Send {
    |_: &RewriteReport| ()
}

#[tokio::test]
async fn every_read_decodes_and_expiries_pass() {
    let memory = Arc::new(Memory::new());
    let store = Stamp::layer(1, false).layer(Arc::clone(&memory));
    let late = Timestamp::from_millis(1 << 50);
    store
        .write(Batch::new().put("a", "1").put("b", Value::from("2").expiring_at(late)).delete("c"))
        .await
        .unwrap();
    assert_eq!(memory.get(b"a").await.unwrap(), Some("~\x011".into()), "encoded below");
    let frozen = store.snapshot().await.unwrap();
    store.delete("a").await.unwrap();

    let b = Value::from("2").expiring_at(late);
    assert_eq!(store.get(b"b").await.unwrap(), Some(b.clone()));
    assert!(matches!(store.get(b"b"), Reply::Now(_)), "what is in memory stays so");
    let keys = ["b", "a", "b"].map(Bytes::from);
    let many = [Some(b.clone()), None, Some(b.clone())];
    assert_eq!(store.get_many(&keys).await.unwrap(), many);
    let entries = store.collect(Scan::all().reverse()).await.unwrap();
    assert_eq!(entries, [Entry { key: "b".into(), value: b.clone() }]);
    assert_eq!(frozen.get(b"a").await.unwrap(), Some("1".into()));
    assert_eq!(frozen.collect(Scan::all()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_batch_that_cannot_be_encoded_writes_nothing() {
    let memory = Arc::new(Memory::new());
    let store = Stamp::layer(1, false).layer(Arc::clone(&memory));
    let error = store.write(Batch::new().put("a", "1").put("b", "refused")).await.unwrap_err();
    assert_eq!((error.kind(), error.layer()), (ErrorKind::InvalidInput, Some("stamp")));
    assert_eq!(memory.usage().await.unwrap().entries, Some(0));
    let large = Batch::new().put("a", vec![0; 2 * INLINE_BYTES]).put("b", "refused");
    store.write(large).await.unwrap_err();
    assert_eq!(memory.usage().await.unwrap().entries, Some(0));
    store.put("a", vec![7; 2 * INLINE_BYTES]).await.unwrap();
    assert_eq!(store.get(b"a").await.unwrap().unwrap().bytes, vec![7; 2 * INLINE_BYTES]);
}

#[tokio::test]
async fn a_damaged_entry_fails_alone_and_says_where() {
    let memory = Arc::new(Memory::new());
    let store = Stamp::layer(1, false).layer(Arc::clone(&memory));
    store.write(Batch::new().put("a", "1").put("b", "2").put("c", "3")).await.unwrap();
    memory.put("b", "~\x01damage").await.unwrap();
    let keys = ["a", "b"].map(Bytes::from);
    let scan = Scan::all().page_entries(1);
    let mut pages = store.scan(scan);
    assert_eq!(pages.next().await.unwrap().unwrap().entries[0].key, "a");
    let errors = [
        store.get(b"b").await.unwrap_err(),
        store.get_many(&keys).await.unwrap_err(),
        pages.next().await.unwrap().unwrap_err(),
    ];
    assert!(pages.next().await.is_none(), "a scan ends after an error");
    for error in errors {
        assert_eq!((error.kind(), error.layer()), (ErrorKind::Corruption, Some("stamp")));
        let fingerprint = Error::closed().with_key(b"b").key_fingerprint();
        assert_eq!(error.key_fingerprint(), fingerprint);
    }
    assert_eq!(store.get(b"c").await.unwrap(), Some("3".into()), "the others are readable");
}

#[tokio::test]
async fn a_condition_holds_of_a_value_that_is_encoded_anew_meanwhile() {
    let (below, _, store) = stale().await;
    let require = |value: &'static str| {
        let batch = Batch::new().put("k", "next").require(crate::Condition::equals("k", value));
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.write(batch).await.map(drop) })
    };
    below.reads.close();
    let writing = require("old");
    below.reads.reached().await;
    below.memory.put("k", "~\x07old").await.unwrap();
    below.reads.open();
    writing.await.unwrap().unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("next".into()));

    below.reads.close();
    let writing = require("next");
    below.reads.reached().await;
    below.memory.put("k", "~\x07another").await.unwrap();
    below.reads.open();
    let error = writing.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Conflict, crate::Outcome::Nothing));
    assert_eq!(store.get(b"k").await.unwrap(), Some("another".into()));
}

#[tokio::test]
async fn what_claims_to_be_large_is_decoded_where_it_holds_up_no_task() {
    let layer = Stamp::layer(1, false);
    let store = layer.layer(Memory::new());
    store.write(Batch::new().put("large", "large, it says").put("small", "v")).await.unwrap();
    let here = || *layer.0.transform.thread.lock() == Some(std::thread::current().id());
    for key in ["large", "small"] {
        let inline = key == "small";
        store.get(key.as_bytes()).await.unwrap().unwrap();
        assert_eq!(here(), inline, "get of {key}");
        store.get_many(&[key.into()]).await.unwrap();
        assert_eq!(here(), inline, "get_many of {key}");
        store.collect(Scan::prefix(key)).await.unwrap();
        assert_eq!(here(), inline, "scan of {key}");
    }
}

#[tokio::test]
async fn a_large_page_of_a_run_is_encoded_as_a_small_one() {
    let memory = Arc::new(Memory::new());
    let store = Stamp::layer(1, false).layer(Arc::clone(&memory));
    let entry = |key: &'static str, bytes: Vec<u8>| Entry { key: key.into(), value: bytes.into() };
    let run = |page| futures_util::stream::iter([Ok(Page { entries: page })]).boxed();
    let large = || entry("a", vec![7; 2 * INLINE_BYTES]);
    assert_eq!(store.ingest(run(vec![large(), entry("b", vec![8])])).await.unwrap(), 2);
    assert_eq!(store.get(b"a").await.unwrap().unwrap().bytes, vec![7; 2 * INLINE_BYTES]);
    assert_eq!(memory.get(b"b").await.unwrap().unwrap().bytes, b"~\x01\x08".as_slice());
    let refused = run(vec![large(), entry("b", b"refused".to_vec())]);
    let error = store.ingest(refused).await.unwrap_err();
    assert_eq!((error.kind(), error.layer()), (ErrorKind::InvalidInput, Some("stamp")));
}

/// Also past a value that cannot be decoded, as none is.
#[tokio::test]
async fn a_scan_of_keys_only_decodes_nothing() {
    let memory = Arc::new(Memory::new());
    let store = Stamp::layer(1, false).layer(Arc::clone(&memory));
    for key in ["a", "b", "c"] {
        let _ = store.put(key, "v").await.unwrap();
    }
    let _ = memory.put("b", "damage").await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    *store.shared.transform.thread.lock() = None;
    let scan = Scan::all().keys_only();
    let found = store.collect(scan.clone()).await.unwrap();
    assert_eq!(found, memory.collect(scan.clone()).await.unwrap());
    assert_eq!(found, snapshot.collect(scan).await.unwrap());
    assert_eq!(*store.shared.transform.thread.lock(), None);
    assert!(store.collect(Scan::all()).await.is_err());
    assert!(store.shared.transform.thread.lock().is_some());
}
