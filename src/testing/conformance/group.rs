//! Groups of batches: in the order given, a prefix takes effect, one answer each.

use std::sync::Arc;

use bytes::Bytes;

use super::harness::{Bench, Stop, Verdict, ensure, numbered_key, poll_and_drop, race, refused};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::store::{Read, Store};
use crate::types::{Batch, Commit, Condition, Conditions, Durability, Limits, Op};

super::check::topic! { "group":
    each_batch_has_its_answer,
    batches_take_effect_in_order,
    a_reader_sees_a_prefix,
    a_group_ends_at_the_batch_that_fails,
    a_batch_of_a_group_is_atomic,
    conditions_see_the_batches_before_them,
    a_condition_that_fails_ends_the_group,
    a_large_group_is_applied,
    groups_of_many_tasks_lose_nothing,
    a_dropped_group_leaves_a_prefix,
    a_group_is_there_when_the_store_is_opened_again,
}

fn put(key: impl Into<Bytes>, value: &str) -> Batch {
    Batch::new().put(key, value.to_owned())
}

/// Checks that a group is written, and waits until it is durable.
async fn written(answers: Vec<Result<Commit>>, batches: usize) -> Verdict {
    ensure!(answers.len() == batches, "{} answers to {batches} batches", answers.len());
    let mut last = None;
    for answer in answers {
        let commit = answer?;
        if let (Some(before), Some(now)) = (last, commit.sequence) {
            ensure!(now > before, "the sequence {now} of a batch follows {before}");
        }
        last = commit.sequence.or(last);
        commit.durable().await?;
    }
    Ok(())
}

/// Checks that a group was written up to the batch at that place, which was refused with one of these kinds.
async fn ended(
    answers: Vec<Result<Commit>>,
    batches: usize,
    at: usize,
    kinds: &[ErrorKind],
) -> Verdict {
    ensure!(answers.len() == batches, "{} answers to {batches} batches", answers.len());
    for (n, answer) in answers.into_iter().enumerate() {
        if n < at {
            answer?.durable().await?;
            continue;
        }
        let (kinds, what) = match n == at {
            true => (kinds, "a batch of a group that cannot be written"),
            false => (&[ErrorKind::Aborted][..], "a batch behind the one that failed"),
        };
        let error = refused(answer, kinds, what)?;
        ensure!(
            error.outcome() == Outcome::Nothing,
            "of a refused batch the outcome is unknown: {error:?}"
        );
    }
    Ok(())
}

async fn each_batch_has_its_answer(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    ensure!(bench.store.write_group(Vec::new()).await.is_empty(), "an empty group has answers");
    for batches in [1, 2, 7] {
        let group: Vec<Batch> = (0..batches).map(|n| put(numbered_key(n), "1")).collect();
        written(bench.store.write_group(group).await, batches).await?;
        bench.gives(numbered_key(batches - 1), Some("1")).await?;
    }
    // A batch without operations is one as well.
    let group = vec![Batch::new(), put("a", "1"), Batch::new(), Batch::new().delete("missing")];
    written(bench.store.write_group(group).await, 4).await?;
    bench.gives("a", Some("1")).await
}

async fn batches_take_effect_in_order(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let group = vec![
        put("a", "1"),
        put("b", "1"),
        Batch::new().delete("a"),
        put("b", "2"),
        put("c", "1"),
        Batch::new().delete("c"),
        put("c", "3"),
        Batch::new().delete("b"),
        put("d", "1"),
        put("d", "2"),
        put("d", "1"),
    ];
    // Twice: what the first left changes nothing.
    for _ in 0..2 {
        let batches = group.len();
        written(bench.store.write_group(group.clone()).await, batches).await?;
        bench.gives("a", None).await?;
        bench.gives("b", None).await?;
        bench.gives("c", Some("3")).await?;
        bench.gives("d", Some("1")).await?;
    }
    Ok(())
}

/// Rounds of a writer of groups while readers look.
const ROUNDS: u32 = 60;

async fn a_reader_sees_a_prefix(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let keys = ["first", "second", "third"];
    let number = |value: Option<crate::types::Value>| -> Verdict<u32> {
        let text = value.map_or("0".into(), |value| value.bytes);
        let text = std::str::from_utf8(&text).map_err(Stop::failed)?;
        text.parse().map_err(Stop::failed)
    };
    let writer = {
        let store = Arc::clone(&bench.store);
        move |n: u32| {
            let store = Arc::clone(&store);
            async move {
                let group = keys.map(|key| put(key, &n.to_string())).to_vec();
                written(store.write_group(group).await, keys.len()).await
            }
        }
    };
    let readers = (0..2).map(|_| {
        let store = Arc::clone(&bench.store);
        move || {
            let store = Arc::clone(&store);
            async move {
                // The last first: what was written before it must be there by then.
                let mut later = 0;
                for key in keys.iter().rev() {
                    let now = number(store.get(key.as_bytes()).await?)?;
                    ensure!(
                        now >= later,
                        "of a group a later batch is seen, and an earlier one is not"
                    );
                    later = now;
                }
                Ok(())
            }
        }
    });
    race(bench.times(ROUNDS as usize, 10) as u32, writer, readers).await.map(drop)
}

/// Batches that this store refuses, with the kinds of error.
fn refusals(bench: &Bench) -> Vec<(Batch, ErrorKind)> {
    let long = vec![b'k'; Limits::MAX_KEY_BYTES + 1];
    let mut refusals = vec![
        (put("", "wrong"), ErrorKind::InvalidInput),
        (Batch::new().delete(""), ErrorKind::InvalidInput),
        (put(long, "wrong"), ErrorKind::InvalidInput),
    ];
    if bench.guarantees.durability_on_request < Durability::MachineLoss {
        let batch = put("more", "wrong").durability(Durability::MachineLoss);
        refusals.push((batch, ErrorKind::Unsupported));
    }
    if !bench.guarantees.atomic_batches {
        refusals.push((put("a", "wrong").put("b", "wrong"), ErrorKind::Unsupported));
    }
    if bench.guarantees.conditions == Conditions::None {
        refusals.push((put("more", "wrong").if_absent(), ErrorKind::Unsupported));
    }
    refusals
}

async fn a_group_ends_at_the_batch_that_fails(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    const GOOD: usize = 4;
    for (round, (refusal, kind)) in refusals(&bench).into_iter().enumerate() {
        for at in 0..=GOOD {
            let key = |n: usize| Bytes::from(format!("{round}-{at}-{n}"));
            let mut group: Vec<Batch> = (0..GOOD).map(|n| put(key(n), "1")).collect();
            group.insert(at, refusal.clone());
            ended(bench.store.write_group(group).await, GOOD + 1, at, &[kind]).await?;
            for n in 0..GOOD {
                bench.gives(key(n), (n < at).then_some("1")).await?;
            }
        }
    }
    bench.gives("more", None).await?;
    // Nothing of it is in the way of the next.
    written(bench.store.write_group(vec![put("a", "1"), put("b", "2")]).await, 2).await?;
    bench.gives("b", Some("2")).await
}

async fn a_batch_of_a_group_is_atomic(bench: Bench) -> Verdict {
    bench.needs_batches()?;
    let group = vec![
        Batch::new().put("a", "1").put("b", "1"),
        Batch::new().delete("a").put("b", "2").put("c", "2"),
        Batch::new().put("c", "3").put("", "wrong").delete("b"),
        Batch::new().put("d", "4"),
    ];
    ended(bench.store.write_group(group).await, 4, 2, &[ErrorKind::InvalidInput]).await?;
    bench.gives("a", None).await?;
    bench.gives("b", Some("2")).await?;
    bench.gives("c", Some("2")).await?;
    bench.gives("d", None).await
}

async fn conditions_see_the_batches_before_them(bench: Bench) -> Verdict {
    bench.needs_conditions()?;
    bench.put("old", "1").await?;
    let group = vec![
        put("new", "1").if_absent(),
        Batch::new().delete("old"),
        put("old", "2").if_absent(),
        Batch::new().delete("new"),
        put("new", "3").if_absent(),
    ];
    written(bench.store.write_group(group).await, 5).await?;
    bench.gives("old", Some("2")).await?;
    bench.gives("new", Some("3")).await?;
    if bench.guarantees.conditions == Conditions::Value {
        let step = |from: usize| {
            put("n", &(from + 1).to_string()).require(Condition::equals("n", from.to_string()))
        };
        let group: Vec<Batch> = std::iter::once(put("n", "0")).chain((0..9).map(step)).collect();
        written(bench.store.write_group(group).await, 10).await?;
        bench.gives("n", Some("9")).await?;
    }
    Ok(())
}

async fn a_condition_that_fails_ends_the_group(bench: Bench) -> Verdict {
    bench.needs_conditions()?;
    bench.put("there", "old").await?;
    // On what was there before, and on what an earlier batch has written.
    for (round, key) in ["there", "mine"].into_iter().enumerate() {
        for at in 1..4 {
            let own = |n: usize| Bytes::from(format!("{round}-{at}-{n}"));
            let mut group: Vec<Batch> = (0..3).map(|n| put(own(n), "1")).collect();
            group.insert(0, put("mine", "1"));
            group.insert(at, put(key, "2").if_absent());
            ended(bench.store.write_group(group).await, 5, at, &[ErrorKind::Conflict]).await?;
            for n in 0..3 {
                bench.gives(own(n), (n + 1 < at).then_some("1")).await?;
            }
            bench.gives("there", Some("old")).await?;
            bench.gives("mine", Some("1")).await?;
        }
    }
    if bench.guarantees.conditions == Conditions::Value {
        let held = Condition::equals("n", "1");
        let group = vec![
            put("n", "1"),
            put("n", "2").require(held.clone()),
            put("n", "3").require(held),
            Batch::new().delete("n"),
        ];
        ended(bench.store.write_group(group).await, 4, 2, &[ErrorKind::Conflict]).await?;
        bench.gives("n", Some("2")).await?;
    }
    Ok(())
}

async fn a_large_group_is_applied(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let (batches, keys) = (bench.times(2500, 40), bench.times(500, 10));
    let group: Vec<Batch> =
        (0..batches).map(|n| put(numbered_key(n % keys), &n.to_string())).collect();
    written(bench.store.write_group(group).await, batches).await?;
    let asked: Vec<Bytes> = (0..keys).map(numbered_key).collect();
    for (n, got) in bench.store.get_many(&asked).await?.into_iter().enumerate() {
        let last = (batches - keys + n).to_string();
        ensure!(got == Some(last.into()), "the last of many batches of a key left {got:?}");
    }
    Ok(())
}

/// Each task takes its numbers up in groups on the condition that they follow each other.
async fn groups_of_many_tasks_lose_nothing(bench: Bench) -> Verdict {
    bench.needs_values_as_conditions()?;
    const TASKS: usize = 4;
    const STEPS: usize = 3;
    bench.put("n", "0").await?;
    let rounds = bench.times(8, 3);
    let tasks = (0..TASKS).map(|_| {
        let store = Arc::clone(&bench.store);
        async move {
            let mut taken = 0;
            while taken < rounds {
                let found = store.get(b"n").await?.ok_or_else(|| Stop::failed("it is gone"))?;
                let text = std::str::from_utf8(&found.bytes).map_err(Stop::failed)?;
                let from: usize = text.parse().map_err(Stop::failed)?;
                let group: Vec<Batch> = (from..from + STEPS)
                    .map(|n| {
                        let held = Condition::equals("n", n.to_string());
                        put("n", &(n + 1).to_string()).require(held)
                    })
                    .collect();
                let answers = store.write_group(group).await;
                ensure!(answers.len() == STEPS, "{} answers", answers.len());
                if answers.iter().all(Result::is_ok) {
                    taken += 1;
                    continue;
                }
                // Another task may come between two of its batches, and it goes on from there.
                let done = answers.iter().take_while(|answer| answer.is_ok()).count();
                let error = answers.into_iter().nth(done).and_then(Result::err);
                let conflict = |error: &Error| error.kind() == ErrorKind::Conflict;
                ensure!(error.as_ref().is_some_and(conflict), "a group failed: {error:?}");
                undo(&*store, done).await?;
            }
            Ok(())
        }
    });
    futures_util::future::try_join_all(tasks).await?;
    let total = (TASKS * rounds * STEPS).to_string();
    let got = bench.store.get(b"n").await?;
    ensure!(got == Some(total.clone().into()), "of {total} steps {got:?} are there");
    Ok(())
}

/// Takes the steps of a group that was not written wholly back, on the same conditions.
async fn undo(store: &dyn Store, mut steps: usize) -> Verdict {
    while steps > 0 {
        let found = store.get(b"n").await?.ok_or_else(|| Stop::failed("it is gone"))?;
        let text = std::str::from_utf8(&found.bytes).map_err(Stop::failed)?;
        let from: usize = text.parse().map_err(Stop::failed)?;
        let back = put("n", &(from - 1).to_string()).require(Condition::equals("n", found));
        match store.write(back).await {
            Ok(_) => steps -= 1,
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn a_dropped_group_leaves_a_prefix(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    const BATCHES: usize = 5;
    for round in 0..bench.times(30, 8) {
        let keys: Vec<Bytes> = (0..BATCHES).map(|n| format!("{round}-{n}").into()).collect();
        let group = keys.iter().map(|key| put(key.clone(), "v")).collect();
        if let Some(answers) = poll_and_drop(bench.store.write_group(group), round % 8).await {
            written(answers, BATCHES).await?;
        }
        // The last first: what is under way may still add to it.
        let mut later = false;
        for key in keys.iter().rev() {
            let there = bench.store.get(key).await?.is_some();
            ensure!(
                there || !later,
                "of a dropped group a later batch is there, and an earlier one is not"
            );
            later |= there;
        }
        bench.put("after", "v").await?;
    }
    bench.gives("after", Some("v")).await
}

async fn a_group_is_there_when_the_store_is_opened_again(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let Some(reopen) = bench.reopen.clone() else {
        return Err(Stop::Skipped("the fixture does not say how to open the store again"));
    };
    if bench.guarantees.durability_after_flush == Durability::Nothing {
        return Err(Stop::Skipped("the store guarantees no durability"));
    }
    let mut group: Vec<Batch> = (0..20).map(|n| put(numbered_key(n), "1")).collect();
    group.extend((0..20).step_by(3).map(|n| Batch::new().delete(numbered_key(n))));
    group.extend((0..20).step_by(6).map(|n| put(numbered_key(n), "2")));
    let mut want: Vec<Option<&str>> = vec![None; 20];
    for op in group.iter().flat_map(Batch::ops) {
        let at = (0..20).find(|n| numbered_key(*n) == *op.key());
        let place =
            at.and_then(|at| want.get_mut(at)).ok_or_else(|| Stop::failed("no such key"))?;
        *place = match op {
            Op::Put(_, value) => Some(if value.bytes == "1" { "1" } else { "2" }),
            Op::Delete(_) => None,
        };
    }
    let batches = group.len();
    group.push(put("", "wrong"));
    ended(bench.store.write_group(group).await, batches + 1, batches, &[ErrorKind::InvalidInput])
        .await?;
    bench.store.close().await?;
    let again = reopen().await?;
    let keys: Vec<Bytes> = (0..20).map(numbered_key).collect();
    for (got, want) in again.get_many(&keys).await?.into_iter().zip(want) {
        ensure!(got == want.map(Into::into), "after closing and opening: {got:?}");
    }
    again.close().await?;
    Ok(())
}
