//! Documents: the objects of a repository that are read by name, and their names.
//!
//! A document is two lines of JSON, then binary. The first line holds the format's version, the kind and
//! the hash of all that follows; the second the content. So `head -2` shows what a document says, and a
//! single changed byte is noticed.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use object_store::path::Path;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::chunking_settings::Chunking;
use crate::clock::Timestamp;
use crate::error::{Error, Result};

/// The name of the document that makes a place a repository.
pub(super) const REPOSITORY: &str = "repo.json";

/// 32 bytes of BLAKE3, written as 64 lower-case hexadecimal digits.
///
/// ```
/// use tierstack::backup::Hash;
///
/// let text = "0f".repeat(32);
/// assert_eq!(text.parse(), Ok(Hash([15; 32])));
/// assert_eq!(Hash([15; 32]).to_string(), text);
/// assert!("0f".parse::<Hash>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Under the key of the repository, so that a name tells nothing without it.
    pub(super) fn keyed(key: &Self, bytes: &[u8]) -> Self {
        Self(*blake3::keyed_hash(&key.0, bytes).as_bytes())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        blake3::Hash::from_hex(text)
            .map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| "a hash is 64 hexadecimal digits".to_owned())
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The kinds of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Repository,
    Head,
    Base,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::Head => "head",
            Self::Base => "base",
        }
    }

    /// The version that is written; earlier ones are read.
    const fn version(self) -> u32 {
        match self {
            Self::Repository | Self::Head => 1,
            // 1 kept the whole first key of a run.
            Self::Base => 2,
        }
    }
}

/// `repo.json`: written once, when the repository is created.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RepositoryDoc {
    pub id: String,
    /// The key of the hashes that name chunks and packs, drawn at random.
    pub key: Hash,
    pub created: Timestamp,
    /// The lineage that the repository begins with.
    pub lineage: String,
    pub chunking: Chunking,
    /// A pack is closed when it has reached this size.
    pub pack_bytes: u32,
    pub capabilities: Capabilities,
}

/// What the object store was seen to do when the repository was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Capabilities {
    /// Conditional create: without it there is no repository.
    pub create: bool,
    /// Conditional update. Not used; recorded for later versions.
    pub update: bool,
}

/// `head/<number>.json`: the state of the repository. The one with the highest number counts.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub repository: String,
    pub number: u64,
    /// Drawn at random for each attempt, to tell one's own head from another's.
    pub nonce: String,
    pub time: Timestamp,
    /// Counts the takings-over of the log. Always 0 before there is one.
    pub epoch: u64,
    pub lineage: Lineage,
    /// The last sequence in the log, and the hash of the segment that ends with it.
    pub last_seq: Option<u64>,
    pub last_segment: Option<Hash>,
    /// Everything before this sequence may be deleted.
    pub boundary: Option<u64>,
    /// Every base there is, in the order in which they were taken.
    pub bases: Vec<HeadBase>,
}

/// A line of history. A restore that is continued from begins a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lineage {
    pub id: String,
    pub parent: Option<String>,
    /// The sequence of the parent after which this lineage begins.
    pub fork_seq: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeadBase {
    pub base: BaseInfo,
    pub manifest_bytes: u64,
    pub manifest_hash: Hash,
}

/// What is known about a base without reading it. See [`BackupReport`](super::BackupReport) for an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseInfo {
    /// Its name within the repository: 16 hexadecimal digits.
    pub id: String,
    /// The line of history that it belongs to.
    pub lineage: String,
    /// The base whose chunks it was compared with.
    pub parent: Option<String>,
    /// It holds every write that was acknowledged before this moment.
    pub started: Timestamp,
    /// It holds no write that began after this moment, as the clock of the machine said. Bases are in
    /// order by their place in the list: a clock that was set can make times go backwards.
    pub time: Timestamp,
    /// The first sequence that it covers, where the store has sequences.
    pub first_seq: Option<u64>,
    /// The last sequence that it covers, where the store has sequences.
    pub last_seq: Option<u64>,
    /// Entries in it.
    pub entries: u64,
    /// How many of them have an expiry.
    pub expiring: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Bytes of the longest key.
    pub longest_key: u64,
    /// Bytes of the longest value.
    pub longest_value: u64,
    /// Bytes of the packs that were uploaded for it.
    pub uploaded_bytes: u64,
    /// A keyed hash over all entries in key order.
    pub digest: Hash,
}

/// The path of a head.
pub(super) fn head_path(number: u64) -> Path {
    Path::from(format!("head/{number:020}.json"))
}

/// The path of a manifest. It tells the lineage, and the order as far as the clock was right, so that a
/// lost head could be made up from names.
pub(super) fn manifest_path(base: &BaseInfo) -> Path {
    let (seq, time) = (base.last_seq.unwrap_or(0), base.time.as_millis());
    Path::from(format!("base/{}/{seq:020}-{time:020}-{}.base", base.lineage, base.id))
}

/// The path of a pack, named by its content.
pub(super) fn pack_path(id: &Hash) -> Path {
    let hex = id.to_string();
    let folder: String = hex.chars().take(2).collect();
    Path::from(format!("data/{folder}/{hex}.pack"))
}

/// The pack that an object is, by its path.
pub(super) fn pack_of(path: &Path) -> Option<Hash> {
    let id: Hash = path.filename()?.strip_suffix(".pack")?.parse().ok()?;
    (pack_path(&id) == *path).then_some(id)
}

/// 16 hexadecimal digits from the operating system.
pub(super) fn random_id() -> Result<String> {
    let mut bytes = [0; 8];
    random(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(super) fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        Error::internal("the operating system gives no random bytes").with_source(error)
    })
}

/// Whether an identifier from outside may be in a path.
pub(super) fn check_id(id: &str) -> Result<()> {
    if id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(())
    } else {
        Err(Error::corruption("an identifier is not 16 hexadecimal digits"))
    }
}

fn first_line(kind: Kind, version: u32, rest: &Hash) -> String {
    let kind = kind.as_str();
    format!("{{\"tierstack_backup\":{version},\"kind\":\"{kind}\",\"blake3\":\"{rest}\"}}\n")
}

/// The bytes of a document, with a binary part that is given in pieces.
pub(super) fn encode(kind: Kind, content: &impl Serialize, tail: &[&[u8]]) -> Result<Bytes> {
    let mut json = serde_json::to_vec(content)
        .map_err(|error| Error::internal("a document cannot be written").with_source(error))?;
    json.push(b'\n');
    let parts = || std::iter::once(json.as_slice()).chain(tail.iter().copied());
    let mut hash = blake3::Hasher::new();
    parts().for_each(|part| {
        hash.update(part);
    });
    let first = first_line(kind, kind.version(), &Hash(*hash.finalize().as_bytes()));
    let length = first.len() + parts().map(<[u8]>::len).sum::<usize>();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(first.as_bytes());
    parts().for_each(|part| bytes.extend_from_slice(part));
    Ok(bytes.into())
}

/// The content of a document, and the binary part behind it.
pub(super) fn decode<T: DeserializeOwned>(kind: Kind, bytes: &Bytes) -> Result<(T, Bytes)> {
    let (first, rest) = split_line(bytes).ok_or_else(|| {
        Error::corruption(format!("this is no document of kind '{}'", kind.as_str()))
    })?;
    let hash = Hash::of(&rest);
    let reads = |version| first == first_line(kind, version, &hash).as_bytes();
    if !(1..=kind.version()).any(reads) {
        return Err(why_not(kind, &first));
    }
    let (json, tail) =
        split_line(&rest).ok_or_else(|| Error::corruption("the document has no content"))?;
    // Its hash is right, so it was written so: by a version that knows more.
    let content = serde_json::from_slice(&json).map_err(|error| {
        Error::unsupported(
            "it holds something that this version does not know: use a newer tierstack",
        )
        .with_source(error)
    })?;
    Ok((content, tail))
}

fn split_line(bytes: &Bytes) -> Option<(Bytes, Bytes)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    Some((bytes.slice(..end), bytes.slice(end..)))
}

/// Tells a newer format, another kind and damage apart.
fn why_not(kind: Kind, first: &[u8]) -> Error {
    #[derive(Deserialize)]
    struct First {
        tierstack_backup: u32,
        kind: String,
    }
    match serde_json::from_slice::<First>(first) {
        Ok(first) if first.kind != kind.as_str() => Error::corruption(format!(
            "a document of kind '{}' is expected, and another was found",
            kind.as_str()
        )),
        Ok(first) if first.tierstack_backup > kind.version() => Error::unsupported(format!(
            "written in format {}; this version reads formats up to {}: use a newer tierstack",
            first.tierstack_backup,
            kind.version()
        )),
        Ok(_) => Error::corruption("the hash differs: the document is damaged"),
        Err(_) => Error::corruption("the document's first line is damaged"),
    }
}

/// Reads the binary parts: every length is checked against what is there.
pub(super) struct Cursor(pub Bytes);

impl Cursor {
    pub(super) fn take(&mut self, length: usize) -> Result<Bytes> {
        if length > self.0.len() {
            return Err(Error::corruption("it ends too early"));
        }
        Ok(self.0.split_to(length))
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        self.take(1).map(|bytes| bytes.first().copied().unwrap_or_default())
    }

    pub(super) fn hash(&mut self) -> Result<Hash> {
        let bytes = self.take(32)?;
        <[u8; 32]>::try_from(bytes.as_ref())
            .map(Hash)
            .map_err(|_| Error::corruption("a hash is too short"))
    }

    /// A number in LEB128: seven bits a byte, the lowest first.
    pub(super) fn number(&mut self) -> Result<u64> {
        let mut number = 0u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Error::corruption("a number is too long"))
    }

    pub(super) fn length(&mut self) -> Result<usize> {
        usize::try_from(self.number()?).map_err(|_| Error::corruption("a length is too large"))
    }
}

pub(super) fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_of_a_document_is_noticed() {
        let lineage = Lineage { id: "a".into(), parent: None, fork_seq: Some(3) };
        let bytes = encode(Kind::Head, &lineage, &[b"ta", b"il"]).unwrap();
        let (back, tail) = decode::<Lineage>(Kind::Head, &bytes).unwrap();
        assert_eq!((back, tail.as_ref()), (lineage, b"tail".as_ref()));
        for at in 0..bytes.len() {
            for flip in [0x01, 0x20, 0x80, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= flip;
                assert!(decode::<Lineage>(Kind::Head, &damaged.into()).is_err(), "byte {at}");
            }
            assert!(decode::<Lineage>(Kind::Head, &bytes.slice(..at)).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let lineage = Lineage { id: "a".into(), parent: None, fork_seq: None };
        let bytes = encode(Kind::Head, &lineage, &[]).unwrap();
        let newer = String::from_utf8(bytes.to_vec()).unwrap().replacen(":1,", ":2,", 1);
        let error = decode::<Lineage>(Kind::Head, &newer.into()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        assert!(error.to_string().contains("format 2"), "{error}");
        let error = decode::<Lineage>(Kind::Base, &bytes).unwrap_err();
        assert!(error.to_string().contains("'base' is expected"), "{error}");
    }

    #[test]
    fn numbers_come_back_and_garbage_does_not_pass() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            push_number(&mut bytes, number);
            let mut cursor = Cursor(bytes.into());
            assert_eq!(cursor.number().unwrap(), number);
            assert!(cursor.0.is_empty());
        }
        assert!(Cursor(Bytes::from_static(&[0xff; 11])).number().is_err());
        assert!(Cursor(Bytes::from_static(&[0xff; 9])).number().is_err());
        let too_large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert!(Cursor(Bytes::copy_from_slice(&too_large)).number().is_err());
    }
}
