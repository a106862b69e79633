//! Writing: one connection; all that wait for it share a commit, and with it an fsync.
//!
//! The writer's thread takes all batches that wait and commits them in one transaction, each in a
//! savepoint of its own, so that one that is refused takes no other with it, except those behind it in its
//! own group. A small batch that need not
//! be synced is written on the caller's thread where nobody else writes.

mod apply;
mod checkpoint;
mod expired;

use std::cell::Cell;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{oneshot, watch};

use super::error::{NAME, closed, failed, is_busy, is_failed_sync};
use super::inline_policy::Pace;
use super::pool::{Base, offload};
use super::verify::{Found, schema_version};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Operation, Outcome, Result};
use crate::types::Batch;
use crate::write_group::complete;

/// Batches, and their bytes, that share a transaction at most.
const GROUP: usize = 1024;
const GROUP_BYTES: usize = 4 << 20;
/// A larger batch is written in the thread.
const INLINE_BYTES: usize = 64 << 10;
const INLINE_OPS: usize = 32;
/// Commits on the caller's thread between two looks at the log, which cost a tenth of a commit each.
const LOOK_EVERY: u32 = 16;
/// Pages that one step of a compaction gives back, and entries that it removes.
const STEP: i64 = 1000;

enum Task {
    Write(Waiting),
    Do(Box<dyn FnOnce(&Engine) + Send>),
}

/// A group of batches of one caller, or a single one.
struct Waiting {
    group: Vec<Batch>,
    reply: oneshot::Sender<Vec<Result<()>>>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.group.iter().map(Batch::bytes).sum()
    }
}

/// How a store reaches its writer.
pub(super) struct Writer {
    base: Arc<Base>,
    engine: Arc<Mutex<Option<Engine>>>,
    tasks: Mutex<Option<Sender<Task>>>,
    /// Ends when the thread has closed its connection.
    ended: watch::Receiver<()>,
    pace: Arc<Pace>,
    inline: bool,
    /// Whether a commit is on the disk when it returns.
    synced: bool,
}

/// How the writer works.
pub(super) struct Manner {
    pub(super) sync: bool,
    pub(super) wal: bool,
    /// Whether the rows of expired entries are removed. `None`: where tierstack made the table.
    pub(super) sweep: Option<bool>,
    /// Whether that happens along with writes.
    pub(super) background: bool,
}

impl Writer {
    pub(super) fn start(
        base: Arc<Base>,
        db: Connection,
        found: Found,
        manner: Manner,
    ) -> Result<Self> {
        let (inline, synced) = (!manner.sync, manner.sync || !manner.wal);
        let pace = Arc::new(Pace::default());
        let engine = Engine {
            db,
            base: Arc::clone(&base),
            pace: Arc::clone(&pace),
            manner,
            found: Cell::new(found),
            swept: Cell::new(Timestamp::default()),
            unseen: Cell::new(0),
            behind: Cell::new(0),
            long: Cell::new(LONG_LOG_FRAMES),
            restarts: Cell::new(true),
        };
        let engine = Arc::new(Mutex::new(Some(engine)));
        let (tasks, waiting) = mpsc::channel();
        let (alive, ended) = watch::channel(());
        let mine = Arc::clone(&engine);
        std::thread::Builder::new()
            .name("tierstack-sqlite".into())
            .spawn(move || {
                serve(&mine, &waiting);
                // Closing the last connection empties the log.
                drop(mine.lock().take());
                drop(alive);
            })
            .map_err(|error| Error::io("the writer's thread cannot be started", error))?;
        let tasks = Mutex::new(Some(tasks));
        Ok(Self { base, engine, tasks, ended, pace, inline, synced })
    }

    pub(super) async fn write(&self, batch: Batch) -> Result<()> {
        if let Some(done) = self.at_once(std::slice::from_ref(&batch)) {
            return only(done);
        }
        only(self.hand_over(vec![batch]).await?)
    }

    /// One answer for each batch. What takes effect is a prefix.
    pub(super) async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<()>> {
        if let Some(done) = self.at_once(&group) {
            return done;
        }
        let batches = group.len();
        let answers = self.hand_over(group).await;
        answers.unwrap_or_else(|error| all_failed(&error, batches))
    }

    async fn hand_over(&self, group: Vec<Batch>) -> Result<Vec<Result<()>>> {
        let (reply, done) = oneshot::channel();
        self.send(Task::Write(Waiting { group, reply }))?;
        done.await.map_err(|_| ended())
    }

    /// The answers, unless it may take long or somebody else is writing.
    fn at_once(&self, group: &[Batch]) -> Option<Vec<Result<()>>> {
        let ops: usize = group.iter().map(Batch::len).sum();
        let small = ops.max(group.len()) <= INLINE_OPS
            && group.iter().map(Batch::bytes).sum::<usize>() <= INLINE_BYTES;
        if !self.inline || !small || !self.pace.is_fast() {
            return None;
        }
        let engine = self.engine.try_lock()?;
        let engine = engine.as_ref()?;
        if engine.has_upkeep() {
            return None;
        }
        // Of another store over the same database.
        let _turn = self.base.site.try_writing()?;
        match engine.timed(|| engine.commit(&[group])) {
            Ok(mut answers) => answers.pop(),
            // The thread finds out which batch it is.
            Err(Failed::Engine(error)) if is_busy(&error) || group.len() > 1 => None,
            Err(failed) => Some(all_failed(&failed.into_error(), group.len())),
        }
    }

    fn send(&self, task: Task) -> Result<()> {
        let tasks = self.tasks.lock();
        tasks.as_ref().ok_or_else(closed)?.send(task).map_err(|_| ended())
    }

    /// Does something between two transactions.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, done) = oneshot::channel();
        self.send(Task::Do(Box::new(move |engine| {
            if !reply.is_closed() {
                let _ = reply.send(work(engine));
            }
        })))?;
        done.await.map_err(|_| ended())?
    }

    /// Syncs the log, by its file: a checkpoint would pass over what a snapshot holds back.
    pub(super) async fn flush(&self) -> Result<()> {
        self.base.check_open()?;
        if self.synced {
            return Ok(());
        }
        let base = Arc::clone(&self.base);
        offload(move || sync_log(&base, Operation::Flush)).await
    }

    /// As if the disk had failed to save a write.
    #[cfg(test)]
    pub(super) fn fail_sync(&self) {
        self.base.site.database.fail();
    }

    /// Writes what waits, syncs it, and closes the connection.
    pub(super) async fn close(&self) -> Result<()> {
        let first = self.tasks.lock().take();
        let synced = match first {
            Some(tasks) => {
                let (reply, done) = oneshot::channel();
                // The last task, as the sender goes with it.
                let sync = Task::Do(Box::new(move |engine: &Engine| {
                    let _ = reply.send(engine.finish());
                }));
                if tasks.send(sync).is_ok() { done.await.map_err(|_| ended())? } else { Ok(()) }
            }
            None => Ok(()),
        };
        // Nothing is ever sent: it fails when the thread has ended.
        let _ = self.ended.clone().changed().await;
        synced
    }
}

/// The answer to a group of one batch.
fn only(mut answers: Vec<Result<()>>) -> Result<()> {
    answers.pop().unwrap_or_else(|| Err(ended()))
}

/// The answers to a group that failed as a whole.
fn all_failed(error: &Error, batches: usize) -> Vec<Result<()>> {
    let known = if error.outcome() == Outcome::Nothing { 1 } else { batches };
    complete((0..known).map(|_| Err(error.clone())).collect(), batches)
}

fn ended() -> Error {
    Error::internal("the writer's thread ended").with_layer(NAME)
}

/// As with `RAISE(IGNORE)`: SQLite reports success.
fn overruled() -> Error {
    Error::invalid(
        "a trigger of the table skips the operation, or changes what it writes; nothing was written",
    )
    .with_layer(NAME)
}

fn sync_log(base: &Base, operation: Operation) -> Result<()> {
    // Closing it again releases no lock of SQLite: those are on its two other files.
    let synced = match File::options().read(true).write(true).open(base.site.log()) {
        Ok(log) => log.sync_data().inspect_err(|_| base.site.database.fail()),
        // No log: all of it is in the database, synced before the log went.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    let checked = base.site.database.check();
    checked
        .and(synced.map_err(|error| Error::io("the log cannot be synced", error)))
        .map_err(|error| error.with_operation(operation).with_layer(NAME))
}

fn serve(engine: &Mutex<Option<Engine>>, tasks: &Receiver<Task>) {
    let mut next = tasks.recv().ok();
    while let Some(task) = next.take() {
        let mut group = Vec::new();
        match task {
            Task::Write(first) => {
                let (mut batches, mut bytes) = (first.group.len(), first.bytes());
                group.push(first);
                while batches < GROUP && bytes < GROUP_BYTES {
                    match tasks.try_recv() {
                        Ok(Task::Write(another)) => {
                            batches += another.group.len();
                            bytes += another.bytes();
                            group.push(another);
                        }
                        other => {
                            next = other.ok();
                            break;
                        }
                    }
                }
                // A write that was given up must not take effect after later ones.
                group.retain(|waiting| !waiting.reply.is_closed());
                if let Some(engine) = engine.lock().as_ref() {
                    engine.serve(group);
                }
            }
            Task::Do(work) => {
                if let Some(engine) = engine.lock().as_ref() {
                    work(engine);
                }
            }
        }
        if next.is_none() {
            next = tasks.recv().ok();
        }
    }
}

/// Why a transaction was not committed.
enum Failed {
    Engine(rusqlite::Error),
    /// Not SQLite's: the batch is refused, or the store broken.
    Refused(Error),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Engine(error)
    }
}

impl Failed {
    /// Whether any other batch would fail with the same.
    fn is_of_all(&self) -> bool {
        match self {
            Self::Engine(error) => is_busy(error),
            Self::Refused(_) => true,
        }
    }

    fn into_error(self) -> Error {
        match self {
            Self::Engine(error) => failed(Operation::Write, error),
            Self::Refused(error) => error.with_operation(Operation::Write),
        }
    }
}

/// Frames in the log, about 64 MiB, at which readers are waited for: reads that overlap without end keep it
/// from beginning again by itself.
const LONG_LOG_FRAMES: i64 = if cfg!(test) { 2_000 } else { 16_000 };

/// The connection that writes.
pub(super) struct Engine {
    db: Connection,
    base: Arc<Base>,
    pace: Arc<Pace>,
    manner: Manner,
    /// What the table is like, as far as nobody has changed it.
    found: Cell<Found>,
    /// When expired entries were last removed.
    swept: Cell<Timestamp>,
    /// Commits since somebody last looked at the log.
    unseen: Cell<u32>,
    /// Frames that the last checkpoint had to leave in the log.
    behind: Cell<i64>,
    /// Frames in the log at which readers are waited for.
    long: Cell<i64>,
    /// Whether the next commit may begin the log again, which is synced.
    restarts: Cell<bool>,
}

impl Engine {
    /// Writes what waits and answers each.
    fn serve(&self, waiting: Vec<Waiting>) {
        let groups: Vec<&[Batch]> = waiting.iter().map(|waiting| &waiting.group[..]).collect();
        let answers = self.answers(&groups);
        for (waiting, answers) in waiting.into_iter().zip(answers) {
            let _ = waiting.reply.send(answers);
        }
        if self.log_is_long() {
            let _turn = self.base.site.writing();
            self.look_after_log();
        }
    }

    fn answers(&self, groups: &[&[Batch]]) -> Vec<Vec<Result<()>>> {
        match self.attempt(groups) {
            Ok(answers) => answers,
            // What is too large for the disk must not fail those that happen to be with it.
            Err(Failed::Engine(error)) if groups.len() > 1 && !is_busy(&error) => {
                groups.iter().flat_map(|group| self.answers(&[group])).collect()
            }
            Err(failed) => match groups {
                // Nor those before it in its group.
                [group] if group.len() > 1 && !failed.is_of_all() => vec![self.in_steps(group)],
                _ => {
                    let error = failed.into_error();
                    groups.iter().map(|group| all_failed(&error, group.len())).collect()
                }
            },
        }
    }

    /// Writes the batches of a group one after the other.
    fn in_steps(&self, group: &[Batch]) -> Vec<Result<()>> {
        let mut answers = Vec::with_capacity(group.len());
        for batch in group {
            answers.extend(self.answers(&[std::slice::from_ref(batch)]).into_iter().flatten());
            if answers.last().is_some_and(Result::is_err) {
                break;
            }
        }
        complete(answers, group.len())
    }

    fn attempt(&self, groups: &[&[Batch]]) -> Result<Vec<Vec<Result<()>>>, Failed> {
        let _turn = self.base.site.writing();
        self.base.site.check_unmoved().map_err(Failed::Refused)?;
        let committed = self.timed(|| self.base.site.patient(&self.db, |_| self.commit(groups)));
        if committed.is_ok() {
            self.sweep();
        }
        committed
    }

    fn timed<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = self.base.clock.monotonic();
        let done = work();
        self.pace.took(self.base.clock.monotonic().saturating_sub(begun));
        done
    }

    /// One transaction. Gives the answers to each group, or why nothing was written at all.
    fn commit(&self, groups: &[&[Batch]]) -> Result<Vec<Vec<Result<()>>>, Failed> {
        self.base.site.database.check().map_err(Failed::Refused)?;
        let now = self.base.clock.now();
        let committed = match groups {
            // A single statement is a transaction by itself, unless a trigger ends it with
            // `RAISE(FAIL)`, which keeps what was done so far.
            [[one]]
                if one.len() == 1 && !one.is_conditional() && !self.found.get().has_triggers =>
            {
                self.apply(one, now)
                    .and_then(|()| self.heed_schema_later(one))
                    .map(|()| vec![vec![Ok(())]])
            }
            _ => self.transaction(groups, now),
        };
        match &committed {
            Ok(_) => {
                self.restarts.set(false);
                self.unseen.set(self.unseen.get() + 1);
            }
            Err(failed) => self.heed(failed),
        }
        committed
    }

    fn heed(&self, failed: &Failed) {
        if let Failed::Engine(error) = failed
            && is_failed_sync(error)
        {
            self.base.site.database.fail();
        }
    }

    fn transaction(
        &self,
        groups: &[&[Batch]],
        now: Timestamp,
    ) -> Result<Vec<Vec<Result<()>>>, Failed> {
        // Dropped, it is rolled back.
        let transaction = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        self.heed_schema()?;
        let answers = match groups {
            [[one]] => self.apply(one, now).map(|()| vec![vec![Ok(())]])?,
            _ => {
                let answers = groups.iter().map(|group| self.in_savepoints(group, now));
                answers.collect::<Result<Vec<_>, _>>()?
            }
        };
        transaction.commit()?;
        Ok(answers)
    }

    /// Looks at the table again if somebody has changed the schema, such as by a trigger, or by another
    /// table in its place.
    fn heed_schema(&self) -> Result<(), Failed> {
        if schema_version(&self.db)? != self.found.get().version {
            self.found.set(self.base.layout.verify(&self.db, true).map_err(Failed::Refused)?);
        }
        Ok(())
    }

    /// As a single statement leaves no time to look at the schema first.
    fn heed_schema_later(&self, written: &Batch) -> Result<(), Failed> {
        match schema_version(&self.db) {
            Ok(version) if version == self.found.get().version => return Ok(()),
            Ok(_) => {}
            // What was written is written; the next one looks again.
            Err(error) if is_busy(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        // There may be triggers, until the next write has looked.
        self.found.set(Found { has_triggers: true, ..self.found.get() });
        match self.base.layout.verify(&self.db, true) {
            Ok(_) => {}
            // As above.
            Err(error) if error.kind() == ErrorKind::Unavailable => return Ok(()),
            // Another table may hold it under another key.
            Err(error) => return Err(Failed::Refused(error.with_outcome(Outcome::Unknown))),
        }
        if self.is_as_written(written)? {
            return Ok(());
        }
        Err(Failed::Refused(
            Error::invalid(
                "a new trigger skips the operation, or changes what it writes; read the entry to see what it is",
            )
            .with_layer(NAME),
        ))
    }

    /// Whether the next write is better done in the thread.
    fn has_upkeep(&self) -> bool {
        self.restarts.get()
            || self.unseen.get() >= LOOK_EVERY
                && (self.base.site.check_unmoved().is_err() || self.log_is_long())
            || self.sweep_is_due(self.base.clock.now())
    }

    /// Gives some unused pages at the end of the file back, where the database was made for it. Says
    /// whether there are more.
    pub(super) fn shrink(&self) -> Result<bool> {
        let _turn = self.base.site.writing();
        let number = |sql: &str| self.db.query_row(sql, [], |row| row.get::<_, i64>(0));
        let shrunk = self.base.site.patient(&self.db, |db| {
            const INCREMENTAL: i64 = 2;
            let before = number("PRAGMA freelist_count")?;
            if before == 0 || number("PRAGMA auto_vacuum")? != INCREMENTAL {
                return Ok(false);
            }
            // Each row is a page, so all are to be asked for.
            let mut statement = db.prepare(&format!("PRAGMA incremental_vacuum({STEP})"))?;
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
            drop(rows);
            self.look_after_log();
            let after = number("PRAGMA freelist_count")?;
            Ok(after > 0 && after < before)
        });
        shrunk.map_err(|error| failed(Operation::Compact, error))
    }

    fn finish(&self) -> Result<()> {
        if self.manner.wal && !self.manner.sync {
            sync_log(&self.base, Operation::Close)?;
        }
        self.empty_log();
        self.base.site.database.check()
    }
}
