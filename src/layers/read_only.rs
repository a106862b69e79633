//! `read_only`: reads pass, writes are refused.
//!
//! # Guarantees
//! Nothing written through this layer reaches the store below, and `compact` does not either.
//!
//! # Gives up
//! Writes. Others may still write to the store below; their writes are seen.
//!
//! # Position
//! Anywhere. Outermost, it also spares the layers below from writes of their own users.
//!
//! # Cancellation
//! As the store below.
//!
//! # Errors
//! `Access` for `write`, also of an empty batch, for `ingest`, and for `compact`. `flush` and `close` pass: they keep
//! what others wrote, and change nothing.
//!
//! # Metrics
//! None.
//!
//! # Configuration
//! `read_only: {}`
//!
//! # Example
//! ```
//! # tokio_test::block_on(async {
//! use tierstack::backends::Memory;
//! use tierstack::layers::read_only::ReadOnlyLayer;
//! use tierstack::{ErrorKind, Layer, Read, StoreExt};
//!
//! let store = ReadOnlyLayer.layer(Memory::new());
//! assert_eq!(store.get(b"k").await?, None);
//! assert_eq!(store.put("k", "v").await.unwrap_err().kind(), ErrorKind::Access);
//! # Ok::<(), tierstack::Error>(()) }).unwrap();
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::forward;
use crate::layer::{Context, Layer, LayerConfig, StackLayer, Zone};
use crate::store::{Pages, Read, Store};
use crate::types::{Batch, Commit, Conditions, Profile};
use crate::write_group::complete;

/// Settings of the read-only layer: none.
///
/// ```
/// use tierstack::backends::Memory;
/// use tierstack::layers::read_only::ReadOnlyConfig;
/// use tierstack::{LayerConfig, Store};
///
/// let guarantees = ReadOnlyConfig {}.profile(Memory::new().profile())?;
/// assert!(!guarantees.guarantees.writable);
/// # Ok::<(), tierstack::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "config", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ReadOnlyConfig {}

#[async_trait]
impl LayerConfig for ReadOnlyConfig {
    const NAME: &'static str = "read_only";
    const ZONE: Zone = Zone::Guard;

    fn profile(&self, below: Profile) -> Result<Profile> {
        Ok(profile(below))
    }

    async fn open(&self, _: &Context) -> Result<Arc<dyn StackLayer>> {
        Ok(Arc::new(ReadOnlyLayer))
    }
}

fn profile(below: Profile) -> Profile {
    Profile::layer(ReadOnlyConfig::NAME, below).changed(|guarantees| {
        guarantees.writable = false;
        guarantees.conditions = Conditions::None;
        guarantees.ingest = false;
    })
}

/// Refuses writes to the stores it wraps. See the [module docs](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnlyLayer;

impl<S> Layer<S> for ReadOnlyLayer {
    type Service = ReadOnly<S>;

    fn layer(&self, inner: S) -> ReadOnly<S> {
        ReadOnly { inner, closed: AtomicBool::new(false) }
    }
}

/// See the [module docs](self).
#[derive(Debug)]
pub struct ReadOnly<S> {
    inner: S,
    /// What is refused never reaches the store below, which would tell.
    closed: AtomicBool,
}

impl<S> ReadOnly<S> {
    fn refusal(&self, operation: Operation) -> Error {
        let error = if self.closed.load(Ordering::Acquire) {
            Error::closed()
        } else {
            Error::new(
                ErrorKind::Access,
                "the stack is read-only; remove the layer `read_only` to change what it holds",
            )
        };
        error.with_layer(ReadOnlyConfig::NAME).with_operation(operation)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: Read> Read for ReadOnly<S> {
    forward!(self => self.inner; get, get_many, scan);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> Store for ReadOnly<S> {
    async fn write(&self, _: Batch) -> Result<Commit> {
        Err(self.refusal(Operation::Write))
    }

    async fn write_group(&self, group: Vec<Batch>) -> Vec<Result<Commit>> {
        complete(vec![Err(self.refusal(Operation::Write))], group.len())
    }

    async fn ingest(&self, _: Pages<'_>) -> Result<u64> {
        Err(self.refusal(Operation::Ingest))
    }

    async fn compact(&self) -> Result<()> {
        Err(self.refusal(Operation::Compact))
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        self.inner.close().await
    }

    fn profile(&self) -> Profile {
        profile(self.inner.profile())
    }

    forward!(self => self.inner; changes, invalidate, inspect, snapshot, flush, usage, count, identity);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::Memory;
    use crate::clock::ManualClock;
    use crate::ext::{ReadExt, StoreExt};
    use crate::testing::conformance::{Fixture, assert_conforms};
    use crate::types::Scan;

    #[tokio::test]
    async fn nothing_reaches_the_store_below() {
        let below = Arc::new(Memory::new());
        let _ = below.put("k", "v").await.unwrap();
        let store = ReadOnlyLayer.layer(Arc::clone(&below));
        let from = Memory::new();
        let _ = from.put("k", "other").await.unwrap();
        for refused in [
            store.put("k", "new").await.unwrap_err(),
            store.delete("k").await.unwrap_err(),
            store.write(Batch::new()).await.unwrap_err(),
            store.compact().await.unwrap_err(),
            store.write(Batch::new().put("new", "v").if_absent()).await.unwrap_err(),
            store.ingest(from.scan(Scan::all())).await.unwrap_err(),
            store.load(from.scan(Scan::all())).await.unwrap_err(),
        ] {
            assert_eq!(refused.kind(), ErrorKind::Access);
            assert!(refused.to_string().contains("`read_only`"), "{refused}");
        }
        assert_eq!(below.get(b"k").await.unwrap(), Some("v".into()));
    }

    #[tokio::test]
    async fn reads_pass() {
        let below = Memory::new();
        let _ = below.put("k", "v").await.unwrap();
        let store = ReadOnlyLayer.layer(below);
        assert_eq!(store.get(b"k").await.unwrap(), Some("v".into()));
        assert_eq!(store.get_many(&["k".into()]).await.unwrap(), [Some("v".into())]);
        assert_eq!(store.collect(Scan::all()).await.unwrap().len(), 1);
        assert!(store.snapshot().await.unwrap().contains(b"k").await.unwrap());
        store.flush().await.unwrap();
        assert_eq!(store.usage().await.unwrap().entries, Some(1));
        store.close().await.unwrap();
    }

    #[test]
    fn the_profile_says_so() {
        let below = Memory::new().profile();
        assert!(below.guarantees.writable);
        assert!(!ReadOnlyConfig {}.profile(below).unwrap().guarantees.writable);
        let guarantees = ReadOnlyLayer.layer(Memory::new()).profile().guarantees;
        assert!(
            !guarantees.writable && !guarantees.ingest && guarantees.conditions == Conditions::None
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_contract_is_kept() {
        assert_conforms(|| async {
            let clock = ManualClock::new();
            let memory = Memory::with_clock(Arc::new(clock.clone()));
            Ok(Fixture::new(ReadOnlyLayer.layer(memory)).with_clock(&clock))
        })
        .await;
    }
}
