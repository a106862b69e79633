//! Conditions: a batch that is applied only where keys are absent, or hold given values.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::harness::{Bench, Stop, Verdict, ensure, known, refused};
use crate::error::ErrorKind;
use crate::store::{Read, Store};
use crate::types::{Batch, Condition, Conditions, Op, Value};

super::check::topic! { "condition":
    absent_keys_are_written,
    a_key_that_exists_refuses_the_batch,
    a_key_that_was_deleted_is_absent,
    a_key_that_has_expired_is_absent,
    a_delete_is_no_condition,
    a_batch_does_not_meet_itself,
    of_writers_that_race_one_wins,
    a_value_that_is_required_is_compared,
    a_required_value_has_its_expiry,
    a_value_that_has_expired_is_not_there,
    other_keys_can_be_required,
    a_batch_without_operations_checks_only,
    no_increment_is_lost,
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
                // Those that lose must leave nothing of their batches, on either side of the shared key.
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
        ensure!(got == winner, "the value is not that of the writer that won");
        let own = (0..WRITERS).map(|task| Bytes::from(format!("own-{round}-{task}")));
        let there = bench.store.get_many(&own.collect::<Vec<_>>()).await?;
        let there = there.iter().flatten().count();
        ensure!(there == usize::from(pairs), "{there} writers of a race left their own entry");
    }
    Ok(())
}

async fn a_value_that_is_required_is_compared(bench: Bench) -> Verdict {
    bench.needs_values_as_conditions()?;
    bench.fill(&known(&[("k", "old"), ("empty", ""), ("other", "old")])).await?;
    let replace = |key: &'static str, is: &'static str| {
        Batch::new().put(key, "new").require(Condition::equals(key, is))
    };
    let wrong = [("k", "ol"), ("k", "olD"), ("k", "older"), ("k", ""), ("empty", "x")];
    for (key, is) in wrong.into_iter().chain([("absent", "old"), ("absent", "")]) {
        // Twice: a refusal leaves nothing behind that would let the next one pass.
        for _ in 0..2 {
            let written = bench.store.write(replace(key, is)).await;
            refused(written, CONFLICT, "a batch that requires a value which is not there")?;
        }
    }
    bench.gives("k", Some("old")).await?;
    bench.gives("empty", Some("")).await?;
    bench.gives("absent", None).await?;
    for (key, is) in [("k", "old"), ("empty", "")] {
        bench.store.write(replace(key, is)).await?.durable().await?;
        bench.gives(key, Some("new")).await?;
    }
    // A delete can have a condition as well.
    let delete = |is: &'static str| Batch::new().delete("k").require(Condition::equals("k", is));
    refused(bench.store.write(delete("old")).await, CONFLICT, "a delete of an older value")?;
    bench.gives("k", Some("new")).await?;
    bench.store.write(delete("new")).await?.durable().await?;
    bench.gives("k", None).await?;
    bench.gives("other", Some("old")).await
}

async fn a_required_value_has_its_expiry(bench: Bench) -> Verdict {
    bench.needs_values_as_conditions()?;
    bench.needs_expiry()?;
    let far = bench.now() + Duration::from_secs(86_400);
    bench.put("k", Value::from("v").expiring_at(far)).await?;
    bench.put("for ever", "v").await?;
    // What a read gives is what can be required.
    let seen = bench.store.get(b"k").await?.ok_or_else(|| Stop::failed("the entry is gone"))?;
    let later = Value::from("v").expiring_at(far + Duration::from_secs(60));
    let wrong = [("k", Value::from("v")), ("k", later), ("for ever", seen.clone())];
    for (key, value) in wrong {
        let batch = Batch::new().put(key, "new").require(Condition::equals(key, value));
        refused(bench.store.write(batch).await, CONFLICT, "a batch that requires another expiry")?;
    }
    let batch = Batch::new().put("k", "new").require(Condition::equals("k", seen));
    bench.store.write(batch).await?.durable().await?;
    bench.gives("k", Some("new")).await?;
    bench.gives("for ever", Some("v")).await
}

async fn a_value_that_has_expired_is_not_there(bench: Bench) -> Verdict {
    bench.needs_values_as_conditions()?;
    bench.needs_expiry()?;
    let deadline = bench.soon();
    let value = Value::from("v").expiring_at(deadline);
    bench.put("k", value.clone()).await?;
    bench.pass_until(deadline).await;
    let batch = Batch::new().put("k", "new").require(Condition::equals("k", value));
    refused(bench.store.write(batch).await, CONFLICT, "a batch that requires an expired value")?;
    bench.gives("k", None).await
}

async fn other_keys_can_be_required(bench: Bench) -> Verdict {
    bench.needs_conditions()?;
    bench.put("there", "v").await?;
    let absent = |key: &'static str| Condition::absent(key);
    if bench.batch_ops(2) == 1 {
        let batch = Batch::new().put("k", "1").require(absent("other"));
        let written = bench.store.write(batch).await;
        let unsupported = &[ErrorKind::Unsupported];
        refused(written, unsupported, "a condition on another key, without atomic batches")?;
        return bench.gives("k", None).await;
    }
    bench.store.write(Batch::new().put("k", "1").require(absent("other"))).await?.durable().await?;
    bench.gives("k", Some("1")).await?;
    bench.gives("other", None).await?;
    let both = Batch::new().put("k", "2").require(absent("other")).require(absent("there"));
    refused(
        bench.store.write(both).await,
        CONFLICT,
        "a batch of which one condition does not hold",
    )?;
    bench.gives("k", Some("1")).await?;
    if bench.guarantees.conditions == Conditions::Value {
        let there = |is: &'static str| {
            Batch::new().put("k", "2").delete("there").require(Condition::equals("there", is))
        };
        refused(
            bench.store.write(there("x")).await,
            CONFLICT,
            "a condition on another key's value",
        )?;
        bench.gives("there", Some("v")).await?;
        bench.store.write(there("v")).await?.durable().await?;
        bench.gives("k", Some("2")).await?;
        bench.gives("there", None).await?;
    }
    Ok(())
}

async fn a_batch_without_operations_checks_only(bench: Bench) -> Verdict {
    bench.needs_conditions()?;
    bench.put("there", "v").await?;
    let require = |condition| bench.store.write(Batch::new().require(condition));
    require(Condition::absent("absent")).await?.durable().await?;
    refused(require(Condition::absent("there")).await, CONFLICT, "a condition alone")?;
    if bench.guarantees.conditions == Conditions::Value {
        require(Condition::equals("there", "v")).await?.durable().await?;
        refused(require(Condition::equals("there", "x")).await, CONFLICT, "a condition alone")?;
    }
    bench.gives("there", Some("v")).await?;
    bench.gives("absent", None).await
}

/// Tasks that read a counter, and write it on the condition that it is still as it was read. A neighbour
/// overwrites it without a condition now and then.
async fn no_increment_is_lost(bench: Bench) -> Verdict {
    bench.needs_values_as_conditions()?;
    let (tasks, rounds) = (4, bench.times(25, 5));
    let mut counting = JoinSet::new();
    for _ in 0..tasks {
        let store = Arc::clone(&bench.store);
        counting.spawn(async move {
            for _ in 0..rounds {
                increment(&*store).await?;
            }
            Ok::<_, Stop>(())
        });
    }
    while let Some(joined) = counting.join_next().await {
        joined.map_err(Stop::failed)??;
    }
    let count = bench.store.get(b"counter").await?;
    let all = Value::new((tasks * rounds).to_string());
    ensure!(count == Some(all), "an increment is lost");
    Ok(())
}

async fn increment(store: &dyn Store) -> Verdict {
    loop {
        let found = store.get(b"counter").await?;
        let (count, condition) = match found {
            None => (0, Condition::absent("counter")),
            Some(value) => {
                let text = String::from_utf8_lossy(&value.bytes).into_owned();
                let count = text.parse::<usize>().map_err(Stop::failed)?;
                (count, Condition::equals("counter", value))
            }
        };
        let next = (count + 1).to_string();
        match store.write(Batch::new().put("counter", next).require(condition)).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Conflict => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
    }
}

fn put(key: impl Into<Bytes>, value: impl Into<Value>) -> Op {
    Op::Put(key.into(), value.into())
}
