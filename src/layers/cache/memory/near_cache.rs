//! Thread-local near caches: copies of the entries that are read most, for each thread its own.
//!
//! A hit in an engine writes to memory that all threads share: the lock of its part, the count of those that
//! hold the value. Two processors that do so wait for each other, so that two threads together read no
//! faster than one. Here a thread writes to memory of its own only: its copy of an entry has a count
//! of holders of its own, over the same bytes.
//!
//! A copy is used only while its stripe is [`StripeVersion`] as it was before the copy was taken from the engine: no
//! write has begun since, and none was under way. What else may end an entry, its time or its epoch, it
//! carries itself, as the entry does.
//!
//! Copies are made once a second thread reads, of what that thread finds twice. They take a 32nd of the
//! capacity at most, which entries then leave to them.

use std::num::NonZero;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::layers::cache::coherence::StripeVersion;
use crate::layers::cache::policy::{Answer, Cached};
use crate::thread_slot;

/// What copies take of the capacity at most, all together.
const PART: u64 = 32;
/// More threads share near caches. A thread that finds one in use goes to the engine.
const MOST_NEAR_CACHES: usize = 16;
/// Bytes of a near cache for each of its ways.
const BYTES_PER_WAY: u64 = 256;
/// With fewer a near cache is not worth it.
const FEWEST_WAYS: u64 = 256;
const MOST_WAYS: u64 = 1 << 15;
/// What takes more than this part of a near cache is not copied.
const LARGEST_PART: u64 = 64;
/// One hit of a copy in so many is counted by the engine too, which would otherwise evict the entry.
const TOUCH_EVERY: u32 = 32;
/// Bytes of what a copy allocates in addition to its key: the count of holders of the value, and headers.
const HEADERS: u64 = 112;

/// The near caches of a cache, one for each thread or few.
pub(super) struct NearCaches {
    readers: ReaderThreads,
    near_caches: Box<[NearCache]>,
}

/// Whether no thread has read yet, one thread (its number), or several.
#[derive(Default)]
struct ReaderThreads(AtomicUsize);

/// On cache lines that no other thread writes to.
#[repr(align(128))]
struct NearCache(Mutex<Ways>);

/// Two ways for each key. None until the near cache is used.
struct Ways {
    ways: Box<[Way]>,
    /// Bytes that ways and copies may take.
    most: u64,
    taken: u64,
    /// Where room is made next.
    hand: usize,
}

#[derive(Default)]
struct Way {
    /// The hash of the key that was found last and not copied.
    candidate: u64,
    copy: Option<Copy>,
}

struct Copy {
    version: StripeVersion,
    key: Box<[u8]>,
    cached: Cached,
    hits: u32,
    /// As many as there were when the hand last passed.
    passed: u32,
}

impl ReaderThreads {
    const SEVERAL: usize = usize::MAX;

    /// Whether others than that thread were here before.
    fn is_shared(&self, me: usize) -> bool {
        match self.0.load(Relaxed) {
            only if only == me => false,
            Self::SEVERAL => true,
            _ => self.enter(me),
        }
    }

    #[cold]
    fn enter(&self, me: usize) -> bool {
        match self.0.compare_exchange(0, me, Relaxed, Relaxed) {
            Ok(_) => false,
            Err(only) if only == me => false,
            Err(_) => {
                self.0.store(Self::SEVERAL, Relaxed);
                true
            }
        }
    }
}

/// What copies take of a capacity.
pub(super) const fn share(capacity: u64) -> u64 {
    capacity / PART
}

impl NearCaches {
    /// Near caches for a cache of that capacity.
    pub(super) fn new(capacity: u64) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let near_caches = threads.next_power_of_two().min(MOST_NEAR_CACHES);
        let most = share(capacity) / near_caches as u64;
        let near_caches =
            (0..near_caches).map(|_| NearCache(Mutex::new(Ways::new(most)))).collect();
        #[cfg(not(test))]
        let readers = ReaderThreads::default();
        // Tests read from one thread, and are to meet copies.
        #[cfg(test)]
        let readers = ReaderThreads(AtomicUsize::new(ReaderThreads::SEVERAL));
        Self { readers, near_caches }
    }

    /// What is kept for a key: a copy, if it is `usable`, or what the engine gives. `begin` is called before
    /// any memory is taken.
    #[inline(always)]
    pub(super) fn get(
        &self,
        key: &[u8],
        version: impl FnOnce() -> StripeVersion,
        usable: impl FnOnce(&Cached) -> bool,
        engine: impl FnOnce() -> Option<Cached>,
        begin: impl FnOnce(),
    ) -> Option<Cached> {
        let me = thread_slot::number();
        if !self.readers.is_shared(me) {
            return engine();
        }
        let version = version();
        if version.is_written() {
            return engine();
        }
        #[expect(
            clippy::indexing_slicing,
            reason = "the remainder is below the number of near caches"
        )]
        let near_cache = &self.near_caches[me % self.near_caches.len()];
        let Some(mut ways) = near_cache.0.try_lock() else { return engine() };
        if ways.ways.is_empty() {
            if !ways.is_worth_it() {
                return engine();
            }
            begin();
            ways.allocate();
        }
        if let Some(cached) = ways.find(key, version, usable) {
            return Some(cached);
        }
        // The engine locks a part of its own, and knows nothing of near caches.
        let Some(cached) = engine() else {
            let evicted = ways.remove(key, version);
            drop(ways);
            drop(evicted);
            return None;
        };
        let replaced = ways.offer(key, version, &cached);
        drop(ways);
        drop(replaced);
        Some(cached)
    }

    /// Lets go of all copies.
    pub(super) fn clear(&self) {
        for near_cache in &self.near_caches {
            let mut ways = near_cache.0.lock();
            let most = ways.most;
            let old = std::mem::replace(&mut *ways, Ways::new(most));
            drop(ways);
            drop(old);
        }
    }

    #[cfg(test)]
    fn taken(&self) -> u64 {
        self.near_caches.iter().map(|near_cache| near_cache.0.lock().taken).sum()
    }

    /// Lets go of all copies, and takes no more than fits another capacity from now on.
    pub(super) fn set_capacity(&self, capacity: u64) {
        let most = share(capacity) / self.near_caches.len() as u64;
        for near_cache in &self.near_caches {
            let old = std::mem::replace(&mut *near_cache.0.lock(), Ways::new(most));
            drop(old);
        }
    }
}

impl Ways {
    fn new(most: u64) -> Self {
        Self { ways: Box::default(), most, taken: 0, hand: 0 }
    }

    fn wanted(&self) -> u64 {
        (self.most / BYTES_PER_WAY).min(MOST_WAYS)
    }

    fn is_worth_it(&self) -> bool {
        self.wanted() >= FEWEST_WAYS
    }

    fn allocate(&mut self) {
        // The next lower power of two, so that the hash gives the way.
        let ways = 1 << self.wanted().ilog2();
        self.ways = (0..ways).map(|_| Way::default()).collect();
        self.taken = ways * size_of::<Way>() as u64;
    }

    /// The two ways of a key.
    fn pair(&mut self, version: StripeVersion) -> &mut [Way] {
        let first = version.hash() as usize & (self.ways.len() - 1) & !1;
        self.ways.get_mut(first..first + 2).unwrap_or_default()
    }

    fn find(
        &mut self,
        key: &[u8],
        version: StripeVersion,
        usable: impl FnOnce(&Cached) -> bool,
    ) -> Option<Cached> {
        let mut copies = self.pair(version).iter_mut().filter_map(|way| way.copy.as_mut());
        let copy = copies.find(|copy| copy.version == version && *copy.key == *key)?;
        copy.hits = copy.hits.wrapping_add(1);
        (!copy.hits.is_multiple_of(TOUCH_EVERY) && usable(&copy.cached))
            .then(|| copy.cached.clone())
    }

    /// Removes the copy of an entry that the engine has evicted.
    fn remove(&mut self, key: &[u8], version: StripeVersion) -> Option<Copy> {
        let of_key = |copy: &Copy| *copy.key == *key;
        let way = self.pair(version).iter_mut().find(|way| way.copy.as_ref().is_some_and(of_key));
        let copy = way?.copy.take()?;
        self.taken -= copy.bytes();
        Some(copy)
    }

    /// Copies what was found in the engine, if it is found for the second time. Gives what made room.
    fn offer(&mut self, key: &[u8], version: StripeVersion, cached: &Cached) -> Option<Copy> {
        let bytes = bytes(key, cached);
        if bytes > self.most / LARGEST_PART {
            return None;
        }
        let pair = self.pair(version);
        let of_key = |way: &Way| way.copy.as_ref().is_some_and(|copy| *copy.key == *key);
        let at = pair.iter().position(of_key);
        if let Some(copy) = at.and_then(|at| pair.get(at)).and_then(|way| way.copy.as_ref())
            && copy.version == version
            && copy.cached.is(cached)
        {
            return None;
        }
        // The way that holds this key, or a free one, or the next to be replaced.
        let free = || pair.iter().position(|way| way.copy.is_none());
        let at = at.or_else(free).unwrap_or(usize::from(pair.first()?.candidate & 1 == 1));
        let way = pair.get_mut(at)?;
        if way.candidate != version.hash() {
            way.candidate = version.hash();
            return None;
        }
        let copy = Copy { version, key: key.into(), cached: own(cached), hits: 0, passed: 0 };
        let replaced = way.copy.replace(copy);
        self.taken += bytes;
        self.taken -= replaced.as_ref().map_or(0, Copy::bytes);
        self.make_room();
        replaced
    }

    /// Drops copies that were not read since the hand last passed, until the rest fits.
    fn make_room(&mut self) {
        // In two rounds it has dropped them all.
        for _ in 0..2 * self.ways.len() {
            if self.taken <= self.most {
                return;
            }
            self.hand = (self.hand + 1) & (self.ways.len() - 1);
            let Some(way) = self.ways.get_mut(self.hand) else { return };
            if let Some(copy) = &mut way.copy
                && copy.hits != copy.passed
            {
                copy.passed = copy.hits;
            } else if let Some(copy) = way.copy.take() {
                self.taken -= copy.bytes();
            }
        }
    }
}

impl Copy {
    fn bytes(&self) -> u64 {
        bytes(&self.key, &self.cached)
    }
}

fn bytes(key: &[u8], cached: &Cached) -> u64 {
    HEADERS + key.len() as u64 + cached.bytes()
}

/// The same bytes, with a count of holders of its own.
fn own(cached: &Cached) -> Cached {
    let mut cached = cached.clone();
    if let Answer::Value(value) = &mut cached.answer {
        value.bytes = Bytes::from_owner(std::mem::take(&mut value.bytes));
    }
    cached
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::cache::coherence::{Epochs, Mode};
    use crate::layers::cache::policy::CoarseTime;

    const CAPACITY: u64 = 64 << 20;

    fn cached(bytes: usize) -> Cached {
        let epoch = Epochs::new(Mode::Keeping).now();
        Cached {
            answer: Answer::Value(vec![7; bytes].into()),
            until: CoarseTime::NEVER,
            epoch,
            extra: None,
        }
    }

    /// Reads a key. Gives how it was answered: whether the engine was asked.
    fn asked(near_caches: &NearCaches, key: &[u8], generation: u64, bytes: usize) -> bool {
        let mut asked = false;
        let engine = || {
            asked = true;
            Some(cached(bytes))
        };
        let found =
            near_caches.get(key, || StripeVersion::of(key, generation), |_| true, engine, || ());
        assert_eq!(found.unwrap().value().unwrap().bytes.len(), bytes);
        asked
    }

    #[test]
    fn what_is_found_twice_is_copied_until_a_write() {
        let near_caches = NearCaches::new(CAPACITY);
        assert!(asked(&near_caches, b"k", 0, 10));
        assert!(asked(&near_caches, b"k", 0, 10));
        assert!(!asked(&near_caches, b"k", 0, 10));
        assert!(asked(&near_caches, b"k", 2, 20), "another generation");
        assert!(!asked(&near_caches, b"k", 2, 20));
        assert!(asked(&near_caches, b"k", 0, 20), "and never back");
        near_caches.clear();
        assert!(asked(&near_caches, b"k", 2, 30));
    }

    #[test]
    fn while_a_write_is_under_way_nothing_is_copied_and_no_copy_is_used() {
        let near_caches = NearCaches::new(CAPACITY);
        for _ in 0..5 {
            let engine = || Some(cached(1));
            let written = || StripeVersion::written(b"k");
            assert!(near_caches.get(b"k", written, |_| panic!(), engine, || panic!()).is_some());
        }
        assert_eq!(near_caches.taken(), 0);
    }

    #[test]
    fn what_is_read_is_touched_in_the_engine_now_and_then() {
        let near_caches = NearCaches::new(CAPACITY);
        let touched = (0..1000).filter(|_| asked(&near_caches, b"k", 0, 10)).count();
        assert!((25..50).contains(&touched), "{touched}");
    }

    #[test]
    fn copies_take_no_more_than_their_share() {
        for capacity in [8 << 20, CAPACITY] {
            let near_caches = NearCaches::new(capacity);
            let mut most = 0;
            for n in 0..200_000_u32 {
                // Many once, some often.
                let key = if n % 3 == 0 { n } else { n % 2000 };
                asked(&near_caches, &key.to_be_bytes(), 0, (key % 3000) as usize);
                if n % 100 == 0 {
                    most = most.max(near_caches.taken());
                }
            }
            let share = share(capacity) / near_caches.near_caches.len() as u64;
            assert!(most > share / 2 && most <= share, "{most} of {share}");
            near_caches.set_capacity(capacity / 2);
            assert_eq!(near_caches.taken(), 0);
        }
    }

    #[test]
    fn what_the_engine_has_evicted_is_not_served_again() {
        let near_caches = NearCaches::new(CAPACITY);
        let read = |kept: bool| {
            let engine = || kept.then(|| cached(10));
            near_caches.get(b"k", || StripeVersion::of(b"k", 0), |_| true, engine, || ()).is_some()
        };
        (0..3).for_each(|_| assert!(read(true)));
        let before = near_caches.taken();
        let served = (0..100).filter(|_| read(false)).count();
        assert!(served < TOUCH_EVERY as usize, "{served}");
        assert!(near_caches.taken() < before);
    }

    #[test]
    fn a_capacity_may_shrink_while_threads_read() {
        let near_caches = NearCaches::new(CAPACITY);
        std::thread::scope(|scope| {
            for thread in 0..3_u32 {
                let near_caches = &near_caches;
                scope.spawn(move || {
                    for n in 0..100_000_u32 {
                        asked(near_caches, &(n % 50 + thread).to_be_bytes(), 0, 100);
                    }
                });
            }
            for n in 0..200 {
                near_caches.set_capacity(if n % 2 == 0 { CAPACITY / 64 } else { CAPACITY });
            }
        });
    }

    #[test]
    fn small_caches_and_large_entries_do_without() {
        let small = NearCaches::new(1 << 20);
        assert!((0..5).all(|_| asked(&small, b"k", 0, 10)));
        let large = NearCaches::new(CAPACITY);
        assert!((0..5).all(|_| asked(&large, b"k", 0, 1 << 20)));
    }

    #[test]
    fn a_copy_has_a_count_of_holders_of_its_own() {
        let bytes = Bytes::from(vec![7; 10]);
        let entry = Cached { answer: Answer::Value(bytes.clone().into()), ..cached(0) };
        let copy = own(&entry).value().unwrap().bytes.clone();
        assert_eq!(copy.as_ptr(), bytes.as_ptr(), "the same bytes");
        drop((entry, bytes));
        assert_eq!(*copy, [7; 10]);
    }
}
