//! The journal where system calls fail, by the fault injection of `strace`. Without `strace`, or where it may not trace,
//! the tests print why they are skipped.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::tempdir;

use crate::journal::{name, open, record};

/// The folder of the journal, in a process whose calls fail.
const ROLE: &str = "TIERSTACK_JOURNAL_TEST_FAILING";
const TASKS: u64 = 4;
/// Records of each task, where nothing fails: they go through several segments.
const RECORDS: u64 = 60;

/// Appends, and names what was acknowledged, until the journal fails or all is written.
async fn write(folder: &Path) {
    let journal = Arc::new(open(folder).await);
    let mut reader = journal.reader("slow", 0).await.unwrap();
    let tasks = (0..TASKS).map(|task| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move {
            for number in 0..RECORDS {
                let sequence = journal.append(record(task, number)).await?;
                journal.durable(sequence).await?;
                println!("@@ {sequence} {task}-{number}");
            }
            Ok::<_, tierstack::Error>(())
        })
    });
    let mut failed = None;
    for task in tasks.collect::<Vec<_>>() {
        failed = failed.or(task.await.unwrap().err());
    }
    // Every later call is told the same.
    if let Some(error) = &failed {
        let again = journal.append("more").await.unwrap_err();
        assert_eq!(again.to_string(), error.to_string());
        println!("@@ failed {}", error.to_string().replace('\n', " "));
    }
    let _ = reader.read(1).await;
    let closed = journal.close().await;
    assert_eq!(closed.is_err(), failed.is_some());
}

/// What was acknowledged, and how the journal failed.
struct Said {
    acknowledged: BTreeMap<u64, String>,
    failed: Option<String>,
    /// The calls that write and sync, in their order.
    calls: Vec<String>,
}

/// Runs the process under `strace`. `None`: it cannot trace here.
fn traced(test: &str, folder: &Path, inject: &str) -> Option<Said> {
    let log = folder.with_extension("calls");
    let can = Command::new("strace").args(["-f", "-qq", "-o"]).arg(&log).arg("true").output();
    if !can.as_ref().is_ok_and(|can| can.status.success()) {
        eprintln!("skipped: strace is not there, or may not trace here: {can:?}");
        return None;
    }
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-o"])
        .arg(&log)
        .args(["-e", "trace=fdatasync,fsync,pwrite64,fallocate,/rename"]);
    strace.args(["-e", &format!("inject={inject}")]);
    strace.arg(std::env::current_exe().unwrap());
    strace.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    let output = strace.env(ROLE, folder).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let (mut acknowledged, mut failed) = (BTreeMap::new(), None);
    for line in text.lines().filter_map(|line| Some(line.split_once("@@ ")?.1)) {
        match line.split_once(' ').unwrap() {
            ("failed", why) => failed = Some(why.to_owned()),
            (sequence, name) => {
                drop(acknowledged.insert(sequence.parse().unwrap(), name.to_owned()))
            }
        }
    }
    let calls = std::fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
    Some(Said { acknowledged, failed, calls })
}

/// Lets one call fail, and looks at what is there afterwards. Gives what was said.
async fn fails(test: &str, inject: &str) -> Option<Said> {
    let test = format!("journal_strace::{test}");
    let folder = tempdir().unwrap();
    let folder = folder.path().join("journal");
    let said = traced(&test, &folder, inject)?;
    assert!(said.calls.iter().any(|call| call.contains("INJECTED")), "{inject}: nothing failed");
    let journal = open(&folder).await;
    let next = journal.usage().next;
    let mut reader = journal.reader("slow", 0).await.unwrap();
    let (mut found, mut last) = (BTreeMap::new(), 0);
    loop {
        let records = reader.read(1 << 20).await.unwrap();
        if records.is_empty() {
            break;
        }
        for record in records {
            assert!(record.sequence == last + 1, "{inject}: record {} is missing", last + 1);
            last = record.sequence;
            found.insert(record.sequence, name(&record.bytes).expect("a record is whole"));
        }
    }
    assert_eq!(next, last + 1);
    for (sequence, name) in &said.acknowledged {
        assert_eq!(found.get(sequence), Some(name), "{inject}: record {sequence} was acknowledged");
    }
    // It goes on.
    let sequence = journal.append("more").await.unwrap();
    journal.durable(sequence).await.unwrap();
    journal.close().await.unwrap();
    Some(said)
}

fn child() -> Option<PathBuf> {
    std::env::var_os(ROLE).map(PathBuf::from)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_or_sync_that_fails_stops_the_journal_and_loses_nothing() {
    const TEST: &str = "a_write_or_sync_that_fails_stops_the_journal_and_loses_nothing";
    if let Some(folder) = child() {
        return write(&folder).await;
    }
    // The first calls belong to the opening.
    for inject in [
        "fdatasync:error=EIO:when=6",
        "fdatasync:error=EIO:when=25",
        "fdatasync:error=ENOSPC:when=9",
        "pwrite64:error=EIO:when=12",
        "pwrite64:error=ENOSPC:when=15",
        "pwrite64:error=EDQUOT:when=9",
    ] {
        let Some(said) = fails(TEST, inject).await else { return };
        let failed = said.failed.unwrap_or_else(|| panic!("{inject}: the journal did not fail"));
        assert!(failed.contains("the journal has stopped"), "{inject}: {failed}");
        let call = inject.split(':').next().unwrap();
        let at = said.calls.iter().position(|call| call.contains("INJECTED")).unwrap();
        let after: Vec<_> = said.calls[at + 1..]
            .iter()
            .filter(|call| call.contains("pwrite64") || call.contains("fdatasync"))
            .collect();
        assert!(
            after.is_empty(),
            "{inject}: after a failed {call} the disk was touched: {after:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_for_a_moment_holds_the_journal_up_and_loses_nothing() {
    const TEST: &str = "a_disk_that_is_full_for_a_moment_holds_the_journal_up_and_loses_nothing";
    if let Some(folder) = child() {
        return write(&folder).await;
    }
    // Room for a new segment is refused once.
    let Some(said) = fails(TEST, "fallocate:error=ENOSPC:when=3").await else { return };
    assert_eq!(said.failed, None);
    assert_eq!(said.acknowledged.len() as u64, TASKS * RECORDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_changed_loses_nothing() {
    const TEST: &str = "a_folder_that_cannot_be_changed_loses_nothing";
    if let Some(folder) = child() {
        return write(&folder).await;
    }
    // Of the folder of the journal, after its first segment was made.
    for inject in ["fsync:error=EIO:when=4", "/rename:error=EIO:when=2"] {
        let Some(said) = fails(TEST, inject).await else { return };
        let failed = said.failed.unwrap_or_else(|| panic!("{inject}: the journal did not fail"));
        assert!(failed.contains("the journal has stopped"), "{inject}: {failed}");
    }
}
