//! What came of the checks.

use std::fmt;

/// What came of a check. See [`Fixture`](super::Fixture) for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The store does what it must.
    Passed,
    /// The store does not offer what is checked, and says so in its profile.
    Skipped(&'static str),
    /// The store does not do what it must, and where that was seen.
    Failed(String),
}

/// What came of all checks. Prints the failed ones with their reasons.
/// See [`run`](super::run) for an example.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The store from the outside in, as its profile prints.
    pub store: String,
    /// The checks by name, in the order in which they ran.
    pub outcomes: Vec<(&'static str, Outcome)>,
}

impl Report {
    /// Whether no check failed, and at least one passed.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.failed().next().is_none() && self.passed() > 0
    }

    /// How many checks passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Passed).count()
    }

    /// The checks that do not apply to the store, and why.
    pub fn skipped(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.outcomes.iter().filter_map(|(name, outcome)| match outcome {
            Outcome::Skipped(why) => Some((*name, *why)),
            _ => None,
        })
    }

    /// The checks that failed, and why.
    pub fn failed(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.outcomes.iter().filter_map(|(name, outcome)| match outcome {
            Outcome::Failed(why) => Some((*name, why.as_str())),
            _ => None,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, skipped) = (self.failed().count(), self.skipped().count());
        write!(
            f,
            "{}: {} checks passed, {skipped} do not apply, {failed} failed",
            self.store,
            self.passed()
        )?;
        for (name, why) in self.failed() {
            write!(f, "\n  {name}: {why}")?;
        }
        Ok(())
    }
}
