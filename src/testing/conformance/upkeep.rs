//! Commits, flush, compaction, usage, the profile, and what errors tell.

use std::error::Error as _;

use futures_util::{StreamExt, stream};

use super::harness::{Bench, Verdict, ensure, known, numbered, scan_gives};
use crate::error::{Error, Result};
use crate::ext::{ReadExt, StoreExt};
use crate::store::{Read, Store};
use crate::types::{
    Batch, Counting, Durability, Entry, Limits, Page, ProfileKind, Scan, Scope, Value,
};

super::check::topic! { "upkeep":
    the_profile_is_stable_and_prints,
    commits_become_durable_in_order,
    flush_and_compaction_change_nothing,
    usage_is_answered,
    entries_are_counted_as_precisely_as_guaranteed,
    what_the_store_counts_itself_is_what_is_there,
    errors_do_not_tell_the_key,
}

async fn the_profile_is_stable_and_prints(bench: Bench) -> Verdict {
    let profile = bench.store.profile();
    ensure!(!profile.to_string().is_empty(), "the profile prints nothing");
    for level in profile.levels() {
        ensure!(!level.name.is_empty(), "a level of the profile has no name");
        let backend = level.kind == ProfileKind::Backend;
        ensure!(
            backend == level.below.is_none(),
            "'{}' must be a layer over something, or a backend over nothing",
            level.name
        );
    }
    let guarantees = &profile.guarantees;
    ensure!(
        guarantees.durability_after_flush >= guarantees.durability,
        "a flush must not make an acknowledged write less durable"
    );
    ensure!(
        guarantees.durability_on_request >= guarantees.durability,
        "a write that asks for no more must not survive more than one that asks"
    );
    if guarantees.writable {
        bench.put("k", "1").await?;
        bench.store.flush().await?;
    }
    ensure!(bench.store.profile() == profile, "the profile changed while the store was open");
    bench.store.close().await?;
    ensure!(bench.store.profile() == profile, "the profile changed when the store was closed");
    Ok(())
}

async fn commits_become_durable_in_order(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let mut last = None;
    for n in 0..20 {
        let value = n.to_string();
        let commit = bench.store.put("k", value.clone()).await?;
        if let Some(sequence) = commit.sequence {
            ensure!(last < Some(sequence), "sequence {sequence} follows {last:?}");
            last = Some(sequence);
        }
        ensure!(commit.sequence.is_some() || last.is_none(), "a commit lost its sequence");
        // Waiting is optional, and may be given up.
        if n % 3 == 0 {
            drop(commit);
        } else {
            commit.durable().await?;
        }
        let got = bench.store.get(b"k").await?;
        ensure!(got == Some(value.into()), "an acknowledged write is not seen");
    }
    Ok(())
}

async fn flush_and_compaction_change_nothing(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    bench.store.flush().await?;
    bench.store.compact().await?;
    let mut entries = numbered(100);
    bench.fill(&entries).await?;
    for n in [3, 50, 99] {
        let key = super::harness::numbered_key(n);
        bench.delete(key.clone()).await?;
        entries.remove(&key);
    }
    for _ in 0..2 {
        bench.store.flush().await?;
        bench.store.compact().await?;
        bench.gives("key-00003", None).await?;
        bench.gives("key-00004", Some("value of 4")).await?;
        if bench.guarantees.ordered_scans {
            scan_gives(&*bench.store, Scan::all(), &entries).await?;
        }
    }
    bench.fill(&known(&[("key-00003", "back")])).await?;
    bench.gives("key-00003", Some("back")).await
}

async fn usage_is_answered(bench: Bench) -> Verdict {
    bench.store.usage().await?;
    bench.needs_writes()?;
    bench.fill(&numbered(100)).await?;
    let usage = bench.store.usage().await?;
    // Numbers may be estimates; but that there is something is no estimate.
    ensure!(usage.entries != Some(0), "usage says that a store with 100 entries has none");
    Ok(())
}

async fn entries_are_counted_as_precisely_as_guaranteed(bench: Bench) -> Verdict {
    let counts = bench.guarantees.counts;
    let check = async |want: u64| {
        let got = bench.store.usage().await?.entries;
        let holds = match counts {
            Counting::No => got.is_none(),
            Counting::Estimated => true,
            Counting::Exact => got == Some(want),
        };
        ensure!(holds, "usage gives {got:?} of {want} entries, but counts them {counts:?}");
        Ok(())
    };
    check(0).await?;
    bench.needs_writes()?;
    bench.fill(&numbered(100)).await?;
    check(100).await?;
    // An overwrite and the delete of a missing key change no number.
    bench.fill(numbered(10).iter()).await?;
    bench.delete("missing").await?;
    check(100).await?;
    for n in 0..30 {
        bench.delete(super::harness::numbered_key(n)).await?;
    }
    check(70).await?;
    bench.put("back", "1").await?;
    check(71).await?;
    bench.needs_expiry()?;
    let deadline = bench.soon();
    bench.put("expires", Value::from("1").expiring_at(deadline)).await?;
    bench.pass_until(deadline).await;
    check(71).await
}

/// A store that cannot tell says so.
async fn what_the_store_counts_itself_is_what_is_there(bench: Bench) -> Verdict {
    let check = async |prefix: &'static str, want: u64| {
        let got = bench.store.count(prefix.as_bytes()).await?;
        let below = if prefix.is_empty() { "at all" } else { prefix };
        ensure!(
            got.is_none_or(|got| got == want),
            "{got:?} entries are counted below '{below}', where there are {want}"
        );
        Ok(())
    };
    check("", 0).await?;
    bench.needs_writes()?;
    bench.fill(&numbered(100)).await?;
    bench.fill(numbered(10).iter()).await?;
    check("", 100).await?;
    check("key-0000", 10).await?;
    check("key-00007", 1).await?;
    check("missing", 0).await?;
    bench.delete("missing").await?;
    bench.delete(super::harness::numbered_key(3)).await?;
    bench.put("key-0000", "no longer than the prefix").await?;
    check("", 100).await?;
    check("key-0000", 10).await?;
    bench.needs_expiry()?;
    let deadline = bench.soon();
    bench.put("key-expires", Value::from("1").expiring_at(deadline)).await?;
    check("key-e", 1).await?;
    bench.pass_until(deadline).await;
    check("key-e", 0).await?;
    check("", 100).await
}

/// The start of every key and value here.
const SECRET: &str = "s3cr3t-marker";

async fn errors_do_not_tell_the_key(bench: Bench) -> Verdict {
    let key = format!("{SECRET}-key");
    let long = SECRET.repeat(Limits::MAX_KEY_BYTES / SECRET.len() + 1);
    let expiring = Value::from(SECRET).expiring_at(bench.now());
    let store = &bench.store;
    let mut errors: Vec<Error> = Vec::new();
    let mut keep = |result: Result<()>| errors.extend(result.err());
    keep(store.get(long.as_bytes()).await.map(drop));
    keep(store.get_many(&[key.clone().into(), long.clone().into()]).await.map(drop));
    keep(store.put(long.clone(), SECRET).await.map(drop));
    keep(store.write(Batch::new().put(key.clone(), SECRET).delete("")).await.map(drop));
    keep(store.put(key.clone(), expiring).await.map(drop));
    let durable = Batch::new().put(key.clone(), SECRET).durability(Durability::MachineLoss);
    keep(store.write(durable).await.map(drop));
    keep(store.collect(Scan::prefix(&key)).await.map(drop));
    let entry = Entry { key: key.clone().into(), value: SECRET.into() };
    let run = Page { entries: vec![entry.clone(), entry] };
    keep(store.ingest(stream::iter([Ok(run)]).boxed()).await.map(drop));
    for _ in 0..2 {
        keep(store.write(Batch::new().put(key.clone(), SECRET).if_absent()).await.map(drop));
    }
    keep(store.inspect(long.as_bytes()).await.map(drop));
    store.close().await?;
    keep(store.invalidate(Scope::Keys(vec![key.clone().into()])).await);
    keep(store.invalidate(Scope::Prefix(key.clone().into())).await);
    keep(store.inspect(key.as_bytes()).await.map(drop));
    keep(store.get(key.as_bytes()).await.map(drop));
    keep(store.put(key.clone(), SECRET).await.map(drop));
    keep(store.collect(Scan::prefix(&key)).await.map(drop));
    ensure!(errors.len() >= 5, "only {} of the wrong operations failed", errors.len());
    // As text, and as the list of numbers that `Vec<u8>` prints.
    let numbers = format!("{:?}", SECRET.as_bytes());
    let numbers = numbers.trim_matches(['[', ']']);
    for error in errors {
        let mut texts = vec![error.to_string(), format!("{error:?}"), format!("{error:#?}")];
        let mut cause = error.source();
        while let Some(source) = cause {
            texts.extend([source.to_string(), format!("{source:?}")]);
            cause = source.source();
        }
        for text in texts {
            let text = text.replace("\\n", "");
            ensure!(
                !text.contains(SECRET) && !text.contains(numbers),
                "an error tells a key or a value: {:.300}",
                text
            );
        }
    }
    Ok(())
}
