//! What sweeps remove, when, and what they hold up.

use super::*;

#[tokio::test]
async fn a_sweep_removes_what_has_expired_and_nothing_else() {
    let (store, below, _, clock) = over_memory(&ExpireConfig::default());
    mostly_expiring(&store, &clock).await;
    assert_eq!(store.sweep().await.unwrap(), 0);
    let _ = below.put(&b"\x05damaged"[..], "not a frame").await.unwrap();
    clock.advance(SECOND);
    assert_eq!(store.sweep().await.unwrap(), 90);
    assert_eq!(below.usage().await.unwrap().entries, Some(11));
    assert_eq!(store.sweep().await.unwrap(), 0);
}

/// Takes one operation at a time, and says so. What it has acknowledged becomes durable after the test.
pub(super) struct OneByOne {
    pub(super) memory: Memory,
    pub(super) compares: bool,
}

impl Default for OneByOne {
    fn default() -> Self {
        Self { memory: Memory::new(), compares: true }
    }
}

impl Read for OneByOne {
    forward!(self => self.memory; get, get_many, scan);
}

#[async_trait]
impl Store for OneByOne {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        if batch.len() > 1 {
            return Err(Error::unsupported("batches are not atomic here"));
        }
        Ok(self.memory.write(batch).await?.durable_after(std::future::pending()))
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        crate::write_in_order(self, group).await
    }

    fn profile(&self) -> Profile {
        self.memory.profile().changed(|guarantees| {
            guarantees.atomic_batches = false;
            if !self.compares {
                guarantees.conditions = Conditions::Absence;
            }
        })
    }

    forward!(self => self.memory; ingest, changes, invalidate, inspect, snapshot, flush, compact, usage, count, close, identity);
}

#[tokio::test]
async fn a_store_without_atomic_batches_is_swept_entry_by_entry() {
    let clock = ManualClock::new();
    let layer = ExpireLayer::new(&ExpireConfig::default(), &context(&clock)).unwrap();
    let store = layer.layer(OneByOne::default());
    mostly_expiring(&store, &clock).await;
    clock.advance(SECOND);
    assert_eq!(store.sweep().await.unwrap(), 90);
}

#[tokio::test]
async fn compacting_sweeps() {
    let (store, below, _, clock) = over_memory(&ExpireConfig::default());
    mostly_expiring(&store, &clock).await;
    clock.advance(SECOND);
    store.compact().await.unwrap();
    assert_eq!(below.usage().await.unwrap().entries, Some(10));
}

/// The sweeper found the entry expired; before its delete gets through, the entry is written again.
#[tokio::test]
async fn an_entry_written_during_its_removal_stays() {
    let (store, below, faults, clock) = over_memory(&ExpireConfig::default());
    mostly_expiring(&store, &clock).await;
    clock.advance(SECOND);
    let delete = faults.on(Operation::Write).times(1).hold();
    let mut sweep = spawn(store.sweep());
    assert_pending!(sweep.poll());
    delete.reached(1).await;
    let _ = store.put(vec![1], "new").await.unwrap();
    delete.open();
    assert_eq!(sweep.await.unwrap(), 89, "the others are removed");
    assert_eq!(store.get(&[1]).await.unwrap(), Some("new".into()));
    assert_eq!(below.usage().await.unwrap().entries, Some(11));
}

#[tokio::test]
async fn a_write_that_hangs_holds_up_neither_a_sweep_nor_a_write() {
    let (store, below, faults, clock) = over_memory(&ExpireConfig::default());
    let _ = store.put("k", value("old", clock.now() + SECOND)).await.unwrap();
    clock.advance(SECOND);
    let gate = faults.on(Operation::Write).times(1).hold();
    let mut hangs = spawn(store.put("k", "hangs"));
    assert_pending!(hangs.poll());
    assert_eq!(store.sweep().await.unwrap(), 1);
    let _ = assert_ready!(spawn(store.put("k", "passes")).poll()).unwrap();
    gate.open();
    let _ = assert_ready!(hangs.poll()).unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("hangs".into()));
    assert_eq!(below.usage().await.unwrap().entries, Some(1));
}

/// Lets the background task run until nothing moves.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn sweeping(below: Below, clock: &ManualClock) -> Expire<Below> {
    let config = ExpireConfig { sweep_every: Span(60 * SECOND), ..ExpireConfig::default() };
    let context = Context { background: true, ..context(clock) };
    ExpireLayer::new(&config, &context).unwrap().layer(below)
}

#[tokio::test]
async fn the_background_task_sweeps_every_so_often() {
    let (_, below, faults, clock) = over_memory(&ExpireConfig::default());
    let store = sweeping(Arc::clone(&below), &clock);
    mostly_expiring(&store, &clock).await;
    settle().await;
    clock.advance(59 * SECOND);
    settle().await;
    assert_eq!(below.usage().await.unwrap().entries, Some(100));
    faults.on(Operation::Scan).times(1).fail(ErrorKind::Unavailable);
    clock.advance(SECOND);
    settle().await;
    assert_eq!(below.usage().await.unwrap().entries, Some(100), "failed, and tried again later");
    clock.advance(60 * SECOND);
    settle().await;
    assert_eq!(below.usage().await.unwrap().entries, Some(10));
}

#[tokio::test]
async fn closing_ends_the_background_task() {
    let (_, below, faults, clock) = over_memory(&ExpireConfig::default());
    let store = sweeping(Arc::clone(&below), &clock);
    settle().await;
    assert_eq!(clock.sleepers(), 1);
    store.close().await.unwrap();
    store.close().await.unwrap();
    let scans = faults.calls(Operation::Scan);
    clock.advance(3600 * SECOND);
    settle().await;
    assert_eq!(faults.calls(Operation::Scan), scans);
    assert_eq!(faults.calls(Operation::Close), 2);
}

#[tokio::test]
async fn closing_waits_for_the_page_that_is_being_swept() {
    let (_, below, faults, clock) = over_memory(&ExpireConfig::default());
    let store = sweeping(below, &clock);
    mostly_expiring(&store, &clock).await;
    settle().await;
    let gate = faults.on(Operation::Write).hold();
    clock.advance(60 * SECOND);
    gate.reached(1).await;
    let mut close = spawn(store.close());
    assert_pending!(close.poll());
    assert_eq!(faults.calls(Operation::Close), 0);
    gate.open();
    close.await.unwrap();
    assert_eq!(faults.calls(Operation::Close), 1);
}

#[tokio::test]
async fn dropping_the_stack_ends_the_background_task() {
    let (first, below, _, clock) = over_memory(&ExpireConfig::default());
    drop(first);
    let store = sweeping(Arc::clone(&below), &clock);
    let snapshot = store.snapshot().await.unwrap();
    settle().await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks(), 1);
    drop(store);
    settle().await;
    assert_eq!(tasks(), 0, "though a snapshot is left");
    assert_eq!(Arc::strong_count(&below), 1);
    drop(snapshot);
}

#[test]
fn sweeping_in_the_background_needs_a_runtime() {
    let background = Context { background: true, ..Context::default() };
    let refused = ExpireLayer::new(&ExpireConfig::default(), &background).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(ExpireLayer::new(&ExpireConfig::default(), &Context::default()).is_ok());
}

#[tokio::test]
async fn a_sweep_beside_a_run_removes_nothing_of_it() {
    let (store, below, _, clock) = over_memory(&ExpireConfig::default());
    mostly_expiring(&store, &clock).await;
    clock.advance(SECOND);
    let run = futures_util::stream::once(async {
        assert_eq!(store.sweep().await?, 90);
        let _ = store.put("other", "writers are not held up").await?;
        Ok(Page { entries: vec![Entry { key: vec![1].into(), value: "anew".into() }] })
    });
    assert_eq!(store.ingest(run.boxed()).await.unwrap(), 1);
    assert_eq!(store.sweep().await.unwrap(), 0);
    assert_eq!(store.get(&[1]).await.unwrap(), Some("anew".into()));
    assert_eq!(below.usage().await.unwrap().entries, Some(12));
}
