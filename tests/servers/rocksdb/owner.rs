//! Databases of other programs, with older versions of RocksDB: each opens its own again, with the options that
//! it finds there, after whatever was done to it here.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tempfile::tempdir;
use tierstack::backends::rocksdb::TableFolder;
use tierstack::backends::{RocksDb, RocksDbConfig};
use tierstack::units::{ByteSize, Span};
use tierstack::{Entry, Page, Read, ReadExt, Scan, Store, StoreExt};

use super::names;
use crate::support;

/// Runs a program that has to succeed, and gives what it prints.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// A program with a RocksDB of its own.
trait Owner {
    /// Makes a database with entries, some of them in tables and some in the log.
    fn make(&self, folder: &Path);
    /// Opens it for reading and writing with its recorded options, and counts its entries.
    fn count(&self, folder: &Path) -> usize;
    /// How tierstack opens it.
    fn config(&self, folder: &Path) -> RocksDbConfig;
}

fn alone(folder: &Path) -> RocksDbConfig {
    RocksDbConfig { create: false, ..RocksDbConfig::new(folder) }
}

/// `rocksdict` of PyPI, which links RocksDB in.
struct Python {
    program: String,
    /// The log and some of the tables are in folders of their own, next to that of the database.
    spread: bool,
}

impl Python {
    fn run(&self, folder: &Path, script: &str) -> String {
        let before = "
import sys
from rocksdict import DBPath, Options, Rdict
path, spread = sys.argv[1], sys.argv[2] == 'true'
options = Options(raw_mode=True)
if spread:
    options.set_level_zero_file_num_compaction_trigger(2)
    options.set_wal_dir(path + '-log')
    options.set_db_paths([DBPath(path, 1), DBPath(path + '-more', 1 << 30)])
";
        let mut python = Command::new(&self.program);
        python.args(["-c", &format!("{before}{script}")]).arg(folder);
        run(python.arg(self.spread.to_string()))
    }
}

fn beside(folder: &Path, what: &str) -> PathBuf {
    folder.with_file_name(format!("{}-{what}", folder.file_name().unwrap().to_str().unwrap()))
}

impl Owner for Python {
    fn make(&self, folder: &Path) {
        let script = "
db = Rdict(path, options)
for i in range(500): db[b'k%06d' % i] = b'v' * 100
db.flush()
for i in range(500, 800): db[b'k%06d' % i] = b'v' * 100
db.close()";
        self.run(folder, script);
    }

    fn count(&self, folder: &Path) -> usize {
        let script = "
db = Rdict(path, options) if spread else Rdict(path)
print(sum(1 for _ in db.keys()))
db[b'k000000'] = b'again'
db.flush()
db.close()";
        self.run(folder, script).trim().parse().unwrap()
    }

    fn config(&self, folder: &Path) -> RocksDbConfig {
        let table = |path: PathBuf, size| TableFolder { path, size: ByteSize(size) };
        match self.spread {
            false => alone(folder),
            true => RocksDbConfig {
                wal_dir: Some(beside(folder, "log")),
                db_paths: vec![table(folder.to_owned(), 1), table(beside(folder, "more"), 1 << 30)],
                ..alone(folder)
            },
        }
    }
}

/// `ldb` alone, which leaves a merge operator in a database that it writes to.
struct Ldb;

impl Ldb {
    fn run(folder: &Path, arguments: &[&str]) -> String {
        run(Command::new("ldb").arg(format!("--db={}", folder.display())).args(arguments))
    }
}

impl Owner for Ldb {
    fn make(&self, folder: &Path) {
        let mut pairs = Vec::new();
        (0..500).for_each(|n| pairs.extend([format!("k{n:06}"), "v".to_owned()]));
        let mut arguments = vec!["batchput", "--create_if_missing"];
        arguments.extend(pairs.iter().map(String::as_str));
        Self::run(folder, &arguments);
        let options = fs::read_to_string(newest_options(folder)).unwrap();
        assert!(options.contains("StringAppendOperator"), "{options}");
    }

    fn count(&self, folder: &Path) -> usize {
        Self::run(folder, &["put", "k000000", "again"]);
        let text = Self::run(folder, &["dump", "--count_only"]);
        let (_, count) = text.rsplit_once("Keys in range: ").unwrap();
        count.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn config(&self, folder: &Path) -> RocksDbConfig {
        alone(folder)
    }
}

/// `db_bench` and `ldb`, as the distribution packages them.
struct Tools;

fn newest_options(folder: &Path) -> PathBuf {
    folder.join(names(folder).into_iter().rfind(|name| name.starts_with("OPTIONS-")).unwrap())
}

impl Tools {
    fn bench(folder: &Path, benchmarks: &str, more: &[&str]) -> String {
        let text = run(Command::new("db_bench")
            .arg(format!("--db={}", folder.display()))
            .arg(format!("--benchmarks={benchmarks}"))
            .args(more));
        assert!(!text.contains("open error"), "{text}");
        text
    }
}

impl Owner for Tools {
    fn make(&self, folder: &Path) {
        Self::bench(folder, "fillseq,flush", &["--num=500", "--use_existing_db=0"]);
        let options = format!("--options_file={}", newest_options(folder).display());
        Self::bench(folder, "overwrite", &["--num=300", "--use_existing_db=1", &options]);
    }

    fn count(&self, folder: &Path) -> usize {
        let options = format!("--options_file={}", newest_options(folder).display());
        Self::bench(
            folder,
            "readseq,overwrite,flush",
            &["--num=1", "--use_existing_db=1", &options],
        );
        let text = run(Command::new("ldb").arg(format!("--db={}", folder.display())).args([
            "--try_load_options",
            "dump",
            "--count_only",
        ]));
        let (_, count) = text.rsplit_once("Keys in range: ").unwrap();
        count.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn config(&self, folder: &Path) -> RocksDbConfig {
        alone(folder)
    }
}

async fn opens_its_database_after_each_operation(owner: &dyn Owner) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("db");
    owner.make(&path);
    let mut entries = owner.count(&path);
    assert!(entries >= 500, "{entries}");
    for operation in ["nothing", "scan", "put", "ingest", "compact", "delete", "put again"] {
        let before = fs::read_to_string(newest_options(&path)).unwrap();
        let store = RocksDb::open(owner.config(&path)).await.unwrap();
        match operation {
            "nothing" => {}
            "scan" => assert_eq!(store.collect(Scan::all()).await.unwrap().len(), entries),
            "ingest" => {
                let value = |n: usize| tierstack::testing::Random::new(n as u64).bytes(100_000);
                let entry =
                    |n: usize| Entry { key: format!("n{n:06}").into(), value: value(n).into() };
                let page = Page { entries: (0..100).map(entry).collect() };
                entries += 100;
                assert_eq!(store.ingest(stream::iter([Ok(page)]).boxed()).await.unwrap(), 100);
            }
            // Refused where tables are in several folders.
            "compact" => {
                assert_eq!(store.compact().await.is_err(), owner.config(&path).db_paths.len() > 1)
            }
            "delete" => {
                entries -= 1;
                store.delete("n000007").await.unwrap().durable().await.unwrap();
            }
            put => {
                entries += 1;
                store.put(put, "v").await.unwrap().durable().await.unwrap();
                assert_eq!(store.get(put.as_bytes()).await.unwrap(), Some("v".into()));
            }
        }
        store.close().await.unwrap();
        assert_eq!(fs::read_to_string(newest_options(&path)).unwrap(), before, "{operation}");
        assert_eq!(owner.count(&path), entries, "after {operation}");
    }
}

#[tokio::test]
async fn a_program_with_rocksdb_9_opens_its_database_after_each_operation() {
    for spread in [false, true] {
        let Some(program) = support::var("TIERSTACK_TEST_ROCKSDICT") else { return };
        opens_its_database_after_each_operation(&Python { program, spread }).await;
    }
}

fn tools_are_there() -> bool {
    let there = Command::new("db_bench").arg("--version").output().ok().map(drop);
    let missing = "db_bench is not there (the package `rocksdb-tools`; `scripts/test-servers install` installs it)";
    support::required(there, missing).is_some()
}

#[tokio::test]
async fn a_program_with_the_rocksdb_of_the_system_opens_its_database_after_each_operation() {
    if tools_are_there() {
        opens_its_database_after_each_operation(&Tools).await;
    }
}

#[tokio::test]
async fn ldb_opens_its_database_after_each_operation() {
    if tools_are_there() {
        opens_its_database_after_each_operation(&Ldb).await;
    }
}

/// Writes as it is told to, while it has its database open.
const WRITING: &str = "
import sys
from rocksdict import Options, Rdict
db = Rdict(sys.argv[1], Options(raw_mode=True))
print('open', flush=True)
for line in sys.stdin:
    round = int(line)
    for i in range(1000): db[b'k%06d' % i] = b'%d' % round
    if round % 2: db.flush()
    if round % 3 == 0: db.compact_range(None, None)
    print(round, flush=True)
db.close()";

/// What a program with RocksDB 9 has written is read while it has its database open, and the program goes on.
#[tokio::test]
async fn a_database_is_read_beside_the_program_that_has_it_open() {
    let Some(program) = support::var("TIERSTACK_TEST_ROCKSDICT") else { return };
    let folder = tempdir().unwrap();
    let path = folder.path().join("db");
    let mut owner = Command::new(program)
        .args(["-c", WRITING])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut told, told_by) = (owner.stdin.take().unwrap(), owner.stdout.take().unwrap());
    let mut lines = BufReader::new(told_by).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "open");
    for round in 1..10 {
        writeln!(told, "{round}").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), round.to_string());
        let config = RocksDbConfig { read_only: true, ..alone(&path) };
        let store = RocksDb::open(config).await.unwrap();
        let found = store.collect(Scan::all()).await.unwrap();
        assert_eq!(found.len(), 1000);
        assert!(found.iter().all(|entry| entry.value == round.to_string().into()), "{round}");
        store.close().await.unwrap();
    }
    drop(told);
    assert!(owner.wait().unwrap().success());
}

/// `ldb --ttl`, which stamps values and has a merge operator below.
#[tokio::test]
async fn ldb_reads_what_was_written_into_its_database_with_a_time_to_live() {
    if !tools_are_there() {
        return;
    }
    let folder = tempdir().unwrap();
    let path = folder.path().join("db");
    // It does what it is told, and then fails, as it looks for column families that it does not open so.
    let ldb = |arguments: &[&str]| {
        let mut ldb = Command::new("ldb");
        let done = ldb.arg(format!("--db={}", path.display())).args(arguments).output().unwrap();
        String::from_utf8(done.stdout).unwrap().lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(ldb(&["put", "--ttl", "--create_if_missing", "theirs", "1"]), "OK");
    let options = fs::read_to_string(newest_options(&path)).unwrap();
    let config = RocksDbConfig { ttl: Some(Span(Duration::ZERO)), ..alone(&path) };
    let store = RocksDb::open(config).await.unwrap();
    assert_eq!(store.get(b"theirs").await.unwrap(), Some("1".into()));
    store.put("ours", "2").await.unwrap().durable().await.unwrap();
    store.compact().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(fs::read_to_string(newest_options(&path)).unwrap(), options);
    for (key, value) in [("theirs", "1"), ("ours", "2")] {
        assert_eq!(ldb(&["get", "--ttl", key]), value);
    }
}
