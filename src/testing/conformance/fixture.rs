//! The store that a check runs on, and what the check may do around it.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

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
    pub(super) reopen: Option<Reopen>,
    pub(super) foreign: Option<Foreign>,
    pub(super) outage: Outage,
    /// Held until the check is over.
    _kept: Vec<Arc<dyn Any + Send + Sync>>,
}

pub(super) type Reopen = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Store>>> + Send + Sync>;
pub(super) type Foreign = Arc<dyn Fn(Op) -> BoxFuture<'static, Result<()>> + Send + Sync>;
pub(super) type Reach = Arc<dyn Fn(bool) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// How the data become unreachable.
#[derive(Clone)]
pub(super) enum Outage {
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

    /// How another program changes an entry behind the store's back, so that a store which reports
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
