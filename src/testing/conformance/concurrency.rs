//! Many tasks at once: nothing is lost, nothing goes back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tokio::task::{JoinSet, yield_now};

use super::harness::{Bench, Stop, Verdict, ensure, join, only, race, scan_gives};
use crate::error::Result;
use crate::ext::{ReadExt, StoreExt};
use crate::store::{Read, Store};
use crate::testing::oracle::{Known, show};
use crate::types::{Batch, Scan, Value};

super::check::topic! { "concurrency":
    writes_of_many_tasks_are_all_there,
    a_task_reads_its_own_writes,
    a_key_never_goes_back,
    everybody_agrees_on_the_last_write,
    batches_take_effect_in_some_order,
}

async fn writes_of_many_tasks_are_all_there(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let key = |task: usize, n: usize| Bytes::from(format!("{n}-{task}"));
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let store = Arc::clone(&bench.store);
        tasks.spawn(async move {
            for n in 0..40 {
                let _ = store.put(key(task, n), format!("{task}.{n}")).await?;
                if n % 4 == 3 {
                    let _ = store.delete(key(task, n - 1)).await?;
                }
                yield_now().await;
            }
            Ok(())
        });
    }
    join(tasks).await?;
    let mut entries = Known::new();
    for task in 0..8 {
        for n in 0..40 {
            let there = n % 4 != 2;
            let want = there.then(|| Value::new(format!("{task}.{n}")));
            let got = bench.store.get(&key(task, n)).await?;
            ensure!(got == want, "after all tasks wrote, {} is {got:?}", show(&key(task, n)));
            entries.extend(want.map(|value| (key(task, n), value)));
        }
    }
    if bench.guarantees.ordered_scans {
        scan_gives(&*bench.store, Scan::all().page_entries(50), &entries).await?;
    }
    Ok(())
}

async fn a_task_reads_its_own_writes(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let (scans, snapshots) = (bench.guarantees.ordered_scans, bench.guarantees.snapshots);
    let mut tasks = JoinSet::new();
    for task in 0..8usize {
        let store = Arc::clone(&bench.store);
        // Each has two keys: with one neighbour it shares nothing but a part of the order.
        let keys = [format!("own-{task}"), format!("own-{task}-too")].map(Bytes::from);
        tasks.spawn(async move {
            for n in 0..40usize {
                let key = if n.is_multiple_of(3) { &keys[1] } else { &keys[0] };
                let value = (n % 7 != 6).then(|| Value::new(n.to_string()));
                let _ = match value.clone() {
                    Some(value) => store.put(key.clone(), value).await?,
                    None => store.delete(key.clone()).await?,
                };
                let got = read(&*store, key, n % 4, scans, snapshots).await?;
                ensure!(got == value, "a task wrote {value:?} and reads {got:?}");
                yield_now().await;
            }
            Ok(())
        });
    }
    join(tasks).await
}

/// One of the ways to read a key.
async fn read(
    store: &dyn Store,
    key: &Bytes,
    way: usize,
    scans: bool,
    snapshots: bool,
) -> Result<Option<Value>> {
    match way {
        1 => Ok(store.get_many(std::slice::from_ref(key)).await?.pop().flatten()),
        2 if scans => {
            let mut found = store.collect(only(key)).await?;
            Ok(found.pop().map(|entry| entry.value))
        }
        3 if snapshots => store.snapshot().await?.get(key).await,
        _ => store.get(key).await,
    }
}

/// A writer counts up; nobody ever sees the count go down.
async fn a_key_never_goes_back(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    bench.put("count", "0").await?;
    let (scans, snapshots) = (bench.guarantees.ordered_scans, bench.guarantees.snapshots);
    let acknowledged = Arc::new(AtomicU32::new(0));
    let writer = {
        let (store, acknowledged) = (Arc::clone(&bench.store), Arc::clone(&acknowledged));
        move |n: u32| {
            let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
            async move {
                let _ = store.put("count", n.to_string()).await?;
                acknowledged.store(n, Ordering::SeqCst);
                Ok(())
            }
        }
    };
    let readers = (0..4).map(|way| {
        let (store, acknowledged) = (Arc::clone(&bench.store), Arc::clone(&acknowledged));
        let last = Arc::new(AtomicU32::new(0));
        let mut turn = 0;
        move || {
            let (store, last) = (Arc::clone(&store), Arc::clone(&last));
            // A snapshot may be a connection of its own, which many at once make slow.
            let way = if way == 3 && turn % 8 != 0 { 0 } else { way };
            turn += 1;
            // What was acknowledged before the read begins must be seen.
            let least = last.load(Ordering::SeqCst).max(acknowledged.load(Ordering::SeqCst));
            async move {
                let key = Bytes::from_static(b"count");
                let seen = count(read(&*store, &key, way, scans, snapshots).await?)?;
                ensure!(seen >= least, "a reader sees {seen} after {least}");
                last.store(seen, Ordering::SeqCst);
                Ok(())
            }
        }
    });
    let last = race(200, writer, readers).await?;
    let got = count(bench.store.get(b"count").await?)?;
    ensure!(got == last, "the count ends at {got} instead of {last}");
    Ok(())
}

fn count(value: Option<Value>) -> Verdict<u32> {
    let text = value.ok_or_else(|| Stop::failed("the count is missing"))?;
    let count = std::str::from_utf8(&text.bytes).ok().and_then(|text| text.parse().ok());
    count.ok_or_else(|| Stop::failed("the count is not one"))
}

async fn everybody_agrees_on_the_last_write(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    for round in 0..20 {
        let key = Bytes::from(format!("shared-{}", round % 4));
        let mut tasks = JoinSet::new();
        for task in 0..6 {
            let (store, key) = (Arc::clone(&bench.store), key.clone());
            tasks.spawn(async move {
                let value = format!("{round}.{task}");
                let sequence = store.put(key.clone(), value.clone()).await?.sequence;
                store.get(&key).await?;
                Ok::<_, Stop>((sequence, Bytes::from(value)))
            });
        }
        let mut written = BTreeSet::new();
        while let Some(joined) = tasks.join_next().await {
            written.insert(joined.map_err(Stop::failed)??);
        }
        let got = bench.store.get(&key).await?.map(|value| value.bytes);
        let (last, has_order) = match written.last() {
            Some((sequence, value)) => (Some(value.clone()), sequence.is_some()),
            None => (None, false),
        };
        let ours = written.iter().any(|(_, value)| Some(value) == got.as_ref());
        ensure!(ours, "the value is none of those written last");
        ensure!(!has_order || got == last, "the value is not the one with the last sequence");
        for way in 1..4 {
            let again = read(
                &*bench.store,
                &key,
                way,
                bench.guarantees.ordered_scans,
                bench.guarantees.snapshots,
            );
            let again = again.await?.map(|value| value.bytes);
            ensure!(again == got, "two ways of reading differ after concurrent writes");
        }
    }
    Ok(())
}

/// Batches that are written at once, of keys that are not there: `+` puts a key, `-` deletes it. A delete of what is
/// not there conflicts with nothing that a store may have locked.
const AT_ONCE: [&[&str]; 5] = [
    &["+a-b", "+b-a"],
    &["+a-b", "+b-c", "+c-a"],
    &["+a-b", "+b-c", "+c-d", "+d-a"],
    // Puts alone, and single operations, take another way in some stores.
    &["+a-b", "+b+c", "+c-a"],
    &["+a-b", "+b-a", "+a", "-b"],
];

/// What they leave behind is what they leave in some order.
async fn batches_take_effect_in_some_order(bench: Bench) -> Verdict {
    bench.needs_batches()?;
    if bench.batch_ops(2) < 2 {
        return Err(Stop::Skipped("a batch has one operation"));
    }
    for (number, texts) in AT_ONCE.iter().enumerate() {
        for round in 0..bench.times(10, 5) {
            let key = |name: char| Bytes::from(format!("{number}-{round}-{name}"));
            let keys = ['a', 'b', 'c', 'd'].map(key);
            let batches: Vec<Batch> = texts.iter().map(|text| batch(text, key)).collect();
            let mut tasks = JoinSet::new();
            for batch in batches.clone() {
                let store = Arc::clone(&bench.store);
                tasks.spawn(async move { Ok(store.write(batch).await.map(drop)?) });
            }
            join(tasks).await?;
            let left = bench.store.get_many(&keys).await?;
            let left: Vec<_> = left.into_iter().map(|value| value.map(|v| v.bytes)).collect();
            ensure!(
                orders(&batches).iter().any(|order| applied(order, &keys) == left),
                "{texts:?}, written at once, leave what they leave in no order: {left:?}"
            );
        }
    }
    Ok(())
}

/// The batch of such a text. What it puts is the text.
fn batch(text: &'static str, key: impl Fn(char) -> Bytes) -> Batch {
    let (mut batch, mut puts) = (Batch::new(), true);
    for letter in text.chars() {
        match letter {
            '+' => puts = true,
            '-' => puts = false,
            name if puts => batch = batch.put(key(name), text),
            name => batch = batch.delete(key(name)),
        }
    }
    batch
}

/// The batches in every order.
fn orders(batches: &[Batch]) -> Vec<Vec<&Batch>> {
    let Some((first, rest)) = batches.split_first() else { return vec![Vec::new()] };
    let mut all = Vec::new();
    for order in orders(rest) {
        for at in 0..=order.len() {
            let mut order = order.clone();
            order.insert(at, first);
            all.push(order);
        }
    }
    all
}

/// The values of the keys after the batches, one after the other.
fn applied(batches: &[&Batch], keys: &[Bytes]) -> Vec<Option<Bytes>> {
    let mut entries = Known::new();
    for op in batches.iter().flat_map(|batch| batch.ops()) {
        match op.value() {
            Some(value) => drop(entries.insert(op.key().clone(), value.clone())),
            None => drop(entries.remove(op.key())),
        }
    }
    keys.iter().map(|key| entries.get(key).map(|value| value.bytes.clone())).collect()
}
