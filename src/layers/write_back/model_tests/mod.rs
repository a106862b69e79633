//! The core under a model checker: every interleaving of a few threads, by `loom`.
//!
//! `filter`, `overlay`, `run` and `state` are the shipped files, built of the checker's locks and atomics. What is around them is small, and does
//! in the same order what the layer does: [`World::write`] as `commit.rs`, [`World::flush`] as `flush.rs`, [`World::get`] and
//! [`World::page`] as `store.rs` and `scan.rs`. The store below is a map, of which a call happens at one moment, and the
//! journal two numbers.
//!
//! The value of an entry is its place in the sequence, so that an older one is a smaller one.

#[path = "../filter.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
mod filter;
#[path = "../overlay.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
#[allow(dead_code, reason = "the shipped code uses all of it")]
mod overlay;
#[path = "../run.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
#[allow(dead_code, reason = "the shipped code uses all of it")]
mod run;
mod scenarios;
#[path = "../state.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
#[allow(dead_code, reason = "the shipped code uses all of it")]
mod state;
mod sync;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use loom::thread::{JoinHandle, spawn};

use self::overlay::{Dirty, Overlay};
use self::run::Given;
use self::state::{Bounds, Found, State, Verdict};
use self::sync::{Mutex, RwLock};
use crate::clock::Timestamp;
use crate::types::{Batch, Condition, Op, Value};

/// Times that a thread is interrupted in an order that is tried. What needs more is not known to exist, and there
/// are too many of them. Two find everything that is broken on purpose.
const PREEMPTIONS: usize = 2;

const A: &str = "a";
const B: &str = "b";

/// Runs threads to their end, in every order of theirs, after what comes before them. Then everything is flushed, and each key is looked
/// at: at last the store below has all of it.
fn explore<const N: usize>(before: fn(&World), threads: [fn(&World); N]) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.max_branches = 10_000;
    model.check(move || {
        let world = World::new();
        before(&world);
        let threads = threads.map(|act| spawned(&world, act));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        while world.flush(Flush::Whole) {}
        world.get(A);
        world.get(B);
        assert!(world.0.overlay.is_empty(), "the store below has all of it");
        assert_eq!(world.0.state.lock().dirty, 0);
    });
}

fn spawned(world: &World, act: fn(&World)) -> JoinHandle<()> {
    let world = World(Arc::clone(&world.0));
    spawn(move || act(&world))
}

/// How the store below takes a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    Whole,
    /// It has no atomic batches.
    Singly,
    /// The same, and of the first attempt only the first operation lands.
    InPart,
    /// The first attempt takes effect, and fails.
    AnswerLost,
}

/// What came of a conditional write.
enum Ended {
    Again,
    Written(u64),
    /// With the number that was there, and the sequence on which that relies.
    Refused(Number, Option<u64>),
}

/// A number of a value, and that of a key that is not there.
type Number = u64;
const ABSENT: Number = 0;

/// The layer over a store.
struct World(Arc<Parts>);

struct Parts {
    below: Mutex<BTreeMap<Bytes, Value>>,
    journal: Mutex<Journal>,
    state: Mutex<State>,
    overlay: Overlay,
    section: Mutex<()>,
    gate: RwLock<()>,
    /// The least that may be read of each key from now on.
    guaranteed: Mutex<BTreeMap<&'static str, Number>>,
    /// The last write of each key, in their order. Of the section, so that no other thread comes between.
    written: parking_lot::Mutex<BTreeMap<&'static str, Number>>,
}

/// The last sequence that was appended, and the last that is on the disk.
#[derive(Debug, Default)]
struct Journal {
    appended: u64,
    durable: u64,
}

impl World {
    fn new() -> Self {
        let bounds = Bounds {
            flush_after: Duration::ZERO,
            flush_bytes: 1 << 20,
            max_dirty: 1 << 20,
            ops: 100,
            logged: 1 << 20,
        };
        let parts = Parts {
            below: Mutex::default(),
            journal: Mutex::default(),
            state: Mutex::new(State::new(bounds, 1)),
            overlay: Overlay::new(1),
            section: Mutex::default(),
            gate: RwLock::default(),
            guaranteed: Mutex::default(),
            written: parking_lot::Mutex::default(),
        };
        Self(Arc::new(parts))
    }

    fn guaranteed(&self, key: &'static str) -> Number {
        self.0.guaranteed.lock().get(key).copied().unwrap_or(ABSENT)
    }

    fn guarantee(&self, key: &'static str, number: Number) {
        let mut guaranteed = self.0.guaranteed.lock();
        let least = guaranteed.entry(key).or_default();
        *least = number.max(*least);
    }

    /// From the answer on, no reader may get an older one. What a crash would take away is not read.
    fn saw(&self, key: &'static str, guaranteed: Number, number: Number) {
        assert!(
            number >= guaranteed,
            "{number} was read of {key} after {guaranteed} was guaranteed"
        );
        let durable = self.0.journal.lock().durable;
        assert!(number <= durable, "{number} was read of {key}, and {durable} is on the disk");
        self.guarantee(key, number);
    }

    fn get(&self, key: &'static str) -> Number {
        let guaranteed = self.guaranteed(key);
        let dirty = self.0.overlay.look(key.as_bytes(), number_of);
        let number = dirty.unwrap_or_else(|| self.below(key));
        self.saw(key, guaranteed, number);
        number
    }

    fn below(&self, key: &str) -> Number {
        self.0.below.lock().get(key.as_bytes()).map_or(ABSENT, number)
    }

    /// A page of both keys, which only pairs were written of: it is of one moment.
    fn page(&self) {
        let guaranteed = [A, B].map(|key| self.guaranteed(key));
        let found = {
            let _together = self.0.gate.read();
            let dirty = self.0.overlay.freeze();
            let below = self.0.below.lock();
            [A, B].map(|key| match dirty.get(key.as_bytes()) {
                Some(dirty) => number_of(dirty),
                None => below.get(key.as_bytes()).map_or(ABSENT, number),
            })
        };
        self.saw(A, guaranteed[0], found[0]);
        self.saw(B, guaranteed[1], found[1]);
        assert_eq!(found[0], found[1], "a batch in part");
    }

    /// Takes a place in the section, as the next of the sequence.
    fn place(&self, keys: &[&'static str]) -> u64 {
        let sequence = {
            let mut journal = self.0.journal.lock();
            journal.appended += 1;
            journal.appended
        };
        let put = |key: &&'static str| Op::Put((*key).into(), value(sequence));
        let batch: Batch = keys.iter().map(put).collect();
        let given = self.0.state.lock().give(Given::new(&batch, 1));
        assert_eq!(given, sequence);
        self.0.written.lock().extend(keys.iter().map(|key| (*key, sequence)));
        sequence
    }

    /// Waits until a batch is on the disk: one sync serves all that were appended. It is visible then.
    fn durable(&self, sequence: u64) {
        let mut journal = self.0.journal.lock();
        if journal.durable < sequence {
            journal.durable = journal.appended;
        }
        drop(journal);
        self.publish(sequence);
    }

    fn publish(&self, sequence: u64) {
        self.0.state.lock().publish(&self.0.overlay, sequence, Duration::ZERO);
    }

    /// A batch of these keys, which is acknowledged when this returns.
    fn write(&self, keys: &[&'static str]) {
        let sequence = {
            let _section = self.0.section.lock();
            self.place(keys)
        };
        self.durable(sequence);
        keys.iter().for_each(|key| self.guarantee(key, sequence));
    }

    /// Writes a key on the condition that it holds this number. Whether it does is of the moment at which the batch gets its place.
    fn write_if(&self, key: &'static str, number: Number) {
        let condition = match number {
            ABSENT => Condition::absent(key),
            number => Condition::equals(key, value(number)),
        };
        loop {
            match self.try_if(key, number, std::slice::from_ref(&condition)) {
                Ended::Again => {}
                Ended::Written(sequence) => {
                    self.durable(sequence);
                    return self.guarantee(key, sequence);
                }
                Ended::Refused(written, after) => {
                    after.into_iter().for_each(|sequence| self.durable(sequence));
                    let durable = self.0.journal.lock().durable;
                    assert!(written <= durable, "refused by what a crash takes away");
                    return;
                }
            }
        }
    }

    fn try_if(&self, key: &'static str, number: Number, conditions: &[Condition]) -> Ended {
        let seen = self.look_below(conditions);
        let section = self.0.section.lock();
        let read = seen.as_ref().map(|(watch, found)| (*watch, found));
        let verdict = {
            let state = self.0.state.lock();
            state.verdict(&self.0.overlay, conditions, read, Timestamp::from_millis(0))
        };
        let written = self.0.written.lock().get(key).copied().unwrap_or(ABSENT);
        let ended = match verdict {
            Verdict::Stale => Ended::Again,
            Verdict::Met(_) => {
                assert_eq!(number, written, "the condition does not hold");
                Ended::Written(self.place(&[key]))
            }
            Verdict::Unmet(_, after) => {
                assert_ne!(number, written, "the condition holds");
                Ended::Refused(written, after)
            }
        };
        drop(section);
        if let Some((watch, _)) = seen {
            self.0.state.lock().unwatch(watch);
        }
        ended
    }

    fn look_below(&self, conditions: &[Condition]) -> Option<(u64, Found)> {
        let (watch, keys) = self.0.state.lock().watch(&self.0.overlay, conditions)?;
        let below = self.0.below.lock();
        let found = keys.into_iter().map(|key| {
            let value = below.get(&key).cloned();
            (key, value)
        });
        Some((watch, found.collect()))
    }

    /// Flushes the first run. Says whether there was one.
    fn flush(&self, how: Flush) -> bool {
        let Some((batch, last)) = self.begin() else { return false };
        // In the journal first.
        self.durable(last);
        let ops = batch.into_ops();
        match how {
            Flush::Whole => self.land(&ops),
            Flush::Singly => ops.iter().for_each(|op| self.land(std::slice::from_ref(op))),
            Flush::InPart => {
                let landed = &ops[..1];
                self.land(landed);
                let keys: Vec<Bytes> = landed.iter().map(|op| op.key().clone()).collect();
                self.0.state.lock().landed(&self.0.overlay, &keys);
                let (rest, again) = self.begin().unwrap();
                assert_eq!(again, last, "the same run");
                rest.into_ops().iter().for_each(|op| self.land(std::slice::from_ref(op)));
            }
            Flush::AnswerLost => {
                self.land(&ops);
                let (rest, again) = self.begin().unwrap();
                assert_eq!(again, last, "the same run");
                self.land(&rest.into_ops());
            }
        }
        let completed = self.0.state.lock().complete(&self.0.overlay);
        assert_eq!(completed, Some(last));
        true
    }

    fn begin(&self) -> Option<(Batch, u64)> {
        let _alone = self.0.gate.write();
        self.0.state.lock().begin(Timestamp::from_millis(0))
    }

    /// The store below takes operations, at one moment.
    fn land(&self, ops: &[Op]) {
        let mut below = self.0.below.lock();
        for op in ops {
            match op {
                Op::Put(key, value) => drop(below.insert(key.clone(), value.clone())),
                Op::Delete(key) => drop(below.remove(key)),
            }
        }
    }
}

fn value(number: Number) -> Value {
    Value::new(number.to_be_bytes().to_vec())
}

fn number(value: &Value) -> Number {
    u64::from_be_bytes(value.bytes[..].try_into().unwrap())
}

fn number_of(dirty: &Dirty) -> Number {
    dirty.value.as_ref().map_or(ABSENT, number)
}
