//! The folder: ours or refused, locked, and the files in it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};

const LAYOUT: &str = "layout";
const LAYOUT_NEW: &str = "layout.new";
const LAYOUT_WORDS: &str = "tierstack cache disk ";
const VERSION: &str = "1";
const LOCK: &str = "lock";
pub(super) const INDEX: &str = "index";
const INDEX_NEW: &str = "index.new";
const SEGMENT: &str = "segment-";

fn failed(doing: &'static str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Access,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Capacity,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("disk: {doing} failed")).with_source(error)
}

fn not_ours() -> Error {
    Error::config(
        "disk.path holds something that is no cache of tierstack; name a new or an empty folder. Nothing there was changed",
    )
}

/// A folder that is ours, and locked until it is left.
#[derive(Debug)]
pub(super) struct Folder {
    /// Without links.
    path: PathBuf,
    /// Gone once the folder is left to others.
    lock: Mutex<Option<File>>,
    #[cfg(test)]
    pub(super) fault: super::tests::Fault,
}

impl Folder {
    /// Makes or takes the folder.
    pub(super) fn open(path: &Path) -> Result<Self> {
        make(path).map_err(|error| failed("making the folder", error))?;
        let listing = |error| failed("looking into the folder", error);
        check_owner(path)?;
        let names = names(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory => not_ours(),
            _ => listing(error),
        })?;
        for name in names.iter().filter(|name| is_own(name)) {
            if !path.join(name).symlink_metadata().map_err(listing)?.is_file() {
                return Err(not_ours());
            }
        }
        if names.iter().any(|name| name == LAYOUT) {
            check_layout(path)?;
        } else if names.iter().any(|name| name != LAYOUT_NEW) {
            return Err(not_ours());
        } else {
            write_layout(path).map_err(|error| failed("marking the folder", error))?;
        }
        let lock = lock(path)?;
        Ok(Self {
            path: path.canonicalize().map_err(listing)?,
            lock: Mutex::new(Some(lock)),
            #[cfg(test)]
            fault: super::tests::Fault::default(),
        })
    }

    /// Where a test lets the disk fail.
    fn step(&self) -> io::Result<()> {
        #[cfg(test)]
        self.fault.step()?;
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it to others.
    pub(super) fn leave(&self) {
        self.lock.lock().take();
    }

    fn segment_path(&self, number: u64) -> PathBuf {
        self.path.join(format!("{SEGMENT}{number:016x}"))
    }

    /// The numbers of the segments that are there.
    pub(super) fn segments(&self) -> io::Result<Vec<u64>> {
        let mut numbers: Vec<u64> =
            names(&self.path)?.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn segment_length(&self, number: u64) -> io::Result<u64> {
        Ok(self.segment_path(number).metadata()?.len())
    }

    pub(super) fn create_segment(&self, number: u64) -> io::Result<File> {
        self.step()?;
        private().create_new(true).open(self.segment_path(number))
    }

    pub(super) fn append(&self, segment: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        segment.write_all(bytes)
    }

    /// Its bytes are free at once, also where a reader still holds it open.
    pub(super) fn remove_segment(&self, number: u64) -> io::Result<()> {
        self.step()?;
        let path = self.segment_path(number);
        match OpenOptions::new().write(true).open(&path) {
            Ok(file) => file.set_len(0)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        std::fs::remove_file(path)
    }

    pub(super) fn sync_segment(&self, number: u64) -> io::Result<()> {
        self.step()?;
        File::open(self.segment_path(number))?.sync_all()
    }

    /// Fewer bytes where the segment ends before.
    pub(super) fn read(&self, number: u64, offset: u32, length: u32) -> io::Result<Vec<u8>> {
        self.step()?;
        let mut file = File::open(self.segment_path(number))?;
        file.seek(SeekFrom::Start(u64::from(offset)))?;
        let mut record = Vec::with_capacity(length as usize);
        file.take(u64::from(length)).read_to_end(&mut record)?;
        Ok(record)
    }

    /// Reads the saved index, if the folder was closed with one. It is gone before this returns, also after a
    /// power cut: what is written from here on makes it wrong.
    pub(super) fn consume_index<T>(
        &self,
        read: impl FnOnce(BufReader<File>) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        self.step()?;
        remove_if_there(&self.path.join(INDEX_NEW))?;
        let saved = match File::open(self.path.join(INDEX)) {
            Ok(file) => read(BufReader::new(file))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // An open that failed may have removed it, and a power cut would bring it back.
                sync_folder(&self.path)?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.forget_index()?;
        Ok(Some(saved))
    }

    /// Gone when this returns, also after a power cut.
    pub(super) fn forget_index(&self) -> io::Result<()> {
        remove_if_there(&self.path.join(INDEX))?;
        sync_folder(&self.path)
    }

    pub(super) fn save_index(
        &self,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.step()?;
        let new = self.path.join(INDEX_NEW);
        remove_if_there(&new)?;
        let mut file = BufWriter::new(private().create_new(true).open(&new)?);
        write(&mut file)?;
        file.into_inner()?.sync_all()?;
        std::fs::rename(&new, self.path.join(INDEX))?;
        sync_folder(&self.path)
    }
}

fn is_own(name: &str) -> bool {
    [LAYOUT, LAYOUT_NEW, LOCK, INDEX, INDEX_NEW].contains(&name) || segment_number(name).is_some()
}

fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(SEGMENT).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Names that are no text are not ours.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let names = std::fs::read_dir(path)?;
    names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        std::fs::create_dir_all(above)?;
    }
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only modes change it"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        // What is there is looked at next.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Refuses a folder in which another user can put what this process would serve.
#[cfg(unix)]
fn check_owner(path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let there = path.metadata().map_err(|error| failed("looking at the folder", error))?;
    let (owner, own, mode) =
        (there.uid(), rustix::process::geteuid().as_raw(), there.mode() & 0o7777);
    let why = if owner != own {
        format!("belongs to the user {owner}, and this process runs as the user {own}")
    } else if mode & 0o022 != 0 {
        format!("has the mode {mode:04o}, so other users can write into it")
    } else {
        return Ok(());
    };
    Err(Error::config(format!(
        "disk.path {why}; name a folder that does not exist yet, such as one inside of it, or make this one private (chmod 700)"
    )))
}

#[cfg(not(unix))]
fn check_owner(_path: &Path) -> Result<()> {
    Ok(())
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Elsewhere than on Unix a folder cannot be synced, and its names are.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

fn check_layout(path: &Path) -> Result<()> {
    let mut words = String::new();
    let read =
        File::open(path.join(LAYOUT)).and_then(|file| file.take(256).read_to_string(&mut words));
    match read {
        Err(error) if error.kind() != io::ErrorKind::InvalidData => {
            return Err(failed("reading the mark of the folder", error));
        }
        Err(_) => return Err(not_ours()),
        Ok(_) => {}
    }
    match words.strip_prefix(LAYOUT_WORDS).and_then(|rest| rest.strip_suffix('\n')) {
        Some(VERSION) => Ok(()),
        Some(version) if version.parse::<u32>().is_ok() => Err(Error::config(format!(
            "disk.path holds a cache of format {version}, and this version of tierstack knows format {VERSION}; name another folder, or empty this one"
        ))),
        _ => Err(not_ours()),
    }
}

fn write_layout(path: &Path) -> io::Result<()> {
    let new = path.join(LAYOUT_NEW);
    let mut file = private().create(true).truncate(true).open(&new)?;
    file.write_all(format!("{LAYOUT_WORDS}{VERSION}\n").as_bytes())?;
    // Else a power cut may leave an empty file of that name, which is not ours.
    file.sync_all()?;
    std::fs::rename(new, path.join(LAYOUT))?;
    sync_folder(path)
}

fn lock(path: &Path) -> Result<File> {
    let locking = |error| failed("locking the folder", error);
    let file = private().create(true).truncate(false).open(path.join(LOCK)).map_err(locking)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Conflict,
            "disk.path is in use by another process, or another cache of this one; each needs a folder of its own",
        )),
        Err(TryLockError::Error(error)) => Err(locking(error)),
    }
}
