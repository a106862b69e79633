//! The operations of the contract, by name.

use std::fmt;

/// The operation of the contract during which an error arose; also a metric label.
/// See [`Error`](super::Error) for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`Read::get`](crate::Read::get)
    Get,
    /// [`Read::get_many`](crate::Read::get_many)
    GetMany,
    /// [`Read::scan`](crate::Read::scan)
    Scan,
    /// [`Store::write`](crate::Store::write)
    Write,
    /// [`Store::ingest`](crate::Store::ingest)
    Ingest,
    /// [`Store::changes`](crate::Store::changes)
    Changes,
    /// [`Store::invalidate`](crate::Store::invalidate)
    Invalidate,
    /// [`Store::inspect`](crate::Store::inspect)
    Inspect,
    /// [`Store::snapshot`](crate::Store::snapshot)
    Snapshot,
    /// [`Store::flush`](crate::Store::flush)
    Flush,
    /// [`Store::compact`](crate::Store::compact)
    Compact,
    /// [`Store::usage`](crate::Store::usage)
    Usage,
    /// [`Store::close`](crate::Store::close)
    Close,
    /// Opening a backend or what a layer needs.
    Open,
    /// Taking, reading or restoring a backup.
    Backup,
}

impl Operation {
    /// The operation as one word, as in messages and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetMany => "get_many",
            Self::Scan => "scan",
            Self::Write => "write",
            Self::Ingest => "ingest",
            Self::Changes => "changes",
            Self::Invalidate => "invalidate",
            Self::Inspect => "inspect",
            Self::Snapshot => "snapshot",
            Self::Flush => "flush",
            Self::Compact => "compact",
            Self::Usage => "usage",
            Self::Close => "close",
            Self::Open => "open",
            Self::Backup => "backup",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
