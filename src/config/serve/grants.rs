//! What a caller may do with which store.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::StrDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// What a caller may do with a store. Each includes those before it.
/// See [`ServeConfig`](super::ServeConfig) for an example.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// Read entries, and see what the store guarantees and how it does.
    Read,
    /// Write and remove entries.
    Write,
    /// Drop what caches keep, flush, compact.
    Admin,
}

impl Right {
    /// The right as one word, as in a config.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// Rights by store: one for every store, or one for each that is named.
/// See [`ServeConfig`](super::ServeConfig) for an example.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum Grants {
    /// Every store.
    Every(Right),
    /// These stores alone.
    Each(BTreeMap<String, Right>),
}

impl Grants {
    /// The right to a store. `None`: it is as if there were no such store.
    #[must_use]
    pub fn right(&self, store: &str) -> Option<Right> {
        match self {
            Self::Every(right) => Some(*right),
            Self::Each(stores) => stores.get(store).copied(),
        }
    }

    /// The most that is granted for any store.
    pub(super) fn most(&self) -> Option<Right> {
        match self {
            Self::Every(right) => Some(*right),
            Self::Each(stores) => stores.values().max().copied(),
        }
    }

    /// The stores that are named.
    pub(super) fn named(&self) -> impl Iterator<Item = (&str, Right)> {
        let stores = match self {
            Self::Every(_) => None,
            Self::Each(stores) => Some(stores),
        };
        stores.into_iter().flatten().map(|(store, right)| (store.as_str(), *right))
    }
}

/// By hand: what is derived for an untagged enum says nothing about what is wrong.
impl<'de> Deserialize<'de> for Grants {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GrantsVisitor)
    }
}

struct GrantsVisitor;

impl<'de> Visitor<'de> for GrantsVisitor {
    type Value = Grants;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "`read`, `write` or `admin` for every store, or stores with their rights such as `{ orders: read }`",
        )
    }

    fn visit_str<E: serde::de::Error>(self, right: &str) -> Result<Grants, E> {
        Right::deserialize(StrDeserializer::new(right)).map(Grants::Every)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Grants, A::Error> {
        let mut stores = BTreeMap::new();
        while let Some((store, right)) = map.next_entry()? {
            stores.insert(store, right);
        }
        Ok(Grants::Each(stores))
    }
}
