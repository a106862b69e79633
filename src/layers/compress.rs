//! `compress`: values made smaller.
//!
//! # Guarantees
//! 1. A value comes back as it was written, or the read fails with `Corruption`: a damaged, truncated or
//!    foreign frame is never passed on.
//! 2. Stored values say how they were compressed, so the settings may change at any time: what is there
//!    stays readable, and what is written follows the new ones.
//! 3. No value grows by more than 14 bytes (11 below 16 KiB). What does not shrink by a sixteenth is
//!    stored as it is, and read without a copy.
//! 4. Nothing is decoded, and no memory taken, before the checksum and the claimed length were checked.
//!
//! # Gives up
//! The time of the codec on each write and read. Values are bounded by 1 GiB. The store below can no
//! longer be read without this layer.
//!
//! # Position
//! Outside `encrypt`: sealed bytes do not compress. Inside `cache`, which then spares the decoding.
//!
//! # Cancellation
//! As the store below: a dropped write takes effect wholly or not at all. Encoding is done before it.
//!
//! # Errors
//! `Corruption` (of one entry; a scan that meets it ends), `InvalidInput` for a value over 1 GiB. A batch
//! of more than 256 KiB is encoded on a thread for blocking work.
//!
//! # Metrics
//! | name | type | labels | a rise means |
//! |---|---|---|---|
//! | `tierstack_codec_bytes_total` | counter | stack, layer, stage (`logical`, `stored`), op (`write`, `read`) | more or larger values; the ratio of the stages is what compression saves |
//!
//! # Configuration
//! `compress: { codec: zstd, level: 3, min_size: 64B, accept_plain: false }`
//!
//! With `accept_plain: true` a value that does not begin like a frame is read as it is, so that the layer
//! can be added to a store that has values. It also means that damage to the first four bytes of a frame
//! goes unnoticed; so run `tierstack rewrite`, and take the setting out again. A plain value that begins
//! with the frame's magic, `F5 74 73 43`, reads as a damaged frame: no text does, and one random value in
//! four billion.
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::Memory;
//! use tierstack::layers::compress::{CompressConfig, CompressLayer};
//! use tierstack::telemetry::Labels;
//! use tierstack::{Layer, Read, StoreExt};
//!
//! let layer = CompressLayer::new(&CompressConfig::default(), &Labels::default())?;
//! let store = layer.layer(Memory::new());
//! store.put("k", "word ".repeat(1000)).await?;
//! assert_eq!(store.get(b"k").await?, Some("word ".repeat(1000).into()));
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use crate::codec::Codec;
use crate::codec::Compressor;
use crate::error::{Error, Result};
use crate::layer::{Context, LayerConfig, StackLayer, Zone};
use crate::layers::transform::{Transform, TransformLayer, Transformed};
use crate::telemetry::Labels;
use crate::types::Profile;
use crate::types::units::ByteSize;

/// Settings of compression. Changing them changes what is written from then on; `tierstack rewrite`
/// brings what is there to another codec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CompressConfig {
    /// `zstd` (the default) is denser, `lz4` several times as fast to write.
    pub codec: Codec,
    /// The level of zstd, 1 to 19, 3 if not set. Higher levels are denser and slower to write; reading
    /// costs the same. Not to be set for lz4, which has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "config", schemars(range(min = 1, max = 19)))]
    pub level: Option<i32>,
    /// Smaller values are stored as they are. 64B if not set: below it a frame of its own costs more
    /// than it saves.
    pub min_size: ByteSize,
    /// Reads values from before the layer was added as they are. Off if not set: then they are
    /// `Corruption`. Take it out again after `tierstack rewrite`.
    pub accept_plain: bool,
}

impl Default for CompressConfig {
    fn default() -> Self {
        Self { codec: Codec::default(), level: None, min_size: ByteSize(64), accept_plain: false }
    }
}

impl CompressConfig {
    const DEFAULT_LEVEL: i32 = 3;

    fn compressor(&self) -> Result<Compressor> {
        if self.codec == Codec::Lz4 && self.level.is_some() {
            return Err(Error::config("level: lz4 has no levels; take it out, or use zstd"));
        }
        let level = self.level.unwrap_or(Self::DEFAULT_LEVEL);
        Compressor::new(self.codec, level, self.min_size.as_usize())
    }
}

#[async_trait]
impl LayerConfig for CompressConfig {
    const NAME: &'static str = "compress";
    const ZONE: Zone = Zone::Compress;

    fn profile(&self, below: Profile) -> Result<Profile> {
        self.compressor()?;
        Ok(Compressor::profile(self.accept_plain, below))
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>> {
        Ok(CompressLayer::new(self, &context.labels)?.for_stack())
    }
}

/// Compresses the values of the stores that it wraps.
pub type CompressLayer = TransformLayer<Compressor>;

/// A store whose values are compressed below. See the [module docs](self).
pub type Compress<S> = Transformed<S, Compressor>;

impl CompressLayer {
    /// A layer with these settings.
    ///
    /// # Errors
    /// `Config` if they are out of range.
    pub fn new(config: &CompressConfig, labels: &Labels) -> Result<Self> {
        Ok(Self::from_transform(config.compressor()?, config.accept_plain, labels))
    }
}

impl Transform for Compressor {
    const NAME: &'static str = CompressConfig::NAME;

    fn encode(&self, _key: &[u8], value: &[u8]) -> Result<Bytes> {
        self.encode(value)
    }

    fn decode(&self, _key: &[u8], stored: Bytes) -> Result<Bytes> {
        self.decode(stored)
    }

    fn is_frame(stored: &[u8]) -> bool {
        Self::is_frame(stored)
    }

    fn is_current(&self, stored: &[u8]) -> bool {
        self.is_current(stored)
    }

    fn profile(accept_plain: bool, below: Profile) -> Profile {
        let profile = Profile::layer(Self::NAME, below).changed(|stack| {
            let below = stack.limits.value_bytes.unwrap_or(u64::MAX);
            let here = below.saturating_sub(Self::MAX_OVERHEAD as u64);
            stack.limits.value_bytes = Some(here.min(Self::MAX_VALUE_BYTES as u64));
        });
        if !accept_plain {
            return profile;
        }
        profile.note(
            "Values from before the layer was added are read as they are (accept_plain), and damage to the first bytes of a frame goes unnoticed. Run `tierstack rewrite`, then take accept_plain out.",
        )
    }
}
