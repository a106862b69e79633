//! What is wrong with a history, by the dependencies between its transactions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::transaction::Isolation;

/// The number of a write. No two writes of a history have the same.
pub(in crate::testing) type Version = u64;

/// What is wrong with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::testing) enum Anomaly {
    /// A transaction did not see its own write.
    Internal,
    /// Two transactions overwrote each other.
    G0,
    /// A read of a transaction that was not committed.
    G1a,
    /// A read of a write that its own transaction overwrote.
    G1b,
    /// Two transactions that each depend on what the other wrote.
    G1c,
    /// Two reads of a key in one transaction differ.
    FuzzyRead,
    /// A transaction read a key and overwrote a write that it had not read.
    LostUpdate,
    /// A cycle with one rw dependency: reads of two moments.
    GSingle,
    /// A cycle with any number of rw dependencies, such as a write skew.
    G2Item,
}

/// What a level of isolation lets happen on keys.
pub(in crate::testing) fn allowed(isolation: Isolation) -> BTreeSet<Anomaly> {
    use Anomaly::{FuzzyRead, G2Item, GSingle, LostUpdate};
    match isolation {
        Isolation::ReadCommitted => BTreeSet::from([FuzzyRead, LostUpdate, GSingle, G2Item]),
        Isolation::RepeatableRead => BTreeSet::from([G2Item]),
        Isolation::Serializable => BTreeSet::new(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::testing) enum Event {
    /// A key, and the write that was seen; `None`: the key was absent.
    Read(usize, Option<Version>),
    Write(usize, Version),
}

/// A transaction as its client saw it.
#[derive(Clone, Debug, Default)]
pub(in crate::testing) struct Run {
    pub(in crate::testing) committed: bool,
    /// In the order in which they happened.
    pub(in crate::testing) events: Vec<Event>,
}

#[derive(Clone, Debug, Default)]
pub(in crate::testing) struct History {
    pub(in crate::testing) runs: Vec<Run>,
    /// The writes of each key, in the order in which they took effect.
    pub(in crate::testing) order: BTreeMap<usize, Vec<Version>>,
}

/// From one transaction to those that follow it in some way.
type Edges = BTreeSet<(usize, usize)>;

impl History {
    /// Every kind of anomaly that the committed transactions show.
    pub(in crate::testing) fn anomalies(&self) -> BTreeSet<Anomaly> {
        let mut found = BTreeSet::new();
        let (mut ww, mut wr, mut rw) = (Edges::new(), Edges::new(), Edges::new());
        let writers = self.writers();
        let place = |key: usize, version| {
            self.order.get(&key).and_then(|order| order.iter().position(|v| *v == version))
        };
        let committed = |run: usize| self.runs.get(run).is_some_and(|run| run.committed);
        let depend = |edges: &mut Edges, from: usize, to: usize| {
            if from != to && committed(from) && committed(to) {
                edges.insert((from, to));
            }
        };
        for order in self.order.values() {
            for (before, after) in order.iter().zip(order.iter().skip(1)) {
                if let (Some(before), Some(after)) = (writers.get(before), writers.get(after)) {
                    depend(&mut ww, before.0, after.0);
                }
            }
        }
        for (reader, run) in self.runs.iter().enumerate().filter(|(_, run)| run.committed) {
            for (key, version) in outer_reads(run, &mut found) {
                let after = match version {
                    None => 0,
                    Some(version) => {
                        let Some((writer, last)) = writers.get(&version) else { continue };
                        if !committed(*writer) {
                            found.insert(Anomaly::G1a);
                        } else if !last && *writer != reader {
                            found.insert(Anomaly::G1b);
                        }
                        depend(&mut wr, *writer, reader);
                        let Some(at) = place(key, version) else { continue };
                        at + 1
                    }
                };
                let next = self.order.get(&key).and_then(|order| order.get(after));
                if let Some((writer, _)) = next.and_then(|next| writers.get(next)) {
                    depend(&mut rw, reader, *writer);
                    let own = run
                        .events
                        .iter()
                        .any(|event| matches!(event, Event::Write(k, _) if *k == key));
                    if own && *writer != reader {
                        found.insert(Anomaly::LostUpdate);
                    }
                }
            }
        }
        found.extend(ww.iter().any(|edge| closes(*edge, &[&ww])).then_some(Anomaly::G0));
        let seen = wr.iter().any(|edge| closes(*edge, &[&ww, &wr]));
        found.extend(seen.then_some(Anomaly::G1c));
        let one = rw.iter().any(|edge| closes(*edge, &[&ww, &wr]));
        found.extend(one.then_some(Anomaly::GSingle));
        let any = rw.iter().any(|edge| closes(*edge, &[&ww, &wr, &rw]));
        found.extend(any.then_some(Anomaly::G2Item));
        found
    }

    /// The run of each write, and whether it is the last of that run on its key.
    fn writers(&self) -> BTreeMap<Version, (usize, bool)> {
        let mut writers = BTreeMap::new();
        for (number, run) in self.runs.iter().enumerate() {
            let mut last = BTreeMap::new();
            for event in &run.events {
                if let Event::Write(key, version) = *event {
                    if let Some(before) = last.insert(key, version) {
                        writers.insert(before, (number, false));
                    }
                    writers.insert(version, (number, true));
                }
            }
        }
        writers
    }
}

/// The reads of a run that do not see its own writes. Those that should and do not are `Internal`.
fn outer_reads(run: &Run, found: &mut BTreeSet<Anomaly>) -> Vec<(usize, Option<Version>)> {
    let (mut own, mut first) = (BTreeMap::new(), BTreeMap::new());
    let mut outer = Vec::new();
    for event in &run.events {
        match *event {
            Event::Write(key, version) => drop(own.insert(key, version)),
            Event::Read(key, version) => match own.get(&key) {
                Some(wrote) if version == Some(*wrote) => {}
                Some(_) => drop(found.insert(Anomaly::Internal)),
                None => {
                    if *first.entry(key).or_insert(version) != version {
                        found.insert(Anomaly::FuzzyRead);
                    }
                    outer.push((key, version));
                }
            },
        }
    }
    outer
}

/// Whether the edges lead from the end of this one back to its start.
fn closes((from, to): (usize, usize), edges: &[&Edges]) -> bool {
    let (mut reached, mut left) = (BTreeSet::from([to]), VecDeque::from([to]));
    while let Some(at) = left.pop_front() {
        if at == from {
            return true;
        }
        for edges in edges {
            for (_, next) in edges.range((at, 0)..=(at, usize::MAX)) {
                if reached.insert(*next) {
                    left.push_back(*next);
                }
            }
        }
    }
    false
}
