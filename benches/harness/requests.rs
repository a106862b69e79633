//! Which keys are read, in which order: a trace of a real cache, or a skewed pattern.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

/// Indices of keys, in the order in which they are read.
pub(crate) struct Requests {
    pub(crate) order: Vec<u32>,
    /// How many keys there are.
    pub(crate) keys: u32,
    /// Where they come from, in words.
    pub(crate) origin: String,
}

impl Requests {
    /// The trace that `TIERSTACK_TRACE` names, at most that many requests of it; without one a Zipf
    /// pattern.
    pub(crate) fn given(most: usize) -> Self {
        match std::env::var_os("TIERSTACK_TRACE") {
            Some(path) => Self::of_trace(Path::new(&path), most),
            None => Self::zipf(20_000, most.min(100_000)),
        }
    }

    /// Big-endian 32-bit ids, plain or in xz.
    fn of_trace(path: &Path, most: usize) -> Self {
        let packed = std::fs::read(path).unwrap();
        let mut ids = Vec::new();
        if packed.starts_with(b"\xfd7zXZ\0") {
            lzma_rust2::XzReader::new(&*packed, true).read_to_end(&mut ids).unwrap();
        } else {
            ids = packed;
        }
        let mut given = HashMap::new();
        let order: Vec<u32> = ids
            .chunks_exact(4)
            .take(most)
            .map(|id| {
                let next = u32::try_from(given.len()).unwrap();
                *given.entry(<[u8; 4]>::try_from(id).unwrap()).or_insert(next)
            })
            .collect();
        let name = path.file_name().unwrap().to_string_lossy();
        let name = name.trim_end_matches(".xz").trim_end_matches(".trace").to_owned();
        Self { order, keys: u32::try_from(given.len()).unwrap(), origin: format!("trace {name}") }
    }

    /// The key of rank r with a probability of 1/r, the ranks dealt out over the keys.
    pub(crate) fn zipf(keys: u32, reads: usize) -> Self {
        let mut sum = 0.0;
        let until: Vec<f64> = (1..=keys)
            .map(|rank| {
                sum += 1.0 / f64::from(rank);
                sum
            })
            .collect();
        let mut state = 0x7469_6572_7374_6163_u64;
        let order = (0..reads)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let drawn = (state >> 11) as f64 / (1_u64 << 53) as f64 * sum;
                let rank = until.partition_point(|until| *until <= drawn) as u64;
                u32::try_from(rank * 7919 % u64::from(keys)).unwrap()
            })
            .collect();
        Self { order, keys, origin: "Zipf pattern, exponent 1".to_owned() }
    }
}

/// Patterns that a benchmark makes.
impl Requests {
    /// A Zipf pattern, and between its reads, every so often, a range of keys that are never read again.
    pub(crate) fn scans(keys: u32, reads: usize) -> Self {
        let skewed = Self::zipf(keys, reads);
        let mut order = Vec::with_capacity(reads * 2);
        let mut fresh = keys;
        for chunk in skewed.order.chunks(keys as usize) {
            order.extend_from_slice(chunk);
            order.extend(fresh..fresh + keys / 2);
            fresh += keys / 2;
        }
        Self { order, keys, origin: "Zipf pattern, scans between".to_owned() }
    }

    /// The same keys in the same order, again and again.
    pub(crate) fn loops(keys: u32, reads: usize) -> Self {
        let order = (0..keys).cycle().take(reads).collect();
        Self { order, keys, origin: "loop".to_owned() }
    }
}
