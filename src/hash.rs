//! A hash that is the same on every machine and in every version, for what is kept, and what stands for keys in logs.

#[expect(deprecated, reason = "the one hash of the standard library that says which it is")]
use std::hash::SipHasher;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::OnceLock;

/// SipHash-2-4 under the key 0.
#[expect(deprecated, reason = "see above")]
pub(crate) struct StableHash(SipHasher);

impl StableHash {
    pub(crate) fn new() -> Self {
        #[expect(deprecated, reason = "see above")]
        Self(SipHasher::new())
    }

    /// The hash of all parts so far. Their lengths count: no two lists of parts read the same.
    pub(crate) fn add(&mut self, part: &[u8]) -> u64 {
        self.0.write(&(part.len() as u64).to_be_bytes());
        self.0.write(part);
        self.0.finish()
    }
}

/// What stands for a key in logs: they can be correlated, and the key is not in them.
pub(crate) fn fingerprint(salt: u64, key: &[u8]) -> u64 {
    let mut hash = StableHash::new();
    hash.add(&salt.to_be_bytes());
    hash.add(key)
}

/// For errors of a store that nobody named: drawn once per process.
pub(crate) fn salt_of_process() -> u64 {
    static SALT: OnceLock<u64> = OnceLock::new();
    *SALT.get_or_init(|| RandomState::new().hash_one(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_in_every_version() {
        let mut hash = StableHash::new();
        assert_eq!(hash.add(b"a"), 1_048_369_138_853_339_899);
        assert_eq!(hash.add(b""), 16_399_633_238_418_656_284);
        assert_eq!(StableHash::new().add(b"a"), 1_048_369_138_853_339_899);
        assert_ne!(StableHash::new().add(b"a\0"), 1_048_369_138_853_339_899);
    }
}
