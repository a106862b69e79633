//! Data that cannot be reached: the part of the conformance suite, over a store that a fixture can cut off.

use tierstack::Result;
use tierstack::testing::conformance::{self, Fixture, Outcome};

/// Runs what the suite says about data that cannot be reached, which the fixture lets happen.
pub(crate) async fn is_never_absent<F>(factory: impl Fn() -> F)
where
    F: Future<Output = Result<Fixture>>,
{
    let mut passed = 0;
    for check in conformance::checks().filter(|check| check.name().starts_with("unreachable::")) {
        match check.run(factory().await.unwrap()).await {
            Outcome::Passed => passed += 1,
            Outcome::Skipped("the store has no ordered scans") => {}
            outcome => panic!("{check:?}: {outcome:?}"),
        }
    }
    assert!(passed >= 2, "{passed}");
}
