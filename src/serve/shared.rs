//! What every listener and every handler of a server knows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::live_watchers::Watched;
use crate::clock::{Clock, Timestamp};
use crate::error::Error;
use crate::stack::{Stack, Stacks};
use crate::store::Store;
use crate::telemetry::{Gauge, Labels, names};
use crate::types::Guarantees;

/// How far a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::serve) enum Phase {
    /// It listens; its stores are not open yet.
    Opening,
    /// Its stores are open.
    Ready,
    /// It takes no new connections, and ends what is under way.
    Draining,
    /// What is still under way is dropped.
    Ended,
}

/// Stores to be served, by name.
///
/// ```
/// use std::sync::Arc;
/// use tierstack::backends::Memory;
/// use tierstack::serve::Stores;
/// use tierstack::Store;
///
/// let store: Arc<dyn Store> = Arc::new(Memory::new());
/// let stores = Stores::new([("orders", store)]);
/// assert_eq!(stores.names().collect::<Vec<_>>(), ["orders"]);
/// ```
#[derive(Default)]
pub struct Stores {
    open: BTreeMap<String, Arc<dyn Store>>,
    failed: BTreeMap<String, Error>,
    stacks: Option<Arc<Stacks>>,
}

impl Stores {
    /// These stores.
    pub fn new<N: Into<String>>(stores: impl IntoIterator<Item = (N, Arc<dyn Store>)>) -> Self {
        let open = stores.into_iter().map(|(name, store)| (name.into(), store)).collect();
        Self { open, ..Self::default() }
    }

    /// The stacks of a config. Those that failed to open are served as what they failed with.
    #[must_use]
    pub fn of(stacks: &Arc<Stacks>) -> Self {
        let open = stacks.iter().map(|stack| (stack.name().to_owned(), stack.store()));
        let failed = stacks.failed().map(|errors| errors.by_store().clone());
        Self {
            open: open.collect(),
            failed: failed.unwrap_or_default(),
            stacks: Some(Arc::clone(stacks)),
        }
    }

    /// Their names, also of those that failed to open.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.open.keys().chain(self.failed.keys()).map(String::as_str)
    }
}

/// Names only.
impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// A store, as far as a server has it.
pub(in crate::serve) enum StoreState<'a> {
    Open(&'a Arc<dyn Store>),
    Failed(&'a Error),
    /// The stores are not open yet.
    Opening,
    None,
}

/// What is common to all listeners.
pub(in crate::serve) struct Shared {
    stores: OnceLock<Stores>,
    phase: watch::Sender<Phase>,
    pub(in crate::serve) clock: Arc<dyn Clock>,
    pub(in crate::serve) started: Timestamp,
    /// Requests under way, with those whose answers are still being sent.
    requests: AtomicUsize,
    connections: AtomicUsize,
    pub(in crate::serve) watched: Watched,
    ready: Gauge,
    /// One for each store.
    opened: OnceLock<Vec<Gauge>>,
    /// What each open store guarantees, which does not change: a profile is made again at each call.
    guarantees: OnceLock<BTreeMap<String, Guarantees>>,
}

impl Shared {
    pub(in crate::serve) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            stores: OnceLock::new(),
            phase: watch::Sender::new(Phase::Opening),
            started: clock.now(),
            clock,
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            watched: Watched::default(),
            ready: Labels::new("", "").gauge(names::SERVE_READY, &[]),
            opened: OnceLock::new(),
            guarantees: OnceLock::new(),
        })
    }

    /// From now on the stores are served. Only the first call counts.
    pub(in crate::serve) fn open(&self, stores: Stores) {
        let guarantees =
            |(name, store): (&String, &Arc<dyn Store>)| (name.clone(), store.profile().guarantees);
        let guarantees = stores.open.iter().map(guarantees).collect();
        if self.stores.set(stores).is_ok() {
            let shown = |name| {
                let gauge = Labels::new(name, "").gauge(names::SERVE_STORE_OPEN, &[]);
                gauge.set(i64::from(matches!(self.find(name), StoreState::Open(_))));
                gauge
            };
            self.guarantees.get_or_init(|| guarantees);
            self.opened.get_or_init(|| self.names().map(shown).collect());
            self.advance(Phase::Ready);
        }
    }

    /// Goes on to that phase, and never back.
    pub(in crate::serve) fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            *phase = to.max(*phase);
            self.ready.set((*phase == Phase::Ready && self.failed().next().is_none()).into());
            later
        });
    }

    pub(in crate::serve) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Returns once that phase has come. Streams that would go on for ever wait for `Draining`, and then end in good
    /// order.
    pub(in crate::serve) async fn reached(&self, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // The sender is in `self`, which is borrowed here.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }

    pub(in crate::serve) fn find(&self, name: &str) -> StoreState<'_> {
        let Some(stores) = self.stores.get() else { return StoreState::Opening };
        match (stores.open.get(name), stores.failed.get(name)) {
            (Some(store), _) => StoreState::Open(store),
            (None, Some(error)) => StoreState::Failed(error),
            (None, None) => StoreState::None,
        }
    }

    /// What a store guarantees, if it is open.
    pub(in crate::serve) fn guarantees(&self, name: &str) -> Option<&Guarantees> {
        self.guarantees.get()?.get(name)
    }

    /// The names of the stores, with those that failed to open. Empty until they are open.
    pub(in crate::serve) fn names(&self) -> impl Iterator<Item = &str> {
        self.stores.get().into_iter().flat_map(Stores::names)
    }

    /// What kept stores from being opened, by name.
    pub(in crate::serve) fn failed(&self) -> impl Iterator<Item = (&str, &Error)> {
        let failed = self.stores.get().into_iter().flat_map(|stores| &stores.failed);
        failed.map(|(name, error)| (name.as_str(), error))
    }

    /// The stack of that name, where the stores are those of a config.
    pub(in crate::serve) fn stack(&self, name: &str) -> Option<&Stack> {
        self.stores.get()?.stacks.as_ref()?.get(name)
    }

    pub(in crate::serve) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    pub(in crate::serve) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(in crate::serve) fn request(self: &Arc<Self>) -> Counted {
        Counted::new(self, |shared| &shared.requests)
    }

    pub(in crate::serve) fn connection(self: &Arc<Self>) -> Counted {
        Counted::new(self, |shared| &shared.connections)
    }
}

/// One of what is counted, until it is dropped.
pub(in crate::serve) struct Counted {
    shared: Arc<Shared>,
    of: fn(&Shared) -> &AtomicUsize,
}

impl Counted {
    fn new(shared: &Arc<Shared>, of: fn(&Shared) -> &AtomicUsize) -> Self {
        of(shared).fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), of }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.of)(&self.shared).fetch_sub(1, Ordering::Relaxed);
    }
}
