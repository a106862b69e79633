//! Folders that a power cut does not take away.

#[cfg(all(unix, any(feature = "file", feature = "object")))]
pub(crate) mod file_metadata;
#[cfg(any(feature = "rocksdb", feature = "sqlite"))]
pub(crate) mod users;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Makes a folder and those above it that are missing, and brings their names to the disk: or what is
/// saved in it would be gone with them.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let made: Vec<&Path> = path.ancestors().take_while(missing).collect();
    std::fs::create_dir_all(path)?;
    if cfg!(unix) {
        made.into_iter().filter_map(Path::parent).try_for_each(sync_folder)?;
    }
    Ok(())
}

/// Bytes that are free for this process where a folder is. `None`: the system does not say.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let about = rustix::fs::statvfs(folder).ok()?;
        Some(about.f_bavail.saturating_mul(about.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// What tells a file or folder from every other one of this machine. `None`: the system does not say.
#[cfg(any(feature = "file", feature = "sqlite", feature = "object", feature = "opendal"))]
pub(crate) fn identity(about: &std::fs::Metadata) -> Option<[String; 3]> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        // Numbers of removed files are used again.
        let born = about.created().ok();
        let born = born.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let born = born.map_or_else(String::new, |since| since.as_nanos().to_string());
        Some([about.dev().to_string(), about.ino().to_string(), born])
    }
    #[cfg(not(unix))]
    {
        let _ = about;
        None
    }
}

/// A file next to the one that is meant, for its owner alone, as `object_store` calls them: it leaves names that end so
/// out when it lists a folder.
#[allow(dead_code, reason = "used by some features only")]
pub(crate) fn stage(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut number = 1u64;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{number}"));
        match options.open(&name) {
            Ok(file) => return Ok((file, name.into())),
            // Of another writer, or of one that was cut off.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Brings the names in a folder to the disk.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match File::open(path) {
        Ok(folder) => folder.sync_all(),
        // A folder may be open for passing through only.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_made_and_what_is_there_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c");
        make_folder(&path).unwrap();
        std::fs::write(path.join("file"), "1").unwrap();
        make_folder(&path).unwrap();
        assert_eq!(std::fs::read(path.join("file")).unwrap(), b"1");
        assert!(make_folder(&path.join("file/below")).is_err());
    }
}
