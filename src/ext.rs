//! [`StoreExt`] and [`ReadExt`]: conveniences for everybody who uses a store.

use std::future::Future;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

use crate::error::Result;
use crate::reply::Reply;
use crate::store::{Pages, Read, Store};
use crate::types::{Batch, Commit, Entry, Scan, Value};

/// Conveniences of everything that can be read: stores and snapshots.
///
/// ```
/// # tokio_test::block_on(async {
/// use futures_util::TryStreamExt;
/// use tierstack::backends::Memory;
/// use tierstack::{Batch, ReadExt, Scan, Store};
///
/// let store = Memory::new();
/// store.write(Batch::new().put("user:1", "Ada").put("user:2", "Bob")).await?;
/// assert_eq!(store.collect(Scan::prefix("user:")).await?.len(), 2);
///
/// let mut users = store.entries(Scan::prefix("user:").reverse());
/// assert_eq!(users.try_next().await?.unwrap().value, "Bob".into());
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
pub trait ReadExt: Read {
    /// Whether the key exists. Reads its value.
    ///
    /// # Errors
    /// As [`Read::get`].
    fn contains<'a>(&'a self, key: &'a [u8]) -> Reply<'a, bool> {
        self.get(key).map(|value| value.is_some())
    }

    /// The entries whose keys begin with the prefix, in key order, a page at a time.
    fn scan_prefix(&self, prefix: &[u8]) -> Pages<'_> {
        self.scan(Scan::prefix(prefix))
    }

    /// The entries of a scan, one at a time.
    fn entries(&self, scan: Scan) -> BoxStream<'_, Result<Entry>> {
        self.scan(scan)
            .map_ok(|page| futures_util::stream::iter(page.entries.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    /// The entries of a scan, all in memory.
    ///
    /// # Errors
    /// The first error of the scan.
    fn collect(&self, scan: Scan) -> impl Future<Output = Result<Vec<Entry>>> + Send {
        async move {
            let pages: Vec<_> = self.scan(scan).try_collect().await?;
            Ok(pages.into_iter().flat_map(|page| page.entries).collect())
        }
    }
}

impl<R: Read + ?Sized> ReadExt for R {}

/// Conveniences of every store.
///
/// ```
/// # tokio_test::block_on(async {
/// use tierstack::backends::Memory;
/// use tierstack::{Read, ReadExt, StoreExt};
///
/// let store = Memory::new();
/// store.put("user:1", "Ada").await?;
/// assert!(store.contains(b"user:1").await?);
/// store.delete("user:1").await?;
/// assert_eq!(store.get(b"user:1").await?, None);
/// # Ok::<(), tierstack::Error>(()) }).unwrap();
/// ```
pub trait StoreExt: Store {
    /// Sets the value of one key.
    ///
    /// # Errors
    /// As [`Store::write`].
    fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Value>,
    ) -> impl Future<Output = Result<Commit>> + Send {
        self.write(Batch::new().put(key, value))
    }

    /// Removes one key.
    ///
    /// # Errors
    /// As [`Store::write`].
    fn delete(&self, key: impl Into<Bytes>) -> impl Future<Output = Result<Commit>> + Send {
        self.write(Batch::new().delete(key))
    }
}

impl<S: Store + ?Sized> StoreExt for S {}
