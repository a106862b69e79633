//! The store and the key that a path names.
//!
//! A path is taken as it was sent: it is not normalised, and each key has the bytes that its percent-encoding
//! stands for, `/`, `.` and `..` among them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::serve::problem::Problem;

/// `/v1/stores/NAME/REST`
pub(super) struct Target<'a> {
    pub(super) store: Cow<'a, str>,
    rest: &'a str,
}

impl<'a> Target<'a> {
    /// Of the path of a request that the router sent to a route of a store.
    pub(super) fn of(path: &'a str) -> Result<Self, Problem> {
        let named = path.strip_prefix("/v1/stores/").and_then(|path| path.split_once('/'));
        let (store, rest) = named.unwrap_or((path, ""));
        let decoded = decoded(store, "the name of the store")?;
        let store = match decoded {
            Cow::Borrowed(_) => Cow::Borrowed(store),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        };
        Ok(Self { store, rest })
    }

    /// What follows `kv/`. The store refuses a key that is none.
    pub(super) fn key(&self) -> Result<Cow<'a, [u8]>, Problem> {
        decoded(self.rest.strip_prefix("kv/").unwrap_or_default(), "the key")
    }
}

/// The bytes of a percent-encoded text.
pub(super) fn decoded<'a>(text: &'a str, what: &str) -> Result<Cow<'a, [u8]>, Problem> {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        match rest.get(at..) {
            Some([_, a, b, after @ ..]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                rest = after;
            }
            _ => {
                return Err(Problem::bad_request(format!(
                    "{what} is not percent-encoded: two hexadecimal digits follow each `%`; `%25` stands for a percent sign"
                )));
            }
        }
    }
    Ok(percent_decode_str(text).into())
}
