//! `tierstack copy`: from one store to another, which is also the way from one backend to the next.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use tierstack::{
    Clock, Counting, Entry, Error, Page, Read, ReadExt, Result, Scan, Store, StoreExt, SystemClock,
};

use crate::args::{Copy, StoreArgs};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::{Progress, Unit};
use crate::session::{self, Use};
use crate::shutdown::Shutdown;
use crate::walk::{self, Skips};

#[derive(Default, Serialize)]
struct Copied {
    entries: u64,
    /// Bytes of keys and values.
    bytes: u64,
    /// Entries that were left out, as they cannot be read.
    skipped: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<Compared>,
}

/// What a comparison of the two stores found.
#[derive(Default, Serialize)]
struct Compared {
    /// Entries of the source as it counts them itself. `None`: it has no way but its scans.
    counted: Option<u64>,
    /// Whether that was not counted but told: what its scans pass by.
    #[serde(skip)]
    told: bool,
    /// Of these, those that were not read.
    unread: u64,
    equal: u64,
    different: u64,
    missing: u64,
    /// Entries of the target that are not in the source: they were there before.
    only_in_target: u64,
}

/// `tierstack copy`
pub(crate) async fn run(args: Copy, stop: &Shutdown) -> Outcome {
    let to = StoreArgs { config: args.to.clone(), store: args.to_store.clone() };
    if !args.same_data && session::is_same_backend(&args.store, &to)? {
        return Err(same_data());
    }
    let (source, target) = session::check_both(&args.store, &to)?;
    let scan = Scan::prefix(args.prefix.as_deref().unwrap_or_default());
    session::with_checked(source, Use::Existing, stop, async |from: &Arc<dyn Store>| {
        session::with_checked(target, Use::Filling, stop, async |to: &Arc<dyn Store>| {
            let both = from.identity().zip(to.identity());
            if !args.same_data && both.is_some_and(|(from, to)| from.overlaps(&to)) {
                return Err(same_data());
            }
            if args.verify && !to.profile().guarantees.ordered_scans {
                let what =
                    "--verify reads both stores in key order, and the target offers no scans";
                return Err(Failure::usage(what).next("leave --verify out; nothing was written"));
            }
            let prefix = args.prefix.as_deref().unwrap_or_default().as_bytes();
            let (counted, told) = match args.verify {
                true => stop.or(count_itself(&**from, prefix, args.skip.skip)).await?,
                false => (None, false),
            };
            let source = session::moment(from).await?;
            let total = match counted {
                Some(counted) => Some(counted),
                None => total(from, &args).await?,
            };
            let progress = Progress::new("copying", total, Unit::Entries);
            let skips = Skips::asked(args.skip.skip);
            let copying = copy(&source, to, scan.clone(), &skips, &progress, stop);
            let copied = if total.is_none() && lists_keys(&**from) {
                beside(copying, count(&source, scan.clone(), &progress)).await
            } else {
                copying.await
            };
            skips.sum_up();
            let mut copied = copied?;
            let took = progress.elapsed();
            progress.finish();
            if args.verify {
                let progress = Progress::new("verifying", Some(copied.entries), Unit::Entries);
                let target = session::moment(to).await?;
                // They were told.
                let skips = Skips::told(args.skip.skip, |_| ());
                let compared = compare(&source, &target, scan, &skips, &progress);
                let mut compared = stop.or(compared).await?;
                compared.told = told;
                progress.finish();
                if let Some(counted) = counted {
                    let seen = copied.entries + copied.skipped;
                    let unread = unread(&**from, prefix, counted, seen);
                    compared.unread = stop.or(unread).await?;
                    compared.counted = Some(counted);
                }
                copied.verified = Some(compared);
            }
            session::warn_if_forgotten(&**to);
            report(&args, &copied, &output::duration(took))
        })
        .await
    })
    .await
}

/// Whether the keys are counted by listing them. Not where the store knows their number, nor where there are
/// deadlines: a layer may keep them in the values, which would then be read twice.
fn lists_keys(from: &dyn Store) -> bool {
    let guarantees = from.profile().guarantees;
    guarantees.ordered_scans && guarantees.counts == Counting::No && !guarantees.expiry
}

/// Counts what is to be copied. What fails here fails in the copy.
async fn count(source: &Arc<dyn Read>, scan: Scan, progress: &Progress) {
    let keys = source.scan(scan.keys_only());
    let count = keys.try_fold(0, async |sum, page| Ok(sum + page.len() as u64)).await;
    if let Ok(count) = count {
        progress.expect(count);
    }
}

/// Does some work concurrently with other work, until that is done.
async fn beside<T>(work: impl Future<Output = T>, other: impl Future<Output = ()>) -> T {
    let other = async {
        other.await;
        std::future::pending::<std::convert::Infallible>().await
    };
    tokio::select! {
        biased;
        done = work => done,
        never = other => match never {},
    }
}

/// With a prefix, the number of entries is unknown.
async fn total(from: &Arc<dyn Store>, args: &Copy) -> Outcome<Option<u64>> {
    Ok(if args.prefix.is_some() { None } else { from.usage().await?.entries })
}

/// A copy into the data that it reads never ends, or encodes them again in place.
fn same_data() -> Failure {
    let what = "source and target hold the same data; --to or --to-store must name another store";
    Failure::usage(what)
        .next("--same-data copies nevertheless, as from one prefix of a store to another")
}

async fn copy(
    source: &Arc<dyn Read>,
    to: &Arc<dyn Store>,
    scan: Scan,
    skips: &Skips,
    progress: &Progress,
    stop: &Shutdown,
) -> Outcome<Copied> {
    let mut copied = Copied::default();
    // Counted as it is read: the target takes a page while the next one is read.
    let run = walk::pages(&**source, scan, skips).inspect_ok(|page| {
        copied.entries += page.len() as u64;
        copied.bytes += page.bytes() as u64;
        progress.add(page.len() as u64);
    });
    let end = stop.or(async { Ok(to.load(run.boxed()).await?) }).await;
    let flushed = to.flush().await.map_err(Failure::from);
    let again = "run it again: entries that are there are written once more, which does no harm";
    match (end, flushed) {
        (Ok(_), Ok(())) => Ok(Copied { skipped: skips.count(), ..copied }),
        // Counted as they are read.
        (Err(end), Ok(())) if copied.entries == 0 => Err(end.next("nothing was written")),
        (Err(end), Ok(())) => {
            let entries = output::counted(copied.entries, "entry is", "entries are");
            Err(end.next(format!("up to {entries} in the target; {again}")))
        }
        (Ok(_), Err(flush)) => Err(flush.context("the copy may not survive a crash").next(again)),
        (Err(end), Err(flush)) => Err(end.next(again).also(flush)),
    }
}

/// What the source counts in its own way. Where it says instead that its scans pass something by, that is told if it
/// is to be skipped: `true`.
async fn count_itself(from: &dyn Store, prefix: &[u8], skip: bool) -> Outcome<(Option<u64>, bool)> {
    match from.count(prefix).await {
        Ok(counted) => Ok((counted, false)),
        Err(error) if error.name().is_some() && walk::is_of_entry(&error) => {
            if !skip {
                let next = "nothing was written; --skip copies without them";
                return Err(Failure::from(error).next(next));
            }
            walk::tell(&error);
            Ok((None, true))
        }
        Err(error) => Err(error.into()),
    }
}

/// Entries that the source counts and that were not seen. A second count tells what was written meanwhile.
async fn unread(from: &dyn Store, prefix: &[u8], counted: u64, seen: u64) -> Outcome<u64> {
    if seen >= counted {
        return Ok(0);
    }
    let again = from.count(prefix).await?.unwrap_or(counted);
    Ok(counted.min(again).saturating_sub(seen))
}

/// Walks both in key order. An entry of the source that expired meanwhile may be gone.
async fn compare(
    source: &Arc<dyn Read>,
    target: &Arc<dyn Read>,
    scan: Scan,
    skips: &Skips,
    progress: &Progress,
) -> Outcome<Compared> {
    let mut compared = Compared::default();
    let entries = |page: Page| stream::iter(page.entries).map(Ok::<_, Error>);
    let mut left = walk::pages(&**source, scan.clone(), skips).map_ok(entries).try_flatten();
    let mut right = target.entries(scan);
    let (mut ours, mut theirs) = (next(&mut left).await?, next(&mut right).await?);
    while let Some(entry) = &ours {
        match theirs.as_ref().map(|other| other.key.cmp(&entry.key)) {
            Some(std::cmp::Ordering::Less) => {
                compared.only_in_target += 1;
                theirs = next(&mut right).await?;
                continue;
            }
            Some(std::cmp::Ordering::Equal) => {
                if theirs.as_ref() == Some(entry) {
                    compared.equal += 1;
                } else {
                    compared.different += 1;
                }
                theirs = next(&mut right).await?;
            }
            _ if entry.value.is_expired(SystemClock.now()) => compared.equal += 1,
            _ => compared.missing += 1,
        }
        progress.add(1);
        ours = next(&mut left).await?;
    }
    while theirs.is_some() {
        compared.only_in_target += 1;
        theirs = next(&mut right).await?;
    }
    Ok(compared)
}

async fn next(
    entries: &mut (impl StreamExt<Item = Result<Entry>> + Unpin),
) -> Result<Option<Entry>, Error> {
    entries.next().await.transpose()
}

fn report(args: &Copy, copied: &Copied, took: &str) -> Outcome {
    output::fact(args.json.json, copied, || {
        let (entries, bytes) = (output::entries(copied.entries), output::bytes(copied.bytes));
        let mut words = format!("copied {entries} ({bytes}) in {took}\n");
        if let Some(compared) = &copied.verified {
            let equal = output::counted(compared.equal, "entry is", "entries are");
            words += &format!("verified: {equal} equal");
            if compared.counted.is_none() && !compared.told {
                words += "; the source counts its entries in no other way than by reading them";
            }
            if compared.only_in_target > 0 {
                let more = output::entries(compared.only_in_target);
                words += &format!("; the target has {more} that the source does not have");
            }
        }
        words
    })?;
    match &copied.verified {
        Some(Compared { unread: unread @ 1.., counted: Some(counted), .. }) => {
            let counts = output::entries(*counted);
            let unread = output::counted(*unread, "was not read", "were not read");
            Err(Failure::failed(format!(
                "the source counts {counts} itself, of which {unread}: they are not in the copy"
            ))
            .next("no program may write to the source meanwhile; if it stays so, export from it with its own tools"))
        }
        Some(compared) if compared.different + compared.missing > 0 => {
            Err(Failure::failed(format!(
                "the copy is not equal: {} different, {} missing in the target",
                output::entries(compared.different),
                output::entries(compared.missing)
            ))
            .next("no program may write to the target meanwhile; run the copy again"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tierstack::backends::Memory;
    use tierstack::{StoreExt, Timestamp, Value};

    use super::*;

    async fn store(entries: &[(&'static str, &'static str)]) -> Arc<dyn Read> {
        let store = Memory::new();
        for (key, value) in entries {
            store.put(*key, *value).await.unwrap();
        }
        Arc::new(store)
    }

    async fn compared(left: &Arc<dyn Read>, right: &Arc<dyn Read>) -> [u64; 4] {
        let progress = Progress::new("comparing", None, Unit::Entries);
        let skips = Skips::told(false, |_| ());
        let found = compare(left, right, Scan::all(), &skips, &progress).await.ok().unwrap();
        [found.equal, found.different, found.missing, found.only_in_target]
    }

    #[tokio::test]
    async fn every_kind_of_difference_is_counted() {
        let left = store(&[("b", "1"), ("c", "1"), ("d", "1"), ("f", "1")]).await;
        let right = store(&[("a", "1"), ("b", "1"), ("c", "2"), ("e", "1"), ("g", "1")]).await;
        assert_eq!(compared(&left, &right).await, [1, 1, 2, 3]);
        assert_eq!(compared(&right, &left).await, [1, 1, 3, 2]);
        assert_eq!(compared(&left, &left).await, [4, 0, 0, 0]);
    }

    #[tokio::test]
    async fn what_the_source_counts_and_nobody_saw_is_missing() {
        let source = Memory::new();
        for key in ["a/1", "a/2", "b"] {
            source.put(key, "").await.unwrap();
        }
        for (prefix, counted, seen, missing) in [
            ("", 3, 3, 0),
            ("", 3, 1, 2),
            ("a/", 2, 1, 1),
            ("a/", 2, 5, 0),
            // Written or removed since they were counted first.
            ("", 2, 2, 0),
            ("", 4, 3, 0),
            ("", 9, 2, 1),
        ] {
            let unread = unread(&source, prefix.as_bytes(), counted, seen).await;
            assert_eq!(unread.ok().unwrap(), missing, "{prefix} {counted} {seen}");
        }
    }

    #[tokio::test]
    async fn what_is_copied_is_counted_beside_the_copy() {
        let source = store(&[("a1", "1"), ("a2", "1"), ("b", "1")]).await;
        let progress = Progress::new("copying", None, Unit::Entries);
        // The copy ends first, and the other way round.
        beside(async {}, count(&source, Scan::all(), &progress)).await;
        assert_eq!(progress.expected(), None);
        beside(tokio::task::yield_now(), count(&source, Scan::prefix("a"), &progress)).await;
        assert_eq!(progress.expected(), Some(2));
        let faults = tierstack::testing::Faults::new();
        faults.on(tierstack::Operation::Scan).fail(tierstack::ErrorKind::Unavailable);
        let failing = tierstack::testing::FaultStore::new(Memory::new(), &faults);
        assert!(!lists_keys(&failing), "it counts by itself");
        let failing: Arc<dyn Read> = Arc::new(failing);
        let progress = Progress::new("copying", None, Unit::Entries);
        beside(tokio::task::yield_now(), count(&failing, Scan::all(), &progress)).await;
        assert_eq!(progress.expected(), None);
    }

    #[tokio::test]
    async fn an_entry_that_expired_since_may_be_gone_and_another_expiry_is_a_difference() {
        let expiring = |millis| Value::from("x").expiring_at(Timestamp::from_millis(millis));
        let clock = tierstack::ManualClock::new();
        clock.jump(std::time::Duration::ZERO);
        // It is at 2024: the entry is there for it, and gone for the system's clock.
        let source = Memory::with_clock(Arc::new(clock));
        source.put("a", expiring(1_704_067_300_000)).await.unwrap();
        let source: Arc<dyn Read> = Arc::new(source);
        assert_eq!(compared(&source, &store(&[]).await).await, [1, 0, 0, 0]);
        let (one, other) = (Memory::new(), Memory::new());
        one.put("a", expiring(4_000_000_000_000)).await.unwrap();
        other.put("a", expiring(4_000_000_000_001)).await.unwrap();
        let (one, other): (Arc<dyn Read>, Arc<dyn Read>) = (Arc::new(one), Arc::new(other));
        assert_eq!(compared(&one, &other).await, [0, 1, 0, 0]);
    }
}
