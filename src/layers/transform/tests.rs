use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

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
async fn a_rewrite_moves_everything_over_and_can_be_paced() {
    let memory = Arc::new(Memory::new());
    let late = Timestamp::from_millis(1 << 50);
    let old = Stamp::layer(1, false).layer(Arc::clone(&memory));
    for n in 0..200 {
        let value = Value::from(n.to_string()).expiring_at(late);
        old.put(format!("k{n:03}"), value).await.unwrap();
    }
    memory.put("k100", "plain").await.unwrap();
    memory.put("k101", "~\x01damage").await.unwrap();

    let layer = Stamp::layer(2, true);
    let store = layer.layer(Arc::clone(&memory));
    assert_eq!(store.get(b"k100").await.unwrap(), Some("plain".into()));
    let before = store.collect(Scan::range(..="k100")).await.unwrap();

    let rewriter = layer.rewriter(Arc::clone(&memory) as _);
    assert_eq!(rewriter.name(), "stamp");
    let mut scan = Scan::all().limit(150);
    let first = rewriter.rewrite(scan.clone(), &mut nobody()).await.unwrap();
    assert_eq!((first.examined, first.rewritten, first.damaged), (150, 149, 1));
    assert_eq!(first.first_damage.as_ref().unwrap().kind(), ErrorKind::Corruption);
    assert!(!format!("{first:?}").contains("k149"), "no key is printed");
    scan = Scan::all().page_entries(10);
    scan.resume_after(first.last_key.unwrap());
    let mut pages = Vec::new();
    let second =
        rewriter.rewrite(scan, &mut |report: &RewriteReport| pages.push(report.examined)).await;
    assert_eq!(second.unwrap().rewritten, 50);
    assert_eq!(pages, [10, 20, 30, 40, 50]);

    assert_eq!(store.collect(Scan::range(..="k100")).await.unwrap(), before);
    for entry in memory.collect(Scan::all()).await.unwrap() {
        let stamp = if entry.key == "k101" { 1 } else { 2 };
        assert_eq!(entry.value.bytes[..2], [b'~', stamp]);
    }
    let again = rewriter.rewrite(Scan::all(), &mut nobody()).await.unwrap();
    assert_eq!((again.examined, again.rewritten, again.damaged), (200, 0, 1));
}

#[tokio::test]
async fn where_there_are_no_batches_many_entries_are_rewritten_at_a_time() {
    let below = Arc::new(Slow { one_by_one: true, ..Slow::default() });
    for n in 0..200 {
        below.memory.put(format!("k{n:03}"), "~\x01old").await.unwrap();
    }
    below.memory.put("k100", "~\x01damage").await.unwrap();
    below.writes.close();
    let rewriting = rewrite(&Stamp::layer(2, false), &below);
    below.writes.reached_by(8).await;
    below.writes.open();
    let report = rewriting.await.unwrap();
    assert_eq!((report.examined, report.rewritten, report.damaged), (200, 199, 1));
    for entry in below.memory.collect(Scan::all()).await.unwrap() {
        let stamp = if entry.key == "k100" { 1 } else { 2 };
        assert_eq!(entry.value.bytes[..2], [b'~', stamp]);
    }
}

/// A stale entry below a layer that writes another stamp.
async fn stale() -> (Arc<Slow>, TransformLayer<Stamp>, Arc<Transformed<Arc<Slow>, Stamp>>) {
    let below = Arc::new(Slow::default());
    below.memory.put("k", "~\x01old").await.unwrap();
    let layer = Stamp::layer(2, false);
    let store = Arc::new(layer.layer(Arc::clone(&below)));
    (below, layer, store)
}

fn rewrite(
    layer: &TransformLayer<Stamp>,
    below: &Arc<Slow>,
) -> tokio::task::JoinHandle<RewriteReport> {
    let rewriter = layer.rewriter(Arc::clone(below) as _);
    tokio::spawn(async move { rewriter.rewrite(Scan::all(), &mut nobody()).await.unwrap() })
}

fn put(store: &Arc<Transformed<Arc<Slow>, Stamp>>) -> tokio::task::JoinHandle<()> {
    let store = Arc::clone(store);
    tokio::spawn(async move {
        store.put("k", "new").await.unwrap();
    })
}

#[tokio::test]
async fn a_write_between_the_look_and_the_write_of_a_rewrite_stays() {
    let (below, layer, store) = stale().await;
    for other in ["a", "x"] {
        below.memory.put(other, "~\x01old").await.unwrap();
    }
    below.writes.close();
    let rewriting = rewrite(&layer, &below);
    below.writes.reached().await;
    // Another process writes what the rewrite has read, and not yet written.
    below.memory.put("k", "~\x02new").await.unwrap();
    below.writes.open();
    let report = rewriting.await.unwrap();
    assert_eq!((report.rewritten, report.changed), (2, 1), "the others are rewritten");
    assert_eq!(store.get(b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn a_write_that_was_begun_before_the_look_of_a_rewrite_stays() {
    let (below, layer, store) = stale().await;
    below.writes.close();
    let writing = put(&store);
    below.writes.reached().await;
    // The write is on its way, and the old value is still there.
    let rewriting = rewrite(&layer, &below);
    below.writes.reached_by(2).await;
    below.writes.open();
    writing.await.unwrap();
    rewriting.await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn an_abandoned_rewrite_cannot_undo_a_later_write() {
    let (below, layer, store) = stale().await;
    below.writes.close();
    let rewriting = rewrite(&layer, &below);
    below.writes.reached().await;
    rewriting.abort();
    assert!(rewriting.await.unwrap_err().is_cancelled());
    below.memory.put("k", "~\x02new").await.unwrap();
    // What the rewrite had begun arrives now.
    below.writes.open();
    settle().await;
    assert_eq!(store.get(b"k").await.unwrap(), Some("new".into()));
}

#[tokio::test]
async fn a_store_that_cannot_compare_values_is_not_rewritten() {
    let below = Arc::new(Slow { compares: false, ..Slow::default() });
    below.memory.put("k", "~\x01old").await.unwrap();
    let rewriter = Stamp::layer(2, false).rewriter(Arc::clone(&below) as _);
    let error = rewriter.rewrite(Scan::all(), &mut nobody()).await.unwrap_err();
    assert_eq!((error.kind(), error.layer()), (ErrorKind::Unsupported, Some("stamp")));
    assert_eq!(below.memory.get(b"k").await.unwrap(), Some("~\x01old".into()));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_write_is_lost_under_a_rewrite_that_never_ends() {
    let stamp = Stamp { restless: true, ..Stamp::default() };
    let layer = TransformLayer::from_transform(stamp, false, &Labels::default());
    let below = Arc::new(Slow::default());
    let store = Arc::new(layer.layer(Arc::clone(&below)));
    let rewritten = Arc::new(AtomicUsize::new(0));
    let rewriting = {
        let (rewriter, rewritten) =
            (layer.rewriter(Arc::clone(&below) as _), Arc::clone(&rewritten));
        tokio::spawn(async move {
            loop {
                let report = rewriter.rewrite(Scan::all(), &mut nobody()).await.unwrap();
                rewritten.fetch_add(report.rewritten as usize, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        })
    };
    let writers = (0..3).map(|writer| {
        let (store, rewritten) = (Arc::clone(&store), Arc::clone(&rewritten));
        tokio::spawn(async move {
            for n in 0.. {
                if rewritten.load(Ordering::Relaxed) > 1000 {
                    break;
                }
                let put = |key| Op::Put(format!("{writer}{key}").into(), n.to_string().into());
                store.write((0..5).map(put).collect()).await.unwrap();
                // Time for a rewrite that saw the value before to put it back.
                settle().await;
                for key in 0..5 {
                    let seen = store.get(format!("{writer}{key}").as_bytes()).await.unwrap();
                    assert_eq!(
                        seen,
                        Some(n.to_string().into()),
                        "the last write of its only writer"
                    );
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    rewriting.abort();
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
