//! Whether what was read of one key can be explained: by some order of its writes, each between its begin and
//! its end, in which every read finds what was written last.
//!
//! The search goes through the history by time, as in Gavin Lowe's "Testing for linearizability" (2017): it holds every
//! state in which the key may be, and lets a write happen as late as an answer leaves it.

use std::collections::{BTreeMap, BTreeSet};

/// The number of a value. `None`: the key is not there.
pub(crate) type Number = Option<u64>;

/// One operation. Its times are places in one order of all begins and ends.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) begin: u64,
    /// `None`: its outcome is unknown. It happens at any time from its begin on, or never.
    pub(crate) end: Option<u64>,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Read(Number),
    /// Each number is written once.
    Write(Number),
}

/// From when on a value is gone by itself. A read may look at the value first and at the time then, so it may miss what
/// expired before its end. That it never finds what expired before its begin, is for the log to check.
pub(crate) type Expiries = BTreeMap<u64, u64>;

/// A state in which the key may be: what it holds, and the operations that have begun and not happened.
type State = (Number, BTreeSet<usize>);

/// For each state how many deletes of unknown outcome have not happened: they are all alike, and more are better.
type States = BTreeMap<State, usize>;

/// # Errors
/// The operation that no order explains, and what came before it.
pub(crate) fn explain(history: &[Op], expiries: &Expiries) -> Result<(), String> {
    Search { history, expiries }.run()
}

struct Search<'a> {
    history: &'a [Op],
    expiries: &'a Expiries,
}

impl Search<'_> {
    fn run(&self) -> Result<(), String> {
        let read = self.history.iter().filter_map(|op| match op.what {
            What::Read(number) => number,
            What::Write(_) => None,
        });
        // What may never have happened, and left no trace, explains nothing.
        let told: BTreeSet<u64> = read.chain(self.expiries.keys().copied()).collect();
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (at, op) in self.history.iter().enumerate() {
            let told = match op.what {
                What::Write(Some(number)) => told.contains(&number),
                _ => true,
            };
            if op.end.is_some() || told {
                events.push((op.begin, false, at));
                events.extend(op.end.map(|end| (end, true, at)));
            }
        }
        events.sort_unstable();
        let mut states = States::from([((None, BTreeSet::new()), 0)]);
        for (_, ends, at) in events {
            states = if ends { self.end(states, at) } else { self.begin(states, at) };
            if states.is_empty() {
                return Err(tell(self.history, at));
            }
        }
        Ok(())
    }

    fn begin(&self, states: States, at: usize) -> States {
        let mut begun = States::new();
        let op = &self.history[at];
        for ((number, mut open), deletes) in states {
            let unknown_delete = op.what == What::Write(None) && op.end.is_none();
            if !unknown_delete {
                open.insert(at);
                self.answer(number, &mut open);
            }
            add(&mut begun, (number, open), deletes + usize::from(unknown_delete));
        }
        begun
    }

    /// Lets writes happen until the operation has.
    fn end(&self, states: States, at: usize) -> States {
        let mut ended = States::new();
        let mut seen = BTreeSet::new();
        let mut todo: Vec<(State, usize)> = states.into_iter().collect();
        while let Some(((number, open), deletes)) = todo.pop() {
            if !open.contains(&at) {
                add(&mut ended, (number, open), deletes);
                continue;
            }
            if !seen.insert((number, open.clone(), deletes)) {
                continue;
            }
            let mut happen = |written: Number, which: Option<usize>, deletes: usize| {
                let mut open = open.clone();
                if let Some(which) = which {
                    open.remove(&which);
                }
                self.answer(written, &mut open);
                todo.push(((written, open), deletes));
            };
            for &which in &open {
                if let What::Write(written) = self.history[which].what {
                    happen(written, Some(which), deletes);
                }
            }
            if deletes > 0 {
                happen(None, None, deletes - 1);
            }
        }
        ended
    }

    /// Lets every read happen that finds its number: that changes nothing for others.
    fn answer(&self, number: Number, open: &mut BTreeSet<usize>) {
        let gone = number.and_then(|number| self.expiries.get(&number));
        open.retain(|at| {
            let op = &self.history[*at];
            let expires = || gone.is_some_and(|gone| op.end.is_none_or(|end| *gone < end));
            match op.what {
                What::Read(found) => found != number && !(found.is_none() && expires()),
                What::Write(_) => true,
            }
        });
    }
}

fn add(states: &mut States, state: State, deletes: usize) {
    let most = states.entry(state).or_default();
    *most = deletes.max(*most);
}

/// The operation, what is known of its value, and what came just before its begin and its end.
fn tell(history: &[Op], at: usize) -> String {
    let wrong = &history[at];
    let until = |end: u64| {
        let mut before: Vec<&Op> = history.iter().filter(|op| op.begin < end).collect();
        before.sort_by_key(|op| op.begin);
        let last = before.len().saturating_sub(25);
        before[last..].iter().map(|op| format!("  {op:?}")).collect::<Vec<_>>().join("\n")
    };
    let (What::Read(number) | What::Write(number)) = wrong.what;
    let mut same: Vec<&Op> = history
        .iter()
        .filter(|op| {
            number.is_some() && matches!(op.what, What::Read(n) | What::Write(n) if n == number)
        })
        .collect();
    same.sort_by_key(|op| op.begin);
    let same: Vec<String> = same.iter().map(|op| format!("  {op:?}")).collect();
    let (begin, end) = (until(wrong.begin), until(wrong.end.unwrap_or(u64::MAX)));
    let same = same.join("\n");
    format!(
        "no order explains {wrong:?}\nof its value:\n{same}\nbefore it began:\n{begin}\nbefore it ended:\n{end}"
    )
}

#[cfg(test)]
mod tests {
    use super::What::{Read, Write};
    use super::*;

    fn op(begin: u64, end: u64, what: What) -> Op {
        Op { begin, end: Some(end), what }
    }

    fn unknown(begin: u64, what: What) -> Op {
        Op { begin, end: None, what }
    }

    fn good(history: &[Op]) {
        explain(history, &Expiries::new()).unwrap();
    }

    fn bad(history: &[Op]) {
        assert!(explain(history, &Expiries::new()).is_err(), "{history:?}");
    }

    #[test]
    fn a_read_finds_the_last_write() {
        good(&[op(0, 1, Read(None))]);
        good(&[op(0, 1, Write(Some(1))), op(2, 3, Read(Some(1)))]);
        bad(&[op(0, 1, Write(Some(1))), op(2, 3, Read(None))]);
        bad(&[op(0, 1, Write(Some(1))), op(2, 3, Write(Some(2))), op(4, 5, Read(Some(1)))]);
        bad(&[op(0, 1, Write(Some(1))), op(2, 3, Write(None)), op(4, 5, Read(Some(1)))]);
        good(&[op(0, 1, Write(Some(1))), op(2, 3, Write(None)), op(4, 5, Read(None))]);
    }

    #[test]
    fn a_value_that_nobody_wrote_or_that_comes_before_its_write_is_wrong() {
        bad(&[op(0, 1, Read(Some(1)))]);
        bad(&[op(0, 1, Read(Some(1))), op(2, 3, Write(Some(1)))]);
        bad(&[op(0, 1, Read(Some(1))), unknown(2, Write(Some(1)))]);
    }

    #[test]
    fn a_read_beside_a_write_finds_either() {
        for found in [None, Some(1)] {
            good(&[op(0, 3, Write(Some(1))), op(1, 2, Read(found))]);
        }
        // Of two writes that meet, either is the last, but for all readers the same.
        let writes = [op(0, 3, Write(Some(1))), op(1, 2, Write(Some(2)))];
        let history = |first, second| {
            [&writes[..], &[op(4, 5, Read(Some(first))), op(6, 7, Read(Some(second)))]].concat()
        };
        good(&history(1, 1));
        good(&history(2, 2));
        bad(&history(1, 2));
        bad(&history(2, 1));
    }

    #[test]
    fn what_was_read_never_goes_back() {
        let write = [op(0, 1, Write(Some(1))), op(2, 9, Write(Some(2)))];
        good(&[&write[..], &[op(3, 4, Read(Some(1))), op(5, 6, Read(Some(2)))]].concat());
        bad(&[&write[..], &[op(3, 4, Read(Some(2))), op(5, 6, Read(Some(1)))]].concat());
        // Two reads that meet may find both.
        good(&[&write[..], &[op(3, 6, Read(Some(2))), op(4, 7, Read(Some(1)))]].concat());
    }

    #[test]
    fn a_write_of_unknown_outcome_happens_at_any_time_or_never_and_once() {
        let write = [op(0, 1, Write(Some(1))), unknown(2, Write(Some(2)))];
        for found in [1, 2] {
            good(&[&write[..], &[op(8, 9, Read(Some(found)))]].concat());
        }
        good(&[&write[..], &[op(3, 4, Read(Some(1))), op(5, 6, Read(Some(2)))]].concat());
        bad(&[&write[..], &[op(3, 4, Read(Some(2))), op(5, 6, Read(Some(1)))]].concat());
        let overwritten = [&write[..], &[op(3, 4, Write(Some(3)))]].concat();
        good(&[&overwritten[..], &[op(5, 6, Read(Some(3))), op(7, 8, Read(Some(2)))]].concat());
        bad(&[
            &overwritten[..],
            &[op(5, 6, Read(Some(2))), op(7, 8, Read(Some(3))), op(9, 10, Read(Some(2)))],
        ]
        .concat());
    }

    #[test]
    fn each_delete_of_unknown_outcome_happens_once() {
        let deletes = |count: u64| {
            let mut history: Vec<Op> = (0..count).map(|at| unknown(at, Write(None))).collect();
            for round in 0..3 {
                let at = 10 + round * 10;
                history.push(op(at, at + 1, Write(Some(round))));
                history.push(op(at + 2, at + 3, Read(None)));
            }
            history
        };
        good(&deletes(3));
        bad(&deletes(2));
    }

    #[test]
    fn a_value_expires_after_its_time_and_only_that_value() {
        let is = |good: bool, history: &[Op]| {
            let explained = explain(history, &Expiries::from([(1, 4)]));
            assert_eq!(explained.is_ok(), good, "{explained:?}");
        };
        let write = [op(0, 1, Write(Some(1)))];
        is(true, &[&write[..], &[op(5, 6, Read(None))]].concat());
        is(false, &[&write[..], &[op(2, 3, Read(None))]].concat());
        is(true, &[&write[..], &[op(3, 6, Read(None))]].concat());
        is(true, &[&write[..], &[op(3, 6, Read(Some(1)))]].concat());
        is(false, &[&write[..], &[op(5, 6, Write(Some(2))), op(7, 8, Read(None))]].concat());
        // A write of unknown outcome that arrived, or did not.
        let late = [op(0, 1, Write(Some(2))), unknown(2, Write(Some(1)))];
        is(true, &[&late[..], &[op(5, 6, Read(None))]].concat());
        is(true, &[&late[..], &[op(5, 6, Read(Some(2)))]].concat());
        is(false, &[&late[..], &[op(5, 6, Read(None)), op(7, 8, Read(Some(2)))]].concat());
    }
}
