//! `encrypt`: values sealed at rest.
//!
//! # Guarantees
//! 1. Without the key ring, a reader of the store below, its files and its backups learns only the length of a value. The
//!    cipher is [XAES-256-GCM](https://c2sp.org/XAES-256-GCM); each value has a fresh nonce of 24 bytes from the system.
//! 2. A value that was changed, or moved to another key, gives `Corruption`, never other bytes. So does a value that was
//!    written with a deadline, if the deadline was changed below by a second or more.
//! 3. Keys can be rotated under live data: the *first* entry of the ring seals new values, the others still open what is there,
//!    and `tierstack rewrite` seals that by the first one.
//! 4. No key is ever printed, logged or serialised, and keys are wiped from memory after use.
//!
//! # Gives up
//! 49 bytes a value, 57 with a deadline, and the time of the cipher. Keys, expiries, lengths and the times of changes stay
//! visible, as a store must sort and expire. A deadline that a layer or store below gives to entries written without one is not
//! sealed. A writer below can put an *older* value of the same key back, as a restore does; no layer can tell. With one ring
//! for two stores it can also swap their values of a key: give each store its own ring. Without the ring, the values are lost.
//!
//! # Position
//! Inside `compress`, as sealed bytes do not compress. Everything below, with its files, journals and buckets, holds sealed
//! values; a cache outside it holds plain ones in memory. Each value is bound to its key as this layer sees it, so a `prefix`
//! layer must not move from one side of it to the other.
//!
//! # Cancellation
//! As in the store below: a dropped write takes effect wholly or not at all. Values are sealed before it.
//!
//! # Errors
//! `Corruption` of one entry that is damaged, moved, or sealed by a key that the ring does not hold (the message names its id);
//! a scan ends at it. `Config` for a malformed ring, before anything is read or written, and for a put into a store whose first
//! 16 values are all sealed by keys that the ring does not hold, so that the wrong ring never mixes. A scan of keys only opens
//! no value, so a writer below can add a key to it, or hide one by its deadline. A batch over 256 KiB is sealed on a blocking thread.
//!
//! # Metrics
//! `tierstack_codec_bytes_total`: bytes by stage (`logical`, `stored`) and op (`write`, `read`).
//!
//! # Configuration
//! `encrypt: { keys: { env: ORDERS_KEYS }, accept_plain: false }`, or `{ file: PATH }`. The form of a ring is that of
//! [`KeyRing`]; `tierstack keys generate` prints an entry.
//!
//! With `accept_plain: true` a value that does not begin like a frame is read as it is, so that the layer can be added to a
//! store that has values. The store does not count as sealed then, and **a program that can write to the store below can plant
//! plain values**. So run `tierstack rewrite`, and remove the setting.
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
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::KeyRing;
use crate::error::{Error, Result};
use crate::layer::{Context, LayerConfig, StackLayer, Zone};
use crate::layers::transform::{Transform, TransformLayer, Transformed};
use crate::telemetry::Labels;
use crate::types::units::Secret;
use crate::types::{Profile, Value};

/// Settings of encryption. They say where the keys are, never what they are.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use tierstack::backends::Memory;
/// use tierstack::codec::KeyRing;
/// use tierstack::layers::encrypt::EncryptConfig;
/// use tierstack::units::Secret;
/// use tierstack::{Context, LayerConfig, Read, StoreExt};
///
/// # let file = folder.path().join("orders.keys");
/// std::fs::write(&file, KeyRing::generate()?.expose()).unwrap();
/// let config = EncryptConfig { keys: Secret::File(file), accept_plain: false };
///
/// let below = Arc::new(Memory::new());
/// let store = config.open(&Context::default()).await?.wrap(below.clone()).await?;
/// store.put("k", "secret").await?;
/// let rests = below.get(b"k").await?.unwrap().bytes;
/// assert!(!rests.windows(6).any(|bytes| bytes == b"secret"));
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EncryptConfig {
    /// Where the key ring is read from: `{ env: NAME }` or `{ file: PATH }`. The first entry seals, all
    /// open.
    pub keys: Secret,
    /// Reads values from before the layer was added as they are. Off if not set: then they are
    /// `Corruption`. While it is on, the store does not count as sealed, and a program that can write to it can
    /// plant plain values. Take it out again after `tierstack rewrite`.
    #[serde(default)]
    pub accept_plain: bool,
}

#[async_trait]
impl LayerConfig for EncryptConfig {
    const NAME: &'static str = "encrypt";
    const ZONE: Zone = Zone::Encrypt;

    fn profile(&self, below: Profile) -> Result<Profile> {
        below.guarantees.check_takes_frames()?;
        Ok(profile(self.accept_plain, below))
    }

    fn register_metrics(&self, context: &Context, _: &Profile) {
        EncryptLayer::register_metrics(&context.labels);
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>> {
        let keys = context.secret(&self.keys).await?;
        let ring = KeyRing::parse(keys.expose())?;
        Ok(EncryptLayer::new(ring, self.accept_plain, &context.labels).for_stack())
    }
}

/// Seals the values of the stores that it wraps. See the [module docs](self).
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

/// A store below may keep deadlines in whole seconds.
const ROUNDING: Duration = Duration::from_secs(1);

impl Transform for KeyRing {
    const NAME: &'static str = EncryptConfig::NAME;

    fn encode(&self, key: &[u8], value: &Value) -> Result<Bytes> {
        self.seal(key, value)
    }

    fn decode(&self, key: &[u8], stored: Value) -> Result<Value> {
        let opened = self.open(key, stored.bytes)?;
        let Some(sealed) = opened.expires_at else {
            // What the store below adds to entries that were written without a deadline.
            return Ok(Value { expires_at: stored.expires_at, ..opened });
        };
        let kept = stored
            .expires_at
            .is_some_and(|stored| stored.since(sealed).max(sealed.since(stored)) < ROUNDING);
        if kept {
            return Ok(opened);
        }
        Err(Error::corruption(
            "the deadline of the entry is not the one that it was written with: it was changed below",
        ))
    }

    /// Encryption keeps the length.
    fn claimed(stored: &[u8]) -> usize {
        stored.len()
    }

    fn is_frame(stored: &[u8]) -> bool {
        Self::is_frame(stored)
    }

    fn is_current(&self, stored: &[u8]) -> bool {
        self.is_current(stored)
    }

    fn is_foreign(&self, stored: &[u8]) -> bool {
        self.is_foreign(stored)
    }

    fn profile(&self, accept_plain: bool, below: Profile) -> Profile {
        profile(accept_plain, below)
    }
}

fn profile(accept_plain: bool, below: Profile) -> Profile {
    let profile = Profile::layer(EncryptConfig::NAME, below).changed(|stack| {
        if let Some(limit) = &mut stack.limits.value_bytes {
            *limit = limit.saturating_sub(KeyRing::OVERHEAD_WITH_DEADLINE as u64);
        }
        if !accept_plain {
            stack.places.iter_mut().for_each(|place| place.sealed = true);
        }
    });
    if accept_plain {
        profile.note(
            "Values from before the layer was added are read as they are (accept_plain): what is below may hold plain values, so it does not count as sealed, and a program that can write to it can plant plain values. Run `tierstack rewrite`, then take accept_plain out.",
        )
    } else {
        profile.note("Values are sealed from here down. Keys, expiries and lengths stay visible.")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backends::Memory;
    use crate::types::units::SecretText;
    use crate::{ErrorKind, Layer, Read, ReadExt, Rewrite, Scan, Store, StoreExt, Timestamp};

    fn keys<const N: usize>() -> [SecretText; N] {
        [(); N].map(|()| KeyRing::generate().unwrap())
    }

    fn layer(keys: &[&SecretText], accept_plain: bool) -> EncryptLayer {
        let text: Vec<&str> = keys.iter().map(|key| key.expose()).collect();
        let ring = KeyRing::parse(&text.join(",")).unwrap();
        EncryptLayer::new(ring, accept_plain, &Labels::new("s", "encrypt"))
    }

    async fn put(store: &impl Store, key: &'static str, value: impl Into<crate::Value>) {
        store.put(key, value).await.unwrap().durable().await.unwrap();
    }

    #[track_caller]
    fn corruption(error: &Error) -> String {
        assert_eq!((error.kind(), error.layer()), (ErrorKind::Corruption, Some("encrypt")));
        assert!(error.key_fingerprint().is_some());
        error.to_string()
    }

    #[tokio::test]
    async fn nothing_below_holds_the_value() {
        let memory = Arc::new(Memory::new());
        let [key] = keys();
        put(&layer(&[&key], false).layer(Arc::clone(&memory)), "k", "a long secret value").await;
        let below = memory.get(b"k").await.unwrap().unwrap().bytes;
        assert!(!below.windows(6).any(|window| window == b"secret"));
        assert_eq!(below.len(), 19 + 49);
    }

    #[tokio::test]
    async fn a_deadline_that_was_changed_below_is_corruption() {
        let memory = Arc::new(Memory::new());
        let [key] = keys();
        let store = layer(&[&key], false).layer(Arc::clone(&memory));
        let at = |seconds: u64| Timestamp::from_millis((1 << 45) + seconds * 1000 + 123);
        put(&store, "k", crate::Value::from("v").expiring_at(at(0))).await;
        put(&store, "for ever", "v").await;
        let sealed = memory.get(b"k").await.unwrap().unwrap();
        // A store below that keeps whole seconds changes nothing.
        let second = Timestamp::from_millis(at(0).as_millis() / 1000 * 1000);
        put(&memory, "k", crate::Value { expires_at: Some(second), ..sealed.clone() }).await;
        let read = store.get(b"k").await.unwrap().unwrap();
        assert_eq!(read, crate::Value::from("v").expiring_at(at(0)), "as it was written");
        for expires_at in
            [None, Some(at(1)), Some(at(3600)), Some(Timestamp::from_millis(u64::MAX))]
        {
            put(&memory, "k", crate::Value { expires_at, ..sealed.clone() }).await;
            let message = corruption(&store.get(b"k").await.unwrap_err());
            assert!(message.contains("deadline"), "{message}");
        }
        // A default that the store below gives is not the writer's.
        let plain = memory.get(b"for ever").await.unwrap().unwrap();
        put(&memory, "for ever", plain.expiring_at(at(9))).await;
        assert_eq!(store.get(b"for ever").await.unwrap().unwrap().expires_at, Some(at(9)));
    }

    #[tokio::test]
    async fn keys_are_rotated_under_live_data() {
        let memory = Arc::new(Memory::new());
        let [old, new] = keys();
        put(&layer(&[&old], false).layer(Arc::clone(&memory)), "a", "1").await;

        let both = layer(&[&new, &old], false);
        let store = both.layer(Arc::clone(&memory));
        put(&store, "b", "2").await;
        assert_eq!(store.get(b"a").await.unwrap(), Some("1".into()));

        let only_new = layer(&[&new], false).layer(Arc::clone(&memory));
        assert_eq!(only_new.get(b"b").await.unwrap(), Some("2".into()), "under the new key");
        let message = corruption(&only_new.get(b"a").await.unwrap_err());
        let id = |key: &SecretText| key.expose()[4..12].to_owned();
        assert!(message.contains(&id(&old)) && message.contains(&id(&new)), "{message}");

        let rewriter = both.rewriter(Arc::clone(&memory) as _);
        let report = rewriter.rewrite(Scan::all(), &mut |_: &_| ()).await.unwrap();
        assert_eq!((report.examined, report.rewritten), (2, 1));
        assert_eq!(only_new.collect(Scan::all()).await.unwrap().len(), 2, "the old key can go");
    }

    #[tokio::test]
    async fn the_wrong_ring_does_not_mix() {
        let memory = Arc::new(Memory::new());
        let [right, wrong] = keys();
        put(&layer(&[&right], false).layer(Arc::clone(&memory)), "a", "1").await;
        let mistaken = layer(&[&wrong], false).layer(Arc::clone(&memory));
        let error = mistaken.put("b", "2").await.unwrap_err();
        assert_eq!((error.kind(), error.layer()), (ErrorKind::Config, Some("encrypt")));
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.contains(&right.expose()[4..12]), "{why}");
        assert_eq!(memory.get(b"b").await.unwrap(), None);
        // What cannot be read can be removed, and then the ring is as good as any.
        mistaken.delete("a").await.unwrap().durable().await.unwrap();
        put(&mistaken, "b", "2").await;
    }

    #[tokio::test]
    async fn one_value_under_a_lost_key_does_not_stop_writes() {
        let memory = Arc::new(Memory::new());
        let [lost, ring] = keys();
        put(&layer(&[&ring], false).layer(Arc::clone(&memory)), "b", "2").await;
        let lost = layer(&[&lost, &ring], false).layer(Arc::clone(&memory));
        put(&lost, "a", "1").await;
        put(&layer(&[&ring], false).layer(Arc::clone(&memory)), "c", "3").await;
    }

    #[tokio::test]
    async fn a_rewrite_without_the_old_key_leaves_its_values_alone() {
        let memory = Arc::new(Memory::new());
        let [old, new] = keys();
        let before = layer(&[&old], false).layer(Arc::clone(&memory));
        put(&before, "a", "1").await;
        let rewriter = layer(&[&new], true).rewriter(Arc::clone(&memory) as _);
        let report = rewriter.rewrite(Scan::all(), &mut |_: &_| ()).await.unwrap();
        assert_eq!((report.rewritten, report.damaged), (0, 1));
        corruption(&report.first_damage.unwrap());
        assert_eq!(before.get(b"a").await.unwrap(), Some("1".into()));
    }

    #[tokio::test]
    async fn values_that_were_swapped_below_do_not_open() {
        let memory = Arc::new(Memory::new());
        let [key] = keys();
        let store = layer(&[&key], true).layer(Arc::clone(&memory));
        put(&store, "mine", "1").await;
        put(&store, "yours", "1000000").await;
        let yours = memory.get(b"yours").await.unwrap().unwrap();
        put(&memory, "mine", yours).await;
        corruption(&store.get(b"mine").await.unwrap_err());
        corruption(&store.get_many(&["yours".into(), "mine".into()]).await.unwrap_err());
        corruption(&store.collect(Scan::all()).await.unwrap_err());
        corruption(&store.snapshot().await.unwrap().get(b"mine").await.unwrap_err());
        assert_eq!(store.get(b"yours").await.unwrap(), Some("1000000".into()));
    }

    #[tokio::test]
    async fn the_layer_can_be_added_to_a_store_that_has_values() {
        let memory = Arc::new(Memory::new());
        put(&memory, "old", "plain").await;
        let [key] = keys();
        let strict = layer(&[&key], false).layer(Arc::clone(&memory));
        let message = corruption(&strict.get(b"old").await.unwrap_err());
        assert!(message.contains("accept_plain: true"), "{message}");

        let open = layer(&[&key], true);
        let store = open.layer(Arc::clone(&memory));
        assert_eq!(store.get(b"old").await.unwrap(), Some("plain".into()));
        put(&store, "new", "sealed").await;

        let rewriter = open.rewriter(Arc::clone(&memory) as _);
        assert_eq!(rewriter.rewrite(Scan::all(), &mut |_: &_| ()).await.unwrap().rewritten, 1);
        assert_eq!(strict.collect(Scan::all()).await.unwrap().len(), 2);
    }

    #[test]
    fn what_is_below_counts_as_sealed_unless_plain_values_may_rest_there() {
        let place = crate::Place { name: "disk".into(), what: "files".into(), sealed: false };
        let below = Memory::new().profile().changed(|stack| stack.places.push(place));
        for accept_plain in [false, true] {
            let config = EncryptConfig { keys: Secret::Env("KEYS".to_owned()), accept_plain };
            let profile = LayerConfig::profile(&config, below.clone()).unwrap();
            assert_eq!(profile.guarantees.sealed_everywhere(), !accept_plain);
            assert_eq!(profile.notes[0].contains("tierstack rewrite"), accept_plain);
            assert!(
                !profile.below.unwrap().guarantees.sealed_everywhere(),
                "below, it is as it was"
            );
        }
    }

    #[tokio::test]
    async fn a_config_reads_its_ring_when_it_opens_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context { folder: folder.path().to_owned(), ..Context::default() };
        let config = EncryptConfig { keys: Secret::File("ring".into()), accept_plain: false };
        assert!(LayerConfig::profile(&config, Memory::new().profile()).is_ok());
        let missing = config.open(&context).await.err().unwrap();
        assert!(missing.message().contains("ring"), "{missing}");

        let [key] = keys();
        let mistyped = key.expose().replace(':', ";");
        std::fs::write(folder.path().join("ring"), &mistyped).unwrap();
        let error = config.open(&context).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains("entry 1"), "{error}");

        std::fs::write(folder.path().join("ring"), format!("{}\n", key.expose())).unwrap();
        let store =
            config.open(&context).await.unwrap().wrap(Arc::new(Memory::new())).await.unwrap();
        store.put("k", "v").await.unwrap().durable().await.unwrap();
        assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
    }

    #[tokio::test]
    async fn nothing_that_can_be_printed_holds_a_key_or_a_value() {
        let [key] = keys();
        let layer = layer(&[&key], false);
        let memory = Arc::new(Memory::new());
        let store = layer.layer(Arc::clone(&memory));
        put(&store, "user-key", "user-value").await;
        put(&memory, "user-key", "user-value").await;
        let error = store.get(b"user-key").await.unwrap_err();
        let config = EncryptConfig { keys: Secret::Env("KEYS".to_owned()), accept_plain: false };
        let ring = KeyRing::parse(key.expose()).unwrap();
        let printed = format!(
            "{key:?} {ring:?} {layer:?} {store:?} {config:?} {error} {error:?} {:?} {}",
            store.profile(),
            store.profile()
        );
        for hidden in [&key.expose()[13..], "user-key", "user-value"] {
            assert!(!printed.contains(hidden), "{printed}");
        }
    }
}
