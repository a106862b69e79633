//! What a store is that is there already, for a config that opens it as it is.

use std::borrow::Cow;

use serde::Serialize;

/// What is there, as a look that changes nothing finds it. Each backend has its own, such as
/// `SqliteConfig::survey`; `tierstack adopt` writes configs from them.
///
/// ```
/// use tierstack::survey::{Chosen, Part, Survey};
///
/// let part = Part {
///     name: "sessions".into(),
///     kind: "table".into(),
///     settings: vec![Chosen::new("table", "\"sessions\"", "")],
///     ..Part::default()
/// };
/// let survey = Survey { what: "SQLite".into(), facts: Vec::new(), parts: vec![part] };
/// assert_eq!(survey.parts[0].settings[0].name, "table");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// What it is, with its version.
    pub what: String,
    /// What is to be known of the whole. Whole sentences.
    pub facts: Vec<String>,
    /// What may be a store, each by itself.
    pub parts: Vec<Part>,
}

/// A table, a column family, a database of a server. See [`Survey`] for an example.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// What it is, such as `table`.
    pub kind: String,
    /// What is to be known of it: sizes, rights.
    pub facts: Vec<String>,
    /// Its columns, where it has some.
    pub columns: Vec<Column>,
    /// Settings that it needs.
    pub settings: Vec<Chosen>,
}

/// A column of a table. See [`Survey`] for an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as the database writes it.
    pub kind: String,
    /// Whether it is a part of the primary key.
    pub key: bool,
    /// Whether a row cannot be added without it.
    pub required: bool,
}

/// A setting, and why it was chosen. See [`Survey`] for an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// As in a config file.
    pub name: Cow<'static, str>,
    /// As YAML on one line.
    pub value: String,
    /// The reason. Empty: it speaks for itself.
    pub why: String,
}

impl Chosen {
    /// A setting with its reason.
    #[must_use]
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), value: value.into(), why: why.into() }
    }
}
