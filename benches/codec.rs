//! Compression and sealing, against the libraries called directly in the same run.
//!
//! `cargo bench --bench codec`. Ratios are of time: below 1.11 is over 0.9 of the throughput. Values are
//! this project's sources. The baselines use their libraries as their documentation advises: zstd with a
//! context that is used again, XAES with a nonce drawn from the operating system for each value.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark")]

mod harness;

use std::hint::black_box;
use std::path::Path;

use bytes::Bytes;
use harness::{compare, heading};
use tierstack::backends::Memory;
use tierstack::codec::{Codec, Compressor, KeyRing};
use tierstack::layers::compress::{CompressConfig, CompressLayer};
use tierstack::layers::encrypt::EncryptLayer;
use tierstack::telemetry::Labels;
use tierstack::{Batch, Layer, ReadExt, Scan, Store, Value};
use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::{Aead, KeyInit, Payload};

const KEY: &[u8] = b"orders/2024/000042";

fn main() {
    let corpus = corpus();
    heading();
    for size in [4 << 10, 64 << 10] {
        let values: Vec<Bytes> =
            corpus.chunks_exact(size).take(64).map(Bytes::copy_from_slice).collect();
        assert!(values.len() >= 4, "the sources are too short");
        zstd(size, &values);
        lz4(size, &values);
        xaes(size, &values);
    }
    scan(&corpus);
}

/// The project's sources, one after another.
fn corpus() -> Vec<u8> {
    fn collect(folder: &Path, into: &mut Vec<u8>) {
        let mut paths: Vec<_> =
            folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                collect(&path, into);
            } else {
                into.extend(std::fs::read(path).unwrap());
            }
        }
    }
    let mut bytes = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut bytes);
    bytes
}

/// Runs over the values again and again.
fn each<'a, T: 'a, R>(values: &'a [T], mut run: impl FnMut(&'a T) -> R) -> impl FnMut(u64) {
    let mut next = values.iter().cycle();
    move |times| {
        for value in next.by_ref().take(times as usize) {
            black_box(run(value));
        }
    }
}

fn zstd(size: usize, values: &[Bytes]) {
    let ours = Compressor::new(Codec::Zstd, 3, 64).unwrap();
    let mut theirs = zstd::bulk::Compressor::new(3).unwrap();
    let packed: Vec<Vec<u8>> = values.iter().map(|value| theirs.compress(value).unwrap()).collect();
    let frames: Vec<Bytes> = values.iter().map(|value| ours.encode(value).unwrap()).collect();
    compare(
        &format!("zstd 3, {size} B, compress"),
        each(values, |value| theirs.compress(value).unwrap()),
        each(values, |value| ours.encode(value).unwrap()),
    );
    let mut theirs = zstd::bulk::Decompressor::new().unwrap();
    compare(
        &format!("zstd 3, {size} B, decompress"),
        each(&packed, |packed| theirs.decompress(packed, size).unwrap()),
        each(&frames, |frame| ours.decode(frame.clone()).unwrap()),
    );
}

fn lz4(size: usize, values: &[Bytes]) {
    use lz4_flex::block::{compress, decompress};
    let ours = Compressor::new(Codec::Lz4, 3, 64).unwrap();
    let packed: Vec<Vec<u8>> = values.iter().map(|value| compress(value)).collect();
    let frames: Vec<Bytes> = values.iter().map(|value| ours.encode(value).unwrap()).collect();
    compare(
        &format!("lz4, {size} B, compress"),
        each(values, |value| compress(value)),
        each(values, |value| ours.encode(value).unwrap()),
    );
    compare(
        &format!("lz4, {size} B, decompress"),
        each(&packed, |packed| decompress(packed, size).unwrap()),
        each(&frames, |frame| ours.decode(frame.clone()).unwrap()),
    );
}

fn xaes(size: usize, values: &[Bytes]) {
    let ours = ring();
    let theirs = Xaes256Gcm::new(&[7; 32].into());
    let seal = |value: &Bytes| {
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).unwrap();
        (nonce, theirs.encrypt(&nonce.into(), Payload { msg: value, aad: KEY }).unwrap())
    };
    let sealed: Vec<([u8; 24], Vec<u8>)> = values.iter().map(seal).collect();
    let plain: Vec<Value> = values.iter().cloned().map(Value::new).collect();
    let frames: Vec<Bytes> = plain.iter().map(|value| ours.seal(KEY, value).unwrap()).collect();
    compare(
        &format!("xaes-256-gcm, {size} B, seal"),
        each(values, seal),
        each(&plain, |value| ours.seal(KEY, value).unwrap()),
    );
    compare(
        &format!("xaes-256-gcm, {size} B, open"),
        each(&sealed, |(nonce, text)| {
            theirs.decrypt(nonce.into(), Payload { msg: text, aad: KEY }).unwrap()
        }),
        each(&frames, |frame| ours.open(KEY, frame.clone()).unwrap()),
    );
}

fn ring() -> KeyRing {
    KeyRing::parse(KeyRing::generate().unwrap().expose()).unwrap()
}

/// A full scan through both layers, against the store's own scan and decoding by hand.
fn scan(corpus: &[u8]) {
    const ENTRIES: usize = 1000;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (ring, codec) = (ring(), Compressor::new(Codec::Zstd, 3, 64).unwrap());
    let mut plain = Batch::new();
    for (at, value) in corpus.chunks_exact(500).cycle().take(ENTRIES).enumerate() {
        let key = Bytes::from(format!("{at:08}"));
        let frame = ring.seal(&key, &codec.encode(value).unwrap().into()).unwrap();
        plain = plain.put(key, frame);
    }
    let memory = std::sync::Arc::new(Memory::new());
    let _acknowledged = runtime.block_on(memory.write(plain)).unwrap();
    let (by_hand, by_layers) = (std::sync::Arc::clone(&memory), memory);
    let direct = |times| {
        for _ in 0..times {
            for entry in runtime.block_on(by_hand.collect(Scan::all())).unwrap() {
                let opened = ring.open(&entry.key, entry.value.bytes).unwrap();
                black_box(codec.decode(opened.bytes).unwrap());
            }
        }
    };
    let labels = Labels::default();
    let text = KeyRing::generate().unwrap();
    let inner = EncryptLayer::new(KeyRing::parse(text.expose()).unwrap(), false, &labels);
    let outer = CompressLayer::new(&CompressConfig::default(), &labels).unwrap();
    let store = outer.layer(inner.layer(Memory::new()));
    for entry in runtime.block_on(by_layers.collect(Scan::all())).unwrap() {
        let value = codec.decode(ring.open(&entry.key, entry.value.bytes).unwrap().bytes).unwrap();
        let _acknowledged =
            runtime.block_on(store.write(Batch::new().put(entry.key, value))).unwrap();
    }
    compare(&format!("scan of {ENTRIES} entries of 500 B, both layers"), direct, |times| {
        for _ in 0..times {
            black_box(runtime.block_on(store.collect(Scan::all())).unwrap().len());
        }
    });
}
