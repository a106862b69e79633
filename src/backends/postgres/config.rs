//! The settings: their ranges, and what they guarantee.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::columns::{Columns, Keys, Values};
use super::own_table::{self, Table};
use super::{Postgres, change_feed, key, url};
use crate::error::{Error, Result};
use crate::layer::{BackendConfig, Context};
use crate::store::Store;
use crate::types::units::{Secret, Span, Url};
use crate::types::{
    Conditions, Counting, Durability, ExpiresUnit, Fields, Freshness, Guarantees, Limits, Place,
    Profile, RowColumns, ValueColumns, check_path_of,
};

/// Whether the connection is encrypted. See [`PostgresConfig`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// Not at all: only where nobody else can listen, such as on the same machine.
    Disable,
    /// Always; the server must show a certificate for its name, signed by a trusted authority.
    Require,
}

/// A pooler between here and PostgreSQL that gives each transaction another connection.
/// See [`PostgresConfig`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Pooler {
    /// In transaction mode, such as PgBouncer's `pool_mode = transaction`.
    Transaction,
}

/// Settings of the PostgreSQL backend.
///
/// `url` alone is a good configuration: it makes a table `tierstack` where there is none.
///
/// ```
/// use tierstack::backends::PostgresConfig;
/// use tierstack::backends::postgres::{
///     All, Columns, ExpiresUnit, Fields, KeyColumns, Keys, Pooler, RowColumns, RowForm, Tls, ValueColumns, Values,
/// };
/// use tierstack::units::Secret;
/// use tierstack::{BackendConfig, Durability};
///
/// let config = PostgresConfig {
///     password: Some(Secret::Env("PGPASSWORD".into())),
///     table: "shop.sessions".into(),
///     columns: Columns {
///         key: KeyColumns::Several(vec!["shop".into(), "id".into()]),
///         value: "body".into(),
///         expires: None,
///         expires_unit: ExpiresUnit::Milliseconds,
///         created: None,
///         updated: None,
///         constants: [("kind".into(), "web".into())].into(),
///     },
///     keys: Keys::Tuple,
///     values: Values::Text,
///     pooler: Some(Pooler::Transaction),
///     tls: Some(Tls::Require),
///     ..PostgresConfig::new("postgres://app@db.example.com/orders")
/// };
/// // The other columns of the row, as one JSON object.
/// let all = RowColumns { columns: Fields::All(All::All), form: RowForm::Json };
/// let columns = Columns { value: ValueColumns::Row(all), ..config.columns.clone() };
/// let rows = PostgresConfig { columns, values: Values::Bytea, ..config.clone() };
/// assert!(rows.profile()?.guarantees.limits.text_values);
///
/// let guarantees = config.profile()?.guarantees;
/// assert_eq!(guarantees.durability, Durability::PowerCut);
/// assert!(!guarantees.expiry, "the table has no column for it");
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// Where the database is: `postgres://user@host:5432/database`, without a password, or where such
    /// a text, then also with a password, is: `{ env: NAME }` or `{ file: PATH }`. Several hosts may
    /// be named, `host1,host2`: the first that takes writes is used.
    pub url: Url,
    /// The password, where `url` has none.
    #[serde(default)]
    pub password: Option<Secret>,
    /// The table, as `table` or `schema.table`. Names are taken as they are written here; one with a dot in
    /// it is in double quotes, `schema."my.table"`. Default: `tierstack`.
    #[serde(default = "default_table")]
    pub table: String,
    /// The columns of the table. Default: those of the table that is created.
    #[serde(default)]
    pub columns: Columns,
    /// How keys are kept: `bytea`, `text` (as a person types them) or `tuple` (as tuples, which sort as the columns
    /// do). The last two are for text, UUIDs, integers and timestamps. Default: `bytea`.
    #[serde(default)]
    pub keys: Keys,
    /// How values are kept: `bytea`, or `text` for a column of text, `json` or `jsonb`. Default: `bytea`.
    #[serde(default)]
    pub values: Values,
    /// Whether scans are offered, in the order of keys. They need an index with that order, for which opening
    /// looks; `false` does without both. Default: true.
    #[serde(default = "yes")]
    pub scans: bool,
    /// Whether a missing table is created, and an older one that tierstack created is brought up to
    /// date. A table that somebody else made is never altered. Default: true.
    #[serde(default = "yes")]
    pub create: bool,
    /// Whether nothing is written: writes are refused here, and each transaction is one that the server lets only read.
    /// The table may then be a view, materialised, foreign or partitioned, the server a standby, and the role one with
    /// SELECT alone. Default: false.
    #[serde(default)]
    pub read_only: bool,
    /// Whether the store has a change feed, so that caches drop what they changed. Needs triggers
    /// on the table, which are made together with it; `tierstack schema postgres` prints them for a table
    /// of your own. Each write then costs about 0.1 ms more. Default: false.
    #[serde(default)]
    pub change_feed: bool,
    /// Whether the rows of expired entries are removed, once a minute and by `compact`. Default: only in a
    /// table that tierstack made. `true` does so in a table of others too, `false` nowhere.
    #[serde(default)]
    pub sweep: Option<bool>,
    /// A pooler in between that gives each transaction another connection: `transaction`. Then no setting of
    /// a session is used and there is no change feed. Default: none; opening fails where one is noticed.
    #[serde(default)]
    pub pooler: Option<Pooler>,
    /// What an acknowledged write survives: `process_crash` (of this process; PostgreSQL syncs within a
    /// second: the fastest), `power_cut` or `machine_loss` (needs synchronous replication). Default:
    /// `power_cut`.
    #[serde(default = "default_durability")]
    pub durability: Durability,
    /// Whether the connection is encrypted. Default: `require`, but `disable` for a server on this
    /// machine.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// A file of certificates (PEM) that are trusted to sign the server's. Default: those that the system
    /// trusts.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Connections at most for reads and writes, from 1 to 1000. Default: 16. Subscriptions to changes
    /// use one more, each snapshot one, and `compact` one.
    #[serde(default = "default_pool")]
    pub pool: usize,
    /// Snapshots at most at a time, from 0 to 1000. Default: 32. Each has a connection of its own, and
    /// keeps PostgreSQL from removing old versions of rows.
    #[serde(default = "default_snapshots")]
    pub snapshots: usize,
    /// How long making a connection may take. Default: 5s.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Span,
    /// How long an operation may take, waiting for a connection included; a page of a scan is one.
    /// Default: 10s.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
}

fn default_table() -> String {
    "tierstack".to_owned()
}

const fn yes() -> bool {
    true
}

const fn default_durability() -> Durability {
    Durability::PowerCut
}

const fn default_pool() -> usize {
    16
}

const fn default_snapshots() -> usize {
    32
}

const fn default_connect_timeout() -> Span {
    Span(Duration::from_secs(5))
}

const fn default_timeout() -> Span {
    Span(Duration::from_secs(10))
}

/// An entry of a B-tree takes a third of a page: 2,704 bytes, headers included.
pub(super) const MAX_KEY_BYTES: usize = 2600;

/// PostgreSQL takes 1 GB at most and holds a value several times while it is written.
const MAX_VALUE_BYTES: u64 = 256 << 20;

impl PostgresConfig {
    /// The defaults, with the database at that address.
    #[must_use]
    pub fn new(url: impl Into<Url>) -> Self {
        Self {
            url: url.into(),
            password: None,
            table: default_table(),
            columns: Columns::default(),
            keys: Keys::default(),
            values: Values::default(),
            scans: true,
            create: true,
            read_only: false,
            change_feed: false,
            sweep: None,
            pooler: None,
            durability: default_durability(),
            tls: None,
            ca: None,
            pool: default_pool(),
            snapshots: default_snapshots(),
            connect_timeout: default_connect_timeout(),
            timeout: default_timeout(),
        }
    }

    /// The SQL that makes the table, and with `change_feed` its triggers: what opening the store with
    /// `create` runs where the table is missing. For users who run such statements by hand.
    ///
    /// # Errors
    /// `Config` if the settings are out of range.
    ///
    /// ```
    /// use tierstack::backends::PostgresConfig;
    ///
    /// let sql = PostgresConfig::new("postgres://app@localhost/orders").schema()?;
    /// assert!(sql.contains(r#"CREATE TABLE "tierstack""#));
    /// # Ok::<(), tierstack::Error>(())
    /// ```
    pub fn schema(&self) -> Result<String> {
        self.check().map_err(|error| error.with_layer(Self::NAME))?;
        let table = self.parsed_table()?;
        let mut sql = own_table::create(&table, self)
            .unwrap_or_else(|| "-- The table is one of your own.\n".to_owned());
        if self.change_feed {
            sql.push_str("\n-- The triggers. On a table of your own, run only what is below.\n\n");
            sql.push_str(&change_feed::triggers(&table, &key::told(self)));
        }
        Ok(sql)
    }

    pub(super) fn parsed_table(&self) -> Result<Table> {
        self.table.parse().map_err(Error::config)
    }

    fn check(&self) -> Result<()> {
        if let Some(ca) = &self.ca {
            check_path_of("ca", ca)?;
        }
        url::check(&self.url)?;
        self.parsed_table()?;
        let columns: Vec<_> = self.columns.named().collect();
        for (at, (setting, name)) in columns.iter().enumerate() {
            own_table::check_name(name)
                .map_err(|why| Error::config(format!("`columns.{setting}` {why}")))?;
            if columns.iter().take(at).any(|(_, other)| other == name) {
                return Err(Error::config(format!(
                    "`columns.{setting}` is '{name}', which is another column already; name each once"
                )));
            }
        }
        if self.durability == Durability::Nothing {
            return Err(Error::config(
                "`durability` cannot be `nothing`: PostgreSQL keeps what it acknowledged at least while it runs; allowed are `process_crash`, `power_cut` and `machine_loss`",
            ));
        }
        if self.columns.expires.is_none() {
            for (named, setting) in [
                (self.columns.expires_unit == ExpiresUnit::Seconds, "columns.expires_unit"),
                (self.sweep == Some(true), "sweep"),
            ] {
                if named {
                    return Err(Error::config(format!(
                        "`{setting}` is about entries that expire, but `columns.expires` names no column for that"
                    )));
                }
            }
        }
        if self.read_only && self.sweep == Some(true) {
            return Err(Error::config(
                "`sweep: true` removes rows, and with `read_only: true` nothing is written; leave one of them out",
            ));
        }
        let several = self.columns.key.names().len();
        if several == 0 || several > 32 {
            return Err(Error::config("`columns.key` must name from 1 to 32 columns"));
        }
        if several > 1 && self.keys == Keys::Bytea {
            return Err(Error::config(
                "`columns.key` names several columns, which make one key with `keys: tuple`, or `keys: text`",
            ));
        }
        if let ValueColumns::Row(RowColumns { columns, .. }) = &self.columns.value {
            if *columns == Fields::Named(Vec::new()) {
                return Err(Error::config(
                    "`columns.value.columns` names no column; name at least one, or say `all`",
                ));
            }
            if self.values == Values::Text {
                return Err(Error::config(
                    "`values` says what one column holds, and `columns.value` names a row; leave `values` out",
                ));
            }
        }
        if self.change_feed && self.pooler.is_some() {
            return Err(Error::config(
                "`change_feed` needs a connection that stays the same, and behind a `pooler` in transaction mode there is none; leave one of them out, or connect to PostgreSQL without the pooler",
            ));
        }
        within("pool", self.pool, 1, 1000)?;
        within("snapshots", self.snapshots, 0, 1000)?;
        for (name, span) in [("connect_timeout", self.connect_timeout), ("timeout", self.timeout)] {
            if span.0 < Duration::from_millis(10) || span.0 > Duration::from_secs(86_400) {
                return Err(Error::config(format!(
                    "`{name}` is {span}, but must be from 10ms to 1day"
                )));
            }
        }
        Ok(())
    }

    fn has_rows(&self) -> bool {
        matches!(self.columns.value, ValueColumns::Row(_))
    }

    fn guarantees(&self) -> Guarantees {
        let writable = !self.read_only;
        Guarantees {
            durability: self.durability,
            durability_on_request: self.durability,
            durability_after_flush: self.durability.max(Durability::PowerCut),
            atomic_batches: true,
            conditions: if writable { Conditions::Value } else { Conditions::None },
            verbatim: self.columns == Columns::default() && self.values == Values::Bytea,
            // A standby may be behind by any time. The change feed comes from the primary.
            freshness: if writable || self.change_feed {
                Freshness::Immediate
            } else {
                Freshness::Unbounded
            },
            change_feed: self.change_feed.then_some(change_feed::WITHIN),
            ordered_scans: self.scans,
            atomic_pages: true,
            snapshots: self.snapshots > 0,
            expiry: self.columns.expires.is_some(),
            ingest: writable,
            counts: Counting::Estimated,
            writable,
            places: vec![Place { name: Self::NAME.into(), what: "database".into(), sealed: false }],
            recovery: None,
            limits: Limits {
                key_bytes: MAX_KEY_BYTES,
                value_bytes: Some(MAX_VALUE_BYTES),
                text_values: self.values == Values::Text || self.has_rows(),
                ..Limits::default()
            },
        }
    }
}

fn within(name: &str, value: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::config(format!("`{name}` is {value}, but must be from {least} to {most}")))
}

#[async_trait]
impl BackendConfig for PostgresConfig {
    const NAME: &'static str = "postgres";
    const OWN: &'static [&'static str] = &[
        "table",
        "columns",
        "keys",
        "values",
        "scans",
        "create",
        "change_feed",
        "sweep",
        "snapshots",
    ];

    fn part(&self) -> String {
        // What is no name of a table is said when it is checked.
        self.parsed_table().map_or_else(|_| self.table.clone(), |table| table.to_string())
    }

    fn profile(&self) -> Result<Profile> {
        self.check().map_err(|error| error.with_layer(Self::NAME))?;
        let mut profile = Profile::backend(Self::NAME, self.guarantees());
        if self.durability == Durability::ProcessCrash {
            profile = profile.note(
                "`durability` is `process_crash`: PostgreSQL acknowledges a write before it is on its disk, and a crash of its machine can cost the writes of three times its `wal_writer_delay`. `flush` makes all of them survive one.",
            );
        }
        if self.keys != Keys::Bytea {
            profile = profile.note(
                "`keys` is not `bytea`: a key that does not fit the key's columns is refused.",
            );
        }
        if !self.scans {
            profile = profile.note(
                "`scans` is false: entries are found by their keys alone, so nothing above can list or back them up.",
            );
        }
        if self.has_rows() {
            profile = profile.note(
                "`columns.value` names columns of a row: a value is a JSON object with a field for each, spelt as PostgreSQL spells it and not as it was put. Other values are refused.",
            );
        }
        if self.values == Values::Text {
            profile = profile.note(
                "`values` is `text`: a value that the column does not take is refused, and `jsonb` spells it in its own way.",
            );
        }
        if self.pooler.is_some() {
            profile = profile.note(
                "`pooler` is set: statements are not prepared, and a batch that deletes, or depends on what is there, locks the table against other writers while it is written.",
            );
        }
        if self.read_only {
            profile = profile.note(if self.change_feed {
                "`read_only`: nothing is written. The server must be the primary, as a standby has no change feed."
            } else {
                "`read_only`: nothing is written. The server may be a standby, which may be behind; a view must have each key once."
            });
        }
        if self.sweep == Some(true) {
            profile = profile.note(
                "`sweep` is true: rows of expired entries are removed, also those that other programs have written.",
            );
        }
        if self.columns.expires_unit == ExpiresUnit::Seconds {
            profile = profile.note(
                "`columns.expires_unit` is `seconds`: a deadline is rounded up to a whole second.",
            );
        }
        if self.tls == Some(Tls::Disable) {
            profile = profile.note(
                "`tls` is `disable`: anyone who can listen on the way to the server reads keys, values and, unless it uses SCRAM, the password.",
            );
        }
        Ok(profile)
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn Store>> {
        let resolved = |secret: &Secret| match secret {
            Secret::File(path) => Secret::File(context.resolve(path)),
            Secret::Env(_) => secret.clone(),
        };
        let address = match &self.url {
            Url::Secret(secret) => Url::Secret(resolved(secret)),
            Url::Plain(_) => self.url.clone(),
        };
        let settings = Self {
            url: address,
            password: self.password.as_ref().map(resolved),
            ca: self.ca.as_ref().map(|path| context.resolve(path)),
            ..self.clone()
        };
        let opened = Postgres::open_as(settings, context).await?;
        Ok(Arc::new(opened))
    }
}
