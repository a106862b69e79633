//! What RocksDB recorded about a database in its latest `OPTIONS` file: which comparators and merge
//! operators its data depends on. Read before the database is opened, as opening changes files.
//!
//! The format is RocksDB's own: sections such as `[CFOptions "name"]`, then `key=value` lines, with
//! `\` before special characters and `#` before a comment.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// One column family's section.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Family(BTreeMap<String, String>);

/// The latest `OPTIONS` file of a database.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Recorded {
    /// The RocksDB that wrote it.
    pub(super) version: Option<String>,
    pub(super) families: BTreeMap<String, Family>,
}

impl Recorded {
    /// Reads the latest file of the folder. `None`: there is none.
    pub(super) fn latest(folder: &Path) -> Result<Option<Self>> {
        let unreadable = |error| {
            Error::io(format!("reading RocksDB's OPTIONS file in {}", folder.display()), error)
        };
        let mut latest = None;
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.strip_prefix("OPTIONS-")?.parse::<u64>().ok());
            latest = latest.max(number.map(|number| (number, entry.path())));
        }
        let Some((_, path)) = latest else { return Ok(None) };
        let text = fs::read(path).map_err(unreadable)?;
        Ok(Some(Self::parse(&String::from_utf8_lossy(&text))))
    }

    fn parse(text: &str) -> Self {
        let mut recorded = Self::default();
        let mut section = Section::Other;
        for line in text.lines() {
            let line = uncommented(line).trim();
            if let Some(header) = line.strip_prefix('[') {
                section = Section::of(header);
                if let Section::Family(name) = &section {
                    recorded.families.entry(name.clone()).or_default();
                }
            } else if let Some((key, value)) = line.split_once('=') {
                let (key, value) = (key.trim().to_owned(), unescaped(value.trim()));
                match &section {
                    Section::Version if key == "rocksdb_version" => recorded.version = Some(value),
                    Section::Family(name) => {
                        recorded.families.entry(name.clone()).or_default().0.insert(key, value);
                    }
                    _ => {}
                }
            }
        }
        recorded
    }
}

/// What a section of the file is about.
enum Section {
    Version,
    Family(String),
    Other,
}

impl Section {
    fn of(header: &str) -> Self {
        if header.starts_with("Version") {
            return Self::Version;
        }
        let name = header.strip_prefix("CFOptions").and_then(|rest| {
            let (_, rest) = rest.split_once('"')?;
            rest.rsplit_once('"').map(|(name, _)| unescaped(name))
        });
        name.map_or(Self::Other, Self::Family)
    }
}

const BYTEWISE: &str = "leveldb.BytewiseComparator";
const REVERSE: &str = "rocksdb.ReverseBytewiseComparator";

impl Family {
    /// The name of a setting's value: `{id=UInt64AddOperator;}` is one way in which RocksDB writes it.
    fn named(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key)?.trim();
        let value = value
            .strip_prefix('{')
            .and_then(|fields| fields.split([';', '}']).find_map(|field| field.trim().strip_prefix("id=")))
            .unwrap_or(value);
        (!matches!(value, "nullptr" | "")).then_some(value)
    }

    /// Why the database cannot be opened without the program that wrote it. `None`: it can.
    ///
    /// The other column families are opened along with the one that is `used`, so all are checked.
    pub(super) fn objection(&self, used: bool) -> Option<String> {
        if let Some(operator) = self.named("merge_operator") {
            return Some(format!(
                "has the merge operator '{operator}', without which its values cannot be read"
            ));
        }
        match self.named("comparator").unwrap_or(BYTEWISE) {
            BYTEWISE => {}
            REVERSE if !used => {}
            timestamps if timestamps.ends_with(".u64ts") => {
                return Some(format!(
                    "has user-defined timestamps in its keys (comparator '{timestamps}')"
                ));
            }
            other => {
                return Some(format!(
                    "has the comparator '{other}', but only the bytewise order of keys is known here"
                ));
            }
        }
        if self.named("compaction_filter_factory") == Some("TtlCompactionFilterFactory") {
            return Some("was written with a time to live, so each value ends in a timestamp".into());
        }
        if !used {
            return None;
        }
        match self.named("table_factory").unwrap_or("BlockBasedTable") {
            "BlockBasedTable" => {}
            other => return Some(format!("has the table format '{other}', which offers no ordered scans")),
        }
        (self.named("inplace_update_support") == Some("true"))
            .then(|| "updates values in place, which breaks snapshots".into())
    }
}

/// The line without its comment, which begins at a `#` that no `\` escapes.
fn uncommented(line: &str) -> &str {
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            '#' if !escaped => return line.get(..at).unwrap_or(line),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    line
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some(other) => other,
                None => '\\',
            },
            c => c,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
# This is a RocksDB option file.
[Version]
  rocksdb_version=11.8.1
  options_file_version=1.1
[DBOptions]
  merge_operator=not a column family
[CFOptions "default"]
  merge_operator=nullptr
  comparator=leveldb.BytewiseComparator
  table_factory=BlockBasedTable
[TableOptions/BlockBasedTable "default"]
  comparator=nonsense
[CFOptions "odd\#\"name"]  # a comment
  merge_operator={id=UInt64AddOperator;}
"#;

    #[test]
    fn sections_are_told_apart_and_names_unescaped() {
        let recorded = Recorded::parse(FILE);
        assert_eq!(recorded.version.as_deref(), Some("11.8.1"));
        let names: Vec<_> = recorded.families.keys().map(String::as_str).collect();
        assert_eq!(names, ["default", "odd#\"name"]);
        assert_eq!(recorded.families["default"].objection(true), None);
        let why = recorded.families["odd#\"name"].objection(false).unwrap();
        assert!(why.contains("'UInt64AddOperator'"), "{why}");
    }

    #[test]
    fn each_objection_names_what_it_is_about() {
        for (line, used, word) in [
            ("comparator=mine", true, Some("'mine'")),
            ("comparator=mine", false, Some("'mine'")),
            ("comparator=rocksdb.ReverseBytewiseComparator", true, Some("Reverse")),
            ("comparator=rocksdb.ReverseBytewiseComparator", false, None),
            ("comparator=leveldb.BytewiseComparator.u64ts", true, Some("timestamps")),
            ("merge_operator=append", false, Some("'append'")),
            ("compaction_filter_factory=TtlCompactionFilterFactory", true, Some("time to live")),
            ("table_factory=PlainTable", true, Some("'PlainTable'")),
            ("table_factory=PlainTable", false, None),
            ("inplace_update_support=true", true, Some("in place")),
        ] {
            let recorded = Recorded::parse(&format!("[CFOptions \"x\"]\n{line}\n"));
            let why = recorded.families["x"].objection(used);
            match word {
                Some(word) => assert!(why.as_ref().unwrap().contains(word), "{line}: {why:?}"),
                None => assert_eq!(why, None, "{line}"),
            }
        }
    }

    #[test]
    fn garbage_gives_no_families_and_no_panic() {
        for text in ["", "[", "[CFOptions", "[CFOptions \"", "=\n\\", "[CFOptions \"a\\"] {
            assert!(Recorded::parse(text).families.len() <= 1, "{text}");
        }
    }
}
