//! Files in `.tierstack`.

use bytes::Bytes;

use super::error::failed;
use super::folder::{Folder, Found};
use super::tree::MAX_VALUE_BYTES;
use crate::error::{Error, Result};

/// A file of the store's own, if it is there.
pub(super) fn read_own(folder: &Folder, name: &[u8]) -> Result<Option<Bytes>> {
    let found = folder.read(name, MAX_VALUE_BYTES);
    match found.map_err(|error| failed("reading a file of the store's own", error))? {
        Found::Value(content) => Ok(Some(content.into())),
        Found::Missing => Ok(None),
        Found::Folder | Found::Other | Found::Large => Err(Error::corruption(
            "what is in .tierstack is not what this store puts there; move that folder elsewhere",
        )),
    }
}
