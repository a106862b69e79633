//! PostgreSQL's errors as ours.
//!
//! The text of an error may hold what was written: its detail names the key of a violated constraint,
//! and a trigger may say anything. So the text is passed on only where it tells of the server, the
//! connection or names in the schema, and the detail never.

use deadpool_postgres::PoolError;
use tokio_postgres::Error as Theirs;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::error::{Error, ErrorKind, Operation, Outcome};

/// The error of a statement or of a connection.
pub(super) fn failed(operation: Operation, error: Theirs) -> Error {
    let mapped = match error.as_db_error() {
        Some(_) if operation != Operation::Write && is_serialization(&error) => Error::new(
            ErrorKind::Unavailable,
            "the server ended the read, as a standby does where its primary has removed what is read; try again",
        ),
        Some(said) => said_by_server(said),
        None => of_connection(error),
    };
    mapped.with_operation(operation).with_layer("postgres")
}

/// The error of a write that is one statement or one transaction: the server has undone what it says failed, and
/// may have done what it did not answer.
pub(super) fn failed_whole(error: Theirs) -> Error {
    let undone =
        error.as_db_error().is_some_and(|said| said.parsed_severity() == Some(Severity::Error));
    let error = failed(Operation::Write, error);
    if undone { error.with_outcome(Outcome::Nothing) } else { error }
}

/// The error of getting a connection. Nothing was sent.
pub(super) fn no_connection(operation: Operation, error: PoolError) -> Error {
    let error = match error {
        PoolError::Backend(error) => failed(operation, error).with_context("connecting"),
        PoolError::Timeout(_) => Error::new(
            ErrorKind::Unavailable,
            "no connection within `connect_timeout`; is the server there, and does it answer?",
        )
        .with_operation(operation)
        .with_layer("postgres"),
        PoolError::Closed => Error::closed().with_operation(operation),
        PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            Error::internal("the pool of connections is set up wrongly").with_operation(operation)
        }
    };
    error.with_outcome(Outcome::Nothing)
}

fn of_connection(error: Theirs) -> Error {
    let text = error.to_string();
    let (kind, message) = if text.starts_with("invalid configuration") {
        // The only one at this point is a password that is missing.
        (ErrorKind::Access, "the server asks for a password; say where it is with `password`")
    } else if text.starts_with("authentication error") {
        (
            ErrorKind::Access,
            "the server does not prove that it knows the password, or asks for what is not known here",
        )
    } else if text.starts_with("error performing TLS handshake") {
        (
            ErrorKind::Access,
            "no TLS with the server: its certificate is not for this name, not signed by an authority that is trusted here (see `ca`), or it has none (`tls: disable` does without)",
        )
    } else if text.starts_with("error serializing") || text.starts_with("error deserializing") {
        (ErrorKind::Internal, "a column is not of the type that was seen when the store was opened")
    } else {
        (ErrorKind::Unavailable, "the server cannot be reached, or the connection broke")
    };
    Error::new(kind, message).with_source(error)
}

/// Whether nothing was written, and the same may work at the next attempt.
pub(super) fn is_serialization(error: &Theirs) -> bool {
    let codes = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
    error.code().is_some_and(|code| codes.contains(code))
}

/// Whether a write was refused as it came too late, see `Connections::fence`. Nothing was written.
pub(super) fn is_late(error: &Theirs) -> bool {
    error.code() == Some(&SqlState::DIVISION_BY_ZERO)
}

/// Whether a condition of the batch does not hold, as `Statements::hold` says. Nothing was written.
pub(super) fn does_not_hold(error: &Theirs) -> bool {
    is_ours(error, &SqlState::INVALID_ARGUMENT_FOR_LOG)
}

/// Whether the statement failed by itself and not within a trigger.
fn is_ours(error: &Theirs, code: &SqlState) -> bool {
    error.as_db_error().is_some_and(|said| said.code() == code && said.where_().is_none())
}

/// Something in the table kept an entry from being written.
pub(super) fn not_written() -> Error {
    Error::invalid(NOT_WRITTEN).with_operation(Operation::Write).with_layer("postgres")
}

const NOT_WRITTEN: &str = "a trigger, a rule or a policy of the table keeps the entry from being written as it is, so nothing was written";

/// Whether nothing was added, as a key is not absent, or the table has policies for its rows, which `COPY`
/// does not know.
pub(super) fn cannot_copy(error: &Theirs) -> bool {
    let codes = [SqlState::UNIQUE_VIOLATION, SqlState::FEATURE_NOT_SUPPORTED];
    error.code().is_some_and(|code| codes.contains(code))
}

fn said_by_server(said: &DbError) -> Error {
    let code = said.code();
    let (kind, words) = classify(code);
    let class = code.code().get(..2).unwrap_or_default();
    // Of these, the text names settings, roles and tables, and no data; but a function of a trigger may
    // say anything under any code.
    let telling = said.where_().is_none()
        && ["08", "25", "28", "3D", "3F", "42", "53", "55", "57", "58"].contains(&class);
    let text = if telling { format!(": {}", said.message()) } else { String::new() };
    Error::new(kind, format!("{words} (SQLSTATE {}{text})", code.code()))
}

fn classify(code: &SqlState) -> (ErrorKind, &'static str) {
    match *code {
        SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => {
            return (ErrorKind::Timeout, "PostgreSQL did not finish within `timeout`");
        }
        SqlState::DIVISION_BY_ZERO => {
            return (
                ErrorKind::Timeout,
                "the write reached the server after its deadline, so nothing was written",
            );
        }
        SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION => {
            return (ErrorKind::InvalidInput, NOT_WRITTEN);
        }
        SqlState::FEATURE_NOT_SUPPORTED => {
            return (
                ErrorKind::Config,
                "the table does not take such a statement, most likely as it has a rule (CREATE RULE) for it",
            );
        }
        SqlState::READ_ONLY_SQL_TRANSACTION => {
            return (
                ErrorKind::Access,
                "the server takes no writes: it is a standby, or the database or the role is read-only; name the primary, or several hosts",
            );
        }
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => {
            return (
                ErrorKind::Access,
                "the server is a standby, whose data may be behind; name the primary, or several hosts, or set `read_only: true` without `change_feed`",
            );
        }
        SqlState::INSUFFICIENT_PRIVILEGE => {
            return (ErrorKind::Access, "the role lacks a right; GRANT it");
        }
        SqlState::DISK_FULL => {
            return (ErrorKind::Capacity, "the disk of the server is full; free some space");
        }
        SqlState::TOO_MANY_CONNECTIONS => {
            return (
                ErrorKind::Unavailable,
                "the server has no connection left; lower `pool`, or raise its max_connections",
            );
        }
        SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => {
            return (
                ErrorKind::Conflict,
                "others kept writing the same keys, so nothing was written; try again",
            );
        }
        SqlState::NOT_NULL_VIOLATION => {
            return (
                ErrorKind::Config,
                "the table has a column that must be filled and is not in `columns`; give it a default",
            );
        }
        _ => {}
    }
    match code.code().get(..2).unwrap_or_default() {
        "08" | "57" => (ErrorKind::Unavailable, "the server ended the connection"),
        "22" | "23" | "44" => {
            (ErrorKind::InvalidInput, "a constraint or a trigger of the table refuses the entry")
        }
        "25" => (ErrorKind::Unavailable, "the transaction was ended"),
        "28" => (ErrorKind::Access, "the server refuses the role or its password"),
        "3D" | "3F" | "42" => (
            ErrorKind::Config,
            "the database, the table or a column is not there, or is of another form",
        ),
        "53" | "54" => (ErrorKind::Capacity, "the server has reached a limit"),
        "55" => (ErrorKind::Unavailable, "the table is in use for something else"),
        "58" => (ErrorKind::Unavailable, "the disk of the server failed"),
        _ if [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED].contains(code) => (
            ErrorKind::Corruption,
            "PostgreSQL found damaged data; its log says where. Restore it from a backup",
        ),
        _ => (ErrorKind::Unavailable, "PostgreSQL refuses the statement"),
    }
}
