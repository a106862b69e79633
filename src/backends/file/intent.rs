//! The intent of a batch: what is to be done, written down before any of it is done. The format is drawn
//! in `docs/formats/file-intent.md`.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::types::{Limits, check_key};

const MAGIC: [u8; 4] = *b"tsin";
const VERSION: u8 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// The file `temporary/<id>` becomes that of the key.
    Put {
        key: Bytes,
        file: Written,
    },
    Delete {
        key: Bytes,
    },
}

/// A file that waits in `temporary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) id: u64,
    pub(super) bytes: u64,
    pub(super) crc: u32,
}

impl Written {
    pub(super) fn name(self) -> Vec<u8> {
        format!("{:016x}", self.id).into_bytes()
    }
}

impl Deed {
    pub(super) fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

pub(super) fn encode(deeds: &[Deed]) -> Result<Vec<u8>> {
    let count = u32::try_from(deeds.len())
        .map_err(|_| Error::invalid("a batch of more than 4294967295 operations"))?;
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&count.to_be_bytes());
    for deed in deeds {
        out.push(if matches!(deed, Deed::Put { .. }) { PUT } else { DELETE });
        let length = u32::try_from(deed.key().len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(deed.key());
        if let Deed::Put { file, .. } = deed {
            out.extend_from_slice(&file.id.to_be_bytes());
            out.extend_from_slice(&file.bytes.to_be_bytes());
            out.extend_from_slice(&file.crc.to_be_bytes());
        }
    }
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    Ok(out)
}

/// Reads an intent.
///
/// # Errors
/// `Corruption`, unless it is whole and of a version that is known.
pub(super) fn decode(content: &Bytes) -> Result<Vec<Deed>> {
    let damaged = || {
        Error::corruption(
            "the intent of a batch is damaged (.tierstack/intent): the batch was acknowledged or about to be, and may be half done; restore the folder from a backup, or remove that file to give the rest of the batch up",
        )
    };
    let end = content.len().checked_sub(4).ok_or_else(damaged)?;
    let (body, crc) = (content.slice(..end), content.slice(end..));
    if crc.as_ref() != crc32fast::hash(&body).to_be_bytes() {
        return Err(damaged());
    }
    let mut rest = Rest(body);
    if rest.take(4) != Some(Bytes::from_static(&MAGIC)) {
        return Err(damaged());
    }
    match rest.take(1).as_deref() {
        Some([VERSION]) => {}
        Some([version]) => {
            return Err(Error::unsupported(format!(
                "the intent of a batch is of version {version}, and this program knows version {VERSION}; open the folder once with the program that wrote it"
            )));
        }
        _ => return Err(damaged()),
    }
    let count = rest.u32().ok_or_else(damaged)?;
    // The count is no reason to allocate: the content bounds it.
    let mut deeds = Vec::new();
    for _ in 0..count {
        deeds.push(rest.deed().ok_or_else(damaged)?);
    }
    if rest.0.is_empty() { Ok(deeds) } else { Err(damaged()) }
}

struct Rest(Bytes);

impl Rest {
    fn take(&mut self, bytes: usize) -> Option<Bytes> {
        (bytes <= self.0.len()).then(|| self.0.split_to(bytes))
    }

    fn deed(&mut self) -> Option<Deed> {
        let kind = self.take(1)?;
        let length = self.u32()? as usize;
        let key = self.take(length).filter(|_| length <= Limits::MAX_KEY_BYTES)?;
        check_key(&key).ok()?;
        match kind.as_ref() {
            [PUT] => {
                let file = Written { id: self.u64()?, bytes: self.u64()?, crc: self.u32()? };
                Some(Deed::Put { key, file })
            }
            [DELETE] => Some(Deed::Delete { key }),
            _ => None,
        }
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.as_ref().try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.as_ref().try_into().ok()?))
    }
}
