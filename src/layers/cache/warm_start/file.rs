//! The file of keys. Drawn in `docs/formats/cache-keys.md`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use bytes::{Buf as _, Bytes};

use crate::error::{Error, Result};

const MAGIC: [u8; 4] = *b"tsck";
const VERSION: u8 = 1;
const SUM: usize = 4;

/// The most that a file of keys takes.
pub(super) const MOST_BYTES: usize = 16 << 20;

/// What a key takes in the file.
pub(super) const fn length(key: &[u8]) -> usize {
    4 + key.len()
}

fn encode(keys: &[Bytes]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.push(VERSION);
    for key in keys {
        bytes.extend_from_slice(&(key.len() as u32).to_be_bytes());
        bytes.extend_from_slice(key);
    }
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
    bytes
}

/// `None`: it is damaged, or of another version.
fn decode(bytes: &Bytes) -> Option<Vec<Bytes>> {
    let (covered, sum) = bytes.split_last_chunk::<SUM>()?;
    if u32::from_be_bytes(*sum) != crc32fast::hash(covered) {
        return None;
    }
    let mut rest = bytes.slice_ref(covered.strip_prefix(&MAGIC)?.strip_prefix(&[VERSION])?);
    let mut keys = Vec::new();
    while !rest.is_empty() {
        let length = rest.try_get_u32().ok()? as usize;
        if length > rest.len() {
            return None;
        }
        keys.push(rest.split_to(length));
    }
    Some(keys)
}

/// The keys that were written. None if there is no file yet.
///
/// # Errors
/// `Corruption` if it is damaged; `Config` if it is a file of somebody else; otherwise as the file system says.
pub(super) fn read(path: &Path) -> Result<Vec<Bytes>> {
    // A pipe is waited for, and a device would be replaced.
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(Error::config(
            "warm_start.path names a folder, a pipe or a device; name a file",
        ));
    }
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(2 * MOST_BYTES as u64).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let message =
                "warm_start.path cannot be read; name a file that this process may read and write";
            return Err(Error::config(message).with_source(error));
        }
        Ok(0) => return Ok(Vec::new()),
        Ok(_) => {}
    }
    if !bytes.starts_with(&MAGIC) {
        return Err(Error::config(
            "warm_start.path names a file that holds something else; name another one. This one was not changed",
        ));
    }
    decode(&bytes.into()).ok_or_else(|| {
        Error::corruption("the keys for the warm start are damaged, or of another version")
    })
}

/// Writes the keys next to the file, and renames them to its name.
pub(super) fn write(path: &Path, keys: &[Bytes]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".tierstack.new");
    // Of a close that was cut off.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(&encode(keys))?;
    file.sync_all()?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn keys() -> Vec<Bytes> {
        vec!["user:1".into(), Bytes::from(vec![0xff; 300]), "x".into()]
    }

    #[test]
    fn keys_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        assert_eq!(read(&path).unwrap(), Vec::<Bytes>::new());
        for keys in [keys(), Vec::new()] {
            write(&path, &keys).unwrap();
            assert_eq!(read(&path).unwrap(), keys);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn damage_is_noticed_and_a_file_of_somebody_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let whole = encode(&keys());
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            let kind = if at < 4 { ErrorKind::Config } else { ErrorKind::Corruption };
            assert_eq!(read(&path).unwrap_err().kind(), kind, "{at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(if at == 0 { read(&path).unwrap().is_empty() } else { read(&path).is_err() });
        }
    }

    #[test]
    fn version_1_is_read_for_ever() {
        let keys = read(Path::new("tests/fixtures/cache-keys/v1")).unwrap();
        assert_eq!(keys, [Bytes::from("user:1"), Bytes::from(&[0xff, 0x00][..])]);
        assert_eq!(encode(&keys), std::fs::read("tests/fixtures/cache-keys/v1").unwrap());
    }
}
