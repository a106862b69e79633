//! The conformance suite: what every store must do, whatever it is made of.
//!
//! Each check gets a fresh, empty store from a factory. What is checked follows from the store's
//! profile: what it guarantees must hold, and what it does not offer must be refused. A store that is
//! not writable is only asked to refuse writes and to answer reads.
//!
//! Run it on a multi-thread runtime: on one thread, little happens at the same time.
//!
//! ```
//! use tierstack::backends::Memory;
//! use tierstack::testing::conformance;
//! use tierstack::testing::conformance::Fixture;
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! // In a test: `#[tokio::test(flavor = "multi_thread")]`
//! conformance::assert_conforms(|| async { Ok(Fixture::new(Memory::new())) }).await;
//! # });
//! ```
//!
//! A harness that reports each check by itself goes through [`checks`], and calls [`Check::run`].

mod harness;
mod report;

mod announce;
mod basic;
mod batch;
mod cancel;
mod close;
mod concurrency;
mod condition;
mod expiry;
mod group;
mod ingest;
mod inspect;
mod invalidate;
mod keys;
mod limits;
mod progress;
mod refuse;
mod scan;
mod snapshot;
#[cfg(test)]
mod tests;
mod transaction;
mod unreachable;
mod upkeep;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, select};

use self::harness::{Bench, Stop, Verdict};
use self::progress::Progress;
pub use self::report::{Outcome, Report};
use crate::clock::ManualClock;
use crate::error::Result;
use crate::store::Store;
use crate::types::Op;

/// A fresh, empty store, and what the checks may do around it: its clock, how it is opened again, how
/// others write to it, and how its data become unreachable.
///
/// ```
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use tierstack::ManualClock;
/// use tierstack::backends::Memory;
/// use tierstack::testing::conformance::{self, Fixture, Outcome};
///
/// // With the store's clock in hand, the checks of expiry need not wait.
/// let check = conformance::checks().find(|check| check.name().starts_with("expiry::")).unwrap();
/// let clock = ManualClock::new();
/// let store = Memory::with_clock(Arc::new(clock.clone()));
/// assert_eq!(check.run(Fixture::new(store).with_clock(&clock)).await, Outcome::Passed);
/// # });
/// ```
#[derive(Clone)]
pub struct Fixture {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The clock by which entries of the store expire. `None`: the system's clock; the checks then
    /// wait for real.
    pub clock: Option<ManualClock>,
    reopen: Option<Reopen>,
    foreign: Option<Foreign>,
    outage: Outage,
    /// Held until the check is over.
    _kept: Vec<Arc<dyn Any + Send + Sync>>,
}

type Reopen = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Store>>> + Send + Sync>;
type Foreign = Arc<dyn Fn(Op) -> BoxFuture<'static, Result<()>> + Send + Sync>;
type Reach = Arc<dyn Fn(bool) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// How the data become unreachable.
#[derive(Clone)]
enum Outage {
    Unsaid,
    Never(&'static str),
    By(Reach),
}

impl Fixture {
    /// A store on the system's clock.
    #[must_use]
    pub fn new(store: impl Store) -> Self {
        Self {
            store: Arc::new(store),
            clock: None,
            reopen: None,
            foreign: None,
            outage: Outage::Unsaid,
            _kept: Vec::new(),
        }
    }

    /// The clock by which entries of the store expire, so that the checks need not wait.
    #[must_use]
    pub fn with_clock(mut self, clock: &ManualClock) -> Self {
        self.clock = Some(clock.clone());
        self
    }

    /// How the store is opened again after it was closed, to see that nothing is lost.
    #[must_use]
    pub fn reopened_by<F>(mut self, reopen: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Arc<dyn Store>>> + Send + 'static,
    {
        self.reopen = Some(Arc::new(move || reopen().boxed()));
        self
    }

    /// How another program changes an entry behind the store's back, so that a store which announces
    /// such changes can be seen to do so. Returns once the change has taken effect.
    #[must_use]
    pub fn changed_by<F>(mut self, write: impl Fn(Op) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.foreign = Some(Arc::new(move |op| write(op).boxed()));
        self
    }

    /// How the data become unreachable (`false`), and are reachable again (`true`), so that the store can be
    /// seen to say so. Of a layer: the store below it, such as a [`FaultStore`](crate::testing::FaultStore).
    /// Returns once that is so.
    #[must_use]
    pub fn cut_off_by<F>(mut self, reach: impl Fn(bool) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.outage = Outage::By(Arc::new(move |reachable| reach(reachable).boxed()));
        self
    }

    /// Why the data cannot become unreachable while the store is open.
    #[must_use]
    pub fn never_cut_off(mut self, why: &'static str) -> Self {
        self.outage = Outage::Never(why);
        self
    }

    /// Keeps something until the check is over, such as a temporary folder.
    #[must_use]
    pub fn keeping(mut self, kept: impl Any + Send + Sync) -> Self {
        self._kept.push(Arc::new(kept));
        self
    }
}

impl<S: Store> From<S> for Fixture {
    fn from(store: S) -> Self {
        Self::new(store)
    }
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fixture({})", self.store.profile())
    }
}

/// One thing that every store must do. See [`Fixture`] for an example.
pub struct Check {
    name: &'static str,
    run: fn(Bench) -> BoxFuture<'static, Verdict>,
}

/// Lists functions `async fn(Bench) -> Verdict` as checks of a topic.
macro_rules! topic {
    ($topic:literal: $($name:ident),+ $(,)?) => {
        pub(super) const CHECKS: &[super::Check] = &[$(super::Check {
            name: concat!($topic, "::", stringify!($name)),
            run: |bench| Box::pin($name(bench)),
        }),+];
    };
}
use topic;

impl Check {
    /// The topic and what must hold, such as `batch::the_last_operation_of_a_key_wins`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the check on a fresh, empty store, and closes the store. Catches panics. A check hangs, and
    /// fails, when one operation takes longer than two minutes, or when none is done for as long: a slow
    /// store may take any number of operations. A check that does not end fails after half an hour.
    pub async fn run(&self, fixture: impl Into<Fixture>) -> Outcome {
        let fixture = fixture.into();
        let progress = Progress::default();
        let bench = Bench::new(&fixture, &progress);
        let steps = async {
            let store = Arc::clone(&bench.store);
            (self.run)(bench).await?;
            store.close().await?;
            Ok(())
        };
        let steps = AssertUnwindSafe(steps).catch_unwind();
        let verdict = match select(steps.boxed(), progress.hung().boxed()).await {
            Either::Left((Ok(verdict), _)) => verdict,
            Either::Left((Err(panic), _)) => Err(Stop::panicked(&*panic)),
            Either::Right((why, _)) => Err(Stop::Failed(why)),
        };
        match verdict {
            Ok(()) => Outcome::Passed,
            Err(Stop::Skipped(why)) => Outcome::Skipped(why),
            Err(Stop::Failed(why)) => Outcome::Failed(why),
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({})", self.name)
    }
}

/// Every check, in the order in which [`run`] runs them.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    [
        basic::CHECKS,
        batch::CHECKS,
        condition::CHECKS,
        group::CHECKS,
        ingest::CHECKS,
        scan::CHECKS,
        keys::CHECKS,
        snapshot::CHECKS,
        expiry::CHECKS,
        limits::CHECKS,
        refuse::CHECKS,
        upkeep::CHECKS,
        announce::CHECKS,
        invalidate::CHECKS,
        inspect::CHECKS,
        cancel::CHECKS,
        close::CHECKS,
        concurrency::CHECKS,
        transaction::CHECKS,
        unreachable::CHECKS,
    ]
    .into_iter()
    .flatten()
}

/// Runs every check, each on a store of its own from the factory.
///
/// ```
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::testing::conformance;
///
/// let report = conformance::run(|| async { Ok(Memory::new()) }).await;
/// assert!(report.is_ok(), "{report}");
/// # });
/// ```
pub async fn run<F, T>(factory: impl Fn() -> F) -> Report
where
    F: Future<Output = Result<T>>,
    T: Into<Fixture>,
{
    let mut report = Report::default();
    for check in checks() {
        let outcome = match factory().await {
            Ok(fixture) => {
                let fixture = fixture.into();
                report.store = fixture.store.profile().to_string();
                check.run(fixture).await
            }
            Err(error) => Outcome::Failed(format!("the factory gave no store: {error:?}")),
        };
        report.outcomes.push((check.name, outcome));
    }
    report
}

/// Runs every check, for use in a test.
///
/// # Panics
/// If a check fails; the message lists all that did, and why.
#[expect(clippy::panic, reason = "a failed test panics")]
pub async fn assert_conforms<F, T>(factory: impl Fn() -> F)
where
    F: Future<Output = Result<T>>,
    T: Into<Fixture>,
{
    let report = run(factory).await;
    if !report.is_ok() {
        panic!("{report}");
    }
}
