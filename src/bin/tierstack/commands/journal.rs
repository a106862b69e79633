//! `tierstack journal`: what `write_back` has acknowledged and the store below does not have, while the store is closed.

use std::path::{Path, PathBuf};

use serde::Serialize;

use tierstack::layers::write_back::{self, JournalContent, WaitingBatch, WriteBackConfig};
use tierstack::{ErrorKind, LayerConfig, OpenOptions};

use crate::args::{Journal, JournalDrain, JournalInspect, JournalSkip, StoreArgs};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::output_file;
use crate::session::{self, Use};
use crate::shutdown::Shutdown;

/// `tierstack journal ...`
pub(crate) async fn run(command: Journal, stop: &Shutdown) -> Outcome {
    match command {
        Journal::Inspect(args) => inspect(&args, stop).await,
        Journal::Drain(args) => drain(&args, stop).await,
        Journal::Skip(args) => skip(&args).await,
    }
}

/// The folder of the store's journal. No store is opened.
fn folder(args: &StoreArgs) -> Outcome<PathBuf> {
    let checked = session::check(args)?;
    let at = || format!("{}: stores.{}.layers", args.config.display(), checked.store());
    let context = checked.layer_context(WriteBackConfig::NAME, &OpenOptions::reading());
    let Some((config, context)) = checked.layer_config::<WriteBackConfig>().zip(context) else {
        return Err(Failure::usage(format!(
            "{}: there is no layer 'write_back', so nothing waits for the store below; `--store NAME` names another store",
            at()
        )));
    };
    match &config.path {
        Some(path) => Ok(context.resolve(path)),
        None => Err(Failure::usage(format!(
            "{}: write_back has no `path`, so there is no journal; what it has acknowledged is in the memory of the process alone",
            at()
        ))),
    }
}

/// What to do where a process has the journal.
fn advised(error: tierstack::Error) -> Failure {
    let is_open = error.kind() == ErrorKind::Conflict;
    let failure = Failure::from(error);
    if is_open {
        return failure.next(
            "if a process runs the store, end it first; while it runs, `tierstack status` tells how much waits",
        );
    }
    failure
}

async fn held(path: &Path, stop: &Shutdown) -> Outcome<JournalContent> {
    stop.or(async { write_back::inspect(path).await.map_err(advised) }).await
}

async fn inspect(args: &JournalInspect, stop: &Shutdown) -> Outcome {
    let held = held(&folder(&args.store)?, stop).await?;
    output::fact(args.json.json, &held, || words(&held, args.limit))
}

fn words(held: &JournalContent, limit: usize) -> String {
    let owner =
        held.owner.as_ref().map_or_else(String::new, |owner| format!("store     {owner}\n"));
    let (Some(first), Some(last)) = (held.batches.first(), held.batches.last()) else {
        return format!("{owner}nothing waits: the store below has every batch");
    };
    let sum = |of: fn(&WaitingBatch) -> usize| held.batches.iter().map(of).sum::<usize>() as u64;
    let mut words = format!(
        "{owner}waiting   {} ({} to {}): {}, {}, {}\n\n",
        output::counted(held.batches.len() as u64, "batch", "batches"),
        first.sequence,
        last.sequence,
        output::counted(sum(|batch| batch.puts), "put", "puts"),
        output::counted(sum(|batch| batch.deletes), "delete", "deletes"),
        output::bytes(sum(|batch| batch.bytes))
    );
    let row = |batch: &WaitingBatch| {
        vec![
            batch.sequence.to_string(),
            output::count(batch.puts as u64),
            output::count(batch.deletes as u64),
            output::bytes(batch.bytes as u64),
        ]
    };
    let rows: Vec<_> = held.batches.iter().take(limit).map(row).collect();
    words += &output::table(&["batch", "puts", "deletes", "bytes"], &rows);
    match held.batches.len().saturating_sub(limit) {
        0 => {}
        more => words += &format!("\nand {} more\n", output::count(more as u64)),
    }
    words
}

#[derive(Serialize)]
struct Drained {
    batches: u64,
}

async fn drain(args: &JournalDrain, stop: &Shutdown) -> Outcome {
    let path = folder(&args.store)?;
    // Before a store is opened, or made: is there anything to drain?
    let waiting = held(&path, stop).await?.batches.len();
    let batches = match waiting {
        0 => 0,
        _ => {
            let below =
                session::open_below(&args.store, WriteBackConfig::NAME, Use::Filling, stop).await?;
            session::until_closed(below.store(), async |store| {
                stop.or(async {
                    let drained = match args.to_other {
                        true => write_back::drain_to_other(&path, store).await,
                        false => write_back::drain(&path, store).await,
                    };
                    drained.map_err(|error| advised(error.with_context("not everything was drained")))
                })
                .await
                .map_err(|failure| {
                    failure.next("what is before it is in the store, the rest stays in the journal; `tierstack journal skip` takes out a batch that is refused for good")
                })
            })
            .await?
        }
    };
    output::fact(args.json.json, &Drained { batches }, || match batches {
        0 => "nothing waited: the store below had every batch".to_owned(),
        _ => format!(
            "wrote {} to the store below; nothing waits any more",
            output::counted(batches, "batch", "batches")
        ),
    })
}

#[derive(Serialize)]
struct Skipped<'a> {
    skipped: u64,
    copy: &'a Path,
}

async fn skip(args: &JournalSkip) -> Outcome {
    output_file::refuse_own(&args.copy, &args.store.config)?;
    let path = folder(&args.store)?;
    write_back::skip(&path, args.sequence, &args.copy).await.map_err(advised)?;
    let fact = Skipped { skipped: args.sequence, copy: &args.copy };
    output::fact(args.json.json, &fact, || {
        format!(
            "took the batch {} out; it is kept in the journal {}\n\
             The store does not get it by itself. For those behind it run `tierstack journal drain`, or open the store.",
            args.sequence,
            args.copy.display()
        )
    })
}
