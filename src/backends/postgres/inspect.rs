//! What is there when the store is opened: the server and the table, which must be able to keep what the
//! settings promise.

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Row;

use super::config::PostgresConfig;
use super::failure::failed;
use super::schema::{self, Table, quoted};
use super::sql::Expires;
use super::{announce, schema::VERSION};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::types::Durability;

/// The oldest PostgreSQL that this is written for.
const OLDEST_SERVER: i32 = 12;

/// The table, as it was found or made.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Its number, which the channel of announcements is named by.
    pub(super) oid: u32,
    /// With its schema.
    pub(super) table: Table,
    pub(super) expires: Expires,
    /// Whether tierstack made it.
    pub(super) own: bool,
}

fn fail(error: tokio_postgres::Error) -> Error {
    failed(Operation::Open, error)
}

fn config(message: impl Into<String>) -> Error {
    Error::config(message.into())
}

/// Looks at everything, and makes the table where it is missing and may be made.
pub(super) async fn open(client: &ClientWrapper, settings: &PostgresConfig) -> Result<Found> {
    server(client, settings).await?;
    let found = match table(client, settings).await? {
        Some(found) if found.version.is_none_or(|version| version >= VERSION) => found,
        _ => make(client, settings).await?,
    };
    let found = found.checked(client, settings).await?;
    if settings.announce {
        announcing(client, settings, &found).await?;
    }
    Ok(found)
}

async fn server(client: &ClientWrapper, settings: &PostgresConfig) -> Result<()> {
    let sql = "SELECT current_setting('server_version_num')::int / 10000, current_setting('transaction_read_only') = 'on', current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on', current_setting('synchronous_standby_names') <> ''";
    let row = client.query_one(sql, &[]).await.map_err(fail)?;
    let version: i32 = row.try_get(0).map_err(fail)?;
    if version < OLDEST_SERVER {
        return Err(config(format!(
            "the server is PostgreSQL {version}, but it must be {OLDEST_SERVER} or later"
        )));
    }
    if row.try_get(1).map_err(fail)? {
        return Err(Error::new(
            ErrorKind::Access,
            "the server takes no writes: it is a standby, or the database or the role is read-only; name the primary, or several hosts",
        ));
    }
    if settings.durability >= Durability::PowerCut {
        for (at, name) in [(2, "fsync"), (3, "full_page_writes")] {
            if !row.try_get::<_, bool>(at).map_err(fail)? {
                return Err(config(format!(
                    "the server runs with `{name}` off, so what it acknowledges may not survive a power cut; turn it on, or accept that with `durability: process_crash`"
                )));
            }
        }
    }
    if settings.durability == Durability::MachineLoss && !row.try_get::<_, bool>(4).map_err(fail)? {
        return Err(config(
            "`durability` is `machine_loss`, but the server has no synchronous standby (`synchronous_standby_names` is empty); set one up, or say `durability: power_cut`",
        ));
    }
    Ok(())
}

/// What the catalogue says of a relation.
struct Relation {
    oid: u32,
    table: Table,
    kind: String,
    unlogged: bool,
    version: Option<u32>,
    rights: bool,
}

async fn table(client: &ClientWrapper, settings: &PostgresConfig) -> Result<Option<Relation>> {
    let table = settings.parsed_table()?;
    let sql = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence <> 'p', obj_description(c.oid, 'pg_class'), has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)";
    let row = client.query_opt(sql, &[&table.to_string()]).await.map_err(fail)?;
    row.map(|row| relation(&row).map_err(fail)).transpose()
}

fn relation(row: &Row) -> Result<Relation, tokio_postgres::Error> {
    Ok(Relation {
        oid: row.try_get(0)?,
        table: Table { schema: Some(row.try_get(1)?), name: row.try_get(2)? },
        kind: row.try_get(3)?,
        unlogged: row.try_get(4)?,
        version: schema::version(row.try_get(5)?),
        rights: row.try_get(6)?,
    })
}

/// A lock that those who make or change a table hold, so that one of them does it: "tiers", as a number.
const MAKING: i64 = 0x7469_6572_7300_0001;

/// Makes the table, or brings it up to date, unless another process has done so meanwhile.
async fn make(client: &ClientWrapper, settings: &PostgresConfig) -> Result<Relation> {
    let name = settings.parsed_table()?;
    if !settings.create {
        return Err(match table(client, settings).await? {
            None => config(format!(
                "there is no table {name}, and `create` is false; make it with what `tierstack schema postgres` prints"
            )),
            Some(found) => config(format!(
                "the table {name} is of schema version {}, which is older than {VERSION}, and `create` is false",
                found.version.unwrap_or_default()
            )),
        });
    }
    let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({MAKING})");
    client.batch_execute(&begin).await.map_err(fail)?;
    let sql = match table(client, settings).await? {
        None => Some(schema::create(&name, &settings.columns)),
        Some(found) => found
            .version
            .and_then(|version| schema::migrate(&found.table, &settings.columns, version)),
    };
    if let Some(sql) = sql {
        client.batch_execute(&sql).await.map_err(fail)?;
    }
    client.batch_execute("COMMIT").await.map_err(fail)?;
    table(client, settings).await?.ok_or_else(|| {
        config(format!(
            "the table {name} is made, but is not found by its name; write `schema.table`"
        ))
    })
}

impl Relation {
    async fn checked(self, client: &ClientWrapper, settings: &PostgresConfig) -> Result<Found> {
        let name = &self.table;
        if let Some(version) = self.version.filter(|version| *version > VERSION) {
            return Err(config(format!(
                "the table {name} is of schema version {version}, made by a newer tierstack; this one knows up to {VERSION}"
            )));
        }
        if !["r", "p"].contains(&self.kind.as_str()) {
            return Err(config(format!("{name} is not a table")));
        }
        if self.kind == "p" && settings.announce {
            return Err(config(format!(
                "{name} is partitioned, and what is written to a partition by its own name goes unannounced; leave `announce` out"
            )));
        }
        if self.unlogged {
            return Err(config(format!(
                "the table {name} is unlogged or temporary, so a crash of the server empties it; ALTER TABLE {name} SET LOGGED"
            )));
        }
        if !self.rights {
            return Err(Error::new(
                ErrorKind::Access,
                format!(
                    "the role needs rights; GRANT SELECT, INSERT, UPDATE, DELETE ON {name} to it"
                ),
            ));
        }
        let expires = self.columns(client, settings).await?;
        Ok(Found { oid: self.oid, own: self.version.is_some(), table: self.table, expires })
    }

    async fn columns(&self, client: &ClientWrapper, settings: &PostgresConfig) -> Result<Expires> {
        let name = &self.table;
        let sql = "SELECT attname::text, format_type(atttypid, NULL), attnotnull, atthasdef OR attidentity <> '', EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum AND m.amname = 'btree') FROM pg_attribute a WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped";
        let rows = client.query(sql, &[&self.oid]).await.map_err(fail)?;
        let columns = rows.iter().map(column).collect::<Result<Vec<_>, _>>().map_err(fail)?;
        let find = |setting: &str, wanted: &str| {
            columns.iter().find(|column| column.name == wanted).ok_or_else(|| {
                config(format!(
                    "the table {name} has no column {}; say with `columns.{setting}` which one it is",
                    quoted(wanted)
                ))
            })
        };
        let mut kept = Expires::Millis;
        for (setting, wanted) in settings.columns.named() {
            let found = find(setting, wanted)?;
            let (fits, must_be) = match setting {
                "key" | "value" => (found.kind == "bytea", "bytea"),
                "expires" => (
                    ["bigint", "timestamp with time zone"].contains(&found.kind.as_str()),
                    "bigint (milliseconds since 1970) or timestamptz",
                ),
                _ => (found.kind.starts_with("timestamp"), "timestamptz"),
            };
            if !fits {
                return Err(config(format!(
                    "the column {} of {name} is of type {}, but as `columns.{setting}` it must be {must_be}",
                    quoted(wanted),
                    found.kind
                )));
            }
            if setting == "key" && !(found.not_null && found.unique) {
                return Err(config(format!(
                    "the column {} of {name} must be NOT NULL and have a unique index of its own (B-tree, on the whole table): a primary key",
                    quoted(wanted)
                )));
            }
            if setting == "expires" && found.kind != "bigint" {
                kept = Expires::Timestamp;
            }
        }
        let ours: Vec<&str> = settings.columns.named().map(|(_, name)| name).collect();
        let unfilled = |column: &&Column| {
            column.not_null && !column.has_default && !ours.contains(&column.name.as_str())
        };
        match columns.iter().find(unfilled) {
            Some(column) => Err(config(format!(
                "the column {} of {name} must be filled, but is not in `columns`; give it a default",
                quoted(&column.name)
            ))),
            None => Ok(kept),
        }
    }
}

struct Column {
    name: String,
    kind: String,
    not_null: bool,
    has_default: bool,
    unique: bool,
}

fn column(row: &Row) -> Result<Column, tokio_postgres::Error> {
    Ok(Column {
        name: row.try_get(0)?,
        kind: row.try_get(1)?,
        not_null: row.try_get(2)?,
        has_default: row.try_get(3)?,
        unique: row.try_get(4)?,
    })
}

/// The triggers that announce are there, or are made on a table that tierstack made.
async fn announcing(
    client: &ClientWrapper,
    settings: &PostgresConfig,
    found: &Found,
) -> Result<()> {
    if announce::is_set_up(client, found.oid).await.map_err(fail)? {
        return Ok(());
    }
    if !(settings.create && found.own) {
        return Err(config(format!(
            "`announce` needs triggers on the table {}; make them with what `tierstack schema postgres` prints below CREATE TABLE",
            found.table
        )));
    }
    let sql = announce::triggers(&found.table, &settings.columns.key);
    let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({MAKING})");
    client.batch_execute(&begin).await.map_err(fail)?;
    if !announce::is_set_up(client, found.oid).await.map_err(fail)? {
        client.batch_execute(&sql).await.map_err(fail)?;
    }
    client.batch_execute("COMMIT").await.map_err(fail)
}
