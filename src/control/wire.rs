//! The lines: requests and answers as JSON.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::status::Facts;
use crate::types::{Inspection, Scope};

/// The longest line.
pub(super) const MAX_LINE: u64 = 4 << 20;

/// How long a line, and an answer, is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What this program speaks.
const VERSION: u32 = 1;

const FORM: &str = r#"write {"version":1,"store":"...","ask":{"invalidate":"all"}}, with {"keys64":["..."]} or {"prefix64":"..."} in place of "all", or {"inspect":{"key64":"..."}}; or {"version":1,"ask":"status"}"#;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    version: u32,
    /// Which one. Of no store alone: empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    store: String,
    ask: WireAsk,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum WireAsk {
    Invalidate(WireScope),
    Inspect { key64: String },
    Status,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum WireScope {
    Keys64(Vec<String>),
    Prefix64(String),
    All,
}

/// Read first, so that a later version is told which one is spoken here.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// What a process is asked, and about which store.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) store: String,
    pub(super) ask: Ask,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Invalidate(Scope),
    Inspect(Bytes),
    /// Of all stores.
    Status,
}

#[derive(Serialize, Deserialize)]
struct Reply {
    version: u32,
    answer: Answer,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Invalidated,
    Inspections(Vec<Inspection>),
    Status(Box<Facts>),
    Error { kind: String, message: String },
}

impl Request {
    /// Without the end of the line.
    pub(super) fn to_line(&self) -> Result<Vec<u8>> {
        let encode = |bytes: &Bytes| STANDARD.encode(bytes);
        let ask = match &self.ask {
            Ask::Status => WireAsk::Status,
            Ask::Inspect(key) => WireAsk::Inspect { key64: encode(key) },
            Ask::Invalidate(Scope::All) => WireAsk::Invalidate(WireScope::All),
            Ask::Invalidate(Scope::Prefix(prefix)) => {
                WireAsk::Invalidate(WireScope::Prefix64(encode(prefix)))
            }
            Ask::Invalidate(Scope::Keys(keys)) => {
                WireAsk::Invalidate(WireScope::Keys64(keys.iter().map(encode).collect()))
            }
        };
        let line = Line { version: VERSION, store: self.store.clone(), ask };
        serde_json::to_vec(&line).map_err(unprintable)
    }

    /// Reads a line. No message quotes what it holds, which may be keys.
    pub(super) fn parse(line: &[u8]) -> Result<Self> {
        let refuse = |error: serde_json::Error| {
            Error::invalid(format!("column {}: this is not a request; {FORM}", error.column()))
        };
        let Versioned { version } = serde_json::from_slice(line).map_err(refuse)?;
        check_version(version)?;
        let Line { store, ask, .. } = serde_json::from_slice(line).map_err(refuse)?;
        let ask = match ask {
            WireAsk::Status => Ask::Status,
            WireAsk::Inspect { key64 } => Ask::Inspect(decode(&key64)?),
            WireAsk::Invalidate(WireScope::All) => Ask::Invalidate(Scope::All),
            WireAsk::Invalidate(WireScope::Prefix64(prefix)) => {
                Ask::Invalidate(Scope::Prefix(decode(&prefix)?))
            }
            WireAsk::Invalidate(WireScope::Keys64(keys)) => {
                let keys: Result<_> = keys.iter().map(|key| decode(key)).collect();
                Ask::Invalidate(Scope::Keys(keys?))
            }
        };
        Ok(Self { store, ask })
    }
}

impl Answer {
    pub(super) fn of(result: Result<Self>) -> Self {
        result.unwrap_or_else(|error| Self::Error {
            kind: error.kind().as_str().to_owned(),
            message: error.message().to_owned(),
        })
    }

    /// With the end of the line.
    pub(super) fn into_line(self) -> Result<Vec<u8>> {
        let reply = Reply { version: VERSION, answer: self };
        let mut line = serde_json::to_vec(&reply).map_err(unprintable)?;
        line.push(b'\n');
        Ok(line)
    }

    pub(super) fn parse(line: &[u8]) -> Result<Self> {
        let refuse = |error: serde_json::Error| {
            let message = "the process on the control socket gives no answer of this version";
            Error::new(ErrorKind::Unsupported, message).with_source(error)
        };
        let Reply { answer, .. } = serde_json::from_slice(line).map_err(refuse)?;
        match answer {
            Self::Error { kind, message } => {
                let kind = KINDS.into_iter().find(|known| known.as_str() == kind);
                Err(Error::new(kind.unwrap_or(ErrorKind::Internal), message))
            }
            answer => Ok(answer),
        }
    }
}

const KINDS: [ErrorKind; 12] = [
    ErrorKind::Access,
    ErrorKind::Corruption,
    ErrorKind::Unavailable,
    ErrorKind::Timeout,
    ErrorKind::Conflict,
    ErrorKind::Aborted,
    ErrorKind::Capacity,
    ErrorKind::Closed,
    ErrorKind::Unsupported,
    ErrorKind::InvalidInput,
    ErrorKind::Config,
    ErrorKind::Internal,
];

fn check_version(version: u32) -> Result<()> {
    if version == VERSION {
        return Ok(());
    }
    let message = format!(
        "this process speaks version {VERSION} of the control protocol, and was asked in version {version}"
    );
    Err(Error::unsupported(message))
}

fn decode(base64: &str) -> Result<Bytes> {
    let decoded = STANDARD_PAD_INDIFFERENT.decode(base64).map(Bytes::from);
    decoded.map_err(|_| Error::invalid("bytes are not base64; write A-Z, a-z, 0-9, + and /"))
}

fn unprintable(error: serde_json::Error) -> Error {
    Error::internal("a line of the control socket cannot be written").with_source(error)
}
