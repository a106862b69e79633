//! Warm start: the keys that were kept when the store was closed are loaded again, in the background.
//!
//! Loads of their own are what they are: nothing is served that the store below was not asked for. Reads do
//! not wait for them.

mod file;
mod keys;
mod load_keys;

pub(super) use self::keys::{WarmStart, loaded};
