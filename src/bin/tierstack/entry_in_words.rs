//! Which entry a message is about.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::numbers::count;

/// The entry that an error is about: its name in the backend where it has one, else its key.
pub(crate) fn entry(error: &tierstack::Error) -> Option<String> {
    match (error.name(), error.key()) {
        (Some(name), _) => Some(format!("named {}", quoted(name))),
        (None, Some(bytes)) => Some(key(bytes)),
        (None, None) => None,
    }
}

/// `key 'user:1'`, and `key64 AP8=` where the key is not text: as the arguments of commands are named.
pub(crate) fn key(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(_) => format!("key {}", quoted(key)),
        Err(_) if key.len() > SHOWN => format!("key {}", quoted(key)),
        Err(_) => format!("key64 {}", STANDARD.encode(key)),
    }
}

/// The most of a key that is shown, in bytes.
const SHOWN: usize = 256;

/// Bytes between quotes, with what a terminal would not show as it is escaped.
fn quoted(bytes: &[u8]) -> String {
    let shown = bytes.get(..SHOWN).unwrap_or(bytes);
    let mut text = String::new();
    for chunk in shown.utf8_chunks() {
        text.extend(chunk.valid().escape_debug());
        text.extend(chunk.invalid().escape_ascii().map(char::from));
    }
    match bytes.len() {
        length if length > SHOWN => format!("'{text}…' ({} bytes)", count(length as u64)),
        _ => format!("'{text}'"),
    }
}
