//! Where a test lets the process end: before any step that changes something on the disk.

#[cfg(not(test))]
pub(super) use self::none::{dead, step, tears};
#[cfg(test)]
pub(super) use self::plan::{
    crash_after, dead, fail_at, failed, record, recorded, revive, step, tears,
};

#[cfg(not(test))]
mod none {
    use std::io;

    /// Nothing goes wrong here.
    #[expect(clippy::unnecessary_wraps, reason = "in tests it fails")]
    #[inline]
    pub(crate) fn step(_: &'static str) -> io::Result<()> {
        Ok(())
    }

    #[inline]
    pub(crate) fn tears() -> bool {
        false
    }

    #[inline]
    pub(crate) fn dead() -> bool {
        false
    }
}

#[cfg(test)]
mod plan {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
        static FAILS: Cell<Option<u32>> = const { Cell::new(None) };
        static TAKEN: Cell<Option<Vec<&'static str>>> = const { Cell::new(None) };
    }

    /// Lets this thread take that many steps more, and then none.
    pub(crate) fn crash_after(steps: u32) {
        LEFT.set(Some(steps));
    }

    /// Lets this thread go on. Whether it had crashed.
    pub(crate) fn revive() -> bool {
        LEFT.take() == Some(0)
    }

    pub(crate) fn dead() -> bool {
        LEFT.get() == Some(0)
    }

    /// Whether the next step is the last one.
    pub(crate) fn tears() -> bool {
        LEFT.get() == Some(0)
    }

    /// Lets one step of this thread fail, after that many.
    pub(crate) fn fail_at(step: u32) {
        FAILS.set(Some(step));
    }

    /// Whether that step was reached.
    pub(crate) fn failed() -> bool {
        FAILS.take().is_none()
    }

    /// Writes down the steps of this thread from now on.
    pub(crate) fn record() {
        TAKEN.set(Some(Vec::new()));
    }

    pub(crate) fn recorded() -> Vec<&'static str> {
        TAKEN.take().unwrap_or_default()
    }

    pub(crate) fn step(what: &'static str) -> io::Result<()> {
        match LEFT.get() {
            None => {}
            Some(0) => return Err(io::Error::other("the process ended here")),
            Some(left) => LEFT.set(Some(left - 1)),
        }
        match FAILS.get() {
            None => {}
            Some(0) => {
                FAILS.set(None);
                return Err(io::Error::other("the disk failed here"));
            }
            Some(left) => FAILS.set(Some(left - 1)),
        }
        if let Some(mut taken) = TAKEN.take() {
            taken.push(what);
            TAKEN.set(Some(taken));
        }
        Ok(())
    }
}
