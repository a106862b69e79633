//! A layer or a backend of a stack, with its settings and its place in the file.

use std::sync::Arc;

use serde_json::Value;

use crate::error::Error;
use crate::layer::Zone;

/// A layer or backend of a checked stack.
pub(super) struct Part<C: ?Sized> {
    pub(super) name: &'static str,
    pub(super) zone: Zone,
    /// The name, with its place in the list where it occurs more than once.
    pub(super) label: String,
    /// The path in the file.
    pub(super) path: String,
    pub(super) settings: Value,
    pub(super) config: Arc<C>,
}

/// The path of what a layer or backend refused: that of the [setting](Error::setting), where the file has it.
pub(super) fn refused<C: ?Sized>(part: &Part<C>, error: Error) -> Error {
    let mut path = part.path.clone();
    let setting = error.setting().filter(|setting| {
        let mut names = setting.split('.');
        names.try_fold(&part.settings, |at, name| at.get(name)).is_some()
    });
    if let Some(setting) = setting {
        path = format!("{path}.{setting}");
    }
    error.with_context(path)
}
