//! `tierstack import`: JSON lines into a store, in constant memory.
//!
//! A file is checked as a whole before anything is written, so that a bad line means that nothing has
//! changed. A pipe cannot be read twice: it is written as it comes, and what was written before a bad
//! line stays. Whatever ends an import early, it says the line with which to go on; a line that is
//! imported twice does no harm.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use serde::Serialize;
use tokio::sync::mpsc;

use tierstack::jsonl::{self, Rules};
use tierstack::{Batch, Error, ErrorKind, Op, Store};

use crate::args::Import;
use crate::failure::{Failure, Outcome};
use crate::lines::Lines;
use crate::output;
use crate::progress::{Progress, Unit};
use crate::session::{self, Use};
use crate::shutdown::Shutdown;

/// Bytes after which a batch is written: large enough to spread the price of a synced write.
const BATCH_BYTES: usize = 4 << 20;
/// Operations after which a batch is written.
const BATCH_OPS: usize = 8192;

/// Writes under way at a time to a store that takes one operation each, of this many bytes together.
const WRITERS: usize = 32;
const BYTES_AT_ONCE: usize = 32 << 20;

/// What was imported.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Imported {
    entries: u64,
    /// Bytes of keys and values.
    bytes: u64,
    /// The last line whose entry is in the store.
    last_line: u64,
}

/// Entries of consecutive lines.
struct Lot {
    batch: Batch,
    /// The last line of the lot.
    line: u64,
    /// Bytes of the input up to the end of the lot.
    end: u64,
}

/// Where lines come from, and which of them are wanted.
#[derive(Clone)]
struct Source {
    name: String,
    from_line: u64,
    max_line: usize,
    rules: Rules,
    /// Operations that the store takes in one batch.
    batch_ops: usize,
}

/// `tierstack import`
pub(crate) async fn run(args: Import, stop: &Shutdown) -> Outcome {
    let standard_input = args.file == Path::new("-");
    let input = if standard_input { None } else { Some(open(&args.file)?) };
    session::with(&args.store, Use::Filling, stop, async |store: &Arc<dyn Store>| {
        let source = Source::new(&args, store);
        let mut total = None;
        if let Some(file) = input.as_ref().filter(|file| is_seekable(file)) {
            total = file.metadata().ok().map(|meta| meta.len());
            check(&source, &args.file, total, stop).await?;
        }
        let reader: Box<dyn BufRead + Send> = match input {
            Some(file) => Box::new(BufReader::with_capacity(1 << 20, file)),
            None => Box::new(BufReader::with_capacity(1 << 16, io::stdin())),
        };
        let progress = Progress::new("importing", total, Unit::Bytes);
        let imported = write_all(store, &source, reader, &progress, stop).await?;
        let took = progress.elapsed();
        progress.finish();
        session::warn_if_forgotten(&**store);
        output::fact(args.json.json, &imported, || {
            let (entries, bytes) =
                (output::entries(imported.entries), output::bytes(imported.bytes));
            format!("imported {entries} ({bytes}) in {}", output::duration(took))
        })
    })
    .await
}

fn open(path: &Path) -> Outcome<File> {
    let file = File::open(path)
        .map_err(|error| Error::io(format!("{} cannot be read", path.display()), error))?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        let what = format!("{} is a folder; import reads a file of JSON lines", path.display());
        return Err(Failure::failed(what));
    }
    Ok(file)
}

/// A named pipe can be read once only.
fn is_seekable(file: &File) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file())
}

impl Source {
    fn new(args: &Import, store: &Arc<dyn Store>) -> Self {
        let guarantees = store.profile().guarantees;
        Self {
            name: args.file.display().to_string(),
            from_line: args.from_line,
            max_line: args.max_line.as_usize(),
            batch_ops: guarantees.batch_ops().unwrap_or(BATCH_OPS).min(BATCH_OPS),
            rules: Rules { limits: guarantees.limits, expiry: guarantees.expiry },
        }
    }

    /// Hands lot after lot to `take`, which may say that it wants no more.
    fn read(&self, reader: impl BufRead, mut take: impl FnMut(Lot) -> bool) -> Result<(), Error> {
        let mut lines = Lines::new(reader, self.max_line);
        let mut lot = Lot { batch: Batch::new(), line: self.from_line - 1, end: 0 };
        let mut bytes = 0;
        while let Some(line) = lines
            .next()
            .map_err(|error| Error::io(format!("{} cannot be read", self.name), error))?
        {
            if line.number < self.from_line {
                continue;
            }
            let entry = match line.content.and_then(|content| jsonl::parse(content, &self.rules)) {
                Ok(entry) => entry,
                Err(wrong) => {
                    let at = wrong.column.map(|column| format!(":{column}")).unwrap_or_default();
                    let place = format!("{}:{}{at}", self.name, line.number);
                    take(lot);
                    return Err(Error::invalid(format!("{place}: {}", wrong.what)));
                }
            };
            bytes += entry.key.len() + entry.value.bytes.len();
            lot.batch.push(Op::Put(entry.key, entry.value));
            (lot.line, lot.end) = (line.number, line.end);
            if bytes >= BATCH_BYTES || lot.batch.len() >= self.batch_ops {
                let (line, end) = (lot.line, lot.end);
                if !take(std::mem::replace(&mut lot, Lot { batch: Batch::new(), line, end })) {
                    return Ok(());
                }
                bytes = 0;
            }
        }
        take(lot);
        Ok(())
    }

    fn resume(&self, imported: Imported) -> String {
        let line = imported.last_line + 1;
        if self.name == "-" {
            format!("give the same lines again to `tierstack import - --from-line {line}`")
        } else {
            format!("`tierstack import {} --from-line {line}` goes on from there", self.name)
        }
    }
}

/// Reads the whole file and writes nothing.
async fn check(source: &Source, path: &Path, total: Option<u64>, stop: &Shutdown) -> Outcome {
    let reader = BufReader::with_capacity(1 << 20, open(path)?);
    let progress = Arc::new(Progress::new("checking", total, Unit::Bytes));
    let (source, ends, watch) = (source.clone(), Arc::clone(&progress), stop.clone());
    let checked = tokio::task::spawn_blocking(move || {
        source.read(reader, |lot| {
            ends.set(lot.end, None);
            !watch.requested()
        })
    });
    let checked = checked.await.map_err(defect)?;
    checked.map_err(|error| {
        Failure::from(error).next("correct the line and run it again; nothing was written")
    })?;
    if stop.requested() {
        return Err(Failure::stopped("nothing was written"));
    }
    if let Some(progress) = Arc::into_inner(progress) {
        progress.finish();
    }
    Ok(())
}

fn defect(error: tokio::task::JoinError) -> Error {
    Error::internal("the reader of the input ended early").with_source(error)
}

/// Writes lot after lot while the next is read on a thread of its own.
async fn write_all(
    store: &Arc<dyn Store>,
    source: &Source,
    reader: Box<dyn BufRead + Send>,
    progress: &Progress,
    stop: &Shutdown,
) -> Outcome<Imported> {
    let mut imported = Imported { last_line: source.from_line - 1, ..Imported::default() };
    let (send, mut lots) = mpsc::channel::<Result<Lot, Error>>(1);
    let reading = source.clone();
    // Not a task: a read of standard input cannot be interrupted, and may outlive the command.
    std::thread::spawn(move || {
        let read = reading.read(reader, |lot| send.blocking_send(Ok(lot)).is_ok());
        if let Err(error) = read {
            // Nobody listens any more when the store failed first.
            let _ = send.blocking_send(Err(error));
        }
    });
    let mut writes = Writes::new(store);
    let end = loop {
        let room = writes.has_room();
        let lot = tokio::select! {
            biased;
            () = stop.wait() => break Some(Failure::stopped("the import is not complete")),
            Some(written) = writes.next(), if !writes.is_empty() => match written {
                Ok(part) => {
                    imported.add(part, progress);
                    continue;
                }
                Err(error) => break Some(error.into()),
            },
            lot = lots.recv(), if room => lot,
        };
        match lot {
            None => break writes.drain(&mut imported, progress).await.err().map(Failure::from),
            Some(Err(error)) if error.kind() == ErrorKind::InvalidInput => {
                break Some(Failure::from(error).next("correct the line"));
            }
            Some(Err(error)) => break Some(error.into()),
            Some(Ok(lot)) => {
                // Of two lines with the same key the later one counts.
                if writes.meets(&lot)
                    && let Err(error) = writes.drain(&mut imported, progress).await
                {
                    break Some(error.into());
                }
                writes.begin(lot);
            }
        }
    };
    let end = match (end, writes.drain(&mut imported, progress).await) {
        (None, Err(error)) => Some(error.into()),
        (end, _) => end,
    };
    let flushed = store.flush().await;
    let guarantees = store.profile().guarantees;
    let needs_flush = guarantees.durability < guarantees.durability_after_flush;
    let kept = |failure: Failure| failure.next(is_in(imported)).next(source.resume(imported));
    match (end, flushed) {
        (None, Ok(())) => Ok(imported),
        (Some(failure), Ok(())) => Err(kept(failure)),
        // What was acknowledged is as durable as it gets, with or without the flush.
        (Some(failure), Err(_)) if !needs_flush => Err(kept(failure)),
        (None, Err(error)) => Err(not_flushed(error, source)),
        (Some(failure), Err(error)) => Err(not_flushed(error, source).also(failure)),
    }
}

impl Imported {
    fn add(&mut self, part: Part, progress: &Progress) {
        self.entries += part.keys.len() as u64;
        self.bytes += part.bytes as u64;
        self.last_line = part.line;
        progress.set(part.end, None);
    }
}

/// A lot without its entries.
struct Part {
    keys: Vec<Bytes>,
    bytes: usize,
    line: u64,
    end: u64,
}

/// The writes under way: one where the store takes batches, many where it takes one operation each.
/// They end in the order of their lines, so that what has ended is all there is up to its line.
struct Writes<'a> {
    store: &'a Arc<dyn Store>,
    most: usize,
    under_way: FuturesOrdered<BoxFuture<'a, Result<Part, Error>>>,
    keys: HashSet<Bytes>,
    bytes: usize,
    failed: bool,
}

impl<'a> Writes<'a> {
    fn new(store: &'a Arc<dyn Store>) -> Self {
        let most = if store.profile().guarantees.atomic_batches { 1 } else { WRITERS };
        let (under_way, keys) = (FuturesOrdered::new(), HashSet::new());
        Self { store, most, under_way, keys, bytes: 0, failed: false }
    }

    fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    fn has_room(&self) -> bool {
        self.is_empty() || (self.under_way.len() < self.most && self.bytes < BYTES_AT_ONCE)
    }

    /// Whether a key of the lot is being written.
    fn meets(&self, lot: &Lot) -> bool {
        lot.batch.ops().iter().any(|op| self.keys.contains(op.key()))
    }

    fn begin(&mut self, lot: Lot) {
        let keys: Vec<Bytes> = lot.batch.ops().iter().map(|op| op.key().clone()).collect();
        let part = Part { keys, bytes: lot.batch.bytes(), line: lot.line, end: lot.end };
        self.bytes += part.bytes;
        self.keys.extend(part.keys.iter().cloned());
        let store = self.store;
        let write = async move {
            if !lot.batch.is_empty() {
                // The flush at the end covers what a write-back holds.
                let _ = store.write(lot.batch).await?;
            }
            Ok(part)
        };
        self.under_way.push_back(write.boxed());
    }

    /// The next lines that are in the store. After a failure none is said to be.
    async fn next(&mut self) -> Option<Result<Part, Error>> {
        let written = self.under_way.next().await?;
        match &written {
            Ok(part) => {
                self.bytes -= part.bytes;
                part.keys.iter().for_each(|key| {
                    self.keys.remove(key);
                });
            }
            Err(_) => self.failed = true,
        }
        Some(written)
    }

    /// Waits for all of them, also after a failure: none must arrive after the lines were imported again.
    async fn drain(&mut self, imported: &mut Imported, progress: &Progress) -> Result<(), Error> {
        let mut first = Ok(());
        while let Some(written) = { self.next().await } {
            match written {
                Ok(part) if !self.failed => imported.add(part, progress),
                Ok(_) => {}
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }
}

fn is_in(imported: Imported) -> String {
    match imported.entries {
        0 => "nothing was written".to_owned(),
        entries => {
            let entries = output::counted(entries, "entry is", "entries are");
            format!("{entries} in the store, up to line {}", imported.last_line)
        }
    }
}

fn not_flushed(error: Error, source: &Source) -> Failure {
    let line = source.from_line;
    Failure::from(error.with_context("the entries were written but may not survive a crash"))
        .next(format!("import them again, from line {line}"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use async_trait::async_trait;
    use tierstack::backends::Memory;
    use tierstack::testing::{FaultStore, Faults};
    use tierstack::{
        Changes, Commit, Identity, Limits, Operation, Pages, Profile, Read, Reply, Scan, Scope,
        Sighting, Usage, Value,
    };

    use super::*;

    /// A store without batches.
    struct Single(FaultStore<Memory>);

    impl Read for Single {
        fn get<'a>(&'a self, key: &'a [u8]) -> Reply<'a, Option<Value>> {
            self.0.get(key)
        }

        fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> Reply<'a, Vec<Option<Value>>> {
            self.0.get_many(keys)
        }

        fn scan(&self, scan: Scan) -> Pages<'_> {
            self.0.scan(scan)
        }
    }

    #[async_trait]
    impl Store for Single {
        async fn write(&self, batch: Batch) -> Result<Commit, Error> {
            self.profile().guarantees.check_batch(&batch)?;
            self.0.write(batch).await
        }

        async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit, Error>> {
            tierstack::write_in_order(self, group).await
        }

        async fn ingest(&self, _: Pages<'_>) -> Result<u64, Error> {
            Err(Error::unsupported("no runs"))
        }

        async fn changes(&self) -> Result<Changes, Error> {
            self.0.changes().await
        }

        async fn invalidate(&self, scope: Scope) -> Result<(), Error> {
            self.0.invalidate(scope).await
        }

        async fn inspect(&self, key: &[u8]) -> Result<Vec<Sighting>, Error> {
            self.0.inspect(key).await
        }

        async fn snapshot(&self) -> Result<Arc<dyn Read>, Error> {
            self.0.snapshot().await
        }

        async fn flush(&self) -> Result<(), Error> {
            self.0.flush().await
        }

        async fn compact(&self) -> Result<(), Error> {
            self.0.compact().await
        }

        async fn usage(&self) -> Result<Usage, Error> {
            self.0.usage().await
        }

        async fn count(&self, prefix: &[u8]) -> Result<Option<u64>, Error> {
            self.0.count(prefix).await
        }

        async fn close(&self) -> Result<(), Error> {
            self.0.close().await
        }

        fn profile(&self) -> Profile {
            self.0.profile().changed(|guarantees| {
                guarantees.atomic_batches = false;
                guarantees.ingest = false;
            })
        }

        fn identity(&self) -> Option<Identity> {
            self.0.identity()
        }
    }

    /// Imports ten lines, two a batch, from a pipe.
    async fn import(faults: &Faults, from_line: u64) -> (Arc<dyn Store>, Outcome<Imported>) {
        let store: Arc<dyn Store> = Arc::new(FaultStore::new(Memory::new(), faults));
        let source = Source {
            name: "-".to_owned(),
            from_line,
            max_line: 100,
            rules: Rules { limits: Limits::default(), expiry: false },
            batch_ops: 2,
        };
        let lines: String =
            (1..=10).map(|n| format!("{{\"key\":\"{n:02}\",\"value\":\"\"}}\n")).collect();
        let progress = Progress::new("importing", None, Unit::Bytes);
        let reader = Box::new(Cursor::new(lines));
        let done = write_all(&store, &source, reader, &progress, &Shutdown::listen(2)).await;
        (store, done)
    }

    #[tokio::test]
    async fn a_failing_batch_says_what_is_in_and_the_line_to_go_on_with() {
        let faults = Faults::new();
        faults.on(Operation::Write).skip(2).times(1).fail(ErrorKind::Capacity);
        let (store, done) = import(&faults, 1).await;
        let said = done.err().unwrap().to_string();
        assert!(said.contains("next: free space"), "{said}");
        assert!(said.contains("4 entries are in the store, up to line 4"), "{said}");
        assert!(said.contains("`tierstack import - --from-line 5`"), "{said}");
        assert!(store.get(b"04").await.unwrap().is_some());
        assert!(store.get(b"05").await.unwrap().is_none());
        assert_eq!(faults.calls(Operation::Flush), 1, "what is said to be in is flushed");
    }

    /// A store without batches: every line is a write, many of which are under way.
    async fn import_one_by_one(
        faults: &Faults,
        lines: &str,
    ) -> (Arc<dyn Store>, Outcome<Imported>) {
        let store = FaultStore::new(Memory::new(), faults);
        let store: Arc<dyn Store> = Arc::new(Single(store));
        let source = Source {
            name: "-".to_owned(),
            from_line: 1,
            max_line: 100,
            rules: Rules { limits: Limits::default(), expiry: false },
            batch_ops: 1,
        };
        let progress = Progress::new("importing", None, Unit::Bytes);
        let reader = Box::new(Cursor::new(lines.to_owned()));
        let done = write_all(&store, &source, reader, &progress, &Shutdown::listen(2)).await;
        (store, done)
    }

    fn numbered(count: usize) -> String {
        (1..=count).map(|n| format!("{{\"key\":\"{n:03}\",\"value\":\"v\"}}\n")).collect()
    }

    #[tokio::test]
    async fn a_store_without_batches_is_written_many_lines_at_a_time() {
        let faults = Faults::new();
        let gate = faults.on(Operation::Write).hold();
        let lines = numbered(100);
        let import = import_one_by_one(&faults, &lines);
        let opened = async {
            gate.reached(WRITERS).await;
            gate.open();
        };
        let ((store, done), ()) = tokio::join!(import, opened);
        assert_eq!(done.ok().map(|done| (done.entries, done.last_line)), Some((100, 100)));
        assert!(store.get(b"100").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn what_is_said_to_be_in_ends_before_the_first_line_that_failed() {
        let faults = Faults::new();
        faults.on(Operation::Write).skip(6).times(1).fail(ErrorKind::Capacity);
        // The line before it takes long, and those behind it do not.
        let gate = faults.on(Operation::Write).skip(5).times(1).hold();
        let lines = numbered(40);
        let import = import_one_by_one(&faults, &lines);
        let opened = async {
            gate.reached(1).await;
            tokio::task::yield_now().await;
            gate.open();
        };
        let ((store, done), ()) = tokio::join!(import, opened);
        let said = done.err().unwrap().to_string();
        assert!(said.contains("6 entries are in the store, up to line 6"), "{said}");
        assert!(said.contains("--from-line 7"), "{said}");
        assert!(store.get(b"006").await.unwrap().is_some());
        assert!(store.get(b"007").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn of_lines_with_the_same_key_the_last_counts() {
        let faults = Faults::new();
        // Were the two under way at once, the first would win.
        let gate = faults.on(Operation::Write).times(1).hold();
        let line = |value: &str| format!("{{\"key\":\"k\",\"value\":\"{value}\"}}\n");
        let lines = line("first") + &numbered(5) + &line("last");
        let import = import_one_by_one(&faults, &lines);
        let opened = async {
            gate.reached(1).await;
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            gate.open();
        };
        let ((store, done), ()) = tokio::join!(import, opened);
        assert_eq!(done.ok().map(|done| done.entries), Some(7));
        assert_eq!(store.get(b"k").await.unwrap(), Some("last".into()));
    }

    #[tokio::test]
    async fn lines_before_the_first_are_passed_over() {
        let (store, done) = import(&Faults::new(), 9).await;
        assert_eq!(done.ok().map(|done| (done.entries, done.last_line)), Some((2, 10)));
        assert!(store.get(b"08").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_failing_flush_is_a_failure() {
        let faults = Faults::new();
        faults.on(Operation::Flush).fail(ErrorKind::Unavailable);
        let said = import(&faults, 3).await.1.err().unwrap().to_string();
        assert!(said.contains("may not survive a crash"), "{said}");
        assert!(said.contains("import them again, from line 3"), "{said}");
    }
}
