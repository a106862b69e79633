//! Which base a restore takes: a pure function.

use std::fmt;

use serde::Serialize;

use super::format::BaseInfo;
use crate::clock::Timestamp;
use crate::error::{Error, Operation, Result};

/// What to restore.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use std::time::Duration;
/// use object_store::memory::InMemory;
/// use tierstack::backends::Memory;
/// use tierstack::backup::{self, Repository, Target};
/// use tierstack::ManualClock;
///
/// let (store, clock) = (Memory::new(), ManualClock::new());
/// let repository =
///     Repository::create_or_open(Arc::new(InMemory::new()), Arc::new(clock.clone())).await?;
/// let monday = backup::run(&store, &repository, &|_| ()).await?.base;
/// clock.advance(Duration::from_secs(86_400));
/// let tuesday = backup::run(&store, &repository, &|_| ()).await?.base;
///
/// let plan = repository.plan(Target::At(monday.time + Duration::from_secs(3600))).await?;
/// assert_eq!(plan.reached, monday.time, "what was written in that hour is not in it");
/// assert_eq!(repository.plan(Target::Latest).await?.base, tuesday);
/// assert_eq!(repository.plan(Target::Base(monday.id.clone())).await?.base, monday);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The newest base.
    Latest,
    /// The newest base at or before that moment: it holds no write that began after it. The writes
    /// between that base and the moment are not in it; the plan says which moment it reaches.
    At(Timestamp),
    /// The base that ends with exactly this sequence.
    Sequence(u64),
    /// The base of this name.
    Base(String),
}

/// What a restore will do. See [`Target`] for an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The base that is restored.
    pub base: BaseInfo,
    /// The moment that is reached: that of the base.
    pub reached: Timestamp,
    /// The sequence that is reached, where the store had sequences.
    pub reached_seq: Option<u64>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BaseInfo { id, entries, bytes, .. } = &self.base;
        write!(f, "base {id}: {entries} entries, {bytes} bytes, as of {}", self.reached)
    }
}

/// Chooses among the bases.
///
/// # Errors
/// `InvalidInput` if no base reaches the target, with what there is.
pub fn plan(bases: &[BaseInfo], target: Target) -> Result<Plan> {
    let newest = |fits: &dyn Fn(&BaseInfo) -> bool| {
        bases.iter().filter(|base| fits(base)).max_by_key(|base| base.time)
    };
    let (base, missing) = match &target {
        Target::Latest => {
            (newest(&|_| true), "there is no base yet; run a backup first".to_owned())
        }
        Target::At(time) => {
            let oldest = bases.iter().map(|base| base.time).min();
            let missing = match oldest {
                Some(oldest) => format!("no base is as old as {time}; the oldest is of {oldest}"),
                None => "there is no base yet; run a backup first".to_owned(),
            };
            (newest(&|base| base.time <= *time), missing)
        }
        Target::Sequence(sequence) => (
            newest(&|base| base.last_seq == Some(*sequence)),
            format!(
                "no base ends with sequence {sequence}; without a log, only bases can be reached"
            ),
        ),
        Target::Base(id) => {
            (newest(&|base| base.id == *id), format!("there is no base '{id}'; list the bases"))
        }
    };
    let base = base.ok_or_else(|| Error::invalid(missing).with_operation(Operation::Backup))?;
    Ok(Plan { base: base.clone(), reached: base.time, reached_seq: base.last_seq })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backup::Hash;

    fn base(time: u64, last_seq: Option<u64>) -> BaseInfo {
        BaseInfo {
            id: format!("{time:016x}"),
            lineage: "0".repeat(16),
            parent: None,
            started: Timestamp::from_millis(time),
            time: Timestamp::from_millis(time),
            first_seq: last_seq.map(|_| 0),
            last_seq,
            entries: 0,
            expiring: 0,
            bytes: 0,
            longest_key: 0,
            longest_value: 0,
            uploaded_bytes: 0,
            digest: Hash([0; 32]),
        }
    }

    #[test]
    fn without_a_base_that_fits_the_error_says_what_there_is() {
        let bases = [base(1_700_000_000_000, Some(7))];
        for (target, word) in [
            (Target::At(Timestamp::from_millis(5)), "2023-11-14"),
            (Target::Sequence(8), "sequence 8"),
            (Target::Base("x".into()), "'x'"),
        ] {
            let error = plan(&bases, target).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(plan(&[], Target::Latest).is_err());
        assert!(plan(&[], Target::At(Timestamp::from_millis(5))).is_err());
        assert_eq!(plan(&bases, Target::Sequence(7)).unwrap().reached_seq, Some(7));
    }

    proptest! {
        #[test]
        fn a_moment_is_never_passed_and_nothing_between_is_left_out(
            times in prop::collection::btree_set(1u64..100, 1..10), at in 0u64..110,
        ) {
            let bases: Vec<_> = times.iter().rev().map(|time| base(*time, None)).collect();
            let reached = plan(&bases, Target::At(Timestamp::from_millis(at))).map(|plan| plan.reached);
            let expected = times.range(..=at).next_back().map(|time| Timestamp::from_millis(*time));
            prop_assert_eq!(reached.ok(), expected);
            let latest = plan(&bases, Target::Latest).unwrap().reached;
            prop_assert_eq!(Some(&latest.as_millis()), times.last());
        }
    }
}
