//! The conformance suite: what every store must do, whatever it is made of.
//!
//! Each check gets a fresh, empty store from a factory. What is checked follows from the store's
//! profile: what it guarantees must hold, and what it does not offer must be refused. A store that is
//! not writable is only asked to refuse writes and to answer reads.
//!
//! Run it on a multi-thread runtime: on one thread, little happens at the same time.
//!
//! ```
//! use tierstack::backends::Memory;
//! use tierstack::testing::conformance;
//! use tierstack::testing::conformance::Fixture;
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! // In a test: `#[tokio::test(flavor = "multi_thread")]`
//! conformance::assert_conforms(|| async { Ok(Fixture::new(Memory::new())) }).await;
//! # });
//! ```
//!
//! A harness that reports each check by itself goes through [`checks`], and calls [`Check::run`].

mod check;
mod fixture;
mod harness;
mod report;

mod basic;
mod batch;
mod cancel;
mod change_feed;
mod close;
mod concurrency;
mod condition;
mod expiry;
mod group;
mod ingest;
mod inspect;
mod invalidate;
mod keys;
mod limits;
mod progress;
mod refuse;
mod scan;
mod snapshot;
#[cfg(test)]
mod tests;
mod transaction;
mod unreachable;
mod upkeep;

use std::future::Future;

pub use self::check::Check;
pub use self::fixture::Fixture;
pub use self::report::{Outcome, Report};
use crate::error::Result;

/// Every check, in the order in which [`run`] runs them.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    [
        basic::CHECKS,
        batch::CHECKS,
        condition::CHECKS,
        group::CHECKS,
        ingest::CHECKS,
        scan::CHECKS,
        keys::CHECKS,
        snapshot::CHECKS,
        expiry::CHECKS,
        limits::CHECKS,
        refuse::CHECKS,
        upkeep::CHECKS,
        change_feed::CHECKS,
        invalidate::CHECKS,
        inspect::CHECKS,
        cancel::CHECKS,
        close::CHECKS,
        concurrency::CHECKS,
        transaction::CHECKS,
        unreachable::CHECKS,
    ]
    .into_iter()
    .flatten()
}

/// Runs every check, each on a store of its own from the factory.
///
/// ```
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::testing::conformance;
///
/// let report = conformance::run(|| async { Ok(Memory::new()) }).await;
/// assert!(report.is_ok(), "{report}");
/// # });
/// ```
pub async fn run<F, T>(factory: impl Fn() -> F) -> Report
where
    F: Future<Output = Result<T>>,
    T: Into<Fixture>,
{
    let mut report = Report::default();
    for check in checks() {
        let outcome = match factory().await {
            Ok(fixture) => {
                let fixture = fixture.into();
                report.store = fixture.store.profile().to_string();
                check.run(fixture).await
            }
            Err(error) => Outcome::Failed(format!("the factory gave no store: {error:?}")),
        };
        report.outcomes.push((check.name, outcome));
    }
    report
}

/// Runs every check, for use in a test.
///
/// # Panics
/// If a check fails; the message lists all that did, and why.
#[expect(clippy::panic, reason = "a failed test panics")]
pub async fn assert_conforms<F, T>(factory: impl Fn() -> F)
where
    F: Future<Output = Result<T>>,
    T: Into<Fixture>,
{
    let report = run(factory).await;
    if !report.is_ok() {
        panic!("{report}");
    }
}
