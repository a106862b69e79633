//! What an entry takes of memory in addition to its key and value: ours, and what others take.
//!
//! Two figures: what the allocator is asked for, with two words for each piece, and by how much the memory of the
//! process grows. Redis tells its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use tierstack::backends::Memory;
use tierstack::layers::cache::{CacheConfig, CacheLayer, Policy};
use tierstack::{Batch, Context, Layer as _, Op, Read as _, Reply, Store as _, Value};
use tokio::runtime::Runtime;

/// Two points between which tables that double have doubled.
const ENTRIES: [usize; 2] = [150_000, 250_000];
const KEY: usize = 16;
/// What an allocator takes for each of its pieces, in addition to what was asked for: a word, and rounding up.
const PIECE: u64 = 16;

fn key(number: usize) -> Bytes {
    format!("{number:0KEY$}").into()
}

/// As a store hands it out that keeps it no more.
fn value(bytes: usize) -> Bytes {
    let value = Bytes::from(vec![7; bytes]);
    // The first copy allocates.
    drop(value.clone());
    value
}

const ROWS: [&str; 7] = [
    "tierstack, s3_fifo",
    "tierstack, tiny_lfu",
    "tierstack, lru",
    "quick_cache",
    "moka",
    "foyer's memory",
    "Redis, by its `used_memory`",
];

/// What a process that measures one figure is told: the row, the entries, the bytes of a value.
const ASKED: &str = "TIERSTACK_MEASURES";

/// Each figure is of a process of its own, where nothing was freed before.
pub(crate) fn memory(runtime: &Runtime) {
    if let Ok(asked) = std::env::var(ASKED) {
        let numbers: Vec<usize> = asked.split(' ').map(|word| word.parse().unwrap()).collect();
        let (counted, resident) = one(runtime, numbers[0], numbers[1], numbers[2]);
        println!("{counted} {resident}");
        return;
    }
    println!(
        "\nbytes of an entry in addition to its key of {KEY} bytes and its value: asked for (grown by), {} and {} entries",
        ENTRIES[0], ENTRIES[1]
    );
    println!("| | 32 B | 1 KiB |");
    println!("|---|---|---|");
    for (row, name) in ROWS.iter().enumerate() {
        let [small, large] = [32, 1024].map(|bytes| {
            let [few, many] = ENTRIES.map(|entries| in_a_process(row, entries, bytes));
            let span =
                |one: f64, other: f64| format!("{:.0} to {:.0}", one.min(other), one.max(other));
            format!("{} ({})", span(few.0, many.0), span(few.1, many.1))
        });
        println!("| {name} | {small} | {large} |");
    }
}

fn in_a_process(row: usize, entries: usize, bytes: usize) -> (f64, f64) {
    let mut measures = Command::new(std::env::current_exe().unwrap());
    measures.arg("memory").env(ASKED, format!("{row} {entries} {bytes}"));
    let output = measures.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (counted, resident) = text.trim().split_once(' ').unwrap();
    (counted.parse().unwrap(), resident.parse().unwrap())
}

fn one(runtime: &Runtime, row: usize, entries: usize, bytes: usize) -> (f64, f64) {
    let fill = |insert: &dyn Fn(Bytes, Value)| {
        taken(entries, bytes, || (0..entries).for_each(|n| insert(key(n), value(bytes).into())))
    };
    match row {
        0 => ours(runtime, Policy::S3Fifo, entries, bytes),
        1 => ours(runtime, Policy::TinyLfu, entries, bytes),
        2 => ours(runtime, Policy::Lru, entries, bytes),
        3 => {
            let cache = quick_cache::sync::Cache::<Bytes, Value>::new(entries * 2);
            fill(&|key, value| cache.insert(key, value))
        }
        4 => {
            let cache = moka::sync::Cache::<Bytes, Value>::new(entries as u64 * 2);
            fill(&|key, value| cache.insert(key, value))
        }
        5 => {
            let cache: foyer_memory::Cache<Bytes, Value> =
                foyer_memory::CacheBuilder::new(entries * 2).build();
            fill(&|key, value| drop(cache.insert(key, value)))
        }
        _ => match Redis::start() {
            Some(mut redis) => {
                let taken = redis.taken(entries, bytes);
                (taken, taken)
            }
            // There is no redis-server.
            None => (f64::NAN, f64::NAN),
        },
    }
}

/// What filling takes for each entry: as the allocator is asked, and of the process.
fn taken(entries: usize, bytes: usize, fill: impl FnOnce()) -> (f64, f64) {
    let before = resident();
    let counted = measure(fill);
    let each = |all: f64| all / entries as f64 - (KEY + bytes) as f64;
    let all = counted.bytes_current as f64 + counted.count_current as f64 * PIECE as f64;
    (each(all), each(resident().saturating_sub(before) as f64))
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = status.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or_default() * 4096
}

/// The store below hands out values that it holds; what that takes is added.
fn ours(runtime: &Runtime, policy: Policy, entries: usize, bytes: usize) -> (f64, f64) {
    let memory = Memory::new();
    runtime.block_on(async {
        for number in 0..entries {
            let _ = memory
                .write([Op::Put(key(number), vec![7; bytes].into())].into_iter().collect::<Batch>())
                .await
                .unwrap();
            memory.get(&key(number)).await.unwrap();
        }
    });
    let config = CacheConfig { policy, ..CacheConfig::default() };
    let config = CacheConfig { capacity: "4GiB".parse().unwrap(), ..config };
    let cache = CacheLayer::new(&config, &Context::default()).unwrap().layer(memory);
    let (counted, resident) = taken(entries, bytes, || {
        for number in 0..entries {
            assert!(matches!(cache.get(&key(number)), Reply::Now(Ok(Some(_)))));
        }
    });
    // With this policy it is copied into its entry.
    let shared = if policy == Policy::S3Fifo { 0 } else { bytes as u64 + 24 + 2 * PIECE };
    (counted + shared as f64, resident + shared as f64)
}

/// A server of its own, on a socket.
struct Redis {
    server: Child,
    connection: BufReader<UnixStream>,
    _folder: tempfile::TempDir,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Redis {
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("redis.sock");
        let mut server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        for _ in 0..200 {
            if let Ok(connection) = UnixStream::connect(&socket) {
                return Some(Self {
                    server,
                    connection: BufReader::new(connection),
                    _folder: folder,
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = server.kill();
        let _ = server.wait();
        None
    }

    fn send(&mut self, command: &[&[u8]]) {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            bytes.extend(format!("${}\r\n", word.len()).into_bytes());
            bytes.extend(*word);
            bytes.extend(b"\r\n");
        }
        self.connection.get_mut().write_all(&bytes).unwrap();
    }

    /// A line. The bytes that a `$` introduces are read after it.
    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.connection.read_line(&mut line).unwrap();
        let Some(length) = line.strip_prefix('$') else { return line };
        let mut text = vec![0; length.trim().parse::<usize>().unwrap() + 2];
        self.connection.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn used(&mut self) -> f64 {
        self.send(&[b"INFO", b"memory"]);
        let info = self.answer();
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        used.trim().parse().unwrap()
    }

    fn taken(&mut self, entries: usize, bytes: usize) -> f64 {
        self.send(&[b"FLUSHALL", b"SYNC"]);
        self.answer();
        let before = self.used();
        for number in 0..entries {
            self.send(&[b"SET", &key(number), &value(bytes)]);
            self.answer();
        }
        (self.used() - before) / entries as f64 - (KEY + bytes) as f64
    }
}
