//! Closing: what was acknowledged is kept, what comes later is refused.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::Barrier;
use tokio::task::{JoinSet, yield_now};

use super::harness::{
    Bench, Stop, Verdict, ensure, join, numbered, numbered_key, only, refused, scan_gives,
};
use crate::error::ErrorKind;
use crate::ext::{ReadExt, StoreExt};
use crate::store::{Read, Store};
use crate::types::{Batch, Conditions, Durability, Entry, Page, Scan, Scope};

super::check::topic! { "close":
    a_second_close_succeeds,
    operations_after_close_fail_as_closed,
    an_idle_scan_does_not_hold_up_close,
    a_snapshot_stays_right_or_is_closed,
    operations_during_close_finish_or_fail_as_closed,
    nothing_acknowledged_is_lost,
}

const CLOSED: &[ErrorKind] = &[ErrorKind::Closed];
const CLOSED_OR_UNSUPPORTED: &[ErrorKind] = &[ErrorKind::Closed, ErrorKind::Unsupported];

async fn a_second_close_succeeds(bench: Bench) -> Verdict {
    if bench.guarantees.writable {
        bench.put("k", "1").await?;
    }
    for _ in 0..3 {
        bench.store.close().await?;
    }
    Ok(())
}

async fn operations_after_close_fail_as_closed(bench: Bench) -> Verdict {
    let store = &bench.store;
    if bench.guarantees.writable {
        bench.put("k", "1").await?;
    }
    // Read before, so that a cache could answer.
    bench.gives("k", bench.guarantees.writable.then_some("1")).await?;
    store.close().await?;
    refused(store.get(b"k").await, CLOSED, "get after close")?;
    refused(store.get(b"missing").await, CLOSED, "get of a missing key after close")?;
    refused(store.get_many(&[Bytes::from("k")]).await, CLOSED, "get_many after close")?;
    refused(store.flush().await, CLOSED, "flush after close")?;
    // A store that takes no writes may refuse to compact, open or closed.
    let kinds =
        if bench.guarantees.writable { CLOSED } else { &[ErrorKind::Closed, ErrorKind::Access] };
    refused(store.compact().await, kinds, "compact after close")?;
    refused(store.usage().await, CLOSED, "usage after close")?;
    refused(store.count(b"").await, CLOSED, "count after close")?;
    if bench.guarantees.writable {
        refused(bench.put("k", "2").await, CLOSED, "a put after close")?;
        refused(bench.delete("k").await, CLOSED, "a delete after close")?;
        let group = vec![Batch::new().put("k", "2"), Batch::new().put("l", "2")];
        let answers = store.write_group(group).await;
        ensure!(answers.len() == 2, "{} answers to a group of two after close", answers.len());
        for (answer, kinds) in answers.into_iter().zip([CLOSED, &[ErrorKind::Aborted]]) {
            refused(answer, kinds, "a batch of a group after close")?;
        }
        // What the store never offers, it may refuse as that.
        let kinds = if bench.guarantees.ingest { CLOSED } else { CLOSED_OR_UNSUPPORTED };
        refused(store.ingest(stream::empty().boxed()).await, kinds, "a run after close")?;
        let kinds = if bench.guarantees.conditions >= Conditions::Absence {
            CLOSED
        } else {
            CLOSED_OR_UNSUPPORTED
        };
        let conditional = Batch::new().put("absent", "1").if_absent();
        refused(store.write(conditional).await, kinds, "a condition after close")?;
    }
    let change_feed = bench.guarantees.change_feed.is_some();
    let kinds = if change_feed { CLOSED } else { CLOSED_OR_UNSUPPORTED };
    refused(store.changes().await, kinds, "a subscription after close")?;
    for scope in [Scope::Keys(vec!["k".into()]), Scope::Prefix("k".into()), Scope::All] {
        refused(store.invalidate(scope).await, CLOSED, "an invalidation after close")?;
    }
    refused(store.inspect(b"k").await, CLOSED, "an inspection after close")?;
    if bench.guarantees.snapshots {
        refused(store.snapshot().await, CLOSED, "snapshot after close")?;
    }
    if bench.guarantees.ordered_scans {
        refused(store.collect(Scan::all()).await, CLOSED, "scan after close")?;
    }
    Ok(())
}

async fn an_idle_scan_does_not_hold_up_close(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    bench.fill(&numbered(20)).await?;
    let mut pages = bench.store.scan(Scan::all().page_entries(2));
    ensure!(pages.next().await.transpose()?.is_some(), "a scan finds nothing");
    bench.store.close().await?;
    if let Some(Err(error)) = pages.next().await {
        refused::<()>(Err(error), CLOSED, "a scan that goes on after close")?;
    }
    Ok(())
}

async fn a_snapshot_stays_right_or_is_closed(bench: Bench) -> Verdict {
    bench.needs_snapshots()?;
    let entries = numbered(10);
    bench.fill(&entries).await?;
    let snapshot = bench.store.snapshot().await?;
    bench.put(numbered_key(3), "changed").await?;
    bench.store.close().await?;
    match snapshot.get(&numbered_key(3)).await {
        Ok(got) => {
            ensure!(got.as_ref() == entries.get(&numbered_key(3)), "a snapshot changed on close");
            if bench.guarantees.ordered_scans {
                scan_gives(&*snapshot, Scan::all(), &entries).await?;
            }
        }
        Err(error) => drop(refused::<()>(Err(error), CLOSED, "a snapshot after close")?),
    }
    Ok(())
}

/// A read that overtakes `close` must not find the store already emptied.
async fn operations_during_close_finish_or_fail_as_closed(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let entries = numbered(10);
    bench.fill(&entries).await?;
    let (begun, mut tasks) = (Arc::new(Barrier::new(6)), JoinSet::new());
    for task in 0..4usize {
        let (store, entries) = (Arc::clone(&bench.store), entries.clone());
        let begun = Arc::clone(&begun);
        let scans = bench.guarantees.ordered_scans;
        tasks.spawn(async move {
            begun.wait().await;
            for n in 0.. {
                let key = numbered_key((n + task) % 10);
                let read = match task {
                    0 if scans => {
                        let found = store.collect(only(&key)).await;
                        found.map(|found| found.first().map(|entry| entry.value.clone()))
                    }
                    1 => store
                        .get_many(std::slice::from_ref(&key))
                        .await
                        .map(|mut many| many.pop().flatten()),
                    _ => store.get(&key).await,
                };
                match read {
                    Ok(got) => ensure!(
                        got.as_ref() == entries.get(&key),
                        "an entry is {got:?} while the store closes"
                    ),
                    Err(error) => {
                        refused::<()>(Err(error), CLOSED, "a read while the store closes")?;
                        break;
                    }
                }
                yield_now().await;
            }
            Ok(())
        });
    }
    let (store, beginning) = (Arc::clone(&bench.store), Arc::clone(&begun));
    tasks.spawn(async move {
        beginning.wait().await;
        for n in 0.. {
            if let Err(error) = store.put(format!("other-{n}"), "v").await {
                refused::<()>(Err(error), CLOSED, "a write while the store closes")?;
                break;
            }
            yield_now().await;
        }
        Ok(())
    });
    // Every task has begun, and most are in the middle of something.
    begun.wait().await;
    for _ in 0..20 {
        yield_now().await;
    }
    bench.store.close().await?;
    join(tasks).await
}

async fn nothing_acknowledged_is_lost(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let Some(reopen) = bench.reopen.clone() else {
        return Err(Stop::Skipped("the fixture does not say how to open the store again"));
    };
    if bench.guarantees.durability_after_flush == Durability::Nothing {
        return Err(Stop::Skipped("the store guarantees no durability"));
    }
    let mut entries = numbered(300);
    bench.fill(&entries).await?;
    for n in (0..300).step_by(7) {
        bench.delete(numbered_key(n)).await?;
        entries.remove(&numbered_key(n));
    }
    bench.put("empty", "").await?;
    entries.insert("empty".into(), "".into());
    if bench.guarantees.ingest {
        let key = numbered_key(400);
        let page = Page { entries: vec![Entry { key: key.clone(), value: "run".into() }] };
        bench.store.ingest(stream::iter([Ok(page)]).boxed()).await?;
        entries.insert(key, "run".into());
    }
    bench.store.close().await?;
    let again = reopen().await?;
    let keys: Vec<Bytes> = (0..=400).map(numbered_key).collect();
    for (key, got) in keys.iter().zip(again.get_many(&keys).await?) {
        ensure!(got.as_ref() == entries.get(key), "after closing and opening: {got:?}");
    }
    if bench.guarantees.ordered_scans {
        scan_gives(&*again, Scan::all(), &entries).await?;
    }
    again.put("k", "after").await?.durable().await?;
    again.close().await?;
    let again = reopen().await?;
    let got = again.get(b"k").await?;
    ensure!(got == Some("after".into()), "after closing and opening twice: {got:?}");
    again.close().await?;
    Ok(())
}
