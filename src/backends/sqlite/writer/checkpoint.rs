//! The write-ahead log: copied into the database in time, and kept from growing without end.

use std::time::Duration;

use super::super::error::is_failed_sync;
use super::{Engine, LONG_LOG_FRAMES};

/// New frames in the log at which it is copied into the database: about 4 MiB, as SQLite does by itself.
const CHECKPOINT_FRAMES: i64 = 1000;
/// How long readers are waited for. A page of a scan takes less; a snapshot is not worth the wait.
const RESTART_PATIENCE: Duration = Duration::from_millis(100);

/// What a checkpoint finds.
pub(super) struct Log {
    /// Whether somebody's reads were in the way.
    held: bool,
    frames: i64,
    /// Frames that are still to be copied.
    uncopied: i64,
}

impl Engine {
    /// Whether there is enough in the log for a checkpoint.
    pub(super) fn log_is_long(&self) -> bool {
        self.unseen.set(0);
        self.manner.wal
            && self
                .log("NOOP")
                .is_ok_and(|log| log.uncopied - self.behind.get() >= CHECKPOINT_FRAMES)
    }

    /// In a turn of the writer, as a log that is begun again is locked for that long.
    pub(super) fn look_after_log(&self) {
        if !self.log_is_long() {
            return;
        }
        let Some(log) = self.checkpoint("PASSIVE") else { return };
        if log.frames < self.long.get() {
            return;
        }
        let _ = self.db.busy_timeout(RESTART_PATIENCE);
        let restarted = self.checkpoint("RESTART").is_some_and(|log| !log.held);
        let _ = self.db.busy_timeout(Duration::ZERO);
        // Where something holds the log for long, waiting for it each time would only slow writes down.
        self.long.set(LONG_LOG_FRAMES + if restarted { 0 } else { log.frames });
    }

    /// A checkpoint.
    fn log(&self, how: &str) -> rusqlite::Result<Log> {
        let mut statement = self.db.prepare_cached(&format!("PRAGMA wal_checkpoint({how})"))?;
        statement.query_row([], |row| {
            let frames = row.get(1)?;
            Ok(Log { held: row.get(0)?, frames, uncopied: frames - row.get::<_, i64>(2)? })
        })
    }

    /// Copies the log into the database. What a snapshot holds back stays in the log until later.
    pub(super) fn checkpoint(&self, how: &str) -> Option<Log> {
        if !self.manner.wal {
            return None;
        }
        self.restarts.set(true);
        match self.log(how) {
            Ok(log) => {
                self.behind.set(log.uncopied);
                Some(log)
            }
            Err(error) => {
                if is_failed_sync(&error) {
                    self.base.site.database.fail();
                }
                // The writes are in the log; the next write meets the same trouble and says so.
                tracing::debug!(%error, "the log was not copied into the database");
                None
            }
        }
    }

    /// Copies the log into the database, and empties it if nobody holds it. Takes a turn.
    pub(in crate::backends::sqlite) fn empty_log(&self) {
        let _turn = self.base.site.writing();
        let _ = self.checkpoint("TRUNCATE");
    }
}
