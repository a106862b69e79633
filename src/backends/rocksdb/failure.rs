//! RocksDB's errors as ours.
//!
//! RocksDB's text stays in the source. It names files and offsets; keys are kept out of it by the
//! option `allow_data_in_errors`, which opening turns off.

use ::rocksdb::ErrorKind as Theirs;

use crate::error::{Error, ErrorKind, Operation, Retry};

/// Whether a read of the memory tier, or a write that would not wait, has to be repeated in a thread.
pub(super) fn is_incomplete(error: &::rocksdb::Error) -> bool {
    error.kind() == Theirs::Incomplete
}

/// The error of a write that RocksDB would not take for too long.
pub(super) fn stalled(operation: Operation, broken: bool, error: ::rocksdb::Error) -> Error {
    let (kind, message) = if broken {
        (
            ErrorKind::Capacity,
            "RocksDB has stopped writes after a background job failed; most often the disk is full: free some space",
        )
    } else {
        (
            ErrorKind::Unavailable,
            "RocksDB has stopped writes until its background jobs catch up; write more slowly, or give it more background_jobs",
        )
    };
    let error = Error::new(kind, message).with_source(error).with_retry(Retry::Later);
    error.with_operation(operation).with_layer("rocksdb")
}

/// The error of an operation on an open database.
pub(super) fn failed(operation: Operation, error: ::rocksdb::Error) -> Error {
    let (kind, message) = classify(&error);
    let retry = match error.kind() {
        Theirs::Busy | Theirs::TryAgain => Some(Retry::Later),
        _ => None,
    };
    let mapped = Error::new(kind, message).with_operation(operation).with_layer("rocksdb");
    match retry {
        Some(retry) => mapped.with_retry(retry),
        None => mapped,
    }
    .with_source(error)
}

fn classify(error: &::rocksdb::Error) -> (ErrorKind, &'static str) {
    let text = error.as_ref();
    match error.kind() {
        Theirs::Corruption => (
            ErrorKind::Corruption,
            "the database is damaged; restore it from a backup, or try RocksDB's `ldb repair` on a copy of the folder",
        ),
        Theirs::NotSupported => (
            ErrorKind::Unsupported,
            "RocksDB 11.8 cannot read this; it was written by a newer RocksDB, or with a feature that is not compiled in",
        ),
        Theirs::InvalidArgument => (ErrorKind::InvalidInput, "RocksDB refuses the arguments"),
        Theirs::IOError => classify_io(text),
        Theirs::ShutdownInProgress | Theirs::ColumnFamilyDropped => {
            (ErrorKind::Closed, "the database was closed meanwhile")
        }
        Theirs::TimedOut | Theirs::Expired => {
            (ErrorKind::Timeout, "RocksDB did not finish within its deadline")
        }
        Theirs::Incomplete | Theirs::Busy | Theirs::TryAgain | Theirs::Aborted => {
            (ErrorKind::Unavailable, "RocksDB is busy; try again")
        }
        Theirs::CompactionTooLarge => {
            (ErrorKind::Capacity, "not enough free space for the compaction; free some")
        }
        _ => (ErrorKind::Internal, "RocksDB failed in a way that should not happen"),
    }
}

fn classify_io(text: &str) -> (ErrorKind, &'static str) {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["lock hold by current process", "While lock file"]) {
        (
            ErrorKind::Conflict,
            "the database is open elsewhere, in this process or another; close it there first (`fuser` on its LOCK file names the process)",
        )
    } else if has(&["No space left", "Space limit reached", "quota exceeded", "File too large"]) {
        (
            ErrorKind::Capacity,
            "the disk is full; free space, then open the database again if writes still fail. Reads go on",
        )
    } else if has(&["Permission denied", "Read-only file system", "Operation not permitted"]) {
        (
            ErrorKind::Access,
            "the folder or a file in it is not readable and writable for this process",
        )
    } else if has(&["Too many open files"]) {
        (ErrorKind::Capacity, "too many open files; raise the limit (`ulimit -n`)")
    } else if has(&["No such file or directory"]) {
        (
            ErrorKind::Corruption,
            "a file of the database is missing; restore it from a backup, or try RocksDB's `ldb repair` on a copy of the folder",
        )
    } else {
        (ErrorKind::Unavailable, "the disk failed")
    }
}
