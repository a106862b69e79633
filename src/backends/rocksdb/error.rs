//! RocksDB's errors as ours.
//!
//! RocksDB's text stays in the source. It names files and offsets; keys are kept out of it by the
//! option `allow_data_in_errors`, which opening turns off.

use ::rocksdb::ErrorKind as Theirs;

use crate::error::{Error, ErrorKind, Operation, Outcome, Retry};

/// Whether a read of the memory tier, or a write that would not wait, has to be repeated in a thread.
pub(super) fn is_incomplete(error: &::rocksdb::Error) -> bool {
    error.kind() == Theirs::Incomplete
}

/// A column family that was opened is in the handle's list.
pub(super) fn lost() -> Error {
    Error::internal("RocksDB opened the column family but does not know it")
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
    // RocksDB has taken nothing of it.
    error.with_outcome(Outcome::Nothing).with_operation(operation).with_layer("rocksdb")
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

/// The error where another has the database open.
pub(super) fn open_elsewhere() -> Error {
    Error::new(ErrorKind::Conflict, OPEN_ELSEWHERE).with_layer("rocksdb")
}

/// What RocksDB says of a missing file, as an input/output error or within a corruption.
const NO_FILE: &str = "No such file or directory";

const OPEN_ELSEWHERE: &str = "the database is open elsewhere, in this process or another; close it there first (`fuser` on its LOCK file names the process)";

fn classify(error: &::rocksdb::Error) -> (ErrorKind, &'static str) {
    let text = error.as_ref();
    match error.kind() {
        Theirs::Corruption | Theirs::IOError if text.contains(NO_FILE) => (
            ErrorKind::Unsupported,
            "a file that the database names is not in its folder. Either it is lost, or the database keeps tables in other folders too, which only the program that wrote it knows (its `db_paths`): name all of them in `db_paths`, in its order",
        ),
        Theirs::Corruption if text.contains("checksum mismatch") => (
            ErrorKind::Corruption,
            "the database is damaged: a checksum does not match; restore it from a backup",
        ),
        // Also for what is only unknown to this version.
        Theirs::Corruption => (
            ErrorKind::Corruption,
            "RocksDB calls the data corrupt. Keep the folder as it is, and see whether the program that wrote it opens a copy; if that fails too, restore it from a backup",
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
        (ErrorKind::Conflict, OPEN_ELSEWHERE)
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
    } else {
        (ErrorKind::Unavailable, "the disk failed")
    }
}
