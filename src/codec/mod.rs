//! Bytes in, bytes out: how a value looks below `compress` and `encrypt`.
//!
//! Every stored value is a *frame* that says what it is, so codecs and keys can change under live
//! data. [`Compressor`] makes values smaller, a [`KeyRing`] seals them; both know nothing of stores.
//! The bytes are drawn in `docs/formats.md`.

#[cfg(feature = "compress")]
mod compress;
mod frame;
#[cfg(feature = "encrypt")]
mod key_ring;
#[cfg(feature = "encrypt")]
mod seal;

#[cfg(feature = "compress")]
pub use compress::{Codec, Compressor};
#[cfg(feature = "encrypt")]
pub use key_ring::{KeyId, KeyRing};
