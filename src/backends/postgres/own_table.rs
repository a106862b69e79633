//! The table that tierstack makes: its SQL, its version, and the way from one version to the next.
//!
//! The version is in the name of a constraint, which only `CREATE TABLE` brings: a part of the SQL that is
//! run on a table of somebody else must not make it one of ours. It was in the comment of the table before.

use std::fmt;
use std::str::FromStr;

use super::columns::{Keys, Values};
use super::config::PostgresConfig;
use crate::types::ValueColumns;

/// The version of the table that this program makes.
pub(super) const VERSION: u32 = 1;

/// What the name of the constraint, or the comment, begins with.
pub(super) const MARK: &str = "tierstack schema ";

/// The name of a table, in a schema or in the search path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) schema: Option<String>,
    pub(super) name: String,
}

/// Why a name cannot be one. PostgreSQL cuts longer ones off without an error.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 63 || name.contains('\0') {
        return Err(format!("is '{name}', but a name has 1 to 63 bytes and no NUL"));
    }
    Ok(())
}

impl FromStr for Table {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`table` is '{text}', but must be `table` or `schema.table`; a name with a dot is in double quotes, `\"my.table\"`"
            )
        };
        let (first, rest) = name(text).ok_or_else(wrong)?;
        let (schema, name) = match rest.map(name) {
            None => (None, first),
            Some(Some((second, None))) => (Some(first), second),
            Some(_) => return Err(wrong()),
        };
        for part in schema.iter().chain([&name]) {
            check_name(part).map_err(|why| format!("`table`: a part {why}"))?;
        }
        Ok(Self { schema, name })
    }
}

/// The name that the text begins with, up to a dot or in double quotes as in SQL, and what is behind the dot.
fn name(text: &str) -> Option<(String, Option<&str>)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        return Some(match text.split_once('.') {
            Some((name, rest)) => (name.to_owned(), Some(rest)),
            None => (text.to_owned(), None),
        });
    };
    let mut name = String::new();
    loop {
        let (part, behind) = rest.split_once('"')?;
        name.push_str(part);
        match behind.strip_prefix('"') {
            Some(behind) => {
                name.push('"');
                rest = behind;
            }
            None if behind.is_empty() => return Some((name, None)),
            None => return Some((name, Some(behind.strip_prefix('.')?))),
        }
    }
}

/// As SQL writes it.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quoted(schema))?;
        }
        f.write_str(&quoted(&self.name))
    }
}

/// A name as SQL writes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL writes it.
pub(super) fn literal(text: &str) -> String {
    // `E''` means the same whatever `standard_conforming_strings` is.
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Makes the table of the current version. `None`: the settings do not tell the types of its columns.
pub(super) fn create(table: &Table, settings: &PostgresConfig) -> Option<String> {
    let columns = &settings.columns;
    let (key, [name]) = (settings.keys, columns.key.names()) else { return None };
    let ValueColumns::One(value_name) = &columns.value else { return None };
    if !columns.constants.is_empty() {
        return None;
    }
    let key = match key {
        Keys::Bytea => "bytea",
        Keys::Text => "text COLLATE \"C\"",
        Keys::Tuple => return None,
    };
    let value = match settings.values {
        Values::Bytea => "bytea",
        Values::Text => "text",
    };
    let mut lines = vec![
        format!("    {} {key} PRIMARY KEY", quoted(name)),
        format!("    {} {value} NOT NULL", quoted(value_name)),
    ];
    if let Some(name) = &columns.expires {
        // Milliseconds since 1970. A negative one is a moment that far away that no clock reaches it.
        lines.push(format!("    {} bigint", quoted(name)));
    }
    for name in [&columns.created, &columns.updated].into_iter().flatten() {
        lines.push(format!("    {} timestamptz NOT NULL DEFAULT now()", quoted(name)));
    }
    lines.push(format!("    CONSTRAINT {} CHECK (true)", quoted(&format!("{MARK}{VERSION}"))));
    let mut sql = format!("CREATE TABLE {table} (\n{}\n);\n", lines.join(",\n"));
    if let Some(name) = &columns.expires {
        let name = quoted(name);
        sql.push_str(&format!("CREATE INDEX ON {table} ({name}) WHERE {name} IS NOT NULL;\n"));
    }
    Some(sql)
}

/// Brings a table from that version to the next. There is one version so far.
pub(super) fn migrate(_table: &Table, from: u32) -> Option<String> {
    match from {
        VERSION.. => None,
        _ => Some(String::new()),
    }
}

/// The version of a table, by its mark. `None`: somebody else made it.
pub(super) fn version(mark: Option<&str>) -> Option<u32> {
    mark?.strip_prefix(MARK)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_checked() {
        let table: Table = "my schema.odd\"name".parse().unwrap();
        assert_eq!(table.to_string(), r#""my schema"."odd""name""#);
        for (text, schema, name) in [
            ("\"my.table\"", None, "my.table"),
            ("a.\"b.c\"", Some("a"), "b.c"),
            ("\"a.b\".c", Some("a.b"), "c"),
            ("\"say \"\"hi\"\"\".\".\"", Some("say \"hi\""), "."),
        ] {
            let table: Table = text.parse().unwrap();
            assert_eq!((table.schema.as_deref(), table.name.as_str()), (schema, name), "{text}");
            assert_eq!(table.to_string().parse::<Table>().unwrap(), table, "as SQL has it");
        }
        let long = "x".repeat(64);
        for wrong in ["", ".", "a.", ".b", "a.b.c", long.as_str(), "nul\0", "\"a", "\"a\"b", "\"\""]
        {
            assert!(wrong.parse::<Table>().is_err(), "{wrong:?}");
        }
        assert_eq!(literal(r"o'clock \"), r"E'o''clock \\'");
    }

    #[test]
    fn the_mark_tells_the_version_and_comes_with_the_table_alone() {
        let sql = create(&"t".parse().unwrap(), &PostgresConfig::new("postgres://h/d")).unwrap();
        let (table, below) = sql.split_once(");\n").unwrap();
        let mark = table.split_once("CONSTRAINT \"").unwrap().1.split_once('"').unwrap().0;
        assert_eq!(version(Some(mark)), Some(VERSION));
        assert!(!below.contains(MARK), "{below}");
        assert_eq!(version(Some("tierstack schema 7")), Some(7));
        for other in [None, Some("orders of the shop"), Some("tierstack schema one")] {
            assert_eq!(version(other), None);
        }
    }
}
