//! Which data a store holds.

use std::fmt;
use std::sync::Arc;

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
/// assert_eq!(Identity::new("mine", &["1", "a"]).as_str(), "mine:1:a");
/// # });
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity(Arc<str>);

impl Identity {
    /// An identity from the name of the backend and what tells its data from others of that backend.
    #[must_use]
    pub fn new(backend: &str, parts: &[&str]) -> Self {
        // A colon within a part is doubled, so that no two lists of parts read the same.
        let parts: Vec<_> = parts.iter().map(|part| part.replace(':', "::")).collect();
        Self(format!("{backend}:{}", parts.join(":")).into())
    }

    /// The identity as text, to be kept and compared.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
