//! The bytes that are drawn in `docs/formats/journal.md`, and files that were written once and are read for ever.

use std::path::Path;

use tempfile::tempdir;

use super::basic::small;
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::journal::format::{Head, Kind, Salt};
use crate::journal::segment::Entry;
use crate::journal::{Journal, OnFull, batch};
use crate::types::{Batch, Condition, Durability, Value};

const PAGE: &str = include_str!("../../../docs/formats/journal.md");

fn drawn(bytes: &[u8]) -> String {
    let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.chunks(32).map(|line| line.join(" ")).collect::<Vec<_>>().join("\n")
}

fn example() -> Batch {
    Batch::new().put("user:1", "Ada").delete("user:2")
}

fn expiring() -> Batch {
    let until = Timestamp::from_millis(1_704_067_800_000);
    Batch::new().put("", Value::new("").expiring_at(until)).put("k", vec![7; 300]).rewriting()
}

#[test]
fn the_page_shows_what_is_written() {
    let entry = Entry::data("Ada".into());
    let head =
        Head { kind: Kind::Data, length: 3, sequence: 7, group: 105, checksum: entry.checksum };
    let record = [&head.encode(&Salt::new(0x0102_0304_0506_0708))[..], b"Ada"].concat();
    assert!(PAGE.contains(&drawn(&record)), "{}", drawn(&record));
    let bytes = batch::encode(&example()).unwrap();
    assert!(PAGE.contains(&drawn(&bytes)), "{}", drawn(&bytes));
}

#[tokio::test]
async fn files_of_version_1_are_read() {
    let folder = tempdir().unwrap();
    for file in std::fs::read_dir(Path::new("tests/fixtures/journal/v1")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let journal = Journal::open(folder.path(), small(OnFull::Block)).await.unwrap();
    assert_eq!(journal.id(), 0x910a_2dec_8902_5cc1_beeb_8da1_658e_ec67);
    let usage = journal.usage();
    assert_eq!((usage.first, usage.durable, usage.next), (1, 6, 6));
    assert_eq!(usage.readers, [("flush".to_owned(), 1), ("mirror".to_owned(), 3)]);
    let mut reader = journal.reader("flush", 0).await.unwrap();
    let records = reader.read(1 << 20).await.unwrap();
    let found: Vec<_> = records.iter().map(|record| record.bytes.clone()).collect();
    assert_eq!(batch::decode(found[0].clone()).unwrap(), example());
    assert_eq!(batch::decode(found[1].clone()).unwrap(), expiring());
    assert_eq!(found[2..], ["", "Ada", "the last one, which no later one confirms"]);
    journal.close().await.unwrap();
}

#[test]
fn batches_come_back_without_what_only_their_writing_needs() {
    for written in [Batch::new(), example(), expiring()] {
        let bytes = batch::encode(&written).unwrap();
        assert_eq!(batch::decode(bytes.clone()).unwrap(), written);
        let asked = written.durability(Durability::PowerCut).require(Condition::absent("x"));
        assert_eq!(batch::encode(&asked).unwrap(), bytes);
    }
}

#[test]
fn bytes_that_are_no_batch_are_damage() {
    let bytes = batch::encode(&expiring()).unwrap();
    for end in 0..bytes.len() {
        // A batch may end behind any operation.
        let cut = batch::decode(bytes.slice(..end));
        assert_eq!(cut.is_ok(), [2, 19].contains(&end), "{end}");
        assert!(cut.is_ok() || cut.unwrap_err().kind() == ErrorKind::Corruption);
    }
    for (at, byte) in [(0, 2), (1, 2), (2, 4), (2, 0), (11, 255)] {
        let mut changed = bytes.to_vec();
        changed[at] = byte;
        assert_eq!(
            batch::decode(changed.into()).unwrap_err().kind(),
            ErrorKind::Corruption,
            "{at}"
        );
    }
}
