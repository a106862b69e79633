//! Opening: the lock, the layout, what the file system can do, and batches that were left unfinished.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::{Mutex, RwLock};

use super::config::{FileConfig, Foreign};
use super::core::{CLOSED, Core, INTENT, INTENT_UNSYNCED, Own};
use super::entry_files::{Growth, Tree};
use super::error::failed;
use super::folder::{Folder, What};
use super::layout_file;
use super::names::{HOME, Layout, Names};
use super::own_files::read_own;
use crate::error::{Error, ErrorKind, Result};
use crate::filesystem::make_folder;
use crate::spelling::nearest_beside;

const TEMPORARY: &[u8] = b"temporary";
const LOCK: &[u8] = b"lock";
const LAYOUT: &[u8] = b"layout";

/// Without `may_create`, a folder that is no store yet is only read, and nothing is added to it; with `read_only`, nothing
/// to any.
pub(super) fn open(config: &FileConfig, may_create: bool) -> Result<Core> {
    let may_create = may_create && !config.read_only;
    let root = open_root(config, may_create)?;
    let is_store = root.what(HOME).map_err(|error| failed("opening the folder", error))?;
    let (own, lock, left_open) = if may_create || !config.read_only && is_store != What::Missing {
        let home = own_folder(&root, HOME, config.sync)?;
        let (lock, left_open) = lock(&home)?;
        let temporary = own_folder(&home, TEMPORARY, config.sync)?;
        (Some(Own { home, temporary }), Some(lock), left_open)
    } else {
        (None, None, false)
    };
    // Not one that a store has which was closed while it wrote.
    let first = getrandom::u64().map_err(|error| {
        Error::internal("the operating system gives no random numbers").with_source(error)
    })?;
    let strict = config.foreign == Foreign::Refuse;
    // The layout is what the folder says; until it is known, any will do.
    let layout = Layout { names: Names::Plain, fan_out: Vec::new() };
    let tree = Tree { root, layout, strict, growth: Growth::default() };
    let mut core = Core {
        tree,
        own,
        sync: config.sync,
        deciding: Mutex::default(),
        view: RwLock::default(),
        unfinished: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        broken: Mutex::default(),
        lock: Mutex::new(lock),
        next: AtomicU64::new(first),
    };
    core.tree.layout = layout_of(&core, config)?;
    if left_open && core.sync {
        sync_left_open(&core)?;
    }
    if let Some(own) = &core.own {
        recover(&core, own)?;
        if core.tree.layout.names == Names::Plain {
            probe_plain(&own.temporary)?;
        }
    }
    Ok(core)
}

fn open_root(config: &FileConfig, may_create: bool) -> Result<Folder> {
    let path = &config.path;
    if config.create && may_create && !path.exists() {
        make_folder(path).map_err(|error| failed("making the folder", error))?;
    }
    Folder::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let near = nearest_beside(path).map(|name| format!("; did you mean '{name}'?"));
            Error::config(format!(
                "there is no folder at `path`, and none is to be made here (`create: false`, `read_only: true`, or a command that only reads){}",
                near.unwrap_or_default()
            ))
        }
        io::ErrorKind::NotADirectory => {
            Error::config("`path` names a file; name the folder that holds the entries")
        }
        _ => failed("opening the folder", error),
    })
}

/// A folder of the store's own.
fn own_folder(above: &Folder, name: &[u8], sync: bool) -> Result<Folder> {
    let making = |error| failed("making the store's own folder .tierstack", error);
    if above.make(name).map_err(making)? && sync {
        above.sync().map_err(|error| {
            failed("syncing a folder, which `sync: true` needs (`sync: false` does without)", error)
        })?;
    }
    above.child(name).map_err(making)?.ok_or_else(|| {
        Error::config(
            "the name .tierstack, or one in it, is taken by something that is no folder; the store keeps its lock there, so move that elsewhere",
        )
    })
}

/// Locks the folder. Gives whether the last one to open it did not close it.
fn lock(home: &Folder) -> Result<(File, bool)> {
    let locking = |error| failed("locking the folder", error);
    let mut file = home.open_own(LOCK).map_err(locking)?;
    let mut said = String::new();
    let held = file.try_lock();
    let read = (&file).take(256).read_to_string(&mut said);
    match held {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let state = match read {
                Ok(_) if said.starts_with("open") => said.trim().to_owned(),
                _ => "open".to_owned(),
            };
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "the folder is {state}, and one process at a time can write to it; close it there first"
                ),
            ));
        }
        Err(std::fs::TryLockError::Error(error)) => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the file system has no locks, without which two processes could write at once",
            )
            .with_source(error));
        }
    }
    let written = file.set_len(0).and_then(|()| {
        file.rewind()?;
        writeln!(file, "open in process {}", std::process::id())
    });
    written.map_err(locking)?;
    Ok((file, !said.is_empty() && said != CLOSED))
}

/// The layout of the folder, recorded if it is new.
fn layout_of(core: &Core, config: &FileConfig) -> Result<Layout> {
    let looking = |error| failed("looking for the layout of the folder", error);
    let recorded = match &core.own {
        Some(own) => read_own(&own.home, LAYOUT)?,
        // As its owner has recorded it.
        None => match core.tree.root.child(HOME).map_err(looking)? {
            Some(home) => read_own(&home, LAYOUT)?,
            None => None,
        },
    };
    if let Some(content) = recorded {
        let layout = layout_file::decode(&content)?;
        let differs = config.names.is_some_and(|names| names != layout.names)
            || config.fan_out.as_ref().is_some_and(|fan_out| *fan_out != layout.fan_out);
        if differs {
            return Err(Error::config(format!(
                "the folder has the layout {}, and the settings ask for another one; leave `names` and `fan_out` out, or copy the entries to a new folder (`tierstack copy`)",
                layout_file::words(&layout)
            )));
        }
        return Ok(layout);
    }
    let empty = core.tree.is_empty()?;
    let fan_out = config.fan_out.clone().unwrap_or_default();
    if !empty && !fan_out.is_empty() {
        return Err(Error::config(
            "`fan_out` is for new folders: the files of this one are not in the folders that it would make; leave it out, or copy the entries to a new folder (`tierstack copy`)",
        ));
    }
    // Files that are there already are read as they are.
    let default = if empty { Names::Portable } else { Names::Plain };
    let layout = Layout { names: config.names.unwrap_or(default), fan_out };
    if let Some(own) = &core.own {
        if layout.names == Names::Plain {
            // Before it is recorded.
            probe_plain(&own.temporary)?;
        }
        record_layout(core, own, &layout)?;
    }
    Ok(layout)
}

fn record_layout(core: &Core, own: &Own, layout: &Layout) -> Result<()> {
    let recording = |error| failed("recording the layout of the folder", error);
    let name = b"layout";
    let _ = own.temporary.remove(name);
    own.temporary
        .create(name, layout_file::encode(layout).as_bytes(), None, core.sync)
        .map_err(recording)?;
    own.temporary.rename(name, &own.home, LAYOUT).map_err(recording)?;
    if core.sync {
        own.home.sync().map_err(recording)?;
        // A crash may have come between the making of .tierstack and its sync.
        core.tree.root.sync().map_err(recording)?;
    }
    Ok(())
}

/// Finishes the batch that was decided, and removes what never was.
fn recover(core: &Core, own: &Own) -> Result<()> {
    if let Some(content) = read_own(&own.home, INTENT)? {
        // It was synced before it got this name, and so were its files.
        core.judge(&content, own)?;
    }
    if let Some(content) = read_own(&own.home, INTENT_UNSYNCED)?
        && let Err(error) = core.judge(&content, own)
    {
        if error.kind() != ErrorKind::Corruption {
            return Err(error);
        }
        // Only a power cut does this, which such a store does not guarantee to survive.
        tracing::warn!("a power cut tore a batch of a store with `sync: false`; it is given up");
        let removed = own.home.remove(INTENT_UNSYNCED);
        removed.map_err(|error| failed("removing a torn intent", error))?;
    }
    core.finish()?;
    let listing = |error| failed("clearing .tierstack/temporary", error);
    let mut left = Vec::new();
    let listed = own.temporary.list(|name, what| {
        if what == What::File {
            left.push(name.to_vec());
        }
        Ok::<_, io::Error>(())
    });
    listed.map_err(listing)?;
    for name in left {
        own.temporary.remove(&name).map_err(listing)?;
    }
    Ok(())
}

/// What a process left that crashed may not be on the disk yet, though it can be seen: a folder that it
/// made, for one. Later writes rely on it.
fn sync_left_open(core: &Core) -> Result<()> {
    #[cfg(target_os = "linux")]
    core.tree.root.sync_all().map_err(|error| failed("syncing the file system", error))?;
    #[cfg(not(target_os = "linux"))]
    rustix::fs::sync();
    Ok(())
}

/// Finds out whether names are kept as they are.
fn probe_plain(temporary: &Folder) -> Result<()> {
    let unfit = |what: &str| {
        Error::config(format!(
            "this file system {what}, so names cannot be those of the keys as they are; set `names: portable`, which escapes what it does not keep"
        ))
    };
    // A name in lower case and one in upper case; one letter in two Unicode forms; bytes of no text.
    let probes = [
        (b"probe".as_slice(), Some(b"PROBE".as_slice()), "does not tell upper from lower case"),
        ("prob\u{e9}".as_bytes(), Some("probe\u{301}".as_bytes()), "changes Unicode in names"),
        (b"probe:*?\"<>|\\\x01\xfe. ", None, "refuses some bytes in names"),
    ];
    for (name, other, what) in probes {
        let _ = temporary.remove(name);
        match temporary.create(name, b"", None, false) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(unfit(what)),
            Err(error) => {
                let error = failed("trying a name", error);
                return Err(match error.kind() {
                    ErrorKind::Access | ErrorKind::Capacity => error,
                    _ => unfit(what).with_source(error),
                });
            }
        }
        let clash = other.map_or(Ok(What::Missing), |other| temporary.what(other));
        let mut kept = false;
        let listed = temporary.list(|found, _| {
            kept |= found == name;
            Ok::<_, io::Error>(())
        });
        let probing = |error| failed("trying a name", error);
        temporary.remove(name).map_err(probing)?;
        listed.map_err(probing)?;
        if !kept || clash.map_err(probing)? != What::Missing {
            return Err(unfit(what));
        }
    }
    Ok(())
}
