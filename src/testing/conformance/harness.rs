//! What the checks work with: the store on the bench, and ways to look at it.

use std::any::Any;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};

use super::fixture::{Fixture, Foreign, Outage, Reopen};
use super::progress::{Progress, Watched};
use crate::clock::{Clock, ManualClock, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{ReadExt, StoreExt};
use crate::store::{Read, Store};
use crate::testing::oracle::{Known, compare, scanned, show, show_bytes, show_scan};
use crate::types::{Conditions, Guarantees, Op, Scan, Value};

/// What a check comes to, unless it passes.
#[derive(Debug)]
pub(super) enum Stop {
    Skipped(&'static str),
    Failed(String),
}

pub(super) type Verdict<T = ()> = Result<T, Stop>;

impl Stop {
    #[track_caller]
    pub(super) fn failed(why: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{why} ({})", Location::caller()))
    }

    pub(super) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::Failed(format!("panicked: {}", text.unwrap_or("without a message")))
    }
}

/// `?` on an operation that must succeed: the location is that of the operator.
impl From<Error> for Stop {
    #[track_caller]
    fn from(error: Error) -> Self {
        Self::failed(format_args!("an operation that must succeed failed: {error:?}"))
    }
}

/// Fails the check unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err($crate::testing::conformance::harness::Stop::failed(format_args!($($why)+)));
        }
    };
}
pub(super) use ensure;

/// Operations that are under way at a time where a check has many to do: a store may be far away.
const AT_ONCE: usize = 32;

/// A store on the bench.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Option<ManualClock>,
    pub(super) reopen: Option<Reopen>,
    pub(super) foreign: Option<Foreign>,
    pub(super) outage: Outage,
    pub(super) guarantees: Guarantees,
}

impl Bench {
    pub(super) fn new(fixture: &Fixture, progress: &Progress) -> Self {
        let watch = {
            let progress = progress.clone();
            move |store| -> Arc<dyn Store> { Arc::new(Watched::new(store, &progress)) }
        };
        let watched = watch.clone();
        let reopen = fixture.reopen.clone().map(|reopen| -> Reopen {
            Arc::new(move || {
                let (reopened, watched) = (reopen(), watched.clone());
                async move { reopened.await.map(watched) }.boxed()
            })
        });
        Self {
            store: watch(Arc::clone(&fixture.store)),
            clock: fixture.clock.clone(),
            reopen,
            foreign: fixture.foreign.clone(),
            outage: fixture.outage.clone(),
            guarantees: fixture.store.profile().guarantees,
        }
    }

    pub(super) fn needs_writes(&self) -> Verdict {
        need(self.guarantees.writable, "the store is not writable")
    }

    pub(super) fn needs_batches(&self) -> Verdict {
        self.needs_writes()?;
        need(self.guarantees.atomic_batches, "the store has no atomic batches")
    }

    pub(super) fn needs_scans(&self) -> Verdict {
        self.needs_writes()?;
        need(self.guarantees.ordered_scans, "the store has no ordered scans")
    }

    pub(super) fn needs_snapshots(&self) -> Verdict {
        self.needs_writes()?;
        need(self.guarantees.snapshots, "the store has no snapshots")
    }

    pub(super) fn needs_expiry(&self) -> Verdict {
        self.needs_writes()?;
        need(self.guarantees.expiry, "the store has no expiry")
    }

    pub(super) fn needs_conditions(&self) -> Verdict {
        self.needs_writes()?;
        need(self.guarantees.conditions >= Conditions::Absence, "the store cannot check conditions")
    }

    pub(super) fn needs_values_as_conditions(&self) -> Verdict {
        self.needs_conditions()?;
        need(self.guarantees.conditions == Conditions::Value, "the store cannot compare values")
    }

    pub(super) fn needs_ingest(&self) -> Verdict {
        self.needs_writes()?;
        need(self.guarantees.ingest, "the store takes no runs")
    }

    /// The time by which entries expire.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.as_ref().map_or_else(|| SystemClock.now(), Clock::now)
    }

    /// Lets that much time pass.
    pub(super) async fn pass(&self, span: Duration) {
        match &self.clock {
            Some(clock) => clock.advance(span),
            None => SystemClock.sleep(span).await,
        }
    }

    /// A deadline: far away on a clock that is moved by hand, a moment away on one that is waited for.
    pub(super) fn soon(&self) -> Timestamp {
        self.now()
            + if self.clock.is_some() {
                Duration::from_secs(60)
            } else {
                Duration::from_millis(700)
            }
    }

    /// Lets time pass up to a moment.
    pub(super) async fn pass_until(&self, at: Timestamp) {
        while self.now() < at {
            self.pass(at.since(self.now())).await;
        }
    }

    /// Like [`gives`](Self::gives), unless the deadline passed while it looked.
    pub(super) async fn gives_before(
        &self,
        deadline: Timestamp,
        key: &'static str,
        want: &'static str,
    ) -> Verdict {
        let verdict = self.gives(key, Some(want)).await;
        if self.now() < deadline { verdict } else { Ok(()) }
    }

    pub(super) async fn put(&self, key: impl Into<Bytes>, value: impl Into<Value>) -> Result<()> {
        self.store.put(key, value).await.map(drop)
    }

    pub(super) async fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        self.store.delete(key).await.map(drop)
    }

    /// Puts entries, of which no two have the same key, in as few batches as the store takes, and many at
    /// a time where it takes one operation each. Boxed, so that it forgets the iterator.
    pub(super) fn fill<'a>(
        &self,
        entries: impl IntoIterator<Item = (&'a Bytes, &'a Value)>,
    ) -> BoxFuture<'static, Result<()>> {
        let ops: Vec<Op> =
            entries.into_iter().map(|(key, value)| Op::Put(key.clone(), value.clone())).collect();
        let (store, most) = (Arc::clone(&self.store), self.batch_ops(500));
        let at_once = if most == 1 { AT_ONCE } else { 1 };
        async move {
            let writes = ops.chunks(most).map(|ops| store.write(ops.iter().cloned().collect()));
            let writes: Vec<_> = writes.collect();
            stream::iter(writes).buffer_unordered(at_once).try_for_each(|_| ready(Ok(()))).await
        }
        .boxed()
    }

    /// How many times a check does something that takes a request for each entry: far fewer where every
    /// entry is a request to a service, which takes milliseconds.
    pub(super) fn times(&self, many: usize, few: usize) -> usize {
        let service =
            self.guarantees.limits.batch_ops == Some(1) && !self.guarantees.places.is_empty();
        if service { few } else { many }
    }

    /// How many operations a batch may have here, if the check would like that many.
    pub(super) fn batch_ops(&self, wanted: usize) -> usize {
        let most =
            if self.guarantees.atomic_batches { self.guarantees.limits.batch_ops } else { Some(1) };
        wanted.min(most.unwrap_or(wanted)).max(1)
    }

    /// Checks that every way of reading the key gives that value.
    #[track_caller]
    pub(super) fn gives(
        &self,
        key: impl Into<Bytes>,
        want: Option<&'static str>,
    ) -> impl Future<Output = Verdict> + Send {
        let caller = Location::caller();
        let (store, scans, key) =
            (Arc::clone(&self.store), self.guarantees.ordered_scans, key.into());
        async move {
            let want = want.map(Bytes::from);
            match seen(&*store, scans, &key).await {
                Err(why) => Err(Stop::Failed(format!("{why} ({caller})"))),
                Ok(got) if got == want => Ok(()),
                Ok(got) => Err(Stop::Failed(format!(
                    "{} must be {}, and is {} ({caller})",
                    show(&key),
                    show_bytes(want.as_ref()),
                    show_bytes(got.as_ref())
                ))),
            }
        }
    }
}

/// The value of a key, if every way of reading agrees on it.
pub(super) async fn seen(
    store: &(impl Read + ?Sized),
    scans: bool,
    key: &Bytes,
) -> Result<Option<Bytes>, String> {
    let fails = |how: &str, error: Error| format!("{how} of {} failed: {error:?}", show(key));
    let differs = |how: &str, other: Option<&Bytes>, got: Option<&Bytes>| {
        let (other, got) = (show_bytes(other), show_bytes(got));
        format!("get of {} gives {got}, but {how} gives {other}", show(key))
    };
    let got = store.get(key).await.map_err(|error| fails("get", error))?.map(|value| value.bytes);
    let many = store
        .get_many(std::slice::from_ref(key))
        .await
        .map_err(|error| fails("get_many", error))?;
    if many.len() != 1 {
        return Err(format!("get_many of 1 key gives {} values", many.len()));
    }
    let many = many.into_iter().next().flatten().map(|value| value.bytes);
    if many != got {
        return Err(differs("get_many", many.as_ref(), got.as_ref()));
    }
    let exists = store.contains(key).await.map_err(|error| fails("contains", error))?;
    if exists != got.is_some() {
        return Err(format!("contains of {} gives {exists}, unlike get", show(key)));
    }
    if scans {
        let found = store.collect(only(key)).await.map_err(|error| fails("scan", error))?;
        let value = found.first().map(|entry| entry.value.bytes.clone());
        if value != got || found.len() > 1 || found.first().is_some_and(|entry| entry.key != *key) {
            return Err(differs("a scan", value.as_ref(), got.as_ref()));
        }
    }
    Ok(got)
}

/// The scan of one key.
pub(super) fn only(key: &Bytes) -> Scan {
    Scan::range::<Bytes>(key..=key)
}

/// Checks what a scan gives, and the bounds of its pages.
#[track_caller]
pub(super) fn scan_gives<'a, R: Read + ?Sized>(
    store: &'a R,
    scan: Scan,
    known: &Known,
) -> impl Future<Output = Verdict> + Send + use<'a, R> {
    let caller = Location::caller();
    let want = scanned(known, &scan);
    async move {
        let shown = show_scan(&scan);
        let pages = store.scan(scan.clone()).try_collect().await;
        pages
            .map_err(|error| format!("fails: {error:?}"))
            .and_then(|pages| compare(&scan, pages, &want))
            .map_err(|why| Stop::Failed(format!("a scan {shown}: {why} ({caller})")))
    }
}

/// Like [`scan_gives`], for many scans, several at a time.
#[track_caller]
pub(super) fn scans_give<R: Read + ?Sized>(
    store: &R,
    scans: impl IntoIterator<Item = Scan>,
    known: &Known,
) -> impl Future<Output = Verdict> + Send {
    let checks: Vec<_> = scans.into_iter().map(|scan| scan_gives(store, scan, known)).collect();
    stream::iter(checks).buffer_unordered(AT_ONCE).try_for_each(|()| ready(Ok(())))
}

/// Polls a future that many times, then drops it.
pub(super) async fn poll_and_drop<T>(future: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut future = Box::pin(future);
    for _ in 0..times {
        if let Some(done) = future.as_mut().now_or_never() {
            return Some(done);
        }
        yield_now().await;
    }
    None
}

/// Checks that an operation fails, and with which kind.
#[track_caller]
pub(super) fn refused<T>(result: Result<T>, kinds: &[ErrorKind], what: &str) -> Verdict<Error> {
    let names = || kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" or ");
    match result {
        Ok(_) => Err(Stop::failed(format_args!("{what} must fail with {}, and succeeds", names()))),
        Err(error) if kinds.contains(&error.kind()) => Ok(error),
        Err(error) => {
            Err(Stop::failed(format_args!("{what} must fail with {}, not {error:?}", names())))
        }
    }
}

/// Waits for tasks, and passes on the first failure.
pub(super) async fn join(mut tasks: JoinSet<Verdict>) -> Verdict {
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok(verdict) => verdict?,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => return Err(Stop::panicked(&*panic)),
                Err(error) => return Err(Stop::failed(error)),
            },
        }
    }
    Ok(())
}

/// Runs a writer concurrently with readers, until it has written that often and each of them has read as often:
/// so they meet, however the runtime schedules them. Gives the number of the last write.
pub(super) async fn race<W, F, R, G>(
    rounds: u32,
    mut write: W,
    readers: impl IntoIterator<Item = R>,
) -> Verdict<u32>
where
    W: FnMut(u32) -> F + Send + 'static,
    F: Future<Output = Verdict> + Send,
    R: FnMut() -> G + Send + 'static,
    G: Future<Output = Verdict> + Send,
{
    let mut tasks = JoinSet::new();
    let (reading, all_read) = watch::channel(());
    let (writing, written) = watch::channel(0);
    for mut read in readers {
        let (mut reading, written) = (Some(reading.clone()), written.clone());
        tasks.spawn(async move {
            let mut times = 0;
            while reading.is_some() || written.has_changed().is_ok() {
                read().await?;
                times += 1;
                if times >= rounds {
                    reading = None;
                }
                yield_now().await;
            }
            Ok(())
        });
    }
    drop(reading);
    tasks.spawn(async move {
        let mut n = 0;
        // The channel of readers is closed when the last of them has read enough.
        while n < rounds || all_read.has_changed().is_ok() {
            n += 1;
            write(n).await?;
            writing.send_replace(n);
            yield_now().await;
        }
        Ok(())
    });
    join(tasks).await?;
    let last = *written.borrow();
    Ok(last)
}

/// Entries from text.
pub(super) fn known(entries: &[(&'static str, &'static str)]) -> Known {
    entries.iter().map(|(key, value)| (Bytes::from(*key), Value::from(*value))).collect()
}

/// `key-00000` and so on, with values that name their key.
pub(super) fn numbered(count: usize) -> Known {
    (0..count).map(|n| (numbered_key(n), Value::new(format!("value of {n}")))).collect()
}

pub(super) fn numbered_key(n: usize) -> Bytes {
    Bytes::from(format!("key-{n:05}"))
}

pub(super) fn need(offered: bool, why: &'static str) -> Verdict {
    if offered { Ok(()) } else { Err(Stop::Skipped(why)) }
}
