//! Settings that name columns of a table.

use serde::{Deserialize, Serialize};

/// The column of the key of a table, or its columns.
///
/// ```
/// use tierstack::backends::sqlite::{Columns, KeyColumns};
///
/// let key = KeyColumns::Several(vec!["tenant".into(), "id".into()]);
/// let columns = Columns { key, ..Columns::default() };
/// assert_eq!(Columns::default().key, "key".into());
/// # let _ = columns;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "a key is a column, or several: `[tenant, id]`")]
pub enum KeyColumns {
    /// One column.
    One(String),
    /// Several, in the order in which they are parts of the key.
    Several(Vec<String>),
}

impl KeyColumns {
    /// Their names.
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

impl From<&str> for KeyColumns {
    fn from(name: &str) -> Self {
        Self::One(name.to_owned())
    }
}

/// The column of the value of a table, or the columns that are read and written as one JSON object.
///
/// ```
/// use tierstack::backends::sqlite::{Columns, Fields, RowColumns, RowForm, ValueColumns};
///
/// let columns = Fields::Named(vec!["name".into(), "email".into()]);
/// let value = ValueColumns::Row(RowColumns { columns, form: RowForm::Json });
/// let columns = Columns { value, ..Columns::default() };
/// assert_eq!(Columns::default().value, "value".into());
/// # let _ = columns;
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(
    untagged,
    expecting = "a value is a column, or several: `{ columns: [a, b], as: json }`, or `{ columns: all, as: json }`"
)]
pub enum ValueColumns {
    /// One column.
    One(String),
    /// Several, as one object.
    Row(RowColumns),
}

impl ValueColumns {
    /// The names that are given: none of `all`.
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Row(RowColumns { columns: Fields::Named(names), .. }) => names,
            Self::Row(RowColumns { columns: Fields::All(_), .. }) => &[],
        }
    }
}

impl From<&str> for ValueColumns {
    fn from(name: &str) -> Self {
        Self::One(name.to_owned())
    }
}

/// Columns that are read and written together. See [`ValueColumns`] for an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RowColumns {
    /// Which ones: `[a, b]`, or `all` but for the key, times that are named, and what the database computes.
    pub columns: Fields,
    /// As what: `json`, an object with a field for each column.
    #[serde(rename = "as")]
    pub form: RowForm,
}

/// Which columns are fields of an object. See [`ValueColumns`] for an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "`columns` of a value is `all`, or a list of columns")]
pub enum Fields {
    /// Every one but for the key, times that are named, and what the database computes.
    All(All),
    /// These.
    Named(Vec<String>),
}

/// The word `all`. See [`ValueColumns`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum All {
    /// All of them.
    All,
}

/// How a row becomes a value. See [`ValueColumns`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RowForm {
    /// One JSON object.
    Json,
}
