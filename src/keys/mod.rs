//! Tuple keys that sort as their parts do.
//!
//! A tuple of typed parts becomes a key whose bytes sort as the parts do, first by the first part, then by the second, and so
//! on. [`unpack`] returns the same parts with the same types. The format is the public tuple format of FoundationDB, so its
//! bindings in other languages read and write the same keys.
//!
//! | Part | Rust | sorts |
//! |------|------|-------|
//! | null | `None` | before everything else |
//! | bytes | `&[u8]`, `Vec<u8>` | bytewise |
//! | text | `&str`, `String` | bytewise in UTF-8, which is by code point |
//! | tuple | tuples of up to 12, `Vec`, and [`Time`] | by parts; the shorter one first |
//! | integer | `i16` to `i128`, `u16` to `u128`, [`BigInt`] | by value, whatever the Rust type |
//! | float | `f32`, and after all of those `f64` | negative NaN, -∞ … -0.0, 0.0 … ∞, NaN |
//! | bool | `bool` | `false`, `true` |
//! | UUID | [`Uuid`] | bytewise |
//!
//! Parts of different types sort in the order of the table. `docs/keys.md` draws the bytes. Where the types are known only at run
//! time, use [`Part`].
//!
//! # Guarantees
//! - **Order**: the bytes of two keys compare as the tuples do.
//! - **Types**: integers stay integers, `f32` stays `f32`, a time stays a time. The width of an integer is not kept: `1u16` and
//!   `1i64` are the same part.
//! - **Prefix-free**: the key of one tuple never begins with the key of another, except where
//!   the longer tuple begins with the parts of the shorter, or where the shorter key goes on with a
//!   byte 0xff, which begins no part: `("a",)` and `("a\0",)`. [`range`] leaves those out, so it holds
//!   exactly the tuples that begin with the parts given and have more.
//! - **Bad input**: [`unpack`] takes exactly what [`pack`] gives; everything else is an error.
//!
//! # Time
//! The format has no type for a moment. A [`Time`] is written as the nested tuple
//! `("@time", nanoseconds since 1970-01-01T00:00:00Z)`, which every binding reads as such. A [`Part`]
//! refuses any other nested tuple that begins with this text, so what was a time comes back as one.
//!
//! # Limits
//! A key has 1 to 65,536 bytes, an integer at most 255 bytes, and a [`Part`] nests at most
//! [`MAX_NESTING`] tuples. Versionstamps are not supported. The empty tuple is no key; its
//! [`range`] is every tuple.
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::Memory;
//! use tierstack::{ReadExt, Scan, StoreExt, keys};
//!
//! let store = Memory::new();
//! for (user, order) in [("ada", 9), ("ada", 10), ("adam", 1)] {
//!     store.put(keys::pack(&("orders", user, order))?, "").await?;
//! }
//! let of_ada = store.collect(Scan::range(keys::range(&("orders", "ada"))?)).await?;
//! let mut orders = Vec::new();
//! for entry in of_ada {
//!     let (_, _, order): (String, String, u64) = keys::unpack(&entry.key)?;
//!     orders.push(order);
//! }
//! assert_eq!(orders, [9, 10]);
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

/// Runs the examples of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../docs/keys.md")]
struct Guide;

mod error;
mod part;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) mod row;
#[cfg(test)]
mod tests;
mod time;

use std::io;
use std::ops::Range;

use bytes::Bytes;
use foundationdb_tuple::VersionstampOffset;
pub use foundationdb_tuple::{TuplePack, TupleUnpack, Uuid};
pub use num_bigint::BigInt;

use self::error::refuse;
pub use self::part::{MAX_NESTING, Part};
pub use self::time::Time;
use crate::error::{Error, Result};

/// The key of a tuple. A single part stands for the tuple that holds only it.
///
/// ```
/// use tierstack::keys;
///
/// assert!(keys::pack(&("a", 9))? < keys::pack(&("a", 10))?);
/// assert!(keys::pack(&("a", -1))? < keys::pack(&("a", 0))?);
/// assert_eq!(keys::pack(&("a",))?, keys::pack(&"a")?);
/// # Ok::<(), tierstack::Error>(())
/// ```
///
/// # Errors
/// `InvalidInput` for a tuple beyond the [limits](self#limits).
pub fn pack<T: TuplePack>(tuple: &T) -> Result<Bytes> {
    let key = pack_parts(tuple)?;
    if key.is_empty() {
        return Err(Error::invalid("the empty tuple is no key; a key has at least one part"));
    }
    Ok(key.into())
}

/// The parts of a key, with their types. The inverse of [`pack`].
///
/// ```
/// use tierstack::keys::{self, Part};
///
/// let key = keys::pack(&("user", 42, true))?;
/// let (kind, id, active): (String, u64, bool) = keys::unpack(&key)?;
/// assert_eq!((kind.as_str(), id, active), ("user", 42, true));
///
/// let parts: Vec<Part> = keys::unpack(&key)?;
/// assert_eq!(parts, [Part::from("user"), Part::from(42), Part::from(true)]);
/// assert!(keys::unpack::<(String, u64)>(&key).is_err());
/// # Ok::<(), tierstack::Error>(())
/// ```
///
/// # Errors
/// `InvalidInput` for bytes that are not the key of a tuple of these types.
pub fn unpack<'k, T: TuplePack + TupleUnpack<'k>>(key: &'k [u8]) -> Result<T> {
    let tuple = T::unpack_root(key).map_err(|error| {
        Error::invalid("the bytes are not the key of a tuple of these types").with_source(error)
    })?;
    // The decoder takes integers with leading zeros; then two keys would be the same tuple.
    if pack_parts(&tuple)? != key {
        return Err(Error::invalid(
            "the bytes are not the key of a tuple: an integer is longer than it must be",
        ));
    }
    Ok(tuple)
}

/// The range of the keys of all tuples that begin with these parts and have more.
///
/// ```
/// use tierstack::{Scan, keys};
///
/// let scan = Scan::range(keys::range(&("user", 42))?);
/// assert!(scan.contains(&keys::pack(&("user", 42, "name"))?));
/// assert!(!scan.contains(&keys::pack(&("user", 42))?));
/// assert!(!scan.contains(&keys::pack(&("user", 420))?));
/// # Ok::<(), tierstack::Error>(())
/// ```
///
/// # Errors
/// Like [`pack`], except that the empty tuple gives the range of all tuples.
pub fn range<T: TuplePack>(tuple: &T) -> Result<Range<Bytes>> {
    // Every part begins with a byte from 0x00 to 0x33; 0xff behind a key is an escaped zero.
    let mut from = pack_parts(tuple)?;
    let mut to = from.clone();
    from.push(0x00);
    to.push(0xff);
    Ok(from.into()..to.into())
}

fn pack_parts<T: TuplePack>(tuple: &T) -> Result<Vec<u8>> {
    let mut key = BoundedKey(Vec::new());
    match tuple.pack_root(&mut key) {
        Ok(VersionstampOffset::None { .. }) => Ok(key.0),
        Ok(_) => Err(Error::invalid("a tuple key must not hold an incomplete versionstamp")),
        Err(error) => match error.downcast::<Error>() {
            Ok(own) => Err(own),
            Err(other) => Err(Error::invalid("an integer of a tuple key has at most 255 bytes")
                .with_source(other)),
        },
    }
}

/// The contract's limit on a key.
const MAX_BYTES: usize = 64 * 1024;

/// Grows no larger than a key may be, whatever it is told to hold.
struct BoundedKey(Vec<u8>);

impl io::Write for BoundedKey {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_BYTES {
            return Err(refuse(format!(
                "the key of the tuple has more than the {MAX_BYTES} bytes that a key may have"
            )));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
