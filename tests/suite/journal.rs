//! The journal against `kill -9`: this test binary again, which appends and names what was acknowledged.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tempfile::tempdir;
use tierstack::ErrorKind;
use tierstack::journal::{Journal, OnFull, Reader, Settings};
use tierstack::units::ByteSize;

const ROLE: &str = "TIERSTACK_JOURNAL_TEST_CHILD";
const TEST: &str = "journal::what_was_acknowledged_is_there_after_kill_9";
const ROUNDS: u64 = 30;
const TASKS: u64 = 4;

/// Some rounds are over before a segment is full, some go through several.
pub(crate) const SETTINGS: Settings =
    Settings { max_bytes: ByteSize(1 << 20), on_full: OnFull::Block };

fn child(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
        .env(ROLE, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the one before to be closed, if it was dropped.
pub(crate) async fn open(folder: &Path) -> Journal {
    loop {
        match Journal::open(folder, SETTINGS).await {
            Err(error) if error.kind() == ErrorKind::Conflict => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

/// A record that says which it is, in any size.
pub(crate) fn record(task: u64, number: u64) -> Vec<u8> {
    let name = format!("{task}-{number}.");
    let size = name.len() + (task * 7_919 + number * 104_729) as usize % 6_000;
    name.bytes().cycle().take(size).collect()
}

/// Which it is, if it is whole.
pub(crate) fn name(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == b'.')?;
    let name = std::str::from_utf8(&bytes[..end]).ok()?;
    let (task, number) = name.split_once('-')?;
    (bytes == record(task.parse().ok()?, number.parse().ok()?)).then(|| name.to_owned())
}

async fn write_until_killed(folder: &Path) {
    let journal = Arc::new(open(folder).await);
    let slow = journal.reader("slow", 0).await.unwrap();
    let tasks = (0..TASKS).map(|task| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move {
            for number in 0.. {
                let sequence = journal.append(record(task, number)).await.unwrap();
                journal.durable(sequence).await.unwrap();
                println!("@@ {sequence} {task}-{number}");
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let release = tokio::spawn(async move { follow(&journal, slow).await });
    for task in tasks.into_iter().chain([release]) {
        task.await.unwrap();
    }
}

/// Stays 100 records behind, so that the parent finds what was acknowledged last.
async fn follow(journal: &Journal, mut reader: Reader) {
    loop {
        let records = reader.read(10_000).await.unwrap();
        let Some(last) = records.last() else {
            let _ = journal.durable(journal.usage().next - 1).await;
            tokio::task::yield_now().await;
            continue;
        };
        if last.sequence > 100 {
            let _ = reader.release((last.sequence - 100).max(journal.usage().first) - 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_kill_9() {
    if let Some(folder) = std::env::var_os(ROLE) {
        return write_until_killed(&PathBuf::from(folder)).await;
    }
    let folder = tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let mut writer = child(folder.path());
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut lines = lines.filter_map(|line| {
            let (sequence, name) = line.split_once("@@ ")?.1.split_once(' ')?;
            Some((sequence.parse::<u64>().unwrap(), name.to_owned()))
        });
        // At another moment in each round.
        let mut said: Vec<_> = lines.by_ref().take((round * 37 % 101) as usize).collect();
        writer.kill().unwrap();
        said.extend(lines);
        writer.wait().unwrap();

        let journal = open(folder.path()).await;
        let usage = journal.usage();
        let mut reader = journal.reader("slow", 0).await.unwrap();
        let mut found = std::collections::BTreeMap::new();
        loop {
            let records = reader.read(100_000).await.unwrap();
            if records.is_empty() {
                break;
            }
            for record in records {
                let name = name(&record.bytes).expect("a record is whole");
                assert!(found.insert(record.sequence, name).is_none());
            }
        }
        let sequences: Vec<u64> = found.keys().copied().collect();
        assert_eq!(sequences, (reader_from(&usage.readers)..usage.next).collect::<Vec<_>>());
        for (sequence, name) in &said {
            assert!(*sequence < usage.next, "record {sequence} is lost");
            assert!(
                found.get(sequence).is_none_or(|found| found == name),
                "record {sequence} is another"
            );
        }
        let last = said.last().map_or(0, |(sequence, _)| *sequence);
        assert!(said.is_empty() || found.contains_key(&last), "the last one is there to be read");
        acknowledged += said.len();
        // One that is dropped is closed by its thread.
        if round % 3 == 0 {
            journal.close().await.unwrap();
        }
    }
    assert!(acknowledged > 1_000, "{acknowledged} records");
}

fn reader_from(readers: &[(String, u64)]) -> u64 {
    readers.iter().find(|(name, _)| name == "slow").map_or(1, |(_, next)| *next)
}
