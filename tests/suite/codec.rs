//! Frames that were written once are read for ever, and both codecs in one stack.
//!
//! The fixtures were written by [`write_fixtures`] and never change: a new format gets new files.

#![cfg(all(feature = "compress", feature = "encrypt"))]

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tierstack::backends::Memory;
use tierstack::codec::{Codec, Compressor, KeyRing};
use tierstack::layers::compress::{CompressConfig, CompressLayer};
use tierstack::layers::encrypt::EncryptLayer;
use tierstack::telemetry::Labels;
use tierstack::{Batch, Layer, Read, ReadExt, Rewrite, Scan, Store, Timestamp, Value};

/// The key of the entry that the sealed fixture belongs to.
const KEY: &[u8] = b"fixture";

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/frames", name].iter().collect()
}

fn read(name: &str) -> Bytes {
    std::fs::read(fixture(name)).unwrap().into()
}

fn ring() -> KeyRing {
    KeyRing::parse(std::str::from_utf8(&read("key-ring.txt")).unwrap()).unwrap()
}

fn compressor(codec: Codec, min_size: usize) -> Compressor {
    Compressor::new(codec, 3, min_size).unwrap()
}

#[test]
fn frames_of_every_version_are_read() {
    let value = read("value.txt");
    let compressor = compressor(Codec::Zstd, 0);
    for name in ["v1-stored.frame", "v1-zstd.frame", "v1-lz4.frame"] {
        assert_eq!(compressor.decode(read(name)).unwrap(), value, "{name}");
    }
    let opened = |name| ring().open(KEY, read(name)).unwrap();
    assert_eq!(opened("v1-xaes.frame"), value.clone().into());
    let until = Timestamp::from_millis(1_700_000_000_123);
    assert_eq!(opened("v1-xaes-until.frame"), Value::new(value).expiring_at(until));
}

/// What `docs/formats/frames.md` draws, byte by byte.
#[test]
fn frames_are_as_they_are_drawn() {
    let (value, stored, sealed) =
        (read("value.txt"), read("v1-stored.frame"), read("v1-xaes.frame"));
    assert_eq!(stored[..5], *b"\xf5tsC\x10");
    assert_eq!(usize::from(stored[5] & 0x7f) + usize::from(stored[6]) * 128, value.len());
    let (summed, sum) = stored.split_last_chunk::<4>().unwrap();
    assert_eq!(summed[7..], value[..]);
    assert_eq!(*sum, crc32fast::hash(summed).to_le_bytes());
    assert_eq!(read("v1-zstd.frame")[4], 0x11);
    assert_eq!(read("v1-zstd.frame")[7..11], 0xfd2f_b528_u32.to_le_bytes(), "a zstd frame");
    assert_eq!(read("v1-lz4.frame")[4], 0x12);
    assert_eq!(sealed[..5], *b"\xf5tsE\x11");
    let id = sealed[5..9].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(read("key-ring.txt").starts_with(format!("ts1:{id}:").as_bytes()));
    assert_eq!(sealed.len(), 9 + 24 + value.len() + 16);
}

/// Writes the fixtures that are missing: `cargo test --test suite codec:: -- --ignored`.
#[test]
#[ignore = "writes files"]
fn write_fixtures() {
    let write = |name: &str, bytes: &dyn Fn() -> Bytes| {
        if !fixture(name).exists() {
            std::fs::write(fixture(name), bytes()).unwrap();
        }
    };
    let value = || Bytes::from("Frames that were written once are read for ever.\n".repeat(20));
    write("value.txt", &value);
    write("v1-stored.frame", &|| compressor(Codec::Zstd, usize::MAX).encode(&value()).unwrap());
    write("v1-zstd.frame", &|| compressor(Codec::Zstd, 0).encode(&value()).unwrap());
    write("v1-lz4.frame", &|| compressor(Codec::Lz4, 0).encode(&value()).unwrap());
    write("key-ring.txt", &|| format!("{}\n", KeyRing::generate().unwrap().expose()).into());
    write("v1-xaes.frame", &|| ring().seal(KEY, &value().into()).unwrap());
    let until = Timestamp::from_millis(1_700_000_000_123);
    write("v1-xaes-until.frame", &|| {
        ring().seal(KEY, &Value::new(value()).expiring_at(until)).unwrap()
    });
}

/// The order in which a user switches both on over a store that another program wrote.
#[tokio::test]
async fn both_layers_are_switched_on_under_live_data_and_back_to_strict() {
    let memory: Arc<dyn Store> = Arc::new(Memory::new());
    let plain = |n: usize| format!("{n}: {}", "what another program wrote. ".repeat(n));
    let batch = (0..300).fold(Batch::new(), |batch, n| batch.put(format!("{n:03}"), plain(n)));
    memory.write(batch).await.unwrap().durable().await.unwrap();
    let before = memory.collect(Scan::all()).await.unwrap();

    let labels = Labels::default();
    let compress = |accept_plain| {
        let config = CompressConfig { accept_plain, ..CompressConfig::default() };
        CompressLayer::new(&config, &labels).unwrap()
    };
    let encrypt = |accept_plain| EncryptLayer::new(ring(), accept_plain, &labels);

    let (outer, inner) = (compress(true), encrypt(true));
    let sealed: Arc<dyn Store> = Arc::new(inner.layer(Arc::clone(&memory)));
    let store = outer.layer(Arc::clone(&sealed));
    assert_eq!(store.collect(Scan::all()).await.unwrap(), before);
    // From the outside in: what the outer one writes, the inner one need not write again.
    let report = outer.rewriter(sealed).rewrite(Scan::all(), &mut |_: &_| ()).await.unwrap();
    assert_eq!((report.examined, report.rewritten), (300, 300));
    let inner = inner.rewriter(Arc::clone(&memory));
    let report = inner.rewrite(Scan::all(), &mut |_: &_| ()).await.unwrap();
    assert_eq!((report.examined, report.rewritten), (300, 0));

    let strict = compress(false).layer(encrypt(false).layer(Arc::clone(&memory)));
    assert_eq!(strict.collect(Scan::all()).await.unwrap(), before);
    assert_eq!(strict.get(b"299").await.unwrap(), Some(plain(299).into()));
    for entry in memory.collect(Scan::all()).await.unwrap() {
        assert!(KeyRing::is_frame(&entry.value.bytes));
    }
}
