//! Batches: order, atomicity, refusal as a whole.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;

use super::harness::{
    Bench, Stop, Verdict, ensure, known, need, numbered, race, refused, scan_gives,
};
use crate::error::ErrorKind;
use crate::ext::ReadExt;
use crate::store::{Read, Store};
use crate::testing::oracle::Known;
use crate::types::{Batch, Entry, Limits, Op, Scan, Value};

super::check::topic! { "batch":
    the_last_operation_of_a_key_wins,
    puts_and_deletes_happen_together,
    a_wrong_key_leaves_nothing_of_the_batch,
    a_large_batch_is_applied,
    a_snapshot_holds_a_batch_wholly_or_not_at_all,
    a_page_holds_a_batch_wholly_or_not_at_all,
}

async fn the_last_operation_of_a_key_wins(bench: Bench) -> Verdict {
    bench.needs_batches()?;
    bench.fill(&known(&[("c", "old"), ("d", "old")])).await?;
    let batch = Batch::new()
        .put("a", "1")
        .put("b", "1")
        .delete("a")
        .put("b", "2")
        .put("c", "1")
        .delete("c")
        .put("c", "3")
        .put("d", "1")
        .delete("d")
        .delete("e")
        .put("e", "5");
    bench.store.write(batch).await?.durable().await?;
    bench.gives("a", None).await?;
    bench.gives("b", Some("2")).await?;
    bench.gives("c", Some("3")).await?;
    bench.gives("d", None).await?;
    bench.gives("e", Some("5")).await
}

async fn puts_and_deletes_happen_together(bench: Bench) -> Verdict {
    bench.needs_batches()?;
    bench.fill(&known(&[("a", "1"), ("b", "2"), ("c", "3")])).await?;
    let batch = Batch::new().delete("a").put("b", "22").put("d", "4").delete("missing");
    bench.store.write(batch).await?.durable().await?;
    bench.gives("a", None).await?;
    bench.gives("b", Some("22")).await?;
    bench.gives("c", Some("3")).await?;
    bench.gives("d", Some("4")).await
}

async fn a_wrong_key_leaves_nothing_of_the_batch(bench: Bench) -> Verdict {
    bench.needs_batches()?;
    bench.fill(&known(&[("kept", "1"), ("gone?", "2")])).await?;
    let long = Bytes::from(vec![b'k'; Limits::MAX_KEY_BYTES + 1]);
    let good = [
        Op::Put("kept".into(), "overwritten".into()),
        Op::Delete("gone?".into()),
        Op::Put("new".into(), "3".into()),
    ];
    let wrong =
        [Op::Put(Bytes::new(), "4".into()), Op::Delete(Bytes::new()), Op::Put(long, "".into())];
    for op in wrong {
        for at in 0..=good.len() {
            let mut ops = good.to_vec();
            ops.insert(at, op.clone());
            let written = bench.store.write(ops.into_iter().collect()).await;
            refused(written, &[ErrorKind::InvalidInput], "a batch with a wrong key")?;
            bench.gives("kept", Some("1")).await?;
            bench.gives("gone?", Some("2")).await?;
            bench.gives("new", None).await?;
        }
    }
    Ok(())
}

async fn a_large_batch_is_applied(bench: Bench) -> Verdict {
    bench.needs_batches()?;
    let entries: Known = numbered(bench.batch_ops(3000));
    let puts = |(key, value): (&Bytes, &Value)| Op::Put(key.clone(), value.clone());
    bench.store.write(entries.iter().map(puts).collect()).await?.durable().await?;
    let keys: Vec<Bytes> = entries.keys().cloned().collect();
    for (key, got) in keys.iter().zip(bench.store.get_many(&keys).await?) {
        ensure!(got.as_ref() == entries.get(key), "an entry of a large batch is {got:?}");
    }
    if bench.guarantees.ordered_scans {
        scan_gives(&*bench.store, Scan::all(), &entries).await?;
    }
    bench.store.write(entries.into_keys().map(Op::Delete).collect()).await?.durable().await?;
    bench.gives("key-00000", None).await
}

/// How many batches a writer writes at least while readers look.
const GENERATIONS: u32 = 100;
/// How many keys a batch of the writer puts; it deletes as many.
const WIDTH: usize = 8;

/// The batch of a generation: even ones put the keys `even-*` and delete `odd-*`, odd ones the other
/// way round. So a reader that sees both, or two generations, or too few, sees half a batch.
fn generation(n: u32) -> Batch {
    let (puts, deletes) = if n.is_multiple_of(2) { ("even", "odd") } else { ("odd", "even") };
    let put = |at| Op::Put(format!("{puts}-{at}").into(), n.to_string().into());
    let delete = |at| Op::Delete(format!("{deletes}-{at}").into());
    // Puts and deletes alternate, so that a batch cut anywhere shows.
    (0..WIDTH).flat_map(|at| [put(at), delete(at)]).collect()
}

/// Checks that entries are of one generation.
fn of_one_generation(entries: &[Entry], all: bool) -> Verdict {
    let Some(first) = entries.first() else {
        ensure!(!all, "no generation is there");
        return Ok(());
    };
    let prefix = if first.key.starts_with(b"even-") { b"even-".as_slice() } else { b"odd-" };
    let same =
        |entry: &Entry| entry.value.bytes == first.value.bytes && entry.key.starts_with(prefix);
    ensure!(entries.iter().all(same), "entries of two batches are mixed");
    ensure!(!all || entries.len() == WIDTH, "{} of the {WIDTH} entries of a batch", entries.len());
    Ok(())
}

/// Runs a writer of generations, and next to it `look` again and again.
async fn while_generations_change<F>(
    bench: &Bench,
    look: impl Fn(Arc<dyn Store>) -> F + Send + Copy + 'static,
) -> Verdict
where
    F: Future<Output = Verdict> + Send,
{
    bench.store.write(generation(0)).await?.durable().await?;
    let store = &bench.store;
    let writer = {
        let store = Arc::clone(store);
        move |n| {
            let store = Arc::clone(&store);
            async move {
                let _ = store.write(generation(n)).await?;
                Ok(())
            }
        }
    };
    let readers = (0..3).map(|_| {
        let store = Arc::clone(store);
        move || look(Arc::clone(&store))
    });
    race(GENERATIONS, writer, readers).await?;
    look(Arc::clone(store)).await
}

async fn a_snapshot_holds_a_batch_wholly_or_not_at_all(bench: Bench) -> Verdict {
    bench.needs_batches()?;
    bench.needs_snapshots()?;
    let scans = bench.guarantees.ordered_scans;
    while_generations_change(&bench, move |store| async move {
        let snapshot = store.snapshot().await?;
        let keys: Vec<Bytes> = ["even", "odd"]
            .into_iter()
            .flat_map(|set| (0..WIDTH).map(move |at| format!("{set}-{at}").into()))
            .collect();
        let values = snapshot.get_many(&keys).await?;
        let entries: Vec<Entry> = keys
            .into_iter()
            .zip(values)
            .filter_map(|(key, value)| Some(Entry { key, value: value? }))
            .collect();
        of_one_generation(&entries, true)?;
        if scans {
            let scanned = snapshot.collect(Scan::all().page_entries(3)).await?;
            of_one_generation(&scanned, true)?;
            ensure!(scanned == entries, "get_many and scan of a snapshot differ");
        }
        Ok(())
    })
    .await
}

async fn a_page_holds_a_batch_wholly_or_not_at_all(bench: Bench) -> Verdict {
    bench.needs_batches()?;
    bench.needs_scans()?;
    need(bench.guarantees.atomic_pages, "a page of a scan is not of one moment")?;
    while_generations_change(&bench, |store| async move {
        let mut pages = store.scan(Scan::all());
        let first = pages.next().await.ok_or_else(|| Stop::failed("a scan finds nothing"))??;
        // A page may be shorter than asked for; then only its entries must agree.
        let more = pages.next().await.transpose()?.is_some();
        of_one_generation(&first.entries, !more)
    })
    .await
}
