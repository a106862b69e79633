//! The journal without threads and tasks: what is taken, and one step of writing it after the other.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

use super::disk::Disk;
use super::recover::{Recovered, recover};
use super::segment::{Entry, Open, Plan, Refused, failed};
use super::state::{Offer, OnFull, Segment, Shape, State, Work};
use crate::error::{Error, Result, Retry};

/// What callers wait for.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// The sequence of the first record that is not known to be on the disk.
    pub(super) durable: u64,
    /// Changes when positions were saved.
    pub(super) saves: u64,
    pub(super) failed: Option<Error>,
    /// Nothing is done any more.
    pub(super) closed: bool,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There may be more to do.
    Worked,
    /// The disk is full. It is to be tried again after a while.
    Stuck,
    /// The journal is closed.
    Ended,
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) id: u128,
    state: Mutex<State>,
    /// There is something to do.
    work: Condvar,
    /// There may be room.
    pub(super) room: Notify,
    progress: watch::Sender<Progress>,
    /// Held during a step. After a failure nothing uses it any more.
    open: Mutex<Open>,
    /// There are no threads: a simulation does every step.
    #[cfg(test)]
    pub(super) stepped: std::sync::atomic::AtomicBool,
}

impl Core {
    pub(super) fn open(disk: Arc<dyn Disk>, shape: Shape) -> Result<Self> {
        let recovered = recover(&*disk, shape.segment)?;
        let Recovered { id, segments, next, positions, open, torn } = recovered;
        if torn {
            tracing::warn!(
                next,
                "the journal ended in a write that was cut off, which was dropped: it was not acknowledged as durable"
            );
        }
        let (room, reserve) = (open.room(), super::segment::RESERVE);
        let held = segments.iter().map(|segment| segment.bytes).sum();
        let (pending, pending_bytes, durable) = (Vec::new(), 0, next);
        let (saved, save, rotate, waiting) = (positions.clone(), false, None, 0);
        let (full, failed, closing, segments) = (None, None, false, segments.into());
        let state = State {
            shape,
            segments,
            held,
            room,
            reserve,
            pending,
            pending_bytes,
            next,
            durable,
            positions,
            saved,
            save,
            rotate,
            full,
            failed,
            waiting,
            closing,
        };
        let progress = Progress { durable, saves: 0, failed: None, closed: false };
        let (progress, state, open) =
            (watch::Sender::new(progress), Mutex::new(state), Mutex::new(open));
        Ok(Self {
            disk,
            id,
            state,
            work: Condvar::new(),
            room: Notify::new(),
            progress,
            open,
            #[cfg(test)]
            stepped: std::sync::atomic::AtomicBool::new(false),
        })
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Looks at the state, or changes what callers may change.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let answer = look(&mut state);
        if state.has_work() {
            self.work.notify_one();
        }
        answer
    }

    pub(super) fn offer(&self, entry: &Entry, again: bool) -> Result<Offer> {
        self.with(|state| state.offer(entry, again))
    }

    /// A reader needs nothing before that any more.
    pub(super) fn advance(&self, reader: &str, next: u64) -> Result<()> {
        self.with(|state| {
            if next > state.durable {
                return Err(Error::invalid(format!(
                    "the record {} is not on the disk yet, so no reader has passed it; wait until it is durable",
                    next - 1
                )));
            }
            state.positions.advance(reader, next)
        })?;
        // An append may wait for this alone.
        self.room.notify_waiters();
        Ok(())
    }

    /// Waits in this thread until there is something to do.
    pub(super) fn wait(&self) {
        let mut state = self.state.lock();
        while !state.has_work() {
            self.work.wait(&mut state);
        }
    }

    /// Waits in this thread for a change, at most so long.
    pub(super) fn wait_for(&self, span: std::time::Duration) {
        self.work.wait_for(&mut self.state.lock(), span);
    }

    /// Writes what waits as one group, and does what else there is to do. One caller at a time.
    pub(super) fn step(&self) -> Step {
        let mut open = self.open.lock();
        let work = self.with_quiet(State::take);
        let (close, rotate) = (work.close, work.rotate);
        let (step, failure) = match self.work_off(&mut open, work) {
            Ok(()) if close => (
                Step::Ended,
                open.cut()
                    .and_then(|()| open.sync())
                    .map_err(|error| failed(&*self.disk, &open.name(), "cutting", error))
                    .err(),
            ),
            Ok(()) => match rotate.map(|room| self.rotate(&mut open, room)) {
                None | Some(Ok(())) => (Step::Worked, None),
                Some(Err(Refused::Full(error))) => (self.refused(error), None),
                Some(Err(Refused::Failed(error))) => (Step::Worked, Some(error)),
            },
            Err(failure) => (if close { Step::Ended } else { Step::Worked }, failure),
        };
        if let Some(failure) = failure {
            self.fail(failure);
        }
        if step == Step::Ended {
            self.end();
        }
        self.room.notify_waiters();
        step
    }

    /// Without waking the writer, which is the caller.
    fn with_quiet<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock())
    }

    /// `Err(None)`: it has failed before, and no file is touched.
    fn work_off(&self, open: &mut Open, work: Work) -> Result<(), Option<Error>> {
        if self.with_quiet(|state| state.failed.is_some()) {
            return Err(None);
        }
        let disk = &*self.disk;
        if !work.entries.is_empty() || work.positions.is_some() {
            let positions = work.positions.as_ref().map(Entry::positions);
            let next = open.write(work.first, work.entries.iter().chain(&positions));
            let next = next.map_err(|error| failed(disk, &open.name(), "writing", error))?;
            open.sync().map_err(|error| failed(disk, &open.name(), "syncing", error))?;
            let saves = u64::from(work.positions.is_some());
            self.with_quiet(|state| state.wrote(next, open.end, work.positions));
            self.progress.send_modify(|progress| {
                progress.durable = next;
                progress.saves += saves;
            });
            self.room.notify_waiters();
        }
        for number in &work.remove {
            let name = super::format::name(*number);
            match disk.remove(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Some(failed(disk, &name, "removing", error)));
                }
                _ => self.with_quiet(|state| state.removed(*number)),
            }
        }
        if !work.remove.is_empty() {
            disk.sync_folder().map_err(|error| failed(disk, "", "syncing the folder of", error))?;
        }
        Ok(())
    }

    fn rotate(&self, open: &mut Open, room: u64) -> Result<(), Refused> {
        let (positions, first, capacity) =
            self.with_quiet(|state| (state.positions.clone(), state.next, state.shape.segment));
        let number = open.number + 1;
        let plan = Plan { id: self.id, number, first, positions: &positions, capacity, room };
        let new = Open::create(&*self.disk, &plan, 0, [])?;
        // The old one is full, and on the disk.
        let cut = open.cut();
        cut.map_err(|error| Refused::Failed(failed(&*self.disk, &open.name(), "cutting", error)))?;
        *open = new;
        let segment = Segment { number, seed: open.seed, first, bytes: open.end };
        self.with_quiet(|state| state.rotated(segment, open.room(), positions));
        self.progress.send_modify(|progress| progress.saves += 1);
        Ok(())
    }

    /// There is no room for a new segment.
    fn refused(&self, error: Error) -> Step {
        self.with_quiet(|state| {
            if state.full.is_none() {
                tracing::warn!(%error, "the journal has no room for a new segment");
            }
            if state.waiting == 0 || state.shape.on_full == OnFull::Refuse {
                state.rotate = None;
            }
            state.full = Some(error);
        });
        Step::Stuck
    }

    /// The first failure is the one that everybody is told. No file is written or synced after it: the system may have
    /// dropped what it could not write, and would say that all is well.
    pub(super) fn fail(&self, error: Error) {
        let error = error.with_context("the journal has stopped, and keeps what it acknowledged; repair the disk, then open it again").with_retry(Retry::Never);
        let first = self.with_quiet(|state| {
            state.pending.clear();
            state.failed.get_or_insert(error).clone()
        });
        self.progress.send_modify(|progress| progress.failed = Some(first));
    }

    /// The folder is others', and no task waits any more.
    pub(super) fn end(&self) {
        self.disk.leave();
        self.progress.send_modify(|progress| progress.closed = true);
    }

    /// Positions, as they are and as they are on the disk.
    #[cfg(test)]
    pub(super) fn positions(&self) -> (super::positions::Positions, super::positions::Positions) {
        self.with_quiet(|state| (state.positions.clone(), state.saved.clone()))
    }
}
