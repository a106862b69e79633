//! What a layer says of its encoding.

use std::fmt;

use bytes::Bytes;

use crate::error::Result;
use crate::types::{Profile, Value};

/// How values are encoded. Pure: bytes in, bytes out.
///
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use bytes::Bytes;
/// use tierstack::backends::Memory;
/// use tierstack::layers::{Transform, TransformLayer};
/// use tierstack::telemetry::Labels;
/// use tierstack::{Error, Layer, Profile, Read, Result, StoreExt, Value};
///
/// /// Puts a byte before each value.
/// #[derive(Debug)]
/// struct Tag;
///
/// impl Transform for Tag {
///     const NAME: &'static str = "tag";
///
///     fn encode(&self, _: &[u8], value: &Value) -> Result<Bytes> {
///         Ok([b"#", &value.bytes[..]].concat().into())
///     }
///
///     fn decode(&self, _: &[u8], stored: Value) -> Result<Value> {
///         if !Self::is_frame(&stored.bytes) {
///             return Err(Error::corruption("the value has no tag"));
///         }
///         Ok(Value { bytes: stored.bytes.slice(1..), ..stored })
///     }
///
///     fn claimed(stored: &[u8]) -> usize {
///         stored.len()
///     }
///
///     fn is_frame(stored: &[u8]) -> bool {
///         stored.starts_with(b"#")
///     }
///
///     fn is_current(&self, stored: &[u8]) -> bool {
///         Self::is_frame(stored)
///     }
///
///     fn is_foreign(&self, _: &[u8]) -> bool {
///         false
///     }
///
///     fn profile(&self, _: bool, below: Profile) -> Profile {
///         Profile::layer(Self::NAME, below)
///     }
/// }
///
/// let below = Arc::new(Memory::new());
/// let layer = TransformLayer::from_transform(Tag, false, &Labels::default());
/// let store = layer.layer(below.clone());
/// store.put("k", "v").await?;
/// assert_eq!(below.get(b"k").await?, Some("#v".into()));
/// assert_eq!(store.get(b"k").await?, Some("v".into()));
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
pub trait Transform: fmt::Debug + Send + Sync + 'static {
    /// The name of the layer.
    const NAME: &'static str;

    /// The bytes of the value of a key as they are stored. The expiry is stored next to them as it is.
    ///
    /// # Errors
    /// `InvalidInput` for a value that is too large.
    fn encode(&self, key: &[u8], value: &Value) -> Result<Bytes>;

    /// The value of a key from what is stored.
    ///
    /// # Errors
    /// `Corruption` if that is not what [`encode`](Self::encode) made for this key.
    fn decode(&self, key: &[u8], stored: Value) -> Result<Value>;

    /// How many bytes the value has, as the stored bytes claim. Cheap; what is large is decoded where it
    /// holds up no other task.
    fn claimed(stored: &[u8]) -> usize;

    /// Whether stored bytes are a frame of this layer, whole or damaged, and not plain.
    fn is_frame(stored: &[u8]) -> bool;

    /// Whether encoding the value again would change nothing of note. Cheap.
    fn is_current(&self, stored: &[u8]) -> bool;

    /// Whether stored bytes are a frame that these settings cannot decode, though it is whole: under a
    /// key that is not there. Cheap. A store that begins with such frames only is not written to.
    fn is_foreign(&self, stored: &[u8]) -> bool;

    /// What the stack guarantees with this layer over what it guarantees below.
    fn profile(&self, accept_plain: bool, below: Profile) -> Profile;
}
