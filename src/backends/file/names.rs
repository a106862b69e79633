//! Keys as names of folders and files, and back.
//!
//! A key is cut into components. All but the last are folders, the last is a file:
//!
//! - a `/` ends a component, unless it is the first or the last byte of the key, or is next to another
//!   one: then it is escaped;
//! - a component also ends once its name is [`FULL`], and at the widths of `fan_out`. Its folder is then a
//!   *part*, marked `%+`, as no `/` is between it and what follows.
//!
//! Whether a component ends depends on nothing but the bytes before, and on whether any follow. So all keys
//! that begin with the bytes of a folder are in that folder, and visiting the entries of each folder in
//! the order of their bytes (a folder's with a `/` behind them, a part's without) visits the keys in
//! bytewise order, whatever the names look like.
//!
//! A file whose name is needed by a folder, as `a` is by the key `a/b`, is marked `%=` and is
//! *next to* it.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Which bytes of a key stand for themselves in a name.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path();
/// # tokio_test::block_on(async {
/// use tierstack::StoreExt;
/// use tierstack::backends::file::Names;
/// use tierstack::backends::{FileConfig, FileStore};
///
/// let config = FileConfig { names: Some(Names::Portable), ..FileConfig::new(path) };
/// let store = FileStore::open(config).await?;
/// store.put("docs/README", "A and a are two names everywhere").await?;
/// assert!(path.join("docs/^r^e^a^d^m^e").exists());
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Names {
    /// All that the file system takes, so that existing folders are read as they are. Needs a file system
    /// that tells upper from lower case and keeps names byte by byte, which opening verifies.
    Plain,
    /// Lower-case letters, digits, and punctuation that no system reserves; `A` is written `^a`, any other
    /// byte `%xx`. Such a folder can be copied to every file system, those that ignore case or change
    /// Unicode included, without two keys becoming one file.
    Portable,
}

/// The folder of the store's own files, in the root. No key has this name.
pub(super) const HOME: &[u8] = b".tierstack";

/// A component ends once its name has this many bytes. What may still come on top of one byte less, an
/// escape (3), that of a device's first letter (2) and a mark (2), makes the 255 bytes that file systems
/// allow.
const FULL: usize = 249;
/// Slashes of a key that become folders. Further ones are escaped, so that no key makes thousands.
const MOST_SLASHES: usize = 128;

const PART: &[u8] = b"%+";
const BESIDE: &[u8] = b"%=";

/// What a name in a folder stands for, in the order in which those of the same bytes are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    File,
    /// A file next to a folder of its name.
    Beside,
    /// The entries whose keys go on behind a slash.
    Folder,
    /// The entries whose keys go on at once.
    Part,
}

/// Where a folder is: what decides how the keys in it go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct At {
    /// Bytes of every key in it that are spelt by the folders above.
    pub(super) bytes: usize,
    pub(super) slashes: usize,
}

impl At {
    /// Inside an entry of this folder.
    pub(super) fn inside(self, bytes: &[u8], kind: Kind) -> Self {
        let slash = usize::from(kind == Kind::Folder);
        Self { bytes: self.bytes + bytes.len() + slash, slashes: self.slashes + slash }
    }
}

/// Where the file of a key is: names from the root on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) folders: Vec<Vec<u8>>,
    pub(super) file: Vec<u8>,
}

impl Path {
    /// Names the file in an error about it.
    pub(super) fn told(&self, error: Error) -> Error {
        let mut names = self.folders.clone();
        names.push(self.file.clone());
        error.with_name(names.join(&b'/'))
    }
}

/// The name of a file that is next to a folder of its own name.
pub(super) fn beside(file: &[u8]) -> Vec<u8> {
    [file, BESIDE].concat()
}

/// How keys become names in one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) names: Names,
    /// The widths of the parts at the start of a key.
    pub(super) fan_out: Vec<u16>,
}

impl Layout {
    /// The names that lead to a key.
    pub(super) fn path(&self, key: &[u8]) -> Path {
        let (mut at, mut rest, mut folders) = (At::default(), key, Vec::new());
        loop {
            let (end, kind) = self.component(rest, at);
            let (bytes, behind) = rest.split_at(end);
            let name = self.name(bytes, kind, at);
            match kind {
                Kind::File | Kind::Beside => return Path { folders, file: name },
                Kind::Folder | Kind::Part => folders.push(name),
            }
            at = at.inside(bytes, kind);
            // A slash between two folders is spelt by neither.
            rest = behind.get(usize::from(kind == Kind::Folder)..).unwrap_or_default();
        }
    }

    /// What a name in a folder stands for. `None`: this store gives no such name there.
    pub(super) fn parse(&self, name: &[u8], is_folder: bool, at: At) -> Option<(Vec<u8>, Kind)> {
        let (kind, spelt) = match (is_folder, name.strip_suffix(PART), name.strip_suffix(BESIDE)) {
            (true, Some(spelt), _) => (Kind::Part, spelt),
            (true, None, _) => (Kind::Folder, name),
            (false, _, Some(spelt)) => (Kind::Beside, spelt),
            (false, _, None) => (Kind::File, name),
        };
        let bytes = self.unescape(spelt);
        // What follows in some key, so that the rule of the cuts can be asked.
        let mut key = bytes.clone();
        key.extend_from_slice(match kind {
            Kind::File | Kind::Beside => b"",
            Kind::Folder => b"/x",
            Kind::Part => b"x",
        });
        let wanted = if kind == Kind::Beside { Kind::File } else { kind };
        let fits = !bytes.is_empty()
            && self.component(&key, at) == (bytes.len(), wanted)
            && self.name(&bytes, kind, at) == name;
        fits.then_some((bytes, kind))
    }

    /// Where the first component ends, and what it is.
    fn component(&self, rest: &[u8], at: At) -> (usize, Kind) {
        let cut = self.next_cut(at.bytes);
        let (mut width, mut before) = (0, None);
        for (index, &byte) in rest.iter().enumerate() {
            if index > 0 && (width >= FULL || Some(at.bytes + index) == cut) {
                return (index, Kind::Part);
            }
            let parts = byte == b'/'
                && before.is_some_and(|before| before != b'/')
                && index + 1 < rest.len()
                && at.slashes < MOST_SLASHES;
            if parts {
                return (index, Kind::Folder);
            }
            width += self.width(byte);
            before = Some(byte);
        }
        (rest.len(), Kind::File)
    }

    /// The first place of `fan_out` behind that many bytes.
    fn next_cut(&self, bytes: usize) -> Option<usize> {
        let places = self.fan_out.iter().scan(0, |place, width| {
            *place += usize::from(*width);
            Some(*place)
        });
        places.into_iter().find(|place| *place > bytes)
    }

    /// Bytes of a name that a byte of a key takes at most. Depends on that byte alone, as the cuts must.
    fn width(&self, byte: u8) -> usize {
        match self.names {
            Names::Plain if matches!(byte, 0 | b'/' | b'%') => 3,
            Names::Plain => 1,
            Names::Portable if byte.is_ascii_uppercase() => 2,
            Names::Portable if is_portable(byte) => 1,
            Names::Portable => 3,
        }
    }

    pub(super) fn name(&self, bytes: &[u8], kind: Kind, at: At) -> Vec<u8> {
        let mut name = Vec::with_capacity(bytes.len() + 8);
        match self.names {
            Names::Plain => escape_plain(bytes, &mut name),
            Names::Portable => escape_portable(bytes, &mut name),
        }
        if at.bytes == 0 && name == HOME {
            name.splice(..1, hex(b'.'));
        }
        name.extend_from_slice(match kind {
            Kind::File | Kind::Folder => b"",
            Kind::Beside => BESIDE,
            Kind::Part => PART,
        });
        name
    }

    /// The bytes that a name spells. What is no escape stands for itself: whether the name is the one that
    /// this store gives is for the caller to find out.
    fn unescape(&self, name: &[u8]) -> Vec<u8> {
        let (mut bytes, mut rest) = (Vec::with_capacity(name.len()), name);
        while let Some((&byte, behind)) = rest.split_first() {
            let (spelt, behind) = match (self.names, byte, behind) {
                (Names::Portable, b'^', [letter @ b'a'..=b'z', behind @ ..]) => {
                    (letter.to_ascii_uppercase(), behind)
                }
                (names, b'%', [high, low, behind @ ..]) => match unhex(*high, *low) {
                    Some(spelt) if names == Names::Portable || PLAIN_ESCAPES.contains(&spelt) => {
                        (spelt, behind)
                    }
                    _ => (byte, rest.get(1..).unwrap_or_default()),
                },
                _ => (byte, behind),
            };
            bytes.push(spelt);
            rest = behind;
        }
        bytes
    }
}

/// The bytes that are ever escaped in plain names.
const PLAIN_ESCAPES: [u8; 4] = [0, b'/', b'%', b'.'];

/// Escapes what no name can hold, the names that mean a folder itself or the one above, and a `%` that
/// would read as an escape or a mark: so `100%.txt` and `a%20b` are names as they are.
fn escape_plain(bytes: &[u8], name: &mut Vec<u8>) {
    if matches!(bytes, b"." | b"..") {
        name.extend(hex(b'.'));
        name.extend_from_slice(bytes.get(1..).unwrap_or_default());
        return;
    }
    for (index, &byte) in bytes.iter().enumerate() {
        let escaped = match byte {
            0 | b'/' => true,
            b'%' => match bytes.get(index + 1..).unwrap_or_default() {
                [b'+' | b'=', ..] => true,
                [high, low, ..] => {
                    unhex(*high, *low).is_some_and(|spelt| PLAIN_ESCAPES.contains(&spelt))
                }
                _ => false,
            },
            _ => false,
        };
        if escaped {
            name.extend(hex(byte));
        } else {
            name.push(byte);
        }
    }
}

/// Escapes all that any common file system folds, drops, reserves or refuses.
fn escape_portable(bytes: &[u8], name: &mut Vec<u8>) {
    let device = is_device(bytes);
    for (index, &byte) in bytes.iter().enumerate() {
        let last = index + 1 == bytes.len();
        if byte.is_ascii_uppercase() {
            name.extend([b'^', byte.to_ascii_lowercase()]);
        } else if !is_portable(byte) || last && matches!(byte, b'.' | b' ') || device && index == 0
        {
            name.extend(hex(byte));
        } else {
            name.push(byte);
        }
    }
}

/// Bytes that every file system takes and keeps. `~` is not one of them: FAT makes short names with it.
fn is_portable(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9') || b" !#$&'()+,-.;=@[]_`{}".contains(&byte)
}

/// Whether Windows takes the name for a device, whatever follows its first dot. Upper-case letters
/// are escaped in any case.
fn is_device(bytes: &[u8]) -> bool {
    let stem = bytes.split(|byte| *byte == b'.').next().unwrap_or_default().trim_ascii_end();
    matches!(
        stem,
        b"con"
            | b"conin$"
            | b"conout$"
            | b"prn"
            | b"aux"
            | b"nul"
            | [b'c', b'o', b'm', b'0'..=b'9']
            | [b'l', b'p', b't', b'0'..=b'9']
    )
}

fn hex(byte: u8) -> [u8; 3] {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
    [b'%', digit(byte >> 4), digit(byte & 15)]
}

/// Lower-case digits only: a byte has one spelling.
fn unhex(high: u8, low: u8) -> Option<u8> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    Some(value(high)? << 4 | value(low)?)
}
