//! Plain data of the contract: no I/O, no locks.

mod batch;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod columns;
mod condition;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod expires;
mod fraction;
mod guarantees;
mod identity;
mod limits;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) mod object;
mod path;
mod scalar;
mod scan;
mod scope;
mod secret;
pub(crate) mod secret_file;
mod secret_text;
pub mod survey;
pub mod units;
mod url;
mod value;

/// Keys that begin with these bytes belong to tierstack itself: a stack refuses and hides them.
pub const RESERVED_PREFIX: &[u8] = b"\0tierstack/";

pub use batch::{Batch, Commit, Durability, Op};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use columns::{All, Fields, KeyColumns, RowColumns, RowForm, ValueColumns};
pub use condition::{Condition, Conditions};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use expires::ExpiresUnit;
pub use guarantees::{
    Counting, Freshness, Guarantees, Place, Profile, ProfileKind, Recovery, Usage,
};
pub use identity::Identity;
pub use limits::Limits;
pub(crate) use limits::check_key;
#[allow(unused_imports, reason = "used by some features only")]
pub(crate) use path::check_path_of;
pub use scan::{Order, Page, RunOrder, Scan};
pub use scope::{Inspection, Presence, Scope};
pub use value::{Entry, Value};
