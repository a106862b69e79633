//! Where a test lets the process end: before any step that changes something on the disk.

#[cfg(not(test))]
pub(super) use self::none::{dead, step, tears};
#[cfg(test)]
pub(super) use self::plan::{crash_after, dead, revive, step, tears};

#[cfg(not(test))]
mod none {
    use std::io;

    /// Nothing goes wrong here.
    #[expect(clippy::unnecessary_wraps, reason = "in tests it fails")]
    #[inline]
    pub(crate) fn step() -> io::Result<()> {
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

    pub(crate) fn step() -> io::Result<()> {
        match LEFT.get() {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the process ended here")),
            Some(left) => {
                LEFT.set(Some(left - 1));
                Ok(())
            }
        }
    }
}
