//! Writers that wait until each write is on the disk, against RocksDB's log.

use std::cell::Cell;
use std::path::Path;

use rocksdb::{DB, Options, WriteOptions};
use tokio::runtime::Runtime;

use crate::harness::compare;

/// Bytes of a value.
pub(crate) const VALUE: usize = 256;
pub(crate) const WRITERS: u64 = 64;
/// Writes of each writer in an operation of the comparison.
const EACH: u64 = 16;

/// Compares many writers, each of which writes entries of these numbers, with puts of RocksDB: one after the other, and by
/// as many threads.
pub(crate) fn many_writers<F: Future<Output = ()> + Send + 'static>(
    runtime: &Runtime,
    folder: &Path,
    write: impl Fn(u64) -> F + Clone + Send + Sync + 'static,
) {
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, folder.join("rocksdb")).unwrap();
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    let next = Cell::new(0u64);
    let numbers = |first: u64, writer: u64| first + writer * EACH..first + (writer + 1) * EACH;
    let ours = |times: u64| {
        for _ in 0..times {
            let first = next.replace(next.get() + WRITERS * EACH);
            runtime.block_on(async {
                let tasks: Vec<_> = (0..WRITERS)
                    .map(|writer| {
                        let write = write.clone();
                        tokio::spawn(async move {
                            for number in numbers(first, writer) {
                                write(number).await;
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
            });
        }
    };
    let put = |number: u64| db.put_opt(number.to_be_bytes(), [7; VALUE], &synced).unwrap();
    compare(
        "64 writers of 16, by synced puts one by one",
        |times| {
            for _ in 0..times * WRITERS * EACH {
                put(next.replace(next.get() + 1));
            }
        },
        ours,
    );
    compare(
        "64 writers of 16, by RocksDB's groups",
        |times| {
            for _ in 0..times {
                std::thread::scope(|scope| {
                    let first = next.replace(next.get() + WRITERS * EACH);
                    for writer in 0..WRITERS {
                        scope.spawn(move || numbers(first, writer).for_each(put));
                    }
                });
            }
        },
        ours,
    );
}
