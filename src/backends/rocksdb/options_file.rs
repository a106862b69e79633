//! What RocksDB recorded about a database in its latest `OPTIONS` file: which comparators and merge
//! operators its data depends on. Read before the database is opened, as opening changes files.
//!
//! The format is RocksDB's own: sections such as `[CFOptions "name"]`, then `key=value` lines, with
//! `\` before special characters and `#` before a comment.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The latest `OPTIONS` file of a database.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Recorded {
    path: PathBuf,
    text: String,
    sections: BTreeMap<Section, Settings>,
}

type Settings = BTreeMap<String, String>;

/// Another value of a setting in a section.
pub(super) type Change = (Section, &'static str, String);

/// What a section of the file is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Version,
    Database,
    /// A column family.
    Family(String),
    /// The block-based table format of a column family.
    Table(String),
    Other,
}

impl Section {
    fn of(header: &str) -> Self {
        let (kind, rest) = header.split_once([' ', ']']).unwrap_or((header, ""));
        let name = || {
            let (_, rest) = rest.split_once('"')?;
            rest.rsplit_once('"').map(|(name, _)| unescaped(name))
        };
        let section = match kind {
            "Version" => Some(Self::Version),
            "DBOptions" => Some(Self::Database),
            "CFOptions" => name().map(Self::Family),
            "TableOptions/BlockBasedTable" => name().map(Self::Table),
            _ => None,
        };
        section.unwrap_or(Self::Other)
    }
}

/// A line of the file.
enum Line<'a> {
    Header(Section),
    Setting(&'a str, &'a str),
    Other,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        let line = uncommented(line).trim();
        match (line.strip_prefix('['), line.split_once('=')) {
            (Some(header), _) => Self::Header(Section::of(header)),
            (None, Some((key, value))) => Self::Setting(key.trim(), value.trim()),
            (None, None) => Self::Other,
        }
    }
}

impl Recorded {
    /// Reads the latest file of the folder. `None`: there is none.
    pub(super) fn latest(folder: &Path) -> Result<Option<Self>> {
        let Some(path) = Self::newest(folder)? else { return Ok(None) };
        let text = fs::read(&path).map_err(|error| unreadable(folder, error))?;
        Ok(Some(Self { path, ..Self::parse(String::from_utf8_lossy(&text).into_owned()) }))
    }

    /// The latest file of the folder.
    pub(super) fn newest(folder: &Path) -> Result<Option<PathBuf>> {
        let mut newest = None;
        for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
            let entry = entry.map_err(|error| unreadable(folder, error))?;
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.strip_prefix("OPTIONS-")?.parse::<u64>().ok());
            newest = newest.max(number.map(|number| (number, entry.path())));
        }
        Ok(newest.map(|(_, path)| path))
    }

    fn parse(text: String) -> Self {
        let mut sections: BTreeMap<Section, Settings> = BTreeMap::new();
        let mut section = Section::Other;
        for line in text.lines() {
            match Line::of(line) {
                Line::Header(next) => {
                    section = next;
                    sections.entry(section.clone()).or_default();
                }
                Line::Setting(key, value) => {
                    let settings = sections.entry(section.clone()).or_default();
                    settings.insert(key.to_owned(), unescaped(value));
                }
                Line::Other => {}
            }
        }
        Self { path: PathBuf::new(), text, sections }
    }

    /// The RocksDB that wrote it.
    pub(super) fn version(&self) -> &str {
        self.sections
            .get(&Section::Version)
            .and_then(|settings| settings.get("rocksdb_version"))
            .map_or("of an unknown version", String::as_str)
    }

    /// Whether the RocksDB that is compiled in wrote it, up to its patch level.
    pub(super) fn is_ours(&self) -> bool {
        self.version().starts_with(OURS)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file with other values. A setting that is not in its section is added to it.
    pub(super) fn with(&self, changes: &[Change]) -> String {
        let mut out = String::with_capacity(self.text.len() + 256);
        let mut section = Section::Other;
        for line in self.text.lines() {
            let parsed = Line::of(line);
            let replaced = matches!(&parsed, Line::Setting(key, _)
                if changes.iter().any(|(at, changed, _)| *at == section && changed == key));
            if !replaced {
                out.push_str(line);
                out.push('\n');
            }
            if let Line::Header(next) = parsed {
                section = next;
                for (_, key, value) in changes.iter().filter(|(at, ..)| *at == section) {
                    out.push_str(&format!("  {key}={value}\n"));
                }
            }
        }
        out
    }

    /// The filter policies that RocksDB wrote down in a way that it does not read back: the C interface
    /// records the kind without the bits for each key, with which loading gives no filter at all.
    pub(super) fn lost_filters(&self) -> Vec<Change> {
        let lost = |(section, settings): (&Section, &Settings)| {
            let policy = match (section, settings.get("filter_policy")?.as_str()) {
                (Section::Table(_), "bloomfilter" | "rocksdb.BuiltinBloomFilter") => {
                    "bloomfilter:10:false"
                }
                (Section::Table(_), "ribbonfilter") => "ribbonfilter:10",
                _ => return None,
            };
            Some((section.clone(), "filter_policy", policy.to_owned()))
        };
        self.sections.iter().filter_map(lost).collect()
    }
}

/// The RocksDB that is compiled in.
const OURS: &str = "11.8.";

/// The settings of a column family that shape its tables, next to the layout of the table format.
const OF_TABLES: [&str; 6] = [
    "bottommost_compression",
    "bottommost_compression_opts",
    "compression",
    "compression_opts",
    "compression_per_level",
    "prefix_extractor",
];

/// The merge operators that are part of RocksDB, and that it makes by itself from what is recorded.
const MERGING: [&str; 5] =
    ["UInt64AddOperator", "PutOperator", "MaxOperator", "BytesXOR", "MergeSortOperator"];

/// Those with a delimiter, which RocksDB before 7 does not record.
const APPENDING: [&str; 2] = ["StringAppendOperator", "StringAppendTESTOperator"];

/// What a time to live leaves.
const TTL_FILTER: &str = "TtlCompactionFilterFactory";
const TTL_MERGE: &str = "TtlMergeOperator";

const BYTEWISE: &str = "leveldb.BytewiseComparator";
const REVERSE: &str = "rocksdb.ReverseBytewiseComparator";

impl Recorded {
    /// The name of a setting's value: `{id=UInt64AddOperator;}` is one way in which RocksDB writes it.
    fn named<'a>(settings: &'a Settings, key: &str) -> Option<&'a str> {
        Self::name_of(settings.get(key)?)
    }

    fn name_of(value: &str) -> Option<&str> {
        let value = value.trim();
        let value = value
            .strip_prefix('{')
            .and_then(|fields| {
                fields.split([';', '}']).find_map(|field| field.trim().strip_prefix("id="))
            })
            .unwrap_or(value);
        (!matches!(value, "nullptr" | "")).then_some(value)
    }

    /// Whether the values of a column family end in the time at which they were written.
    pub(super) fn has_ttl(&self, family: &str) -> bool {
        let settings = self.sections.get(&Section::Family(family.to_owned()));
        settings.is_some_and(|settings| {
            Self::named(settings, "compaction_filter_factory") == Some(TTL_FILTER)
        })
    }

    /// The time to live with which a column family was last opened, in seconds. Older versions do not record it.
    pub(super) fn ttl(&self, family: &str) -> Option<u64> {
        let settings = self.sections.get(&Section::Family(family.to_owned()))?;
        let filter = settings.get("compaction_filter_factory")?;
        let seconds =
            filter.split(['{', ';', '}']).find_map(|field| field.trim().strip_prefix("ttl="))?;
        // What is not positive stands for none.
        Some(seconds.parse::<i64>().ok()?.try_into().unwrap_or(0))
    }

    /// Why the values of a merge operator cannot be read.
    fn cannot_merge(&self, operator: &str) -> Option<String> {
        let name = Self::name_of(operator)?;
        if name == TTL_MERGE {
            let (_, own) = operator.split_once("user_operator=")?;
            let end = if own.starts_with('{') { own.len() } else { own.find([';', '}'])? };
            return self.cannot_merge(own.get(..end)?);
        }
        if APPENDING.contains(&name) {
            // RocksDB would take its own, a comma.
            let known = operator.contains("delimiter=");
            return (!known).then(|| format!(
                "has the merge operator '{name}', of which RocksDB {} did not record the delimiter; open the database once with its program over RocksDB 7 or newer, which records it",
                self.version()
            ));
        }
        (!MERGING.contains(&name)).then(|| format!(
            "has the merge operator '{name}', which is code of that program, without which its values cannot be read; those of RocksDB itself are known here: {}",
            MERGING.iter().chain(&APPENDING).copied().collect::<Vec<_>>().join(", ")
        ))
    }

    /// What is recorded about the tables of a column family, with changes, as RocksDB takes it from a text.
    pub(super) fn tables(&self, family: &str, changes: &[Change]) -> String {
        let mut changed = Self::parse(self.with(changes));
        let mut settings = |section| changed.sections.remove(&section).unwrap_or_default();
        let mut of_family = settings(Section::Family(family.into()));
        of_family.retain(|key, value| OF_TABLES.contains(&key.as_str()) && !value.is_empty());
        let text = |settings: Settings| {
            settings.iter().map(|(key, value)| format!("{key}={value};")).collect::<String>()
        };
        let layout = text(settings(Section::Table(family.into())));
        format!("{}block_based_table_factory={{{layout}}}", text(of_family))
    }

    /// The folder of the log, if that is not where it is `expected`.
    ///
    /// It is where the log was when the file was written. From a copy of the database it leads to the
    /// log of the original, which opening would replay and then delete; where it is gone, opening would
    /// make it again, and miss the writes in the copy's own log.
    pub(super) fn log_elsewhere(&self, folder: &Path, expected: &Path) -> Option<PathBuf> {
        let settings = self.sections.get(&Section::Database);
        let recorded = settings.and_then(|settings| Self::named(settings, "wal_dir"));
        let recorded = recorded.map_or(folder, Path::new);
        let same = match (fs::canonicalize(recorded), fs::canonicalize(expected)) {
            (Ok(recorded), Ok(expected)) => recorded == expected,
            _ => false,
        };
        (!same).then(|| recorded.to_owned())
    }

    /// Why a column family cannot be opened without the program that wrote it. `None`: it can.
    ///
    /// The others are opened along with the one that is `used`, so all are to be checked.
    pub(super) fn objection(&self, family: &str, used: bool) -> Option<String> {
        let Some(settings) = self.sections.get(&Section::Family(family.to_owned())) else {
            return Some(
                "is not in the OPTIONS file, so it cannot be told how its values are to be read"
                    .into(),
            );
        };
        let named = |key| Self::named(settings, key);
        if let Some(why) =
            settings.get("merge_operator").and_then(|operator| self.cannot_merge(operator))
        {
            return Some(why);
        }
        match named("comparator").unwrap_or(BYTEWISE) {
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
        if named("compaction_filter") == Some("TtlCompactionFilter") {
            return Some(
                "was written with a time to live over a compaction filter that is code of that program"
                    .into(),
            );
        }
        let layout = self.sections.get(&Section::Table(family.to_owned()));
        if let Some(old @ ("0" | "1")) =
            layout.and_then(|layout| Self::named(layout, "format_version"))
        {
            return Some(format!(
                "has tables of format_version {old}, which RocksDB 11.8 neither reads nor writes"
            ));
        }
        if !used {
            return None;
        }
        match named("table_factory").unwrap_or("BlockBasedTable") {
            "BlockBasedTable" => {}
            other => {
                return Some(format!(
                    "has the table format '{other}', which offers no ordered scans"
                ));
            }
        }
        if named("compaction_style") == Some("kCompactionStyleFIFO") {
            return Some(
                "has FIFO compaction, which drops the oldest values when there are too many".into(),
            );
        }
        (named("inplace_update_support") == Some("true"))
            .then(|| "updates values in place, which breaks snapshots".into())
    }
}

fn unreadable(folder: &Path, error: std::io::Error) -> Error {
    Error::io(format!("reading RocksDB's OPTIONS file in {}", folder.display()), error)
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
  merge_operator={id=Mine;}
"#;

    #[test]
    fn sections_are_told_apart_and_names_unescaped() {
        let recorded = Recorded::parse(FILE.to_owned());
        assert_eq!(recorded.version(), "11.8.1");
        assert!(recorded.is_ours());
        assert_eq!(recorded.objection("default", true), None);
        let why = recorded.objection("odd#\"name", false).unwrap();
        assert!(why.contains("'Mine'"), "{why}");
        assert!(recorded.objection("missing", false).unwrap().contains("not in the OPTIONS file"));
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
            ("merge_operator={delimiter=\\:;id=StringAppendOperator;}", true, None),
            ("merge_operator=StringAppendOperator", false, Some("delimiter")),
            ("merge_operator=UInt64AddOperator", true, None),
            ("merge_operator={id=MaxOperator;}", true, None),
            ("compaction_filter=TtlCompactionFilter", true, Some("time to live")),
            ("merge_operator={id=TtlMergeOperator;user_operator={id=MaxOperator;};}", true, None),
            (
                "merge_operator={id=TtlMergeOperator;user_operator={id=Mine;};}",
                true,
                Some("'Mine'"),
            ),
            ("table_factory=PlainTable", true, Some("'PlainTable'")),
            ("table_factory=PlainTable", false, None),
            ("inplace_update_support=true", true, Some("in place")),
            ("compaction_style=kCompactionStyleFIFO", true, Some("FIFO")),
            ("compaction_style=kCompactionStyleFIFO", false, None),
            ("compaction_style=kCompactionStyleUniversal", true, None),
        ] {
            let recorded = Recorded::parse(format!("[CFOptions \"x\"]\n{line}\n"));
            let why = recorded.objection("x", used);
            match word {
                Some(word) => assert!(why.as_ref().unwrap().contains(word), "{line}: {why:?}"),
                None => assert_eq!(why, None, "{line}"),
            }
        }
    }

    #[test]
    fn a_change_replaces_or_adds_one_setting_of_one_section() {
        let recorded = Recorded::parse(FILE.to_owned());
        let default = || Section::Family("default".into());
        let changed = recorded.with(&[
            (default(), "comparator", "new".into()),
            (default(), "added", "1".into()),
            (Section::Database, "max_background_jobs", "3".into()),
        ]);
        let after = Recorded::parse(changed);
        let mut expected = recorded.sections;
        expected.get_mut(&default()).unwrap().insert("comparator".into(), "new".into());
        expected.get_mut(&default()).unwrap().insert("added".into(), "1".into());
        expected
            .get_mut(&Section::Database)
            .unwrap()
            .insert("max_background_jobs".into(), "3".into());
        assert_eq!(after.sections, expected);
    }

    #[test]
    fn garbage_gives_no_panic() {
        for text in ["", "[", "[CFOptions", "[CFOptions \"", "=\n\\", "[CFOptions \"a\\", "[] =\""]
        {
            assert!(Recorded::parse(text.into()).objection("a", true).is_some(), "{text}");
        }
    }
}
