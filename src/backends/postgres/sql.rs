//! The statements, for the table and columns of the config.

use super::config::Columns;
use super::schema::{Table, quoted};

/// How the moment of expiry is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expires {
    /// `bigint`: the milliseconds since 1970 as 64 bits, of which PostgreSQL takes the highest for a
    /// sign: a negative number is a moment in 292 million years or later.
    Millis,
    /// `timestamptz`.
    Timestamp,
}

/// The moment of the transaction in milliseconds. Computed for entries that expire only; a subquery that
/// computed it once would cost each `get` more.
const NOW: &str = "floor(date_part('epoch', now()) * 1000)::bigint";

/// Fails with `division_by_zero` in a transaction that began after the moment in that parameter.
fn fence(parameter: &str) -> String {
    format!("1 / (date_part('epoch', now()) * 1000 < {parameter}::bigint)::int = 1")
}

/// Fails with `division_by_zero` outside of a transaction that sees one moment: the statements of a batch
/// are sent together, so those behind a `BEGIN` that failed are run as well.
const IN_TRANSACTION: &str =
    "1 / (current_setting('transaction_isolation') = 'repeatable read')::int = 1";

/// The statements of a table. They differ in what is compared only, so that each is prepared once for a
/// connection.
pub(super) struct Statements {
    pub(super) get: String,
    pub(super) get_many: String,
    pub(super) put: String,
    pub(super) put_absent: String,
    pub(super) put_many: String,
    pub(super) put_many_absent: String,
    /// As `put_many`, in a transaction.
    pub(super) put_beside: String,
    /// Adds rows, in the binary form of COPY, all of whose keys are absent. `None` where it would leave
    /// columns unwritten.
    pub(super) copy: Option<String>,
    /// Whether there is a key from `$1` up to and with `$2`.
    pub(super) any_between: String,
    pub(super) delete: String,
    pub(super) delete_many: String,
    /// Locks rows in the order of their keys, as all batches do.
    pub(super) lock_rows: String,
    pub(super) lock_table: String,
    pub(super) sweep: Option<String>,
    pub(super) vacuum: String,
    table: String,
    key: String,
    value: String,
    expires: String,
    live: String,
    /// Whether there is a column for deadlines.
    pub(super) keeps_expires: bool,
}

impl Statements {
    /// `own`: the table is as tierstack makes it.
    pub(super) fn new(table: &Table, columns: &Columns, kept: Expires, own: bool) -> Self {
        let table = table.to_string();
        let (key, value) = (quoted(&columns.key), quoted(&columns.value));
        let writing = Writing { table: &table, columns, kept };
        let (expires, live) = match (&columns.expires, kept) {
            (None, _) => ("NULL::bigint".to_owned(), "true".to_owned()),
            (Some(name), kept) => (in_millis(&quoted(name), kept), live(&quoted(name), kept)),
        };
        let sweep = columns.expires.as_ref().map(|name| {
            let name = quoted(name);
            let gone = expired(&name, kept);
            format!(
                "DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE {gone} LIMIT $1 FOR UPDATE SKIP LOCKED)"
            )
        });
        Self {
            get: format!("SELECT {value}, {expires} FROM {table} WHERE {key} = $1 AND {live}"),
            get_many: format!(
                "SELECT {key}, {value}, {expires} FROM {table} WHERE {key} = ANY($1) AND {live}"
            ),
            put: writing.one(false),
            put_absent: writing.one(true),
            put_many: writing.many(false, &fence("$4")),
            put_many_absent: format!("{} RETURNING {key}", writing.many(true, &fence("$4"))),
            put_beside: writing.many(false, &format!("{} AND {IN_TRANSACTION}", fence("$4"))),
            copy: writing.copy(own),
            any_between: format!(
                "SELECT EXISTS (SELECT FROM {table} WHERE {key} >= $1 AND {key} <= $2)"
            ),
            delete: format!("DELETE FROM {table} WHERE {key} = $1 AND {}", fence("$2")),
            delete_many: format!("DELETE FROM {table} WHERE {key} = ANY($1) AND {IN_TRANSACTION}"),
            lock_rows: format!(
                "SELECT FROM {table} WHERE {key} = ANY($1) AND {} AND {IN_TRANSACTION} ORDER BY {key} FOR UPDATE",
                fence("$2")
            ),
            // A weaker one is granted beside a batch that has locked rows, and is about to write them: each
            // would wait for the other.
            lock_table: format!("LOCK TABLE {table} IN EXCLUSIVE MODE"),
            sweep,
            vacuum: format!("VACUUM (ANALYZE) {table}"),
            table,
            key,
            value,
            expires,
            live,
            keeps_expires: columns.expires.is_some(),
        }
    }

    /// A page of a scan: `$1` entries at most, ended by the one that reaches `$2` bytes, from `$3`, up
    /// to and without the parameter after it. The sizes are known without the values being read, so that
    /// only those of the page are.
    pub(super) fn page(&self, from: bool, to: bool, reverse: bool) -> String {
        let Self { table, key, value, expires, live, .. } = self;
        let order = if reverse { "DESC" } else { "ASC" };
        let from_bound = if from { format!(" AND {key} >= $3") } else { String::new() };
        let place = if from { 4 } else { 3 };
        let to_bound = if to { format!(" AND {key} < ${place}") } else { String::new() };
        format!(
            "SELECT k, v, e FROM (SELECT k, v, e, sum(octet_length(k) + octet_length(v)) OVER (ORDER BY k {order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM (SELECT {key} AS k, {value} AS v, {expires} AS e FROM {table} WHERE {live}{from_bound}{to_bound} ORDER BY {key} {order} LIMIT $1::bigint) AS page) AS sized WHERE before IS NULL OR before < $2::bigint ORDER BY k {order}"
        )
    }
}

/// What is there at the moment of the transaction.
fn live(column: &str, kept: Expires) -> String {
    match kept {
        Expires::Millis => format!("({column} IS NULL OR {column} < 0 OR {column} > {NOW})"),
        Expires::Timestamp => format!("({column} IS NULL OR {column} > now())"),
    }
}

fn expired(column: &str, kept: Expires) -> String {
    match kept {
        Expires::Millis => format!("{column} >= 0 AND {column} <= {NOW}"),
        Expires::Timestamp => format!("{column} <= now()"),
    }
}

/// A deadline in milliseconds. `infinity` is none. By way of whole microseconds: the seconds are a
/// floating-point number, of which a thousandfold may fall short of the millisecond that was written.
fn in_millis(column: &str, kept: Expires) -> String {
    match kept {
        Expires::Millis => column.to_owned(),
        Expires::Timestamp => format!(
            "CASE WHEN isfinite({column}) THEN floor(round(date_part('epoch', {column}) * 1000000) / 1000)::bigint END"
        ),
    }
}

struct Writing<'a> {
    table: &'a str,
    columns: &'a Columns,
    kept: Expires,
}

impl Writing<'_> {
    fn one(&self, absent: bool) -> String {
        let sources = self.sources("$1::bytea", "$2::bytea", "$3::bigint");
        // Without a column for it, `$3` is NULL.
        let used = if self.columns.expires.is_some() { "" } else { " AND $3::bigint IS NULL" };
        let source = format!("SELECT {sources} WHERE {}{used}", fence("$4"));
        self.insert(&source, absent)
    }

    fn many(&self, absent: bool, condition: &str) -> String {
        let source = format!(
            "SELECT {} FROM unnest($1::bytea[], $2::bytea[], $3::bigint[]) AS new (k, v, e) WHERE {condition}",
            self.sources("k", "v", "e"),
        );
        self.insert(&source, absent)
    }

    fn copy(&self, own: bool) -> Option<String> {
        let Columns { key, value, expires, created, updated } = self.columns;
        // In a table that tierstack made, the times are filled by default.
        let filled = own || (created.is_none() && updated.is_none());
        let plain = expires.is_none() || self.kept == Expires::Millis;
        let names: Vec<_> = [Some(key), Some(value), expires.as_ref()]
            .into_iter()
            .flatten()
            .map(|n| quoted(n))
            .collect();
        (filled && plain).then(|| {
            format!("COPY {} ({}) FROM STDIN (FORMAT binary)", self.table, names.join(", "))
        })
    }

    /// The columns that are written, with what is written into them.
    fn columns<'b>(&'b self, key: &'b str, value: &'b str, e: &str) -> Vec<(&'b str, String)> {
        let mut all = vec![(self.columns.key.as_str(), key.to_owned())];
        all.push((self.columns.value.as_str(), value.to_owned()));
        if let Some(name) = &self.columns.expires {
            let written = match self.kept {
                Expires::Millis => e.to_owned(),
                Expires::Timestamp => {
                    format!("timestamptz 'epoch' + {e} * interval '1 millisecond'")
                }
            };
            all.push((name, written));
        }
        for name in [&self.columns.created, &self.columns.updated].into_iter().flatten() {
            all.push((name, "now()".to_owned()));
        }
        all
    }

    fn sources(&self, key: &str, value: &str, expires: &str) -> String {
        let columns = self.columns(key, value, expires);
        columns.into_iter().map(|(_, source)| source).collect::<Vec<_>>().join(", ")
    }

    fn insert(&self, source: &str, absent: bool) -> String {
        let Columns { key, expires, created, .. } = self.columns;
        let names = self.columns("", "", "");
        let names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
        let old_live =
            expires.as_ref().map(|name| live(&format!("old.{}", quoted(name)), self.kept));
        let sets = names.iter().filter(|name| *name != key).map(|name| {
            let column = quoted(name);
            match &old_live {
                // What has expired comes to be anew.
                _ if Some(*name) != created.as_deref() => format!("{column} = excluded.{column}"),
                Some(live) => format!(
                    "{column} = CASE WHEN {live} THEN old.{column} ELSE excluded.{column} END"
                ),
                None => format!("{column} = old.{column}"),
            }
        });
        let columns: Vec<_> = names.iter().map(|name| quoted(name)).collect();
        let condition = match (absent, &old_live) {
            (false, _) => String::new(),
            (true, Some(live)) => format!(" WHERE NOT {live}"),
            (true, None) => " WHERE false".to_owned(),
        };
        format!(
            "INSERT INTO {} AS old ({}) {source} ON CONFLICT ({}) DO UPDATE SET {}{condition}",
            self.table,
            columns.join(", "),
            quoted(key),
            sets.collect::<Vec<_>>().join(", "),
        )
    }
}
