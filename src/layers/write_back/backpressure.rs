//! Waiting for a place in the sequence, and for room in memory and in the journal.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::MutexGuard;

use super::config::NAME;
use super::shared::{Log, Shared};
use super::state::State;
use crate::error::{Error, ErrorKind, Outcome, Result, Retry};
use crate::types::units::ByteSize;

/// A writer that waits for room.
struct Waiting<'a> {
    shared: &'a Shared,
    since: Duration,
}

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Shared, state: &mut State) -> Self {
        state.waiting += 1;
        state.rests = false;
        shared.counters.waits();
        Self { shared, since: shared.clock.monotonic() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.state.lock().waiting -= 1;
        let now = self.shared.clock.monotonic();
        self.shared.counters.waited(now.saturating_sub(self.since));
    }
}

impl Shared {
    pub(super) async fn append(&self, log: &Log, record: Bytes) -> Result<u64> {
        let mut append = pin!(log.journal.append(record));
        let appended = match append.as_mut().now_or_never() {
            Some(appended) => appended,
            None => {
                // There is room once the store below has more.
                let _waiting = Waiting::begin(self, &mut self.state.lock());
                self.wake.notify_one();
                // As where there is no room in memory. An error is that of the append too.
                let given = self.state.lock().last_given();
                let appended = async {
                    if let Some(given) = given {
                        let _ = self.durable(given).await;
                    }
                    append.await
                };
                tokio::select! {
                    biased;
                    appended = appended => appended,
                    () = self.closes() => Err(Error::closed().with_outcome(Outcome::Nothing)),
                    () = self.clock.sleep(self.config.max_wait.0) => Err(self.no_room_in(log)),
                }
            }
        };
        appended.map_err(|error| error.with_layer(NAME))
    }

    async fn closes(&self) {
        let mut progress = self.progress.subscribe();
        // An error means that the sender is gone, which this is a part of.
        let _ = progress.wait_for(|progress| progress.closing).await;
    }

    /// The section, once it is this batch's turn and there is room for it.
    pub(super) async fn turn(&self, bytes: u64) -> Result<MutexGuard<'_, ()>> {
        let mut arrive = pin!(async {
            let section = self.section.lock().await;
            self.room_for(bytes).await?;
            Ok(section)
        });
        // The clock is for those that wait.
        if let Some(turn) = arrive.as_mut().now_or_never() {
            return turn;
        }
        tokio::select! {
            biased;
            turn = arrive => turn,
            () = self.clock.sleep(self.config.max_wait.0) => Err(self.no_room()),
        }
    }

    async fn room_for(&self, bytes: u64) -> Result<()> {
        let mut waiting = None;
        loop {
            let mut room = pin!(self.room.notified());
            let given = {
                let mut state = self.state.lock();
                state.check_open()?;
                if state.has_room(bytes) {
                    return Ok(());
                }
                room.as_mut().enable();
                if waiting.is_none() {
                    waiting = Some(Waiting::begin(self, &mut state));
                }
                state.last_given()
            };
            self.wake.notify_one();
            // It may be of the same group, so that no other task waits for the disk and lets it be flushed.
            match given {
                Some(given) if self.durable(given).await.is_err() => {}
                _ => room.await,
            }
        }
    }

    /// Why a writer waited in vain.
    fn no_room(&self) -> Error {
        let dirty = ByteSize(self.state.lock().dirty);
        self.waited_in_vain(
            format!(
                "{dirty} of at most {} are on their way to the store below",
                self.config.max_dirty
            ),
            "which is slower than its writers",
        )
    }

    /// The same, where the journal had none.
    fn no_room_in(&self, log: &Log) -> Error {
        let (held, most) = (ByteSize(log.journal.usage().bytes), self.config.journal_bytes());
        self.waited_in_vain(
            format!("the journal holds {held} of at most {most} for the store below"),
            "and is full, or its disk is",
        )
    }

    fn waited_in_vain(&self, full: String, otherwise: &str) -> Error {
        self.counters.timed_out();
        let last = self.progress.borrow().last.clone();
        let message = format!("waited {} for room: {full}", self.config.max_wait);
        let error = match last {
            Some(last) => Error::new(ErrorKind::Unavailable, format!("{message}, which fails"))
                .with_source(last),
            None => Error::new(ErrorKind::Capacity, format!("{message}, {otherwise}")),
        };
        error.with_outcome(Outcome::Nothing).with_retry(Retry::Later).with_layer(NAME)
    }
}
