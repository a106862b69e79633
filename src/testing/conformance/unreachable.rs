//! Data that cannot be reached: the store says so, and never that there is nothing.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, select};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use super::fixture::{Outage, Reach};
use super::harness::{Bench, Stop, Verdict, ensure, numbered, numbered_key, refused, scan_gives};
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Pages, Read, Store};
use crate::testing::oracle::{Known, show};
use crate::types::{Batch, Condition, Conditions, Entry, Op, Page, Presence, Scan, Value};

super::check::topic! { "unreachable":
    reads_fail,
    pages_of_a_scan_fail,
    writes_fail,
}

/// What says that the data could not be reached.
const UNREACHABLE: &[ErrorKind] = &[ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Access];
/// Operations that are under way at a time: a deadline passes for all of them at once.
const AT_ONCE: usize = 16;
/// Between two looks whether the data can be reached again.
const PAUSE: Duration = Duration::from_millis(2);
/// How long the data may take to be reached again.
const PATIENCE: Duration = Duration::from_secs(120);
/// By how much a clock that is moved by hand goes on meanwhile.
const TICK: Duration = Duration::from_millis(100);

/// Keys that no check writes.
const MISSING: [&str; 2] = ["key-00005-missing", "missing"];

async fn reads_fail(bench: Bench) -> Verdict {
    let reach = bench.needs_an_outage()?;
    let entries = bench.filled().await?;
    // Some are read before, so that a cache may have them.
    let mut asked: Vec<(Bytes, Option<Value>)> =
        entries.iter().take(6).map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    asked.extend(MISSING.map(|key| (Bytes::from(key), None)));
    for (key, value) in asked.iter().step_by(2) {
        ensure!(bench.store.get(key).await? == *value, "{} is not what was put", show(key));
    }
    let mut kept = Vec::new();
    for (key, _) in &asked {
        kept.push(bench.is_kept(key).await?);
    }
    let before = bench.store.usage().await?;
    let frozen = match bench.guarantees.snapshots {
        true => Some(bench.store.snapshot().await?),
        false => None,
    };
    reach(false).await?;
    let all: Vec<Bytes> = asked.iter().map(|(key, _)| key.clone()).collect();
    let (store, all) = (&bench.store, &all);
    let mut looks: Vec<BoxFuture<'_, Verdict>> = Vec::new();
    for ((key, value), kept) in asked.iter().zip(kept) {
        let truth = kept.then_some(value);
        looks.push(Box::pin(async move { told(store.get(key).await, truth, "get") }));
        looks.push(Box::pin(async move {
            let found = store.get_many(std::slice::from_ref(key)).await;
            told(found.map(|found| found.into_iter().next().flatten()), truth, "get_many")
        }));
    }
    looks.push(Box::pin(async move { told(store.get_many(all).await, None, "get_many") }));
    for key in all {
        looks.push(Box::pin(async move { told(store.inspect(key).await, None, "inspect") }));
    }
    looks.push(Box::pin(async move {
        match store.usage().await {
            // It does not know, and says so, or knows without the data.
            Ok(usage)
                if [None, before.entries].contains(&usage.entries)
                    && [None, before.stored_bytes].contains(&usage.stored_bytes) =>
            {
                Ok(())
            }
            usage => told(usage, None, "usage"),
        }
    }));
    looks.push(Box::pin(async move {
        match store.count(b"").await {
            Ok(None) => Ok(()),
            counted => told(counted, None, "count"),
        }
    }));
    if bench.guarantees.ordered_scans {
        looks.extend(scans_fail(&**store));
    }
    if bench.guarantees.snapshots {
        looks.push(Box::pin(async move {
            told(store.snapshot().await.map(|_| "a snapshot"), None, "snapshot")
        }));
    }
    if let Some(frozen) = &frozen {
        for key in all {
            looks.push(Box::pin(
                async move { told(frozen.get(key).await, None, "get of a snapshot") },
            ));
        }
        looks.push(Box::pin(async move {
            told(frozen.get_many(all).await, None, "get_many of a snapshot")
        }));
        if bench.guarantees.ordered_scans {
            looks.extend(scans_fail(&**frozen));
        }
    }
    let looked = bench.all(looks).await;
    reach(true).await?;
    looked?;
    bench.recovers(&entries, &[]).await
}

/// Scans that begin while nothing can be reached.
fn scans_fail<R: Read + ?Sized>(store: &R) -> Vec<BoxFuture<'_, Verdict>> {
    let scans = [
        Scan::all(),
        Scan::all().reverse(),
        Scan::range("key-00003".."key-00007").limit(1),
        Scan::prefix("missing"),
        Scan::all().keys_only(),
    ];
    let looks = scans.map(|scan| {
        let look = async move {
            let page = store.scan(scan).next().await.transpose();
            told(page.map(|page| page.map(|page| page.len())), None, "the first page of a scan")
        };
        look.boxed()
    });
    looks.into()
}

/// Scans that began before: what comes is right, and the end comes after the last entry.
async fn pages_of_a_scan_fail(bench: Bench) -> Verdict {
    bench.needs_scans()?;
    let reach = bench.needs_an_outage()?;
    let entries = bench.filled().await?;
    let snapshot = match bench.guarantees.snapshots {
        true => Some(bench.store.snapshot().await?),
        false => None,
    };
    let mut scans = vec![bench.store.scan(Scan::all().page_entries(2))];
    scans.extend(snapshot.iter().map(|snapshot| snapshot.scan(Scan::all().page_entries(2))));
    let mut begun = Vec::new();
    for mut pages in scans {
        let first = pages.try_next().await?.ok_or_else(|| Stop::failed("a scan finds nothing"))?;
        begun.push((pages, first.entries));
    }
    reach(false).await?;
    let looks = begun.into_iter().map(|(pages, found)| rest(pages, found, &entries).boxed());
    let looked = bench.all(looks.collect()).await;
    reach(true).await?;
    looked?;
    bench.recovers(&entries, &[]).await
}

async fn rest(mut pages: Pages<'_>, mut found: Vec<Entry>, entries: &Known) -> Verdict {
    loop {
        match pages.next().await.transpose() {
            Ok(Some(page)) => found.extend(page.entries),
            Ok(None) => {
                let complete = found.len() == entries.len();
                ensure!(complete, "a scan ends after {} of {}", found.len(), entries.len());
                break;
            }
            Err(error) => {
                told::<()>(Err(error), None, "a later page of a scan")?;
                break;
            }
        }
    }
    let mut want = entries.iter();
    let right = |entry: &Entry| want.next() == Some((&entry.key, &entry.value));
    ensure!(found.iter().all(right), "a scan of what cannot be reached shows other entries");
    Ok(())
}

async fn writes_fail(bench: Bench) -> Verdict {
    bench.needs_writes()?;
    let reach = bench.needs_an_outage()?;
    let entries = bench.filled().await?;
    let mut batches =
        vec![Batch::new().put(numbered_key(0), "new"), Batch::new().delete(numbered_key(1))];
    if bench.batch_ops(2) > 1 {
        batches.push(Batch::new().put(numbered_key(2), "new").delete(numbered_key(3)));
    }
    if bench.guarantees.conditions >= Conditions::Absence {
        batches.push(Batch::new().put("absent", "new").if_absent());
        // Whether the condition holds cannot be known: it is no conflict.
        batches.push(Batch::new().put(numbered_key(4), "new").if_absent());
        batches.push(Batch::new().require(Condition::absent(MISSING[0])));
    }
    if bench.guarantees.conditions == Conditions::Value {
        let equals = |n, value: &'static str| Condition::equals(numbered_key(n), value);
        batches.push(Batch::new().put(numbered_key(5), "new").require(equals(5, "value of 5")));
        batches.push(Batch::new().put(numbered_key(6), "new").require(equals(6, "another")));
        batches.push(Batch::new().require(equals(7, "value of 7")));
    }
    let mut touched: Vec<(Bytes, Option<Value>)> = Vec::new();
    for op in batches.iter().flat_map(Batch::ops) {
        touched.push((op.key().clone(), op.value().cloned()));
    }
    reach(false).await?;
    let store = &bench.store;
    let mut looks: Vec<BoxFuture<'_, Verdict>> = Vec::new();
    for batch in batches {
        looks.push(Box::pin(async move {
            let what = format!("a batch of {} operations", batch.len());
            let conditions = batch.conditions().len();
            let what = format!("{what} and {conditions} conditions");
            let ops = batch.ops().to_vec();
            acknowledged(&**store, store.write(batch).await.map(drop), ops, &what).await
        }));
    }
    let group = [Batch::new().put(numbered_key(8), "new"), Batch::new().delete(numbered_key(9))];
    for op in group.iter().flat_map(Batch::ops) {
        touched.push((op.key().clone(), op.value().cloned()));
    }
    looks.push(Box::pin(async move {
        let ops = group.each_ref().map(|batch| batch.ops().to_vec());
        let written = store.write_group(group.into()).await;
        ensure!(written.len() == 2, "a group of 2 batches has {} answers", written.len());
        for (at, (commit, ops)) in written.into_iter().zip(ops).enumerate() {
            match commit {
                Err(error) if at > 0 && error.kind() == ErrorKind::Aborted => {}
                commit => {
                    let commit = commit.map(drop);
                    acknowledged(&**store, commit, ops, "a batch of a group").await?;
                }
            }
        }
        Ok(())
    }));
    if bench.guarantees.ingest {
        let entry = Entry { key: numbered_key(50), value: "new".into() };
        touched.push((entry.key.clone(), Some(entry.value.clone())));
        let run = stream::iter([Ok(Page { entries: vec![entry] })]).boxed();
        looks.push(Box::pin(async move { told(store.ingest(run).await, None, "ingest") }));
    }
    let looked = bench.all(looks).await;
    reach(true).await?;
    looked?;
    bench.recovers(&entries, &touched).await
}

impl Bench {
    fn needs_an_outage(&self) -> Verdict<Reach> {
        match &self.outage {
            Outage::By(reach) => Ok(reach.clone()),
            Outage::Never(why) => Err(Stop::Skipped(why)),
            Outage::Unsaid => {
                Err(Stop::Skipped("the fixture does not say how its data become unreachable"))
            }
        }
    }

    /// Entries to look for, where entries can be put.
    async fn filled(&self) -> Verdict<Known> {
        let entries = if self.guarantees.writable { numbered(20) } else { Known::new() };
        self.fill(&entries).await?;
        self.store.flush().await?;
        Ok(entries)
    }

    /// Whether a place in front of the data has the key, or remembers that there is none: it may answer.
    async fn is_kept(&self, key: &[u8]) -> Verdict<bool> {
        let places = self.store.inspect(key).await?;
        let in_front = places.split_last().map_or(&[][..], |(_, in_front)| in_front);
        let keeps = |presence| matches!(presence, Presence::Entry | Presence::Absence);
        Ok(in_front.iter().any(|inspection| keeps(inspection.presence)))
    }

    /// All of them, a few at a time.
    async fn all(&self, looks: Vec<BoxFuture<'_, Verdict>>) -> Verdict {
        self.as_time_passes(stream::iter(looks).buffer_unordered(AT_ONCE).try_collect()).await
    }

    /// A store may wait by a clock that is moved by hand.
    async fn as_time_passes<T>(&self, work: impl Future<Output = T>) -> T {
        let Some(clock) = &self.clock else { return work.await };
        tokio::select! {
            done = work => done,
            never = pass(clock) => match never {},
        }
    }

    /// The operation, until the data can be reached, which they must be soon.
    async fn again<T, F>(&self, operation: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let attempts = async {
            loop {
                match operation().await {
                    Err(error) if UNREACHABLE.contains(&error.kind()) => {
                        SystemClock.sleep(PAUSE).await;
                    }
                    done => return done,
                }
            }
        };
        let attempts = pin!(self.as_time_passes(attempts));
        match select(attempts, SystemClock.sleep(PATIENCE)).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "the data cannot be reached again {} seconds after they were brought back",
                    PATIENCE.as_secs()
                ),
            )),
        }
    }

    /// The true answers come, and writes are taken. What became of the writes that failed is unknown.
    async fn recovers(&self, entries: &Known, touched: &[(Bytes, Option<Value>)]) -> Verdict {
        let store = &self.store;
        let mut left = entries.clone();
        for (key, value) in touched {
            let found = self.again(async || store.get(key).await).await?;
            let known = found == *value || found.as_ref() == entries.get(key);
            ensure!(known, "after a failed write, {} is {found:?}", show(key));
            match found {
                Some(found) => drop(left.insert(key.clone(), found)),
                None => drop(left.remove(key)),
            }
        }
        let keys: Vec<Bytes> = left.keys().cloned().chain(MISSING.map(Bytes::from)).collect();
        for key in &keys {
            let found = self.again(async || store.get(key).await).await?;
            ensure!(found.as_ref() == left.get(key), "afterwards {} is {found:?}", show(key));
        }
        let found = self.again(async || store.get_many(&keys).await).await?;
        let right = keys.iter().zip(&found).all(|(key, found)| found.as_ref() == left.get(key));
        ensure!(right && found.len() == keys.len(), "afterwards get_many gives {found:?}");
        if self.guarantees.ordered_scans {
            let count = async || Ok(store.scan(Scan::all()).try_collect::<Vec<_>>().await?.len());
            self.again(count).await?;
            scan_gives(&**store, Scan::all().page_entries(7), &left).await?;
        }
        if self.guarantees.writable {
            self.again(async || self.put("afterwards", "1").await).await?;
            self.gives("afterwards", Some("1")).await?;
        }
        Ok(())
    }
}

async fn pass(clock: &ManualClock) -> Infallible {
    loop {
        SystemClock.sleep(PAUSE).await;
        clock.advance(TICK);
    }
}

/// Checks that a write failed, or that it is kept in front of the data: then it is read from there at once, and a place says
/// that it still has to bring it to the data.
async fn acknowledged(store: &dyn Store, answer: Result<()>, ops: Vec<Op>, what: &str) -> Verdict {
    if answer.is_err() || ops.is_empty() {
        return told(answer.map(|()| "an acknowledgement"), None, what);
    }
    for op in ops {
        match store.get(op.key()).await {
            Ok(found) if found.as_ref() == op.value() => {}
            found => {
                return Err(Stop::failed(format_args!(
                    "{what} is acknowledged although the data cannot be reached, and a read gives {found:?}"
                )));
            }
        }
        let places = store.inspect(op.key()).await.map_err(|error| {
            Stop::failed(format_args!(
                "{what} is acknowledged although the data cannot be reached, and `inspect` does not say which place has it: {error}"
            ))
        })?;
        ensure!(
            places.iter().any(|place| place.dirty == Some(true)),
            "{what} is acknowledged although the data cannot be reached, and no place that `inspect` knows has it as dirty"
        );
    }
    Ok(())
}

/// Checks that an answer is the error, or the truth where something in front of the data has it.
#[track_caller]
fn told<T: PartialEq + std::fmt::Debug>(
    answer: Result<T>,
    truth: Option<&T>,
    what: &str,
) -> Verdict {
    match answer {
        Ok(answer) if truth == Some(&answer) => Ok(()),
        Ok(answer) => Err(Stop::failed(format_args!(
            "{what} of what cannot be reached must fail, and gives {answer:?}"
        ))),
        error => refused(error, UNREACHABLE, what).map(drop),
    }
}
