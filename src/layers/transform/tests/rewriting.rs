//! Rewriting while others write.

use super::*;

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
pub(super) async fn stale() -> (Arc<Slow>, TransformLayer<Stamp>, Arc<Transformed<Arc<Slow>, Stamp>>)
{
    let below = Arc::new(Slow::default());
    below.memory.put("k", "~\x01old").await.unwrap();
    let layer = Stamp::layer(2, false);
    let store = Arc::new(layer.layer(Arc::clone(&below)));
    (below, layer, store)
}

pub(super) fn rewrite(
    layer: &TransformLayer<Stamp>,
    below: &Arc<Slow>,
) -> tokio::task::JoinHandle<RewriteReport> {
    let rewriter = layer.rewriter(Arc::clone(below) as _);
    tokio::spawn(async move { rewriter.rewrite(Scan::all(), &mut nobody()).await.unwrap() })
}

pub(super) fn put(store: &Arc<Transformed<Arc<Slow>, Stamp>>) -> tokio::task::JoinHandle<()> {
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
