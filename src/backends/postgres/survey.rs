//! What a database is that is there already.

use tokio_postgres::Row;

use super::config::PostgresConfig;
use super::connect;
use super::error::failed;
use super::own_table::Table;
use super::pool::within;
use super::session::Session;
use super::{Postgres, Server};
use crate::error::{Operation, Result};
use crate::layer::BackendConfig;
use crate::types::survey::{Chosen, Column, Part, Survey};
use crate::types::units::ByteSize;

/// Roles, versions and connections.
const SERVER: &str = "SELECT current_setting('server_version'), current_database()::text, current_user::text, pg_is_in_recovery(), (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name IS DISTINCT FROM 'tierstack')";

/// Tables and what is read like them, but for parts of partitioned ones and those of extensions.
const TABLES: &str = "SELECT n.nspname::text, c.relname::text, c.relkind::text, c.reltuples::float8,
        CASE WHEN c.relkind IN ('r', 'm') AND has_any_column_privilege(c.oid, 'SELECT') THEN pg_total_relation_size(c.oid) END,
        has_any_column_privilege(c.oid, 'SELECT'),
        has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'),
        c.relpersistence::text = 'u',
        ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
        ARRAY(SELECT format_type(a.atttypid, NULL) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
        ARRAY(SELECT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY (i.indkey::int2[])) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
        ARRAY(SELECT a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'
        AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    ORDER BY 1, 2 LIMIT 1000";

impl PostgresConfig {
    /// Looks at the tables of the database, in sessions that only read. The settings of a table are not used.
    ///
    /// # Errors
    /// Those of opening the store that are about the server.
    ///
    /// ```no_run
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use tierstack::backends::PostgresConfig;
    ///
    /// let found = PostgresConfig::new("postgres://app@localhost/orders").survey().await?;
    /// println!("{}: {} tables", found.what, found.parts.len());
    /// # Ok::<(), tierstack::Error>(()) }).unwrap();
    /// ```
    pub async fn survey(&self) -> Result<Survey> {
        self.profile()?;
        let config = Self { read_only: true, change_feed: false, ..self.clone() };
        let looked = Postgres::look(&config).await;
        looked.map_err(|error| error.with_operation(Operation::Open).with_layer(Self::NAME))
    }
}

impl Postgres {
    async fn look(config: &PostgresConfig) -> Result<Survey> {
        let server = Server::connect(config).await?;
        let client = server.connector.client(Operation::Open, None).await?;
        let way = connect::way(config).0.one_by_one();
        let session = Session { client: &client, way: &way };
        let asking = async {
            let about = session.query(SERVER, Vec::new()).await;
            let tables = session.query(TABLES, Vec::new()).await;
            about.and_then(|about| survey(&about, &tables?)).map_err(fail)
        };
        within(Operation::Open, config.timeout.0, asking).await
    }
}

fn fail(error: tokio_postgres::Error) -> crate::error::Error {
    failed(Operation::Open, error)
}

fn survey(about: &[Row], tables: &[Row]) -> Result<Survey, tokio_postgres::Error> {
    let Some(row) = about.first() else { return Ok(Survey::default()) };
    let (version, database, role): (String, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (standby, others): (bool, i64) = (row.try_get(3)?, row.try_get(4)?);
    let mut facts = vec![match others {
        0 => "No other connection to it is open.".to_owned(),
        1 => "One other connection to it is open.".to_owned(),
        n => format!("{n} other connections to it are open."),
    }];
    if standby {
        facts.push("The server is a standby: what it has may be behind its primary.".into());
    }
    let parts = tables.iter().map(|row| part(row, &role, standby));
    Ok(Survey {
        what: format!("PostgreSQL {version}, the database {database} as the role {role} sees it"),
        facts,
        parts: parts.collect::<Result<_, _>>()?,
    })
}

fn part(row: &Row, role: &str, standby: bool) -> Result<Part, tokio_postgres::Error> {
    let table = Table { schema: Some(row.try_get(0)?), name: row.try_get(1)? };
    let kind = match row.try_get::<_, String>(2)?.as_str() {
        "p" => "partitioned table",
        "v" => "view",
        "m" => "materialised view",
        "f" => "foreign table",
        _ => "table",
    };
    let (rows, bytes): (f64, Option<i64>) = (row.try_get(3)?, row.try_get(4)?);
    let (reads, writes, unlogged): (bool, bool, bool) =
        (row.try_get(5)?, row.try_get(6)?, row.try_get(7)?);
    let mut facts = Vec::new();
    if rows >= 0.0 && matches!(kind, "table" | "materialised view") {
        facts.push(format!("about {rows:.0} rows"));
    }
    facts.extend(bytes.map(|bytes| ByteSize(bytes.unsigned_abs()).to_string()));
    if !reads {
        facts.push(format!("{role} may not read it"));
    }
    let why = if standby {
        Some("a standby takes no writes".to_owned())
    } else if !matches!(kind, "table" | "partitioned table") {
        Some(format!("it is a {kind}"))
    } else if unlogged {
        Some("it is unlogged: a crash of the server empties it".to_owned())
    } else {
        (!writes).then(|| format!("{role} may not write it"))
    };
    let is_plain = |name: &str| !name.contains(['.', '"']);
    let named = match &table.schema {
        Some(schema) if is_plain(schema) && is_plain(&table.name) => {
            format!("{schema}.{}", table.name)
        }
        _ => table.to_string(),
    };
    let name = Chosen::new("table", format!("{named:?}"), "");
    let (names, kinds): (Vec<String>, Vec<String>) = (row.try_get(8)?, row.try_get(9)?);
    let (keys, required): (Vec<bool>, Vec<bool>) = (row.try_get(10)?, row.try_get(11)?);
    let columns = names.into_iter().zip(kinds).zip(keys.into_iter().zip(required));
    let column = |((name, kind), (key, required))| Column { name, kind, key, required };
    Ok(Part {
        name: table.name,
        kind: kind.into(),
        facts,
        columns: columns.map(column).collect(),
        settings: std::iter::once(name)
            .chain(why.map(|why| Chosen::new("read_only", "true", why)))
            .collect(),
    })
}
