//! Opening: whose writes the journal holds, and taking them up again.

use std::io::Write as _;
use std::path::Path;

use super::config::WriteBackConfig;
use super::overlay::Overlay;
use super::run::Given;
use super::state::{Bounds, State};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::filesystem::{stage, sync_folder};
use crate::journal::{Journal, Reader, Settings, batch};
use crate::types::Identity;

/// Bytes of records that are read at a time.
const PAGE: usize = 1 << 20;

/// The name by which the journal knows what is flushed.
pub(super) const READER: &str = "store";

/// The file next to the journal that says which data its writes are for.
const OWNER: &str = "store";
/// The first line of it.
const MAGIC: &str = "tierstack write_back 1";

pub(super) async fn open_journal(path: &Path, config: &WriteBackConfig) -> Result<Journal> {
    let settings = Settings { max_bytes: config.journal_bytes(), ..Settings::default() };
    Journal::open(path, settings).await
}

/// The batches of the journal that the store below may not have, taken up again.
pub(super) async fn replay(
    journal: &Journal,
    bounds: Bounds,
    overlay: &Overlay,
    clock: &dyn Clock,
) -> Result<(State, Reader)> {
    let mut reader = journal.reader(READER, 0).await?;
    let mut state = State::new(bounds, reader.next());
    let mut records = reader.read(PAGE).await?;
    while !records.is_empty() {
        // The read starts first, in a thread of its own: the next page comes while this one is taken up.
        let take_up = async {
            for record in records {
                let logged = record.bytes.len() as u64;
                state.next = record.sequence;
                state.give(Given::replayed(&batch::decode(record.bytes)?, logged));
            }
            state.publish(overlay, state.next - 1, clock.monotonic());
            Ok(())
        };
        let (next, taken_up) = tokio::join!(biased; reader.read(PAGE), take_up);
        taken_up?;
        records = next?;
    }
    // A record of positions takes no number, but the next one follows what was appended.
    state.next = journal.usage().next;
    Ok((state, reader))
}

/// Whose writes the journal of a folder holds: an identity, or nothing where the store could not tell. `None`: nobody has written
/// it down yet.
pub(super) fn owner(folder: &Path) -> Result<Option<String>> {
    let path = folder.join(OWNER);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Error::io(format!("{} cannot be read", path.display()), error));
        }
    };
    let known =
        text.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix('\n')?.strip_suffix('\n'));
    match known {
        Some(known) => Ok(Some(known.to_owned())),
        None => Err(Error::corruption(format!(
            "{} does not say which data the journal is for; it was damaged, or written by another version of tierstack",
            path.display()
        ))),
    }
}

/// Opening would make one, also in a folder that holds something else.
pub(super) fn no_journal(folder: &Path) -> Error {
    Error::invalid(format!(
        "there is no journal of write_back in {}, and none is made here; correct `path`",
        folder.display()
    ))
}

pub(super) fn write_owner(folder: &Path, owner: &str) -> Result<()> {
    let path = folder.join(OWNER);
    let written = stage(&path).and_then(|(mut file, staged)| {
        file.write_all(format!("{MAGIC}\n{owner}\n").as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&staged, &path)?;
        if cfg!(unix) { sync_folder(folder) } else { Ok(()) }
    });
    written.map_err(|error| Error::io(format!("{} cannot be written", path.display()), error))
}

/// Refuses writes that are for other data. `dirty`: how many there are.
pub(super) fn check_owner(folder: &Path, below: Option<&Identity>, dirty: usize) -> Result<()> {
    let own = below.map_or("", Identity::as_str);
    match owner(folder)? {
        Some(known) if known == own => Ok(()),
        Some(known) if dirty > 0 => Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "the journal in {} holds writes for {}, and the store below is {}; put that store back, or write them to this one with `tierstack journal drain --to-other`",
                folder.display(),
                named(&known),
                named(own)
            ),
        )),
        _ => write_owner(folder, own),
    }
}

fn named(identity: &str) -> String {
    match identity {
        "" => "a store that cannot tell which data it holds".to_owned(),
        known => format!("'{known}'"),
    }
}
