//! Inspection: what each place has of a key, told without a trace.

use bytes::Bytes;

use super::harness::{Bench, Verdict, ensure, refused};
use crate::error::ErrorKind;
use crate::store::Store;
use crate::types::{Presence, Sighting};

super::check::topic! { "inspect":
    an_entry_is_seen_in_the_innermost_place,
    a_missing_key_is_nowhere,
    looking_changes_nothing,
    wrong_keys_are_refused,
}

impl Bench {
    async fn sightings(&self, key: &str) -> Verdict<Vec<Sighting>> {
        let sightings = self.store.inspect(key.as_bytes()).await?;
        ensure!(!sightings.is_empty(), "an inspection that looks nowhere");
        for sighting in &sightings {
            let named = !sighting.layer.is_empty() && !sighting.place.is_empty();
            ensure!(named, "a sighting without a layer or a place: {sighting:?}");
            ensure!(
                sighting.presence == Presence::Entry || sighting.bytes.is_none(),
                "bytes of an entry that is not there: {sighting:?}"
            );
        }
        Ok(sightings)
    }
}

async fn an_entry_is_seen_in_the_innermost_place(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    bench.put("k", "a value").await?;
    bench.put("k2", "another").await?;
    // What is still to be written, is seen where it waits.
    bench.store.flush().await?;
    for _ in 0..2 {
        let sightings = bench.sightings("k").await?;
        let innermost = sightings.last().map(|sighting| sighting.presence);
        ensure!(innermost == Some(Presence::Entry), "an entry is not seen: {sightings:?}");
        bench.gives("k", Some("a value")).await?;
    }
    bench.delete("k").await?;
    bench.store.flush().await?;
    let sightings = bench.sightings("k").await?;
    let seen = sightings.iter().any(|sighting| sighting.presence == Presence::Entry);
    ensure!(!seen, "a deleted entry is seen: {sightings:?}");
    Ok(())
}

async fn a_missing_key_is_nowhere(bench: Bench) -> Verdict {
    for _ in 0..2 {
        let sightings = bench.sightings("missing").await?;
        let seen = sightings.iter().any(|sighting| sighting.presence == Presence::Entry);
        ensure!(!seen, "a missing key is seen: {sightings:?}");
        bench.gives("missing", None).await?;
    }
    Ok(())
}

async fn looking_changes_nothing(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    bench.put("k", "a value").await?;
    let places = |sightings: Vec<Sighting>| -> Vec<_> {
        let place = |seen: Sighting| (seen.layer, seen.place, seen.presence, seen.bytes);
        sightings.into_iter().map(place).collect()
    };
    // Neither of an entry that nobody has read, nor of one that was read.
    for read in [false, true] {
        if read {
            bench.gives("k", Some("a value")).await?;
        }
        let first = places(bench.sightings("k").await?);
        let second = places(bench.sightings("k").await?);
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
