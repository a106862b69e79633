//! A journal on the faulty disk that is written step by step and not by a thread, for simulations of what is built on it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::Mutex;

use super::faulty::Faulty;
use super::rng::Rng;
use crate::error::Result;
use crate::journal::Journal;
use crate::journal::core::{Core, Step};
use crate::journal::segment::RESERVE;
use crate::journal::state::{OnFull, Shape};

/// Does what the thread of the journal would do.
pub(crate) struct Stepped(Arc<Core>);

/// Opens the journal of a disk, in small segments.
pub(crate) fn open(disk: &Faulty, rng: &mut Rng) -> Result<(Journal, Stepped)> {
    let shape = Shape {
        budget: 3 * RESERVE + 10_000 + rng.below(60_000),
        segment: RESERVE + 2_000 + rng.below(6_000),
        waiting: 4_000 + rng.below(8_000),
        on_full: OnFull::Block,
    };
    let core = Arc::new(Core::open(Arc::new(disk.clone()), shape)?);
    core.stepped.store(true, Ordering::Relaxed);
    let journal =
        Journal { progress: core.progress(), core: Arc::clone(&core), queue: Mutex::new(()) };
    Ok((journal, Stepped(core)))
}

impl Stepped {
    /// Whether there is something to do.
    pub(crate) fn has_work(&self) -> bool {
        !self.0.progress().borrow().closed && self.0.with(|state| state.has_work())
    }

    /// Does it. A step whose disk is full is to be tried again.
    pub(crate) fn step(&self) {
        let (Step::Worked | Step::Stuck | Step::Ended) = self.0.step();
    }
}
