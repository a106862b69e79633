//! Every series of this process that is in use.
//!
//! It does not depend on the recorder that is installed. A series is in it until the last handle of it is gone, or the
//! stack that it belongs to was closed.

use std::any::Any;
use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::families::names;
use super::gatherer::gather;
use super::snapshot::{More, Own, Sample, Snapshot, Value};
use super::timing::Timing;
use crate::clock::SystemClock;

/// Of so many answers from memory the duration of one is measured, on average.
pub(crate) const SAMPLE: u32 = 61;

/// What a series counts in.
pub(super) trait Cell: Default + Send + Sync + 'static {
    fn value(&self) -> Value;
}

impl Cell for AtomicU64 {
    fn value(&self) -> Value {
        Value::Counter(self.load(Relaxed))
    }
}

impl Cell for AtomicI64 {
    fn value(&self) -> Value {
        Value::Gauge(self.load(Relaxed) as f64)
    }
}

impl Cell for Timing {
    fn value(&self) -> Value {
        Value::Durations(Box::new(self.read()))
    }
}

pub(super) struct Series<C> {
    name: &'static str,
    more: More,
    scope: Arc<Scope>,
    pub(super) cell: C,
}

impl<C> std::fmt::Debug for Series<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Series").field("name", &self.name).finish_non_exhaustive()
    }
}

trait Shown: Any + Send + Sync {
    fn name(&self) -> &'static str;
    fn is(&self, name: &str, more: &[(&'static str, &'static str)]) -> bool;
    fn sample(&self) -> (&'static str, Sample);
}

impl<C: Cell> Shown for Series<C> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is(&self, name: &str, more: &[(&'static str, &'static str)]) -> bool {
        self.name == name && *self.more == *more
    }

    fn sample(&self) -> (&'static str, Sample) {
        let (own, more) = (Arc::clone(&self.scope.own), Arc::clone(&self.more));
        (self.name, Sample { own, more, value: self.cell.value() })
    }
}

/// The series of one layer of one stack, or of another thing that is counted by itself.
pub(super) struct Scope {
    pub(super) own: Own,
    pub(super) depth: Option<usize>,
    series: Mutex<Vec<Weak<dyn Shown>>>,
    listed: AtomicBool,
    ended: AtomicBool,
}

/// Tells that somebody has looked.
static LOOKED: Notify = Notify::const_new();

/// Waits until somebody takes a [`snapshot`], for what is measured only then.
#[cfg(feature = "config")]
pub(crate) async fn looked() {
    LOOKED.notified().await;
}

static SCOPES: Mutex<Vec<Weak<Scope>>> = Mutex::new(Vec::new());

thread_local! {
    /// What this thread registers only in order to count it.
    static REHEARSAL: RefCell<Option<Vec<Arc<dyn Shown>>>> = const { RefCell::new(None) };
}

impl Scope {
    /// With these labels. One without a value is left out.
    pub(super) fn new(own: &[(&'static str, &str)], depth: Option<usize>) -> Self {
        let own = own.iter().filter(|(_, value)| !value.is_empty());
        Self {
            own: own.map(|(name, value)| (*name, Arc::from(*value))).collect(),
            depth,
            series: Mutex::default(),
            listed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// The series of that name and these labels, a new one unless there is one. Tells whether the family is new here.
    pub(super) fn series<C: Cell>(
        self: &Arc<Self>,
        name: &'static str,
        more: &[(&'static str, &'static str)],
    ) -> (Arc<Series<C>>, bool) {
        let mut all = self.series.lock();
        all.retain(|series| series.strong_count() > 0);
        let mut is_new = true;
        for shown in all.iter().filter_map(Weak::upgrade) {
            if shown.is(name, more) {
                let shown: Arc<dyn Any + Send + Sync> = shown;
                if let Ok(series) = shown.downcast() {
                    return (series, false);
                }
            } else {
                is_new &= shown.name() != name;
            }
        }
        let scope = Arc::clone(self);
        let series = Arc::new(Series { name, more: more.into(), scope, cell: C::default() });
        let shown: Arc<dyn Shown> = Arc::<Series<C>>::clone(&series);
        all.push(Arc::downgrade(&shown));
        drop(all);
        if !rehearsed(shown) && !self.listed.swap(true, Relaxed) {
            LazyLock::force(&STARTED);
            let mut scopes = SCOPES.lock();
            scopes.retain(|scope| scope.strong_count() > 0);
            scopes.push(Arc::downgrade(self));
        }
        (series, is_new)
    }

    /// Shows the series, until they are ended.
    pub(super) fn begin(&self) {
        self.ended.store(false, Relaxed);
    }

    /// The series are not shown any more.
    pub(super) fn end(&self) {
        self.ended.store(true, Relaxed);
    }

    fn shown(&self) -> Vec<Arc<dyn Shown>> {
        self.series.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// Keeps the series for the rehearsal of this thread, if there is one.
fn rehearsed(series: Arc<dyn Shown>) -> bool {
    REHEARSAL.with_borrow_mut(|rehearsal| match rehearsal {
        Some(all) => {
            all.push(series);
            true
        }
        None => false,
    })
}

/// Whether this thread registers series only in order to count them.
pub(super) fn is_rehearsal() -> bool {
    REHEARSAL.with_borrow(Option::is_some)
}

/// The series that are registered meanwhile on this thread. They are not in the registry, and no recorder is told
/// of them.
#[cfg(feature = "config")]
pub(crate) fn rehearse(register: impl FnOnce()) -> Snapshot {
    /// Also where `register` panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            REHEARSAL.with_borrow_mut(|rehearsal| drop(rehearsal.take()));
        }
    }
    let _end = End;
    REHEARSAL.with_borrow_mut(|rehearsal| *rehearsal = Some(Vec::new()));
    register();
    let all = REHEARSAL.with_borrow_mut(|rehearsal| rehearsal.take().unwrap_or_default());
    let mut snapshot = Snapshot::default();
    for (name, sample) in all.iter().map(|series| series.sample()) {
        snapshot.merge(name, sample);
    }
    snapshot
}

/// What tierstack has counted in this process, whichever recorder is installed, up to this moment. What other threads
/// count meanwhile may be left out. Series of a stack that was closed are not in it.
///
/// A rate is the difference of two of these, and a quantile of a while is that of the difference of two
/// [`Distribution`](super::Distribution)s.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::layers::metrics::MetricsLayer;
/// use tierstack::telemetry::{Labels, names, snapshot};
/// use tierstack::{Layer, Read, Store};
///
/// let store = MetricsLayer::new(Labels::new("orders", "memory")).layer(Memory::new());
/// store.get(b"k").await?;
/// let labels = [("stack", "orders"), ("op", "get"), ("outcome", "missing")];
/// assert_eq!(snapshot().counter(names::OPS, &labels), 1);
/// store.close().await?;
/// assert_eq!(snapshot().select(names::OPS, &labels).count(), 0);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[must_use]
pub fn snapshot() -> Snapshot {
    gather();
    let mut scopes: Vec<_> = SCOPES.lock().iter().filter_map(Weak::upgrade).collect();
    scopes.retain(|scope| !scope.ended.load(Relaxed));
    // Those with the same labels side by side, the oldest first.
    scopes.sort_by(|a, b| a.own.cmp(&b.own));
    let mut snapshot = process();
    let mut before: Option<&Scope> = None;
    for scope in &scopes {
        let is_second = before.is_some_and(|other| other.own == scope.own);
        for (name, sample) in scope.shown().iter().map(|series| series.sample()) {
            if is_second {
                snapshot.merge(name, sample);
            } else {
                snapshot.push(name, sample);
            }
        }
        before = Some(scope);
    }
    LOOKED.notify_waiters();
    snapshot
}

/// The cargo features that change what this library can do.
const FEATURES: [(&str, bool); 16] = [
    ("backup", cfg!(feature = "backup")),
    ("cache", cfg!(feature = "cache")),
    ("cloud", cfg!(feature = "cloud")),
    ("compress", cfg!(feature = "compress")),
    ("config", cfg!(feature = "config")),
    ("encrypt", cfg!(feature = "encrypt")),
    ("file", cfg!(feature = "file")),
    ("object", cfg!(feature = "object")),
    ("opendal", cfg!(feature = "opendal")),
    ("postgres", cfg!(feature = "postgres")),
    ("redis", cfg!(feature = "redis")),
    ("rocksdb", cfg!(feature = "rocksdb")),
    ("serve", cfg!(feature = "serve")),
    ("sqlite", cfg!(feature = "sqlite")),
    ("telemetry", cfg!(feature = "telemetry")),
    ("testing", cfg!(feature = "testing")),
];

static FEATURE_NAMES: LazyLock<String> = LazyLock::new(|| {
    let on = FEATURES.iter().filter(|(_, on)| *on).map(|(name, _)| *name);
    on.collect::<Vec<_>>().join(",")
});

static STARTED: LazyLock<f64> =
    LazyLock::new(|| SystemClock::shared().now().as_millis() as f64 / 1000.0);

/// How many series a process has in addition to those of its stores and its server.
///
/// ```
/// use tierstack::telemetry::{PROCESS_SERIES, snapshot};
///
/// assert!(snapshot().series() >= PROCESS_SERIES);
/// ```
pub const PROCESS_SERIES: usize = 3;

/// What is known of the process, whatever it counts.
fn process() -> Snapshot {
    let mut snapshot = Snapshot::default();
    let info = [("version", env!("CARGO_PKG_VERSION")), ("features", FEATURE_NAMES.as_str())];
    let constants: [(_, &[(&str, &str)], _); PROCESS_SERIES] = [
        (names::INFO, &info, 1.0),
        (names::PROCESS_START, &[], *STARTED),
        (names::SAMPLE_RATIO, &[], 1.0 / f64::from(SAMPLE)),
    ];
    for (name, more, value) in constants {
        let (own, value) = (Arc::default(), Value::Gauge(value));
        snapshot.push(name, Sample { own, more: more.into(), value });
    }
    snapshot
}
