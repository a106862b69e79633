//! A secret that was read.

use std::fmt;

/// A secret that was read. Prints as `<redacted>`. See [`Secret`](super::secret::Secret) for an example.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "encrypt", derive(zeroize::Zeroize, zeroize::ZeroizeOnDrop))]
pub struct SecretText(String);

impl SecretText {
    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}
