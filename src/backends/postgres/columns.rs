//! The settings about columns: which are used, and what their types make of keys and values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{ExpiresUnit, KeyColumns, ValueColumns};

/// How the key of a row becomes the key of an entry. See [`PostgresConfig`](super::PostgresConfig) for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// The column is `bytea`, and holds the key as it is.
    #[default]
    Bytea,
    /// The key is what a person would type: `42`, `users/7`, a UUID in lower case,
    /// `2026-01-31T12:00:00.000000Z`. Of several columns, with a `/` between them, and `%2F` for one within a text.
    Text,
    /// The key is a tuple of the columns (`tierstack::keys`), which sorts as they do.
    Tuple,
}

/// How the value of a row becomes the value of an entry. See [`PostgresConfig`](super::PostgresConfig) for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Values {
    /// The column is `bytea`, and holds the value as it is.
    #[default]
    Bytea,
    /// The column is `text`, `varchar`, `json` or `jsonb`, and the value its text.
    Text,
}

/// The columns of the table. See [`PostgresConfig`](super::PostgresConfig) for an example.
///
/// The default names all five, as in the table that tierstack creates. Where `columns` is given, only
/// those that it names are used: without `expires`, entries cannot carry an expiry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// The key: `NOT NULL`, with a unique index of its own; of the type that `keys` names. Several columns are
    /// `[a, b]`. Default: `key`.
    #[serde(default = "default_key")]
    pub key: KeyColumns,
    /// The value, of the type that `values` names; or several columns of any types as one JSON object:
    /// `{ columns: [a, b], as: json }`. Default: `value`.
    #[serde(default = "default_value")]
    pub value: ValueColumns,
    /// When an entry expires: `bigint` (see `expires_unit`), `timestamptz` or `timestamp` (in UTC); NULL:
    /// never.
    #[serde(default)]
    pub expires: Option<String>,
    /// What the numbers in `expires` count: `milliseconds` or `seconds`. Default: `milliseconds`. Opening a
    /// table that somebody else made fails where they do not look like it.
    #[serde(default)]
    pub expires_unit: ExpiresUnit,
    /// When the entry came to be: a timestamp, set when it is first written.
    #[serde(default)]
    pub created: Option<String>,
    /// When the entry was last written: a timestamp.
    #[serde(default)]
    pub updated: Option<String>,
    /// What is written into other columns of a row that is new, as text: `{ kind: web }`. Those that are not named
    /// have their default. Default: none.
    #[serde(default)]
    pub constants: BTreeMap<String, String>,
}

fn default_key() -> KeyColumns {
    "key".into()
}

fn default_value() -> ValueColumns {
    "value".into()
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            key: default_key(),
            value: default_value(),
            expires: Some("expires".to_owned()),
            expires_unit: ExpiresUnit::Milliseconds,
            created: Some("created".to_owned()),
            updated: Some("updated".to_owned()),
            constants: BTreeMap::new(),
        }
    }
}

impl Columns {
    /// Each with the setting that names it.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let optional = [
            ("expires", self.expires.as_deref()),
            ("created", self.created.as_deref()),
            ("updated", self.updated.as_deref()),
        ];
        let keys = self.key.names().iter().map(|name| ("key", name.as_str()));
        let constants = self.constants.keys().map(|name| ("constants", name.as_str()));
        keys.chain(self.value.names().iter().map(|name| ("value", name.as_str())))
            .chain(optional.into_iter().filter_map(|(setting, name)| Some((setting, name?))))
            .chain(constants)
    }
}
