//! Plain data of the contract: no I/O, no locks.

mod batch;
mod fraction;
mod guarantees;
mod scan;
mod scope;
pub mod units;
mod url;
mod value;

pub use batch::{Batch, Commit, Durability, Op};
pub use guarantees::{
    Counting, Freshness, Guarantees, Limits, Place, Profile, ProfileKind, Recovery, Usage,
};
pub(crate) use scan::check_key;
pub use scan::{Order, Page, RunOrder, Scan};
pub use scope::{Presence, Scope, Sighting};
pub use value::{Entry, Value};
