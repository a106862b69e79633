//! How often reads hit concurrently with writes, by what becomes of what is written.

use std::collections::BTreeSet;

use bytes::Bytes;
use tierstack::backends::Memory;
use tierstack::layers::cache::{CacheConfig, CacheLayer, OnWrite, Policy};
use tierstack::testing::{FaultStore, Faults, Random};
use tierstack::units::ByteSize;
use tierstack::{Context, Layer as _, Operation, Read as _, StoreExt as _, Value};
use tokio::runtime::Runtime;

use super::requests::Requests;

/// Hits are counted after this part of the requests, when the cache is full.
const WARM_UP: usize = 3;

/// Which keys are written.
#[derive(Clone, Copy, PartialEq)]
enum Writes {
    /// Those that are read, as often.
    OfWhatIsRead,
    /// New ones, each read once shortly after.
    ReadOnce,
    /// New ones that nobody reads.
    NeverRead,
}

pub(crate) fn on_write(runtime: &Runtime) {
    let mut all = vec![Requests::zipf(50_000, 600_000)];
    if std::env::var_os("TIERSTACK_TRACE").is_some() {
        all.push(Requests::given(1_500_000));
    }
    for requests in all {
        println!(
            "\nhits in percent concurrently with writes: {}, {} keys, memory for a tenth",
            requests.origin, requests.keys
        );
        println!("| policy | writes | which | drop | keep |");
        println!("|---|---|---|---|---|");
        for policy in [Policy::S3Fifo, Policy::TinyLfu, Policy::Lru] {
            for (which, name) in [
                (Writes::OfWhatIsRead, "of what is read"),
                (Writes::ReadOnce, "new, and read once soon"),
                (Writes::NeverRead, "new, and never read"),
            ] {
                for writes in [10, 30, 50] {
                    let [drop, keep] = [OnWrite::Drop, OnWrite::Keep]
                        .map(|on_write| ratio(runtime, &requests, policy, on_write, which, writes));
                    println!("| {policy:?} | {writes} % | {name} | {drop:.1} | {keep:.1} |");
                }
            }
        }
    }
}

fn ratio(
    runtime: &Runtime,
    requests: &Requests,
    policy: Policy,
    on_write: OnWrite,
    which: Writes,
    writes: usize,
) -> f64 {
    let config = CacheConfig { on_write, ..holding(requests.keys as usize / 10, policy) };
    let faults = Faults::new();
    let memory = Memory::new();
    runtime.block_on(async {
        for n in 0..requests.keys {
            let _ = memory.put(key(u64::from(n)), value()).await.unwrap();
        }
    });
    let store = FaultStore::new(memory, &faults);
    let cache = CacheLayer::new(&config, &Context::default()).unwrap().layer(store);
    let mut random = Random::new(1);
    // A read that hits does not ask below.
    let (mut reads, mut misses) = (0, 0);
    runtime.block_on(async {
        for (at, n) in requests.order.iter().enumerate() {
            if at == requests.order.len() / WARM_UP {
                (reads, misses) = (0, faults.calls(Operation::Get));
            }
            let mut read = Some(key(u64::from(*n)));
            if random.below(100) < writes {
                let new = key((1 << 40) + at as u64);
                let written = if which == Writes::OfWhatIsRead { read.take() } else { None };
                read = (which == Writes::ReadOnce).then(|| new.clone());
                let _ = cache.put(written.unwrap_or(new), value()).await.unwrap();
            }
            if let Some(key) = read {
                reads += 1;
                assert!(cache.get(&key).await.unwrap().is_some());
            }
        }
    });
    let misses = faults.calls(Operation::Get) - misses;
    100.0 - misses as f64 * 100.0 / f64::from(reads)
}

/// Hits in percent of reads alone, with memory for that many entries.
pub(crate) fn hits(runtime: &Runtime, requests: &Requests, policy: Policy, entries: usize) -> f64 {
    let (faults, memory) = (Faults::new(), Memory::new());
    // Keys that come once are not among the numbered ones.
    let asked: BTreeSet<u32> = requests.order.iter().copied().collect();
    runtime.block_on(async {
        for n in asked {
            let _ = memory.put(key(u64::from(n)), value()).await.unwrap();
        }
        let store = FaultStore::new(memory, &faults);
        let config = holding(entries, policy);
        let cache = CacheLayer::new(&config, &Context::default()).unwrap().layer(store);
        for n in &requests.order {
            assert!(cache.get(&key(u64::from(*n))).await.unwrap().is_some());
        }
    });
    100.0 - faults.calls(Operation::Get) as f64 * 100.0 / requests.order.len() as f64
}

/// Settings with memory for that many entries, in addition to what is for loads.
fn holding(entries: usize, policy: Policy) -> CacheConfig {
    let each = if policy == Policy::S3Fifo { 521 } else { 576 + 17 + BYTES };
    let bytes = (entries * each) as u64;
    let capacity = [bytes * 4 / 3, bytes + (512 << 10), bytes * 32 / 31];
    // Loads have a 32nd, but half a MiB, but a quarter.
    let capacity = capacity[0].min(capacity[1].max(capacity[2]));
    // Moka leaves a 32nd free.
    let capacity = if policy == Policy::S3Fifo { capacity } else { capacity * 32 / 31 };
    CacheConfig { policy, capacity: ByteSize(capacity), ..CacheConfig::default() }
}

const BYTES: usize = 400;

fn value() -> Value {
    Value::new(vec![7; BYTES])
}

fn key(number: u64) -> Bytes {
    format!("user:{number:012}").into()
}
