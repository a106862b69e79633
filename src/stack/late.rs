//! What is below a `write_back`, opened while the stack above it runs already.
//!
//! A service starts while its database is away: with `open: later`, `write_back` takes writes into its journal, and answers for what
//! is in it. [`Late`] takes the place of everything below it. A task opens that, again and again, until it is there.
//!
//! - **When.** At opening, the first attempt is waited for, as each backend bounds it, and for [`FIRST`] at most. Only where it fails because
//!   the store cannot be reached (`Unavailable`, `Timeout`) is the stack opened without it. Everything else fails at once, as ever.
//! - **Guarantees.** Those of a backend are those of its settings; opening checks that the server keeps them. So they are known before:
//!   layers above rely on them, and a batch is checked against them. A store that guarantees anything else when it comes is refused.
//! - **For which data.** The journal has written down for which data its writes are. That is the identity meanwhile, and the store that
//!   comes must have it. A journal that was never open over a store has none, so its first opening needs the store: no write is
//!   acknowledged that nobody has checked settings and server for.
//! - **When it comes**, it is checked as at any opening: its settings, whether a restore into it was cut off, its identity. What is
//!   refused then stops the `write_back`: every `write`, `flush` and `close` gives that error, in the words of an opening. Otherwise
//!   the journal is replayed.
//! - **Until then** every operation fails with the error of the last attempt, and has done nothing.
//!
//! Layers below `write_back` are made again with each attempt, and their series are counted once they are there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::layer::{Rewrite, RewriteReport};
use crate::reply::Reply;
use crate::store::{Changes, Pages, Read, Store};
use crate::telemetry::Labels;
use crate::types::{Batch, Commit, Identity, Inspection, Profile, Scan, Scope, Usage, Value};
use crate::write_group::write_in_order;

/// How long the first attempt is waited for. It goes on behind that.
pub(super) const FIRST: Duration = Duration::from_secs(5);
/// The first pause after an attempt; it doubles with each further one, up to the longest. Jitter adds up to as much again.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// An attempt to open what is below.
pub(super) type Attempt = BoxFuture<'static, Result<Arc<dyn Store>>>;

/// How attempts are made.
pub(super) struct Attempts {
    /// One that is under way.
    pub(super) first: Option<Attempt>,
    pub(super) next: Box<dyn Fn() -> Attempt + Send + Sync>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) seed: u64,
    /// Where failed attempts are counted.
    pub(super) labels: Labels,
}

/// Whether a stack is opened without the store that says so.
pub(super) fn is_away(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
}

/// Whether the store may come later, once the stack is open: also a standby becomes the primary, and a password is corrected.
fn may_come(error: &Error) -> bool {
    is_away(error)
        || matches!(error.kind(), ErrorKind::Access | ErrorKind::Capacity | ErrorKind::Aborted)
}

/// See the [module docs](self).
pub(super) struct Late {
    shared: Arc<Shared>,
    profile: Profile,
    /// As it was written down.
    identity: Option<Identity>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    here: OnceLock<Arc<dyn Store>>,
    /// Why it is not there.
    away: Mutex<Error>,
    closed: AtomicBool,
}

impl Late {
    /// Begins to open it. The receiver is told once it is there, or is refused for good. `away`: why it is not there yet. Needs a runtime.
    pub(super) fn begin(
        attempts: Attempts,
        away: Error,
        profile: Profile,
        identity: Option<Identity>,
    ) -> (Arc<Self>, oneshot::Receiver<Result<()>>) {
        let away = Mutex::new(away.with_outcome(Outcome::Nothing));
        let shared =
            Arc::new(Shared { here: OnceLock::new(), away, closed: AtomicBool::new(false) });
        let (told, arrival) = oneshot::channel();
        let own = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let arrived = own.open(attempts).await;
            // An error means that the stack is gone.
            let _ = told.send(arrived);
        });
        let task = Mutex::new(Some(task));
        (Arc::new(Self { shared, profile, identity, task }), arrival)
    }

    fn here(&self) -> Result<&Arc<dyn Store>> {
        match self.shared.here.get() {
            Some(store) => Ok(store),
            None if self.shared.closed.load(Ordering::Acquire) => Err(Error::closed()),
            None => Err(self.shared.away.lock().clone()),
        }
    }

    /// The rewriter of a layer that is not there.
    pub(super) fn rewriter(self: &Arc<Self>, layer: &'static str) -> Arc<dyn Rewrite> {
        Arc::new(LateRewriter { late: Arc::clone(self), layer })
    }
}

impl Shared {
    async fn open(&self, mut attempts: Attempts) -> Result<()> {
        let pauses = ExponentialBuilder::new()
            .with_min_delay(PAUSE)
            .with_max_delay(LONGEST)
            .without_max_times()
            .with_jitter()
            .with_jitter_seed(attempts.seed)
            .build();
        let mut attempt = attempts.first.take();
        for pause in pauses {
            if let Some(attempt) = attempt {
                match attempt.await {
                    Ok(store) => {
                        tracing::info!("the store below was opened");
                        // It is set by this task alone.
                        let _ = self.here.set(store);
                        return Ok(());
                    }
                    Err(error) => {
                        attempts.labels.count_error(&error);
                        // What is written back meanwhile is not what is refused: it waits until the layer has stopped.
                        let away = error.clone().with_retry(Retry::Later);
                        *self.away.lock() = away.with_outcome(Outcome::Nothing);
                        if !may_come(&error) {
                            return Err(error);
                        }
                        tracing::warn!(%error, ?pause, "the store below was not opened, and is tried again");
                    }
                }
            }
            attempts.clock.sleep(pause).await;
            attempt = Some((attempts.next)());
        }
        Err(Error::internal("the pauses have ended"))
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Read for Late {
    fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
        match self.here() {
            Ok(store) => store.get(key),
            Err(error) => Reply::Now(Err(error)),
        }
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
        match self.here() {
            Ok(store) => store.get_many(keys),
            Err(error) => Reply::Now(Err(error)),
        }
    }

    fn scan(&self, scan: Scan) -> Pages<'_> {
        match self.here() {
            Ok(store) => store.scan(scan),
            Err(error) => futures_util::stream::once(ready(Err(error))).boxed(),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Late {
    async fn write(&self, batch: Batch) -> Result<Commit> {
        self.here()?.write(batch).await
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        match self.here() {
            Ok(store) => store.write_group(group).await,
            // Each of them says so.
            Err(_) => write_in_order(self, group).await,
        }
    }

    async fn ingest(&self, run: Pages<'_>) -> Result<u64> {
        self.here()?.ingest(run).await
    }

    async fn changes(&self) -> Result<Changes> {
        self.here()?.changes().await
    }

    async fn invalidate(&self, scope: Scope) -> Result<()> {
        self.here()?.invalidate(scope).await
    }

    async fn inspect(&self, key: &[u8]) -> Result<Vec<Inspection>> {
        self.here()?.inspect(key).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn Read>> {
        self.here()?.snapshot().await
    }

    async fn flush(&self) -> Result<()> {
        self.here()?.flush().await
    }

    async fn compact(&self) -> Result<()> {
        self.here()?.compact().await
    }

    async fn usage(&self) -> Result<Usage> {
        self.here()?.usage().await
    }

    async fn count(&self, prefix: &[u8]) -> Result<Option<u64>> {
        self.here()?.count(prefix).await
    }

    /// What is not there has nothing to be closed.
    async fn close(&self) -> Result<()> {
        self.shared.closed.store(true, Ordering::Release);
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.abort();
            // An error means that it was ended, as was asked. Nothing arrives behind it.
            let _ = task.await;
        }
        match self.shared.here.get() {
            Some(store) => store.close().await,
            None => Ok(()),
        }
    }

    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    /// The store that comes has the same, or is refused.
    fn identity(&self) -> Option<Identity> {
        match self.shared.here.get() {
            Some(store) => store.identity(),
            None => self.identity.clone(),
        }
    }
}

/// A layer below, which has its rewriter once the stack is opened over the store.
struct LateRewriter {
    late: Arc<Late>,
    layer: &'static str,
}

#[async_trait]
impl Rewrite for LateRewriter {
    fn name(&self) -> &str {
        self.layer
    }

    async fn rewrite(
        &self,
        _: Scan,
        _: &mut (dyn for<'r> FnMut(&'r RewriteReport) + Send),
    ) -> Result<RewriteReport> {
        self.late.here()?;
        Err(Error::unsupported(
            "the store below was away when this stack was opened; open the stack again to rewrite what the store holds",
        )
        .with_layer(self.layer))
    }
}
