//! The seeds of tests that search: a few in each run, more in `scripts/soak`, and the one that failed again.

/// `TIERSTACK_SEED=17` runs that one, `TIERSTACK_SEEDS=500` that many from it on, or from 0.
pub(crate) fn seeds(usually: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (first, count) = (number("TIERSTACK_SEED"), number("TIERSTACK_SEEDS"));
    let count = count.unwrap_or(if first.is_some() { 1 } else { usually });
    let first = first.unwrap_or(0);
    first..first + count
}
