//! A check, and running it.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, select};

use super::fixture::Fixture;
use super::harness::{Bench, Stop, Verdict};
use super::progress::Progress;
use super::report::Outcome;

/// One thing that every store must do. See [`Fixture`] for an example.
pub struct Check {
    pub(super) name: &'static str,
    pub(super) run: fn(Bench) -> BoxFuture<'static, Verdict>,
}

/// Lists functions `async fn(Bench) -> Verdict` as checks of a topic.
macro_rules! topic {
    ($topic:literal: $($name:ident),+ $(,)?) => {
        pub(super) const CHECKS: &[super::check::Check] = &[$(super::check::Check {
            name: concat!($topic, "::", stringify!($name)),
            run: |bench| Box::pin($name(bench)),
        }),+];
    };
}
pub(super) use topic;

impl Check {
    /// The topic and what must hold, such as `batch::the_last_operation_of_a_key_wins`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the check on a fresh, empty store, and closes the store. Catches panics. A check hangs, and
    /// fails, when one operation takes longer than two minutes, or when none is done for as long: a slow
    /// store may take any number of operations. A check that does not end fails after half an hour.
    pub async fn run(&self, fixture: impl Into<Fixture>) -> Outcome {
        let fixture = fixture.into();
        let progress = Progress::default();
        let bench = Bench::new(&fixture, &progress);
        let steps = async {
            let store = Arc::clone(&bench.store);
            (self.run)(bench).await?;
            store.close().await?;
            Ok(())
        };
        let steps = AssertUnwindSafe(steps).catch_unwind();
        let verdict = match select(steps.boxed(), progress.hung().boxed()).await {
            Either::Left((Ok(verdict), _)) => verdict,
            Either::Left((Err(panic), _)) => Err(Stop::panicked(&*panic)),
            Either::Right((why, _)) => Err(Stop::Failed(why)),
        };
        match verdict {
            Ok(()) => Outcome::Passed,
            Err(Stop::Skipped(why)) => Outcome::Skipped(why),
            Err(Stop::Failed(why)) => Outcome::Failed(why),
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({})", self.name)
    }
}
