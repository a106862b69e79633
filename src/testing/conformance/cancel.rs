//! Dropped futures and streams: all or nothing, and nobody else notices.

use bytes::Bytes;
use futures_util::StreamExt;

use super::harness::{Bench, Verdict, ensure, numbered, numbered_key, poll_and_drop, scan_gives};
use crate::store::{Read, Store};
use crate::types::{Op, Scan};

super::check::topic! { "cancel":
    a_dropped_write_happens_wholly_or_not_at_all,
    dropped_reads_leave_nothing_behind,
    dropped_scans_leave_nothing_behind,
    dropped_upkeep_can_be_called_again,
}

async fn a_dropped_write_happens_wholly_or_not_at_all(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let width = bench.batch_ops(5);
    for round in 0..40 {
        let keys: Vec<Bytes> = (0..width).map(|n| format!("{round}-{n}").into()).collect();
        let batch = keys.iter().map(|key| Op::Put(key.clone(), "v".into())).collect();
        // From never polled to polled until it is done.
        let done = poll_and_drop(bench.store.write(batch), round % 8).await;
        if let Some(done) = done {
            let _ = done?;
        }
        // A write of its own, so that whatever was under way has been decided for a serial store.
        let after = Bytes::from(format!("{round}-after"));
        bench.put(after.clone(), "v").await?;
        ensure!(bench.store.get(&after).await?.is_some(), "a write after a dropped one is lost");
        if !bench.guarantees.snapshots {
            continue;
        }
        let snapshot = bench.store.snapshot().await?;
        let there = snapshot.get_many(&keys).await?.iter().flatten().count();
        ensure!(
            there == 0 || there == width,
            "{there} of {width} entries of a dropped write are there"
        );
    }
    Ok(())
}

async fn dropped_reads_leave_nothing_behind(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let entries = numbered(20);
    bench.fill(&entries).await?;
    let keys: Vec<Bytes> = entries.keys().cloned().collect();
    for round in 0..bench.times(200, 50) {
        let key = numbered_key(round % 25);
        poll_and_drop(bench.store.get(&key), round % 3).await;
        poll_and_drop(bench.store.get_many(&keys), round % 3).await;
    }
    for (key, value) in &entries {
        let got = bench.store.get(key).await?;
        ensure!(got.as_ref() == Some(value), "a get after dropped ones gives {got:?}");
    }
    bench.put(numbered_key(0), "changed").await?;
    bench.gives(numbered_key(0), Some("changed")).await?;
    bench.gives(numbered_key(21), None).await
}

async fn dropped_scans_leave_nothing_behind(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    let entries = numbered(50);
    bench.fill(&entries).await?;
    for round in 0..bench.times(200, 50) {
        let mut pages = bench.store.scan(Scan::all().page_entries(3));
        for _ in 0..round % 4 {
            pages.next().await.transpose()?;
        }
        // In the middle of a page, where it has to wait for one.
        poll_and_drop(pages.next(), round % 2).await;
    }
    scan_gives(&*bench.store, Scan::all(), &entries).await?;
    bench.put(numbered_key(0), "changed").await?;
    bench.gives(numbered_key(0), Some("changed")).await?;
    bench.store.compact().await?;
    Ok(())
}

async fn dropped_upkeep_can_be_called_again(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    bench.fill(&numbered(20)).await?;
    for polls in 0..4 {
        poll_and_drop(bench.store.flush(), polls).await;
        poll_and_drop(bench.store.compact(), polls).await;
        poll_and_drop(bench.store.usage(), polls).await;
        if bench.guarantees.snapshots {
            poll_and_drop(bench.store.snapshot(), polls).await;
        }
    }
    bench.store.flush().await?;
    bench.store.compact().await?;
    bench.gives(numbered_key(7), Some("value of 7")).await?;
    poll_and_drop(bench.store.close(), 1).await;
    bench.store.close().await?;
    Ok(())
}
