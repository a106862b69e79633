use std::sync::atomic::{AtomicBool, Ordering};

use std::time::Duration;

use parking_lot::Mutex;

use super::super::coherence::{Epochs, Mode};
use super::super::config::Policy;
use super::super::policy::{Answer, Cached, CoarseTime};
use super::engine::{Engine, LARGEST_PART, LOAD_OVERHEAD};
use super::moka;
use crate::clock::ManualClock;
use crate::telemetry::Labels;
use crate::types::Value;

const POLICIES: [Policy; 3] = [Policy::S3Fifo, Policy::TinyLfu, Policy::Lru];

fn engine(policy: Policy, capacity: u64) -> Engine {
    Engine::new(policy, capacity, &Labels::default())
}

/// Keeps an entry as a cache does. Tells whether it was let in.
fn keep(engine: &Engine, key: &[u8], value: impl Into<Value>) -> bool {
    let cached = cached(Some(value.into()), CoarseTime::NEVER);
    let fits = engine.fits(key, &cached);
    if fits {
        engine.insert(key, cached);
    }
    fits
}

fn cached(value: Option<Value>, until: CoarseTime) -> Cached {
    let answer = value.map_or(Answer::Missing, Answer::Value);
    Cached { answer, until, epoch: Epochs::new(Mode::Keeping).now(), extra: None }
}

/// What a large entry takes in addition to its key and value.
fn overhead_of_large(engine: &Engine) -> u64 {
    let length = 4 << 10;
    engine.weight(b"", &cached(Some(vec![0; length].into()), CoarseTime::NEVER)) - length as u64
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    *state >> 33
}

/// Threads that write, remove, read and begin loads, and one that looks. Gives the most that was held.
fn hammered(policy: Policy, capacity: u64) -> u64 {
    let engine = engine(policy, capacity);
    let largest = capacity / LARGEST_PART;
    let done = AtomicBool::new(false);
    // A cache holds the lock of a key's stripe while it keeps something for it.
    let stripes = [const { Mutex::new(()) }; 64];
    let keep = |key: &[u8; 8], bytes: u64| {
        let cached = cached(Some(vec![0; bytes as usize].into()), CoarseTime::NEVER);
        if engine.fits(key, &cached) {
            let _stripe = stripes[usize::from(key[7]) % stripes.len()].lock();
            engine.insert(key, cached);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4u64)
            .map(|seed| {
                let (engine, keep) = (&engine, &keep);
                scope.spawn(move || {
                    let mut state = seed + 1;
                    let mut loads = Vec::new();
                    for _ in 0..20_000 {
                        let key = (random(&mut state) % 5000).to_be_bytes();
                        let bytes = match random(&mut state) % 100 {
                            0 => random(&mut state) % largest,
                            1..10 => random(&mut state) % (64 << 10),
                            _ => random(&mut state) % 512,
                        };
                        match random(&mut state) % 8 {
                            0 => engine.remove(&key),
                            1..4 => drop(engine.get(&key)),
                            4 => {
                                loads.extend(engine.begin_load(&key).map(|bytes| (key, bytes)));
                                // A few at a time, or a lot.
                                while loads.len() as u64 > random(&mut state) % 100 {
                                    let Some((key, counted)) = loads.pop() else { break };
                                    keep(&key, bytes);
                                    engine.end_load(counted);
                                }
                            }
                            _ => keep(&key, bytes),
                        }
                    }
                    loads.iter().for_each(|(_, counted)| engine.end_load(*counted));
                })
            })
            .collect();
        let observer = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(engine.held());
                std::thread::yield_now();
            }
            most
        });
        for worker in workers {
            worker.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        let most = observer.join().unwrap();
        engine.finish();
        assert!(engine.bytes() > capacity / 2, "it fills up");
        assert!(engine.bytes() <= capacity);
        let (bytes, entries) = (engine.counters.bytes(), engine.entries());
        assert_eq!(bytes, engine.bytes(), "what was reported is what is there");
        engine.clear();
        engine.finish();
        assert!(entries > 0 && engine.entries() == 0 && engine.counters.bytes() == 0);
        most
    })
}

#[test]
fn the_bound_holds_at_all_times() {
    for policy in POLICIES {
        for capacity in [1 << 20, 16 << 20] {
            let most = hammered(policy, capacity);
            assert!(most <= capacity + capacity / 100, "{policy:?}: {most} of {capacity}");
        }
    }
}

/// moka counts what is replaced and removed before its housekeeping sees it with the wrong weight.
#[test]
fn what_is_replaced_and_removed_at_once_takes_nothing_from_the_rest() {
    for policy in POLICIES {
        for (first, second) in [(10, 10_000), (10_000, 10)] {
            let capacity = 4 << 20;
            let engine = engine(policy, capacity);
            for _ in 0..1000 {
                keep(&engine, b"k", vec![0; first]);
                engine.finish();
                keep(&engine, b"k", vec![0; second]);
                engine.remove(b"k");
            }
            for n in 0..5000_u32 {
                keep(&engine, &n.to_be_bytes(), vec![0; 1000]);
            }
            engine.finish();
            let bytes = engine.bytes();
            assert!(
                bytes > capacity / 10 * 8 && bytes <= capacity,
                "{policy:?}: {bytes} of {capacity}"
            );
        }
    }
}

#[test]
fn the_largest_entry_is_kept_whatever_the_capacity() {
    for policy in POLICIES {
        for capacity in [64 << 10, 100_000, 1 << 20, 3 << 20, 100 << 20] {
            let engine = engine(policy, capacity);
            let overhead = overhead_of_large(&engine);
            let part = if policy == Policy::S3Fifo { LARGEST_PART } else { moka::LARGEST_PART };
            let most = vec![0; (capacity / part - overhead - 1) as usize];
            assert!(keep(&engine, b"k", most.clone()), "{policy:?} {capacity}");
            engine.finish();
            assert!(engine.get(b"k").is_some(), "{policy:?} {capacity}");
            assert!(!keep(&engine, b"xx", most), "{policy:?} {capacity}");
        }
    }
}

/// With moka an entry takes what is kept free, and then the place of others.
#[test]
fn what_fits_finds_room_in_a_full_cache_beside_loads() {
    let capacity = 1 << 20;
    let engine = engine(Policy::Lru, capacity);
    while engine.begin_load(b"load").is_some() {}
    for key in 0..5000_u32 {
        keep(&engine, &key.to_be_bytes(), vec![0; 100]);
    }
    let largest = capacity / moka::LARGEST_PART - overhead_of_large(&engine);
    for key in [b"a", b"b", b"c"] {
        assert!(keep(&engine, key, vec![0; largest as usize - 1]));
        assert!(engine.get(key).is_some() && engine.held() <= capacity);
    }
}

#[test]
fn loads_have_a_share_of_their_own_and_take_nothing_from_entries() {
    for policy in POLICIES {
        for (capacity, share) in [(64 << 10, 16 << 10), (1 << 20, 256 << 10), (64 << 20, 2 << 20)] {
            let engine = engine(policy, capacity);
            for key in 0..(capacity as u32 / 500).min(5000) {
                keep(&engine, &key.to_be_bytes(), vec![0; 1000]);
            }
            engine.finish();
            let full = engine.bytes();
            let counted: Vec<u64> = std::iter::from_fn(|| engine.begin_load(b"key")).collect();
            assert_eq!(counted.len() as u64, share / (LOAD_OVERHEAD + 3), "{policy:?} {capacity}");
            assert!(engine.bytes() == full && engine.held() <= capacity);
            counted.into_iter().for_each(|counted| engine.end_load(counted));
            assert_eq!(engine.loads(), 0);
            let long = vec![0; 1 << 20];
            assert!(engine.begin_load(&long).is_some(), "however long a key is, it is loaded");
        }
    }
}

#[test]
fn what_is_kept_anew_with_the_same_weight_is_never_gone() {
    for policy in POLICIES {
        let engine = engine(policy, 1 << 20);
        keep(&engine, b"k", vec![0; 100]);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!(engine.get(b"k").is_some(), "{policy:?}");
                }
            });
            for n in 0..20_000_u32 {
                keep(&engine, b"k", vec![n as u8; 100]);
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
    }
}

#[test]
fn what_is_removed_or_cleared_is_gone_at_once() {
    for policy in POLICIES {
        let engine = engine(policy, 1 << 20);
        for round in 0..200u32 {
            for key in [b"a", b"b"] {
                keep(&engine, key, round.to_be_bytes().to_vec());
                let kept = engine.get(key).unwrap();
                assert_eq!(*kept.value().unwrap().bytes, round.to_be_bytes());
            }
            engine.remove(b"a");
            assert!(engine.get(b"a").is_none() && engine.get(b"b").is_some());
            engine.clear();
            assert!(engine.get(b"b").is_none());
        }
        engine.finish();
        assert_eq!((engine.entries(), engine.counters.bytes()), (0, 0), "{policy:?}");
    }
}

#[test]
fn after_everything_was_dropped_as_much_fits_as_before() {
    for policy in POLICIES {
        let engine = engine(policy, 1 << 20);
        let fill = || {
            for key in 0..5000u32 {
                keep(&engine, &key.to_be_bytes(), vec![0; 1000]);
            }
            engine.finish();
            engine.bytes()
        };
        let full = fill();
        assert!(full > 700 << 10, "{policy:?}: {full}");
        engine.clear();
        engine.finish();
        assert_eq!((engine.bytes(), engine.entries()), (0, 0), "{policy:?}");
        let again = fill();
        assert!(again > full - (64 << 10), "{policy:?}: {again} after {full}");
    }
}

#[test]
fn only_the_entry_that_was_looked_at_is_removed_as_expired() {
    for policy in POLICIES {
        let engine = engine(policy, 1 << 20);
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(1));
        let first = cached(Some("v".into()), CoarseTime::now(&clock));
        clock.advance(Duration::from_secs(1));
        let second = cached(Some("v".into()), CoarseTime::now(&clock));
        engine.insert(b"k", second);
        let second = engine.get(b"k").unwrap();
        engine.remove_ended(b"k", &first, false);
        assert!(engine.get(b"k").is_some());
        engine.remove_ended(b"k", &second, false);
        assert!(engine.get(b"k").is_none());
    }
}

/// A key that is looked at would be the one that was used last.
#[test]
fn a_peek_is_no_use() {
    let engine = engine(Policy::Lru, 64 << 10);
    let kept = |n: u32| engine.peek(&n.to_be_bytes()).is_some();
    for n in 0..2000_u32 {
        keep(&engine, &n.to_be_bytes(), "v");
        assert!(n > 50 || kept(0));
        kept(0);
    }
    engine.finish();
    assert!(!kept(0) && kept(1999));
}

#[test]
fn a_walk_removes_what_is_old_and_reports_it() {
    for policy in POLICIES {
        let engine = engine(policy, 1 << 20);
        for n in 0..200_u32 {
            keep(&engine, &n.to_be_bytes(), "v");
        }
        engine.finish();
        let before = engine.entries();
        engine.remove_where(|key, _| key[3] % 2 == 0);
        engine.finish();
        assert!((0..200_u32).all(|n| engine.peek(&n.to_be_bytes()).is_none() || n % 2 == 1));
        assert!(before > 190 && engine.entries() == before / 2, "{policy:?} {before}");
    }
}
