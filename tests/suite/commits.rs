//! A commit waits for every layer that acknowledges a write before it is where it belongs.

use std::sync::Arc;

use async_trait::async_trait;
use tierstack::backends::Memory;
use tierstack::testing::{FaultStore, Faults};
use tierstack::{Batch, Commit, Error, ErrorKind, Operation, Read, Result, Store, forward};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok};

/// When a store acknowledges a write.
#[derive(Clone, Copy)]
enum When {
    /// Before the store below has it, which gets it in the background.
    First,
    /// After the store below, and it waits for something of its own.
    Later,
}

struct Acknowledging<S> {
    inner: Arc<S>,
    when: When,
    own: Arc<tokio::sync::Semaphore>,
}

impl<S> Acknowledging<S> {
    fn over(inner: S, when: When) -> Self {
        Self { inner: Arc::new(inner), when, own: Arc::new(tokio::sync::Semaphore::new(0)) }
    }
}

impl<S: Store> Read for Acknowledging<S> {
    forward!(self => self.inner; get, get_many, scan);
}

#[async_trait]
impl<S: Store> Store for Acknowledging<S> {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        match self.when {
            When::First => {
                let below = Arc::clone(&self.inner);
                let flush = tokio::spawn(async move { below.write(batch).await });
                Ok(Commit::at(1).durable_after(async {
                    let below = flush.await.map_err(|_| Error::internal("the flush ended"))??;
                    below.durable().await
                }))
            }
            When::Later => {
                let own = Arc::clone(&self.own);
                let commit = self.inner.write(batch).await?;
                Ok(commit.durable_after(async move {
                    own.acquire().await.map(drop).map_err(|_| Error::closed())
                }))
            }
        }
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        tierstack::write_in_order(self, group).await
    }

    forward!(self => self.inner; ingest, changes, invalidate, inspect, snapshot, flush, compact, usage, count, close, profile, identity);
}

fn put() -> Batch {
    Batch::new().put("k", "v")
}

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn durable_waits_for_every_layer_that_acknowledged_first() {
    let faults = Faults::new();
    let below = FaultStore::new(Memory::new(), &faults);
    let inner = Acknowledging::over(below, When::First);
    let outer = Acknowledging::over(inner, When::First);
    let gate = faults.on(Operation::Write).hold();
    let commit = outer.write(put()).await.unwrap();
    let mut durable = tokio_test::task::spawn(commit.durable());
    settle().await;
    assert_pending!(durable.poll(), "the write has not arrived");
    assert_eq!(outer.get(b"k").await.unwrap(), None);
    gate.open();
    settle().await;
    assert_ready_ok!(durable.poll());
    assert_eq!(outer.get(b"k").await.unwrap(), Some("v".into()));
}

#[tokio::test]
async fn an_error_below_reaches_the_outermost_commit() {
    let faults = Faults::new();
    let below = FaultStore::new(Memory::new(), &faults);
    let inner = Acknowledging::over(below, When::First);
    let outer = Acknowledging::over(Acknowledging::over(inner, When::First), When::Later);
    outer.own.close();
    faults.on(Operation::Write).fail(ErrorKind::Capacity);
    for answer in outer.write_group(vec![put(), put()]).await {
        let error = answer.unwrap().durable().await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Capacity | ErrorKind::Closed), "{error}");
    }
    let commit = outer.inner.write(put()).await.unwrap();
    assert_eq!(commit.durable().await.unwrap_err().kind(), ErrorKind::Capacity);
}

#[tokio::test]
async fn a_layer_that_adds_its_own_wait_keeps_that_of_the_store_below() {
    for below_first in [true, false] {
        let store =
            Acknowledging::over(Acknowledging::over(Memory::new(), When::Later), When::Later);
        let (below, own) = (Arc::clone(&store.inner.own), Arc::clone(&store.own));
        let (first, last) = if below_first { (below, own) } else { (own, below) };
        let mut durable = tokio_test::task::spawn(store.write(put()).await.unwrap().durable());
        assert_pending!(durable.poll());
        first.add_permits(1);
        assert_pending!(durable.poll(), "one of two");
        last.add_permits(1);
        assert_ready_ok!(durable.poll());

        // What fails of either is told at once.
        let mut durable = tokio_test::task::spawn(store.write(put()).await.unwrap().durable());
        first.forget_permits(1);
        last.close();
        assert_eq!(assert_ready_err!(durable.poll()).kind(), ErrorKind::Closed);
    }
}
