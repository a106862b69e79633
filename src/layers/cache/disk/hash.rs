//! The hash of a key: SipHash-2-4 under a secret of the folder, so that nobody can choose keys that collide.
//!
//! It must give the same in every version and on every machine, as the index of a warm folder holds hashes.

use std::hash::Hasher as _;
#[expect(
    deprecated,
    reason = "the only hash of the standard library that says which one it is"
)]
use std::hash::SipHasher;

use crate::error::{Error, Result};

/// The secret of a folder, drawn where it begins empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct HashKey(pub(super) [u64; 2]);

/// Prints no secret.
impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey")
    }
}

impl HashKey {
    pub(super) fn random() -> Result<Self> {
        let draw = || {
            getrandom::u64().map_err(|error| {
                Error::internal("the operating system gave no random bytes").with_source(error)
            })
        };
        Ok(Self([draw()?, draw()?]))
    }

    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        let Self([first, second]) = *self;
        #[expect(deprecated, reason = "see above")]
        let mut hasher = SipHasher::new_with_keys(first, second);
        hasher.write(key);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the paper that describes SipHash.
    #[test]
    fn it_is_the_hash_that_the_format_names() {
        let key = HashKey([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        let message: Vec<u8> = (0..15).collect();
        assert_eq!(key.hash(&message), 0xa129_ca61_49be_45e5);
        assert_eq!(key.hash(b"tierstack"), 0xc6e5_d4d0_667b_c0b2);
        assert_ne!(HashKey::random().unwrap(), HashKey::random().unwrap());
    }
}
