//! The journal against the disk, and against the log of RocksDB.
//!
//! `cargo bench --features full --bench journal`. The folder is made where `TMPDIR` says: a disk, not a memory.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark"
)]

mod harness;
#[path = "harness/synced_writers.rs"]
mod synced_writers;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tierstack::journal::{Journal, OnFull, Settings};
use tierstack::units::ByteSize;
use tokio::runtime::Runtime;

use self::synced_writers::VALUE;
use crate::harness::{compare, heading};

/// What the journal adds to a record, so that both sides write the same bytes.
const HEADER: usize = 29;
const RECOVERED: u64 = 256 << 20;

fn main() {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    heading();
    one_writer(&runtime, folder.path());
    many_writers(&runtime, folder.path());
    recovery(&runtime, folder.path());
}

/// A journal whose only reader is done with everything, so that it is never full.
fn open(runtime: &Runtime, folder: &Path) -> Arc<Journal> {
    let settings = Settings { max_bytes: ByteSize(4 << 30), on_full: OnFull::Refuse };
    Arc::new(runtime.block_on(Journal::open(folder, settings)).unwrap())
}

fn one_writer(runtime: &Runtime, folder: &Path) {
    let journal = open(runtime, &folder.join("one"));
    let mut file = File::create(folder.join("plain")).unwrap();
    let bytes = [7; VALUE + HEADER];
    compare(
        "one writer, 256 B, by a write and an fsync",
        |times| {
            for _ in 0..times {
                file.write_all(&bytes).unwrap();
                file.sync_data().unwrap();
            }
        },
        |times| {
            runtime.block_on(async {
                for _ in 0..times {
                    let sequence = journal.append(vec![7; VALUE]).await.unwrap();
                    journal.durable(sequence).await.unwrap();
                }
            });
        },
    );
    runtime.block_on(journal.close()).unwrap();
}

fn many_writers(runtime: &Runtime, folder: &Path) {
    let journal = open(runtime, &folder.join("many"));
    let writing = Arc::clone(&journal);
    synced_writers::many_writers(runtime, folder, move |_| {
        let journal = Arc::clone(&writing);
        async move {
            let sequence = journal.append(vec![7; VALUE]).await.unwrap();
            journal.durable(sequence).await.unwrap();
        }
    });
    runtime.block_on(journal.close()).unwrap();
}

/// What an open reads, and what the reader reads again.
fn recovery(runtime: &Runtime, folder: &Path) {
    for size in [VALUE, 64 << 10] {
        let folder = folder.join(format!("recovery-{size}"));
        let journal = open(runtime, &folder);
        runtime.block_on(async {
            for _ in 0..RECOVERED / (size + HEADER) as u64 {
                journal.append(vec![7; size]).await.unwrap();
            }
            journal.close().await.unwrap();
        });
        let begun = Instant::now();
        let journal = open(runtime, &folder);
        let opened = begun.elapsed();
        let mut records = 0;
        runtime.block_on(async {
            let mut reader = journal.reader("replay", 0).await.unwrap();
            loop {
                let page = reader.read(1 << 20).await.unwrap();
                if page.is_empty() {
                    break;
                }
                records += page.len();
            }
            journal.close().await.unwrap();
        });
        let (all, mib) = (begun.elapsed(), (RECOVERED >> 20) as f64);
        println!(
            "recovery of {mib} MiB in records of {size:>5} B: open {:.0} MiB/s, open and replay {:.0} MiB/s ({records} records)",
            mib / opened.as_secs_f64(),
            mib / all.as_secs_f64()
        );
    }
}
