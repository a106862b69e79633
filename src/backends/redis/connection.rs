//! A connection to one server, shared by all operations, and replaced when it is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{Either, select};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, PushInfo, PushKind, RedisResult, Value};

use super::error::{said, unreachable};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Outcome, Result};

/// How old a connection is that is left for another one to the same address.
const AGE: Duration = Duration::from_secs(1);

/// How connections are made.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) connect_timeout: Duration,
}

/// Waits for work, up to a deadline. `None`: it passed.
pub(super) async fn within<T>(
    clock: &dyn Clock,
    span: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    match select(std::pin::pin!(work), clock.sleep(span)).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

/// A connection that was made.
#[derive(Clone)]
pub(super) struct Live {
    connection: MultiplexedConnection,
    /// Set as soon as the connection is lost, so that nothing more is sent into it.
    gone: Arc<AtomicBool>,
    /// When, by the monotonic clock.
    made: Duration,
}

impl Live {
    /// Sends commands in one go, and gives the answer to each.
    pub(super) async fn send(&mut self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        self.connection.send_packed_commands(commands, 0, commands.len()).await
    }

    /// Whether it is the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.gone, &other.gone)
    }
}

/// A server, and the connection to it, if there is one.
pub(super) struct Link {
    client: Client,
    dial: Dial,
    current: Mutex<Option<Live>>,
    /// Held by the task that connects; the others wait for what comes of it.
    connecting: tokio::sync::Mutex<()>,
    attempts: AtomicU64,
    failure: Mutex<Option<Error>>,
    waiting: OnceLock<Arc<Link>>,
}

impl Link {
    pub(super) fn new(client: Client, dial: Dial) -> Self {
        Self {
            client,
            dial,
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            attempts: AtomicU64::new(0),
            failure: Mutex::default(),
            waiting: OnceLock::new(),
        }
    }

    /// The same server by another connection, for commands that keep those behind them waiting.
    pub(super) fn waiting(&self) -> Arc<Self> {
        let second = || Arc::new(Self::new(self.client.clone(), self.dial.clone()));
        Arc::clone(self.waiting.get_or_init(second))
    }

    /// Host and port.
    pub(super) fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The connection, if there is one.
    pub(super) fn present(&self) -> Option<Live> {
        self.current.lock().as_ref().filter(|live| !live.gone.load(Ordering::Acquire)).cloned()
    }

    /// The connection, which is made if there is none. A task that waits while another one tries shares the
    /// failure, so that a server that is down costs everybody one attempt's time, not one after the other.
    pub(super) async fn live(&self) -> Result<Live> {
        if let Some(live) = self.present() {
            return Ok(live);
        }
        let seen = self.attempts.load(Ordering::Acquire);
        let _connecting = self.connecting.lock().await;
        if let Some(live) = self.present() {
            return Ok(live);
        }
        if self.attempts.load(Ordering::Acquire) != seen
            && let Some(error) = self.failure.lock().clone()
        {
            return Err(error);
        }
        let connected = self.connect(|_| ()).await;
        *self.failure.lock() = connected.as_ref().err().cloned();
        self.attempts.fetch_add(1, Ordering::AcqRel);
        *self.current.lock() = connected.as_ref().ok().cloned();
        connected
    }

    /// A connection of its own. `push` is told what the server says unasked.
    pub(super) async fn connect(
        &self,
        push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Live> {
        let gone = Arc::new(AtomicBool::new(false));
        let lost = Arc::clone(&gone);
        let told = move |info: PushInfo| {
            if info.kind == PushKind::Disconnection {
                lost.store(true, Ordering::Release);
            }
            push(info);
            Ok::<(), std::convert::Infallible>(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_push_sender(told);
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        match within(&*self.dial.clock, self.dial.connect_timeout, connecting).await {
            Some(Ok(connection)) => {
                Ok(Live { connection, gone, made: self.dial.clock.monotonic() })
            }
            // What was to be sent through it was not.
            Some(Err(error)) => {
                Err(unreachable(&self.address(), error).with_outcome(Outcome::Nothing))
            }
            None => Err(said(
                ErrorKind::Unavailable,
                "the server does not answer within `connect_timeout`",
            )
            .with_context(self.address())
            .with_outcome(Outcome::Nothing)),
        }
    }

    /// Sends nothing more into this connection: it may be wedged.
    pub(super) fn retire(&self, live: &Live) {
        live.gone.store(true, Ordering::Release);
        self.forget_if(|current| current.is(live));
    }

    /// Like [`retire`](Self::retire), for a connection that works and leads to the wrong server. A young one
    /// stays: where the address leads there still, everybody would connect again and again.
    pub(super) fn leave(&self, live: &Live) {
        if self.dial.clock.monotonic() >= live.made + AGE {
            self.retire(live);
        }
    }

    /// Lets go of the connection. What is under way on it goes on.
    pub(super) fn close(&self) {
        self.forget_if(|_| true);
        if let Some(second) = self.waiting.get() {
            second.close();
        }
    }

    fn forget_if(&self, which: impl Fn(&Live) -> bool) {
        let mut current = self.current.lock();
        if current.as_ref().is_some_and(which) {
            *current = None;
        }
    }
}
