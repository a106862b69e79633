//! Expiry: an entry is there until its deadline, and gone from then on.

use std::time::Duration;

use bytes::Bytes;

use super::harness::{Bench, Verdict, ensure, known, numbered_key, scan_gives};
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::ext::ReadExt;
use crate::store::{Read, Store};
use crate::testing::oracle::Known;
use crate::types::{Batch, Op, Scan, Value};

super::check::topic! { "expiry":
    an_entry_is_there_until_its_deadline,
    the_deadline_is_reported,
    a_deadline_in_the_past_is_a_delete,
    the_end_of_time_is_a_deadline,
    an_overwrite_replaces_the_deadline,
    an_expired_entry_can_come_back,
    expired_entries_do_not_count,
    a_batch_carries_deadlines,
    time_stands_still_in_a_snapshot,
    flush_and_compaction_keep_what_has_not_expired,
}

fn until(value: &'static str, deadline: Timestamp) -> Value {
    Value::from(value).expiring_at(deadline)
}

async fn an_entry_is_there_until_its_deadline(bench: Bench) -> Verdict {
    bench.needs_expiry()?;
    let deadline = bench.soon();
    bench.put("k", until("value", deadline)).await?;
    bench.put("stays", "1").await?;
    bench.gives_before(deadline, "k", "value").await?;
    if bench.clock.is_some() {
        bench.pass(deadline.since(bench.now()) - Duration::from_millis(1)).await;
        bench.gives("k", Some("value")).await?;
    }
    bench.pass_until(deadline).await;
    bench.gives("k", None).await?;
    bench.gives("stays", Some("1")).await?;
    let many = bench.store.get_many(&["stays", "k"].map(Bytes::from)).await?;
    ensure!(many == [Some("1".into()), None], "get_many with an expired key gives {many:?}");
    bench.delete("k").await?;
    bench.gives("k", None).await
}

async fn the_deadline_is_reported(bench: Bench) -> Verdict {
    bench.needs_expiry()?;
    let deadline = bench.now() + Duration::from_millis(3_600_123);
    let want = Some(until("value", deadline));
    bench.put("k", until("value", deadline)).await?;
    let got = bench.store.get(b"k").await?;
    ensure!(got == want, "get reports {got:?} instead of {want:?}");
    let many = bench.store.get_many(&[Bytes::from("k")]).await?;
    ensure!(many == [want.clone()], "get_many reports {many:?} instead of {want:?}");
    let entries: Known = want.into_iter().map(|value| ("k".into(), value)).collect();
    if bench.guarantees.ordered_scans {
        scan_gives(&*bench.store, Scan::all(), &entries).await?;
    }
    if bench.guarantees.snapshots {
        let got = bench.store.snapshot().await?.get(b"k").await?;
        ensure!(got.as_ref() == entries.get(b"k".as_slice()), "a snapshot reports {got:?}");
    }
    Ok(())
}

async fn a_deadline_in_the_past_is_a_delete(bench: Bench) -> Verdict {
    bench.needs_expiry()?;
    for deadline in [Timestamp::from_millis(0), Timestamp::from_millis(1), bench.now()] {
        bench.put("k", "old").await?;
        bench.gives("k", Some("old")).await?;
        bench.put("k", until("new", deadline)).await?;
        bench.gives("k", None).await?;
    }
    Ok(())
}

async fn the_end_of_time_is_a_deadline(bench: Bench) -> Verdict {
    bench.needs_expiry()?;
    // The end of the year 9999; and what an engine may not be able to keep: then it says so.
    for deadline in [253_402_300_799_999, u64::MAX, u64::MAX - 1, i64::MAX as u64] {
        let far = deadline > 253_402_300_799_999;
        let deadline = Timestamp::from_millis(deadline);
        let put = bench.put("k", until("value", deadline)).await;
        if far && put.as_ref().is_err_and(|error| error.kind() == ErrorKind::InvalidInput) {
            continue;
        }
        put?;
        bench.gives("k", Some("value")).await?;
        let got = bench.store.get(b"k").await?;
        ensure!(got == Some(until("value", deadline)), "a late deadline changes: {got:?}");
    }
    Ok(())
}

async fn an_overwrite_replaces_the_deadline(bench: Bench) -> Verdict {
    bench.needs_expiry()?;
    let deadline = bench.soon();
    let later = deadline + Duration::from_secs(3600);
    bench.put("cleared", until("1", deadline)).await?;
    bench.put("extended", until("1", deadline)).await?;
    bench.put("shortened", until("1", later)).await?;
    bench.put("given", "1").await?;
    bench.put("recreated", until("1", deadline)).await?;
    bench.delete("recreated").await?;
    for key in ["cleared", "recreated"] {
        bench.put(key, "2").await?;
    }
    bench.put("extended", until("2", later)).await?;
    for key in ["shortened", "given"] {
        bench.put(key, until("2", deadline)).await?;
    }
    bench.pass_until(deadline).await;
    // A write in between, for stores that sweep on writes.
    bench.put("other", "1").await?;
    for key in ["cleared", "recreated", "extended"] {
        bench.gives(key, Some("2")).await?;
    }
    for key in ["shortened", "given"] {
        bench.gives(key, None).await?;
    }
    Ok(())
}

async fn an_expired_entry_can_come_back(bench: Bench) -> Verdict {
    bench.needs_expiry()?;
    let deadline = bench.soon();
    bench.put("k", until("first", deadline)).await?;
    bench.pass_until(deadline).await;
    bench.gives("k", None).await?;
    bench.put("k", "second").await?;
    bench.put("other", "1").await?;
    bench.gives("k", Some("second")).await
}

/// Limits and pages are filled with entries that are there, however many expired ones lie between.
async fn expired_entries_do_not_count(bench: Bench) -> Verdict {
    bench.needs_expiry()?;
    bench.needs_scans()?;
    let deadline = bench.soon();
    let mut entries = Known::new();
    for n in 0..120 {
        // Single ones at first, then a long run.
        let expires = n % 2 == 0 || (40..80).contains(&n);
        let value = Value::new(n.to_string());
        let value = if expires { value.expiring_at(deadline) } else { value };
        entries.insert(numbered_key(n), value);
    }
    bench.fill(&entries).await?;
    bench.pass_until(deadline).await;
    entries.retain(|_, value| value.expires_at.is_none());
    for limit in [None, Some(1), Some(5), Some(25)] {
        for page in [1, 3, 1000] {
            let scan = Scan { limit, ..Scan::all().page_entries(page) };
            scan_gives(&*bench.store, scan.clone(), &entries).await?;
            scan_gives(&*bench.store, scan.reverse(), &entries).await?;
        }
    }
    scan_gives(&*bench.store, Scan::range(numbered_key(40)..numbered_key(80)), &Known::new()).await
}

async fn a_batch_carries_deadlines(bench: Bench) -> Verdict {
    bench.needs_expiry()?;
    bench.needs_batches()?;
    let deadline = bench.soon();
    let batch = Batch::new()
        .put("expires", until("1", deadline))
        .put("stays", "1")
        .put("last is without", until("1", deadline))
        .put("last is without", "2")
        .put("last is with", "1")
        .put("last is with", until("2", deadline));
    bench.store.write(batch).await?.durable().await?;
    bench.gives_before(deadline, "expires", "1").await?;
    bench.gives_before(deadline, "last is with", "2").await?;
    bench.pass_until(deadline).await;
    bench.gives("expires", None).await?;
    bench.gives("stays", Some("1")).await?;
    bench.gives("last is without", Some("2")).await?;
    bench.gives("last is with", None).await
}

async fn time_stands_still_in_a_snapshot(bench: Bench) -> Verdict {
    bench.needs_expiry()?;
    bench.needs_snapshots()?;
    let deadline = bench.soon();
    let entries: Known =
        [("k".into(), until("value", deadline)), ("stays".into(), "1".into())].into();
    bench.fill(&entries).await?;
    let before = bench.store.snapshot().await?;
    let in_time = bench.now() < deadline;
    bench.pass_until(deadline).await;
    bench.put("sweeps", "1").await?;
    bench.store.compact().await?;
    if in_time {
        let got = before.get(b"k").await?;
        ensure!(got.as_ref() == entries.get(b"k".as_slice()), "an entry expired in a snapshot");
        ensure!(before.contains(b"k").await?, "an entry expired in a snapshot");
        let many = before.get_many(&[Bytes::from("k")]).await?;
        ensure!(many == [got], "an entry expired in a snapshot, for get_many");
        if bench.guarantees.ordered_scans {
            scan_gives(&*before, Scan::all(), &entries).await?;
        }
    }
    let after = bench.store.snapshot().await?;
    ensure!(after.get(b"k").await?.is_none(), "an expired entry is in a new snapshot");
    let alive = known(&[("stays", "1"), ("sweeps", "1")]);
    if bench.guarantees.ordered_scans {
        scan_gives(&*after, Scan::all(), &alive).await?;
    }
    Ok(())
}

async fn flush_and_compaction_keep_what_has_not_expired(bench: Bench) -> Verdict {
    bench.needs_expiry()?;
    let (deadline, later) = (bench.soon(), bench.now() + Duration::from_secs(3600));
    for n in 0..20 {
        let at = if n % 2 == 0 { deadline } else { later };
        let value = Value::from("v").expiring_at(at);
        let _ = bench.store.write([Op::Put(numbered_key(n), value)].into_iter().collect()).await?;
    }
    bench.pass_until(deadline).await;
    bench.store.flush().await?;
    bench.store.compact().await?;
    for n in 0..20 {
        bench.gives(numbered_key(n), (n % 2 != 0).then_some("v")).await?;
    }
    Ok(())
}
