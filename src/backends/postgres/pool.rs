//! Connections that are lent for one operation, and the deadline of each operation.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use deadpool_postgres::{
    ClientWrapper, Manager, ManagerConfig, Object, Pool, PoolConfig, QueueMode, RecyclingMethod,
    Runtime, Timeouts,
};
use futures_util::future::{Either, select};

use super::config::PostgresConfig;
use super::connect::Connector;
use super::error::no_connection;
use super::session::{Session, Way};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Operation, Outcome, Result};
use crate::types::units::Span;

/// The connections of a store.
pub(super) struct Connections {
    pool: Pool,
    connector: Connector,
    way: Arc<Way>,
    timeout: Duration,
    closed: AtomicBool,
    seed: AtomicU64,
}

impl Connections {
    pub(super) fn new(
        connector: &Connector,
        config: &PostgresConfig,
        way: Way,
        seed: u64,
    ) -> Result<Self> {
        let manager = Manager::from_connect(
            connector.config(),
            connector.clone(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        // The one used last first, so that those that a burst made stay idle.
        let timeout = config.timeout.0;
        let config = PoolConfig {
            max_size: config.pool,
            timeouts: Timeouts {
                wait: None,
                create: Some(config.connect_timeout.0),
                recycle: None,
            },
            queue_mode: QueueMode::Lifo,
        };
        let pool =
            Pool::builder(manager).config(config).runtime(Runtime::Tokio1).build().map_err(
                |error| Error::internal("the pool is set up wrongly").with_source(error),
            )?;
        Ok(Self {
            pool,
            connector: connector.clone(),
            way: Arc::new(way),
            timeout,
            closed: AtomicBool::new(false),
            seed: AtomicU64::new(seed),
        })
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.pool.close();
    }

    /// The moment, by the server's clock, after which a write that begins now must not begin there: half
    /// of the deadline. A statement takes the other half at most. So a write that was given up, and lies
    /// in a buffer of a network that was cut, can not arrive later and undo what was written since.
    ///
    /// `spent`: how long ago the write has begun.
    pub(super) fn fence(&self, spent: Duration) -> i64 {
        self.connector.server_time_in((self.timeout / 2).saturating_sub(spent))
    }

    /// Compares the server's clock with the one here again.
    pub(super) async fn read_clock(&self, lease: &Lease) -> Result<(), tokio_postgres::Error> {
        self.connector.read_clock(lease).await
    }

    /// Pauses between attempts, each with jitter of its own.
    pub(super) fn backoff(&self, first: Duration, times: usize) -> ExponentialBackoff {
        ExponentialBuilder::new()
            .with_min_delay(first)
            .with_max_delay(100 * first)
            .with_max_times(times)
            .with_jitter()
            .with_jitter_seed(self.seed.fetch_add(1, Ordering::Relaxed))
            .build()
    }

    /// A connection for one operation. Waits until one is free or made.
    pub(super) async fn lease(&self, operation: Operation) -> Result<Lease> {
        self.check_open()?;
        // What was to be sent through it was not.
        let none = |error| no_connection(operation, error).with_outcome(Outcome::Nothing);
        let object = self.pool.get().await.map_err(none)?;
        Ok(Lease { object: Some(object), way: Arc::clone(&self.way), pool: self.pool.clone() })
    }

    /// The operation within its deadline. What it holds of connections is thrown away with it.
    pub(super) async fn within<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.check_open()?;
        let done = within(operation, self.timeout, work).await;
        if done.as_ref().is_err_and(|error| error.kind() == ErrorKind::Timeout) {
            forget_idle(&self.pool);
        }
        done
    }

    /// A read, within the deadline of one. It is repeated once where a connection broke: most often it
    /// was broken before, as the server was restarted.
    pub(super) async fn read<T, F>(
        &self,
        operation: Operation,
        work: impl Fn(Lease) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let attempts = async {
            let done = work(self.lease(operation).await?).await;
            match done {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    work(self.lease(operation).await?).await
                }
                done => done,
            }
        };
        self.within(operation, attempts).await
    }
}

/// The others that are idle are most likely as dead as the one that failed.
fn forget_idle(pool: &Pool) {
    pool.retain(|_, _| false);
}

/// A connection that goes back to the pool once its operation is [finished](Self::finish), and is thrown
/// away otherwise: the answer to what was left off, or a transaction, must not meet the next caller.
pub(super) struct Lease {
    object: Option<Object>,
    way: Arc<Way>,
    pool: Pool,
}

impl Lease {
    pub(super) fn session(&self) -> Session<'_> {
        Session { client: self, way: &self.way }
    }

    /// Gives the connection back, unless the error tells that it is broken.
    pub(super) fn finish<T>(mut self, done: Result<T>) -> Result<T> {
        let broken = match &done {
            Ok(_) => false,
            Err(error) => {
                use ErrorKind::{Access, Timeout, Unavailable};
                matches!(error.kind(), Unavailable | Access | Timeout)
            }
        };
        if broken {
            drop(self);
        } else {
            drop(self.object.take());
        }
        done
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            let broken = object.is_closed();
            drop(Object::take(object));
            if broken {
                forget_idle(&self.pool);
            }
        }
    }
}

impl Deref for Lease {
    type Target = ClientWrapper;

    #[expect(
        clippy::expect_used,
        reason = "taken by `finish` and `drop` only, after which nobody has it"
    )]
    fn deref(&self) -> &ClientWrapper {
        self.object.as_ref().expect("a lease holds a connection until it ends")
    }
}

/// The work within a deadline.
pub(super) async fn within<T>(
    operation: Operation,
    deadline: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let work = std::pin::pin!(work);
    match select(work, SystemClock.sleep(deadline)).await {
        Either::Left((done, _)) => done,
        Either::Right(_) => Err(Error::new(
            ErrorKind::Timeout,
            format!("no answer of PostgreSQL within {}", Span(deadline)),
        )
        .with_operation(operation)
        .with_layer("postgres")),
    }
}
