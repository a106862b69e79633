use std::sync::atomic::AtomicUsize;

use futures_util::TryStreamExt;

use super::*;
use crate::backends::Memory;
use crate::clock::ManualClock;
use crate::error::{Error, Operation};
use crate::ext::StoreExt;
use crate::forward;
use crate::telemetry::{Distribution, names, snapshot};

/// What a stack has counted, which no other test has the name of.
struct Counted(String);

impl Counted {
    fn new() -> Self {
        static STACKS: AtomicUsize = AtomicUsize::new(0);
        Self(format!("test {}", STACKS.fetch_add(1, Ordering::Relaxed)))
    }

    fn labels(&self, layer: &str) -> Labels {
        Labels::new(&self.0, layer)
    }

    fn ops(&self, op: &str, outcome: &str) -> u64 {
        snapshot().counter(names::OPS, &[("stack", &self.0), ("op", op), ("outcome", outcome)])
    }

    fn bytes(&self, op: &str) -> u64 {
        snapshot().counter(names::OP_BYTES, &[("stack", &self.0), ("op", op)])
    }

    fn took(&self, layer: &str, op: &str) -> Distribution {
        let labels = [("stack", &*self.0), ("layer", layer), ("op", op)];
        snapshot().durations(names::OP_DURATION, &labels)
    }

    fn timed(&self, op: &str) -> u64 {
        self.took("memory", op).count()
    }
}

fn counted() -> (Metrics<Memory>, Counted) {
    let counted = Counted::new();
    (MetricsLayer::new(counted.labels("memory")).layer(Memory::new()), counted)
}

#[tokio::test]
async fn every_operation_is_counted_once_with_its_outcome() {
    let (store, counted) = counted();
    let _ = store.put("k", "value").await.unwrap();
    for _ in 0..640 {
        store.get(b"k").await.unwrap();
    }
    store.get(b"missing").await.unwrap();
    store.get(b"").await.unwrap_err();
    store.scan(Scan::all()).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(counted.ops("write", "ok"), 1);
    assert_eq!(counted.ops("get", "ok"), 640);
    assert_eq!(counted.ops("get", "missing"), 1);
    assert_eq!(counted.ops("get", "error"), 1);
    assert_eq!(counted.bytes("get"), 640 * 5);
    assert_eq!(counted.ops("scan", "ok"), 1);
    let kind = [("stack", &*counted.0), ("kind", "invalid_input")];
    assert_eq!(snapshot().counter(names::ERRORS, &kind), 1);
}

#[tokio::test]
async fn of_a_group_each_batch_is_counted_and_the_group_is_timed() {
    let (store, counted) = counted();
    let group = ["a", "b", "", "d"].map(|key| Batch::new().put(key, "value")).to_vec();
    let answers = store.write_group(group).await;
    let error = answers[3].as_ref().unwrap_err();
    assert_eq!((error.layer(), error.operation()), (Some("memory"), Some(Operation::Write)));
    assert_eq!(counted.ops("write", "ok"), 2);
    assert_eq!(counted.ops("write", "error"), 2);
    assert_eq!(counted.bytes("write"), 2 * 6);
    assert_eq!(counted.timed("write"), 1);
}

#[tokio::test]
async fn a_run_is_one_operation_with_the_bytes_of_its_pages() {
    let (store, counted) = counted();
    let from = Memory::new();
    for key in ["a", "b", "c"] {
        let _ = from.put(key, "value").await.unwrap();
    }
    store.ingest(from.scan(Scan::all().page_entries(2))).await.unwrap();
    store.changes().await.err().unwrap();
    assert_eq!(counted.ops("ingest", "ok"), 1);
    assert_eq!(counted.bytes("ingest"), 3 * 6);
    assert_eq!(counted.timed("ingest"), 1);
    assert_eq!(counted.ops("changes", "error"), 1);
}

#[tokio::test]
async fn what_a_run_fails_with_is_not_said_to_have_arisen_here() {
    let (store, counted) = counted();
    let broken = || futures_util::stream::iter([Err(Error::corruption("elsewhere"))]).boxed();
    let error = store.ingest(broken()).await.unwrap_err();
    assert_eq!((error.layer(), error.operation()), (None, None));
    assert_eq!(counted.ops("ingest", "error"), 1);
    store.close().await.unwrap();
    let error = store.ingest(broken()).await.unwrap_err();
    assert_eq!((error.layer(), error.operation()), (Some("memory"), Some(Operation::Ingest)));
}

#[tokio::test]
async fn every_boundary_is_sampled_however_many_there_are() {
    let counted = Counted::new();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|at| MetricsLayer::new(counted.labels(at)));
    let store = a.layer(b.layer(c.layer(d.layer(Memory::new()))));
    for _ in 0..61_000 {
        store.get(b"k").await.unwrap();
    }
    for layer in ["a", "b", "c", "d"] {
        let count = counted.took(layer, "get").count();
        // As many as there were, give or take ten deviations of 1,900.
        assert!((42_000..=80_000).contains(&count), "{count} at {layer}");
    }
}

#[tokio::test]
async fn the_end_of_a_scan_is_no_page() {
    let (store, counted) = counted();
    for _ in 0..2 {
        store.scan(Scan::all()).try_collect::<Vec<_>>().await.unwrap();
        let _ = store.put("k", "value").await.unwrap();
    }
    assert_eq!(counted.ops("scan", "ok"), 1);
    assert_eq!(counted.timed("scan"), 1);
}

#[tokio::test]
async fn an_error_says_where_it_arose() {
    let (store, _) = counted();
    let error = store.get(b"").await.unwrap_err();
    assert_eq!(error.layer(), Some("memory"));
    assert_eq!(error.operation(), Some(Operation::Get));
    assert!(error.key_fingerprint().is_some());
}

#[test]
fn a_dropped_future_counts_as_cancelled() {
    let (store, counted) = counted();
    let inflight = || snapshot().gauge(names::INFLIGHT, &[("stack", &counted.0)]);
    let series = &store.shared.write;
    drop(tokio_test::task::spawn(store.shared.watch(series, std::future::pending::<Result<()>>())));
    assert_eq!(counted.ops("write", "cancelled"), 0, "never polled, never begun");
    let mut task =
        tokio_test::task::spawn(store.shared.watch(series, std::future::pending::<Result<()>>()));
    tokio_test::assert_pending!(task.poll());
    assert_eq!(inflight(), Some(1.0));
    drop(task);
    assert_eq!(counted.ops("write", "cancelled"), 1);
    assert_eq!(inflight(), Some(0.0));
}

#[tokio::test]
async fn the_series_end_with_the_last_store_that_is_closed() {
    let counted = Counted::new();
    let layer = MetricsLayer::new(counted.labels("memory"));
    let (a, b) = (layer.layer(Memory::new()), layer.layer(Memory::new()));
    let series = || snapshot().select(names::OPS, &[("stack", &counted.0)]).count();
    assert_ne!(series(), 0, "they are there before the first operation");
    a.close().await.unwrap();
    a.close().await.unwrap();
    assert_ne!(series(), 0, "one is open");
    b.close().await.unwrap();
    assert_eq!(series(), 0);
    let _again = layer.layer(Memory::new());
    assert_ne!(series(), 0);
}

const HIT: Duration = Duration::from_nanos(200);
const WAIT: Duration = Duration::from_micros(1500);
/// What the store does before it says that the answer has to be waited for.
const ASKING: Duration = Duration::from_millis(500);

/// Takes its time: keys that begin with `w` have to be waited for, others are there.
#[derive(Debug)]
struct Timed(ManualClock);

#[deny(clippy::missing_trait_methods)]
impl Read for Timed {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        match key {
            [b'w', asking @ ..] => {
                if !asking.is_empty() {
                    self.0.advance(ASKING);
                }
                Reply::later(async {
                    self.0.advance(WAIT);
                    Ok(None)
                })
            }
            _ => {
                self.0.advance(HIT);
                Reply::ready(None)
            }
        }
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        self.get(b"h").map(|_| vec![None; keys.len()])
    }

    fn scan(&self, _: Scan) -> Pages<'_> {
        self.0.advance(ASKING);
        let pages = futures_util::stream::iter([WAIT, WAIT]).map(|took| {
            self.0.advance(took);
            Ok(crate::types::Page::default())
        });
        pages.boxed()
    }
}

fn timed(counted: &Counted) -> Metrics<Metrics<Timed>> {
    let clock = ManualClock::new();
    let [above, below] = ["above", "below"]
        .map(|at| MetricsLayer::new(counted.labels(at)).with_clock(Arc::new(clock.clone())));
    above.layer(below.layer(Timed(clock)))
}

/// Whether the buckets have a quantile right: it is in the bucket of the truth.
fn is_right(took: &Distribution, part: f64, truth: Duration) -> bool {
    let found = took.quantile(part).unwrap();
    let bounds = std::iter::once(Duration::ZERO).chain(crate::telemetry::BOUNDS);
    let mut buckets = bounds.clone().zip(bounds.skip(1));
    buckets
        .any(|(lower, upper)| lower < truth && truth <= upper && lower <= found && found <= upper)
}

#[test]
fn quantiles_of_a_known_mix_are_right() {
    let counted = Counted::new();
    let store = timed(&counted);
    let count = |answers: u64, waits: u64| {
        for n in 0..answers {
            let reply = store.get(if n % 100 < waits { b"w" } else { b"h" });
            assert_eq!(tokio_test::block_on(reply).unwrap(), None);
        }
    };
    count(100_000, 2);
    let took = counted.took("above", "get");
    // Half of the reads, and nine in ten, were answered from memory; of a hundred, two were waited for.
    assert!(is_right(&took, 0.5, HIT), "{took:?}");
    assert!(is_right(&took, 0.9, HIT), "{took:?}");
    assert!(is_right(&took, 0.99, WAIT), "{took:?}");
    // Ten deviations of 2,400.
    assert!(took.count().abs_diff(100_000) < 24_000, "{took:?}");
    // With as many waits as this the quantiles are others.
    count(100_000, 60);
    let later = counted.took("above", "get").since(&took);
    assert!(is_right(&later, 0.25, HIT) && is_right(&later, 0.5, WAIT), "{later:?}");
}

#[test]
fn what_waits_is_timed_from_its_call() {
    let counted = Counted::new();
    let store = timed(&counted);
    let get = |key: &[u8]| assert_eq!(tokio_test::block_on(store.get(key)).unwrap(), None);
    // Where most answers have to be waited for, and long enough that one of them was sampled.
    for _ in 0..3000 {
        get(b"w");
    }
    let before = ["above", "below"].map(|at| counted.took(at, "get"));
    for _ in 0..100 {
        get(b"w, asking");
    }
    for (before, at) in before.iter().zip(["above", "below"]) {
        let took = counted.took(at, "get").since(before);
        assert_eq!((took.count(), took.sum()), (100, 100 * (ASKING + WAIT)), "{at}");
    }
}

/// Answers itself, or asks the store below.
struct Front<S>(S);

#[deny(clippy::missing_trait_methods)]
impl<S: Read> Read for Front<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        if key == b"h" { Reply::ready(None) } else { self.0.get(key) }
    }

    forward!(self => self.0; get_many, scan);
}

#[test]
fn what_waits_among_answers_from_memory_is_timed_from_the_call_of_the_store_below() {
    let (counted, clock) = (Counted::new(), ManualClock::new());
    let [above, below] = ["above", "below"]
        .map(|at| MetricsLayer::new(counted.labels(at)).with_clock(Arc::new(clock.clone())));
    let store = above.layer(Front(below.layer(Timed(clock))));
    let get = |key: &[u8]| assert_eq!(tokio_test::block_on(store.get(key)).unwrap(), None);
    // All that the boundary below sees has to be waited for, and one of it was sampled.
    (0..3000).for_each(|_| drop(tokio_test::block_on(store.inner.0.get(b"w"))));
    for n in 0..10_000 {
        get(if n % 100 == 0 { b"w, asking" } else { b"h" });
    }
    assert_eq!(counted.took("above", "get").sum(), 100 * (ASKING + WAIT));
}

#[tokio::test]
async fn the_call_of_a_scan_counts_for_its_first_page() {
    let counted = Counted::new();
    let store = timed(&counted);
    store.scan(Scan::all()).try_collect::<Vec<_>>().await.unwrap();
    let took = counted.took("below", "scan");
    assert_eq!((took.count(), took.sum()), (2, ASKING + 2 * WAIT));
}
