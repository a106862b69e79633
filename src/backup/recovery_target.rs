//! Which base a restore takes: a pure function.

use std::fmt;

use serde::Serialize;

use super::documents::BaseInfo;
use crate::clock::Timestamp;
use crate::error::{Error, Operation, Result};
use crate::types::units::counted;

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
    ///
    /// Bases are in the order in which they were taken. Where times go backwards in it, a clock was wrong:
    /// those count that agree with the order of the most others, and no time that has not come yet.
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
    /// Bases that were taken after it, perhaps before the moment that was asked for: the clock was wrong,
    /// so it is not known. [`Target::Base`] reaches them.
    pub doubtful: Vec<BaseInfo>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BaseInfo { id, entries, bytes, .. } = &self.base;
        let entries = counted(*entries, "entry", "entries");
        let bytes = counted(*bytes, "byte", "bytes");
        write!(f, "base {id}: {entries}, {bytes}, as of {}", self.reached)
    }
}

/// Chooses among the bases, which are in the order in which they were taken. `now` tells a clock that
/// was ahead.
///
/// # Errors
/// `InvalidInput` if no base reaches the target, with what there is.
pub fn plan(bases: &[BaseInfo], target: &Target, now: Timestamp) -> Result<Plan> {
    let times = said(bases);
    let chosen;
    let mut doubtful = Vec::new();
    let missing = match target {
        Target::Latest => {
            chosen = bases.len().checked_sub(1);
            "there is no base yet; run a backup first".to_owned()
        }
        Target::At(moment) => {
            let known = consistent(&times, now);
            let before = |at: &&usize| times.get(**at).is_some_and(|time| time <= moment);
            chosen = known.iter().take_while(before).last().copied();
            let next = known.iter().find(|at| !before(at));
            // Between the base and the next one whose time is known, or dated before the moment.
            doubtful = (chosen.map_or(0, |at| at + 1)..bases.len())
                .filter(|at| known.binary_search(at).is_err())
                .filter(|at| next.is_some_and(|next| at < next) || before(&at))
                .collect();
            match known.first().and_then(|at| times.get(*at)) {
                Some(oldest) => {
                    let mut text =
                        format!("no base is as old as {moment}; the oldest is of {oldest}");
                    if !doubtful.is_empty() {
                        text += &format!(
                            "; {} backwards, as a clock was wrong: list the bases, and take one of them by its \
                             name",
                            counted(
                                doubtful.len(),
                                "more has a time that goes",
                                "more have times that go"
                            )
                        );
                    }
                    text
                }
                None => "there is no base yet; run a backup first".to_owned(),
            }
        }
        Target::Sequence(sequence) => {
            chosen = bases.iter().rposition(|base| base.last_seq == Some(*sequence));
            format!(
                "no base ends with sequence {sequence}; without a log, only bases can be reached"
            )
        }
        Target::Base(id) => {
            chosen = bases.iter().rposition(|base| base.id == *id);
            format!("there is no base '{id}'; list the bases")
        }
    };
    let found = chosen.and_then(|at| bases.get(at).zip(times.get(at)));
    let (base, reached) =
        found.ok_or_else(|| Error::invalid(missing).with_operation(Operation::Backup))?;
    let doubtful = doubtful.into_iter().filter_map(|at| bases.get(at).cloned()).collect();
    Ok(Plan { base: base.clone(), reached: *reached, reached_seq: base.last_seq, doubtful })
}

/// What the clock said when each base was taken. Early versions never let times go backwards: a base that
/// was taken after a clock had been set back is dated a millisecond after the one before, and only
/// `started` tells the time.
fn said(bases: &[BaseInfo]) -> Vec<Timestamp> {
    let mut before = None;
    let said = bases.iter().map(|base| {
        let made_up = before.is_some_and(|before: Timestamp| {
            base.started < before && base.time.as_millis() == before.as_millis() + 1
        });
        before = Some(base.time);
        if made_up { base.started } else { base.time }
    });
    said.collect()
}

/// The places of those times that agree with the order: as many as possible, and of two the later, as
/// clocks that are wrong get set. A time after `now` that later ones contradict was wrong.
fn consistent(times: &[Timestamp], now: Timestamp) -> Vec<usize> {
    let mut least = Timestamp::from_millis(u64::MAX);
    let mut right: Vec<(usize, Timestamp)> = Vec::new();
    for (at, time) in times.iter().enumerate().rev() {
        if *time <= now || *time <= least {
            right.push((at, *time));
        }
        least = least.min(*time);
    }
    right.reverse();

    // The longest ascending part: for each length the one that ends with the least time, by its last place.
    let mut ends: Vec<(Timestamp, usize)> = Vec::new();
    let mut befores: Vec<Option<usize>> = Vec::new();
    for (place, (_, time)) in right.iter().enumerate() {
        let length = ends.partition_point(|(end, _)| end <= time);
        befores.push(length.checked_sub(1).and_then(|shorter| ends.get(shorter)).map(|end| end.1));
        match ends.get_mut(length) {
            Some(end) => *end = (*time, place),
            None => ends.push((*time, place)),
        }
    }
    let last = ends.last().map(|end| end.1);
    let before = |place: &usize| befores.get(*place).copied().flatten();
    let mut places: Vec<usize> = std::iter::successors(last, before)
        .filter_map(|place| right.get(place).map(|(at, _)| *at))
        .collect();
    places.reverse();
    places
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

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    #[test]
    fn without_a_base_that_fits_the_error_says_what_there_is() {
        let bases = [base(1_700_000_000_000, Some(7))];
        for (target, word) in [
            (Target::At(Timestamp::from_millis(5)), "2023-11-14"),
            (Target::Sequence(8), "sequence 8"),
            (Target::Base("x".into()), "'x'"),
        ] {
            let error = plan(&bases, &target, NOW).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(plan(&[], &Target::Latest, NOW).is_err());
        assert!(plan(&[], &Target::At(Timestamp::from_millis(5)), NOW).is_err());
        assert_eq!(plan(&bases, &Target::Sequence(7), NOW).unwrap().reached_seq, Some(7));
    }

    /// The place of the base that is chosen, counted from 1, and those that are doubtful. 0: none fits.
    fn chosen(times: &[u64], at: u64, now: u64) -> (usize, Vec<usize>) {
        let bases: Vec<_> = times.iter().map(|time| base(*time, None)).collect();
        let place = |of: &BaseInfo| 1 + bases.iter().position(|base| base == of).unwrap();
        let now = Timestamp::from_millis(now);
        match plan(&bases, &Target::At(Timestamp::from_millis(at)), now) {
            Ok(plan) => (place(&plan.base), plan.doubtful.iter().map(place).collect()),
            Err(error) => {
                let more = error.to_string().contains("more has a time that goes backwards");
                (0, if more { vec![0] } else { Vec::new() })
            }
        }
    }

    #[test]
    fn a_clock_that_was_wrong_for_a_while_hides_no_base() {
        // Ahead for one base.
        let jumped = [10, 1000, 30, 40];
        assert_eq!(chosen(&jumped, 35, 50), (3, vec![]));
        assert_eq!(chosen(&jumped, 45, 50), (4, vec![]));
        assert_eq!(chosen(&jumped, 20, 50), (1, vec![2]), "it may be before or after");
        assert_eq!(chosen(&jumped, 5, 50), (0, vec![]));
        assert_eq!(chosen(&jumped, 35, 2000), (3, vec![]), "so many agree with it");
        // Ahead for longer than it has been right again: the present decides.
        let long = [10, 1000, 1001, 1002, 30, 40];
        assert_eq!(chosen(&long, 35, 50), (5, vec![]));
        assert_eq!(chosen(&long, 35, 2000), (1, vec![5]), "and without it, it is said");
        // Behind.
        assert_eq!(chosen(&[10, 20, 1, 30], 25, 50), (2, vec![3]));
        assert_eq!(chosen(&[10, 20, 1, 30], 35, 50), (4, vec![]));
        assert_eq!(chosen(&[10, 20, 1], 25, 50), (2, vec![3]));
        assert_eq!(
            chosen(&[10, 20, 1], 5, 50),
            (0, vec![0]),
            "it was taken after 20, if that is right"
        );
        // Of two that contradict each other the later one counts.
        assert_eq!(chosen(&[1000, 30], 35, 50), (2, vec![]));
        // The machine that restores has a clock that is behind.
        assert_eq!(chosen(&[10, 20, 30], 25, 1), (2, vec![]));
    }

    #[test]
    fn times_that_an_early_version_made_up_are_seen_through() {
        let mut bases: Vec<_> = [10, 1000, 1001, 1002].map(|time| base(time, None)).into();
        for (base, started) in bases.iter_mut().zip([10, 1000, 30, 40]) {
            base.started = Timestamp::from_millis(started);
        }
        let at = Target::At(Timestamp::from_millis(35));
        let plan = plan(&bases, &at, Timestamp::from_millis(50)).unwrap();
        assert_eq!((plan.reached.as_millis(), &plan.base), (30, &bases[2]));
    }

    proptest! {
        #[test]
        fn a_moment_is_never_passed_and_nothing_between_is_left_out(
            times in prop::collection::btree_set(1u64..100, 1..10), at in 0u64..110, now in 0u64..110,
        ) {
            let bases: Vec<_> = times.iter().map(|time| base(*time, None)).collect();
            let plan = |target| plan(&bases, &target, Timestamp::from_millis(now));
            let reached = plan(Target::At(Timestamp::from_millis(at))).map(|plan| plan.reached);
            let expected = times.range(..=at).next_back().map(|time| Timestamp::from_millis(*time));
            prop_assert_eq!(reached.ok(), expected);
            let latest = plan(Target::Latest).unwrap().reached;
            prop_assert_eq!(Some(&latest.as_millis()), times.last());
        }

        #[test]
        fn as_many_times_as_possible_agree_with_the_order(
            times in prop::collection::vec(1u64..20, 0..9),
        ) {
            let times: Vec<_> = times.into_iter().map(Timestamp::from_millis).collect();
            let found = consistent(&times, Timestamp::from_millis(100));
            prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1] && times[pair[0]] <= times[pair[1]]));
            let ascending = |set: u32| {
                let of: Vec<_> = (0..times.len()).filter(|at| set >> at & 1 == 1).collect();
                of.windows(2).all(|pair| times[pair[0]] <= times[pair[1]])
            };
            let most = (0..1u32 << times.len()).filter(|set| ascending(*set)).map(u32::count_ones).max();
            prop_assert_eq!(found.len() as u32, most.unwrap());
        }
    }
}
