//! A layer or a backend as it is in the file.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// What a store says in place of the name of a backend to use one of [`Config::backends`](super::Config::backends).
pub(crate) const SHARED: &str = "shared";

/// A layer or a backend: its name, and its settings as they are in the file.
///
/// In the file: `name`, `name:`, or `name: { settings }`. See [`StoreConfig`](super::StoreConfig) for an example.
#[derive(Clone, PartialEq)]
pub struct Part {
    /// The name, as registered.
    pub name: String,
    /// The settings, not yet typed. Not printed: a secret may be among them by mistake.
    pub settings: Value,
}

/// Prints the name, not the settings.
impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartVisitor)
    }
}

struct PartVisitor;

impl<'de> Visitor<'de> for PartVisitor {
    type Value = Part;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name, or a name with its settings such as `compress: { level: 3 }`")
    }

    fn visit_str<E>(self, name: &str) -> Result<Part, E> {
        Ok(Part { name: name.to_owned(), settings: Value::Object(Map::new()) })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Part, A::Error> {
        one_of(entries(map)?)
    }
}

/// What `backend` in a store may be: a [`Part`], or the name of a shared one with what is next to it.
pub(super) fn backend<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Part, D::Error> {
    deserializer.deserialize_any(BackendVisitor)
}

struct BackendVisitor;

impl<'de> Visitor<'de> for BackendVisitor {
    type Value = Part;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        PartVisitor.expecting(f)
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Part, E> {
        PartVisitor.visit_str(name)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Part, A::Error> {
        let entries = entries(map)?;
        if entries.iter().any(|(name, _)| name == SHARED) {
            let settings = Value::Object(entries.into_iter().collect());
            return Ok(Part { name: SHARED.to_owned(), settings });
        }
        one_of(entries)
    }
}

fn entries<'de, A: MapAccess<'de>>(mut map: A) -> Result<Vec<(String, Value)>, A::Error> {
    let mut entries = Vec::new();
    while let Some(entry) = map.next_entry()? {
        entries.push(entry);
    }
    Ok(entries)
}

/// A name with its settings, alone in its map.
fn one_of<E: serde::de::Error>(entries: Vec<(String, Value)>) -> Result<Part, E> {
    let mut entries = entries.into_iter();
    let Some((name, settings)) = entries.next() else {
        return Err(E::custom(
            "the map is empty; write a name with its settings, such as `compress: { level: 3 }`",
        ));
    };
    if let Some((second, _)) = entries.next() {
        return Err(E::custom(format!(
            "there are two names, '{name}' and '{second}', and only one is allowed; a layer is an item of the list on its own, its settings are indented below its name"
        )));
    }
    let settings = match settings {
        Value::Null => Value::Object(Map::new()),
        settings => settings,
    };
    Ok(Part { name, settings })
}
