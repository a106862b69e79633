//! What is read, in which order, and how long each read took.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use tierstack::Error;

use crate::failure::{Failure, Outcome};
use crate::output::count;
use crate::workload::{Request, Trace};

/// Reads without a trace.
pub(crate) const READS: usize = 300_000;
/// A few of them.
pub(crate) const QUICK_READS: usize = 3_000;
/// Requests of a trace that are replayed. Commands say when a trace has more.
pub(crate) const MAX_REQUESTS: usize = 5_000_000;
const SEED: u64 = 0x7469_6572_7374_6163;

/// A trace that cannot be read shows at once, not after the import.
pub(crate) fn look_at(path: &Path) -> Outcome {
    if path.exists() && !path.is_file() {
        // A pipe can be read once only.
        return Ok(());
    }
    match Trace::open(path)?.next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(unreadable(path, error)),
        None => Err(nothing_in(path)),
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    // A damaged trace is wrong input, and no damage to a store.
    Error::invalid(format!("the trace {} cannot be read", path.display())).with_source(error).into()
}

fn nothing_in(path: &Path) -> Failure {
    Failure::usage(format!("the trace {} holds no request", path.display()))
}

/// Indices of keys, in the order in which they are read.
pub(crate) struct Pattern {
    pub(crate) reads: Vec<u32>,
    /// Where it comes from, in words.
    pub(crate) origin: String,
}

impl Pattern {
    /// Some keys are read often and most seldom, as caches meet it: the key of rank r with a
    /// probability of 1/r (Zipf), the ranks dealt out at random.
    pub(crate) fn zipf(keys: usize, reads: usize) -> Self {
        let mut random = SplitMix(SEED);
        let mut ranked: Vec<u32> = (0..u32::try_from(keys).unwrap_or(u32::MAX)).collect();
        for at in (1..ranked.len()).rev() {
            ranked.swap(at, random.below(at + 1));
        }
        let mut sum = 0.0;
        let cumulated: Vec<f64> = (1..=ranked.len())
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        let draw = |_| {
            let at = random.unit() * sum;
            let rank = cumulated.partition_point(|until| *until <= at);
            ranked.get(rank).or(ranked.last()).copied().unwrap_or(0)
        };
        let reads = (0..reads).map(draw).collect();
        Self { reads, origin: "a skewed pattern (Zipf, exponent 1, fixed seed)".to_owned() }
    }

    /// The requests of a trace. A key that is there stands for itself; any other, and each id,
    /// stands for the next key that is free, and over again when all are taken.
    pub(crate) fn of_trace(path: &Path, keys: &[Bytes], most: usize) -> Outcome<Self> {
        let place: HashMap<&[u8], u32> = (0..).zip(keys).map(|(at, key)| (&**key, at)).collect();
        let mut given: HashMap<Request, u32> = HashMap::new();
        let mut reads = Vec::new();
        let mut trace = Trace::open(path)?;
        for request in trace.by_ref().take(most) {
            let request = request.map_err(|error| unreadable(path, error))?;
            if let Request::Key(key) = &request
                && let Some(at) = place.get(key.as_slice())
            {
                reads.push(*at);
                continue;
            }
            let next = u32::try_from(given.len() % keys.len().max(1)).unwrap_or(u32::MAX);
            reads.push(*given.entry(request).or_insert(next));
        }
        if reads.is_empty() {
            return Err(nothing_in(path));
        }
        let asked = match trace.next() {
            Some(_) => format!("the first {} requests of ", count(reads.len() as u64)),
            None => String::new(),
        };
        let (ids, there) = (count(given.len() as u64), count(keys.len() as u64));
        let origin = format!("{asked}the trace {}, its {ids} ids on {there} keys", path.display());
        Ok(Self { reads, origin })
    }
}

/// How long reads took.
#[derive(Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The time within which that share of the reads was answered. Exact: nothing is put in buckets.
    pub(crate) fn percentile(&mut self, share: f64) -> Option<Duration> {
        let at = ((self.0.len() as f64 * share).ceil() as usize).checked_sub(1)?;
        let (_, nanos, _) = self.0.select_nth_unstable(at);
        Some(Duration::from_nanos(u64::from(*nanos)))
    }

    /// Each of them, in nanoseconds.
    pub(crate) fn nanos(&self) -> &[u32] {
        &self.0
    }

    pub(crate) fn mean(&self) -> Option<Duration> {
        let sum: u64 = self.0.iter().map(|nanos| u64::from(*nanos)).sum();
        sum.checked_div(self.0.len() as u64).map(Duration::from_nanos)
    }
}

/// SplitMix64, by Sebastiano Vigna (public domain): the same numbers on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, and without, 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.unit() * bound as f64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_skewed_and_always_the_same() {
        let pattern = Pattern::zipf(1000, QUICK_READS);
        assert_eq!(pattern.reads, Pattern::zipf(1000, QUICK_READS).reads);
        let mut counts = vec![0; 1000];
        for read in &pattern.reads {
            counts[*read as usize] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let first: usize = counts.iter().take(10).sum();
        let share = first as f64 / pattern.reads.len() as f64;
        // The harmonic numbers: H(10) / H(1000) = 2.93 / 7.49.
        assert!((share - 0.39).abs() < 0.05, "{share}");
    }

    #[test]
    fn a_trace_reads_its_own_keys_and_gives_ids_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        std::fs::write(&path, "b\nother\nb\nmore\nother\nthird\n").unwrap();
        let keys = ["a", "b"].map(Bytes::from);
        let pattern = Pattern::of_trace(&path, &keys, 3000).ok().unwrap();
        assert_eq!(pattern.reads, [1, 0, 1, 1, 0, 0]);
        std::fs::write(&path, "\n").unwrap();
        assert!(Pattern::of_trace(&path, &keys, 3000).is_err());
    }

    #[test]
    fn percentiles_are_exact() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(0.5), None);
        for nanos in (1..=100).rev() {
            latencies.add(Duration::from_nanos(nanos));
        }
        assert_eq!(latencies.percentile(0.5), Some(Duration::from_nanos(50)));
        assert_eq!(latencies.percentile(0.99), Some(Duration::from_nanos(99)));
        assert_eq!(latencies.percentile(1.0), Some(Duration::from_nanos(100)));
        assert_eq!(latencies.mean(), Some(Duration::from_nanos(50)));
    }
}
