//! `compress`: values made smaller.
//!
//! # Guarantees
//! 1. A value comes back as it was written, or the read fails with `Corruption`: a damaged, truncated or
//!    foreign frame is never passed on.
//! 2. Stored values say how they were compressed, so the settings may change at any time: what is there
//!    stays readable, and what is written follows the new ones.
//! 3. No value grows by more than 14 bytes (11 below 16 KiB, 12 below 2 MiB). What does not shrink by a sixteenth is
//!    stored as it is, and read without a copy.
//! 4. Nothing is decoded, and no memory taken, before the checksum and the claimed length were checked.
//!
//! # Gives up
//! The time of the codec on each write and read. Values are bounded by `max_value`, 1 GiB at most. The store below can no
//! longer be read without this layer.
//!
//! # Position
//! Outside `encrypt`: sealed bytes do not compress. Inside `cache`, which then spares the decoding.
//!
//! # Cancellation
//! As the store below: a dropped write takes effect wholly or not at all. Encoding is done before it.
//!
//! # Errors
//! `Corruption` (of one entry; a scan that meets it ends), `InvalidInput` for a value over `max_value`. What is
//! more than 256 KiB, or claims to be, is encoded and decoded on a thread for blocking work. A scan of keys only decodes
//! nothing, so it gives the key of a damaged value.
//!
//! # Metrics
//! | name | type | labels | a rise means |
//! |---|---|---|---|
//! | `tierstack_codec_bytes_total` | counter | stack, layer, stage (`logical`, `stored`), op (`write`, `read`) | more or larger values; the ratio of the stages is what compression saves |
//!
//! # Configuration
//! `compress: { codec: zstd, level: 3, min_size: 64B, max_value: 1GiB, accept_plain: false }`
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
use crate::types::units::ByteSize;
use crate::types::{Profile, Value};

/// Settings of compression. Changing them changes what is written from then on; `tierstack rewrite`
/// brings what is there to another codec. See the [module docs](self).
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
    /// The largest value that is written and read. A frame that claims more is `Corruption`, before memory
    /// is taken for it. 1GiB if not set, which is the most.
    pub max_value: ByteSize,
    /// Reads values from before the layer was added as they are. Off if not set: then they are
    /// `Corruption`. Take it out again after `tierstack rewrite`.
    pub accept_plain: bool,
}

impl Default for CompressConfig {
    fn default() -> Self {
        Self {
            codec: Codec::default(),
            level: None,
            min_size: ByteSize(64),
            max_value: ByteSize(Compressor::MAX_VALUE_BYTES as u64),
            accept_plain: false,
        }
    }
}

impl CompressConfig {
    const DEFAULT_LEVEL: i32 = 3;

    fn compressor(&self) -> Result<Compressor> {
        if self.codec == Codec::Lz4 && self.level.is_some() {
            return Err(Error::config("lz4 has no levels; take `level` out, or use zstd")
                .with_setting("level"));
        }
        let level = self.level.unwrap_or(Self::DEFAULT_LEVEL);
        let most = Compressor::MAX_VALUE_BYTES as u64;
        if !(1..=most).contains(&self.max_value.0) {
            return Err(Error::config(format!(
                "max_value is {}; it must be from 1B to {}",
                self.max_value,
                ByteSize(most)
            ))
            .with_setting("max_value"));
        }
        let compressor = Compressor::new(self.codec, level, self.min_size.as_usize())?;
        Ok(compressor.with_max_value(self.max_value.as_usize()))
    }
}

#[async_trait]
impl LayerConfig for CompressConfig {
    const NAME: &'static str = "compress";
    const ZONE: Zone = Zone::Compress;

    fn profile(&self, below: Profile) -> Result<Profile> {
        let compressor = self.compressor()?;
        below.guarantees.check_takes_frames()?;
        Ok(compressor.profile(self.accept_plain, below))
    }

    fn register_metrics(&self, context: &Context, _: &Profile) {
        CompressLayer::register_metrics(&context.labels);
    }

    async fn open(&self, context: &Context) -> Result<Arc<dyn StackLayer>> {
        Ok(CompressLayer::new(self, &context.labels)?.for_stack())
    }
}

/// Compresses the values of the stores that it wraps. See the [module docs](self).
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

    fn encode(&self, _key: &[u8], value: &Value) -> Result<Bytes> {
        self.encode(&value.bytes)
    }

    fn decode(&self, _key: &[u8], stored: Value) -> Result<Value> {
        Ok(Value { bytes: self.decode(stored.bytes)?, expires_at: stored.expires_at })
    }

    fn claimed(stored: &[u8]) -> usize {
        Self::claimed(stored)
    }

    fn is_frame(stored: &[u8]) -> bool {
        Self::is_frame(stored)
    }

    fn is_current(&self, stored: &[u8]) -> bool {
        self.is_current(stored)
    }

    /// Every codec is read, whatever the settings.
    fn is_foreign(&self, _: &[u8]) -> bool {
        false
    }

    fn profile(&self, accept_plain: bool, below: Profile) -> Profile {
        let profile = Profile::layer(Self::NAME, below).changed(|stack| {
            let below = stack.limits.value_bytes.unwrap_or(u64::MAX);
            let here = below.saturating_sub(Self::MAX_OVERHEAD as u64);
            stack.limits.value_bytes = Some(here.min(self.max_value() as u64));
        });
        if !accept_plain {
            return profile;
        }
        profile.note(
            "Values from before the layer was added are read as they are (accept_plain), and damage to the first bytes of a frame goes unnoticed. Run `tierstack rewrite`, then take accept_plain out.",
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::TryStreamExt;

    use super::*;
    use crate::backends::Memory;
    use crate::{ErrorKind, Layer, Read, ReadExt, Rewrite, Scan, Store, StoreExt};

    fn layer(config: &CompressConfig) -> CompressLayer {
        CompressLayer::new(config, &Labels::new("s", "compress")).unwrap()
    }

    fn zstd() -> CompressConfig {
        CompressConfig::default()
    }

    fn lz4() -> CompressConfig {
        CompressConfig { codec: Codec::Lz4, ..zstd() }
    }

    fn text() -> String {
        "A line that occurs again. ".repeat(100)
    }

    async fn put(store: &impl Store, key: &'static str, value: impl Into<crate::Value>) {
        store.put(key, value).await.unwrap().durable().await.unwrap();
    }

    async fn stored(memory: &Memory, key: &str) -> Bytes {
        memory.get(key.as_bytes()).await.unwrap().unwrap().bytes
    }

    #[tokio::test]
    async fn another_codec_reads_what_is_there_and_a_rewrite_brings_it_over() {
        let memory = Arc::new(Memory::new());
        put(&layer(&zstd()).layer(Arc::clone(&memory)), "dense", text()).await;
        let lz4 = layer(&lz4());
        let store = lz4.layer(Arc::clone(&memory));
        put(&store, "fast", text()).await;
        put(&store, "small", "v").await;
        assert_eq!(store.get(b"dense").await.unwrap(), Some(text().into()));

        let before = stored(&memory, "dense").await;
        let rewriter = lz4.rewriter(Arc::clone(&memory) as _);
        let report = rewriter.rewrite(Scan::all(), &mut |_: &_| ()).await.unwrap();
        assert_eq!((report.examined, report.rewritten), (3, 1));
        assert_ne!(stored(&memory, "dense").await, before);
        assert_eq!(store.get(b"dense").await.unwrap(), Some(text().into()));
    }

    #[tokio::test]
    async fn the_layer_can_be_added_to_a_store_that_has_values() {
        let memory = Arc::new(Memory::new());
        put(&memory, "old", text()).await;
        put(&memory, "empty", "").await;
        let strict = layer(&zstd()).layer(Arc::clone(&memory));
        for key in ["old", "empty"] {
            let error = strict.get(key.as_bytes()).await.unwrap_err();
            assert_eq!((error.kind(), error.layer()), (ErrorKind::Corruption, Some("compress")));
            assert!(error.message().contains("accept_plain: true"), "{error}");
        }

        let open = layer(&CompressConfig { accept_plain: true, ..zstd() });
        let store = open.layer(Arc::clone(&memory));
        put(&store, "new", text()).await;
        for key in ["old", "new"] {
            assert_eq!(store.get(key.as_bytes()).await.unwrap(), Some(text().into()));
        }
        let damaged = [&stored(&memory, "new").await[..], b"more"].concat();
        put(&memory, "bad", damaged).await;
        assert_eq!(store.get(b"bad").await.unwrap_err().kind(), ErrorKind::Corruption);
        memory.delete("bad").await.unwrap().durable().await.unwrap();

        let rewriter = open.rewriter(Arc::clone(&memory) as _);
        assert_eq!(rewriter.rewrite(Scan::all(), &mut |_: &_| ()).await.unwrap().rewritten, 2);
        assert_eq!(strict.get(b"old").await.unwrap(), Some(text().into()));
        assert_eq!(strict.get(b"empty").await.unwrap(), Some("".into()));
        assert!(stored(&memory, "old").await.len() < 100);
    }

    #[tokio::test]
    async fn a_scan_of_values_that_compress_well_holds_one_page_at_a_time() {
        let store = layer(&zstd()).layer(Memory::new());
        for n in 0..20u8 {
            put(&store, ["a", "b", "c", "d"][usize::from(n % 4)], vec![n; 1 << 20]).await;
        }
        let pages: Vec<_> = store.scan(Scan::all()).try_collect().await.unwrap();
        assert_eq!(pages.iter().map(crate::Page::len).collect::<Vec<_>>(), [1; 4]);
        let reverse = store.collect(Scan::all().reverse().limit(2)).await.unwrap();
        assert_eq!(reverse.iter().map(|entry| &entry.key[..]).collect::<Vec<_>>(), [b"d", b"c"]);
    }

    #[tokio::test]
    async fn a_stack_finds_the_rewriter_of_the_layer() {
        let opened = zstd().open(&Context::default()).await.unwrap();
        let memory: Arc<dyn Store> = Arc::new(Memory::new());
        memory.put("k", text()).await.unwrap().durable().await.unwrap();
        let accepting = CompressConfig { accept_plain: true, ..zstd() };
        let accepting = accepting.open(&Context::default()).await.unwrap();
        let rewriter = accepting.rewriter(Arc::clone(&memory)).unwrap();
        assert_eq!(rewriter.name(), "compress");
        assert_eq!(rewriter.rewrite(Scan::all(), &mut |_: &_| ()).await.unwrap().rewritten, 1);
        assert_eq!(
            opened.wrap(memory).await.unwrap().get(b"k").await.unwrap(),
            Some(text().into())
        );
    }

    #[test]
    fn bytes_are_counted_before_and_after_in_both_directions() {
        let recorder = metrics_util::debugging::DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            tokio_test::block_on(async {
                let store = layer(&zstd()).layer(Memory::new());
                put(&store, "k", text()).await;
                store.get(b"k").await.unwrap();
                store.collect(Scan::all()).await.unwrap();
            });
        });
        let mut counted: Vec<(String, u64)> = snapshotter
            .snapshot()
            .into_vec()
            .into_iter()
            .map(|(key, _, _, value)| {
                let labels: Vec<_> = key.key().labels().map(metrics::Label::value).collect();
                let metrics_util::debugging::DebugValue::Counter(count) = value else {
                    panic!("not a counter")
                };
                assert_eq!(key.key().name(), "tierstack_codec_bytes_total");
                (labels.join(" "), count)
            })
            .collect();
        counted.sort();
        let stored = counted[3].1;
        assert!(stored < 200);
        let expected = [
            ("s compress logical read", 2 * 2600),
            ("s compress logical write", 2600),
            ("s compress stored read", 2 * stored),
            ("s compress stored write", stored),
        ];
        assert_eq!(counted, expected.map(|(labels, count)| (labels.to_owned(), count)));
    }

    #[test]
    fn settings_out_of_range_are_refused_without_opening() {
        let below = || Memory::new().profile();
        let level = |codec, level| CompressConfig { codec, level: Some(level), ..zstd() };
        for (config, word) in [
            (level(Codec::Zstd, 0), "1 to 19"),
            (level(Codec::Zstd, 23), "1 to 19"),
            (level(Codec::Lz4, 3), "lz4 has no levels"),
        ] {
            let error = LayerConfig::profile(&config, below()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(word), "{error}");
        }
        let profile = LayerConfig::profile(&zstd(), below()).unwrap();
        assert_eq!(profile, layer(&zstd()).layer(Memory::new()).profile());
        assert_eq!(profile.guarantees.limits.value_bytes, Some(1 << 30));
        assert!(profile.notes.is_empty());
    }
}
