//! The filter of dirty keys under a model checker, and compared with the map that it is in front of.
//!
//! `filter` is the shipped file, built of the checker's atomics.

#[path = "../filter.rs"]
#[expect(clippy::duplicate_mod, reason = "the same code, of other parts")]
mod filter;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU16, Ordering};
}

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use loom::sync::atomic::AtomicBool;
use loom::thread::spawn;

use super::super::overlay::Overlay;

/// A key of another writer meets the one that is looked for: there is one slot.
fn crowded() -> Arc<filter::Filter> {
    Arc::new(filter::Filter::new(1))
}

#[test]
fn a_reader_misses_no_key_that_was_acknowledged_before() {
    loom::model(|| {
        let (filter, acknowledged) = (crowded(), Arc::new(AtomicBool::new(false)));
        filter.add(b"other");
        let writer = {
            let (filter, acknowledged) = (Arc::clone(&filter), Arc::clone(&acknowledged));
            spawn(move || {
                filter.add(b"k");
                acknowledged.store(true, Ordering::Release);
                filter.remove(b"other");
            })
        };
        if acknowledged.load(Ordering::Acquire) {
            assert!(filter.may_have(b"k"));
        }
        writer.join().unwrap();
        assert!(filter.may_have(b"k"));
    });
}

#[test]
fn a_reader_of_a_key_that_is_clean_again_finds_it_below() {
    loom::model(|| {
        let (filter, below) = (crowded(), Arc::new(AtomicBool::new(false)));
        filter.add(b"k");
        let flusher = {
            let (filter, below) = (Arc::clone(&filter), Arc::clone(&below));
            spawn(move || {
                below.store(true, Ordering::Relaxed);
                filter.remove(b"k");
            })
        };
        if !filter.may_have(b"k") {
            assert!(below.load(Ordering::Relaxed));
        }
        flusher.join().unwrap();
    });
}

/// A slot that has counted as far as it can is full for ever.
#[test]
fn a_slot_that_is_full_never_says_that_a_key_is_clean() {
    let filter = super::super::filter::Filter::new(1);
    (0..70_000).for_each(|_| filter.add(b"k"));
    (0..69_999).for_each(|_| filter.remove(b"k"));
    assert!(filter.may_have(b"k"));
}

#[test]
fn keys_that_were_never_dirty_or_are_no_more_are_known_as_clean() {
    let overlay = Overlay::new(1 << 20);
    let keys = |kind: &str| -> Vec<Bytes> {
        (0..100).map(|number| format!("{kind}{number}").into()).collect()
    };
    let (dirty, clean) = (keys("dirty"), keys("clean"));
    let passed = || clean.iter().chain(&dirty).filter(|key| overlay.may_have(key)).count();
    assert_eq!(passed(), 0);
    for sequence in 1..=3 {
        overlay.change(|map| {
            dirty.iter().for_each(|key| map.put(key, None, sequence, Duration::ZERO));
        });
    }
    assert!(dirty.iter().all(|key| overlay.look(key, |_| ()).is_some()));
    assert!(passed() < 150, "of a hundred that are clean, few meet one that is dirty");
    let flushed = |sequence| {
        overlay.change(|map| dirty.iter().for_each(|key| map.flushed(key, sequence)));
    };
    flushed(2);
    assert_eq!(overlay.entries(), 100, "a newer one stays");
    // One stays, so that the filter is asked.
    overlay.change(|map| map.put(&"last".into(), None, 4, Duration::ZERO));
    flushed(3);
    assert!(passed() < 10, "{}", passed());
}

/// Readers concurrently with a writer that acknowledges keys, and a flusher that takes them out once they are below.
#[test]
fn every_key_is_dirty_or_below_from_its_acknowledgement_on() {
    const KEYS: usize = 5000;
    let overlay = Overlay::new(1);
    let (acknowledged, below, checked) =
        (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let key = |number: usize| Bytes::from(number.to_string());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..KEYS {
                overlay.change(|map| map.put(&key(number), None, number as u64, Duration::ZERO));
                acknowledged.store(number + 1, Ordering::Release);
            }
        });
        scope.spawn(|| {
            let mut flushed = 0;
            while flushed < KEYS {
                let known = acknowledged.load(Ordering::Acquire);
                for number in flushed..known {
                    below.store(number + 1, Ordering::Release);
                    overlay.change(|map| map.flushed(&key(number), number as u64));
                }
                flushed = known;
                std::thread::yield_now();
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while last < KEYS {
                    let known = acknowledged.load(Ordering::Acquire);
                    for number in last..known {
                        let dirty = overlay.look(&key(number), |dirty| dirty.sequence);
                        match dirty {
                            Some(sequence) => assert_eq!(sequence, number as u64),
                            None => assert!(below.load(Ordering::Acquire) > number, "{number}"),
                        }
                        checked.fetch_add(1, Ordering::Relaxed);
                    }
                    last = known;
                    std::thread::yield_now();
                }
            });
        }
    });
    assert_eq!(checked.into_inner(), 2 * KEYS);
    assert!(overlay.is_empty());
}
