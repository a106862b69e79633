//! The queues, the table and the slots agree, whatever happens; and what goes first.

use std::collections::HashMap;

use super::packed::Kept;
use super::shard::Shard;
use super::slots::{Queue, Slot};
use crate::layers::cache::coherence::Epoch;
use crate::layers::cache::policy::CoarseTime;
use crate::layers::cache::policy::{Answer, Cached};
use crate::testing::Random;

fn kept(key: &[u8], bytes: usize) -> Kept {
    let answer = Answer::Value(vec![key.first().copied().unwrap_or(0); bytes].into());
    Kept::new(key, Cached { answer, until: CoarseTime::NEVER, epoch: Epoch::FIRST, extra: None })
}

fn length(kept: &Kept) -> usize {
    kept.cached().value().unwrap().bytes.len()
}

fn hash(key: u32) -> u32 {
    key.wrapping_mul(0x9e37_79b1)
}

/// Of a few, so that keys share them.
fn shared(key: u32) -> u32 {
    hash(key % 700)
}

/// Gives what is evicted.
fn insert_as(shard: &mut Shard, hash: u32, key: u32, bytes: usize) -> Vec<u32> {
    let mut gone = Vec::new();
    let number = |kept: &Kept| u32::from_be_bytes(kept.key().try_into().unwrap());
    let key = key.to_be_bytes();
    shard.insert(hash, kept(&key, bytes), |kept| gone.push(number(&kept)));
    gone
}

fn insert(shard: &mut Shard, key: u32, bytes: usize) -> Vec<u32> {
    insert_as(shard, hash(key), key, bytes)
}

fn has(shard: &Shard, key: u32) -> bool {
    shard.peek(hash(key), &key.to_be_bytes()).is_some()
}

fn read(shard: &Shard, key: u32) -> bool {
    shard.get(hash(key), &key.to_be_bytes()).is_some()
}

#[test]
fn a_slot_takes_48_bytes() {
    assert_eq!(size_of::<Slot>(), 48);
}

#[test]
fn whatever_happens_everything_is_in_one_queue_and_found() {
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let capacity = *random.pick(&[10_000, 100_000, 1_000_000]).unwrap();
        let mut shard = Shard::new(capacity);
        // Of what was kept last, if it is there.
        let mut sizes: HashMap<u32, usize> = HashMap::new();
        for step in 0..4000 {
            let key = random.below(2000) as u32;
            match random.below(20) {
                0..9 => {
                    let most = if random.chance(0.1) { 3000 } else { 100 };
                    let bytes = random.below(most);
                    for gone in insert_as(&mut shard, shared(key), key, bytes) {
                        sizes.remove(&gone);
                    }
                    if shard.peek(shared(key), &key.to_be_bytes()).is_some() {
                        sizes.insert(key, bytes);
                    }
                }
                9..12 => {
                    let removed = shard.remove_if(shared(key), &key.to_be_bytes(), |_| true);
                    assert_eq!(removed.as_ref().map(length), sizes.remove(&key));
                }
                12 => {
                    let kept = shard.remove_if(shared(key), &key.to_be_bytes(), |_| false);
                    assert!(kept.is_none());
                }
                13 if random.chance(0.02) => {
                    shard.capacity = capacity / (1 + random.below(4) as u64);
                    shard.make_room(0, |kept| {
                        let key = u32::from_be_bytes(kept.key().try_into().unwrap());
                        sizes.remove(&key).unwrap();
                    });
                }
                _ => {
                    let found = shard.get(shared(key), &key.to_be_bytes()).is_some();
                    assert_eq!(found, sizes.contains_key(&key));
                }
            }
            assert!(shard.weight() <= shard.capacity);
            if step % 50 == 0 {
                shard.check();
                assert_eq!(shard.len(), sizes.len());
                for (key, bytes) in &sizes {
                    let found = shard.peek(shared(*key), &key.to_be_bytes());
                    assert_eq!(found.map(length), Some(*bytes));
                }
            }
        }
        while let Some((key, _)) = sizes.iter().next().map(|(key, size)| (*key, *size)) {
            sizes.remove(&key);
            assert!(shard.remove_if(shared(key), &key.to_be_bytes(), |_| true).is_some());
        }
        shard.check();
        assert_eq!((shard.len(), shard.weight()), (0, 0));
        assert!(shard.spare() <= 64, "what is removed leaves no memory behind: {}", shard.spare());
    }
}

#[test]
fn what_was_read_stays_while_others_pass() {
    let mut shard = Shard::new(100_000);
    for key in 100..2000 {
        insert(&mut shard, key, 10);
    }
    for key in 0..100 {
        insert(&mut shard, key, 10);
        read(&shard, key);
    }
    for key in 1000..20_000 {
        insert(&mut shard, key, 10);
    }
    assert!((0..100).all(|key| has(&shard, key)), "a scan takes the place of none of them");
    assert_eq!(shard.queue_of(hash(5), &5_u32.to_be_bytes()), Some(Queue::Main));
}

#[test]
fn what_comes_back_soon_is_kept_longer() {
    let mut shard = Shard::new(20_000);
    let mut gone = Vec::new();
    for key in 0..300 {
        gone.extend(insert(&mut shard, key, 10));
    }
    let last = *gone.last().unwrap();
    insert(&mut shard, last, 10);
    assert_eq!(shard.queue_of(hash(last), &last.to_be_bytes()), Some(Queue::Main));
    insert(&mut shard, 500, 10);
    assert_eq!(shard.queue_of(hash(500), &500_u32.to_be_bytes()), Some(Queue::Small));
    // So is what was removed from there, as by a write.
    shard.remove_if(hash(last), &last.to_be_bytes(), |_| true);
    insert(&mut shard, last, 10);
    assert_eq!(shard.queue_of(hash(last), &last.to_be_bytes()), Some(Queue::Main));
}

#[test]
fn of_a_loop_over_more_than_fits_a_part_stays() {
    let mut shard = Shard::new(20_000);
    let mut hits = 0;
    for key in (0..600).cycle().take(6000) {
        let hit = read(&shard, key);
        hits += u32::from(hit);
        if !hit {
            insert(&mut shard, key, 10);
        }
    }
    assert!(hits > 6000 / 600 * 100, "{hits}");
}

#[test]
fn what_is_larger_than_the_part_evicts_nothing_but_what_was_there_of_its_key() {
    let mut shard = Shard::new(5000);
    insert(&mut shard, 1, 100);
    assert_eq!(insert(&mut shard, 2, 6000), [2]);
    assert!(has(&shard, 1) && !has(&shard, 2));
    insert(&mut shard, 1, 6000);
    assert!(!has(&shard, 1), "it was older");
}
