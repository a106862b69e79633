//! The journal on a disk that fails, and on the real one.

mod basic;
mod damage;
pub(crate) mod faulty;
mod format;
pub(crate) mod rng;
mod simulation;
pub(crate) mod stepped;
pub(crate) mod waiting;
