use futures_util::TryStreamExt;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use super::*;
use crate::backends::Memory;
use crate::ext::StoreExt;

type Counted = std::collections::BTreeMap<String, u64>;

/// Builds a store under a recorder of its own, and gives a function that reads its counters.
fn recorded() -> (Metrics<Memory>, impl Fn() -> Counted) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let labels = Labels::new("test", "memory");
    let store =
        metrics::with_local_recorder(&recorder, || MetricsLayer::new(labels).layer(Memory::new()));
    let seen = std::sync::Mutex::new(Counted::new());
    let read = move || {
        gather();
        // A snapshot resets the counters, so they are added up.
        let mut seen = seen.lock().unwrap();
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let labels: Vec<_> = key
                .key()
                .labels()
                .filter(|l| ["op", "outcome"].contains(&l.key()))
                .map(|l| l.value().to_owned())
                .collect();
            let name = format!("{} {}", key.key().name(), labels.join(" "));
            match value {
                DebugValue::Counter(count) => *seen.entry(name).or_default() += count,
                DebugValue::Histogram(values) => {
                    *seen.entry(name).or_default() += values.len() as u64
                }
                DebugValue::Gauge(_) => {}
            }
        }
        seen.clone()
    };
    (store, read)
}

#[tokio::test]
async fn every_operation_is_counted_once_with_its_outcome() {
    let (store, read) = recorded();
    let _ = store.put("k", "value").await.unwrap();
    for _ in 0..640 {
        store.get(b"k").await.unwrap();
    }
    store.get(b"missing").await.unwrap();
    store.get(b"").await.unwrap_err();
    store.scan(Scan::all()).try_collect::<Vec<_>>().await.unwrap();
    let counted = read();
    assert_eq!(counted["tierstack_ops_total write ok"], 1);
    assert_eq!(counted["tierstack_ops_total get ok"], 640);
    assert_eq!(counted["tierstack_ops_total get missing"], 1);
    assert_eq!(counted["tierstack_ops_total get error"], 1);
    assert_eq!(counted["tierstack_op_bytes_total get"], 640 * 5);
    assert_eq!(counted["tierstack_ops_total scan ok"], 1);
    assert!(
        (10..=11).contains(&counted["tierstack_op_duration_seconds get"]),
        "one in 61 is timed"
    );
}

#[tokio::test]
async fn of_a_group_each_batch_is_counted_and_the_group_is_timed() {
    let (store, read) = recorded();
    let group = ["a", "b", "", "d"].map(|key| Batch::new().put(key, "value")).to_vec();
    let answers = store.write_group(group).await;
    let error = answers[3].as_ref().unwrap_err();
    assert_eq!((error.layer(), error.operation()), (Some("memory"), Some(Operation::Write)));
    let counted = read();
    assert_eq!(counted["tierstack_ops_total write ok"], 2);
    assert_eq!(counted["tierstack_ops_total write error"], 2);
    assert_eq!(counted["tierstack_op_bytes_total write"], 2 * 6);
    assert_eq!(counted["tierstack_op_duration_seconds write"], 1);
}

#[tokio::test]
async fn a_run_is_one_operation_with_the_bytes_of_its_pages() {
    let (store, read) = recorded();
    let from = Memory::new();
    for key in ["a", "b", "c"] {
        let _ = from.put(key, "value").await.unwrap();
    }
    store.ingest(from.scan(Scan::all().page_entries(2))).await.unwrap();
    store.changes().await.err().unwrap();
    let counted = read();
    assert_eq!(counted["tierstack_ops_total ingest ok"], 1);
    assert_eq!(counted["tierstack_op_bytes_total ingest"], 3 * 6);
    assert_eq!(counted["tierstack_op_duration_seconds ingest"], 1);
    assert_eq!(counted["tierstack_ops_total changes error"], 1);
}

#[tokio::test]
async fn what_a_run_fails_with_is_not_said_to_have_arisen_here() {
    let (store, read) = recorded();
    let broken = || futures_util::stream::iter([Err(Error::corruption("elsewhere"))]).boxed();
    let error = store.ingest(broken()).await.unwrap_err();
    assert_eq!((error.layer(), error.operation()), (None, None));
    assert_eq!(read()["tierstack_ops_total ingest error"], 1);
    store.close().await.unwrap();
    let error = store.ingest(broken()).await.unwrap_err();
    assert_eq!((error.layer(), error.operation()), (Some("memory"), Some(Operation::Ingest)));
}

#[tokio::test]
async fn every_boundary_is_sampled_however_many_there_are() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let store = metrics::with_local_recorder(&recorder, || {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|at| MetricsLayer::new(Labels::new("", at)));
        a.layer(b.layer(c.layer(d.layer(Memory::new()))))
    });
    for _ in 0..640 {
        store.get(b"k").await.unwrap();
    }
    let mut boundaries = 0;
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let is_get = key.key().labels().any(|label| label.value() == "get");
        if let (true, DebugValue::Histogram(values)) = (is_get, value) {
            assert!((10..=11).contains(&values.len()), "{} of {key:?}", values.len());
            boundaries += 1;
        }
    }
    assert_eq!(boundaries, 4);
}

#[tokio::test]
async fn the_end_of_a_scan_is_no_page() {
    let (store, read) = recorded();
    for _ in 0..2 {
        store.scan(Scan::all()).try_collect::<Vec<_>>().await.unwrap();
        let _ = store.put("k", "value").await.unwrap();
    }
    let counted = read();
    assert_eq!(counted["tierstack_ops_total scan ok"], 1);
    assert_eq!(counted["tierstack_op_duration_seconds scan"], 1);
}

#[tokio::test]
async fn an_error_says_where_it_arose() {
    let (store, _) = recorded();
    let error = store.get(b"").await.unwrap_err();
    assert_eq!(error.layer(), Some("memory"));
    assert_eq!(error.operation(), Some(Operation::Get));
    assert!(error.key_fingerprint().is_some());
}

#[test]
fn a_dropped_future_counts_as_cancelled() {
    let (store, read) = recorded();
    let series = &store.shared.write;
    drop(tokio_test::task::spawn(store.shared.watch(series, std::future::pending::<Result<()>>())));
    assert_eq!(read()["tierstack_ops_total write cancelled"], 0, "never polled, never begun");
    let mut task =
        tokio_test::task::spawn(store.shared.watch(series, std::future::pending::<Result<()>>()));
    tokio_test::assert_pending!(task.poll());
    drop(task);
    assert_eq!(read()["tierstack_ops_total write cancelled"], 1);
}
