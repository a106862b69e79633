//! Whole lives of a journal on the faulty disk, each from a seed, against a model.
//!
//! `TIERSTACK_SEED=17 cargo test journal::tests::simulation` runs that one again; `TIERSTACK_SEEDS=100000` that many.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::faulty::{End, Fault, Faulty};
use super::rng::Rng;
use crate::error::ErrorKind;
use crate::journal::core::{Core, Step};
use crate::journal::format;
use crate::journal::reader::{self, Reader};
use crate::journal::segment::{Entry, RESERVE};
use crate::journal::state::{Offer, OnFull, Shape};

#[derive(Clone, Copy, Debug)]
struct Known {
    /// It was told that it is known durably.
    saved: bool,
    /// It was told to be forgotten.
    leaving: bool,
    /// At least there after a crash.
    least: u64,
    most: u64,
}

/// What the journal was given, and what it said.
#[derive(Debug)]
struct Model {
    appended: BTreeMap<u64, Bytes>,
    next: u64,
    /// All before was acknowledged as durable.
    durable: u64,
    readers: BTreeMap<String, Known>,
    /// No two records are the same.
    written: u64,
    rng: Rng,
}

impl Model {
    fn record(&mut self) -> Bytes {
        self.written += 1;
        let size = match self.rng.below(20) {
            0 => 0,
            1..3 => self.rng.below(3_000),
            3 => self.rng.below(9_000),
            _ => self.rng.below(60),
        };
        let tag = self.written.to_be_bytes();
        tag.iter().copied().cycle().take(size as usize).collect::<Vec<u8>>().into()
    }

    fn took(&mut self, sequence: u64, record: Bytes) {
        assert_eq!(sequence, self.next, "sequences are consecutive");
        self.appended.insert(sequence, record);
        self.next += 1;
    }
}

struct Life {
    disk: Faulty,
    model: Arc<Mutex<Model>>,
    shape: Shape,
    rng: Rng,
    counts: Counts,
}

/// What happened, so that a simulation that finds nothing is not one that does nothing.
#[derive(Debug, Default)]
struct Counts {
    recovered: u64,
    lost: u64,
    segments: u64,
    failed: u64,
    full: u64,
    during_sync: u64,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let disk = Faulty::new(rng.next());
        let shape = Shape {
            budget: 3 * RESERVE + rng.below(60_000),
            segment: RESERVE + 200 + rng.below(6_000),
            waiting: 200 + rng.below(8_000),
            on_full: if rng.percent(50) { OnFull::Block } else { OnFull::Refuse },
        };
        if rng.percent(30) {
            disk.set_room(40_000 + rng.below(40_000));
        }
        let model = Model {
            appended: BTreeMap::new(),
            next: 1,
            durable: 1,
            readers: BTreeMap::new(),
            written: 0,
            rng: Rng(rng.next()),
        };
        Self { disk, model: Arc::new(Mutex::new(model)), shape, rng, counts: Counts::default() }
    }

    fn live(&mut self) {
        for _ in 0..2 + self.rng.below(6) {
            self.plan();
            match Core::open(Arc::new(self.disk.clone()), self.shape) {
                Ok(core) => self.process(&Arc::new(core)),
                Err(error) => assert!(
                    self.disk.fired().is_some() || error.kind() == ErrorKind::Capacity,
                    "what was left behind was refused: {error:?}"
                ),
            }
            assert_eq!(self.disk.wrong(), [""; 0]);
            let end = if self.rng.percent(50) { End::Kill } else { End::PowerCut };
            self.disk.restart(end);
        }
        // The last one meets no fault.
        self.disk.set_room(u64::MAX);
        let core = Core::open(Arc::new(self.disk.clone()), self.shape).unwrap();
        self.recovered(&core);
    }

    fn plan(&mut self) {
        let fault = match self.rng.below(10) {
            0..4 => Fault::Crash,
            4..6 => Fault::Io,
            6 => Fault::Full,
            _ => return,
        };
        let most = if self.rng.percent(40) { 25 } else { 150 };
        let calls = self.rng.below(most);
        self.disk.plan(calls, fault);
    }

    fn process(&mut self, core: &Arc<Core>) {
        self.recovered(core);
        let mut readers: BTreeMap<String, Reader> = BTreeMap::new();
        for _ in 0..self.rng.below(80) {
            match self.rng.below(100) {
                0..45 => self.append(core),
                45..75 => drop(self.step(core)),
                75..85 => self.release(core),
                85..90 => self.add_or_forget(core),
                _ => self.read(core, &mut readers),
            }
            self.observe(core);
        }
        if self.rng.percent(40) {
            core.with(|state| state.closing = true);
            while self.step(core) != Step::Ended {}
            self.observe(core);
            if core.progress().borrow().failed.is_none() {
                let (positions, saved) = core.positions();
                let mut model = self.model.lock();
                assert_eq!(model.durable, model.next, "a close writes all that was taken");
                if positions == saved {
                    for known in model.readers.values_mut() {
                        known.least = known.most;
                    }
                }
            }
        }
    }

    /// One step, in the midst of which others may append.
    fn step(&mut self, core: &Arc<Core>) -> Step {
        if self.rng.percent(30) && core.with(|state| !state.closing) {
            let (model, weak) = (Arc::clone(&self.model), Arc::downgrade(core));
            self.counts.during_sync += 1;
            self.disk.on_sync(Some(Box::new(move || {
                let Some(core) = weak.upgrade() else { return };
                let record = model.lock().record();
                if let Ok(Offer::Taken(sequence)) = core.offer(&Entry::data(record.clone()), false)
                {
                    model.lock().took(sequence, record);
                }
            })));
        }
        let (before, failed) = (self.disk.changes(), core.progress().borrow().failed.is_some());
        let closing = core.with(|state| state.closing);
        let step = core.step();
        self.disk.on_sync(None);
        if core.progress().borrow().failed.is_none() {
            assert!(self.disk.names_are_kept(), "the folder was not synced");
        }
        if failed {
            assert_eq!(self.disk.changes(), before, "the disk was touched after a failure");
        }
        assert_eq!(step == Step::Ended, closing, "a step of closing is the last");
        step
    }

    fn append(&mut self, core: &Arc<Core>) {
        let record = self.model.lock().record();
        let entry = Entry::data(record.clone());
        for again in [false, true, true] {
            match core.offer(&entry, again) {
                Ok(Offer::Taken(sequence)) => return self.model.lock().took(sequence, record),
                Ok(Offer::Wait) => drop(self.step(core)),
                Err(error) => {
                    let first = core.progress().borrow().failed.clone();
                    match first {
                        Some(first) => assert_eq!(error.to_string(), first.to_string()),
                        None if error.kind() == ErrorKind::InvalidInput => {
                            assert!(record.len() as u64 > self.shape.budget - 2 * RESERVE);
                        }
                        None => {
                            assert_eq!(error.kind(), ErrorKind::Capacity, "{error:?}");
                            assert_eq!(self.shape.on_full, OnFull::Refuse);
                            self.counts.full += 1;
                        }
                    }
                    return;
                }
            }
        }
        self.counts.full += 1;
    }

    fn release(&mut self, core: &Core) {
        let mut model = self.model.lock();
        let at = self.rng.below(model.readers.len().max(1) as u64) as usize;
        let Some((name, known)) = model.readers.iter().nth(at) else { return };
        let (name, known) = (name.clone(), *known);
        if known.leaving || known.most >= model.durable {
            return;
        }
        let most = if self.rng.percent(30) {
            model.durable
        } else {
            known.most + 1 + self.rng.below(model.durable - known.most)
        };
        core.advance(&name, most).unwrap();
        model.readers.insert(name, Known { most, ..known });
    }

    fn add_or_forget(&mut self, core: &Core) {
        let name = ["a", "b", "c"][self.rng.below(3) as usize].to_owned();
        let mut model = self.model.lock();
        if let Some(known) = model.readers.get_mut(&name) {
            if self.rng.percent(30) && !known.leaving {
                known.leaving = true;
                core.with(|state| {
                    state.save = true;
                    state.positions.forget(&name);
                });
            }
            return;
        }
        let wanted = self.rng.below(model.durable + 1);
        let added = core.with(|state| {
            state.save = true;
            state.positions.add(&name, wanted)
        });
        let least = added.unwrap();
        model.readers.insert(name, Known { saved: false, leaving: false, least, most: least });
    }

    fn read(&mut self, core: &Arc<Core>, readers: &mut BTreeMap<String, Reader>) {
        let model = self.model.lock();
        let at = self.rng.below(model.readers.len().max(1) as u64) as usize;
        let Some((name, known)) = model.readers.iter().nth(at).filter(|(_, known)| !known.leaving)
        else {
            return;
        };
        let reader = readers
            .entry(name.clone())
            .or_insert_with(|| Reader::new(Arc::clone(core), name.clone(), known.most));
        if reader.next() < known.most || self.rng.percent(20) {
            reader.seek(known.most + self.rng.below(model.next - known.most + 1)).unwrap();
        }
        let from = reader.next();
        match reader.read_here(self.rng.below(5_000) as usize) {
            Ok(records) => {
                assert_eq!(
                    records.is_empty(),
                    from >= model.durable,
                    "a record at least, where there is one"
                );
                for (sequence, record) in (from..).zip(records) {
                    assert_eq!(record.sequence, sequence);
                    assert!(sequence < model.durable, "what a reader has survives a crash");
                    assert_eq!(record.bytes, model.appended[&sequence]);
                }
            }
            Err(error) => assert!(self.disk.fired().is_some(), "{error:?}"),
        }
    }

    /// Takes note of what the journal says is on the disk.
    fn observe(&mut self, core: &Core) {
        let progress = core.progress().borrow().clone();
        self.counts.failed += u64::from(progress.failed.is_some());
        let (positions, saved) = core.positions();
        let mut model = self.model.lock();
        assert!(progress.durable >= model.durable && progress.durable <= model.next);
        model.durable = progress.durable;
        let done = core.with(|state| state.save_is_done());
        if progress.failed.is_some() {
            return;
        }
        for (name, known) in &mut model.readers {
            if let Some(at) = saved.of(name) {
                known.saved |= done;
                known.least = known.least.max(at);
            }
            assert!(known.leaving || positions.of(name) == Some(known.most));
        }
        if done {
            model.readers.retain(|_, known| !known.leaving);
        }
        let (held, sum, budget) = core.with(|state| {
            let sum: u64 = state.segments.iter().map(|segment| segment.bytes).sum();
            self.counts.segments = self.counts.segments.max(state.segments.back().unwrap().number);
            (state.held, sum + state.pending_bytes, state.shape.budget)
        });
        assert_eq!(held, sum, "what is held is what there is");
        assert!(held <= budget + 2 * RESERVE, "{held} bytes of {budget}");
    }

    /// What is there after a start.
    fn recovered(&mut self, core: &Core) {
        let (next, released) = core.with(|state| (state.next, state.positions.released()));
        let mut model = self.model.lock();
        assert!(
            next >= model.durable,
            "records {next} to {} were acknowledged, and are gone",
            model.durable - 1
        );
        assert!(next <= model.next, "records that were not written");
        match reader::read_from(core, released) {
            Ok(records) => {
                let sequences: Vec<u64> = records.iter().map(|record| record.sequence).collect();
                assert_eq!(sequences, (released..next).collect::<Vec<_>>());
                for record in &records {
                    assert_eq!(
                        record.bytes, model.appended[&record.sequence],
                        "record {}",
                        record.sequence
                    );
                }
                self.counts.recovered += records.len() as u64;
            }
            Err(error) => assert!(self.disk.fired().is_some(), "{error:?}"),
        }
        self.counts.lost += model.next - next;
        (model.next, model.durable) = (next, next);
        model.appended.retain(|sequence, _| *sequence < next);

        let (positions, _) = core.positions();
        let there: BTreeMap<String, u64> =
            positions.all().map(|(name, at)| (name.to_owned(), at)).collect();
        for (name, known) in &model.readers {
            match there.get(name) {
                Some(at) => {
                    assert!((known.least..=known.most).contains(at), "{name} at {at}: {known:?}")
                }
                None => assert!(!known.saved || known.leaving, "{name} is forgotten: {known:?}"),
            }
        }
        let least = there.values().min().copied().unwrap_or(1);
        assert!(released <= least || there.is_empty(), "what a reader needs is released");
        let stands = |at: &u64| Known { saved: true, leaving: false, least: *at, most: *at };
        // A reader that was leaving may come back, and then is where it was.
        model.readers = there.iter().map(|(name, at)| (name.clone(), stands(at))).collect();
        let files: Vec<String> = self.disk.files().into_keys().collect();
        let segments: Vec<String> =
            core.with(|state| state.segments.iter().map(|one| format::name(one.number)).collect());
        assert_eq!(files, segments);
    }
}

fn seeds(usually: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (first, count) = (number("TIERSTACK_SEED"), number("TIERSTACK_SEEDS"));
    let count = count.unwrap_or(if first.is_some() { 1 } else { usually });
    first.unwrap_or(0)..first.unwrap_or(0) + count
}

#[test]
fn what_was_acknowledged_survives_whatever_the_disk_does() {
    let mut all = Counts::default();
    for seed in seeds(3_000) {
        let lived = std::panic::catch_unwind(|| {
            let mut life = Life::new(seed);
            life.live();
            life.counts
        });
        let counts = lived.unwrap_or_else(|_| {
            panic!("the seed {seed} fails: TIERSTACK_SEED={seed} shows it again")
        });
        all.recovered += counts.recovered;
        all.lost += counts.lost;
        all.segments += counts.segments;
        all.failed += u64::from(counts.failed > 0);
        all.full += counts.full;
        all.during_sync += counts.during_sync;
    }
    // One seed alone may meet none of them.
    let met = [all.recovered, all.lost, all.segments, all.failed, all.full, all.during_sync];
    assert!(seeds(3_000).count() < 1_000 || met.iter().all(|count| *count > 500), "{all:?}");
}
