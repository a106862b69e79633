//! SQLite's errors as ours.

use rusqlite::types::ValueRef;
use rusqlite::{ErrorCode, ffi};

use crate::error::{Error, ErrorKind, Operation};

pub(super) const NAME: &str = "sqlite";

fn cause(error: &rusqlite::Error) -> Option<ffi::Error> {
    match error {
        rusqlite::Error::SqliteFailure(cause, _)
        | rusqlite::Error::SqlInputError { error: cause, .. } => Some(*cause),
        _ => None,
    }
}

/// Whether a lock of somebody else is in the way.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    cause(error).is_some_and(|cause| {
        matches!(cause.code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    })
}

/// Whether what was handed to the operating system may be lost, so that nothing later can be believed.
pub(super) fn is_failed_sync(error: &rusqlite::Error) -> bool {
    cause(error).is_some_and(|cause| {
        [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC].contains(&cause.extended_code)
    })
}

/// Whether the rules of the table are in the way.
pub(super) fn is_refused(error: &rusqlite::Error) -> bool {
    cause(error).is_some_and(|cause| cause.code == ErrorCode::ConstraintViolation)
}

/// The error of a database whose file is no longer the one that was opened.
pub(super) fn moved() -> Error {
    Error::new(ErrorKind::Unavailable, MOVED).with_layer(NAME)
}

const MOVED: &str = "the database file was moved, removed or replaced while it was open, and what is written to it now would be lost; put it back, or open the new one";

/// The error of an operation on an open database.
pub(super) fn failed(operation: Operation, error: rusqlite::Error) -> Error {
    let (kind, message) = cause(&error)
        .map_or((ErrorKind::Internal, "SQLite was used in a way that should not happen"), classify);
    let mapped = Error::new(kind, message).with_operation(operation).with_layer(NAME);
    match error {
        // The words of a trigger may hold a key or a value.
        rusqlite::Error::SqliteFailure(cause, _) if kind == ErrorKind::InvalidInput => {
            mapped.with_source(rusqlite::Error::SqliteFailure(cause, None))
        }
        error => mapped.with_source(error),
    }
}

fn classify(cause: ffi::Error) -> (ErrorKind, &'static str) {
    match cause.code {
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::SchemaChanged => (
            ErrorKind::Unavailable,
            "another program has kept the database locked for longer than `busy_timeout`",
        ),
        ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => {
            (ErrorKind::Access, "the operating system does not permit this to the process")
        }
        ErrorCode::ReadOnly => classify_read_only(cause.extended_code),
        ErrorCode::DatabaseCorrupt => (
            ErrorKind::Corruption,
            "the database is damaged; restore it from a backup, or try `.recover` of the `sqlite3` shell on a copy of the file",
        ),
        ErrorCode::NotADatabase => (
            ErrorKind::Corruption,
            "the file is not a SQLite database, or is encrypted, or its beginning is damaged",
        ),
        ErrorCode::DiskFull => (
            ErrorKind::Capacity,
            "the disk is full; free some space. Nothing was written, and reads go on",
        ),
        ErrorCode::OutOfMemory => (ErrorKind::Capacity, "SQLite has no memory left"),
        ErrorCode::TooBig => (ErrorKind::Capacity, "the entry is larger than SQLite stores"),
        ErrorCode::NoLargeFileSupport => {
            (ErrorKind::Capacity, "the file system does not take files of this size")
        }
        ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch => (
            ErrorKind::InvalidInput,
            "a constraint or trigger of the table refuses the entry; nothing was written",
        ),
        ErrorCode::SystemIoFailure => classify_io(cause.extended_code),
        ErrorCode::CannotOpen => {
            (ErrorKind::Unavailable, "the database file, or its log next to it, cannot be opened")
        }
        ErrorCode::OperationInterrupted | ErrorCode::OperationAborted => {
            (ErrorKind::Unavailable, "the operation was interrupted; try again")
        }
        ErrorCode::Unknown if cause.extended_code == ffi::SQLITE_ERROR => (
            ErrorKind::Config,
            "the table or its columns are not what they were when the store was opened",
        ),
        _ => (ErrorKind::Internal, "SQLite failed in a way that should not happen"),
    }
}

fn classify_read_only(extended: i32) -> (ErrorKind, &'static str) {
    match extended {
        ffi::SQLITE_READONLY_DBMOVED => (ErrorKind::Unavailable, MOVED),
        _ => (
            ErrorKind::Access,
            "the database file, or the folder for its log, is not writable for this process",
        ),
    }
}

fn classify_io(extended: i32) -> (ErrorKind, &'static str) {
    match extended {
        ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA => {
            (ErrorKind::Corruption, "the file system reports damaged data")
        }
        ffi::SQLITE_IOERR_SHMSIZE => (
            ErrorKind::Capacity,
            "the index of the log cannot grow; most often the disk is full: free some space",
        ),
        ffi::SQLITE_IOERR_NOMEM => (ErrorKind::Capacity, "SQLite has no memory left"),
        _ => (ErrorKind::Unavailable, "the disk failed"),
    }
}

/// The error of a cell that cannot be a key, a value or a time.
pub(super) fn wrong_cell(what: &str, is: &str, must: &str) -> Error {
    Error::corruption(format!(
        "the table holds {what} that is {is}, but {must}; correct it with the program that wrote it"
    ))
    .with_layer(NAME)
}

/// An error of opening.
pub(super) fn opening(error: rusqlite::Error) -> Error {
    failed(Operation::Open, error)
}

/// The settings and the database do not fit.
pub(super) fn refused(message: impl Into<String>) -> Error {
    Error::config(message.into()).with_layer(NAME)
}

/// What is in a cell.
pub(super) const fn kind(cell: ValueRef<'_>) -> &'static str {
    match cell {
        ValueRef::Null => "NULL",
        ValueRef::Integer(_) => "an INTEGER",
        ValueRef::Real(_) => "a REAL",
        ValueRef::Text(_) => "TEXT",
        ValueRef::Blob(_) => "a BLOB",
    }
}

pub(super) fn closed() -> Error {
    Error::closed().with_layer(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(extended: i32) -> ErrorKind {
        failed(
            Operation::Write,
            rusqlite::Error::SqliteFailure(ffi::Error::new(extended), Some("secret".into())),
        )
        .kind()
    }

    #[test]
    fn each_failure_has_the_kind_that_says_what_to_do() {
        for (code, expected) in [
            (ffi::SQLITE_BUSY, ErrorKind::Unavailable),
            (ffi::SQLITE_BUSY_SNAPSHOT, ErrorKind::Unavailable),
            (ffi::SQLITE_READONLY, ErrorKind::Access),
            (ffi::SQLITE_READONLY_DIRECTORY, ErrorKind::Access),
            (ffi::SQLITE_READONLY_DBMOVED, ErrorKind::Unavailable),
            (ffi::SQLITE_CORRUPT_INDEX, ErrorKind::Corruption),
            (ffi::SQLITE_NOTADB, ErrorKind::Corruption),
            (ffi::SQLITE_FULL, ErrorKind::Capacity),
            (ffi::SQLITE_IOERR_SHMSIZE, ErrorKind::Capacity),
            (ffi::SQLITE_TOOBIG, ErrorKind::Capacity),
            (ffi::SQLITE_CONSTRAINT_CHECK, ErrorKind::InvalidInput),
            (ffi::SQLITE_IOERR_READ, ErrorKind::Unavailable),
            (ffi::SQLITE_ERROR, ErrorKind::Config),
        ] {
            assert_eq!(kind(code), expected, "{code}");
        }
    }

    #[test]
    fn the_words_of_a_trigger_are_not_repeated() {
        let refused = ffi::Error::new(ffi::SQLITE_CONSTRAINT_TRIGGER);
        let refused = rusqlite::Error::SqliteFailure(refused, Some("no secret here".into()));
        assert!(!format!("{:?}", failed(Operation::Write, refused)).contains("secret"));
    }
}
