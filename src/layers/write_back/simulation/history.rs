//! What the clients of all lives saw and wrote, in one order of all begins and ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::register::{Expiries, Number, Op, What, explain};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::types::Value;

/// Keys that are only written two at a time, with one number.
pub(super) const PAIRS: usize = 3;
pub(super) const KEYS: usize = 2 * PAIRS;
pub(super) const COUNTER: &[u8] = b"z";

pub(super) fn key(at: usize) -> Bytes {
    format!("{}{}", at / 2, ["a", "b"][at % 2]).into()
}

pub(super) fn number(value: Option<&Value>) -> Number {
    value.map(|value| u64::from_be_bytes(value.bytes[..8].try_into().unwrap()))
}

/// What is known of the counter, which is only incremented, on the condition that it is as it was read.
#[derive(Debug, Default)]
pub(super) struct Counter {
    /// Increments that were begun, by what they write.
    pub(super) begun: BTreeMap<u64, u64>,
    pub(super) done: BTreeSet<u64>,
}

impl Counter {
    pub(super) fn least(&self) -> u64 {
        self.done.last().copied().unwrap_or(0)
    }
}

#[derive(Debug, Default)]
pub(super) struct History {
    ticks: u64,
    numbers: u64,
    ops: Vec<Option<(usize, Op)>>,
    /// When a number expires, of those that do.
    deadlines: BTreeMap<u64, Timestamp>,
    /// When time passed, and until when.
    passed: Vec<(u64, Timestamp)>,
    pub(super) counter: Counter,
    /// Whether the store takes batches, so that pairs are whole.
    pub(super) atomic: bool,
}

impl History {
    pub(super) fn new(atomic: bool) -> Self {
        Self { atomic, ..Self::default() }
    }

    pub(super) fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    pub(super) fn passes(&mut self, clock: &ManualClock, span: Duration) {
        let tick = self.tick();
        clock.advance(span);
        self.passed.push((tick, clock.now()));
    }

    /// A number that nobody has written.
    pub(super) fn draw(&mut self, expires: Option<Timestamp>) -> u64 {
        self.numbers += 1;
        self.deadlines.extend(expires.map(|at| (self.numbers, at)));
        self.numbers
    }

    pub(super) fn expires(&self, number: u64) -> bool {
        self.deadlines.contains_key(&number)
    }

    /// A write begins, whose outcome is unknown as long as nothing else is said.
    pub(super) fn writes(&mut self, written: &BTreeMap<usize, Number>) -> Vec<usize> {
        let begin = self.tick();
        let ops = written.iter().map(|(at, number)| {
            self.ops.push(Some((*at, Op { begin, end: None, what: What::Write(*number) })));
            self.ops.len() - 1
        });
        ops.collect()
    }

    pub(super) fn wrote(&mut self, ops: &[usize]) {
        let end = self.tick();
        for at in ops {
            if let Some((_, op)) = &mut self.ops[*at] {
                op.end = Some(end);
            }
        }
    }

    /// Nothing of it happened, and nothing will.
    pub(super) fn did_not_write(&mut self, ops: &[usize]) {
        ops.iter().for_each(|at| self.ops[*at] = None);
    }

    /// A read found this at some moment between.
    pub(super) fn saw(&mut self, at: usize, begin: u64, end: u64, found: Number) {
        self.ops.push(Some((at, Op { begin, end: Some(end), what: What::Read(found) })));
    }

    /// Both keys of a pair were looked at as of one moment.
    pub(super) fn is_pair(&self, one: Number, other: Number) -> bool {
        let expiring = |number: Number| number.is_some_and(|number| self.expires(number));
        !self.atomic || one == other || expiring(one) || expiring(other)
    }

    /// Whether each key has an order that explains what was seen of it.
    pub(super) fn explain(&self) -> Result<(), String> {
        let expiries: Expiries = self
            .deadlines
            .iter()
            .filter_map(|(number, deadline)| {
                let (tick, _) = self.passed.iter().find(|(_, now)| now >= deadline)?;
                Some((*number, *tick))
            })
            .collect();
        for at in 0..KEYS {
            let of_key = self.ops.iter().flatten().filter(|(key, _)| *key == at);
            let history: Vec<Op> = of_key.map(|(_, op)| op.clone()).collect();
            explain(&history, &expiries).map_err(|why| format!("key {at}: {why}"))?;
        }
        Ok(())
    }
}
