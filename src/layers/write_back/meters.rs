//! What is counted.

use crate::telemetry::Labels;

/// The series of one store.
#[derive(Debug)]
pub(super) struct Meters {}

impl Meters {
    pub(super) fn new(_: &Labels) -> Self {
        Self {}
    }
}
