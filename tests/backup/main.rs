//! The backup engine over folders, memory and object stores that fail.
#![cfg(feature = "backup")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, unreachable_pub)]

mod damage;
mod faults;
mod format;
mod round_trip;
mod support;
