//! `tierstack export`: a store as JSON lines, of one moment where the store offers snapshots.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use futures_util::TryStreamExt;

use tierstack::{Error, Read, Scan, Store};

use crate::args::Export;
use crate::failure::{Failure, Outcome};
use crate::jsonl;
use crate::output;
use crate::progress::{Progress, Unit};
use crate::session;
use crate::stop::Stop;

/// `tierstack export`
pub(crate) async fn run(args: Export, stop: &Stop) -> Outcome {
    let scan = args.prefix.as_deref().map_or_else(Scan::all, Scan::prefix);
    session::with(&args.store, stop, async |store: &Arc<dyn Store>| match &args.output {
        None => {
            let mut out = output::buffered();
            stop.or(lines(store, scan, &mut out, Failure::output)).await?;
            Ok(())
        }
        Some(path) => {
            let entries = to_file(store, scan, path, stop).await?;
            output::line(format!("exported {} to {}", output::entries(entries), path.display()))
        }
    })
    .await
}

/// Writes beside the file and renames at the end, so that the file is whole or not there. An early
/// end removes what was written.
async fn to_file(store: &Arc<dyn Store>, scan: Scan, path: &Path, stop: &Stop) -> Outcome<u64> {
    let failed =
        |error| Failure::from(Error::io(format!("{} cannot be written", path.display()), error));
    if path.is_dir() {
        let what = format!("{} is a folder; --output names a file", path.display());
        return Err(Failure::usage(what));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut beside = tempfile::Builder::new();
    beside.prefix(".tierstack-export-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any new file: the user's mask takes away what it must.
        beside.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = beside.tempfile_in(folder).map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    let entries = stop.or(lines(store, scan, &mut out, failed)).await.map_err(|failure| {
        failure.next(format!("nothing was left behind; {} is as it was", path.display()))
    })?;
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    // The new name is on the disk when the folder is; not every system can sync one.
    #[cfg(unix)]
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(entries)
}

async fn lines(
    store: &Arc<dyn Store>,
    scan: Scan,
    out: &mut impl Write,
    failed: impl Fn(std::io::Error) -> Failure,
) -> Outcome<u64> {
    let source = session::moment(store).await?;
    // How many entries a part of the store has is unknown.
    let all = scan == Scan::all();
    let total = if all { store.usage().await?.entries } else { None };
    let progress = Progress::new("exporting", total, Unit::Entries);
    let mut entries = 0;
    let mut pages = source.scan(scan);
    while let Some(page) = pages.try_next().await? {
        for entry in &page.entries {
            jsonl::write(out, &entry.key, Some(&entry.value)).map_err(&failed)?;
        }
        entries += page.entries.len() as u64;
        progress.add(page.entries.len() as u64);
    }
    out.flush().map_err(&failed)?;
    progress.finish();
    Ok(entries)
}
