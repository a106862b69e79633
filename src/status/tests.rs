//! The monitor with counts of its own and time moved by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::counts::{Counted, Counts};
use super::facts::*;
use super::{Monitor, Subject, alerts};
use crate::backends::Memory;
use crate::clock::{Clock as _, ManualClock, Timestamp};
use crate::error::Error;
use crate::store::Store;
use crate::telemetry::{Distribution, names};
use crate::types::ProfileKind;

const SECOND: Duration = Duration::from_secs(1);

fn count(counts: &mut Counts, family: &str, labels: &[(&str, &str)], value: f64) {
    let label = |name: &str| labels.iter().find(|(label, _)| *label == name).map(|(_, is)| *is);
    counts.take(family, label, &Counted::Number(value));
}

fn took(counts: &mut Counts, op: &str, took: &Distribution) {
    let labels = [("stack", "orders"), ("layer", "memory"), ("op", op)];
    let label = |name: &str| labels.iter().find(|(label, _)| *label == name).map(|(_, is)| *is);
    counts.take(names::OP_DURATION, label, &Counted::Took(took));
}

/// Counts of a store `orders` over `memory` after so many gets and writes.
fn counted(gets: u64, writes: u64) -> Counts {
    let mut counts = Counts::default();
    let at = |more: &[(&'static str, &'static str)]| {
        let mut labels = vec![("stack", "orders"), ("layer", "memory")];
        labels.extend_from_slice(more);
        labels
    };
    for (op, ops, micros) in [("get", gets, 200), ("write", writes, 20_000)] {
        count(&mut counts, names::OPS, &at(&[("op", op), ("outcome", "ok")]), ops as f64);
        count(&mut counts, names::OP_BYTES, &at(&[("op", op)]), 100.0 * ops as f64);
        let mut all = Distribution::default();
        all.add(Duration::from_micros(micros), ops);
        took(&mut counts, op, &all);
    }
    counts
}

struct Bench {
    clock: ManualClock,
    monitor: Monitor,
    counts: Arc<Mutex<Counts>>,
    reads: Arc<AtomicUsize>,
}

fn bench(subjects: Vec<Subject>) -> Bench {
    let (clock, reads) = (ManualClock::new(), Arc::new(AtomicUsize::new(0)));
    let counts = Arc::new(Mutex::new(Counts::default()));
    let (source, read) = (Arc::clone(&counts), Arc::clone(&reads));
    let monitor = Monitor::counting(clock.now(), Arc::new(clock.clone()), subjects, move || {
        read.fetch_add(1, Ordering::Relaxed);
        source.lock().clone()
    });
    Bench { clock, monitor, counts, reads }
}

fn orders() -> Subject {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    Subject::of_store("orders", &store)
}

impl Bench {
    /// Lets a second pass, once the monitor waits for it.
    async fn second(&self) {
        while self.clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        self.clock.advance(SECOND);
    }
}

#[tokio::test]
async fn rates_are_of_the_last_second_and_quantiles_of_ten() {
    let bench = bench(vec![orders()]);
    *bench.counts.lock() = counted(1000, 10);
    let mut watch = bench.monitor.watch();
    let first = watch.next().await;
    assert_eq!(first.period, None);
    assert_eq!(first.stacks[0].layers[0].all.per_second, None, "what was before is no rate");
    assert!(first.stacks[0].guarantees.is_some() && first.stacks[0].layers[0].history.is_some());

    *bench.counts.lock() = counted(1098, 12);
    bench.second().await;
    let second = watch.next().await;
    let layer = &second.stacks[0].layers[0];
    assert_eq!(second.period, Some(1.0));
    assert_eq!((layer.all.per_second, layer.read.per_second), (Some(100.0), Some(98.0)));
    assert_eq!((layer.write.per_second, layer.bytes_per_second), (Some(2.0), Some(10_000.0)));
    let within = |seconds: Option<f64>, from: f64, to: f64| {
        assert!(seconds.is_some_and(|seconds| seconds > from && seconds <= to), "{seconds:?}");
    };
    // 98 of 100 took 200 µs: the p50 is in the bucket of 100 to 250 µs, the p99 in that of 10 to 25 ms.
    within(layer.all.p50, 100e-6, 250e-6);
    within(layer.all.p99, 10e-3, 25e-3);
    within(layer.read.p99, 100e-6, 250e-6);
    assert!(second.stacks[0].guarantees.is_none() && layer.history.is_none(), "told once");

    // Nothing more: no rate, but quantiles, until ten seconds have passed.
    let mut quantiles = Vec::new();
    for _ in 0..11 {
        bench.second().await;
        let facts = watch.next().await;
        assert_eq!(facts.stacks[0].layers[0].all.per_second, Some(0.0));
        quantiles.push(facts.stacks[0].layers[0].all.p99.is_some());
    }
    assert_eq!(quantiles.iter().filter(|is| **is).count(), 9, "{quantiles:?}");
    assert_eq!(quantiles.last(), Some(&false));
}

#[tokio::test]
async fn nothing_is_counted_while_nobody_watches() {
    let bench = bench(vec![orders()]);
    for _ in 0..3 {
        bench.clock.advance(SECOND);
        tokio::task::yield_now().await;
    }
    assert_eq!((bench.reads.load(Ordering::Relaxed), bench.monitor.watchers()), (0, 0));

    let (mut one, mut two) = (bench.monitor.watch(), bench.monitor.watch());
    let (a, b) = (one.next().await, two.next().await);
    assert_eq!(a.now, b.now);
    bench.second().await;
    let (a, b) = (one.next().await, two.next().await);
    assert_eq!((a.now, a.period), (b.now, b.period));
    assert_eq!(bench.reads.load(Ordering::Relaxed), 2, "counted once for both");

    drop((one, two));
    bench.second().await;
    while bench.clock.sleepers() > 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        bench.clock.advance(SECOND);
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.reads.load(Ordering::Relaxed), 2);
    assert_eq!(bench.clock.sleepers(), 0, "nothing runs");

    // A gap in the history, and no rate across it.
    *bench.counts.lock() = counted(1_000_000, 0);
    let facts = bench.monitor.watch().next().await;
    assert_eq!(facts.period, None);
    let history = facts.stacks[0].layers[0].history.as_ref().unwrap();
    assert_eq!(history.per_second.iter().flatten().collect::<Vec<_>>(), [&0.0]);
    assert!(history.per_second.len() >= 6, "{history:?}");
}

#[tokio::test]
async fn once_waits_for_rates() {
    let bench = bench(vec![orders()]);
    let monitor = bench.monitor.clone();
    let once = tokio::spawn(async move { monitor.once().await });
    bench.second().await;
    let facts = once.await.unwrap();
    assert_eq!(facts.period, Some(1.0));
    assert!(facts.stacks[0].guarantees.is_some());
    assert_eq!(bench.monitor.watchers(), 0);
    let json = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<Facts>(&json).unwrap(), facts, "the command reads the same");
}

#[tokio::test]
async fn a_count_that_began_anew_is_no_negative_rate() {
    let bench = bench(vec![orders()]);
    *bench.counts.lock() = counted(1_000_000, 0);
    let mut watch = bench.monitor.watch();
    watch.next().await;
    *bench.counts.lock() = counted(7, 0);
    bench.second().await;
    assert_eq!(watch.next().await.stacks[0].layers[0].all.per_second, Some(7.0));
}

#[test]
fn a_cache_tells_its_hits_and_what_went_past_it_counts_for_nothing() {
    let mut counts = Counts::default();
    let results =
        [("hit", 6), ("negative", 1), ("stale", 1), ("disk", 1), ("miss", 1), ("bypass", 90)];
    for (result, times) in results {
        let labels = [("stack", "orders"), ("layer", "cache"), ("result", result)];
        count(&mut counts, names::CACHE_REQUESTS, &labels, f64::from(times));
    }
    let labels = [("stack", "orders"), ("layer", "cache"), ("kind", "timeout")];
    count(&mut counts, names::ERRORS, &labels, 0.0);
    let boundary = counts.at("orders", "cache");
    assert_eq!((boundary.cache.hits, boundary.cache.requests), (9, 10));
    assert!(boundary.errors.is_empty(), "kinds that never occurred are left out");
    assert_eq!(counts.at("others", "cache"), Default::default());
}

#[tokio::test]
async fn a_reader_sees_the_stores_that_it_may_see() {
    let failed = Subject::failed("archive", &Error::internal("the disk is gone"));
    let bench = bench(vec![orders(), failed]);
    let facts = bench.monitor.watch().next().await;
    assert_eq!(
        facts.stacks.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["archive", "orders"]
    );
    assert!(facts.alerts[0].text.contains("the disk is gone"));
    let listener = ListenerFacts {
        address: "127.0.0.1:1".into(),
        tls: false,
        tokens: 0,
        stores: [("archive".to_owned(), "admin".to_owned())].into(),
    };
    let facts = Facts { listeners: vec![listener], ..facts };
    let only = facts.only(|name| name == "orders");
    assert_eq!(only.stacks.len(), 1);
    assert!(!serde_json::to_string(&only).unwrap().contains("archive"));
}

fn stack() -> StackFacts {
    StackFacts {
        name: "orders".into(),
        open: true,
        error: None,
        shape: "memory".into(),
        layers: Vec::new(),
        backups: None,
        guarantees: None,
    }
}

#[test]
fn alerts_begin_where_their_rules_say() {
    let hour = Duration::from_secs(3600);
    let start = Timestamp::from_millis(1_700_000_000_000);
    let names = |stack: &StackFacts, failing, now| -> Vec<String> {
        alerts::of(stack, failing, now, start).into_iter().map(|alert| alert.name).collect()
    };
    assert!(names(&stack(), Some((0.0144, 1000)), start).is_empty());
    assert_eq!(names(&stack(), Some((0.0145, 1000)), start), ["TierstackFailuresFast"]);
    assert!(names(&stack(), Some((1.0, 99)), start).is_empty(), "too few to tell");

    let backups = |last_success| StackFacts {
        backups: Some(BackupFacts {
            expected_interval: Some(3600.0),
            last_success,
            ..BackupFacts::default()
        }),
        ..stack()
    };
    let aged = |hours: u32, more: Duration| {
        names(&backups(Some(start)), None, start + hour * hours + more)
    };
    assert!(aged(2, Duration::ZERO).is_empty());
    assert_eq!(aged(2, SECOND), ["TierstackBackupLate"]);
    assert_eq!(aged(3, Duration::ZERO), ["TierstackBackupLate"]);
    assert_eq!(aged(3, SECOND), ["TierstackBackupTooOld"]);
    assert!(names(&backups(None), None, start + hour).is_empty());
    assert_eq!(names(&backups(None), None, start + hour + SECOND), ["TierstackBackupNever"]);
}

#[test]
fn alerts_of_a_buffer_begin_where_their_rules_say() {
    let now = Timestamp::from_millis(1_700_000_000_000);
    let names = |write_back: WriteBackFacts| -> Vec<String> {
        let layer = LayerFacts { write_back: Some(write_back), ..layer() };
        let stack = StackFacts { layers: vec![layer], ..stack() };
        let all = alerts::of(&stack, None, now, now).into_iter();
        all.inspect(|alert| assert_eq!(alert.layer.as_deref(), Some("write_back")))
            .map(|alert| alert.name)
            .collect()
    };
    let ok = WriteBackFacts { max_dirty_bytes: 100, dirty_bytes: 80, ..WriteBackFacts::default() };
    let since = |seconds: u64| Some(Timestamp::from_millis(now.as_millis() - seconds * 1000));
    assert!(names(WriteBackFacts { oldest_dirty: since(300), ..ok.clone() }).is_empty());
    let filling = WriteBackFacts { dirty_bytes: 81, ..ok.clone() };
    assert_eq!(names(filling), ["TierstackWriteBackBufferFilling"]);
    let stalled = WriteBackFacts { oldest_dirty: since(301), ..ok.clone() };
    assert_eq!(names(stalled), ["TierstackWriteBackStalled"]);
    let away = WriteBackFacts { store_away: true, ..ok.clone() };
    assert_eq!(names(away), ["TierstackWriteBackStoreAway"]);
    for (cause, name) in [("journal", "JournalFailed"), ("refused", "Refused")] {
        let failed = WriteBackFacts { failed: Some(cause.to_owned()), ..ok.clone() };
        assert_eq!(names(failed), [format!("TierstackWriteBack{name}")]);
    }
}

fn layer() -> LayerFacts {
    LayerFacts {
        name: "write_back".into(),
        kind: ProfileKind::Layer,
        all: Speed::default(),
        read: Speed::default(),
        write: Speed::default(),
        bytes_per_second: None,
        errors: 0,
        errors_by_kind: BTreeMap::new(),
        errors_per_second: None,
        in_flight: 0,
        cache: None,
        write_back: None,
        stored: None,
        changes: None,
        notes: None,
        history: None,
    }
}

/// The same names, so that a page and a pager agree.
#[test]
fn every_alert_is_one_of_the_rules() {
    let source = include_str!("alerts.rs");
    let rules = include_str!("../../dashboards/rules/alerts.yaml");
    let named: Vec<_> = source.split('"').filter(|text| text.starts_with("Tierstack")).collect();
    assert!(named.len() > 5, "{named:?}");
    for name in named {
        assert!(rules.contains(&format!("- alert: {name}\n")), "{name}");
    }
}

#[cfg(feature = "backup")]
#[tokio::test]
async fn backups_are_listed_once_and_told_once() {
    use crate::config::{Config, Format, Registry};
    use crate::stack::{OpenOptions, Stack};

    let folder = tempfile::tempdir().unwrap();
    let text = "stores: { orders: { layers: [ { backup: { to: ./backups, base: daily } } ], backend: memory } }";
    let config = Config::parse(text, Format::Yaml, folder.path().join("tierstack.yaml")).unwrap();
    let stack =
        Stack::open(&config, None, &Registry::standard(), &OpenOptions::default()).await.unwrap();
    let early = bench(vec![Subject::of(&stack)]);
    let mut watch = early.monitor.watch();
    for _ in 0..3 {
        let backups = watch.next().await.stacks.remove(0).backups.unwrap();
        assert_eq!(
            (backups.error, backups.last_success),
            (None, None),
            "the place is made by the first"
        );
        early.second().await;
    }
    drop(watch);
    let place = stack.checked().layer_config::<crate::layers::backup::BackupConfig>().unwrap();
    let context = stack.checked().layer_context("backup", &OpenOptions::default()).unwrap();
    let repository = place.create_repository(&context).await.unwrap();
    crate::backup::run(&*stack.store(), &repository, &|_| ()).await.unwrap();

    let bench = bench(vec![Subject::of(&stack)]);
    let mut watch = bench.monitor.watch();
    let told = loop {
        let facts = watch.next().await;
        let backups = facts.stacks.into_iter().next().and_then(|stack| stack.backups).unwrap();
        assert_eq!((backups.schedule.as_deref(), backups.error), (Some("daily"), None));
        match backups.bases {
            Some(bases) => break (bases, backups.last_success, backups.due_at),
            None => bench.second().await,
        }
    };
    let (bases, last, due) = told;
    assert_eq!((bases.len(), Some(bases[0].time)), (1, last));
    assert!(due > last);
    bench.second().await;
    let later = watch.next().await.stacks.remove(0).backups.unwrap();
    assert_eq!((later.bases, later.last_success), (None, last), "the list was told before");
    stack.close().await.unwrap();
}
