//! What the profile does not promise is refused, and leaves nothing behind.

use std::time::Duration;

use futures_util::StreamExt;

use super::bench::{Bench, Stop, Verdict, ensure, refused};
use crate::error::ErrorKind;
use crate::store::{Read, Store};
use crate::types::{Batch, Durability, Scan, Value};

super::topic! { "refuse":
    writes_where_there_are_none,
    scans_where_there_are_none,
    snapshots_where_there_are_none,
    expiries_where_there_are_none,
    batches_where_they_are_not_atomic,
    more_durability_than_promised,
}

const UNSUPPORTED: &[ErrorKind] = &[ErrorKind::Unsupported];

async fn writes_where_there_are_none(bench: Bench) -> Verdict {
    if bench.promises.writable {
        return Err(Stop::Skipped("the store is writable"));
    }
    let kinds = &[ErrorKind::Access, ErrorKind::Unsupported];
    for batch in [Batch::new().put("k", "1"), Batch::new().delete("k")] {
        refused(bench.store.write(batch).await, kinds, "a write to a store that takes none")?;
    }
    bench.gives("k", None).await
}

async fn scans_where_there_are_none(bench: Bench) -> Verdict {
    if bench.promises.ordered_scans {
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
    if bench.promises.snapshots {
        return Err(Stop::Skipped("the store has snapshots"));
    }
    refused(bench.store.snapshot().await, UNSUPPORTED, "a snapshot without snapshots").map(drop)
}

async fn expiries_where_there_are_none(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    if bench.promises.expiry {
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
    if bench.promises.atomic_batches {
        return Err(Stop::Skipped("the store has atomic batches"));
    }
    let written = bench.store.write(Batch::new().put("a", "1").put("b", "2")).await;
    refused(written, UNSUPPORTED, "a batch of two operations, without atomic batches")?;
    bench.gives("a", None).await?;
    bench.gives("b", None).await
}

async fn more_durability_than_promised(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    use Durability::{MachineLoss, Nothing, PowerCut, ProcessCrash};
    bench.put("k", "old").await?;
    for asked in [Nothing, ProcessCrash, PowerCut, MachineLoss] {
        let written = bench.store.write(Batch::new().put("k", "new").durability(asked)).await;
        if asked <= bench.promises.durability {
            written?.durable().await?;
            bench.gives("k", Some("new")).await?;
            bench.put("k", "old").await?;
        } else {
            refused(written, UNSUPPORTED, "a batch that asks for more durability than promised")?;
            bench.gives("k", Some("old")).await?;
        }
    }
    Ok(())
}
