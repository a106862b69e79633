//! A store that fails when it is told to, before or after the work is done.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Random;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::layer::Layer;
use crate::reply::Reply;
use crate::store::{Pages, Read, Store};
use crate::types::{Batch, Commit, Page, Profile, Scan, Usage, Value};

/// The plan of a [`FaultStore`], shared with the test, which may change it at any time.
///
/// Without rules nothing fails. A rule is for one operation, or for all; it chooses its calls
/// ([`skip`](Rule::skip), [`times`](Rule::times), [`chance`](Rule::chance)) and what happens to them
/// ([`fail`](Rule::fail), [`delay`](Rule::delay), [`hold`](Rule::hold), [`panic`](Rule::panic)).
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::testing::{FaultStore, Faults};
/// use tierstack::{Error, ErrorKind, Operation, Read, StoreExt};
///
/// let faults = Faults::new();
/// let store = FaultStore::new(Memory::new(), &faults);
///
/// // The worst failure: the write happened, and nobody is told.
/// faults.on(Operation::Write).after_effect().times(1).fail(ErrorKind::Timeout);
/// assert_eq!(store.put("k", "1").await.unwrap_err().kind(), ErrorKind::Timeout);
/// assert_eq!(store.get(b"k").await?, Some("1".into()));
///
/// store.put("k", "2").await?;
/// assert_eq!(faults.calls(Operation::Write), 2);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Faults(Arc<Shared>);

struct Shared {
    plan: Mutex<Plan>,
    clock: Arc<dyn Clock>,
}

struct Plan {
    rules: Vec<Armed>,
    random: Random,
    calls: Vec<(Operation, u64)>,
    recording: bool,
    recorded: Vec<Call>,
}

/// A call that reached the store, with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Read::get`] of that key.
    Get(Bytes),
    /// [`Read::get_many`] of those keys.
    GetMany(Vec<Bytes>),
    /// [`Read::scan`], counted when the stream is made.
    Scan(Scan),
    /// [`Store::write`] of that batch.
    Write(Batch),
    /// Another operation, which asks for nothing more.
    Other(Operation),
}

impl Call {
    /// The operation.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::Get(_) => Operation::Get,
            Self::GetMany(_) => Operation::GetMany,
            Self::Scan(_) => Operation::Scan,
            Self::Write(_) => Operation::Write,
            Self::Other(operation) => *operation,
        }
    }
}

impl Faults {
    /// A plan without rules, on the system's clock, with the seed 0.
    #[must_use]
    pub fn new() -> Self {
        Self::seeded(0, SystemClock::shared())
    }

    /// A plan without rules; delays are on that clock, chances follow from the seed.
    #[must_use]
    pub fn seeded(seed: u64, clock: Arc<dyn Clock>) -> Self {
        let plan = Plan {
            rules: Vec::new(),
            random: Random::new(seed),
            calls: Vec::new(),
            recording: false,
            recorded: Vec::new(),
        };
        Self(Arc::new(Shared { plan: Mutex::new(plan), clock }))
    }

    /// Starts a rule for the calls of one operation.
    #[must_use = "a rule does nothing until it is ended by what shall happen, such as `fail`"]
    pub fn on(&self, operation: Operation) -> Rule<'_> {
        Rule { faults: self, armed: Armed { operation: Some(operation), ..Armed::default() } }
    }

    /// Starts a rule for the calls of every operation, except [`Store::profile`].
    #[must_use = "a rule does nothing until it is ended by what shall happen, such as `fail`"]
    pub fn on_all(&self) -> Rule<'_> {
        Rule { faults: self, armed: Armed::default() }
    }

    /// Forgets every rule. What is held or delayed already stays so.
    pub fn clear(&self) {
        self.0.plan.lock().rules.clear();
    }

    /// How many calls of an operation there were, failed ones included, also on snapshots.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        let plan = self.0.plan.lock();
        plan.calls.iter().find(|(counted, _)| *counted == operation).map_or(0, |(_, count)| *count)
    }

    /// Records calls from now on, with their keys and batches, and returns those recorded so far.
    pub fn record(&self) -> Vec<Call> {
        let mut plan = self.0.plan.lock();
        plan.recording = true;
        std::mem::take(&mut plan.recorded)
    }

    /// Counts and records a call, and decides what happens to it.
    fn decide(&self, operation: Operation, call: impl FnOnce() -> Call) -> Fate {
        let mut plan = self.0.plan.lock();
        match plan.calls.iter_mut().find(|(counted, _)| *counted == operation) {
            Some((_, count)) => *count += 1,
            None => plan.calls.push((operation, 1)),
        }
        if plan.recording {
            plan.recorded.push(call());
        }
        let Plan { rules, random, .. } = &mut *plan;
        let mut fate = Fate { strikes: Vec::new(), clock: Arc::clone(&self.0.clock) };
        for rule in rules.iter_mut() {
            if rule.strikes(operation, random) {
                let ends = matches!(rule.effect, Effect::Fail(_) | Effect::Panic);
                fate.strikes.push(Strike {
                    after: rule.after,
                    page: rule.page,
                    effect: rule.effect.clone(),
                });
                if ends {
                    break;
                }
            }
        }
        fate
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::new()
    }
}

/// Prints counts only.
impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0.plan.lock();
        write!(f, "Faults({} rules, calls {:?})", plan.rules.len(), plan.calls)
    }
}

/// A rule under construction. Rules apply in the order in which they were made; the first that fails
/// a call is the last that sees it.
#[must_use = "a rule does nothing until it is ended by what shall happen, such as `fail`"]
pub struct Rule<'a> {
    faults: &'a Faults,
    armed: Armed,
}

impl Rule<'_> {
    /// Lets that many calls pass first.
    pub const fn skip(mut self, calls: u64) -> Self {
        self.armed.skip = calls;
        self
    }

    /// Strikes at most that many calls. Unset: all of them.
    pub const fn times(mut self, calls: u64) -> Self {
        self.armed.times = calls;
        self
    }

    /// Strikes each call with that probability, from 0 to 1.
    pub const fn chance(mut self, probability: f64) -> Self {
        self.armed.chance = probability;
        self
    }

    /// Strikes when the work is done: a write has taken effect, a value or page was read.
    pub const fn after_effect(mut self) -> Self {
        self.armed.after = true;
        self
    }

    /// Strikes a scan at that page, counted from 0, instead of at its first.
    pub const fn at_page(mut self, page: usize) -> Self {
        self.armed.page = page;
        self
    }

    /// The calls fail with that kind of error.
    pub fn fail(self, kind: ErrorKind) {
        self.fail_with(move || Error::new(kind, "injected by a fault plan"));
    }

    /// The calls fail with that error.
    pub fn fail_with(self, error: impl Fn() -> Error + Send + Sync + 'static) {
        self.arm(Effect::Fail(Arc::new(error)));
    }

    /// The calls take that much longer, on the clock of the plan.
    pub fn delay(self, span: Duration) {
        self.arm(Effect::Delay(span));
    }

    /// The calls wait until the gate is opened: for ever, if it never is.
    pub fn hold(self) -> Gate {
        let gate = Gate(Arc::new(watch::channel(State::default()).0));
        self.arm(Effect::Hold(gate.clone()));
        gate
    }

    /// The calls panic.
    pub fn panic(self) {
        self.arm(Effect::Panic);
    }

    fn arm(self, effect: Effect) {
        self.faults.0.plan.lock().rules.push(Armed { effect, ..self.armed });
    }
}

impl fmt::Debug for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule(for {:?})", self.armed.operation)
    }
}

/// Where calls wait that a rule holds.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<State>>);

#[derive(Debug, Default)]
struct State {
    open: bool,
    waiting: usize,
}

impl Gate {
    /// Lets every call go on, those that wait and those to come.
    pub fn open(&self) {
        self.0.send_modify(|state| state.open = true);
    }

    /// Returns once that many calls wait at the same time.
    pub async fn reached(&self, calls: usize) {
        // The sender lives as long as `self`: it cannot fail.
        let _ = self.0.subscribe().wait_for(|state| state.waiting >= calls).await;
    }

    async fn pass(&self) {
        /// Counts a call as waiting until it goes on or is dropped.
        struct Waiting<'a>(&'a Gate);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.0.send_modify(|state| state.waiting -= 1);
            }
        }
        self.0.send_modify(|state| state.waiting += 1);
        let _waiting = Waiting(self);
        let _ = self.0.subscribe().wait_for(|state| state.open).await;
    }
}

/// A rule of the plan.
struct Armed {
    operation: Option<Operation>,
    skip: u64,
    times: u64,
    chance: f64,
    after: bool,
    page: usize,
    effect: Effect,
}

impl Default for Armed {
    fn default() -> Self {
        let effect = Effect::Delay(Duration::ZERO);
        Self {
            operation: None,
            skip: 0,
            times: u64::MAX,
            chance: 1.0,
            after: false,
            page: 0,
            effect,
        }
    }
}

impl Armed {
    /// Whether the rule strikes this call.
    fn strikes(&mut self, operation: Operation, random: &mut Random) -> bool {
        if self.operation.is_some_and(|only| only != operation) || self.times == 0 {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let strikes = self.chance >= 1.0 || random.chance(self.chance);
        self.times -= u64::from(strikes);
        strikes
    }
}

#[derive(Clone)]
enum Effect {
    Fail(Arc<dyn Fn() -> Error + Send + Sync>),
    Delay(Duration),
    Hold(Gate),
    Panic,
}

/// What happens to one call.
struct Fate {
    strikes: Vec<Strike>,
    clock: Arc<dyn Clock>,
}

struct Strike {
    after: bool,
    page: usize,
    effect: Effect,
}

impl Fate {
    /// Whether nothing happens to the call: it stays a [`Reply::Now`].
    fn is_none(&self) -> bool {
        self.strikes.is_empty()
    }

    /// What strikes at a point of the call.
    async fn strike(&self, after: bool, page: usize) -> Result<()> {
        let due = |strike: &&Strike| strike.after == after && strike.page == page;
        for strike in self.strikes.iter().filter(due) {
            match &strike.effect {
                Effect::Fail(error) => return Err(error()),
                Effect::Delay(span) => self.clock.sleep(*span).await,
                Effect::Hold(gate) => gate.pass().await,
                #[expect(clippy::panic, reason = "asked for by the plan")]
                Effect::Panic => panic!("injected by a fault plan"),
            }
        }
        Ok(())
    }

    /// The call with what strikes before and after it.
    async fn around<T>(self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.strike(false, 0).await?;
        let done = call.await;
        self.strike(true, 0).await?;
        done
    }

    fn reply<'a, T: Send + 'a>(
        self,
        call: impl FnOnce() -> Reply<'a, T> + Send + 'a,
    ) -> Reply<'a, T> {
        if self.is_none() {
            return call();
        }
        // Not before the future is polled: a reply that nobody awaits does nothing.
        Reply::later(async move { self.around(async { call().await }).await })
    }
}

/// Puts a [`FaultStore`] around a store, as a layer of a stack.
#[derive(Clone, Debug, Default)]
pub struct FaultLayer(pub Faults);

impl<S> Layer<S> for FaultLayer {
    type Service = FaultStore<S>;

    fn layer(&self, inner: S) -> FaultStore<S> {
        FaultStore::new(inner, &self.0)
    }
}

/// A store with [`Faults`]. Its snapshots follow the same plan.
#[derive(Clone, Debug)]
pub struct FaultStore<S> {
    inner: S,
    faults: Faults,
}

impl<S> FaultStore<S> {
    /// The store with that plan.
    #[must_use]
    pub fn new(inner: S, faults: &Faults) -> Self {
        Self { inner, faults: faults.clone() }
    }

    /// The store itself, past the plan.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: Store> FaultStore<S> {
    async fn other<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.faults.decide(operation, || Call::Other(operation)).around(call).await
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Read> Read for FaultStore<S> {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        let call = || Call::Get(Bytes::copy_from_slice(key));
        self.faults.decide(Operation::Get, call).reply(|| self.inner.get(key))
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        let call = || Call::GetMany(keys.to_vec());
        self.faults.decide(Operation::GetMany, call).reply(|| self.inner.get_many(keys))
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        let fate = self.faults.decide(Operation::Scan, || Call::Scan(scan.clone()));
        let pages = self.inner.scan(scan);
        if fate.is_none() {
            return pages;
        }
        let state = Some((pages, fate, 0));
        futures_util::stream::unfold(state, |state| async move {
            let (mut pages, fate, at) = state?;
            match page(&mut pages, &fate, at).await? {
                Ok(page) => Some((Ok(page), Some((pages, fate, at + 1)))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

/// The next page of a scan, with what strikes at it. The end of a scan counts as a page.
async fn page(pages: &mut Pages<'_>, fate: &Fate, at: usize) -> Option<Result<Page>> {
    if let Err(error) = fate.strike(false, at).await {
        return Some(Err(error));
    }
    let next = pages.next().await;
    match fate.strike(true, at).await {
        Ok(()) => next,
        Err(error) => Some(Err(error)),
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for FaultStore<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        let fate = self.faults.decide(Operation::Write, || Call::Write(batch.clone()));
        fate.around(self.inner.write(batch)).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        let inner = self.other(Operation::Snapshot, self.inner.snapshot()).await?;
        Ok(Arc::new(FaultStore { inner, faults: self.faults.clone() }))
    }

    async fn flush(&self) -> Result<()> {
        self.other(Operation::Flush, self.inner.flush()).await
    }

    async fn compact(&self) -> Result<()> {
        self.other(Operation::Compact, self.inner.compact()).await
    }

    async fn usage(&self) -> Result<Usage> {
        self.other(Operation::Usage, self.inner.usage()).await
    }

    async fn close(&self) -> Result<()> {
        self.other(Operation::Close, self.inner.close()).await
    }

    /// That of the store below: a plan is no promise.
    fn profile(&self) -> Profile {
        Profile::layer("fault", self.inner.profile())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;
    use tokio_test::task::spawn;
    use tokio_test::{assert_pending, assert_ready};

    use super::*;
    use crate::backends::Memory;
    use crate::clock::ManualClock;
    use crate::ext::{ReadExt, StoreExt};

    fn faulty() -> (FaultStore<Memory>, Faults, ManualClock) {
        let clock = ManualClock::new();
        let faults = Faults::seeded(1, Arc::new(clock.clone()));
        (FaultStore::new(Memory::new(), &faults), faults, clock)
    }

    #[tokio::test]
    async fn a_failure_before_the_effect_leaves_nothing_and_one_after_it_leaves_all() {
        let (store, faults, _) = faulty();
        faults.on(Operation::Write).skip(1).times(1).fail(ErrorKind::Unavailable);
        faults.on(Operation::Write).skip(1).times(1).after_effect().fail(ErrorKind::Timeout);
        let _ = store.put("a", "1").await.unwrap();
        assert_eq!(store.put("b", "2").await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(store.put("c", "3").await.unwrap_err().kind(), ErrorKind::Timeout);
        let _ = store.put("d", "4").await.unwrap();
        let keys: Vec<Bytes> =
            store.collect(Scan::all()).await.unwrap().into_iter().map(|entry| entry.key).collect();
        assert_eq!(keys, ["a", "c", "d"]);
        assert_eq!(faults.calls(Operation::Write), 4);
    }

    #[tokio::test]
    async fn without_a_strike_a_reply_stays_at_once() {
        let (store, faults, _) = faulty();
        faults.on(Operation::Get).skip(1).fail(ErrorKind::Unavailable);
        assert!(matches!(store.get(b"k"), Reply::Now(Ok(None))));
        assert!(store.get(b"k").await.is_err());
    }

    #[tokio::test]
    async fn a_scan_fails_at_its_page_and_ends() {
        let (store, faults, _) = faulty();
        store
            .write((0..6u8).map(|n| crate::Op::Put(vec![n].into(), "v".into())).collect())
            .await
            .unwrap()
            .durable()
            .await
            .unwrap();
        faults.on(Operation::Scan).times(1).at_page(2).fail(ErrorKind::Unavailable);
        let mut pages = store.scan(Scan::all().page_entries(2));
        assert_eq!(pages.next().await.unwrap().unwrap().len(), 2);
        assert_eq!(pages.next().await.unwrap().unwrap().len(), 2);
        assert!(pages.next().await.unwrap().is_err());
        assert!(pages.next().await.is_none());
        let pages: Vec<Page> = store.scan(Scan::all()).try_collect().await.unwrap();
        assert_eq!(pages[0].len(), 6);
    }

    #[tokio::test]
    async fn a_delay_is_on_the_clock_of_the_plan() {
        let (store, faults, clock) = faulty();
        faults.on_all().delay(Duration::from_secs(5));
        let mut write = spawn(store.put("k", "1"));
        assert_pending!(write.poll());
        assert!(store.inner().get(b"k").await.unwrap().is_none(), "delayed before the effect");
        clock.advance(Duration::from_secs(5));
        let _ = assert_ready!(write.poll()).unwrap();
    }

    #[tokio::test]
    async fn a_held_call_waits_for_its_gate() {
        let (store, faults, _) = faulty();
        let gate = faults.on(Operation::Write).after_effect().hold();
        let mut write = spawn(store.put("k", "1"));
        assert_pending!(write.poll());
        assert_ready!(spawn(gate.reached(1)).poll());
        assert!(store.inner().get(b"k").await.unwrap().is_some(), "held after the effect");
        assert_pending!(spawn(store.put("k", "2")).poll(), "dropped while it waits");
        assert_pending!(spawn(gate.reached(2)).poll(), "a dropped call no longer waits");
        gate.open();
        let _ = assert_ready!(write.poll()).unwrap();
        let _ = store.put("k", "3").await.unwrap();
    }

    #[tokio::test]
    async fn chances_follow_from_the_seed() {
        let run = |seed| async move {
            let faults = Faults::seeded(seed, SystemClock::shared());
            let store = FaultStore::new(Memory::new(), &faults);
            faults.on(Operation::Get).chance(0.5).fail(ErrorKind::Unavailable);
            let mut failed = Vec::new();
            for _ in 0..64 {
                failed.push(store.get(b"k").await.is_err());
            }
            failed
        };
        let (once, again, other) = (run(1).await, run(1).await, run(2).await);
        assert_eq!(once, again);
        assert_ne!(once, other);
        assert!(once.contains(&true) && once.contains(&false));
    }

    #[tokio::test]
    async fn calls_are_recorded_also_those_of_snapshots() {
        let (store, faults, _) = faulty();
        let _ = store.put("before", "1").await.unwrap();
        assert!(faults.record().is_empty());
        let batch = Batch::new().put("k", "1");
        let _ = store.write(batch.clone()).await.unwrap();
        let snapshot = store.snapshot().await.unwrap();
        snapshot.get(b"k").await.unwrap();
        let get = Call::Get(Bytes::from("k"));
        assert_eq!(faults.record(), [Call::Write(batch), Call::Other(Operation::Snapshot), get]);
    }

    #[tokio::test]
    #[should_panic(expected = "injected")]
    async fn a_panic_can_be_asked_for() {
        let (store, faults, _) = faulty();
        faults.on(Operation::Flush).panic();
        let _ = store.flush().await;
    }

    #[tokio::test]
    async fn a_plan_can_be_forgotten() {
        let (store, faults, _) = faulty();
        faults.on_all().fail(ErrorKind::Unavailable);
        assert!(store.usage().await.is_err());
        faults.clear();
        assert!(store.usage().await.is_ok());
    }
}
