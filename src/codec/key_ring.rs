//! Keys, and their text form.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xaes_256_gcm::Xaes256Gcm;
use xaes_256_gcm::aead::{AeadInOut, KeyInit};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::types::secret_file::trimmed;
use crate::types::units::SecretText;

/// What names a key in every frame that it sealed: a fingerprint of the key itself, so that an id
/// and a key that do not belong together are noticed wherever they meet.
///
/// ```
/// use tierstack::codec::KeyRing;
///
/// let (new, old) = (KeyRing::generate()?, KeyRing::generate()?);
/// let ring = KeyRing::parse(&format!("{},{}", new.expose(), old.expose()))?;
/// let active = ring.ids().next().unwrap();
/// assert!(new.expose().starts_with(&format!("ts1:{active}:")));
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(pub(super) [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// Keys that values are sealed with: the first seals, all open.
///
/// As text, an entry is `ts1:<id>:<key>`: the id in 8 hexadecimal digits, the key of 32 bytes in
/// base64 (URL alphabet, no padding). Entries are separated by commas or line breaks; lines that begin
/// with `#` are comments. To rotate, put a new entry **first** and keep the others for as long as
/// values sealed under them remain; `tierstack rewrite` moves those over.
///
/// ```
/// use tierstack::codec::KeyRing;
///
/// let entry = KeyRing::generate()?;
/// let ring = KeyRing::parse(entry.expose())?;
/// let frame = ring.seal(b"user:1", &"Ada".into())?;
/// assert_eq!(ring.open(b"user:1", frame.clone())?, "Ada".into());
/// assert!(ring.open(b"user:2", frame).is_err(), "the frame is bound to its key");
/// # Ok::<(), tierstack::Error>(())
/// ```
pub struct KeyRing(Vec<Key>);

pub(super) struct Key {
    pub(super) id: KeyId,
    /// Wiped from memory when dropped, as the crate's `zeroize` feature is on.
    pub(super) cipher: Xaes256Gcm,
}

const KEY_BYTES: usize = 32;
const FORM: &str = "ts1:<8 hexadecimal digits>:<43 characters of base64>";

impl KeyRing {
    /// A fresh entry, drawn from the operating system's random numbers. A program that holds it can read
    /// what is sealed; if it is lost, nobody can.
    ///
    /// # Errors
    /// `Unavailable` if the operating system has no random numbers.
    pub fn generate() -> Result<SecretText> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        draw(key.as_mut_slice())?;
        let id = Key::new(&key)?.id;
        // Room for all of it: a text that grows leaves copies behind.
        let mut entry = String::with_capacity(2 * FORM.len());
        entry.push_str("ts1:");
        entry.push_str(&id.to_string());
        entry.push(':');
        URL_SAFE_NO_PAD.encode_string(key.as_slice(), &mut entry);
        Ok(SecretText::from(entry))
    }

    /// Reads a ring from its text form.
    ///
    /// # Errors
    /// `Config` that says which entry is wrong and how, without its content: not of the form, mistyped
    /// (id and key do not belong together), there twice, or no entry at all.
    pub fn parse(text: &str) -> Result<Self> {
        // Files that were put together may have a byte-order mark in between.
        let lines = text.lines().map(trimmed).filter(|line| !line.starts_with('#'));
        let entries = lines.flat_map(|line| line.split(',')).map(trimmed);
        let mut ring = Self(Vec::new());
        for (at, entry) in entries.filter(|entry| !entry.is_empty()).enumerate() {
            let wrong =
                |what: &str| Error::config(format!("entry {} of the key ring {what}", at + 1));
            let key = Key::parse(entry).map_err(|what| wrong(&what))?;
            if ring.find(key.id).is_some() {
                return Err(wrong(&format!("has the id {}, which an earlier entry has", key.id)));
            }
            ring.0.push(key);
        }
        if ring.0.is_empty() {
            return Err(Error::config(format!(
                "the key ring has no entry; `tierstack keys generate` prints one, of the form {FORM}"
            )));
        }
        Ok(ring)
    }

    /// The ids of the keys; the first seals.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.0.iter().map(|key| key.id)
    }

    /// The key that seals.
    pub(super) fn active(&self) -> Result<&Key> {
        self.0.first().ok_or_else(|| Error::internal("a key ring without a key"))
    }

    pub(super) fn find(&self, id: KeyId) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }
}

/// Prints the ids, never the keys.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({})", self.list())
    }
}

impl KeyRing {
    /// The ids, as in messages.
    pub(super) fn list(&self) -> String {
        self.ids().map(|id| id.to_string()).collect::<Vec<_>>().join(", ")
    }
}

impl Key {
    fn new(key: &[u8; KEY_BYTES]) -> Result<Self> {
        let cipher = Xaes256Gcm::new(key.into());
        // A fingerprint: the tag of nothing, under a nonce that no value gets by chance.
        let tag = cipher
            .encrypt_inout_detached(&[0; 24].into(), b"tierstack key id 1", (&mut [][..]).into())
            .map_err(|_| Error::internal("no fingerprint of a key"))?;
        let id = tag.first_chunk().copied().ok_or_else(|| Error::internal("a short tag"))?;
        Ok(Self { id: KeyId(id), cipher })
    }

    fn parse(entry: &str) -> Result<Self, String> {
        let form = || format!("is not of the form {FORM}");
        let parts = entry.strip_prefix("ts1:").and_then(|rest| rest.split_once(':'));
        let (id, text) = parts.ok_or_else(form)?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let length = URL_SAFE_NO_PAD.decode_slice(text, key.as_mut_slice()).map_err(|_| form())?;
        let key = Self::new(&key).map_err(|error| error.to_string())?;
        if length != KEY_BYTES || key.id.to_string() != id {
            return Err("is mistyped: its id and its key do not belong together".to_owned());
        }
        Ok(key)
    }
}

/// Random bytes of the operating system.
pub(super) fn draw(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        Error::new(ErrorKind::Unavailable, "the operating system has no random numbers")
            .with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> String {
        KeyRing::generate().unwrap().expose().to_owned()
    }

    #[test]
    fn a_generated_entry_is_read_back_and_is_another_each_time() {
        let (a, b) = (entry(), entry());
        assert_ne!(a, b);
        let text =
            format!("# old and new\r\n{a}\r\n\n\u{feff}# more\n  {b} ,\u{feff}{}\n", entry());
        let ring = KeyRing::parse(&text).unwrap();
        assert_eq!(ring.ids().count(), 3);
        assert_eq!(ring.active().unwrap().id.to_string(), a[4..12], "the first one seals");
    }

    #[test]
    fn every_mistyped_character_is_noticed_and_not_repeated() {
        let good = entry();
        for at in 0..good.len() {
            for typo in ['x', 'A', '-', ':', 'é'] {
                let mut bad: Vec<char> = good.chars().collect();
                if std::mem::replace(&mut bad[at], typo) == typo {
                    continue;
                }
                let bad: String = bad.into_iter().collect();
                let error = KeyRing::parse(&bad).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Config);
                let text = format!("{error:?}");
                assert!(text.contains("entry 1"), "{text}");
                let told = [good.get(30..), bad.get(30..)].into_iter().flatten();
                assert_eq!(told.filter(|key| text.contains(key)).count(), 0, "{text}");
            }
            assert!(KeyRing::parse(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused() {
        let one = entry();
        let error = KeyRing::parse(&format!("{one},{}\n{one}", entry())).unwrap_err();
        assert!(error.message().contains("entry 3") && error.message().contains(&one[4..12]));
    }

    #[test]
    fn a_ring_without_a_key_says_how_to_get_one() {
        for text in ["", " \n# nothing\n,,\n"] {
            let error = KeyRing::parse(text).unwrap_err();
            assert!(error.message().contains("tierstack keys generate"), "{error}");
        }
    }

    #[test]
    fn nothing_prints_a_key() {
        let secret = KeyRing::generate().unwrap();
        let ring = KeyRing::parse(secret.expose()).unwrap();
        let printed = format!("{secret:?} {ring:?} {ring:#?} {:?}", ring.0[0].cipher);
        assert!(!printed.contains(&secret.expose()[13..]), "{printed}");
        assert!(printed.contains(&secret.expose()[4..12]), "the id is no secret: {printed}");
    }
}
