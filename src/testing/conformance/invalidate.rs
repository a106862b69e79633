//! Invalidation: what is kept in front of the data is dropped, and the data stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::harness::{
    Bench, Stop, Verdict, ensure, known, numbered, poll_and_drop, race, scan_gives,
};
use crate::store::{Read, Store};
use crate::testing::oracle::show;
use crate::types::{Op, Scan, Scope};

super::check::topic! { "invalidate":
    no_data_are_changed,
    keys_that_are_not_there_succeed,
    what_others_changed_is_seen,
    who_comes_afterwards_sees_no_older_value,
}

impl Bench {
    /// Changes an entry where nobody tells the store.
    async fn change_unreported(&self, key: &str, value: Option<&str>) -> Verdict {
        let Some(foreign) = &self.foreign else {
            return Err(Stop::Skipped("the fixture does not say how others write"));
        };
        let key = Bytes::from(key.to_owned());
        Ok(foreign(match value {
            Some(value) => Op::Put(key, value.to_owned().into()),
            None => Op::Delete(key),
        })
        .await?)
    }
}

/// One of each kind, all of which have the key.
fn scopes_of(key: &str) -> [Scope; 5] {
    let half = key.get(..key.len() / 2).unwrap_or_default();
    [
        Scope::Keys(vec!["other".into(), key.to_owned().into()]),
        Scope::Prefix(key.to_owned().into()),
        Scope::Prefix(half.to_owned().into()),
        Scope::Prefix(Bytes::new()),
        Scope::All,
    ]
}

async fn no_data_are_changed(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let entries = numbered(30);
    bench.fill(&entries).await?;
    bench.gives("key-00003", Some("value of 3")).await?;
    for scope in scopes_of("key-00003") {
        bench.store.invalidate(scope).await?;
        bench.gives("key-00003", Some("value of 3")).await?;
        bench.gives("key-00004", Some("value of 4")).await?;
        bench.gives("other", None).await?;
    }
    for polls in 0..4 {
        poll_and_drop(bench.store.invalidate(Scope::All), polls).await;
        poll_and_drop(bench.store.invalidate(Scope::Prefix("key".into())), polls).await;
    }
    let keys: Vec<Bytes> = entries.keys().cloned().collect();
    for (key, got) in keys.iter().zip(bench.store.get_many(&keys).await?) {
        ensure!(got.as_ref() == entries.get(key), "{} was changed", show(key));
    }
    if bench.guarantees.ordered_scans {
        scan_gives(&*bench.store, Scan::all(), &entries).await?;
    }
    // A write is no reason to invalidate, and comes through afterwards.
    bench.fill(&known(&[("key-00003", "again")])).await?;
    bench.gives("key-00003", Some("again")).await
}

async fn keys_that_are_not_there_succeed(bench: Bench) -> Verdict {
    let long = Bytes::from(vec![b'l'; 70_000]);
    for scope in [
        Scope::Keys(Vec::new()),
        Scope::Keys(vec!["missing".into(), "missing".into(), b"\x00\xff".to_vec().into()]),
        // No store takes these, so none keeps them.
        Scope::Keys(vec![Bytes::new(), long.clone()]),
        Scope::Prefix("nobody".into()),
        Scope::Prefix(b"\xff\xff".to_vec().into()),
        Scope::Prefix(long),
        Scope::All,
    ] {
        bench.store.invalidate(scope).await?;
    }
    Ok(())
}

async fn what_others_changed_is_seen(bench: Bench) -> Verdict {
    for (round, scope) in scopes_of("user:1").into_iter().enumerate() {
        for value in [Some(format!("theirs {round}")), None, Some(format!("back {round}"))] {
            // Read before, so that a cache keeps what was there.
            for _ in 0..2 {
                bench.store.get(b"user:1").await?;
                bench.store.get_many(&["user:1".into(), "user:2".into()]).await?;
            }
            bench.change_unreported("user:1", value.as_deref()).await?;
            bench.store.invalidate(scope.clone()).await?;
            let got = bench.store.get(b"user:1").await?;
            ensure!(
                got == value.as_deref().map(|value| value.to_owned().into()),
                "after {scope:?} was invalidated, an older value is read"
            );
            let many = bench.store.get_many(&["user:1".into()]).await?;
            ensure!(many == [got], "get_many differs from get after {scope:?}");
        }
    }
    Ok(())
}

async fn who_comes_afterwards_sees_no_older_value(bench: Bench) -> Verdict {
    bench.change_unreported("user:1", Some("0")).await?;
    let seen = Arc::new(AtomicU32::new(0));
    let (writer, written) = (bench.clone(), Arc::clone(&seen));
    let write = move |n: u32| {
        let (bench, written) = (writer.clone(), Arc::clone(&written));
        async move {
            bench.change_unreported("user:1", Some(&n.to_string())).await?;
            let [key, prefix, _, _, all] = scopes_of("user:1");
            let scope = match n % 8 {
                0 => all,
                1..4 => key,
                _ => prefix,
            };
            bench.store.invalidate(scope).await?;
            written.store(n, Ordering::SeqCst);
            Ok(())
        }
    };
    let readers = (0..3).map(|_| {
        let (store, seen) = (Arc::clone(&bench.store), Arc::clone(&seen));
        move || {
            let (store, seen) = (Arc::clone(&store), Arc::clone(&seen));
            async move {
                let before = seen.load(Ordering::SeqCst);
                let value = store.get(b"user:1").await?.unwrap_or_default();
                let read =
                    std::str::from_utf8(&value.bytes).ok().and_then(|text| text.parse().ok());
                ensure!(
                    read >= Some(before),
                    "{read:?} is read after {before} was written and invalidated"
                );
                Ok(())
            }
        }
    });
    let rounds = u32::try_from(bench.times(300, 20)).unwrap_or(u32::MAX);
    race(rounds, write, readers).await.map(drop)
}
