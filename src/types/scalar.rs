//! A plain value of a config file.

use serde::Deserialize;

/// What a config file may hold in place of text, to be told apart in messages.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Integer(u64),
    Text(String),
    Other(serde::de::IgnoredAny),
}
