//! Conditions: a batch that is written only where its keys are absent.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::bench::{Bench, Stop, Verdict, ensure, known, refused};
use crate::error::ErrorKind;
use crate::store::{Read, Store};
use crate::types::{Batch, Op, Value};

super::topic! { "condition":
    absent_keys_are_written,
    a_key_that_exists_refuses_the_batch,
    a_key_that_was_deleted_is_absent,
    a_key_that_has_expired_is_absent,
    a_delete_is_no_condition,
    a_batch_does_not_meet_itself,
    of_writers_that_race_one_wins,
}

const CONFLICT: &[ErrorKind] = &[ErrorKind::Conflict];

async fn absent_keys_are_written(bench: Bench) -> Verdict {
    bench.needs_conditions()?;
    bench.put("a", "neighbour").await?;
    bench.store.write(Batch::new().put("k", "1").if_absent()).await?.durable().await?;
    bench.gives("k", Some("1")).await?;
    bench.gives("a", Some("neighbour")).await?;
    let batch: Batch = (0..bench.batch_ops(3)).map(|n| put(format!("many-{n}"), "2")).collect();
    bench.store.write(batch.if_absent()).await?.durable().await?;
    bench.gives("many-0", Some("2")).await?;
    // What was written on a condition is an entry like any other.
    bench.put("k", "3").await?;
    bench.gives("k", Some("3")).await
}

async fn a_key_that_exists_refuses_the_batch(bench: Bench) -> Verdict {
    bench.needs_conditions()?;
    bench.fill(&known(&[("there", "old"), ("empty", "")])).await?;
    for key in ["there", "empty"] {
        // Twice: a refusal leaves nothing behind that would let the next one pass.
        for _ in 0..2 {
            let written = bench.store.write(Batch::new().put(key, "new").if_absent()).await;
            refused(written, CONFLICT, "a batch that is to find a key absent which exists")?;
        }
    }
    let most = bench.batch_ops(4);
    for at in 0..most {
        let key = |n| if n == at { "there".to_owned() } else { format!("new-{n}") };
        let batch: Batch = (0..most).map(|n| put(key(n), "new")).collect();
        let written = bench.store.write(batch.if_absent()).await;
        refused(written, CONFLICT, "a batch of which one key exists")?;
    }
    if most > 1 {
        let batch = Batch::new().delete("empty").put("there", "new").if_absent();
        refused(bench.store.write(batch).await, CONFLICT, "a batch with a delete, of a key there")?;
    }
    bench.gives("there", Some("old")).await?;
    bench.gives("empty", Some("")).await?;
    for n in 0..most {
        bench.gives(format!("new-{n}"), None).await?;
    }
    Ok(())
}

async fn a_key_that_was_deleted_is_absent(bench: Bench) -> Verdict {
    bench.needs_conditions()?;
    for value in ["first", "second"] {
        bench.store.write(Batch::new().put("k", value).if_absent()).await?.durable().await?;
        bench.gives("k", Some(value)).await?;
        bench.delete("k").await?;
        bench.gives("k", None).await?;
    }
    Ok(())
}

async fn a_key_that_has_expired_is_absent(bench: Bench) -> Verdict {
    bench.needs_conditions()?;
    bench.needs_expiry()?;
    let deadline = bench.soon();
    bench.put("k", Value::from("first").expiring_at(deadline)).await?;
    let second = || Batch::new().put("k", "second").if_absent();
    if bench.clock.is_some() {
        let written = bench.store.write(second()).await;
        refused(written, CONFLICT, "a batch that is to find a key absent which expires later")?;
    }
    bench.pass_until(deadline).await;
    bench.store.write(second()).await?.durable().await?;
    bench.gives("k", Some("second")).await
}

async fn a_delete_is_no_condition(bench: Bench) -> Verdict {
    bench.needs_conditions()?;
    bench.fill(&known(&[("a", "1"), ("b", "1")])).await?;
    bench.store.write(Batch::new().delete("a").if_absent()).await?.durable().await?;
    bench.gives("a", None).await?;
    if bench.batch_ops(2) > 1 {
        let batch = Batch::new().delete("b").put("c", "2").if_absent();
        bench.store.write(batch).await?.durable().await?;
        bench.gives("b", None).await?;
        bench.gives("c", Some("2")).await?;
    }
    Ok(())
}

/// The last operation of a key wins here as well.
async fn a_batch_does_not_meet_itself(bench: Bench) -> Verdict {
    bench.needs_conditions()?;
    bench.needs_batches()?;
    let batch = Batch::new().put("k", "1").put("k", "2").if_absent();
    bench.store.write(batch).await?.durable().await?;
    bench.gives("k", Some("2")).await
}

const WRITERS: usize = 6;

async fn of_writers_that_race_one_wins(bench: Bench) -> Verdict {
    bench.needs_conditions()?;
    let pairs = bench.batch_ops(2) > 1;
    for round in 0..15 {
        let (begun, mut tasks) = (Arc::new(Barrier::new(WRITERS)), JoinSet::new());
        for task in 0..WRITERS {
            let (store, begun) = (Arc::clone(&bench.store), Arc::clone(&begun));
            tasks.spawn(async move {
                let own = put(format!("own-{round}-{task}"), "v");
                let shared = put(format!("shared-{round}"), task.to_string());
                // Those who lose must leave nothing of their batches, on either side of the shared key.
                let mut ops = if task % 2 == 0 { vec![own, shared] } else { vec![shared, own] };
                ops.retain(|op| pairs || op.key().starts_with(b"shared"));
                begun.wait().await;
                let written = store.write(ops.into_iter().collect::<Batch>().if_absent()).await;
                let won = written.is_ok();
                if !won {
                    refused(written.map(drop), CONFLICT, "a writer that loses a race")?;
                }
                Ok::<_, Stop>((task, won))
            });
        }
        let mut winners = Vec::new();
        while let Some(joined) = tasks.join_next().await {
            let (task, won) = joined.map_err(Stop::failed)??;
            winners.extend(won.then_some(task));
        }
        ensure!(winners.len() == 1, "{} of {WRITERS} writers won a race", winners.len());
        let got = bench.store.get(format!("shared-{round}").as_bytes()).await?;
        let winner = winners.first().map(|task| Value::new(task.to_string()));
        ensure!(got == winner, "the value is not that of the writer who won");
        let own = (0..WRITERS).map(|task| Bytes::from(format!("own-{round}-{task}")));
        let there = bench.store.get_many(&own.collect::<Vec<_>>()).await?;
        let there = there.iter().flatten().count();
        ensure!(there == usize::from(pairs), "{there} writers of a race left their own entry");
    }
    Ok(())
}

fn put(key: impl Into<Bytes>, value: impl Into<Value>) -> Op {
    Op::Put(key.into(), value.into())
}
