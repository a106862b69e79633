//! The change feed: what others change.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{Either, ready, select, try_join, try_join_all};

use super::harness::{Bench, Stop, Verdict, ensure, poll_and_drop};
use crate::clock::{Clock, SystemClock};
use crate::store::{Change, Changes, Read, Store};
use crate::testing::oracle::show;
use crate::types::{Op, Value};

super::check::topic! { "change_feed":
    subscriptions_come_and_go,
    subscriptions_end_when_the_store_is_closed,
    what_others_write_is_reported,
    every_subscription_is_told,
}

/// How long a report is waited for, beyond what is guaranteed. No check asserts that it comes in
/// time: a test machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

impl Bench {
    fn needs_changes(&self) -> Verdict<Duration> {
        let guarantees = self.guarantees.change_feed;
        guarantees
            .map(|within| within + PATIENCE)
            .ok_or(Stop::Skipped("the store has no change feed"))
    }

    /// Changes an entry behind the store's back.
    async fn change(&self, op: Op) -> Verdict {
        let Some(foreign) = &self.foreign else {
            return Err(Stop::Skipped("the fixture does not say how others write"));
        };
        Ok(foreign(op).await?)
    }

    /// Waits for a report after which a read gives that value.
    async fn reported(
        &self,
        changes: &mut Changes,
        key: &Bytes,
        want: Option<&Value>,
        patience: Duration,
    ) -> Verdict {
        let told = async {
            while let Some(change) = changes.next().await {
                let about = match &change {
                    Change::Keys(keys) => keys.contains(key),
                    Change::Prefix(prefix) => key.starts_with(prefix),
                    Change::All => true,
                    Change::Lost => false,
                };
                // A report of an earlier change may come first.
                if about && self.store.get(key).await?.as_ref() == want {
                    return Ok(());
                }
            }
            Err(Stop::failed("the change feed ended while the store was open"))
        };
        match select(Box::pin(told), SystemClock.sleep(patience)).await {
            Either::Left((verdict, _)) => verdict,
            Either::Right(_) => Err(Stop::failed(format_args!(
                "a change of {} is not in the change feed, or read before it is reported, after {patience:?}",
                show(key)
            ))),
        }
    }
}

async fn subscriptions_come_and_go(bench: Bench) -> Verdict {
    bench.needs_changes()?;
    for polls in 0..4 {
        poll_and_drop(bench.store.changes(), polls).await;
    }
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut changes = bench.store.changes().await?;
        poll_and_drop(changes.next(), 2).await;
        held.push(changes);
        if held.len() == 5 {
            held.clear();
        }
    }
    if bench.guarantees.writable {
        bench.put("k", "1").await?;
        bench.gives("k", Some("1")).await?;
    }
    Ok(())
}

async fn subscriptions_end_when_the_store_is_closed(bench: Bench) -> Verdict {
    let patience = bench.needs_changes()?;
    let (mut read, unread) = (bench.store.changes().await?, bench.store.changes().await?);
    poll_and_drop(read.next(), 3).await;
    bench.store.close().await?;
    for changes in [read, unread] {
        let ended = Box::pin(changes.for_each(|_| ready(())));
        if let Either::Right(_) = select(ended, SystemClock.sleep(patience)).await {
            return Err(Stop::failed("the change feed goes on after the store was closed"));
        }
    }
    Ok(())
}

async fn what_others_write_is_reported(bench: Bench) -> Verdict {
    let patience = bench.needs_changes()?;
    let key = Bytes::from_static(b"shared");
    if bench.guarantees.writable {
        bench.put(key.clone(), "ours").await?;
    }
    bench.store.get(&key).await?;
    let mut changes = bench.store.changes().await?;
    for value in [Some("theirs"), Some("theirs, again"), None, Some("back")] {
        let value = value.map(Value::from);
        let told = bench.reported(&mut changes, &key, value.as_ref(), patience);
        try_join(bench.change(op(&key, value.clone())), told).await?;
    }
    // Keys of any bytes, the longest among them.
    let long = vec![b'l'; bench.guarantees.limits.key_bytes.min(2000)];
    for key in [b"\x00\xff".to_vec(), b"quote'd \"key\"\n".to_vec(), "schl\u{fc}ssel".into(), long]
    {
        let (key, value) = (Bytes::from(key), Value::from("v"));
        let told = bench.reported(&mut changes, &key, Some(&value), patience);
        try_join(bench.change(op(&key, Some(value.clone()))), told).await?;
    }
    Ok(())
}

async fn every_subscription_is_told(bench: Bench) -> Verdict {
    let patience = bench.needs_changes()?;
    let mut subscriptions = Vec::new();
    for _ in 0..3 {
        subscriptions.push(bench.store.changes().await?);
    }
    for round in 0..3 {
        let (key, value) = (Bytes::from(format!("key-{round}")), Value::from("v"));
        let told = subscriptions
            .iter_mut()
            .map(|changes| bench.reported(changes, &key, Some(&value), patience));
        try_join(bench.change(op(&key, Some(value.clone()))), try_join_all(told)).await?;
        // The others are told when one has gone.
        if round > 0 {
            subscriptions.pop();
        }
    }
    ensure!(!subscriptions.is_empty(), "a subscription is left");
    Ok(())
}

fn op(key: &Bytes, value: Option<Value>) -> Op {
    match value {
        Some(value) => Op::Put(key.clone(), value),
        None => Op::Delete(key.clone()),
    }
}
