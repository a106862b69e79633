//! The memory of a cache: engines that bound it, and thread-local near caches over them.

mod counters;
mod engine;
mod moka;
mod near_cache;
mod s3_fifo;
#[cfg(test)]
mod tests;

pub(super) use self::engine::{Engine, register_counters};
pub(super) use self::s3_fifo::Evicted;
