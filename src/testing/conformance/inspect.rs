//! Inspection: what each place has of a key, told without a trace.

use bytes::Bytes;

use super::harness::{Bench, Verdict, ensure, refused};
use crate::error::ErrorKind;
use crate::store::Store;
use crate::types::{Inspection, Presence};

super::check::topic! { "inspect":
    an_entry_is_seen_in_the_innermost_place,
    a_missing_key_is_nowhere,
    looking_changes_nothing,
    wrong_keys_are_refused,
}

impl Bench {
    async fn inspections(&self, key: &str) -> Verdict<Vec<Inspection>> {
        let inspections = self.store.inspect(key.as_bytes()).await?;
        ensure!(!inspections.is_empty(), "an inspection that looks nowhere");
        for inspection in &inspections {
            let named = !inspection.layer.is_empty() && !inspection.place.is_empty();
            ensure!(named, "a inspection without a layer or a place: {inspection:?}");
            ensure!(
                inspection.presence == Presence::Entry || inspection.bytes.is_none(),
                "bytes of an entry that is not there: {inspection:?}"
            );
        }
        Ok(inspections)
    }
}

async fn an_entry_is_seen_in_the_innermost_place(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    bench.put("k", "a value").await?;
    bench.put("k2", "another").await?;
    // What is still to be written, is seen where it waits.
    bench.store.flush().await?;
    for _ in 0..2 {
        let inspections = bench.inspections("k").await?;
        let innermost = inspections.last().map(|inspection| inspection.presence);
        ensure!(innermost == Some(Presence::Entry), "an entry is not seen: {inspections:?}");
        bench.gives("k", Some("a value")).await?;
    }
    bench.delete("k").await?;
    bench.store.flush().await?;
    let inspections = bench.inspections("k").await?;
    let seen = inspections.iter().any(|inspection| inspection.presence == Presence::Entry);
    ensure!(!seen, "a deleted entry is seen: {inspections:?}");
    Ok(())
}

async fn a_missing_key_is_nowhere(bench: Bench) -> Verdict {
    for _ in 0..2 {
        let inspections = bench.inspections("missing").await?;
        let seen = inspections.iter().any(|inspection| inspection.presence == Presence::Entry);
        ensure!(!seen, "a missing key is seen: {inspections:?}");
        bench.gives("missing", None).await?;
    }
    Ok(())
}

async fn looking_changes_nothing(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    bench.put("k", "a value").await?;
    let places = |inspections: Vec<Inspection>| -> Vec<_> {
        let place = |seen: Inspection| (seen.layer, seen.place, seen.presence, seen.bytes);
        inspections.into_iter().map(place).collect()
    };
    // Neither of an entry that nobody has read, nor of one that was read.
    for read in [false, true] {
        if read {
            bench.gives("k", Some("a value")).await?;
        }
        let first = places(bench.inspections("k").await?);
        let second = places(bench.inspections("k").await?);
        ensure!(first == second, "looking changed what there is: {first:?}, then {second:?}");
    }
    bench.gives("k", Some("a value")).await
}

async fn wrong_keys_are_refused(bench: Bench) -> Verdict {
    let long = Bytes::from(vec![b'l'; 70_000]);
    for key in [Bytes::new(), long] {
        refused(bench.store.inspect(&key).await, &[ErrorKind::InvalidInput], "a wrong key")?;
    }
    Ok(())
}
