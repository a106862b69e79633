//! Opening over a store that is away, and for what only reads.

use super::super::Opening;
use super::*;
use crate::error::{ErrorKind, Operation};
use crate::layer::LayerConfig;

/// Opens it again as a stack does, with a flusher of its own, once the one before has let go of the journal.
async fn opened(bed: &Bed, opening: Opening, may_create: bool) -> Result<Arc<dyn Store>> {
    let config = WriteBackConfig { open: opening, ..config(bed.folder.path(), Ack::Journal) };
    let context = Context { clock: Arc::new(bed.clock.clone()), may_create, ..Context::default() };
    let layer = loop {
        match config.open(&context).await {
            Err(error) if error.to_string().contains("open already") => {
                tokio::task::yield_now().await;
            }
            opened => break opened?,
        }
    };
    layer.wrap(Arc::new(FaultStore::new(Arc::clone(&bed.below), &bed.faults))).await
}

/// A bed whose journal holds a write, and which is not open.
async fn left_behind() -> Bed {
    let bed = bed().await;
    bed.put("k", "1").await;
    let Bed { below, faults, clock, folder, .. } = bed;
    // Closing a memory store empties it.
    faults.on(Operation::Close).fail(ErrorKind::Internal);
    let elsewhere = bed_with(|_| ()).await;
    Bed { below, faults, clock, folder, ..elsewhere }
}

#[tokio::test]
async fn a_stack_that_waits_opens_once_the_store_below_has_it_and_fails_while_that_is_away() {
    let bed = left_behind().await;
    bed.faults.cut();
    let error = opened(&bed, Opening::Wait, true).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    bed.below_gives("k", None).await;
    bed.faults.heal();
    let store = opened(&bed, Opening::Wait, true).await.unwrap();
    bed.below_gives("k", Some("1")).await;
    assert_eq!(store.get(b"k").await.unwrap(), Some("1".into()));
}

#[tokio::test]
async fn a_stack_that_does_not_wait_opens_while_the_store_below_is_away() {
    let bed = left_behind().await;
    bed.faults.cut();
    let store = opened(&bed, Opening::Later, true).await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("1".into()));
    assert_eq!(store.get(b"clean").await.unwrap_err().kind(), ErrorKind::Unavailable);
    let commit = store.put("l", "1").await.unwrap();
    assert_eq!(store.flush().await.unwrap_err().kind(), ErrorKind::Unavailable);
    bed.faults.heal();
    // An attempt that began before may still fail.
    while store.flush().await.is_err() {
        tokio::task::yield_now().await;
    }
    commit.durable().await.unwrap();
    bed.below_gives("k", Some("1")).await;
    bed.below_gives("l", Some("1")).await;
}

#[tokio::test]
async fn what_only_reads_sees_what_an_earlier_process_left_and_leaves_it() {
    for opening in [Opening::Later, Opening::Wait] {
        let bed = left_behind().await;
        let store = opened(&bed, opening, false).await.unwrap();
        assert_eq!(store.get(b"k").await.unwrap(), Some("1".into()));
        assert_eq!(scanned(&*store, Scan::all()).await, ["k=1"]);
        assert_eq!(store.count(b"").await.unwrap(), None, "the store below does not have it");
        let closed = store.close().await.unwrap_err().to_string();
        assert!(closed.contains("injected"), "only the fault: {closed}");
        bed.below_gives("k", None).await;
        // The first write takes it along, and so does a flush.
        let store = opened(&bed, opening, false).await.unwrap();
        let commit = store.put("l", "1").await.unwrap();
        bed.clock.advance(std::time::Duration::from_secs(1));
        commit.durable().await.unwrap();
        bed.below_gives("k", Some("1")).await;
        bed.below_gives("l", Some("1")).await;
    }
    let bed = left_behind().await;
    let store = opened(&bed, Opening::Later, false).await.unwrap();
    store.flush().await.unwrap();
    bed.below_gives("k", Some("1")).await;
}

/// What waits for room does not wait for a flush that never begins.
#[tokio::test]
async fn a_writer_that_finds_it_full_ends_the_rest() {
    let bed = left_behind().await;
    let config = WriteBackConfig {
        flush_bytes: crate::types::units::ByteSize(1 << 10),
        max_dirty: crate::types::units::ByteSize(1 << 10),
        ..config(bed.folder.path(), Ack::Journal)
    };
    let context =
        Context { clock: Arc::new(bed.clock.clone()), may_create: false, ..Context::default() };
    let layer = loop {
        match config.open(&context).await {
            Err(error) if error.to_string().contains("open already") => {
                tokio::task::yield_now().await;
            }
            opened => break opened.unwrap(),
        }
    };
    let below = Arc::new(FaultStore::new(Arc::clone(&bed.below), &bed.faults));
    let store = layer.wrap(below).await.unwrap();
    drop(store.put("large", vec![1; 1000]).await.unwrap());
    bed.below_gives("k", Some("1")).await;
}

/// From the beginning: a flusher runs in a thread of its own, and would flush what it finds first.
#[tokio::test]
async fn what_only_reads_never_has_anything_due() {
    use super::super::state::Due;
    use crate::clock::Clock as _;

    let bed = bed_with(|config| config.flush_after = "0s".parse().unwrap()).await;
    bed.put("k", "1").await;
    let Bed { store, flusher, below, clock, folder, .. } = bed;
    drop((store, flusher));
    let config = WriteBackConfig {
        flush_after: "0s".parse().unwrap(),
        ..config(folder.path(), Ack::Journal)
    };
    let reading =
        Context { clock: Arc::new(clock.clone()), may_create: false, ..Context::default() };
    let layer = loop {
        match WriteBackLayer::open(&config, &reading).await {
            Err(error) if error.to_string().contains("open already") => {
                tokio::task::yield_now().await;
            }
            opened => break opened.unwrap(),
        }
    };
    let (store, flusher) = layer.pair(Arc::clone(&below) as Arc<dyn Store>).await.unwrap();
    clock.advance(std::time::Duration::from_secs(3600));
    assert_eq!(store.shared.state.lock().due(clock.monotonic()), Due::Never);
    let mut running = pin!(flusher.run());
    for _ in 0..100 {
        assert!(running.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert_eq!(below.get(b"k").await.unwrap(), None);
    assert_eq!(store.get(b"k").await.unwrap(), Some("1".into()));
}

#[tokio::test]
async fn a_store_below_with_rules_of_its_own_is_told_of() {
    let profile = |verbatim| {
        let below = Memory::new().profile().changed(|guarantees| guarantees.verbatim = verbatim);
        let config = WriteBackConfig { path: Some("journal".into()), ..WriteBackConfig::default() };
        crate::layer::LayerConfig::profile(&config, below).unwrap()
    };
    let told = |profile: crate::types::Profile| {
        profile
            .notes
            .iter()
            .any(|note| note.contains("`verbatim`") && note.contains("stops this layer"))
    };
    assert!(told(profile(false)) && !told(profile(true)));
}

/// What is free on the disk is known at once, and nothing where there is no journal.
#[tokio::test]
async fn the_disk_of_the_journal_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let free = async |name: &'static str, path: Option<std::path::PathBuf>| {
        let ack = if path.is_some() { Ack::Journal } else { Ack::Memory };
        let config = WriteBackConfig { path, ack, ..WriteBackConfig::default() };
        let labels = crate::telemetry::Labels::new(name, "write_back");
        let context = Context { labels, ..Context::default() };
        let layer = WriteBackLayer::open(&config, &context).await.unwrap();
        let store = crate::layer::StackLayer::wrap(&layer, Arc::new(Memory::new())).await.unwrap();
        let shown = || {
            let snapshot = crate::telemetry::snapshot();
            let family = crate::telemetry::names::WRITEBACK_DISK_FREE;
            let mut families = snapshot.families();
            let samples = families.find_map(|(name, samples)| (name == family).then_some(samples));
            let mut samples = samples.into_iter().flatten();
            let sample = samples.find(|sample| sample.label("stack") == Some(name));
            match sample.map(|sample| sample.value().clone()) {
                Some(crate::telemetry::Value::Gauge(free)) => free,
                other => panic!("{other:?}"),
            }
        };
        let mut looks = 0;
        while config.path.is_some() && shown() < 0.0 && looks < 10_000 {
            looks += 1;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let shown = shown();
        store.close().await.unwrap();
        shown
    };
    assert!(
        free("disk-of-journal", Some(folder.path().join("journal"))).await > 0.0 || cfg!(not(unix))
    );
    assert_eq!(free("no-journal", None).await, -1.0);
}
