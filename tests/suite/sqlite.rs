//! The SQLite backend against what happens to processes and disks: other programs, `kill -9`, a full
//! disk, a file system that is read-only.
//!
//! Mounting a small file system needs root on Linux. Without it those tests print why they are skipped;
//! with `CI` set they fail instead.

#![cfg(feature = "sqlite")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tempfile::tempdir;
use tierstack::backends::{Sqlite, SqliteConfig};
use tierstack::units::Span;
use tierstack::{Batch, ErrorKind, Read, ReadExt, Scan, Store, StoreExt};

use crate::child::{child, marked, role};
use crate::mount::Mount;

fn config(folder: &Path) -> SqliteConfig {
    SqliteConfig::new(folder.join("data.db"))
}

async fn open(folder: &Path) -> Sqlite {
    Sqlite::open(config(folder)).await.unwrap()
}

/// The child writes batches of two keys from several tasks, and names each one that was acknowledged.
async fn write_until_killed(config: SqliteConfig) {
    let store = Arc::new(Sqlite::open(config).await.unwrap());
    let tasks = (0..4).map(|task| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in 0.. {
                let (a, b) = (format!("a-{task}-{number}"), format!("b-{task}-{number}"));
                let _ = store.write(Batch::new().put(a, vec![7; 500]).put(b, "b")).await.unwrap();
                println!("@@ {task}-{number}");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

async fn kill_and_look(test: &str, least: usize) {
    let folder = tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 1..=5 {
        let mut writer = child(test, folder.path());
        let mut lines = marked(&mut writer);
        acknowledged.extend(lines.by_ref().take(least * round));
        writer.kill().unwrap();
        acknowledged.extend(lines);
        writer.wait().unwrap();

        let store = open(folder.path()).await;
        for name in &acknowledged {
            for half in ["a", "b"] {
                let key = format!("{half}-{name}");
                assert!(store.get(key.as_bytes()).await.unwrap().is_some(), "{key} was lost");
            }
        }
        // Batches that were not acknowledged are there wholly or not at all.
        let mut pages = store.scan(Scan::all());
        let (mut a, mut b) = (0, 0);
        while let Some(page) = pages.next().await {
            for entry in page.unwrap().entries {
                if entry.key.starts_with(b"a") { a += 1 } else { b += 1 }
            }
        }
        drop(pages);
        assert_eq!(a, b);
        store.integrity_check().await.unwrap();
        store.close().await.unwrap();
    }
    assert!(acknowledged.len() >= least * 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_kill_9() {
    match role() {
        Some(folder) => write_until_killed(config(&folder)).await,
        None => kill_and_look("sqlite::what_was_acknowledged_is_there_after_kill_9", 100).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_without_a_sync_is_there_after_kill_9() {
    match role() {
        Some(folder) => {
            write_until_killed(SqliteConfig { sync: false, ..config(&folder) }).await;
        }
        None => {
            kill_and_look(
                "sqlite::what_was_acknowledged_without_a_sync_is_there_after_kill_9",
                1000,
            )
            .await
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_write_one_table() {
    const TEST: &str = "sqlite::several_processes_write_one_table";
    if let Some(folder) = role() {
        let store = open(&folder).await;
        let me = std::process::id();
        // Each is the one that makes some of the keys, and all see all of them.
        let mut mine = 0;
        for n in 0..200 {
            let batch = Batch::new().put(format!("{n}"), me.to_string()).if_absent();
            match store.write(batch).await {
                Ok(_) => mine += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
            }
        }
        println!("@@ {mine}");
        store.close().await.unwrap();
        return;
    }
    let folder = tempdir().unwrap();
    let mut children: Vec<_> = (0..4).map(|_| child(TEST, folder.path())).collect();
    let outputs: Vec<_> =
        children.iter_mut().map(|child| marked(child).collect::<Vec<_>>()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let made: Vec<usize> = outputs.iter().map(|lines| lines[0].parse().unwrap()).collect();
    assert_eq!(made.iter().sum::<usize>(), 200, "{made:?}");
    let store = open(folder.path()).await;
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 200);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_another_process_is_waited_for_and_then_unavailable() {
    const TEST: &str = "sqlite::a_lock_of_another_process_is_waited_for_and_then_unavailable";
    if let Some(folder) = role() {
        let db = rusqlite::Connection::open(folder.join("data.db")).unwrap();
        db.execute_batch("BEGIN IMMEDIATE; DELETE FROM entries").unwrap();
        println!("@@ locked");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        db.execute_batch("COMMIT").unwrap();
        println!("@@ done");
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let folder = tempdir().unwrap();
    let impatient = Span(Duration::from_millis(100));
    let store =
        Sqlite::open(SqliteConfig { busy_timeout: impatient, ..config(folder.path()) }).await;
    let store = store.unwrap();
    let _ = store.put("k", "v").await.unwrap();
    let mut holder = child(TEST, folder.path());
    let mut lines = marked(&mut holder);
    assert_eq!(lines.next().as_deref(), Some("locked"));
    let error = store.put("k", "w").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()), "reads go on");
    let patient = open(folder.path()).await;
    let waiting = patient.put("other", "1");
    holder.stdin.take().unwrap().write_all(b"\n").unwrap();
    let _ = waiting.await.unwrap();
    assert_eq!(lines.next().as_deref(), Some("done"));
    assert_eq!(store.get(b"k").await.unwrap(), None, "what it did is seen at once");

    // A process that dies with a lock lets go of it.
    holder.kill().unwrap();
    holder.wait().unwrap();
    let _ = store.put("k", "x").await.unwrap();
    patient.close().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_lose_no_increment() {
    let folder = tempdir().unwrap();
    let place = async || folder.path().to_str().map(str::to_owned);
    let open =
        async |folder: String| Ok(Arc::new(open(Path::new(&folder)).await) as Arc<dyn Store>);
    let test = "sqlite::two_processes_lose_no_increment";
    crate::processes::no_increment_is_lost(test, 50, place, open).await;
}

/// Another program holds the database: with a rollback journal it keeps readers out as well.
#[cfg(feature = "testing")]
#[tokio::test(flavor = "multi_thread")]
async fn unreachable_is_never_absent() {
    use std::sync::Mutex;

    use tierstack::backends::sqlite::Journal;
    use tierstack::testing::conformance::Fixture;

    crate::unreachable::is_never_absent(async || {
        let folder = tempdir().unwrap();
        let config = SqliteConfig {
            journal: Some(Journal::Rollback),
            busy_timeout: Span(Duration::from_millis(300)),
            ..config(folder.path())
        };
        let path = folder.path().join("data.db");
        let holder: Arc<Mutex<Option<rusqlite::Connection>>> = Arc::default();
        let fixture = Fixture::new(Sqlite::open(config).await?).keeping(folder);
        Ok(fixture.cut_off_by(move |reachable| {
            let mut holder = holder.lock().unwrap();
            *holder = (!reachable).then(|| {
                let db = rusqlite::Connection::open(&path).unwrap();
                db.busy_timeout(Duration::from_secs(60)).unwrap();
                db.execute_batch("BEGIN EXCLUSIVE").unwrap();
                db
            });
            async { Ok(()) }
        }))
    })
    .await;
}

/// Why a test cannot run here.
fn skip(why: &str) {
    eprintln!("skipped: {why}");
    assert!(std::env::var_os("CI").is_none(), "nothing is skipped in CI: {why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_with_another_sqlite_reads_and_writes_meanwhile() {
    const PROGRAM: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=10)
for n in range(200):
    with db:
        db.execute('INSERT INTO entries (key, created, updated, value) VALUES (?, 1, 1, ?)',
                   (b'python-%d' % n, b'from python'))
    assert db.execute(\"SELECT count(*) FROM entries WHERE value = x'70'\").fetchone()[0] > 0
try:
    db.execute(\"INSERT INTO entries (key, created, updated, value) VALUES ('text', 1, 1, x'00')\")
except sqlite3.IntegrityError:
    print('refused')
print(db.execute('PRAGMA integrity_check').fetchone()[0])
";
    if Command::new("python3").args(["-c", "import sqlite3"]).status().is_err() {
        return skip("there is no python3 with sqlite3");
    }
    let folder = tempdir().unwrap();
    let store = open(folder.path()).await;
    let _ = store.put("first", "p").await.unwrap();
    let python = Command::new("python3")
        .args(["-c", PROGRAM])
        .arg(folder.path().join("data.db"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for n in 0..200 {
        let _ = store.put(format!("rust-{n}"), "p").await.unwrap();
    }
    let output = tokio::task::spawn_blocking(|| python.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "refused\nok\n");
    assert_eq!(store.get(b"python-199").await.unwrap(), Some("from python".into()));
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 401);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_writes_wholly_and_not_reads() {
    let Some(disk) = Mount::small(4 << 20) else { return };
    let store = Arc::new(open(disk.path()).await);
    let _ = store.put("first", "here").await.unwrap();
    let mut written = 0;
    let error = loop {
        let pair = Batch::new()
            .put(format!("a-{written:06}"), vec![7; 20_000])
            .put(format!("b-{written:06}"), vec![7; 20_000]);
        match store.write(pair).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "the disk never fills");
    };
    assert_eq!(error.kind(), ErrorKind::Capacity, "{error:?}");
    // One that is too large fails, and takes no small one with it that waits next to it.
    let large = Batch::new().put("large", vec![7; 8 << 20]);
    assert_eq!(store.write(large).await.unwrap_err().kind(), ErrorKind::Capacity);
    assert_eq!(store.get(b"first").await.unwrap(), Some("here".into()));
    let keys = store.collect(Scan::range("a".."c")).await.unwrap();
    assert_eq!(keys.len(), 2 * written, "a batch is there by half");
    // With space again it goes on by itself.
    disk.remount("size=64m");
    let _ = store.put("after", "more space").await.unwrap();
    store.integrity_check().await.unwrap();
    store.close().await.unwrap();
    let store = open(disk.path()).await;
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 2 * written + 2);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_file_system_is_an_access_error() {
    let Some(disk) = Mount::small(16 << 20) else { return };
    let store = open(disk.path()).await;
    let _ = store.put("k", "v").await.unwrap();
    store.close().await.unwrap();
    disk.remount("ro");
    let error = Sqlite::open(config(disk.path())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
    assert!(error.message().contains("`read_only: true`"), "{error}");
    let missing = SqliteConfig::new(disk.path().join("missing.db"));
    let error = Sqlite::open(missing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Access, "{error:?}");
    // To be read it needs no other file.
    let reading = SqliteConfig { read_only: true, ..config(disk.path()) };
    let store = Sqlite::open(reading).await.unwrap();
    assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
    assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 1);
    store.close().await.unwrap();
    disk.remount("rw");
    open(disk.path()).await.close().await.unwrap();
}
