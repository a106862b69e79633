//! The monitor: counts once a second while there are watchers, for all of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::alerts;
#[cfg(feature = "backup")]
use super::backup_status::Listing;
use super::counts::Counts;
use super::facts::{
    CacheFacts, Facts, History, LayerFacts, Process, StackFacts, StoredFacts, WriteBackFacts,
};
use super::rates::{Rates, Window};
use super::watched_store::{Level, Subject};
use crate::clock::{Clock, Timestamp};
use crate::types::ProfileKind;

/// The version of the facts.
const VERSION: u32 = 1;
/// How often is counted.
const SECOND: Duration = Duration::from_secs(1);
/// Points of a history: five minutes.
const KEPT: usize = 300;

/// Tells what the stores of this process do. It counts while somebody watches, and rests otherwise. A clone is the same
/// monitor. See the [module docs](super).
#[derive(Clone)]
pub struct Monitor(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    source: Box<dyn Fn() -> Counts + Send + Sync>,
    subjects: Vec<Subject>,
    started_at: Timestamp,
    state: Mutex<State>,
    /// `None` while nobody watches.
    facts: watch::Sender<Option<Arc<Facts>>>,
}

#[derive(Default)]
struct State {
    watchers: usize,
    is_running: bool,
    window: Window,
    /// For each subject.
    stacks: Vec<Kept>,
    last_point: Option<Duration>,
}

/// What is kept of a store from one moment to the next.
#[derive(Default)]
struct Kept {
    /// For each level.
    histories: Vec<VecDeque<Point>>,
    #[cfg(feature = "backup")]
    listing: Listing,
}

#[derive(Clone, Copy, Default)]
struct Point {
    per_second: Option<f64>,
    p99: Option<f64>,
    hit_ratio: Option<f64>,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("subjects", &self.0.subjects).finish_non_exhaustive()
    }
}

impl Monitor {
    /// Of these stores, by the time of that clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, subjects: impl IntoIterator<Item = Subject>) -> Self {
        Self::since(clock.now(), clock, subjects)
    }

    /// Like [`new`](Self::new), of a process that has served them since that moment.
    #[must_use]
    pub fn since(
        started_at: Timestamp,
        clock: Arc<dyn Clock>,
        subjects: impl IntoIterator<Item = Subject>,
    ) -> Self {
        Self::counting(started_at, clock, subjects.into_iter().collect(), Counts::read)
    }

    pub(super) fn counting(
        started_at: Timestamp,
        clock: Arc<dyn Clock>,
        mut subjects: Vec<Subject>,
        source: impl Fn() -> Counts + Send + Sync + 'static,
    ) -> Self {
        subjects.sort_by(|one, other| one.name.cmp(&other.name));
        let kept = |subject: &Subject| Kept {
            histories: vec![VecDeque::new(); subject.levels.len()],
            ..Kept::default()
        };
        let state = State { stacks: subjects.iter().map(kept).collect(), ..State::default() };
        Self(Arc::new(Inner {
            started_at,
            clock,
            source: Box::new(source),
            subjects,
            state: Mutex::new(state),
            facts: watch::Sender::new(None),
        }))
    }

    /// Begins to watch, in a tokio runtime.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let mut state = self.0.state.lock();
        state.watchers += 1;
        if !std::mem::replace(&mut state.is_running, true) {
            tokio::spawn(Arc::clone(&self.0).run());
        }
        Watch { facts: self.0.facts.subscribe(), monitor: self.clone(), told: None }
    }

    /// The facts once, with rates. Where nobody watches, this takes a second.
    pub async fn once(&self) -> Facts {
        let mut watch = self.watch();
        let has_rates =
            |facts: &Option<Arc<Facts>>| facts.as_ref().is_some_and(|f| f.period.is_some());
        loop {
            if let Ok(facts) = watch.facts.wait_for(has_rates).await
                && let Some(facts) = &*facts
            {
                return self.0.whole(facts);
            }
        }
    }

    /// The watchers of now.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.0.state.lock().watchers
    }
}

/// A watcher. Dropping it ends the watching. See the [module docs](super).
#[derive(Debug)]
pub struct Watch {
    monitor: Monitor,
    facts: watch::Receiver<Option<Arc<Facts>>>,
    told: Option<Arc<Facts>>,
}

impl Watch {
    /// The next facts, once a second: the first time at once and whole, later without what was told before. A watcher
    /// that is behind misses some.
    pub async fn next(&mut self) -> Facts {
        loop {
            if self.told.is_some() || self.facts.borrow().is_none() {
                // The sender is in the monitor, which is held here.
                let _ = self.facts.changed().await;
            }
            let Some(facts) = self.facts.borrow_and_update().clone() else { continue };
            return match self.told.replace(Arc::clone(&facts)) {
                None => self.monitor.0.whole(&facts),
                Some(told) => Facts::clone(&facts).without_told(&told),
            };
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.monitor.0.state.lock().watchers -= 1;
    }
}

impl Inner {
    /// Counts until nobody watches.
    async fn run(self: Arc<Self>) {
        while self.is_watched() {
            self.tick();
            self.clock.sleep(SECOND).await;
        }
    }

    /// Whether there is a watcher. If not, the next one starts it again.
    fn is_watched(&self) -> bool {
        let mut state = self.state.lock();
        state.is_running = state.watchers > 0;
        if !state.is_running {
            self.facts.send_replace(None);
        }
        state.is_running
    }

    /// Counts, and tells the watchers.
    fn tick(self: &Arc<Self>) {
        let counts = (self.source)();
        let mut state = self.state.lock();
        let (now, moment) = (self.clock.now(), self.clock.monotonic());
        state.window.push(moment, counts);
        let since = state.last_point.map(|last| moment.saturating_sub(last).as_secs_f64().round());
        let missed = since.map_or(0, |seconds| seconds.max(1.0) as usize - 1).min(KEPT);
        state.last_point = Some(moment);
        let mut facts = Facts {
            version: VERSION,
            now,
            process: Process {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started_at: self.started_at,
            },
            period: state.window.period().map(|period| period.as_secs_f64()),
            stacks: Vec::new(),
            listeners: Vec::new(),
            alerts: Vec::new(),
        };
        for (at, subject) in self.subjects.iter().enumerate() {
            #[cfg_attr(
                not(feature = "backup"),
                expect(unused_mut, reason = "backups are filled in")
            )]
            let mut stack = self.stack(&state, subject);
            #[cfg(feature = "backup")]
            {
                stack.backups = self.backups(&mut state, at, subject, moment);
            }
            let outer = subject.levels.first();
            let rates = outer.and_then(|level| state.window.rates(&subject.name, &level.label));
            let failing = rates.and_then(|rates| rates.failing);
            facts.alerts.extend(alerts::of(&stack, failing, now, self.started_at));
            if let Some(kept) = state.stacks.get_mut(at) {
                kept.remember(&stack, missed);
            }
            facts.stacks.push(stack);
        }
        facts.alerts.sort_by_key(|alert| alert.severity);
        drop(state);
        self.facts.send_replace(Some(Arc::new(facts)));
    }

    fn stack(&self, state: &State, subject: &Subject) -> StackFacts {
        let counted = |level: &Level| {
            let counts = state.window.now().map(|now| now.at(&subject.name, &level.label));
            let rates = state.window.rates(&subject.name, &level.label);
            layer(level, &counts.unwrap_or_default(), rates.unwrap_or_default())
        };
        let mut layers: Vec<_> = subject.levels.iter().map(counted).collect();
        if let Some(backend) = layers.last_mut().filter(|last| last.kind == ProfileKind::Backend) {
            let stored = state.window.now().map(|now| now.stored(&subject.name));
            let stored = stored.filter(|stored| stored.bytes.is_some() || stored.entries.is_some());
            backend.stored = stored.map(|s| StoredFacts { bytes: s.bytes, entries: s.entries });
        }
        StackFacts {
            name: subject.name.clone(),
            open: subject.error.is_none(),
            error: subject.error.clone(),
            shape: subject.shape.clone(),
            layers,
            backups: None,
            guarantees: None,
        }
    }

    #[cfg(feature = "backup")]
    fn backups(
        self: &Arc<Self>,
        state: &mut State,
        at: usize,
        subject: &Subject,
        moment: Duration,
    ) -> Option<super::facts::BackupFacts> {
        let place = subject.backups.as_ref()?;
        let counted = state.window.now()?.at(&subject.name, place.label()).backup;
        let listing = &mut state.stacks.get_mut(at)?.listing;
        if listing.is_due(moment, &counted) {
            let (inner, place) = (Arc::clone(self), place.clone());
            tokio::spawn(async move {
                let answer = place.list(&*inner.clock).await;
                if let Some(kept) = inner.state.lock().stacks.get_mut(at) {
                    kept.listing.answered(answer);
                }
            });
        }
        Some(place.facts(&counted, listing, self.started_at))
    }

    /// With what is told once.
    fn whole(&self, facts: &Facts) -> Facts {
        let mut facts = facts.clone();
        let state = self.state.lock();
        for (stack, (subject, kept)) in
            facts.stacks.iter_mut().zip(self.subjects.iter().zip(&state.stacks))
        {
            stack.guarantees = Some(subject.guarantees.clone());
            let levels = subject.levels.iter().zip(&kept.histories);
            for (layer, (level, points)) in stack.layers.iter_mut().zip(levels) {
                layer.changes = Some(level.changes.clone());
                layer.notes = Some(level.notes.clone());
                layer.history = Some(history(points));
            }
        }
        facts
    }
}

impl Kept {
    /// Takes in a point for each level, behind those that were missed.
    fn remember(&mut self, stack: &StackFacts, missed: usize) {
        for (points, layer) in self.histories.iter_mut().zip(&stack.layers) {
            let gap = std::iter::repeat_n(Point::default(), missed.min(points.len() * KEPT));
            points.extend(gap.chain([Point {
                per_second: layer.all.per_second,
                p99: layer.all.p99,
                hit_ratio: layer.cache.as_ref().and_then(|cache| cache.hit_ratio),
            }]));
            points.drain(..points.len().saturating_sub(KEPT));
        }
    }
}

fn history(points: &VecDeque<Point>) -> History {
    let all = |of: fn(&Point) -> Option<f64>| points.iter().map(of).collect::<Vec<_>>();
    let hit_ratio = all(|point| point.hit_ratio);
    let is_cache = hit_ratio.iter().any(Option::is_some);
    History {
        per_second: all(|point| point.per_second),
        p99: all(|point| point.p99),
        hit_ratio: if is_cache { hit_ratio } else { Vec::new() },
    }
}

fn layer(level: &Level, now: &super::counts::Boundary, rates: Rates) -> LayerFacts {
    let cache = now.cache.is_there.then(|| CacheFacts {
        bytes: now.cache.bytes,
        entries: now.cache.entries,
        disk_bytes: now.cache.disk_active.and(now.cache.disk_bytes),
        disk_active: now.cache.disk_active,
        change_feed_connected: now.cache.change_feed_connected.filter(|_| level.is_told),
        ..rates.cache
    });
    let measured = rates.all.per_second.is_some();
    let write_back = now.write_back.is_there.then(|| WriteBackFacts {
        dirty_bytes: now.write_back.dirty_bytes,
        dirty_entries: now.write_back.dirty_entries,
        max_dirty_bytes: now.write_back.max_dirty,
        oldest_dirty: now.write_back.oldest.map(Timestamp::from_millis),
        waiting: now.write_back.waiting,
        journal_bytes: now.write_back.journal_bytes,
        flushed_per_second: measured.then_some(rates.flushed),
        failures: now.write_back.failures,
        failed: now.write_back.failed.clone(),
        store_away: now.write_back.store_away,
    });
    LayerFacts {
        name: level.label.clone(),
        kind: level.kind,
        all: rates.all,
        read: rates.read,
        write: rates.write,
        bytes_per_second: measured.then_some(rates.bytes),
        errors: now.failed,
        errors_by_kind: now.errors.clone(),
        errors_per_second: measured.then_some(rates.errors),
        in_flight: now.in_flight,
        cache,
        write_back,
        stored: None,
        changes: None,
        notes: None,
        history: None,
    }
}
