//! `tierstack import`: JSON lines into a store, in constant memory.
//!
//! A file is checked as a whole before anything is written, so that a bad line means that nothing has
//! changed. A pipe cannot be read twice: it is written as it comes, and what was written before a bad
//! line stays. Whatever ends an import early, it says the line with which to go on; a line that is
//! imported twice does no harm.

mod source;
#[cfg(test)]
mod tests;
mod writes;

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use tierstack::{Error, ErrorKind, Store};

use self::source::{Lot, Source, is_seekable, open};
use self::writes::{Imported, Writes};
use crate::args::Import;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::{Progress, Unit};
use crate::session::{self, Use};
use crate::shutdown::Shutdown;

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
    let kept =
        |failure: Failure| failure.next(is_in(imported)).next(source.resume(imported.last_line));
    match (end, flushed) {
        (None, Ok(())) => Ok(imported),
        (Some(failure), Ok(())) => Err(kept(failure)),
        // What was acknowledged is as durable as it gets, with or without the flush.
        (Some(failure), Err(_)) if !needs_flush => Err(kept(failure)),
        (None, Err(error)) => Err(not_flushed(error, source)),
        (Some(failure), Err(error)) => Err(not_flushed(error, source).also(failure)),
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
