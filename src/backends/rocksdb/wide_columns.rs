//! Wide-column entities (`PutEntity`) of another program: several named columns under one key. RocksDB's C
//! interface shows the column without a name alone, and an empty value where there is none; a put replaces all
//! of them. So a column family with entities is refused: at opening, by the first block of some of its tables, and
//! when an entity without such a column is read, or, in a database of a program with another RocksDB, is to be
//! replaced.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;

use ::rocksdb::{DB, Env, LiveFile, Options, WriteBatch};

use super::config::RocksDbConfig;
use super::error::failed;
use crate::error::{Error, Operation, Result};

/// The type of an entity, which is the first byte of the trailer of its key.
const ENTITY: u8 = 0x16;
/// Bytes of the trailer, which follows each key.
const TRAILER: usize = 8;

pub(super) fn refused() -> Error {
    Error::unsupported(
        "the column family holds wide columns (entities), of which only one would be seen here, and which a put would replace; only the program that wrote them can use them",
    )
    .with_layer("rocksdb")
}

/// Tables that are looked at when a database is opened, and bytes of the first block of each.
const TABLES: usize = 32;
const BLOCK: usize = 4 << 10;

/// Refuses a column family with entities at the beginning of one of its tables. Blocks.
pub(super) fn refuse(db: &DB, config: &RocksDbConfig) -> Result<()> {
    let mut tables = db.live_files().map_err(|error| failed(Operation::Open, error))?;
    tables.retain(|table| table.column_family_name == config.column_family);
    let step = tables.len().div_ceil(TABLES).max(1);
    let begins =
        |table: &LiveFile| config.table_folders().any(|folder| begins_with_entity(folder, table));
    let found = tables.iter().step_by(step).any(begins);
    if found { Err(refused()) } else { Ok(()) }
}

/// Whether an entity is in the first block of a table, as far as that can be told: what cannot be read as such
/// a block holds none.
fn begins_with_entity(folder: &Path, table: &LiveFile) -> bool {
    let Some(first) = &table.start_key else { return false };
    let mut file = Vec::new();
    let name = table.name.trim_start_matches('/');
    let most = (first.len() + 16 * BLOCK) as u64;
    let read =
        File::open(folder.join(name)).and_then(|open| open.take(most).read_to_end(&mut file));
    let wanted = first.len() + BLOCK;
    read.is_ok()
        && [plain, snappy, lz4, zstd]
            .into_iter()
            .filter_map(|expand| expand(&file, wanted))
            .any(|block| has_entity(&block, first).unwrap_or(false))
}

/// Looks at the entries of a block that begins with a key. `None`: it does not.
///
/// Behind the entries is a zero, which is no entry.
fn has_entity(mut block: &[u8], first: &[u8]) -> Option<bool> {
    let mut key = Vec::new();
    let mut kind = next_entry(&mut block, &mut key)?;
    if !key.starts_with(first) || key.len() != first.len() + TRAILER {
        return None;
    }
    while kind != ENTITY {
        match next_entry(&mut block, &mut key) {
            Some(next) => kind = next,
            None => return Some(false),
        }
    }
    Some(true)
}

/// Reads the key of the next entry, of which only the end may be there, and passes over its value. Gives the
/// type of the entry.
fn next_entry(block: &mut &[u8], key: &mut Vec<u8>) -> Option<u8> {
    let (shared, rest, value) = (varint(block)?, varint(block)?, varint(block)?);
    key.truncate(shared);
    key.extend_from_slice(take(block, rest)?);
    // Of the last value not all may have been expanded.
    *block = block.get(value..).unwrap_or_default();
    key.get(key.len().checked_sub(TRAILER)?).copied()
}

fn plain(file: &[u8], _: usize) -> Option<Vec<u8>> {
    Some(file.to_vec())
}

/// The beginning of a block that Snappy has compressed.
fn snappy(mut from: &[u8], wanted: usize) -> Option<Vec<u8>> {
    let wanted = varint(&mut from)?.min(wanted);
    let mut out = Vec::new();
    while out.len() < wanted {
        let tag = usize::from(byte(&mut from)?);
        let high = tag >> 2;
        let (back, length) = match tag & 3 {
            0 => {
                let length = if high < 60 { high } else { number(&mut from, high - 59)? };
                out.extend_from_slice(take(&mut from, length.checked_add(1)?)?);
                continue;
            }
            1 => (((high >> 3) << 8) | usize::from(byte(&mut from)?), (high & 7) + 4),
            2 => (number(&mut from, 2)?, high + 1),
            _ => (number(&mut from, 4)?, high + 1),
        };
        repeat(&mut out, back, length)?;
    }
    Some(out)
}

/// The beginning of a block that LZ4 has compressed, behind its length.
fn lz4(mut from: &[u8], wanted: usize) -> Option<Vec<u8>> {
    let wanted = varint(&mut from)?.min(wanted);
    let mut out = Vec::new();
    let more = |from: &mut &[u8], mut length: usize| {
        if length == 15 {
            loop {
                let next = byte(from)?;
                length = length.checked_add(next.into())?;
                if next < 255 {
                    break;
                }
            }
        }
        Some(length)
    };
    loop {
        let token = usize::from(byte(&mut from)?);
        let length = more(&mut from, token >> 4)?;
        out.extend_from_slice(take(&mut from, length)?);
        if out.len() >= wanted {
            return Some(out);
        }
        let back = number(&mut from, 2)?;
        let length = more(&mut from, token & 15)?;
        repeat(&mut out, back, length + 4)?;
    }
}

/// The beginning of a block that Zstandard has compressed, behind its length.
fn zstd(mut from: &[u8], wanted: usize) -> Option<Vec<u8>> {
    let wanted = varint(&mut from)?.min(wanted);
    let mut out = Vec::new();
    let decoder = ::zstd::stream::read::Decoder::with_buffer(from).ok()?;
    decoder.take(wanted as u64).read_to_end(&mut out).ok()?;
    Some(out)
}

fn byte(from: &mut &[u8]) -> Option<u8> {
    let (first, rest) = from.split_first()?;
    *from = rest;
    Some(*first)
}

fn take<'a>(from: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(taken)
}

fn number(from: &mut &[u8], bytes: usize) -> Option<usize> {
    let little = |number, byte: &u8| number << 8 | usize::from(*byte);
    Some(take(from, bytes)?.iter().rev().fold(0, little))
}

fn varint(from: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let next = usize::from(byte(from)?);
        number |= (next & 127) << shift;
        if next < 128 {
            return Some(number);
        }
    }
    None
}

/// Appends what is so far back, which may overlap with what is appended.
fn repeat(out: &mut Vec<u8>, back: usize, length: usize) -> Option<()> {
    let from = out.len().checked_sub(back).filter(|_| back > 0 && length <= 1 << 20)?;
    for at in from..from + length {
        out.push(*out.get(at)?);
    }
    Some(())
}

/// Whether a value that an iterator has given is that of an entity without a column that has no name.
///
/// RocksDB then gives an empty slice of a constant of its own, where the empty value of a plain entry lies
/// within its block or memtable.
pub(super) fn is_shown_as(value: &[u8]) -> bool {
    static CONSTANT: OnceLock<Option<usize>> = OnceLock::new();
    value.is_empty()
        && *CONSTANT.get_or_init(|| constant().ok().flatten()) == Some(value.as_ptr().addr())
}

/// A batch that puts an entity with the one column `a`, which is empty, for the key `e`.
#[rustfmt::skip]
const BATCH: [u8; 21] = [
    0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, // sequence, entries
    ENTITY, 1, b'e', 5, // its key, its length
    1, 1, 1, b'a', 0, // version, columns, name, length of the value
];

/// The address of that constant, from a database in memory.
fn constant() -> Result<Option<usize>, ::rocksdb::Error> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_env(&Env::mem_env()?);
    let db = DB::open(&options, "/entity")?;
    db.write(WriteBatch::from_data(&BATCH))?;
    db.put("p", "")?;
    let mut entries = db.raw_iterator();
    entries.seek_to_first();
    let entity = entries.value().map(|value| value.as_ptr().addr());
    entries.next();
    let plain = entries.value().map(|value| value.as_ptr().addr());
    entries.status()?;
    Ok(entity.filter(|_| entity != plain))
}
