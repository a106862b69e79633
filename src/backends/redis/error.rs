//! The client's errors, and the server's, as ours.
//!
//! What a server says may repeat the arguments of a command, so of its answers only the code is kept.

use redis::{ErrorKind as Theirs, RedisError, ServerError};

use crate::error::{Error, ErrorKind, Operation, Retry};

pub(super) fn said(kind: ErrorKind, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(kind, message).with_layer("redis")
}

pub(super) const WRONG_TYPE: &str = "the key holds a list, a hash or another type than a string, which is no entry; it stays as it is, and only another program can read or remove it";

/// The answer to a command that the server refused.
pub(super) fn refused(operation: Operation, error: &ServerError) -> Error {
    of_code(error.code(), error.details().unwrap_or_default()).with_operation(operation)
}

/// What the rules for a user forbid.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Forbidden {
    /// The command, as far as the server names it.
    Command(Option<String>),
    Key,
}

/// What a server that refuses something to a user says of it: other words in each version, and others in a script.
pub(super) fn forbidden(code: &str, detail: &str) -> Option<Forbidden> {
    let in_script = detail.contains("user executing the script can't")
        || detail.contains("ACL failure in script");
    if code != "NOPERM" && !in_script {
        return None;
    }
    if detail.contains("access") && detail.contains("key") {
        return Some(Forbidden::Key);
    }
    let named = detail.split_once("run the '").and_then(|(_, rest)| rest.split_once('\''));
    let is_name = |name: &&str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"|-_.".contains(&byte))
    };
    let name = named.map(|(name, _)| name).filter(is_name).map(str::to_owned);
    Some(Forbidden::Command(name))
}

/// The commands that a user may not run, of those that are needed.
pub(super) fn lacks(commands: &[&str]) -> Error {
    let list = |sign: &str, between: &str| {
        commands.iter().map(|name| format!("{sign}{name}")).collect::<Vec<_>>().join(between)
    };
    said(
        ErrorKind::Access,
        format!(
            "the user may not run {} on the server; give it {} (docs/backends/redis.md has all that is needed)",
            list("", ", "),
            list("+", " ")
        ),
    )
}

fn of_code(code: &str, detail: &str) -> Error {
    match forbidden(code, detail) {
        Some(Forbidden::Command(Some(name))) => return lacks(&[&name]),
        Some(Forbidden::Command(None)) => {
            return said(
                ErrorKind::Access,
                "the user may not do this on the server; it needs +@read +@write +@scripting +@transaction on all keys of the store (docs/backends/redis.md)",
            );
        }
        Some(Forbidden::Key) => {
            return said(
                ErrorKind::Access,
                "the user may not use the key on the server; it needs the right to read and to write it, as a write of an entry also reads it",
            );
        }
        None => {}
    }
    let (kind, message) = match code {
        "NOAUTH" | "WRONGPASS" => (
            ErrorKind::Access,
            "the server does not accept this user and password; set `password`, and the user in the address",
        ),
        "READONLY" => {
            (ErrorKind::Access, "the server is a replica, which takes no writes; name the primary")
        }
        "OOM" => (
            ErrorKind::Capacity,
            "the server's memory is full (`maxmemory`), so nothing was written; delete entries or give it more",
        ),
        "MISCONF" => (
            ErrorKind::Capacity,
            "the server cannot save to its disk and takes no writes until it can; most often the disk is full",
        ),
        "NOREPLICAS" => (
            ErrorKind::Unavailable,
            "the server has fewer replicas than `min-replicas-to-write` and takes no writes",
        ),
        "LOADING" => (ErrorKind::Unavailable, "the server is loading its data; try again"),
        "BUSY" => (ErrorKind::Unavailable, "the server is busy with a long script; try again"),
        "TRYAGAIN" => (ErrorKind::Unavailable, "the cluster is moving this slot; try again"),
        "CLUSTERDOWN" | "MASTERDOWN" => (
            ErrorKind::Unavailable,
            "the cluster does not serve this slot at the moment; try again",
        ),
        "MOVED" | "ASK" => (
            ErrorKind::Unavailable,
            "the slot of the key moves between nodes; try again. If it is always so, the server is of a cluster: name `cluster` in place of `url`",
        ),
        "WRONGTYPE" => (ErrorKind::InvalidInput, WRONG_TYPE),
        _ if detail.contains("max number of clients") => {
            (ErrorKind::Unavailable, "the server has as many clients as it takes (`maxclients`)")
        }
        // A script met a key that has moved already.
        _ if detail.contains("non local key") => {
            (ErrorKind::Unavailable, "the cluster is moving this slot; try again")
        }
        _ if detail.contains("DB index is out of range") => (
            ErrorKind::Config,
            "the server has no database of that number (`databases` in its settings)",
        ),
        _ if detail.contains("unknown command") => (
            ErrorKind::Unsupported,
            "the server does not know a command that is needed here; Redis 7.0 or Valkey 7.2 does, unless it was renamed or disabled",
        ),
        _ => {
            return said(
                ErrorKind::Unavailable,
                format!("the server refuses the command ({code})"),
            )
            .with_retry(Retry::Never);
        }
    };
    said(kind, message)
}

/// What the client failed with after the command was handed to it: the outcome of a write is unknown.
pub(super) fn failed(operation: Operation, error: RedisError) -> Error {
    lost(error).with_operation(operation)
}

/// Like [`failed`], of whichever operation.
pub(super) fn lost(error: RedisError) -> Error {
    if let Some(code) = server_code(&error) {
        return of_code(&code, error.detail().unwrap_or_default());
    }
    let said = match error.kind() {
        Theirs::Parse | Theirs::UnexpectedReturnType => {
            said(ErrorKind::Unavailable, "the server's answer is not understood")
        }
        _ => said(ErrorKind::Unavailable, "the connection to the server was lost"),
    };
    if error.is_io_error() { said.with_source(error) } else { said }
}

fn server_code(error: &RedisError) -> Option<String> {
    error.code().map(str::to_owned)
}

/// What connecting failed with: nothing was sent.
pub(super) fn unreachable(server: &str, error: RedisError) -> Error {
    let detail = error.detail().unwrap_or_default();
    if error.kind() == Theirs::AuthenticationFailed {
        return of_code("WRONGPASS", "").with_context(server);
    }
    if let Some(code) = server_code(&error) {
        // The client reports some of them as its own, with what the server said as detail.
        return of_code(&code, detail).with_context(server);
    }
    let text = error.to_string();
    let said = if text.contains("NOAUTH") || text.contains("WRONGPASS") {
        of_code("WRONGPASS", "")
    } else if text.contains("refused to switch database") {
        of_code("ERR", "DB index is out of range")
    } else if text.contains("certificate") || text.contains("UnknownIssuer") {
        said(
            ErrorKind::Access,
            "the server's certificate is not trusted; name the certificates of its authority in `ca`",
        )
    } else if error.kind() == Theirs::RESP3NotSupported {
        said(ErrorKind::Unsupported, "the server is older than Redis 7.0")
    } else {
        said(ErrorKind::Unavailable, "the server cannot be reached")
    };
    said.with_context(server).with_source(error)
}

/// The deadline passed.
pub(super) fn late(operation: Operation) -> Error {
    said(ErrorKind::Timeout, "the server did not answer within `timeout`").with_operation(operation)
}

/// The server answered something else than was asked.
pub(super) fn odd(operation: Operation) -> Error {
    said(ErrorKind::Unavailable, "the server's answer is not understood")
        .with_operation(operation)
        .with_retry(Retry::Never)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_lacks_is_found_in_the_words_of_every_version() {
        let command = |name: &str| Some(Forbidden::Command(Some(name.to_owned())));
        for (code, detail, found) in [
            ("NOPERM", "this user has no permissions to run the 'get' command", command("get")),
            (
                "NOPERM",
                "User ada has no permissions to run the 'client|tracking' command",
                command("client|tracking"),
            ),
            (
                "ERR",
                "ACL failure in script: User ada has no permissions to run the 'zadd' command",
                command("zadd"),
            ),
            (
                "ERR",
                "The user executing the script can't run this command or subcommand",
                Some(Forbidden::Command(None)),
            ),
            ("NOPERM", "No permissions to access a key", Some(Forbidden::Key)),
            (
                "NOPERM",
                "this user has no permissions to access one of the keys used as arguments",
                Some(Forbidden::Key),
            ),
            (
                "ERR",
                "The user executing the script can't access at least one of the keys mentioned in the command arguments",
                Some(Forbidden::Key),
            ),
            ("NOPERM", "run the 'some text' command", Some(Forbidden::Command(None))),
            ("ERR", "syntax error", None),
        ] {
            assert_eq!(forbidden(code, detail), found, "{detail}");
        }
        let text = of_code("NOPERM", "has no permissions to run the 'get' command").to_string();
        assert!(text.contains("may not run get") && text.contains("give it +get"), "{text}");
    }
}
