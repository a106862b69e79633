//! The journal on a disk that fails, and on the real one.

mod basic;
mod damage;
mod faulty;
mod format;
mod rng;
mod simulation;
mod waiting;
