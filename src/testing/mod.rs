//! For tests of stores: the conformance suite, the model test and the fault store.
//!
//! - [`conformance`] checks a backend or a layer against the contract, in about ten lines.
//! - [`model`] runs random operations on a stack and on a `BTreeMap`, and compares.
//! - [`FaultStore`] wraps a store and fails, delays, holds or panics by a plan; it counts and records.
//!
//! All of it runs in a tokio runtime, and draws its randomness from a seed ([`Random`]).

pub mod conformance;
mod fault;
mod history;
pub mod model;
mod oracle;
mod random;

pub use self::fault::{Call, FaultLayer, FaultStore, Faults, Gate, Rule};
pub use self::random::Random;
