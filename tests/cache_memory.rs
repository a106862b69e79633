//! What an entry of the cache really takes of memory, against what it is counted as. The only test of its
//! file: an engine frees memory late, on any thread, so others would be measured along.

#![cfg(feature = "full")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test")]

use allocation_counter::measure;
use bytes::Bytes;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tierstack::backends::Memory;
use tierstack::layers::cache::{CacheConfig, CacheLayer, Policy};
use tierstack::units::ByteSize;
use tierstack::{Batch, Context, Layer, Read, Reply, Store};

/// What an allocator takes for each of its pieces, in addition to what was asked for: a word, and rounding up.
const PIECE: u64 = 16;

fn key(number: u64) -> Bytes {
    format!("{number:016}").into()
}

/// Entries, and what they are counted as.
fn gauges(snapshotter: &Snapshotter) -> (f64, f64) {
    let (mut entries, mut bytes) = (0.0, 0.0);
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        match (key.key().name(), value) {
            ("tierstack_cache_entries", DebugValue::Gauge(value)) => entries += value.0,
            ("tierstack_cache_bytes", DebugValue::Gauge(value)) => bytes += value.0,
            _ => {}
        }
    }
    (entries, bytes)
}

/// What a cache takes before anything is in it does not grow with its capacity.
fn an_empty_cache_is_small() {
    for policy in [Policy::S3Fifo, Policy::TinyLfu, Policy::Lru] {
        let taken = measure(|| {
            let config =
                CacheConfig { capacity: ByteSize(64 << 40), policy, ..CacheConfig::default() };
            let cache = CacheLayer::new(&config, &Context::default()).unwrap().layer(Memory::new());
            drop(cache);
        });
        assert!(taken.bytes_max < 4 << 20, "{policy:?}: {} bytes", taken.bytes_max);
    }
}

#[tokio::test]
async fn the_memory_that_is_really_taken_stays_within_the_capacity() {
    an_empty_cache_is_small();
    let mut most: f64 = 0.0;
    for policy in [Policy::S3Fifo, Policy::TinyLfu, Policy::Lru] {
        for (value, reads) in
            [(32, 60_000), (32, 80_000), (32, 100_000), (1 << 10, 40_000), (64 << 10, 1500)]
        {
            let recorder = DebuggingRecorder::new();
            // For about half of them.
            let each = value + if policy == Policy::S3Fifo { 160 } else { 400 };
            let capacity = ByteSize((reads * each / 2).max(1 << 20));
            let config = CacheConfig { capacity, policy, ..CacheConfig::default() };
            let memory = Memory::new();
            for number in 0..reads {
                let batch = Batch::new().put(key(number), vec![7; value as usize]);
                let _ = memory.write(batch).await.unwrap();
                // The first copy of a value allocates; the store below bears that.
                memory.get(&key(number)).await.unwrap();
            }
            let cache = metrics::with_local_recorder(&recorder, || {
                CacheLayer::new(&config, &Context::default()).unwrap().layer(memory)
            });
            let taken = measure(|| {
                for number in 0..reads {
                    assert!(matches!(cache.get(&key(number)), Reply::Now(Ok(Some(_)))));
                }
            });
            let (entries, counted) = gauges(&recorder.snapshotter());
            assert!(entries > 100.0 && entries < reads as f64 * 0.9, "{entries}");
            // A small value is copied into its entry. Another one that a store hands out and keeps no more has two
            // pieces of its own.
            let packed = policy == Policy::S3Fifo && value <= 1 << 10;
            let (own, shared) = if packed { (value as f64, 0.0) } else { (0.0, entries) };
            let pieces = taken.count_current as f64 + shared * 2.0;
            let overhead = (taken.bytes_current as f64 + 24.0 * shared + pieces * PIECE as f64)
                / entries
                - 16.0
                - own;
            println!(
                "{policy:?}: {overhead:.0} bytes in addition to key and value of {value} bytes, {entries} entries; counted as {:.0}",
                counted / entries - 16.0 - value as f64
            );
            let bytes = entries * (overhead + 16.0 + value as f64);
            let of_capacity = bytes / capacity.0 as f64;
            println!("  {of_capacity:.3} of the capacity");
            most = most.max(of_capacity);
            if policy == Policy::S3Fifo && value == 32 {
                assert!(overhead <= 110.0, "{overhead:.0} bytes in addition to a key and a value");
            }
        }
    }
    assert!(most < 1.01, "{most:.3} of the capacity");
}
