//! Groups of batches: the plain way to write one, and what layers do with one.
//!
//! What takes effect of a group is a prefix of it, so the answers are commits up to the first error, and
//! errors from there on.

mod checked;
mod in_order;
#[cfg(any(test, feature = "postgres", feature = "redis"))]
mod merged;
#[cfg(test)]
mod tests;

pub(crate) use self::checked::admitted;
pub use self::checked::write_admitted;
pub(crate) use self::in_order::complete;
pub use self::in_order::write_in_order;
#[cfg(any(test, feature = "postgres", feature = "redis"))]
pub(crate) use self::merged::write_merged;
