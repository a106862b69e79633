//! What is there when the store is opened: the server and the table, which must be able to keep what the
//! settings guarantee.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::change_feed::{self, Installed};
use super::config::PostgresConfig;
use super::error::failed;
use super::expires::Expires;
use super::indexes;
use super::key::{Key, told};
use super::own_table::{self, Table, VERSION, quoted};
use super::session::Session;
use super::table_columns::Attributes;
use super::value::Shape;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::layer::BackendConfig;
use crate::types::{Durability, Identity};

/// The oldest PostgreSQL that this is written for.
const OLDEST_SERVER: i32 = 12;

/// The table, as it was found or made.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Its name, with the schema.
    pub(super) table: Table,
    pub(super) key: Key,
    pub(super) value: Shape,
    /// Columns that are filled in a row that is new, and with what, as SQL.
    pub(super) constants: Vec<(String, String)>,
    pub(super) expires: Expires,
    /// Why there are no scans, and what would allow them.
    pub(super) no_scans: Option<String>,
    /// Whether tierstack made it.
    pub(super) own: bool,
    /// Whether a trigger may change what is written.
    pub(super) rewrites: bool,
    pub(super) identity: Option<Identity>,
}

fn fail(error: tokio_postgres::Error) -> Error {
    failed(Operation::Open, error)
}

fn config(message: impl Into<String>) -> Error {
    Error::config(message.into())
}

/// Looks at everything, and makes the table where it is missing and may be made.
pub(super) async fn open(
    session: Session<'_>,
    settings: &PostgresConfig,
    may_create: bool,
) -> Result<Found> {
    server(session, settings).await?;
    let found = match table(session, settings).await? {
        Some(found) if found.version.is_none_or(|version| version >= VERSION) => found,
        _ => make(session, settings, may_create).await?,
    };
    let found = found.checked(session, settings).await?;
    if settings.change_feed {
        announcing(session, settings, &found, settings.create && may_create && !settings.read_only)
            .await?;
    }
    Ok(found)
}

/// The one row of a question.
async fn ask<'a>(session: Session<'a>, sql: &'a str) -> Result<Row> {
    let mut rows = session.query(sql, Vec::new()).await.map_err(fail)?;
    rows.pop().ok_or_else(|| Error::internal("a question to the catalogue has no answer"))
}

async fn server(session: Session<'_>, settings: &PostgresConfig) -> Result<()> {
    let sql = "SELECT current_setting('server_version_num')::int / 10000, current_setting('transaction_read_only') = 'on', current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on', current_setting('synchronous_standby_names') <> ''";
    let row = ask(session, sql).await?;
    let version: i32 = row.try_get(0).map_err(fail)?;
    if version < OLDEST_SERVER {
        return Err(config(format!(
            "the server is PostgreSQL {version}, but it must be {OLDEST_SERVER} or later"
        )));
    }
    if settings.read_only {
        return Ok(());
    }
    if row.try_get(1).map_err(fail)? {
        return Err(Error::new(
            ErrorKind::Access,
            "the server takes no writes: it is a standby, or the database or the role is read-only; name the primary, or several hosts, or set `read_only: true` to read what is there",
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
    /// To read, and to read and write.
    rights: [bool; 2],
    rewrites: bool,
}

async fn table(session: Session<'_>, settings: &PostgresConfig) -> Result<Option<Relation>> {
    let table = settings.parsed_table()?;
    let sql = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence <> 'p', (SELECT conname::text FROM pg_constraint WHERE conrelid = c.oid AND conname LIKE 'tierstack schema %' LIMIT 1), obj_description(c.oid, 'pg_class'), has_any_column_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'), EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgtype & 3 = 3 AND t.tgname <> '~tierstack_announce') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)";
    let name = table.to_string();
    let rows = session.query(sql, vec![(&name, Type::TEXT)]).await.map_err(fail)?;
    rows.first().map(|row| relation(row).map_err(fail)).transpose()
}

fn relation(row: &Row) -> Result<Relation, tokio_postgres::Error> {
    Ok(Relation {
        oid: row.try_get(0)?,
        table: Table { schema: Some(row.try_get(1)?), name: row.try_get(2)? },
        kind: row.try_get(3)?,
        unlogged: row.try_get(4)?,
        version: own_table::version(row.try_get(5)?).or(own_table::version(row.try_get(6)?)),
        rights: [row.try_get(7)?, row.try_get(8)?],
        rewrites: row.try_get(9)?,
    })
}

/// A lock that every process holds while it makes or changes a table, so that one of them does it: "tiers", as a number.
const MAKING: i64 = 0x7469_6572_7300_0001;

/// Makes the table, or brings it up to date, unless another process has done so meanwhile.
async fn make(
    session: Session<'_>,
    settings: &PostgresConfig,
    may_create: bool,
) -> Result<Relation> {
    let name = settings.parsed_table()?;
    if !(settings.create && may_create && !settings.read_only) {
        return Err(match table(session, settings).await? {
            None => missing(session, &name, settings.create).await?,
            Some(found) => config(format!(
                "the table {name} is of schema version {}, which is older than {VERSION}, and is updated by a store that writes, with `create: true`",
                found.version.unwrap_or_default()
            )),
        });
    }
    let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({MAKING})");
    session.client.batch_execute(&begin).await.map_err(fail)?;
    let sql = match table(session, settings).await? {
        None => Some(own_table::create(&name, settings).ok_or_else(|| {
            config(format!(
                "there is no table {name}, and with `keys: tuple`, or with several columns or `columns.constants`, none is made, as their types are not known; make it first"
            ))
        })?),
        Some(found) => {
            found.version.and_then(|version| own_table::migrate(&found.table, version))
        }
    };
    if let Some(sql) = sql {
        session.client.batch_execute(&sql).await.map_err(fail)?;
    }
    session.client.batch_execute("COMMIT").await.map_err(fail)?;
    table(session, settings).await?.ok_or_else(|| {
        config(format!(
            "the table {name} is made, but is not found by its name; write `schema.table`"
        ))
    })
}

/// There is no such table, with the name of one that is there and may be meant.
async fn missing(session: Session<'_>, name: &Table, create: bool) -> Result<Error> {
    let sql = "SELECT CASE WHEN pg_table_is_visible(c.oid) THEN NULL ELSE n.nspname::text END, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') LIMIT 10000";
    let rows = session.query(sql, Vec::new()).await.map_err(fail)?;
    let tables =
        rows.iter().map(|row| Ok(Table { schema: row.try_get(0)?, name: row.try_get(1)? }));
    let tables: Vec<Table> = tables.collect::<Result<_, _>>().map_err(fail)?;
    let distance = |other: &Table| {
        strsim::damerau_levenshtein(&name.name.to_lowercase(), &other.name.to_lowercase())
    };
    let dotted = name.schema.as_ref().map(|schema| format!("{schema}.{}", name.name));
    let near = tables.iter().min_by_key(|other| distance(other));
    let near = near.filter(|other| distance(other) <= (name.name.len() / 3).max(1));
    let meant = match (tables.iter().find(|other| dotted.as_ref() == Some(&other.name)), near) {
        (Some(dotted), _) => format!("; did you mean `{dotted}`, with the quotes?"),
        (None, Some(near)) => format!("; did you mean {near}?"),
        (None, None) => ".".to_owned(),
    };
    Ok(config(if create {
        format!(
            "there is no table {name}{meant} A store that writes makes it, and one that reads does not"
        )
    } else {
        format!(
            "there is no table {name}, and `create` is false{meant} Make it with what `tierstack schema postgres` prints"
        )
    }))
}

impl Relation {
    async fn checked(self, session: Session<'_>, settings: &PostgresConfig) -> Result<Found> {
        let name = &self.table;
        if let Some(version) = self.version.filter(|version| *version > VERSION) {
            return Err(config(format!(
                "the table {name} is of schema version {version}, made by a newer tierstack; this one knows up to {VERSION}"
            )));
        }
        self.of_a_kind(settings)?;
        if self.unlogged && !settings.read_only {
            return Err(config(format!(
                "the table {name} is unlogged or temporary, so a crash of the server empties it; ALTER TABLE {name} SET LOGGED"
            )));
        }
        let [reads, writes] = self.rights;
        let needed = match (reads, writes || settings.read_only) {
            (true, true) => None,
            (true, false) => Some(format!(
                "GRANT SELECT, INSERT, UPDATE, DELETE ON {name} to it, or set `read_only: true`"
            )),
            (false, _) if settings.read_only => Some(format!("GRANT SELECT ON {name} to it")),
            (false, _) => Some(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {name} to it")),
        };
        if let Some(needed) = needed {
            let message = format!("the role needs rights; {needed}");
            return Err(Error::new(ErrorKind::Access, message));
        }
        let columns = Attributes::look(session, self.oid, name, settings, self.kind == "r").await?;
        let expires = columns.expires()?;
        let key = columns.key()?;
        let value = columns.value()?;
        columns.filled(&value)?;
        let constants = columns.constants(session).await?;
        let indexes = indexes::of(session, self.oid).await.map_err(fail)?;
        columns.unique(&key, &indexes)?;
        let no_scans = columns.scans(&key, &indexes)?;
        let own = self.version.is_some();
        if let Some(column) = settings.columns.expires.as_ref().filter(|_| !own) {
            times(session, &self.table, &quoted(column), expires).await?;
        }
        let identity = identity(session, self.oid).await;
        Ok(Found {
            own,
            rewrites: self.rewrites,
            table: self.table,
            key,
            value,
            constants,
            expires,
            no_scans,
            identity,
        })
    }

    fn of_a_kind(&self, settings: &PostgresConfig) -> Result<()> {
        let name = &self.table;
        let what = match self.kind.as_str() {
            "r" => return Ok(()),
            "p" if settings.change_feed => {
                return Err(config(format!(
                    "{name} is partitioned, and what is written to a partition by its own name is not in the change feed; leave `change_feed` out"
                )));
            }
            "p" => return Ok(()),
            "v" => "a view",
            "m" => "a materialised view",
            "f" => "a foreign table",
            _ => return Err(config(format!("{name} is not a table"))),
        };
        match (settings.read_only, settings.change_feed) {
            (false, _) => Err(config(format!(
                "{name} is not a table but {what}; set `read_only: true` to read it"
            ))),
            (true, true) => Err(config(format!(
                "{name} is {what}, which has no change feed; leave `change_feed` out"
            ))),
            (true, false) => Ok(()),
        }
    }
}

/// The number that the data folder of the server was made with, which a standby and a restored copy share, and
/// those of the database and the table. `None` where the role may not ask.
async fn identity(session: Session<'_>, oid: u32) -> Option<Identity> {
    let sql = "SELECT (SELECT system_identifier::text FROM pg_control_system()), oid::text FROM pg_database WHERE datname = current_database()";
    let row = ask(session, sql).await.ok()?;
    let (server, database): (String, String) = (row.try_get(0).ok()?, row.try_get(1).ok()?);
    Some(Identity::new(PostgresConfig::NAME, &[&server, &database, &oid.to_string()]))
}

/// Rows of a table of somebody else whose times are looked at.
const LOOKED_AT: u32 = 10_000;

/// Fails where the numbers in a column of deadlines do not look like the unit in which they are to be read:
/// entries that live would be taken for expired.
async fn times(session: Session<'_>, table: &Table, column: &str, kept: Expires) -> Result<()> {
    let (other, units) = match kept {
        Expires::Millis => (Expires::Seconds, ["milliseconds", "seconds"]),
        _ => (Expires::Millis, ["seconds", "milliseconds"]),
    };
    let (Some(odd), Some(odd_there)) = (kept.odd(column), other.odd(column)) else {
        return Ok(());
    };
    let sql = format!(
        "SELECT count(*) FILTER (WHERE {odd}), count(*) FILTER (WHERE {odd_there}), count(*) FROM (SELECT {column} FROM {table} LIMIT {LOOKED_AT}) AS looked_at WHERE {column} IS NOT NULL"
    );
    let row = ask(session, &sql).await?;
    let number = |at: usize| row.try_get::<_, i64>(at).map_err(fail);
    let [unit, other] = units;
    match (number(0)?, number(1)?, number(2)?) {
        (0, _, _) => Ok(()),
        (_, 0, _) => Err(config(format!(
            "the numbers in the column {column} of {table} look like {other}, not {unit}; set `columns.expires_unit: {other}`"
        ))),
        (odd, _, all) => Err(config(format!(
            "of {all} numbers in the column {column} of {table} {odd} look like no time in {unit} since 1970, such as a 0 that stands for \"never\"; make them NULL, set `columns.expires_unit` to what they count, or leave `columns.expires` out"
        ))),
    }
}

/// The triggers of the change feed are there, or are made on a table that tierstack made.
async fn announcing(
    session: Session<'_>,
    settings: &PostgresConfig,
    found: &Found,
    may_create: bool,
) -> Result<()> {
    let (table, key) = (&found.table, &told(settings));
    let look = || async {
        let found = Installed::look(session.client, table, key).await.map_err(fail)?;
        found.ok_or_else(|| config(format!("there is no table {table} any more")))
    };
    let installed = look().await?;
    if installed.in_order || !(may_create && found.own) {
        return installed.check(table).map(drop);
    }
    let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({MAKING})");
    session.client.batch_execute(&begin).await.map_err(fail)?;
    if !look().await?.in_order {
        let sql = change_feed::triggers(table, key);
        session.client.batch_execute(&sql).await.map_err(fail)?;
    }
    session.client.batch_execute("COMMIT").await.map_err(fail)?;
    look().await?.check(table).map(drop)
}
