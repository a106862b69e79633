//! Files in `.tierstack`.

use bytes::Bytes;

use super::entry_files::MAX_VALUE_BYTES;
use super::error::failed;
use super::folder::{FileRead, Folder};
use crate::error::{Error, Result};

/// A file of the store's own, if it is there.
pub(super) fn read_own(folder: &Folder, name: &[u8]) -> Result<Option<Bytes>> {
    let found = folder.read(name, MAX_VALUE_BYTES);
    match found.map_err(|error| failed("reading a file of the store's own", error))? {
        FileRead::Value(content) => Ok(Some(content.into())),
        FileRead::Missing => Ok(None),
        FileRead::Folder | FileRead::Other | FileRead::Large => Err(Error::corruption(
            "what is in .tierstack is not what this store puts there; move that folder elsewhere",
        )),
    }
}
