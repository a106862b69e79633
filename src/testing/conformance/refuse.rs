//! What the profile does not guarantee is refused, and leaves nothing behind.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::harness::{Bench, Stop, Verdict, ensure, refused};
use crate::error::ErrorKind;
use crate::store::{Read, Store};
use crate::types::{Batch, Commit, Condition, Conditions, Durability, Entry, Page, Scan, Value};

super::check::topic! { "refuse":
    writes_where_there_are_none,
    scans_where_there_are_none,
    snapshots_where_there_are_none,
    expiries_where_there_are_none,
    batches_where_they_are_not_atomic,
    conditions_where_there_are_none,
    runs_where_there_are_none,
    a_change_feed_where_there_is_none,
    more_durability_than_guaranteed,
}

const UNSUPPORTED: &[ErrorKind] = &[ErrorKind::Unsupported];

async fn writes_where_there_are_none(bench: Bench) -> Verdict {
    if bench.guarantees.writable {
        return Err(Stop::Skipped("the store is writable"));
    }
    let kinds = &[ErrorKind::Access, ErrorKind::Unsupported];
    let put = || Batch::new().put("k", "1");
    for batch in [put(), put().if_absent(), Batch::new().delete("k")] {
        refused(bench.store.write(batch).await, kinds, "a write to a store that takes none")?;
    }
    let [first, second] = &mut bench.store.write_group(vec![put(), put()]).await[..] else {
        return Err(Stop::failed("a group of two batches does not have two answers"));
    };
    let answer = |answer: &mut _| std::mem::replace(answer, Ok(Commit::done()));
    refused(answer(first), kinds, "a group for a store that takes none")?;
    refused(answer(second), &[ErrorKind::Aborted], "its second batch")?;
    let page = Page { entries: vec![Entry { key: "k".into(), value: "1".into() }] };
    let ingested = bench.store.ingest(stream::iter([Ok(page)]).boxed()).await;
    refused(ingested, kinds, "a run into a store that takes no writes")?;
    bench.gives("k", None).await
}

async fn scans_where_there_are_none(bench: Bench) -> Verdict {
    if bench.guarantees.ordered_scans {
        return Err(Stop::Skipped("the store has ordered scans"));
    }
    for scan in [Scan::all(), Scan::prefix("a").reverse()] {
        let mut pages = bench.store.scan(scan);
        let Some(first) = pages.next().await else {
            return Err(Stop::failed("a scan without ordered scans must fail, not end"));
        };
        refused(first, UNSUPPORTED, "a scan without ordered scans")?;
        ensure!(pages.next().await.is_none(), "a scan must end after an error");
    }
    Ok(())
}

async fn snapshots_where_there_are_none(bench: Bench) -> Verdict {
    if bench.guarantees.snapshots {
        return Err(Stop::Skipped("the store has snapshots"));
    }
    refused(bench.store.snapshot().await, UNSUPPORTED, "a snapshot without snapshots").map(drop)
}

async fn expiries_where_there_are_none(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    if bench.guarantees.expiry {
        return Err(Stop::Skipped("the store has expiry"));
    }
    let deadlines = [bench.now() + Duration::from_secs(3600), bench.now()];
    bench.put("k", "old").await?;
    for deadline in deadlines {
        let put = bench.put("k", Value::from("new").expiring_at(deadline)).await;
        refused(put, UNSUPPORTED, "a put with an expiry, without expiry")?;
        bench.gives("k", Some("old")).await?;
    }
    Ok(())
}

async fn batches_where_they_are_not_atomic(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    if bench.guarantees.atomic_batches {
        return Err(Stop::Skipped("the store has atomic batches"));
    }
    // A store may apply a batch whose keys it keeps in one place. Redis keeps these apart (slots 15495 and
    // 3300 of a cluster), and so does a store that has a place for each key.
    let written = bench.store.write(Batch::new().put("a", "1").put("b", "2")).await;
    refused(written, UNSUPPORTED, "a batch of two operations, without atomic batches")?;
    bench.gives("a", None).await?;
    bench.gives("b", None).await
}

async fn conditions_where_there_are_none(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    if bench.guarantees.conditions == Conditions::Value {
        return Err(Stop::Skipped("the store can check every condition"));
    }
    bench.put("there", "old").await?;
    let equals = Condition::equals("there", "old");
    let written = bench.store.write(Batch::new().put("there", "new").require(equals)).await;
    refused(written, UNSUPPORTED, "a required value, where only absence can be checked")?;
    if bench.guarantees.conditions == Conditions::Absence {
        return bench.gives("there", Some("old")).await;
    }
    for key in ["there", "absent"] {
        let written = bench.store.write(Batch::new().put(key, "new").if_absent()).await;
        refused(written, UNSUPPORTED, "a condition on absent keys, without conditional writes")?;
    }
    bench.gives("there", Some("old")).await?;
    bench.gives("absent", None).await
}

async fn runs_where_there_are_none(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    if bench.guarantees.ingest {
        return Err(Stop::Skipped("the store takes runs"));
    }
    let entry = |key: &'static str| Entry { key: key.into(), value: "v".into() };
    let page = Page { entries: vec![entry("a"), entry("b")] };
    let ingested = bench.store.ingest(stream::iter([Ok(page)]).boxed()).await;
    refused(ingested, UNSUPPORTED, "a run, without ingest")?;
    bench.gives("a", None).await?;
    bench.gives("b", None).await
}

async fn a_change_feed_where_there_is_none(bench: Bench) -> Verdict {
    if bench.guarantees.change_feed.is_some() {
        return Err(Stop::Skipped("the store has a change feed"));
    }
    let changes = bench.store.changes().await;
    refused(changes, UNSUPPORTED, "a subscription without a change feed").map(drop)
}

async fn more_durability_than_guaranteed(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    use Durability::{MachineLoss, Nothing, PowerCut, ProcessCrash};
    bench.put("k", "old").await?;
    for asked in [Nothing, ProcessCrash, PowerCut, MachineLoss] {
        let written = bench.store.write(Batch::new().put("k", "new").durability(asked)).await;
        if asked <= bench.guarantees.durability_on_request {
            written?.durable().await?;
            bench.gives("k", Some("new")).await?;
            bench.put("k", "old").await?;
        } else {
            refused(written, UNSUPPORTED, "a batch that asks for more durability than guaranteed")?;
            bench.gives("k", Some("old")).await?;
        }
    }
    Ok(())
}
