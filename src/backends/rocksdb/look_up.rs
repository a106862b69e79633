//! The value of a key as RocksDB answers it.

use super::error::{failed, is_incomplete};
use super::read_source::View;
use super::read_tier::Tier;
use super::wide_columns;
use crate::error::{Operation, Result};
use crate::types::Value;

/// The value of a key. `None`: it is not in memory.
pub(super) fn look_up<V: View>(
    view: &V,
    key: &[u8],
    tier: Tier,
    operation: Operation,
) -> Result<Option<Option<Value>>> {
    checked(view, key, tier, operation, view.get(key, tier))
}

/// What RocksDB answered. An empty value is looked at again, as an entity may be shown as one.
pub(super) fn checked<V: View>(
    view: &V,
    key: &[u8],
    tier: Tier,
    operation: Operation,
    answer: Result<Option<Value>, ::rocksdb::Error>,
) -> Result<Option<Option<Value>>> {
    let empty = matches!(&answer, Ok(Some(value)) if value.bytes.is_empty());
    let entity = if empty { view.is_entity(key, tier) } else { Ok(false) };
    match entity.and_then(|entity| answer.map(|value| (entity, value))) {
        Ok((true, _)) => Err(wide_columns::refused().with_operation(operation).with_key(key)),
        Ok((false, value)) => match (value, view.engine().stamps()) {
            (Some(stored), Some(stamps)) => {
                let read = stamps.read(&stored).map(Some);
                read.map_err(|error| error.with_operation(operation).with_key(key))
            }
            (value, _) => Ok(Some(value)),
        },
        Err(error) if tier == Tier::Memory && is_incomplete(&error) => Ok(None),
        Err(error) => Err(failed(operation, error).with_key(key)),
    }
}
