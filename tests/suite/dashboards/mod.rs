//! Boards, rules, alerts and the runbook fit together, and name only what is exported. That each query runs and finds
//! something is tested in `tests/servers/dashboards.rs`.

#![cfg(feature = "full")]

mod compose;
pub(crate) mod files;
mod lint;
mod names;
mod runbook;
