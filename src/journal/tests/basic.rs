use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use tempfile::tempdir;

use crate::error::{ErrorKind, Result};
use crate::journal::{Journal, OnFull, Reader, Settings};
use crate::types::units::ByteSize;

pub(super) fn small(on_full: OnFull) -> Settings {
    Settings { max_bytes: ByteSize(1 << 20), on_full }
}

async fn open(folder: &Path) -> Journal {
    Journal::open(folder, small(OnFull::Refuse)).await.unwrap()
}

async fn all(reader: &mut Reader) -> Result<BTreeMap<u64, Bytes>> {
    let mut all = BTreeMap::new();
    loop {
        let records = reader.read(10_000).await?;
        if records.is_empty() {
            return Ok(all);
        }
        for record in records {
            assert_eq!(record.sequence, reader.next() - 1 - (reader.next() - 1 - record.sequence));
            assert!(all.insert(record.sequence, record.bytes).is_none());
        }
    }
}

#[tokio::test]
async fn records_come_back_in_order_and_at_any_size() {
    let folder = tempdir().unwrap();
    let journal = open(&folder.path().join("new/journal")).await;
    let mut reader = journal.reader("r", 0).await.unwrap();
    let sizes = [0, 1, 28, 29, 30, 5_000, 64 << 10, (64 << 10) + 1, 300_000, 131_072, 7];
    for (at, size) in sizes.into_iter().enumerate() {
        let sequence = journal.append(vec![at as u8 + 1; size]).await.unwrap();
        assert_eq!(sequence, at as u64 + 1);
    }
    journal.durable(sizes.len() as u64).await.unwrap();
    let check = |found: &BTreeMap<u64, Bytes>| {
        assert_eq!(found.len(), sizes.len());
        for (record, (at, size)) in found.iter().zip(sizes.into_iter().enumerate()) {
            assert_eq!(*record.0, at as u64 + 1);
            assert_eq!(record.1, &vec![at as u8 + 1; size]);
        }
    };
    check(&all(&mut reader).await.unwrap());
    journal.close().await.unwrap();
    assert_eq!(journal.append("x").await.unwrap_err().kind(), ErrorKind::Closed);

    let journal = open(&folder.path().join("new/journal")).await;
    let mut reader = journal.reader("r", 99).await.unwrap();
    check(&all(&mut reader).await.unwrap());
    reader.seek(4).unwrap();
    assert_eq!(*all(&mut reader).await.unwrap().first_key_value().unwrap().0, 4);
    assert_eq!(journal.append("next").await.unwrap(), sizes.len() as u64 + 1);
    journal.close().await.unwrap();
}

#[tokio::test]
async fn one_process_at_a_time() {
    let folder = tempdir().unwrap();
    let journal = open(folder.path()).await;
    let refused = Journal::open(folder.path(), Settings::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    journal.close().await.unwrap();
    open(folder.path()).await.close().await.unwrap();
}
