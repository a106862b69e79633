//! The statements, for the table and columns of the config.
//!
//! A statement that must not take effect fails, which undoes its transaction: by a division by zero where
//! it comes too late or outside of its transaction, by a logarithm where a condition does not hold, by a power
//! where a row was not written. Each has an SQLSTATE of its own; see `failure`.

use super::columns::Columns;
use super::config::PostgresConfig;
use super::expires::Expires;
use super::key::Key;
use super::locks;
use super::open::Found;
use super::own_table::quoted;
use super::value::Shape;
use crate::error::{Error, Operation, Result};

/// Fails with `division_by_zero` in a transaction that began after the moment in that parameter.
fn fence(parameter: &str) -> String {
    format!("1 / (date_part('epoch', now()) * 1000 < {parameter}::bigint)::int = 1")
}

/// Fails with `division_by_zero` outside of a transaction that sees one moment: the statements of a batch
/// are sent together, so those behind a `BEGIN` that failed are run as well.
const IN_TRANSACTION: &str =
    "1 / (current_setting('transaction_isolation') = 'repeatable read')::int = 1";

/// Fails unless the condition holds, as a row was not written.
fn written(condition: &str) -> String {
    format!("power(0, ({condition})::int - 1)")
}

/// The statements of a table. They differ in what is compared only, so that each is prepared once for a
/// connection.
pub(super) struct Statements {
    pub(super) get: String,
    pub(super) get_many: String,
    pub(super) put: String,
    pub(super) put_absent: String,
    pub(super) put_many: String,
    /// As `put_many`, in a transaction.
    pub(super) put_beside: String,
    /// Adds rows, in the binary form of COPY, all of whose keys are absent. `None` where it would leave
    /// columns unwritten.
    pub(super) copy: Option<String>,
    /// Whether there is a key from `$1` up to and with `$2`.
    pub(super) any_between: String,
    pub(super) delete: String,
    /// Whether the key is there, expired or not.
    pub(super) is_there: String,
    pub(super) delete_many: String,
    /// Fails if one of the keys is there.
    pub(super) are_gone: String,
    /// Takes locks by key for the session; `take_over` makes them those of the transaction.
    pub(super) lock_keys: String,
    pub(super) take_over: String,
    /// Locks rows in the order of their keys, as all batches do.
    pub(super) lock_rows: String,
    /// Fails unless the keys of `$1` are absent, and those of `$2` have the values and deadlines of `$3`
    /// and `$4`.
    pub(super) hold: String,
    /// Begins a transaction concurrently with others that write, and one during which nobody writes.
    pub(super) begin: String,
    pub(super) begin_alone: String,
    /// Begins a transaction that reads one moment, and the whole of the table: it fails where row-level
    /// security hides rows.
    pub(super) freeze: String,
    pub(super) sweep: Option<String>,
    pub(super) vacuum: String,
    table: String,
    /// How keys and values travel.
    pub(super) key: Key,
    pub(super) value: Shape,
    expires: String,
    live: String,
    /// Why there are no scans.
    no_scans: Option<String>,
    /// Whether there is a column for deadlines.
    pub(super) keeps_expires: bool,
}

impl Statements {
    /// `settings`: what each transaction begins with, where there is no session that has them.
    pub(super) fn new(found: &Found, config: &PostgresConfig, settings: Option<&str>) -> Self {
        let Found { table: named, key, value, constants, expires: kept, own, rewrites, .. } = found;
        let (columns, kept) = (&config.columns, *kept);
        let table = named.to_string();
        let class = locks::class(named);
        let writing = Writing {
            table: &table,
            key,
            value,
            columns,
            kept,
            class,
            constants,
            rewrites: *rewrites,
        };
        let names = key.columns();
        let (equals, any, sent) = (key.equals("", "$1::bytea"), key.any("$1"), key.sent(""));
        let (read, read_kept) = (value.sent(""), value.sent("kept."));
        let sweeps = config.sweep.unwrap_or(*own);
        let times = |of: &str| match &columns.expires {
            None => ("NULL::bigint".to_owned(), "true".to_owned()),
            Some(name) => {
                let name = format!("{of}{}", quoted(name));
                (kept.in_millis(&name), kept.live(&name))
            }
        };
        let ((expires, live), (kept_expires, kept_live)) = (times(""), times("kept."));
        let sweep = columns.expires.as_ref().filter(|_| sweeps).map(|name| {
            let gone = kept.expired(&quoted(name));
            format!(
                "WITH gone AS (DELETE FROM {table} WHERE ({names}) IN (SELECT {names} FROM {table} WHERE {gone} LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING 1) SELECT count(*) FROM gone"
            )
        });
        // The lock on the table is taken before the first statement that sees rows, and with it the moment
        // that the transaction sees.
        let begin = |mode: &str| {
            format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ; {}LOCK TABLE {table} IN {mode} MODE",
                settings.unwrap_or_default()
            )
        };
        let late = fence("$4");
        Self {
            get: format!("SELECT {read}, {expires} FROM {table} WHERE {equals} AND {live}"),
            get_many: format!(
                "SELECT {sent}, {read}, {expires} FROM {table} WHERE {any} AND {live}"
            ),
            put: writing.one(false),
            put_absent: writing.one(true),
            put_many: writing.many(&format!("{late} AND {}", writing.locked_many())),
            put_beside: writing.many(&format!("{late} AND {IN_TRANSACTION}")),
            // Without the index it would read the table to see that no key is there yet.
            copy: writing.copy(*own, settings.is_some()).filter(|_| found.no_scans.is_none()),
            any_between: format!(
                "SELECT EXISTS (SELECT FROM {table} WHERE {} AND {})",
                key.compares(">=", "$1::bytea"),
                key.compares("<=", "$2::bytea"),
            ),
            delete: format!("DELETE FROM {table} WHERE {equals} AND {} RETURNING 1", fence("$2")),
            is_there: format!("SELECT FROM {table} WHERE {equals}"),
            delete_many: format!("DELETE FROM {table} WHERE {any} AND {IN_TRANSACTION}"),
            are_gone: format!(
                "SELECT {}",
                written(&format!("NOT EXISTS (SELECT FROM {table} WHERE {any})"))
            ),
            lock_keys: format!("SELECT pg_advisory_lock({class}, k) FROM unnest($1::int[]) AS k"),
            take_over: format!(
                "SELECT 1 / bool_and(pg_try_advisory_xact_lock({class}, k) AND pg_advisory_unlock({class}, k))::int FROM unnest($1::int[]) AS k"
            ),
            lock_rows: format!(
                "SELECT FROM {table} WHERE {any} AND {} AND {IN_TRANSACTION} ORDER BY {names} FOR UPDATE",
                fence("$2")
            ),
            hold: format!(
                "SELECT ln((NOT EXISTS (SELECT FROM {table} WHERE {any} AND {live}) AND (SELECT count(*) FROM {table} AS kept JOIN unnest($2::bytea[], $3::bytea[], $4::bigint[]) AS wanted (k, v, e) ON {} WHERE {read_kept} = wanted.v AND {kept_expires} IS NOT DISTINCT FROM wanted.e AND {kept_live}) = cardinality($2::bytea[]))::int)",
                key.equals("kept.", "wanted.k")
            ),
            begin: begin("ROW EXCLUSIVE"),
            // A weaker one is granted while a batch runs that has locked rows, and is about to write them: each
            // would wait for the other.
            begin_alone: begin("EXCLUSIVE"),
            // The first statement that sees rows fixes the moment; `BEGIN` does not.
            freeze: format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {}SET LOCAL row_security = off; SELECT FROM {table} LIMIT 0",
                settings.unwrap_or_default()
            ),
            sweep,
            vacuum: format!("VACUUM (ANALYZE) {table}"),
            table,
            key: key.clone(),
            value: value.clone(),
            expires,
            live,
            no_scans: found.no_scans.clone(),
            keeps_expires: columns.expires.is_some(),
        }
    }

    /// # Errors
    /// `Unsupported`, with what would help.
    pub(super) fn check_scans(&self, operation: Operation) -> Result<()> {
        self.no_scans.as_ref().map_or(Ok(()), |why| {
            let error = Error::unsupported(why.clone());
            Err(error.with_operation(operation).with_layer("postgres"))
        })
    }

    /// A page of a scan: `$1` entries at most, ended by the one that reaches `$2` bytes, from `$3`, up
    /// to and without the parameter after it. The sizes are known without the values being read, so that
    /// only those of the page are. With `keys_only` no statement names the column of the values.
    pub(super) fn page(&self, from: bool, to: bool, reverse: bool, keys_only: bool) -> String {
        let Self { table, key, value, expires, live, .. } = self;
        let order = if reverse { "DESC" } else { "ASC" };
        let bound = |how, place| format!(" AND {}", key.compares(how, &format!("${place}::bytea")));
        let from_bound = if from { bound(">=", 3) } else { String::new() };
        let to_bound = if to { bound("<", if from { 4 } else { 3 }) } else { String::new() };
        let (ordered, outer, inner) = ordering(key, order);
        let (names, size, columns, sent) = if keys_only {
            ("k", "octet_length(k)", String::new(), "k".to_owned())
        } else {
            let columns = format!(", {} AS v, {expires} AS e", value.raw(""));
            let sent = format!("k, {}, e", value.raw_to_sent("v"));
            ("k, v, e", "octet_length(k) + octet_length(v)", columns, sent)
        };
        let key = key.sent("");
        format!(
            "SELECT {sent} FROM (SELECT {names}{ordered}, sum({size}) OVER (ORDER BY {outer} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM (SELECT {key} AS k{columns}{inner} FROM {table} AS t WHERE {live}{from_bound}{to_bound} ORDER BY {} LIMIT $1::bigint) AS page) AS sized WHERE before IS NULL OR before < $2::bigint ORDER BY {outer}",
            self.order_by(order)
        )
    }

    /// Of the columns of the table `t`: a bare name would be that of what is selected, such as a column that is called `k`.
    fn order_by(&self, order: &str) -> String {
        let columns = self.key.order("t.").into_iter().map(|column| format!("{column} {order}"));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// The number of the next `$1` entries from `$2`, up to and without the parameter after it, and the key of the last.
    pub(super) fn count(&self, from: bool, to: bool) -> String {
        let Self { table, key, live, .. } = self;
        let bound = |how, place| format!(" AND {}", key.compares(how, &format!("${place}::bytea")));
        let from_bound = if from { bound(">=", 2) } else { String::new() };
        let to_bound = if to { bound("<", if from { 3 } else { 2 }) } else { String::new() };
        let (_, outer, inner) = ordering(key, "ASC");
        let key = key.sent("");
        format!(
            "SELECT n, k FROM (SELECT k, row_number() OVER (ORDER BY {outer}) AS n FROM (SELECT {key} AS k{inner} FROM {table} AS t WHERE {live}{from_bound}{to_bound} ORDER BY {} LIMIT $1::bigint) AS lot) AS numbered ORDER BY n DESC LIMIT 1",
            self.order_by("ASC")
        )
    }
}

/// What puts the rows of a subquery into their order again: the names of what it gives for that, how they are ordered
/// by, and what they stand for. A column that travels as it is stands for itself.
fn ordering(key: &Key, order: &str) -> (String, String, String) {
    let columns = key.order("");
    if columns.concat() == key.sent("") {
        return (String::new(), format!("k {order}"), String::new());
    }
    let names = || (0..columns.len()).map(|at| format!("o{at}"));
    let sorted: Vec<_> = names().map(|name| format!("{name} {order}")).collect();
    let inner = names().zip(&columns).map(|(name, column)| format!(", {column} AS {name}"));
    let inner = inner.collect();
    (names().map(|name| format!(", {name}")).collect(), sorted.join(", "), inner)
}

struct Writing<'a> {
    table: &'a str,
    key: &'a Key,
    value: &'a Shape,
    columns: &'a Columns,
    kept: Expires,
    /// The class of the locks by key.
    class: i32,
    /// Columns of a new row, with what is there.
    constants: &'a [(String, String)],
    /// Whether a trigger may change what is written.
    rewrites: bool,
}

impl Writing<'_> {
    fn one(&self, absent: bool) -> String {
        let sources = self.sources("$1::bytea", "$2::bytea", "$3::bigint");
        // Without a column for it, `$3` is NULL.
        let used = if self.columns.expires.is_some() { "" } else { " AND $3::bigint IS NULL" };
        let locked = format!("pg_advisory_xact_lock_shared({}, $5::int) IS NOT NULL", self.class);
        let fields = self.value.source("$2::bytea");
        let fields = fields.map_or_else(String::new, |fields| format!(" FROM {fields}"));
        let source = format!("SELECT {sources}{fields} WHERE {} AND {locked}{used}", fence("$4"));
        let insert = self.insert(&source, absent);
        if !self.rewrites {
            return format!("{insert} RETURNING 1");
        }
        let same = written(&self.same("$1", "$2"));
        format!("WITH written AS ({insert} {}) SELECT {same} FROM written", self.returning())
    }

    fn returning(&self) -> String {
        format!("RETURNING {} AS k, {} AS v", self.key.sent(""), self.value.sent(""))
    }

    /// Whether what was written is what was sent. A value that the server writes in its own way is not compared.
    fn same(&self, key: &str, value: &str) -> String {
        if self.value.is_verbatim() {
            format!("k = {key} AND v = {value}")
        } else {
            format!("k = {key}")
        }
    }

    /// Fails, with all of it undone, if a row was not written.
    fn many(&self, condition: &str) -> String {
        let fields = self.value.source("new.v");
        let fields = fields.map_or_else(String::new, |fields| format!(", LATERAL {fields}"));
        let source = format!(
            "SELECT {} FROM unnest($1::bytea[], $2::bytea[], $3::bigint[]) AS new (k, v, e){fields} WHERE {condition}",
            self.sources("new.k", "new.v", "new.e"),
        );
        let (insert, all) =
            (self.insert(&source, false), written("count(*) = cardinality($1::bytea[])"));
        if !self.rewrites {
            return format!("WITH written AS ({insert} RETURNING 1) SELECT {all} FROM written");
        }
        let same = self.same("sent_k", "sent_v");
        format!(
            "WITH written AS ({insert} {}) SELECT {all} FROM written JOIN unnest($1::bytea[], $2::bytea[]) AS sent (sent_k, sent_v) ON {same}",
            self.returning()
        )
    }

    /// Locks by key, in the order of `$5`, before the first row is written.
    fn locked_many(&self) -> String {
        format!(
            "(SELECT count(pg_advisory_xact_lock_shared({}, lock)) FROM unnest($5::int[]) AS lock) > 0",
            self.class
        )
    }

    fn copy(&self, own: bool, pooled: bool) -> Option<String> {
        let Columns { expires, created, updated, .. } = self.columns;
        // In a table that tierstack made, the times are filled by default.
        let filled = own || (created.is_none() && updated.is_none());
        let plain = expires.is_none() || self.kept == Expires::Millis;
        let names = self.value.names().chain(expires.as_deref());
        let names: Vec<_> = std::iter::once(self.key.columns()).chain(names.map(quoted)).collect();
        let plain = plain && self.key.is_plain() && self.value.is_plain();
        let plain = plain && self.constants.is_empty();
        (filled && plain && !pooled && !self.rewrites).then(|| {
            format!("COPY {} ({}) FROM STDIN (FORMAT binary)", self.table, names.join(", "))
        })
    }

    /// The columns that are written, with what is written into them.
    fn columns(&self, key: &str, value: &str, e: &str) -> Vec<(&str, String)> {
        let keys = self.key.parts.iter().map(|part| part.name.as_str());
        let mut all: Vec<_> = keys.zip(self.key.of_sent(key)).collect();
        all.extend(self.value.names().zip(self.value.of_sent(value)));
        if let Some(name) = &self.columns.expires {
            all.push((name, self.kept.written(e)));
        }
        for name in [&self.columns.created, &self.columns.updated].into_iter().flatten() {
            all.push((name, "now()".to_owned()));
        }
        all
    }

    fn sources(&self, key: &str, value: &str, expires: &str) -> String {
        let columns = self.columns(key, value, expires);
        let sources = columns.into_iter().map(|(_, source)| source);
        let constants = self.constants.iter().map(|(_, source)| source.clone());
        sources.chain(constants).collect::<Vec<_>>().join(", ")
    }

    fn insert(&self, source: &str, absent: bool) -> String {
        let Columns { expires, created, .. } = self.columns;
        let names = self.columns("", "", "");
        let names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
        let old_live =
            expires.as_ref().map(|name| self.kept.live(&format!("old.{}", quoted(name))));
        let sets = names.iter().filter(|name| !self.key.is(name)).map(|name| {
            let column = quoted(name);
            match &old_live {
                // What has expired is a new entry.
                _ if Some(*name) != created.as_deref() => format!("{column} = excluded.{column}"),
                Some(live) => format!(
                    "{column} = CASE WHEN {live} THEN old.{column} ELSE excluded.{column} END"
                ),
                None => format!("{column} = old.{column}"),
            }
        });
        let constants = self.constants.iter().map(|(name, _)| name.as_str());
        let columns: Vec<_> = names.iter().copied().chain(constants).map(quoted).collect();
        let condition = match (absent, &old_live) {
            (false, _) => String::new(),
            (true, Some(live)) => format!(" WHERE NOT {live}"),
            (true, None) => " WHERE false".to_owned(),
        };
        format!(
            "INSERT INTO {} AS old ({}) {source} ON CONFLICT ({}) DO UPDATE SET {}{condition}",
            self.table,
            columns.join(", "),
            self.key.columns(),
            sets.collect::<Vec<_>>().join(", "),
        )
    }
}
