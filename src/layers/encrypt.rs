//! `encrypt`: values sealed at rest.
//!
//! # Guarantees
//! 1. Whoever has the store below, its files and its backups, but not the key ring, learns of a value
//!    nothing but its length. The cipher is [XAES-256-GCM](https://c2sp.org/XAES-256-GCM); each value has
//!    a fresh nonce of 24 bytes from the operating system.
//! 2. A value that was changed, or moved to another key, does not open: `Corruption`, never other bytes.
//! 3. Keys can be rotated under live data: a new entry put *first* in the ring seals what is written from
//!    then on, the others still open what is there, and `tierstack rewrite` moves that over.
//! 4. No key is ever printed, logged or serialised, and keys are wiped from memory after use.
//!
//! # Gives up
//! 49 bytes a value, and the time of the cipher. Keys, expiries, lengths and the times of changes stay
//! visible: a store must sort and expire. A whole store, or one entry, can be put back to an *older* value
//! of the same key by whoever writes below: backups are, and no layer can tell. The ring lost, all is lost.
//!
//! # Position
//! Inside `compress`: sealed bytes do not compress. Everything below, with its files, journals and
//! buckets, holds sealed values; a cache outside it holds plain ones in memory. Each value is bound to
//! its key as this layer sees it, so a `prefix` layer must not move from one side of it to the other.
//!
//! # Cancellation
//! As the store below: a dropped write takes effect wholly or not at all. Sealing is done before it.
//!
//! # Errors
//! `Corruption` (of one entry; a scan that meets it ends): damaged, moved, or sealed under a key that the
//! ring does not hold, whose id the message then names. `Config` for a malformed or mistyped ring, before
//! anything is read or written. A batch of more than 256 KiB is sealed on a thread for blocking work.
//!
//! # Metrics
//! | name | type | labels | a rise means |
//! |---|---|---|---|
//! | `tierstack_codec_bytes_total` | counter | stack, layer, stage (`logical`, `stored`), op (`write`, `read`) | more or larger values |
//!
//! # Configuration
//! `encrypt: { keys: { env: ORDERS_KEYS }, accept_plain: false }`, or `{ file: PATH }`. The form of a ring
//! is that of [`KeyRing`]; `tierstack keys generate` prints an entry.
//!
//! With `accept_plain: true` a value that does not begin like a frame is read as it is, so that the layer
//! can be added to a store that has values. Until it is taken out again, plain values rest in the store
//! (which does not count as sealed), and **whoever can write to the store below can plant plain values**.
//! So run `tierstack rewrite`, and take the setting out.
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::Memory;
//! use tierstack::codec::KeyRing;
//! use tierstack::layers::encrypt::EncryptLayer;
//! use tierstack::telemetry::Labels;
//! use tierstack::{Layer, Read, Store, StoreExt};
//!
//! let ring = KeyRing::parse(KeyRing::generate()?.expose())?;
//! let store = EncryptLayer::new(ring, false, &Labels::default()).layer(Memory::new());
//! store.put("k", "secret").await?;
//! assert_eq!(store.get(b"k").await?, Some("secret".into()));
//! assert!(store.profile().guarantees.sealed_everywhere());
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::KeyRing;
use crate::error::Result;
use crate::layer::{Context, LayerConfig, StackLayer, Zone};
use crate::layers::transform::{Transform, TransformLayer, Transformed};
use crate::telemetry::Labels;
use crate::types::Profile;
use crate::types::units::Secret;

/// Settings of encryption. They say where the keys are, never what they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EncryptConfig {
    /// Where the key ring is read from: `{ env: NAME }` or `{ file: PATH }`. The first entry seals, all
    /// open.
    pub keys: Secret,
    /// Reads values from before the layer was added as they are. Off if not set: then they are
    /// `Corruption`. While it is on, the store does not count as sealed, and whoever can write to it can
    /// plant plain values. Take it out again after `tierstack rewrite`.
    #[serde(default)]
    pub accept_plain: bool,
}

#[async_trait]
impl LayerConfig for EncryptConfig {
    const NAME: &'static str = "encrypt";
    const ZONE: Zone = Zone::Encrypt;

    fn profile(&self, below: Profile) -> Result<Profile> {
        Ok(KeyRing::profile(self.accept_plain, below))
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>> {
        let keys = match &self.keys {
            Secret::File(path) => Secret::File(context.resolve(path)).read()?,
            Secret::Env(_) => self.keys.read()?,
        };
        let ring = KeyRing::parse(keys.expose())?;
        Ok(EncryptLayer::new(ring, self.accept_plain, &context.labels).for_stack())
    }
}

/// Seals the values of the stores that it wraps.
pub type EncryptLayer = TransformLayer<KeyRing>;

/// A store whose values are sealed below. See the [module docs](self).
pub type Encrypt<S> = Transformed<S, KeyRing>;

impl EncryptLayer {
    /// A layer that seals with the first key of a ring, and reads plain values only if it is told to.
    #[must_use]
    pub fn new(ring: KeyRing, accept_plain: bool, labels: &Labels) -> Self {
        Self::from_transform(ring, accept_plain, labels)
    }
}

impl Transform for KeyRing {
    const NAME: &'static str = EncryptConfig::NAME;

    fn encode(&self, key: &[u8], value: &[u8]) -> Result<Bytes> {
        self.seal(key, value)
    }

    fn decode(&self, key: &[u8], stored: Bytes) -> Result<Bytes> {
        self.open(key, stored)
    }

    fn is_frame(stored: &[u8]) -> bool {
        Self::is_frame(stored)
    }

    fn is_current(&self, stored: &[u8]) -> bool {
        self.is_current(stored)
    }

    fn profile(accept_plain: bool, below: Profile) -> Profile {
        let profile = Profile::layer(Self::NAME, below).changed(|stack| {
            if let Some(limit) = &mut stack.limits.value_bytes {
                *limit = limit.saturating_sub(Self::OVERHEAD as u64);
            }
            if !accept_plain {
                stack.places.iter_mut().for_each(|place| place.sealed = true);
            }
        });
        if accept_plain {
            profile.note(
                "Values from before the layer was added are read as they are (accept_plain): what is below may hold plain values, so it does not count as sealed, and whoever can write to it can plant plain values. Run `tierstack rewrite`, then take accept_plain out.",
            )
        } else {
            profile.note("Values are sealed from here down. Keys, expiries and lengths are not.")
        }
    }
}
