//! The change feed: what others change, as the store below reports it.
//!
//! A task of its own subscribes, drops from the cache what was changed, and then passes each
//! change on to the subscribers of this cache. In that order: a cache further out that was told first
//! could ask this one, and keep the old answer. For the same reason there is one subscription for both: of
//! two, one could be ahead of the other.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use super::change_feed::ChangeFeed;
use super::coherence::Mode;
use super::config::CacheConfig;
use super::state::{Cache, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::layer::LayerConfig;
use crate::store::{Change, Changes, Store};

/// The first pause before subscribing again; it doubles with each further one.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl<S> Shared<S> {
    /// Applies a change, and passes it on.
    fn apply(&self, change_feed: &ChangeFeed, change: Change) {
        match change {
            Change::Keys(keys) => {
                self.drop_keys(&keys);
                change_feed.foreign.increment(keys.len() as u64);
                change_feed.tell(Change::Keys(keys));
            }
            Change::Prefix(prefix) => {
                self.drop_prefix(&prefix);
                change_feed.foreign.increment(1);
                change_feed.tell(Change::Prefix(prefix));
            }
            Change::All => {
                change_feed.all.increment(1);
                self.connected(change_feed);
            }
            Change::Lost => self.disconnected(change_feed),
        }
    }

    /// From now on changes are reported. What changed until now, nobody knows.
    fn connected(&self, change_feed: &ChangeFeed) {
        self.coherence.epochs.begin(Mode::Keeping);
        self.clear();
        change_feed.active.set(1);
        change_feed.tell(Change::All);
    }

    /// From now on changes go unreported.
    fn disconnected(&self, change_feed: &ChangeFeed) {
        if self.coherence.epochs.now().keeps() {
            self.coherence.epochs.begin(Mode::Disconnected);
            self.clear();
            change_feed.lost.increment(1);
            change_feed.active.set(0);
            change_feed.tell(Change::Lost);
        }
    }
}

impl<S: Store> Cache<S> {
    /// Subscribes to the change feed of the store below, if it has one.
    pub(super) fn ensure_subscribed(&self) {
        if let Some(change_feed) = &self.0.change_feed
            && !self.0.coherence.epochs.now().keeps()
        {
            // Where it cannot begin to follow it, nothing is kept.
            let _ = self.follow(change_feed);
        }
    }
}

impl<S: Store> Cache<S> {
    /// Starts the task unless it runs.
    pub(super) fn follow(&self, change_feed: &ChangeFeed) -> Result<()> {
        // Only the task holds a receiver.
        if change_feed.stop.receiver_count() > 0 {
            return Ok(());
        }
        let runtime = Handle::try_current().map_err(|error| {
            let message =
                "a cache follows the change feed in a task of its own, and there is no tokio runtime here";
            Error::unsupported(message).with_source(error)
        })?;
        let _starting = change_feed.starting.lock();
        if *change_feed.stop.borrow() {
            return Err(Error::closed());
        }
        if change_feed.stop.receiver_count() == 0 {
            change_feed.attempt.send_replace(None);
            let (shared, stop) = (Arc::downgrade(&self.0), change_feed.stop.subscribe());
            runtime.spawn(FeedTask { shared, stop }.run());
        }
        Ok(())
    }

    /// The changes that this cache passes on: each comes when it was applied here.
    pub(super) async fn subscribe(&self, change_feed: &ChangeFeed) -> Result<Changes> {
        self.follow(change_feed)?;
        let mut attempt = change_feed.attempt.subscribe();
        // The sender lives as long as this cache.
        if let Ok(ended) = attempt.wait_for(Option::is_some).await
            && let Some(Err(error)) = &*ended
        {
            return Err(error.clone());
        }
        let Some(changes) = change_feed.outer.lock().as_ref().map(broadcast::Sender::subscribe)
        else {
            return Err(Error::closed());
        };
        // Looked at behind the subscription: what happens from here on is told.
        let first = (!self.0.coherence.epochs.now().keeps()).then_some(Change::Lost);
        let shared = Arc::downgrade(&self.0);
        let rest = futures_util::stream::unfold((changes, shared), |(mut changes, shared)| async {
            let change = match changes.recv().await {
                Ok(change) => change,
                Err(RecvError::Closed) => return None,
                // What was missed may have been the loss of the connection.
                Err(RecvError::Lagged(_)) => match shared.upgrade()?.coherence.epochs.now().keeps()
                {
                    true => Change::All,
                    false => Change::Lost,
                },
            };
            Some((change, (changes, shared)))
        });
        Ok(futures_util::stream::iter(first).chain(rest).boxed())
    }
}

/// The task. It does not keep the cache alive.
struct FeedTask<S: Store> {
    shared: Weak<Shared<S>>,
    stop: watch::Receiver<bool>,
}

/// The runtime may end the task silently.
impl<S: Store> Drop for FeedTask<S> {
    fn drop(&mut self) {
        self.with(|shared, change_feed| {
            shared.disconnected(change_feed);
            change_feed.attempt.send_if_modified(|attempt| {
                let unexpected = !matches!(attempt, Some(Err(_)));
                if unexpected {
                    let message =
                        "the runtime of the task that follows the change feed was shut down";
                    *attempt = Some(Err(Error::new(ErrorKind::Unavailable, message)));
                }
                unexpected
            });
        });
    }
}

impl<S: Store> FeedTask<S> {
    fn with<T>(&self, act: impl FnOnce(&Arc<Shared<S>>, &ChangeFeed) -> T) -> Option<T> {
        let shared = self.shared.upgrade()?;
        shared.change_feed.as_ref().map(|change_feed| act(&shared, change_feed))
    }

    async fn run(self) {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            // An error means that the sender, and with it the cache, is gone.
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.keep_following() => {}
        }
    }

    /// Subscribes again and again, until the store below is closed.
    async fn keep_following(&self) {
        let Some((clock, seed)) =
            self.with(|shared, change_feed| (Arc::clone(&shared.clock), change_feed.seed))
        else {
            return;
        };
        let pauses = ExponentialBuilder::new()
            .with_min_delay(SHORTEST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .with_jitter()
            .with_jitter_seed(seed);
        let mut pause: ExponentialBackoff = pauses.build();
        loop {
            let began = clock.monotonic();
            let outcome = AssertUnwindSafe(self.follow()).catch_unwind().await;
            let error =
                outcome.unwrap_or_else(|_| Error::internal("following the change feed panicked"));
            self.with(|shared, change_feed| {
                shared.disconnected(change_feed);
                change_feed.failed(&error);
            });
            if error.kind() == ErrorKind::Closed {
                self.with(|_, change_feed| change_feed.outer.lock().take());
                return;
            }
            tracing::warn!(
                ?error,
                "the change feed below the cache is lost, and the cache keeps nothing"
            );
            // A subscription that lasted was no failure.
            if clock.monotonic().saturating_sub(began) > LONGEST_PAUSE {
                pause = pauses.build();
            }
            clock.sleep(pause.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }

    /// Applies changes until the feed ends. Gives the reason.
    async fn follow(&self) -> Error {
        let mut changes = match self.subscribe().await {
            Ok(changes) => changes,
            Err(error) => return error,
        };
        let follows = self.with(|shared, change_feed| {
            shared.connected(change_feed);
            change_feed.attempt.send_replace(Some(Ok(())));
        });
        if follows.is_none() {
            return Error::closed();
        }
        while let Some(change) = changes.next().await {
            if self.with(|shared, change_feed| shared.apply(change_feed, change)).is_none() {
                return Error::closed();
            }
            // Changes that are there already must not keep the thread from others.
            tokio::task::coop::consume_budget().await;
        }
        Error::new(ErrorKind::Unavailable, "the change feed of the store below has ended")
    }

    async fn subscribe(&self) -> Result<Changes> {
        let Some(shared) = self.shared.upgrade() else { return Err(Error::closed()) };
        let limit = shared.load_timeout;
        tokio::select! {
            changes = shared.inner.changes() => changes,
            () = shared.clock.sleep(limit) => {
                let message = format!("subscribing took longer than load_timeout ({limit:?})");
                Err(Error::new(ErrorKind::Timeout, message).with_layer(CacheConfig::NAME))
            }
        }
    }
}
