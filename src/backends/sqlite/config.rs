//! The settings: their ranges, and what they guarantee.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::layer::BackendConfig;
use crate::types::units::Span;
use crate::types::{
    Conditions, Counting, Durability, ExpiresUnit, Fields, Freshness, Guarantees, KeyColumns,
    Limits, Place, RowColumns, ValueColumns, check_path_of,
};

/// The columns that are used. See [`SqliteConfig`] for an example.
///
/// Without `columns` in a config they are those of a table that tierstack makes: `key`, `value`,
/// `expires`, `created` and `updated`. With it, the last three are used only where they are named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// The key, with a unique index of its own; several columns are `[a, b]`. Default: `key`.
    #[serde(default = "key_column")]
    pub key: KeyColumns,
    /// The value; or several columns as one JSON object: `{ columns: [a, b], as: json }`. Default: `value`.
    #[serde(default = "value_column")]
    pub value: ValueColumns,
    /// When the entry expires, in `expires_unit` since 1970, or NULL. Left out: entries cannot expire.
    #[serde(default)]
    pub expires: Option<String>,
    /// What the numbers in `expires` count: `milliseconds` or `seconds`. Default: `milliseconds`. Opening
    /// refuses values that do not look like it.
    #[serde(default)]
    pub expires_unit: ExpiresUnit,
    /// When the entry was first put, in milliseconds since 1970. Left out: it is not recorded.
    #[serde(default)]
    pub created: Option<String>,
    /// When the entry was last put, in milliseconds since 1970. Left out: it is not recorded.
    #[serde(default)]
    pub updated: Option<String>,
    /// What is written into other columns of a row that is new, as text: `{ kind: web }`. Those that are not named
    /// have their default. Default: none.
    #[serde(default)]
    pub constants: BTreeMap<String, String>,
}

fn key_column() -> KeyColumns {
    "key".into()
}

fn value_column() -> ValueColumns {
    "value".into()
}

/// All five, as in a table that tierstack makes.
impl Default for Columns {
    fn default() -> Self {
        Self {
            key: key_column(),
            value: value_column(),
            expires: Some("expires".into()),
            expires_unit: ExpiresUnit::Milliseconds,
            created: Some("created".into()),
            updated: Some("updated".into()),
            constants: BTreeMap::new(),
        }
    }
}

impl Columns {
    /// Each that is named, with the setting that names it.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let keys = self.key.names().iter().map(|name| ("columns.key", name.as_str()));
        let values = self.value.names().iter().map(|name| ("columns.value", name.as_str()));
        let optional = [
            ("columns.expires", &self.expires),
            ("columns.created", &self.created),
            ("columns.updated", &self.updated),
        ];
        let optional = optional.into_iter().filter_map(|(at, name)| Some((at, name.as_deref()?)));
        let constants = self.constants.keys().map(|name| ("columns.constants", name.as_str()));
        keys.chain(values).chain(optional).chain(constants)
    }
}

/// How SQLite stores bytes. To SQLite, the text `a` and the blob `x'61'` are different things.
/// See [`SqliteConfig`] for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// As BLOB: any bytes.
    #[default]
    Blob,
    /// As TEXT: UTF-8 only, others are refused.
    Text,
}

/// How the key of a row becomes the key of an entry. See [`SqliteConfig`] for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// As BLOB: any bytes.
    #[default]
    Blob,
    /// As TEXT: UTF-8 only, others are refused. A number is what a person would type, `42`; several columns are
    /// with a `/` between them, a BLOB of them in hexadecimal digits, and `%2F` for a `/` within a text.
    Text,
    /// The key is a tuple of the columns (`tierstack::keys`), which sorts as they do: of INTEGER, TEXT and BLOB.
    Tuple,
}

/// How SQLite makes commits atomic. See [`SqliteConfig`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Journal {
    /// A write-ahead log: readers and the writer do not wait for each other. An existing database in
    /// another mode is changed to it, for every program that uses it.
    Wal,
    /// A rollback journal, as databases have that nobody has changed: a writer and readers wait for
    /// each other, and there are no snapshots.
    Rollback,
}

/// Settings of the SQLite backend. `path` alone is a good configuration.
///
/// ```
/// use tierstack::backends::SqliteConfig;
/// use tierstack::backends::sqlite::{Columns, ExpiresUnit, Journal, Keys, Storage};
/// use tierstack::{BackendConfig, Durability};
///
/// // A table that another program made:
/// // CREATE TABLE sessions (name TEXT PRIMARY KEY, json TEXT, until INTEGER)
/// let config = SqliteConfig {
///     table: "sessions".into(),
///     columns: Columns {
///         key: "name".into(),
///         value: "json".into(),
///         expires: Some("until".into()),
///         expires_unit: ExpiresUnit::Seconds,
///         created: None,
///         updated: None,
///         ..Columns::default()
///     },
///     keys: Keys::Text,
///     values: Storage::Text,
///     journal: Some(Journal::Rollback),
///     ..SqliteConfig::new("./app.db")
/// };
/// let guarantees = config.profile()?.guarantees;
/// assert!(guarantees.expiry && !guarantees.snapshots);
/// assert_eq!(guarantees.durability, Durability::PowerCut);
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file. A relative path is meant from the folder of the config file.
    pub path: PathBuf,
    /// The table that is this store. Default: `entries`. The others stay as they are.
    #[serde(default = "default_table")]
    pub table: String,
    /// The columns that are used. Default: those of a table that tierstack makes.
    #[serde(default)]
    pub columns: Columns,
    /// How keys are stored: `blob`, `text`, or `tuple` for numbers and several columns. Default: `blob`. All keys of
    /// the table must be of this one kind.
    #[serde(default)]
    pub keys: Keys,
    /// How values are written. Default: `blob`. Values of both kinds are read.
    #[serde(default)]
    pub values: Storage,
    /// Whether scans are offered, in the order of keys. They need an index with that order, for which opening looks;
    /// `false` does without both. Default: true.
    #[serde(default = "yes")]
    pub scans: bool,
    /// Whether a missing file, folder or table is made. Default: true.
    #[serde(default = "yes")]
    pub create: bool,
    /// Whether the database is opened for reading only. Default: false.
    #[serde(default)]
    pub read_only: bool,
    /// Whether the rows of expired entries are removed, by later writes and by `compact`. Left out: only
    /// in a table that tierstack made. Reads pass expired entries by in any case.
    #[serde(default)]
    pub sweep: Option<bool>,
    /// How commits are made atomic. Left out: as `wal`, but a database of others must be in that mode
    /// already.
    #[serde(default)]
    pub journal: Option<Journal>,
    /// Whether a write is acknowledged when it is on the disk. Default: true. Concurrent writes share
    /// one fsync. With false a write is acknowledged when the operating system has it: faster by far,
    /// and lost by a power cut (not by a crash of the process) unless `flush` was called.
    #[serde(default = "yes")]
    pub sync: bool,
    /// How long an operation waits for a lock that another program holds, up to 1h, before it fails as
    /// unavailable. Default: 5s.
    #[serde(default = "default_busy_timeout")]
    pub busy_timeout: Span,
    /// Whether opening reads the whole database and refuses a damaged one. Default: false. Takes as
    /// long as reading the file.
    #[serde(default)]
    pub check_on_open: bool,
}

fn default_table() -> String {
    "entries".into()
}

const fn yes() -> bool {
    true
}

const fn default_busy_timeout() -> Span {
    Span(Duration::from_secs(5))
}

const MAX_BUSY_TIMEOUT: Duration = Duration::from_secs(3600);

/// SQLite's limit on a row, less the longest key and the row's header.
const MAX_VALUE_BYTES: u64 = 1_000_000_000 - Limits::MAX_KEY_BYTES as u64 - 1024;

impl SqliteConfig {
    /// The defaults, with the database at that path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            table: default_table(),
            columns: Columns::default(),
            keys: Keys::Blob,
            values: Storage::Blob,
            scans: true,
            create: true,
            read_only: false,
            sweep: None,
            journal: None,
            sync: true,
            busy_timeout: default_busy_timeout(),
            check_on_open: false,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::config("`path` is empty; name the database file"));
        }
        check_path_of("path", &self.path)?;
        let table = ("table", self.table.as_str());
        for (setting, name) in std::iter::once(table).chain(self.columns.named()) {
            if name.is_empty() || name.contains('\0') {
                return Err(Error::config(format!(
                    "`{setting}` must have at least one character and no NUL"
                )));
            }
        }
        for (at, (setting, name)) in self.columns.named().enumerate() {
            let mut before = self.columns.named().take(at);
            let twin = before.find(|(_, other)| other.eq_ignore_ascii_case(name));
            if let Some((other, _)) = twin {
                return Err(Error::config(format!(
                    "`{other}` and `{setting}` name the same column"
                )));
            }
        }
        let several = self.columns.key.names().len();
        if several == 0 || several > 32 {
            return Err(Error::config("`columns.key` must name from 1 to 32 columns"));
        }
        if several > 1 && self.keys == Keys::Blob {
            return Err(Error::config(
                "`columns.key` names several columns, which make one key with `keys: tuple`, or `keys: text`",
            ));
        }
        if self.columns.constants.values().any(|text| text.contains('\0')) {
            return Err(Error::config("`columns.constants` must hold texts without NUL"));
        }
        if let ValueColumns::Row(RowColumns { columns, .. }) = &self.columns.value {
            if *columns == Fields::Named(Vec::new()) {
                return Err(Error::config(
                    "`columns.value.columns` names no column; name at least one, or say `all`",
                ));
            }
            if self.values == Storage::Text {
                return Err(Error::config(
                    "`values` says how one column is written, and `columns.value` names a row; leave `values` out",
                ));
            }
        }
        if self.columns.expires.is_none() && self.columns.expires_unit == ExpiresUnit::Seconds {
            return Err(Error::config(
                "`columns.expires_unit` says what the numbers of a column count, but `columns.expires` names none",
            ));
        }
        if self.columns.expires.is_none() && self.sweep == Some(true) {
            return Err(Error::config(
                "`sweep: true` removes the rows of expired entries, but `columns.expires` names no column for that they expire",
            ));
        }
        if self.busy_timeout.0 > MAX_BUSY_TIMEOUT {
            return Err(Error::config("`busy_timeout` must be at most 1h"));
        }
        if !self.sync && self.journal == Some(Journal::Rollback) {
            return Err(Error::config(
                "`sync: false` needs the write-ahead log; with `journal: rollback`, without syncs, a power cut can damage the database",
            ));
        }
        Ok(())
    }

    pub(super) fn has_rows(&self) -> bool {
        matches!(self.columns.value, ValueColumns::Row(_))
    }

    pub(super) fn guarantees(&self) -> Guarantees {
        let writable = !self.read_only;
        Guarantees {
            durability: if self.sync { Durability::PowerCut } else { Durability::ProcessCrash },
            durability_on_request: if self.sync {
                Durability::PowerCut
            } else {
                Durability::ProcessCrash
            },
            durability_after_flush: Durability::PowerCut,
            atomic_batches: true,
            conditions: if writable { Conditions::Value } else { Conditions::None },
            verbatim: self.columns == Columns::default(),
            freshness: Freshness::Immediate,
            change_feed: None,
            ordered_scans: self.scans,
            atomic_pages: true,
            snapshots: self.journal != Some(Journal::Rollback),
            expiry: self.columns.expires.is_some(),
            ingest: writable,
            counts: Counting::No,
            writable,
            places: vec![Place { name: Self::NAME.into(), what: "database".into(), sealed: false }],
            recovery: None,
            limits: Limits {
                value_bytes: Some(MAX_VALUE_BYTES),
                text_values: self.values == Storage::Text || self.has_rows(),
                ..Limits::default()
            },
        }
    }
}
