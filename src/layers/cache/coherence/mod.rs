//! Cache coherence: no answer is older than a write that was acknowledged, by generations of keys, counted in slots.
//!
//! A write registers with the slots of its keys before it touches the store below, and takes
//! its leave when it is done; both begin a new generation. A load takes a [`Ticket`] before its first
//! read below, and what it found is kept only if the generation is still the same and no write is
//! under way. A write whose outcome is unknown, as it failed or its future was dropped, may still arrive
//! below, so its keys stay in [doubt](Doubts) for a while, as if it were under way. Keys that share a slot
//! cost each other a load that is not kept, never an old answer: a large cache has many slots.
//!
//! A stripe is a lock over some slots. A copy of an entry is compared with the generation of the whole stripe, which
//! is read without the lock.
//!
//! What concerns every key at once is an [`Epoch`], which a ticket and an entry carry as well.
//!
//! The files of this room name locks and atomics in `sync` alone, so that the model checker runs the shipped code
//! (`model_tests`).

mod current_epoch;
mod epoch;
#[cfg(test)]
mod model_tests;
mod prefix_invalidation;
mod protocol;
mod single_flight;
mod sync;
mod unknown_outcomes;
mod versions;
mod write_guard;

pub(super) use self::current_epoch::Epochs;
pub(super) use self::epoch::{Epoch, Mode};
pub(super) use self::prefix_invalidation::Invalidated;
pub(super) use self::protocol::{Admission, Coherence, Turn};
pub(super) use self::single_flight::{InFlight, LoadEnd, Outcome, WaitGuard};
pub(super) use self::versions::{StripeVersion, Ticket};
pub(super) use self::write_guard::WriteGuard;
