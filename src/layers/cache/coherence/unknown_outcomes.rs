//! Keys of which a write may still arrive below: its outcome is unknown, and no task waits for it any more.

use std::collections::HashMap;
use std::time::Duration;

/// More keys of one stripe than this put all of its keys in doubt.
const MOST: usize = 64;

/// The keys of one stripe that are in doubt, by their hash, and until when.
#[derive(Default)]
pub(super) struct Doubts {
    keys: HashMap<u64, Duration>,
    all: Option<Duration>,
}

impl Doubts {
    pub(super) fn add(&mut self, hash: u64, now: Duration, until: Duration) {
        if self.keys.len() >= MOST && !self.keys.contains_key(&hash) {
            self.keys.retain(|_, until| now < *until);
            if self.keys.len() >= MOST {
                self.add_all(until);
                return;
            }
        }
        self.keys.insert(hash, until);
    }

    pub(super) fn add_all(&mut self, until: Duration) {
        self.all = self.all.max(Some(until));
    }

    /// Whether a write of the key may still arrive. Looks at the time only where there are doubts.
    pub(super) fn concern(&mut self, hash: u64, now: impl FnOnce() -> Duration) -> bool {
        if self.keys.is_empty() && self.all.is_none() {
            return false;
        }
        let now = now();
        self.all = self.all.filter(|until| now < *until);
        let of_key = self.keys.get(&hash).is_some_and(|until| now < *until);
        if !of_key {
            self.keys.remove(&hash);
        }
        of_key || self.all.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u32) -> Duration {
        SECOND * seconds
    }

    #[test]
    fn a_doubt_is_about_its_key_until_it_ends() {
        let mut doubts = Doubts::default();
        assert!(!doubts.concern(1, || panic!("no look at the clock")));
        doubts.add(1, at(0), at(10));
        assert!(doubts.concern(1, || at(9)) && !doubts.concern(2, || at(9)));
        assert!(!doubts.concern(1, || at(10)));
        assert!(!doubts.concern(1, || panic!("it is forgotten")));
    }

    #[test]
    fn what_is_too_much_puts_all_keys_in_doubt_and_what_has_ended_makes_room() {
        let mut doubts = Doubts::default();
        (0..MOST as u64).for_each(|hash| doubts.add(hash, at(0), at(10)));
        assert!(!doubts.concern(1000, || at(1)));
        doubts.add(1000, at(1), at(11));
        assert!(doubts.concern(2000, || at(10)) && doubts.concern(1000, || at(10)));
        assert!(!doubts.concern(2000, || at(11)), "all doubts have ended");
        doubts.add(3000, at(11), at(20));
        assert!(doubts.concern(3000, || at(12)) && !doubts.concern(2000, || at(12)));
        assert_eq!(doubts.keys.len(), 1);
    }
}
