//! Single settings as they are in the file.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::types::units::check_path;

/// A setting that may be left out but, if it is there, holds something: a blank `sealed:` must not
/// read as "not required".
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A path as it is in the file.
pub(super) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::from(String::deserialize(deserializer)?);
    check_path(&path).map_err(|why| D::Error::custom(format!("this {why}")))?;
    Ok(path)
}

/// An address as it is in the file.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(|_| {
        D::Error::custom(
            "this is not an address; write IP:PORT, such as 127.0.0.1:9187 or [::1]:9187",
        )
    })
}
