//! The RocksDB backend against the `rocksdb` crate used directly, on the same data with the same options.
//!
//! `cargo bench --features rocksdb --bench rocksdb`

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark"
)]

mod harness;

use std::cell::Cell;
use std::hint::black_box;
use std::path::Path;

use bytes::Bytes;
use futures_util::StreamExt;
use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, Options, WriteOptions};
use tierstack::backends::{RocksDb, RocksDbConfig};
use tierstack::units::ByteSize;
use tierstack::{Batch, Read, Reply, Scan, Store};
use tokio::runtime::Runtime;

use crate::harness::{compare, heading};

const ENTRIES: u64 = 100_000;
const LARGE: u64 = 256 << 20;
/// Less than the data, so that most reads miss.
const SMALL: u64 = 1 << 20;

fn key(number: u64) -> Bytes {
    format!("user:{number:012}").into()
}

fn value(number: u64) -> Vec<u8> {
    let mut state = number | 1;
    (0..100)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 60) as u8
        })
        .collect()
}

/// Keys in an order that no prefetching guesses.
struct Keys {
    keys: Vec<Bytes>,
    at: Cell<usize>,
}

impl Keys {
    fn new() -> Self {
        Self { keys: (0..ENTRIES).map(|n| key(n * 7919 % ENTRIES)).collect(), at: Cell::new(0) }
    }

    fn next(&self) -> &Bytes {
        let at = self.at.get();
        self.at.set(if at + 1 == self.keys.len() { 0 } else { at + 1 });
        &self.keys[at]
    }
}

fn fill(path: &Path, cache: u64) -> DB {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(cache as usize));
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_block_based_table_factory(&table);
    let db = DB::open(&options, path).unwrap();
    for number in 0..ENTRIES {
        db.put(key(number), value(number)).unwrap();
    }
    db.flush().unwrap();
    db.compact_range(None::<&[u8]>, None::<&[u8]>);
    db
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let (bare_folder, ours_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(fill(ours_folder.path(), LARGE));
    let bare = fill(bare_folder.path(), LARGE);
    let open = |sync, cache| {
        let mut config = RocksDbConfig::new(ours_folder.path());
        (config.sync, config.block_cache_size) = (sync, ByteSize(cache));
        runtime.block_on(RocksDb::open(config)).unwrap()
    };
    let keys = Keys::new();
    heading();

    let ours = open(false, LARGE);
    let fill_caches = || {
        for number in 0..ENTRIES {
            let key = key(number);
            black_box(bare.get_pinned(&key).unwrap());
            black_box(runtime.block_on(ours.get(&key)).unwrap());
        }
    };
    fill_caches();
    compare(
        "get, block cached",
        |times| {
            for _ in 0..times {
                black_box(bare.get(keys.next()).unwrap());
            }
        },
        |times| {
            for _ in 0..times {
                let Reply::Now(found) = ours.get(keys.next()) else { panic!("a thread hop") };
                black_box(found.unwrap());
            }
        },
    );
    compare(
        "get, missing key",
        |times| {
            for _ in 0..times {
                black_box(bare.get(b"user:000000000042x").unwrap());
            }
        },
        |times| {
            for _ in 0..times {
                let Reply::Now(found) = ours.get(b"user:000000000042x") else {
                    panic!("a thread hop")
                };
                black_box(found.unwrap());
            }
        },
    );
    let many = |count: usize| -> Vec<Bytes> { (0..count).map(|_| keys.next().clone()).collect() };
    compare(
        "get_many of 100, blocks cached",
        |times| {
            for _ in 0..times {
                black_box(bare.multi_get(many(100)));
            }
        },
        |times| {
            for _ in 0..times {
                let keys = many(100);
                black_box(runtime.block_on(ours.get_many(&keys)).unwrap());
            }
        },
    );
    let mut number = 0;
    let mut next = move || {
        number += 1;
        number % ENTRIES
    };
    compare(
        "put, not synced",
        |times| {
            for number in 0..times {
                bare.put(key(number % ENTRIES), value(number)).unwrap();
            }
        },
        |times| {
            runtime.block_on(async {
                for number in 0..times {
                    let batch = Batch::new().put(key(number % ENTRIES), value(number));
                    let _ = ours.write(batch).await.unwrap();
                }
            });
        },
    );
    bare.flush().unwrap();
    bare.compact_range(None::<&[u8]>, None::<&[u8]>);
    runtime.block_on(ours.compact()).unwrap();
    for (name, reverse) in [("scan, forward, an entry", false), ("scan, reverse, an entry", true)] {
        compare(
            name,
            |times| {
                let mut left = times;
                while left > 0 {
                    let mut iterator = bare.raw_iterator();
                    if reverse {
                        iterator.seek_to_last()
                    } else {
                        iterator.seek_to_first()
                    }
                    while let (Some((key, value)), true) = (iterator.item(), left > 0) {
                        black_box((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                        left -= 1;
                        if reverse { iterator.prev() } else { iterator.next() }
                    }
                }
            },
            |times| {
                runtime.block_on(async {
                    let mut left = times;
                    while left > 0 {
                        let scan = Scan::all().limit(left);
                        let mut pages = ours.scan(if reverse { scan.reverse() } else { scan });
                        while let Some(page) = pages.next().await {
                            for entry in page.unwrap().entries {
                                black_box(entry);
                                left -= 1;
                            }
                        }
                    }
                });
            },
        );
    }
    fill_caches();
    compare(
        "scan of 20 entries",
        |times| {
            for _ in 0..times {
                let mut iterator = bare.raw_iterator();
                iterator.seek(keys.next());
                for _ in 0..20 {
                    if let Some((key, value)) = iterator.item() {
                        black_box((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                    }
                    iterator.next();
                }
            }
        },
        |times| {
            runtime.block_on(async {
                for _ in 0..times {
                    let mut pages = ours.scan(Scan::range(keys.next().clone()..).limit(20));
                    while let Some(page) = pages.next().await {
                        black_box(page.unwrap());
                    }
                }
            });
        },
    );
    runtime.block_on(ours.close()).unwrap();

    let ours = open(true, LARGE);
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    compare(
        "put, synced",
        |times| {
            for _ in 0..times {
                let number = next();
                bare.put_opt(key(number), value(number), &synced).unwrap();
            }
        },
        |times| {
            runtime.block_on(async {
                for number in 0..times {
                    let batch = Batch::new().put(key(number % ENTRIES), value(number));
                    let _ = ours.write(batch).await.unwrap();
                }
            });
        },
    );
    runtime.block_on(ours.close()).unwrap();
    drop(bare);

    std::fs::remove_dir_all(bare_folder.path()).unwrap();
    let bare = fill(bare_folder.path(), SMALL);
    let ours = open(false, SMALL);
    compare(
        "get, block in the page cache of the system",
        |times| {
            for _ in 0..times {
                black_box(bare.get(keys.next()).unwrap());
            }
        },
        |times| {
            runtime.block_on(async {
                for _ in 0..times {
                    black_box(ours.get(keys.next()).await.unwrap());
                }
            });
        },
    );
    runtime.block_on(ours.close()).unwrap();
}
