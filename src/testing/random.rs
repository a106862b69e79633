//! A seeded sequence of numbers, so that a failure can be repeated.

use bytes::Bytes;

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, the same on every machine. Not for secrets.
///
/// ```
/// use tierstack::testing::Random;
///
/// assert_eq!(Random::new(7).next_u64(), Random::new(7).next_u64());
/// assert!(Random::new(7).below(10) < 10);
/// ```
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of that seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from zero to just below `end`; zero if `end` is zero.
    pub fn below(&mut self, end: usize) -> usize {
        // The bias of the remainder does not matter at the sizes of a test.
        usize::try_from(self.next_u64() >> 1).unwrap_or(0) % end.max(1)
    }

    /// True with that probability, from 0 to 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        // 53 bits: every one of them fits a double.
        ((self.next_u64() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// One of the choices; `None` of none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        choices.get(self.below(choices.len()))
    }

    /// That many bytes, which do not compress.
    pub fn bytes(&mut self, count: usize) -> Bytes {
        let words = count.div_ceil(8);
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| self.next_u64().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes.into()
    }
}
