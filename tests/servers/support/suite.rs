//! The conformance suite over a service, where most of the time goes into waiting.

use std::time::Instant;

use futures_util::StreamExt;
use tierstack::Result;
use tierstack::testing::conformance::{self, Fixture, Outcome};

/// Checks at a time.
const AT_ONCE: usize = 3;

/// Runs the suite, several checks at a time: each store that the factory gives must have a place of its own.
/// Prints what took longest.
pub(crate) async fn conforms<F>(factory: impl Fn() -> F)
where
    F: Future<Output = Result<Fixture>>,
{
    let factory = &factory;
    let checks = conformance::checks().map(|check| async move {
        let fixture = factory().await.unwrap();
        let begun = Instant::now();
        // As a task, so that the checks share more than one core.
        let outcome = tokio::spawn(check.run(fixture)).await.unwrap();
        (begun.elapsed(), check.name(), outcome)
    });
    let mut all: Vec<_> =
        futures_util::stream::iter(checks).buffer_unordered(AT_ONCE).collect().await;
    all.sort_by_key(|(took, ..)| std::cmp::Reverse(*took));
    for (took, name, _) in all.iter().take(8) {
        eprintln!("{:6.1} s  {name}", took.as_secs_f64());
    }
    let failed: Vec<_> = all
        .iter()
        .filter_map(|(_, name, outcome)| match outcome {
            Outcome::Failed(why) => Some(format!("{name}: {why}")),
            _ => None,
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(all.iter().any(|(.., outcome)| *outcome == Outcome::Passed), "no check ran");
}
