//! `tierstack import`: JSON lines into a store, in constant memory.
//!
//! A file is checked as a whole before anything is written, so that a bad line means that nothing has
//! changed. A pipe cannot be read twice: it is written as it comes, and what was written before a bad
//! line stays. Whatever ends an import early, it says the line with which to go on; a line that is
//! imported twice does no harm.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::mpsc;

use tierstack::{Batch, Error, ErrorKind, Op, Store};

use crate::args::Import;
use crate::failure::{Failure, Outcome};
use crate::jsonl::{self, Lines, Rules};
use crate::output;
use crate::progress::{Progress, Unit};
use crate::session;
use crate::stop::Stop;

/// Bytes after which a batch is written: large enough to spread the price of a synced write.
const BATCH_BYTES: usize = 4 << 20;
/// Operations after which a batch is written.
const BATCH_OPS: usize = 8192;

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
pub(crate) async fn run(args: Import, stop: &Stop) -> Outcome {
    let standard_input = args.file == Path::new("-");
    let input = if standard_input { None } else { Some(open(&args.file)?) };
    session::with(&args.store, stop, async |store: &Arc<dyn Store>| {
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
        let most = guarantees.limits.batch_ops.unwrap_or(BATCH_OPS).clamp(1, BATCH_OPS);
        Self {
            name: args.file.display().to_string(),
            from_line: args.from_line,
            max_line: args.max_line.as_usize(),
            rules: Rules { limits: guarantees.limits, expiry: guarantees.expiry },
            batch_ops: if guarantees.atomic_batches { most } else { 1 },
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
async fn check(source: &Source, path: &Path, total: Option<u64>, stop: &Stop) -> Outcome {
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
    stop: &Stop,
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
    let end = loop {
        let lot = tokio::select! {
            biased;
            () = stop.wait() => break Some(Failure::stopped("the import is not complete")),
            lot = lots.recv() => lot,
        };
        match lot {
            None => break None,
            Some(Err(error)) if error.kind() == ErrorKind::InvalidInput => {
                break Some(Failure::from(error).next("correct the line"));
            }
            Some(Err(error)) => break Some(error.into()),
            Some(Ok(lot)) => match write(store, lot, &mut imported).await {
                Ok(end) => progress.set(end, None),
                Err(error) => break Some(error.into()),
            },
        }
    };
    let flushed = store.flush().await;
    let promised = store.profile().guarantees;
    let needs_flush = promised.durability < promised.durability_after_flush;
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

async fn write(store: &Arc<dyn Store>, lot: Lot, imported: &mut Imported) -> Result<u64, Error> {
    let (entries, bytes) = (lot.batch.len() as u64, lot.batch.bytes() as u64);
    if entries > 0 {
        // The flush at the end covers what a write-back holds.
        let _ = store.write(lot.batch).await?;
    }
    imported.entries += entries;
    imported.bytes += bytes;
    imported.last_line = lot.line;
    Ok(lot.end)
}

fn is_in(imported: Imported) -> String {
    match imported.entries {
        0 => "nothing was written".to_owned(),
        entries => {
            let (entries, line) = (output::entries(entries), imported.last_line);
            format!("{entries} are in the store, up to line {line}")
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

    use tierstack::backends::Memory;
    use tierstack::testing::{FaultStore, Faults};
    use tierstack::{Limits, Operation, Read};

    use super::*;

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
        let done = write_all(&store, &source, reader, &progress, &Stop::listen()).await;
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
