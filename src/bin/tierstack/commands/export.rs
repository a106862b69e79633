//! `tierstack export`: a store as JSON lines, of one moment where the store offers snapshots.

use std::path::Path;
use std::sync::Arc;

use futures_util::TryStreamExt;

use tierstack::{Scan, Store, jsonl};

use crate::args::Export;
use crate::failure::Outcome;
use crate::output;
use crate::output_file::{self, Target};
use crate::progress::{Progress, Unit};
use crate::session::{self, Use};
use crate::shutdown::Shutdown;
use crate::sink::Sink;
use crate::walk::{self, Skips};

/// `tierstack export`
pub(crate) async fn run(args: Export, stop: &Shutdown) -> Outcome {
    match &args.output {
        Some(path) if path != Path::new("-") => output_file::refuse_own(path, &args.store.config)?,
        _ => output::refuse_closed()?,
    }
    let scan = args.prefix.as_deref().map_or_else(Scan::all, Scan::prefix);
    let skips = Skips::asked(args.skip.skip);
    session::with(&args.store, Use::Existing, stop, async |store: &Arc<dyn Store>| {
        let mut target = stop.or(Target::open(args.output.as_deref())).await?;
        let (to_stdout, whole) = (target.is_stdout(), target.is_whole_or_nothing());
        let written = stop
            .or(async {
                let entries = lines(store, scan, &skips, target.sink()).await?;
                target.finish().await.map(|()| entries)
            })
            .await;
        skips.sum_up();
        let entries = written.map_err(|failure| match &args.output {
            Some(path) if whole => {
                failure.next(format!("nothing was left behind; {} is as it was", path.display()))
            }
            _ => failure,
        })?;
        match &args.output {
            Some(path) if !to_stdout => {
                output::line(format!("exported {} to {}", output::entries(entries), path.display()))
            }
            _ => Ok(()),
        }
    })
    .await
}

async fn lines(store: &Arc<dyn Store>, scan: Scan, skips: &Skips, out: &mut Sink) -> Outcome<u64> {
    let source = session::moment(store).await?;
    // How many entries a part of the store has is unknown.
    let all = scan == Scan::all();
    let total = if all { store.usage().await?.entries } else { None };
    let progress = Progress::new("exporting", total, Unit::Entries);
    let mut entries = 0;
    let mut pages = walk::pages(&*source, scan, skips);
    while let Some(page) = pages.try_next().await? {
        for entry in &page.entries {
            out.write(|out| jsonl::write(out, &entry.key, Some(&entry.value))).await?;
        }
        entries += page.entries.len() as u64;
        progress.add(page.entries.len() as u64);
    }
    progress.finish();
    Ok(entries)
}
