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

/// The path of what a layer or backend refused. A message about one setting begins with its name, as in
/// `level 33 is outside ...` or `level: ...`, which then ends the path.
pub(super) fn refused<C: ?Sized>(part: &Part<C>, error: Error) -> Error {
    let path = &part.path;
    let message = error.message();
    let known = |name: &&str| part.settings.get(name).is_some();
    let Some(name) = message.split([':', ' ']).next().filter(known) else {
        return error.with_context(path);
    };
    if let Some(what) = message.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")) {
        return Error::new(error.kind(), format!("{path}.{name}: {what}"));
    }
    let at = format!("{path}.{name}");
    error.with_context(at)
}
