//! Which data a store holds.

use std::fmt;
use std::sync::Arc;

/// Before a prefix.
const PREFIX: &str = ":prefix:";

/// Names the data that a store holds: equal for two openings of the same data, different for other data.
///
/// Stable across restarts and versions, so it may be kept. It is made of what the backend knows of its data,
/// such as an identifier that the database was made with, and of no secret.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::{Identity, Store};
///
/// let (one, other) = (Memory::new(), Memory::new());
/// assert_eq!(one.identity(), one.identity());
/// assert_ne!(one.identity(), other.identity());
/// let mine = Identity::new("mine", &["1", "a"]);
/// assert_eq!(mine.as_str(), "mine:1:a");
/// assert!(mine.within(b"x/").overlaps(&mine));
/// assert!(!mine.within(b"x/").overlaps(&mine.within(b"y/")));
/// # });
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    text: Arc<str>,
    /// Bytes of the text that name the data as a whole. What follows is the prefix, in hexadecimal.
    whole: usize,
}

impl Identity {
    /// An identity from the name of the backend and what tells its data from others of that backend.
    #[must_use]
    pub fn new(backend: &str, parts: &[&str]) -> Self {
        // A colon within a part is doubled, so that no two lists of parts read the same.
        let parts: Vec<_> = parts.iter().map(|part| part.replace(':', "::")).collect();
        let text: Arc<str> = format!("{backend}:{}", parts.join(":")).into();
        Self { whole: text.len(), text }
    }

    /// The identity that was [kept](Self::as_str) as this text.
    #[cfg(feature = "config")]
    pub(crate) fn kept(text: &str) -> Self {
        let is_hex = |prefix: &str| prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
        let prefix = text.rsplit_once(PREFIX).filter(|(_, prefix)| is_hex(prefix));
        Self { text: text.into(), whole: prefix.map_or(text.len(), |(whole, _)| whole.len()) }
    }

    /// Of these data, the entries whose keys begin with the prefix.
    #[must_use]
    pub fn within(&self, prefix: &[u8]) -> Self {
        let prefix: String = prefix.iter().map(|byte| format!("{byte:02x}")).collect();
        let mark = if self.prefix().is_empty() { PREFIX } else { "" };
        Self { text: format!("{}{mark}{prefix}", self.text).into(), whole: self.whole }
    }

    /// Whether some entry could be of both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.prefix(), other.prefix());
        self.text.get(..self.whole) == other.text.get(..other.whole)
            && (mine.starts_with(theirs) || theirs.starts_with(mine))
    }

    fn prefix(&self) -> &str {
        self.text.get(self.whole..).unwrap_or_default()
    }

    /// The identity as text, to be kept and compared.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "config")]
    #[test]
    fn an_identity_that_was_kept_is_the_same() {
        let data = Identity::new("x", &["1", "a:b"]);
        for identity in [data.clone(), data.within(b"a"), data.within(b"a").within(b"b")] {
            assert_eq!(Identity::kept(identity.as_str()), identity);
        }
    }

    #[test]
    fn parts_of_the_same_data_overlap_where_a_prefix_begins_with_the_other() {
        let (data, other) = (Identity::new("x", &["1"]), Identity::new("x", &["2"]));
        assert_eq!(data.within(b"a").within(b"b"), data.within(b"ab"));
        for (one, two, overlap) in [
            (data.clone(), data.clone(), true),
            (data.clone(), other.clone(), false),
            (data.within(b"a"), data.clone(), true),
            (data.within(b"a"), data.within(b"a"), true),
            (data.within(b"a"), data.within(b"ab"), true),
            (data.within(b"aa"), data.within(b"ab"), false),
            (data.within(b"a"), other.within(b"a"), false),
        ] {
            assert_eq!(
                (one.overlaps(&two), two.overlaps(&one)),
                (overlap, overlap),
                "{one:?} {two:?}"
            );
            assert_eq!(one == two, one.as_str() == two.as_str());
        }
    }
}
