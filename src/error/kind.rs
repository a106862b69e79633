//! What went wrong, whether trying again can help, and what a failed write did.

use std::fmt;

/// What went wrong, in terms of what the caller should do.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::{ErrorKind, StoreExt};
///
/// let error = Memory::new().put("", "a key is not empty").await.unwrap_err();
/// let status = match error.kind() {
///     ErrorKind::InvalidInput => 400,
///     ErrorKind::Unavailable | ErrorKind::Timeout => 503,
///     _ => 500,
/// };
/// assert_eq!(status, 400);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Credentials, permissions or a read-only store refuse the operation.
    /// The caller should correct the access rights; trying again does not help.
    Access,
    /// Stored bytes are not what was written: damaged, truncated, swapped or of another format.
    /// The caller should restore the entry from a backup; the rest of the store stays readable.
    Corruption,
    /// The store cannot be reached or answered that it is busy.
    /// The caller should try again later.
    Unavailable,
    /// The deadline passed. A write may or may not have taken effect.
    /// The caller should try again (writes are idempotent) or give up.
    Timeout,
    /// Somebody else holds or changed what the operation needs: a lock, a lease, a version.
    /// The caller should read the present state, then repeat the operation from the start.
    Conflict,
    /// An earlier batch of its [group](crate::Store::write_group) failed, so this one was not written.
    /// The caller should handle that batch, then write this one again.
    Aborted,
    /// A limit is reached: disk full, entry too large, too many operations at once.
    /// The caller should free space, shrink the entry or slow down.
    Capacity,
    /// The store was closed, or a failure made it refuse further work.
    /// The caller should open it again.
    Closed,
    /// This stack cannot do what was asked, and says so in its profile.
    /// The caller should add the layer that the message names, or do without.
    Unsupported,
    /// An argument is wrong: an empty key, a range that ends before it starts, a malformed line.
    /// The caller should correct the input.
    InvalidInput,
    /// The configuration is wrong.
    /// The caller should correct the place that the message names.
    Config,
    /// A defect of this program: a task panicked, an invariant does not hold.
    /// The caller should report it.
    Internal,
}

impl ErrorKind {
    /// The kind as one lower-case word or two, as in messages and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Corruption => "corruption",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::Aborted => "aborted",
            Self::Capacity => "capacity",
            Self::Closed => "closed",
            Self::Unsupported => "unsupported",
            Self::InvalidInput => "invalid_input",
            Self::Config => "config",
            Self::Internal => "internal",
        }
    }

    /// What a store refuses before it begins. A store that met one of the others before it began says so
    /// by [`Error::with_outcome`](super::Error::with_outcome).
    pub(super) const fn default_outcome(self) -> Outcome {
        match self {
            Self::Access
            | Self::Conflict
            | Self::Aborted
            | Self::Unsupported
            | Self::InvalidInput
            | Self::Config => Outcome::Nothing,
            _ => Outcome::Unknown,
        }
    }

    pub(super) const fn default_retry(self) -> Retry {
        match self {
            Self::Unavailable | Self::Timeout | Self::Aborted => Retry::Later,
            _ => Retry::Never,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str().replace('_', " "))
    }
}

/// Whether trying the same operation again can help. See [`Error`](super::Error) for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same call will fail in the same way.
    Never,
    /// The same call may succeed after a while.
    Later,
    /// It was tried again as often as the stack allows. A retry further out must not multiply it. Of a
    /// write, an attempt before the last may still take effect.
    GaveUp,
}

/// Whether anything of a failed write is in the store, or can still arrive there.
///
/// See [`Error::outcome`](super::Error::outcome) for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing of the write happened, and nothing will.
    Nothing,
    /// The write may have taken effect wholly, or may still do so.
    Unknown,
}
