//! Runs of sorted entries: taken in bulk where that is guaranteed, and loaded by every store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::harness::{
    Bench, Stop, Verdict, ensure, known, numbered, numbered_key, poll_and_drop, refused, scan_gives,
};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::ext::StoreExt;
use crate::store::{Pages, Read, Store};
use crate::testing::oracle::Known;
use crate::types::{Entry, Limits, Page, Scan, Value};

super::check::topic! { "ingest":
    entries_are_replaced_and_others_stay,
    a_large_run_is_there_on_return,
    an_empty_run_changes_nothing,
    a_run_out_of_order_is_refused,
    wrong_entries_are_refused,
    an_error_of_the_run_comes_back,
    deadlines_are_carried_or_refused,
    a_snapshot_does_not_see_a_later_run,
    a_run_holds_up_nobody,
    a_dropped_run_leaves_whole_entries,
    every_store_can_be_loaded,
}

/// Entries of a run that is larger than a page, and than what a batch takes at once.
const MANY: usize = 5000;
/// For a service: more than it lists at a time.
const FEW: usize = 1100;
const INVALID: &[ErrorKind] = &[ErrorKind::InvalidInput];

/// Entries as a run, in pages of that many.
fn run(entries: &Known, page: usize) -> Pages<'static> {
    let entry = |(key, value): (&Bytes, &Value)| Entry { key: key.clone(), value: value.clone() };
    of_pages(entries.iter().map(entry).collect::<Vec<_>>().chunks(page).map(<[Entry]>::to_vec))
}

fn of_pages(pages: impl IntoIterator<Item = Vec<Entry>>) -> Pages<'static> {
    let pages: Vec<_> = pages.into_iter().map(|entries| Ok(Page { entries })).collect();
    stream::iter(pages).boxed()
}

fn entry(key: impl Into<Bytes>, value: impl Into<Value>) -> Entry {
    Entry { key: key.into(), value: value.into() }
}

/// Checks that the store holds these entries, and where it has scans, nothing else.
async fn holds(bench: &Bench, entries: &Known) -> Verdict {
    let keys: Vec<Bytes> = entries.keys().cloned().collect();
    for keys in keys.chunks(1000) {
        for (key, got) in keys.iter().zip(bench.store.get_many(keys).await?) {
            ensure!(got.as_ref() == entries.get(key), "an entry of a run is {got:?}");
        }
    }
    if bench.guarantees.ordered_scans {
        scan_gives(&*bench.store, Scan::all(), entries).await?;
    }
    Ok(())
}

async fn entries_are_replaced_and_others_stay(bench: Bench) -> Verdict {
    bench.needs_ingest()?;
    let mut entries = known(&[("a", "old"), ("b", "stays"), ("c", "old, and longer"), ("e", "")]);
    bench.fill(&entries).await?;
    // Read before, so that a cache holds what is replaced, and that others are missing.
    for (key, want) in [("a", Some("old")), ("c", Some("old, and longer")), ("d", None)] {
        bench.gives(key, want).await?;
    }
    let loaded = known(&[("a", "new"), ("c", ""), ("d", "4"), ("f", "6")]);
    let count = bench.store.ingest(run(&loaded, 3)).await?;
    ensure!(count == 4, "a run of 4 entries is said to have {count}");
    for (key, want) in [("a", "new"), ("b", "stays"), ("c", ""), ("d", "4"), ("e", ""), ("f", "6")]
    {
        bench.gives(key, Some(want)).await?;
    }
    entries.extend(loaded);
    holds(&bench, &entries).await?;
    // Entries of a run are overwritten and deleted like any other, also by another run.
    bench.put("a", "newer").await?;
    bench.delete("d").await?;
    bench.gives("a", Some("newer")).await?;
    bench.gives("d", None).await?;
    let count = bench.store.ingest(run(&known(&[("d", "back")]), 1)).await?;
    ensure!(count == 1, "a run of 1 entry is said to have {count}");
    bench.gives("d", Some("back")).await
}

async fn a_large_run_is_there_on_return(bench: Bench) -> Verdict {
    bench.needs_ingest()?;
    let many = bench.times(MANY, FEW);
    let mut entries = numbered(many);
    bench.fill(known(&[("key-00100", "old"), ("other", "stays")]).iter()).await?;
    let count = bench.store.ingest(run(&entries, 700)).await?;
    ensure!(count == many as u64, "a run of {many} entries is said to have {count}");
    entries.insert("other".into(), "stays".into());
    holds(&bench, &entries).await?;
    bench.store.flush().await?;
    bench.store.compact().await?;
    holds(&bench, &entries).await
}

async fn an_empty_run_changes_nothing(bench: Bench) -> Verdict {
    bench.needs_ingest()?;
    bench.put("k", "1").await?;
    // Pages of a scan are never empty; those of a run that somebody has filtered may be.
    for pages in [vec![], vec![vec![]], vec![vec![], vec![]]] {
        let count = bench.store.ingest(of_pages(pages)).await?;
        ensure!(count == 0, "a run of no entries is said to have {count}");
    }
    let pages = [vec![], vec![entry("l", "2")], vec![], vec![entry("m", "3")], vec![]];
    let count = bench.store.ingest(of_pages(pages)).await?;
    ensure!(count == 2, "a run of 2 entries between empty pages is said to have {count}");
    holds(&bench, &known(&[("k", "1"), ("l", "2"), ("m", "3")])).await
}

async fn a_run_out_of_order_is_refused(bench: Bench) -> Verdict {
    bench.needs_ingest()?;
    bench.put("x", "stays").await?;
    let runs = [
        vec![vec![entry("b", "1"), entry("a", "2")]],
        vec![vec![entry("b", "1")], vec![entry("a", "2")]],
        vec![vec![entry("b", "1"), entry("b", "2")]],
        vec![vec![entry("b", "1")], vec![entry("b", "2")]],
        vec![vec![entry("b", "1")], vec![], vec![entry("b", "2")]],
        // In the order of signed bytes, and in that of lengths.
        vec![vec![entry(&b"\xff"[..], "1"), entry("a", "2")]],
        vec![vec![entry("b", "1"), entry("aa", "2")]],
    ];
    for pages in runs {
        refused(bench.store.ingest(of_pages(pages)).await, INVALID, "a run out of order")?;
    }
    bench.gives("x", Some("stays")).await?;
    works_after(&bench).await
}

async fn wrong_entries_are_refused(bench: Bench) -> Verdict {
    bench.needs_ingest()?;
    let limits = &bench.guarantees.limits;
    let mut wrong = vec![
        entry("", "an empty key"),
        entry(vec![b'k'; Limits::MAX_KEY_BYTES + 1], "v"),
        entry(vec![b'k'; limits.key_bytes + 1], "v"),
    ];
    let largest = limits.value_bytes.and_then(|limit| usize::try_from(limit).ok());
    if let Some(limit) = largest.filter(|limit| *limit <= 64 << 20) {
        wrong.push(entry("k", vec![b'v'; limit + 1]));
    }
    for entry in wrong {
        let pages = [vec![self::entry(&b"\x01"[..], "1")], vec![entry]];
        refused(bench.store.ingest(of_pages(pages)).await, INVALID, "a run with a wrong entry")?;
    }
    works_after(&bench).await
}

async fn an_error_of_the_run_comes_back(bench: Bench) -> Verdict {
    bench.needs_ingest()?;
    bench.put("x", "stays").await?;
    let entries = numbered(60);
    for pages in [0, 1, 3] {
        // A kind that no store gives for a run.
        let broken = || Error::new(ErrorKind::Access, "the run broke off: marker");
        let failing = run(&entries, 20).take(pages).chain(stream::iter([Err(broken())]));
        let error = bench.store.ingest(failing.boxed()).await;
        let error = refused(error, &[ErrorKind::Access], "a run that fails")?;
        ensure!(error.message().contains("marker"), "the error of a run is lost: {error:?}");
        let blamed = error.layer().or(error.operation().map(Operation::as_str));
        ensure!(blamed.is_none(), "the store takes the blame for an error of a run: {error:?}");
    }
    whole_or_absent(&bench, &entries).await?;
    bench.gives("x", Some("stays")).await?;
    works_after(&bench).await
}

/// What an ingest that was ended early may leave: any part of the run, of whole entries.
async fn whole_or_absent(bench: &Bench, entries: &Known) -> Verdict {
    for (key, value) in entries {
        let got = bench.store.get(key).await?;
        ensure!(got.as_ref().is_none_or(|got| got == value), "an entry of a broken run is {got:?}");
    }
    Ok(())
}

/// Checks that neither a lock nor a transaction of an earlier run was left behind.
async fn works_after(bench: &Bench) -> Verdict {
    bench.put("after", "1").await?;
    bench.gives("after", Some("1")).await?;
    let entries = known(&[("after", "2"), ("after that", "3")]);
    let count = bench.store.ingest(run(&entries, 1)).await?;
    ensure!(count == 2, "a run of 2 entries after a broken one is said to have {count}");
    bench.gives("after", Some("2")).await?;
    bench.gives("after that", Some("3")).await
}

async fn deadlines_are_carried_or_refused(bench: Bench) -> Verdict {
    bench.needs_ingest()?;
    let deadline = bench.soon();
    let later = bench.now() + Duration::from_millis(3_600_123);
    let page = vec![
        entry("expires", Value::from("1").expiring_at(deadline)),
        entry("later", Value::from("2").expiring_at(later)),
        entry("stays", "3"),
    ];
    let ingested = bench.store.ingest(of_pages([page])).await;
    if !bench.guarantees.expiry {
        let kinds = &[ErrorKind::Unsupported];
        refused(ingested, kinds, "a run with an expiry, without expiry")?;
        bench.gives("expires", None).await?;
        return works_after(&bench).await;
    }
    ensure!(ingested? == 3, "a run of 3 entries is said to have another number");
    bench.gives_before(deadline, "expires", "1").await?;
    let got = bench.store.get(b"later").await?;
    ensure!(got.and_then(|got| got.expires_at) == Some(later), "a run loses a deadline");
    bench.pass_until(deadline).await;
    bench.gives("expires", None).await?;
    bench.gives("later", Some("2")).await?;
    bench.gives("stays", Some("3")).await
}

async fn a_snapshot_does_not_see_a_later_run(bench: Bench) -> Verdict {
    bench.needs_ingest()?;
    bench.needs_snapshots()?;
    let before = known(&[("key-00003", "old"), ("other", "stays")]);
    bench.fill(&before).await?;
    let snapshot = bench.store.snapshot().await?;
    let mut after = numbered(50);
    bench.store.ingest(run(&after, 20)).await?;
    let got = snapshot.get(b"key-00003").await?;
    ensure!(got == Some("old".into()), "a snapshot sees an entry of a later run: {got:?}");
    let got = snapshot.get(b"key-00004").await?;
    ensure!(got.is_none(), "a snapshot has a new entry of a later run");
    if bench.guarantees.ordered_scans {
        scan_gives(&*snapshot, Scan::all(), &before).await?;
    }
    after.insert("other".into(), "stays".into());
    let got = bench.store.snapshot().await?.get(b"key-00003").await?;
    ensure!(got.as_ref() == after.get(b"key-00003".as_slice()), "a snapshot misses an earlier run");
    holds(&bench, &after).await
}

/// A run may be read through the very store that it goes into: between its pages others read and write.
async fn a_run_holds_up_nobody(bench: Bench) -> Verdict {
    bench.needs_ingest()?;
    bench.fill(&known(&[("other", "0"), ("stays", "1")])).await?;
    let pages = stream::unfold(0, |n: usize| {
        let bench = bench.clone();
        async move {
            if n == 5 {
                return None;
            }
            let page = async {
                bench.store.get(b"stays").await?;
                bench.put("other", n.to_string()).await?;
                bench.store.get_many(&["other", "key-00000"].map(Bytes::from)).await?;
                let entries = (n * 20..(n + 1) * 20).map(|n| entry(numbered_key(n), "v"));
                Ok(Page { entries: entries.collect() })
            };
            Some((page.await, n + 1))
        }
    });
    let count = bench.store.ingest(pages.boxed()).await?;
    ensure!(count == 100, "a run of 100 entries is said to have {count}");
    bench.gives("other", Some("4")).await?;
    bench.gives("stays", Some("1")).await?;
    bench.gives("key-00099", Some("v")).await
}

async fn a_dropped_run_leaves_whole_entries(bench: Bench) -> Verdict {
    bench.needs_ingest()?;
    let entries = numbered(60);
    for polls in 0..12 {
        let page = if polls % 2 == 0 { 7 } else { 60 };
        if let Some(done) = poll_and_drop(bench.store.ingest(run(&entries, page)), polls).await {
            ensure!(done? == 60, "a run of 60 entries is said to have another number");
        }
    }
    // One that is dropped while it waits for its run, after some of it came.
    let waits = run(&entries, 20).take(2).chain(stream::pending());
    poll_and_drop(bench.store.ingest(waits.boxed()), 20).await;
    whole_or_absent(&bench, &entries).await?;
    works_after(&bench).await
}

/// By whatever means, so also for stores that take no runs and no batches.
async fn every_store_can_be_loaded(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let many = if bench.batch_ops(2) > 1 || bench.guarantees.ingest {
        bench.times(MANY, FEW)
    } else {
        500
    };
    let mut entries = numbered(many);
    bench.fill(&known(&[("key-00007", "old"), ("other", "stays")])).await?;
    let count = bench.store.load(run(&entries, 700)).await?;
    ensure!(count == many as u64, "{count} of {many} entries were loaded");
    entries.insert("other".into(), "stays".into());
    holds(&bench, &entries).await?;
    ensure!(bench.store.load(of_pages([])).await? == 0, "loading nothing loads something");
    let pages = || [vec![entry("b", "1")], vec![entry("a", "2")]];
    refused(bench.store.load(of_pages(pages())).await, INVALID, "loading out of order")?;
    // The error of the run, and not one of the store that it came too late for.
    let asked = Arc::new(AtomicBool::new(false));
    let fails = stream::once({
        let asked = Arc::clone(&asked);
        async move {
            asked.store(true, Ordering::Relaxed);
            Err::<Page, _>(Error::new(ErrorKind::Access, "marker"))
        }
    });
    let failed: Result<u64> = bench.store.load(fails.boxed()).await;
    refused(failed, &[ErrorKind::Access], "loading from a run that fails")?;
    if !asked.load(Ordering::Relaxed) {
        return Err(Stop::failed("a run was not read"));
    }
    bench.put("after", "1").await?;
    bench.gives("after", Some("1")).await
}
