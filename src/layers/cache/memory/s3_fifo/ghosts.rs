//! Ghosts: what was evicted lately, by its hash. What comes back soon is kept longer.

/// Of a bucket, which is a line of memory or less: the latest first.
const WAYS: usize = 8;
/// For each so many entries that are kept there is a bucket: half as many ghosts as entries, to as many.
const ENTRIES_PER_BUCKET: usize = 2 * WAYS;

/// What they take for each entry, at most.
pub(super) const GHOST_BYTES: u64 = (WAYS * size_of::<u32>() * 2 / ENTRIES_PER_BUCKET) as u64;

/// No ghost.
const NONE: u32 = 0;

#[derive(Debug)]
pub(super) struct Ghosts(Vec<[u32; WAYS]>);

impl Default for Ghosts {
    fn default() -> Self {
        Self(vec![[NONE; WAYS]])
    }
}

impl Ghosts {
    /// The bucket of a hash. Their number is a power of two.
    fn bucket(&mut self, hash: u32) -> Option<&mut [u32; WAYS]> {
        let at = hash as usize & (self.0.len() - 1);
        self.0.get_mut(at)
    }

    pub(super) fn add(&mut self, hash: u32) {
        if let Some(bucket) = self.bucket(hash) {
            // The oldest falls off.
            let mut ghost = hash.max(1);
            for place in bucket {
                std::mem::swap(place, &mut ghost);
            }
        }
    }

    /// Whether it is there, and is not any more.
    pub(super) fn take(&mut self, hash: u32) -> bool {
        let Some(bucket) = self.bucket(hash) else { return false };
        let Some(at) = bucket.iter().position(|ghost| *ghost == hash.max(1)) else { return false };
        if let Some(from) = bucket.get_mut(at..) {
            from.rotate_left(1);
        }
        bucket[WAYS - 1] = NONE;
        true
    }

    /// Has room for as many as go with that many entries.
    pub(super) fn fit(&mut self, entries: usize) {
        let buckets = self.0.len();
        let wanted = if entries > buckets * ENTRIES_PER_BUCKET {
            buckets * 2
        } else if buckets > 1 && entries < buckets * ENTRIES_PER_BUCKET / 8 {
            buckets / 2
        } else {
            return;
        };
        let old = std::mem::replace(&mut self.0, vec![[NONE; WAYS]; wanted]);
        // The oldest first.
        for ghost in old.iter().flat_map(|bucket| bucket.iter().rev()) {
            if *ghost != NONE {
                self.add(*ghost);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ghost_is_found_once_and_the_oldest_goes_first() {
        let mut ghosts = Ghosts::default();
        for hash in 0..WAYS as u32 + 1 {
            ghosts.add(hash + 10);
        }
        assert!(!ghosts.take(10), "it was the oldest");
        assert!(ghosts.take(11) && !ghosts.take(11));
        ghosts.add(99);
        assert!(ghosts.take(12) && ghosts.take(99), "there was room");
    }

    #[test]
    fn they_stay_when_their_number_changes() {
        let mut ghosts = Ghosts::default();
        for hash in 0..1000 {
            ghosts.fit(hash as usize);
            ghosts.add(hash);
        }
        let found = (0..1000).filter(|hash| ghosts.take(*hash)).count();
        assert!((400..=1000).contains(&found), "{found}");
        (0..20).for_each(|_| ghosts.fit(0));
        assert_eq!(ghosts.0.len(), 1);
        ghosts.add(0);
        assert!(ghosts.take(0), "nought as well");
    }
}
