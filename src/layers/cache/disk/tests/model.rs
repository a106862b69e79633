//! Random steps against a map: what is found is what was put last, and of this epoch.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Put { key: u8, length: usize, lives: Option<u64> },
    PutEvicted { key: u8 },
    Remove { key: u8 },
    Write { times: usize },
    Pass { seconds: u64 },
    Jump { seconds: u64 },
    Epoch,
    Crash,
    Restart { other: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..12u8;
    let length = prop_oneof![4 => 0..200usize, 1 => 800..1200usize];
    let step = prop_oneof![
        8 => (key.clone(), length, prop::option::of(1..20u64))
            .prop_map(|(key, length, lives)| Step::Put { key, length, lives }),
        2 => key.clone().prop_map(|key| Step::PutEvicted { key }),
        3 => key.prop_map(|key| Step::Remove { key }),
        6 => (1..5usize).prop_map(|times| Step::Write { times }),
        2 => (0..10u64).prop_map(|seconds| Step::Pass { seconds }),
        1 => (0..1000u64).prop_map(|seconds| Step::Jump { seconds }),
        1 => Just(Step::Epoch),
        1 => Just(Step::Crash),
        1 => any::<bool>().prop_map(|other| Step::Restart { other }),
    ];
    prop::collection::vec(step, 1..120)
}

struct Model {
    rig: Rig,
    level: DiskLevel,
    epochs: Epochs,
    /// The value of each key in this epoch, and until when.
    entries: HashMap<u8, (Vec<u8>, CoarseTime)>,
    serial: u32,
    hits: usize,
}

impl Model {
    fn new() -> Self {
        let rig = Rig::new();
        let level = rig.open();
        let epochs = Epochs::new(Mode::Keeping);
        Self { rig, level, epochs, entries: HashMap::new(), serial: 0, hits: 0 }
    }

    fn offer(&self, key: u8, evicted: bool) {
        let Some((bytes, until)) = self.entries.get(&key) else { return };
        let (value, epoch) = (bytes.clone().into(), self.epochs.now());
        if evicted {
            self.level.offer_evicted(&[key], &value, *until, epoch);
        } else {
            self.level.offer(&[key], &value, *until, epoch);
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Put { key, length, lives } => {
                let until = lives.map_or(CoarseTime::NEVER, |lives| self.rig.after(lives));
                self.serial += 1;
                let mut bytes = vec![key; length];
                bytes.extend_from_slice(&self.serial.to_be_bytes());
                self.entries.insert(key, (bytes, until));
                self.offer(key, false);
            }
            Step::PutEvicted { key } => self.offer(key, true),
            Step::Remove { key } => {
                self.entries.remove(&key);
                self.level.remove(&[key]);
            }
            Step::Write { times } => {
                for _ in 0..times {
                    self.level.step(false);
                }
            }
            Step::Pass { seconds } => self.rig.clock.advance(Duration::from_secs(seconds)),
            Step::Jump { seconds } => self.rig.clock.jump(Duration::from_secs(seconds)),
            Step::Epoch => {
                self.epochs.renew();
                self.entries.clear();
                self.level.forget(self.epochs.now());
            }
            Step::Crash => {
                let (_copy, level) = self.rig.after_crash();
                assert_eq!(entries(&level), 0);
            }
            Step::Restart { other } => {
                close(&self.level);
                self.epochs = Epochs::new(Mode::Keeping);
                if other {
                    self.entries.clear();
                }
                self.level = self.rig.open();
                if other {
                    self.level.belongs_to(Some("another stack"));
                    self.level.belongs_to(Some("stack"));
                }
            }
        }
    }

    fn check(&mut self) {
        let now = self.rig.after(0);
        for key in 0..12 {
            let Some(found) = found(&self.level, &[key]) else { continue };
            let (bytes, until) = &self.entries[&key];
            assert_eq!(found.value.bytes, bytes);
            assert!(*until > now, "its time has come");
            assert!(found.until <= *until);
            self.hits += 1;
        }
        assert!(self.level.bytes() <= SHAPE.capacity);
        assert!(bytes(&self.rig.path()) <= SHAPE.capacity + 64, "with the small files");
    }
}

proptest! {
    #[test]
    fn what_is_found_is_what_was_put_last(steps in steps()) {
        let mut model = Model::new();
        for step in &steps {
            model.take(step);
            model.check();
        }
    }
}

/// What finds nothing would pass as well.
#[test]
fn what_was_put_is_mostly_found() {
    let mut model = Model::new();
    for round in 0..50 {
        for key in 0..8 {
            model.take(&Step::Put { key, length: 100, lives: None });
            model.take(&Step::Write { times: 1 });
        }
        model.take(&Step::Restart { other: false });
        model.check();
        assert_eq!(model.hits, (round + 1) * 8);
    }
}
