//! Snapshots: of one moment, for as long as they are held.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::{JoinSet, yield_now};

use super::harness::{
    Bench, Verdict, ensure, join, known, numbered, numbered_key, scan_gives, seen,
};
use crate::error::ErrorKind;
use crate::store::{Read, Store};
use crate::testing::oracle::{Known, show};
use crate::types::{Limits, Scan};

super::check::topic! { "snapshot":
    a_snapshot_does_not_see_later_writes,
    a_snapshot_sees_every_earlier_write,
    snapshots_of_several_moments_differ,
    a_snapshot_outlives_flush_and_compaction,
    a_snapshot_serves_many_tasks,
    a_snapshot_scans_like_a_store,
    a_snapshot_refuses_wrong_keys,
}

/// Checks that a snapshot holds exactly these entries among those keys, however it is read.
async fn holds(bench: &Bench, snapshot: &dyn Read, entries: &Known, keys: &[Bytes]) -> Verdict {
    let scans = bench.guarantees.ordered_scans;
    let values = snapshot.get_many(keys).await?;
    for (key, value) in keys.iter().zip(&values) {
        let want = entries.get(key);
        ensure!(value.as_ref() == want, "get_many of a snapshot: {} is {value:?}", show(key));
        let got = seen(snapshot, scans, key).await;
        ensure!(
            got == Ok(want.map(|value| value.bytes.clone())),
            "a snapshot gives {got:?} for {}",
            show(key)
        );
    }
    if scans {
        scan_gives(snapshot, Scan::all().page_entries(2), entries).await?;
        scan_gives(snapshot, Scan::all().reverse(), entries).await?;
    }
    Ok(())
}

async fn a_snapshot_does_not_see_later_writes(bench: Bench) -> Verdict {
    bench.needs_snapshots()?;
    let entries = known(&[("a", "1"), ("b", "2"), ("c", "3")]);
    bench.fill(&entries).await?;
    // Read once through the stack, so that a cache holds what changes next.
    bench.gives("b", Some("2")).await?;
    let snapshot = bench.store.snapshot().await?;
    bench.put("a", "changed").await?;
    bench.delete("b").await?;
    bench.put("d", "new").await?;
    let keys = ["a", "b", "c", "d"].map(Bytes::from);
    holds(&bench, &*snapshot, &entries, &keys).await?;
    // What was read through the snapshot is not what the store answers now.
    bench.gives("a", Some("changed")).await?;
    bench.gives("b", None).await?;
    bench.gives("d", Some("new")).await?;
    holds(&bench, &*snapshot, &entries, &keys).await
}

async fn a_snapshot_sees_every_earlier_write(bench: Bench) -> Verdict {
    bench.needs_snapshots()?;
    let mut entries = Known::new();
    for n in 0..50usize {
        let key = numbered_key(n % 7);
        if n % 5 == 4 {
            bench.delete(key.clone()).await?;
            entries.remove(&key);
        } else {
            bench.put(key.clone(), n.to_string()).await?;
            entries.insert(key.clone(), n.to_string().into());
        }
        let snapshot = bench.store.snapshot().await?;
        let got = snapshot.get(&key).await?;
        ensure!(got.as_ref() == entries.get(&key), "a snapshot misses the write just before it");
    }
    let keys: Vec<Bytes> = (0..8).map(numbered_key).collect();
    holds(&bench, &*bench.store.snapshot().await?, &entries, &keys).await
}

async fn snapshots_of_several_moments_differ(bench: Bench) -> Verdict {
    bench.needs_snapshots()?;
    let keys: Vec<Bytes> = (0..5).map(numbered_key).collect();
    let mut entries = Known::new();
    let mut moments = vec![(bench.store.snapshot().await?, entries.clone())];
    for n in 0..20usize {
        let key = numbered_key(n % 5);
        match n % 4 {
            3 => {
                bench.delete(key.clone()).await?;
                entries.remove(&key);
            }
            _ => {
                bench.put(key.clone(), n.to_string()).await?;
                entries.insert(key, n.to_string().into());
            }
        }
        moments.push((bench.store.snapshot().await?, entries.clone()));
    }
    // Some are dropped first: the others must not mind.
    moments = moments.into_iter().step_by(3).collect();
    for (snapshot, entries) in &moments {
        holds(&bench, &**snapshot, entries, &keys).await?;
    }
    Ok(())
}

async fn a_snapshot_outlives_flush_and_compaction(bench: Bench) -> Verdict {
    bench.needs_snapshots()?;
    let entries = numbered(200);
    bench.fill(&entries).await?;
    bench.store.flush().await?;
    let snapshot = bench.store.snapshot().await?;
    for round in 0..3 {
        for key in entries.keys().step_by(2) {
            bench.delete(key.clone()).await?;
        }
        let others = entries.iter().skip(1).step_by(2);
        let changed: Known =
            others.map(|(key, _)| (key.clone(), format!("round {round}").into())).collect();
        bench.fill(&changed).await?;
        bench.store.flush().await?;
        bench.store.compact().await?;
        let keys = [numbered_key(0), numbered_key(1), numbered_key(200)];
        holds(&bench, &*snapshot, &entries, &keys).await?;
    }
    drop(snapshot);
    bench.store.compact().await?;
    bench.gives(numbered_key(0), None).await?;
    bench.gives(numbered_key(1), Some("round 2")).await
}

async fn a_snapshot_serves_many_tasks(bench: Bench) -> Verdict {
    bench.needs_snapshots()?;
    let entries = numbered(50);
    bench.fill(&entries).await?;
    let (snapshot, scans) = (bench.store.snapshot().await?, bench.guarantees.ordered_scans);
    let mut tasks = JoinSet::new();
    for task in 0..8usize {
        let (snapshot, entries) = (Arc::clone(&snapshot), entries.clone());
        tasks.spawn(async move {
            for n in 0..40 {
                let key = numbered_key((n * 7 + task) % 50);
                let got = snapshot.get(&key).await?;
                ensure!(got.as_ref() == entries.get(&key), "a task reads {got:?} in a snapshot");
                if scans && n % 8 == 0 {
                    scan_gives(&*snapshot, Scan::all().page_entries(9), &entries).await?;
                }
                yield_now().await;
            }
            Ok(())
        });
    }
    drop(snapshot);
    for n in 0..50 {
        bench.put(numbered_key(n), "changed meanwhile").await?;
    }
    join(tasks).await
}

async fn a_snapshot_scans_like_a_store(bench: Bench) -> Verdict {
    bench.needs_snapshots()?;
    bench.needs_scans()?;
    let entries = numbered(30);
    bench.fill(&entries).await?;
    let snapshot = bench.store.snapshot().await?;
    bench.fill(&known(&[("key-00005!", "later"), ("key-00006", "changed")])).await?;
    for limit in [None, Some(0), Some(1), Some(10)] {
        for page in [1, 4, 100] {
            let range = Scan::range(numbered_key(3)..=numbered_key(27)).page_entries(page);
            let scan = Scan { limit, ..range };
            scan_gives(&*snapshot, scan.clone(), &entries).await?;
            scan_gives(&*snapshot, scan.reverse(), &entries).await?;
        }
    }
    Ok(())
}

async fn a_snapshot_refuses_wrong_keys(bench: Bench) -> Verdict {
    bench.needs_snapshots()?;
    let snapshot = bench.store.snapshot().await?;
    for key in [Bytes::new(), Bytes::from(vec![b'k'; Limits::MAX_KEY_BYTES + 1])] {
        let kinds = &[ErrorKind::InvalidInput];
        super::harness::refused(snapshot.get(&key).await, kinds, "get of a wrong key")?;
        let many = snapshot.get_many(std::slice::from_ref(&key)).await;
        super::harness::refused(many, kinds, "get_many of a wrong key")?;
    }
    Ok(())
}
