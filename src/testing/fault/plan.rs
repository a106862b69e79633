//! The plan: which calls are struck, and by what.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::reply::Reply;
use crate::testing::random::Random;
use crate::types::{Batch, Scan};

/// The plan of a [`FaultStore`](super::FaultStore), shared with the test, which may change it at any time.
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
    cut: bool,
    random: Random,
    calls: Vec<(Operation, u64)>,
    recording: bool,
    recorded: Vec<Call>,
}

/// A call that reached the store, with what it asked for.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::Read;
/// use tierstack::backends::Memory;
/// use tierstack::testing::{Call, FaultStore, Faults};
///
/// let faults = Faults::new();
/// let store = FaultStore::new(Memory::new(), &faults);
/// faults.record();
/// store.get(b"k").await?;
/// assert_eq!(faults.record(), [Call::Get("k".into())]);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Read::get`](crate::Read::get) of that key.
    Get(Bytes),
    /// [`Read::get_many`](crate::Read::get_many) of those keys.
    GetMany(Vec<Bytes>),
    /// [`Read::scan`](crate::Read::scan), counted when the stream is made.
    Scan(Scan),
    /// [`Store::write`](crate::Store::write) of that batch.
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
            cut: false,
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

    /// Starts a rule for the calls of every operation, except [`Store::profile`](crate::Store::profile).
    #[must_use = "a rule does nothing until it is ended by what shall happen, such as `fail`"]
    pub fn on_all(&self) -> Rule<'_> {
        Rule { faults: self, armed: Armed::default() }
    }

    /// Forgets every rule. What is held or delayed already stays so.
    pub fn clear(&self) {
        self.0.plan.lock().rules.clear();
    }

    /// From now on the store cannot be reached: every call fails as `Unavailable`, and so does the next page of a
    /// scan that began before. Until [`heal`](Self::heal).
    ///
    /// ```
    /// # tokio_test::block_on(async {
    /// use futures_util::StreamExt;
    /// use tierstack::backends::Memory;
    /// use tierstack::testing::{FaultStore, Faults};
    /// use tierstack::{ErrorKind, Read, Scan, StoreExt};
    ///
    /// let faults = Faults::new();
    /// let store = FaultStore::new(Memory::new(), &faults);
    /// store.put("k", "v").await?;
    /// let mut pages = store.scan(Scan::all());
    /// faults.cut();
    /// assert_eq!(store.get(b"k").await.unwrap_err().kind(), ErrorKind::Unavailable);
    /// assert!(pages.next().await.unwrap().is_err());
    /// faults.heal();
    /// assert_eq!(store.get(b"k").await?, Some("v".into()));
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    pub fn cut(&self) {
        self.0.plan.lock().cut = true;
    }

    /// Ends a [`cut`](Self::cut).
    pub fn heal(&self) {
        self.0.plan.lock().cut = false;
    }

    /// Fails while the store cannot be reached.
    pub(super) fn reachable(&self) -> Result<()> {
        if self.0.plan.lock().cut { Err(cut()) } else { Ok(()) }
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
    pub(super) fn decide(&self, operation: Operation, call: impl FnOnce() -> Call) -> Fate {
        let mut plan = self.0.plan.lock();
        match plan.calls.iter_mut().find(|(counted, _)| *counted == operation) {
            Some((_, count)) => *count += 1,
            None => plan.calls.push((operation, 1)),
        }
        if plan.recording {
            plan.recorded.push(call());
        }
        let Plan { rules, random, cut: is_cut, .. } = &mut *plan;
        let mut fate = Fate { strikes: Vec::new(), clock: Arc::clone(&self.0.clock) };
        if *is_cut {
            let effect = Effect::Fail(Arc::new(cut));
            fate.strikes.push(Strike { after: false, page: 0, effect });
            return fate;
        }
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
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::testing::{FaultStore, Faults};
/// use tierstack::{ErrorKind, Operation, ReadExt};
///
/// let faults = Faults::new();
/// let store = FaultStore::new(Memory::new(), &faults);
/// faults.on(Operation::Get).skip(1).times(1).fail(ErrorKind::Timeout);
/// assert!(store.contains(b"k").await.is_ok());
/// assert!(store.contains(b"k").await.is_err());
/// assert!(store.contains(b"k").await.is_ok());
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
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

fn cut() -> Error {
    Error::new(ErrorKind::Unavailable, "cut off by a fault plan")
}

/// Where calls wait that a rule holds.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use tierstack::backends::Memory;
/// use tierstack::testing::{FaultStore, Faults};
/// use tierstack::{Operation, Read, StoreExt};
///
/// let faults = Faults::new();
/// let store = Arc::new(FaultStore::new(Memory::new(), &faults));
/// let gate = faults.on(Operation::Write).hold();
/// let writer = store.clone();
/// let writing = tokio::spawn(async move { writer.put("k", "v").await });
///
/// gate.reached(1).await;
/// assert_eq!(store.get(b"k").await?, None, "the write is on its way");
/// gate.open();
/// writing.await.unwrap()?;
/// assert_eq!(store.get(b"k").await?, Some("v".into()));
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
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
pub(super) struct Fate {
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
    pub(super) fn is_none(&self) -> bool {
        self.strikes.is_empty()
    }

    /// What strikes at a point of the call.
    pub(super) async fn strike(&self, after: bool, page: usize) -> Result<()> {
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
    pub(super) async fn around<T>(self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.strike(false, 0).await?;
        let done = call.await;
        self.strike(true, 0).await?;
        done
    }

    pub(super) fn reply<'a, T: Send + 'a>(
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
